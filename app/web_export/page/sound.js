// The sound of lines, and the clock of what is heard, which decides what is shown.

const SMOOTHING = 0.1; // weight of a new measurement of the clock
const JUMP = 0.08; // seconds; beyond this, the output has changed, as when headphones are plugged in
const LEAST_AHEAD = 0.03; // seconds before a sample is heard in which it must have been scheduled

const UNSTEADY = 0.25; // seconds in which a device that has just been opened does not know its delay yet
const APART_WEIGHT = 0.1; // of a new measurement of the difference of frames and sound
const MOST_APART = 0.6, TOO_FAR = 1.5; // frames: a lasting difference, and any difference, after which one is left out or repeated

export class Sound {
  constructor() {
    this.muted = false;
    /** @type {number | undefined} */
    this.sampleRate = undefined; // undefined: that of the device
    /** @type {AudioContext | null} */
    this.context = null;
    this.offset = null; // of the time that is heard over that of the page, seconds
    this.changed = () => {};
  }

  /** True if the browser lets nothing sound yet, until the page is clicked. */
  get isBlocked() { return !this.muted && this.context?.state !== "running"; }

  /** True if the clock can be relied on. */
  get isSteady() { return this.muted || (!this.isBlocked && this.context.currentTime > UNSTEADY); }

  /** Begins to use the sound of this device, which browsers allow after a click. */
  open() {
    if (this.muted) return;
    if (!this.context) {
      this.context = new AudioContext({ latencyHint: "interactive", sampleRate: this.sampleRate });
      this.context.onstatechange = () => this.changed();
    }
    if (this.context.state !== "running") this.context.resume().catch(() => {});
  }

  /** @param {ArrayBuffer} bytes @returns {Promise<AudioBuffer>} */
  decode(bytes) {
    // An offline context decodes before a click, too.
    return new OfflineAudioContext(1, 1, this.context?.sampleRate ?? 48000).decodeAudioData(bytes.slice(0));
  }

  /**
   * The time that is heard at a time of the page, on the clock of `start`.
   * @param {number} now ms, of performance.now()
   */
  heard(now) {
    if (this.muted || !this.context) return now / 1000;
    const { currentTime, outputLatency, baseLatency } = this.context;
    const { contextTime, performanceTime } = this.context.getOutputTimestamp?.() ?? {};
    const offset = performanceTime ? contextTime - performanceTime / 1000
      : currentTime - (outputLatency ?? baseLatency ?? 0) - performance.now() / 1000;
    const isNew = this.offset === null || Math.abs(offset - this.offset) > JUMP;
    this.offset = isNew ? offset : this.offset + SMOOTHING * (offset - this.offset);
    return now / 1000 + this.offset;
  }

  /** The earliest time at which something can be heard, on the same clock. */
  get soonest() {
    if (this.muted || !this.context) return performance.now() / 1000;
    return Math.max(this.context.currentTime, this.heard(performance.now())) + LEAST_AHEAD;
  }

  /**
   * Plays a line; one that is playing is stopped.
   * @param {AudioBuffer} buffer
   * @param {number} when the time at which its first sample is heard
   * @param {number} from seconds of the line that are left out
   * @param {() => void} ended called at its end, unless it is stopped
   */
  start(buffer, when, from, ended) {
    this.stop();
    if (this.muted || !this.context) {
      const left = when + buffer.duration - from - performance.now() / 1000;
      this.timer = setTimeout(ended, 1000 * Math.max(left, 0));
      return;
    }
    this.source = new AudioBufferSourceNode(this.context, { buffer });
    this.source.connect(this.context.destination);
    this.source.onended = ended;
    this.source.start(when, from);
  }

  stop() {
    clearTimeout(this.timer);
    if (!this.source) return;
    this.source.onended = null;
    this.source.stop();
    this.source.disconnect();
    this.source = null;
  }

  close() {
    this.stop();
    this.context?.close();
    this.context = this.offset = null;
  }
}

/**
 * Goes on to the code of the next frame. Codes follow the frames of the footage, so that none is left out
 * because clocks are read at uneven times; they follow the sound if both have moved apart.
 * @param {{index: number, apart: number}} place `index` of the code, and by how much the sound is ahead of it on average
 * @param {number} wanted the frame that is heard, with fraction
 * @param {number} passed frames since the last one
 */
export function follow(place, wanted, passed) {
  place.index += passed;
  place.apart += APART_WEIGHT * (wanted - place.index - place.apart);
  if (Math.abs(wanted - place.index) > TOO_FAR) {
    place.index = Math.round(wanted);
    place.apart = 0;
  } else if (Math.abs(place.apart) > MOST_APART) {
    place.index += Math.sign(place.apart);
    place.apart -= Math.sign(place.apart);
  }
}
