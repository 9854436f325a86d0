// A live session: the WebSocket, playback, and the microphone. Pictures follow the sound that is played.

import { json, protocols } from "./api.js";
import { bestCodec } from "./live-picture.js";
import { MOST_WAITING } from "./live-video.js";

const HEADER_BYTES = 20;
const SPEECH = 1;
const FRAME_MS = 40;
const MOST_MEASURED = 2500;

export class LiveSession {
  // `picture` shows the pictures (LivePicture), `changed` is called with what has happened.
  constructor(picture, changed) {
    this.picture = picture;
    this.changed = changed;
    this.frames = new Map(); // by frame number: those that were not drawn yet
    this.epoch = 0;
    this.latencies = []; // of the frames of the microphone, ms: until they had arrived, and until they were drawn
    this.aheads = []; // of the same, ms: of the pictures that were drawn before their sound, by how much
    this.begun = null; // when the first sample of the microphone was recorded
  }

  // `request` is a form with the person and how they are shown. Returns null if the session was ended meanwhile.
  async start(request) {
    try {
      await this.connect(request);
      return this.info;
    } catch (error) {
      const isWanted = !this.ended;
      await this.leave();
      if (isWanted) throw error;
      return null;
    }
  }

  // Throws if the session was ended during one of its waits.
  async connect(request) {
    this.context = new AudioContext({ latencyHint: "interactive" });
    await this.context.audioWorklet.addModule("/static/live-audio.js");
    this.checkWanted();
    await this.context.resume();
    this.checkWanted();
    this.context.onstatechange = () => { // a call or another device may have suspended it
      if (!this.ended && this.context.state !== "running") this.context.resume().catch(() => {});
    };
    const rate = this.context.sampleRate;
    request.set("sample_rate", rate);
    request.set("codec", await bestCodec());
    this.checkWanted();
    this.info = await json("/v1/live", { method: "POST", body: request });
    this.checkWanted();
    this.player = new AudioWorkletNode(this.context, "talkhead-player", { numberOfInputs: 0, outputChannelCount: [1] });
    this.player.port.onmessage = ({ data }) => { this.played = data; };
    this.picture.report = (event) => this.observe(event);
    const clock = await this.picture.begin(this.info.width, this.info.height);
    if (this.ended) this.picture.end(); // it was not begun when `end` did this
    this.checkWanted();
    this.player.port.postMessage({ clock }, [clock]);
    this.player.connect(this.context.destination);
    const address = new URL(this.info.url, location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    this.socket = new WebSocket(address, protocols("talkhead.live"));
    this.socket.binaryType = "arraybuffer";
    this.socket.onmessage = ({ data }) => (typeof data === "string" ? this.read(JSON.parse(data)) : this.take(data));
    await new Promise((resolve, reject) => {
      this.socket.onopen = resolve;
      this.socket.onclose = ({ reason }) => reject(new Error(reason || "The connection was closed."));
    });
    this.checkWanted();
    this.socket.onclose = () => this.end();
  }

  checkWanted() { if (this.ended) throw new Error("The session was ended."); }

  take(buffer) {
    const view = new DataView(buffer);
    const index = view.getUint32(0, true), epoch = view.getUint32(4, true), sound = view.getUint32(8, true);
    const flags = view.getUint8(12), size = view.getUint32(16, true);
    if (epoch < this.epoch) return;
    const bytes = size ? new Uint8Array(buffer.slice(HEADER_BYTES, HEADER_BYTES + size)) : null;
    this.picture.add({ index, epoch, flags, codec: view.getUint8(13), bytes, atOnce: this.listens });
    this.frames.set(index, { sound, speech: Boolean(flags & SPEECH), arrived: performance.now() });
    if (this.frames.size > MOST_WAITING) this.frames.delete(this.frames.keys().next().value);
    const words = new Int16Array(buffer.slice(HEADER_BYTES + size));
    const samples = Float32Array.from(words, (value) => value / 32768);
    this.player.port.postMessage({ index, epoch, samples, listens: this.listens }, [samples.buffer]);
  }

  // A picture was drawn, its sound is played, drawing has failed, or the server is to do something about pictures.
  observe(event) {
    if (this.ended) return;
    if (event.type === "request") this.send(event.command);
    else if (event.type === "error") this.changed(event);
    else if (event.type === "drawn") this.drawn(event);
    else if (event.type === "played" && this.listens) push(this.aheads, event.ahead);
  }

  drawn(event) {
    const { index, codec } = event;
    const one = this.frames.get(index);
    for (const key of this.frames.keys()) if (key <= index) this.frames.delete(key);
    if (!one) return;
    if (one.speech && this.begun !== null) {
      const recorded = this.begun + one.sound * FRAME_MS;
      const drawn = event.at - performance.timeOrigin;
      push(this.latencies, { arrived: one.arrived - recorded, drawn: drawn - recorded });
    }
    const { queued, gaps } = this.played ?? { queued: 0, gaps: 0 };
    const { latencies, aheads } = this;
    this.changed({ type: "frame", index, codec, speech: one.speech, queued, gaps, latencies, aheads });
  }

  read(message) { this.changed(message); }

  async listen() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("The microphone needs a secure address: open this page on the same machine, or start the server with --tls.");
    }
    const audio = { echoCancellation: true, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
    const stream = await navigator.mediaDevices.getUserMedia({ audio });
    if (this.ended || this.stream) { stop(stream); return; } // ended, or asked for twice
    this.stream = stream;
    this.source = this.context.createMediaStreamSource(this.stream);
    this.capture = new AudioWorkletNode(this.context, "talkhead-capture", { numberOfOutputs: 0 });
    this.send({ type: "start", source: "microphone", sample_rate: this.context.sampleRate });
    this.latencies = [];
    this.aheads = [];
    this.begun = null;
    let recorded = 0; // samples
    this.capture.port.onmessage = ({ data }) => {
      recorded += data.byteLength / 2;
      // Of the block that came with the least delay: the first may have waited for the page.
      const begun = performance.now() - 1000 * recorded / this.context.sampleRate;
      this.begun = Math.min(begun, this.begun ?? begun);
      if (this.socket.readyState === WebSocket.OPEN) this.socket.send(data);
    };
    this.source.connect(this.capture);
  }

  stopListening() {
    this.source?.disconnect();
    if (this.stream) stop(this.stream);
    this.source = this.stream = null;
    this.begun = null;
    this.send({ type: "flush" });
  }

  get listens() { return Boolean(this.stream); }

  say(text) { this.send({ type: "say", text }); }

  interrupt() {
    this.epoch++;
    this.frames.clear();
    this.picture.forget();
    this.player.port.postMessage({ epoch: this.epoch });
    this.send({ type: "interrupt" });
  }

  send(command) { if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(command)); }

  // Ends the session on the server, too, before another one can begin.
  async leave() {
    this.end();
    if (!this.info) return;
    try { await json(this.info.url, { method: "DELETE" }); } catch { /* it has ended */ }
  }

  end() {
    if (this.ended) return;
    this.ended = true;
    if (this.listens) this.stopListening();
    this.socket?.close();
    this.context?.close();
    this.picture.end();
    this.changed({ type: "ended" });
  }
}

function stop(stream) { for (const track of stream.getTracks()) track.stop(); }

function push(measured, value) {
  measured.push(value);
  if (measured.length > MOST_MEASURED) measured.shift();
}

export function percentile(values, share) {
  if (!values.length) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}
