// Live speech: the sound of a microphone, a stream or a file, and the motion codes that a worker finds in it.

import { TalkingHeadError } from "./files.js";
import { Sound, follow } from "./sound.js";

const MARGIN = 0.1; // seconds for capturing, computing and drawing, by which a stream's sound is delayed further
const MICROPHONE_AHEAD = 0; // frames that predictions wait for where every millisecond counts
const SAMPLE_RATE = 16000; // of the speech model
export const FRAME_RATE = 25;
export const MOST_MISSED = 2; // frames without a code before the mouth moves to rest
const MOST_WAITING = 3; // codes of a microphone that may wait to be shown
const WINDOW = 25; // frames in which the least number that waits is measured
/** @type {Record<string, string>} */
const REFUSED = {
  NotAllowedError: "The microphone may not be used. Allow it in the browser, and try again.",
  NotFoundError: "No microphone was found. Connect one, and try again.",
};

/** A line whose motion codes become known while it is spoken. */
export class LiveLine {
  /** @type {AudioBuffer} its sound, if it is a recording */
  buffer;
  /** @type {number} seconds, if it is a recording */
  duration;

  /** @param {string} name */
  constructor(name) {
    this.name = name;
    /** @type {Map<number, Float32Array>} */
    this.codes = new Map();
    this.nFrames = this.nForgotten = 0;
    this.isEnded = false; // all codes are known
    this.grown = () => {};
  }

  /** @param {Float32Array} codes [n * nMouth] @param {number} nMouth @param {boolean} isEnded */
  add(codes, nMouth, isEnded) {
    for (let start = 0; start < codes.length; start += nMouth) this.codes.set(this.nFrames++, codes.subarray(start, start + nMouth));
    this.isEnded = isEnded;
    this.grown();
  }

  /** @param {number} index @returns {Float32Array} */
  code(index) { return this.codes.get(index); }

  /** Frees codes that were shown. @param {number} index the next one */
  forget(index) { while (this.nForgotten < index) this.codes.delete(this.nForgotten++); }
}

/** The worker that listens, to one line at a time. */
export class Listener {
  /** @param {import("./files.js").Files} files @returns {Promise<Listener>} */
  static async open(files) {
    const [wasm, speech] = await Promise.all([files.bytes("talkhead-speech.wasm"), files.bytes("speech.bin")]);
    const listener = new Listener(files.url("listener.js"), files.packed ? "classic" : "module");
    try {
      await listener.load(wasm, speech, files.manifest.rest.length);
    } catch (error) {
      listener.close();
      throw error;
    }
    return listener;
  }

  /** @param {string} url of listener.js @param {WorkerType} type */
  constructor(url, type) {
    this.worker = new Worker(url, { type });
    this.nLines = 0;
    /** @type {LiveLine | null} */
    this.line = null;
    /** @param {Error} error */
    this.failed = (error) => {};
  }

  /** @param {ArrayBuffer} wasm @param {ArrayBuffer} speech speech.bin @param {number} nMouth */
  async load(wasm, speech, nMouth) {
    this.info = await new Promise((resolve, reject) => {
      const broken = (/** @type {Error} */ error) => { reject(error); this.failed(error); };
      this.worker.onerror = ({ message }) => broken(new TalkingHeadError("unsupported", `This browser cannot listen. ${message ?? ""}`));
      this.worker.onmessage = ({ data }) => {
        if (data.error) broken(new TalkingHeadError(data.error.code, data.error.message));
        else if (data.info) resolve(data.info);
        else if (data.line === this.nLines) this.line?.add(data.codes, nMouth, data.isEnded);
      };
      this.worker.postMessage({ wasm, speech }, [wasm, speech]);
    });
    if (this.info.nMouth !== nMouth) {
      throw new TalkingHeadError("damaged", "The file speech.bin does not belong to this export. Export this person again.");
    }
  }

  /**
   * Begins a line; what follows of an earlier one is left out.
   * @param {string} name @param {number} sampleRate of its sound @param {number} ahead frames that predictions wait for
   * @param {MessagePort} [port] where its sound comes from
   */
  begin(name, sampleRate, ahead, port) {
    this.line = new LiveLine(name);
    this.worker.postMessage({ line: ++this.nLines, sampleRate, ahead, port }, port ? [port] : []);
    return this.line;
  }

  /** Adds sound to the line. @param {Float32Array} samples @param {boolean} isLast */
  push(samples, isLast) { this.worker.postMessage({ line: this.nLines, samples, isLast }); }

  /** Ends the line. */
  end() { this.worker.postMessage({ line: this.nLines, isLast: true }); }

  close() { this.worker.terminate(); }
}

/**
 * The line of a recording, whose codes are found much faster than it is heard.
 * @param {Listener} listener @param {Blob | ArrayBuffer} source @param {Sound} sound
 */
export async function openRecording(listener, source, sound) {
  let buffer, samples;
  try {
    const bytes = source instanceof ArrayBuffer ? source : await source.arrayBuffer();
    buffer = await sound.decode(bytes);
    samples = mono(await new OfflineAudioContext(1, 1, SAMPLE_RATE).decodeAudioData(bytes.slice(0)));
    if (!samples.length) throw new RangeError("it is empty");
  } catch (error) {
    throw new TalkingHeadError("sound", `The sound could not be read (${error.message}). Choose another file.`);
  }
  const line = listener.begin(/** @type {File} */ (source).name ?? "recording", SAMPLE_RATE, listener.info.mostAhead);
  line.duration = buffer.duration;
  line.buffer = buffer;
  let start = 0;
  const more = () => { // a second at a time, so that another line need not wait
    if (start >= samples.length) return;
    listener.push(samples.slice(start, start + SAMPLE_RATE), start + SAMPLE_RATE >= samples.length);
    start += SAMPLE_RATE;
  };
  await new Promise((resolve) => {
    line.grown = () => { more(); if (line.nFrames || line.isEnded) resolve(line); };
    more();
  });
  return line;
}

/** One channel. @param {AudioBuffer} buffer */
function mono(buffer) {
  const samples = new Float32Array(buffer.length), n = buffer.numberOfChannels;
  for (let i = 0; i < n; i++) buffer.getChannelData(i).forEach((value, k) => { samples[k] += value / n; });
  return samples;
}

/** @returns {Promise<MediaStream>} */
async function openMicrophone() {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new TalkingHeadError("microphone", "The microphone needs a secure address: https, or localhost.");
  }
  // Nothing is played, so there is no echo.
  const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
  try {
    return await navigator.mediaDevices.getUserMedia({ audio });
  } catch ({ name, message }) {
    throw new TalkingHeadError("microphone", REFUSED[name] ?? `The microphone cannot be used (${message}). Try another one.`);
  }
}

/** Listens to a stream, and decides which code is shown. */
export class Ears {
  /**
   * @param {Listener} listener
   * @param {"microphone" | MediaStream} source of a microphone, the sound is not played
   * @param {string} url address of capture.js
   */
  static async open(listener, source, url) {
    const isMicrophone = source === "microphone", stream = isMicrophone ? await openMicrophone() : source;
    const ears = new Ears(listener, stream, isMicrophone);
    try {
      await ears.begin(url);
    } catch (error) {
      ears.close();
      throw error;
    }
    return ears;
  }

  /** @param {Listener} listener @param {MediaStream} stream @param {boolean} isMicrophone */
  constructor(listener, stream, isMicrophone) {
    this.listener = listener;
    this.stream = stream;
    this.isMicrophone = isMicrophone;
    this.sound = new Sound(); // apart from that of lines: its clock runs when nothing is to be heard, too
    this.start = null; // when the first sample is heard
    this.begun = null; // when it was captured, ms of performance.now()
    /** @type {"listening"} */
    this.state = "listening";
    this.index = -1; // of the code that is shown
    this.apart = 0; // by how much the sound is ahead of it, frames, on average
    /** @type {Float32Array | null} */
    this.code = null; // that is shown; null: the mouth at rest
    this.nMissed = 0; // frames since a code was known
    this.isEnding = false;
    this.nSeen = 0;
    this.least = Infinity; // codes that waited, at the least
  }

  /** @param {string} url address of capture.js */
  async begin(url) {
    if (!this.stream.getAudioTracks().length) throw new TalkingHeadError("sound", "The stream has no sound.");
    this.sound.open();
    const { context } = this.sound;
    if (!context.audioWorklet) throw new TalkingHeadError("unsupported", "This browser cannot listen here: it has no AudioWorklet.");
    await context.audioWorklet.addModule(url);
    const { listener, stream, isMicrophone } = this, { port1, port2 } = new MessageChannel();
    const ahead = isMicrophone ? MICROPHONE_AHEAD : listener.info.mostAhead;
    this.line = listener.begin(isMicrophone ? "microphone" : "stream", context.sampleRate, ahead, port2);
    const delay = listener.info.lookaheadSeconds + MARGIN;
    this.capture = new AudioWorkletNode(context, "talkhead-capture", { numberOfOutputs: 0 });
    this.capture.port.onmessage = ({ data: begun }) => {
      this.start = begun + delay;
      this.begun = performance.now() - 1000 * (context.currentTime - begun);
    };
    this.capture.port.postMessage(port1, [port1]);
    this.source = context.createMediaStreamSource(stream);
    this.source.connect(this.capture);
    this.volume = new GainNode(context);
    if (!isMicrophone) this.source.connect(new DelayNode(context, { delayTime: delay, maxDelayTime: delay })).connect(this.volume).connect(context.destination);
    for (const track of stream.getAudioTracks()) track.addEventListener("ended", () => this.ended());
  }

  /** Ends the line if no track has more sound. */
  ended() {
    if (this.isEnding || this.stream.getAudioTracks().some((track) => track.readyState === "live")) return;
    this.isEnding = true;
    this.listener.end();
  }

  /** True if the stream is not heard until the page is clicked. */
  get isBlocked() { return this.sound.isBlocked; }

  /** @param {boolean} muted */
  set muted(muted) { this.volume.gain.value = muted ? 0 : 1; }

  /** All of it was shown. */
  get isOver() { return this.line.isEnded && this.index + 1 >= this.line.nFrames; }

  /**
   * The code of a frame: that of the sound that is heard with it, or the newest of a microphone.
   * @param {number} seen when it will be seen, ms
   * @param {number} passed frames since the last one
   * @returns {Float32Array | null} null: the mouth is at rest
   */
  codeAt(seen, passed) {
    this.ended(); // there is no event if the page itself has stopped a track
    if (this.isMicrophone ? this.advance(passed) : this.follow(seen, passed)) {
      this.code = this.line.code(this.index);
      this.nMissed = 0;
    } else if (++this.nMissed > MOST_MISSED) this.code = null;
    this.line.forget(this.index);
    return this.code;
  }

  /** Goes on with the sound that is heard. @param {number} seen ms @param {number} passed frames @returns {boolean} false if the code is not known */
  follow(seen, passed) {
    if (this.start === null) return false;
    follow(this, FRAME_RATE * (this.sound.heard(seen) - this.start), passed);
    return this.index >= 0 && this.index < this.line.nFrames;
  }

  /** Goes on as codes come, with as few as possible that wait. @param {number} passed frames @returns {boolean} false if there is no new one */
  advance(passed) {
    const waiting = this.line.nFrames - 1 - this.index;
    this.index += Math.min(passed, waiting);
    const left = Math.max(waiting - passed, 0);
    this.least = Math.min(this.least, left);
    this.nSeen++;
    if (left > MOST_WAITING) this.index += left;
    else if (this.nSeen % WINDOW === 0) {
      this.index += this.least; // they always waited lately
      this.least = Infinity;
    }
    return waiting > 0;
  }

  close() {
    this.isEnding = true;
    if (this.isMicrophone) for (const track of this.stream.getTracks()) track.stop();
    this.source?.disconnect();
    this.sound.close();
  }
}
