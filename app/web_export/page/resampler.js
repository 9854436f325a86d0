// Sound at another sample rate, in pieces. Counterpart: app/live/resampler.py.

const HALF_TAPS = 10; // samples of the lower rate that a resampled one depends on, to either side
const KAISER_BETA = 5; // shape of the filter's window

/** Changes the sample rate of a waveform that arrives in pieces, as if it were whole. */
export class Resampler {
  /** @param {number} fromRate samples per second, a whole number @param {number} toRate of the result */
  constructor(fromRate, toRate) {
    const common = divisor(fromRate, toRate);
    this.up = toRate / common;
    this.down = fromRate / common;
    this.half = HALF_TAPS * Math.max(this.up, this.down);
    this.weights = filter(this.up, this.down, this.half);
    this.held = new Float32Array(0);
    this.first = 0; // number of the first held sample
    this.nPushed = this.nGiven = 0;
  }

  /** The samples that no later one can change. @param {Float32Array} samples @returns {Float32Array} */
  push(samples) {
    if (this.up === this.down) return samples;
    this.hold(samples);
    return this.give(Math.floor((this.nPushed * this.up - this.half - 1) / this.down) + 1);
  }

  /** Ends the waveform. @returns {Float32Array} the samples that were still waiting */
  finish() {
    return this.up === this.down ? new Float32Array(0) : this.give(Math.ceil(this.nPushed * this.up / this.down));
  }

  /** @param {Float32Array} samples */
  hold(samples) {
    const oldest = Math.max(Math.ceil((this.nGiven * this.down - this.half) / this.up), 0);
    const kept = this.held.subarray(oldest - this.first);
    this.held = new Float32Array(kept.length + samples.length);
    this.held.set(kept);
    this.held.set(samples, kept.length);
    this.first = oldest;
    this.nPushed += samples.length;
  }

  /** The next ones, up to number `end`. Silence is around the waveform. @param {number} end */
  give(end) {
    const { up, down, half, held, first, weights } = this, given = new Float32Array(Math.max(end - this.nGiven, 0));
    for (let i = 0; i < given.length; i++) {
      const place = (this.nGiven + i) * down + half;
      const from = Math.max(Math.ceil((place - 2 * half) / up), first);
      const to = Math.min(Math.floor(place / up), first + held.length - 1);
      let sum = 0;
      for (let k = from; k <= to; k++) sum += held[k - first] * weights[place - k * up];
      given[i] = sum;
    }
    this.nGiven += given.length;
    return given;
  }
}

/** The greatest common one. @param {number} a @param {number} b @returns {number} */
function divisor(a, b) { return b ? divisor(b, a % b) : a; }

/** A low pass: a sinc with a Kaiser window, [2 half + 1]. @param {number} up @param {number} down @param {number} half @returns {Float64Array} */
function filter(up, down, half) {
  const cutoff = 1 / Math.max(up, down);
  const weights = Float64Array.from({ length: 2 * half + 1 }, (_, i) => {
    const x = Math.PI * cutoff * (i - half), ratio = (i - half) / half;
    return (x ? Math.sin(x) / x : 1) * bessel(KAISER_BETA * Math.sqrt(1 - ratio * ratio));
  });
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => up * weight / sum);
}

/** The modified Bessel function of the first kind, of order 0. @param {number} x */
function bessel(x) {
  let sum = 1, term = 1;
  for (let k = 1; term > 1e-12 * sum; k++) sum += term *= (x / (2 * k)) ** 2;
  return sum;
}
