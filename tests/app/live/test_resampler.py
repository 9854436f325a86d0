"""Resampling in pieces equals resampling of the whole."""

from __future__ import annotations

import numpy as np
import pytest

from talkhead.app.live.resampler import Resampler
from talkhead.audio import resample


@pytest.mark.parametrize(
    "rates", [(16_000, 16_000), (48_000, 16_000), (8_000, 24_000), (44_100, 16_000)]
)
@pytest.mark.parametrize("size", [1, 160, 999])
def test_pieces_equal_the_whole(rates: tuple[int, int], size: int) -> None:
    samples = np.random.default_rng(0).standard_normal(rates[0] // 8).astype(np.float32)
    resampler = Resampler(*rates)
    parts = [resampler.push(samples[at : at + size]) for at in range(0, len(samples), size)]
    whole = resample(samples, *rates)
    found = np.concatenate([*parts, resampler.finish()])
    assert len(found) == len(whole)
    np.testing.assert_allclose(found, whole, atol=1e-4)


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_the_output_is_late_by_less_than_a_millisecond(rate: int) -> None:
    resampler = Resampler(rate, 16_000)
    assert len(resampler.push(np.zeros(rate // 10, np.float32))) >= 1_600 - 10
