"""Only the pasted skin counts for its sharpness and for the place of its detail."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from talkhead.app.composer.paste import UPPER_LINE
from talkhead.app.evaluation.measures.image import FramePair
from talkhead.app.evaluation.measures.skin import (
    skin_gradient_correlation,
    skin_mask,
    skin_sharpness,
)
from talkhead.face import FACE_OVAL, N_LANDMARKS, OUTER_LIPS
from talkhead.types import Float32, UInt8

SIZE = (260, 220)
CENTER = np.array([110, 120], np.float32)
WIDTH, HEIGHT = 80, 100  # half axes of the oval, pixels


def face() -> Float32:
    """Landmarks [478, 2] of an oval face with a mouth 60 px below and cheeks 10 px above its center."""
    points = np.tile(CENTER, (N_LANDMARKS, 1))
    turn = np.linspace(0, 2 * np.pi, len(FACE_OVAL), endpoint=False)  # from the forehead
    points[list(FACE_OVAL)] += np.stack([WIDTH * np.sin(turn), -HEIGHT * np.cos(turn)], 1)
    turn = np.linspace(0, 2 * np.pi, len(OUTER_LIPS), endpoint=False)
    points[list(OUTER_LIPS)] += np.stack([25 * np.cos(turn), 60 + 10 * np.sin(turn)], 1)
    points[list(UPPER_LINE), 0] += np.linspace(-60, 60, len(UPPER_LINE))
    points[list(UPPER_LINE), 1] -= 10
    return points.astype(np.float32)


def noise(seed: int, sigma: float = 1.0) -> UInt8:
    rough = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(rough, (0, 0), sigma))


def measured(image: UInt8, real: UInt8, landmarks: Float32) -> tuple[float, float]:
    """Skin sharpness and gradient correlation."""
    frame = FramePair(image, real, landmarks)
    return skin_sharpness(frame), skin_gradient_correlation(frame)


def direct(image: UInt8, real: UInt8, landmarks: Float32) -> tuple[float, float]:
    """The definitions, pixel by pixel in float64."""
    rows, columns = np.nonzero(skin_mask(landmarks, SIZE))
    variances, gradients = [], []
    for pixels in (image, real):
        y = pixels @ np.array([0.299, 0.587, 0.114])
        left, right = y[rows, columns - 1], y[rows, columns + 1]
        above, below = y[rows - 1, columns], y[rows + 1, columns]
        variances.append((left + right + above + below - 4 * y[rows, columns]).var())
        gradients.append(np.concatenate([right - left, below - above]))
    return variances[0] / variances[1], float(np.corrcoef(*gradients)[0, 1])


def test_the_mask_is_the_skin_of_the_lower_face() -> None:
    mask = skin_mask(face(), SIZE)
    x, y = CENTER.astype(int)
    assert mask[y, x - 50] and mask[y, x + 50] and mask[y + 80, x]  # cheeks and chin
    assert not mask[y + 60, x] and not mask[y + 60, x + 26]  # lips, and the skin at their corner
    assert not mask[y - 40 :: -1].any()  # upper face
    assert not mask[y + HEIGHT - 4 :].any()  # outline of the chin, and the neck
    assert not mask[y, x - WIDTH + 4] and not mask[y, x + WIDTH - 4]
    wide = np.concatenate([face(), np.full((N_LANDMARKS, 1), 30, np.float32)], 1)
    np.testing.assert_array_equal(skin_mask(wide, SIZE), mask)


def test_identical_images_have_one_and_one() -> None:
    assert measured(noise(0), noise(0), face()) == pytest.approx((1.0, 1.0), abs=1e-6)


def test_half_the_contrast_is_a_quarter_of_the_sharpness() -> None:
    real = noise(1) // 2 * 2
    assert measured(real // 2, real, face()) == pytest.approx((0.25, 1.0), abs=1e-4)


def test_only_the_skin_counts() -> None:
    real, other = noise(2), noise(3)
    near = cv2.dilate(skin_mask(face(), SIZE).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    image = np.where(near[..., None], real, other)
    assert measured(image, real, face()) == pytest.approx((1.0, 1.0), abs=1e-6)


@pytest.mark.parametrize("other", [noise(5), noise(4, 1.3)])
def test_values_follow_the_definition(other: UInt8) -> None:
    real = noise(4)
    assert measured(other, real, face()) == pytest.approx(direct(other, real, face()), abs=1e-4)


def test_blur_is_less_sharp_and_noise_sharper_but_elsewhere() -> None:
    real = noise(6)
    sharpness, place = measured(np.asarray(cv2.GaussianBlur(real, (0, 0), 1.0)), real, face())
    assert sharpness < 0.5 and 0.5 < place < 1.0
    rough = np.random.default_rng(7).integers(0, 256, real.shape, dtype=np.uint8)
    sharpness, place = measured(rough, real, face())
    assert sharpness > 2.0 and abs(place) < 0.1


@pytest.mark.parametrize("shift", [(-120, 0), (120, 0), (0, -190), (0, 60), (0, 115), (150, 60)])
def test_a_face_partly_outside_the_picture_is_measured(shift: tuple[int, int]) -> None:
    landmarks = face() + np.array(shift, np.float32)
    for value in measured(noise(8), noise(8), landmarks):
        assert math.isnan(value) or value == pytest.approx(1.0, abs=1e-6)


def test_no_visible_skin_is_undefined() -> None:
    landmarks = face() - np.array([187, 0], np.float32)  # only the outline is in the picture
    assert not skin_mask(landmarks, SIZE).any()
    assert all(math.isnan(v) for v in measured(noise(9), noise(9), landmarks))


def test_flat_skin_is_undefined() -> None:
    flat = np.full((*SIZE, 3), 90, np.uint8)
    assert all(math.isnan(v) for v in measured(noise(9), flat, face()))
