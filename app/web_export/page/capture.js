// Takes the sound of a microphone or stream, on the audio thread, and sends it on in blocks.

const BLOCK = 0.01; // seconds of sound in a message

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.round(BLOCK * sampleRate);
    this.block = new Float32Array(this.size);
    this.n = 0;
    this.port.onmessage = ({ data }) => { this.listener = data; };
  }

  process([channels]) {
    if (!this.listener || (!this.hasBegun && !channels.length)) return true;
    if (!this.hasBegun) this.port.postMessage(currentTime);
    this.hasBegun = true;
    const length = channels[0]?.length ?? 128; // a stream that pauses is silent
    for (let i = 0; i < length; i++) {
      let value = 0;
      for (const channel of channels) value += channel[i] / channels.length;
      this.block[this.n++] = value;
      if (this.n === this.size) {
        this.listener.postMessage(this.block, [this.block.buffer]); // empty afterwards
        this.block = new Float32Array(this.size);
        this.n = 0;
      }
    }
    return true;
  }
}

registerProcessor("talkhead-capture", Capture);
