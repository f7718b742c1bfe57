"use strict";
// The lists of the study and one participant's answers, kept in this browser and saved as a file.
const study = JSON.parse(document.getElementById("study-data").textContent);
const STORE = `dicetalk-study:${study.study}`;

function newSession(participant) {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return {
    format: "dicetalk-study-result",
    version: 1,
    study: study.study,
    participant,
    session: [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(""),
    started: new Date().toISOString(),
    finished: null,
    answers: [],
    problems: [],
  };
}

// Everybody without a number draws one: balanced on average, exactly so with numbers that were handed out.
function drawParticipant() {
  return 1 + (crypto.getRandomValues(new Uint32Array(1))[0] % study.slots.length);
}

const trialsOf = (session) => study.slots[session.participant - 1];
// Every trial leaves exactly one entry, an answer or a problem.
const numDone = (session) => session.answers.length + session.problems.length;

function loadSession() {
  try {
    const session = JSON.parse(localStorage.getItem(STORE));
    const usable = session?.study === study.study && Array.isArray(session.answers) && Array.isArray(session.problems)
      && numDone(session) <= trialsOf(session).length;
    return usable ? session : null;
  } catch {
    return null;
  }
}

// Returns whether the browser keeps it.
function keepSession(session) {
  try {
    if (session === null) localStorage.removeItem(STORE);
    else localStorage.setItem(STORE, JSON.stringify(session));
    return true;
  } catch {
    return false;
  }
}

const asText = (session) => JSON.stringify(session, null, 1);

function saveFile(session) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([asText(session)], { type: "application/json" }));
  link.download = `study-${session.study}-${session.participant}-${session.session}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  return link.download;
}
