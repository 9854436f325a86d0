"""Baselines: landmarks aligned with other faces."""

from __future__ import annotations

import numpy as np

from talkhead.app.evaluation.baselines import half_turned, mean_mouth, mismatched_speech
from talkhead.app.evaluation.measures.image import lmd
from talkhead.types import Float32


def faces(n_frames: int, seed: int = 0) -> Float32:
    """One face that moves a little from frame to frame, [n, 478, 2] px."""
    rng = np.random.default_rng(seed)
    face = rng.uniform(0, 200, (1, 478, 2))
    return np.asarray(face + rng.normal(0, 2, (n_frames, 478, 2)), np.float32)


def moved(points: Float32, angle: float, scale: float, shift: tuple[float, float]) -> Float32:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(points @ turn.T + shift, np.float32)


def test_the_same_motion_on_a_moved_face_is_the_moved_motion() -> None:
    source = faces(4)
    real = moved(source, 0.3, 1.7, (40.0, -12.0))
    np.testing.assert_allclose(mismatched_speech(real, source), real, atol=1e-3)


def test_a_mean_mouth_does_not_move() -> None:
    source = faces(50)
    source[:, [33, 263]] = [[20, 30], [120, 30]]  # fix the eyes, to which the mean face is aligned
    mean = mean_mouth(source, source)
    np.testing.assert_allclose(mean, np.tile(source.mean(0), (50, 1, 1)), atol=1e-3)
    assert lmd(mean, source).mean() < lmd(half_turned(source), source).mean()


def test_frames_without_a_face_are_ignored_and_stay_undefined() -> None:
    source = faces(6)
    expected = mean_mouth(source[:1], source[[0, 2, 3, 4, 5]])
    source[1] = np.nan
    real = source.copy()
    made = mean_mouth(real, source)
    np.testing.assert_allclose(made[0], expected[0], rtol=1e-5)
    assert np.isnan(made[1]).all() and np.isfinite(made[2:]).all()


def test_half_the_clip_later() -> None:
    points = faces(10)
    turned = half_turned(points)
    np.testing.assert_array_equal(turned[0], points[5])
    assert sorted(turned[:, 0, 0]) == sorted(points[:, 0, 0])
