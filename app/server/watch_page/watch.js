// The page of a broadcast: says who is shown, and whether the broadcast goes on.

import "./web/talking-head.js";

const TEXTS = { loading: "Loading", waiting: "Connecting", watching: "Live" };
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
head.addEventListener("end", ({ detail }) => { if (detail.finished) status.textContent = "The broadcast has ended."; }); // not after Stop
if (head.files?.manifest) describe();
showState();
