"""Feature planes: values of points by bilinear interpolation on planes.

The planes are in the space of the head at rest. A plane depends on a part of the code: plane = base
+ sum_k code_k delta_k. It is blended once per image, so that sampling costs the same as for a
static plane. The numba kernels store channels together and write directly into the network's input.
torch's grid_sample is their reference and is used on other devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.renderers.fastmath import IN_ORDER

N_BANDS = 4
"""Rows of a plane are distributed to this many writers in turn, for any number of threads, so that
sums are always the same.
"""


@dataclass(frozen=True)
class PlaneSpec:
    """Position and size of a plane, and the part of the code that it depends on.

    Points outside a plane get zeros.

    Attributes:
        name: Its name.
        axes: Which two of x, y, z run along its columns and rows.
        low: Lower bounds along these axes, world units.
        high: Upper bounds along these axes, world units.
        height: Number of rows of nodes.
        width: Number of columns of nodes.
        n_channels: Values per node.
        code_range: First, and one past the last, component of the code that it depends on; None if it
            is static.
    """

    name: str
    axes: tuple[int, int]
    low: tuple[float, float]
    high: tuple[float, float]
    height: int
    width: int
    n_channels: int
    code_range: tuple[int, int] | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and number of channels."""
        return self.height, self.width, self.n_channels


def sample_planes(
    points: Tensor, image: Tensor, planes: Sequence[Tensor], specs: Sequence[PlaneSpec]
) -> Tensor:
    """Sample planes at points. Differentiable in the planes.

    Args:
        points: [N, 3], points of the head at rest.
        image: [N], int64, the image that each point belongs to.
        planes: One tensor per plane, [B or 1, h, w, C].
        specs: Their descriptions.

    Returns:
        Values [N, D], those of all planes side by side.
    """
    if points.device.type == "cpu":
        values: Tensor = _Planes.apply(points, image, tuple(specs), *planes)  # type: ignore[no-untyped-call]
        return values
    return sample_planes_torch(points, image, planes, specs)


def sample_planes_torch(
    points: Tensor, image: Tensor, planes: Sequence[Tensor], specs: Sequence[PlaneSpec]
) -> Tensor:
    """Compute the same as `sample_planes` in plain torch.

    Args:
        points: [N, 3], points of the head at rest.
        image: [N], int64, the image that each point belongs to.
        planes: One tensor per plane, [B or 1, h, w, C].
        specs: Their descriptions.

    Returns:
        Values [N, D].
    """
    columns = []
    for plane, spec in zip(planes, specs, strict=True):
        low, high = points.new_tensor(spec.low), points.new_tensor(spec.high)
        position = (points[:, list(spec.axes)] - low) / (high - low) * 2.0 - 1.0
        inside = (position.abs() <= 1.0).all(1, keepdim=True)
        if len(plane) == 1:
            values = _bilinear(plane[0], position)
        else:
            values = points.new_zeros(len(points), spec.n_channels)
            for b, one in enumerate(plane):
                chosen = torch.nonzero(image == b)[:, 0]
                values = values.index_put((chosen,), _bilinear(one, position[chosen]))
        columns.append(values * inside)
    return torch.cat(columns, dim=1)


def _bilinear(plane: Tensor, position: Tensor) -> Tensor:
    """Interpolate a plane [h, w, C] at positions [n, 2] in [-1, 1]; returns [n, C]."""
    image = plane.permute(2, 0, 1)[None]
    return F.grid_sample(image, position[None, None], align_corners=True)[0, :, 0].T


class _Planes(torch.autograd.Function):
    """The numba kernels as a differentiable function."""

    @staticmethod
    def forward(
        ctx: Any, points: Tensor, image: Tensor, specs: tuple[PlaneSpec, ...], *planes: Tensor
    ) -> Tensor:
        """Return the values [N, D] of all planes; the arguments are those of sample_planes."""
        ctx.specs, ctx.shapes = specs, [plane.shape for plane in planes]
        ctx.save_for_backward(points, image)
        values = points.new_zeros(len(points), sum(spec.n_channels for spec in specs))
        first = 0
        for plane, spec in zip(planes, specs, strict=True):
            _sample(
                *_kernel_arguments(points, image, spec),
                plane.detach().numpy(),
                values.numpy(),
                first,
            )
            first += spec.n_channels
        return values

    @staticmethod
    def backward(ctx: Any, d_values: Tensor) -> Any:  # type: ignore[override]
        """Return the gradient w.r.t. each plane [B or 1, h, w, C]."""
        points, image = ctx.saved_tensors
        d_values = d_values.contiguous()
        gradients, first = [], 0
        for shape, spec in zip(ctx.shapes, ctx.specs, strict=True):
            gradient = np.zeros(shape, np.float32)
            _scatter(*_kernel_arguments(points, image, spec), d_values.numpy(), first, gradient)
            gradients.append(torch.from_numpy(gradient))
            first += spec.n_channels
        return None, None, None, *gradients


def _kernel_arguments(points: Tensor, image: Tensor, spec: PlaneSpec) -> tuple[Any, ...]:
    """Return points [N, 3], image [N], axes, lower bounds [2] and nodes per unit [2] for the kernels."""
    low, high = np.array(spec.low, np.float32), np.array(spec.high, np.float32)
    nodes = np.array([spec.width - 1, spec.height - 1], np.float32)
    return points.numpy(), image.numpy(), spec.axes[0], spec.axes[1], low, nodes / (high - low)


@numba.njit(nogil=True, cache=True, parallel=True, fastmath=IN_ORDER)
def _sample(points, image, across, down, low, per_unit, plane, values, first):  # type: ignore[no-untyped-def]
    """Write the interpolated values of a plane [B or 1, h, w, C] to values [N, first:first + C]."""
    height, width, n_channels = plane.shape[1], plane.shape[2], plane.shape[3]
    for n in numba.prange(points.shape[0]):
        # Position on the plane, in nodes; the cell's corner x, y and the weights within it.
        u = (points[n, across] - low[0]) * per_unit[0]
        v = (points[n, down] - low[1]) * per_unit[1]
        if not (0 <= u <= width - 1 and 0 <= v <= height - 1):
            continue
        b = image[n] if plane.shape[0] > 1 else 0
        x, y = min(int(u), width - 2), min(int(v), height - 2)
        s, t = np.float32(u - x), np.float32(v - y)
        one = np.float32(1.0)
        w00, w01, w10, w11 = (one - t) * (one - s), (one - t) * s, t * (one - s), t * s
        p00, p01 = plane[b, y, x], plane[b, y, x + 1]
        p10, p11 = plane[b, y + 1, x], plane[b, y + 1, x + 1]
        for c in range(n_channels):
            values[n, first + c] = w00 * p00[c] + w01 * p01[c] + w10 * p10[c] + w11 * p11[c]


@numba.njit(nogil=True, cache=True, parallel=True, fastmath=IN_ORDER)
def _scatter(points, image, across, down, low, per_unit, d_values, first, gradient):  # type: ignore[no-untyped-def]
    """Add d_values [N, first:first + C] to the gradient of a plane [B or 1, h, w, C]."""
    height, width, n_channels = gradient.shape[1], gradient.shape[2], gradient.shape[3]
    for band in numba.prange(N_BANDS):
        for n in range(points.shape[0]):
            u = (points[n, across] - low[0]) * per_unit[0]
            v = (points[n, down] - low[1]) * per_unit[1]
            if not (0 <= u <= width - 1 and 0 <= v <= height - 1):
                continue
            b = image[n] if gradient.shape[0] > 1 else 0
            x, y = min(int(u), width - 2), min(int(v), height - 2)
            s, t = np.float32(u - x), np.float32(v - y)
            for row in range(y, y + 2):
                if row % N_BANDS != band:
                    continue
                share = t if row > y else np.float32(1.0) - t
                w0, w1 = share * (np.float32(1.0) - s), share * s
                g0, g1 = gradient[b, row, x], gradient[b, row, x + 1]
                for c in range(n_channels):
                    g0[c] += w0 * d_values[n, first + c]
                    g1[c] += w1 * d_values[n, first + c]
