"""Body motion is recovered from frames with known motion."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from talkhead.cameras import default_intrinsics
from talkhead.face import CHIN, FOREHEAD, JAW_LINE, N_BODY, body_matrix
from talkhead.preprocess.body_motion import BodyTracker, body_codes
from talkhead.preprocess.person_mask import CropPlan
from talkhead.types import Float32, Float64, UInt8

N, HEIGHT, WIDTH = 15, 160, 200
INTRINSICS = default_intrinsics(WIDTH, HEIGHT)


def landmarks() -> Float32:
    points = np.full((N, 478, 3), 50.0, np.float32)
    points[:, list(JAW_LINE), 0] = np.linspace(140, 60, len(JAW_LINE))
    points[:, FOREHEAD, :2], points[:, CHIN, :2] = (100, 10), (100, 60)
    return points


def sways() -> list[Float64]:
    """Affine maps of normalized image coordinates [3, 3], that of the middle frame the identity."""
    maps = []
    for time in np.linspace(-1.0, 1.0, N):
        matrix = np.eye(3)
        matrix[:2] += time * np.array([[0.02, 0.03, 0.02], [-0.03, 0.01, 0.015]])
        maps.append(matrix)
    return maps


def crops(textured: bool) -> list[UInt8]:
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    if not textured:
        texture[:] = 90
    base = cv2.resize(texture, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    images = []
    for matrix in sways():
        pixels = INTRINSICS @ matrix @ np.linalg.inv(INTRINSICS)
        images.append(
            cv2.warpPerspective(base, pixels, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)
        )
    return images


def tracker(images: list[UInt8]) -> BodyTracker:
    plan = CropPlan(np.zeros((N, 2), np.float32), HEIGHT, WIDTH, 1.0)
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    return BodyTracker(images[N // 2], mask, landmarks()[0], N // 2, plan, INTRINSICS)


def run(textured: bool) -> Float32:
    images = crops(textured)
    body = tracker(images)
    return body_codes(np.array([body.follow(image, i) for i, image in enumerate(images)]))


def test_a_known_sway_is_found() -> None:
    codes = run(textured=True)
    assert codes.shape == (N, N_BODY)
    found = body_matrix(torch.from_numpy(codes).double()).numpy()
    corners = np.array([[x, y, 1.0] for x in (-0.3, 0.3) for y in (0.0, 0.3)])
    inner = slice(2, N - 2)  # smoothing bends the ends
    wrong = (found - np.stack(sways()))[inner] @ corners.T * INTRINSICS[0, 0]
    assert np.abs(wrong).max() < 0.7  # pixels
    assert np.abs((np.eye(3) - np.stack(sways()))[inner] @ corners.T).max() * INTRINSICS[0, 0] > 4


def test_a_plain_shirt_has_no_motion() -> None:
    assert (run(textured=False) == 0).all()


def test_a_resumed_tracker_finds_the_same() -> None:
    images = crops(textured=True)
    whole = tracker(images)
    rows = [whole.follow(image, i) for i, image in enumerate(images)]
    rest = tracker(images)
    rest.resume(rows[4])
    again = [rest.follow(images[i], i) for i in range(5, N)]
    assert np.array_equal(again, rows[5:])
