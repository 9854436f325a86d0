// Takes the sound of a microphone or stream, on the audio thread, and sends it on in blocks.

const BLOCK = 0.01; // seconds of sound in a message

/**
 * The audio thread, which the types of browsers leave out.
 * @typedef {object} AudioThread
 * @property {number} sampleRate samples per second
 * @property {number} currentTime seconds, of the first sample of the block that is processed
 * @property {new () => {port: MessagePort}} AudioWorkletProcessor
 * @property {(name: string, processor: Function) => void} registerProcessor
 */
const thread = /** @type {AudioThread} */ (/** @type {unknown} */ (globalThis));

class Capture extends thread.AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.round(BLOCK * thread.sampleRate);
    this.block = new Float32Array(this.size);
    this.n = 0;
    /** @type {MessagePort | null} */
    this.listener = null;
    this.hasBegun = false;
    this.port.onmessage = ({ data }) => { this.listener = data; };
  }

  /** Takes a block of sound. @param {Float32Array[][]} inputs channels of the one input @returns {boolean} there will be more */
  process([channels]) {
    if (!this.listener || (!this.hasBegun && !channels.length)) return true;
    if (!this.hasBegun) this.port.postMessage(thread.currentTime);
    this.hasBegun = true;
    const length = channels[0]?.length ?? 128; // a stream that pauses is silent
    for (let i = 0; i < length; i++) {
      let value = 0;
      for (const channel of channels) value += channel[i] / channels.length;
      this.block[this.n++] = value;
      if (this.n === this.size) {
        this.listener.postMessage(this.block, [this.block.buffer]); // empty afterwards
        this.block = new Float32Array(this.size);
        this.n = 0;
      }
    }
    return true;
  }
}

thread.registerProcessor("talkhead-capture", Capture);
