"""Track how the body sways: an affine map of the region below the head, frame by frame.

The body moves independently of the head; without its motion, collars would be rendered blurred. Corners
of one training frame are followed into the others by pyramidal Lucas-Kanade (Bouguet 2001), and an affine
map is fitted to them by RANSAC.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d, median_filter

from talkhead.crops import body_area
from talkhead.face import N_BODY
from talkhead.preprocess.person_mask import CropPlan
from talkhead.types import Bool, Float32, Float64, UInt8

MAX_CORNERS = 150
MIN_INLIERS = 12
MAX_BACK_ERROR_PX = 1.0
SMOOTH_FRAMES = 0.7
ROW = 1 + N_BODY + 2


class BodyTracker:
    """Follows the body of one frame into the others, which are given in order."""

    def __init__(
        self,
        crop: UInt8,
        mask: UInt8,
        landmarks: Float32,
        frame: int,
        plan: CropPlan,
        intrinsics: Float64,
    ) -> None:
        """Find corners to follow.

        Args:
            crop: [H, W, 3] uint8, crop of the reference frame.
            mask: [H, W] uint8, its person mask.
            landmarks: [478, 3] of the reference frame, source pixels.
            frame: Number of the reference frame.
            plan: Position and size of the crops.
            intrinsics: [3, 3] of the source.
        """
        self._gray, self._frame, self._plan, self._intrinsics = _gray(crop), frame, plan, intrinsics
        self._corners = _corners(self._gray, mask, landmarks, plan, frame)
        self._start = _to_source(self._corners, plan, frame)
        self._shift = np.zeros(2)

    def resume(self, row: Float64) -> None:
        """Start the next search where the body was last found.

        Args:
            row: [ROW], the result of `follow` for the frame before the next one.
        """
        self._shift = row[-2:]

    def restart(self, shift: Float64) -> None:
        """Start the next search elsewhere, where another clip begins.

        Args:
            shift: [2] by which the person moved from the reference frame, source pixels.
        """
        self._shift = shift

    def follow(self, crop: UInt8, frame: int) -> Float64:
        """Find the body in a frame.

        Args:
            crop: [H, W, 3] uint8, crop of the frame.
            frame: Its number.

        Returns:
            A row [ROW] for `body_codes`: 1 if the body was found, its affine map minus the identity, and
            its last known shift in source pixels. All 0 where there are too few corners.
        """
        row = np.zeros(ROW)
        if len(self._corners) >= MIN_INLIERS:
            ends, found = self._find(_gray(crop), frame)
            matrix = _affine(self._start[found], ends[found], self._intrinsics)
            if matrix is not None:
                row[0], row[1:-2] = 1.0, (matrix - np.eye(2, 3)).ravel()
                self._shift = np.median((ends - self._start)[found], axis=0)
            row[-2:] = self._shift
        return row

    def _find(self, gray: UInt8, frame: int) -> tuple[Float64, Bool]:
        """Return the corners [n, 2] in source pixels, and [n] whether each tracks back to its start."""
        plan, corners = self._plan, self._corners
        moved = (self._shift + plan.origins[self._frame] - plan.origins[frame]) * plan.scale
        guess = (corners + moved).astype(np.float32)
        ends, ok = _flow(self._gray, gray, corners, guess)
        back, ok_back = _flow(gray, self._gray, ends, corners)
        near = np.linalg.norm(back - corners, axis=1) < MAX_BACK_ERROR_PX
        return _to_source(ends, plan, frame), ok & ok_back & near


def body_codes(rows: Float64, parts: Sequence[slice] = (slice(None),)) -> Float32:
    """Turn the rows of all frames into codes; fill holes, remove outliers, and smooth slightly.

    Args:
        rows: [F, ROW] of `BodyTracker.follow`.
        parts: See `smoothed`.

    Returns:
        [F, 6], see `talkhead.face.body_matrix`.
    """
    return smoothed(rows[:, 1:-2], rows[:, 0] > 0, parts).astype(np.float32)


def smoothed(codes: Float64, known: Bool, parts: Sequence[slice] = (slice(None),)) -> Float64:
    """Remove outliers from codes, fill the frames in which they are unknown, and smooth slightly.

    Args:
        codes: [F, n] codes.
        known: [F] frames in which they are known.
        parts: Frames of each clip of a joined video, which are smoothed separately.

    Returns:
        [F, n]; the codes themselves if they are known nowhere.
    """
    if not known.any():
        return codes
    times = np.arange(len(codes))
    filled = np.stack(
        [np.interp(times, times[known], codes[known, i]) for i in range(codes.shape[1])], axis=1
    )
    for part in parts:
        steady = median_filter(filled[part], size=(3, 1), mode="nearest")
        filled[part] = gaussian_filter1d(steady, SMOOTH_FRAMES, axis=0, mode="nearest")
    return np.asarray(filled)


def _gray(image: UInt8) -> UInt8:
    """Convert an image [H, W, 3] to gray [H, W]."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def _corners(gray: UInt8, mask: UInt8, landmarks: Float32, plan: CropPlan, frame: int) -> Float32:
    """Find corners [n, 2] in crop pixels on the person, well below the jaw.

    gray, mask: [H, W] of the crop. landmarks: [478, 3] in source pixels.
    """
    points = (landmarks[:, :2] - plan.origins[frame]) * plan.scale
    person = (cv2.erode(mask, np.ones((9, 9), np.uint8)) > 200).astype(np.uint8)
    region = cv2.min(body_area(points, (mask.shape[0], mask.shape[1])), person)
    found = cv2.goodFeaturesToTrack(gray, MAX_CORNERS, 0.01, 5, mask=region)
    return np.zeros((0, 2), np.float32) if found is None else found[:, 0].astype(np.float32)


def _to_source(points: Float32, plan: CropPlan, frame: int) -> Float64:
    """Convert points [n, 2] of a frame's crop to source pixels."""
    return points.astype(np.float64) / plan.scale + plan.origins[frame]


def _flow(first: UInt8, second: UInt8, points: Float32, guess: Float32) -> tuple[Float32, Bool]:
    """Follow points [n, 2] from a guess [n, 2] in a second image; return them, and [n] whether found."""
    flags = cv2.OPTFLOW_USE_INITIAL_FLOW
    ends, found, _ = cv2.calcOpticalFlowPyrLK(
        first, second, points, guess.copy(), winSize=(15, 15), maxLevel=2, flags=flags
    )
    return ends, found[:, 0] > 0


def _affine(start: Float64, end: Float64, intrinsics: Float64) -> Float64 | None:
    """Fit an affine map [2, 3] of normalized image coordinates; None if too few points agree.

    start, end: [n, 2] in source pixels. intrinsics: [3, 3].
    """
    if len(start) < MIN_INLIERS:
        return None
    centre, focal = intrinsics[:2, 2], intrinsics[0, 0]
    cv2.setRNGSeed(0)
    matrix, inliers = cv2.estimateAffine2D(
        (start - centre) / focal, (end - centre) / focal, ransacReprojThreshold=1.0 / focal
    )
    return None if matrix is None or inliers.sum() < MIN_INLIERS else np.asarray(matrix)
