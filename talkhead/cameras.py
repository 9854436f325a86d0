"""Pinhole cameras with OpenCV axes; cropping shifts and scales the intrinsics K."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from talkhead.types import Float32, Float64

if TYPE_CHECKING:
    from torch import Tensor

FOCAL_FACTOR = 1.2
"""Focal length over the longer image side, without calibration."""
MAX_PX = 1e6
"""Largest focal length and image position, pixels."""
MIN_DEPTH = 0.2
"""Smallest distance of a head's center from the camera, in eye distances."""
RIGID_TOLERANCE = 1e-2
"""Tolerance of a stored rotation, which is in float32."""


def default_intrinsics(width: int, height: int) -> Float64:
    """Return K of an uncalibrated image: square pixels, principal point in the middle.

    Args:
        width: Pixels.
        height: Pixels.

    Returns:
        [3, 3].
    """
    focal = FOCAL_FACTOR * max(width, height)
    return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def view_fault(views: Tensor) -> str:
    """Check that view matrices are rigid motions that put the head in front of the camera.

    Args:
        views: [..., 4, 4].

    Returns:
        What is wrong with them; "" if nothing is.
    """
    import torch

    turn = views[..., :3, :3].double()
    identity = torch.eye(3, dtype=turn.dtype, device=turn.device)
    off = (turn @ turn.transpose(-1, -2) - identity).abs().amax()
    mirrored = (torch.linalg.det(turn) < 0).any()
    last = views[..., 3, :] - views.new_tensor([0.0, 0.0, 0.0, 1.0])
    if off > RIGID_TOLERANCE or mirrored or last.abs().amax() > 0:
        return "holds a matrix that is not a head pose: a rotation and a translation are needed"
    if views[..., 2, 3].min() < MIN_DEPTH:
        return f"holds a head nearer than {MIN_DEPTH:g} to the camera, or behind it"
    return ""


def crop_intrinsics(intrinsics: Float64, origins: Float32 | Float64, scale: float = 1.0) -> Float32:
    """Return K of crops.

    Args:
        intrinsics: [3, 3] of the whole image.
        origins: [F, 2] left and top of each crop in image pixels.
        scale: Crop pixels per image pixel.

    Returns:
        [F, 3, 3] float32.
    """
    ks = np.repeat(intrinsics[None].astype(np.float64), len(origins), axis=0)
    ks[:, :2, 2] -= origins
    ks[:, :2] *= scale
    return ks.astype(np.float32)


def project(points: Float64, viewmats: Float64, intrinsics: Float64) -> Float64:
    """Project world points, which must be in front of the camera, to pixels.

    Args:
        points: [V, 3] or [F, V, 3].
        viewmats: [F, 4, 4] world to camera.
        intrinsics: [3, 3] or [F, 3, 3].

    Returns:
        [F, V, 2].
    """
    camera = points @ np.swapaxes(viewmats[:, :3, :3], 1, 2) + viewmats[:, None, :3, 3]
    pixels = camera @ np.swapaxes(np.broadcast_to(intrinsics, (len(viewmats), 3, 3)), 1, 2)
    return np.asarray(pixels[..., :2] / pixels[..., 2:])
