"""How opaque the person is at the uncertain rim of the mask.

A rim pixel is a mixture I = a F + (1 - a) B of the person's colour F and the background's B. Both are
known from nearby: F is the mean of what is person for sure, B the plate, brought to the colours
that the background has near the person in this very frame. So a is where I lies on the line
from B to F. Without it a renderer may learn the rim opaque, in the background's colours.
"""

from __future__ import annotations

import cv2
import numpy as np

from talkhead.types import Bool, Float32

COARSE = 4
"""Means of the neighbourhood are taken of images so many times smaller."""
REACH = 11
"""Side of the square that F and B are looked for in, coarse pixels."""
LEAST_SHARE = 0.005
LEAST_CONTRAST = 0.15
"""Distance of F and B in RGB from which the line between them has a direction to trust."""


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
    person, n_person = _mean_near(small[0], _coarse(inner.astype(np.float32)), rim)
    nobody = _coarse((~(inner | rim)).astype(np.float32))
    offset, n_nobody = _mean_near(small[0] - small[1], nobody, rim)
    pixels, back = image[rim], np.clip(plate[rim] + offset, 0.0, 1.0)
    axis = person - back
    contrast = np.square(axis).sum(-1)
    share = ((pixels - back) * axis).sum(-1) / np.maximum(contrast, 1e-6)
    sure = (np.minimum(n_person, n_nobody) > LEAST_SHARE) & (contrast > LEAST_CONTRAST**2)
    alpha[rim] = np.where(sure, np.clip(share, 0.0, 1.0), 1.0)
    behind[rim] = np.where(sure[:, None], back, plate[rim])
    known[rim] = sure
    return alpha, behind, known


def _coarse(image: Float32) -> Float32:
    height, width = image.shape[:2]
    size = (-(-width // COARSE), -(-height // COARSE))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)


def _mean_near(values: Float32, share: Float32, wanted: Bool) -> tuple[Float32, Float32]:
    """The mean [n, 3] of coarse values [h, w, 3] near each wanted pixel [H, W] among those that lie
    wholly where share [h, w] is 1, and how many they are [n], of all there."""
    flags = (share > 0.999).astype(np.float32)
    both = np.dstack([values * flags[..., None], flags])
    near = cv2.resize(cv2.blur(both, (REACH, REACH)), wanted.shape[::-1])[wanted]
    return near[:, :3] / np.maximum(near[:, 3:], 1e-6), near[:, 3]
