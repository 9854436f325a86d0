"""What passes before the face: hands, microphones, cups, told by colours that are not the face's.

Every triangle of the face mesh has a mean colour in each frame. How it usually follows from how the
head stands and the lips are shaped is learnt over the clip; beards, glasses and make-up are part of
that. Where a whole neighbourhood strays from it at once, something else is seen.
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
"""Larger faces are reduced to this width before colours are taken, so that pores don't count."""
PLACES = np.array([[1, 1, 1], [4, 1, 1], [1, 4, 1], [1, 1, 4]]) / np.array([[3], [6], [6], [6]])
"""Barycentric coordinates of the places at which a triangle is looked at."""
DARK = 8.0
"""Added to colours (of 255) before their logarithm, or noise in shadows would look like a change."""
MAX_LEARNT = 600
N_ROUNDS = 8
OUTLIER = 4.0
"""In deviations: what strays farther has no say in what is usual, and counts as no more than this."""
MIN_SPREAD = 0.03
"""No colour is more certain than this, as a logarithm."""
REACH = 0.15
"""Standard deviation of a neighbourhood, in distances of the outer eye corners."""
SURE, LIKELY, INSIDE, EDGE = 2.85, 2.3, 1.9, 0.55
"""Mean strangeness of a neighbourhood from which a frame has something before the face; which is
enough next to such frames; and from which a triangle is behind it. Clean footage: 1, rarely 2.5."""
AROUND_FRAMES = 3
"""Neighbours in time are hidden as well: blurred, or bridged where the face was lost."""
CHUNK = 500


@dataclass(frozen=True)
class ColorModel:
    """What a face looks like: log colours [T, 3] linear in posture, and how they stray.

    middle, unit, low, high: [D] of postures. slopes: [1 + D, T * 3]. spread: [T * 3].
    """

    middle: Float64
    unit: Float64
    low: Float64
    high: Float64
    slopes: Float64
    spread: Float64

    def deviation(self, colors: UInt8, posture: Float64) -> Float64:
        """How far triangles [F, T] stray, in deviations, at most OUTLIER."""
        seen = _log(colors)
        within = (np.clip(posture, self.low, self.high) - self.middle) / self.unit
        stray = seen - _terms(within) @ self.slopes
        far = ((stray - _gain(stray)) / self.spread).reshape(colors.shape)
        return np.asarray(np.minimum(np.sqrt(np.square(far).mean(-1)), OUTLIER))


def face_colors(frame: UInt8, landmarks: Float32, triangles: Int) -> UInt8:
    """Mean colour [T, 3] of each triangle [T, 3] of a face in a frame [H, W, 3].

    landmarks: [478, 3] pixels. What lies outside of the frame repeats its edge.
    """
    points = landmarks[:N_SURFACE, :2]
    size = np.array(frame.shape[1::-1])
    first = np.clip(np.floor(points.min(0)).astype(int), 0, size - 1)
    after = np.clip(np.ceil(points.max(0)).astype(int) + 1, first + 1, size)
    part = np.ascontiguousarray(frame[first[1] : after[1], first[0] : after[0]])
    share = min(1.0, FACE_WIDTH_PX / max(float(np.ptp(points[:, 0])), 1.0))
    reduced = np.maximum(1, np.round((after - first) * share)).astype(int)
    small = cv2.resize(part, tuple(reduced.tolist()), interpolation=cv2.INTER_AREA)
    corners = (points[triangles] - first) * (reduced / (after - first))
    places = np.einsum("pc,tcx->tpx", PLACES, corners).astype(np.float32) - np.float32(0.5)
    seen = cv2.remap(
        small, places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(seen.mean(1).round(), np.uint8)


def head_posture(viewmats: Float32, lips: Float32, learnt: Bool) -> Float64:
    """What a face's shading follows, [F, 6 + L]: direction, place, depth, and measures [F, L] of lips.

    viewmats: [F, 4, 4]. learnt: [F] frames whose mean direction the others count from.
    """
    turns = Rotation.from_matrix(viewmats[:, :3, :3].astype(np.float64))
    place = viewmats[:, :3, 3].astype(np.float64)
    parts = (
        (turns * turns[learnt].mean().inv()).as_rotvec(),
        place[:, :2] / place[:, 2:],
        np.log(place[:, 2:]),
    )
    return np.concatenate([*parts, lips], axis=1)


def hidden_triangles(
    colors: UInt8, posture: Float64, found: Bool, train: Bool, template: Float32, triangles: Int
) -> Bool:
    """Which triangles of the face something stands before, [F, T].

    colours: [F, T, 3] of face_colors. posture: [F, D]. found, train: [F] frames in which the face was
    seen; what is usual is learnt from those that are both. template: [478, 3]. triangles: [T, 3].
    """
    learnt = np.flatnonzero(found & train)
    learnt = learnt[np.linspace(0, len(learnt) - 1, min(MAX_LEARNT, len(learnt))).astype(int)]
    usual = fit_color_model(colors[learnt], posture[learnt])
    near = _neighbourhoods(template, triangles)
    # A fringe moves, too: what covers the forehead alone is taken for hair.
    brows = template[list(LEFT_BROW + RIGHT_BROW), 1].min()
    below_hair = _centers(template, triangles)[:, 1] > brows
    most, inside = np.zeros(len(found)), np.zeros(colors.shape[:2], dtype=bool)
    for start in range(0, len(found), CHUNK):
        part = slice(start, start + CHUNK)
        strange = usual.deviation(colors[part], posture[part]) @ near
        most[part] = strange[:, below_hair].max(1) * found[part]
        inside[part] = strange > np.maximum(INSIDE, EDGE * most[part, None])
    hidden = binary_propagation(most > SURE, mask=most > LIKELY)
    inside[~hidden] = False
    return binary_dilation(inside, np.ones((2 * AROUND_FRAMES + 1, 1), dtype=bool))


def mouth_hidden(hidden: Bool, template: Float32, triangles: Int) -> Bool:
    """In which frames [F] something stands before the face below the nose, of hidden [F, T]."""
    below = _centers(template, triangles)[:, 1] > template[NOSE_BOTTOM, 1]
    return np.asarray(hidden[:, below].any(1))


def fit_color_model(colors: UInt8, posture: Float64) -> ColorModel:
    """What colours [F, T, 3] are at postures [F, D]: least squares, again without what strays far."""
    seen = _log(colors)
    low, high = np.quantile(posture, [0.02, 0.98], axis=0)
    middle, unit = posture.mean(0), posture.std(0) + 1e-9
    terms = _terms((np.clip(posture, low, high) - middle) / unit)
    usual = np.broadcast_to(np.median(seen, axis=0), seen.shape)
    for _ in range(N_ROUNDS):
        gain = _gain(seen - usual)
        slopes = _weighted_fit(terms, seen - gain, _trust(seen - gain - usual))
        usual = terms @ slopes
    stray = seen - usual - _gain(seen - usual)
    return ColorModel(middle, unit, low, high, slopes, _spread(stray, MIN_SPREAD))


def _log(colors: UInt8) -> Float64:
    """Logarithms [F, T * 3]: exposure and white balance become sums."""
    return np.log(colors.reshape(len(colors), -1) + DARK)


def _gain(stray: Float64) -> Float64:
    """What a whole frame is brighter by in each channel, [F, T * 3], of log colours [F, T * 3]."""
    frames = stray.reshape(len(stray), -1, 3)
    return np.tile(np.median(frames, axis=1), (1, frames.shape[1]))


def _terms(posture: Float64) -> Float64:
    return np.pad(posture, ((0, 0), (1, 0)), constant_values=1.0)


def _spread(stray: Float64, least: float) -> Float64:
    """Robust standard deviation [N] of [F, N]."""
    return np.asarray(np.maximum(1.4826 * np.median(np.abs(stray), axis=0), least))


def _trust(stray: Float64) -> Float64:
    """Weights [F, N]: 1 within two deviations, 0 beyond OUTLIER of them."""
    far = np.abs(stray) / _spread(stray, 0.01)
    return np.where(far > OUTLIER, 0.0, np.minimum(1.0, 2.0 / np.maximum(far, 1e-6)) ** 2)


def _weighted_fit(terms: Float64, values: Float64, weights: Float64) -> Float64:
    """Ridge regression of each column of values [F, N] with its own weights, [1 + D, N]."""
    n_frames, n = terms.shape
    products = (terms[:, :, None] * terms[:, None]).reshape(n_frames, -1)
    ridge = 0.005 * n_frames * np.diag([1e-4] + [1.0] * (n - 1))
    normal = (weights.T @ products).reshape(-1, n, n) + ridge
    return np.linalg.solve(normal, ((weights * values).T @ terms)[..., None])[..., 0].T


def _centers(template: Float32, triangles: Int) -> Float64:
    return template[triangles].mean(1).astype(np.float64)


def _neighbourhoods(template: Float32, triangles: Int) -> Float64:
    """Weights [T, T] whose columns average over what lies about a triangle, eyes left out: they blink."""
    corners = template[triangles, :2].astype(np.float64)
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])
    area[np.isin(triangles, LEFT_EYE + RIGHT_EYE).any(1)] = 0.0
    places = corners.mean(1)
    apart = np.square(places[:, None] - places[None]).sum(-1)
    near = np.exp(-apart / (2.0 * REACH**2)) * area[:, None]
    return np.asarray(near / near.sum(0))
