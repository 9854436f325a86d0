"""The CUDA rasterizer: gsplat, called so that its images are those of the CPU's kernels."""

from torch import Tensor

from talkhead.renderers.gaussian.rasterizer.constants import BLUR_PX2, FAR_PLANE, NEAR_PLANE

# Rows of a full 3 x 3 matrix from (xx, xy, xz, yy, yz, zz).
_FULL = (0, 1, 2, 1, 3, 4, 2, 4, 5)


def rasterize_gsplat(
    means: Tensor,
    covars: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor]:
    """rgb [B, H, W, 3] premultiplied by alpha, alpha [B, H, W, 1], by gsplat on a CUDA device.

    means: [S, N, 3], covars: [S, N, 6], opacities: [S, N], colors: [S, N, 3]; S is B (each image
    its own Gaussians) or 1 (all share them), for each of the four on its own. viewmats: [B, 4, 4].
    Ks: [B, 3, 3]. All float32 on one CUDA device.
    """
    # Imported here: on a machine without CUDA nothing needs gsplat, nor the seconds it takes.
    from gsplat import rasterization

    n_images = len(viewmats)
    splats = (means, covars[..., _FULL].unflatten(-1, (3, 3)), opacities, colors)
    if all(len(tensor) == 1 for tensor in splats):
        # One set of Gaussians seen by B cameras.
        means, full, opacities, colors = (tensor[0] for tensor in splats)
    else:
        # B sets of Gaussians, each seen by one camera.
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
        # Packed results save memory where cameras see a fraction of a scene; a head is seen whole.
        packed=False,
        backgrounds=None,
        rasterize_mode="classic",
        covars=full.contiguous(),
    )
    return (
        rgb.reshape(n_images, height, width, 3),
        alpha.reshape(n_images, height, width, 1),
    )
