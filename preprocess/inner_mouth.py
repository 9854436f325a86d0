"""Describe what is visible between the lips, which their shape does not determine.

Mouths of the same shape may show teeth, tongue or darkness, and a renderer conditioned on shape alone
learns an average. The brightness on a small grid between the inner lips is reduced to its principal
components, and fades out as the mouth closes.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from talkhead.easing import smooth_step
from talkhead.face import INNER_LIPS, N_INNER, lip_aperture
from talkhead.types import Bool, Float32, Float64, UInt8

LOWER = INNER_LIPS[:11]
UPPER = (INNER_LIPS[0], *INNER_LIPS[:9:-1])
"""Landmarks of each lip, from corner to corner."""
ROWS, COLUMNS = 4, 9
N_PLACES = ROWS * COLUMNS
MARGIN = 0.12
"""Fraction of the mouth's width at each corner where the opening is too thin to be measured."""
SHUT, OPEN = 0.02, 0.07
"""Aperture up to which nothing is visible, and aperture from which the inner mouth has full weight."""


def inner_mouth_codes(
    seen: Float64,
    landmarks: Float32,
    usable: Bool,
    train: Bool,
    parts: Sequence[slice] = (slice(None),),
) -> Float32:
    """Compute the inner-mouth components of motion codes.

    They are 0 where the mouth is closed or not tracked, and everywhere if it never opens in training
    frames. The first component has standard deviation 1 on training frames.

    Args:
        seen: [F, N_PLACES] of `mouth_brightness`.
        landmarks: [F, 478, 2] in crop pixels.
        usable: [F] frames that are well tracked.
        train: [F] frames that are not held out; the components are those of usable training frames.
        parts: Frames of each clip of a joined video; each has its own mean, since the light may differ.

    Returns:
        [F, N_INNER].
    """
    tracked = np.ptp(landmarks, axis=1).any(1)  # [F]; without a face all points coincide
    weights = np.zeros(len(seen))
    weights[tracked] = _openness(lip_aperture(landmarks[tracked]))
    training = usable & train & (weights > 0)
    if training.sum() <= N_INNER:
        return np.zeros((len(seen), N_INNER), np.float32)
    shown = np.zeros_like(seen)
    for part in parts:
        known = training[part]
        if known.any():
            mean = np.average(seen[part][known], axis=0, weights=weights[part][known])
            shown[part] = weights[part, None] * (seen[part] - mean)
    _, _, axes = np.linalg.svd(shown[usable & train], full_matrices=False)
    codes = shown @ axes[:N_INNER].T
    return np.asarray(codes / max(codes[usable & train, 0].std(), 1e-6), np.float32)


def _openness(aperture: Float32) -> Float64:
    """Map apertures [F] to 0 where the mouth is closed, rising smoothly to 1."""
    return smooth_step((aperture.astype(np.float64) - SHUT) / (OPEN - SHUT))


def _grid(points: Float32) -> Float32:
    """Return points [ROWS, COLUMNS, 2] between the inner lips of landmarks [478, 2]."""
    along = np.linspace(MARGIN, 1.0 - MARGIN, COLUMNS) * (len(UPPER) - 1)
    number, share = along.astype(int), (along % 1.0)[:, None]

    def at(lip: tuple[int, ...]) -> Float32:
        edge = points[list(lip)]
        return np.asarray(edge[number] * (1.0 - share) + edge[number + 1] * share)

    down = np.linspace(0.1, 0.9, ROWS)[:, None, None]
    return np.asarray(at(UPPER) * (1.0 - down) + at(LOWER) * down, np.float32)


def mouth_brightness(image: UInt8, landmarks: Float32) -> Float64:
    """Sample the luma between the lips, smoothed over a part of the sample distance.

    Args:
        image: [H, W, 3] uint8 RGB, a crop.
        landmarks: [478, 2] in pixels of the crop.

    Returns:
        [N_PLACES] in [0, 1]; 0 where the mouth is outside the crop.
    """
    grid = _grid(landmarks)
    left, top = np.maximum(np.floor(grid.reshape(-1, 2).min(0)).astype(int) - 4, 0)
    right, bottom = np.ceil(grid.reshape(-1, 2).max(0)).astype(int) + 5
    part = np.ascontiguousarray(image[top : max(bottom, top + 1), left : max(right, left + 1)])
    if part.size == 0:
        return np.zeros(N_PLACES)
    sigma = max(0.6, 0.12 * float(np.linalg.norm(grid[0, -1] - grid[0, 0])) / (COLUMNS - 1))
    gray = cv2.GaussianBlur(
        cv2.cvtColor(part, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), sigma
    )
    places = (grid - np.array([left, top]) - 0.5).astype(np.float32)
    found = cv2.remap(
        gray, places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(found.ravel() / 255.0, np.float64)
