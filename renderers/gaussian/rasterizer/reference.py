"""The oracle: a slow and simple rasterizer in plain torch, every splat at every pixel, no tiles.

Splatting as in Zwicker et al., "EWA Splatting", 2001, and Kerbl et al., "3D Gaussian Splatting for
Real-Time Radiance Field Rendering", 2023, in gsplat's conventions (its `_torch_impl.py`): what the
fast kernels must reproduce. Differentiable by autograd. Memory: Gaussians x pixels.
"""

import torch
from torch import Tensor

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
    viewmat: Tensor,
    K: Tensor,
    height: int,
    width: int,
    *,
    alpha_floor: float = ALPHA_FLOOR,
    min_transmittance: float = MIN_TRANSMITTANCE,
) -> tuple[Tensor, Tensor]:
    """One image: rgb [H, W, 3] premultiplied by alpha, alpha [H, W, 1].

    means: [N, 3] and covars: [N, 6] (xx, xy, xz, yy, yz, zz) in world space. opacities: [N] in
    [0, 1]. colors: [N, 3]. viewmat: [4, 4] world to camera, OpenCV axes. K: [3, 3] px.
    The thresholds can be moved to find the pixels that hang on rounding.
    """
    position, inverse, depth = project_reference(means, covars, viewmat, K, height, width)
    kept = (depth > NEAR_PLANE) & (depth < FAR_PLANE)
    order = torch.argsort(depth[kept], stable=True)
    position, inverse = position[kept][order], inverse[kept][order]
    opacities, colors = opacities[kept][order], colors[kept][order]

    y = torch.arange(height, dtype=means.dtype) + 0.5
    x = torch.arange(width, dtype=means.dtype) + 0.5
    dx = x[None, None, :] - position[:, 0, None, None]
    dy = y[None, :, None] - position[:, 1, None, None]
    pxx, pxy, pyy = (inverse[:, k, None, None] for k in range(3))
    exponent = 0.5 * (pxx * dx * dx + pyy * dy * dy) + pxy * dx * dy
    alpha = (opacities[:, None, None] * torch.exp(-exponent)).clamp(max=ALPHA_CAP)
    alpha = torch.where(alpha >= alpha_floor, alpha, torch.zeros_like(alpha))

    # A pixel is finished before the splat that would take it to the threshold: that splat and all
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
    """Image positions [N, 2] px, inverse covariances [N, 3] (xx, xy, yy) px^-2, depths [N].

    The covariance goes through the projection's Jacobian at the Gaussian's centre (Zwicker et al.,
    section 4; Kerbl et al., equation 5), which is taken no farther outside than gsplat takes it.
    """
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
    affine = jacobian @ rotation
    full = covars[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
    projected = affine @ full @ affine.transpose(1, 2)
    xx = projected[:, 0, 0] + BLUR_PX2
    xy = projected[:, 0, 1]
    yy = projected[:, 1, 1] + BLUR_PX2
    determinant = xx * yy - xy * xy
    position = torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1)
    inverse = torch.stack([yy, -xy, xx], dim=-1) / determinant[:, None]
    return position, inverse, z
