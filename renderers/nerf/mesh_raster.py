"""Rasterization of the posed face mesh: depth, displacement and region at each pixel.

A z-buffer over 870 triangles, once per image. It gives rays the position of the face, and the
position on the face at rest of the point of skin that they hit. It is not differentiated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from talkhead.cameras import project
from talkhead.face import FACE_OVAL, INNER_LIPS, N_SURFACE, OUTER_LIPS, cap_triangles
from talkhead.types import Float32, Float64, Int, UInt8

FACE, MOUTH, NEAR_LIPS, AT_BORDER = 1, 2, 4, 8
"""Flags of what is hit: skin; the opening between the lips; lips, behind which the mouth may be
visible; the mesh's border.
"""


@dataclass(frozen=True)
class MeshHits:
    """Hits on the mesh in B images of H x W pixels.

    Attributes:
        depth: [B, H, W], along the camera's axis, world units; inf where nothing is hit.
        shift: [B, H, W, 3], from the point that is hit to its position on the template.
        flags: [B, H, W], 0 or the sum of FACE, MOUTH, NEAR_LIPS and AT_BORDER.
    """

    depth: Float32
    shift: Float32
    flags: UInt8


def flagged_triangles(surface: Int) -> tuple[Int, UInt8]:
    """Add the mouth's opening to a mesh and flag the triangles.

    Args:
        surface: [T, 3], the triangles of the face.

    Returns:
        Triangles [T', 3] and flags [T'].
    """
    cap = cap_triangles()
    flags = np.full(len(surface), FACE, np.uint8)
    flags[np.isin(surface, INNER_LIPS + OUTER_LIPS).any(1)] |= NEAR_LIPS
    flags[np.isin(surface, FACE_OVAL).any(1)] |= AT_BORDER
    triangles = np.concatenate([surface, cap])
    return triangles, np.concatenate([flags, np.full(len(cap), MOUTH, np.uint8)])


def mesh_hits(
    vertices: Float64,
    template: Float64,
    viewmats: Float64,
    ks: Float64,
    triangles: Int,
    flags: UInt8,
    size: tuple[int, int],
) -> MeshHits:
    """Rasterize posed meshes.

    Args:
        vertices: [B, V, 3], head space.
        template: [V, 3], the vertices at rest.
        viewmats: [B, 4, 4], head poses.
        ks: [B, 3, 3], intrinsics, pixels.
        triangles: [T, 3], of flagged_triangles.
        flags: [T], of flagged_triangles.
        size: Height and width of the images, pixels.

    Returns:
        The hits.
    """
    n_images = len(vertices)
    posed = vertices[:, :N_SURFACE]
    pixels = project(posed, viewmats, ks)
    depth = np.einsum("bvc,bc->bv", posed, viewmats[:, 2, :3]) + viewmats[:, None, 2, 3]
    shifts = template[:N_SURFACE] - posed
    found = MeshHits(
        np.full((n_images, *size), np.inf, np.float32),
        np.zeros((n_images, *size, 3), np.float32),
        np.zeros((n_images, *size), np.uint8),
    )
    corners = np.concatenate([pixels, depth[..., None]], axis=2)[:, triangles]
    _draw(
        corners.astype(np.float32),
        shifts[:, triangles].astype(np.float32),
        flags,
        found.depth,
        found.shift,
        found.flags,
    )
    return found


@numba.njit(nogil=True, cache=True, parallel=True)
def _draw(corners, shifts, kinds, depth, shift, flags):  # type: ignore[no-untyped-def]
    """Write depth [B, H, W], shift [B, H, W, 3] and flags [B, H, W].

    corners: [B, T, 3, 3], x and y in pixels, and depth. shifts: [B, T, 3, 3]. kinds: [T], the flags
    of the triangles.
    """
    n_images, n_triangles = corners.shape[0], corners.shape[1]
    height, width = depth.shape[1], depth.shape[2]
    for b in numba.prange(n_images):
        for t in range(n_triangles):
            p = corners[b, t]
            x0, y0, x1, y1, x2, y2 = p[0, 0], p[0, 1], p[1, 0], p[1, 1], p[2, 0], p[2, 1]
            area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
            if abs(area) < 1e-9:
                continue
            # Pixels whose centers are in the bounding box.
            top = max(0, int(np.ceil(min(y0, y1, y2) - 0.5)))
            bottom = min(height - 1, int(np.floor(max(y0, y1, y2) - 0.5)))
            left = max(0, int(np.ceil(min(x0, x1, x2) - 0.5)))
            right = min(width - 1, int(np.floor(max(x0, x1, x2) - 0.5)))
            for y in range(top, bottom + 1):
                for x in range(left, right + 1):
                    u, v = np.float32(x) + np.float32(0.5), np.float32(y) + np.float32(0.5)
                    # Barycentric coordinates.
                    b1 = ((u - x0) * (y2 - y0) - (x2 - x0) * (v - y0)) / area
                    b2 = ((x1 - x0) * (v - y0) - (u - x0) * (y1 - y0)) / area
                    b0 = np.float32(1.0) - b1 - b2
                    if b0 < 0 or b1 < 0 or b2 < 0:
                        continue
                    # 1 / depth is linear in the image, and so are values divided by depth.
                    w0, w1, w2 = b0 / p[0, 2], b1 / p[1, 2], b2 / p[2, 2]
                    z = np.float32(1.0) / (w0 + w1 + w2)
                    if z >= depth[b, y, x]:
                        continue
                    depth[b, y, x] = z
                    flags[b, y, x] = kinds[t]
                    for c in range(3):
                        shift[b, y, x, c] = z * (
                            w0 * shifts[b, t, 0, c]
                            + w1 * shifts[b, t, 1, c]
                            + w2 * shifts[b, t, 2, c]
                        )
