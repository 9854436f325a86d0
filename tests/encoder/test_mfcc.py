"""The MFCC baseline: its computation, and sounds that it must distinguish."""

from __future__ import annotations

import numpy as np
import pytest

from talkhead.audio import log_mel
from talkhead.encoder import mfcc
from talkhead.encoder.base import encode_chunks
from talkhead.encoder.mfcc import N_COEFFICIENTS, SCALES, MfccEncoder
from talkhead.types import SAMPLE_RATE, Float32


def _noise(n_samples: int, seed: int = 0) -> Float32:
    random = np.random.default_rng(seed)
    swell = 0.2 + np.abs(np.sin(np.arange(n_samples) / 3000.0))
    return np.asarray(random.normal(0.0, 0.1, n_samples) * swell, np.float32)


def test_coefficients_are_the_definition() -> None:
    """The reference is the DCT-II of Davis and Mermelstein, computed as a sum."""
    sound = _noise(8_000)
    energies = np.maximum(log_mel(sound, n_fft=512, hop_length=320, n_mels=80), -16.0)
    k, m = np.arange(N_COEFFICIENTS)[:, None], np.arange(80)
    basis = np.sqrt(2 / 80) * np.cos(np.pi * k * (m + 0.5) / 80)
    basis[0] /= np.sqrt(2)
    found = MfccEncoder().encode(sound).values[:, :N_COEFFICIENTS]
    np.testing.assert_allclose(found, energies @ basis.T, rtol=0, atol=1e-3)


def test_differences_of_a_line_and_of_a_parabola() -> None:
    """Regression finds the slope of a line and the curvature of a parabola exactly."""
    times = np.arange(30.0)
    for power, first, second in ((1, 1.0, 0.0), (2, 2 * times, 2.0)):
        values = np.repeat((times**power)[:, None], N_COEFFICIENTS, axis=1).astype(np.float32)
        parts = mfcc._with_differences(values).reshape(22, 3, N_COEFFICIENTS)
        inner = slice(4, 26)
        wanted = (times[inner] ** power, np.broadcast_to(first, 30)[inner], np.full(22, second))
        for part, scale, column in zip(parts.transpose(1, 0, 2), SCALES, wanted, strict=True):
            np.testing.assert_allclose(part[:, 5], scale * column, rtol=1e-5, atol=1e-3)


def test_a_louder_sound_moves_the_first_coefficient_alone() -> None:
    sound = _noise(16_000)
    quiet, loud = (MfccEncoder().encode(sound * np.float32(g)).values for g in (1.0, 2.0))
    moved = np.abs(loud - quiet).max(0)
    assert moved[0] == pytest.approx(np.sqrt(80) * np.log(4.0), rel=1e-3)
    assert moved[1:].max() < 1e-3


def test_steady_sound_has_no_differences() -> None:
    tone = np.sin(2 * np.pi * 400.0 * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    values = MfccEncoder().encode(0.1 * tone).values[6:-6]
    assert np.abs(values[:, :N_COEFFICIENTS]).max() > 5.0
    assert np.abs(values[:, N_COEFFICIENTS:]).max() < 0.05


@pytest.mark.parametrize("n_samples", [1, 320, 321, 40_001])
@pytest.mark.parametrize("size", [1, 37, 320, 1000, 100_000])
def test_chunks_equal_the_whole(n_samples: int, size: int) -> None:
    if n_samples > 1000 and size == 1:
        return
    sound = _noise(n_samples)
    whole = MfccEncoder().encode(sound).values
    pieces = (sound[i : i + size] for i in range(0, n_samples, size))
    parts = np.concatenate(list(encode_chunks(MfccEncoder(), pieces)))
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-4)


def test_a_vector_depends_on_audio_up_to_its_lookahead() -> None:
    encoder, sound = MfccEncoder(), _noise(32_000)
    other = np.concatenate([sound[:16_000], _noise(16_000, seed=1)])
    before, after = encoder.encode(sound).values, encoder.encode(other).values
    n_same = int((1.0 - encoder.lookahead_s) * encoder.rate)
    np.testing.assert_allclose(before[:n_same], after[:n_same], rtol=0, atol=1e-4)
    assert np.abs(before[n_same + 1] - after[n_same + 1]).max() > 1e-2  # the next one depends on it
    given = len(encoder.stream().push(sound))
    assert given >= int((2.0 - encoder.lookahead_s) * encoder.rate)


def test_silence_has_constant_coefficients() -> None:
    values = MfccEncoder().encode(np.zeros(16_000, np.float32)).values
    assert values.shape == (50, 39)
    assert np.ptp(values, axis=0).max() < 1e-3
