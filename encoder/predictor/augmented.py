"""Features of augmented copies of the training audio: other voices, rooms and noise.

A predictor that was trained on one person in one room depends on how they sound there. If it is
also trained on the same motion with augmented audio, it depends on what is said.
"""

from __future__ import annotations

import numpy as np

from talkhead.encoder.base import SpeechEncoder
from talkhead.encoder.pase.augment import AugmentConfig, Augmenter
from talkhead.types import SAMPLE_RATE, Float32, SpeechFeatures

N_COPIES = 4
"""Augmented copies."""
STRETCH_S = 4.0
"""Seconds that one draw of the effects applies to."""
CHANGES = AugmentConfig(
    clean_share=0.0,
    formant_share=0.7,
    formants=(0.8, 1.25),
    noise_share=0.5,
    snr_db=(0.0, 20.0),
    gain_db=(-6.0, 3.0),
)
"""Effects on the copies."""


def augmented_features(
    encoder: SpeechEncoder, waveform: Float32, seed: int
) -> list[SpeechFeatures]:
    """Encode augmented copies of a waveform; their timing is the same.

    Args:
        encoder: The encoder.
        waveform: [n_samples] in [-1, 1] at 16 kHz, with speech at SPEECH_LEVEL_DB.
        seed: Determines the effects.

    Returns:
        Features of N_COPIES copies, each with values [F, dim].
    """
    stretch = int(STRETCH_S * SAMPLE_RATE)
    rows = np.pad(waveform, (0, -len(waveform) % stretch)).reshape(-1, stretch)
    change = Augmenter(CHANGES)
    copies = []
    for number in range(N_COPIES):
        changed = change(rows, np.random.default_rng((seed, number))).reshape(-1)
        copies.append(encoder.encode(changed[: len(waveform)]))
    return copies
