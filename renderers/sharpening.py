"""Sharpening of renderings to the level of detail of the person's footage.

A model fitted to tracks that are a fraction of a pixel off renders an average, which is soft. Its
remaining finest detail is amplified until it is as strong as in the footage. The amount is measured
on training frames.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.renderers.fastmath import IN_ORDER
from talkhead.types import Rendering

SIDE, MIDDLE = 0.21, 0.58
"""A blur of 0.7 px: three taps along each axis."""
TARGET_VARIANCE = 0.85
"""Target for the variance of the Laplacian, relative to that of the real frames. A higher one would
reproduce their noise.
"""
MAX_AMOUNT = 1.25
"""A higher one costs gradient correlation: docs/experiments/renderer.md has figures."""
OPAQUE = 0.9
"""Mean opacity around a pixel from which it counts as inside."""
LUMA = (0.299, 0.587, 0.114)
_SIDE, _MIDDLE, _OPAQUE = np.float32(SIDE), np.float32(MIDDLE), np.float32(OPAQUE)
_ZERO, _ONE, _U2 = np.float32(0.0), np.float32(1.0), np.uint64(2)


def sharpen(rendering: Rendering, amount: Tensor) -> Rendering:
    """Amplify the finest detail of a rendering inside the head.

    At the rim, and where something shines through, nothing changes, to avoid halos.

    Args:
        rendering: rgb [B, H, W, 3] and alpha [B, H, W, 1].
        amount: [1], the factor of the detail that is added; 0 changes nothing.

    Returns:
        The sharpened rendering. Not differentiable in rgb on the CPU unless rgb requires gradients.
    """
    if rendering.rgb.device.type != "cpu" or rendering.rgb.requires_grad:
        return sharpen_torch(rendering, amount)
    rgb, alpha = rendering.rgb.contiguous().numpy(), rendering.alpha.contiguous().numpy()
    result = np.empty_like(rgb)
    rows = (len(rgb), rgb.shape[1], -1)
    flat = (array.reshape(rows) for array in (rgb, alpha, result))
    _sharpen_rows(*flat, np.float32(amount.item()))
    return Rendering(torch.from_numpy(result), rendering.alpha)


def sharpen_torch(rendering: Rendering, amount: Tensor) -> Rendering:
    """Compute the same as `sharpen` in plain torch, differentiably.

    Args:
        rendering: rgb [B, H, W, 3] and alpha [B, H, W, 1].
        amount: [1], the factor of the detail that is added.

    Returns:
        The sharpened rendering.
    """
    both = torch.cat([rendering.rgb, rendering.alpha], dim=3)
    soft = _blurred(both)
    inside = ((soft[..., 3:] - OPAQUE) / (1.0 - OPAQUE)).clamp(0.0, 1.0)
    rgb = rendering.rgb + amount * inside * (rendering.rgb - soft[..., :3])
    return Rendering(torch.minimum(rgb.clamp(min=0.0), rendering.alpha), rendering.alpha)


def estimate_amount(rendering: Rendering, images: Tensor, region: Tensor) -> Tensor:
    """Find the amount that makes renderings as detailed as the real images.

    Args:
        rendering: rgb [B, H, W, 3] and alpha [B, H, W, 1], not sharpened.
        images: [B, H, W, 3] in [0, 1], the real images.
        region: [B, H, W] bool, the pixels that are compared.

    Returns:
        The amount [1], in [0, MAX_AMOUNT]. It is the root of a quadratic equation, since the
        variance of the Laplacian is quadratic in it.
    """
    rest = _luma(rendering.rgb - _blurred(rendering.rgb))
    own, fine, true = (
        _laplacian(luma)[region] for luma in (_luma(rendering.rgb), rest, _luma(images))
    )
    # var(own + amount * fine) = wanted, as a amount^2 + 2 b amount + c = 0.
    own, fine = own - own.mean(), fine - fine.mean()
    target_variance = TARGET_VARIANCE * (true - true.mean()).square().mean()
    c, b, a = own.square().mean() - target_variance, (own * fine).mean(), fine.square().mean()
    if not (c < 0 < a):  # sharp enough, or without any detail
        return torch.zeros(1, device=images.device)
    amount = (-b + (b * b - a * c).sqrt()) / a
    return amount.clamp(0.0, MAX_AMOUNT)[None]


def _luma(images: Tensor) -> Tensor:
    """Return the luma [B, H, W] of images [B, H, W, 3]."""
    return images @ torch.tensor(LUMA, device=images.device)


def _laplacian(images: Tensor) -> Tensor:
    """Return the 4-neighbor Laplacian of images [B, H, W]."""
    x = F.pad(images, (1, 1, 1, 1), mode="replicate")
    around = x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]
    return around - 4.0 * images


def _blurred(images: Tensor) -> Tensor:
    """Blur images [B, H, W, C]; their borders are replicated."""
    rows = torch.cat([images[:, :1], images, images[:, -1:]], dim=1)
    x = MIDDLE * images + SIDE * (rows[:, :-2] + rows[:, 2:])
    columns = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
    return MIDDLE * x + SIDE * (columns[:, :, :-2] + columns[:, :, 2:])


@numba.njit(nogil=True, cache=True, parallel=True, fastmath=IN_ORDER, error_model="numpy")
def _sharpen_rows(rgb, alpha, result, amount):  # type: ignore[no-untyped-def]
    """Sharpen rgb [B, H, 3 W] into result, given alpha [B, H, W]."""
    n_images, height, width = alpha.shape
    for r in numba.prange(n_images * height):
        b, y = r // height, r % height
        up, down = max(y - 1, 0), min(y + 1, height - 1)
        soft = _blur_row(rgb[b, up], rgb[b, y], rgb[b, down], 3)
        cover = _blur_row(alpha[b, up], alpha[b, y], alpha[b, down], 1)
        shares = np.empty((2, 3 * width), np.float32)  # of each value: amount, opacity
        for x in range(width):
            inside = (cover[x] - _OPAQUE) / (_ONE - _OPAQUE)
            for k in range(np.uint64(3 * x), np.uint64(3 * x + 3)):
                shares[0, k] = amount * min(max(inside, _ZERO), _ONE)
                shares[1, k] = alpha[b, y, x]
        for k in range(np.uint64(3 * width)):
            value = rgb[b, y, k]
            value += shares[0, k] * (value - soft[k])
            result[b, y, k] = min(max(value, _ZERO), shares[1, k])


@numba.njit(nogil=True, fastmath=IN_ORDER, error_model="numpy")
def _blur_row(above, row, below, n_channels):  # type: ignore[no-untyped-def]
    """Return the blurred row [W * channels], given the rows above and below it."""
    n, step = np.uint64(len(row)), np.uint64(n_channels)
    soft, padded = np.empty(n, np.float32), np.empty(n + _U2 * step, np.float32)
    for k in range(n):
        padded[step + k] = _MIDDLE * row[k] + _SIDE * (above[k] + below[k])
    for k in range(step):
        padded[k], padded[n + step + k] = padded[step + k], padded[n + k]
    for k in range(n):
        soft[k] = _MIDDLE * padded[k + step] + _SIDE * (padded[k] + padded[k + _U2 * step])
    return soft
