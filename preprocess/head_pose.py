"""Landmarks -> template, rigid head poses, canonical landmarks.

The template is the mean of the aligned landmarks; poses minimise the reprojection error of its
stable points (forehead, temples, nose bridge, cheekbones) by Gauss-Newton on all frames at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from talkhead.cameras import project
from talkhead.face import (
    CHIN,
    FOREHEAD,
    LEFT_BROW,
    LEFT_EYE,
    N_SURFACE,
    NOSE_BOTTOM,
    OUTER_EYE_CORNERS,
    RIGHT_BROW,
    RIGHT_EYE,
)
from talkhead.frame_selection import spread_frames
from talkhead.types import Bool, Float32, Float64, HeadPoses, Int

SMOOTH_ROTATION = 1.0
SMOOTH_SIDEWAYS = 0.7
SMOOTH_DEPTH = 4.0
"""Standard deviations, in frames, of the zero-phase smoothing. Depth is the least certain."""
MAX_SHAPING = 6000
"""Frames that template and face model are made of: more tell nothing new, and take memory."""
PART = 250
"""Frames whose landmarks are held in double precision at once."""


@dataclass(frozen=True)
class HeadTrack:
    """Template [478, 3], poses, and landmarks in template space [F, 478, 3]."""

    template: Float32
    poses: HeadPoses
    canonical: Float32


def track_head(landmarks: Float32, usable: Bool, train: Bool, intrinsics: Float64) -> HeadTrack:
    """Template, poses and canonical landmarks of a clip.

    landmarks: [F, 478, 3] pixels. usable: [F] frames with landmarks. train: [F] frames that may
    shape the template. intrinsics: [3, 3] of the image. Frames that are not usable take the
    interpolated pose of their neighbours.
    """
    index = np.flatnonzero(usable)
    points, in_train = landmarks[index], train[index]
    shaping = spread_frames(in_train, MAX_SHAPING)
    shapes = points[shaping].astype(np.float64)
    template = _upright(_mean_shape(shapes))
    weights = _stable_weights(template)
    viewmats = np.concatenate(
        [
            _initial_poses(template, points[part].astype(np.float64), weights, intrinsics)
            for part in _parts(len(points))
        ]
    )
    for _ in range(3):
        viewmats = fit_poses(template, points[..., :2], weights, viewmats, intrinsics)
        canonical = canonicalize(shapes, viewmats[shaping], template, weights, intrinsics)
        template = _upright(np.median(canonical, axis=0))
        weights = _reweighted(weights, canonical)
    viewmats = fit_poses(template, points[..., :2], weights, viewmats, intrinsics)
    viewmats = smooth_poses(viewmats, index, in_train)
    return _track(template, weights, points, viewmats, _nearest(index, len(landmarks)), intrinsics)


def _parts(n_frames: int) -> Iterator[slice]:
    return (slice(start, start + PART) for start in range(0, n_frames, PART))


def _mean_shape(points: Float64) -> Float64:
    """Generalised Procrustes mean [V, 3] of at most 300 of the frames (px scale)."""
    chosen = points[:: max(1, len(points) // 300)]
    mean = chosen[0]
    for _ in range(4):
        weights = _stable_weights(_upright(mean))
        mean = _similarity(chosen, mean, weights).mean(0)
    return mean


def _similarity(points: Float64, target: Float64, weights: Float64) -> Float64:
    """Points [F, V, 3] moved, turned and scaled onto a target [V, 3] (Umeyama 1991)."""
    w = weights / weights.sum()
    centre = np.einsum("v,fvc->fc", w, points)[:, None]
    goal = w @ target
    cross = np.einsum("fvi,v,vj->fij", points - centre, w, target - goal)
    u, s, vt = np.linalg.svd(cross)
    sign = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    fix = np.ones_like(s)
    fix[:, 2] = sign
    rotation = u @ (fix[..., None] * vt)
    spread = np.einsum("fvi,v->f", (points - centre) ** 2, w)
    scale = ((s * fix).sum(-1) / spread)[:, None, None]
    return np.asarray(scale * (points - centre) @ rotation + goal)


def _upright(shape: Float64) -> Float64:
    """A shape [V, 3] in the template's frame: eye corners on x, 1 apart, chin downwards."""
    left, right = (shape[i] for i in OUTER_EYE_CORNERS)
    x = right - left
    size = np.linalg.norm(x)
    x = x / size
    down = shape[CHIN] - shape[FOREHEAD]
    y = down - x * (down @ x)
    y /= np.linalg.norm(y)
    axes = np.stack([x, y, np.cross(x, y)])
    return np.asarray((shape - (left + right) / 2) @ axes.T / size)


def _stable_weights(template: Float64) -> Float64:
    """Weights [V]: 1 on points that speech, blinks and brows don't move, else 0."""
    weights = np.zeros(len(template))
    above_nose = template[:N_SURFACE, 1] < template[NOSE_BOTTOM, 1] - 0.05
    weights[:N_SURFACE][above_nose] = 1.0
    moving = np.array(LEFT_EYE + RIGHT_EYE + LEFT_BROW + RIGHT_BROW)
    corners = np.array([*OUTER_EYE_CORNERS, 133, 362])
    near = np.linalg.norm(template[:, None, :2] - template[None, moving, :2], axis=-1).min(1)
    weights[near < 0.06] = 0.0
    weights[corners] = 1.0
    return weights


def _reweighted(weights: Float64, canonical: Float64) -> Float64:
    """Stable points weighted by how little they stray in template space."""
    spread = canonical[..., :2].std(axis=0).sum(-1)
    typical = np.median(spread[weights > 0])
    return np.where(weights > 0, 1.0 / (1.0 + (spread / typical) ** 2), 0.0)


def _initial_poses(
    template: Float64, points: Float64, weights: Float64, intrinsics: Float64
) -> Float64:
    """View matrices [F, 4, 4] by weak perspective."""
    w = weights / weights.sum()
    centre, goal = np.einsum("v,fvc->fc", w, points), w @ template
    cross = np.einsum("vi,v,fvj->fij", template - goal, w, points - centre[:, None])
    u, s, vt = np.linalg.svd(cross)
    fix = np.ones_like(s)
    fix[:, 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    rotation = np.swapaxes(u @ (fix[..., None] * vt), 1, 2)
    scale = (s * fix).sum(-1) / (w @ ((template - goal) ** 2).sum(-1))
    depth = intrinsics[0, 0] / scale
    position = np.concatenate(
        [(centre[:, :2] - intrinsics[:2, 2]) / scale[:, None], depth[:, None]], axis=1
    )
    viewmats = np.repeat(np.eye(4)[None], len(points), axis=0)
    viewmats[:, :3, :3] = rotation
    viewmats[:, :3, 3] = position - rotation @ goal
    return viewmats


def fit_poses(
    template: Float64,
    pixels: Float32 | Float64,
    weights: Float64,
    viewmats: Float64,
    intrinsics: Float64,
    n_iterations: int = 6,
) -> Float64:
    """View matrices [F, 4, 4] minimising the weighted reprojection error, by Gauss-Newton.

    template: [V, 3]. pixels: [F, V, 2]. weights: [V], zero = unused. viewmats: [F, 4, 4] start.
    Residuals beyond about 2 px count less (Geman-McClure weights).
    """
    used = np.flatnonzero(weights)
    points, w = template[used], weights[used]
    result = viewmats.copy()
    for part in _parts(len(pixels)):
        seen = pixels[part][:, used].astype(np.float64)
        for _ in range(n_iterations):
            result[part] = _gauss_newton(points, seen, w, result[part], intrinsics)
    return result


def _gauss_newton(
    points: Float64, pixels: Float64, weights: Float64, viewmats: Float64, intrinsics: Float64
) -> Float64:
    focal = intrinsics[0, 0]
    rotated = points @ np.swapaxes(viewmats[:, :3, :3], 1, 2)
    camera = rotated + viewmats[:, None, :3, 3]
    x, y, z = np.moveaxis(camera, -1, 0)
    error = pixels - (camera[..., :2] * focal / z[..., None] + intrinsics[:2, 2])
    robust = weights / (1.0 + (error**2).sum(-1) / 4.0) ** 2
    zero = np.zeros_like(x)
    rows = focal * np.stack(
        [np.stack([1 / z, zero, -x / z**2], -1), np.stack([zero, 1 / z, -y / z**2], -1)], -2
    )
    # d(camera)/d(rotation about the camera axes) = -[rotated]_x
    turn = np.stack([np.cross(axis, rotated) for axis in np.eye(3)], -1)
    jacobian = np.concatenate([rows @ turn, rows], -1)
    normal = np.einsum("fvri,fv,fvrj->fij", jacobian, robust, jacobian) + 1e-9 * np.eye(6)
    step = np.linalg.solve(normal, np.einsum("fvri,fv,fvr->fi", jacobian, robust, error)[..., None])
    result = viewmats.copy()
    turned = Rotation.from_rotvec(step[:, :3, 0]).as_matrix() @ viewmats[:, :3, :3]
    result[:, :3, :3] = turned
    result[:, :3, 3] += step[:, 3:, 0]
    return result


def canonicalize(
    points: Float64, viewmats: Float64, template: Float64, weights: Float64, intrinsics: Float64
) -> Float64:
    """Landmarks in template space [F, V, 3]: their pixels exactly, their depth as tracked.

    mediapipe's z is relative; its origin is set by the stable points of the posed template.
    """
    used = np.flatnonzero(weights)
    depth = np.einsum("vc,fc->fv", template[used], viewmats[:, 2, :3]) + viewmats[:, 2, 3:]
    pixel_size = viewmats[:, 2, 3:4] / intrinsics[0, 0]
    origin = np.median(depth - points[:, used, 2] * pixel_size, axis=1, keepdims=True)
    z = origin + points[..., 2] * pixel_size
    xy = (points[..., :2] - intrinsics[:2, 2]) / intrinsics[0, 0] * z[..., None]
    camera = np.concatenate([xy, z[..., None]], axis=-1)
    return np.asarray((camera - viewmats[:, None, :3, 3]) @ viewmats[:, :3, :3])


def smooth_poses(viewmats: Float64, index: Int, train: Bool) -> Float64:
    """Poses [F, 4, 4] smoothed without lag, each run of neighbouring frames by itself.

    index: [F] frame numbers. train: [F]; held-out frames don't reach into the others.
    """
    result = viewmats.copy()
    ends = (np.diff(index) > 1) | (np.diff(train.astype(np.int8)) != 0)
    for run in np.split(np.arange(len(index)), np.flatnonzero(ends) + 1):
        rotation = Rotation.from_matrix(viewmats[run, :3, :3])
        mean = rotation.mean()
        vectors = (rotation * mean.inv()).as_rotvec()
        smooth = gaussian_filter1d(vectors, SMOOTH_ROTATION, axis=0, mode="nearest")
        result[run, :3, :3] = (Rotation.from_rotvec(smooth) * mean).as_matrix()
        result[run, :3, 3] = _smooth_positions(viewmats[run, :3, 3])
    return result


def _smooth_positions(positions: Float64) -> Float64:
    """Depth smoothed more than the direction, so that smoothing depth moves no pixel."""
    direction = positions[:, :2] / positions[:, 2:]
    direction = gaussian_filter1d(direction, SMOOTH_SIDEWAYS, axis=0, mode="nearest")
    depth = gaussian_filter1d(positions[:, 2:], SMOOTH_DEPTH, axis=0, mode="nearest")
    return np.asarray(np.concatenate([direction * depth, depth], axis=1))


def _residual(
    template: Float64, points: Float64, weights: Float64, viewmats: Float64, intrinsics: Float64
) -> Float64:
    """Weighted mean distance [F] in pixels between stable landmarks and the posed template."""
    error = project(template, viewmats, intrinsics) - points[..., :2]
    return np.asarray(np.linalg.norm(error, axis=-1) @ weights / weights.sum())


def _nearest(index: Int, n_frames: int) -> Int:
    """Which of the usable frames, in places of index, is nearest to each of all frames [F]."""
    frames = np.arange(n_frames)
    after = np.searchsorted(index, frames).clip(0, len(index) - 1)
    before = (after - 1).clip(0)
    return np.where(frames - index[before] <= index[after] - frames, before, after)


def _track(
    template: Float64,
    weights: Float64,
    points: Float32,
    viewmats: Float64,
    back: Int,
    intrinsics: Float64,
) -> HeadTrack:
    """The track of frames that take after usable frame back [F] each, of poses and landmarks."""
    canonical = np.empty((len(back), *points.shape[1:]), np.float32)
    residual = np.empty(len(back), np.float32)
    for part in _parts(len(back)):
        seen, views = points[back[part]].astype(np.float64), viewmats[back[part]]
        canonical[part] = canonicalize(seen, views, template, weights, intrinsics)
        residual[part] = _residual(template, seen, weights, views, intrinsics)
    poses = HeadPoses(viewmats[back].astype(np.float32), residual)
    return HeadTrack(template.astype(np.float32), poses, canonical)
