// Loads the WebAssembly modules of an export: a module, and the file that it reads.

/**
 * What a module exports: its memory, and functions of numbers.
 * @typedef {{memory: WebAssembly.Memory} & Record<string, (...numbers: number[]) => number>} Exports
 */

const AGAIN = "Export this person again.";

/** A file or a browser that a module cannot work with. */
export class ModuleError extends Error {
  /**
   * @param {"damaged" | "version" | "unsupported"} code The kind of the problem.
   * @param {string} message What is wrong, and what to do.
   */
  constructor(code, message) {
    super(message);
    this.name = this.constructor.name;
    this.code = code;
  }
}

/**
 * Loads a module and opens its file.
 *
 * @param {ArrayBuffer | WebAssembly.Module} wasm The module.
 * @param {ArrayBuffer} bytes The file, or its contents compressed with gzip.
 * @param {object} of
 * @param {typeof ModuleError} of.Problem The error that is thrown.
 * @param {string} of.file Name of the file.
 * @param {string} of.open Name of the function that opens it.
 * @param {string} of.what What needs memory, at the beginning of a sentence.
 * @param {string} of.impossible The sentence for browsers that are too old.
 * @param {number} of.mostBytes Of the unpacked file.
 * @returns {Promise<Exports>}
 */
export async function openModule(wasm, bytes, { Problem, file, open, what, impossible, mostBytes }) {
  /** @type {["damaged" | "version" | "unsupported", string][]} */
  const errors = [
    null,
    ["damaged", `The file ${file} is damaged. ${AGAIN}`],
    ["version", `The file ${file} is of another version of talkhead. ${AGAIN}`],
    ["unsupported", `${what} needs more memory than this browser provides.`],
  ];
  const problem = (/** @type {number} */ error) => new Problem(...errors[error]);
  /** @type {Exports} */
  let exports;
  try {
    const module = wasm instanceof WebAssembly.Module ? wasm : await WebAssembly.compile(wasm);
    exports = /** @type {any} */ (await WebAssembly.instantiate(module)).exports;
  } catch (error) {
    const advice = "Use a newer browser: WebAssembly with SIMD is needed";
    throw new Problem("unsupported", `${impossible} ${advice} (${error.message}).`);
  }
  let content = new Uint8Array(bytes);
  if (content[0] === 0x1f && content[1] === 0x8b) {
    if (typeof DecompressionStream === "undefined") {
      throw new Problem("unsupported", `Use a newer browser: it cannot unpack the file ${file}.`);
    }
    content = await unpacked(content, mostBytes).catch(() => { throw problem(1); });
  }
  const start = exports.reserve(content.length);
  if (!start) throw problem(3);
  new Uint8Array(exports.memory.buffer).set(content, start);
  const error = exports[open](start, content.length);
  if (error) throw problem(error);
  return exports;
}

/** Unpacks bytes that are compressed with gzip. @param {Uint8Array<ArrayBuffer>} bytes @param {number} mostBytes @returns {Promise<Uint8Array<ArrayBuffer>>} */
async function unpacked(bytes, mostBytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const chunks = [];
  let length = 0;
  for (const reader = stream.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    length += value.length;
    if (length > mostBytes) throw new RangeError("too large");
    chunks.push(value);
  }
  return joined(chunks, Uint8Array);
}

/**
 * Joins typed arrays.
 * @template {Uint8Array<ArrayBuffer> | Float32Array<ArrayBuffer>} T
 * @param {T[]} parts @param {new (length: number) => T} Type
 * @returns {T}
 */
export function joined(parts, Type) {
  const whole = new Type(parts.reduce((n, part) => n + part.length, 0));
  parts.reduce((start, part) => (whole.set(part, start), start + part.length), 0);
  return whole;
}
