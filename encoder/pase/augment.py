"""Training waveforms as other rooms, microphones, lines and crowds would have them.

No damage shifts a sound in time: filters are zero-phase, echoes follow a direct path at sample 0, so
that labels and lips stay where they are. Speed alone moves them, and says where to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft

from talkhead.types import SAMPLE_RATE, Float32

MIN_POWER = 1e-7
"""Mean square below which a waveform counts as silence: noise then takes a level of its own."""
TAIL = 800
"""Zeros after a waveform before its spectrum is shaped, so that its end doesn't reach its start."""
FRAME, HOP = 512, 256
"""Samples of the short spectra that are damaged or warped."""


@dataclass(frozen=True)
class AugmentConfig:
    """How often and how hard waveforms are damaged.

    clean_share: of the rows that stay as they are; the other shares are of the rest. Ranges are
    (least, most) and drawn evenly, rt60_s and formants by their logarithm. direct_db: power of the
    direct sound over the echoes. formants: factor of the formants' frequencies. gain_db: at the end.
    """

    clean_share: float = 0.15
    noise_share: float = 0.7
    snr_db: tuple[float, float] = (-5.0, 20.0)
    reverb_share: float = 0.3
    rt60_s: tuple[float, float] = (0.1, 0.6)
    direct_db: tuple[float, float] = (-2.0, 12.0)
    formant_share: float = 0.3
    formants: tuple[float, float] = (0.85, 1.18)
    band_share: float = 0.35
    clip_share: float = 0.08
    codec_share: float = 0.2
    gain_db: tuple[float, float] = (-20.0, 6.0)


class Augmenter:
    """Damages batches of waveforms by chance.

    babble: waveforms [n] at 16 kHz in [-1, 1] of which several are summed to a crowd; without any
    the noises are of the other kinds.
    """

    def __init__(self, config: AugmentConfig, babble: Sequence[Float32] = ()) -> None:
        self.config = config
        self.babble = [piece for piece in babble if _power(piece) >= MIN_POWER]

    def __call__(self, waveforms: Float32, random: np.random.Generator) -> Float32:
        """The waveforms [B, N] at 16 kHz, damaged, in [-1, 1]; the same for the same `random`."""
        return np.stack([self._damaged(row, random) for row in waveforms])

    def _damaged(self, waveform: Float32, random: np.random.Generator) -> Float32:
        config = self.config
        if random.random() < config.clean_share:
            return np.array(waveform, np.float32)
        if random.random() < config.formant_share:
            waveform = change_formants(
                waveform, _between(config.formants, random, logarithmic=True)
            )
        if random.random() < config.reverb_share:
            rt60_s = _between(config.rt60_s, random, logarithmic=True)
            waveform = reverberate(waveform, rt60_s, _between(config.direct_db, random), random)
        if random.random() < config.noise_share:
            noise = self._noise(len(waveform), random)
            waveform = add_noise(waveform, noise, _between(config.snr_db, random))
        if random.random() < config.band_share:
            waveform = shape_spectrum(waveform, random_band(random))
        if random.random() < config.clip_share:
            waveform = clip(waveform, random.uniform(0.1, 0.6))
        if random.random() < config.codec_share:
            waveform = random_codec(waveform, random)
        gain = 10.0 ** (_between(config.gain_db, random) / 20.0)
        peak = float(np.abs(waveform).max()) * gain
        return np.asarray(waveform * np.float32(gain / max(1.0, peak)), np.float32)

    def _noise(self, n: int, random: np.random.Generator) -> Float32:
        kind = random.choice(3, p=(0.4, 0.4, 0.2) if self.babble else (0.0, 0.7, 0.3))
        if kind == 0:
            return crowd(self.babble, n, int(random.integers(3, 8)), random)
        return colored_noise(n, random) if kind == 1 else music(n, random)


# ---------------------------------------------------------------------------------- noises


def add_noise(waveform: Float32, noise: Float32, snr_db: float) -> Float32:
    """The waveform plus noise [n_samples] of a mean power snr_db below its own, not limited.

    To silence noise is added at -30 dB of full scale less snr_db. Noise of zeros adds nothing.
    """
    power = _power(waveform)
    reference = power if power >= MIN_POWER else 1e-3
    wanted = reference * 10.0 ** (-snr_db / 10.0)
    gain = np.sqrt(wanted / max(_power(noise), 1e-20))
    return np.asarray(waveform + np.float32(gain) * noise, np.float32)


def crowd(babble: Sequence[Float32], n: int, n_voices: int, random: np.random.Generator) -> Float32:
    """Several people at once: [n], the sum of n_voices random stretches made equally loud +-3 dB."""
    total = np.zeros(n, np.float32)
    for _ in range(n_voices):
        piece = babble[int(random.integers(len(babble)))]
        if len(piece) > n:
            start = int(random.integers(len(piece) - n + 1))
            piece = piece[start : start + n]
            piece = piece / np.sqrt(_power(piece) + MIN_POWER)
        else:  # around and around from a random moment
            piece = piece / np.sqrt(_power(piece))
            piece = np.resize(np.roll(piece, int(random.integers(len(piece)))), n)
        total += piece * np.float32(10.0 ** (random.uniform(-3.0, 3.0) / 20.0))
    return total


def colored_noise(n: int, random: np.random.Generator) -> Float32:
    """Noise [n] with power falling as frequency ** -slope, slope 0 to 2, that slowly swells."""
    n_fft = scipy.fft.next_fast_len(n, real=True)
    spectrum = random.standard_normal(n_fft + 2, dtype=np.float32).view(np.complex64)
    spectrum = spectrum[: n_fft // 2 + 1]
    slope = random.uniform(0.0, 2.0)
    at = np.arange(1, len(spectrum) + 1, dtype=np.float32) * np.float32(SAMPLE_RATE / n_fft)
    spectrum *= np.maximum(at, 50.0) ** np.float32(-slope / 2.0)
    noise = scipy.fft.irfft(spectrum, n_fft)[:n]
    return np.asarray(noise * _swell(n, random.uniform(0.3, 4.0), random), np.float32)


def _swell(n: int, rate: float, random: np.random.Generator) -> Float32:
    """A gain [n] that wanders by some dB, rate times a second."""
    n_knots = int(n / SAMPLE_RATE * rate) + 3
    decibels = random.standard_normal(n_knots) * random.uniform(0.0, 6.0)
    gains = 10.0 ** (np.clip(decibels, -12.0, 12.0) / 20.0)
    at = np.arange(n) * (rate / SAMPLE_RATE) + random.random()
    return np.interp(at, np.arange(n_knots), gains).astype(np.float32)


def music(n: int, random: np.random.Generator) -> Float32:
    """Music-like tones [n]: chords of three notes with harmonics, each struck and dying away."""
    table = _timbre(random)
    length = int(random.uniform(0.15, 0.8) * SAMPLE_RATE)
    n_chords = n // length + 2
    roots = 110.0 * 2.0 ** (random.integers(0, 25, n_chords) / 12.0)
    third = np.where(random.random(n_chords) < 0.5, 3, 4)
    chords = roots * 2.0 ** (np.stack([0 * third, third, 0 * third + 7]) / 12.0)
    at = np.arange(n) + int(random.integers(length))
    chord, since = at // length, (at % length).astype(np.float32)
    decay_s = random.uniform(0.05, 0.8)
    envelope = np.exp(since * np.float32(-1.0 / (decay_s * SAMPLE_RATE)))
    envelope *= np.minimum(1.0, since / np.float32(0.01 * SAMPLE_RATE))
    step = (chords * (len(table) / SAMPLE_RATE)).astype(np.float32)
    tones = sum(table[(note[chord] * since).astype(np.int32) % len(table)] for note in step)
    return np.asarray(tones * envelope, np.float32)


def _timbre(random: np.random.Generator) -> Float32:
    """One period [2048] of a tone with 8 harmonics."""
    turn = np.arange(2048) * (2.0 * np.pi / 2048)
    harmonics = np.arange(1, 9)
    weights = random.random(8) / harmonics ** random.uniform(0.3, 2.0)
    return (weights @ np.sin(np.outer(harmonics, turn))).astype(np.float32)


# ----------------------------------------------------------------------- rooms and microphones


def reverberate(
    waveform: Float32, rt60_s: float, direct_db: float, random: np.random.Generator
) -> Float32:
    """The waveform [n_samples] as a room returns it: a direct path at sample 0, then echoes.

    The echoes are noise that loses 60 dB in rt60_s, as Polack's model of late reverberation has it
    (1988, La transmission de l'energie sonore dans les salles), from 2 to 10 ms on, and 1.5 dB
    darker per kHz in the end. direct_db: power of the direct path over that of all echoes.
    """
    n_echoes = max(2, int(rt60_s * SAMPLE_RATE))
    first = int(random.uniform(0.002, 0.01) * SAMPLE_RATE)
    times = np.arange(n_echoes, dtype=np.float32) / np.float32(rt60_s * SAMPLE_RATE)
    echoes = random.standard_normal(n_echoes, dtype=np.float32)
    echoes *= np.exp(np.float32(-np.log(1e3)) * times)
    echoes[1:] = (1.0 - 0.3 * times[1:]) * echoes[1:] + 0.3 * times[1:] * echoes[:-1]
    echoes *= np.float32(10.0 ** (-direct_db / 20.0) / np.sqrt(np.sum(np.square(echoes))))
    response = np.concatenate([[1.0], np.zeros(first, np.float32), echoes]).astype(np.float32)
    n = len(waveform)
    n_fft = scipy.fft.next_fast_len(n + len(response), real=True)
    spectrum = scipy.fft.rfft(waveform.astype(np.float32), n_fft)
    spectrum *= scipy.fft.rfft(response, n_fft)
    return np.asarray(scipy.fft.irfft(spectrum, n_fft)[:n], np.float32)


def shape_spectrum(waveform: Float32, gain_at: Callable[[Float32], Float32]) -> Float32:
    """The waveform [n_samples] with gain_at(frequencies in Hz) applied, zero-phase."""
    n = len(waveform)
    n_fft = scipy.fft.next_fast_len(n + TAIL, real=True)
    spectrum = scipy.fft.rfft(waveform.astype(np.float32), n_fft)
    coarse = np.linspace(0.0, SAMPLE_RATE / 2, 513, dtype=np.float32)
    at = np.linspace(0.0, 512.0, len(spectrum))
    spectrum *= np.interp(at, np.arange(513), gain_at(coarse)).astype(np.float32)
    return np.asarray(scipy.fft.irfft(spectrum, n_fft)[:n], np.float32)


def band(low_hz: float, high_hz: float, order: int = 6) -> Callable[[Float32], Float32]:
    """The gain of a Butterworth band of that order, low_hz 0 for a low-pass."""

    def gain_at(frequencies: Float32) -> Float32:
        gain = 1.0 / np.sqrt(1.0 + (frequencies / high_hz) ** (2 * order))
        if low_hz > 0.0:
            ratio = low_hz / np.maximum(frequencies, 1.0)
            gain = gain / np.sqrt(1.0 + np.minimum(ratio, 30.0) ** (2 * order))
        return np.asarray(gain, np.float32)

    return gain_at


def tilt(decibels: float) -> Callable[[Float32], Float32]:
    """A gain that rises by so many dB from 125 Hz to 8 kHz, 0 dB at 1 kHz."""

    def gain_at(frequencies: Float32) -> Float32:
        octaves = np.log2(np.maximum(frequencies, 62.5) / 1000.0)
        return np.asarray(10.0 ** (decibels / 6.0 * octaves / 20.0), np.float32)

    return gain_at


def random_band(random: np.random.Generator) -> Callable[[Float32], Float32]:
    """A telephone's band, a low-pass at 2 to 7 kHz, or a tilt of at most 15 dB either way."""
    kind = int(random.integers(3))
    if kind == 0:
        return band(300.0, 3400.0, int(random.integers(3, 9)))
    if kind == 1:
        return band(0.0, random.uniform(2000.0, 7000.0), int(random.integers(2, 9)))
    return tilt(random.uniform(-15.0, 15.0))


def clip(waveform: Float32, level: float) -> Float32:
    """The waveform cut off at a share of its peak."""
    limit = np.float32(level * np.abs(waveform).max())
    return np.asarray(np.clip(waveform, -limit, limit), np.float32)


# ------------------------------------------------------------------------------------ codecs


def random_codec(waveform: Float32, random: np.random.Generator) -> Float32:
    """One of the four codec-like damages below, its strength by chance."""
    kind = int(random.integers(4))
    if kind == 0:
        return mu_law(waveform, int(random.integers(5, 9)))
    if kind == 1:
        return hold(waveform, int(random.integers(2, 5)))
    if kind == 2:
        return quantize(waveform, int(random.integers(5, 10)))
    return spectral_holes(waveform, random.uniform(25.0, 50.0), random.uniform(0.3, 1.0))


def mu_law(waveform: Float32, n_bits: int) -> Float32:
    """The waveform after mu-law companding (ITU-T G.711's curve, mu 255) to n_bits, peak to peak."""
    peak = np.float32(max(float(np.abs(waveform).max()), 1e-6))
    curved = np.log1p(np.abs(waveform) * (255.0 / peak)) * np.float32(1.0 / np.log(256.0))
    n_levels = np.float32(2 ** (n_bits - 1) - 1)
    curved = np.rint(curved * n_levels) * np.float32(np.log(256.0) / n_levels)
    return np.asarray(np.copysign(np.expm1(curved) * (peak / 255.0), waveform), np.float32)


def hold(waveform: Float32, step: int) -> Float32:
    """Each step-th sample held, from half a step before to half a step after, unfiltered."""
    nearest = (np.arange(len(waveform)) + step // 2) // step
    kept = waveform[::step]
    return np.asarray(kept[np.minimum(nearest, len(kept) - 1)], np.float32)


def quantize(waveform: Float32, n_bits: int) -> Float32:
    """The waveform in 2 ** n_bits even steps from peak to peak."""
    step = np.float32(max(float(np.abs(waveform).max()), 1e-6) / 2 ** (n_bits - 1))
    return np.asarray(np.rint(waveform / step) * step, np.float32)


def spectral_holes(waveform: Float32, depth_db: float, threshold: float) -> Float32:
    """What a coder with few bits leaves: holes where the spectrum is weak.

    Bins more than depth_db below their frame's strongest vanish, and those below `threshold` of the
    mean magnitude of the 8 bins about them: a coder's bits go where they are heard.
    """
    spectra = _short_spectra(waveform)
    magnitudes = np.abs(spectra[:, :-1])
    bands = magnitudes.reshape(len(magnitudes), -1, 8)
    floor = magnitudes.max(axis=1) * np.float32(10.0 ** (-depth_db / 20.0))
    least = np.maximum(
        bands.mean(axis=2, keepdims=True) * np.float32(threshold), floor[:, None, None]
    )
    spectra[:, :-1] *= (bands >= least).reshape(magnitudes.shape)
    spectra[:, -1] = 0.0
    return _overlapped(spectra, len(waveform))


# --------------------------------------------------------------------------- voices and speed


def change_formants(waveform: Float32, factor: float) -> Float32:
    """The waveform [n_samples] with its formants' frequencies times factor; pitch and time stay.

    The spectral envelope (the first 30 cepstral coefficients of 32 ms) is stretched, as vocal tract
    length perturbation does to features: Jaitly and Hinton (2013, ICML workshop on deep learning for
    audio). Raises ValueError for a factor that is not above 0.
    """
    if factor <= 0.0:
        raise ValueError("formants are moved by a factor above 0")
    spectra = _short_spectra(waveform)
    logarithms = np.log(np.maximum(np.abs(spectra), 1e-5))
    cepstra = scipy.fft.irfft(logarithms, axis=1)
    cepstra[:, 31:-30] = 0.0
    envelopes = scipy.fft.rfft(cepstra, axis=1).real
    at = np.minimum(np.arange(FRAME // 2 + 1) / factor, FRAME // 2 - 1e-3)
    low, part = at.astype(np.int64), (at % 1.0).astype(np.float32)
    moved = envelopes[:, low] * (1.0 - part) + envelopes[:, low + 1] * part
    spectra *= np.exp(np.clip(moved - envelopes, -5.0, 5.0))
    return _overlapped(spectra, len(waveform))


def change_speed(waveform: Float32, factor: float) -> Float32:
    """The waveform [n] played factor times as fast, pitch and all: [round(n / factor)].

    Sample i is the source's at i * factor, to half a sample; labels and lips must go along. Raises
    ValueError for a factor that is not above 0.
    """
    if factor <= 0.0:
        raise ValueError("speed is a factor above 0")
    n_out = round(len(waveform) / factor)
    n_fft = scipy.fft.next_fast_len(n_out + TAIL, real=True)
    n_from = round(n_fft * factor)
    spectrum = scipy.fft.rfft(waveform.astype(np.float32), n_from)
    spectrum = spectrum[: n_fft // 2 + 1] * np.float32(n_fft / n_from)
    return np.asarray(scipy.fft.irfft(spectrum, n_fft)[:n_out], np.float32)


# ------------------------------------------------------------------------------------- parts


def _power(waveform: Float32) -> float:
    return float(np.dot(waveform, waveform)) / max(1, len(waveform))


def _between(
    limits: tuple[float, float], random: np.random.Generator, *, logarithmic: bool = False
) -> float:
    if logarithmic:
        return float(np.exp(random.uniform(*np.log(limits))))
    return float(random.uniform(*limits))


@lru_cache(maxsize=1)
def _window() -> Float32:
    """Half a sine: its square, half overlapped, adds up to 1."""
    window = np.sin((np.arange(FRAME) + 0.5) * (np.pi / FRAME)).astype(np.float32)
    window.setflags(write=False)
    return window


def _short_spectra(waveform: Float32) -> np.ndarray:  # type: ignore[type-arg]
    n_frames = -(-len(waveform) // HOP) + 1
    padded = np.zeros((n_frames + 1) * HOP, np.float32)
    padded[HOP : HOP + len(waveform)] = waveform
    pieces = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    return np.asarray(scipy.fft.rfft(pieces * _window(), axis=1))


def _overlapped(spectra: np.ndarray, n: int) -> Float32:  # type: ignore[type-arg]
    pieces = scipy.fft.irfft(spectra, axis=1) * _window()
    total = np.zeros((len(pieces) + 1, HOP), np.float32)
    total[:-1] += pieces[:, :HOP]
    total[1:] += pieces[:, HOP:]
    return np.asarray(total.reshape(-1)[HOP : HOP + n], np.float32)
