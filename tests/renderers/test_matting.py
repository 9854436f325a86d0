"""Opacities at the rim: those of the mask, corrected where person and background differ in
color."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from reference_matting import reference_matte

from talkhead.renderers.base import TrainBatch
from talkhead.renderers.batches import mask_regions
from talkhead.renderers.losses import backdrop
from talkhead.renderers.matting import rim_matte
from talkhead.types import Float32, UInt8

SIZE = (120, 160)
SKIN, HAIR = np.array([0.75, 0.5, 0.4], np.float32), np.array([0.12, 0.09, 0.08], np.float32)
BLUE = np.array([0.1, 0.4, 0.95], np.float32)
BOOKS = np.array([0.22, 0.12, 0.1], np.float32)


def disc(radius: float, softness: float) -> Float32:
    """A disc with a soft edge, [H, W] in [0, 1]."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    distance = np.hypot(rows - 60, columns - 80)
    return np.clip((radius - distance) / softness + 0.5, 0.0, 1.0).astype(np.float32)


def portrait(behind: Float32, texture: float = 0.0) -> Float32:
    """A face ringed by hair, 42 px in radius, in front of a plain or striped background."""
    columns = np.arange(SIZE[1], dtype=np.float32)
    stripes = (1.0 + texture * np.sin(columns / 3))[None, :, None]
    face, head = disc(30, 2)[..., None], disc(42, 2)[..., None]
    person = face * SKIN + (1 - face) * HAIR
    image = head * person + (1 - head) * behind * stripes
    return np.asarray(np.clip(image, 0, 1), np.float32)


def as_mask(share: Float32) -> UInt8:
    return np.asarray(share * 255 + 0.5).astype(np.uint8)


def matte(image: Float32, mask: UInt8) -> tuple[Float32, Float32]:
    return rim_matte(image, mask, *mask_regions(mask))


@pytest.mark.parametrize("size", [(120, 160), (117, 90), (13, 9), (5, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_kernels_agree_with_the_reference(size: tuple[int, int], seed: int) -> None:
    """Blurred noise as image and mask, of sizes that the coarse pixels fit and others."""
    rng = np.random.default_rng(seed)
    image = cv2.blur(rng.random((*size, 3), np.float32), (3, 3))
    noise = cv2.blur(rng.random(size, np.float32), (9, 9))
    mask = as_mask(np.clip((noise - noise.mean()) / noise.std() + 0.5, 0, 1))
    inner, rim = mask_regions(mask)
    assert rim.any()
    alpha, person = rim_matte(image, mask, inner, rim)
    wanted_alpha, wanted_person = reference_matte(image, mask, inner, rim)
    assert np.abs(alpha - wanted_alpha).max() < 2e-5
    assert np.abs(person - wanted_person).max() < 2e-5


def test_a_mask_that_is_too_large_is_cut_back_by_the_colors() -> None:
    """Without matting, the head would get a rim in the color of the plain background."""
    image, true = portrait(BLUE), disc(42, 2)
    mask = as_mask(disc(45, 3))
    alpha, person = matte(image, mask)
    off = np.abs(mask / np.float32(255) - true).mean()
    assert np.abs(alpha - true).mean() < 0.4 * off
    around = (true > 0.02) & (true < 0.98) | (disc(50, 1) > 0.5) & (true < 0.02)
    over_black, blue = person[around], image[around]
    assert over_black[:, 2].mean() < 0.25 * blue[:, 2].mean(), "hardly any blue is left"


@pytest.mark.parametrize("texture", [0.0, 0.5])
def test_dark_hair_in_front_of_dark_books_is_kept(texture: float) -> None:
    """Hair is closer to the background's color than to the face's, but is not a mixture of them."""
    image, head = portrait(BOOKS, texture), disc(42, 2)
    unsure = np.maximum(disc(30, 2), 0.7 * head)  # certain for the face, less so for the hair
    alpha, person = matte(image, as_mask(unsure))
    hair = (disc(30, 2) == 0) & (disc(39, 1) == 1)
    assert alpha[hair].mean() > 0.95 and np.percentile(alpha[hair], 5) > 0.8
    deep = (disc(30, 2) == 0) & (disc(35, 1) == 1)
    assert (alpha[deep] == 1.0).all(), "weak masks far inside are not see-through"
    assert np.abs(person[hair] - alpha[hair][:, None] * HAIR).mean() < 0.03


def test_haze_in_the_mask_is_removed() -> None:
    """None of the books around the head remain."""
    image, head = portrait(BOOKS, 0.5), disc(42, 2)
    alpha, person = matte(image, as_mask(np.maximum(head, 0.12 * disc(55, 4))))
    beyond = (disc(46, 1) == 0) & (disc(53, 1) == 1)
    assert alpha[beyond].max() < 0.1 and person[beyond].max() < 0.05


def test_equal_colors_keep_the_mask() -> None:
    image = portrait(HAIR)
    mask = as_mask(disc(40, 6))
    alpha, person = matte(image, mask)
    inner, rim = mask_regions(mask)
    assert (alpha[inner] == 1).all() and not alpha[~(inner | rim)].any()
    assert np.array_equal(person[inner], image[inner]) and not person[~(inner | rim)].any()
    assert np.abs(alpha - mask / 255)[rim].max() < 0.25, "steepened, not moved"
    assert abs(float((alpha - mask / 255)[rim].mean())) < 0.02


@pytest.mark.parametrize("value", [0, 128, 255])
def test_empty_and_full_masks(value: int) -> None:
    image = portrait(BLUE)
    alpha, person = matte(image, np.full(SIZE, value, np.uint8))
    assert np.isfinite(person).all() and np.isfinite(alpha).all()
    assert alpha.min() == alpha.max() and (value == 128 or alpha.max() == value / 255)


def test_colors_are_premultiplied() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((*SIZE, 3), np.float32)
    alpha, person = matte(image, as_mask(cv2.blur(disc(40, 1), (25, 25))))
    assert ((alpha >= 0) & (alpha <= 1)).all()
    assert (person >= 0).all() and (person <= alpha[..., None] + 1e-6).all()


def test_the_target_is_the_person_over_the_backdrop() -> None:
    """No color of the real background remains."""
    image, true = portrait(BLUE), disc(42, 2)[..., None]
    alpha, person = matte(image, as_mask(true[..., 0]))
    images, masks = (torch.from_numpy(a)[None] for a in (person, alpha[..., None]))
    nothing = torch.zeros(1, 1)
    batch = TrainBatch(nothing, nothing, nothing, images, masks, weights=masks)
    background, target = backdrop(batch, torch.Generator().manual_seed(0))
    behind = background[0].numpy()
    assert (behind == behind[0, 0]).all() and not np.allclose(behind[0, 0], BLUE, atol=0.1)
    wanted = (image - (1 - true) * BLUE) + (1 - true) * behind
    assert np.abs(target[0].numpy() - wanted).mean() < 0.01
    assert cv2.norm(target[0].numpy(), wanted, cv2.NORM_INF) < 0.3


def test_faint_haze_is_background_even_where_colors_are_the_person_s() -> None:
    """A dark line in the background, in haze that the mask doubts, is not a scrap of hair."""
    image, head = portrait(BLUE), disc(42, 2)
    image[58:62, 128:145] = HAIR
    alpha, person = matte(image, as_mask(np.maximum(head, 0.13 * disc(70, 4))))
    assert not alpha[58:62, 130:].any() and not person[58:62, 130:].any()
    assert np.abs(alpha - head)[disc(46, 1) > 0].mean() < 0.03
