"""An encoder for an ablation: phones recognized by pocketsphinx, as smoothed one-hot vectors.

pocketsphinx needs whole utterances, so this encoder cannot stream and its look-ahead is unbounded.
It is therefore not in the registry, but otherwise compatible with the encoders there.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import scipy.ndimage

from benchmarks.pase.sphinx import sphinx_phones
from talkhead.encoder.base import SpeechEncoder
from talkhead.encoder.forced_alignment import phones_unavailable_reason
from talkhead.encoder.pase.corpus import UNKNOWN, label_frames
from talkhead.encoder.phones import PHONES, SILENCE
from talkhead.encoder.registry import load_encoder
from talkhead.errors import TalkheadError
from talkhead.types import SAMPLE_RATE, Float32, SpeechFeatures

ALLPHONE, WORDS = "sphinx-allphone", "sphinx-words"
POSTERIOR_RATE = 50
SMOOTHING = 1.0
"""Standard deviation of the smoothing, in vectors: equal to that of the boundary errors."""


@dataclass(frozen=True)
class PosteriorEncoder:
    """Recognizes phones one by one, or as words where English words match.

    cache: a folder that stores results, independent of the level. Raises TalkheadError when created
    without pocketsphinx.
    """

    name: str = ALLPHONE
    cache: Path | None = None
    sample_rate: int = SAMPLE_RATE
    rate: float = POSTERIOR_RATE
    lookahead_s: float = 0.096  # actually unlimited; this gives the receptive field of PASE
    dim: int = len(PHONES)

    def __post_init__(self) -> None:
        if missing := phones_unavailable_reason():
            raise TalkheadError(missing)

    def encode(self, waveform: Float32) -> SpeechFeatures:
        """Features [ceil(n_samples / 320), 40] of a waveform [n_samples]; each sums to 1."""
        way = self.name.removeprefix("sphinx-")
        (phones,) = sphinx_phones([waveform], way, self.cache)
        labels = label_frames(phones, ceil(len(waveform) * POSTERIOR_RATE / SAMPLE_RATE))
        labels[labels == UNKNOWN] = PHONES.index(SILENCE)
        certain = np.eye(len(PHONES), dtype=np.float32)[labels]
        smooth = scipy.ndimage.gaussian_filter1d(certain, SMOOTHING, axis=0, mode="nearest")
        return SpeechFeatures(smooth, self.rate, self.lookahead_s)


Encoder = SpeechEncoder | PosteriorEncoder


def ablation_encoder(name: str, cache: Path | None = None) -> Encoder:
    """An encoder of the registry, or one of ALLPHONE and WORDS. Raises TalkheadError."""
    return PosteriorEncoder(name, cache) if name in (ALLPHONE, WORDS) else load_encoder(name)
