// Renders the mouth, off the thread of the page.

import { Head } from "./head.js";

/** @type {Head | null} */
let head = null;

self.onmessage = async ({ data }) => {
  try {
    if (data.head) {
      head = await Head.create(data.wasm, data.head);
      self.postMessage({ info: head.info });
    } else {
      const begun = performance.now();
      const { x, y, width, height, pixels } = head.patch(data.frame, data.code);
      const image = width && height ? await createImageBitmap(new ImageData(pixels.slice(), width, height)) : null;
      const took = performance.now() - begun, { frame, index, sent } = data;
      self.postMessage({ frame, index, sent, x, y, image, took }, { transfer: image ? [image] : [] });
    }
  } catch (error) {
    self.postMessage({ error: { code: error.code ?? "damaged", message: error.message } });
  }
};
