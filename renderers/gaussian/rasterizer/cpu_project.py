"""Projection of 3-D Gaussians to splats in the image, and its hand-written backward pass (numba, CPU).

The affine (EWA) approximation of a perspective camera: Zwicker et al., "EWA Splatting", 2001,
section 4; as used by Kerbl et al., "3D Gaussian Splatting", 2023, section 4, and in gsplat's
conventions. The kernels here do not call those of other files, because numba's cache would not
notice changes there.

A splat is stored as `geometry` [6]: position in the image x, y (px); a, b, c; cut. With the offset
(dx, dy) of a pixel center from the position, u = a dx + b dy and v = c dy, the exponent is (u^2 +
v^2) / 2, which is never negative, however it is rounded. The splat reaches its alpha floor where
u^2 + v^2 = cut. a, b, c are the Cholesky factor of the inverse covariance: c = 1 / sqrt(yy), a =
sqrt(yy / det), b = -a xy / yy.
"""

from typing import Any

import numpy as np
from numba import njit, prange

from talkhead.renderers.fastmath import IN_ORDER_WITH_NAN

TILE_PX = 16
"""Side of a tile, px."""

# A NaN in the input must fail the culling tests.
_SAFE_MATH = IN_ORDER_WITH_NAN

_F0 = np.float32(0.0)
_F1 = np.float32(1.0)
_F2 = np.float32(2.0)
_HALF = np.float32(0.5)
# Added to the cut before the box is computed, so that rounding never loses a pixel.
_CUT_SLACK = np.float32(1e-3)


@njit(fastmath=_SAFE_MATH, error_model="numpy", inline="always")
def _camera(viewmat: Any, K: Any, mean: Any, width: Any, height: Any, margin: Any) -> Any:
    """Return the center in camera space, the Jacobian's x and y, and whether each was clamped."""
    x = viewmat[0, 0] * mean[0] + viewmat[0, 1] * mean[1] + viewmat[0, 2] * mean[2] + viewmat[0, 3]
    y = viewmat[1, 0] * mean[0] + viewmat[1, 1] * mean[1] + viewmat[1, 2] * mean[2] + viewmat[1, 3]
    z = viewmat[2, 0] * mean[0] + viewmat[2, 1] * mean[1] + viewmat[2, 2] * mean[2] + viewmat[2, 3]
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    margin_x = margin * _HALF * width / fx
    margin_y = margin * _HALF * height / fy
    left, right = -(cx / fx + margin_x), (width - cx) / fx + margin_x
    top, bottom = -(cy / fy + margin_y), (height - cy) / fy + margin_y
    tx, ty = x / z, y / z
    clamped_x = tx < left or tx > right
    clamped_y = ty < top or ty > bottom
    tx = min(max(tx, left), right) * z
    ty = min(max(ty, top), bottom) * z
    return x, y, z, tx, ty, clamped_x, clamped_y


@njit(fastmath=_SAFE_MATH, error_model="numpy", inline="always")
def _affine(viewmat: Any, K: Any, tx: Any, ty: Any, z: Any) -> Any:
    """Return the rows of Jacobian times rotation: d(image position) / d(world position), px per unit."""
    jxx = K[0, 0] / z
    jyy = K[1, 1] / z
    jxz = -jxx * tx / z
    jyz = -jyy * ty / z
    return (
        jxx * viewmat[0, 0] + jxz * viewmat[2, 0],
        jxx * viewmat[0, 1] + jxz * viewmat[2, 1],
        jxx * viewmat[0, 2] + jxz * viewmat[2, 2],
        jyy * viewmat[1, 0] + jyz * viewmat[2, 0],
        jyy * viewmat[1, 1] + jyz * viewmat[2, 1],
        jyy * viewmat[1, 2] + jyz * viewmat[2, 2],
    )


@njit(fastmath=_SAFE_MATH, error_model="numpy", inline="always")
def _symmetric_times(covar: Any, x: Any, y: Any, z: Any) -> Any:
    """Multiply a covariance (xx, xy, xz, yy, yz, zz) with a vector."""
    return (
        covar[0] * x + covar[1] * y + covar[2] * z,
        covar[1] * x + covar[3] * y + covar[4] * z,
        covar[2] * x + covar[4] * y + covar[5] * z,
    )


@njit(fastmath=_SAFE_MATH, error_model="numpy", inline="always")
def _tile_range(center: Any, radius: Any, size: Any, tiles: Any) -> Any:
    """Return the range of tiles whose pixel centers are within `radius` of `center`, px, half open."""
    first = np.ceil(max(center - radius - _HALF, _F0))
    last = np.floor(min(center + radius - _HALF, size - _F1))
    if not first <= last:
        return np.int32(0), np.int32(0)
    return np.int32(first) // np.int32(TILE_PX), np.int32(last) // np.int32(TILE_PX) + np.int32(1)


@njit(nogil=True, fastmath=_SAFE_MATH, parallel=True, cache=True, error_model="numpy")
def project(
    means: Any, covars: Any, opacities: Any, viewmat: Any, K: Any, size: Any, limits: Any
) -> Any:
    """Project Gaussians to splats in one image.

    Args:
        means: [N, 3], world space.
        covars: [N, 6], world space.
        opacities: [N] in [0, 1].
        viewmat: [4, 4], world to camera.
        K: [3, 3], intrinsics, px.
        size: float32 [2], width and height, px.
        limits: float32 [5], blur, alpha floor, near plane, far plane, field-of-view margin.

    Returns:
        geometry [N, 6], depths [N] and boxes [N, 4]. A box is (x0, x1, y0, y1) in tiles, half open;
        all zero where the Gaussian is culled.
    """
    n = means.shape[0]
    width, height = size[0], size[1]
    blur, floor, near, far, margin = limits[0], limits[1], limits[2], limits[3], limits[4]
    tiles_x = (np.int32(width) + np.int32(TILE_PX - 1)) // np.int32(TILE_PX)
    tiles_y = (np.int32(height) + np.int32(TILE_PX - 1)) // np.int32(TILE_PX)
    geometry = np.empty((n, 6), np.float32)
    depths = np.empty(n, np.float32)
    boxes = np.empty((n, 4), np.int32)
    for i in prange(n):
        # Covariance in the image: J W Sigma W^T J^T + blur.
        x, y, z, tx, ty, _, _ = _camera(viewmat, K, means[i], width, height, margin)
        ux, uy, uz, vx, vy, vz = _affine(viewmat, K, tx, ty, z)
        sux, suy, suz = _symmetric_times(covars[i], ux, uy, uz)
        svx, svy, svz = _symmetric_times(covars[i], vx, vy, vz)
        xx = ux * sux + uy * suy + uz * suz + blur
        xy = vx * sux + vy * suy + vz * suz
        yy = vx * svx + vy * svy + vz * svz + blur
        det = xx * yy - xy * xy
        x0 = x1 = y0 = y1 = np.int32(0)
        # Cull; else store the splat and the tiles of its bounding box.
        if z > near and z < far and opacities[i] >= floor and det > _F0 and xx > _F0 and yy > _F0:
            cut = _F2 * np.log(opacities[i] / floor) + _CUT_SLACK
            image_x = K[0, 0] * x / z + K[0, 2]
            image_y = K[1, 1] * y / z + K[1, 2]
            x0, x1 = _tile_range(image_x, np.sqrt(cut * xx), width, tiles_x)
            y0, y1 = _tile_range(image_y, np.sqrt(cut * yy), height, tiles_y)
            a = np.sqrt(yy / det)
            geometry[i, 0] = image_x
            geometry[i, 1] = image_y
            geometry[i, 2] = a
            geometry[i, 3] = -a * xy / yy
            geometry[i, 4] = _F1 / np.sqrt(yy)
            geometry[i, 5] = cut
        depths[i] = z
        visible = x1 > x0 and y1 > y0
        boxes[i, 0] = x0 if visible else np.int32(0)
        boxes[i, 1] = x1 if visible else np.int32(0)
        boxes[i, 2] = y0 if visible else np.int32(0)
        boxes[i, 3] = y1 if visible else np.int32(0)
    return geometry, depths, boxes


@njit(fastmath=_SAFE_MATH, error_model="numpy", inline="always")
def _covariance_gradient(moments: Any, xx: Any, xy: Any, yy: Any) -> Any:
    """Convert the gradient X of the inverse covariance P to that of the covariance: -P X P.

    Returns its elements xx, xy and yy, and the gradient w.r.t. the position in the image, x and y.
    """
    det = xx * yy - xy * xy
    pxx, pxy, pyy = yy / det, -xy / det, xx / det
    gxx, gxy, gyy = _HALF * moments[3], _HALF * moments[4], _HALF * moments[5]
    hxx = pxx * gxx + pxy * gxy
    hxy = pxx * gxy + pxy * gyy
    hyx = pxy * gxx + pyy * gxy
    hyy = pxy * gxy + pyy * gyy
    return (
        -(hxx * pxx + hxy * pxy),
        -_F2 * (hxx * pxy + hxy * pyy),
        -(hyx * pxy + hyy * pyy),
        -(pxx * moments[1] + pxy * moments[2]),
        -(pxy * moments[1] + pyy * moments[2]),
    )


@njit(fastmath=_SAFE_MATH, error_model="numpy", inline="always")
def _write_covar_gradient(out: Any, g: Any, u: Any, v: Any) -> None:
    """Write the gradient w.r.t. xx, xy, xz, yy, yz, zz of the world-space covariance."""
    k = 0
    for i in range(3):
        for j in range(i, 3):
            mixed = u[i] * v[j] + u[j] * v[i]
            value = _F2 * g[0] * u[i] * u[j] + g[1] * mixed + _F2 * g[2] * v[i] * v[j]
            out[k] = value if i != j else _HALF * value
            k += 1


@njit(nogil=True, fastmath=_SAFE_MATH, parallel=True, cache=True, error_model="numpy")
def project_backward(
    means: Any,
    covars: Any,
    opacities: Any,
    viewmat: Any,
    K: Any,
    size: Any,
    limits: Any,
    boxes: Any,
    moments: Any,
    grad_means: Any,
    grad_covars: Any,
    grad_opacities: Any,
    grad_colors: Any,
) -> None:
    """Write one image's gradients w.r.t. means, covars, opacities and colors; zero where culled.

    Args:
        means: [N, 3], as in project.
        covars: [N, 6], as in project.
        opacities: [N], as in project.
        viewmat: [4, 4], as in project.
        K: [3, 3], as in project.
        size: [2], as in project.
        limits: [5], as in project.
        boxes: [N, 4], returned by project.
        moments: [N, 9], sums over the splat's pixels: of s, s dx, s dy, s dx^2, s dx dy, s dy^2,
            where s is the gradient w.r.t. the exponent and (dx, dy) the pixel's offset from the splat,
            and of the gradients w.r.t. the splat's three colors.
        grad_means: [N, 3], written.
        grad_covars: [N, 6], written.
        grad_opacities: [N], written.
        grad_colors: [N, 3], written.
    """
    width, height = size[0], size[1]
    for i in prange(means.shape[0]):
        if boxes[i, 1] == boxes[i, 0]:
            grad_means[i, :] = _F0
            grad_covars[i, :] = _F0
            grad_opacities[i] = _F0
            grad_colors[i, :] = _F0
            continue
        x, y, z, tx, ty, clamped_x, clamped_y = _camera(
            viewmat, K, means[i], width, height, limits[4]
        )
        ux, uy, uz, vx, vy, vz = _affine(viewmat, K, tx, ty, z)
        sux, suy, suz = _symmetric_times(covars[i], ux, uy, uz)
        svx, svy, svz = _symmetric_times(covars[i], vx, vy, vz)
        xx = ux * sux + uy * suy + uz * suz + limits[0]
        xy = vx * sux + vy * suy + vz * suz
        yy = vx * svx + vy * svy + vz * svz + limits[0]
        gxx, gxy, gyy, g_image_x, g_image_y = _covariance_gradient(moments[i], xx, xy, yy)
        _write_covar_gradient(grad_covars[i], (gxx, gxy, gyy), (ux, uy, uz), (vx, vy, vz))
        # Gradients w.r.t. the rows of the affine map, then the Jacobian's four non-zero elements.
        gux, guy, guz = (
            _F2 * gxx * sux + gxy * svx,
            _F2 * gxx * suy + gxy * svy,
            _F2 * gxx * suz + gxy * svz,
        )
        gvx, gvy, gvz = (
            gxy * sux + _F2 * gyy * svx,
            gxy * suy + _F2 * gyy * svy,
            gxy * suz + _F2 * gyy * svz,
        )
        g_jxx = gux * viewmat[0, 0] + guy * viewmat[0, 1] + guz * viewmat[0, 2]
        g_jxz = gux * viewmat[2, 0] + guy * viewmat[2, 1] + guz * viewmat[2, 2]
        g_jyy = gvx * viewmat[1, 0] + gvy * viewmat[1, 1] + gvz * viewmat[1, 2]
        g_jyz = gvx * viewmat[2, 0] + gvy * viewmat[2, 1] + gvz * viewmat[2, 2]
        # Gradient w.r.t. the center in camera space: through its projection and the Jacobian.
        jxx, jyy = K[0, 0] / z, K[1, 1] / z
        gx = jxx * g_image_x
        gy = jyy * g_image_y
        gz = -(gx * x + gy * y + jxx * g_jxx + jyy * g_jyy) / z
        # A clamped coordinate is proportional to z: it has no gradient of its own.
        gz += (_F1 if clamped_x else _F2) * jxx * tx / (z * z) * g_jxz
        gz += (_F1 if clamped_y else _F2) * jyy * ty / (z * z) * g_jyz
        gx -= _F0 if clamped_x else jxx / z * g_jxz
        gy -= _F0 if clamped_y else jyy / z * g_jyz
        # Rotate it back to world space.
        for k in range(3):
            grad_means[i, k] = viewmat[0, k] * gx + viewmat[1, k] * gy + viewmat[2, k] * gz
            grad_colors[i, k] = moments[i, 6 + k]
        grad_opacities[i] = -moments[i, 0] / opacities[i]
