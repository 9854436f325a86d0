"""Describe the clothes of every frame: how collar and jacket differ from a body that moves affinely.

The brightness of a grid over neck and clothes is sampled where the affine motion of the body takes it.
What head pose and body motion do not explain of it is reduced to principal components. They also
describe motion where optical flow finds none, such as that of a collar along its own edge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from talkhead.crops import body_area
from talkhead.face import N_BODY, N_CLOTHES
from talkhead.preprocess.body_motion import smoothed
from talkhead.preprocess.person_mask import CropPlan
from talkhead.types import Bool, Float32, Float64, UInt8

GRID_ROWS, GRID_COLUMNS = 20, 40
N_POINTS = GRID_ROWS * GRID_COLUMNS
MIN_CHANGE = 0.004
"""The first component has standard deviation 1 if the brightness changes at least this much, RMS over the
grid; less is noise, and components are smaller."""
PART = 1000
"""Number of frames whose brightness is in memory at once."""
MAX_OUTLIER = 3.0
"""Frames whose change is larger than this many times the median one show something other than clothes."""


class ClothesGrid:
    """A grid of points on neck and clothes that moves with the body of a reference frame."""

    def __init__(
        self, mask: UInt8, landmarks: Float32, frame: int, plan: CropPlan, intrinsics: Float64
    ) -> None:
        """Lay the grid over the part of a frame's crop that is well below the jaw.

        Args:
            mask: [H, W] uint8, person mask of the reference frame.
            landmarks: [478, 3] of the reference frame, source pixels.
            frame: Number of the reference frame.
            plan: Position and size of the crops.
            intrinsics: [3, 3] of the source.
        """
        self._plan, self._intrinsics = plan, intrinsics
        points = (landmarks[:, :2] - plan.origins[frame]) * plan.scale
        area = cv2.min(body_area(points, (mask.shape[0], mask.shape[1])), mask)
        left, top, width, height = cv2.boundingRect(area)
        self._cell = max(height / GRID_ROWS, width / GRID_COLUMNS)
        x, y = np.meshgrid(
            left + (np.arange(GRID_COLUMNS) + 0.5) * width / GRID_COLUMNS,
            top + (np.arange(GRID_ROWS) + 0.5) * height / GRID_ROWS,
        )
        places = np.stack([x.ravel(), y.ravel()], axis=1)  # [N_POINTS, 2]
        row, column = (places[:, i].astype(int) for i in (1, 0))
        inside = area[np.minimum(row, len(area) - 1), np.minimum(column, area.shape[1] - 1)] > 127
        self._inside = inside if height else np.zeros(N_POINTS, dtype=bool)
        source = places / plan.scale + plan.origins[frame]
        self._rays = (source - intrinsics[:2, 2]) / intrinsics[0, 0]

    def brightness(self, crop: UInt8, frame: int, row: Float64) -> Float64:
        """Sample the luma of a frame, smoothed over a part of the distance between points.

        Args:
            crop: [H, W, 3] uint8, crop of the frame.
            frame: Its number.
            row: [ROW] of `BodyTracker.follow` for the frame.

        Returns:
            [N_POINTS] in [0, 1]; 0 outside neck and clothes, and where the body was not found.
        """
        seen = np.zeros(N_POINTS)
        if row[0] == 0 or not self._inside.any():
            return seen
        # Where the body's affine map takes the points, in pixels of the crop.
        plan, focal = self._plan, self._intrinsics[0, 0]
        matrix = np.eye(2, 3) + row[1 : 1 + N_BODY].reshape(2, 3)
        rays = self._rays[self._inside] @ matrix[:, :2].T + matrix[:, 2]
        places = (rays * focal + self._intrinsics[:2, 2] - plan.origins[frame]) * plan.scale
        top = int(np.clip(places[:, 1].min() - 2 * self._cell, 0, len(crop) - 1))
        gray = cv2.cvtColor(np.ascontiguousarray(crop[top:]), cv2.COLOR_RGB2GRAY)
        gray = cv2.GaussianBlur(gray, (0, 0), 0.5 * self._cell)
        x, y = (places - (0.5, top + 0.5)).T.astype(np.float32)
        found = cv2.remap(gray, x[None], y[None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        seen[self._inside] = found[0] / 255.0
        return seen


def clothes_codes(
    seen: Float64,
    rows: Float64,
    posture: Float64,
    usable: Bool,
    train: Bool,
    parts: Sequence[slice] = (slice(None),),
) -> Float32:
    """Compute the components of motion codes that describe the clothes.

    Args:
        seen: [F, N_POINTS] of `ClothesGrid.brightness`.
        rows: [F, ROW] of `BodyTracker.follow`.
        posture: [F, D] numbers that brightness may depend on linearly: head pose and body motion.
        usable: [F] frames that are well tracked.
        train: [F] frames that are not held out; the components are those of usable training frames.
        parts: See `smoothed`.

    Returns:
        [F, N_CLOTHES]; all 0 where the body has no texture by which it could be followed. The first
        component has standard deviation 1 on training frames before it is smoothed, see MIN_CHANGE.
    """
    known = usable & (rows[:, 0] > 0)
    training = known & train  # [F]
    inside = np.zeros(seen.shape[1], bool)
    for part in _parts(len(seen)):
        inside |= seen[part][training[part]].any(0)
    if training.sum() <= posture.shape[1] + N_CLOTHES or inside.sum() < N_CLOTHES:
        return np.zeros((len(seen), N_CLOTHES), np.float32)
    change = _Unexplained(seen, inside, posture, training)
    # Frames with something else in front of the clothes, such as a hand, do not define them.
    size = np.concatenate([np.linalg.norm(change[part], axis=1) for part in _parts(len(seen))])
    training &= size <= MAX_OUTLIER * np.median(size[training])
    # Principal components.
    covariance = np.zeros((int(inside.sum()),) * 2)
    for part in _parts(len(seen)):
        chosen = change[part][training[part]]
        covariance += chosen.T @ chosen
    _, vectors = np.linalg.eigh(covariance)
    leading = vectors[:, ::-1][:, :N_CLOTHES]
    codes = np.concatenate([change[part] @ leading for part in _parts(len(seen))])
    scale = max(codes[training, 0].std(), MIN_CHANGE * np.sqrt(inside.sum()))
    return smoothed(codes / scale, known, parts).astype(np.float32)


class _Unexplained:
    """What posture does not explain of the brightness, computed part by part: all of it is large."""

    def __init__(self, seen: Float64, inside: Bool, posture: Float64, training: Bool) -> None:
        """Regress brightness [F, N_POINTS] at the points inside on posture [F, D], on training frames."""
        spread = np.maximum(posture[training].std(0), 1e-9)
        scaled = (posture - posture[training].mean(0)) / spread
        self._causes = np.concatenate([np.ones((len(seen), 1)), scaled], axis=1)  # [F, 1 + D]
        self._seen, self._inside = seen, inside
        n_causes = self._causes.shape[1]
        normal, right = np.zeros((n_causes, n_causes)), np.zeros((n_causes, int(inside.sum())))
        for part in _parts(len(seen)):
            causes = self._causes[part][training[part]]
            normal += causes.T @ causes
            right += causes.T @ seen[part][training[part]][:, inside]
        self._slopes = np.linalg.lstsq(normal, right, rcond=None)[0]  # [1 + D, n]

    def __getitem__(self, part: slice) -> Float64:
        """Return the unexplained brightness [m, n] of some frames."""
        return np.asarray(self._seen[part][:, self._inside] - self._causes[part] @ self._slopes)


def _parts(n_frames: int) -> Iterator[slice]:
    """Split frames into slices of at most PART."""
    return (slice(start, start + PART) for start in range(0, n_frames, PART))
