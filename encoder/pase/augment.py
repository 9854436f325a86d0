"""Augmentation of training waveforms: other voices, rooms, microphones, codecs, noise.

No effect shifts a sound in time: filters are zero-phase and echoes follow a direct path at sample
0, so that labels and lips stay valid. Only a change of speed moves them, by a known factor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft

from talkhead.types import SAMPLE_RATE, Float32

MIN_POWER = 1e-7
"""Mean square below which a waveform counts as silence: noise then has a fixed level."""
TAIL = 800
"""Zeros appended to a waveform before its spectrum is shaped, so that its end doesn't wrap around."""
FRAME, HOP = 512, 256
"""Window and hop, in samples, of the short-time spectra."""


@dataclass(frozen=True)
class AugmentConfig:
    """Probabilities and strengths of the effects.

    Ranges are (minimum, maximum). Values are drawn uniformly, rt60_s and formants on a logarithmic scale.

    Attributes:
        clean_share: Share of the rows that are not changed. The other shares refer to the rest.
        noise_share: Share with additive noise.
        snr_db: Signal-to-noise ratio.
        reverb_share: Share with reverberation.
        rt60_s: Time in which it decays by 60 dB.
        direct_db: Ratio of the power of the direct sound to that of the echoes.
        formant_share: Share with moved formants.
        formants: Factor on their frequencies.
        band_share: Share with a filter.
        clip_share: Share that is clipped.
        codec_share: Share with an effect of a codec.
        gain_db: Gain at the end.
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
    """Applies random effects to batches of waveforms."""

    def __init__(self, config: AugmentConfig, babble: Sequence[Float32] = ()) -> None:
        """Set up the effects.

        Args:
            config: Their probabilities and strengths.
            babble: Waveforms [n] in [-1, 1] at 16 kHz, several of which are mixed to babble noise.
                Without any, only noise of other kinds is used.
        """
        self.config = config
        self.babble = [piece for piece in babble if _power(piece) >= MIN_POWER]

    def __call__(self, waveforms: Float32, random: np.random.Generator) -> Float32:
        """Augment each row.

        Args:
            waveforms: [B, N] in [-1, 1] at 16 kHz.
            random: Draws the effects; equal generators give equal results.

        Returns:
            [B, N] in [-1, 1].
        """
        return np.stack([self._damaged(row, random) for row in waveforms])

    def _damaged(self, waveform: Float32, random: np.random.Generator) -> Float32:
        """Apply random effects to one row [N]."""
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
        """Draw noise [n] of a random kind."""
        kind = random.choice(3, p=(0.4, 0.4, 0.2) if self.babble else (0.0, 0.7, 0.3))
        if kind == 0:
            return crowd(self.babble, n, int(random.integers(3, 8)), random)
        return colored_noise(n, random) if kind == 1 else music(n, random)


# ---------------------------------------------------------------------------------- noises


def add_noise(waveform: Float32, noise: Float32, snr_db: float) -> Float32:
    """Add noise at a signal-to-noise ratio; the sum is not limited.

    Args:
        waveform: [n_samples]. If it is silence, the noise is added at -30 dB of full scale minus snr_db.
        noise: [n_samples]; zeros add nothing.
        snr_db: By how much the noise's mean power is below that of the waveform.

    Returns:
        [n_samples].
    """
    power = _power(waveform)
    reference = power if power >= MIN_POWER else 1e-3
    wanted = reference * 10.0 ** (-snr_db / 10.0)
    gain = np.sqrt(wanted / max(_power(noise), 1e-20))
    return np.asarray(waveform + np.float32(gain) * noise, np.float32)


def crowd(babble: Sequence[Float32], n: int, n_voices: int, random: np.random.Generator) -> Float32:
    """Mix babble noise: random stretches of several voices, whose levels differ by at most 3 dB.

    Args:
        babble: Waveforms [m] of single voices. Short ones are repeated.
        n: Samples of the result.
        n_voices: Stretches that are summed.
        random: Draws the stretches.

    Returns:
        [n].
    """
    total = np.zeros(n, np.float32)
    for _ in range(n_voices):
        piece = babble[int(random.integers(len(babble)))]
        if len(piece) > n:
            start = int(random.integers(len(piece) - n + 1))
            piece = piece[start : start + n]
            piece = piece / np.sqrt(_power(piece) + MIN_POWER)
        else:  # repeated, beginning at a random moment
            piece = piece / np.sqrt(_power(piece))
            piece = np.resize(np.roll(piece, int(random.integers(len(piece)))), n)
        total += piece * np.float32(10.0 ** (random.uniform(-3.0, 3.0) / 20.0))
    return total


def colored_noise(n: int, random: np.random.Generator) -> Float32:
    """Draw noise whose power falls as frequency ** -slope, slope 0 to 2, with slow changes of level.

    Args:
        n: Samples.
        random: Draws slope and noise.

    Returns:
        [n].
    """
    n_fft = scipy.fft.next_fast_len(n, real=True)
    spectrum = random.standard_normal(n_fft + 2, dtype=np.float32).view(np.complex64)
    spectrum = spectrum[: n_fft // 2 + 1]
    slope = random.uniform(0.0, 2.0)
    at = np.arange(1, len(spectrum) + 1, dtype=np.float32) * np.float32(SAMPLE_RATE / n_fft)
    spectrum *= np.maximum(at, 50.0) ** np.float32(-slope / 2.0)
    noise = scipy.fft.irfft(spectrum, n_fft)[:n]
    return np.asarray(noise * _swell(n, random.uniform(0.3, 4.0), random), np.float32)


def _swell(n: int, rate: float, random: np.random.Generator) -> Float32:
    """Draw a gain [n] that changes randomly by a few dB, `rate` times per second."""
    n_knots = int(n / SAMPLE_RATE * rate) + 3
    decibels = random.standard_normal(n_knots) * random.uniform(0.0, 6.0)
    gains = 10.0 ** (np.clip(decibels, -12.0, 12.0) / 20.0)
    at = np.arange(n) * (rate / SAMPLE_RATE) + random.random()
    return np.interp(at, np.arange(n_knots), gains).astype(np.float32)


def music(n: int, random: np.random.Generator) -> Float32:
    """Draw tones that resemble music.

    Chords of three notes with harmonics, each with attack and decay.

    Args:
        n: Samples.
        random: Draws chords and timbre.

    Returns:
        [n].
    """
    table = _timbre(random)
    # Random roots and major or minor thirds: frequencies [3, n_chords].
    length = int(random.uniform(0.15, 0.8) * SAMPLE_RATE)
    n_chords = n // length + 2
    roots = 110.0 * 2.0 ** (random.integers(0, 25, n_chords) / 12.0)
    third = np.where(random.random(n_chords) < 0.5, 3, 4)
    chords = roots * 2.0 ** (np.stack([0 * third, third, 0 * third + 7]) / 12.0)
    # Each sample's chord, and an envelope that decays from its start.
    at = np.arange(n) + int(random.integers(length))
    chord, since = at // length, (at % length).astype(np.float32)
    decay_s = random.uniform(0.05, 0.8)
    envelope = np.exp(since * np.float32(-1.0 / (decay_s * SAMPLE_RATE)))
    envelope *= np.minimum(1.0, since / np.float32(0.01 * SAMPLE_RATE))
    # Read the table at the three notes' speeds.
    step = (chords * (len(table) / SAMPLE_RATE)).astype(np.float32)
    tones = sum(table[(note[chord] * since).astype(np.int32) % len(table)] for note in step)
    return np.asarray(tones * envelope, np.float32)


def _timbre(random: np.random.Generator) -> Float32:
    """Draw one period [2048] of a tone with 8 harmonics."""
    turn = np.arange(2048) * (2.0 * np.pi / 2048)
    harmonics = np.arange(1, 9)
    weights = random.random(8) / harmonics ** random.uniform(0.3, 2.0)
    return (weights @ np.sin(np.outer(harmonics, turn))).astype(np.float32)


# ----------------------------------------------------------------------- rooms and microphones


def reverberate(
    waveform: Float32, rt60_s: float, direct_db: float, random: np.random.Generator
) -> Float32:
    """Add the reverberation of a room: a direct path at sample 0, then echoes.

    The echoes are noise that decays exponentially, after Polack's model of late reverberation
    (1988, La transmission de l'energie sonore dans les salles). They begin after 2 to 10 ms, and
    lose 1.5 dB per kHz at the end.

    Args:
        waveform: [n_samples].
        rt60_s: Time in which the echoes decay by 60 dB.
        direct_db: Ratio of the power of the direct path to that of all echoes.
        random: Draws the echoes.

    Returns:
        [n_samples].
    """
    # Noise that decays by 60 dB, and whose upper half fades towards the end.
    n_echoes = max(2, int(rt60_s * SAMPLE_RATE))
    first = int(random.uniform(0.002, 0.01) * SAMPLE_RATE)
    times = np.arange(n_echoes, dtype=np.float32) / np.float32(rt60_s * SAMPLE_RATE)
    echoes = random.standard_normal(n_echoes, dtype=np.float32)
    echoes *= np.exp(np.float32(-np.log(1e3)) * times)
    echoes[1:] = (1.0 - 0.3 * times[1:]) * echoes[1:] + 0.3 * times[1:] * echoes[:-1]
    echoes *= np.float32(10.0 ** (-direct_db / 20.0) / np.sqrt(np.sum(np.square(echoes))))
    # Convolve with the direct path, a pause, and the echoes.
    response = np.concatenate([[1.0], np.zeros(first, np.float32), echoes]).astype(np.float32)
    n = len(waveform)
    n_fft = scipy.fft.next_fast_len(n + len(response), real=True)
    spectrum = scipy.fft.rfft(waveform.astype(np.float32), n_fft)
    spectrum *= scipy.fft.rfft(response, n_fft)
    return np.asarray(scipy.fft.irfft(spectrum, n_fft)[:n], np.float32)


def shape_spectrum(waveform: Float32, gain_at: Callable[[Float32], Float32]) -> Float32:
    """Filter with zero phase.

    Args:
        waveform: [n_samples] at 16 kHz.
        gain_at: Gives the gain at frequencies [n] in Hz.

    Returns:
        [n_samples].
    """
    n = len(waveform)
    n_fft = scipy.fft.next_fast_len(n + TAIL, real=True)
    spectrum = scipy.fft.rfft(waveform.astype(np.float32), n_fft)
    coarse = np.linspace(0.0, SAMPLE_RATE / 2, 513, dtype=np.float32)
    at = np.linspace(0.0, 512.0, len(spectrum))
    spectrum *= np.interp(at, np.arange(513), gain_at(coarse)).astype(np.float32)
    return np.asarray(scipy.fft.irfft(spectrum, n_fft)[:n], np.float32)


def band(low_hz: float, high_hz: float, order: int = 6) -> Callable[[Float32], Float32]:
    """Make the gain of a Butterworth band-pass.

    Args:
        low_hz: Lower cut-off; 0 for a low-pass.
        high_hz: Upper cut-off.
        order: Order of the filter.

    Returns:
        A function of frequencies [n] in Hz that returns gains [n].
    """

    def gain_at(frequencies: Float32) -> Float32:
        gain = 1.0 / np.sqrt(1.0 + (frequencies / high_hz) ** (2 * order))
        if low_hz > 0.0:
            ratio = low_hz / np.maximum(frequencies, 1.0)
            gain = gain / np.sqrt(1.0 + np.minimum(ratio, 30.0) ** (2 * order))
        return np.asarray(gain, np.float32)

    return gain_at


def tilt(decibels: float) -> Callable[[Float32], Float32]:
    """Make a gain that rises linearly over octaves, 0 dB at 1 kHz.

    Args:
        decibels: Rise from 125 Hz to 8 kHz.

    Returns:
        A function of frequencies [n] in Hz that returns gains [n].
    """

    def gain_at(frequencies: Float32) -> Float32:
        octaves = np.log2(np.maximum(frequencies, 62.5) / 1000.0)
        return np.asarray(10.0 ** (decibels / 6.0 * octaves / 20.0), np.float32)

    return gain_at


def random_band(random: np.random.Generator) -> Callable[[Float32], Float32]:
    """Draw a filter.

    It is the band of a telephone, a low-pass at 2 to 7 kHz, or a tilt of at most 15 dB either way.

    Args:
        random: Draws it.

    Returns:
        A function of frequencies [n] in Hz that returns gains [n].
    """
    kind = int(random.integers(3))
    if kind == 0:
        return band(300.0, 3400.0, int(random.integers(3, 9)))
    if kind == 1:
        return band(0.0, random.uniform(2000.0, 7000.0), int(random.integers(2, 9)))
    return tilt(random.uniform(-15.0, 15.0))


def clip(waveform: Float32, level: float) -> Float32:
    """Clip a waveform.

    Args:
        waveform: [n_samples].
        level: Limit, as a share of its peak.

    Returns:
        [n_samples].
    """
    limit = np.float32(level * np.abs(waveform).max())
    return np.asarray(np.clip(waveform, -limit, limit), np.float32)


# ------------------------------------------------------------------------------------ codecs


def random_codec(waveform: Float32, random: np.random.Generator) -> Float32:
    """Apply one of the four codec effects, at a random strength.

    Args:
        waveform: [n_samples].
        random: Draws effect and strength.

    Returns:
        [n_samples].
    """
    kind = int(random.integers(4))
    if kind == 0:
        return mu_law(waveform, int(random.integers(5, 9)))
    if kind == 1:
        return hold(waveform, int(random.integers(2, 5)))
    if kind == 2:
        return quantize(waveform, int(random.integers(5, 10)))
    return spectral_holes(waveform, random.uniform(25.0, 50.0), random.uniform(0.3, 1.0))


def mu_law(waveform: Float32, n_bits: int) -> Float32:
    """Quantize with mu-law companding (the curve of ITU-T G.711, mu 255).

    Args:
        waveform: [n_samples].
        n_bits: Bits from peak to peak.

    Returns:
        [n_samples].
    """
    peak = np.float32(max(float(np.abs(waveform).max()), 1e-6))
    curved = np.log1p(np.abs(waveform) * (255.0 / peak)) * np.float32(1.0 / np.log(256.0))
    n_levels = np.float32(2 ** (n_bits - 1) - 1)
    curved = np.rint(curved * n_levels) * np.float32(np.log(256.0) / n_levels)
    return np.asarray(np.copysign(np.expm1(curved) * (peak / 255.0), waveform), np.float32)


def hold(waveform: Float32, step: int) -> Float32:
    """Repeat every step-th sample from half a step before it to half a step after it, unfiltered.

    Args:
        waveform: [n_samples].
        step: One of this number of samples is kept.

    Returns:
        [n_samples].
    """
    nearest = (np.arange(len(waveform)) + step // 2) // step
    kept = waveform[::step]
    return np.asarray(kept[np.minimum(nearest, len(kept) - 1)], np.float32)


def quantize(waveform: Float32, n_bits: int) -> Float32:
    """Quantize linearly.

    Args:
        waveform: [n_samples].
        n_bits: Bits from peak to peak.

    Returns:
        [n_samples].
    """
    step = np.float32(max(float(np.abs(waveform).max()), 1e-6) / 2 ** (n_bits - 1))
    return np.asarray(np.rint(waveform / step) * step, np.float32)


def spectral_holes(waveform: Float32, depth_db: float, threshold: float) -> Float32:
    """Remove the weak parts of the spectrum, as coders at low bit rates do.

    Args:
        waveform: [n_samples].
        depth_db: Bins that are more than this below the strongest of their frame are set to 0.
        threshold: Bins below this share of the mean magnitude of the 8 bins around them are also set
            to 0.

    Returns:
        [n_samples].
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
    """Multiply the frequencies of the formants. Pitch and timing do not change.

    The spectral envelope (the first 30 cepstral coefficients of 32 ms) is stretched, as in vocal
    tract length perturbation: Jaitly and Hinton (2013, ICML workshop on deep learning
    for audio).

    Args:
        waveform: [n_samples] at 16 kHz.
        factor: Factor on the frequencies, above 0.

    Returns:
        [n_samples].

    Raises:
        ValueError: If the factor is not above 0.
    """
    if factor <= 0.0:
        raise ValueError(f"a formant factor of {factor:g}: it must be above 0")
    spectra = _short_spectra(waveform)  # [F, FRAME // 2 + 1]
    # Log envelopes: the slow variations of the log spectra over frequency.
    logarithms = np.log(np.maximum(np.abs(spectra), 1e-5))
    cepstra = scipy.fft.irfft(logarithms, axis=1)
    cepstra[:, 31:-30] = 0.0
    envelopes = scipy.fft.rfft(cepstra, axis=1).real
    # Read each envelope at frequency / factor, and apply the difference.
    at = np.minimum(np.arange(FRAME // 2 + 1) / factor, FRAME // 2 - 1e-3)
    low, part = at.astype(np.int64), (at % 1.0).astype(np.float32)
    moved = envelopes[:, low] * (1.0 - part) + envelopes[:, low + 1] * part
    spectra *= np.exp(np.clip(moved - envelopes, -5.0, 5.0))
    return _overlapped(spectra, len(waveform))


def change_speed(waveform: Float32, factor: float) -> Float32:
    """Play faster or slower, which also changes the pitch.

    Args:
        waveform: [n].
        factor: Factor on the speed, above 0.

    Returns:
        [round(n / factor)]. Sample i is at position i * factor of the source, to within half a sample;
        the times of labels and lips change accordingly.

    Raises:
        ValueError: If the factor is not above 0.
    """
    if factor <= 0.0:
        raise ValueError(f"a speed factor of {factor:g}: it must be above 0")
    n_out = round(len(waveform) / factor)
    n_fft = scipy.fft.next_fast_len(n_out + TAIL, real=True)
    n_from = round(n_fft * factor)
    spectrum = scipy.fft.rfft(waveform.astype(np.float32), n_from)
    spectrum = spectrum[: n_fft // 2 + 1] * np.float32(n_fft / n_from)
    return np.asarray(scipy.fft.irfft(spectrum, n_fft)[:n_out], np.float32)


# ------------------------------------------------------------------------------------- parts


def _power(waveform: Float32) -> float:
    """Return the mean square of a waveform [n], a scalar."""
    return float(np.dot(waveform, waveform)) / max(1, len(waveform))


def _between(
    limits: tuple[float, float], random: np.random.Generator, *, logarithmic: bool = False
) -> float:
    """Draw a number within limits."""
    if logarithmic:
        return float(np.exp(random.uniform(*np.log(limits))))
    return float(random.uniform(*limits))


@lru_cache(maxsize=1)
def _window() -> Float32:
    """Return half a period of a sine [FRAME]; overlapped by half, its squares add up to 1."""
    window = np.sin((np.arange(FRAME) + 0.5) * (np.pi / FRAME)).astype(np.float32)
    window.setflags(write=False)
    return window


def _short_spectra(waveform: Float32) -> np.ndarray:  # type: ignore[type-arg]
    """Return windowed spectra [F, FRAME // 2 + 1] of a waveform [n], HOP samples apart."""
    n_frames = -(-len(waveform) // HOP) + 1
    padded = np.zeros((n_frames + 1) * HOP, np.float32)
    padded[HOP : HOP + len(waveform)] = waveform
    pieces = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    return np.asarray(scipy.fft.rfft(pieces * _window(), axis=1))


def _overlapped(spectra: np.ndarray, n: int) -> Float32:  # type: ignore[type-arg]
    """Invert _short_spectra: return the waveform [n] of spectra [F, FRAME // 2 + 1]."""
    pieces = scipy.fft.irfft(spectra, axis=1) * _window()
    total = np.zeros((len(pieces) + 1, HOP), np.float32)
    total[:-1] += pieces[:, :HOP]
    total[1:] += pieces[:, HOP:]
    return np.asarray(total.reshape(-1)[HOP : HOP + n], np.float32)
