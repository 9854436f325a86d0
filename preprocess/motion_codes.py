"""Canonical landmarks -> the person's FaceModel and motion codes."""

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
"""Of the silent frames, those with the mouth most closed are the person at rest."""
DEPTH_WEIGHT = 0.4
"""Tracked depth is several times noisier than x and y."""
PART = 6000
"""Frames that are encoded at once."""


def mouth_weights(template: Float32) -> Float64:
    """How far each vertex [478] belongs to mouth and jaw: 1 below the nose, 0 at the eyes."""
    start = template[NOSE_BOTTOM, 1] - 0.25
    share = np.clip((template[:, 1] - start) / 0.3, 0.0, 1.0)
    weights = share**2 * (3.0 - 2.0 * share)
    weights[list(IRISES)] = 0.0
    return np.asarray(weights, dtype=np.float64)


def _mouth_importance(template: Float32) -> Float64:
    importance = mouth_weights(template)
    importance[list(LIPS)] *= 2.0
    importance[list(INNER_LIPS)] *= 1.5
    importance[list(JAW_LINE)] *= 0.7
    return importance


def _eye_importance(template: Float32) -> Float64:
    importance = np.zeros(len(template))
    importance[list(LEFT_BROW + RIGHT_BROW)] = 1.0
    importance[list(LEFT_EYE + RIGHT_EYE)] = 2.0
    importance[list(IRISES)] = 1.0
    importance[list(OUTER_EYE_CORNERS)] = 0.5
    return importance


def fit_face_model(
    template: Float32, canonical: Float32, train: Bool, silent: Bool, triangles: Int
) -> FaceModel:
    """The person's linear motion model, from training frames alone.

    template: [478, 3]. canonical: [F, 478, 3]. train, silent: [F]. triangles: [T, 3].
    """
    offsets = (canonical[train] - template).astype(np.float64)
    mouth_part = mouth_weights(template)
    mouth = _components(offsets, _mouth_importance(template), N_MOUTH)
    eyes = _components(offsets, _eye_importance(template), N_EYES)
    basis = np.concatenate(
        [
            _regress(offsets * mouth_part[:, None], mouth),
            np.zeros((N_INNER, *template.shape)),
            _regress(offsets * (1.0 - mouth_part)[:, None], eyes),
            np.zeros((N_BODY, *template.shape)),
        ]
    )
    model = FaceModel(
        template=template,
        basis=basis.astype(np.float32),
        n_mouth=N_MOUTH + N_INNER,
        triangles=_oriented(template, triangles),
        silence=np.zeros(len(basis), dtype=np.float32),
    )
    quiet = train & silent if (train & silent).sum() >= MIN_QUIET else train
    rest = _closed_mouth(model, encode_motion(model, canonical[quiet]))
    return replace(model, silence=rest)


def _closed_mouth(model: FaceModel, codes: Float32) -> Float32:
    """The code [K] at rest: the median of the most closed mouths among codes [n, K].

    In pauses people breathe, many with the mouth open: the median of all may be half open.
    """
    mouths = codes.copy()
    mouths[:, N_MOUTH:] = 0.0
    aperture = lip_aperture(model.vertices(mouths))
    closed = mouths[aperture <= np.percentile(aperture, CLOSED_PERCENT)]
    return np.median(closed, axis=0).astype(np.float32)


def _components(offsets: Float64, importance: Float64, n_components: int) -> Float64:
    """Scores [F, n] of the leading principal components, scaled so that the first has std 1."""
    weights = importance[:, None] * np.array([1.0, 1.0, DEPTH_WEIGHT])
    data = (offsets * weights).reshape(len(offsets), -1)
    data = data[:, weights.reshape(-1) > 0]  # the cost grows with the cube of their number
    data = data - data.mean(0)
    covariance = data.T @ data / len(data)
    values, vectors = np.linalg.eigh(covariance)
    leading = vectors[:, ::-1][:, :n_components]
    return np.asarray(data @ leading / np.sqrt(values[-1]))


def _regress(offsets: Float64, scores: Float64) -> Float64:
    """Vertex offsets [n, 478, 3] per unit of each score, least squares with a slight ridge."""
    gram = scores.T @ scores + 1e-6 * len(scores) * np.eye(scores.shape[1])
    flat = np.linalg.solve(gram, scores.T @ offsets.reshape(len(offsets), -1))
    return np.asarray(flat.reshape(scores.shape[1], -1, 3))


def encode_motion(model: FaceModel, canonical: Float32) -> Float32:
    """Motion codes [F, K] whose mesh lies nearest to canonical landmarks [F, 478, 3].

    What moves no vertex, inner mouth and body, is zero.

    Weighted least squares over both parts at once; lips and lids count most, depth little.
    """
    importance = _mouth_importance(model.template) + _eye_importance(model.template) + 0.02
    weights = (importance[:, None] * np.array([1.0, 1.0, DEPTH_WEIGHT])).reshape(-1)
    basis = model.basis[:-N_BODY].reshape(model.n_codes - N_BODY, -1).astype(np.float64) * weights
    gram = basis @ basis.T
    gram += 1e-4 * np.diag(np.diag(gram)) + 1e-9 * np.trace(gram) * np.eye(len(gram))
    codes = np.zeros((len(canonical), model.n_codes), np.float32)
    for start in range(0, len(canonical), PART):
        part = slice(start, start + PART)
        target = (canonical[part] - model.template).reshape(-1, basis.shape[1]) * weights
        codes[part, :-N_BODY] = np.linalg.solve(gram, basis @ target.T).T
    return codes


def _oriented(template: Float32, triangles: Int) -> Int:
    """Triangles wound so that their normals point out of the face (towards -z)."""
    a, b, c = (template[triangles[:, i]].astype(np.float64) for i in range(3))
    normals = np.cross(b - a, c - a)
    centre = template[:N_SURFACE].mean(0) + np.array([0.0, 0.0, 1.0])
    flip = (normals * ((a + b + c) / 3 - centre)).sum(-1) < 0
    oriented = triangles.copy()
    oriented[flip] = oriented[flip][:, [0, 2, 1]]
    return oriented
