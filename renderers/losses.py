"""Image losses: weighted L1, windowed D-SSIM."""

from __future__ import annotations

import torch
from torch import Tensor

WINDOW = 8
C1, C2 = 0.01**2, 0.03**2


def weighted_l1(image: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean absolute error of images [B, H, W, 3], weighted by [B, H, W, 1]; scalar."""
    return ((image - target).abs() * weights).sum() / (3.0 * weights.sum() + 1e-8)


def windowed_dssim(
    image: Tensor, target: Tensor, weights: Tensor, offset: tuple[int, int]
) -> Tensor:
    """(1 - SSIM) / 2 over disjoint 8x8 windows, weighted by their mean weight; scalar.

    image, target: [B, H, W, 3] in [0, 1]. weights: [B, H, W, 1]. offset: where the grid of windows
    begins, 0..7 each; drawn anew each step it stands for all positions. SSIM: Wang et al. 2004,
    eq. 13, with a box instead of the Gaussian window.
    """
    x, y, w = (_windows(t, offset) for t in (image, target, weights))
    mean_x, mean_y = x.mean((2, 4)), y.mean((2, 4))
    var_x = (x * x).mean((2, 4)) - mean_x**2
    var_y = (y * y).mean((2, 4)) - mean_y**2
    covariance = (x * y).mean((2, 4)) - mean_x * mean_y
    ssim = ((2 * mean_x * mean_y + C1) * (2 * covariance + C2)) / (
        (mean_x**2 + mean_y**2 + C1) * (var_x + var_y + C2)
    )
    share = w.mean((2, 4))
    return ((1.0 - ssim) * 0.5 * share).sum() / (3.0 * share.sum() + 1e-8)


def _windows(images: Tensor, offset: tuple[int, int]) -> Tensor:
    """[B, H, W, C] -> [B, h, 8, w, 8, C]."""
    top, left = offset
    rows = (images.shape[1] - top) // WINDOW
    columns = (images.shape[2] - left) // WINDOW
    part = images[:, top : top + rows * WINDOW, left : left + columns * WINDOW]
    return part.reshape(len(images), rows, WINDOW, columns, WINDOW, images.shape[3])


def random_offset(generator: torch.Generator) -> tuple[int, int]:
    """A window grid's origin, 0..7 each."""
    top, left = torch.randint(0, WINDOW, (2,), generator=generator).tolist()
    return int(top), int(left)
