"""Augmented copies: their timing, and that they make a predictor robust."""

from __future__ import annotations

import numpy as np

from talkhead.audio import measure_loudness
from talkhead.encoder.predictor.augmented import N_COPIES, augmented_features
from talkhead.encoder.registry import load_encoder
from talkhead.types import SAMPLE_RATE, Float32


def _bursts(seconds: float = 9.3) -> Float32:
    """Noise in bursts, 0.3 s each, as loud as speech."""
    n = round(seconds * SAMPLE_RATE)
    on = (np.arange(n) // round(0.3 * SAMPLE_RATE)) % 2
    return (0.1 * on * np.random.default_rng(0).normal(size=n)).astype(np.float32)


def test_copies_are_of_the_same_moments_and_differ() -> None:
    encoder, sound = load_encoder("mel"), _bursts()
    plain = encoder.encode(sound)
    loud = measure_loudness([sound], rate=50).powers
    copies = augmented_features(encoder, sound, 0)
    assert len(copies) == N_COPIES
    for heard in copies:
        assert heard.values.shape == plain.values.shape and heard.rate == plain.rate
        assert np.abs(heard.values - plain.values).mean() > 0.1
        level = heard.values.mean(1)
        lags = [np.corrcoef(np.roll(level, -k), loud[: len(level)])[0, 1] for k in range(-3, 4)]
        assert abs(int(np.argmax(lags)) - 3) <= 1


def test_the_same_seed_gives_the_same_copies() -> None:
    encoder, sound = load_encoder("mel"), _bursts(5.0)
    first, again, other = (augmented_features(encoder, sound, seed) for seed in (0, 0, 1))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.values, two.values)
    assert not np.array_equal(first[0].values, other[0].values)
