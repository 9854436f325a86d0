"""The rim's opacities: found where person and background differ, whatever the exposure; else not told."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from talkhead.renderers.base import TrainBatch
from talkhead.renderers.losses import backdrop
from talkhead.renderers.matte import rim_matte
from talkhead.types import Bool, Float32

SIZE = (120, 160)
PERSON = np.array([0.3, 0.2, 0.15], np.float32)


def scene(contrast: float = 0.5) -> tuple[Float32, Float32, Float32, Bool, Bool]:
    """Image, plate, true opacities, inner and rim of a disc with a soft edge."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    distance = np.hypot(rows - 60, columns - 80)
    alpha = np.clip((42.0 - distance) / 6.0, 0.0, 1.0).astype(np.float32)
    plate = PERSON + contrast * np.array([0.1, 0.5, 1.0], np.float32)
    plate = plate * (1.0 + 0.1 * np.sin(columns / 20))[..., None].astype(np.float32)
    image = alpha[..., None] * PERSON + (1.0 - alpha[..., None]) * plate
    return image, plate, alpha, distance < 34, (distance >= 34) & (distance < 46)


def test_opacities_are_found() -> None:
    image, plate, true, inner, rim = scene()
    alpha, behind, known = rim_matte(image, plate, inner, rim)
    assert known[rim].all() and not known[~rim].any()
    assert np.abs(alpha - true)[rim].mean() < 0.02
    assert (alpha[inner] == 1).all() and not alpha[~(inner | rim)].any()
    assert np.array_equal(behind[~rim], plate[~rim])


def test_another_exposure_than_the_plate_s_does_not_matter() -> None:
    image, plate, true, inner, rim = scene()
    darker = plate - np.array([0.06, 0.03, 0.05], np.float32)
    alpha, behind, _ = rim_matte(image, darker, inner, rim)
    assert np.abs(alpha - true)[rim].mean() < 0.03
    assert np.abs(behind - plate)[rim].mean() < 0.02


def test_like_before_like_is_not_known() -> None:
    image, plate, _, inner, rim = scene(contrast=0.05)
    alpha, behind, known = rim_matte(image, plate, inner, rim)
    assert not known.any() and (alpha[rim] == 1).all() and np.array_equal(behind, plate)


def test_what_is_neither_nor_between_them_is_not_known() -> None:
    """Dark hair around skin, before leaves of a brightness between them: hair is not transparent."""
    image, plate, true, inner, rim = scene()
    leaves, skin, hair = (
        np.array(c, np.float32) for c in ((0.25, 0.3, 0.2), (0.6, 0.4, 0.3), 0.08)
    )
    image[:], plate[:] = leaves, leaves
    image[inner] = skin
    image[rim & (true > 0.5)] = hair
    alpha, _, known = rim_matte(image, plate, inner, rim)
    is_hair = rim & (true > 0.5)
    assert not known[is_hair].any() and (alpha[is_hair] == 1).all()
    assert known[rim & ~is_hair].all() and alpha[rim & ~is_hair].max() < 0.02


@pytest.mark.parametrize("filled", [False, True])
def test_nobody_or_nothing_else_in_the_picture(filled: bool) -> None:
    image, plate, _, inner, _ = scene()
    alpha, _, known = rim_matte(image, plate, np.full_like(inner, filled), np.zeros_like(inner))
    assert (alpha == filled).all() and not known.any()


def test_the_target_is_the_person_over_the_backdrop() -> None:
    """No colour of the true background is left in it."""
    image, plate, true, inner, rim = scene()
    alpha, behind, known = rim_matte(image, plate, inner, rim)
    image_of = {"images": image, "plates": behind, "masks": alpha[..., None]}
    image_of |= {"edges": (rim & ~known).astype(np.float32)[..., None]}
    images = {name: torch.from_numpy(value)[None] for name, value in image_of.items()}
    nothing = torch.zeros(1, 1)
    batch = TrainBatch(nothing, nothing, nothing, weights=images["masks"], **images)
    background, target = backdrop(batch, torch.Generator().manual_seed(0))
    wanted = true[..., None] * PERSON + (1 - true[..., None]) * background[0].numpy()
    assert np.abs(target[0].numpy() - wanted).mean() < 0.01
    assert cv2.norm(target[0].numpy(), wanted, cv2.NORM_INF) < 0.15
