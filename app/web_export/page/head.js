// The fitted head of a person: pictures of their lower face, or of the whole head, for mouth codes.
// The drawing is done by talkhead.wasm, whose source is in app/web_export/module of talkhead.

const MAX_BYTES = 1 << 27; // of an unpacked head
const AGAIN = "Export this person again.";
const ERRORS = [
  null,
  ["damaged", `The file head.bin is damaged. ${AGAIN}`],
  ["version", `The file head.bin is of another version of talkhead. ${AGAIN}`],
  ["unsupported", "The head needs more memory than this browser provides."],
];
const TOO_OLD = ["unsupported", "Use a newer browser: it cannot unpack the file head.bin."];
const FACTS = ["width", "height", "nFrames", "nMouth", "cropWidth", "cropHeight"];

/** A head that cannot be shown. */
export class HeadError extends Error {
  /**
   * @param {"damaged" | "version" | "unsupported"} code The kind of the problem.
   * @param {string} message What is wrong, and what to do.
   */
  constructor(code, message) {
    super(message);
    this.name = "HeadError";
    this.code = code;
  }
}

/**
 * A picture, valid until the next one is drawn.
 *
 * @typedef {object} Patch
 * @property {number} x Left, pixels of the idle video.
 * @property {number} y Top, pixels of the idle video.
 * @property {number} width Pixels; may be 0.
 * @property {number} height Pixels; may be 0.
 * @property {Uint8ClampedArray} pixels RGBA, not premultiplied.
 */

/** Draws a person's head. */
export class Head {
  #exports;
  #mouth;

  /**
   * Loads a head.
   *
   * @param {ArrayBuffer | WebAssembly.Module} wasm The module talkhead.wasm.
   * @param {ArrayBuffer} bytes The file head.bin, or its contents compressed with gzip.
   * @returns {Promise<Head>}
   * @throws {HeadError} The file is damaged or of another version, or the browser is too old.
   */
  static async create(wasm, bytes) {
    const [exports, file] = [await instantiate(wasm), await unpacked(new Uint8Array(bytes))];
    const start = exports.reserve(file.length);
    if (!start) throw new HeadError(...ERRORS[3]);
    new Uint8Array(exports.memory.buffer).set(file, start);
    const error = exports.open_head(start, file.length);
    if (error) throw new HeadError(...ERRORS[error]);
    return new Head(exports);
  }

  /** Use `create`. */
  constructor(exports) {
    const { buffer } = exports.memory; // does not grow any more
    const facts = new Int32Array(buffer, exports.get_facts(), FACTS.length);
    this.#exports = exports;
    this.#mouth = new Float32Array(buffer, exports.get_mouth(), facts[FACTS.indexOf("nMouth")]);
    /**
     * Sizes: of the idle video (`width`, `height`), of pictures of the whole head (`cropWidth`,
     * `cropHeight`); `nFrames` of the idle video, there and back; `frameRate` per second; `nMouth`
     * components of mouth codes.
     */
    this.info = Object.freeze({
      ...Object.fromEntries(FACTS.map((name, i) => [name, facts[i]])),
      frameRate: 25,
    });
  }

  /**
   * Draws the lower face, to be put over an idle frame.
   *
   * @param {number} frame Number of the idle frame, there and back; starts again after the last one.
   * @param {Float32Array} mouth Mouth code [nMouth].
   * @returns {Patch}
   */
  patch(frame, mouth) {
    return this.#draw(this.#exports.draw_patch, frame, mouth);
  }

  /**
   * Draws the whole head, for any background.
   *
   * @param {number} frame Number of the idle frame, which gives pose and eyes.
   * @param {Float32Array} mouth Mouth code [nMouth].
   * @returns {Patch} Its place is (0, 0).
   */
  head(frame, mouth) {
    return this.#draw(this.#exports.draw_head, frame, mouth);
  }

  #draw(draw, frame, mouth) {
    if (mouth.length !== this.info.nMouth) {
      throw new RangeError(`a mouth code has ${this.info.nMouth} components, not ${mouth.length}`);
    }
    if (!Number.isSafeInteger(frame) || frame < 0) throw new RangeError(`${frame} is not a frame`);
    this.#mouth.set(mouth);
    draw(frame % this.info.nFrames);
    const { memory, get_place, get_pixels } = this.#exports;
    const [x, y, width, height] = new Int32Array(memory.buffer, get_place(), 4);
    const pixels = new Uint8ClampedArray(memory.buffer, get_pixels(), 4 * width * height);
    return { x, y, width, height, pixels };
  }
}

/** @returns {Promise<WebAssembly.Exports>} */
async function instantiate(wasm) {
  try {
    const module = wasm instanceof WebAssembly.Module ? wasm : await WebAssembly.compile(wasm);
    return (await WebAssembly.instantiate(module)).exports;
  } catch (error) {
    const advice = "Use a newer browser: WebAssembly with SIMD is needed";
    throw new HeadError("unsupported", `The head cannot be drawn here. ${advice} (${error.message}).`);
  }
}

/** Unpacks a file if it is compressed with gzip. @returns {Promise<Uint8Array>} */
async function unpacked(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  if (typeof DecompressionStream === "undefined") throw new HeadError(...TOO_OLD);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const chunks = [];
  let length = 0;
  try {
    for (const reader = stream.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) break;
      length += value.length;
      if (length > MAX_BYTES) throw new RangeError("too large");
      chunks.push(value);
    }
  } catch {
    throw new HeadError(...ERRORS[1]);
  }
  const file = new Uint8Array(length);
  chunks.reduce((start, chunk) => (file.set(chunk, start), start + chunk.length), 0);
  return file;
}
