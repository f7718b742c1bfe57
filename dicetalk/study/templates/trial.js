// One step: players that have to be played to their end, then one question per criterion.
const WATCHED_SHARE = 0.9; // of a video's length, because players do not report the last moments exactly
const byId = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function playedSeconds(video) {
  let sum = 0;
  for (let i = 0; i < video.played.length; i += 1) sum += video.played.end(i) - video.played.start(i);
  return sum;
}

// Returns the players of a step; `changed` is called when one was watched to its end or cannot be played.
function makePlayers(trial, changed) {
  const players = trial.media.map((source, index) => {
    const name = trial.media.length > 1 ? `video ${"AB"[index]}` : "video";
    const title = name[0].toUpperCase() + name.slice(1);
    const video = element("video", { src: source, preload: "auto", playsInline: true, ariaLabel: title, tabIndex: -1 });
    const button = element("button", { type: "button", textContent: `Play ${name}` });
    return { name, video, button, watched: false, broken: false, plays: 0 };
  });
  for (const player of players) {
    const { name, video, button } = player;
    const label = () => {
      button.textContent = !video.paused ? `Stop ${name}` : player.watched ? `Play ${name} again` : `Play ${name}`;
    };
    button.addEventListener("click", () => {
      if (!video.paused) {
        video.pause();
        return;
      }
      players.forEach((other) => other.video.pause());
      video.currentTime = 0;
      video.play().catch(() => {}); // a broken video reports itself through its error event
    });
    video.addEventListener("play", () => { player.plays += 1; label(); });
    video.addEventListener("pause", label);
    video.addEventListener("ended", () => {
      const silent = video.muted || video.volume === 0;
      player.watched ||= !silent && playedSeconds(video) >= WATCHED_SHARE * video.duration;
      label();
      changed(silent ? "Please turn on the sound of the video and play it again." : "");
    });
    video.addEventListener("error", () => { player.broken = true; changed(""); });
  }
  return players;
}

function makeQuestion(criterion, trial) {
  const texts = study.questions[criterion];
  const options = trial.kind === "rating"
    ? study.scale.map((value, i) => [value, `${value}`, i === 0 ? texts.worst : i === study.scale.length - 1 ? texts.best : ""])
    : study.preferences.map((value) => [value, value === "same" ? "No difference" : value.toUpperCase(), ""]);
  const radios = options.map(([value, shown, note]) => {
    const radio = element("input", { type: "radio", name: criterion, value });
    return element("label", {}, radio, element("span", { textContent: shown }), element("small", { textContent: note }));
  });
  const legend = element("legend", { textContent: texts[trial.kind][trial.emotion ?? ""] });
  const group = element("fieldset", { className: "question" }, legend, element("div", { className: "options" }, ...radios));
  group.dataset.criterion = criterion;
  return group;
}

const chosen = (group) => group.querySelector("input:checked");

// A digit chooses the n-th answer of the question that has the focus, and goes on to the next open question.
function chooseByDigit(event) {
  const group = event.target.closest?.(".question");
  const radio = group?.querySelectorAll("input")[Number(event.key) - 1];
  if (!radio || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  radio.checked = true;
  const open = [...document.querySelectorAll(".question")].find((other) => !chosen(other));
  (open ? open.querySelector("input") : byId("trial-form").querySelector("[type=submit]")).focus();
}

// Shows a step; `finished` gets its answer, or `null` when a video could not be played.
function showTrial(name, finished) {
  const trial = study.trials[name];
  const began = performance.now();
  const form = byId("trial-form");
  const answers = byId("answers");
  const error = byId("trial-error");
  error.textContent = "";
  byId("skip").hidden = true;
  const players = makePlayers(trial, (complaint) => {
    const broken = players.some((player) => player.broken);
    const open = players.filter((player) => !player.watched);
    byId("skip").hidden = !broken;
    answers.disabled = open.length > 0;
    byId("status").textContent = broken ? "This video cannot be played here. You may skip it."
      : complaint || (open.length ? `Please play ${open[0].name} to its end.` : "You can answer now.");
  });
  byId("players").replaceChildren(...players.map(({ name: shown, video, button }) => (players.length > 1
    ? element("figure", {}, element("figcaption", { textContent: shown.slice(-1) }), video, button)
    : element("figure", {}, video, button))));
  const groups = study.criteria.map((criterion) => makeQuestion(criterion, trial));
  answers.disabled = true;
  answers.replaceChildren(answers.querySelector("legend"), ...groups);
  byId("status").textContent = players.length > 1 ? "Play both videos to answer." : "Play the video to answer.";

  const leave = (answer) => {
    players.forEach(({ video }) => { video.pause(); video.removeAttribute("src"); video.load(); });
    form.onsubmit = byId("skip").onclick = null;
    finished(answer);
  };
  byId("skip").onclick = () => leave(null);
  form.onsubmit = (event) => {
    event.preventDefault();
    const unseen = players.find((player) => !player.watched);
    const missing = groups.filter((group) => !chosen(group));
    if (unseen || missing.length) {
      error.textContent = unseen ? `Please play ${unseen.name} to its end first.`
        : `Please answer: ${missing.map((group) => study.questions[group.dataset.criterion].label).join(", ")}.`;
      (unseen ? unseen.button : missing[0].querySelector("input")).focus();
      return;
    }
    const read = (value) => (trial.kind === "rating" ? Number(value) : value);
    leave({
      trial: name,
      values: Object.fromEntries(groups.map((group) => [group.dataset.criterion, read(chosen(group).value)])),
      seconds: Math.round((performance.now() - began) / 100) / 10,
      plays: players.map((player) => player.plays),
    });
  };
}
