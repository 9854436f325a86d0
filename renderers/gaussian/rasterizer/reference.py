"""The reference rasterizer: slow and simple, in plain torch, every splat at every pixel.

Splatting as in Zwicker et al., "EWA Splatting", 2001, and Kerbl et al., "3D Gaussian Splatting for
Real-Time Radiance Field Rendering", 2023, in gsplat's conventions (its `_torch_impl.py`). The fast
kernels must reproduce it. It is differentiated by autograd. Its memory is proportional to Gaussians
times pixels.
"""

import torch
from torch import Tensor

from talkhead.renderers.gaussian.rasterizer.cameras import Cameras
from talkhead.renderers.gaussian.rasterizer.constants import (
    ALPHA_CAP,
    ALPHA_FLOOR,
    BLUR_PX2,
    FAR_PLANE,
    FOV_MARGIN,
    MIN_TRANSMITTANCE,
    NEAR_PLANE,
)


def rasterize_reference(
    means: Tensor,
    covars: Tensor,
    opacities: Tensor,
    colors: Tensor,
    camera: Cameras,
    *,
    alpha_floor: float = ALPHA_FLOOR,
    min_transmittance: float = MIN_TRANSMITTANCE,
) -> tuple[Tensor, Tensor]:
    """Render one image.

    Args:
        means: [N, 3], world space.
        covars: [N, 6] (xx, xy, xz, yy, yz, zz), world space.
        opacities: [N], in [0, 1].
        colors: [N, 3], RGB.
        camera: The camera of one image.
        alpha_floor: Minimum alpha. This threshold and the next can be changed to find the pixels in which
            the result depends on rounding.
        min_transmittance: Transmittance at which a pixel is finished.

    Returns:
        rgb [H, W, 3], premultiplied by alpha, and alpha [H, W, 1].
    """
    height, width = camera.height, camera.width
    viewmat, K = camera.viewmats[0], camera.Ks[0]
    # Project, cull, and sort front to back.
    position, inverse, depth = project_reference(means, covars, viewmat, K, height, width)
    kept = (depth > NEAR_PLANE) & (depth < FAR_PLANE)
    order = torch.argsort(depth[kept], stable=True)
    position, inverse = position[kept][order], inverse[kept][order]
    opacities, colors = opacities[kept][order], colors[kept][order]

    # Alpha of each splat at each pixel, [N, H, W].
    y = torch.arange(height, dtype=means.dtype) + 0.5
    x = torch.arange(width, dtype=means.dtype) + 0.5
    dx = x[None, None, :] - position[:, 0, None, None]
    dy = y[None, :, None] - position[:, 1, None, None]
    pxx, pxy, pyy = (inverse[:, k, None, None] for k in range(3))
    exponent = 0.5 * (pxx * dx * dx + pyy * dy * dy) + pxy * dx * dy
    alpha = (opacities[:, None, None] * torch.exp(-exponent)).clamp(max=ALPHA_CAP)
    alpha = torch.where(alpha >= alpha_floor, alpha, torch.zeros_like(alpha))

    # A pixel is finished before the splat that would reduce it to the threshold: that splat and all
    # behind it are left out, and what remains is transparent.
    after = torch.cumprod(1.0 - alpha, dim=0)
    alpha = torch.where(after > min_transmittance, alpha, torch.zeros_like(alpha))
    after = torch.cumprod(1.0 - alpha, dim=0)
    before = torch.cat([torch.ones_like(after[:1]), after[:-1]])
    rgb = torch.einsum("nhw,nc->hwc", alpha * before, colors)
    rest = after[-1] if len(after) else torch.ones(height, width, dtype=means.dtype)
    return rgb, (1.0 - rest)[..., None]


def project_reference(
    means: Tensor, covars: Tensor, viewmat: Tensor, K: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Project Gaussians to the image.

    The covariance is transformed by the projection's Jacobian at the Gaussian's center (Zwicker et
    al., section 4; Kerbl et al., equation 5), which is evaluated no farther outside the image than
    in gsplat.

    Args:
        means: [N, 3], world space.
        covars: [N, 6] (xx, xy, xz, yy, yz, zz), world space.
        viewmat: [4, 4], world to camera.
        K: [3, 3], intrinsics, px.
        height: Height of the image, px.
        width: Width of the image, px.

    Returns:
        Positions in the image [N, 2], px; inverse covariances [N, 3] (xx, xy, yy), px^-2; depths
        [N].
    """
    # Centers in camera space; the Jacobian's point, clamped to the extended field of view.
    rotation, translation = viewmat[:3, :3], viewmat[:3, 3]
    x, y, z = (means @ rotation.T + translation).unbind(-1)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    margin_x = FOV_MARGIN * 0.5 * width / fx
    margin_y = FOV_MARGIN * 0.5 * height / fy
    tx = z * (x / z).clamp(-(cx / fx + margin_x), (width - cx) / fx + margin_x)
    ty = z * (y / z).clamp(-(cy / fy + margin_y), (height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [fx / z, zero, -fx * tx / z**2, zero, fy / z, -fy * ty / z**2], dim=-1
    ).reshape(-1, 2, 3)
    # Covariance in the image, blurred, and its inverse.
    affine = jacobian @ rotation  # [N, 2, 3]
    full = covars[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
    projected = affine @ full @ affine.transpose(1, 2)
    xx = projected[:, 0, 0] + BLUR_PX2
    xy = projected[:, 0, 1]
    yy = projected[:, 1, 1] + BLUR_PX2
    determinant = xx * yy - xy * xy
    position = torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1)
    inverse = torch.stack([yy, -xy, xx], dim=-1) / determinant[:, None]
    return position, inverse, z
