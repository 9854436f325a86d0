// Draws with app/web_export/page/head.js and prints what it returned, as JSON.
// Arguments: head.js as a module, talkhead.wasm, head.bin, number of mouth components.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [script, wasm, file, nMouth] = process.argv.slice(2);
const { Head, HeadError } = await import(pathToFileURL(script));
const bytes = (path) => Uint8Array.from(readFileSync(path)).buffer;
const head = await Head.create(bytes(wasm), bytes(file));
const mouth = new Float32Array(Number(nMouth)).fill(0.5);
const sum = (pixels) => pixels.reduce((total, value) => total + value, 0);
const describe = ({ x, y, width, height, pixels }) => [x, y, width, height, sum(pixels)];

async function error(attempt) {
  try {
    await attempt();
    return null;
  } catch (caught) {
    return caught instanceof HeadError ? caught.code : caught.name;
  }
}

const version = bytes(file.replace(".gz", ""));
new Uint8Array(version)[8]++;
const result = {
  info: head.info,
  patch: describe(head.patch(3, mouth)),
  head: describe(head.head(3, mouth)),
  again: describe((await Head.create(new WebAssembly.Module(bytes(wasm)), bytes(file))).patch(3, mouth)),
  errors: [
    await error(() => Head.create(bytes(wasm), bytes(file).slice(0, 5000))),
    await error(() => Head.create(bytes(wasm), new ArrayBuffer(0))),
    await error(() => Head.create(bytes(wasm), version)),
    await error(() => Head.create(new ArrayBuffer(8), bytes(file))),
    await error(() => head.patch(0, mouth.subarray(1))),
    await error(() => head.patch(-1, mouth)),
  ],
};
delete globalThis.DecompressionStream; // as in older browsers
result.errors.push(await error(() => Head.create(bytes(wasm), bytes(file))));
console.log(JSON.stringify(result));
