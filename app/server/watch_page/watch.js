// The page of a broadcast: says who is shown, and whether the broadcast goes on.

import "./web/talking-head.js";

const TEXTS = {
  loading: "Loading", waiting: "Connecting", watching: "Live", idle: "The broadcast has ended.", paused: "The broadcast has ended.", error: "",
};
const head = document.getElementById("head"), status = document.getElementById("status");

function describe() {
  const { identity } = head.files.manifest;
  document.title = identity;
  document.getElementById("name").textContent = identity;
}

function showState() {
  const { consent } = head.broadcast ?? {};
  if (consent) document.getElementById("consent").textContent = `Consent: ${consent}`;
  status.textContent = TEXTS[head.state] ?? "";
}

head.addEventListener("ready", describe);
head.addEventListener("statechange", showState);
if (head.files?.manifest) describe();
showState();
