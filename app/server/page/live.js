// Live: speak or type, and see the person answer at once.

import { LivePicture } from "./live-picture.js";
import { LiveSession, percentile } from "./live-session.js";
import { emptyState, h, notify, put } from "./view.js";

export function startLive(studio, section) {
  let session = null, shown = 0, statement = "";

  const canvas = h("canvas", { id: "live-picture", role: "img", "aria-label": "The person, speaking live", hidden: true });
  const picture = new LivePicture(canvas);
  const status = h("p", { class: "meta", role: "status", id: "live-status" }, "Not started");
  const meter = h("p", { class: "meta", id: "live-meter" });
  const person = h("select", { name: "identity", id: "live-person" });
  const begin = h("button", { type: "button", class: "primary", id: "live-begin", onclick: toggle }, "Start");
  const microphone = h("button", { type: "button", id: "live-microphone", "aria-pressed": "false", disabled: true, onclick: listen },
    "Speak into the microphone");
  const interrupt = h("button", { type: "button", id: "live-interrupt", disabled: true, onclick: () => session?.interrupt() }, "Interrupt");
  const text = h("textarea", { rows: 3, maxlength: 5000, id: "live-text", name: "text" });
  const say = h("button", { type: "submit", id: "live-say", disabled: true }, "Say it");
  const choice = (name, options) => h("select", { name, onchange: changeLook },
    ...options.map(([value, text]) => h("option", { value }, text)));
  const mode = choice("mode", [["paste", "Their own footage"], ["head", "The head alone"]]);
  const kind = choice("background_kind", [["own", "Their own"], ["color", "A color"], ["file", "An image or video"]]);
  const color = h("input", { type: "color", name: "background_color", value: "#22324a", onchange: changeLook });
  const file = h("input", { type: "file", name: "background_file", accept: "image/*,video/*", onchange: changeLook });
  const ofColor = h("label", { hidden: true }, "Color ", color);
  const ofFile = h("label", { hidden: true }, "File ", file);
  const ofHead = h("div", { class: "form", id: "live-head", hidden: true }, h("label", {}, "Background ", kind), ofColor, ofFile);
  const look = h("details", { id: "live-look" }, h("summary", {}, "Picture"),
    h("div", { class: "form" }, h("label", {}, "Show ", mode), ofHead,
      h("p", { class: "hint" }, "Changing the picture restarts the session.")));
  const mark = h("p", { class: "meta", id: "live-mark" });
  const form = h("form", { class: "form", onsubmit: speak, hidden: true }, h("label", {}, "Text", text), h("div", { class: "actions" }, say));
  const controls = h("div", { class: "panel form" },
    h("label", {}, "Person ", person),
    look,
    h("div", { class: "actions" }, begin, microphone, interrupt),
    h("p", { class: "hint" }, "Wear headphones: the person would otherwise hear themselves."),
    form);
  const stage = h("div", { class: "panel stage live-stage" }, canvas, status, meter, mark);
  const body = h("div", { class: "columns" }, controls, stage);
  section.replaceChildren(h("h1", {}, "Live"),
    h("p", { class: "lead" }, "Speak or type, and see the person answer at once."), body);

  function changed(event) {
    if (event.type === "frame") {
      canvas.hidden = false;
      if (shown++ % 12) return;
      status.textContent = event.speech ? "Speaking" : "Silent";
      measure(event);
    } else if (event.type === "session") {
      showMark(event);
    } else if (event.type === "error") {
      notify(event.detail, { bad: true });
    } else if (event.type === "ended") {
      ended();
    }
  }

  function measure({ latencies, aheads, gaps, codec }) {
    const drawn = latencies.map((one) => one.drawn), arrived = latencies.map((one) => one.arrived);
    meter.textContent = session?.listens && drawn.length
      ? `${Math.round(percentile(drawn.slice(-50), 0.5))} ms from the microphone to the picture` : "";
    const facts = {
      n: drawn.length, p50_ms: percentile(drawn, 0.5), p95_ms: percentile(drawn, 0.95), gaps, codec,
      arrived_p50_ms: percentile(arrived, 0.5), arrived_p95_ms: percentile(arrived, 0.95),
      ahead_p50_ms: percentile(aheads, 0.5), ahead_p95_ms: percentile(aheads, 0.95),
    };
    for (const [name, value] of Object.entries(facts)) if (value !== null) meter.setAttribute(`data-${name}`, value);
  }

  // What is synthetic, and the signed statement of it.
  function showMark({ badge, manifest }) {
    URL.revokeObjectURL(statement);
    statement = URL.createObjectURL(new Blob([JSON.stringify(manifest)], { type: "application/json" }));
    put(mark, badge ? "All pictures are synthetic, and marked as AI-generated. " : "All pictures are synthetic. They are not marked, because this server was started without it. ",
      h("a", { href: statement, download: "talkhead-live.json" }, "Signed statement"));
  }

  function request() {
    const data = new FormData();
    data.set("identity", person.value);
    data.set("mode", mode.value);
    if (mode.value !== "head") return data;
    if (kind.value === "color") data.set("background", color.value);
    else if (kind.value === "file" && file.files.length) data.set("background_file", file.files[0]);
    else data.set("background", "own");
    return data;
  }

  async function changeLook() {
    ofHead.hidden = mode.value !== "head";
    ofColor.hidden = kind.value !== "color";
    ofFile.hidden = kind.value !== "file";
    if (!session || begin.disabled || (kind.value === "file" && !file.files.length)) return;
    const listened = session.listens;
    begin.disabled = true;
    await session.leave();
    begin.disabled = false;
    if (section.hidden) return;
    await toggle("Restarting with another picture");
    if (listened && session && !session.listens) await listen();
  }

  function chosen() { return [mode.value, kind.value, color.value, file.value].join(); }

  async function toggle(words) {
    if (session) { session.end(); return; }
    begin.disabled = true;
    status.textContent = typeof words === "string" ? words : "Loading the person";
    const made = new LiveSession(picture, changed);
    session = made;
    const wanted = chosen();
    try {
      const info = await made.start(request());
      if (info) {
        if (info.note) notify(info.note);
        begin.textContent = "End";
        for (const button of [microphone, interrupt, say]) button.disabled = false;
      }
    } catch (error) {
      notify(error.message, { bad: true });
    }
    begin.disabled = false;
    if (session && chosen() !== wanted) await changeLook(); // changed while it began
  }

  function ended() {
    session = null;
    begin.textContent = "Start";
    for (const button of [microphone, interrupt, say]) button.disabled = true;
    setListening(false);
    status.textContent = "Ended";
    meter.textContent = "";
  }

  async function listen() {
    if (!session) return;
    if (session.listens) { session.stopListening(); setListening(false); return; }
    try {
      await session.listen();
      setListening(Boolean(session?.listens)); // it may have been ended meanwhile
    } catch (error) {
      notify(error.name === "NotAllowedError" ? "The microphone was not allowed. Allow it in the browser, and try again." : error.message,
        { bad: true });
    }
  }

  function setListening(listens) {
    microphone.setAttribute("aria-pressed", String(listens));
    microphone.textContent = listens ? "Stop the microphone" : "Speak into the microphone";
  }

  function speak(event) {
    event.preventDefault();
    if (text.value.trim()) session?.say(text.value);
  }

  async function show(detail) {
    form.hidden = !studio.features.includes("text");
    try {
      const people = await studio.loadPeople();
      const ready = people.filter((one) => !one.status || one.status === "completed");
      const chosen = detail?.identity ?? person.value;
      person.replaceChildren(...ready.map((one) => h("option", { value: one.name, selected: one.name === chosen }, one.name)));
      body.hidden = !ready.length;
      section.querySelector(".empty-state")?.remove();
      if (!ready.length) {
        section.append(emptyState("Nobody has been fitted yet.",
          h("button", { type: "button", class: "primary", onclick: () => studio.open("fit") }, "Fit a person")));
      }
    } catch (error) {
      notify(error.message, { bad: true });
    }
  }

  return { show, hide() { session?.end(); } };
}
