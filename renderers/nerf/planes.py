"""Feature planes: values of points by bilinear interpolation on planes of the resting head.

A plane listens to a part of the code: plane = base + sum_k code_k delta_k, contracted once an image,
so that sampling costs the same as of a plane that never changes. The numba kernels keep channels
together and write straight into the network's input; torch's grid_sample is their twin and
serves other devices.
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
"""Rows of a plane go to this many writers in turn, whatever the number of threads: the same sums."""


@dataclass(frozen=True)
class PlaneSpec:
    """Where a plane lies and what it listens to.

    axes: which two of x, y, z run along its columns and rows. low, high: its bounds along them,
    world units. height, width: nodes. listens: first and last+1 component of the code; None: to
    nothing. Points outside a plane get zeros.
    """

    name: str
    axes: tuple[int, int]
    low: tuple[float, float]
    high: tuple[float, float]
    height: int
    width: int
    n_channels: int
    listens: tuple[int, int] | None

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.n_channels


def sample_planes(
    points: Tensor, image: Tensor, planes: Sequence[Tensor], specs: Sequence[PlaneSpec]
) -> Tensor:
    """Values [N, D] of all planes side by side at points [N, 3].

    image: [N] int64, whose contracted planes a point sees. planes: each [B or 1, h, w, C].
    Differentiable in the planes.
    """
    if points.device.type == "cpu":
        values: Tensor = _Planes.apply(points, image, tuple(specs), *planes)  # type: ignore[no-untyped-call]
        return values
    return sample_planes_torch(points, image, planes, specs)


def sample_planes_torch(
    points: Tensor, image: Tensor, planes: Sequence[Tensor], specs: Sequence[PlaneSpec]
) -> Tensor:
    """The same as sample_planes, in plain torch."""
    columns = []
    for plane, spec in zip(planes, specs, strict=True):
        low, high = points.new_tensor(spec.low), points.new_tensor(spec.high)
        place = (points[:, list(spec.axes)] - low) / (high - low) * 2.0 - 1.0
        inside = (place.abs() <= 1.0).all(1, keepdim=True)
        if len(plane) == 1:
            values = _bilinear(plane[0], place)
        else:
            values = points.new_zeros(len(points), spec.n_channels)
            for b, one in enumerate(plane):
                chosen = torch.nonzero(image == b)[:, 0]
                values = values.index_put((chosen,), _bilinear(one, place[chosen]))
        columns.append(values * inside)
    return torch.cat(columns, dim=1)


def _bilinear(plane: Tensor, place: Tensor) -> Tensor:
    """Values [n, C] of a plane [h, w, C] at places [n, 2] in [-1, 1]."""
    image = plane.permute(2, 0, 1)[None]
    return F.grid_sample(image, place[None, None], align_corners=True)[0, :, 0].T


class _Planes(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, points: Tensor, image: Tensor, specs: tuple[PlaneSpec, ...], *planes: Tensor
    ) -> Tensor:
        ctx.specs, ctx.shapes = specs, [plane.shape for plane in planes]
        ctx.save_for_backward(points, image)
        values = points.new_zeros(len(points), sum(spec.n_channels for spec in specs))
        first = 0
        for plane, spec in zip(planes, specs, strict=True):
            _read(*_facts(points, image, spec), plane.detach().numpy(), values.numpy(), first)
            first += spec.n_channels
        return values

    @staticmethod
    def backward(ctx: Any, d_values: Tensor) -> Any:  # type: ignore[override]
        points, image = ctx.saved_tensors
        d_values = d_values.contiguous()
        gradients, first = [], 0
        for shape, spec in zip(ctx.shapes, ctx.specs, strict=True):
            gradient = np.zeros(shape, np.float32)
            _write(*_facts(points, image, spec), d_values.numpy(), first, gradient)
            gradients.append(torch.from_numpy(gradient))
            first += spec.n_channels
        return None, None, None, *gradients


def _facts(points: Tensor, image: Tensor, spec: PlaneSpec) -> tuple[Any, ...]:
    low, high = np.array(spec.low, np.float32), np.array(spec.high, np.float32)
    nodes = np.array([spec.width - 1, spec.height - 1], np.float32)
    return points.numpy(), image.numpy(), spec.axes[0], spec.axes[1], low, nodes / (high - low)


@numba.njit(nogil=True, cache=True, parallel=True, fastmath=IN_ORDER)
def _read(points, image, across, down, low, per_unit, plane, values, first):  # type: ignore[no-untyped-def]
    height, width, n_channels = plane.shape[1], plane.shape[2], plane.shape[3]
    for n in numba.prange(points.shape[0]):
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
def _write(points, image, across, down, low, per_unit, d_values, first, gradient):  # type: ignore[no-untyped-def]
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
