// The demonstration page of an export: a button for each line.

import { TalkingHead } from "./talking-head.js";

const $ = (id) => document.getElementById(id);
/** @type {TalkingHead} */
const head = $("head");
const STATES = { idle: "", waiting: "Click the picture to start the sound", speaking: "Speaking", paused: "Paused", error: "", loading: "Loading" };

function button(text, action) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.onclick = action;
  return made;
}

const pause = button("Pause", () => (head.state === "paused" ? head.resume() : head.pause()));
const mute = button("Sound off", () => { head.muted = !head.muted; showState(); });

async function describe() {
  const { identity, consent, tool } = head.files.manifest;
  document.title = $("name").textContent = identity;
  $("tool").textContent = tool;
  $("consent").textContent = consent ? `Consent: ${consent}.` : "No statement of consent was stored.";
  const names = head.lines.map((name) => button(name.replaceAll("-", " "), () => head.say(name).catch(() => {})));
  $("lines").replaceChildren(...names, ...(names.length ? [pause, mute] : []));
  $("statement").href = head.files.url("statement.json");
}

function showState() {
  $("status").textContent = STATES[head.state];
  pause.textContent = head.state === "paused" ? "Continue" : "Pause";
  mute.textContent = head.muted ? "Sound on" : "Sound off";
}

head.addEventListener("ready", describe);
head.addEventListener("statechange", showState);
if (head.state === "idle") describe();
showState();
