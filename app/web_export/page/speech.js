// Speech of a line to motion codes of a person's mouth, which Head.patch takes. The computing is done by
// talkhead-speech.wasm, whose source is in app/web_export/module of talkhead.

/** Speech that cannot be turned into motion. */
export class SpeechError extends Error {
  /**
   * @param {"damaged" | "version" | "unsupported"} code The kind of the problem.
   * @param {string} message What is wrong, and what to do.
   */
  constructor(code, message) {
    super(message);
    this.name = "SpeechError";
    this.code = code;
  }
}

/** Turns speech into motion codes, 25 a second, one line at a time. */
export class Speech {
  static #MAX_BYTES = 1 << 26; // of an unpacked file
  static #ERRORS = [
    null,
    ["damaged", "The file speech.bin is damaged. Export this person again."],
    ["version", "The file speech.bin is of another version of talkhead. Export this person again."],
    ["unsupported", "Live speech needs more memory than this browser provides."],
  ];
  static #TOO_OLD = ["unsupported", "Use a newer browser: it cannot unpack the file speech.bin."];
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
    const exports = await Speech.#instantiate(wasm), file = await Speech.#unpacked(new Uint8Array(bytes));
    const start = exports.reserve(file.length);
    if (!start) throw new SpeechError(...Speech.#ERRORS[3]);
    new Uint8Array(exports.memory.buffer).set(file, start);
    const error = exports.open_speech(start, file.length);
    if (error) throw new SpeechError(...Speech.#ERRORS[error]);
    return new Speech(exports);
  }

  /** Use `create`. */
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
    return Speech.#joined(parts, Float32Array);
  }

  /**
   * Ends the line; `begin` begins the next one.
   *
   * @returns {Float32Array} Codes of the frames that were still waiting.
   */
  finish() {
    return this.#frames(this.#exports.finish());
  }

  #frames(n) {
    const { memory, get_codes } = this.#exports;
    return new Float32Array(memory.buffer, get_codes(), n * this.info.nMouth).slice();
  }

  /** @returns {Promise<WebAssembly.Exports>} */
  static async #instantiate(wasm) {
    try {
      const module = wasm instanceof WebAssembly.Module ? wasm : await WebAssembly.compile(wasm);
      return (await WebAssembly.instantiate(module)).exports;
    } catch (error) {
      const advice = "Use a newer browser: WebAssembly with SIMD is needed";
      throw new SpeechError("unsupported", `Speech cannot be followed here. ${advice} (${error.message}).`);
    }
  }

  /** Unpacks a file if it is compressed with gzip. @returns {Promise<Uint8Array>} */
  static async #unpacked(bytes) {
    if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
    if (typeof DecompressionStream === "undefined") throw new SpeechError(...Speech.#TOO_OLD);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const chunks = [];
    let length = 0;
    try {
      for (const reader = stream.getReader(); ; ) {
        const { done, value } = await reader.read();
        if (done) break;
        length += value.length;
        if (length > Speech.#MAX_BYTES) throw new RangeError("too large");
        chunks.push(value);
      }
    } catch {
      throw new SpeechError(...Speech.#ERRORS[1]);
    }
    return Speech.#joined(chunks, Uint8Array);
  }

  static #joined(parts, Type) {
    const whole = new Type(parts.reduce((n, part) => n + part.length, 0));
    parts.reduce((start, part) => (whole.set(part, start), start + part.length), 0);
    return whole;
  }
}
