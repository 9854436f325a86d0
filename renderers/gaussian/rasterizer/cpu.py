"""The CPU rasterizer: rendering of one image and its backward pass, by numba kernels.

Gaussians are projected (cpu_project.py), sorted by depth, assigned to tiles (cpu_tiles.py) and
blended (cpu_blend.py).
"""

import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, TypeAlias

import numba
import numpy as np
import numpy.typing as npt

from talkhead.device import has_concurrent_kernels
from talkhead.errors import TalkheadError
from talkhead.renderers.gaussian.rasterizer.constants import (
    ALPHA_CAP,
    ALPHA_FLOOR,
    BLUR_PX2,
    FAR_PLANE,
    FOV_MARGIN,
    MIN_TRANSMITTANCE,
    NEAR_PLANE,
)
from talkhead.renderers.gaussian.rasterizer.cpu_blend import blend, blend_backward, sum_moments
from talkhead.renderers.gaussian.rasterizer.cpu_project import TILE_PX, project, project_backward
from talkhead.renderers.gaussian.rasterizer.cpu_tiles import (
    cover,
    deal,
    depth_order,
    gather,
    slot_starts,
)

FloatArray: TypeAlias = npt.NDArray[np.float32]

MAX_SLOTS = 1 << 26
"""Maximum number of pairs of a splat and a tile: about a gigabyte. A head of 20,000 Gaussians has less
than a million."""

_LIMITS: Final = np.array([BLUR_PX2, ALPHA_FLOOR, NEAR_PLANE, FAR_PLANE, FOV_MARGIN], np.float32)
_BLENDING: Final = np.array([ALPHA_FLOOR, ALPHA_CAP, MIN_TRANSMITTANCE], np.float32)

_kernel_lock = threading.Lock()


@dataclass(frozen=True)
class Lists:
    """The splats and tiles' lists of one image, kept for its backward pass.

    Attributes:
        boxes: [N, 4], bounding boxes in tiles.
        order: [M], the visible Gaussians, nearest first.
        records: [M, 9], their splats.
        starts: [M + 1], where the slots of each splat start.
        slot_entries: [S], the entry of each slot.
        tile_starts: [T + 1], where the entries of each tile start.
        splats: [E], the splat of each entry.
        masks: [E], its mask of blocks.
    """

    boxes: npt.NDArray[np.int32]
    order: npt.NDArray[np.uint32]
    records: FloatArray
    starts: npt.NDArray[np.uint32]
    slot_entries: npt.NDArray[np.uint32]
    tile_starts: npt.NDArray[np.uint32]
    splats: npt.NDArray[np.uint32]
    masks: npt.NDArray[np.uint16]


@dataclass(frozen=True)
class SplatInputs:
    """One image's Gaussians and camera, all float32 and contiguous.

    Attributes:
        means: [N, 3], world space.
        covars: [N, 6] (xx, xy, xz, yy, yz, zz), world space.
        opacities: [N] in [0, 1].
        colors: [N, 3], RGB.
        viewmat: [4, 4], world to camera.
        K: [3, 3], intrinsics, px.
    """

    means: FloatArray
    covars: FloatArray
    opacities: FloatArray
    colors: FloatArray
    viewmat: FloatArray
    K: FloatArray


def _exclusively() -> AbstractContextManager[object]:
    """Return a context in which parallel kernels may be called."""
    return nullcontext() if has_concurrent_kernels() else _kernel_lock


def _bin(scene: SplatInputs, height: int, width: int) -> Lists:
    """Sort the splats of an image by depth and make the lists of its tiles."""
    size = np.array([width, height], np.float32)
    geometry, depths, boxes = project(
        scene.means, scene.covars, scene.opacities, scene.viewmat, scene.K, size, _LIMITS
    )
    _check_slots(boxes)
    order = depth_order(depths.view(np.uint32), boxes)
    records = gather(order, geometry, scene.opacities, scene.colors)
    starts = slot_starts(order, boxes)
    tiles_x, tiles_y = -(-width // TILE_PX), -(-height // TILE_PX)
    slot_tiles, slot_masks, counts = cover(
        order,
        starts,
        boxes,
        geometry,
        np.uint64(tiles_x),
        tiles_x * tiles_y,
        numba.get_num_threads(),
    )
    tile_starts, splats, masks, slot_entries = deal(starts, slot_tiles, slot_masks, counts)
    return Lists(boxes, order, records, starts, slot_entries, tile_starts, splats, masks)


def _check_slots(boxes: npt.NDArray[np.int32]) -> None:
    """Check that splats do not reach so many tiles that memory would run out.

    boxes: [N, 4]. Raises TalkheadError.
    """
    sizes = boxes[:, 1::2].astype(np.int64) - boxes[:, ::2]
    n_slots = int(sizes.prod(1).sum())
    if n_slots > MAX_SLOTS:
        raise TalkheadError(
            f"the Gaussians cover {n_slots:,} tiles of the image, where {MAX_SLOTS:,} at most are "
            "allowed: the renderer is damaged or the image too large. Fit again, or choose a smaller "
            "height"
        )


def render(scene: SplatInputs, rgb: FloatArray, alpha: FloatArray) -> Lists:
    """Render one image.

    Args:
        scene: Gaussians and camera.
        rgb: [H, W, 3], written, premultiplied.
        alpha: [H, W, 1], written.

    Returns:
        The lists that the backward pass needs.

    Raises:
        TalkheadError: If the Gaussians reach too many tiles.
    """
    height, width = alpha.shape[:2]
    with _exclusively():
        lists = _bin(scene, height, width)
        blend(lists.tile_starts, lists.splats, lists.masks, lists.records, _BLENDING, rgb, alpha)
    return lists


@dataclass(frozen=True)
class Gradients:
    """Gradients of a loss w.r.t. one image's Gaussians.

    Attributes:
        means: [N, 3].
        covars: [N, 6].
        opacities: [N].
        colors: [N, 3].
    """

    means: FloatArray
    covars: FloatArray
    opacities: FloatArray
    colors: FloatArray


def render_backward(
    scene: SplatInputs,
    lists: Lists,
    rgb: FloatArray,
    alpha: FloatArray,
    grad_rgb: FloatArray,
    grad_alpha: FloatArray,
    out: Gradients,
) -> None:
    """Compute the gradients of a loss by one image's Gaussians.

    Args:
        scene: Gaussians and camera.
        lists: Returned by render.
        rgb: [H, W, 3], written by render.
        alpha: [H, W, 1], written by render.
        grad_rgb: [H, W, 3], gradient by rgb.
        grad_alpha: [H, W, 1], gradient by alpha.
        out: Written.
    """
    height, width = alpha.shape[:2]
    size = np.array([width, height], np.float32)
    with _exclusively():
        moments = blend_backward(
            lists.tile_starts,
            lists.splats,
            lists.masks,
            lists.records,
            _BLENDING,
            rgb,
            alpha,
            grad_rgb,
            grad_alpha,
        )
        sums = sum_moments(lists.order, lists.starts, lists.slot_entries, moments, len(scene.means))
        project_backward(
            scene.means,
            scene.covars,
            scene.opacities,
            scene.viewmat,
            scene.K,
            size,
            _LIMITS,
            lists.boxes,
            sums,
            out.means,
            out.covars,
            out.opacities,
            out.colors,
        )
