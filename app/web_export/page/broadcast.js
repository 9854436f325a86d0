// A broadcast: motion codes and sound that a server sends, and the code that is shown with the sound that is heard.

import { TalkingHeadError } from "./files.js";
import { FRAME_RATE, LiveLine, MOST_MISSED } from "./live.js";
import { Sound, follow } from "./sound.js";

const HEADER_BYTES = 20, CODES = 2; // docs/live.md describes packets
const WAIT = 0.2; // seconds that a packet waits before it is heard, for those that arrive late
const MORE_WAIT = 0.05, LONGEST_WAIT = 0.6; // the same after one has arrived too late, and at most
const MOST_OFF = 0.08, FAR_OFF = 0.5; // seconds of waiting too many or few, after which silence, or anything, is left out
const N_MEASURED = 50; // packets in which the shortest wait is measured
const MOST_CODES = 100; // that are kept
const SAME = 1e-5; // most by which codes at rest differ for the same fit: those of an export are rounded
const FIRST_RETRY = 0.5, LAST_RETRY = 10; // seconds before connecting again
const STALLED = 5; // seconds without a packet after which the connection counts as broken
const ENDED = 1000, NO_SUCH = 1008; // codes of closed connections after which there is nothing to connect to

/** Receives a broadcast, and decides which code is shown. */
export class Broadcast {
  /**
   * @param {string | URL} url address of the WebSocket, ws: or http:, relative to the page
   * @param {Float32Array} rest code of the mouth at rest
   */
  constructor(url, rest) {
    this.url = url;
    this.rest = rest;
    this.nMouth = rest.length;
    this.sound = new Sound(); // at the rate of the packets, which then join without a seam
    this.sound.changed = () => this.changed();
    this.line = new LiveLine("broadcast");
    this.isMicrophone = this.isOver = false;
    this.begun = null; // as for other sources of live speech, but no latency is measured
    /** @type {"waiting" | "watching"} */
    this.state = "waiting";
    /** @type {{identity: string, consent: string, manifest: object} | null} */
    this.about = null; // what the server states
    /** @type {number[] | null} */
    this.scale = null; // of the codes
    /** @type {Map<number, Float32Array>} */
    this.codes = new Map();
    /** @type {{source: AudioBufferSourceNode, when: number}[]} */
    this.held = []; // sound that is not over
    /** @type {number | null} */
    this.origin = null; // when the sound of packet 0 would be heard, samples
    this.isAudible = false; // the clock is that of the sound, otherwise that of the page
    this.waiting = WAIT;
    this.epoch = this.newest = -1; // of packets
    this.index = -1; // of the code that is shown
    this.apart = 0; // by how much the sound is ahead of it, frames, on average
    /** @type {Float32Array | null} */
    this.code = null;
    this.nMissed = this.nLate = this.nPackets = this.nFailed = 0;
    this.least = Infinity; // wait of a packet, seconds, in this window
    /** Called when the state has changed, or the sound can be heard now or no longer. */
    this.changed = () => {};
    /** Called when the connection is broken, and with null when it is there again. @type {(error: TalkingHeadError | null) => void} */
    this.warned = () => {};
    /** Called at the end: with null, or with why there is no such broadcast. @type {(error: TalkingHeadError | null) => void} */
    this.over = () => {};
  }

  /** Connects. */
  open() {
    let socket;
    try {
      const url = new URL(this.url, document.baseURI);
      url.protocol = url.protocol.replace("http", "ws");
      socket = this.socket = new WebSocket(url);
    } catch (error) {
      this.fail(`The broadcast cannot be watched (${error.message}). Check its address; a page with https: needs wss:.`);
      return;
    }
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => this.receive(data);
    socket.onclose = ({ code, reason }) => this.closed(code, reason);
    this.arrived = performance.now();
    this.watchdog = setInterval(() => { if (performance.now() - this.arrived > 1000 * STALLED) this.closed(); }, 1000);
  }

  /** Ends it; nothing is called any more. */
  close() {
    this.changed = this.warned = this.over = this.sound.changed = () => {};
    this.disconnect();
    clearTimeout(this.timer);
    this.sound.close();
  }

  disconnect() {
    clearInterval(this.watchdog);
    if (!this.socket) return;
    this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
    this.socket = null;
  }

  /** True if the broadcast is not heard until the page is clicked. */
  get isBlocked() { return this.state === "watching" && this.sound.isBlocked; }

  get muted() { return this.sound.muted; }

  set muted(muted) {
    this.sound.muted = muted;
    if (this.scale) this.sound.open();
  }

  /** What the server states, null before it has; how long packets wait, how many came, and how many too late. */
  get facts() { return this.about && { ...this.about, waitingMs: Math.round(1000 * this.waiting), nPackets: this.nPackets, nLate: this.nLate }; }

  /** @param {string | ArrayBuffer} data */
  receive(data) {
    this.arrived = performance.now();
    try {
      if (typeof data === "string") this.begin(JSON.parse(data));
      else this.take(data);
    } catch (error) {
      this.fail(`The broadcast cannot be shown (${error.message}). Reload the page.`);
    }
  }

  /** @param {{scale: number[], rest: number[], sample_rate: number, frame_rate: number, identity: string, consent: string, manifest: object}} about */
  begin(about) {
    const { scale, rest, sample_rate: sampleRate, frame_rate: frameRate } = about;
    const isSame = rest?.length === this.nMouth && rest.every((value, i) => Math.abs(value - this.rest[i]) < SAME);
    if (!isSame || scale?.length !== this.nMouth || frameRate !== FRAME_RATE) {
      this.fail("The broadcast is of another person, or of another fit of them. Reload the page, or export this person again.");
      return;
    }
    this.about = about;
    this.scale = scale;
    this.sound.sampleRate = sampleRate;
    this.sound.open();
    this.nFailed = 0;
    this.origin = null;
    this.state = "watching";
    this.warned(null);
    this.changed();
  }

  /** @param {ArrayBuffer} packet */
  take(packet) {
    const view = new DataView(packet), index = view.getUint32(0, true), epoch = view.getUint32(4, true), end = HEADER_BYTES + this.nMouth;
    if (!this.scale || view.getUint8(13) !== CODES || view.getUint32(16, true) !== this.nMouth) {
      this.fail("The broadcast sends something else than this page can show. Reload the page.");
      return;
    }
    const levels = new Int8Array(packet, HEADER_BYTES, this.nMouth);
    this.codes.set(index, Float32Array.from(this.scale, (factor, i) => factor * levels[i]));
    for (const one of this.codes.keys()) {
      if (one > index - MOST_CODES) break;
      this.codes.delete(one);
    }
    this.newest = index;
    this.nPackets++;
    if (epoch !== this.epoch) this.rebase(); // after an interruption, the next frame follows at once
    this.epoch = epoch;
    const isSilent = packet.byteLength === end;
    this.place(index, isSilent);
    if (!isSilent && this.isAudible) this.play(index, new Int16Array(packet.slice(end)));
  }

  /** Decides when a packet is heard. @param {number} index @param {boolean} isSilent */
  place(index, isSilent) {
    this.chooseClock();
    const { rate, size } = this;
    if (this.origin === null) this.anchor(index);
    let wait = (this.origin + index * size) / rate - this.soonest;
    if (wait < 0) {
      this.nLate++;
      this.waiting = Math.min(this.waiting + MORE_WAIT, LONGEST_WAIT);
      this.anchor(index);
      wait = this.waiting;
    }
    this.least = Math.min(this.least, wait);
    if (this.nPackets % N_MEASURED) return;
    const off = this.least - this.waiting;
    this.least = Infinity;
    if (off > FAR_OFF) {
      this.rebase();
      this.anchor(index);
    } else if (isSilent && Math.abs(off) > MOST_OFF) this.origin -= Math.sign(off) * size; // clocks differ
  }

  get rate() { return this.sound.sampleRate; }

  /** Samples of a packet. */
  get size() { return this.rate / FRAME_RATE; }

  /** @param {number} now ms @returns {number} what is heard then, seconds */
  heard(now) { return this.isAudible ? this.sound.heard(now) : now / 1000; }

  /** The earliest time at which something can be heard, on the same clock. */
  get soonest() { return this.isAudible ? this.sound.soonest : performance.now() / 1000; }

  chooseClock() {
    const isAudible = !this.sound.muted && this.sound.isSteady;
    if (isAudible !== this.isAudible) this.rebase();
    this.isAudible = isAudible;
  }

  /** Lets a packet be heard after the usual wait. @param {number} index */
  anchor(index) {
    this.origin = Math.round((this.soonest + this.waiting) * this.rate) - index * this.size;
    this.least = Infinity;
  }

  /** Drops sound that has not begun, and lets the next packet decide when it is heard. */
  rebase() {
    const heard = this.sound.context?.currentTime ?? 0;
    for (const { source, when } of this.held) if (when > heard) source.stop();
    this.origin = null;
  }

  /** @param {number} index @param {Int16Array} levels */
  play(index, levels) {
    const { context } = this.sound, buffer = new AudioBuffer({ length: levels.length, sampleRate: this.rate });
    buffer.copyToChannel(Float32Array.from(levels, (level) => level / 32768), 0);
    const source = new AudioBufferSourceNode(context, { buffer }), when = (this.origin + index * this.size) / this.rate, one = { source, when };
    source.connect(context.destination);
    source.onended = () => this.held.splice(this.held.indexOf(one), 1);
    source.start(when);
    this.held.push(one);
  }

  /**
   * The code of a frame: that of the sound that is heard with it.
   * @param {number} seen when it will be seen, ms
   * @param {number} passed frames since the last one
   * @returns {Float32Array | null} null: the mouth is at rest
   */
  codeAt(seen, passed) {
    if (this.origin !== null) follow(this, (this.heard(seen) * this.rate - this.origin) / this.size, passed);
    const code = this.origin !== null && this.codes.get(this.index);
    if (code) this.nMissed = 0;
    else if (++this.nMissed <= MOST_MISSED) return this.code;
    this.code = code || null;
    return this.code;
  }

  /** Goes on when the connection has ended: to the end, or to another try. @param {number} [code] @param {string} [reason] */
  closed(code, reason) {
    this.disconnect();
    const isFirst = this.state === "waiting" && !this.scale;
    if (code === NO_SUCH && isFirst) { this.fail(`The broadcast cannot be watched: ${reason || "it was refused"}.`); return; }
    if (code === ENDED || code === NO_SUCH) { this.finish(); return; }
    const delay = Math.min(FIRST_RETRY * 2 ** this.nFailed++, LAST_RETRY);
    this.timer = setTimeout(() => this.open(), 1000 * delay * (0.5 + 0.5 * Math.random())); // viewers come back one after the other
    this.state = "waiting";
    this.warned(new TalkingHeadError("broadcast", `There is no connection to the broadcast${reason ? ` (${reason})` : ""}. It is tried again.`));
    this.changed();
  }

  /** Ends when what has arrived was heard. */
  finish() {
    const left = this.origin === null ? 0 : (this.origin + (this.newest + 1) * this.size) / this.rate - this.heard(performance.now());
    this.timer = setTimeout(() => this.over(null), 1000 * Math.max(left, 0));
  }

  /** @param {string} message */
  fail(message) {
    this.disconnect();
    this.over(new TalkingHeadError("broadcast", message));
  }
}
