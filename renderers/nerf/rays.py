"""Rays through the resting head: straight pieces, each shifted as what it passes has moved.

A ray of the camera is cut into pieces that lie in the space of the head at rest, where the radiance
field is. On the face, the displacement of the point of skin that the ray meets carries the piece
about that point (the idea of INSTA, arXiv 2211.12499, with the triangle that is met for the nearest
one). Behind the lips the piece goes on rigidly with the skull, through a part of the space of its
own, where teeth and tongue are. Beside the mesh it passes hair, ears, neck and body: the skull's
above, the body's below, blended over the neck.
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
"""The piece about the skin begins so far before it; steps along it, world units of depth."""
SHELL_END = N_SHELL * SHELL_STEP - SHELL_FRONT
MOUTH_FRONT, MOUTH_STEP, N_MOUTH = 0.06, 0.05, 8
OUTER_FRONT, OUTER_STEP, N_OUTER = 0.6, 0.05, 16
"""The piece beside the face begins so far before the depth of the ears."""
NECK = 0.4
"""Height of the stretch below the chin over which the skull's motion turns into the body's."""
MOUTH_HALF = (0.5, 0.35)
"""Half the width and height of the space behind the lips."""


@dataclass(frozen=True)
class Pieces:
    """Pieces of n rays, of the same number of steps each.

    ray: [n] which pixel. start: [n] depth of the first step. after: [n] depth before which nothing
    is sampled. shift: [n, 3] added to points of head space. y_range: heights of the resting head between
    which it is sampled: the mouth's own space is for what goes into the mouth, and only for that.
    """

    ray: Tensor
    start: Tensor
    after: Tensor
    shift: Tensor
    step: float
    n_steps: int
    y_range: tuple[float, float] = (-math.inf, math.inf)

    def of(self, chosen: Tensor, first: int, last: int) -> Pieces:
        """Steps first..last of the chosen ones [m]."""
        start = self.start[chosen] + first * self.step
        after, shift = self.after[chosen], self.shift[chosen]
        ray, n_steps = self.ray[chosen], last - first
        return Pieces(ray, start, after, shift, self.step, n_steps, self.y_range)


@dataclass(frozen=True)
class Rays:
    """Rays of R pixels, in head space: origin [R, 3], direction [R, 3] per unit of depth, image [R]
    int64. pieces: front to back."""

    origin: Tensor
    direction: Tensor
    image: Tensor
    pieces: tuple[Pieces, ...]


class Lines(NamedTuple):
    """origin, direction [R, 3] in head space and image [R] of rays."""

    origin: Tensor
    direction: Tensor
    image: Tensor


class Met(NamedTuple):
    """MeshHits at the pixels of R rays: depth [R], shift [R, 3], flags [R] int64."""

    depth: Tensor
    shift: Tensor
    flags: Tensor


def _box_fault(box: Tensor) -> str:
    """What is wrong with the least and the largest corner [2, 3] of a space, "" where nothing is."""
    extent = box[1] - box[0]
    if ((extent > 0.0) & (extent <= MAX_EXTENT)).all():
        return ""
    return f"spans {extent.tolist()}, where more than 0 and at most {MAX_EXTENT:g} is needed"


MAX_EXTENT = 100.0
"""Of the box along each axis, eye distances; a head with its surroundings has 10."""
TENSORS = {
    "template": TEMPLATE_SPEC,
    "basis": BASIS_SPEC,
    "triangles": TensorSpec((TRIANGLES, 3), torch.int64, index_of=N_SURFACE),
    "flags": TensorSpec((TRIANGLES,), torch.uint8, most=FACE + MOUTH + NEAR_LIPS + AT_BORDER),
    "rest_view": VIEW_SPEC,
    "box": TensorSpec((2, 3), least=-WORLD, most=WORLD, fault=_box_fault),
    "mouth_shift": TensorSpec((3,), least=-WORLD, most=WORLD),
}


@dataclass(frozen=True)
class HeadSpace:
    """The resting head, as tensors.

    template: [478, 3], basis: [K, 478, 3] of the face. triangles: [T, 3], flags: [T] of the mesh with
    the mouth's opening. rest_view: [4, 4] the mean pose. box: [2, 3] the least and the largest corner
    of all that is sampled. mouth_shift: [3] from head space to the space behind the lips.
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
        """The space that training frames need."""
        triangles, flags = flagged_triangles(dataset.face.triangles)
        rest_view = mean_view(dataset)
        low, high = _seen(dataset, rest_view)
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
        return dict(vars(self))

    def hits(self, motion: Tensor, viewmats: Tensor, ks: Tensor, size: tuple[int, int]) -> MeshHits:
        """What the pixels of images meet; motion: [B, K], viewmats: [B, 4, 4], ks: [B, 3, 3]."""
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

    def is_mouth(self, places: Tensor) -> Tensor:
        """Which places [N, 3] are of the space behind the lips, [N] bool."""
        return places[:, 1] >= self._mouth_top()

    def _mouth_top(self) -> float:
        return float(self.box[1, 1]) - 2.0 * MOUTH_HALF[1]

    def posed(self, places: Tensor, motion: Tensor, viewmats: Tensor) -> Tensor:
        """Where places [N, 3] beside the face are in head space, of one code [1, K], view [1, 4, 4]."""
        gradient, body = body_frame(motion, viewmats, self.rest_view)
        carried = places @ gradient[0].T + body[0]
        return torch.lerp(places, carried, self._body_share(places[:, 1])[:, None])

    def _body_share(self, y: Tensor) -> Tensor:
        """How much places at heights y follow the body: 0 above the chin, 1 below the neck."""
        share = ((y - self.template[CHIN, 1]) / NECK).clamp(0.0, 1.0)
        return share * share * (3.0 - 2.0 * share)

    def rays(
        self, hits: MeshHits, pixels: Tensor, motion: Tensor, viewmats: Tensor, ks: Tensor
    ) -> Rays:
        """Rays of pixels [R, 3] int64: image, row, column."""
        image, row, column = pixels.unbind(1)
        camera = ks[image]
        x = (column + 0.5 - camera[:, 0, 2]) / camera[:, 0, 0]
        y = (row + 0.5 - camera[:, 1, 2]) / camera[:, 1, 1]
        back = viewmats[:, :3, :3]
        direction = _turn(torch.stack([x, y, torch.ones_like(x)], dim=1), back[image])
        origin = -(viewmats[:, None, :3, 3] @ back)[:, 0][image]
        lines, met = Lines(origin, direction, image), _at_pixels(hits, pixels)
        outside = self._outside(lines, met, motion, viewmats)
        return Rays(*lines, (_shell(met), self._into_mouth(met), outside))

    def _into_mouth(self, met: Met) -> Pieces:
        """The pieces between the lips, and behind them, from where the shell ends."""
        ray = torch.nonzero(met.flags & (MOUTH | NEAR_LIPS))[:, 0]
        start = met.depth[ray] - MOUTH_FRONT
        after = torch.where(met.flags[ray] == MOUTH, start, met.depth[ray] + SHELL_END)
        shift, below = self.mouth_shift.expand(len(ray), 3), (self._mouth_top(), math.inf)
        return Pieces(ray, start, after, shift, MOUTH_STEP, N_MOUTH, below)

    def _outside(self, lines: Lines, met: Met, motion: Tensor, viewmats: Tensor) -> Pieces:
        """The pieces beside the face, at the depth of the ears."""
        ear_depth = float(self.template[[127, 356], 2].mean())
        gradient, body = body_frame(motion, viewmats, self.rest_view)
        back = torch.linalg.inv(gradient)
        ray = torch.nonzero((met.flags == 0) | (met.flags & AT_BORDER > 0))[:, 0]
        origin, direction, image = (part[ray] for part in lines)
        middle = (ear_depth - origin[:, 2]) / direction[:, 2]
        place = origin + middle[:, None] * direction
        rest = _turn(place - body[image], back.transpose(1, 2)[image])
        share = self._body_share(rest[:, 1])[:, None]
        after = torch.where(met.flags[ray] > 0, met.depth[ray] + SHELL_END, 0.0)
        start = middle - OUTER_FRONT
        above_mouth = (-math.inf, self._mouth_top())
        return Pieces(ray, start, after, share * (rest - place), OUTER_STEP, N_OUTER, above_mouth)


def _turn(vectors: Tensor, matrices: Tensor) -> Tensor:
    """Row vectors [R, 3], each times its own matrix [R, 3, 3]; faster than so small batched products."""
    return (vectors[:, :, None] * matrices).sum(1)


def _at_pixels(hits: MeshHits, pixels: Tensor) -> Met:
    """What rays of pixels [R, 3] meet."""
    image, row, column = pixels.cpu().numpy().T
    found = (a[image, row, column] for a in (hits.depth, hits.shift, hits.flags))
    depth, shift, flags = (torch.from_numpy(a).to(pixels.device) for a in found)
    return Met(depth, shift, flags.long())


def _shell(met: Met) -> Pieces:
    """The pieces about the skin."""
    ray = torch.nonzero(met.flags & FACE)[:, 0]
    start = met.depth[ray] - SHELL_FRONT
    return Pieces(ray, start, torch.zeros_like(start), met.shift[ray], SHELL_STEP, N_SHELL)


def _seen(dataset: IdentityDataset, rest_view: Float64) -> tuple[Float64, Float64]:
    """The least and the largest corner [3] of what training frames show of the resting head."""
    tracks, info = dataset.tracks, dataset.info
    usable = np.flatnonzero(tracks.learnt)
    template = dataset.face.template.astype(np.float64)
    ears = template[[127, 356], 2].mean()
    corners = np.array([[0, 0], [info.crop_width, 0], [0, info.crop_height],
                        [info.crop_width, info.crop_height]], np.float64)  # fmt: skip
    seen = []
    for view, k in zip(tracks.viewmats[usable], dataset.crop_ks[usable], strict=True):
        rays = np.pad((corners - k[:2, 2]) / k[[0, 1], [0, 1]], ((0, 0), (0, 1)), constant_values=1)
        direction, origin = rays @ view[:3, :3], -view[:3, 3] @ view[:3, :3]
        seen.append(origin + ((ears - origin[2]) / direction[:, 2])[:, None] * direction)
    places = np.concatenate(seen)
    low, high = np.percentile(places, 1, axis=0), np.percentile(places, 99, axis=0)
    low[2], high[2] = ears - OUTER_FRONT - 0.05, ears + N_OUTER * OUTER_STEP - OUTER_FRONT
    low[2] = min(low[2], template[:, 2].min() - 2 * SHELL_FRONT)
    return low, high
