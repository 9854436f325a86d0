// People: portraits, quality, deletion.

import { json } from "./api.js";
import { $, confirmDeletion, date, duration, emptyState, h, isOpen, notify, progressBar, put } from "./view.js";

const REFRESH_MS = 2000;

export function startPeople(studio) {
  let timer = 0;

  async function show() {
    clearTimeout(timer);
    try {
      draw(await studio.loadPeople());
    } catch (error) {
      put($("people-list"), emptyState(error.message, h("button", { type: "button", onclick: show }, "Try again")));
      return;
    }
    if (studio.people.some(isOpen) && !$("people").hidden) timer = setTimeout(show, REFRESH_MS);
  }

  function draw(people) {
    const fit = h("button", { type: "button", class: "primary", onclick: () => studio.open("fit") }, "Fit a person");
    put($("people-list"), ...(people.length ? people.map(card)
      : [emptyState("No person is fitted yet. All that is needed is a minute of footage of a person.", fit)]));
  }

  function card(person) {
    const done = person.status === "completed";
    return h("article", { class: "panel card", "aria-label": person.name },
      person.portrait_url ? h("img", { src: person.portrait_url, alt: `Portrait of ${person.name}`, loading: "lazy" })
        : h("div", { class: "initial", "aria-hidden": "true" }, person.name.charAt(0).toUpperCase()),
      h("div", { class: "body" },
        h("h3", { "aria-level": 2 }, person.name, person.is_default && done ? " " : "", person.is_default && done ? h("span", { class: "tag" }, "default") : ""),
        isOpen(person) ? progressBar(person, `Fit of ${person.name}`) : null,
        person.error ? h("p", { class: "bad" }, person.error) : null,
        done ? facts(person) : null,
        person.consent ? h("p", { class: "meta" }, `Consent: ${person.consent}`) : null,
        h("div", { class: "actions small" },
          done ? h("button", { type: "button", class: "primary", onclick: () => studio.open("speak", person.name) }, "Speak") : null,
          person.report_url ? h("a", { class: "button", href: person.report_url, target: "_blank", rel: "noopener" }, "Report") : null,
          h("button", { type: "button", class: "danger", "aria-label": `Delete ${person.name}`, onclick: (event) => remove(person, event.currentTarget) },
            isOpen(person) ? "Cancel and delete" : "Delete"))));
  }

  async function remove(person, button) {
    const sure = await confirmDeletion(`Delete ${person.name}?`,
      "All data of this person is deleted from the server: the fitted head, the footage, the report, and all videos made here. It cannot be undone.");
    if (!sure) return;
    button.disabled = true;
    button.textContent = "Deleting …";
    try {
      const gone = await json(`/v1/identities/${encodeURIComponent(person.name)}`, { method: "DELETE" });
      await show();
      notify(`${person.name} was deleted: ${gone.removed.map((one) => one.replace("removed ", "")).join(", ")}.`);
    } catch (error) {
      notify(error.message, { bad: true });
      await show();
    }
  }

  return { show, hide: () => clearTimeout(timer) };
}

// Describes the footage and its quality.
export function facts(person) {
  const quality = person.quality, lines = [];
  lines.push([`Fitted ${date(person.created_at)}, ${person.preset}`]);
  lines.push([`${duration(person.seconds)} of footage, ${person.size.replace("x", " × ")} pixels`]);
  if (quality.n_frames) {
    const share = quality.n_usable / quality.n_frames;
    lines.push([`${Math.round(100 * share)} % of the frames usable`, share < .8]);
    const small = quality.eye_distance_px < 60;
    lines.push([`Face ${small ? "small" : "large enough"}: ${Math.round(quality.eye_distance_px)} pixels between the eyes`, small]);
    lines.push([`Head turns up to ${Math.round(quality.head_turn_deg)}°`, quality.head_turn_deg > 30]);
  }
  for (const warning of quality.warnings || []) lines.push([warning, true]);
  return h("ul", { class: "facts" }, ...lines.map(([text, warn]) => h("li", { class: warn ? "warn" : null }, text)));
}
