// Live: the section of live sessions. `startLive` gets what the sections share, and the empty section.

import { emptyState, h } from "./view.js";

export function startLive(studio, section) {
  section.replaceChildren(
    h("h1", {}, "Live"),
    h("p", { class: "lead" }, "Speak, and see the head answer at once."),
    emptyState("Live sessions are not part of this version yet.",
      h("button", { type: "button", onclick: () => studio.open("speak") }, "Make a video instead")));
  return { show() {}, hide() {} };
}
