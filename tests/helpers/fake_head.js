// A head for tests of the page: its mouth is a box whose color tells frame and code.

export class HeadError extends Error {
  constructor(code, message) { super(message); this.code = code; }
}

export class Head {
  static async create(wasm, bytes) {
    const text = new TextDecoder().decode(bytes);
    if (!text.startsWith("{")) throw new HeadError("damaged", "The head is damaged. Export this person again.");
    return new Head(JSON.parse(text));
  }

  constructor(info) { this.info = info; }

  patch(frame, mouth) {
    const { x, y, width, height } = this.info.box, pixels = new Uint8ClampedArray(4 * width * height);
    for (let i = 0; i < width * height; i++) {
      pixels.set([frame >> 4, 128 + 40 * mouth[0], 8 * (frame & 15), 255], 4 * i);
    }
    return { x, y, width, height, pixels };
  }
}
