"""The Gaussian head: reduced blendshapes of 3-D Gaussians on the tracked mesh.

Position, color and opacity of a Gaussian are `base + sum_k code_k delta_k`; frames on the mesh
carry its position and shape (skinning.py). The code is the motion code and, for what the rotation
of the head changes in neck and shading, the head pose relative to its mean. Sources: RGBAvatar
(arXiv 2503.12886, section 3), FlashAvatar (arXiv 2312.02214, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from talkhead.config import bounded
from talkhead.dataset import IdentityDataset
from talkhead.face import CODES, TRIANGLES, clothes_components
from talkhead.renderers import code_projection
from talkhead.renderers.base import (
    RegionWeights,
    Renderer,
    RendererBase,
    TrainBatch,
    TrainConfig,
)
from talkhead.renderers.code_projection import CodeProjector
from talkhead.renderers.gaussian.initialization import (
    FRAME_TENSORS,
    N_RIGID,
    Frames,
    open_mouth_vertices,
    seed_gaussians,
)
from talkhead.renderers.gaussian.rasterizer import rasterize
from talkhead.renderers.gaussian.rasterizer.cameras import Cameras
from talkhead.renderers.gaussian.skinning import deform
from talkhead.renderers.losses import backdrop, photometric_loss, random_offset
from talkhead.renderers.optimizer import Blendshapes
from talkhead.renderers.pose_features import (
    N_POSE,
    POSE_TENSORS,
    mean_view,
    pose_code,
    pose_statistics,
)
from talkhead.renderers.sharpening import estimate_amount, sharpen
from talkhead.tensors import Size, TensorSpec, add_prefix, check_tensors, strip_prefix
from talkhead.types import Rendering

N_CHANNELS = 7
"""Blended values of a Gaussian: position 3, color 3, opacity logit 1."""

DELTA_STEP, BASE_STEP, SHAPE_STEP = 0.7, 0.25, 0.02
"""Quantization steps. Those of deltas and base are in units of their learning rates (0.7 units of
a color are 0.9 / 255 for a code of typical magnitude); that of shapes is in log sizes.
"""
MIN_SPREAD = 0.1
"""Minimum standard deviation of a code component when its deltas are quantized."""


@dataclass(frozen=True)
class GaussianConfig(TrainConfig):
    """Settings of the Gaussian head.

    Attributes:
        n_surface: Gaussians on the face surface.
        n_cap: Gaussians on the cap between the lips.
        n_teeth: Gaussians on the teeth of each jaw.
        n_rest: Gaussians elsewhere: hair, ears, neck, clothes.
        n_steps: Optimizer steps.
        batch_size: Frames per step.
        code_noise: Standard deviation of the noise that is added to the code in training; that of
            the first component of the code is 1. The noise makes unseen codes render cleanly and
            small components change the image smoothly.
        dssim_weight: Weight of D-SSIM; that of L1 is 1 minus this.
        place_rate: Learning rate of positions, world units.
        shape_rate: Learning rate of shapes, log sizes.
        colour_rate: Learning rate of colors.
        opacity_rate: Learning rate of opacity logits.
        delta_rate: Learning rate of a delta, relative to that of its channel.
    """

    n_surface: int = bounded(11_000, 1, 60_000)
    n_cap: int = bounded(430, 0, 10_000)
    n_teeth: int = bounded(500, 0, 10_000)
    n_rest: int = bounded(6_000, 0, 20_000)
    n_steps: int = bounded(4_000, 0, 1_000_000)
    batch_size: int = bounded(1, 1, 64)
    code_noise: float = bounded(0.05, 0.0, 10.0)
    dssim_weight: float = bounded(0.2, 0.0, 1.0)
    place_rate: float = bounded(4e-4, 1e-8, 1.0)
    shape_rate: float = bounded(2e-2, 1e-8, 1.0)
    colour_rate: float = bounded(5e-3, 1e-8, 1.0)
    opacity_rate: float = bounded(3e-2, 1e-8, 1.0)
    delta_rate: float = bounded(0.1, 1e-8, 10.0)


PRESETS: Mapping[str, GaussianConfig] = {
    "preview": GaussianConfig(n_surface=7_000, n_rest=3_500, n_steps=1_000),
    "standard": GaussianConfig(),
    "high": GaussianConfig(n_surface=16_000, n_rest=7_000, n_steps=12_000),
}


MAX_GAUSSIANS = 100_000
"""Maximum number of Gaussians of a renderer."""
GAUSSIANS = Size("N", 1, MAX_GAUSSIANS)
TENSORS = {
    **add_prefix(FRAME_TENSORS, "frames."),
    **POSE_TENSORS,
    **add_prefix(code_projection.TENSORS, "seen_"),
    "index": TensorSpec((GAUSSIANS,), torch.int64, index_of=TRIANGLES + N_RIGID),
    "spread": TensorSpec((CODES + N_POSE,), minimum=0.0),
    "detail": TensorSpec((1,)),
    "base": TensorSpec((GAUSSIANS, N_CHANNELS)),
    "shape": TensorSpec((GAUSSIANS, 6)),
    "deltas": TensorSpec((CODES + N_POSE, GAUSSIANS * N_CHANNELS)),
}


class GaussianRenderer(RendererBase):
    """A head of Gaussians. Its parameters are plain tensors with requires_grad."""

    name: ClassVar[str] = "gaussian"
    config_class: ClassVar[type[GaussianConfig]] = GaussianConfig
    presets: ClassVar[Mapping[str, GaussianConfig]] = PRESETS
    test_config: ClassVar[GaussianConfig] = GaussianConfig(
        n_surface=500, n_cap=40, n_teeth=20, n_rest=200, n_steps=12
    )

    def __init__(self, frames: Frames, state: Mapping[str, Tensor], config: GaussianConfig) -> None:
        """Create a renderer from its state.

        Args:
            frames: The moving frames.
            state: index [N], frame of each Gaussian; pose_mean and pose_scale [12]; spread [K +
                12], standard deviation of the code in training; seen_codes and seen_reach of
                CodeProjector; detail [1], amount of sharpening; base [N, 7]; shape [N, 6]; deltas
                [K + 12, N * 7]. base and deltas are in units of their channel's learning rate.
            config: The settings.
        """
        self.config = config
        self.frames = frames
        self.index = state["index"]
        self.pose_mean, self.pose_scale = state["pose_mean"], state["pose_scale"]
        self.spread, self.detail = state["spread"], state["detail"]
        self.projector = CodeProjector(state["seen_codes"], state["seen_reach"])
        self.base = state["base"].clone().requires_grad_()
        self.shape = state["shape"].clone().requires_grad_()
        # Deltas of the clothes are kept for the body alone: heads would overfit to them.
        self.clothes = clothes_components(frames.basis)
        self.on_body = (self.index == frames.body).nonzero()[:, 0]
        deltas = state["deltas"]
        rows = torch.arange(len(deltas), device=deltas.device)
        self.other_rows = torch.cat([rows[: self.clothes.start], rows[self.clothes.stop :]])
        clothes = deltas[self.clothes].unflatten(1, (-1, N_CHANNELS))[:, self.on_body]
        self.deltas = deltas[self.other_rows].requires_grad_()
        self.clothes_deltas = clothes.flatten(1).requires_grad_()
        self.blendshapes = Blendshapes(self.deltas)
        self.clothes_blendshapes = Blendshapes(self.clothes_deltas)
        self.units = _channel_units(config).to(self.base.device)

    @classmethod
    def from_dataset(
        cls, dataset: IdentityDataset, config: GaussianConfig, seed: int
    ) -> GaussianRenderer:
        """Distribute Gaussians over the tracked head, colored from training frames.

        Args:
            dataset: The person's footage.
            config: The settings.
            seed: Seeds the positions.

        Returns:
            A renderer whose deltas are zero.
        """
        # The Gaussians at rest.
        rng = np.random.default_rng(seed)
        open_mouth = open_mouth_vertices(dataset)
        counts = (config.n_surface, config.n_cap, config.n_teeth, config.n_rest)
        rest_view = mean_view(dataset)
        seeds = seed_gaussians(dataset, open_mouth, rest_view, counts, rng)
        n, n_codes = len(seeds.index), dataset.face.n_codes
        base = np.concatenate([seeds.local, seeds.colors, np.full((n, 1), 1.0, np.float32)], axis=1)
        shape = np.zeros((n, 6), np.float32)
        shape[:, :3] = np.log(seeds.size)[:, None]
        # Statistics of the codes in training.
        mean, scale = pose_statistics(dataset)
        usable = dataset.tracks.trainable
        motion, views = (
            torch.from_numpy(values[usable])
            for values in (dataset.tracks.codes, dataset.tracks.viewmats)
        )
        code = torch.cat([motion, pose_code(views, motion, mean, scale)], dim=1)  # [F, K + 12]
        projector = CodeProjector.from_dataset(dataset)
        state = {
            "index": torch.from_numpy(seeds.index.astype(np.int64)),
            "pose_mean": mean,
            "pose_scale": scale,
            "spread": code.square().mean(0).sqrt(),
            "seen_codes": projector.codes,
            "seen_reach": projector.reach,
            "detail": torch.zeros(1),
            "base": torch.from_numpy(base) / _channel_units(config),
            "shape": torch.from_numpy(shape),
            "deltas": torch.zeros(n_codes + N_POSE, n * N_CHANNELS),
        }
        return cls(Frames.from_face(dataset.face, open_mouth, rest_view), state, config)

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], config: GaussianConfig
    ) -> GaussianRenderer:
        """Restore a renderer.

        Args:
            tensors: What tensors() returned. Name, type, shape and range of each are checked.
            config: The settings.

        Returns:
            The renderer, on the device of the tensors.

        Raises:
            ContentError: If a tensor is missing, unknown or malformed.
        """
        sizes = check_tensors(tensors, TENSORS)
        code_projection.check_moving(sizes)
        frames = Frames(**strip_prefix(tensors, "frames."))
        return cls(frames, {k: t for k, t in tensors.items() if "." not in k}, config)

    @property
    def n_codes(self) -> int:
        """Components of the motion codes that it renders."""
        return len(self.frames.basis)

    def tensors(self) -> dict[str, Tensor]:
        """Return the renderer's state.

        Returns:
            The tensors that from_tensors needs, detached, each of the shape in TENSORS.
        """
        names = ("index", "pose_mean", "pose_scale", "spread", "detail", "base", "shape")
        state = {name: getattr(self, name).detach() for name in names}
        state["deltas"] = self._all_deltas()
        state |= {f"seen_{name}": tensor for name, tensor in vars(self.projector).items()}
        return {**state, **{f"frames.{k}": t for k, t in self.frames.tensors().items()}}

    def quantization_steps(self) -> dict[str, Tensor]:
        """Return steps for deltas, base and shape; deltas of components that vary little are coarser."""
        return {
            "deltas": DELTA_STEP / self.spread.clamp(min=MIN_SPREAD)[:, None],
            "base": torch.tensor(BASE_STEP),
            "shape": torch.tensor(SHAPE_STEP),
        }

    def to(self, device: torch.device) -> GaussianRenderer:
        """Copy the renderer to another device.

        Args:
            device: The device.

        Returns:
            The copy.
        """
        moved = {name: tensor.to(device) for name, tensor in self.tensors().items()}
        return GaussianRenderer.from_tensors(moved, self.config)

    def render(
        self, motion: Tensor, viewmats: Tensor, ks: Tensor, height: int, width: int
    ) -> Rendering:
        """Render images, sharpened, with codes projected onto the range of training.

        Args:
            motion: [B, K], motion codes.
            viewmats: [B, 4, 4], world to camera.
            ks: [B, 3, 3], intrinsics, pixels.
            height: Height of the images, pixels.
            width: Width of the images, pixels.

        Returns:
            rgb [B, H, W, 3], premultiplied, and alpha [B, H, W, 1].
        """
        code = self._code(self.projector.project(motion), viewmats)
        renderings = self._render(motion, code, viewmats, ks, (height, width))
        return sharpen(renderings, self.detail)

    def render_raw(
        self,
        motion: Tensor,
        viewmats: Tensor,
        ks: Tensor,
        size: tuple[int, int],
        twist: Tensor | None = None,
    ) -> Rendering:
        """Render without changing codes or images, differentiably in motion and twist.

        Args:
            motion: [B, K], motion codes.
            viewmats: [B, 4, 4], world to camera.
            ks: [B, 3, 3], intrinsics, pixels.
            size: Height and width of the images, pixels.
            twist: [6], a rigid motion of the head relative to viewmats (twist_matrix); None for
                no motion.

        Returns:
            rgb [B, H, W, 3], premultiplied, and alpha [B, H, W, 1].
        """
        return self._render(motion, self._code(motion, viewmats), viewmats, ks, size, twist)

    def gaussian_means(self, motion: Tensor, viewmats: Tensor) -> Tensor:
        """Compute the means of the Gaussians in head space.

        Args:
            motion: [B, K], motion codes.
            viewmats: [B, 4, 4], head poses.

        Returns:
            Means [B, N, 3].
        """
        return self._gaussians(motion, self._code(motion, viewmats), viewmats)[0]

    def subset(self, chosen: Tensor) -> GaussianRenderer:
        """Make a renderer of some of the Gaussians, which cannot be trained.

        Args:
            chosen: [n], their indices.

        Returns:
            The renderer.
        """
        state = self.tensors()
        deltas = state["deltas"].reshape(len(state["deltas"]), -1, N_CHANNELS)[:, chosen]
        state |= {name: state[name][chosen] for name in ("index", "base", "shape")}
        head = self.from_tensors({**state, "deltas": deltas.flatten(1)}, self.config)
        for tensor in (head.base, head.shape, head.deltas, head.clothes_deltas):
            tensor.requires_grad_(False)
        return head

    @property
    def has_clothes(self) -> bool:
        """True if some components describe clothes and some Gaussians move with the body."""
        return self.clothes_deltas.numel() > 0

    def _all_deltas(self) -> Tensor:
        """Return the deltas of all components and Gaussians, [K + 12, N * 7]."""
        deltas = self.deltas.detach()
        n_rows = len(deltas) + len(self.clothes_deltas)
        every = deltas.new_zeros(n_rows, len(self.index), N_CHANNELS)
        every[self.other_rows] = deltas.unflatten(1, (-1, N_CHANNELS))
        if self.has_clothes:
            clothes = self.clothes_deltas.detach().unflatten(1, (-1, N_CHANNELS))
            every[self.clothes, self.on_body] = clothes
        return every.flatten(1)

    def _blend(self, code: Tensor) -> Tensor:
        """Return the changes [B, N, 7] of the blended values for a code [B, K + 12]."""
        change = self.blendshapes(code[:, self.other_rows]).unflatten(1, (-1, N_CHANNELS))
        if not self.has_clothes:
            return change
        clothes = self.clothes_blendshapes(code[:, self.clothes].contiguous())
        return change.index_add(1, self.on_body, clothes.unflatten(1, (-1, N_CHANNELS)))

    def _code(self, motion: Tensor, viewmats: Tensor) -> Tensor:
        """Return the code that weights the deltas, [B, K + 12]: motion and normalized pose."""
        pose = pose_code(viewmats, motion, self.pose_mean, self.pose_scale)
        return torch.cat([motion, pose], dim=1)

    def _render(
        self,
        motion: Tensor,
        code: Tensor,
        viewmats: Tensor,
        ks: Tensor,
        size: tuple[int, int],
        twist: Tensor | None = None,
    ) -> Rendering:
        """Render motion codes [B, K] whose deltas are weighted by a code [B, K + 12]."""
        means, covars, opacities, colors = self._gaussians(motion, code, viewmats, twist)
        rgb, alpha = rasterize(means, covars, opacities, colors, Cameras(viewmats, ks, *size))
        return Rendering(rgb, alpha)

    def _gaussians(
        self, motion: Tensor, code: Tensor, viewmats: Tensor, twist: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute the Gaussians of each image.

        Returns means [B, N, 3], covariances [B, N, 6], opacities [B, N] and colors [B, N, 3].
        """
        # Blend in units of the learning rates, [B, N, 7].
        blended = (self.base + self._blend(code)) * self.units
        # Move the Gaussians with their frames.
        gradients, origins = self.frames.pose(motion, viewmats)
        if twist is not None:
            gradients, origins = _move_frames(gradients, origins, twist_matrix(twist))
        local, colors, logits = blended.split([3, 3, 1], dim=-1)
        means, covars = deform(gradients, origins, self.index, local.contiguous(), self.shape)
        return means, covars, torch.sigmoid(logits[..., 0]), colors.contiguous()

    def losses(self, batch: TrainBatch, step: int) -> dict[str, Tensor]:
        """Compute L1 and windowed D-SSIM against the person over a random background.

        Args:
            batch: Training frames.
            step: Seeds noise, background and windows.

        Returns:
            The scalars "l1" and "dssim", weighted.
        """
        generator = torch.Generator().manual_seed(7919 * step + 17)
        code = self._code(batch.motion, batch.viewmats)
        noise = torch.randn(code.shape, generator=generator) * self.config.code_noise
        size = (batch.images.shape[1], batch.images.shape[2])
        rendering = self._render(
            batch.motion, code + noise.to(code.device), batch.viewmats, batch.ks, size
        )
        background, target = backdrop(batch, generator)
        l1, dssim = photometric_loss(
            rendering, target, batch.weights, background, random_offset(generator)
        )
        share = self.config.dssim_weight
        return {"l1": (1.0 - share) * l1, "dssim": share * dssim}

    def param_groups(self) -> list[dict[str, Any]]:
        """Return base, shape, deltas and, if there are any, deltas of the clothes."""
        rate, blended = self.config.delta_rate, [self.blendshapes]
        if self.has_clothes:
            blended.append(self.clothes_blendshapes)
        return [
            {"params": [self.base], "lr": 1.0},
            {"params": [self.shape], "lr": self.config.shape_rate},
            *({"params": [one.deltas], "lr": rate, "blendshapes": one} for one in blended),
        ]

    def finalize(self, batch: TrainBatch) -> None:
        """Measure how much the finest detail at the mouth must be amplified.

        Args:
            batch: Training frames spread over the footage.
        """
        size = (batch.images.shape[1], batch.images.shape[2])
        code = self._code(batch.motion, batch.viewmats)
        with torch.no_grad():
            renderings = [  # one at a time, as in training
                self._render(batch.motion[i], code[i], batch.viewmats[i], batch.ks[i], size)
                for i in torch.arange(len(code)).split(1)
            ]
            region = batch.weights[..., 0] >= RegionWeights().mouth
            rgb, alpha = (torch.cat([getattr(m, k) for m in renderings]) for k in ("rgb", "alpha"))
            self.detail = estimate_amount(Rendering(rgb, alpha), batch.images, region)


def twist_matrix(twist: Tensor) -> Tensor:
    """Convert a twist to a rigid motion.

    Args:
        twist: [6], rotation vector and translation.

    Returns:
        Matrix [4, 4].
    """
    (x, y, z), zero = twist[:3], torch.zeros_like(twist[0])
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3)
    top = torch.cat([torch.linalg.matrix_exp(cross), twist[3:, None]], dim=1)
    return torch.cat([top, top.new_tensor([[0.0, 0.0, 0.0, 1.0]])])


def _move_frames(gradients: Tensor, origins: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Move all frames but the body's, the last, rigidly: gradients [B, M, 3, 3], origins [B, M, 3]."""
    turn, shift = matrix[:3, :3], matrix[:3, 3]
    return (
        torch.cat([turn @ gradients[:, :-1], gradients[:, -1:]], dim=1),
        torch.cat([origins[:, :-1] @ turn.T + shift, origins[:, -1:]], dim=1),
    )


def _channel_units(config: GaussianConfig) -> Tensor:
    """Return the learning rate of each blended channel, [7].

    In units of these, channels of different quantities can share a tensor and a learning rate.
    """
    return torch.tensor([config.place_rate] * 3 + [config.colour_rate] * 3 + [config.opacity_rate])


def without_body(renderer: Renderer) -> Renderer:
    """Return a renderer of the head alone, without neck and clothes.

    Args:
        renderer: A renderer.

    Returns:
        One with a part of the Gaussians; renderers of other kinds, and without a body, as they are.
    """
    if not isinstance(renderer, GaussianRenderer) or not len(renderer.on_body):
        return renderer
    is_head = torch.ones(len(renderer.index), dtype=torch.bool, device=renderer.index.device)
    is_head[renderer.on_body] = False
    return renderer.subset(is_head.nonzero()[:, 0])
