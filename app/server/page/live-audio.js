// Sound of live sessions, on the audio thread: the microphone in blocks, and playback that sets the clock.

const BLOCK = 0.005; // seconds of microphone in a message
const MOST_QUEUED = 5; // packets; beyond this, quiet ones are left out to catch up
const FAR_TOO_MANY = 12; // beyond this, any packet is
const QUIET = 0.01; // largest sample of a quiet packet
const MOST_WAITED = 4; // packets that playback waits for after interruptions of the supply
const WINDOW = 2; // seconds in which the least sound that waits is measured, for a microphone
const SPARE = 0.01; // seconds of it that stay
const SHORTENED = 0.5, SHORTENED_LOUD = 0.05; // largest share of a packet that is left out

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
    this.left = 0; // samples in the queue
    this.least = this.leastBefore = 0; // of them, in this window and in the one before
    this.windowEnds = 0;
    this.port.onmessage = ({ data }) => this.take(data);
  }

  take(data) {
    if (data.clock) { this.clock = data.clock; return; }
    if (data.epoch > this.epoch) {
      this.epoch = data.epoch;
      this.queue = [];
      this.at = this.left = this.least = this.leastBefore = 0;
    }
    if (!data.samples || data.epoch < this.epoch) return;
    data.quiet = data.samples.every((value) => Math.abs(value) < QUIET);
    // The sound of a synthesizer comes ahead of its time; that of a microphone waits as little as it can.
    this.listens = data.listens;
    if (data.listens) this.shorten(data);
    this.queue.push(data);
    this.left += data.samples.length;
    while (this.queue.length > Math.max(MOST_QUEUED, this.target + 2)) {
      const found = this.queue.findIndex((packet, i) => i > 0 && packet.quiet);
      if (found < 0 && this.queue.length <= FAR_TOO_MANY) break;
      const [dropped] = this.queue.splice(Math.max(found, 1), 1);
      this.left -= dropped.samples.length;
    }
  }

  shorten(packet) { // by the sound that always waited lately: no packet was late enough to need it
    const { samples } = packet;
    const spare = Math.min(this.least, this.leastBefore) - Math.round(SPARE * sampleRate);
    const n = Math.min(spare, Math.floor(samples.length * (packet.quiet ? SHORTENED : SHORTENED_LOUD)));
    if (n <= 0) return;
    const length = samples.length - n;
    packet.samples = samples.slice(0, length);
    for (let i = 0; i < length; i++) packet.samples[i] += (i / length) * (samples[i + n] - samples[i]); // both ends stay as they are
    this.least -= n;
    this.leastBefore -= n;
  }

  measure() {
    this.least = Math.min(this.least, this.left);
    if (currentTime < this.windowEnds) return;
    this.windowEnds = currentTime + WINDOW;
    this.leastBefore = this.least;
    this.least = this.left;
  }

  process(_, [[output]]) {
    let n = 0;
    while (n < output.length) {
      if (this.waits && this.queue.length < (this.listens ? 1 : this.target)) break;
      this.waits = false;
      const packet = this.queue[0];
      if (!packet) { this.starve(); break; }
      if (this.at === 0) {
        this.clock?.postMessage({ index: packet.index });
        this.port.postMessage({ index: packet.index, queued: this.queue.length, gaps: this.gaps });
      }
      const part = packet.samples.subarray(this.at, this.at + output.length - n);
      output.set(part, n);
      n += part.length;
      this.at += part.length;
      this.left -= part.length;
      if (this.at >= packet.samples.length) { this.queue.shift(); this.at = 0; }
    }
    this.measure();
    return true;
  }

  starve() { // the supply was too late: wait for a little more before going on
    this.waits = true;
    this.gaps++;
    if (!this.listens && this.gaps % 3 === 0) this.target = Math.min(MOST_WAITED, this.target + 1);
  }
}

registerProcessor("talkhead-capture", Capture);
registerProcessor("talkhead-player", Player);
