"""Where Gaussians start: frames on the tracked mesh, a lip cap, teeth, and the rigid rest.

Frames, in this order: every triangle of the face surface, the triangles of a cap across the inner
lips, the skull (rigid), the jaw (moves as the chin does), the body (moves in the image as the code
says, whatever the head does). Each has a rest pose; what moves is the origin o and the deformation
gradient F (deform.py).
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
    BASIS_SPEC,
    CHIN,
    CODES,
    FACE_OVAL,
    JAW_LINE,
    LEFT_EYE,
    LIPS,
    N_LANDMARKS,
    RIGHT_EYE,
    TEMPLATE_SPEC,
    TRIANGLES,
    FaceModel,
    body_matrix,
    cap_triangles,
    lip_aperture,
)
from talkhead.frame_selection import spread_frames
from talkhead.renderers.pose_features import VIEW_SPEC, body_frame
from talkhead.tensors import TensorSpec
from talkhead.types import Float32, Float64, Int, UInt8

CHIN_POINTS = (CHIN, 148, 176, 377, 400, 175, 199, 200, 18, 83, 313)
"""Vertices over the bone of the chin: their mean displacement is the jaw's."""
LIP_DENSITY, EYE_DENSITY = 3.5, 2.5
CAP_DEPTH, TEETH_DEPTH = 0.02, 0.06
"""How far behind the lips the cap and the teeth begin, world units."""
N_COLOR_FRAMES, N_REST_FRAMES = 12, 4


N_RIGID = 3
"""Frames that are no triangles: skull, jaw, body."""
FRAME_TENSORS = {
    "triangles": TensorSpec((TRIANGLES, 3), torch.int64, index_of=N_LANDMARKS),
    "rest_inverse": TensorSpec((TRIANGLES, 3, 3)),
    "template": TEMPLATE_SPEC,
    "basis": BASIS_SPEC,
    "jaw": TensorSpec((CODES, 3)),
    "rest_view": VIEW_SPEC,
}


@dataclass(frozen=True)
class Frames:
    """The moving frames, as torch tensors on one device.

    triangles: [T, 3] vertex indices of surface and cap. rest_inverse: [T, 3, 3] inverse rest edges.
    template: [478, 3], basis: [K, 478, 3] of the face. jaw: [K, 3] jaw displacement per unit code.
    rest_view: [4, 4] the mean head pose, in which body and skull coincide.
    """

    triangles: Tensor
    rest_inverse: Tensor
    template: Tensor
    basis: Tensor
    jaw: Tensor
    rest_view: Tensor

    @classmethod
    def from_face(cls, face: FaceModel, open_mouth: Float32, rest_view: Float64) -> Frames:
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
            rest_view=torch.from_numpy(rest_view).float(),
        )

    def tensors(self) -> dict[str, Tensor]:
        return dict(vars(self))

    def pose(self, motion: Tensor, viewmats: Tensor) -> tuple[Tensor, Tensor]:
        """Deformation gradients [B, M, 3, 3] and origins [B, M, 3] of codes [B, K], poses [B, 4, 4]."""
        n_images, (n_codes, n_vertices, _) = len(motion), self.basis.shape
        flat = motion @ self.basis.reshape(n_codes, -1)
        vertices = self.template + flat.reshape(n_images, n_vertices, 3)
        corners = vertices[:, self.triangles]
        gradients = _edges(corners) @ self.rest_inverse
        rigid = torch.eye(3, dtype=motion.dtype, device=motion.device).expand(n_images, 2, 3, 3)
        jaw = motion @ self.jaw
        body, body_origin = body_frame(motion, viewmats, self.rest_view)
        moved = torch.stack([torch.zeros_like(jaw), jaw, body_origin], dim=1)
        return (
            torch.cat([gradients, rigid, body[:, None]], 1),
            torch.cat([corners[:, :, 0], moved], 1),
        )


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
    usable = dataset.tracks.learnt
    vertices = dataset.face.vertices(dataset.tracks.codes[usable])
    aperture = lip_aperture(vertices)
    widest = aperture >= np.percentile(aperture, 95)
    return np.asarray(vertices[widest].mean(0), dtype=np.float32)


def seed_gaussians(
    dataset: IdentityDataset,
    open_mouth: Float32,
    rest_view: Float64,
    counts: tuple[int, int, int, int],
    rng: np.random.Generator,
) -> Seeds:
    """Gaussians over face, lip cap, teeth (each jaw) and the rest of the person, in numbers `counts`."""
    face = dataset.face
    n_surface, n_cap, n_teeth, n_rest = counts
    template = face.template.astype(np.float64)
    n_triangles = len(face.triangles)
    density = _density(template, face.triangles)
    cap = cap_triangles()
    cap_part = _on_triangles(open_mouth.astype(np.float64), cap, n_triangles, n_cap, rng, None)
    skull = n_triangles + len(cap)
    parts = [
        _on_triangles(template, face.triangles, 0, n_surface, rng, density),
        (cap_part[0], cap_part[1] + np.array([0.0, 0.0, CAP_DEPTH]), *cap_part[2:]),
        _teeth(open_mouth, 13, skull, n_teeth, rng, dataset),
        _teeth(open_mouth, 14, skull + 1, n_teeth, rng, dataset),
        *_rest_of_person(dataset, rest_view, skull, n_rest, rng),
    ]
    index, local, size, colors = (np.concatenate(column) for column in zip(*parts, strict=True))
    places = colors[:, :3]
    known = np.isfinite(colors[:, 3:]).all(1)
    colors = np.where(known[:, None], colors[:, 3:], _colors(dataset, places))
    return Seeds(
        index, local.astype(np.float32), size.astype(np.float32), colors.astype(np.float32)
    )


Part = tuple[Int, Float64, Float64, Float64]
"""index [n], local [n, 3], size [n], place in template space and colour, NaN if unknown [n, 6]."""


def _uncolored(places: Float64) -> Float64:
    return np.concatenate([places, np.full_like(places, np.nan)], axis=1)


def _density(template: Float64, triangles: Int) -> Float64:
    centers = template[triangles].mean(1)

    def near(points: tuple[int, ...]) -> Float64:
        gaps = np.linalg.norm(centers[:, None] - template[None, list(points)], axis=-1).min(1)
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
    square = rng.random((2, n, 1))
    share = np.where(square.sum(0) > 1, 1 - square, square)
    picked = corners[chosen]
    edges = picked[:, 1:] - picked[:, :1]
    local: Float64 = share[0] * edges[:, 0] + share[1] * edges[:, 1]
    per_gaussian = weight.sum() / n / (weight / area)[chosen]
    size = 0.6 * np.sqrt(per_gaussian)
    index: Int = chosen + first_frame
    return index, local, size, _uncolored(picked[:, 0] + local)


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
    index = np.full(n, frame, dtype=np.int64)
    return index, places - jaw_shift, size, _uncolored(places)


def _rest_of_person(
    dataset: IdentityDataset, rest_view: Float64, skull: int, n: int, rng: np.random.Generator
) -> list[Part]:
    """Hair and ears on the skull, neck and clothes on the body: pixels of a few training frames.

    More of them where the image has detail; put at the depth of the ears.
    """
    chosen = _spread_frames(dataset, N_REST_FRAMES)
    landmarks = dataset.crop_landmarks()
    parts: list[Part] = []
    for frame_id, share in zip(chosen, np.array_split(np.arange(n), len(chosen)), strict=True):
        image = dataset.frames[frame_id]
        chance = _detail(image) * (dataset.masks[frame_id] > 127)
        oval = landmarks[frame_id, list(FACE_OVAL)].round().astype(np.int32)
        hull = cv2.fillPoly(np.zeros(chance.shape, np.uint8), [oval], 1)
        chance[cv2.erode(hull, np.ones((5, 5), np.uint8)) > 0] = 0.0
        total = chance.sum()
        if total == 0:
            continue
        picked = _systematic(chance.ravel() / total, len(share), rng)
        rows, columns = np.unravel_index(picked, chance.shape)
        pixels = np.stack([columns, rows], 1) + rng.random((len(share), 2))
        view, k = dataset.tracks.viewmats[frame_id].astype(np.float64), dataset.crop_ks[frame_id]
        camera = _unproject(dataset, view, k.astype(np.float64), pixels)
        pixel = camera[:, 2] / k[0, 0]
        size = 0.6 * pixel * np.sqrt(total / n / chance[rows, columns])
        places = (camera - view[:3, 3]) @ view[:3, :3]
        on_body = rows > landmarks[frame_id, JAW_LINE, 1].mean()
        code = torch.from_numpy(dataset.tracks.codes[frame_id : frame_id + 1]).double()
        unswayed = np.linalg.solve(body_matrix(code)[0].numpy(), camera.T).T
        body = (unswayed - rest_view[:3, 3]) @ rest_view[:3, :3]
        color = image[rows, columns] / 255.0
        index = np.where(on_body, skull + 2, skull)
        local = np.where(on_body[:, None], body, places)
        parts.append((index, local, size, np.concatenate([places, color], axis=1)))
    return parts


def _detail(image: UInt8) -> Float64:
    """How much detail is around each pixel [H, W], 0.25 where there is none."""
    gray = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float32)
    slope = np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    slope = cv2.GaussianBlur(slope, (0, 0), 1.5)
    return np.asarray(0.25 + np.minimum(slope / (slope.mean() + 1e-6), 4.0), dtype=np.float64)


def _unproject(dataset: IdentityDataset, view: Float64, k: Float64, pixels: Float64) -> Float64:
    """Camera-space points [n, 3] behind crop pixels [n, 2], at the depth of the ears."""
    ears = dataset.face.template[[127, 356]].mean(0)
    depth = (view[:3, :3] @ ears + view[:3, 3])[2]
    rays = (pixels - k[:2, 2]) / k[0, 0] * depth
    return np.concatenate([rays, np.full((len(pixels), 1), depth)], axis=1)


def _spread_frames(dataset: IdentityDataset, n: int) -> Int:
    """n usable training frames, evenly spread."""
    return spread_frames(dataset.tracks.learnt, n)


def _colors(dataset: IdentityDataset, places: Float64) -> Float32:
    """Median colour [n, 3] at the projected places over a few frames."""
    chosen = _spread_frames(dataset, N_COLOR_FRAMES)
    info = dataset.info
    samples = []
    for frame in chosen:
        view = dataset.tracks.viewmats[frame : frame + 1].astype(np.float64)
        pixels = project(places, view, dataset.crop_ks[frame].astype(np.float64))[0]
        columns = np.clip(pixels[:, 0], 0, info.crop_width - 1).astype(int)
        rows = np.clip(pixels[:, 1], 0, info.crop_height - 1).astype(int)
        samples.append(dataset.frames[frame][rows, columns])
    return (np.median(np.stack(samples), axis=0) / 255.0).astype(np.float32)
