// The way from the first screen to the saved file.
let session = null;

function show(id) {
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== id;
  window.scrollTo(0, 0);
  byId(id).querySelector("h1").focus();
}

function welcome() {
  const kept = loadSession();
  if (kept && numDone(kept) === trialsOf(kept).length) {
    session = kept;
    end();
    return;
  }
  byId("no-storage").hidden = keepSession(kept);
  byId("resume").hidden = kept === null;
  byId("start").hidden = kept !== null;
  if (kept) {
    byId("resume-text").textContent = `You have done ${numDone(kept)} of ${trialsOf(kept).length} steps in this browser.`;
  }
  byId("continue").onclick = () => { session = kept; next(); };
  byId("discard").onclick = () => { saveFile(kept); keepSession(null); welcome(); };
  const given = new URLSearchParams(location.search).get("participant");
  if (given !== null) byId("participant").value = given;
  show("welcome");
}

function start(event) {
  event.preventDefault();
  const given = byId("participant").value.trim();
  const known = given === "" || (/^\d+$/.test(given) && Number(given) >= 1 && Number(given) <= study.slots.length);
  const problem = !known ? [`The participant number is between 1 and ${study.slots.length}; leave it empty if you have none.`, "participant"]
    : !byId("consent").checked ? ["Please agree before you begin.", "consent"] : null;
  byId("participant").ariaInvalid = String(!known);
  byId("start-error").textContent = problem ? problem[0] : "";
  if (problem) {
    byId(problem[1]).focus();
    return;
  }
  session = newSession(given === "" ? drawParticipant() : Number(given));
  keepSession(session);
  next();
}

// Goes to the next step, through an explanation when its kind is new to this visit.
let lastKind = null;
function next() {
  const names = trialsOf(session);
  const done = numDone(session);
  if (done === names.length) {
    end();
    return;
  }
  const { kind } = study.trials[names[done]];
  if (kind !== lastKind) {
    lastKind = kind;
    byId("part-title").textContent = kind === "rating" ? "Rate single videos" : "Compare two videos";
    for (const other of ["rating", "pair"]) if (byId(`part-${other}`)) byId(`part-${other}`).hidden = other !== kind;
    byId("part-continue").onclick = next;
    show("part");
    return;
  }
  byId("progress").max = names.length;
  byId("progress").value = done;
  byId("progress-text").textContent = `${done} of ${names.length} done`;
  byId("trial-title").textContent = `Step ${done + 1}: ${kind === "rating" ? "one video" : "two videos"}`;
  showTrial(names[done], (answer) => {
    if (answer) session.answers.push(answer);
    else session.problems.push({ trial: names[done], reason: "cannot_play" });
    keepSession(session);
    next();
  });
  show("trial");
}

function end() {
  session.finished ??= new Date().toISOString();
  keepSession(session);
  byId("as-text").value = asText(session);
  byId("saved").textContent = "";
  show("end");
}

byId("start").addEventListener("submit", start);
byId("trial-form").addEventListener("keydown", chooseByDigit);
byId("save-early").addEventListener("click", () => saveFile(session));
byId("download").addEventListener("click", () => { byId("saved").textContent = `Saved as ${saveFile(session)}`; });
byId("next-participant").addEventListener("click", () => {
  saveFile(session);
  keepSession(null);
  lastKind = null;
  byId("consent").checked = false;
  byId("participant").value = "";
  welcome();
});
welcome();
