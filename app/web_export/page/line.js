// Lines: their sound, and the motion codes of the mouth.

import { TalkingHeadError, fromBase64 } from "./files.js";

/**
 * @typedef {{name: string, nFrames: number, code: (index: number) => Float32Array, buffer: AudioBuffer}} Line
 * @typedef {import("./files.js").LineFiles} LineFiles
 */

/**
 * Loads a line of an export.
 * @param {LineFiles} about
 * @param {import("./files.js").Files} files
 * @param {import("./sound.js").Sound} sound
 * @returns {Promise<Line>}
 */
export async function loadLine(about, files, sound) {
  const [heard, seen] = await Promise.all([files.bytes(about.sound), files.bytes(about.codes)]);
  return makeLine(about, seen, await sound.decode(heard));
}

/**
 * Reads a line that is not part of the export.
 * @param {LineFiles} given
 * @param {number} nMouth
 * @param {import("./sound.js").Sound} sound
 * @returns {Promise<Line>}
 */
export async function readLine(given, nMouth, sound) {
  try {
    const { scale, n_frames: nFrames } = given, seen = fromBase64(given.codes);
    if (scale.length !== nMouth || !scale.every(Number.isFinite) || seen.byteLength !== nFrames * nMouth) throw new RangeError("codes");
    return makeLine({ ...given, name: given.name ?? "" }, seen, await sound.decode(fromBase64(given.sound)));
  } catch {
    throw new TalkingHeadError("damaged", "The line is damaged, or of another person.");
  }
}

/** @param {LineFiles} about @param {ArrayBuffer} seen @param {AudioBuffer} buffer @returns {Line} */
function makeLine({ name, scale, n_frames: nFrames }, seen, buffer) {
  const levels = new Int8Array(seen);
  const code = (/** @type {number} */ index) => Float32Array.from(scale, (factor, i) => factor * levels[index * scale.length + i]);
  return { name, code, nFrames, buffer };
}
