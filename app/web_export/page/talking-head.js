// <talking-head>: a person who speaks lines or live in sync with the sound, and is idle in between.

import { BADGE, drawBadge } from "./badge.js";
import { Broadcast } from "./broadcast.js";
import { Controls } from "./controls.js";
import { Files, TalkingHeadError } from "./files.js";
import { loadLine, readLine } from "./line.js";
import { Ears, Listener, openRecording } from "./live.js";
import { Sound, follow } from "./sound.js";

const BLEND_FRAMES = 3; // frames over which the mouth moves to rest, or into a line
const BLOCKED_AFTER = 300; // ms that a device may take to open before a click is asked for
const WEIGHT = 0.1; // of a new measurement of the time that a picture takes
const MOST_SENT = 2; // pictures at a time: while one is drawn, the worker renders the next

/**
 * @typedef {import("./head.js").Head} Head
 * @typedef {"loading" | "idle" | "waiting" | "speaking" | "listening" | "watching" | "paused" | "error"} State
 * @typedef {import("./line.js").Line} Line
 * @typedef {{line: Line, from: number, start: number | null, index: number, apart: number, settle: (finished: boolean) => void, ears?: Ears | Broadcast, isBegun?: boolean}} Speech
 * `from`: seconds of the line that were said before. `start`: when its first sample was heard; null: it is held.
 * `index`: of the code that is shown. `apart`: by how much the sound is ahead of it, frames, on average.
 * `ears`: those that listen to a microphone, a stream or a broadcast, and decide what is shown instead. `isBegun`: it was announced.
 */

/**
 * Attributes: src, line, autoplay, broadcast, muted, controls, nobadge. Events: ready, start, end, error, statechange.
 */
export class TalkingHead extends HTMLElement {
  static observedAttributes = ["src", "muted"];

  /** @type {Files | null} */
  files = null;
  /** @type {HTMLVideoElement | null} */
  video = null;
  /** @type {Worker | null} */
  worker = null;
  #controls = new Controls(this);

  constructor() {
    super();
    this.canvas = this.#controls.canvas;
    this.sound = new Sound();
    this.sound.changed = () => this.soundChanged();
    this.shown = () => this.returned();
    this.reset();
  }

  reset() {
    /** @type {State} */
    this.now = "loading";
    /** @type {Speech | null} */
    this.speech = null;
    this.turn = null; // of what was asked for last: another one, or `stop`, takes its place
    /** @type {Promise<Listener> | null} */
    this.listener = null;
    /** @type {Map<string, Promise<Line>>} */
    this.loaded = new Map();
    this.isPaused = this.isRefused = this.isLate = false;
    this.nSent = 0; // pictures that the worker has not finished
    this.blend = 0;
    this.work = 0.01; // seconds that a picture takes, on average
    /** What was shown last, and counts, for tests and measurements. */
    this.statistics = { frame: -1, index: -1, drawn: 0, skipped: 0, renderMs: 0, heard: 0, latencyMs: 0, firstMs: 0 };
    this.#controls.message.textContent = "";
    this.showControls();
  }

  /** What the person is doing. @returns {State} */
  get state() { return this.now; }

  /** Names of the lines. @returns {string[]} */
  get lines() { return this.files?.manifest?.lines.map((line) => line.name) ?? []; }

  /** True if `live` can be used. @returns {boolean} */
  get isLive() { return this.files?.manifest?.live === true; }

  /** What the broadcast that is watched states and counts; null if there is none. */
  get broadcast() { return this.speech?.ears instanceof Broadcast ? this.speech.ears.facts : null; }

  get muted() { return this.hasAttribute("muted"); }

  set muted(muted) { this.toggleAttribute("muted", muted); }

  connectedCallback() {
    document.addEventListener("visibilitychange", this.shown);
    this.load();
  }

  disconnectedCallback() {
    document.removeEventListener("visibilitychange", this.shown);
    this.unload();
  }

  /** @param {string} name @param {string | null} before @param {string | null} after */
  attributeChangedCallback(name, before, after) {
    if (name === "muted") this.muteChanged();
    else if (this.isConnected && before !== null && before !== after) {
      this.unload();
      this.load();
    }
  }

  /**
   * Says a line; one that is being said is stopped.
   * @param {string | import("./files.js").LineFiles} asked its name, or a line that is not part of the export
   * @returns {Promise<boolean>} at its end: true if all of it was said, false if it was stopped
   */
  async say(asked) {
    const isReplaced = await this.ask();
    if (isReplaced()) return false;
    this.warn(null);
    this.sound.open();
    const isGiven = asked !== null && typeof asked === "object";
    const line = await (isGiven ? readLine(asked, this.rest.length, this.sound) : this.lineOf(String(asked)));
    if (isReplaced()) return false;
    this.end(false);
    return new Promise((settle) => {
      this.speech = { line, from: 0, start: null, index: -1, apart: 0, settle };
      this.continue();
    });
  }

  /**
   * Speaks as a microphone, a stream or a recording does; what is being said is stopped.
   * @param {"microphone" | MediaStream | Blob | ArrayBuffer} source
   * @returns {Promise<boolean>} at its end: true, or false if it was stopped
   */
  async live(source) {
    const isReplaced = await this.ask();
    if (isReplaced()) return false;
    this.warn(null);
    try {
      return await this.speakLive(source, isReplaced);
    } catch (error) {
      if (!isReplaced()) this.warn(error);
      throw error;
    }
  }

  /**
   * Takes the place of what was asked for before, and waits until the person is shown.
   * @returns {Promise<() => boolean>} tells if something else was asked for since, `stop`, or another person
   */
  async ask() {
    const { visit } = this, turn = this.turn = {};
    await this.ready;
    if (!visit || visit !== this.visit || this.now === "error") throw nobody();
    const isReplaced = () => visit !== this.visit || turn !== this.turn;
    if (!isReplaced()) this.isPaused = false;
    return isReplaced;
  }

  /** @param {"microphone" | MediaStream | Blob | ArrayBuffer} source @param {() => boolean} isReplaced */
  async speakLive(source, isReplaced) {
    const { files } = this, stream = source === "microphone" || source instanceof MediaStream ? source : null;
    if (!this.isLive) throw new TalkingHeadError("live", "Live speech is not part of this export. Export this person again with --live.");
    if (!stream) this.sound.open();
    const listener = await this.openListener(files);
    if (isReplaced()) return false;
    this.end(false);
    const ears = stream ? await Ears.open(listener, stream, files.moduleUrl("capture.js")) : null;
    const line = ears?.line ?? await openRecording(listener, /** @type {Blob | ArrayBuffer} */ (source), this.sound);
    if (isReplaced()) { ears?.close(); return false; }
    return new Promise((settle) => {
      this.speech = { line, from: 0, start: null, index: -1, apart: 0, settle, ears };
      this.continue();
    });
  }

  /**
   * Shows a broadcast until it ends; what is being said is stopped.
   * @param {string | URL} url address of its WebSocket
   * @returns {Promise<boolean>} at its end: true, or false if it was stopped
   */
  async watch(url) {
    const isReplaced = await this.ask();
    if (isReplaced()) return false;
    this.warn(null);
    this.end(false);
    const ears = new Broadcast(url, this.rest);
    return new Promise((settle, reject) => {
      ears.changed = () => { this.become(ears.state); this.showControls(); };
      ears.warned = (error) => this.warn(error);
      ears.over = (error) => { if (error) reject(error); this.end(!error); this.warn(error); };
      this.speech = { line: ears.line, from: 0, start: null, index: -1, apart: 0, settle, ears };
      this.continue();
      ears.open();
    });
  }

  /** Holds picture and sound; a microphone or stream is stopped. */
  pause() {
    if (this.now === "loading" || this.now === "error" || this.isPaused) return;
    if (this.speech?.ears) this.stop();
    this.isPaused = true;
    this.hold();
    this.video.pause();
    this.become("paused");
  }

  /** Goes on after `pause`. */
  resume() {
    if (!this.isPaused) return;
    this.isPaused = false;
    this.sound.open();
    this.continue();
  }

  /** Stops what is being said. */
  stop() {
    this.turn = null;
    this.end(false);
  }

  /** @param {boolean} finished */
  end(finished) {
    const speech = this.speech;
    if (!speech) return;
    speech.ears?.close();
    this.sound.stop();
    this.speech = null;
    this.move();
    if (!this.isPaused) this.become("idle");
    this.finish(speech, finished);
  }

  // ---------------------------------------------------------------------------------- loading

  load() {
    const visit = this.visit = {};
    this.reset();
    this.become("loading");
    const opened = this.open(visit).catch((error) => { if (visit === this.visit) this.fail(error); });
    this.ready = Promise.race([opened, new Promise((resolve) => { this.abandon = resolve; })]);
  }

  /** @param {object} visit of the person that is being shown: another one takes its place */
  async open(visit) {
    const files = await Files.open(this.getAttribute("src") ?? "./");
    if (visit !== this.visit) { files.close(); return; }
    this.files = files;
    const { manifest } = files;
    this.canvas.width = manifest.width;
    this.canvas.height = manifest.height;
    this.canvas.setAttribute("aria-label", `${manifest.identity}, ${BADGE}`);
    this.rest = this.from = this.last = Float32Array.from(manifest.rest);
    this.badge = this.hasAttribute("nobadge") ? null : drawBadge(manifest.height);
    this.footage = Array.from({ length: MOST_SENT }, () => { // frames of the video that mouths are rendered for
      const canvas = document.createElement("canvas");
      canvas.width = manifest.width;
      canvas.height = manifest.height;
      return canvas;
    });
    const [wasm, head] = await Promise.all([files.bytes("talkhead.wasm"), files.bytes("head.bin"), this.openVideo(files, visit)]);
    if (visit !== this.visit) return;
    const info = await this.openWorker(files, wasm, head);
    if (visit !== this.visit) return;
    if (info.nFrames !== manifest.n_frames || info.nMouth !== manifest.rest.length) {
      throw new TalkingHeadError("damaged", "The file head.bin does not belong to this export. Export this person again.");
    }
    this.become("idle");
    this.emit("ready", { lines: this.lines });
    this.attend();
    this.continue();
    if (this.hasAttribute("broadcast")) this.watch(this.getAttribute("broadcast") ?? "").catch(() => {});
    const line = this.getAttribute("line");
    if (line !== null && !this.lines.includes(line)) throw unknown(line);
    const first = line ?? this.lines[0];
    if (first !== undefined && this.hasAttribute("autoplay")) this.say(first).catch((error) => { if (visit === this.visit) this.fail(error); });
  }

  /** @param {Files} files @param {object} visit */
  async openVideo(files, visit) {
    const { width, height } = files.manifest, video = this.video = document.createElement("video");
    video.muted = video.loop = video.playsInline = true;
    video.preload = "auto";
    await new Promise((resolve, reject) => {
      video.oncanplay = resolve;
      video.onerror = () => reject(new TalkingHeadError("damaged", "The footage idle.mp4 cannot be played. Export this person again."));
      video.src = files.url("idle.mp4");
    });
    video.onerror = () => { if (visit === this.visit) this.fail(new TalkingHeadError("damaged", "The footage idle.mp4 can no longer be played. Reload the page.")); };
    if (video.videoWidth !== width + width % 2 || video.videoHeight !== height + height % 2) {
      throw new TalkingHeadError("damaged", "The footage idle.mp4 does not belong to this export. Export this person again.");
    }
  }

  /** @param {Files} files @param {ArrayBuffer} wasm @param {ArrayBuffer} head @returns {Promise<Head["info"]>} */
  openWorker(files, wasm, head) {
    return new Promise((resolve, reject) => {
      const broken = (/** @type {string} */ message) => reject(new TalkingHeadError("unsupported", `This browser cannot show the person. ${message}`));
      if (typeof WebAssembly === "undefined") { broken("It has no WebAssembly."); return; }
      // From file://, browsers load no modules into workers; the packed worker is one script.
      this.worker = new Worker(files.url("worker.js"), { type: files.packed ? "classic" : "module" });
      this.worker.onerror = (event) => broken(event.message ?? "");
      this.worker.onmessage = ({ data }) => {
        if (data.error) {
          const error = new TalkingHeadError(data.error.code, data.error.message);
          reject(error);
          if (this.now !== "loading") this.fail(error);
        } else if (data.info) resolve(data.info);
        else this.draw(data);
      };
      this.worker.postMessage({ wasm, head }, [wasm, head]);
    });
  }

  /** The worker that listens, loaded when it is needed first. @param {Files} files @returns {Promise<Listener>} */
  openListener(files) {
    if (!this.listener) {
      const opening = this.listener = Listener.open(files);
      opening.then((listener) => {
        if (this.files !== files) listener.close();
        listener.failed = (error) => {
          if (this.listener === opening) this.listener = null;
          this.end(false);
          this.warn(error);
        };
      }, () => { if (this.listener === opening) this.listener = null; }); // it is loaded again when it is asked for again
    }
    return this.listener;
  }

  unload() {
    this.visit = null;
    this.stop();
    this.release();
    clearTimeout(this.blocked);
    this.now = "loading";
    this.abandon();
  }

  release() {
    this.sound.close();
    this.listener?.then((listener) => listener.close(), () => {});
    this.worker?.terminate();
    if (this.video) {
      this.video.onerror = null;
      this.video.removeAttribute("src");
      this.video.load();
    }
    this.files?.close();
    this.worker = this.video = this.files = this.listener = null;
  }

  /** Shows an error, and ends everything. @param {Error & {code?: string}} error */
  fail(error) {
    if (this.now === "error") return;
    const speech = this.speech;
    this.speech = null;
    this.become("error");
    this.release();
    speech?.ears?.close();
    if (speech) this.finish(speech, false);
    this.warn(error);
  }

  /** Shows an error; null removes it. @param {(Error & {code?: string}) | null} error */
  warn(error) {
    this.#controls.message.textContent = error?.message ?? "";
    this.showControls();
    if (error) this.emit("error", { code: error.code ?? "damaged", message: error.message });
  }

  /** @param {string} name @returns {Promise<Line>} */
  lineOf(name) {
    const about = this.files.manifest.lines.find((line) => line.name === name);
    if (!about) throw unknown(name);
    if (!this.loaded.has(name)) {
      const line = loadLine(about, this.files, this.sound);
      line.catch(() => this.loaded.delete(name)); // it is loaded again when it is asked for again
      this.loaded.set(name, line);
    }
    return this.loaded.get(name);
  }

  // ---------------------------------------------------------------------------------- speaking

  /** Goes on with footage and line; a line begins with the next frame of the footage. */
  continue() {
    if (this.isPaused || !this.video || this.now === "loading") return;
    this.video.play().then(() => this.allowed(true), ({ name }) => this.allowed(name !== "NotAllowedError"));
    if (!this.speech) { this.become("idle"); return; }
    if (this.speech.start !== null) return;
    const { ears, line } = this.speech;
    this.isLate = false;
    if (ears && !this.speech.isBegun) this.emit("start", { line: line.name });
    this.speech.isBegun = true;
    this.become(ears?.state ?? "waiting");
    clearTimeout(this.blocked);
    this.blocked = setTimeout(() => { this.isLate = true; this.showControls(); }, BLOCKED_AFTER);
    if (ears) ears.muted = this.muted;
    else if (document.hidden) this.begin(this.sound.soonest - this.speech.from);
  }

  /** @param {number} start when the first sample of the line is heard, or was heard if part of it is left out */
  begin(start) {
    const speech = this.speech, { line, from } = speech;
    if (this.sound.isBlocked) return;
    speech.start = start;
    this.move();
    this.sound.start(line.buffer, start + from, from, () => this.end(true));
    this.become("speaking");
    if (from === 0) this.emit("start", { line: line.name });
  }

  /** Lets the mouth move from what is shown to what follows. */
  move() {
    this.from = this.last;
    this.blend = BLEND_FRAMES;
  }

  /** Takes the line from where it is, to go on later. */
  hold() {
    const speech = this.speech;
    if (!speech || speech.start === null) return;
    this.sound.stop();
    speech.from = Math.min(Math.max(this.sound.heard(performance.now()) - speech.start, 0), speech.line.buffer.duration);
    speech.start = null;
  }

  /** @param {Speech} speech @param {boolean} finished */
  finish({ line, settle }, finished) {
    settle(finished);
    this.emit("end", { line: line.name, finished });
  }

  /** The footage plays, or waits for a click, as on phones that save power. @param {boolean} plays */
  allowed(plays) {
    this.isRefused = !plays;
    this.showControls();
  }

  /** The device sounds now, or no longer, as during a call. */
  soundChanged() {
    if (this.speech?.start != null && this.sound.isBlocked) this.hold();
    if (this.speech?.start === null && (document.hidden || this.sound.isBlocked)) this.continue();
    this.showControls();
  }

  muteChanged() {
    this.hold(); // at the time of the old clock
    this.sound.muted = this.muted;
    if (!this.muted && this.speech) this.sound.open();
    this.continue();
    this.showControls();
  }

  /** A click: sound and footage may play. */
  allow() {
    this.sound.open();
    this.speech?.ears?.sound.open();
    if (this.isPaused) this.resume();
    else this.continue();
  }

  toggle() {
    if (this.isPaused) this.resume();
    else if (this.speech) this.pause();
    else this.say(this.getAttribute("line") ?? this.lines[0]).catch((error) => this.warn(error));
  }

  /** The page is seen again, or no longer. Browsers may have stopped the video meanwhile. */
  returned() {
    if (document.hidden && this.speech?.start === null) this.continue();
    if (!document.hidden && !this.isPaused && this.now !== "loading") this.video?.play().catch(() => {});
  }

  // ---------------------------------------------------------------------------------- drawing

  /** Calls `show` with each frame of the footage. */
  attend() {
    const { video, visit, files: { manifest } } = this;
    const next = (/** @type {number} */ frame) => {
      if (visit !== this.visit || video !== this.video) return;
      if (frame >= 0) this.show(frame % manifest.n_frames);
      if (video.requestVideoFrameCallback) video.requestVideoFrameCallback((_, { mediaTime }) => next(Math.round(mediaTime * manifest.frame_rate)));
      else requestAnimationFrame(() => next(Math.floor(video.currentTime * manifest.frame_rate + 0.01)));
    };
    next(-1);
  }

  /** Has the mouth rendered for a frame that the video shows now. @param {number} frame */
  show(frame) {
    if (frame === this.statistics.frame || document.hidden) return;
    if (this.nSent >= MOST_SENT) { this.statistics.skipped++; return; }
    const seen = performance.now() + 1000 * this.work; // when this picture will be seen
    if (this.speech && !this.speech.ears && this.speech.start === null && !this.isPaused) this.beginAfter(seen);
    this.nSent++;
    const { n_frames } = this.files.manifest, passed = (frame - this.statistics.frame + n_frames) % n_frames;
    this.statistics.frame = frame;
    const footage = this.footage.shift();
    footage.getContext("2d", { alpha: false }).drawImage(this.video, 0, 0);
    this.footage.push(footage);
    const code = this.codeAt(seen, passed);
    this.worker.postMessage({ frame, code, index: this.statistics.index, sent: performance.now() });
  }

  /** Begins the line with a later frame. @param {number} seen ms */
  beginAfter(seen) {
    const first = this.sound.heard(seen);
    if (!this.sound.isSteady) return;
    const step = 1 / this.files.manifest.frame_rate, { soonest } = this.sound, { speech } = this;
    const n = Math.max(1, Math.ceil((soonest - first) / step));
    const index = Math.round(speech.from / step); // a held line goes on at a whole frame
    speech.from = index * step;
    speech.index = index - n;
    speech.apart = 0;
    this.begin(first + n * step - speech.from);
    speech.index -= 1; // it is counted with the frame that is about to be shown
  }

  /**
   * The motion code of a frame.
   * @param {number} seen when it will be seen, ms
   * @param {number} passed frames since the last one
   * @returns {Float32Array}
   */
  codeAt(seen, passed) {
    const { speech } = this;
    let code = speech?.ears ? this.heardAt(speech, seen, passed) : this.saidAt(speech, seen, passed);
    code ??= this.rest;
    if (this.blend > 0) {
      const share = this.blend-- / (BLEND_FRAMES + 1), target = code;
      code = target.map((value, i) => share * this.from[i] + (1 - share) * value);
    }
    this.last = code;
    return code;
  }

  /** The code of a line. @param {Speech} speech @param {number} seen ms @param {number} passed frames @returns {Float32Array | null} */
  saidAt(speech, seen, passed) {
    if (speech?.start != null) {
      const heard = this.sound.heard(seen) - speech.start;
      follow(speech, heard * this.files.manifest.frame_rate, passed);
      this.statistics.heard = heard;
    }
    const index = speech && (speech.start !== null || speech.from > 0) ? speech.index : -1;
    this.statistics.index = index;
    return index >= 0 && index < speech.line.nFrames ? speech.line.code(index) : null;
  }

  /** The code of a microphone or stream. @param {Speech} speech @param {number} seen ms @param {number} passed frames @returns {Float32Array | null} */
  heardAt({ ears }, seen, passed) {
    const before = ears.code, code = ears.codeAt(seen, passed);
    this.statistics.index = ears.index;
    if ((code === null) !== (before === null)) this.move();
    if (!ears.isOver) return code;
    this.end(true);
    return null;
  }

  /**
   * Draws a mouth into the frame that it was rendered for.
   * @param {{x: number, y: number, image: ImageBitmap | null, took: number, sent: number, index: number}} mouth
   * left, top and picture, and when it was asked for and how long it took, ms
   */
  draw({ x, y, image, took, sent, index }) {
    if (!this.files) { image?.close(); return; }
    const context = this.canvas.getContext("2d", { alpha: false });
    context.drawImage(this.footage[MOST_SENT - this.nSent--], 0, 0); // the oldest that was sent
    if (image) context.drawImage(image, x, y);
    if (this.badge) context.drawImage(this.badge, 0, this.canvas.height - this.badge.height);
    image?.close();
    this.work += WEIGHT * ((performance.now() - sent) / 1000 - this.work);
    this.statistics.renderMs += WEIGHT * (took - this.statistics.renderMs);
    if (this.speech?.ears?.begun != null && index >= 0) this.statistics.latencyMs = performance.now() - this.speech.ears.begun - 40 * index;
    this.statistics.drawn++;
    if (this.statistics.drawn === 1) this.statistics.firstMs = performance.now();
  }

  // ---------------------------------------------------------------------------------- surroundings

  /** @param {State} state */
  become(state) {
    if (state === this.now) return;
    this.now = state;
    this.showControls();
    this.emit("statechange", { state });
  }

  showControls() { this.#controls.show(); }

  /** @param {string} name @param {object} detail */
  emit(name, detail) { this.dispatchEvent(new CustomEvent(name, { detail })); }
}

function nobody() { return new TalkingHeadError("missing", "Nobody is shown here."); }

/** @param {string} name */
function unknown(name) { return new TalkingHeadError("line", `There is no line ${name}.`); }

customElements.define("talking-head", TalkingHead);
