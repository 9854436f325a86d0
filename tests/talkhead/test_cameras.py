"""Cameras: projection, and crops that only shift and scale pixels."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_head import make_face, make_poses

from talkhead.cameras import FOCAL_FACTOR, crop_intrinsics, default_intrinsics, project


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (300, 300)])
def test_default_intrinsics(size: tuple[int, int]) -> None:
    k = default_intrinsics(*size)
    focal = FOCAL_FACTOR * 640 if 640 in size else FOCAL_FACTOR * 300
    assert k.tolist() == [[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]]


def test_project_by_hand() -> None:
    """x points right, y down, z forward: a point half its depth to the right is projected half a
    focal length to the right.
    """
    k = default_intrinsics(100, 50)
    points = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.5, 2.0]])
    viewmat = np.eye(4)
    viewmat[2, 3] = 2.0
    pixels = project(points, viewmat[None], k)[0]
    assert np.allclose(pixels, [[50, 25], [50 + 60, 25], [50, 25 + 120 * 0.5 / 4]])


def test_rotation_is_applied_before_translation() -> None:
    quarter = np.array([[0.0, 0, 1, 3], [0, 1, 0, 0], [-1, 0, 0, 5], [0, 0, 0, 1]])
    pixel = project(np.array([[1.0, 2.0, 2.0]]), quarter[None], np.eye(3))[0, 0]
    assert np.allclose(pixel, [(2 + 3) / (5 - 1), 2 / (5 - 1)])


def test_each_frame_has_its_own_camera_and_points() -> None:
    """[F, V, 3] points and [F, 3, 3] cameras give the same as one frame at a time."""
    rng = np.random.default_rng(0)
    points, viewmats = rng.normal(size=(4, 7, 3)), make_poses(4, depth=9.0)
    ks = np.stack([default_intrinsics(100 + 10 * i, 80) for i in range(4)])
    together = project(points, viewmats, ks)
    for i in range(4):
        assert np.allclose(project(points[i], viewmats[i : i + 1], ks[i])[0], together[i])


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.37])
def test_crops_shift_and_scale_pixels(scale: float) -> None:
    """Projection with a crop's K gives the pixel's position in the crop."""
    k, viewmats = default_intrinsics(320, 240), make_poses(5)
    origins = np.array([[0, 0], [17, 5], [-12, 30], [200, -40], [3, 3]], np.float32)
    template = make_face().template.astype(np.float64)
    whole = project(template, viewmats, k)
    ks = crop_intrinsics(k, origins, scale)
    assert ks.dtype == np.float32 and ks.shape == (5, 3, 3)
    expected = (whole - origins[:, None]) * scale
    assert np.allclose(project(template, viewmats, ks.astype(np.float64)), expected, atol=1e-3)
    assert np.array_equal(k, default_intrinsics(320, 240)), "the whole image's K is unchanged"
