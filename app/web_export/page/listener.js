// Turns sound into motion codes, off the thread of the page.

import { Resampler } from "./resampler.js";
import { Speech } from "./speech.js";

/** @type {Speech | null} */
let speech = null;
/** @type {number | null} that is listened to */
let line = null;
/** @type {Resampler | null} of the line */
let resampler = null;
/** @type {MessagePort | null} where its blocks come from */
let port = null;

/** @param {Float32Array} codes [n * nMouth] @param {boolean} isEnded */
function answer(codes, isEnded) { self.postMessage({ line, codes, isEnded }, { transfer: [codes.buffer] }); }

/** @param {Float32Array} samples */
function hear(samples) { answer(speech.push(resampler.push(samples)), false); }

/** @param {any} data a message: the module and its file, a new line, or its sound */
async function take(data) {
  if (data.speech) {
    speech = await Speech.create(data.wasm, data.speech);
    self.postMessage({ info: speech.info });
  } else if (data.sampleRate) {
    port?.close();
    ({ line, port } = data);
    resampler = new Resampler(data.sampleRate, speech.info.sampleRate);
    speech.begin(data.ahead);
    if (port) port.onmessage = ({ data: samples }) => hear(samples);
  } else if (data.line === line) {
    if (data.samples) hear(data.samples);
    if (!data.isLast) return;
    port?.close();
    const last = speech.push(resampler.finish()), rest = speech.finish();
    answer(last, false);
    answer(rest, true);
  }
}

self.onmessage = ({ data }) => take(data).catch((error) => {
  self.postMessage({ error: { code: error.code ?? "damaged", message: error.message } });
});
