"""As much fine detail as the person's own footage has.

A head fitted on tracks that are a fraction of a pixel off shows a mean, which is soft. What is left of
the finest detail is raised until it is as strong as in the footage; how much that takes is
measured on training frames.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.renderers.arithmetic import IN_ORDER
from talkhead.types import Rendering

SIDE, MIDDLE = 0.21, 0.58
"""A blur of 0.7 px, three taps each way."""
WANTED = 0.8
"""Of the true frames' variance of the Laplacian: more would be their noise."""
MOST = 1.0
OPAQUE = 0.9
"""From this mean opacity around a pixel on it counts as inside."""
LUMA = (0.299, 0.587, 0.114)


def sharpened(rendering: Rendering, amount: Tensor) -> Rendering:
    """A rendering whose finest detail is raised by a share of `amount`, inside the head alone.

    At the rim, and where something shows through, nothing changes: there would be a halo.
    """
    if rendering.rgb.device.type != "cpu" or rendering.rgb.requires_grad:
        return sharpened_torch(rendering, amount)
    rgb, alpha = rendering.rgb.contiguous().numpy(), rendering.alpha.contiguous().numpy()
    result = np.empty_like(rgb)
    _sharpen_rows(rgb, alpha, np.float32(amount.item()), result)
    return Rendering(torch.from_numpy(result), rendering.alpha)


def sharpened_torch(rendering: Rendering, amount: Tensor) -> Rendering:
    """The same as sharpened, in plain torch, differentiable."""
    both = torch.cat([rendering.rgb, rendering.alpha], dim=3)
    soft = _blurred(both)
    inside = ((soft[..., 3:] - OPAQUE) / (1.0 - OPAQUE)).clamp(0.0, 1.0)
    rgb = rendering.rgb + amount * inside * (rendering.rgb - soft[..., :3])
    return Rendering(torch.minimum(rgb.clamp(min=0.0), rendering.alpha), rendering.alpha)


def wanted_amount(rendering: Rendering, images: Tensor, region: Tensor) -> Tensor:
    """The amount, [1], that makes renderings as detailed as true images in a region.

    images: [B, H, W, 3] in [0, 1]. region: [B, H, W] bool. The Laplacian's variance is a quadratic
    of the amount.
    """
    rest = _luma(rendering.rgb - _blurred(rendering.rgb))
    own, fine, true = (
        _laplacian(luma)[region] for luma in (_luma(rendering.rgb), rest, _luma(images))
    )
    own, fine = own - own.mean(), fine - fine.mean()
    wanted = WANTED * (true - true.mean()).square().mean()
    c, b, a = own.square().mean() - wanted, (own * fine).mean(), fine.square().mean()
    if not (c < 0 < a):  # sharp enough, or without any detail
        return torch.zeros(1, device=images.device)
    amount = (-b + (b * b - a * c).sqrt()) / a
    return amount.clamp(0.0, MOST)[None]


def _luma(images: Tensor) -> Tensor:
    return images @ torch.tensor(LUMA, device=images.device)


def _laplacian(images: Tensor) -> Tensor:
    """The 4-neighbour Laplacian of images [B, H, W]."""
    x = F.pad(images, (1, 1, 1, 1), mode="replicate")
    around = x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]
    return around - 4.0 * images


def _blurred(images: Tensor) -> Tensor:
    """Images [B, H, W, C], softened; beyond the borders they go on as they end."""
    rows = torch.cat([images[:, :1], images, images[:, -1:]], dim=1)
    x = MIDDLE * images + SIDE * (rows[:, :-2] + rows[:, 2:])
    columns = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
    return MIDDLE * x + SIDE * (columns[:, :, :-2] + columns[:, :, 2:])


@numba.njit(nogil=True, cache=True, parallel=True, fastmath=IN_ORDER, error_model="numpy")
def _sharpen_rows(rgb, alpha, amount, result):  # type: ignore[no-untyped-def]
    n_images, height, width = rgb.shape[0], rgb.shape[1], rgb.shape[2]
    side, middle, zero, one = np.float32(SIDE), np.float32(MIDDLE), np.float32(0.0), np.float32(1.0)
    opaque = np.float32(OPAQUE)
    for r in numba.prange(n_images * height):
        b, y = r // height, r % height
        up, down = max(y - 1, 0), min(y + 1, height - 1)
        column = np.empty((width + 2, 4), np.float32)
        for x in range(width):
            for c in range(3):
                column[x + 1, c] = middle * rgb[b, y, x, c] + side * (
                    rgb[b, up, x, c] + rgb[b, down, x, c]
                )
            column[x + 1, 3] = middle * alpha[b, y, x, 0] + side * (
                alpha[b, up, x, 0] + alpha[b, down, x, 0]
            )
        column[0], column[width + 1] = column[1], column[width]
        for x in range(width):
            cover = middle * column[x + 1, 3] + side * (column[x, 3] + column[x + 2, 3])
            share = amount * min(max((cover - opaque) / (one - opaque), zero), one)
            for c in range(3):
                soft = middle * column[x + 1, c] + side * (column[x, c] + column[x + 2, c])
                value = rgb[b, y, x, c]
                value += share * (value - soft)
                result[b, y, x, c] = min(max(value, zero), alpha[b, y, x, 0])
