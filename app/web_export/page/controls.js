// Inside <talking-head>: the picture, buttons over it, and a message.

const STYLE = `
  :host { display: inline-block; position: relative; max-width: 100%; font: 1rem/1.4 system-ui, sans-serif; }
  :host([hidden]) { display: none; }
  canvas { display: block; width: 100%; height: auto; background: #8881; }
  video { display: none; }
  [hidden] { display: none !important; }
  .message { position: absolute; inset: 0 0 auto 0; margin: 0; padding: .75em 1em; background: #14191ae6; color: #fff; overflow-wrap: anywhere; }
  .cover { position: absolute; inset: 0; width: 100%; border: 0; background: #0004; cursor: pointer; display: grid; place-items: center; padding: 0; }
  .cover span { font: 600 1rem/1 system-ui, sans-serif; padding: .9em 1.3em; border-radius: 99px; background: #fff; color: #14191a; }
  .controls { position: absolute; right: .5em; bottom: .5em; max-width: 74%; display: flex; flex-wrap: wrap; justify-content: flex-end; gap: .4em; }
  .controls button { font: 600 .875rem/1 system-ui, sans-serif; min-height: 2.75em; padding: 0 1em; border: 0; border-radius: 8px; background: #14191acc; color: #fff; cursor: pointer; }
  button:focus-visible { outline: 3px solid #7db8ff; outline-offset: -3px; }`;

export class Controls {
  /** @param {import("./talking-head.js").TalkingHead} head */
  constructor(head) {
    const root = head.attachShadow({ mode: "open" }), sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    this.head = head;
    this.canvas = add(root, "canvas", "picture");
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("part", "picture");
    this.cover = add(root, "button", "cover");
    add(this.cover, "span", "").textContent = "Play";
    this.bar = add(root, "div", "controls");
    this.play = add(this.bar, "button", "");
    this.mute = add(this.bar, "button", "");
    this.hear = add(this.bar, "button", "");
    this.message = add(root, "p", "message");
    this.message.setAttribute("role", "alert");
    for (const button of [this.cover, this.play, this.mute, this.hear]) button.type = "button";
    this.cover.onclick = () => head.allow();
    this.play.onclick = () => head.toggle();
    this.mute.onclick = () => head.toggleAttribute("muted");
    this.hear.onclick = () => (head.speech?.ears ? head.stop() : head.live("microphone").catch(() => {}));
  }

  /** Shows what can be done now. */
  show() {
    const { now, speech, sound, isPaused, isLive, muted } = this.head, ears = speech?.ears, has = this.head.lines.length > 0;
    const { isBlocked } = ears ?? sound;
    const waits = ["waiting", "listening", "watching"].includes(now) && this.head.isLate && isBlocked;
    const stands = this.head.isRefused && now !== "error" && now !== "paused";
    this.cover.hidden = !(waits || stands);
    this.message.hidden = !this.message.textContent;
    this.bar.hidden = !this.head.hasAttribute("controls") || !(has || isLive || ears) || now === "error" || !this.cover.hidden;
    this.play.hidden = !has && !speech && !isPaused || Boolean(ears);
    this.mute.hidden = Boolean(ears?.isMicrophone);
    this.hear.hidden = !isLive && !ears;
    this.hear.textContent = ears ? "Stop" : "Microphone";
    this.play.textContent = isPaused ? "Continue" : speech ? "Pause" : "Play";
    this.mute.textContent = muted ? "Sound on" : "Sound off";
  }
}

/**
 * Adds an element at the end of another one.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {ParentNode} parent @param {Tag} tag @param {string} className
 * @returns {HTMLElementTagNameMap[Tag]}
 */
function add(parent, tag, className) {
  const element = document.createElement(tag);
  element.className = className;
  parent.append(element);
  return element;
}
