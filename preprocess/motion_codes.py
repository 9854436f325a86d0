"""Fit the person's face model to canonical landmarks, and encode motion with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from talkhead.face import (
    INNER_LIPS,
    IRISES,
    JAW_LINE,
    LEFT_BROW,
    LEFT_EYE,
    LIPS,
    N_BODY,
    N_CLOTHES,
    N_INNER,
    N_SURFACE,
    NOSE_BOTTOM,
    OUTER_EYE_CORNERS,
    RIGHT_BROW,
    RIGHT_EYE,
    FaceModel,
    lip_aperture,
)
from talkhead.types import Bool, Float32, Float64, Int

N_MOUTH = 20
N_EYES = 8
MIN_QUIET = 10
CLOSED_PERCENT = 30
"""Percentage of the silent frames, those with the most closed mouths, that show the person at rest."""
DEPTH_WEIGHT = 0.4
"""Weight of depth: as tracked, it is several times noisier than x and y."""
PART = 6000
"""Number of frames that are encoded at once."""


def mouth_weights(template: Float32) -> Float64:
    """Return the degree to which each vertex belongs to mouth and jaw.

    Args:
        template: [478, 3] in template space.

    Returns:
        [478]: 1 below the nose, falling smoothly to 0 at the eyes.
    """
    start = template[NOSE_BOTTOM, 1] - 0.25
    share = np.clip((template[:, 1] - start) / 0.3, 0.0, 1.0)
    weights = share**2 * (3.0 - 2.0 * share)
    weights[list(IRISES)] = 0.0
    return np.asarray(weights, dtype=np.float64)


def _mouth_importance(template: Float32) -> Float64:
    """Return weights [478] of the vertices for the mouth part of the code."""
    importance = mouth_weights(template)
    importance[list(LIPS)] *= 2.0
    importance[list(INNER_LIPS)] *= 1.5
    importance[list(JAW_LINE)] *= 0.7
    return importance


def _eye_importance(template: Float32) -> Float64:
    """Return weights [478] of the vertices for eyes, brows and irises."""
    importance = np.zeros(len(template))
    importance[list(LEFT_BROW + RIGHT_BROW)] = 1.0
    importance[list(LEFT_EYE + RIGHT_EYE)] = 2.0
    importance[list(IRISES)] = 1.0
    importance[list(OUTER_EYE_CORNERS)] = 0.5
    return importance


def fit_face_model(
    template: Float32, canonical: Float32, train: Bool, silent: Bool, triangles: Int
) -> FaceModel:
    """Fit the person's linear motion model on training frames.

    Args:
        template: [478, 3] mean face, world units.
        canonical: [F, 478, 3] landmarks without head pose.
        train: [F] frames to fit on.
        silent: [F] frames without speech; the rest code is estimated on them.
        triangles: [T, 3] of the face mesh.

    Returns:
        The model, with K = N_MOUTH + N_INNER + N_EYES + N_CLOTHES + N_BODY components.
    """
    # 1. Principal components of the mouth and of the eyes, as scores of the training frames.
    offsets = (canonical[train] - template).astype(np.float64)  # [n, 478, 3]
    mouth_part = mouth_weights(template)  # [478]
    mouth = _components(offsets, _mouth_importance(template), N_MOUTH)  # [n, N_MOUTH]
    eyes = _components(offsets, _eye_importance(template), N_EYES)  # [n, N_EYES]
    # 2. The offsets that each score explains; inner mouth, clothes and body move no vertex.
    basis = np.concatenate(  # [K, 478, 3]
        [
            _regress(offsets * mouth_part[:, None], mouth),
            np.zeros((N_INNER, *template.shape)),
            _regress(offsets * (1.0 - mouth_part)[:, None], eyes),
            np.zeros((N_CLOTHES + N_BODY, *template.shape)),
        ]
    )
    model = FaceModel(
        template=template,
        basis=basis.astype(np.float32),
        n_mouth=N_MOUTH + N_INNER,
        triangles=_oriented(template, triangles),
        silence=np.zeros(len(basis), dtype=np.float32),
    )
    # 3. The code of the mouth at rest: on silent frames, if there are enough.
    quiet = train & silent if (train & silent).sum() >= MIN_QUIET else train
    rest = _closed_mouth(model, encode_motion(model, canonical[quiet]))
    return replace(model, silence=rest)


def _closed_mouth(model: FaceModel, codes: Float32) -> Float32:
    """Estimate the rest code [K]: the median of the most closed mouths among codes [n, K].

    During pauses people breathe, many with the mouth open: the median of all frames may be half open.
    """
    mouths = codes.copy()
    mouths[:, N_MOUTH:] = 0.0
    aperture = lip_aperture(model.vertices(mouths))
    closed = mouths[aperture <= np.percentile(aperture, CLOSED_PERCENT)]
    return np.median(closed, axis=0).astype(np.float32)


def _components(offsets: Float64, importance: Float64, n_components: int) -> Float64:
    """Return scores [F, n] of the leading principal components, scaled so that the first has std 1.

    offsets: [F, 478, 3] from the template. importance: [478] weights of the vertices.
    """
    # 1. Weighted coordinates; those without weight are left out, since the cost is cubic in their number.
    weights = importance[:, None] * np.array([1.0, 1.0, DEPTH_WEIGHT])  # [478, 3]
    data = (offsets * weights).reshape(len(offsets), -1)  # [F, 1434]
    data = data[:, weights.reshape(-1) > 0]  # [F, m]
    data = data - data.mean(0)
    # 2. Eigenvectors of the covariance, by rising eigenvalue.
    covariance = data.T @ data / len(data)  # [m, m]
    values, vectors = np.linalg.eigh(covariance)  # [m], [m, m]
    leading = vectors[:, ::-1][:, :n_components]  # [m, n]
    return np.asarray(data @ leading / np.sqrt(values[-1]))


def _regress(offsets: Float64, scores: Float64) -> Float64:
    """Return vertex offsets [n, 478, 3] per unit of scores [F, n], by ridge regression."""
    gram = scores.T @ scores + 1e-6 * len(scores) * np.eye(scores.shape[1])  # [n, n]
    # [n, 1434]
    flat = np.linalg.solve(gram, scores.T @ offsets.reshape(len(offsets), -1))
    return np.asarray(flat.reshape(scores.shape[1], -1, 3))


def encode_motion(model: FaceModel, canonical: Float32) -> Float32:
    """Find the motion codes whose mesh is nearest to canonical landmarks.

    Weighted least squares over both parts at once; lips and lids count most, depth little. Components
    that move no vertex, inner mouth, clothes and body, are 0.

    Args:
        model: The face model, with K components.
        canonical: [F, 478, 3] landmarks without head pose.

    Returns:
        [F, K].
    """
    # 1. The basis of the components of mouth and eyes, each coordinate weighted.
    importance = _mouth_importance(model.template) + _eye_importance(model.template) + 0.02  # [478]
    weights = (importance[:, None] * np.array([1.0, 1.0, DEPTH_WEIGHT])).reshape(-1)  # [1434]
    n_face = model.eyes.stop
    # [n_face, 1434]
    basis = model.basis[:n_face].reshape(n_face, -1).astype(np.float64) * weights
    # 2. Normal equations. The ridge keeps components of the inner mouth, which are zero, at zero.
    gram = basis @ basis.T  # [n_face, n_face]
    gram += 1e-4 * np.diag(np.diag(gram)) + 1e-9 * np.trace(gram) * np.eye(len(gram))
    # 3. Solve for all frames, part by part.
    codes = np.zeros((len(canonical), model.n_codes), np.float32)
    for start in range(0, len(canonical), PART):
        part = slice(start, start + PART)
        target = (canonical[part] - model.template).reshape(
            -1, basis.shape[1]
        ) * weights  # [n, 1434]
        codes[part, :n_face] = np.linalg.solve(gram, basis @ target.T).T
    return codes


def _oriented(template: Float32, triangles: Int) -> Int:
    """Return triangles [T, 3] wound so that their normals point out of the face (towards -z)."""
    a, b, c = (template[triangles[:, i]].astype(np.float64) for i in range(3))  # [T, 3] each
    normals = np.cross(b - a, c - a)  # [T, 3]
    center = template[:N_SURFACE].mean(0) + np.array([0.0, 0.0, 1.0])  # a point inside the head
    flip = (normals * ((a + b + c) / 3 - center)).sum(-1) < 0
    oriented = triangles.copy()
    oriented[flip] = oriented[flip][:, [0, 2, 1]]
    return oriented
