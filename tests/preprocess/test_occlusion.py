"""Occluders are distinguished from blinks, light, hair and permanent objects."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation
from synthetic_head import make_face, make_poses

from talkhead.face import LEFT_BROW, LEFT_EYE, N_LANDMARKS, NOSE_BOTTOM, RIGHT_EYE
from talkhead.frame_selection import train_frames
from talkhead.preprocess.occlusion import (
    AROUND_FRAMES,
    face_colors,
    fit_color_model,
    head_posture,
    mouth_occluded,
    occluded_triangles,
)
from talkhead.types import Bool, Float32, Float64, UInt8

N_FRAMES = 300
FACE = make_face()
CENTRES = FACE.template[FACE.triangles].mean(1)
MOUTH = np.linalg.norm(CENTRES[:, :2] - np.array([0.1, 0.7]), axis=1) < 0.3
HELD = slice(100, 110)


def make_posture() -> Float64:
    lips = np.random.default_rng(1).normal(0.0, 0.1, (N_FRAMES, 3)).astype(np.float32)
    return head_posture(make_poses(N_FRAMES).astype(np.float32), lips, train_frames(N_FRAMES))


def test_postures_are_relative_to_training_frames() -> None:
    """Other held-out poses do not change the postures of training frames."""
    train, views = train_frames(N_FRAMES), make_poses(N_FRAMES).astype(np.float32)
    lips = np.zeros((N_FRAMES, 3), np.float32)
    other = views.copy()
    other[~train] = views[0]
    first, second = (head_posture(v, lips, train)[train] for v in (views, other))
    assert np.array_equal(first, second)


def make_colours(posture: Float64) -> UInt8:
    """A face whose shading depends on its rotation, in light that changes from 0.5 to 1.5."""
    rng = np.random.default_rng(0)
    base = rng.uniform(60, 160, (1, len(FACE.triangles), 3))
    shade = 1.0 + 2.0 * posture[:, 1, None] * CENTRES[:, 0]
    light = 1.0 + 0.5 * np.sin(np.arange(N_FRAMES) / 20)
    noise = rng.normal(0.0, 1.0, (N_FRAMES, len(FACE.triangles), 3))
    seen = base * shade[..., None] * light[:, None, None] + noise
    return np.clip(seen, 0, 255).round().astype(np.uint8)


@pytest.fixture(scope="module")
def posture() -> Float64:
    return make_posture()


@pytest.fixture
def colors(posture: Float64) -> UInt8:
    return make_colours(posture)


def hidden(colors: UInt8, posture: Float64, found: Bool | None = None) -> Bool:
    every = np.ones(len(colors), dtype=bool)
    found = every if found is None else found
    return occluded_triangles(colors, posture, found, every, FACE.template, FACE.triangles)


def test_light_and_shading_hide_nothing(colors: UInt8, posture: Float64) -> None:
    assert not hidden(colors, posture).any()


@pytest.mark.parametrize("color", [(30, 30, 32), (225, 225, 220), (110, 110, 110)])
def test_an_object_in_front_of_the_mouth(
    colors: UInt8, posture: Float64, color: tuple[int, int, int]
) -> None:
    colors[HELD, MOUTH] = color
    found = hidden(colors, posture)
    around = np.zeros(N_FRAMES, dtype=bool)
    around[HELD.start - AROUND_FRAMES : HELD.stop + AROUND_FRAMES] = True
    assert np.array_equal(found.any(1), around)
    assert found[HELD][:, MOUTH].mean() > 0.8
    far = np.linalg.norm(CENTRES[:, :2] - np.array([0.1, 0.7]), axis=1) > 0.6
    assert not found[:, far].any()
    assert np.array_equal(mouth_occluded(found, FACE.template, FACE.triangles), around)


def test_a_recurring_occluder_is_detected(colors: UInt8, posture: Float64) -> None:
    """It is visible in a fifth of the clip."""
    often = np.arange(N_FRAMES) // 20 % 5 == 1
    colors[np.ix_(often, MOUTH)] = (30, 30, 32)
    found = hidden(colors, posture)
    assert found[often].any(1).all()
    assert not found[~binary_dilation(often, np.ones(2 * AROUND_FRAMES + 1))].any()


def test_permanent_objects_belong_to_the_face(colors: UInt8, posture: Float64) -> None:
    """Such objects are a beard or glasses."""
    colors[:, MOUTH] //= 4
    colors[:, np.isin(FACE.triangles, LEFT_EYE + RIGHT_EYE).any(1)] = 20
    assert not hidden(colors, posture).any()


def test_blinks_and_fringes_are_not_occluders(colors: UInt8, posture: Float64) -> None:
    colors[HELD, np.isin(FACE.triangles, LEFT_EYE + RIGHT_EYE).any(1)] = 90
    above_brows = CENTRES[:, 1] < FACE.template[list(LEFT_BROW), 1].min() - 0.25
    colors[50:60, above_brows] = 20
    assert not hidden(colors, posture).any()


def test_a_few_strange_triangles_are_noise(colors: UInt8, posture: Float64) -> None:
    colors[HELD, ::25] = 0
    assert not hidden(colors, posture).any()


def test_frames_without_a_face_are_hidden_with_their_neighbors(
    colors: UInt8, posture: Float64
) -> None:
    found = np.ones(N_FRAMES, dtype=bool)
    found[104:107] = found[200:203] = False
    colors[~found] = 0
    colors[HELD, MOUTH] = (30, 30, 32)
    seen = hidden(colors, posture, found)
    assert seen[104:107].any(1).all() and not seen[190:].any()


def test_held_out_frames_do_not_affect_expected_colors(colors: UInt8, posture: Float64) -> None:
    train = np.arange(N_FRAMES) < 270
    every = np.ones(N_FRAMES, dtype=bool)
    before = occluded_triangles(colors, posture, every, train, FACE.template, FACE.triangles)
    colors[273:] = np.random.default_rng(2).integers(0, 256, colors[273:].shape)
    after = occluded_triangles(colors, posture, every, train, FACE.template, FACE.triangles)
    assert np.array_equal(before[:270], after[:270])


def test_expected_colors_follow_posture(colors: UInt8, posture: Float64) -> None:
    """Half of the clip predicts the other half up to noise; without postures it does not."""
    knowing = fit_color_model(colors[::2], posture[::2])
    ignorant = fit_color_model(colors[::2], np.zeros_like(posture[::2]))
    assert knowing.deviation(colors[1::2], posture[1::2]).mean() < 1.0
    assert knowing.spread.mean() < 0.7 * ignorant.spread.mean()


def test_only_occluders_below_the_nose_hide_the_mouth() -> None:
    flags = np.zeros((3, len(FACE.triangles)), dtype=bool)
    flags[1, CENTRES[:, 1].argmin()] = True
    flags[2, CENTRES[:, 1].argmax()] = True
    assert mouth_occluded(flags, FACE.template, FACE.triangles).tolist() == [False, False, True]
    assert CENTRES[:, 1].max() > FACE.template[NOSE_BOTTOM, 1]


def gradient_face(scale: float, shift: float) -> tuple[UInt8, Float32]:
    """An image whose red increases to the right and green downward, with a face."""
    y, x = np.mgrid[:400, :400]
    frame = np.stack([x // 2, y // 2, np.full_like(x, 7)], axis=-1).astype(np.uint8)
    landmarks = np.zeros((N_LANDMARKS, 3), np.float32)
    landmarks[:, :2] = FACE.template[:, :2] * scale + shift
    return frame, landmarks


@pytest.mark.parametrize("scale", [60.0, 150.0])
def test_colors_are_those_at_the_triangles(scale: float) -> None:
    frame, landmarks = gradient_face(scale, 180.0)
    places = landmarks[FACE.triangles, :2].mean(1)
    seen = face_colors(frame, landmarks, FACE.triangles)
    assert np.abs(seen[:, :2] - places / 2).max() < 2.0 and (seen[:, 2] == 7).all()


@pytest.mark.parametrize("shift", [-1000.0, 0.0, 390.0, 2000.0])
def test_faces_outside_the_picture_use_its_edge(shift: float) -> None:
    frame, landmarks = gradient_face(100.0, shift)
    seen = face_colors(frame, landmarks, FACE.triangles)
    assert seen.shape == (len(FACE.triangles), 3) and (seen[:, 2] == 7).all()
