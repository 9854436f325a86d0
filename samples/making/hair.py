"""The sample person's hair: short strands on the scalp that MakeHuman's hair cap outlines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from head import Head, Points, Pose, smoothstep
from numpy.typing import NDArray

CENTRE = np.array([0.0, 8.45, 0.45])  # of the skull
CROWN = np.array([0.10, 9.45, -0.10])  # center of the hair's whorl
CELL = 0.07  # of the map of directions covered by the cap
EAR_TOP_DM = 8.42
EAR_INSIDE_DM = 0.735  # half the head's width at the auricles


@dataclass(frozen=True)
class HairStyle:
    """Settings of the haircut."""

    n_strands: int = 17000
    n_points: int = 6
    n_clumps: int = 1500
    top_length: float = 0.34  # decimeters
    side_length: float = 0.12
    lift: float = 0.50  # distance from the scalp at which strands bend
    sweep: float = 0.8  # how far the fringe is combed to the person's left
    clumping: float = 0.45
    jitter: float = 0.22
    seed: int = 7


def covered(directions: Points, cap: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Flags of the unit directions [N, 3] from the skull's center that meet the cap's cells."""
    return np.asarray(np.isin(_cells(directions), cap))


def cap_cells(head: Head) -> NDArray[np.int64]:
    """Cells of the directions of MakeHuman's hair, from the skull's center."""
    cap = head.posed(Pose({}))["hair"]
    points = _sample(cap, head.surfaces["hair"].faces, 60000, np.random.default_rng(0))[0]
    return np.unique(_cells(_directions(points)))


def scalp_weights(head: Head) -> Points:
    """1 for vertices [V] of the base mesh that belong to the scalp, else 0."""
    return (covered(_directions(head.neutral), cap_cells(head)) & has_hair(head.neutral)).astype(
        np.float64
    )


def has_hair(points: Points) -> NDArray[np.bool_]:
    """Flags of the points [N, 3] behind the hairline and away from the auricles."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    ear = (y < EAR_TOP_DM) & (x > EAR_INSIDE_DM)
    hairline = np.interp(z, (0.55, 0.74, 0.80, 1.20), (7.90, 8.05, 8.45, 8.82))
    return np.asarray(~ear & (y > hairline))


def strands(head: Head, style: HairStyle) -> Points:
    """Points [n_strands, n_points, 3] of every strand on the unturned head."""
    rng = np.random.default_rng(style.seed)
    cap = cap_cells(head)
    faces = [f for f in head.surfaces["body"].faces if head.neutral[list(f), 1].min() > 7.5]
    roots, normals = _sample(head.neutral, faces, style.n_strands * 4, rng)
    spread = roots + rng.normal(0.0, 0.02, roots.shape)
    inside = covered(_directions(spread), cap) & has_hair(spread)
    roots, normals = roots[inside][: style.n_strands], normals[inside][: style.n_strands]
    grown = _grow(roots, normals, style, rng)
    return _clumped(grown, style, rng)


def _grow(roots: Points, normals: Points, style: HairStyle, rng: np.random.Generator) -> Points:
    """Let each strand leave the scalp along its normal and bend into the combing direction."""
    away = roots - CROWN
    comb = away - (away * normals).sum(1, keepdims=True) * normals
    comb /= np.linalg.norm(comb, axis=1, keepdims=True) + 1e-6
    front = smoothstep((roots[:, 2] - 0.6) / 0.7) * smoothstep((roots[:, 1] - 8.6) / 0.3)
    comb[:, 0] += style.sweep * front
    comb[:, 1] *= 1.0 - 0.75 * front
    comb += rng.normal(0.0, style.jitter, comb.shape)
    comb -= (comb * normals).sum(1, keepdims=True) * normals
    comb /= np.linalg.norm(comb, axis=1, keepdims=True) + 1e-6
    high = smoothstep((roots[:, 1] - 8.6) / 0.6)
    length = (style.side_length + (style.top_length - style.side_length) * high) * rng.uniform(
        0.7, 1.1, len(roots)
    )
    lift = style.lift * (0.25 + 0.6 * high + 0.5 * front)
    along = np.linspace(0.0, 1.0, style.n_points)[None, :, None]
    rise = (lift * length)[:, None, None] * (along - 0.55 * along**2) * 1.5
    run = length[:, None, None] * along**1.2
    return np.asarray(roots[:, None] + rise * normals[:, None] + run * comb[:, None])


def _clumped(grown: Points, style: HairStyle, rng: np.random.Generator) -> Points:
    """Strands pulled towards the tips of their nearest guide, as in locks of hair."""
    guides = grown[rng.choice(len(grown), style.n_clumps, replace=False)]
    nearest = np.empty(len(grown), np.int64)
    for start in range(0, len(grown), 2000):
        gap = grown[start : start + 2000, None, 0] - guides[None, :, 0]
        nearest[start : start + 2000] = np.argmin((gap**2).sum(-1), axis=1)
    guide = guides[nearest]
    pull = style.clumping * np.linspace(0.0, 1.0, style.n_points)[None, :, None] ** 1.5
    turned = (guide - guide[:, :1]) - (grown - grown[:, :1])
    gathered = 0.6 * (guide[:, :1] - grown[:, :1])
    return np.asarray(grown + pull * turned + pull * gathered)


def _sample(
    points: Points, faces: list[tuple[int, ...]], n_samples: int, rng: np.random.Generator
) -> tuple[Points, Points]:
    """Points and outward normals [n, 3] spread evenly over a surface of quads."""
    triangles = np.array([t for f in faces for t in ((f[0], f[1], f[2]), (f[0], f[2], f[-1]))])
    corners = points[triangles]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=1)
    smooth = np.zeros_like(points)
    for corner in range(3):
        np.add.at(smooth, triangles[:, corner], cross)
    smooth /= np.linalg.norm(smooth, axis=1, keepdims=True) + 1e-9
    chosen = rng.choice(len(triangles), n_samples, p=area / area.sum())
    weights = rng.dirichlet((1.0, 1.0, 1.0), n_samples)
    normals = np.einsum("nk,nkc->nc", weights, smooth[triangles[chosen]])
    return np.einsum("nk,nkc->nc", weights, corners[chosen]), normals


def _directions(points: Points) -> Points:
    away = points - CENTRE
    return np.asarray(away / np.linalg.norm(away, axis=-1, keepdims=True))


def _cells(directions: Points) -> NDArray[np.int64]:
    cells = np.floor((directions + 1.0) / CELL).astype(np.int64)
    return np.asarray((cells[:, 0] * 1000 + cells[:, 1]) * 1000 + cells[:, 2])
