"""The image measures against known values and against slow direct computations."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from talkhead.app.evaluation.measures import image as image_measures
from talkhead.app.evaluation.measures.image import Box
from talkhead.face import JAW_LINE, LIPS, OUTER_LIPS
from talkhead.types import Float32, UInt8


def noise_image(seed: int, height: int = 40, width: int = 36) -> UInt8:
    rough = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(rough, (0, 0), 1.0))


def walk(n_frames: int, seed: int = 0) -> Float32:
    """Landmarks [F, 478, 2] of a face that drifts slowly."""
    rng = np.random.default_rng(seed)
    shape = rng.uniform(50, 150, (1, 478, 2))
    slow = 5 * np.sin(np.arange(n_frames) / 12.0)[:, None, None]
    return (shape + slow).astype(np.float32)


# ------------------------------------------------------------------------------ boxes


def test_face_box_adds_a_tenth_on_each_side_and_ignores_the_irises() -> None:
    points = np.full((478, 2), 50.0, np.float32)
    points[:2] = [[10, 20], [110, 220]]
    points[470] = [400, 400]
    assert image_measures.face_box(points) == Box(0, 0, 120, 240)


def test_mouth_box_adds_two_fifths_of_the_width_on_all_sides() -> None:
    points = np.zeros((478, 3), np.float32)
    points[list(OUTER_LIPS)] = [100, 200, 7]
    points[OUTER_LIPS[0], 0] = 150
    points[OUTER_LIPS[1], 1] = 220
    assert image_measures.mouth_box(points) == Box(80, 180, 170, 240)


def test_boxes_are_clipped_to_the_image() -> None:
    assert Box(-5, -5, 400, 9).clipped(20, 30) == Box(0, 0, 30, 9)
    assert Box(50, 50, 60, 60).clipped(20, 30).area == 0


# ------------------------------------------------------------------------------- PSNR


@pytest.mark.parametrize("error", [1, 10, 100])
def test_psnr_of_a_constant_error(error: int) -> None:
    real = np.full((8, 9, 3), 50, np.uint8)
    expected = 20 * math.log10(255 / error)
    assert image_measures.psnr(real + np.uint8(error), real) == pytest.approx(expected, abs=1e-6)


def test_psnr_of_floats_and_bytes_agree() -> None:
    real, image = noise_image(1), noise_image(2)
    as_floats = image_measures.psnr(image.astype(np.float32) / 255, real.astype(np.float32) / 255)
    assert as_floats == pytest.approx(image_measures.psnr(image, real), abs=1e-4)
    assert image_measures.psnr(image.astype(np.float32) / 255, real) == pytest.approx(as_floats)


def test_psnr_uses_only_the_box_and_is_capped() -> None:
    real = noise_image(3)
    image = real.copy()
    image[0, 0] ^= 128
    assert image_measures.psnr(image, real, Box(1, 1, 30, 30)) == image_measures.MAX_PSNR
    assert image_measures.psnr(image, real, Box(0, 0, 30, 30)) < 60


# ------------------------------------------------------------------------------- SSIM


def direct_ssim(image: UInt8, real: UInt8, row: int, column: int, channel: int) -> float:
    """Wang et al. 2004, eq. 13, at one pixel, in float64."""
    ramp = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(ramp, ramp) / np.outer(ramp, ramp).sum()
    place = (slice(row - 5, row + 6), slice(column - 5, column + 6), channel)
    x, y = image[place] / 255.0, real[place] / 255.0
    mean_x, mean_y = (window * x).sum(), (window * y).sum()
    var_x, var_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
    covariance = (window * (x - mean_x) * (y - mean_y)).sum()
    above = (2 * mean_x * mean_y + 1e-4) * (2 * covariance + 9e-4)
    return float(above / ((mean_x**2 + mean_y**2 + 1e-4) * (var_x + var_y + 9e-4)))


def test_ssim_agrees_with_the_definition() -> None:
    image, real = noise_image(4), noise_image(5)
    values = image_measures.ssim_map(image, real)
    for row, column, channel in ((5, 5, 0), (20, 17, 1), (34, 30, 2), (11, 28, 0)):
        expected = direct_ssim(image, real, row, column, channel)
        assert values[row, column, channel] == pytest.approx(expected, abs=2e-5)


def test_ssim_of_a_box_is_the_cropped_map_of_the_image() -> None:
    image, real = noise_image(6, 200, 50), noise_image(7, 200, 50)
    box = Box(3, 9, 41, 171)
    part = image_measures.ssim_map(image, real, box)
    np.testing.assert_allclose(part, box.cut(image_measures.ssim_map(image, real)), atol=1e-5)
    assert image_measures.ssim(image, real, box) == pytest.approx(part.mean(), abs=1e-6)


def test_ssim_of_identical_images_is_one() -> None:
    flat = np.full((30, 30, 3), 128, np.uint8)
    for image in (noise_image(8), flat):
        assert image_measures.ssim(image, image) == pytest.approx(1.0, abs=1e-6)


# -------------------------------------------------------------------------- sharpness


def test_blur_is_less_sharp_and_noise_sharper_but_uncorrelated() -> None:
    real = noise_image(9, 80, 80)
    blurred = np.asarray(cv2.GaussianBlur(real, (0, 0), 1.5))
    rough = np.random.default_rng(0).integers(0, 256, real.shape, dtype=np.uint8)
    box = Box(4, 4, 70, 70)
    assert image_measures.sharpness_ratio(real, real, box) == 1.0
    assert image_measures.sharpness_ratio(blurred, real, box) < 0.5
    assert image_measures.sharpness_ratio(rough, real, box) > 2.0
    assert image_measures.gradient_correlation(real, real, box) == pytest.approx(1.0)
    assert image_measures.gradient_correlation(blurred, real, box) > 0.5
    assert abs(image_measures.gradient_correlation(rough, real, box)) < 0.1


def test_sharpness_ignores_the_edge_of_the_box() -> None:
    real = noise_image(10)
    luma = cv2.cvtColor(real.astype(np.float32) / 255, cv2.COLOR_RGB2GRAY)
    variance = cv2.Laplacian(luma, cv2.CV_32F)[10:20, 10:20].var()
    whole = image_measures.sharpness_ratio(real, np.roll(real, 10, 0), Box(10, 10, 20, 20))
    other = cv2.Laplacian(np.roll(luma, 10, 0), cv2.CV_32F)[10:20, 10:20].var()
    assert whole == pytest.approx(variance / other, rel=1e-4)


def test_sharpness_over_a_flat_reference_is_undefined() -> None:
    assert math.isnan(
        image_measures.sharpness_ratio(noise_image(1), np.zeros((40, 36, 3), np.uint8))
    )


# -------------------------------------------------------------------------- landmarks


def test_lmd_ignores_translation() -> None:
    points = walk(4)
    np.testing.assert_allclose(
        image_measures.lmd(points + np.float32([3, -8]), points), 0, atol=1e-4
    )


def test_lmd_of_a_known_change() -> None:
    points = walk(3)
    changed = points.copy()
    half = len(LIPS) // 2
    changed[:, list(LIPS[:half]), 0] += 2
    changed[:, list(LIPS[half:]), 0] -= 2  # the mean stays
    np.testing.assert_allclose(image_measures.lmd(changed, points), 2, atol=1e-4)


def test_correlation() -> None:
    values = np.array([0.0, 1.0, 4.0, 2.0])
    assert image_measures.correlation(3 * values + 1, values) == pytest.approx(1.0)
    assert image_measures.correlation(-values, values) == pytest.approx(-1.0)
    assert math.isnan(image_measures.correlation(np.ones(4), values))


def test_jitter_passes_the_highest_frequency_and_no_line() -> None:
    line = np.arange(12, dtype=np.float32)[:, None, None] * np.ones((1, 3, 2), np.float32)
    assert image_measures.jitter(line) == pytest.approx(0.0, abs=1e-9)
    signs = (-1.0) ** np.arange(12, dtype=np.float32)
    flicker = line + signs[:, None, None] * np.float32([3, 4])
    assert image_measures.jitter(flicker) == pytest.approx(25.0, rel=1e-5)


def test_jitter_ratio_of_noise_is_above_one() -> None:
    rng = np.random.default_rng(2)
    real = walk(60) + rng.normal(0, 0.1, (60, 478, 2)).astype(np.float32)
    noisy = real + rng.normal(0, 0.3, real.shape).astype(np.float32)
    assert image_measures.jitter_ratio(real, real) == 1.0
    assert image_measures.jitter_ratio(noisy, real) == pytest.approx(10.0, rel=0.1)


def test_jitter_ignores_gaps() -> None:
    points = np.zeros((12, 2, 2), np.float32)
    points[6:] = 100
    frames = np.array([*range(6), *range(50, 56)])
    assert image_measures.jitter(points) > 1
    assert image_measures.jitter(points, frames) == 0
    assert math.isnan(image_measures.jitter(points[:4]))
    assert math.isnan(image_measures.jitter(points, np.arange(12) * 2))


def test_the_head_is_above_the_jaw() -> None:
    angles = np.linspace(0.0, np.pi, len(JAW_LINE))  # from the image's right over the chin
    landmarks = np.zeros((478, 2), np.float32)
    landmarks[list(JAW_LINE)] = np.stack([50 + 30 * np.cos(angles), 40 + 40 * np.sin(angles)], 1)
    mask = image_measures.head_mask(landmarks, (100, 100))
    assert mask[0].all() and mask[30].all()  # out to the sides above the jaw
    assert mask[75, 50] and not mask[85, 50]  # the chin, and the neck under it
    assert not mask[75, 22] and not mask[75, 78]  # collar next to the chin


def test_masked_psnr_uses_only_the_mask() -> None:
    image, mask = np.zeros((20, 20, 3), np.float32), np.zeros((20, 20), bool)
    image[:10], image[10:] = 0.1, 0.9
    mask[:10] = True
    box = image_measures.whole(image)
    assert image_measures.masked_psnr(image, np.zeros_like(image), mask, box) == pytest.approx(20.0)
    assert np.isnan(image_measures.masked_psnr(image, image, ~mask & mask, box))
