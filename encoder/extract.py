"""Any recording -> speech features, for encoders that are used alone.

    samples, rate = soundfile.read("anna.wav")
    features = listen(load_encoder("mel"), samples, rate)   # values [F, D], 50 a second

Sound is taken at any rate from 8 to 192 kHz, with any number of channels, in floats or integers. It
is mixed, resampled and brought to the level that encoders are used to. It is read in pieces, twice, so
besides the given array (which may be a memory map) the memory of a minute does.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, gcd
from typing import Any

import numpy as np
import numpy.typing as npt

from talkhead.audio import is_silence, measure_loudness, resample, silent_frames
from talkhead.encoder import base
from talkhead.encoder.base import SpeechEncoder, encode_chunks, speech_gain
from talkhead.errors import TalkheadError
from talkhead.types import SAMPLE_RATE, Float32, SpeechFeatures

Samples = npt.NDArray[Any]
"""[n_samples] or [n_samples, channels], as soundfile and scipy.io.wavfile give it: floats in [-1, 1],
or signed integers or uint8 over their whole range."""

RATES = (8_000, 192_000)
MAX_CHANNELS = 64
PIECE_S = 20.0
LOUDEST = 16.0
"""Floats beyond this are integers that were not divided; below it, they are clipped."""
_TAPS = 10  # of scipy's resample_poly: half its filter, in samples of the lower rate


def extract_features(
    encoder: SpeechEncoder, samples: Samples, sample_rate: int, *, rate: float | None = None
) -> SpeechFeatures:
    """What an encoder hears in a recording: values [F, dim], F = ceil(seconds * rate).

    samples: see Samples. rate: vectors a second, the encoder's or a whole part of it, for instance
    25; None is the encoder's. Raises TalkheadError for sound that can't be used, naming the first sample
    that is not a number, and for rates that can't be had.
    """
    values = np.concatenate(list(extract_chunks(encoder, samples, sample_rate)))
    features = SpeechFeatures(values, encoder.rate, encoder.lookahead_s)
    return features if rate is None else downsample(features, rate)


def extract_chunks(encoder: SpeechEncoder, samples: Samples, sample_rate: int) -> Iterator[Float32]:
    """The same vectors piece by piece, [n, dim], at the encoder's rate: for hours of sound.

    Raises TalkheadError as `extract_features` does, at the first piece.
    """
    _check(samples, sample_rate)
    loudness = measure_loudness(
        _resampled(samples, sample_rate, SAMPLE_RATE), sample_rate=SAMPLE_RATE
    )
    gain = np.float32(speech_gain(loudness.powers, silent_frames(loudness.energy_db)))
    pieces = _resampled(samples, sample_rate, encoder.sample_rate)
    yield from encode_chunks(encoder, (piece * gain for piece in pieces))


def normalize_level(waveform: Float32) -> Float32:
    """A waveform [n_samples] at 16 kHz with its speech at SPEECH_LEVEL_DB, as encoders hear it."""
    return base.normalize_level(waveform, is_silence(waveform))


def downsample(features: SpeechFeatures, rate: float) -> SpeechFeatures:
    """Features at a lower rate, each the mean of those around its moment, weighted by nearness.

    The weights are a triangle that is 0 one new step away; at the ends, those that exist count. Raises
    TalkheadError unless the features' rate is a multiple of the new one.
    """
    step = round(features.rate / rate) if rate > 0 else 0
    if step < 1 or abs(step * rate - features.rate) > 1e-6:
        raise TalkheadError(
            f"{rate:g} vectors a second can't be had of {features.rate:g}. Ask for "
            f"{features.rate:g} or a whole part of it, for instance {features.rate / 2:g}"
        )
    n = ceil(len(features) / step)
    total, weights = np.zeros((n, features.values.shape[1])), np.zeros((n, 1))
    for lag in range(1 - step, step):
        index = np.arange(n) * step + lag
        inside = (index >= 0) & (index < len(features))
        weight = 1.0 - abs(lag) / step
        total[inside] += weight * features.values[index[inside]]
        weights[inside] += weight
    values = np.asarray(total / weights, np.float32)
    return SpeechFeatures(values, float(rate), features.lookahead_s + (step - 1) / features.rate)


def _check(samples: Samples, sample_rate: int) -> None:
    if samples.ndim not in (1, 2):
        raise TalkheadError(
            f"sound of shape {samples.shape}: give [n_samples] or [n_samples, channels]"
        )
    if samples.ndim == 2 and not 1 <= samples.shape[1] <= MAX_CHANNELS:
        raise TalkheadError(
            f"sound of shape {samples.shape} has {samples.shape[1]} channels. Give "
            "[n_samples, channels]; turn [channels, n_samples] over with .T"
        )
    if len(samples) == 0:
        raise TalkheadError("the sound is empty. Give a recording with speech.")
    if samples.dtype.kind not in "fi" and samples.dtype != np.uint8:
        raise TalkheadError(
            f"samples of type {samples.dtype}: give floats in [-1, 1] or signed integers"
        )
    if not RATES[0] <= sample_rate <= RATES[1] or sample_rate != int(sample_rate):
        raise TalkheadError(
            f"a sample rate of {sample_rate} Hz: {RATES[0]} to {RATES[1]}, a whole number, is needed. "
            "Resample the sound, or give the rate that it has"
        )


def _resampled(samples: Samples, from_rate: int, to_rate: int) -> Iterator[Float32]:
    """One channel at another rate, [n] in [-1, 1], piece by piece: the same as in one piece."""
    common = gcd(int(from_rate), to_rate)
    up, down = to_rate // common, int(from_rate) // common
    size = max(1, round(PIECE_S * from_rate / down)) * down
    margin = ceil((_TAPS * max(up, down) / up + 1) / down) * down
    n_samples = len(samples)
    for start in range(0, n_samples, size):
        first, stop = max(0, start - margin), min(n_samples, start + size)
        piece = _mixed(samples, first, min(n_samples, stop + margin), from_rate)
        new = resample(piece, int(from_rate), to_rate)
        skipped = (start - first) * up // down
        yield np.clip(new[skipped : skipped + ceil((stop - start) * up / down)], -1.0, 1.0)


def _mixed(samples: Samples, first: int, stop: int, rate: int) -> Float32:
    """Samples first to stop as one channel in [-1, 1]: the mean of the channels."""
    piece = samples[first:stop]
    if piece.dtype.kind in "iu":
        span = np.float32(2.0 ** (8 * piece.dtype.itemsize - 1))
        centre = np.float32(128.0 if piece.dtype.kind == "u" else 0.0)
        piece = (piece.astype(np.float32) - centre) / span
    channels = piece.reshape(len(piece), -1)
    wrong = ~(np.abs(channels) <= LOUDEST)
    if wrong.any():
        index, channel = np.argwhere(wrong)[0]
        raise _bad_sample(channels[index, channel], first + int(index), int(channel), rate)
    return np.clip(channels.astype(np.float32), -1.0, 1.0).mean(1)


def _bad_sample(value: float, index: int, channel: int, rate: int) -> TalkheadError:
    where = f"sample {index} ({index / rate:.3f} s, channel {channel})"
    if np.isfinite(value):
        return TalkheadError(
            f"{where} is {value:g}; floats are in [-1, 1]. Divide by the full scale, or give integers"
        )
    return TalkheadError(f"{where} is not a number. Export the sound again")
