"""The same sound as it might have been: in other voices, rooms and noise.

A predictor that has heard one person in one room leans on how they sound there. Learning the same
motion from changed sound too, it leans on what is said.
"""

from __future__ import annotations

import numpy as np

from talkhead.encoder.base import SpeechEncoder
from talkhead.encoder.pase.augment import AugmentConfig, Augmenter
from talkhead.types import SAMPLE_RATE, Float32, SpeechFeatures

N_HEARINGS = 4
STRETCH_S = 4.0
"""Seconds that are changed alike."""
CHANGES = AugmentConfig(
    clean_share=0.0,
    formant_share=0.7,
    formants=(0.8, 1.25),
    noise_share=0.5,
    snr_db=(0.0, 20.0),
    gain_db=(-6.0, 3.0),
)


def augmented_features(
    encoder: SpeechEncoder, waveform: Float32, seed: int
) -> list[SpeechFeatures]:
    """Features of N_HEARINGS changed versions of a waveform [n_samples] at the level of speech.

    The timing stays; the same seed gives the same features.
    """
    stretch = int(STRETCH_S * SAMPLE_RATE)
    rows = np.pad(waveform, (0, -len(waveform) % stretch)).reshape(-1, stretch)
    change = Augmenter(CHANGES)
    hearings = []
    for number in range(N_HEARINGS):
        changed = change(rows, np.random.default_rng((seed, number))).reshape(-1)
        hearings.append(encoder.encode(changed[: len(waveform)]))
    return hearings
