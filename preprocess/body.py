"""How the body sways: an affine map of the region under the head, frame by frame.

The head turns on a body that moves by itself; a collar that stood still would blur. Corners of one
training frame are followed into every other by pyramidal Lucas-Kanade (Bouguet 2001), and an
affine map is fitted to them by RANSAC.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d, median_filter

from talkhead.dataset import ImageFile
from talkhead.face import CHIN, JAW_LINE, N_BODY
from talkhead.preprocess.segmentation import CropPlan
from talkhead.progress import Progress
from talkhead.types import Bool, Float32, Float64, Int, UInt8

MAX_CORNERS = 150
MIN_INLIERS = 12
MAX_BACK_ERROR_PX = 1.0
SMOOTH_FRAMES = 0.7


def track_body(
    frames: ImageFile,
    masks: ImageFile,
    landmarks: Float32,
    usable: Bool,
    train: Bool,
    plan: CropPlan,
    intrinsics: Float64,
    progress: Progress,
) -> Float32:
    """Body codes [F, 6], see talkhead.face.body_matrix.

    frames, masks: the crops. landmarks: [F, 478, 3] source pixels. usable, train: [F]. intrinsics:
    [3, 3] of the source. Zero where the region shows too few corners to follow.
    """
    n = len(frames)
    reference = _middle(np.flatnonzero(usable & train))
    grey = _grey(frames[reference])
    corners = _corners(grey, masks[reference], landmarks[reference], plan, reference)
    codes = np.zeros((n, N_BODY))
    if len(corners) < MIN_INLIERS:
        return codes.astype(np.float32)
    start = _to_source(corners, plan, reference)
    known = np.zeros(n, dtype=bool)
    shift = np.zeros(2)
    with progress.step("Following the body", total=n) as step:
        for i in range(n):
            ends, found = _follow(grey, _grey(frames[i]), corners, plan, reference, i, shift)
            matrix = _affine(start[found], _to_source(ends, plan, i)[found], intrinsics)
            if matrix is not None:
                known[i], codes[i] = True, (matrix - np.eye(2, 3)).ravel()
                shift = np.median((_to_source(ends, plan, i) - start)[found], axis=0)
            step.advance()
    return _smooth(codes, known).astype(np.float32)


def _middle(frames: Int) -> int:
    return int(frames[len(frames) // 2])


def _grey(image: UInt8) -> UInt8:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def _corners(grey: UInt8, mask: UInt8, landmarks: Float32, plan: CropPlan, frame: int) -> Float32:
    """Corners [n, 2] in crop pixels on the person, well below the jaw."""
    points = (landmarks[:, :2] - plan.origins[frame]) * plan.scale
    jaw = points[list(JAW_LINE)]
    region = (cv2.erode(mask, np.ones((9, 9), np.uint8)) > 200).astype(np.uint8)
    margin = 0.06 * float(points[CHIN, 1] - points[10, 1])
    lowered, raised = jaw + np.array([0, margin]), jaw * np.array([1, 0])
    hull = np.concatenate([lowered, raised]).round().astype(np.int32)
    cv2.fillConvexPoly(region, cv2.convexHull(hull), 0)
    region[: int(np.clip(jaw[:, 1].mean(), 0, len(region)))] = 0
    found = cv2.goodFeaturesToTrack(grey, MAX_CORNERS, 0.01, 5, mask=region)
    return np.zeros((0, 2), np.float32) if found is None else found[:, 0].astype(np.float32)


def _to_source(points: Float32, plan: CropPlan, frame: int) -> Float64:
    return points.astype(np.float64) / plan.scale + plan.origins[frame]


def _follow(
    grey: UInt8,
    other: UInt8,
    corners: Float32,
    plan: CropPlan,
    reference: int,
    frame: int,
    shift: Float64,
) -> tuple[Float32, Bool]:
    """Where the corners are in another crop [n, 2], and which came back to where they began."""
    moved = (shift + plan.origins[reference] - plan.origins[frame]) * plan.scale
    guess = (corners + moved).astype(np.float32)
    ends, ok = _flow(grey, other, corners, guess)
    back, ok_back = _flow(other, grey, ends, corners)
    near = np.linalg.norm(back - corners, axis=1) < MAX_BACK_ERROR_PX
    return ends, ok & ok_back & near


def _flow(first: UInt8, second: UInt8, points: Float32, guess: Float32) -> tuple[Float32, Bool]:
    """Where points [n, 2] of one image are in another, and which were found, from a first guess."""
    flags = cv2.OPTFLOW_USE_INITIAL_FLOW
    ends, found, _ = cv2.calcOpticalFlowPyrLK(
        first, second, points, guess.copy(), winSize=(15, 15), maxLevel=2, flags=flags
    )
    return ends, found[:, 0] > 0


def _affine(start: Float64, end: Float64, intrinsics: Float64) -> Float64 | None:
    """The affine map [2, 3] of normalised image coordinates, None without enough agreement."""
    if len(start) < MIN_INLIERS:
        return None
    centre, focal = intrinsics[:2, 2], intrinsics[0, 0]
    cv2.setRNGSeed(0)
    matrix, inliers = cv2.estimateAffine2D(
        (start - centre) / focal, (end - centre) / focal, ransacReprojThreshold=1.0 / focal
    )
    return None if matrix is None or inliers.sum() < MIN_INLIERS else np.asarray(matrix)


def _smooth(codes: Float64, known: Bool) -> Float64:
    """Codes with outliers removed, holes filled, and slightly smoothed in time."""
    if not known.any():
        return codes
    times = np.arange(len(codes))
    filled = np.stack(
        [np.interp(times, times[known], codes[known, i]) for i in range(codes.shape[1])], axis=1
    )
    steady = median_filter(filled, size=(3, 1), mode="nearest")
    return np.asarray(gaussian_filter1d(steady, SMOOTH_FRAMES, axis=0, mode="nearest"))
