// The page: tabs, the token, and what the sections share.

import { json, onUnauthorized, setToken, takeToken } from "./api.js";
import { startFit } from "./fit.js";
import { startLive } from "./live.js";
import { startPeople } from "./people.js";
import { startSpeak } from "./speak.js";
import { $, clearNotices, notify } from "./view.js";

const TABS = ["people", "fit", "speak", "live"];
const sections = {};

// What sections may use of each other.
const studio = {
  people: [], // the people, as the API returns them
  features: [], // what the server offers, from /v1/health; available once `ready` is fulfilled
  ready: Promise.resolve(),
  open(name, detail) { select(name); sections[name].show?.(detail); },
  async loadPeople() {
    studio.people = (await json("/v1/identities")).data;
    return studio.people;
  },
};

function select(name, focus = false) {
  for (const one of TABS) {
    const tab = $(`tab-${one}`), chosen = one === name;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    $(one).hidden = !chosen;
    if (!chosen) sections[one]?.hide?.();
    if (chosen && focus) tab.focus();
  }
  clearNotices();
  history.replaceState(null, "", `#${name}`);
}

function open(name, focus) { select(name, focus); sections[name].show?.(); }

function startTabs() {
  for (const [index, name] of TABS.entries()) {
    const tab = $(`tab-${name}`);
    tab.addEventListener("click", () => open(name));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, Home: -index, End: TABS.length - 1 - index }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      open(TABS[(index + step + TABS.length) % TABS.length], true);
    });
  }
}

let asking = null;
function askForToken() {
  asking ??= new Promise((resolve) => {
    const dialog = $("sign-in"), form = dialog.querySelector("form");
    dialog.showModal();
    dialog.addEventListener("close", () => {
      const given = form.elements.token.value;
      if (given) setToken(given);
      form.reset();
      asking = null;
      resolve(Boolean(given));
    }, { once: true });
  });
  return asking;
}

function start() {
  takeToken();
  onUnauthorized(askForToken);
  startTabs();
  sections.people = startPeople(studio);
  sections.fit = startFit(studio);
  sections.speak = startSpeak(studio);
  sections.live = startLive(studio, $("live"));
  const wanted = location.hash.slice(1);
  studio.ready = json("/v1/health").then((health) => { studio.features = health.features; },
    (error) => notify(error.message, { bad: true }));
  open(TABS.includes(wanted) ? wanted : "people");
}

start();
