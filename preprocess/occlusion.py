"""Detect occluders in front of the face, such as hands, microphones and cups, from color outliers.

Each triangle of the face mesh has a mean color in each frame. How this color depends on head pose and lip
shape is fitted over the clip; beards, glasses and make-up are part of it. Where a whole neighborhood
deviates from the prediction at once, something covers the face.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import binary_dilation, binary_propagation
from scipy.spatial.transform import Rotation

from talkhead.face import LEFT_BROW, LEFT_EYE, N_SURFACE, NOSE_BOTTOM, RIGHT_BROW, RIGHT_EYE
from talkhead.types import Bool, Float32, Float64, Int, UInt8

FACE_WIDTH_PX = 128.0
"""Larger faces are reduced to this width before colors are sampled, so that pores have no effect."""
PLACES = np.array([[1, 1, 1], [4, 1, 1], [1, 4, 1], [1, 1, 4]]) / np.array([[3], [6], [6], [6]])
"""Barycentric coordinates of the points at which a triangle is sampled."""
DARK = 8.0
"""Added to colors (0 to 255) before the logarithm; otherwise noise in shadows would look like
a change."""
MAX_TRAINING_FRAMES = 600
N_ROUNDS = 8
OUTLIER = 4.0
"""In standard deviations: larger deviations have no effect on the fit and are clipped to this."""
MIN_SPREAD = 0.03
"""Smallest standard deviation of a log color."""
REACH = 0.15
"""Standard deviation of a neighborhood, relative to the distance of the outer eye corners."""
SURE, LIKELY, INSIDE, EDGE = 2.85, 2.3, 1.9, 0.55
"""Thresholds on the mean deviation of a neighborhood. A frame above SURE has an occluder; in frames next
to such a frame, LIKELY is enough. A triangle is covered above the larger of INSIDE and EDGE times the
frame's maximum. Clean footage stays near 1 and rarely reaches 2.5."""
AROUND_FRAMES = 3
"""This many frames on either side count as occluded, too: they are blurred, or interpolated where the
face was lost."""
CHUNK = 500


@dataclass(frozen=True)
class ColorModel:
    """Expected appearance of a face: log colors of T triangles, linear in D measures of posture.

    Attributes:
        middle: [D] mean posture.
        unit: [D] standard deviation of the posture.
        low: [D] lower limit of the posture; values beyond the limits are clipped.
        high: [D] upper limit.
        slopes: [1 + D, T * 3] coefficients.
        spread: [T * 3] standard deviation of the log colors.
    """

    middle: Float64
    unit: Float64
    low: Float64
    high: Float64
    slopes: Float64
    spread: Float64

    def deviation(self, colors: UInt8, posture: Float64) -> Float64:
        """Measure how far colors deviate from the expected ones.

        Args:
            colors: [F, T, 3] uint8 of `face_colors`.
            posture: [F, D] of `head_posture`.

        Returns:
            [F, T] in standard deviations, at most OUTLIER.
        """
        seen = _log(colors)  # [F, T * 3]
        within = (np.clip(posture, self.low, self.high) - self.middle) / self.unit  # [F, D]
        stray = seen - _terms(within) @ self.slopes  # [F, T * 3]
        # Changes of the whole frame, such as of exposure, do not count.
        far = ((stray - _gain(stray)) / self.spread).reshape(colors.shape)  # [F, T, 3]
        return np.asarray(np.minimum(np.sqrt(np.square(far).mean(-1)), OUTLIER))


def face_colors(frame: UInt8, landmarks: Float32, triangles: Int) -> UInt8:
    """Compute the mean color of each triangle of a face.

    Args:
        frame: [H, W, 3] uint8 RGB. Beyond its border, the edge pixels are repeated.
        landmarks: [478, 3] in pixels.
        triangles: [T, 3] of the face mesh.

    Returns:
        [T, 3] uint8.
    """
    # 1. Cut out the face.
    points = landmarks[:N_SURFACE, :2]  # [468, 2]
    size = np.array(frame.shape[1::-1])
    first = np.clip(np.floor(points.min(0)).astype(int), 0, size - 1)
    after = np.clip(np.ceil(points.max(0)).astype(int) + 1, first + 1, size)
    part = np.ascontiguousarray(frame[first[1] : after[1], first[0] : after[0]])  # [h, w, 3]
    # 2. Reduce it to at most FACE_WIDTH_PX.
    share = min(1.0, FACE_WIDTH_PX / max(float(np.ptp(points[:, 0])), 1.0))
    reduced = np.maximum(1, np.round((after - first) * share)).astype(int)
    small = cv2.resize(part, tuple(reduced.tolist()), interpolation=cv2.INTER_AREA)
    # 3. Sample each triangle at a few points, and average.
    corners = (points[triangles] - first) * (reduced / (after - first))  # [T, 3, 2]
    places = np.einsum("pc,tcx->tpx", PLACES, corners).astype(np.float32) - np.float32(0.5)
    seen = cv2.remap(  # [T, len(PLACES), 3]
        small, places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(seen.mean(1).round(), np.uint8)


def head_posture(viewmats: Float32, lips: Float32, training: Bool) -> Float64:
    """Return the measures on which the shading of a face depends.

    Args:
        viewmats: [F, 4, 4] head poses.
        lips: [F, L] measures of the lips.
        training: [F] frames whose mean direction is the origin.

    Returns:
        [F, 6 + L]: rotation vector, direction of the position, log depth, lips.
    """
    turns = Rotation.from_matrix(viewmats[:, :3, :3].astype(np.float64))
    place = viewmats[:, :3, 3].astype(np.float64)  # [F, 3]
    parts = (
        (turns * turns[training].mean().inv()).as_rotvec(),  # [F, 3]
        place[:, :2] / place[:, 2:],  # [F, 2]
        np.log(place[:, 2:]),  # [F, 1]
    )
    return np.concatenate([*parts, lips], axis=1)


def occluded_triangles(
    colors: UInt8, posture: Float64, found: Bool, train: Bool, template: Float32, triangles: Int
) -> Bool:
    """Find the triangles of the face that something covers.

    Args:
        colors: [F, T, 3] uint8 of `face_colors`.
        posture: [F, D] of `head_posture`.
        found: [F] frames with a face.
        train: [F] frames that are not held out; the expected colors are fitted to those with a face.
        template: [478, 3] mean face.
        triangles: [T, 3] of the face mesh.

    Returns:
        [F, T] bool.
    """
    # 1. Fit the expected colors to a sample of the training frames.
    training = np.flatnonzero(found & train)
    training = training[
        np.linspace(0, len(training) - 1, min(MAX_TRAINING_FRAMES, len(training))).astype(int)
    ]
    usual = fit_color_model(colors[training], posture[training])
    # 2. Deviation of each neighborhood, and the largest one of each frame. Hair moves, too: what covers
    # the forehead alone does not count.
    near = _neighborhoods(template, triangles)  # [T, T]
    brows = template[list(LEFT_BROW + RIGHT_BROW), 1].min()
    below_hair = _centers(template, triangles)[:, 1] > brows
    most, inside = np.zeros(len(found)), np.zeros(colors.shape[:2], dtype=bool)  # [F], [F, T]
    for start in range(0, len(found), CHUNK):
        part = slice(start, start + CHUNK)
        strange = usual.deviation(colors[part], posture[part]) @ near  # [n, T]
        most[part] = strange[:, below_hair].max(1) * found[part]
        inside[part] = strange > np.maximum(INSIDE, EDGE * most[part, None])
    # 3. Occluded frames, by hysteresis over time; their covered triangles, extended to adjacent frames.
    occluded = binary_propagation(most > SURE, mask=most > LIKELY)  # [F]
    inside[~occluded] = False
    return binary_dilation(inside, np.ones((2 * AROUND_FRAMES + 1, 1), dtype=bool))


def mouth_occluded(occluded: Bool, template: Float32, triangles: Int) -> Bool:
    """Find the frames in which something covers the face below the nose.

    Args:
        occluded: [F, T] of `occluded_triangles`.
        template: [478, 3] mean face.
        triangles: [T, 3] of the face mesh.

    Returns:
        [F] bool.
    """
    below = _centers(template, triangles)[:, 1] > template[NOSE_BOTTOM, 1]
    return np.asarray(occluded[:, below].any(1))


def fit_color_model(colors: UInt8, posture: Float64) -> ColorModel:
    """Fit the color model by least squares, iteratively reweighted to exclude outliers.

    Args:
        colors: [F, T, 3] uint8 of `face_colors`.
        posture: [F, D] of `head_posture`.

    Returns:
        The model.
    """
    # 1. Normalized postures, without extremes.
    seen = _log(colors)  # [F, T * 3]
    low, high = np.quantile(posture, [0.02, 0.98], axis=0)
    middle, unit = posture.mean(0), posture.std(0) + 1e-9
    terms = _terms((np.clip(posture, low, high) - middle) / unit)  # [F, 1 + D]
    # 2. Alternate between the gain of each frame and the fit, in which outliers have no weight.
    usual = np.broadcast_to(np.median(seen, axis=0), seen.shape)  # [F, T * 3]
    for _ in range(N_ROUNDS):
        gain = _gain(seen - usual)
        slopes = _weighted_fit(terms, seen - gain, _trust(seen - gain - usual))  # [1 + D, T * 3]
        usual = terms @ slopes
    # 3. The remaining spread.
    stray = seen - usual - _gain(seen - usual)
    return ColorModel(middle, unit, low, high, slopes, _spread(stray, MIN_SPREAD))


def _log(colors: UInt8) -> Float64:
    """Return logarithms [F, T * 3] of colors [F, T, 3]: exposure and white balance become sums."""
    return np.log(colors.reshape(len(colors), -1) + DARK)


def _gain(stray: Float64) -> Float64:
    """Return the change of a whole frame in each channel, [F, T * 3], of log colors [F, T * 3]."""
    frames = stray.reshape(len(stray), -1, 3)
    return np.tile(np.median(frames, axis=1), (1, frames.shape[1]))


def _terms(posture: Float64) -> Float64:
    """Prepend a column of ones to postures [F, D]."""
    return np.pad(posture, ((0, 0), (1, 0)), constant_values=1.0)


def _spread(stray: Float64, least: float) -> Float64:
    """Return a robust standard deviation [N] of [F, N], at least `least`."""
    return np.asarray(np.maximum(1.4826 * np.median(np.abs(stray), axis=0), least))


def _trust(stray: Float64) -> Float64:
    """Return weights [F, N]: 1 within two standard deviations, 0 beyond OUTLIER of them."""
    far = np.abs(stray) / _spread(stray, 0.01)
    return np.where(far > OUTLIER, 0.0, np.minimum(1.0, 2.0 / np.maximum(far, 1e-6)) ** 2)


def _weighted_fit(terms: Float64, values: Float64, weights: Float64) -> Float64:
    """Fit each column of values [F, N] by ridge regression with its own weights [F, N].

    terms: [F, 1 + D]. Returns [1 + D, N].
    """
    n_frames, n = terms.shape
    products = (terms[:, :, None] * terms[:, None]).reshape(n_frames, -1)  # [F, (1 + D)^2]
    ridge = 0.005 * n_frames * np.diag([1e-4] + [1.0] * (n - 1))
    normal = (weights.T @ products).reshape(-1, n, n) + ridge  # [N, 1 + D, 1 + D]
    return np.linalg.solve(normal, ((weights * values).T @ terms)[..., None])[..., 0].T


def _centers(template: Float32, triangles: Int) -> Float64:
    """Return the centers [T, 3] of triangles."""
    return template[triangles].mean(1).astype(np.float64)


def _neighborhoods(template: Float32, triangles: Int) -> Float64:
    """Return weights [T, T] whose columns average over the neighborhood of a triangle.

    Eyes are left out, since they blink.
    """
    corners = template[triangles, :2].astype(np.float64)  # [T, 3, 2]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])
    area[np.isin(triangles, LEFT_EYE + RIGHT_EYE).any(1)] = 0.0
    places = corners.mean(1)  # [T, 2]
    apart = np.square(places[:, None] - places[None]).sum(-1)  # [T, T] squared distances
    near = np.exp(-apart / (2.0 * REACH**2)) * area[:, None]
    return np.asarray(near / near.sum(0))
