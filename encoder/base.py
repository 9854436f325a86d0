"""What every speech encoder is: a frozen ear; waveform in, feature vectors out, also in chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from talkhead.audio import measure_loudness
from talkhead.types import Bool, Float32, Float64, SpeechFeatures

SPEECH_LEVEL_DB = -23.0
"""Level, in dB of full scale, that `speech_gain` brings speech to."""
MAX_GAIN_DB = 40.0


class StreamingEncoder(Protocol):
    """One waveform's features, chunk by chunk: together the same values as in one piece."""

    def push(self, waveform: Float32) -> Float32:
        """The vectors [n, dim] that are certain after these further samples [n_samples]."""

    def finish(self) -> Float32:
        """The vectors [n, dim] that were waiting for samples; there are no more."""


class SpeechEncoder(Protocol):
    """Hears speech; nothing in it is fitted to a person.

    rate: feature vectors a second, a multiple of FRAME_RATE. dim: values in a vector.
    lookahead_s: how far past its moment a vector hears. version: tells encoders of one name apart
    whose features differ; what was fitted on the one can't be used with the other.
    """

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def rate(self) -> float: ...
    @property
    def dim(self) -> int: ...
    @property
    def lookahead_s(self) -> float: ...

    def encode(self, waveform: Float32) -> SpeechFeatures:
        """Features [F, dim] of a waveform [n_samples], F = ceil(n_samples * rate / sample_rate)."""

    def stream(self) -> StreamingEncoder:
        """A fresh stream of one waveform."""


def encode_chunks(encoder: SpeechEncoder, chunks: Iterable[Float32]) -> Iterator[Float32]:
    """Feature vectors [n, dim] of a waveform that comes in chunks [n_samples]."""
    return encode_stream(encoder.stream(), chunks)


def encode_stream(stream: StreamingEncoder, chunks: Iterable[Float32]) -> Iterator[Float32]:
    """All vectors [n, dim] of a fresh stream that is given chunks [n_samples]."""
    for chunk in chunks:
        yield stream.push(chunk)
    yield stream.finish()


def speech_gain(powers: Float64, silent: Bool) -> float:
    """The factor that brings speech to SPEECH_LEVEL_DB, at most MAX_GAIN_DB up or down.

    powers: [F] mean square of each video frame's samples (`talkhead.audio.measure_loudness`).
    silent: [F] those without speech; the factor is 1 where all are. Encoders hear waveforms at this
    level, in fitting and in speaking, so that a quiet recording moves the mouth as far as a loud
    one.
    """
    n_frames = min(len(silent), len(powers))
    spoken = powers[:n_frames][~silent[:n_frames]]
    if len(spoken) == 0 or spoken.mean() <= 0.0:
        return 1.0
    gain_db = SPEECH_LEVEL_DB - 10.0 * np.log10(spoken.mean())
    return float(10.0 ** (np.clip(gain_db, -MAX_GAIN_DB, MAX_GAIN_DB) / 20.0))


def normalize_level(waveform: Float32, silent: Bool) -> Float32:
    """A waveform [n_samples] at 16 kHz at the level encoders hear, by its frames not silent [F]."""
    gain = speech_gain(measure_loudness([waveform]).powers, silent)
    return np.asarray(waveform * np.float32(gain), np.float32)
