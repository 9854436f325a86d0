"""Who is measured: encoders that know phones, that go with lips, and that drive a person's mouth."""

from __future__ import annotations

from typing import Protocol, cast

from benchmarks.posteriors import Encoder
from talkhead.encoder.base import normalize_level
from talkhead.encoder.registry import load_encoder
from talkhead.types import Bool, Float32, SpeechFeatures


class HearsPhones(Protocol):
    """An encoder that knows phones."""

    @property
    def name(self) -> str: ...

    def phone_posteriors(self, waveform: Float32) -> Float32:
        """Probabilities [F, 40] in the order of PHONES, of moments 20 ms apart."""


class Embeds(Protocol):
    """An encoder with a visual branch: unit vectors of sound and of lips in one space."""

    @property
    def name(self) -> str: ...

    def audio_embedding(self, waveform: Float32) -> Float32:
        """[F, E] at 25 a second."""

    def lip_embedding(self, lips: Float32) -> Float32:
        """[F, E] of crops [F, LIPS_HEIGHT, LIPS_WIDTH] in 0 to 1."""


def load_hearer(weights: str) -> HearsPhones:
    """PASE by its name or a path of weights. Raises TalkheadError when it is not there."""
    return cast(HearsPhones, load_encoder(weights))


def load_embedder(weights: str) -> Embeds:
    """The same with its visual branch."""
    return cast(Embeds, load_encoder(weights))


def heard(encoder: Encoder, waveform: Float32, silent: Bool) -> SpeechFeatures:
    """Features of a waveform [n_samples] at the level of what is not silent [F]."""
    return encoder.encode(normalize_level(waveform, silent))
