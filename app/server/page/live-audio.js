// Sound of live sessions, on the audio thread: the microphone in blocks, and playback that sets the clock.

const BLOCK = 0.01; // seconds of microphone in a message
const MOST_QUEUED = 5; // packets; beyond this, quiet ones are left out to catch up
const FAR_TOO_MANY = 12; // beyond this, any packet is
const QUIET = 0.01; // largest sample of a quiet packet
const MOST_WAITED = 4; // packets that playback waits for after interruptions of the supply

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.round(BLOCK * sampleRate);
    this.block = new Int16Array(this.size);
    this.n = 0;
  }

  process([channels]) {
    if (!channels.length) return true;
    for (let i = 0; i < channels[0].length; i++) {
      let value = 0;
      for (const channel of channels) value += channel[i] / channels.length;
      this.block[this.n++] = Math.round(32767 * Math.max(-1, Math.min(1, value)));
      if (this.n === this.size) {
        this.port.postMessage(this.block.buffer, [this.block.buffer]); // empty afterwards
        this.block = new Int16Array(this.size);
        this.n = 0;
      }
    }
    return true;
  }
}

class Player extends AudioWorkletProcessor {
  constructor() {
    super();
    this.queue = []; // packets {index, epoch, samples}
    this.at = 0; // the next sample of the first one
    this.waits = true;
    this.target = 1;
    this.gaps = 0;
    this.epoch = 0;
    this.port.onmessage = ({ data }) => this.take(data);
  }

  take(data) {
    if (data.epoch > this.epoch) {
      this.epoch = data.epoch;
      this.queue = [];
      this.at = 0;
    }
    if (!data.samples || data.epoch < this.epoch) return;
    data.quiet = data.samples.every((value) => Math.abs(value) < QUIET);
    this.queue.push(data);
    // The sound of a synthesizer comes ahead of its time; that of a microphone waits as little as it can.
    const most = data.listens ? this.target : Math.max(MOST_QUEUED, this.target + 2);
    while (this.queue.length > most) {
      const found = this.queue.findIndex((packet, i) => i > 0 && packet.quiet);
      if (found > 0) this.queue.splice(found, 1);
      else if (this.queue.length > FAR_TOO_MANY) this.queue.splice(1, 1);
      else break;
    }
  }

  process(_, [[output]]) {
    let n = 0;
    while (n < output.length) {
      if (this.waits && this.queue.length < this.target) break;
      this.waits = false;
      const packet = this.queue[0];
      if (!packet) { this.starve(); break; }
      if (this.at === 0) this.port.postMessage({ index: packet.index, queued: this.queue.length, gaps: this.gaps });
      const part = packet.samples.subarray(this.at, this.at + output.length - n);
      output.set(part, n);
      n += part.length;
      this.at += part.length;
      if (this.at >= packet.samples.length) { this.queue.shift(); this.at = 0; }
    }
    return true;
  }

  starve() { // the supply was too late: wait for a little more before going on
    this.waits = true;
    this.gaps++;
    if (this.gaps % 3 === 0) this.target = Math.min(MOST_WAITED, this.target + 1);
  }
}

registerProcessor("talkhead-capture", Capture);
registerProcessor("talkhead-player", Player);
