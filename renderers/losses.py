"""The photometric loss of a rendered head: weighted L1 and windowed D-SSIM over a background.

`photometric_loss` is one pass of numba kernels on the CPU, value and gradient together, and plain
torch elsewhere; the torch form is its twin.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from talkhead.renderers.arithmetic import IN_ORDER
from talkhead.renderers.base import TrainBatch
from talkhead.types import Float32, Rendering

WINDOW = 8
C1, C2 = 0.01**2, 0.03**2


def photometric_loss(
    rendering: Rendering,
    target: Tensor,
    weights: Tensor,
    background: Tensor,
    offset: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """L1 and D-SSIM, two scalars, of a rendering put over a background, against a target.

    target, background: [B, H, W, 3] in [0, 1]. weights: [B, H, W, 1].
    offset: where the grid of SSIM windows begins, 0..7 each; drawn anew each step it stands for
    all positions.
    """
    rgb, alpha = rendering.rgb, rendering.alpha
    if rgb.device.type == "cpu":
        l1, dssim = _Photometric.apply(  # type: ignore[no-untyped-call]
            rgb, alpha, target, weights, background, offset
        )
        return l1, dssim
    image = rgb + (1.0 - alpha) * background
    return weighted_l1(image, target, weights), windowed_dssim(image, target, weights, offset)


def backdrop(batch: TrainBatch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What stands behind the rendering, and the target, both [B, H, W, 3].

    The person over a random colour, which keeps what should be solid from staying transparent and what
    shines through from becoming solid; where opacities aren't known the true image over the true
    background.
    """
    colour = torch.rand(3, generator=generator).to(batch.images.device)
    background = torch.lerp(colour, batch.plates, batch.edges)
    person = batch.images + (1.0 - batch.masks) * (background - batch.plates)
    target = torch.where(batch.masks > 0.0, person.clamp(0.0, 1.0), background)
    return background, target


def weighted_l1(image: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean absolute error of images [B, H, W, 3], weighted by [B, H, W, 1]; scalar."""
    return ((image - target).abs() * weights).sum() / (3.0 * weights.sum() + 1e-8)


def windowed_dssim(
    image: Tensor, target: Tensor, weights: Tensor, offset: tuple[int, int]
) -> Tensor:
    """(1 - SSIM) / 2 over disjoint 8x8 windows, weighted by their mean weight; scalar.

    image, target: [B, H, W, 3] in [0, 1]. weights: [B, H, W, 1]. SSIM: Wang et al. 2004, eq. 13,
    with a box instead of the Gaussian window.
    """
    x, y, w = (_windows(t, offset) for t in (image, target, weights))
    mean_x, mean_y = x.mean((2, 4), keepdim=True), y.mean((2, 4), keepdim=True)
    var_x, var_y = ((x - mean_x) ** 2).mean((2, 4)), ((y - mean_y) ** 2).mean((2, 4))
    covariance = ((x - mean_x) * (y - mean_y)).mean((2, 4))
    mean_x, mean_y = mean_x[:, :, 0, :, 0], mean_y[:, :, 0, :, 0]
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


class _Photometric(torch.autograd.Function):
    """The two losses with their gradients by the image, found in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        rgb: Tensor,
        alpha: Tensor,
        target: Tensor,
        weights: Tensor,
        background: Tensor,
        offset: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        inputs = (rgb, alpha, target, weights, background)
        arrays = [t.detach().contiguous().numpy() for t in inputs]
        image, by_l1, l1 = _l1(*arrays)
        by_dssim, dssim = _dssim(image, arrays[2], arrays[3], offset)
        ctx.by_l1, ctx.by_dssim, ctx.background = by_l1, by_dssim, arrays[4]
        return rgb.new_tensor(l1), rgb.new_tensor(dssim)

    @staticmethod
    def backward(ctx: Any, d_l1: Tensor, d_dssim: Tensor) -> Any:  # type: ignore[override]
        d_rgb = np.empty_like(ctx.by_l1)
        d_alpha = np.empty((*d_rgb.shape[:3], 1), np.float32)
        _mix(ctx.by_l1, ctx.by_dssim, float(d_l1), float(d_dssim), ctx.background, d_rgb, d_alpha)
        return torch.from_numpy(d_rgb), torch.from_numpy(d_alpha), None, None, None, None


def _l1(
    rgb: Float32, alpha: Float32, target: Float32, weights: Float32, behind: Float32
) -> tuple[Float32, Float32, float]:
    """The image over what is behind it, the gradient of the weighted L1 by it, the L1."""
    image, gradient = np.empty_like(rgb), np.empty_like(rgb)
    total = 3.0 * float(weights.sum(dtype=np.float64)) + 1e-8
    rows = np.zeros(rgb.shape[:2])
    _l1_rows(rgb, alpha, target, weights, behind, np.float32(1.0 / total), image, gradient, rows)
    return image, gradient, float(rows.sum() / total)


def _dssim(
    image: Float32, target: Float32, weights: Float32, offset: tuple[int, int]
) -> tuple[Float32, float]:
    """The gradient of the windowed D-SSIM by the image, the D-SSIM."""
    top, left = offset
    n_images, height, width = image.shape[:3]
    rows, columns = (height - top) // WINDOW, (width - left) // WINDOW
    inside = weights[:, top : top + rows * WINDOW, left : left + columns * WINDOW]
    total = 3.0 * float(inside.sum(dtype=np.float64)) / WINDOW**2 + 1e-8
    gradient = np.zeros_like(image)
    sums = np.zeros((n_images, rows))
    _dssim_rows(image, target, weights, top, left, columns, np.float32(1 / total), gradient, sums)
    return gradient, float(sums.sum() / total)


@numba.njit(nogil=True, cache=True, parallel=True, fastmath=IN_ORDER)
def _l1_rows(rgb, alpha, target, weights, behind, scale, image, gradient, rows):  # type: ignore[no-untyped-def]
    n_images, height, width = rgb.shape[0], rgb.shape[1], rgb.shape[2]
    for r in numba.prange(n_images * height):
        b, y = r // height, r % height
        total = np.float32(0.0)
        for x in range(width):
            w, rest = weights[b, y, x, 0], np.float32(1.0) - alpha[b, y, x, 0]
            for c in range(3):
                value = rgb[b, y, x, c] + rest * behind[b, y, x, c]
                error = value - target[b, y, x, c]
                image[b, y, x, c] = value
                total += w * abs(error)
                gradient[b, y, x, c] = w * scale * np.sign(error)
        rows[b, y] = total


@numba.njit(nogil=True, cache=True, parallel=True, fastmath=IN_ORDER)
def _dssim_rows(image, target, weights, top, left, columns, scale, gradient, sums):  # type: ignore[no-untyped-def]
    n_images, n_rows = sums.shape
    for r in numba.prange(n_images * n_rows):
        b, row = r // n_rows, r % n_rows
        y0 = top + row * 8
        total = np.float32(0.0)
        for column in range(columns):
            x0 = left + column * 8
            share = np.float32(0.0)
            for y in range(y0, y0 + 8):
                for x in range(x0, x0 + 8):
                    share += weights[b, y, x, 0]
            share /= np.float32(64.0)
            for c in range(3):
                total += share * _window(image, target, b, y0, x0, c, share * scale, gradient)
        sums[b, row] = total


@numba.njit(fastmath=IN_ORDER, inline="always")
def _window(image, target, b, y0, x0, c, scale, gradient):  # type: ignore[no-untyped-def]
    n = np.float32(1.0 / 64.0)
    mx, my = np.float32(0.0), np.float32(0.0)
    for y in range(y0, y0 + 8):
        for x in range(x0, x0 + 8):
            mx += image[b, y, x, c]
            my += target[b, y, x, c]
    mx, my = mx * n, my * n
    vx, vy, cov = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    for y in range(y0, y0 + 8):
        for x in range(x0, x0 + 8):
            dx, dy = image[b, y, x, c] - mx, target[b, y, x, c] - my
            vx += dx * dx
            vy += dy * dy
            cov += dx * dy
    vx, vy, cov = vx * n, vy * n, cov * n
    c1, c2 = np.float32(0.0001), np.float32(0.0009)
    a1, a2 = 2 * mx * my + c1, 2 * cov + c2
    b1, b2 = mx * mx + my * my + c1, vx + vy + c2
    ssim = a1 * a2 / (b1 * b2)
    k = np.float32(-0.5) * scale * n
    by_mean = k * (2 * my * a2 / (b1 * b2) - ssim * 2 * mx / b1)
    by_var, by_cov = k * (-2 * ssim / b2), k * (2 * a1 / (b1 * b2))
    for y in range(y0, y0 + 8):
        for x in range(x0, x0 + 8):
            dx, dy = image[b, y, x, c] - mx, target[b, y, x, c] - my
            gradient[b, y, x, c] = by_mean + by_var * dx + by_cov * dy
    return np.float32(0.5) * (np.float32(1.0) - ssim)


@numba.njit(nogil=True, cache=True, parallel=True, fastmath=IN_ORDER)
def _mix(by_l1, by_dssim, d_l1, d_dssim, behind, d_rgb, d_alpha):  # type: ignore[no-untyped-def]
    n_images, height, width = by_l1.shape[0], by_l1.shape[1], by_l1.shape[2]
    first, second = np.float32(d_l1), np.float32(d_dssim)
    for r in numba.prange(n_images * height):
        b, y = r // height, r % height
        for x in range(width):
            total = np.float32(0.0)
            for c in range(3):
                value = first * by_l1[b, y, x, c] + second * by_dssim[b, y, x, c]
                d_rgb[b, y, x, c] = value
                total -= value * behind[b, y, x, c]
            d_alpha[b, y, x, 0] = total
