"""Estimate the face template, rigid head poses and canonical landmarks of a clip.

The template is the mean of the aligned landmarks. Poses minimize the reprojection error of its stable
points (forehead, temples, nose bridge, cheekbones) by Gauss-Newton on all frames at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
"""Standard deviations, in frames, of the zero-phase smoothing. Depth is least certain."""
MAX_SHAPING = 6000
"""Number of frames to which template and face model are fitted. More frames would only take memory."""
PART = 250
"""Number of frames whose landmarks are in memory in double precision at once."""


@dataclass(frozen=True)
class HeadTrack:
    """Head motion of a clip of F frames.

    Attributes:
        template: [478, 3] mean face, world units.
        poses: Rigid head poses.
        canonical: [F, 478, 3] landmarks in template space, without the head pose.
    """

    template: Float32
    poses: HeadPoses
    canonical: Float32


def track_head(
    landmarks: Float32,
    usable: Bool,
    train: Bool,
    intrinsics: Float64,
    joins: Sequence[int] = (),
    known: Float32 | None = None,
) -> HeadTrack:
    """Estimate template, poses and canonical landmarks.

    Frames that are not usable take the pose and landmarks of the nearest usable one.

    Args:
        landmarks: [F, 478, 3] in pixels.
        usable: [F] frames with landmarks.
        train: [F] frames that the template may be made of.
        intrinsics: [3, 3] of the image.
        joins: First frame of each clip but the first one; poses are not smoothed over them.
        known: [478, 3], the template of a person from other footage, which is kept. None: it is
            estimated.

    Returns:
        The track of all F frames.
    """
    index = np.flatnonzero(usable)
    points, in_train = landmarks[index], train[index]  # [n, V, 3], [n]
    # 1. First template: the mean shape of the training frames.
    shaping = spread_frames(in_train, MAX_SHAPING)
    shapes = points[shaping].astype(np.float64)  # [m, V, 3]
    template = (
        _upright(_mean_shape(shapes)) if known is None else known.astype(np.float64)
    )  # [V, 3]
    weights = _stable_weights(template)  # [V]
    # 2. First poses, by weak perspective.
    viewmats = np.concatenate(  # [n, 4, 4]
        [
            _initial_poses(template, points[part].astype(np.float64), weights, intrinsics)
            for part in _parts(len(points))
        ]
    )
    # 3. Alternate between poses, and template and weights of its points.
    for _ in range(3):
        viewmats = fit_poses(template, points[..., :2], weights, viewmats, intrinsics)
        canonical = canonicalize(
            shapes, viewmats[shaping], template, weights, intrinsics
        )  # [m, V, 3]
        if known is None:
            template = _upright(np.median(canonical, axis=0))
        weights = _reweighted(weights, canonical)
    # 4. Final poses, smoothed; then the landmarks without them.
    viewmats = fit_poses(template, points[..., :2], weights, viewmats, intrinsics)
    viewmats = smooth_poses(viewmats, index, in_train, joins)
    return _track(template, weights, points, viewmats, _nearest(index, len(landmarks)), intrinsics)


def _parts(n_frames: int) -> Iterator[slice]:
    """Split frames into slices of at most PART."""
    return (slice(start, start + PART) for start in range(0, n_frames, PART))


def _mean_shape(points: Float64) -> Float64:
    """Return the generalized Procrustes mean [V, 3] of at most 300 of the frames [F, V, 3], pixels."""
    chosen = points[:: max(1, len(points) // 300)]
    mean = chosen[0]
    for _ in range(4):
        weights = _stable_weights(_upright(mean))
        mean = _similarity(chosen, mean, weights).mean(0)
    return mean


def _similarity(points: Float64, target: Float64, weights: Float64) -> Float64:
    """Align points [F, V, 3] with a target [V, 3] by similarity transforms (Umeyama 1991).

    weights: [V].
    """
    # 1. Covariance of points and target about their weighted centers.
    w = weights / weights.sum()
    center = np.einsum("v,fvc->fc", w, points)[:, None]  # [F, 1, 3]
    goal = w @ target  # [3]
    cross = np.einsum("fvi,v,vj->fij", points - center, w, target - goal)  # [F, 3, 3]
    # 2. Rotation without reflection, and scale.
    u, s, vt = np.linalg.svd(cross)
    sign = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    fix = np.ones_like(s)
    fix[:, 2] = sign
    rotation = u @ (fix[..., None] * vt)  # [F, 3, 3]
    spread = np.einsum("fvi,v->f", (points - center) ** 2, w)  # [F]
    scale = ((s * fix).sum(-1) / spread)[:, None, None]
    return np.asarray(scale * (points - center) @ rotation + goal)


def _upright(shape: Float64) -> Float64:
    """Bring a shape [V, 3] into the template's frame: eye corners on x, 1 apart, chin downward."""
    left, right = (shape[i] for i in OUTER_EYE_CORNERS)
    x = right - left
    size = np.linalg.norm(x)
    x = x / size
    down = shape[CHIN] - shape[FOREHEAD]
    y = down - x * (down @ x)
    y /= np.linalg.norm(y)
    axes = np.stack([x, y, np.cross(x, y)])  # [3, 3]
    return np.asarray((shape - (left + right) / 2) @ axes.T / size)


def _stable_weights(template: Float64) -> Float64:
    """Return weights [V]: 1 at points that speech, blinks and brows do not move, otherwise 0."""
    weights = np.zeros(len(template))
    above_nose = template[:N_SURFACE, 1] < template[NOSE_BOTTOM, 1] - 0.05
    weights[:N_SURFACE][above_nose] = 1.0
    moving = np.array(LEFT_EYE + RIGHT_EYE + LEFT_BROW + RIGHT_BROW)
    corners = np.array([*OUTER_EYE_CORNERS, 133, 362])
    # Distance to the nearest point of eyes and brows, [V].
    near = np.linalg.norm(template[:, None, :2] - template[None, moving, :2], axis=-1).min(1)
    weights[near < 0.06] = 0.0
    weights[corners] = 1.0
    return weights


def _reweighted(weights: Float64, canonical: Float64) -> Float64:
    """Weight stable points [V] by how little they vary in canonical landmarks [n, V, 3]."""
    spread = canonical[..., :2].std(axis=0).sum(-1)  # [V]
    typical = np.median(spread[weights > 0])
    return np.where(weights > 0, 1.0 / (1.0 + (spread / typical) ** 2), 0.0)


def _initial_poses(
    template: Float64, points: Float64, weights: Float64, intrinsics: Float64
) -> Float64:
    """Estimate view matrices [F, 4, 4] by weak perspective.

    template: [V, 3]. points: [F, V, 3] in pixels. weights: [V]. intrinsics: [3, 3].
    """
    # 1. Rotation and scale that align the template with the points, as in _similarity.
    w = weights / weights.sum()
    center, goal = np.einsum("v,fvc->fc", w, points), w @ template  # [F, 3], [3]
    cross = np.einsum("vi,v,fvj->fij", template - goal, w, points - center[:, None])  # [F, 3, 3]
    u, s, vt = np.linalg.svd(cross)
    fix = np.ones_like(s)
    fix[:, 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    rotation = np.swapaxes(u @ (fix[..., None] * vt), 1, 2)  # [F, 3, 3]
    scale = (s * fix).sum(-1) / (w @ ((template - goal) ** 2).sum(-1))  # [F] pixels per world unit
    # 2. The depth at which the template has this scale, and the position of its center there.
    depth = intrinsics[0, 0] / scale
    position = np.concatenate(  # [F, 3]
        [(center[:, :2] - intrinsics[:2, 2]) / scale[:, None], depth[:, None]], axis=1
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
    """Minimize the weighted reprojection error of a template by Gauss-Newton.

    Residuals beyond about 2 px have less weight (Geman-McClure).

    Args:
        template: [V, 3] in world units.
        pixels: [F, V, 2].
        weights: [V]; points with 0 are not used.
        viewmats: [F, 4, 4] initial poses.
        intrinsics: [3, 3] of the image.
        n_iterations: Number of Gauss-Newton steps.

    Returns:
        [F, 4, 4] view matrices.
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
    """Do one Gauss-Newton step on view matrices [F, 4, 4].

    points: [V, 3]. pixels: [F, V, 2]. weights: [V]. intrinsics: [3, 3].
    """
    # 1. Project, and weight each residual (Geman-McClure with a scale of 2 px).
    focal = intrinsics[0, 0]
    rotated = points @ np.swapaxes(viewmats[:, :3, :3], 1, 2)  # [F, V, 3]
    camera = rotated + viewmats[:, None, :3, 3]  # [F, V, 3]
    x, y, z = np.moveaxis(camera, -1, 0)  # [F, V] each
    error = pixels - (camera[..., :2] * focal / z[..., None] + intrinsics[:2, 2])  # [F, V, 2]
    robust = weights / (1.0 + (error**2).sum(-1) / 4.0) ** 2  # [F, V]
    # 2. Jacobian of the pixels with respect to the camera point, rotation and translation.
    zero = np.zeros_like(x)
    rows = focal * np.stack(  # [F, V, 2, 3]
        [np.stack([1 / z, zero, -x / z**2], -1), np.stack([zero, 1 / z, -y / z**2], -1)], -2
    )
    # d(camera)/d(rotation about the camera axes) = -[rotated]_x
    turn = np.stack([np.cross(axis, rotated) for axis in np.eye(3)], -1)  # [F, V, 3, 3]
    jacobian = np.concatenate([rows @ turn, rows], -1)  # [F, V, 2, 6]
    # 3. Solve the normal equations, and apply the step.
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
    """Transform landmarks to template space, keeping their pixels exactly and the tracker's depth.

    mediapipe's z is relative; its origin is determined by the stable points of the posed template.

    Args:
        points: [F, V, 3] landmarks in pixels.
        viewmats: [F, 4, 4] head poses.
        template: [V, 3] mean face.
        weights: [V]; positive at stable points.
        intrinsics: [3, 3] of the image.

    Returns:
        [F, V, 3] in template space.
    """
    # 1. Depth of each landmark: as tracked, shifted so that stable points agree with the template.
    used = np.flatnonzero(weights)
    depth = np.einsum("vc,fc->fv", template[used], viewmats[:, 2, :3]) + viewmats[:, 2, 3:]
    pixel_size = viewmats[:, 2, 3:4] / intrinsics[0, 0]  # [F, 1] world units per pixel
    origin = np.median(depth - points[:, used, 2] * pixel_size, axis=1, keepdims=True)
    z = origin + points[..., 2] * pixel_size  # [F, V]
    # 2. Unproject the pixels to this depth, and remove the pose.
    xy = (points[..., :2] - intrinsics[:2, 2]) / intrinsics[0, 0] * z[..., None]
    camera = np.concatenate([xy, z[..., None]], axis=-1)  # [F, V, 3]
    return np.asarray((camera - viewmats[:, None, :3, 3]) @ viewmats[:, :3, :3])


def smooth_poses(viewmats: Float64, index: Int, train: Bool, joins: Sequence[int] = ()) -> Float64:
    """Smooth poses without lag, each run of consecutive frames separately.

    Args:
        viewmats: [F, 4, 4] poses.
        index: [F] frame numbers.
        train: [F] training frames; held-out frames do not influence them.
        joins: Frame numbers at which another clip begins.

    Returns:
        [F, 4, 4].
    """
    result = viewmats.copy()
    clip = np.searchsorted(np.array(joins, np.int64), index, side="right")
    ends = (np.diff(index) > 1) | (np.diff(train.astype(np.int8)) != 0) | (np.diff(clip) != 0)
    for run in np.split(np.arange(len(index)), np.flatnonzero(ends) + 1):
        # Rotations as vectors relative to the run's mean, where they are small.
        rotation = Rotation.from_matrix(viewmats[run, :3, :3])
        mean = rotation.mean()
        vectors = (rotation * mean.inv()).as_rotvec()  # [n, 3]
        smooth = gaussian_filter1d(vectors, SMOOTH_ROTATION, axis=0, mode="nearest")
        result[run, :3, :3] = (Rotation.from_rotvec(smooth) * mean).as_matrix()
        result[run, :3, 3] = _smooth_positions(viewmats[run, :3, 3])
    return result


def _smooth_positions(positions: Float64) -> Float64:
    """Smooth positions [n, 3], the depth more than the direction.

    Depth is smoothed along the ray, so that no pixel moves.
    """
    direction = positions[:, :2] / positions[:, 2:]
    direction = gaussian_filter1d(direction, SMOOTH_SIDEWAYS, axis=0, mode="nearest")
    depth = gaussian_filter1d(positions[:, 2:], SMOOTH_DEPTH, axis=0, mode="nearest")
    return np.asarray(np.concatenate([direction * depth, depth], axis=1))


def _residual(
    template: Float64, points: Float64, weights: Float64, viewmats: Float64, intrinsics: Float64
) -> Float64:
    """Return the weighted mean distance [F] in pixels between landmarks and the posed template.

    template: [V, 3]. points: [F, V, 3]. weights: [V]. viewmats: [F, 4, 4]. intrinsics: [3, 3].
    """
    error = project(template, viewmats, intrinsics) - points[..., :2]
    return np.asarray(np.linalg.norm(error, axis=-1) @ weights / weights.sum())


def _nearest(index: Int, n_frames: int) -> Int:
    """Return, for every frame [F], the position in `index` of the nearest usable frame."""
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
    """Assemble the track of all frames. Each takes the data of the usable frame given by back [F].

    template: [V, 3]. weights: [V]. points: [n, V, 3] and viewmats: [n, 4, 4] of usable frames.
    """
    canonical = np.empty((len(back), *points.shape[1:]), np.float32)
    residual = np.empty(len(back), np.float32)
    for part in _parts(len(back)):
        seen, views = points[back[part]].astype(np.float64), viewmats[back[part]]
        canonical[part] = canonicalize(seen, views, template, weights, intrinsics)
        residual[part] = _residual(template, seen, weights, views, intrinsics)
    poses = HeadPoses(viewmats[back].astype(np.float32), residual)
    return HeadTrack(template.astype(np.float32), poses, canonical)


def shape_difference(first: Float32, other: Float32) -> float:
    """Measure how much two faces differ, without their position, size and direction (Umeyama 1991).

    Args:
        first: A template [478, 3].
        other: Another one.

    Returns:
        Root mean square distance of corresponding landmarks of the surface, eye distances.
    """
    a, b = (shape[:N_SURFACE].astype(np.float64) for shape in (first, other))
    a, b = a - a.mean(0), b - b.mean(0)
    u, s, vt = np.linalg.svd(a.T @ b)
    s[2] *= np.sign(np.linalg.det(u @ vt))  # a rotation, not a reflection
    error = np.square(b).sum() - s.sum() ** 2 / np.square(a).sum()
    return float(np.sqrt(max(error, 0.0) / len(b)))


def track_known_head(landmarks: Float32, template: Float32, intrinsics: Float64) -> HeadTrack:
    """Estimate poses of a head whose template is known, each from its own landmarks alone.

    Args:
        landmarks: [F, 478, 3] in pixels, of frames that need not follow each other.
        template: [478, 3] mean face, world units.
        intrinsics: [3, 3] of the image.

    Returns:
        The track.
    """
    points, known = landmarks.astype(np.float64), template.astype(np.float64)
    weights = _stable_weights(known)
    viewmats = _initial_poses(known, points, weights, intrinsics)
    viewmats = fit_poses(known, points[..., :2], weights, viewmats, intrinsics)
    return _track(known, weights, landmarks, viewmats, np.arange(len(landmarks)), intrinsics)
