"""Clothes codes recover a known motion of a shirt that the affine motion of the body leaves."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from talkhead.cameras import default_intrinsics
from talkhead.face import CHIN, FOREHEAD, JAW_LINE, N_CLOTHES
from talkhead.preprocess.body_motion import ROW
from talkhead.preprocess.clothes import N_POINTS, ClothesGrid, clothes_codes
from talkhead.preprocess.person_mask import CropPlan
from talkhead.types import Bool, Float32, Float64, UInt8

N, HEIGHT, WIDTH = 90, 160, 200
INTRINSICS = default_intrinsics(WIDTH, HEIGHT)
PLAN = CropPlan(np.zeros((N, 2), np.float32), HEIGHT, WIDTH, 1.0)
USABLE = np.ones(N, dtype=bool)
TRAIN = np.arange(N) < 75
TIMES = np.arange(N)
FOLD = 4.0 * np.sin(TIMES / 5.0)
"""Pixels by which the middle of the shirt is shifted against its sides."""
SWAY = 5.0 * np.sin(TIMES / 7.0)
"""Pixels by which the whole shirt is shifted."""
POSTURE = np.stack([SWAY, np.cos(TIMES / 3.0)], axis=1)


def landmarks() -> Float32:
    points = np.full((478, 3), 50.0, np.float32)
    points[list(JAW_LINE), 0] = np.linspace(140, 60, len(JAW_LINE))
    points[FOREHEAD, :2], points[CHIN, :2] = (100, 10), (100, 60)
    return points


def shirts(fold: Float64) -> list[UInt8]:
    """Crops [H, W, 3] of a shirt that sways and, in its middle, is shifted by fold [N] pixels."""
    rng = np.random.default_rng(0)
    texture = rng.integers(40, 215, (HEIGHT // 16, WIDTH // 16, 3), dtype=np.uint8)
    base = cv2.resize(texture, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    x, y = np.meshgrid(np.arange(WIDTH, dtype=np.float32), np.arange(HEIGHT, dtype=np.float32))
    middle = np.exp(-(((x - WIDTH / 2) / 40.0) ** 2))
    return [
        cv2.remap(
            base,
            (x - sway - shift * middle).astype(np.float32),
            y,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
        for sway, shift in zip(SWAY, fold, strict=True)
    ]


def rows(found: Bool = USABLE) -> Float64:
    """What a tracker reports of the sway alone [N, ROW]."""
    known = np.zeros((N, ROW))
    known[:, 0], known[:, 3] = found, SWAY / INTRINSICS[0, 0]
    return known * found[:, None]


def seen_on(images: list[UInt8], tracked: Float64) -> Float64:
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    grid = ClothesGrid(mask, landmarks(), 0, PLAN, INTRINSICS)
    pairs = enumerate(zip(images, tracked, strict=True))
    return np.array([grid.brightness(image, i, row) for i, (image, row) in pairs])


def test_a_known_fold_is_found_on_held_out_frames() -> None:
    seen = seen_on(shirts(FOLD), rows())
    assert seen.shape == (N, N_POINTS)
    codes = clothes_codes(seen, rows(), POSTURE, USABLE, TRAIN)
    assert codes.shape == (N, N_CLOTHES) and codes.dtype == np.float32
    assert codes[TRAIN, 0].std() == pytest.approx(1.0, rel=0.05)
    # The fold in pixels is linear in posture and codes.
    causes = np.concatenate([np.ones((N, 1)), POSTURE, codes], axis=1)
    slopes = np.linalg.lstsq(causes[TRAIN], FOLD[TRAIN], rcond=None)[0]
    assert np.abs(causes @ slopes - FOLD)[~TRAIN].mean() < 0.3
    without = np.linalg.lstsq(causes[TRAIN, :3], FOLD[TRAIN], rcond=None)[0]
    assert np.abs(causes[:, :3] @ without - FOLD)[~TRAIN].mean() > 1.5


def test_a_shirt_that_follows_the_body_has_no_codes() -> None:
    codes, still = (
        clothes_codes(seen_on(shirts(fold), rows()), rows(), POSTURE, USABLE, TRAIN)
        for fold in (FOLD, 0.0 * FOLD)
    )
    inner = slice(3, N - 3)
    assert np.abs(still[inner]).max() < np.abs(codes[inner]).max()
    assert still[TRAIN].std(0).max() < 0.6  # interpolation alone


def test_what_posture_explains_is_left_out() -> None:
    seen = np.repeat(np.linspace(0.2, 0.4, N_POINTS)[None], N, axis=0)
    seen = seen + 0.1 * POSTURE @ np.random.default_rng(0).normal(size=(2, N_POINTS)) / 50
    codes = clothes_codes(seen, rows(), POSTURE, USABLE, TRAIN)
    assert np.abs(codes).max() < 1e-6


def test_held_out_frames_have_no_influence() -> None:
    seen = seen_on(shirts(FOLD), rows())
    other = np.where(TRAIN[:, None], seen, 1.0 - seen)
    codes, changed = (clothes_codes(s, rows(), POSTURE, USABLE, TRAIN) for s in (seen, other))
    assert np.array_equal(codes[:70], changed[:70])  # smoothing reaches a few frames


def test_frames_without_a_body_are_filled() -> None:
    found = USABLE.copy()
    found[20:23] = False
    images = shirts(FOLD)
    seen = seen_on(images, rows(found))
    assert not seen[20:23].any()
    whole = clothes_codes(seen_on(images, rows()), rows(), POSTURE, USABLE, TRAIN)
    codes = clothes_codes(seen, rows(found), POSTURE, USABLE, TRAIN)
    sign = np.sign(codes[:, 0] @ whole[:, 0])
    assert np.abs(sign * codes[20:23, 0] - whole[20:23, 0]).max() < 0.5


def test_a_body_that_was_never_found_has_no_codes() -> None:
    found = np.zeros(N, dtype=bool)
    seen = seen_on(shirts(FOLD), rows(found))
    assert not clothes_codes(seen, rows(found), POSTURE, USABLE, TRAIN).any()


def test_a_crop_without_body_is_not_sampled() -> None:
    """The jaw is below the crop's lower edge."""
    points = landmarks()
    points[:, 1] += HEIGHT
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    grid = ClothesGrid(mask, points, 0, PLAN, INTRINSICS)
    assert not grid.brightness(shirts(FOLD)[0], 0, rows()[0]).any()
