// Speech of a line to motion codes of a person's mouth, which Head.patch takes. The computing is done by
// talkhead-speech.wasm, whose source is in app/web_export/module of talkhead.

import { ModuleError, joined, openModule } from "./module.js";

/** Speech that cannot be turned into motion. */
export class SpeechError extends ModuleError {}

/** Turns speech into motion codes, 25 a second, one line at a time. */
export class Speech {
  /** @type {import("./module.js").Exports} */
  #exports;

  /**
   * Loads what a person's speech needs, and begins a line.
   *
   * @param {ArrayBuffer | WebAssembly.Module} wasm The module talkhead-speech.wasm.
   * @param {ArrayBuffer} bytes The file speech.bin, or its contents compressed with gzip.
   * @returns {Promise<Speech>}
   * @throws {SpeechError} The file is damaged or of another version, or the browser is too old.
   */
  static async create(wasm, bytes) {
    const exports = await openModule(wasm, bytes, {
      Problem: SpeechError,
      file: "speech.bin",
      open: "open_speech",
      what: "Live speech",
      impossible: "Speech cannot be followed here.",
      mostBytes: 1 << 26,
    });
    return new Speech(exports);
  }

  /** Use `create`. @param {import("./module.js").Exports} exports */
  constructor(exports) {
    this.#exports = exports;
    const { buffer } = exports.memory, nMouth = exports.get_n_mouth(), mostAhead = exports.get_most_ahead();
    /**
     * `nMouth` components of a code; `rest`, the code of the mouth at rest; `sampleRate` of the sound;
     * `mostAhead` frames that a prediction waits for, and `lookaheadSeconds` of sound after its own
     * moment that a frame therefore waits for.
     */
    this.info = Object.freeze({
      nMouth,
      mostAhead,
      lookaheadSeconds: this.lookahead(mostAhead),
      sampleRate: 16000,
      rest: new Float32Array(buffer, exports.get_rest(), nMouth).slice(),
    });
    this.begin();
  }

  /**
   * Seconds of sound that a frame waits for.
   *
   * @param {number} ahead Frames that its prediction waits for.
   * @returns {number}
   */
  lookahead(ahead) {
    return this.#exports.get_lookahead(ahead) / 16000;
  }

  /**
   * Begins a line.
   *
   * @param {number} [ahead] Frames that predictions wait for. With fewer than `info.mostAhead`, frames
   *     come sooner, and their motion is less exact.
   */
  begin(ahead = this.info.mostAhead) {
    this.#exports.begin(ahead);
  }

  /**
   * Adds sound. The codes do not depend on how it is cut into pieces.
   *
   * @param {Float32Array} samples One channel at 16 kHz, in [-1, 1].
   * @returns {Float32Array} Codes [n * nMouth] of the frames that are complete.
   */
  push(samples) {
    const { memory, get_input, get_input_size, push } = this.#exports, size = get_input_size(), parts = [];
    for (let start = 0; start < samples.length; start += size) {
      const piece = samples.subarray(start, start + size);
      new Float32Array(memory.buffer, get_input(), size).set(piece);
      parts.push(this.#frames(push(piece.length)));
    }
    return joined(parts, Float32Array);
  }

  /**
   * Ends the line; `begin` begins the next one.
   *
   * @returns {Float32Array} Codes of the frames that were still waiting.
   */
  finish() {
    return this.#frames(this.#exports.finish());
  }

  /** @param {number} n */
  #frames(n) {
    const { memory, get_codes } = this.#exports;
    return new Float32Array(memory.buffer, get_codes(), n * this.info.nMouth).slice();
  }
}
