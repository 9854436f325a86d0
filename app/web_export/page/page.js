// The demonstration page of an export: a button for each line, and for live speech.

import { TalkingHead } from "./talking-head.js";

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);
/** @type {TalkingHead} */
const head = $("head");
const STATES = { idle: "", waiting: "Starting the sound", speaking: "Speaking", listening: "Listening", watching: "Live", paused: "Paused", error: "", loading: "Loading" };

/** @param {string} text @param {() => void} action */
function button(text, action) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.onclick = action;
  return made;
}

const pause = button("Pause", () => (head.state === "paused" ? head.resume() : head.pause()));
const mute = button("Sound off", () => { head.muted = !head.muted; showState(); });

const hear = button("", () => (head.state === "listening" ? head.stop() : head.live("microphone").catch(() => {})));

/** A button that opens a recording. */
function chooser() {
  const input = document.createElement("input"), open = button("Speak a recording", () => input.click());
  input.type = "file";
  input.accept = "audio/*,video/*";
  input.hidden = true;
  input.onchange = () => {
    const [file] = input.files;
    input.value = ""; // the same one can be chosen again
    if (file) head.live(file).catch(() => {});
  };
  return [open, input];
}

/** @param {string} text */
function sentence(text) { return text.endsWith(".") ? text : `${text}.`; }

/** @param {import("./files.js").Manifest} manifest */
function consents({ consent, live, live_consent: liveConsent }) {
  const text = consent ? sentence(`Consent: ${consent}`) : "No statement of consent was stored.";
  if (!live || (consent && consent === liveConsent)) return text;
  return `${text} ${liveConsent ? sentence(`Consent to live speech: ${liveConsent}`) : "No statement of consent to live speech was stored."}`;
}

async function describe() {
  const { identity, tool } = head.files.manifest;
  document.title = $("name").textContent = identity;
  $("tool").textContent = tool;
  $("consent").textContent = consents(head.files.manifest);
  const names = head.lines.map((name) => button(name.replaceAll("-", " "), () => head.say(name).catch(showError)));
  const live = head.isLive ? [hear, ...chooser()] : [];
  $("lines").replaceChildren(...names, ...live, ...(names.length || live.length ? [pause, mute] : []));
  if (head.isLive) $("moves").textContent = "moves as a recording or a microphone sounds";
  $("statement").href = head.files.url("statement.json");
}

/** @param {Error} error */
function showError({ message }) { $("status").textContent = message; }

function showState() {
  $("status").textContent = STATES[head.state];
  hear.textContent = head.state === "listening" ? "Stop" : "Microphone";
  pause.textContent = head.state === "paused" ? "Continue" : "Pause";
  mute.textContent = head.muted ? "Sound on" : "Sound off";
}

head.addEventListener("ready", describe);
head.addEventListener("statechange", showState);
if (head.state === "idle") describe();
showState();
