// Follows speech with app/web_export/page/speech.js and prints what it returned, as JSON.
// Arguments: speech.js as a module, talkhead-speech.wasm, speech.bin, float32 samples.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [script, wasm, file, sound] = process.argv.slice(2);
const { Speech, SpeechError } = await import(pathToFileURL(script));
const bytes = (path) => Uint8Array.from(readFileSync(path)).buffer;
const speech = await Speech.create(bytes(wasm), bytes(file));
const samples = new Float32Array(bytes(sound));

function follow(ahead, size) {
  speech.begin(ahead);
  const codes = [];
  for (let start = 0; start < samples.length; start += size) codes.push(...speech.push(samples.subarray(start, start + size)));
  return [...codes, ...speech.finish()];
}

async function error(attempt) {
  try {
    await attempt();
    return null;
  } catch (caught) {
    return caught instanceof SpeechError ? caught.code : caught.name;
  }
}

const version = bytes(file.replace(".gz", ""));
new Uint8Array(version)[8]++;
const result = {
  info: { ...speech.info, rest: [...speech.info.rest] },
  codes: follow(undefined, 128),
  whole: follow(undefined, samples.length),
  early: follow(0, 997),
  errors: [
    await error(() => Speech.create(bytes(wasm), bytes(file).slice(0, 5000))),
    await error(() => Speech.create(bytes(wasm), new ArrayBuffer(0))),
    await error(() => Speech.create(bytes(wasm), version)),
    await error(() => Speech.create(new ArrayBuffer(8), bytes(file))),
  ],
};
delete globalThis.DecompressionStream; // as in older browsers
result.errors.push(await error(() => Speech.create(bytes(wasm), bytes(file))));
console.log(JSON.stringify(result));
