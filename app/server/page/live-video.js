// Pictures of a live session: decodes them as they arrive, and draws each when it is due. This runs in a
// worker, or on the page where a canvas cannot be given to a worker.

const SAME_PICTURE = 4, KEY_PICTURE = 8;
const VP8 = 1;
const FRAME_MS = 40;
const COLORS = { primaries: "bt709", transfer: "bt709", matrix: "smpte170m", fullRange: false };
export const VP8_CONFIG = { codec: "vp8", colorSpace: COLORS, optimizeForLatency: true };
// Sound may be heard this much later than its picture is seen (EBU R37); before that, it is not noticed.
const MOST_AHEAD = 60;
export const MOST_WAITING = 50; // frames that wait for their sound: playback may stand still

export function now() { return performance.timeOrigin + performance.now(); }

export class Video {
  // `report` is called with what has happened: pictures that were drawn, and requests to the server.
  constructor(report) {
    this.report = report;
    this.reset({});
  }

  setCanvas(canvas) { this.context = canvas.getContext("2d", { alpha: false }); }

  // A session begins, with `size` of its pictures, or has ended. What was drawn stays on the canvas.
  reset({ size }) {
    for (const one of this.pictures?.values() ?? []) release(one);
    if (this.wanted) release(this.wanted);
    this.size = size;
    this.pictures = new Map(); // by frame number
    this.decoding = new Map(); // by frame number
    this.newest = this.wanted = this.drawn = null;
    this.needsKey = true; // until a key frame has come
    this.asked = false; // for a key frame
    this.failures = 0;
    this.clock = this.epoch = this.shown = this.reported = null;
    this.port?.close();
    this.port = null;
    if (this.decoder?.state === "configured") this.decoder.close();
    this.decoder = null;
  }

  // A packet has arrived. `atOnce`: draw it before its sound is played, by MOST_AHEAD at most.
  add({ index, epoch, flags, codec, bytes, atOnce }) {
    if (epoch !== this.epoch) { this.forget(); this.epoch = epoch; }
    if (!(flags & SAME_PICTURE)) {
      const made = { index, uses: 0, image: null };
      if (!(codec === VP8 ? this.decode(made, bytes, flags & KEY_PICTURE) : this.decodeJpeg(made, bytes))) return;
      this.newest = made;
    }
    if (!this.newest) return;
    this.newest.uses++;
    this.pictures.set(index, this.newest);
    if (this.pictures.size > MOST_WAITING) this.drop(this.pictures.keys().next().value);
    if (!atOnce) return;
    const wait = this.clock ? this.clock.at + (index - this.clock.index) * FRAME_MS - MOST_AHEAD - now() : 0;
    if (wait <= 0) this.show(index);
    else setTimeout(() => { if (epoch === this.epoch) this.show(index); }, wait);
  }

  // The sound of a frame begins to play.
  tick(index) {
    this.clock = { index, at: now() };
    this.show(index);
    // `ahead`: ms between the drawing of the picture and the beginning of its sound.
    if (index === this.reported) this.report({ type: "played", index, ahead: this.clock.at - this.drawnAt });
  }

  show(index) {
    const one = this.pictures.get(index);
    if (one) {
      one.uses++; // until it is replaced
      if (this.wanted) release(this.wanted);
      this.wanted = one;
      this.shown = index;
    }
    for (const key of this.pictures.keys()) if (key <= index) this.drop(key);
    if (one) this.draw();
  }

  drop(index) {
    release(this.pictures.get(index));
    this.pictures.delete(index);
  }

  draw() {
    if (this.wanted?.image) this.paint(this.wanted, this.wanted.image, this.shown); // else when it has been decoded
  }

  paint(one, image, index) {
    if (!this.context) return;
    if (one !== this.drawn) {
      const { canvas } = this.context;
      const [width, height] = this.size ?? [image.displayWidth ?? image.width, image.displayHeight ?? image.height];
      if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
      this.context.drawImage(image, 0, 0);
      this.drawn = one;
    }
    if (index === this.reported) return;
    this.reported = index;
    this.drawnAt = now();
    this.report({ type: "drawn", index, at: this.drawnAt, codec: one.codec });
  }

  // An interruption: pictures that were not shown are dropped. The next one is a key frame.
  forget() {
    for (const [index, one] of this.pictures) {
      this.drop(index);
      if (one.uses <= 0) this.decoding.delete(one.index);
    }
    this.newest = null;
    this.needsKey = true;
  }

  finish(one, image) {
    if (this.decoding.get(one.index) !== one) { image.close(); return; } // of an earlier session, or interrupted
    this.decoding.delete(one.index);
    if (one.uses > 0) {
      one.image = image;
      if (one === this.wanted) this.draw();
      return;
    }
    // The next one is due already. It is drawn nevertheless if that has not been decoded: where decoding takes longer
    // than a frame, that is always so.
    const { wanted, drawn } = this;
    if (wanted && !wanted.image && one.index < wanted.index && one.index > (drawn?.index ?? -1)) this.paint(one, image, one.index);
    image.close();
  }

  decodeJpeg(one, bytes) {
    one.codec = "jpeg";
    this.decoding.set(one.index, one);
    createImageBitmap(new Blob([bytes], { type: "image/jpeg" })).then((image) => this.finish(one, image), () => {});
    return true;
  }

  decode(one, bytes, isKey) {
    one.codec = "vp8";
    if (this.needsKey && !isKey) {
      if (!this.asked) this.report({ type: "request", command: { type: "keyframe" } });
      this.asked = true;
      return false;
    }
    this.decoder ??= this.makeDecoder();
    this.needsKey = this.asked = false;
    this.decoding.set(one.index, one);
    this.decoder.decode(new EncodedVideoChunk({ type: isKey ? "key" : "delta", timestamp: one.index * FRAME_MS * 1000, data: bytes }));
    return true;
  }

  makeDecoder() {
    const decoder = new VideoDecoder({
      output: (image) => {
        const one = this.decoder === decoder && this.decoding.get(Math.round(image.timestamp / (FRAME_MS * 1000)));
        if (one) this.finish(one, image); else image.close();
      },
      error: () => { if (this.decoder === decoder) this.recover(); },
    });
    decoder.configure(VP8_CONFIG);
    return decoder;
  }

  // Decoding failed: begin again at a key frame, and with JPEG if that fails, too.
  recover() {
    this.decoder = this.newest = null;
    this.decoding.clear();
    this.needsKey = true;
    this.failures++;
    this.asked = true;
    this.report({ type: "request", command: this.failures > 1 ? { type: "codec", codec: "jpeg" } : { type: "keyframe" } });
  }

  take(message, port) {
    if (message.canvas) this.setCanvas(message.canvas);
    if (message.type === "reset") this.reset(message);
    if (message.type === "packet") this.add(message);
    if (message.type === "forget") this.forget();
    if (port) {
      this.port = port;
      port.onmessage = ({ data }) => this.tick(data.index);
    }
  }
}

function release(one) {
  if (--one.uses <= 0 && one.image) { one.image.close(); one.image = null; }
}

if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope) {
  const video = new Video((event) => self.postMessage(event));
  self.onmessage = ({ data, ports }) => video.take(data, ports[0]);
  self.postMessage({ type: "ready" });
}
