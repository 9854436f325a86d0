"""The photometric loss of a rendered head: weighted L1 and windowed D-SSIM over a background.

On the CPU, `photometric_loss` computes value and gradient in one pass of numba kernels; elsewhere
it is plain torch, which is the reference for the kernels.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from talkhead.renderers.base import TrainBatch
from talkhead.renderers.fastmath import IN_ORDER
from talkhead.types import Float32, Rendering

WINDOW = 8
C1, C2 = 0.01**2, 0.03**2
_C1, _C2 = np.float32(C1), np.float32(C2)
_U8 = np.uint64(WINDOW)
_HALF, _TWO = np.float32(0.5), np.float32(2.0)
_MEAN = np.float32(1.0 / WINDOW**2)


def photometric_loss(
    rendering: Rendering,
    target: Tensor,
    weights: Tensor,
    background: Tensor,
    offset: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Compare a rendering over a background with a target.

    Args:
        rendering: rgb [B, H, W, 3], premultiplied, and alpha [B, H, W, 1].
        target: [B, H, W, 3] in [0, 1].
        weights: [B, H, W, 1], weight of each pixel.
        background: [B, H, W, 3] in [0, 1].
        offset: Top and left pixel at which the grid of SSIM windows begins, 0 to 7 each. If it is
            drawn at random in each step, all positions of the grid contribute to a fit.

    Returns:
        L1 and D-SSIM, two scalars.
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
    """Put the person over a random color.

    This keeps what should be opaque from becoming transparent, and what should be transparent from
    becoming opaque.

    Args:
        batch: Training frames.
        generator: Draws the color.

    Returns:
        The background, and the target over it, both [B, H, W, 3].
    """
    color = torch.rand(3, generator=generator).to(batch.images.device)
    background = color.expand_as(batch.images).contiguous()
    return background, torch.addcmul(batch.images, 1.0 - batch.masks, background)


def weighted_l1(image: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Compute the mean absolute error, weighted by pixel.

    Args:
        image: [B, H, W, 3].
        target: [B, H, W, 3].
        weights: [B, H, W, 1].

    Returns:
        A scalar.
    """
    return ((image - target).abs() * weights).sum() / (3.0 * weights.sum() + 1e-8)


def windowed_dssim(
    image: Tensor, target: Tensor, weights: Tensor, offset: tuple[int, int]
) -> Tensor:
    """Compute (1 - SSIM) / 2 over disjoint 8x8 windows, weighted by their mean weight.

    SSIM as in Wang et al., "Image quality assessment", 2004, equation 13, with a box instead of
    the Gaussian window.

    Args:
        image: [B, H, W, 3] in [0, 1].
        target: [B, H, W, 3] in [0, 1].
        weights: [B, H, W, 1].
        offset: Top and left pixel at which the grid of windows begins.

    Returns:
        A scalar.
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
    """Cut images [B, H, W, C] into windows [B, h, 8, w, 8, C]."""
    top, left = offset
    rows = (images.shape[1] - top) // WINDOW
    columns = (images.shape[2] - left) // WINDOW
    part = images[:, top : top + rows * WINDOW, left : left + columns * WINDOW]
    return part.reshape(len(images), rows, WINDOW, columns, WINDOW, images.shape[3])


def random_offset(generator: torch.Generator) -> tuple[int, int]:
    """Draw the origin of a grid of windows.

    Args:
        generator: Draws it.

    Returns:
        Top and left, 0 to 7 each.
    """
    top, left = torch.randint(0, WINDOW, (2,), generator=generator).tolist()
    return int(top), int(left)


class _Photometric(torch.autograd.Function):
    """Both losses; their gradients w.r.t. the image are computed in the forward pass."""

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
        """Return L1 and D-SSIM, scalars; the arguments are those of photometric_loss."""
        inputs = (rgb, alpha, target, weights, background)
        ctx.arrays = [t.detach().contiguous().numpy() for t in inputs]
        ctx.image, ctx.l1_scale, l1 = _l1(*ctx.arrays)
        ctx.by_dssim, dssim = _dssim(ctx.image, ctx.arrays[2], ctx.arrays[3], offset)
        return rgb.new_tensor(l1), rgb.new_tensor(dssim)

    @staticmethod
    def backward(ctx: Any, d_l1: Tensor, d_dssim: Tensor) -> Any:  # type: ignore[override]
        """Return the gradients w.r.t. rgb [B, H, W, 3] and alpha [B, H, W, 1]."""
        _, _, target, weights, background = ctx.arrays
        d_rgb = np.empty_like(ctx.image)
        d_alpha = np.empty((*d_rgb.shape[:3], 1), np.float32)
        shares = np.array([float(d_l1) * ctx.l1_scale, float(d_dssim)], np.float32)
        _mix(ctx.image, target, weights, background, ctx.by_dssim, shares, d_rgb, d_alpha)
        return torch.from_numpy(d_rgb), torch.from_numpy(d_alpha), None, None, None, None


def _l1(
    rgb: Float32, alpha: Float32, target: Float32, weights: Float32, background: Float32
) -> tuple[Float32, float, float]:
    """Composite the image over the background and compute the weighted L1.

    Returns the composite [B, H, W, 3], 1 / the sum of the weights over all values, and the loss.
    """
    image = np.empty_like(rgb)
    scale = 1.0 / (3.0 * float(weights.sum(dtype=np.float64)) + 1e-8)
    rows = np.zeros(rgb.shape[:2])
    _l1_rows(rgb, alpha, target, weights, background, image, rows)
    return image, scale, float(rows.sum() * scale)


def _dssim(
    image: Float32, target: Float32, weights: Float32, offset: tuple[int, int]
) -> tuple[Float32, float]:
    """Return the gradient of the windowed D-SSIM w.r.t. the image [B, H, W, 3], and the D-SSIM."""
    top, left = offset
    n_images, height, width = image.shape[:3]
    rows, columns = (height - top) // WINDOW, (width - left) // WINDOW
    inside = weights[:, top : top + rows * WINDOW, left : left + columns * WINDOW]
    total = 3.0 * float(inside.sum(dtype=np.float64)) / WINDOW**2 + 1e-8
    gradient = np.zeros_like(image)
    sums = np.zeros((n_images, rows))
    flat = (a.reshape(n_images, height, 3 * width) for a in (image, target, gradient))
    _dssim_rows(*flat, weights, (top, left, columns), np.float32(1 / total), sums)
    return gradient, float(sums.sum() / total)


@numba.njit(nogil=True, cache=True, parallel=True, fastmath=IN_ORDER)
def _l1_rows(rgb, alpha, target, weights, background, image, rows):  # type: ignore[no-untyped-def]
    """Write the composite [B, H, W, 3], and the weighted sum of absolute errors of each row [B, H]."""
    n_images, height, width = rgb.shape[0], rgb.shape[1], rgb.shape[2]
    for r in numba.prange(n_images * height):
        b, y = r // height, r % height
        total = np.float32(0.0)
        for x in range(width):
            rest, error = np.float32(1.0) - alpha[b, y, x, 0], np.float32(0.0)
            for c in range(3):
                value = rgb[b, y, x, c] + rest * background[b, y, x, c]
                image[b, y, x, c] = value
                error += abs(value - target[b, y, x, c])
            total += weights[b, y, x, 0] * error
        rows[b, y] = total


@numba.njit(nogil=True, cache=True, parallel=True, fastmath=IN_ORDER, error_model="numpy")
def _dssim_rows(image, target, gradient, weights, grid, scale, sums):  # type: ignore[no-untyped-def]
    """Write the gradient [B, H, 3 W] and the sum of each row of windows.

    A row of windows is processed at a time: every third value is of the same channel, and 24 values
    are a row of a window. grid: top, left and number of columns of the windows.
    """
    n_images, n_rows = sums.shape
    top, left, columns = grid
    for r in numba.prange(n_images * n_rows):
        b, y = r // n_rows, top + 8 * (r % n_rows)
        place = np.uint64(y), np.uint64(3 * left)
        lanes = np.zeros((6, 24 * columns), np.float32)
        _share(weights[b, :, :, 0], y, left, lanes)
        _moments(image[b], target[b], place, lanes)
        sums[b, r % n_rows] = _ssim_slopes(lanes, scale)
        _slopes_of_pixels(image[b], target[b], place, lanes, gradient[b])


@numba.njit(nogil=True, fastmath=IN_ORDER, error_model="numpy")
def _share(weights, top, left, lanes):  # type: ignore[no-untyped-def]
    """Write the windows' mean weights to lanes [5]."""
    for k in range(0, lanes.shape[1], 24):
        total = np.float32(0.0)
        for y in range(top, top + 8):
            for x in range(left + k // 3, left + k // 3 + 8):
                total += weights[y, x]
        lanes[5, k : k + 24] = total * _MEAN


@numba.njit(nogil=True, fastmath=IN_ORDER, error_model="numpy")
def _moments(image, target, place, lanes):  # type: ignore[no-untyped-def]
    """Write the windows' means, variances and covariances to lanes [0:5].

    place: row and column at which the first window begins in images [H, 3 W]. They are unsigned,
    because indices that may be negative prevent vectorization.
    """
    top, left = place
    for y in range(top, top + _U8):
        for k in range(np.uint64(lanes.shape[1])):
            lanes[0, k] += image[y, left + k]
            lanes[1, k] += target[y, left + k]
    _average(lanes[0:2])
    for y in range(top, top + _U8):
        for k in range(np.uint64(lanes.shape[1])):
            dx, dy = image[y, left + k] - lanes[0, k], target[y, left + k] - lanes[1, k]
            lanes[2, k] += dx * dx
            lanes[3, k] += dy * dy
            lanes[4, k] += dx * dy
    _average(lanes[2:5])


@numba.njit(nogil=True, fastmath=IN_ORDER, error_model="numpy")
def _average(lanes):  # type: ignore[no-untyped-def]
    """Replace each lane, which holds a sum over rows, by the mean of its channel over its window."""
    for i in range(lanes.shape[0]):
        for first in range(0, lanes.shape[1], 24):
            for c in range(first, first + 3):
                total = np.float32(0.0)
                for k in range(c, c + 24, 3):
                    total += lanes[i, k]
                for k in range(c, c + 24, 3):
                    lanes[i, k] = total * _MEAN


@numba.njit(nogil=True, fastmath=IN_ORDER, error_model="numpy")
def _ssim_slopes(lanes, scale):  # type: ignore[no-untyped-def]
    """Return the weighted sum over windows and channels of (1 - SSIM) / 2.

    Overwrites lanes [2:5] with the scaled derivatives by mean, variance and covariance.
    """
    total = np.float32(0.0)
    for k in range(np.uint64(lanes.shape[1])):
        mx, my, vx, vy, cov = lanes[0, k], lanes[1, k], lanes[2, k], lanes[3, k], lanes[4, k]
        a1, a2 = _TWO * mx * my + _C1, _TWO * cov + _C2
        b1, b2 = mx * mx + my * my + _C1, vx + vy + _C2
        ssim = a1 * a2 / (b1 * b2)
        by_ssim = -_HALF * scale * lanes[5, k] * _MEAN
        lanes[2, k] = by_ssim * _TWO * (my * a2 / (b1 * b2) - ssim * mx / b1)
        lanes[3, k] = -by_ssim * _TWO * ssim / b2
        lanes[4, k] = by_ssim * _TWO * a1 / (b1 * b2)
        total += _HALF * lanes[5, k] * (np.float32(1.0) - ssim)
    return total / np.float32(WINDOW)  # each window has as many lanes per channel


@numba.njit(nogil=True, fastmath=IN_ORDER, error_model="numpy")
def _slopes_of_pixels(image, target, place, lanes, gradient):  # type: ignore[no-untyped-def]
    """Write the gradient w.r.t. each pixel, given the derivatives w.r.t. its window's moments."""
    top, left = place
    for y in range(top, top + _U8):
        for k in range(np.uint64(lanes.shape[1])):
            dx, dy = image[y, left + k] - lanes[0, k], target[y, left + k] - lanes[1, k]
            gradient[y, left + k] = lanes[2, k] + lanes[3, k] * dx + lanes[4, k] * dy


@numba.njit(nogil=True, cache=True, parallel=True, fastmath=IN_ORDER)
def _mix(image, target, weights, background, by_dssim, shares, d_rgb, d_alpha):  # type: ignore[no-untyped-def]
    """Write the gradients w.r.t. rgb [B, H, W, 3] and alpha [B, H, W, 1].

    shares: factors of the gradients of L1 and D-SSIM.
    """
    n_images, height, width = image.shape[0], image.shape[1], image.shape[2]
    for r in numba.prange(n_images * height):
        b, y = r // height, r % height
        for x in range(width):
            by_error, total = shares[0] * weights[b, y, x, 0], np.float32(0.0)
            for c in range(3):
                error = image[b, y, x, c] - target[b, y, x, c]
                value = by_error * np.sign(error) + shares[1] * by_dssim[b, y, x, c]
                d_rgb[b, y, x, c] = value
                total -= value * background[b, y, x, c]
            d_alpha[b, y, x, 0] = total
