"""Driving a head by another recording: its expressions and poses, within the person's range."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from synthetic_head import N_CODES, N_EYES, N_MOUTH, make_clip

from talkhead import media
from talkhead.app.composer.driver import (
    MAX_GAIN,
    MAX_SHIFT,
    MAX_TURN_DEG,
    Driver,
    driven_clip,
    retargeted,
    track_driver,
)
from talkhead.app.composer.expression_model import RANGE_PERCENT, TOLERANCE, ExpressionModel
from talkhead.app.composer.head_view import AXES, head_angles, head_middle
from talkhead.app.composer.idle_clip import IdleClip
from talkhead.blendshapes import N_BLENDSHAPES
from talkhead.errors import FootageError
from talkhead.face import N_BODY
from talkhead.progress import SilentProgress
from talkhead.types import Float32

N, T = 500, 300


def make_views(n: int, size_deg: float, shift: float, depth: float) -> Float32:
    """Poses of a head that nods and sways."""
    phase = np.linspace(0.0, 8 * np.pi, n)
    angles = size_deg * np.stack([np.sin(phase), np.cos(0.6 * phase), 0.3 * np.sin(phase)], 1)
    views = np.tile(np.eye(4), (n, 1, 1))
    views[:, :3, :3] = Rotation.from_euler(AXES, angles, degrees=True).as_matrix()
    views[:, :3, 3] = np.stack([shift * np.sin(phase), np.zeros(n), np.full(n, depth)], 1)
    return views.astype(np.float32)


def make_coefficients(n: int, size: float, seed: int) -> Float32:
    rng = np.random.default_rng(seed)
    times = np.arange(n)[:, None] / 25.0
    waves = np.sin(times * rng.uniform(0.5, 3.0, N_BLENDSHAPES) + rng.uniform(0, 6, N_BLENDSHAPES))
    return (0.4 + size * waves).astype(np.float32)


@pytest.fixture(scope="module")
def clip() -> IdleClip:
    coefficients = make_coefficients(N, 0.2, 1)
    slopes = np.zeros((N_BLENDSHAPES, N_CODES), np.float32)
    slopes[9, N_MOUTH : N_MOUTH + N_EYES] = (2.0, -0.5)  # eyeBlinkLeft
    slopes[25, :N_MOUTH] = 1.5  # jawOpen
    codes = (coefficients - 0.4) @ slopes
    views = make_views(N, 4.0, 0.1, 5.0)
    codes[:, -N_BODY:] = 0.02 * head_angles(views)[:, :1]
    return replace(make_clip(codes, coefficients), viewmats=views)


@pytest.fixture(scope="module")
def model(clip: IdleClip) -> ExpressionModel:
    return ExpressionModel.from_clip(clip)


def driver(coefficients: Float32, views: Float32) -> Driver:
    return Driver(coefficients, views, np.ones(len(views), bool))


def test_a_person_who_drives_themselves_moves_as_filmed(
    clip: IdleClip, model: ExpressionModel
) -> None:
    assert clip.blendshapes is not None
    driven, notes = driven_clip(clip, model, driver(clip.blendshapes, clip.viewmats))
    assert notes == []
    for part in (slice(0, N_MOUTH), slice(N_MOUTH, N_MOUTH + N_EYES), slice(-N_BODY, None)):
        found, own = driven.codes[:, part], clip.codes[:, part]
        assert np.corrcoef(found.ravel(), own.ravel())[0, 1] > 0.98
    angles = head_angles(driven.viewmats) - head_angles(clip.viewmats)
    assert np.abs(angles).max() < 0.1


@pytest.mark.parametrize("size", [0.05, 0.3])
def test_the_drivers_range_becomes_the_persons(model: ExpressionModel, size: float) -> None:
    """Expressions keep their course; a driver who moves little is enlarged, but not without limit."""
    coefficients = make_coefficients(T, size, 2).astype(np.float64)
    made = retargeted(coefficients, model)
    for index in range(N_BLENDSHAPES):
        assert np.corrcoef(made[:, index], coefficients[:, index])[0, 1] > 0.97
    assert (made >= model.low - TOLERANCE).all() and (made <= model.high + TOLERANCE).all()
    gain = np.ptp(made, axis=0) / np.ptp(coefficients, axis=0)
    assert np.all(gain <= MAX_GAIN + 1e-6)
    if size > 0.2:
        own = np.subtract(*np.percentile(made, RANGE_PERCENT[::-1], axis=0))
        np.testing.assert_allclose(own, model.high - model.low, rtol=0.2)


def test_poses_are_relative_and_stay_within_the_range(
    clip: IdleClip, model: ExpressionModel
) -> None:
    """The driver sits elsewhere, nearer, and turns farther."""
    views = make_views(T, 15.0, 0.5, 3.0)
    views[:, 0, 3] += 2.0
    driven, notes = driven_clip(clip, model, driver(make_coefficients(T, 0.2, 3), views))
    assert "turns up to" in notes[0] and "stays within their range" in notes[0]
    own, found = head_angles(clip.viewmats), head_angles(driven.viewmats)
    assert np.all(found.max(0) <= own.max(0) + MAX_TURN_DEG)
    assert np.all(found.min(0) >= own.min(0) - MAX_TURN_DEG)
    assert np.corrcoef(found[:, 0], head_angles(views)[:, 0])[0, 1] > 0.9
    middle = head_middle(clip)
    places, filmed = (v[:, :3, :3] @ middle + v[:, :3, 3] for v in (driven.viewmats, clip.viewmats))
    assert np.all(places.max(0) <= filmed.max(0) + MAX_SHIFT + 1e-4)
    assert len(driven) == T and driven.codes.dtype == np.float32


def test_clothes_are_as_usual_and_the_body_follows_the_head(clip: IdleClip) -> None:
    at = clip.face.n_codes - N_BODY
    face = replace(
        clip.face,
        basis=np.insert(clip.face.basis, [at] * 2, 0.0, axis=0),
        silence=np.insert(clip.face.silence, [at] * 2, 0.0),
    )
    clothes = np.random.default_rng(4).normal(size=(N, 2)).astype(np.float32)
    codes = np.concatenate([clip.codes[:, :at], clothes, clip.codes[:, at:]], axis=1)
    clothed = replace(clip, face=face, codes=codes)
    assert face.clothes == slice(at, at + 2)
    views = make_views(T, 4.0, 0.1, 5.0)
    driven, _ = driven_clip(
        clothed, ExpressionModel.from_clip(clothed), driver(make_coefficients(T, 0.2, 5), views)
    )
    assert np.all(driven.codes[:, face.clothes] == np.median(clothes, axis=0))
    body = driven.codes[:, -N_BODY]
    assert np.corrcoef(body, head_angles(views)[:, 0])[0, 1] > 0.95


def test_a_video_without_a_face_is_refused_and_tracks_are_kept(tmp_path: Path) -> None:
    video = tmp_path / "walls.mp4"
    media.write_video(video, np.full((8, 64, 96, 3), 120, np.uint8))
    with pytest.raises(FootageError, match="shows a face in 0 % of its frames"):
        track_driver(video, tmp_path / "work", SilentProgress())
