// Turns sound into motion codes, off the thread of the page.

import { Resampler } from "./resampler.js";
import { Speech } from "./speech.js";

/** @type {Speech | null} */
let speech = null;
/** The line that is listened to, its resampler, and where its blocks come from. */
let line = null, resampler = null, port = null;

function answer(codes, isEnded) { self.postMessage({ line, codes, isEnded }, [codes.buffer]); }

function hear(samples) { answer(speech.push(resampler.push(samples)), false); }

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
