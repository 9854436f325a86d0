"""Rays through the head at rest: straight pieces, each shifted by the motion of the part that it passes.

A ray of the camera is cut into pieces in the space of the head at rest, in which the radiance field
is defined. On the face, the displacement of the point of skin that the ray hits shifts the piece
around that point (as in INSTA, arXiv 2211.12499, with the triangle that is hit instead of the
nearest one). Behind the lips, the piece continues rigidly with the skull, through a separate part
of the space, which holds teeth and tongue. Next to the mesh, it passes hair, ears, neck and body,
which move with the skull above and with the body below; over the neck, both motions are blended.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from talkhead.dataset import IdentityDataset
from talkhead.face import (
    BASIS_SPEC,
    CHIN,
    INNER_LIPS,
    N_SURFACE,
    TEMPLATE_SPEC,
    TRIANGLES,
    WORLD,
)
from talkhead.renderers.nerf.mesh_raster import (
    AT_BORDER,
    FACE,
    MOUTH,
    NEAR_LIPS,
    MeshHits,
    flagged_triangles,
    mesh_hits,
)
from talkhead.renderers.pose_features import VIEW_SPEC, body_frame, mean_view
from talkhead.tensors import TensorSpec
from talkhead.types import Float64

SHELL_FRONT, SHELL_STEP, N_SHELL = 0.045, 0.03, 4
"""Distance from the skin at which the piece around it begins, length and number of its steps, world
units of depth.
"""
SHELL_END = N_SHELL * SHELL_STEP - SHELL_FRONT
MOUTH_FRONT, MOUTH_STEP, N_MOUTH = 0.06, 0.05, 8
"""Distance, length and number of the piece behind the lips, which begins in front of their depth."""
OUTER_FRONT, OUTER_STEP, N_OUTER = 0.6, 0.05, 16
"""Distance in front of ear depth at which the piece next to the face begins, length and number of its
steps.
"""
NECK = 0.4
"""Height of the range below the chin over which the skull's motion changes to the body's, world units."""
MOUTH_HALF = (0.5, 0.35)
"""Half the width and height of the space behind the lips, world units."""


@dataclass(frozen=True)
class Pieces:
    """Pieces of n rays, with the same number of steps each.

    Attributes:
        ray: [n], index of the ray.
        start: [n], depth of the first step.
        after: [n], depth before which nothing is sampled.
        shift: [n, 3], added to points of head space.
        step: Length of a step, world units of depth.
        n_steps: Steps of each piece.
        y_range: Heights of the head at rest between which it is sampled. The mouth's own space is
            sampled only by pieces that enter the mouth.
    """

    ray: Tensor
    start: Tensor
    after: Tensor
    shift: Tensor
    step: float
    n_steps: int
    y_range: tuple[float, float] = (-math.inf, math.inf)

    def of(self, chosen: Tensor, first: int, last: int) -> Pieces:
        """Select steps of some pieces.

        Args:
            chosen: [m], indices of pieces.
            first: The first step.
            last: One past the last step.

        Returns:
            m pieces of last - first steps.
        """
        start = self.start[chosen] + first * self.step
        after, shift = self.after[chosen], self.shift[chosen]
        ray, n_steps = self.ray[chosen], last - first
        return Pieces(ray, start, after, shift, self.step, n_steps, self.y_range)


@dataclass(frozen=True)
class Rays:
    """Rays of R pixels in head space.

    Attributes:
        origin: [R, 3], the camera.
        direction: [R, 3], per unit of depth.
        image: [R], int64, the image that each belongs to.
        pieces: Their pieces, front to back.
    """

    origin: Tensor
    direction: Tensor
    image: Tensor
    pieces: tuple[Pieces, ...]


class RayLines(NamedTuple):
    """Origin, direction and image of rays.

    Attributes:
        origin: [R, 3], head space.
        direction: [R, 3], head space, per unit of depth.
        image: [R].
    """

    origin: Tensor
    direction: Tensor
    image: Tensor


class PixelHits(NamedTuple):
    """Mesh hits at the pixels of R rays.

    Attributes:
        depth: [R].
        shift: [R, 3].
        flags: [R], int64.
    """

    depth: Tensor
    shift: Tensor
    flags: Tensor


def _box_fault(box: Tensor) -> str:
    """Describe what is wrong with the corners [2, 3] of a box; empty if nothing is."""
    extent = box[1] - box[0]
    if ((extent > 0.0) & (extent <= MAX_EXTENT)).all():
        return ""
    return f"spans {extent.tolist()}, where more than 0 and at most {MAX_EXTENT:g} is needed"


MAX_EXTENT = 100.0
"""Maximum size of the box along each axis, world units; a head with its surroundings has 10."""
TENSORS = {
    "template": TEMPLATE_SPEC,
    "basis": BASIS_SPEC,
    "triangles": TensorSpec((TRIANGLES, 3), torch.int64, index_of=N_SURFACE),
    "flags": TensorSpec((TRIANGLES,), torch.uint8, maximum=FACE + MOUTH + NEAR_LIPS + AT_BORDER),
    "rest_view": VIEW_SPEC,
    "box": TensorSpec((2, 3), minimum=-WORLD, maximum=WORLD, fault=_box_fault),
    "mouth_shift": TensorSpec((3,), minimum=-WORLD, maximum=WORLD),
}


@dataclass(frozen=True)
class HeadSpace:
    """The space of the head at rest, as tensors.

    Attributes:
        template: [478, 3], the face at rest.
        basis: [K, 478, 3], displacement of its vertices per unit of the code.
        triangles: [T, 3], the mesh with the mouth's opening.
        flags: [T], flags of the triangles.
        rest_view: [4, 4], the mean head pose.
        box: [2, 3], lower and upper corner of everything that is sampled.
        mouth_shift: [3], translation from head space to the space behind the lips.
    """

    template: Tensor
    basis: Tensor
    triangles: Tensor
    flags: Tensor
    rest_view: Tensor
    box: Tensor
    mouth_shift: Tensor

    @classmethod
    def from_dataset(cls, dataset: IdentityDataset) -> HeadSpace:
        """Create the space that the training frames show.

        Args:
            dataset: The person's footage.

        Returns:
            The space, on the CPU.
        """
        triangles, flags = flagged_triangles(dataset.face.triangles)
        rest_view = mean_view(dataset)
        low, high = _visible_box(dataset, rest_view)
        mouth_y = float(dataset.face.template[list(INNER_LIPS), 1].mean())
        shift = np.array([0.0, high[1] + MOUTH_HALF[1] - mouth_y, 0.0])
        high[1] += 2.0 * MOUTH_HALF[1]
        return cls(
            template=torch.from_numpy(dataset.face.template.copy()),
            basis=torch.from_numpy(dataset.face.basis.copy()),
            triangles=torch.from_numpy(triangles),
            flags=torch.from_numpy(flags),
            rest_view=torch.from_numpy(rest_view).float(),
            box=torch.from_numpy(np.stack([low, high])).float(),
            mouth_shift=torch.from_numpy(shift).float(),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return the fields by name, each of the shape given above."""
        return dict(vars(self))

    def hits(self, motion: Tensor, viewmats: Tensor, ks: Tensor, size: tuple[int, int]) -> MeshHits:
        """Find what the pixels of images hit.

        Args:
            motion: [B, K], motion codes.
            viewmats: [B, 4, 4], head poses.
            ks: [B, 3, 3], intrinsics, pixels.
            size: Height and width of the images, pixels.

        Returns:
            The hits on the mesh.
        """
        n_codes = len(self.basis)
        moved = (motion @ self.basis.reshape(n_codes, -1)).reshape(len(motion), -1, 3)
        vertices = (self.template + moved).double().cpu().numpy()
        return mesh_hits(
            vertices,
            self.template.double().cpu().numpy(),
            viewmats.double().cpu().numpy(),
            ks.double().cpu().numpy(),
            self.triangles.cpu().numpy(),
            self.flags.cpu().numpy(),
            size,
        )

    def is_mouth(self, points: Tensor) -> Tensor:
        """Test whether points are in the space behind the lips.

        Args:
            points: [N, 3].

        Returns:
            [N] bool.
        """
        return points[:, 1] >= self._mouth_top()

    def _mouth_top(self) -> float:
        """Return the height at which the space behind the lips begins, below the rest of the box."""
        return float(self.box[1, 1]) - 2.0 * MOUTH_HALF[1]

    def pose(self, points: Tensor, motion: Tensor, viewmats: Tensor) -> Tensor:
        """Move points outside the face from the head at rest to head space.

        Args:
            points: [N, 3], points of the head at rest.
            motion: [1, K], motion code.
            viewmats: [1, 4, 4], head pose.

        Returns:
            [N, 3].
        """
        gradient, body = body_frame(motion, viewmats, self.rest_view)
        carried = points @ gradient[0].T + body[0]
        return torch.lerp(points, carried, self._body_fraction(points[:, 1])[:, None])

    def _body_fraction(self, y: Tensor) -> Tensor:
        """Return the fraction [N] of the body's motion at heights y [N]: 0 above the chin, 1 below the
        neck.
        """
        fraction = ((y - self.template[CHIN, 1]) / NECK).clamp(0.0, 1.0)
        return fraction * fraction * (3.0 - 2.0 * fraction)

    def rays(
        self, hits: MeshHits, pixels: Tensor, motion: Tensor, viewmats: Tensor, ks: Tensor
    ) -> Rays:
        """Cast the rays of pixels.

        Args:
            hits: Returned by hits.
            pixels: [R, 3], int64: image, row, column.
            motion: [B, K], motion codes.
            viewmats: [B, 4, 4], head poses.
            ks: [B, 3, 3], intrinsics, pixels.

        Returns:
            The rays.
        """
        # Directions in camera space, rotated into head space.
        image, row, column = pixels.unbind(1)
        camera = ks[image]
        x = (column + 0.5 - camera[:, 0, 2]) / camera[:, 0, 0]
        y = (row + 0.5 - camera[:, 1, 2]) / camera[:, 1, 1]
        back = viewmats[:, :3, :3]
        direction = _rotate_rows(torch.stack([x, y, torch.ones_like(x)], dim=1), back[image])
        origin = -(viewmats[:, None, :3, 3] @ back)[:, 0][image]
        ray_lines, at_pixels = RayLines(origin, direction, image), _at_pixels(hits, pixels)
        outside = self._outside(ray_lines, at_pixels, motion, viewmats)
        return Rays(*ray_lines, (_shell(at_pixels), self._into_mouth(at_pixels), outside))

    def _into_mouth(self, at_pixels: PixelHits) -> Pieces:
        """Return the pieces between the lips, and behind them, where they begin at the end of the
        shell.
        """
        ray = torch.nonzero(at_pixels.flags & (MOUTH | NEAR_LIPS))[:, 0]
        start = at_pixels.depth[ray] - MOUTH_FRONT
        after = torch.where(at_pixels.flags[ray] == MOUTH, start, at_pixels.depth[ray] + SHELL_END)
        shift, below = self.mouth_shift.expand(len(ray), 3), (self._mouth_top(), math.inf)
        return Pieces(ray, start, after, shift, MOUTH_STEP, N_MOUTH, below)

    def _outside(
        self, ray_lines: RayLines, at_pixels: PixelHits, motion: Tensor, viewmats: Tensor
    ) -> Pieces:
        """Return the pieces next to the face, at ear depth.

        Args:
            ray_lines: The rays.
            at_pixels: What they hit.
            motion: [B, K], motion codes.
            viewmats: [B, 4, 4], head poses.
        """
        ear_depth = float(self.template[[127, 356], 2].mean())
        gradient, body = body_frame(motion, viewmats, self.rest_view)
        back = torch.linalg.inv(gradient)
        # Rays that miss the mesh or hit its border.
        ray = torch.nonzero((at_pixels.flags == 0) | (at_pixels.flags & AT_BORDER > 0))[:, 0]
        origin, direction, image = (part[ray] for part in ray_lines)
        # Their points at ear depth, in head space and, with the body's motion undone, at rest.
        ear_plane = (ear_depth - origin[:, 2]) / direction[:, 2]
        point = origin + ear_plane[:, None] * direction
        rest = _rotate_rows(point - body[image], back.transpose(1, 2)[image])
        fraction = self._body_fraction(rest[:, 1])[:, None]
        after = torch.where(at_pixels.flags[ray] > 0, at_pixels.depth[ray] + SHELL_END, 0.0)
        start = ear_plane - OUTER_FRONT
        above_mouth = (-math.inf, self._mouth_top())
        return Pieces(
            ray, start, after, fraction * (rest - point), OUTER_STEP, N_OUTER, above_mouth
        )


def _rotate_rows(vectors: Tensor, matrices: Tensor) -> Tensor:
    """Multiply row vectors [R, 3] with matrices [R, 3, 3], one each; faster than a batched product."""
    return (vectors[:, :, None] * matrices).sum(1)


def _at_pixels(hits: MeshHits, pixels: Tensor) -> PixelHits:
    """Look up the hits of pixels [R, 3]."""
    image, row, column = pixels.cpu().numpy().T
    found = (a[image, row, column] for a in (hits.depth, hits.shift, hits.flags))
    depth, shift, flags = (torch.from_numpy(a).to(pixels.device) for a in found)
    return PixelHits(depth, shift, flags.long())


def _shell(at_pixels: PixelHits) -> Pieces:
    """Return the pieces around the skin."""
    ray = torch.nonzero(at_pixels.flags & FACE)[:, 0]
    start = at_pixels.depth[ray] - SHELL_FRONT
    return Pieces(ray, start, torch.zeros_like(start), at_pixels.shift[ray], SHELL_STEP, N_SHELL)


def _visible_box(dataset: IdentityDataset, rest_view: Float64) -> tuple[Float64, Float64]:
    """Return the lower and upper corner [3] of the part of the head at rest that training frames show.

    Args:
        dataset: The person's footage.
        rest_view: [4, 4], the mean head pose.
    """
    tracks, info = dataset.tracks, dataset.info
    usable = np.flatnonzero(tracks.trainable)
    template = dataset.face.template.astype(np.float64)
    ears = template[[127, 356], 2].mean()
    corners = np.array([[0, 0], [info.crop_width, 0], [0, info.crop_height],
                        [info.crop_width, info.crop_height]], np.float64)  # fmt: skip
    # The image corners of every frame, at ear depth.
    corners_at_ears = []
    for view, k in zip(tracks.viewmats[usable], dataset.crop_ks[usable], strict=True):
        rays = np.pad((corners - k[:2, 2]) / k[[0, 1], [0, 1]], ((0, 0), (0, 1)), constant_values=1)
        direction, origin = rays @ view[:3, :3], -view[:3, 3] @ view[:3, :3]
        corners_at_ears.append(origin + ((ears - origin[2]) / direction[:, 2])[:, None] * direction)
    # Their range without outliers; in depth, the range of the pieces.
    points = np.concatenate(corners_at_ears)
    low, high = np.percentile(points, 1, axis=0), np.percentile(points, 99, axis=0)
    low[2], high[2] = ears - OUTER_FRONT - 0.05, ears + N_OUTER * OUTER_STEP - OUTER_FRONT
    low[2] = min(low[2], template[:, 2].min() - 2 * SHELL_FRONT)
    return low, high
