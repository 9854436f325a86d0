"""Deformation of Gaussians by the moving frames that carry them, in torch and, on the CPU, numba.

A Gaussian is defined by `local`, its position in a frame with origin o and deformation gradient F,
and by the shape factor L:

    mean = o + F local,   covariance = F L L^T F^T

so that it moves, rotates and stretches with its triangle. L is lower triangular with L_ii =
exp(s_i) and L_ij = exp(s_i) n_ij, so that the six numbers are unconstrained and of similar
magnitude.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from talkhead.renderers.fastmath import IN_ORDER

UPPER = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
"""Order of the six stored elements of a symmetric matrix."""


def deform(
    gradients: Tensor, origins: Tensor, index: Tensor, local: Tensor, shape: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute world-space means and covariances of Gaussians.

    Args:
        gradients: [B, M, 3, 3], deformation gradients of the frames.
        origins: [B, M, 3], origins of the frames.
        index: [N], frame of each Gaussian.
        local: [B, N, 3], position of each Gaussian in its frame.
        shape: [N, 6], s_0, s_1, s_2, n_10, n_20, n_21.

    Returns:
        Means [B, N, 3] and covariances [B, N, 6], the upper triangle in the order UPPER.
    """
    if local.device.type == "cpu":
        means, covars = _Deform.apply(gradients, origins, index, local, shape)  # type: ignore[no-untyped-call]
        return means, covars
    return deform_torch(gradients, origins, index, local, shape)


def deform_torch(
    gradients: Tensor, origins: Tensor, index: Tensor, local: Tensor, shape: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the same as `deform` in plain torch.

    Args:
        gradients: [B, M, 3, 3], deformation gradients of the frames.
        origins: [B, M, 3], origins of the frames.
        index: [N], frame of each Gaussian.
        local: [B, N, 3], position of each Gaussian in its frame.
        shape: [N, 6], shape parameters.

    Returns:
        Means [B, N, 3] and covariances [B, N, 6].
    """
    carried = gradients[:, index]  # F of each Gaussian, [B, N, 3, 3]
    means = origins[:, index] + (carried @ local[..., None])[..., 0]
    factor = carried @ shape_factor(shape)  # F L, [B, N, 3, 3]
    covariance = factor @ factor.transpose(-1, -2)
    return means, torch.stack([covariance[..., i, j] for i, j in UPPER], dim=-1)


def shape_factor(shape: Tensor) -> Tensor:
    """Compute the shape factors L.

    Args:
        shape: [N, 6], s_0, s_1, s_2, n_10, n_20, n_21.

    Returns:
        Lower triangular matrices [N, 3, 3].
    """
    scale = shape[:, :3].exp()
    zero, one = torch.zeros_like(shape[:, 0]), torch.ones_like(shape[:, 0])
    rows = [
        torch.stack([one, zero, zero], -1),
        torch.stack([shape[:, 3], one, zero], -1),
        torch.stack([shape[:, 4], shape[:, 5], one], -1),
    ]
    return scale[..., None] * torch.stack(rows, dim=1)


class _Deform(torch.autograd.Function):
    """The numba kernels as a differentiable function."""

    @staticmethod
    def forward(
        ctx: Any, gradients: Tensor, origins: Tensor, index: Tensor, local: Tensor, shape: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return means [B, N, 3] and covariances [B, N, 6]; the arguments are those of deform."""
        ctx.save_for_backward(gradients, index, local, shape)
        means = torch.empty_like(local)
        covars = local.new_empty((*local.shape[:2], 6))
        _forward(
            gradients.numpy(),
            origins.numpy(),
            index.numpy(),
            local.detach().numpy(),
            shape.detach().numpy(),
            means.numpy(),
            covars.numpy(),
        )
        return means, covars

    @staticmethod
    def backward(ctx: Any, d_means: Tensor, d_covars: Tensor) -> Any:  # type: ignore[override]
        """Return gradients w.r.t. frames [B, M, 3, 3] and [B, M, 3], local [B, N, 3] and shape [N, 6]."""
        gradients, index, local, shape = ctx.saved_tensors
        d_local, d_shape = torch.empty_like(local), torch.empty_like(shape)
        _backward(
            gradients.numpy(),
            index.numpy(),
            shape.detach().numpy(),
            d_means.contiguous().numpy(),
            d_covars.contiguous().numpy(),
            d_local.numpy(),
            d_shape.numpy(),
        )
        d_gradients = d_origins = None
        if any(ctx.needs_input_grad[:2]):  # during motion refinement, not while fitting
            # Sort the Gaussians by frame, so that one thread sums each frame's gradient.
            d_gradients = torch.empty_like(gradients)
            d_origins = gradients.new_empty(gradients.shape[:3])
            order = torch.argsort(index, stable=True)
            starts = torch.searchsorted(index[order], torch.arange(gradients.shape[1] + 1))
            _backward_frames(
                gradients.numpy(),
                order.numpy(),
                starts.numpy(),
                local.detach().numpy(),
                shape.detach().numpy(),
                d_means.contiguous().numpy(),
                d_covars.contiguous().numpy(),
                d_gradients.numpy(),
                d_origins.numpy(),
            )
        return d_gradients, d_origins, None, d_local, d_shape


@numba.njit(cache=True, inline="always")
def _factor(shape, factor):  # type: ignore[no-untyped-def]
    """Write the shape factor L [3, 3] of a shape [6]."""
    a, b, c = np.exp(shape[0]), np.exp(shape[1]), np.exp(shape[2])
    factor[0, 0] = a
    factor[0, 1] = 0.0
    factor[0, 2] = 0.0
    factor[1, 0] = b * shape[3]
    factor[1, 1] = b
    factor[1, 2] = 0.0
    factor[2, 0] = c * shape[4]
    factor[2, 1] = c * shape[5]
    factor[2, 2] = c


@numba.njit(nogil=True, cache=True, parallel=True, fastmath=IN_ORDER)
def _forward(gradients, origins, index, local, shape, means, covars):  # type: ignore[no-untyped-def]
    """Write means [B, N, 3] and covars [B, N, 6]; the other arguments are those of deform."""
    n_images, n = local.shape[0], local.shape[1]
    for g in numba.prange(n):
        factor = np.empty((3, 3), np.float32)
        carried = np.empty((3, 3), np.float32)
        _factor(shape[g], factor)
        m = index[g]
        for b in range(n_images):
            # mean = o + F local; carried = F L.
            f, p = gradients[b, m], local[b, g]
            for i in range(3):
                means[b, g, i] = origins[b, m, i] + f[i, 0] * p[0] + f[i, 1] * p[1] + f[i, 2] * p[2]
                for j in range(3):
                    carried[i, j] = (
                        f[i, 0] * factor[0, j] + f[i, 1] * factor[1, j] + f[i, 2] * factor[2, j]
                    )
            # covariance = (F L) (F L)^T, upper triangle.
            k = 0
            for i in range(3):
                for j in range(i, 3):
                    covars[b, g, k] = (
                        carried[i, 0] * carried[j, 0]
                        + carried[i, 1] * carried[j, 1]
                        + carried[i, 2] * carried[j, 2]
                    )
                    k += 1


@numba.njit(nogil=True, cache=True, parallel=True, fastmath=IN_ORDER)
def _backward(gradients, index, shape, d_means, d_covars, d_local, d_shape):  # type: ignore[no-untyped-def]
    """Write the gradients d_local [B, N, 3] and d_shape [N, 6]."""
    n_images, n = d_means.shape[0], d_means.shape[1]
    for g in numba.prange(n):
        factor = np.empty((3, 3), np.float32)
        carried = np.empty((3, 3), np.float32)
        d_carried = np.empty((3, 3), np.float32)
        d_factor = np.zeros((3, 3), np.float32)
        _factor(shape[g], factor)
        m = index[g]
        for b in range(n_images):
            # d local = F^T d mean; recompute F L.
            f, dm, dc = gradients[b, m], d_means[b, g], d_covars[b, g]
            for i in range(3):
                d_local[b, g, i] = f[0, i] * dm[0] + f[1, i] * dm[1] + f[2, i] * dm[2]
                for j in range(3):
                    carried[i, j] = (
                        f[i, 0] * factor[0, j] + f[i, 1] * factor[1, j] + f[i, 2] * factor[2, j]
                    )
            # d (F L) = (D + D^T) F L, where D holds d covariance in its upper triangle.
            for j in range(3):
                c0, c1, c2 = carried[0, j], carried[1, j], carried[2, j]
                d_carried[0, j] = 2.0 * dc[0] * c0 + dc[1] * c1 + dc[2] * c2
                d_carried[1, j] = dc[1] * c0 + 2.0 * dc[3] * c1 + dc[4] * c2
                d_carried[2, j] = dc[2] * c0 + dc[4] * c1 + 2.0 * dc[5] * c2
            # d L = F^T d (F L), lower triangle, summed over the images.
            for i in range(3):
                for j in range(i + 1):
                    d_factor[i, j] += (
                        f[0, i] * d_carried[0, j]
                        + f[1, i] * d_carried[1, j]
                        + f[2, i] * d_carried[2, j]
                    )
        # Row i of L is exp(s_i) times (n_i0, ..., 1): d s_i is the row's product with itself.
        for i in range(3):
            total = np.float32(0.0)
            for j in range(i + 1):
                total += d_factor[i, j] * factor[i, j]
            d_shape[g, i] = total
        d_shape[g, 3] = d_factor[1, 0] * factor[1, 1]
        d_shape[g, 4] = d_factor[2, 0] * factor[2, 2]
        d_shape[g, 5] = d_factor[2, 1] * factor[2, 2]


@numba.njit(nogil=True, cache=True, parallel=True, fastmath=IN_ORDER)
def _backward_frames(  # type: ignore[no-untyped-def]
    gradients, order, starts, local, shape, d_means, d_covars, d_gradients, d_origins
):
    """Write the gradients w.r.t. the frames, d_gradients [B, M, 3, 3] and d_origins [B, M, 3].

    The Gaussians of frame m are order[starts[m]:starts[m + 1]].
    """
    n_images, n_frames = gradients.shape[0], gradients.shape[1]
    for m in numba.prange(n_frames):
        factor = np.empty((3, 3), np.float32)
        d_carried = np.empty((3, 3), np.float32)
        for b in range(n_images):
            f = gradients[b, m]
            d_gradients[b, m, :, :] = np.float32(0.0)
            d_origins[b, m, :] = np.float32(0.0)
            for g in order[starts[m] : starts[m + 1]]:
                _factor(shape[g], factor)
                dm, dc, p = d_means[b, g], d_covars[b, g], local[b, g]
                # F L, and d (F L) as in _backward.
                for j in range(3):
                    c0 = f[0, 0] * factor[0, j] + f[0, 1] * factor[1, j] + f[0, 2] * factor[2, j]
                    c1 = f[1, 0] * factor[0, j] + f[1, 1] * factor[1, j] + f[1, 2] * factor[2, j]
                    c2 = f[2, 0] * factor[0, j] + f[2, 1] * factor[1, j] + f[2, 2] * factor[2, j]
                    d_carried[0, j] = 2.0 * dc[0] * c0 + dc[1] * c1 + dc[2] * c2
                    d_carried[1, j] = dc[1] * c0 + 2.0 * dc[3] * c1 + dc[4] * c2
                    d_carried[2, j] = dc[2] * c0 + dc[4] * c1 + 2.0 * dc[5] * c2
                # d o = d mean; d F = d mean local^T + d (F L) L^T.
                for i in range(3):
                    d_origins[b, m, i] += dm[i]
                    for j in range(3):
                        d_gradients[b, m, i, j] += dm[i] * p[j] + (
                            d_carried[i, 0] * factor[j, 0]
                            + d_carried[i, 1] * factor[j, 1]
                            + d_carried[i, 2] * factor[j, 2]
                        )
