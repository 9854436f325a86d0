"""The fused loss kernel against its torch reference."""

from __future__ import annotations

import pytest
import torch

from talkhead.renderers.base import TrainBatch
from talkhead.renderers.losses import (
    backdrop,
    photometric_loss,
    weighted_l1,
    windowed_dssim,
)
from talkhead.types import Rendering


@pytest.fixture
def scene() -> tuple[Rendering, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    alpha = torch.rand(2, 29, 37, 1, generator=generator)
    rgb = torch.rand(2, 29, 37, 3, generator=generator) * alpha
    target = torch.rand(2, 29, 37, 3, generator=generator)
    weights = torch.rand(2, 29, 37, 1, generator=generator)
    background = torch.rand(2, 29, 37, 3, generator=generator)
    return Rendering(rgb.requires_grad_(), alpha.requires_grad_()), target, weights, background


def test_kernel_equals_reference(scene) -> None:  # type: ignore[no-untyped-def]
    rendering, target, weights, background = scene
    inputs = [rendering.rgb, rendering.alpha]
    l1, dssim = photometric_loss(rendering, target, weights, background, (3, 5))
    made = torch.autograd.grad(2.0 * l1 + 0.7 * dssim, inputs)
    image = rendering.rgb + (1.0 - rendering.alpha) * background
    reference_l1 = weighted_l1(image, target, weights)
    reference_dssim = windowed_dssim(image, target, weights, (3, 5))
    wanted = torch.autograd.grad(2.0 * reference_l1 + 0.7 * reference_dssim, inputs)
    torch.testing.assert_close(l1, reference_l1)
    torch.testing.assert_close(dssim, reference_dssim)
    for one, other in zip(made, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-4, atol=1e-7)


def test_the_loss_of_equal_images_is_0(scene) -> None:  # type: ignore[no-untyped-def]
    rendering, _, weights, background = scene
    image = (rendering.rgb + (1.0 - rendering.alpha) * background).detach()
    l1, dssim = photometric_loss(rendering, image, weights, background, (0, 0))
    assert float(l1.detach()) == pytest.approx(0.0, abs=1e-6)
    assert float(dssim.detach()) == pytest.approx(0.0, abs=1e-6)


def test_the_backdrop_is_one_color_per_batch_and_shows_outside_the_person() -> None:
    generator = torch.Generator().manual_seed(5)
    masks = (2.0 * torch.rand(2, 29, 37, 1, generator=generator) - 0.5).clamp(0.0, 1.0)
    images = torch.rand(2, 29, 37, 3, generator=generator) * masks
    nothing = torch.zeros(2, 1)
    batch = TrainBatch(nothing, nothing, nothing, images, masks, weights=masks)
    background, target = backdrop(batch, torch.Generator().manual_seed(9))
    color = torch.rand(3, generator=torch.Generator().manual_seed(9))
    assert (background == color).all() and background.is_contiguous()
    torch.testing.assert_close(target, images + (1.0 - masks) * color)
    other, _ = backdrop(batch, torch.Generator().manual_seed(10))
    assert not torch.equal(other, background)
