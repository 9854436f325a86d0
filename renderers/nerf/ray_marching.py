"""Steps along rays where the occupancy grid has something, and their compositing by nerfacc.

The grid is nerfacc's. Its own marching and everything packed need CUDA, and would not step alike on
a CPU; so steps are chosen here, the same on every device, and composited by nerfacc: packed on CUDA,
dense on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from nerfacc import OccGridEstimator, accumulate_along_rays, render_weight_from_density
from torch import Tensor

from talkhead.renderers.nerf.rays import Pieces, Rays

CELL = 0.05
"""Edge of a cell of the occupancy grid, world units."""
UPDATE_EVERY, DECAY, THRESHOLD = 16, 0.85, 0.01
"""Steps between looks at the field; what is left of an old value at each; optical depth of a step below
which a cell counts as empty."""


MAX_CELLS = 1 << 23
"""Of the occupancy grid; a head has less than a million."""


@dataclass(frozen=True)
class Steps:
    """Where n pieces of `n_steps` are sampled: point [N, 3], image [N], slot [N] in [n * n_steps]."""

    point: Tensor
    image: Tensor
    slot: Tensor
    n: int
    n_steps: int
    step: float


def grid_resolution(box: Tensor) -> Tensor:
    """Cells of the occupancy grid of a box [2, 3] along each axis, [3] int32 on the CPU."""
    return ((box[1] - box[0]).cpu() / CELL).ceil().int().clamp(min=2)


class Occupancy:
    """Where in the resting head there may be something."""

    def __init__(self, box: Tensor, occs: Tensor | None = None) -> None:
        """box: [2, 3]. occs: [cells] of `occs` before; None: everywhere."""
        resolution = grid_resolution(box)
        self._grid = OccGridEstimator(box.flatten().tolist(), resolution).to(box.device)
        self._low = box[0]
        self._per_unit = self._grid.resolution / (box[1] - box[0])
        self._grid.occs = torch.ones_like(self._grid.occs) if occs is None else occs.clone()
        self._set()

    @property
    def occs(self) -> Tensor:
        """Greatest optical depth of late that a step in each cell had, [cells]."""
        return self._grid.occs

    def centers(self) -> Tensor:
        """Middles of the cells, [cells, 3]."""
        return self._low + (self._grid.grid_coords + 0.5) / self._per_unit

    def close(self, cells: Tensor) -> None:
        """Nothing will ever be in cells [cells] bool."""
        self._grid.occs[cells] = -1.0  # nerfacc's sign for a cell that is not to be looked at
        self._set()

    def _set(self) -> None:
        occs = self._grid.occs
        threshold = occs[occs >= 0].mean().clamp(max=THRESHOLD)
        self._grid.binaries = (occs > threshold).view(self._grid.binaries.shape)
        near = F.max_pool3d(self._grid.binaries.float(), 3, stride=1, padding=1)[0]
        # A cell's neighbours, too: what is there now may move over the edge.
        self._near = (near > 0) & (occs >= 0).view(near.shape)

    def update(self, step: int, optical_depth: Callable[[Tensor], Tensor]) -> None:
        """Look at the field again, if it is time. optical_depth: of points [N, 3], [N, 1].

        Each open cell once, at a place of its own. nerfacc's own update draws cells with repetition, and
        which of two values stays is then a race of threads: not the same bits twice.
        """
        if step % UPDATE_EVERY:
            return
        occs, grid = self._grid.occs, self._grid
        cells = torch.nonzero(occs >= 0)[:, 0]
        places = torch.rand(len(cells), 3, generator=torch.Generator().manual_seed(step))
        points = self._low + (grid.grid_coords[cells] + places.to(occs.device)) / self._per_unit
        with torch.no_grad():
            seen = optical_depth(points)[:, 0]
        grid.occs = occs.index_put((cells,), torch.maximum(occs[cells] * DECAY, seen))
        self._set()

    def holds(self, points: Tensor) -> Tensor:
        """Whether there may be something at points [..., 3], [...] bool; not outside the box."""
        cell = ((points - self._low) * self._per_unit).floor().long()
        size = self._grid.resolution.long()
        inside = ((cell >= 0) & (cell < size)).all(-1)
        x, y, z = cell.unbind(-1)
        flat = (x * size[1] + y) * size[2] + z
        return self._near.flatten()[flat.where(inside, 0)] & inside


def march(rays: Rays, pieces: Pieces, occupancy: Occupancy, jitter: Tensor | None) -> Steps:
    """The steps of pieces that are worth looking at.

    jitter: [n, n_steps] shares of a step by which each lies off its middle; None: none.
    """
    n = len(pieces.ray)
    place = torch.arange(pieces.n_steps, device=pieces.start.device) + 0.5
    depth = pieces.start[:, None] + pieces.step * (place if jitter is None else place + jitter)
    origin, direction = rays.origin[pieces.ray] + pieces.shift, rays.direction[pieces.ray]
    points = origin[:, None] + depth[..., None] * direction[:, None]
    y, (top, bottom) = points[..., 1], pieces.y_range
    chosen = occupancy.holds(points) & (depth > pieces.after[:, None]) & (y >= top) & (y < bottom)
    slot = torch.nonzero(chosen.flatten())[:, 0]
    image = rays.image[pieces.ray][slot // pieces.n_steps]
    return Steps(points.reshape(-1, 3)[slot], image, slot, n, pieces.n_steps, pieces.step)


def composite(steps: Steps, density: Tensor, rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Colours premultiplied [n, 3] and alphas [n, 1] of pieces; density: [N], rgb: [N, 3]."""
    if density.is_cuda:
        ray, place = steps.slot // steps.n_steps, steps.slot % steps.n_steps
        begin = place * steps.step
        weights = render_weight_from_density(
            begin, begin + steps.step, density, ray_indices=ray, n_rays=steps.n
        )[0]
        return (
            accumulate_along_rays(weights, rgb, ray, steps.n),
            accumulate_along_rays(weights, None, ray, steps.n),
        )
    shape = (steps.n, steps.n_steps)
    dense = density.new_zeros(steps.n * steps.n_steps).index_put((steps.slot,), density)
    color = rgb.new_zeros(steps.n * steps.n_steps, 3).index_put((steps.slot,), rgb)
    begin = (torch.arange(steps.n_steps, device=rgb.device) * steps.step).expand(shape)
    weights = render_weight_from_density(begin, begin + steps.step, dense.view(shape))[0]
    return accumulate_along_rays(weights, color.view(*shape, 3)), accumulate_along_rays(weights)
