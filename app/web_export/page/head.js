// The fitted head of a person: pictures of their lower face, or of the whole head, for mouth codes.
// The drawing is done by talkhead.wasm, whose source is in app/web_export/module of talkhead.

import { ModuleError, openModule } from "./module.js";

const FACTS = ["width", "height", "nFrames", "nMouth", "cropWidth", "cropHeight"];

/** A head that cannot be shown. */
export class HeadError extends ModuleError {}

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
  /** @type {import("./module.js").Exports} */
  #exports;
  /** @type {Float32Array} */
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
    const exports = await openModule(wasm, bytes, {
      Problem: HeadError,
      file: "head.bin",
      open: "open_head",
      what: "The head",
      impossible: "The head cannot be drawn here.",
      mostBytes: 1 << 27,
    });
    return new Head(exports);
  }

  /** Use `create`. @param {import("./module.js").Exports} exports */
  constructor(exports) {
    const { buffer } = exports.memory; // does not grow any more
    const facts = new Int32Array(buffer, exports.get_facts(), FACTS.length);
    this.#exports = exports;
    this.#mouth = new Float32Array(buffer, exports.get_mouth(), facts[FACTS.indexOf("nMouth")]);
    /**
     * Sizes: of the idle video (`width`, `height`), of pictures of the whole head (`cropWidth`,
     * `cropHeight`); `nFrames` of the idle video, there and back; `frameRate` per second; `nMouth`
     * components of mouth codes.
     *
     * @type {Readonly<Record<"width" | "height" | "nFrames" | "nMouth" | "cropWidth" | "cropHeight" | "frameRate", number>>}
     */
    this.info = Object.freeze({
      .../** @type {any} */ (Object.fromEntries(FACTS.map((name, i) => [name, facts[i]]))),
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

  /** @param {(frame: number) => void} draw @param {number} frame @param {Float32Array} mouth @returns {Patch} */
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
