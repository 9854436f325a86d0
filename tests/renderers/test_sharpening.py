"""Sharpening gives as much detail as in the real images, and changes neither the rim nor images
that need none.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from talkhead.app.evaluation.measures.image import sharpness_ratio
from talkhead.renderers.sharpening import (
    MAX_AMOUNT,
    TARGET_VARIANCE,
    estimate_amount,
    sharpen,
    sharpen_torch,
)
from talkhead.types import Rendering, UInt8

SIZE = (60, 80)
EVERYWHERE = torch.ones((1, *SIZE), dtype=torch.bool)


def noisy_image(seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.random((12, 16, 3)), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    image = 0.3 + 0.3 * coarse + 0.05 * rng.normal(size=(*SIZE, 3))
    return torch.from_numpy(image.clip(0.05, 0.95).astype(np.float32))[None]


def softened(image: Tensor, sigma: float) -> Tensor:
    return torch.from_numpy(cv2.GaussianBlur(image[0].numpy(), (0, 0), sigma))[None]


def solid(image: Tensor) -> Rendering:
    return Rendering(image, torch.ones((*image.shape[:3], 1)))


def bytes_of(image: Tensor) -> UInt8:
    return np.asarray((image[0].numpy() * 255).round(), np.uint8)


def test_the_amount_gives_the_requested_sharpness() -> None:
    true = noisy_image()
    made = softened(true, 0.4)
    amount = estimate_amount(solid(made), true, EVERYWHERE)
    assert 0.05 < amount < MAX_AMOUNT
    before = sharpness_ratio(bytes_of(made), bytes_of(true))
    after = sharpness_ratio(bytes_of(sharpen(solid(made), amount).rgb), bytes_of(true))
    assert before < TARGET_VARIANCE - 0.15 and abs(after - TARGET_VARIANCE) < 0.05


def test_kernel_equals_reference() -> None:
    generator = torch.Generator().manual_seed(3)
    alpha = torch.rand(2, 33, 21, 1, generator=generator).clamp(min=0.85)
    made = Rendering(torch.rand(2, 33, 21, 3, generator=generator) * alpha, alpha)
    amount = torch.tensor([0.7])
    assert torch.allclose(sharpen(made, amount).rgb, sharpen_torch(made, amount).rgb, atol=1e-6)


def test_sharp_and_featureless_images_are_unchanged() -> None:
    true = noisy_image()
    assert estimate_amount(solid(true), softened(true, 0.5), EVERYWHERE) == 0
    assert estimate_amount(solid(torch.full_like(true, 0.5)), true, EVERYWHERE) == 0
    rendering = solid(true)
    assert torch.allclose(sharpen(rendering, torch.zeros(1)).rgb, true, atol=1e-6)


def test_the_amount_is_limited() -> None:
    true = noisy_image()
    assert estimate_amount(solid(softened(true, 3.0)), true, EVERYWHERE) == MAX_AMOUNT


def test_the_rim_has_no_halo() -> None:
    """For a disc on a transparent background, nothing changes near the rim, and no color exceeds
    the opacity.
    """
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    distance = torch.from_numpy(np.hypot(rows - 30, columns - 40).astype(np.float32))
    alpha = (20.5 - distance).clamp(0, 1)[None, ..., None]
    made = Rendering(noisy_image() * alpha, alpha)
    change = (sharpen(made, torch.ones(1)).rgb - made.rgb).abs().amax(-1)[0]
    assert change[distance > 20].max() < 1e-6
    assert change[distance < 17].mean() > 0.005
    assert (sharpen(made, torch.ones(1)).rgb <= alpha + 1e-6).all()
