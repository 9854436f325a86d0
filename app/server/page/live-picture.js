// The canvas of the Live tab. Its pictures are decoded and drawn by a worker where that is possible.

import { Video, VP8_CONFIG } from "./live-video.js";

export class LivePicture {
  constructor(canvas) {
    this.report = () => {}; // called with what has happened
    if (window.Worker && canvas.transferControlToOffscreen) {
      const worker = new Worker("/static/live-video.js", { type: "module" });
      worker.onmessage = ({ data }) => this.report(data);
      this.post = (message, transferred) => worker.postMessage(message, transferred);
      const offscreen = canvas.transferControlToOffscreen();
      this.post({ canvas: offscreen }, [offscreen]);
    } else {
      const video = new Video((event) => this.report(event));
      video.setCanvas(canvas);
      this.post = (message, transferred) => video.take(message, transferred?.find((one) => one instanceof MessagePort));
    }
  }

  // A session begins. Returns the port on which the index of each frame is sent when its sound is played.
  begin(width, height) {
    const { port1, port2 } = new MessageChannel();
    this.post({ type: "reset", size: [width, height] }, [port2]);
    return port1;
  }

  add(packet) { this.post({ type: "packet", ...packet }, packet.bytes ? [packet.bytes.buffer] : []); }

  forget() { this.post({ type: "forget" }); }
}

// VP8 where this browser decodes it, which needs a secure address; otherwise JPEG.
export async function bestCodec() {
  try {
    return (await VideoDecoder.isConfigSupported(VP8_CONFIG)).supported ? "vp8" : "jpeg";
  } catch {
    return "jpeg";
  }
}
