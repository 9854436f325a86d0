"""Plans of head crops."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_head import make_codes, make_face, make_landmarks, make_poses

from talkhead.cameras import default_intrinsics
from talkhead.face import FACE_OVAL
from talkhead.preprocess.person_mask import plan_crops
from talkhead.types import Bool, Float32

N_FRAMES = 200
FRAME_SIZE = (480, 640)


@pytest.fixture(scope="module")
def landmarks() -> Float32:
    """A face about 175 px high in the middle of the frame."""
    vertices = make_face().vertices(make_codes(N_FRAMES)).astype(np.float64)
    whole = make_landmarks(vertices, make_poses(N_FRAMES), default_intrinsics(640, 480))
    return 0.5 * whole + np.array([160.0, 130.0, 0.0], np.float32)


def everywhere() -> Bool:
    return np.ones(N_FRAMES, dtype=bool)


@pytest.mark.parametrize("max_height", [10_000, 200])
def test_crops_contain_the_face_with_room_for_hair_and_neck(
    landmarks: Float32, max_height: int
) -> None:
    plan = plan_crops(landmarks, everywhere(), FRAME_SIZE, max_height)
    oval = landmarks[:, list(FACE_OVAL), :2]
    low, high = oval.min(1) - plan.origins, oval.max(1) - plan.origins
    width, height = plan.width / plan.scale, plan.height / plan.scale
    size = np.median(high - low, axis=0)
    assert (low[:, 0] > 0.2 * size[0]).all() and (width - high[:, 0] > 0.2 * size[0]).all()
    assert (low[:, 1] > 0.45 * size[1]).all() and (height - high[:, 1] > 0.1 * size[1]).all()


def test_sizes_are_whole(landmarks: Float32) -> None:
    plan = plan_crops(landmarks, everywhere(), FRAME_SIZE, 10_000)
    assert plan.scale == 1.0 and plan.width % 2 == 0 and plan.height % 2 == 0
    assert plan.origins.shape == (N_FRAMES, 2) and plan.origins.dtype == np.float32
    assert np.array_equal(plan.origins, np.round(plan.origins))


def test_large_faces_are_scaled_down(landmarks: Float32) -> None:
    plan = plan_crops(landmarks, everywhere(), FRAME_SIZE, 160)
    width, height = plan.width / plan.scale, plan.height / plan.scale
    assert 0.2 < plan.scale < 1.0 and 140 <= plan.height <= 160
    assert (width, height) == (round(width), round(height)), "exactly `scale` of the source"


@pytest.mark.parametrize("shift", [(0, 0), (-200, 0), (250, 0), (0, -180), (100, 150)])
@pytest.mark.parametrize("max_height", [10_000, 150])
def test_crops_stay_inside_the_frame(
    landmarks: Float32, shift: tuple[int, int], max_height: int
) -> None:
    moved = landmarks + np.array([*shift, 0], np.float32)
    plan = plan_crops(moved, everywhere(), FRAME_SIZE, max_height)
    far = plan.origins + np.array([plan.width, plan.height]) / plan.scale
    assert (plan.origins >= 0).all()
    assert (far <= np.array([640, 480]) + 1e-3).all()


def test_a_face_that_fills_the_frame(landmarks: Float32) -> None:
    large = (landmarks - np.array([320, 240, 0], np.float32)) * 4 + np.array([320, 240, 0])
    plan = plan_crops(large.astype(np.float32), everywhere(), FRAME_SIZE, 10_000)
    assert (plan.height, plan.width) == FRAME_SIZE and not plan.origins.any()


def test_gaps_are_bridged_smoothly(landmarks: Float32) -> None:
    usable = everywhere()
    usable[80:120] = False
    usable[:5] = False
    broken = landmarks.copy()
    broken[~usable] = 0.0
    plan = plan_crops(broken, usable, FRAME_SIZE, 10_000)
    assert np.abs(np.diff(plan.origins, axis=0)).max() <= 4
    oval = landmarks[usable][:, list(FACE_OVAL), :2]
    assert (oval.min(1) > plan.origins[usable]).all()
