"""How opaque the person is at the uncertain rim of the mask.

A rim pixel is a mixture I = a F + (1 - a) B of the person's colour F and the background's B. Both are
known from nearby: F is the mean of what is person for sure, B the plate, brought to the colours
that the background has near the person in this very frame. So a is where I lies on the line
from B to F, if it lies near it: dark hair among skin is no mixture of skin and a dark background.
Without it a renderer may learn the rim opaque, in the background's colours.
"""

from __future__ import annotations

import cv2
import numba
import numpy as np

from talkhead.renderers.arithmetic import AS_WRITTEN
from talkhead.types import Bool, Float32

COARSE = 4
"""Means of the neighbourhood are taken of images so many times smaller."""
REACH = 11
"""Side of the square that F and B are looked for in, coarse pixels."""
LEAST_SHARE = 0.005
LEAST_CONTRAST = 0.15
"""Distance of F and B in RGB from which the line between them has a direction to trust."""
MOST_BESIDE = 0.5
"""How far I may lie from the stretch between them, over its length, and be taken for a mixture."""


def rim_matte(
    image: Float32, plate: Float32, inner: Bool, rim: Bool
) -> tuple[Float32, Float32, Bool]:
    """Opacities [H, W] in [0, 1], the background [H, W, 3], and where of the rim they are known [H, W].

    image, plate: [H, W, 3] in [0, 1]. inner: [H, W] the person for sure; rim: [H, W] what may be either.
    Opacities are 1 inside, 0 outside of the rim, and 1 where they aren't known; there and elsewhere
    the background is the plate.
    """
    alpha, known, behind = (inner | rim).astype(np.float32), np.zeros_like(rim), plate.copy()
    if not rim.any():
        return alpha, behind, known
    small = [_coarse(picture) for picture in (image, plate)]
    person = _near(small[0], _coarse(inner.astype(np.float32)), rim.shape)
    offset = _near(small[0] - small[1], _coarse((~(inner | rim)).astype(np.float32)), rim.shape)
    _unmix(image, plate, rim, person, offset, alpha, behind, known)
    return alpha, behind, known


def _coarse(image: Float32) -> Float32:
    height, width = image.shape[:2]
    size = (-(-width // COARSE), -(-height // COARSE))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)


def _near(values: Float32, share: Float32, shape: tuple[int, ...]) -> Float32:
    """Near each pixel of an image of `shape`, [H, W, 4]: the sum of the coarse values [h, w, 3] among
    those that lie wholly where share [h, w] is 1, and their number, over that of all there."""
    flags = (share > 0.999).astype(np.float32)
    both = np.dstack([values * flags[..., None], flags])
    return np.asarray(cv2.resize(cv2.blur(both, (REACH, REACH)), shape[::-1]), np.float32)


@numba.njit(nogil=True, cache=True, fastmath=AS_WRITTEN, error_model="numpy")
def _unmix(image, plate, rim, person, offset, alpha, behind, known):  # type: ignore[no-untyped-def]
    """Writes the rim's pixels; person, offset: what `_near` says of the person and of image - plate."""
    zero, one = np.float32(0.0), np.float32(1.0)
    least, tiny = np.float32(LEAST_SHARE), np.float32(1e-6)
    least_contrast, beside = np.float32(LEAST_CONTRAST**2), np.float32(MOST_BESIDE**2)
    back, axis = np.empty(3, np.float32), np.empty(3, np.float32)
    for y in range(rim.shape[0]):
        for x in range(rim.shape[1]):
            if not rim[y, x]:
                continue
            n_person, n_nobody = max(person[y, x, 3], tiny), max(offset[y, x, 3], tiny)
            along, contrast = zero, zero
            for c in range(3):
                back[c] = min(max(plate[y, x, c] + offset[y, x, c] / n_nobody, zero), one)
                axis[c] = person[y, x, c] / n_person - back[c]
                along += (image[y, x, c] - back[c]) * axis[c]
                contrast += axis[c] * axis[c]
            if min(n_person, n_nobody) <= least or contrast <= least_contrast:
                continue
            share, off = min(max(along / contrast, zero), one), zero
            for c in range(3):
                off += (image[y, x, c] - back[c] - share * axis[c]) ** 2
            known[y, x] = off <= beside * contrast
            if known[y, x]:
                alpha[y, x] = share
                for c in range(3):
                    behind[y, x, c] = back[c]
