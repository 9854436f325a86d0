"""Steps along rays where the occupancy grid is not empty, and their compositing by nerfacc.

The grid is nerfacc's. nerfacc's ray marching and packed functions need CUDA, so steps on a CPU would
differ. Therefore steps are chosen here, the same on every device, and composited by nerfacc: packed
on CUDA, dense on a CPU.
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
"""Training steps between updates of the occupancy grid; factor by which old values decay at each;
optical depth of a step below which a cell counts as empty.
"""


MAX_CELLS = 1 << 23
"""Maximum number of cells of the occupancy grid; a head has less than a million."""


@dataclass(frozen=True)
class Steps:
    """The points at which n pieces of rays are sampled.

    Attributes:
        point: [N, 3], points of the head at rest.
        image: [N], the image that each belongs to.
        slot: [N], its index among all n * n_steps steps.
        n: Number of pieces.
        n_steps: Steps per piece, of which N in all are sampled.
        step: Length of a step, world units of depth.
    """

    point: Tensor
    image: Tensor
    slot: Tensor
    n: int
    n_steps: int
    step: float


def grid_resolution(box: Tensor) -> Tensor:
    """Compute the size of the occupancy grid of a box.

    Args:
        box: [2, 3], lower and upper corner.

    Returns:
        Cells along each axis, [3] int32 on the CPU.
    """
    return ((box[1] - box[0]).cpu() / CELL).ceil().int().clamp(min=2)


class Occupancy:
    """The cells in which the head at rest may have density."""

    def __init__(self, box: Tensor, occs: Tensor | None = None) -> None:
        """Create the grid of a box.

        Args:
            box: [2, 3], lower and upper corner.
            occs: [cells], the property `occs` of an earlier grid; None if every cell may have
                density.
        """
        resolution = grid_resolution(box)
        self._grid = OccGridEstimator(box.flatten().tolist(), resolution).to(box.device)
        self._low = box[0]
        self._per_unit = self._grid.resolution / (box[1] - box[0])
        self._grid.occs = torch.ones_like(self._grid.occs) if occs is None else occs.clone()
        self._set()

    @property
    def occs(self) -> Tensor:
        """The largest recent optical depth of a step in each cell, [cells]."""
        return self._grid.occs

    def centers(self) -> Tensor:
        """Return the centers of the cells, [cells, 3]."""
        return self._low + (self._grid.grid_coords + 0.5) / self._per_unit

    def exclude(self, cells: Tensor) -> None:
        """Exclude cells permanently.

        Args:
            cells: [cells] bool, the cells to exclude.
        """
        self._grid.occs[cells] = -1.0  # nerfacc's mark for a cell that is never evaluated
        self._set()

    def _set(self) -> None:
        """Derive the occupied cells from `occs`."""
        occs = self._grid.occs
        threshold = occs[occs >= 0].mean().clamp(max=THRESHOLD)
        self._grid.binaries = (occs > threshold).view(self._grid.binaries.shape)
        near = F.max_pool3d(self._grid.binaries.float(), 3, stride=1, padding=1)[0]
        # Include the neighbors of occupied cells: density may grow beyond the edge.
        self._near = (near > 0) & (occs >= 0).view(near.shape)

    def update(self, step: int, optical_depth: Callable[[Tensor], Tensor]) -> None:
        """Evaluate the field again in all cells that are not excluded, if an update is due.

        Each cell is evaluated once, at a random point in it. nerfacc's own update draws cells with
        repetition, and which of two values is kept then depends on the threads' timing.

        Args:
            step: The training step.
            optical_depth: Maps points [N, 3] to the optical depth of a step, [N, 1].
        """
        if step % UPDATE_EVERY:
            return
        # A random point in each cell.
        occs, grid = self._grid.occs, self._grid
        cells = torch.nonzero(occs >= 0)[:, 0]
        offsets = torch.rand(len(cells), 3, generator=torch.Generator().manual_seed(step))
        points = self._low + (grid.grid_coords[cells] + offsets.to(occs.device)) / self._per_unit
        with torch.no_grad():
            seen = optical_depth(points)[:, 0]
        grid.occs = occs.index_put((cells,), torch.maximum(occs[cells] * DECAY, seen))
        self._set()

    def is_occupied(self, points: Tensor) -> Tensor:
        """Test whether there may be density at points.

        Args:
            points: [..., 3].

        Returns:
            [...] bool; False outside the box.
        """
        cell = ((points - self._low) * self._per_unit).floor().long()
        size = self._grid.resolution.long()
        inside = ((cell >= 0) & (cell < size)).all(-1)
        x, y, z = cell.unbind(-1)
        flat = (x * size[1] + y) * size[2] + z
        return self._near.flatten()[flat.where(inside, 0)] & inside


def march(rays: Rays, pieces: Pieces, occupancy: Occupancy, jitter: Tensor | None) -> Steps:
    """Choose the steps of pieces that are in occupied cells.

    Args:
        rays: The rays.
        pieces: n of their pieces.
        occupancy: The occupancy grid.
        jitter: [n, n_steps], offset of each step from its center, in steps; None for no offsets.

    Returns:
        The steps.
    """
    # Depth and position of all steps.
    n = len(pieces.ray)
    offset = torch.arange(pieces.n_steps, device=pieces.start.device) + 0.5
    depth = pieces.start[:, None] + pieces.step * (offset if jitter is None else offset + jitter)
    origin, direction = rays.origin[pieces.ray] + pieces.shift, rays.direction[pieces.ray]
    points = origin[:, None] + depth[..., None] * direction[:, None]  # [n, n_steps, 3]
    # Keep those in occupied cells, behind `after` and within the heights of the piece.
    y, (top, bottom) = points[..., 1], pieces.y_range
    chosen = (
        occupancy.is_occupied(points) & (depth > pieces.after[:, None]) & (y >= top) & (y < bottom)
    )
    slot = torch.nonzero(chosen.flatten())[:, 0]
    image = rays.image[pieces.ray][slot // pieces.n_steps]
    return Steps(points.reshape(-1, 3)[slot], image, slot, n, pieces.n_steps, pieces.step)


def composite(steps: Steps, density: Tensor, rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Composite the steps of each piece.

    Args:
        steps: N steps of n pieces.
        density: [N].
        rgb: [N, 3].

    Returns:
        Colors, premultiplied, [n, 3], and alphas [n, 1].
    """
    # Packed: one value per step that was sampled.
    if density.is_cuda:
        ray, offset = steps.slot // steps.n_steps, steps.slot % steps.n_steps
        begin = offset * steps.step
        weights = render_weight_from_density(
            begin, begin + steps.step, density, ray_indices=ray, n_rays=steps.n
        )[0]
        return (
            accumulate_along_rays(weights, rgb, ray, steps.n),
            accumulate_along_rays(weights, None, ray, steps.n),
        )
    # Dense: steps that were not sampled have density 0.
    shape = (steps.n, steps.n_steps)
    dense = density.new_zeros(steps.n * steps.n_steps).index_put((steps.slot,), density)
    color = rgb.new_zeros(steps.n * steps.n_steps, 3).index_put((steps.slot,), rgb)
    begin = (torch.arange(steps.n_steps, device=rgb.device) * steps.step).expand(shape)
    weights = render_weight_from_density(begin, begin + steps.step, dense.view(shape))[0]
    return accumulate_along_rays(weights, color.view(*shape, 3)), accumulate_along_rays(weights)
