"""Where Gaussians start: frames on the tracked mesh, a lip cap, teeth, and the rigid rest.

Frames, in this order: every triangle of the face surface, the triangles of a cap across the inner
lips, the skull (rigid), the jaw (moves as the chin does). Each has a rest pose; what moves is the
origin o and the deformation gradient F (deform.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from talkhead.cameras import project
from talkhead.dataset import IdentityDataset
from talkhead.face import (
    CHIN,
    FACE_OVAL,
    INNER_LIPS,
    LEFT_EYE,
    LIPS,
    RIGHT_EYE,
    FaceModel,
    lip_aperture,
)
from talkhead.types import Float32, Float64, Int

CHIN_POINTS = (CHIN, 148, 176, 377, 400, 175, 199, 200, 18, 83, 313)
"""Vertices over the bone of the chin: their mean displacement is the jaw's."""
LIP_DENSITY, EYE_DENSITY = 3.5, 2.5
CAP_DEPTH, TEETH_DEPTH = 0.02, 0.06
"""How far behind the lips the cap and the teeth begin, world units."""
N_COLOUR_FRAMES = 12


def cap_triangles() -> Int:
    """Triangles [18, 3] across the inner lips, zipped from corner to corner."""
    lower, upper = list(INNER_LIPS[:11]), [INNER_LIPS[0], *INNER_LIPS[:9:-1]]
    triangles = []
    for i in range(10):
        if i > 0:
            triangles.append((lower[i], upper[i], lower[i + 1]))
        if i < 9:
            triangles.append((upper[i], upper[i + 1], lower[i + 1]))
    return np.array(triangles, dtype=np.int64)


@dataclass(frozen=True)
class Frames:
    """The moving frames, as torch tensors on one device.

    triangles: [T, 3] vertex indices of surface and cap. rest_inverse: [T, 3, 3] inverse rest edges.
    template: [478, 3], basis: [K, 478, 3] of the face. jaw: [K, 3] jaw displacement per unit code.
    """

    triangles: Tensor
    rest_inverse: Tensor
    template: Tensor
    basis: Tensor
    jaw: Tensor

    @classmethod
    def from_face(cls, face: FaceModel, open_mouth: Float32) -> Frames:
        """Frames of a face; the cap's rest is taken from an open mouth [478, 3], else it is flat."""
        cap = cap_triangles()
        rest = np.concatenate([face.template[face.triangles], open_mouth[cap]])
        inverse = np.linalg.inv(_edges(torch.from_numpy(rest).double()).numpy())
        return cls(
            triangles=torch.from_numpy(np.concatenate([face.triangles, cap])),
            rest_inverse=torch.from_numpy(inverse).float(),
            template=torch.from_numpy(face.template.copy()),
            basis=torch.from_numpy(face.basis.copy()),
            jaw=torch.from_numpy(face.basis[:, list(CHIN_POINTS)].mean(1)),
        )

    def tensors(self) -> dict[str, Tensor]:
        return dict(vars(self))

    def pose(self, motion: Tensor) -> tuple[Tensor, Tensor]:
        """Deformation gradients [B, M, 3, 3] and origins [B, M, 3] of motion codes [B, K]."""
        n_images, (n_codes, n_vertices, _) = len(motion), self.basis.shape
        flat = motion @ self.basis.reshape(n_codes, -1)
        vertices = self.template + flat.reshape(n_images, n_vertices, 3)
        corners = vertices[:, self.triangles]
        gradients = _edges(corners) @ self.rest_inverse
        rigid = torch.eye(3, dtype=motion.dtype, device=motion.device).expand(n_images, 2, 3, 3)
        jaw = motion @ self.jaw
        moved = torch.stack([torch.zeros_like(jaw), jaw], dim=1)
        return torch.cat([gradients, rigid], 1), torch.cat([corners[:, :, 0], moved], 1)


def _edges(corners: Tensor) -> Tensor:
    """Edge frames [..., 3, 3]: two edges and the normal, scaled to their length, as columns.

    corners: [..., 3, 3]. A little is added to the normal's length, so that the frame of a closed
    lip cap is thin but not singular.
    """
    first, second = corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
    normal = torch.linalg.cross(first, second)
    doubled_area = normal.norm(dim=-1, keepdim=True)
    unit = normal / (doubled_area + 1e-12)
    return torch.stack([first, second, unit * (doubled_area.sqrt() + 1e-3)], dim=-1)


@dataclass(frozen=True)
class Seeds:
    """Gaussians at rest: index [N] frame, local [N, 3], size [N] (standard deviation), colors [N, 3]."""

    index: Int
    local: Float32
    size: Float32
    colors: Float32


def open_mouth_vertices(dataset: IdentityDataset) -> Float32:
    """The mean mesh [478, 3] of the training frames in which the mouth is open widest."""
    usable = dataset.tracks.usable & dataset.tracks.train
    vertices = dataset.face.vertices(dataset.tracks.codes[usable])
    aperture = lip_aperture(vertices)
    widest = aperture >= np.percentile(aperture, 95)
    return np.asarray(vertices[widest].mean(0), dtype=np.float32)


def seed_gaussians(
    dataset: IdentityDataset,
    open_mouth: Float32,
    counts: tuple[int, int, int, int],
    rng: np.random.Generator,
) -> Seeds:
    """Gaussians over face, lip cap, teeth (each jaw) and the rigid rest, in numbers `counts`."""
    face = dataset.face
    n_surface, n_cap, n_teeth, n_rigid = counts
    template = face.template.astype(np.float64)
    n_triangles = len(face.triangles)
    parts = [
        _on_triangles(template, face.triangles, 0, n_surface, rng, _density(template, face.triangles)),
        _on_triangles(open_mouth.astype(np.float64), cap_triangles(), n_triangles, n_cap, rng, None),
    ]
    parts[1] = (parts[1][0], parts[1][1] + np.array([0.0, 0.0, CAP_DEPTH]), *parts[1][2:])
    skull = n_triangles + len(cap_triangles())
    for frame, edge in ((skull, 13), (skull + 1, 14)):
        parts.append(_teeth(open_mouth, edge, frame, n_teeth, rng, dataset))
    parts.append(_rigid(dataset, skull, n_rigid, rng))
    index, local, size, places = (np.concatenate(column) for column in zip(*parts, strict=True))
    colors = _colours(dataset, places)
    return Seeds(index, local.astype(np.float32), size.astype(np.float32), colors)


Part = tuple[Int, Float64, Float64, Float64]
"""index [n], local [n, 3], size [n], places in template space [n, 3]."""


def _density(template: Float64, triangles: Int) -> Float64:
    centres = template[triangles].mean(1)

    def near(points: tuple[int, ...]) -> Float64:
        gaps = np.linalg.norm(centres[:, None] - template[None, list(points)], axis=-1).min(1)
        return np.asarray(np.exp(-((gaps / 0.12) ** 2)))

    lips, eyes = near(LIPS), near(LEFT_EYE + RIGHT_EYE)
    return 1.0 + (LIP_DENSITY - 1.0) * lips + (EYE_DENSITY - 1.0) * eyes


def _on_triangles(
    vertices: Float64,
    triangles: Int,
    first_frame: int,
    n: int,
    rng: np.random.Generator,
    density: Float64 | None,
) -> Part:
    corners = vertices[triangles]
    area = 0.5 * np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1
    )
    weight = area * (1.0 if density is None else density)
    chosen = _systematic(weight / weight.sum(), n, rng)
    u, v = rng.random((2, n))
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    picked = corners[chosen]
    local = u[:, None] * (picked[:, 1] - picked[:, 0]) + v[:, None] * (picked[:, 2] - picked[:, 0])
    per_gaussian = weight.sum() / n / (weight / area)[chosen]
    return chosen + first_frame, local, 0.6 * np.sqrt(per_gaussian), picked[:, 0] + local


def _systematic(share: Float64, n: int, rng: np.random.Generator) -> Int:
    """n indices drawn by systematic resampling: each as often as its share says, within one."""
    edges = np.cumsum(share)
    return np.minimum(np.searchsorted(edges, (np.arange(n) + rng.random()) / n), len(share) - 1)


def _teeth(
    open_mouth: Float32,
    edge: int,
    frame: int,
    n: int,
    rng: np.random.Generator,
    dataset: IdentityDataset,
) -> Part:
    """A row of teeth behind the edge of one lip, curved like a dental arch."""
    left, right = open_mouth[78].astype(np.float64), open_mouth[308].astype(np.float64)
    lip = open_mouth[edge].astype(np.float64)
    half = 0.42 * np.linalg.norm(right - left)
    side = rng.uniform(-1.0, 1.0, n)
    height = rng.uniform(-0.09, 0.09, n)
    depth = TEETH_DEPTH + 0.10 * side**2
    places = lip + np.stack([side * half, height, depth], axis=1)
    # A jaw frame is at rest where the code is zero; the open mouth has carried the chin down.
    jaw_shift = np.zeros(3)
    if edge == 14:
        chin = list(CHIN_POINTS)
        jaw_shift = (open_mouth[chin] - dataset.face.template[chin]).mean(0)
    size = np.full(n, 0.7 * np.sqrt(2 * half * 0.18 / n))
    return np.full(n, frame), places - jaw_shift, size, places


def _rigid(dataset: IdentityDataset, frame: int, n: int, rng: np.random.Generator) -> Part:
    """Points of the person outside the face hull, put on the depth of the ears and behind."""
    chosen = _spread_frames(dataset, 8)
    landmarks = dataset.crop_landmarks()
    places = []
    share = np.array_split(np.arange(n), len(chosen))
    for frame_id, part in zip(chosen, share, strict=True):
        inside = dataset.masks[frame_id] > 127
        hull = np.zeros(inside.shape, np.uint8)
        oval = landmarks[frame_id, list(FACE_OVAL)].round().astype(np.int32)
        cv2.fillPoly(hull, [oval], 1)
        hull = cv2.erode(hull, np.ones((5, 5), np.uint8))
        rows, columns = np.nonzero(inside & (hull == 0))
        picked = rng.integers(0, len(rows), len(part))
        pixels = np.stack([columns, rows], 1)[picked] + rng.random((len(part), 2))
        places.append(_unproject(dataset, frame_id, pixels))
    flat = np.concatenate(places)
    area = (dataset.masks[chosen[0]] > 127).mean() * dataset.info.crop_width * dataset.info.crop_height
    pixel = dataset.tracks.viewmats[chosen[0], 2, 3] / (dataset.intrinsics[0, 0] * dataset.info.scale)
    size = np.full(len(flat), 0.6 * np.sqrt(0.5 * area / n) * pixel)
    return np.full(len(flat), frame), flat, size, flat


def _unproject(dataset: IdentityDataset, frame: int, pixels: Float64) -> Float64:
    """Template-space points [n, 3] behind crop pixels [n, 2], at the depth of the ears."""
    view, k = dataset.tracks.viewmats[frame].astype(np.float64), dataset.crop_ks[frame]
    ears = dataset.face.template[[127, 356]].mean(0)
    depth = (view[:3, :3] @ ears + view[:3, 3])[2]
    rays = (pixels - k[:2, 2]) / k[0, 0] * depth
    camera = np.concatenate([rays, np.full((len(pixels), 1), depth)], axis=1)
    return np.asarray((camera - view[:3, 3]) @ view[:3, :3])


def _spread_frames(dataset: IdentityDataset, n: int) -> Int:
    """n usable training frames, evenly spread."""
    usable = np.flatnonzero(dataset.tracks.usable & dataset.tracks.train)
    return usable[np.linspace(0, len(usable) - 1, min(n, len(usable))).round().astype(int)]


def _colours(dataset: IdentityDataset, places: Float64) -> Float32:
    """Median colour [n, 3] at the projected places over a few frames."""
    chosen = _spread_frames(dataset, N_COLOUR_FRAMES)
    info = dataset.info
    samples = []
    for frame in chosen:
        view = dataset.tracks.viewmats[frame : frame + 1].astype(np.float64)
        pixels = project(places, view, dataset.crop_ks[frame].astype(np.float64))[0]
        columns = np.clip(pixels[:, 0], 0, info.crop_width - 1).astype(int)
        rows = np.clip(pixels[:, 1], 0, info.crop_height - 1).astype(int)
        samples.append(dataset.frames[frame][rows, columns])
    return (np.median(np.stack(samples), axis=0) / 255.0).astype(np.float32)
