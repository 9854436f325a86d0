"""Rasterization of 3-D Gaussians to images, on the CPU (numba) or on CUDA (gsplat)."""

import functools
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from talkhead.device import gsplat_unavailable_reason
from talkhead.errors import TalkheadError
from talkhead.renderers.gaussian.rasterizer import cpu, cuda
from talkhead.renderers.gaussian.rasterizer.cameras import Cameras

BACKENDS: Final = ("numba", "gsplat")


def rasterize(
    means: Tensor,
    covars: Tensor,
    opacities: Tensor,
    colors: Tensor,
    cameras: Cameras,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Render images of Gaussians.

    Differentiable in means, covars, opacities and colors. Computed in float32. Results and gradients are
    bitwise reproducible on the CPU.

    Args:
        means: [N, 3] or [B, N, 3], centers, world units.
        covars: [N, 6] or [B, N, 6], covariances xx, xy, xz, yy, yz, zz, world units squared.
        opacities: [N] or [B, N], in [0, 1].
        colors: [N, 3] or [B, N, 3], RGB of any range: they are only summed.
        cameras: The cameras of B images.
        backend: "numba", "gsplat" or None, which is gsplat for CUDA tensors and numba for others.

    Returns:
        rgb [B, H, W, 3], premultiplied by alpha, and alpha [B, H, W, 1] in [0, 1].

    Raises:
        ValueError: If shapes do not fit together or the backend is unknown.
        TalkheadError: If the backend cannot be used, or if the Gaussians cover more tiles than fit into
            memory.
    """
    _check_shapes(means, covars, opacities, colors, cameras)
    chosen = backend or ("gsplat" if means.is_cuda else "numba")
    if chosen not in BACKENDS:
        raise ValueError(f"backend {chosen!r}: choose one of {', '.join(BACKENDS)}")
    splats = (
        _with_batch(means, 3),
        _with_batch(covars, 3),
        _with_batch(opacities, 2),
        _with_batch(colors, 3),
    )
    viewmats, Ks = cameras.viewmats.detach().float(), cameras.Ks.detach().float()
    cameras = Cameras(viewmats, Ks, cameras.height, cameras.width)
    if chosen == "numba":
        if means.is_cuda:
            raise TalkheadError("backend numba: the tensors are on a GPU. Use gsplat, or the CPU")
        images: tuple[Tensor, Tensor] = _NumbaRasterizer.apply(  # type: ignore[no-untyped-call]
            *splats, viewmats, Ks, cameras.height, cameras.width
        )
        return images
    if not means.is_cuda:
        raise TalkheadError("backend gsplat: the tensors are on the CPU. Use numba, or a GPU")
    reason = _gsplat_unavailable_reason()
    if reason:
        raise TalkheadError(f"backend gsplat: {reason}. Run with --device cpu")
    return cuda.rasterize_gsplat(*splats, cameras)


_gsplat_unavailable_reason = functools.cache(gsplat_unavailable_reason)


def _with_batch(tensor: Tensor, n_dims: int) -> Tensor:
    """Convert a tensor of any shape to float32 with `n_dims` dimensions, adding a batch of one."""
    return tensor.float() if tensor.ndim == n_dims else tensor.float().unsqueeze(0)


def _check_shapes(
    means: Tensor, covars: Tensor, opacities: Tensor, colors: Tensor, cameras: Cameras
) -> None:
    """Raise ValueError unless each shape is the one that `rasterize` documents."""
    viewmats, Ks = cameras.viewmats, cameras.Ks
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


def _scene(tensors: tuple[Tensor, ...], image: int) -> cpu.SplatInputs:
    """Select one image's arrays, [N, ...]; a leading dimension of 1 is shared by all images."""
    arrays = [tensor.numpy() for tensor in tensors]
    return cpu.SplatInputs(*(a[image if len(a) > 1 else 0] for a in arrays))


class _NumbaRasterizer(torch.autograd.Function):
    """The numba kernels as a differentiable function of [S, N, ...] tensors, S being 1 or B."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        """Return rgb [B, H, W, 3] and alpha [B, H, W, 1].

        The inputs are means, covars, opacities, colors, viewmats, Ks, height and width.
        """
        tensors, (height, width) = tuple(t.detach().contiguous() for t in inputs[:6]), inputs[6:]
        n_images = len(tensors[4])
        rgb = torch.empty(n_images, height, width, 3)
        alpha = torch.empty(n_images, height, width, 1)
        lists = [
            cpu.render(_scene(tensors, image), rgb[image].numpy(), alpha[image].numpy())
            for image in range(n_images)
        ]
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(*tensors, rgb, alpha)
            ctx.lists = lists
        return rgb, alpha

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients w.r.t. means [S, N, 3], covars, opacities and colors, then None."""
        *tensors, rgb, alpha = ctx.saved_tensors
        grad_rgb, grad_alpha = (np.ascontiguousarray(grad.numpy()) for grad in grad_outputs)
        n_images = len(rgb)
        gradients = [torch.empty(n_images, *tensor.shape[1:]) for tensor in tensors[:4]]
        for image in range(n_images):
            cpu.render_backward(
                _scene(tuple(tensors), image),
                ctx.lists[image],
                rgb[image].numpy(),
                alpha[image].numpy(),
                grad_rgb[image],
                grad_alpha[image],
                cpu.Gradients(*(gradient[image].numpy() for gradient in gradients)),
            )
        summed = (
            gradient.sum(0, keepdim=True) if len(tensor) < n_images else gradient
            for gradient, tensor in zip(gradients, tensors, strict=False)
        )
        return (*summed, None, None, None, None)
