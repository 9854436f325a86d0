"""The CUDA rasterizer: gsplat, with settings that give the same images as the CPU kernels."""

from torch import Tensor

from talkhead.renderers.gaussian.rasterizer.cameras import Cameras
from talkhead.renderers.gaussian.rasterizer.constants import BLUR_PX2, FAR_PLANE, NEAR_PLANE

# The elements of a full 3 x 3 matrix, row by row, in (xx, xy, xz, yy, yz, zz).
_FULL = (0, 1, 2, 1, 3, 4, 2, 4, 5)


def rasterize_gsplat(
    means: Tensor, covars: Tensor, opacities: Tensor, colors: Tensor, cameras: Cameras
) -> tuple[Tensor, Tensor]:
    """Render images with gsplat. All tensors are float32 on one CUDA device.

    For each of the four tensors, S is B if each image has its own values, or 1 if all share them.

    Args:
        means: [S, N, 3], world units.
        covars: [S, N, 6], world units squared.
        opacities: [S, N], in [0, 1].
        colors: [S, N, 3], RGB.
        cameras: The cameras of B images.

    Returns:
        rgb [B, H, W, 3], premultiplied by alpha, and alpha [B, H, W, 1].
    """
    # Imported here: nothing else needs gsplat, and the import is slow (seconds).
    from gsplat import rasterization

    viewmats, Ks, height, width = cameras.viewmats, cameras.Ks, cameras.height, cameras.width
    n_images = len(viewmats)
    splats = (means, covars[..., _FULL].unflatten(-1, (3, 3)), opacities, colors)
    if all(len(tensor) == 1 for tensor in splats):
        # One set of Gaussians for B cameras.
        means, full, opacities, colors = (tensor[0] for tensor in splats)
    else:
        # B sets of Gaussians, one for each camera.
        means, full, opacities, colors = (
            tensor.expand(n_images, *tensor.shape[1:]) for tensor in splats
        )
        viewmats, Ks = viewmats[:, None], Ks[:, None]
    rgb, alpha, _ = rasterization(
        means=means.contiguous(),
        quats=None,
        scales=None,
        opacities=opacities.contiguous(),
        colors=colors.contiguous(),
        viewmats=viewmats.contiguous(),
        Ks=Ks.contiguous(),
        width=width,
        height=height,
        near_plane=NEAR_PLANE,
        far_plane=FAR_PLANE,
        eps2d=BLUR_PX2,
        # Packing saves memory if only a part of the scene is visible; a head is visible as a whole.
        packed=False,
        backgrounds=None,
        rasterize_mode="classic",
        covars=full.contiguous(),
    )
    return (
        rgb.reshape(n_images, height, width, 3),
        alpha.reshape(n_images, height, width, 1),
    )
