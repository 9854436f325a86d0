"""The matte of a rim in plain numpy, on whole images: the reference for the kernels."""

from __future__ import annotations

import cv2
import numpy as np

from talkhead.renderers import matting
from talkhead.types import Bool, Float32, Float64, UInt8


def reference_matte(image: Float32, mask: UInt8, inner: Bool, rim: Bool) -> tuple[Float64, Float64]:
    """Return opacities [H, W] and person [H, W, 3], as matting.rim_matte, in float64."""
    low, high = matting.LEVELS
    steps = np.clip((mask / 255.0 - low) / (high - low), 0.0, 1.0)
    share = np.where(rim, steps * steps * (3.0 - 2.0 * steps), inner)
    edge, colors = np.ones((matting.EDGE, matting.EDGE), np.uint8), image.astype(np.float64)
    rim = rim & (cv2.dilate(share, edge) > 0.0)
    front, back = (_moments(colors, cv2.erode(part, edge)) for part in (share, 1.0 - share))
    known = back[..., 9:] > matting.MIN_FRACTION
    both = known[..., 0] & (front[..., 9] > matting.MIN_FRACTION)
    corrected = np.where(both, _corrected(colors, share, front, back), share)
    alpha = np.where(rim, corrected, inner)
    behind = np.where(known, back[..., :3], colors)
    own = np.clip(colors - (1.0 - alpha[..., None]) * behind, 0.0, alpha[..., None])
    person = np.where(rim[..., None], own, colors * inner[..., None])
    return alpha, person


def _moments(image: Float64, share: Float64) -> Float64:
    """Weighted means around each pixel, [H, W, 10]: RGB, rr, gg, bb, rg, gb, br and the weight."""
    weights, small = _coarse(share**3)[..., None], _coarse(image)
    parts = [small, small**2, small * small[..., [1, 2, 0]], np.ones_like(weights)]
    values, total = np.concatenate(parts, axis=2) * weights, np.zeros((*weights.shape[:2], 10))
    for i, side in enumerate(matting.WINDOW_SIDES):
        total += matting.WINDOW_DECAY**i * cv2.blur(values, (side, side))
    total[..., :9] /= np.maximum(total[..., 9:], 1e-9)
    y, x = (_places(n, m) for n, m in zip(share.shape, total.shape[:2], strict=True))
    lines = _between(total, y)
    return _between(lines.transpose(1, 0, 2), x).transpose(1, 0, 2)


def _coarse(image: Float64) -> Float64:
    height, width = (-(-n // matting.COARSE) for n in image.shape[:2])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))


def _places(n: int, n_coarse: int) -> Float64:
    """Return the position [n] of pixels among n_coarse coarse ones."""
    return np.clip((np.arange(n) + 0.5) / matting.COARSE - 0.5, 0, n_coarse - 1)


def _between(values: Float64, places: Float64) -> Float64:
    """Interpolate values along their first axis at places [n]."""
    before = places.astype(int)
    after = np.minimum(before + 1, len(values) - 1)
    weight = (places - before).reshape(-1, *[1] * (values.ndim - 1))
    return values[before] * (1.0 - weight) + values[after] * weight


def _corrected(image: Float64, share: Float64, front: Float64, back: Float64) -> Float64:
    """Average the opacities of the mask and of the colors, [H, W]."""
    axis, offset = front[..., :3] - back[..., :3], image - back[..., :3]
    contrast = (axis**2).sum(-1) + 1e-6
    place = np.clip((offset * axis).sum(-1) / contrast, 0.0, 1.0)
    off_axis = ((offset - place[..., None] * axis) ** 2).sum(-1)
    (near, near_rest), (far, far_rest) = (_spread(m, axis, contrast) for m in (front, back))
    noise = matting.NOISE**2
    variance = noise + near + far + off_axis**2 / (noise + near_rest + far_rest)
    certainty = (contrast / variance) ** 3
    sure = matting.MASK_CERTAINTY
    return np.asarray((certainty * place + sure * share) / (certainty + sure))


def _spread(moments: Float64, axis: Float64, contrast: Float64) -> tuple[Float64, Float64]:
    """Return the variance of colors along the axes [H, W, 3], and across them."""
    mean, following = moments[..., :3], [1, 2, 0]
    variance = moments[..., 3:6] - mean**2
    covariance = moments[..., 6:9] - mean * mean[..., following]
    mixed = (axis * axis[..., following] * covariance).sum(-1)
    along = np.maximum(((axis**2 * variance).sum(-1) + 2.0 * mixed) / contrast, 0.0)
    return along, np.maximum(variance.sum(-1) - along, 0.0)
