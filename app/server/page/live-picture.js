// The canvas of the Live tab. Its pictures are decoded and drawn by a worker where that is possible.

import { Video, VP8_CONFIG } from "./live-video.js";

export class LivePicture {
  constructor(canvas) {
    this.canvas = canvas;
    this.report = () => {}; // called with what has happened
  }

  // The canvas is given to the worker once that has been loaded: it cannot be taken back.
  async connect() {
    const worker = this.canvas.transferControlToOffscreen ? await loadWorker().catch(() => null) : null;
    if (worker) {
      worker.onmessage = ({ data }) => this.report(data);
      worker.onerror = ({ message }) => this.report({ type: "error", detail: `Pictures cannot be shown (${message}). Reload the page.` });
      this.post = (message, transferred) => worker.postMessage(message, transferred);
      const offscreen = this.canvas.transferControlToOffscreen();
      this.post({ canvas: offscreen }, [offscreen]);
    } else {
      const video = new Video((event) => this.report(event));
      video.setCanvas(this.canvas);
      this.post = (message, transferred) => video.take(message, transferred?.find((one) => one instanceof MessagePort));
    }
  }

  // A session begins. Returns the port on which the index of each frame is sent when its sound is played.
  async begin(width, height) {
    await (this.connected ??= this.connect());
    const { port1, port2 } = new MessageChannel();
    this.post({ type: "reset", size: [width, height] }, [port2]);
    return port1;
  }

  add(packet) { this.post({ type: "packet", ...packet }, packet.bytes ? [packet.bytes.buffer] : []); }

  forget() { this.post({ type: "forget" }); }

  // A session has ended: what it needed is released. Its last picture stays.
  end() { this.post?.({ type: "reset" }); }
}

function loadWorker() {
  return new Promise((resolve, reject) => {
    const worker = new Worker("/static/live-video.js", { type: "module" });
    worker.onmessage = () => resolve(worker); // it says that it is ready
    worker.onerror = reject;
  });
}

// VP8 where this browser decodes it, which needs a secure address; otherwise JPEG.
export async function bestCodec() {
  try {
    return (await VideoDecoder.isConfigSupported(VP8_CONFIG)).supported ? "vp8" : "jpeg";
  } catch {
    return "jpeg";
  }
}
