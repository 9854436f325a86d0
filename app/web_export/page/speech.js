// Speech to motion codes, in a module of WebAssembly (module/speech.c). It takes no part of a page.

const DAMAGED = 1, OTHER_VERSION = 2;
const AGAIN = "Export this person again.";

/** `code` is "damaged", "version" or "unsupported". */
export class SpeechError extends Error {
  /** @param {string} code @param {string} message */
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** Turns speech into motion codes of the mouth, 25 a second. One line at a time. */
export class Speech {
  /**
   * @param {BufferSource | WebAssembly.Module} wasm content of talkhead-speech.wasm
   * @param {BufferSource} bytes content of speech.bin
   * @returns {Promise<Speech>}
   */
  static async create(wasm, bytes) {
    const module = await compile(wasm);
    const instance = await WebAssembly.instantiate(module);
    return new Speech(instance.exports, await decompress(bytes));
  }

  /** Use `create`. @param {WebAssembly.Exports} module @param {Uint8Array} file */
  constructor(module, file) {
    this.module = module;
    const place = module.reserve(file.length);
    if (!place) throw tooLarge();
    new Uint8Array(module.memory.buffer, place, file.length).set(file);
    const fault = module.load(place, file.length);
    if (fault === OTHER_VERSION) throw new SpeechError("version", `The file speech.bin was made for another version of this page. ${AGAIN}`);
    if (fault === DAMAGED) throw damaged();
    if (fault) throw tooLarge();
    const nMouth = module.n_mouth();
    /** Frames that a prediction waits for, as trained; fewer make it sooner and less exact. */
    this.mostAhead = module.ahead();
    /** What is known of the person: components of a mouth code, seconds of sound after a frame that it waits for, and the mouth at rest. */
    this.info = {
      nMouth,
      lookaheadSeconds: 0,
      sampleRate: 16000,
      rest: new Float32Array(module.memory.buffer, module.rest(), nMouth).slice(),
    };
    this.begin();
  }

  /** Begins a line. @param {number} [ahead] frames that predictions wait for, at most `mostAhead` */
  begin(ahead = this.mostAhead) {
    this.module.begin(ahead);
    this.info.lookaheadSeconds = this.module.lookahead(Math.min(Math.max(ahead, 0), this.mostAhead)) / this.info.sampleRate;
  }

  /**
   * Adds sound; how it is cut into pieces makes no difference.
   * @param {Float32Array} samples one channel at 16 kHz, in [-1, 1]
   * @returns {Float32Array} codes [n * nMouth] of the frames that are complete
   */
  push(samples) {
    const size = this.module.input_size(), parts = [];
    for (let start = 0; start < samples.length; start += size) {
      const piece = samples.subarray(start, start + size);
      new Float32Array(this.module.memory.buffer, this.module.input(), piece.length).set(piece);
      parts.push(this.frames(this.module.push(piece.length)));
    }
    return joined(parts);
  }

  /** Ends the line. @returns {Float32Array} codes of the frames that were still waiting */
  finish() { return this.frames(this.module.finish()); }

  /** @param {number} n */
  frames(n) { return new Float32Array(this.module.memory.buffer, this.module.output(), n * this.info.nMouth).slice(); }
}

function damaged() { return new SpeechError("damaged", `The file speech.bin is damaged. ${AGAIN}`); }

function tooLarge() { return new SpeechError("unsupported", "This browser has too little memory for live speech. Close other pages, and reload this one."); }

/** @param {BufferSource | WebAssembly.Module} wasm @returns {Promise<WebAssembly.Module>} */
async function compile(wasm) {
  const old = "This browser cannot turn speech into motion. Use a newer one.";
  if (typeof WebAssembly === "undefined" || typeof DecompressionStream === "undefined") throw new SpeechError("unsupported", old);
  if (wasm instanceof WebAssembly.Module) return wasm;
  try {
    return await WebAssembly.compile(wasm);
  } catch {
    throw new SpeechError("unsupported", old); // without SIMD
  }
}

/** @param {BufferSource} bytes @returns {Promise<Uint8Array>} */
async function decompress(bytes) {
  try {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch {
    throw damaged();
  }
}

/** @param {Float32Array[]} parts @returns {Float32Array} */
function joined(parts) {
  if (parts.length === 1) return parts[0];
  const whole = new Float32Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
