// Try it: the browser says a line with the element <talking-head>, so that the server renders nothing.

import { json, upload } from "./api.js";
import { h, isOpen, progressBar, put } from "./view.js";

const POLL_MS = 500;
const SCRIPT = "/static/head/talking-head.js";
const LIMITS = "Rendered by this browser, in their own footage. Mode, background and the other options show in the video only.";

// Shows a person in the stage, who says what the form has as `audio` or `text`. It ends early, without an
// error, if the stage shows something else meanwhile. `failed` gets errors of the person who is shown.
export async function tryLine(stage, name, form, failed) {
  const place = h("div", { class: "try" }), address = `/v1/identities/${encodeURIComponent(name)}`;
  put(place, h("p", { class: "meta" }, "Preparing the line …"));
  put(stage, h("h3", { "aria-level": 2 }, "A try"), place);
  const [line, person] = await Promise.all([
    upload(`${address}/lines`, form, () => {}), writtenPerson(`${address}/web`, name, place), import(SCRIPT)]);
  if (!place.isConnected) return;
  const head = h("talking-head", { src: person.url }), button = h("button", { type: "button" }, "Stop");
  const say = () => head.say(line).catch((error) => { if (head.isConnected && head.state !== "error") failed(error); });
  head.addEventListener("error", ({ detail }) => failed(detail));
  button.onclick = () => (head.state === "idle" ? say() : head.stop());
  head.addEventListener("statechange", () => { button.textContent = head.state === "idle" ? "Say it again" : "Stop"; });
  head.addEventListener("ready", () => {
    head.style.maxWidth = `${70 * head.canvas.width / head.canvas.height}vh`;
    stage.scrollIntoView({ block: "nearest" });
  });
  put(place, head, h("p", { class: "meta" }, LIMITS), h("div", { class: "actions small" }, button));
  say();
}

// Waits until the files of a person are written, and shows the progress.
async function writtenPerson(address, name, place) {
  let person = await json(address, { method: "POST" });
  while (isOpen(person) && place.isConnected) {
    put(place, h("p", { class: "meta" }, `${name} is prepared for the browser, once for each fit.`), progressBar(person, `${name} for the browser`));
    await new Promise((done) => setTimeout(done, POLL_MS));
    person = await json(address);
  }
  if (person.error) throw new Error(person.error);
  return person;
}
