"""The one rasterizer interface: 3-D Gaussians to images, on the CPU (numba) or CUDA (gsplat)."""

import functools
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from talkhead.device import gsplat_unavailable_reason
from talkhead.errors import TalkheadError
from talkhead.renderers.gaussian.rasterizer import cpu as raster_numba
from talkhead.renderers.gaussian.rasterizer import cuda as raster_gsplat

BACKENDS: Final = ("numba", "gsplat")


def rasterize(
    means: Tensor,
    covars: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    height: int,
    width: int,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Images of Gaussians: rgb [B, H, W, 3] premultiplied by alpha, alpha [B, H, W, 1] in [0, 1].

    means: [N, 3] or [B, N, 3], centres, world units.
    covars: [N, 6] or [B, N, 6], covariances xx, xy, xz, yy, yz, zz, world units squared.
    opacities: [N] or [B, N], in [0, 1].
    colors: [N, 3] or [B, N, 3], RGB; any range, as they are only summed.
    viewmats: [B, 4, 4], world to camera, OpenCV axes. Ks: [B, 3, 3], pinhole without skew, px, with
    pixel centres at halves. height, width: px.
    backend: "numba", "gsplat" or None: gsplat for CUDA tensors, numba for others.

    Differentiable in the first four. Computed in float32; results and gradients are bitwise
    reproducible on the CPU.
    Raises ValueError for shapes that don't fit, TalkheadError for a backend that cannot be used.
    """
    _check_shapes(means, covars, opacities, colors, viewmats, Ks)
    chosen = backend or ("gsplat" if means.is_cuda else "numba")
    if chosen not in BACKENDS:
        raise ValueError(f"backend {chosen!r}: there are {', '.join(BACKENDS)}")
    splats = (
        _with_batch(means, 3),
        _with_batch(covars, 3),
        _with_batch(opacities, 2),
        _with_batch(colors, 3),
    )
    cameras = viewmats.detach().float(), Ks.detach().float()
    if chosen == "numba":
        if means.is_cuda:
            raise TalkheadError("backend numba: the tensors are on a GPU. Use gsplat, or the CPU")
        images: tuple[Tensor, Tensor] = _NumbaRasterizer.apply(  # type: ignore[no-untyped-call]
            *splats, *cameras, height, width
        )
        return images
    if not means.is_cuda:
        raise TalkheadError("backend gsplat: the tensors are on the CPU. Use numba, or a GPU")
    reason = _gsplat_unavailable_reason()
    if reason:
        raise TalkheadError(f"backend gsplat: {reason}. Run with --device cpu")
    return raster_gsplat.rasterize_gsplat(*splats, *cameras, height, width)


_gsplat_unavailable_reason = functools.cache(gsplat_unavailable_reason)


def _with_batch(tensor: Tensor, n_dims: int) -> Tensor:
    """The tensor in float32 with `n_dims` dimensions: a batch of one where it has one less."""
    return tensor.float() if tensor.ndim == n_dims else tensor.float().unsqueeze(0)


def _check_shapes(
    means: Tensor, covars: Tensor, opacities: Tensor, colors: Tensor, viewmats: Tensor, Ks: Tensor
) -> None:
    """Raises ValueError unless the shapes fit together."""
    if viewmats.ndim != 3 or viewmats.shape[1:] != (4, 4):
        raise ValueError(f"viewmats {list(viewmats.shape)}: [B, 4, 4] is needed")
    n_images, n_gaussians = len(viewmats), means.shape[-2] if means.ndim > 1 else 0
    if Ks.shape != (n_images, 3, 3):
        raise ValueError(f"Ks {list(Ks.shape)}: {[n_images, 3, 3]} is needed, one per viewmat")
    for name, tensor, shape in (
        ("means", means, (n_gaussians, 3)),
        ("covars", covars, (n_gaussians, 6)),
        ("opacities", opacities, (n_gaussians,)),
        ("colors", colors, (n_gaussians, 3)),
    ):
        if tensor.shape not in (shape, (n_images, *shape)):
            raise ValueError(
                f"{name} {list(tensor.shape)}: {list(shape)} or {[n_images, *shape]} is needed"
            )


def _scene(tensors: tuple[Tensor, ...], image: int) -> raster_numba.SplatInputs:
    """The arrays of one image; a leading dimension of 1 is shared by all images."""
    arrays = [tensor.numpy() for tensor in tensors]
    return raster_numba.SplatInputs(*(a[image if len(a) > 1 else 0] for a in arrays))


class _NumbaRasterizer(torch.autograd.Function):
    """The numba kernels as a differentiable function of [S, N, ...] tensors, S being 1 or B."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        """rgb, alpha of (means, covars, opacities, colors, viewmats, Ks, height, width)."""
        tensors, (height, width) = tuple(t.detach().contiguous() for t in inputs[:6]), inputs[6:]
        n_images = len(tensors[4])
        rgb = torch.empty(n_images, height, width, 3)
        alpha = torch.empty(n_images, height, width, 1)
        lists = [
            raster_numba.render(_scene(tensors, image), rgb[image].numpy(), alpha[image].numpy())
            for image in range(n_images)
        ]
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(*tensors, rgb, alpha)
            ctx.lists = lists
        return rgb, alpha

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients by means, covars, opacities, colors."""
        *tensors, rgb, alpha = ctx.saved_tensors
        grad_rgb, grad_alpha = (np.ascontiguousarray(grad.numpy()) for grad in grad_outputs)
        n_images = len(rgb)
        gradients = [torch.empty(n_images, *tensor.shape[1:]) for tensor in tensors[:4]]
        for image in range(n_images):
            raster_numba.render_backward(
                _scene(tuple(tensors), image),
                ctx.lists[image],
                rgb[image].numpy(),
                alpha[image].numpy(),
                grad_rgb[image],
                grad_alpha[image],
                raster_numba.Gradients(*(gradient[image].numpy() for gradient in gradients)),
            )
        summed = (
            gradient.sum(0, keepdim=True) if len(tensor) < n_images else gradient
            for gradient, tensor in zip(gradients, tensors, strict=False)
        )
        return (*summed, None, None, None, None)
