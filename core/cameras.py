"""The one camera convention: pinholes, OpenCV axes, crops as shifts and scales of K."""

from __future__ import annotations

import numpy as np

from talkhead.types import Float32, Float64

FOCAL_FACTOR = 1.2
"""Focal length over the longer image side, where no calibration is given."""


def default_intrinsics(width: int, height: int) -> Float64:
    """K [3, 3] of an uncalibrated image: square pixels, principal point in the middle."""
    focal = FOCAL_FACTOR * max(width, height)
    return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def crop_intrinsics(intrinsics: Float64, origins: Float32 | Float64, scale: float = 1.0) -> Float32:
    """K of crops.

    intrinsics: [3, 3] of the whole image. origins: [F, 2] left, top of each crop in image pixels.
    scale: crop pixels per image pixel.
    Returns [F, 3, 3] float32.
    """
    ks = np.repeat(intrinsics[None].astype(np.float64), len(origins), axis=0)
    ks[:, :2, 2] -= origins
    ks[:, :2] *= scale
    return ks.astype(np.float32)


def project(points: Float64, viewmats: Float64, intrinsics: Float64) -> Float64:
    """Pixels [F, V, 2] of world points.

    points: [V, 3] or [F, V, 3]. viewmats: [F, 4, 4] world to camera. intrinsics: [3, 3] or
    [F, 3, 3]. Points must lie in front of the camera.
    """
    camera = points @ np.swapaxes(viewmats[:, :3, :3], 1, 2) + viewmats[:, None, :3, 3]
    pixels = camera @ np.swapaxes(np.broadcast_to(intrinsics, (len(viewmats), 3, 3)), 1, 2)
    return np.asarray(pixels[..., :2] / pixels[..., 2:])
