"""The body's sway, found again in frames that were made with a known one."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from talkhead.cameras import default_intrinsics
from talkhead.dataset import ImageFile
from talkhead.face import CHIN, FOREHEAD, JAW_LINE, N_BODY, body_matrix
from talkhead.preprocess.body import track_body
from talkhead.preprocess.segmentation import CropPlan
from talkhead.progress import SilentProgress
from talkhead.types import Float32, Float64

N, HEIGHT, WIDTH = 15, 160, 200
INTRINSICS = default_intrinsics(WIDTH, HEIGHT)


def landmarks() -> Float32:
    points = np.full((N, 478, 3), 50.0, np.float32)
    points[:, list(JAW_LINE), 0] = np.linspace(140, 60, len(JAW_LINE))
    points[:, FOREHEAD, :2], points[:, CHIN, :2] = (100, 10), (100, 60)
    return points


def sways() -> list[Float64]:
    """Affine maps of normalised image coordinates [3, 3], the middle frame's the identity."""
    maps = []
    for time in np.linspace(-1.0, 1.0, N):
        matrix = np.eye(3)
        matrix[:2] += time * np.array([[0.02, 0.03, 0.02], [-0.03, 0.01, 0.015]])
        maps.append(matrix)
    return maps


def write(folder: Path, textured: bool) -> tuple[ImageFile, ImageFile]:
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    if not textured:
        texture[:] = 90
    base = cv2.resize(texture, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    frames = ImageFile(folder / "frames.u8", (HEIGHT, WIDTH, 3))
    masks = ImageFile(folder / "masks.u8", (HEIGHT, WIDTH))
    for matrix in sways():
        pixels = INTRINSICS @ matrix @ np.linalg.inv(INTRINSICS)
        warped = cv2.warpPerspective(base, pixels, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)
        frames.append([warped])
        masks.append([np.full((HEIGHT, WIDTH), 255, np.uint8)])
    return frames, masks


def run(folder: Path, textured: bool) -> Float32:
    frames, masks = write(folder, textured)
    plan = CropPlan(np.zeros((N, 2), np.float32), HEIGHT, WIDTH, 1.0)
    every = np.ones(N, dtype=bool)
    return track_body(frames, masks, landmarks(), every, every, plan, INTRINSICS, SilentProgress())


def test_a_known_sway_is_found(tmp_path: Path) -> None:
    codes = run(tmp_path, textured=True)
    assert codes.shape == (N, N_BODY)
    found = body_matrix(torch.from_numpy(codes).double()).numpy()
    corners = np.array([[x, y, 1.0] for x in (-0.3, 0.3) for y in (0.0, 0.3)])
    inner = slice(2, N - 2)  # smoothing bends the ends
    wrong = (found - np.stack(sways()))[inner] @ corners.T * INTRINSICS[0, 0]
    assert np.abs(wrong).max() < 0.7  # pixels
    assert np.abs((np.eye(3) - np.stack(sways()))[inner] @ corners.T).max() * INTRINSICS[0, 0] > 4


def test_a_plain_shirt_stands_still(tmp_path: Path) -> None:
    assert (run(tmp_path, textured=False) == 0).all()
