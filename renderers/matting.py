"""Opacity and color of the person at the uncertain rim of the mask.

A rim pixel is a mixture I = a F + (1 - a) B of the person's color F and the background's color B.
Both are estimated from the same image, as weighted means of the person, or of the background,
nearby. The mask gives a first opacity. Where F and B differ greatly, compared with how much both
vary along the line between them, the position of I on that line corrects it: the two estimates are
averaged, weighted by their certainty. In front of a plain background, this corrects a mask that is
too large. Dark hair in front of dark books, with bright skin nearby, keeps the opacity of the mask.
"""

from __future__ import annotations

import cv2
import numba
import numpy as np

from talkhead.renderers.fastmath import AS_WRITTEN
from talkhead.types import Bool, Float32, UInt8

COARSE = 4
"""Factor by which images are reduced before means of a neighborhood are computed."""
WINDOW_SIDES = (3, 7, 15)
"""Sides of the squares, in coarse pixels, over which F and B are averaged."""
WINDOW_DECAY = 0.1
"""Weight of a square relative to the next smaller one: the nearest colors dominate."""
LEVELS = (0.15, 0.85)
"""Mask values below the first count as background, above the second as person: segmentation leaves a
haze around people.
"""
EDGE = 7
"""Side of the square by which person and background are eroded before F and B are estimated, pixels:
masks are often a little too large or too small.
"""
NOISE = 0.06
"""Minimum standard deviation of F and B, in RGB."""
MASK_CERTAINTY = 400.0
"""Certainty of the mask's opacity. That of the colors is the cube of contrast^2 / variance."""
MIN_FRACTION = 0.001
"""Minimum fraction of a neighborhood that must be person, or background, for its mean to be used."""
N_MOMENTS = 10
"""Number of moments: the means of RGB and of its six products, and the fraction."""


def rim_matte(image: Float32, mask: UInt8, inner: Bool, rim: Bool) -> tuple[Float32, Float32]:
    """Estimate opacity and color at the rim of a mask.

    Args:
        image: [H, W, 3] in [0, 1].
        mask: [H, W], 255 where the person is.
        inner: [H, W], pixels that certainly show the person.
        rim: [H, W], pixels that may show the person or the background.

    Returns:
        Opacities [H, W] in [0, 1], which are 1 inside and 0 outside of the rim, and the image of
        the person alone [H, W, 3], premultiplied by them.
    """
    mask_alpha = np.where(rim, _soft_mask(mask), inner).astype(np.float32)
    alpha, person = mask_alpha.copy(), image * inner[..., None]
    if not rim.any():
        return alpha, person
    small, edge = _coarse(image), np.ones((EDGE, EDGE), np.uint8)
    front, back = (
        _moments(small, np.asarray(cv2.erode(share, edge), np.float32))
        for share in (mask_alpha, np.float32(1.0) - mask_alpha)
    )
    _unmix(image, mask_alpha, rim, front, back, alpha, person)
    return alpha, person


def _soft_mask(mask: UInt8) -> Float32:
    """Convert a mask [H, W] to [0, 1] with a smooth step between LEVELS."""
    low, high = LEVELS
    share = (np.arange(256, dtype=np.float32) / 255.0 - low) / (high - low)
    share = np.clip(share, 0.0, 1.0)
    return np.asarray(cv2.LUT(mask, share * share * (3.0 - 2.0 * share)), np.float32)


def _coarse(image: Float32) -> Float32:
    """Reduce an image [H, W, ...] by COARSE, averaging."""
    height, width = image.shape[:2]
    size = (-(-width // COARSE), -(-height // COARSE))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)


def _moments(small: Float32, share: Float32) -> Float32:
    """Compute weighted means around each coarse pixel.

    Args:
        small: [h, w, 3], the reduced image.
        share: [H, W] in [0, 1], the fraction of person or background in each pixel. Its cube is the
            weight.

    Returns:
        [h, w, N_MOMENTS]: means of RGB and of rr, gg, bb, rg, gb, br, and the mean weight.
    """
    weights = _coarse(share * share * share)
    squares, products = small * small, small * small[..., [1, 2, 0]]
    values = np.concatenate([small, squares, products, np.ones_like(small[..., :1])], axis=2)
    values *= weights[..., None]
    total, factor = np.zeros_like(values), 1.0
    for side in WINDOW_SIDES:
        total += np.float32(factor) * cv2.blur(values, (side, side))
        factor *= WINDOW_DECAY
    total[..., :-1] /= np.maximum(total[..., -1:], np.float32(1e-9))
    return total


@numba.njit(nogil=True, cache=True, fastmath=AS_WRITTEN, error_model="numpy")
def _unmix(image, mask_alpha, rim, front, back, alpha, person):  # type: ignore[no-untyped-def]
    """Write the rim's pixels of alpha and person.

    Args:
        image: [H, W, 3], the frame.
        mask_alpha: [H, W], opacities from the mask.
        rim: [H, W], the pixels to write.
        front: [h, w, N_MOMENTS], moments of the person.
        back: [h, w, N_MOMENTS], moments of the background.
        alpha: [H, W], written.
        person: [H, W, 3], written.
    """
    zero, one = np.float32(0.0), np.float32(1.0)
    noise, sure = np.float32(NOISE**2), np.float32(MASK_CERTAINTY)
    least, tiny = np.float32(MIN_FRACTION), np.float32(1e-6)
    front_moments, back_moments = np.empty(N_MOMENTS, np.float32), np.empty(N_MOMENTS, np.float32)
    axis = np.empty(3, np.float32)
    for y in range(rim.shape[0]):
        for x in range(rim.shape[1]):
            if not rim[y, x]:
                continue
            _look_up(front, y, x, front_moments)
            _look_up(back, y, x, back_moments)
            share, certainty = mask_alpha[y, x], zero
            if front_moments[9] > least and back_moments[9] > least:
                # Project the pixel onto the line from B to F: place in [0, 1] is the opacity.
                along, contrast = zero, tiny
                for c in range(3):
                    axis[c] = front_moments[c] - back_moments[c]
                    along += (image[y, x, c] - back_moments[c]) * axis[c]
                    contrast += axis[c] * axis[c]
                place, off_axis = min(max(along / contrast, zero), one), zero
                for c in range(3):
                    off_axis += (image[y, x, c] - back_moments[c] - place * axis[c]) ** 2
                spread, rest = _spread(front_moments, axis, contrast)
                spread_far, rest_far = _spread(back_moments, axis, contrast)
                # The distance from the line adds to the variance, unless F and B vary across it.
                variance = noise + spread + spread_far
                variance += off_axis * off_axis / (noise + rest + rest_far)
                # Average both estimates of the opacity, weighted by their certainty.
                certainty = (contrast / variance) ** 3
                share = (certainty * place + sure * share) / (certainty + sure)
            # The person's part of the pixel: I - (1 - a) B, premultiplied.
            alpha[y, x] = share
            for c in range(3):
                behind = back_moments[c] if back_moments[9] > least else image[y, x, c]
                own = image[y, x, c] - (one - share) * behind
                person[y, x, c] = min(max(own, zero), share)


@numba.njit(nogil=True, cache=True, fastmath=AS_WRITTEN, error_model="numpy")
def _look_up(moments, y, x, found):  # type: ignore[no-untyped-def]
    """Interpolate the moments [h, w, N_MOMENTS] bilinearly at a pixel, into found [N_MOMENTS]."""
    height, width = moments.shape[0], moments.shape[1]
    half, step = np.float32(0.5), np.float32(COARSE)
    row = min(max((np.float32(y) + half) / step - half, np.float32(0.0)), np.float32(height - 1))
    column = min(max((np.float32(x) + half) / step - half, np.float32(0.0)), np.float32(width - 1))
    top, left = int(row), int(column)
    below, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = row - np.float32(top), column - np.float32(left)
    for k in range(N_MOMENTS):
        upper = moments[top, left, k] + across * (moments[top, right, k] - moments[top, left, k])
        lower = moments[below, left, k]
        lower += across * (moments[below, right, k] - moments[below, left, k])
        found[k] = upper + down * (lower - upper)


@numba.njit(nogil=True, cache=True, fastmath=AS_WRITTEN, error_model="numpy")
def _spread(moments, axis, contrast):  # type: ignore[no-untyped-def]
    """Return the variance of colors along an axis [3] of squared length `contrast`, and across it."""
    zero = np.float32(0.0)
    along, total = zero, zero
    for c in range(3):
        d = (c + 1) % 3
        variance = moments[3 + c] - moments[c] * moments[c]
        covariance = moments[6 + c] - moments[c] * moments[d]
        along += axis[c] * axis[c] * variance
        along += np.float32(2.0) * axis[c] * axis[d] * covariance
        total += variance
    along = max(along / contrast, zero)
    return along, max(total - along, zero)
