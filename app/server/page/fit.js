// Fit: upload of footage with consent, progress, result.

import { follow, upload } from "./api.js";
import { facts } from "./people.js";
import { $, clearNotices, dropArea, h, notify, progressBar, put } from "./view.js";

export function startFit(studio) {
  const form = $("fit-form"), panel = $("fit-progress");
  let following = null;
  dropArea($("fit-drop"), form.elements.video, $("fit-file-name"));
  form.addEventListener("submit", (event) => { event.preventDefault(); submit(); });

  function problem() {
    const { video, consent, agreed } = form.elements;
    for (const one of [video, consent, agreed]) one.removeAttribute("aria-invalid");
    const checks = [
      [video, !video.files.length, "Choose the footage first."],
      [consent, !consent.value.trim(), "State who is shown, and how they have agreed."],
      [agreed, !agreed.checked, "Confirm that the person has agreed."],
    ];
    const found = checks.find(([, wrong]) => wrong);
    if (!found) return "";
    found[0].setAttribute("aria-invalid", "true");
    found[0].focus();
    return found[2];
  }

  async function submit() {
    const wrong = problem();
    if (wrong) { notify(wrong, { bad: true }); return; }
    clearNotices();
    const data = new FormData(form);
    data.delete("agreed");
    if (!data.get("name")) data.delete("name");
    const button = form.querySelector("[type=submit]");
    button.disabled = true;
    panel.hidden = false;
    const sending = (share) => put(panel, h("h2", {}, "Sending the footage"),
      h("progress", { max: 1, value: share, "aria-label": "Upload" }),
      h("p", { class: "meta" }, share < 1 ? `${Math.round(100 * share)} %` : "Checking it …"));
    sending(0);
    try {
      const person = await upload("/v1/identities", data, sending);
      form.reset();
      watch(person); // the form is free for the next person meanwhile
    } catch (error) {
      panel.hidden = true;
      notify(error.message, { bad: true });
    } finally {
      button.disabled = false;
    }
  }

  async function watch(person) {
    following?.abort();
    following = new AbortController();
    draw(person);
    try {
      await follow(`/v1/identities/${encodeURIComponent(person.name)}/events`,
        (found, event) => event === "deleted" ? gone(person) : draw(found), following.signal);
    } catch (error) {
      if (error.name !== "AbortError") notify("The connection was lost. The fit continues: see People.", { bad: true });
    }
  }

  function gone(person) { put(panel, h("p", {}, `${person.name} was deleted.`)); }

  function draw(person) {
    const done = person.status === "completed", failed = person.status === "failed";
    put(panel, 
      h("h2", {}, done ? `${person.name} can speak now` : failed ? `${person.name} could not be fitted` : `Fitting ${person.name}`),
      done ? facts(person) : failed ? h("p", { class: "bad" }, person.error) : progressBar(person, `Fit of ${person.name}`),
      done || failed ? "" : h("p", { class: "meta" }, "It takes from a few minutes to an hour. You can close this page: the fit continues."),
      h("div", { class: "actions" },
        done ? h("button", { type: "button", class: "primary", onclick: () => studio.open("speak", person.name) }, "Let them speak") : null,
        person.report_url ? h("a", { class: "button", href: person.report_url, target: "_blank", rel: "noopener" }, "Open the report") : null,
        h("button", { type: "button", onclick: () => studio.open("people") }, "See all people")));
  }

  return {};
}
