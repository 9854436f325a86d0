"""Initialization of the Gaussians: moving frames, and the initial positions of the Gaussians in them.

The frames are, in this order: each triangle of the face surface, the triangles of a cap across the
inner lips, the skull (rigid), the jaw (moves with the chin), and the body (moves in the image with
the body part of the code, independently of the head). Each has a rest pose. Its motion is given by
its origin o and its deformation gradient F (skinning.py).
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
"""Vertices over the bone of the chin. Their mean displacement is that of the jaw."""
LIP_DENSITY, EYE_DENSITY = 3.5, 2.5
CAP_DEPTH, TEETH_DEPTH = 0.02, 0.06
"""Depth behind the lips at which the cap and the teeth begin, world units."""
N_COLOR_FRAMES, N_REST_FRAMES = 12, 4


N_RIGID = 3
"""Number of frames that are not triangles: skull, jaw, body."""
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

    Attributes:
        triangles: [T, 3], vertex indices of surface and cap.
        rest_inverse: [T, 3, 3], inverse edge frames at rest.
        template: [478, 3], the face at rest.
        basis: [K, 478, 3], displacement of its vertices per unit of the code.
        jaw: [K, 3], displacement of the jaw per unit of the code.
        rest_view: [4, 4], the mean head pose, in which body and skull coincide.
    """

    triangles: Tensor
    rest_inverse: Tensor
    template: Tensor
    basis: Tensor
    jaw: Tensor
    rest_view: Tensor

    @classmethod
    def from_face(cls, face: FaceModel, open_mouth: Float32, rest_view: Float64) -> Frames:
        """Create the frames of a face.

        Args:
            face: The face model.
            open_mouth: [478, 3], a mesh with open mouth, which gives the cap at rest: the cap of a
                closed mouth is flat.
            rest_view: [4, 4], the mean head pose.

        Returns:
            The frames, on the CPU.
        """
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

    @property
    def body(self) -> int:
        """Number of the frame of the body."""
        return len(self.triangles) + N_RIGID - 1

    def tensors(self) -> dict[str, Tensor]:
        """Return the fields by name, each of the shape given above."""
        return dict(vars(self))

    def pose(self, motion: Tensor, viewmats: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the motion of the frames.

        Args:
            motion: [B, K], motion codes.
            viewmats: [B, 4, 4], head poses.

        Returns:
            Deformation gradients [B, M, 3, 3] and origins [B, M, 3].
        """
        # Triangles: edge frames of the displaced mesh, relative to those at rest.
        n_images, (n_codes, n_vertices, _) = len(motion), self.basis.shape
        flat = motion @ self.basis.reshape(n_codes, -1)
        vertices = self.template + flat.reshape(n_images, n_vertices, 3)
        corners = vertices[:, self.triangles]  # [B, T, 3, 3]
        gradients = _edges(corners) @ self.rest_inverse
        # Skull and jaw move without deforming; the body moves on its own.
        rigid = torch.eye(3, dtype=motion.dtype, device=motion.device).expand(n_images, 2, 3, 3)
        jaw = motion @ self.jaw
        body, body_origin = body_frame(motion, viewmats, self.rest_view)
        moved = torch.stack([torch.zeros_like(jaw), jaw, body_origin], dim=1)  # [B, 3, 3]
        return (
            torch.cat([gradients, rigid, body[:, None]], 1),
            torch.cat([corners[:, :, 0], moved], 1),
        )


def _edges(corners: Tensor) -> Tensor:
    """Build edge frames [..., 3, 3] from the corners [..., 3, 3] of triangles.

    Columns are two edges and the normal, whose length is the square root of twice the area. A
    little is added to it, so that the frame of a closed lip cap is thin but not singular.
    """
    first, second = corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
    normal = torch.linalg.cross(first, second)  # length: twice the triangle's area
    doubled_area = normal.norm(dim=-1, keepdim=True)
    unit = normal / (doubled_area + 1e-12)
    return torch.stack([first, second, unit * (doubled_area.sqrt() + 1e-3)], dim=-1)


@dataclass(frozen=True)
class Seeds:
    """The Gaussians at rest.

    Attributes:
        index: [N], frame of each.
        local: [N, 3], position in the frame.
        size: [N], standard deviation, world units.
        colors: [N, 3], RGB in [0, 1].
    """

    index: Int
    local: Float32
    size: Float32
    colors: Float32


def open_mouth_vertices(dataset: IdentityDataset) -> Float32:
    """Average the mesh of the training frames in which the mouth is open widest.

    Args:
        dataset: The person's footage.

    Returns:
        Vertices [478, 3].
    """
    usable = dataset.tracks.trainable
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
    """Distribute Gaussians over face, lip cap, teeth and the rest of the person.

    Args:
        dataset: The person's footage.
        open_mouth: [478, 3], a mesh with open mouth.
        rest_view: [4, 4], the mean head pose.
        counts: Numbers of Gaussians on the surface, on the cap, on the teeth of each jaw, and
            elsewhere.
        rng: Draws their positions.

    Returns:
        The Gaussians, colored from training frames.
    """
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
    # Colors that are not known yet are looked up where the Gaussians project to.
    index, local, size, colors = (np.concatenate(column) for column in zip(*parts, strict=True))
    positions = colors[:, :3]
    known = np.isfinite(colors[:, 3:]).all(1)
    colors = np.where(known[:, None], colors[:, 3:], _colors(dataset, positions))
    return Seeds(
        index, local.astype(np.float32), size.astype(np.float32), colors.astype(np.float32)
    )


Part = tuple[Int, Float64, Float64, Float64]
"""index [n], local [n, 3], size [n]; position in template space and color, NaN if unknown, [n, 6]."""


def _with_unknown_color(positions: Float64) -> Float64:
    """Append unknown colors to positions [n, 3]: [n, 6]."""
    return np.concatenate([positions, np.full_like(positions, np.nan)], axis=1)


def _density(template: Float64, triangles: Int) -> Float64:
    """Return the relative density of Gaussians in each triangle [T]: higher near lips and eyes.

    Args:
        template: [V, 3], vertices.
        triangles: [T, 3], vertex indices.
    """
    centers = template[triangles].mean(1)  # [T, 3]

    def near(points: tuple[int, ...]) -> Float64:
        """Return 1 at the vertices, falling to 0 with the distance from them, [T]."""
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
    """Distribute n Gaussians over triangles.

    Args:
        vertices: [V, 3], the mesh.
        triangles: [T, 3], vertex indices.
        first_frame: Frame of the first triangle.
        n: Number of Gaussians.
        rng: Draws their positions.
        density: [T], relative density; None for a uniform one.
    """
    # Choose triangles in proportion to area and density.
    corners = vertices[triangles]  # [T, 3, 3]
    area = 0.5 * np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1
    )
    weight = area * (1.0 if density is None else density)
    chosen = _systematic(weight / weight.sum(), n, rng)
    # A uniform point in each: fold the unit square's upper half onto the lower one.
    square = rng.random((2, n, 1))
    share = np.where(square.sum(0) > 1, 1 - square, square)
    chosen_corners = corners[chosen]
    edges = chosen_corners[:, 1:] - chosen_corners[:, :1]
    local: Float64 = share[0] * edges[:, 0] + share[1] * edges[:, 1]  # [n, 3]
    # The standard deviation follows from the area that each Gaussian has to cover.
    per_gaussian = weight.sum() / n / (weight / area)[chosen]
    size = 0.6 * np.sqrt(per_gaussian)
    index: Int = chosen + first_frame
    return index, local, size, _with_unknown_color(chosen_corners[:, 0] + local)


def _systematic(share: Float64, n: int, rng: np.random.Generator) -> Int:
    """Draw indices [n] by systematic resampling, each as often as its probability [T] demands."""
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
    """Distribute n Gaussians over a row of teeth behind one lip, curved like a dental arch.

    Args:
        open_mouth: [478, 3], a mesh with open mouth.
        edge: Vertex in the middle of the lip's edge.
        frame: The frame that carries the teeth.
        n: Number of Gaussians.
        rng: Draws their positions.
        dataset: The person's footage.
    """
    left, right = open_mouth[78].astype(np.float64), open_mouth[308].astype(np.float64)
    lip = open_mouth[edge].astype(np.float64)
    half = 0.42 * np.linalg.norm(right - left)
    side = rng.uniform(-1.0, 1.0, n)
    height = rng.uniform(-0.09, 0.09, n)
    depth = TEETH_DEPTH + 0.10 * side**2  # the arch recedes toward its ends
    positions = lip + np.stack([side * half, height, depth], axis=1)
    # The jaw's frame is at rest where the code is zero, but the open mouth has lowered the chin.
    jaw_shift = np.zeros(3)
    if edge == 14:
        chin = list(CHIN_POINTS)
        jaw_shift = (open_mouth[chin] - dataset.face.template[chin]).mean(0)
    size = np.full(n, 0.7 * np.sqrt(2 * half * 0.18 / n))
    index = np.full(n, frame, dtype=np.int64)
    return index, positions - jaw_shift, size, _with_unknown_color(positions)


def _rest_of_person(
    dataset: IdentityDataset, rest_view: Float64, skull: int, n: int, rng: np.random.Generator
) -> list[Part]:
    """Place Gaussians at pixels of a few training frames: hair, ears, neck and clothes.

    Those above the jaw move with the skull, those below with the body. There are more of them where
    the image has detail. All are put at ear depth.

    Args:
        dataset: The person's footage.
        rest_view: [4, 4], the mean head pose.
        skull: The frame of the skull.
        n: Number of Gaussians.
        rng: Draws their positions.
    """
    chosen = _spread_frames(dataset, N_REST_FRAMES)
    landmarks = dataset.crop_landmarks()
    parts: list[Part] = []
    for frame_id, share in zip(chosen, np.array_split(np.arange(n), len(chosen)), strict=True):
        # Sampling density: detail inside the person's mask, but not inside the face.
        image = dataset.frames[frame_id]
        density = _detail(image) * (dataset.masks[frame_id] > 127)
        oval = landmarks[frame_id, list(FACE_OVAL)].round().astype(np.int32)
        hull = cv2.fillPoly(np.zeros(density.shape, np.uint8), [oval], 1)
        density[cv2.erode(hull, np.ones((5, 5), np.uint8)) > 0] = 0.0
        total = density.sum()
        if total == 0:
            continue
        # Draw pixels, jittered within the pixel, and their points in camera space.
        chosen_corners = _systematic(density.ravel() / total, len(share), rng)
        rows, columns = np.unravel_index(chosen_corners, density.shape)
        pixels = np.stack([columns, rows], 1) + rng.random((len(share), 2))
        view, k = dataset.tracks.viewmats[frame_id].astype(np.float64), dataset.crop_ks[frame_id]
        camera = _unproject(dataset, view, k.astype(np.float64), pixels)
        # The standard deviation follows from the number of pixels that each Gaussian covers.
        pixel = camera[:, 2] / k[0, 0]  # world units per pixel
        size = 0.6 * pixel * np.sqrt(total / n / density[rows, columns])
        # Position in head space for the skull; with the frame's body motion undone for the body.
        positions = (camera - view[:3, 3]) @ view[:3, :3]
        on_body = rows > landmarks[frame_id, JAW_LINE, 1].mean()
        code = torch.from_numpy(dataset.tracks.codes[frame_id : frame_id + 1]).double()
        without_sway = np.linalg.solve(body_matrix(code)[0].numpy(), camera.T).T
        body = (without_sway - rest_view[:3, 3]) @ rest_view[:3, :3]
        color = image[rows, columns] / 255.0
        index = np.where(on_body, skull + 2, skull)
        local = np.where(on_body[:, None], body, positions)
        parts.append((index, local, size, np.concatenate([positions, color], axis=1)))
    return parts


def _detail(image: UInt8) -> Float64:
    """Measure the detail around each pixel of an image [H, W, 3]: [H, W], 0.25 where there is none."""
    gray = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float32)
    slope = np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    slope = cv2.GaussianBlur(slope, (0, 0), 1.5)
    return np.asarray(0.25 + np.minimum(slope / (slope.mean() + 1e-6), 4.0), dtype=np.float64)


def _unproject(dataset: IdentityDataset, view: Float64, k: Float64, pixels: Float64) -> Float64:
    """Return the points [n, 3] in camera space behind crop pixels [n, 2], at ear depth.

    Args:
        dataset: The person's footage.
        view: [4, 4], world to camera.
        k: [3, 3], intrinsics of the crop.
        pixels: [n, 2], x and y.
    """
    ears = dataset.face.template[[127, 356]].mean(0)
    depth = (view[:3, :3] @ ears + view[:3, 3])[2]
    rays = (pixels - k[:2, 2]) / k[0, 0] * depth
    return np.concatenate([rays, np.full((len(pixels), 1), depth)], axis=1)


def _spread_frames(dataset: IdentityDataset, n: int) -> Int:
    """Choose up to n training frames, evenly spread, [n]."""
    return spread_frames(dataset.tracks.trainable, n)


def _colors(dataset: IdentityDataset, positions: Float64) -> Float32:
    """Return the median color [n, 3] of a few frames at the projections of positions [n, 3]."""
    chosen = _spread_frames(dataset, N_COLOR_FRAMES)
    info = dataset.info
    samples = []
    for frame in chosen:
        view = dataset.tracks.viewmats[frame : frame + 1].astype(np.float64)
        pixels = project(positions, view, dataset.crop_ks[frame].astype(np.float64))[0]
        columns = np.clip(pixels[:, 0], 0, info.crop_width - 1).astype(int)
        rows = np.clip(pixels[:, 1], 0, info.crop_height - 1).astype(int)
        samples.append(dataset.frames[frame][rows, columns])
    return (np.median(np.stack(samples), axis=0) / 255.0).astype(np.float32)
