"""Interface of speech encoders, which turn a waveform into feature vectors, whole or in chunks.

An encoder drives the lips and nothing else. Two points matter for the choice of an encoder:

* Voice activity detection (`talkhead.encoder.vad`), which puts the mouth to rest in silence, always
  uses PASE. So PASE's weights are needed with every encoder.
* If a prior was trained for the encoder (`talkhead.encoder.predictor.prior`), a person's predictor
  starts from it. With any other encoder, the predictor starts from random weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np

from talkhead.audio import is_silence, measure_loudness
from talkhead.types import Bool, Float32, Float64, SpeechFeatures

SPEECH_LEVEL_DB = -23.0
"""Level, in dB of full scale, that `speech_gain` brings speech to."""
MAX_GAIN_DB = 40.0
"""Largest change of level, in dB, up or down."""


class StreamingEncoder(Protocol):
    """Encodes a waveform chunk by chunk, with the same result as encoding it whole."""

    def push(self, waveform: Float32) -> Float32:
        """Encode the next samples.

        Args:
            waveform: [n_samples] float32 in [-1, 1], following those of the last call.

        Returns:
            The feature vectors that later samples cannot change and that were not returned yet,
            [n, dim].
        """

    def finish(self) -> Float32:
        """End the waveform.

        Returns:
            The feature vectors that were still waiting for samples, [n, dim].
        """


@runtime_checkable
class ApproximatingStream(StreamingEncoder, Protocol):
    """A stream that can approximate vectors before all samples that they depend on have arrived.

    Live speech with little delay uses it if an encoder's stream has it.
    """

    def pending(self) -> Float32:
        """Approximate the vectors that follow those returned so far.

        Returns:
            [n, dim], n of 0 or more. The stream is not changed.
        """


class SpeechEncoder(Protocol):
    """A frozen model that turns speech into feature vectors; nothing in it is fitted to a person.

    Attributes:
        name: The name under which it is registered.
        version: Identifies the features. A predictor can only be used with the name and version
            that it was fitted with.
        sample_rate: Samples per second of the waveforms that it takes.
        rate: Feature vectors per second, a multiple of FRAME_RATE. Vector i describes the moment
            i / rate.
        dim: Values in a vector.
        lookahead_s: How far past its own moment a vector depends on the waveform, in seconds.
    """

    @property
    def name(self) -> str:
        """Name under which it is registered."""

    @property
    def version(self) -> str:
        """Version of its features."""

    @property
    def sample_rate(self) -> int:
        """Samples per second of its waveforms."""

    @property
    def rate(self) -> float:
        """Feature vectors per second."""

    @property
    def dim(self) -> int:
        """Values in a feature vector."""

    @property
    def lookahead_s(self) -> float:
        """How far past its own moment a vector depends on the waveform, in seconds."""

    def encode(self, waveform: Float32) -> SpeechFeatures:
        """Encode a whole waveform.

        Args:
            waveform: [n_samples] float32 in [-1, 1] at `sample_rate`, with speech at
                SPEECH_LEVEL_DB.

        Returns:
            Features whose values are [F, dim], F = ceil(n_samples * rate / sample_rate).
        """

    def stream(self) -> StreamingEncoder:
        """Start encoding a new waveform in chunks.

        Returns:
            An empty stream.
        """


def encode_chunks(encoder: SpeechEncoder, chunks: Iterable[Float32]) -> Iterator[Float32]:
    """Encode a waveform that arrives in chunks.

    Args:
        encoder: The encoder.
        chunks: Consecutive samples, each chunk [n_samples] in [-1, 1] at the encoder's sample rate.

    Yields:
        Feature vectors [n, dim]; concatenated, they are those of the whole waveform.
    """
    return encode_stream(encoder.stream(), chunks)


def encode_stream(stream: StreamingEncoder, chunks: Iterable[Float32]) -> Iterator[Float32]:
    """Run a stream over a waveform that arrives in chunks.

    Args:
        stream: An empty stream.
        chunks: Consecutive samples, each chunk [n_samples] in [-1, 1].

    Yields:
        Vectors [n, dim]; concatenated, they are those of the whole waveform.
    """
    for chunk in chunks:
        yield stream.push(chunk)
    yield stream.finish()


def speech_gain(powers: Float64, silent: Bool) -> float:
    """Compute the factor that brings speech to SPEECH_LEVEL_DB.

    Encoders get waveforms at this level both when fitting and when speaking, so a quiet recording
    moves the mouth as far as a loud one.

    Args:
        powers: Mean square of the samples of each video frame, [F]
            (`talkhead.audio.measure_loudness`).
        silent: Frames without speech, [F]. Their level does not matter.

    Returns:
        Factor on the samples, between -MAX_GAIN_DB and MAX_GAIN_DB; 1 if no frame has speech.
    """
    n_frames = min(len(silent), len(powers))
    spoken = powers[:n_frames][~silent[:n_frames]]
    if len(spoken) == 0 or spoken.mean() <= 0.0:
        return 1.0
    gain_db = SPEECH_LEVEL_DB - 10.0 * np.log10(spoken.mean())
    return float(10.0 ** (np.clip(gain_db, -MAX_GAIN_DB, MAX_GAIN_DB) / 20.0))


def normalize_level(waveform: Float32, silent: Bool | None = None) -> Float32:
    """Bring the speech of a waveform to SPEECH_LEVEL_DB.

    Args:
        waveform: [n_samples] in [-1, 1] at 16 kHz.
        silent: Video frames without speech, [F]; None to detect them by loudness alone.

    Returns:
        The waveform times a factor (`speech_gain`), [n_samples].
    """
    silent = is_silence(waveform) if silent is None else silent
    gain = speech_gain(measure_loudness([waveform]).powers, silent)
    return np.asarray(waveform * np.float32(gain), np.float32)
