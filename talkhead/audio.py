"""Audio processing shared by several stages: resampling, spectra, log-mel, energy and silence.

Waveforms are [n_samples] float32 in [-1, 1]. Sequences with one value per moment follow one rule: value
i describes the moment i * hop (its window is centered there, with zeros beyond the ends of the waveform),
and there is a value for each such moment before the end. So value 0 belongs to second 0, and at 25 values
per second, value i belongs to video frame i.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import ceil, gcd

import numpy as np
import scipy.fft
import scipy.signal
from numpy.lib.stride_tricks import sliding_window_view

from talkhead.errors import TalkheadError
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Bool, Float32, Float64, Int16

POWER_FLOOR = 1e-10
"""Smaller powers are raised to this: -100 dB of full scale."""

_BLOCK = 4096  # spectra computed at once, to bound the memory


def check_waveform(waveform: Float32 | Int16, name: str, sample_rate: int = SAMPLE_RATE) -> None:
    """Check that a waveform can be used.

    Args:
        waveform: [n_samples].
        name: Name of the file, with which error messages begin.
        sample_rate: Hz, used to report the time of a bad sample.

    Raises:
        TalkheadError: The waveform is empty or has a sample that is not a finite number.
        ValueError: The waveform is not one-dimensional.
    """
    if waveform.ndim != 1:
        raise ValueError(f"a waveform is [n_samples], not {waveform.shape}")
    if len(waveform) == 0:
        raise TalkheadError(f"{name}: the sound is empty. Pass a recording with speech.")
    good = np.isfinite(waveform)
    if not good.all():
        first = int(np.argmin(good))
        raise TalkheadError(
            f"{name}: sample {first} ({first / sample_rate:.3f} s) is not a number. "
            "Export the sound again."
        )


def as_int16(waveform: Float32 | Int16) -> Int16:
    """Convert a waveform to 16-bit samples, clipping at full scale.

    Args:
        waveform: [n_samples] float32 in [-1, 1], or int16.

    Returns:
        [n_samples]; an int16 waveform is returned unchanged.
    """
    if waveform.dtype == np.int16:
        return np.asarray(waveform, np.int16)
    return np.clip(np.rint(waveform * 32767.0), -32768, 32767).astype(np.int16)


def resample(waveform: Float32, from_rate: int, to_rate: int) -> Float32:
    """Resample a waveform with a zero-phase filter.

    Sample 0 remains at second 0. Near full scale, the filter may overshoot [-1, 1] slightly.

    Args:
        waveform: [n_samples].
        from_rate: Its sample rate, Hz.
        to_rate: The new sample rate, Hz.

    Returns:
        [ceil(n_samples * to_rate / from_rate)] float32.

    Raises:
        ValueError: A rate is below 1.
    """
    if from_rate < 1 or to_rate < 1:
        raise ValueError("sample rates must be 1 or more")
    common = gcd(from_rate, to_rate)
    if from_rate == to_rate or len(waveform) == 0:
        return np.array(waveform, np.float32)
    samples = np.asarray(waveform, np.float32)
    resampled = scipy.signal.resample_poly(samples, to_rate // common, from_rate // common)
    return np.asarray(resampled, np.float32)


def power_spectrogram(waveform: Float32, n_fft: int, hop_length: int) -> Float32:
    """Compute the squared magnitudes of a short-time Fourier transform.

    The periodic Hann window of n_fft samples is centered at i * hop_length, with zeros beyond the ends
    and no normalization. Bin k is at the frequency k * sample_rate / n_fft.

    Args:
        waveform: [n_samples].
        n_fft: Length of the window, samples.
        hop_length: Samples from one frame to the next.

    Returns:
        [F, n_fft // 2 + 1], F = ceil(n_samples / hop_length).
    """
    n_frames = ceil(len(waveform) / hop_length)
    before = n_fft // 2
    after = max(0, (n_frames - 1) * hop_length + n_fft - before - len(waveform))
    padded = np.pad(np.asarray(waveform, np.float32), (before, after))
    powers = np.empty((n_frames, n_fft // 2 + 1), np.float32)
    if n_frames == 0:
        return powers
    window = scipy.signal.get_window("hann", n_fft).astype(np.float32)
    pieces = sliding_window_view(padded, n_fft)[::hop_length][:n_frames]
    for start in range(0, n_frames, _BLOCK):
        spectra = scipy.fft.rfft(pieces[start : start + _BLOCK] * window, axis=1)
        powers[start : start + _BLOCK] = spectra.real**2 + spectra.imag**2
    return powers


def log_mel(
    waveform: Float32,
    sample_rate: int = SAMPLE_RATE,
    *,
    n_fft: int = 400,
    hop_length: int = 160,
    n_mels: int = 80,
) -> Float32:
    """Compute natural logarithms of mel band powers.

    Powers are computed by `power_spectrogram` and summed with `mel_filters`. Their floor is POWER_FLOOR,
    so no value is below -23.03. Except for the logarithm, this equals librosa's melspectrogram with its
    defaults for mel scale, norm and padding.

    Args:
        waveform: [n_samples].
        sample_rate: Hz.
        n_fft: Length of the window, samples.
        hop_length: Samples from one frame to the next.
        n_mels: Number of bands.

    Returns:
        [F, n_mels], F = ceil(n_samples / hop_length); vector i is centered at i * hop_length.
    """
    powers = power_spectrogram(waveform, n_fft, hop_length)
    bands = powers @ mel_filters(sample_rate, n_fft, n_mels).T
    logarithms: Float32 = np.log(np.maximum(bands, np.float32(POWER_FLOOR)))
    return logarithms


def mel_context(n_fft: int = 400, hop_length: int = 160) -> int:
    """Return the samples of context that `log_mel` needs on both sides.

    If c is this number, and a and b are multiples of hop_length, the vectors of waveform[a:b] within the
    whole waveform are log_mel(waveform[a - c : b + c])[c // hop_length : (c + b - a) // hop_length].

    Args:
        n_fft: Length of the window, samples.
        hop_length: Samples from one frame to the next.

    Returns:
        A multiple of hop_length.
    """
    return ceil(n_fft / 2 / hop_length) * hop_length


@lru_cache(maxsize=16)
def mel_filters(sample_rate: int, n_fft: int, n_mels: int) -> Float32:
    """Return triangular mel filters from 0 Hz to half the sample rate, read-only.

    The mel scale is Slaney's, and each triangle has an area of 1 Hz ("Slaney" normalization). Source: M.
    Slaney, Auditory Toolbox, version 2, Interval Research technical report 1998-010, section "mfcc". This
    is librosa's default, not HTK's scale.

    Args:
        sample_rate: Hz.
        n_fft: Length of the window, samples.
        n_mels: Number of filters.

    Returns:
        [n_mels, n_fft // 2 + 1].
    """
    edges = _mel_to_hz(np.linspace(0.0, _hz_to_mel(sample_rate / 2), n_mels + 2))
    bins = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft)
    low, center, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (center - low), (high - bins) / (high - center)
    triangles = np.maximum(0.0, np.minimum(rising, falling)) * 2.0 / (high - low)
    filters: Float32 = triangles.astype(np.float32)
    filters.setflags(write=False)
    return filters


# Slaney's scale: linear below 1000 Hz (= 15 mel), then 27 mel per factor of 6.4.
_LINEAR_HZ_PER_MEL = 200.0 / 3.0
_LOG_FROM_HZ = 1000.0
_LOG_FROM_MEL = _LOG_FROM_HZ / _LINEAR_HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27.0


def _hz_to_mel(frequency: float) -> float:
    if frequency < _LOG_FROM_HZ:
        return frequency / _LINEAR_HZ_PER_MEL
    return float(_LOG_FROM_MEL + np.log(frequency / _LOG_FROM_HZ) / _LOG_STEP)


def _mel_to_hz(mels: Float64) -> Float64:
    """Convert mels [n] to Hz."""
    curved = _LOG_FROM_HZ * np.exp(_LOG_STEP * (np.maximum(mels, _LOG_FROM_MEL) - _LOG_FROM_MEL))
    return np.where(mels < _LOG_FROM_MEL, mels * _LINEAR_HZ_PER_MEL, curved)


# ---------------------------------------------------------------------------- energy and silence


SPEECH_ABOVE_FLOOR_DB = 8.0
SPEECH_BELOW_PEAK_DB = 35.0
MIN_SPEECH_DB = -75.0
_HUM_HZ = 100.0
_PIECE_FRAMES = 1500
_PEAK_S = 0.2
_SHORTEST_SILENCE_S = 0.2
_SHORTEST_SOUND_S = 0.08


@dataclass(frozen=True)
class Loudness:
    """Loudness of each of F video frames of a waveform, F = ceil(n_samples * rate / sample_rate).

    Attributes:
        energy_db: [F] after a high-pass at 100 Hz (against hum and offset), dB of full scale.
        powers: [F] mean square of the unfiltered samples.
        n_samples: Length of the waveform.
    """

    energy_db: Float32
    powers: Float64
    n_samples: int


def hum_filter(sample_rate: int) -> Float64:
    """Make the high-pass filter that removes hum and offset before loudness is measured.

    Args:
        sample_rate: Hz.

    Returns:
        Second-order sections [2, 6].
    """
    sections = scipy.signal.butter(4, _HUM_HZ, "highpass", fs=sample_rate, output="sos")
    return np.asarray(sections, np.float64)


def measure_loudness(
    chunks: Iterable[Float32], rate: float = FRAME_RATE, sample_rate: int = SAMPLE_RATE
) -> Loudness:
    """Measure the loudness of a waveform that arrives in chunks; their size does not affect the result.

    Frame i averages the samples within half a frame of i / rate; at the ends, those that exist.

    Args:
        chunks: [n] float32 each.
        rate: Video frames per second.
        sample_rate: Hz.

    Returns:
        Loudness of each frame.
    """
    high_pass = hum_filter(sample_rate)
    state: Float64 | None = None
    total = 0
    sums = np.zeros((3, 0))  # high-passed squares, squares, counts
    for chunk in _pieces(chunks, rate, sample_rate):
        if state is None:  # as if the first sample had lasted forever
            state = chunk[0] * scipy.signal.sosfilt_zi(high_pass)
        filtered, state = scipy.signal.sosfilt(high_pass, chunk, zi=state)
        moments = np.arange(total, total + len(chunk)) * (rate / sample_rate)
        frames = np.floor(moments + 0.5).astype(np.int64)
        total += len(chunk)
        grown = np.zeros((3, int(frames[-1]) + 1))
        grown[:, : sums.shape[1]] = sums
        for row, values in enumerate(
            (np.square(filtered), np.square(chunk, dtype=np.float64), None)
        ):
            grown[row] += np.bincount(frames, values, minlength=grown.shape[1])
        sums = grown
    n_frames = ceil(total * rate / sample_rate)
    powers = sums[:2, :n_frames] / np.maximum(sums[2, :n_frames], 1.0)
    energy_db = 10.0 * np.log10(np.maximum(powers[0], POWER_FLOOR))
    return Loudness(energy_db.astype(np.float32), powers[1], total)


def _pieces(chunks: Iterable[Float32], rate: float, sample_rate: int) -> Iterator[Float32]:
    """Yield the non-empty chunks [n], long ones split between two frames to bound the memory."""
    first, step = round(sample_rate / rate / 2), round(_PIECE_FRAMES * sample_rate / rate)
    for chunk in chunks:
        edges = [0, *range(first + step, len(chunk), step), len(chunk)]
        yield from (chunk[start:end] for start, end in pairwise(edges) if end > start)


def is_silence(waveform: Float32, rate: float = FRAME_RATE, sample_rate: int = SAMPLE_RATE) -> Bool:
    """Find the video frames of a waveform that have no speech; see `silent_frames`.

    Args:
        waveform: [n_samples].
        rate: Video frames per second.
        sample_rate: Hz.

    Returns:
        [F] bool.
    """
    return silent_frames(measure_loudness([waveform], rate, sample_rate).energy_db, rate)


def silent_frames(energy_db: Float32, rate: float = FRAME_RATE) -> Bool:
    """Find the video frames without speech, by energy alone.

    A frame has sound if its energy is
     * SPEECH_ABOVE_FLOOR_DB over the noise floor (the 10th percentile of all frames),
     * within SPEECH_BELOW_PEAK_DB of the peak (the level that 0.2 s of the frames reach), and
     * above MIN_SPEECH_DB of full scale.
    Then sounds shorter than 0.08 s (clicks) become silence, and after that silences shorter than 0.2 s
    (closures of plosives) become sound, except at the ends.

    So digital zero, steady noise and hum are silent throughout. Unavoidably, so is a vowel of
    constant loudness that lasts for the whole file.

    Args:
        energy_db: [F] of `Loudness`.
        rate: Video frames per second.

    Returns:
        [F] bool.
    """
    if len(energy_db) == 0:
        return np.zeros(0, np.bool_)
    threshold = speech_threshold_db(energy_db, rate)
    return without_short_runs(energy_db <= threshold, rate)


def without_short_runs(silent: Bool, rate: float = FRAME_RATE) -> Bool:
    """Remove sounds so short that they are clicks, and silences so short that they are closures.

    Args:
        silent: [F] bool.
        rate: Video frames per second.

    Returns:
        [F] bool.
    """
    sounding = _without_short_runs(~silent, ceil(_SHORTEST_SOUND_S * rate), ends=True)
    return _without_short_runs(~sounding, ceil(_SHORTEST_SILENCE_S * rate), ends=False)


def speech_threshold_db(energy: Float32, rate: float = FRAME_RATE) -> float:
    """Compute the energy above which frames have sound; see `silent_frames`.

    Args:
        energy: Energies in dB, [F].
        rate: Video frames per second.

    Returns:
        The threshold in dB.
    """
    floor = float(np.percentile(energy, 10))
    n_peak = min(len(energy), max(1, round(_PEAK_S * rate)))
    peak = float(np.sort(energy)[-n_peak])
    return max(floor + SPEECH_ABOVE_FLOOR_DB, peak - SPEECH_BELOW_PEAK_DB, MIN_SPEECH_DB)


def _without_short_runs(flags: Bool, shortest: int, *, ends: bool) -> Bool:
    """Remove runs of True in flags [F] shorter than `shortest` (at the ends only if `ends`)."""
    steps = np.diff(np.concatenate([[0], flags.astype(np.int8), [0]]))
    starts, stops = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    kept = flags.copy()
    for start, stop in zip(starts, stops, strict=True):
        at_end = start == 0 or stop == len(flags)
        if stop - start < shortest and (ends or not at_end):
            kept[start:stop] = False
    return kept
