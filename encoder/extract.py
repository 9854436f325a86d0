"""Speech features of any recording, for encoders that are used without the rest of talkhead.

    samples, rate = soundfile.read("anna.wav")
    features = extract_features(load_encoder("mel"), samples, rate)   # values [F, D], 50 per second

Audio may have any sample rate from 8 to 192 kHz, any number of channels, and float or integer
samples. It is mixed down to mono, resampled and brought to the level that encoders expect. It is
read twice, in pieces: beyond the given array, which may be memory-mapped, this takes the memory of
one minute of audio.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, gcd
from typing import Any

import numpy as np
import numpy.typing as npt

from talkhead.audio import measure_loudness, resample, silent_frames
from talkhead.encoder.base import SpeechEncoder, encode_chunks, speech_gain
from talkhead.errors import TalkheadError
from talkhead.types import SAMPLE_RATE, Float32, SpeechFeatures

Samples = npt.NDArray[Any]
"""[n_samples] or [n_samples, channels], as soundfile and scipy.io.wavfile return it: floats in [-1, 1],
or signed integers or uint8 over their whole range.
"""

RATES = (8_000, 192_000)
"""Lowest and highest sample rate, in Hz."""
MAX_CHANNELS = 64
PIECE_S = 20.0
"""Seconds of audio that are processed at a time."""
LOUDEST = 16.0
"""Floats beyond this are assumed to be integers that were not scaled to [-1, 1]; smaller ones are
clipped.
"""
_TAPS = 10  # of scipy's resample_poly: half its filter, in samples of the lower rate


def extract_features(
    encoder: SpeechEncoder, samples: Samples, sample_rate: int, *, rate: float | None = None
) -> SpeechFeatures:
    """Encode a recording.

    Args:
        encoder: The encoder.
        samples: The recording, [n_samples] or [n_samples, channels] (`Samples`).
        sample_rate: Its samples per second, 8000 to 192000.
        rate: Feature vectors per second: the encoder's divided by a whole number, for instance 25.
            None for the encoder's own rate.

    Returns:
        Features whose values are [F, dim], F = ceil(seconds * rate).

    Raises:
        TalkheadError: The audio cannot be used (the message names the first sample that is not a
            number), or the rate is impossible.
    """
    values = np.concatenate(list(extract_chunks(encoder, samples, sample_rate)))
    features = SpeechFeatures(values, encoder.rate, encoder.lookahead_s)
    return features if rate is None else downsample(features, rate)


def extract_chunks(encoder: SpeechEncoder, samples: Samples, sample_rate: int) -> Iterator[Float32]:
    """Encode a recording piece by piece, for hours of audio.

    Args:
        encoder: The encoder.
        samples: The recording, [n_samples] or [n_samples, channels] (`Samples`).
        sample_rate: Its samples per second, 8000 to 192000.

    Yields:
        Feature vectors [n, dim] at the encoder's rate; concatenated, those of `extract_features`.

    Raises:
        TalkheadError: The audio cannot be used; raised when the faulty piece is reached.
    """
    _check(samples, sample_rate)
    loudness = measure_loudness(
        _resampled(samples, sample_rate, SAMPLE_RATE), sample_rate=SAMPLE_RATE
    )
    gain = np.float32(speech_gain(loudness.powers, silent_frames(loudness.energy_db)))
    pieces = _resampled(samples, sample_rate, encoder.sample_rate)
    yield from encode_chunks(encoder, (piece * gain for piece in pieces))


def downsample(features: SpeechFeatures, rate: float) -> SpeechFeatures:
    """Reduce the rate of features.

    Each new vector is the mean of those around its moment, weighted by a triangle that falls to 0
    at the neighboring new vectors. At the ends, only existing vectors count.

    Args:
        features: Features whose values are [F, D].
        rate: The new rate: the old one divided by a whole number.

    Returns:
        Features at that rate. Their look-ahead is longer, because of the averaging.

    Raises:
        TalkheadError: If the features' rate is not a multiple of the new one.
    """
    step = round(features.rate / rate) if rate > 0 else 0  # old vectors per new one
    if step < 1 or abs(step * rate - features.rate) > 1e-6:
        raise TalkheadError(
            f"features at {features.rate:g} vectors per second cannot be reduced to {rate:g}. Pass "
            f"{features.rate:g} divided by a whole number, for instance {features.rate / 2:g}"
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
    """Refuse samples [n_samples] or [n_samples, channels] that no encoder can use.

    Raises:
        TalkheadError: For another shape or type, an empty array, or an impossible sample rate.
    """
    if samples.ndim not in (1, 2):
        raise TalkheadError(
            f"audio of shape {samples.shape}: pass [n_samples] or [n_samples, channels]"
        )
    if samples.ndim == 2 and not 1 <= samples.shape[1] <= MAX_CHANNELS:
        raise TalkheadError(
            f"audio of shape {samples.shape} has {samples.shape[1]} channels. Pass "
            "[n_samples, channels]; transpose [channels, n_samples] with .T"
        )
    if len(samples) == 0:
        raise TalkheadError("the audio is empty. Pass a recording with speech")
    if samples.dtype.kind not in "fi" and samples.dtype != np.uint8:
        raise TalkheadError(
            f"samples of type {samples.dtype}: pass floats in [-1, 1] or signed integers"
        )
    if not RATES[0] <= sample_rate <= RATES[1] or sample_rate != int(sample_rate):
        raise TalkheadError(
            f"a sample rate of {sample_rate} Hz: a whole number from {RATES[0]} to {RATES[1]} is needed. "
            "Resample the audio, or pass its actual rate"
        )


def _resampled(samples: Samples, from_rate: int, to_rate: int) -> Iterator[Float32]:
    """Resample to one channel, [n] in [-1, 1], piece by piece; the values are those of a single piece."""
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
    """Average samples first to stop - 1 over the channels; returns [stop - first] in [-1, 1].

    Raises:
        TalkheadError: For a sample that is not a number or beyond LOUDEST.
    """
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
    """Make the error for a sample that is not a number or out of range."""
    where = f"sample {index} ({index / rate:.3f} s, channel {channel})"
    if np.isfinite(value):
        return TalkheadError(
            f"{where} is {value:g}; floats are in [-1, 1]. Divide by the full scale, or pass integers"
        )
    return TalkheadError(f"{where} is not a number. Export the audio again")
