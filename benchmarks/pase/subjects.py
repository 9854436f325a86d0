"""Interfaces of measured encoders: for phones, for lips, and for driving a person's mouth."""

from __future__ import annotations

from typing import Protocol, cast

from benchmarks.posteriors import Encoder
from talkhead.encoder.base import normalize_level
from talkhead.encoder.registry import load_encoder
from talkhead.types import Bool, Float32, SpeechFeatures


class PhoneEncoder(Protocol):
    """An encoder with phone posteriors."""

    @property
    def name(self) -> str: ...

    def phone_posteriors(self, waveform: Float32) -> Float32:
        """Probabilities [F, 40] in the order of PHONES, of moments 20 ms apart."""


class Embeds(Protocol):
    """An encoder with a visual branch: unit vectors of audio and of lips in one space."""

    @property
    def name(self) -> str: ...

    def audio_embedding(self, waveform: Float32) -> Float32:
        """Return unit vectors [F, E] of audio, 25 per second."""

    def lip_embedding(self, lips: Float32) -> Float32:
        """Return unit vectors [F, E] of crops [F, LIPS_HEIGHT, LIPS_WIDTH] in [0, 1]."""


def load_phone_encoder(weights: str) -> PhoneEncoder:
    """Load PASE by its name or a path of weights. Raises TalkheadError if it is missing."""
    return cast(PhoneEncoder, load_encoder(weights))


def load_embedder(weights: str) -> Embeds:
    """Load PASE with its visual branch. Raises TalkheadError if it is missing."""
    return cast(Embeds, load_encoder(weights))


def encode_speech(encoder: Encoder, waveform: Float32, silent: Bool) -> SpeechFeatures:
    """Features of a waveform [n_samples], at the level of the frames that are not silent [F]."""
    return encoder.encode(normalize_level(waveform, silent))
