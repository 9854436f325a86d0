"""The 3DGS head: reduced Gaussian blendshapes on a tracked mesh.

A Gaussian's place, colour and opacity are `base + sum_k code_k delta_k`; frames on the mesh carry
place and shape (deform.py). The code is the motion code and, for what the head's turning changes
in neck and shading, the head pose relative to its mean. Sources: RGBAvatar (arXiv 2503.12886,
section 3), FlashAvatar (arXiv 2312.02214, section 3).
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
from talkhead.face import CODES, TRIANGLES
from talkhead.renderers import code_projection as seen
from talkhead.renderers.base import RegionWeights, RendererBase, TrainBatch, TrainConfig
from talkhead.renderers.code_projection import CodeProjector
from talkhead.renderers.gaussian.initialization import (
    FRAME_TENSORS,
    N_RIGID,
    Frames,
    open_mouth_vertices,
    seed_gaussians,
)
from talkhead.renderers.gaussian.rasterizer import rasterize
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
from talkhead.renderers.sharpening import sharpened, wanted_amount
from talkhead.tensors import Size, TensorSpec, check_tensors, prefixed, within
from talkhead.types import Rendering

N_CHANNELS = 7
"""Blended per Gaussian: place 3, colour 3, opacity logit 1."""

DELTA_STEP, BASE_STEP, SHAPE_STEP = 0.7, 0.25, 0.02
"""What packages round to: deltas and base in steps of the learning rates (0.7 of a colour's is 0.9 of
255, for a code at its usual size), shapes in log sizes."""
MIN_SPREAD = 0.1


@dataclass(frozen=True)
class GaussianConfig(TrainConfig):
    """How many Gaussians, how they learn.

    code_noise: standard deviation of what is added to the code in training (its first component
    has 1), so that codes never seen render cleanly and small components are learned smoothly.
    *_rate: step sizes of Adam, for world units, log sizes, colours, opacity logits; delta_rate:
    that of a delta over that of its channel.
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
"""What a config may ask for at most, all kinds together."""
GAUSSIANS = Size("N", 1, MAX_GAUSSIANS)
TENSORS = {
    **prefixed(FRAME_TENSORS, "frames."),
    **POSE_TENSORS,
    **prefixed(seen.TENSORS, "seen_"),
    "index": TensorSpec((GAUSSIANS,), torch.int64, index_of=TRIANGLES + N_RIGID),
    "spread": TensorSpec((CODES + N_POSE,), least=0.0),
    "detail": TensorSpec((1,)),
    "base": TensorSpec((GAUSSIANS, N_CHANNELS)),
    "shape": TensorSpec((GAUSSIANS, 6)),
    "deltas": TensorSpec((CODES + N_POSE, GAUSSIANS * N_CHANNELS)),
}


class GaussianRenderer(RendererBase):
    """A head of Gaussians. Parameters are plain tensors with requires_grad."""

    name: ClassVar[str] = "gaussian"
    config_class: ClassVar[type[GaussianConfig]] = GaussianConfig
    presets: ClassVar[Mapping[str, GaussianConfig]] = PRESETS
    test_config: ClassVar[GaussianConfig] = GaussianConfig(
        n_surface=500, n_cap=40, n_teeth=20, n_rest=200, n_steps=12
    )

    def __init__(self, frames: Frames, state: Mapping[str, Tensor], config: GaussianConfig) -> None:
        """state: index [N]; pose_mean, pose_scale [12]; spread [K + 12] of the code in training;
        seen_codes, seen_reach: of CodeProjector; detail [1]: how much of it is added; base [N, 7];
        shape [N, 6]; deltas [K + 12, N * 7].

        base and deltas count in steps of their channel's learning rate.
        """
        self.config = config
        self.frames = frames
        self.index = state["index"]
        self.pose_mean, self.pose_scale = state["pose_mean"], state["pose_scale"]
        self.spread, self.detail = state["spread"], state["detail"]
        self.seen = CodeProjector(state["seen_codes"], state["seen_reach"])
        self.base = state["base"].clone().requires_grad_()
        self.shape = state["shape"].clone().requires_grad_()
        self.deltas = state["deltas"].clone().requires_grad_()
        self.blendshapes = Blendshapes(self.deltas)
        self.units = _channel_units(config).to(self.base.device)

    @classmethod
    def from_dataset(
        cls, dataset: IdentityDataset, config: GaussianConfig, seed: int
    ) -> GaussianRenderer:
        """Gaussians spread over the tracked head, coloured from training frames."""
        rng = np.random.default_rng(seed)
        open_mouth = open_mouth_vertices(dataset)
        counts = (config.n_surface, config.n_cap, config.n_teeth, config.n_rest)
        rest_view = mean_view(dataset)
        seeds = seed_gaussians(dataset, open_mouth, rest_view, counts, rng)
        n, n_codes = len(seeds.index), dataset.face.n_codes
        base = np.concatenate([seeds.local, seeds.colors, np.full((n, 1), 1.0, np.float32)], axis=1)
        shape = np.zeros((n, 6), np.float32)
        shape[:, :3] = np.log(seeds.size)[:, None]
        mean, scale = pose_statistics(dataset)
        usable = dataset.tracks.learnt
        motion, views = (
            torch.from_numpy(values[usable])
            for values in (dataset.tracks.codes, dataset.tracks.viewmats)
        )
        code = torch.cat([motion, pose_code(views, motion, mean, scale)], dim=1)
        seen = CodeProjector.from_dataset(dataset)
        state = {
            "index": torch.from_numpy(seeds.index.astype(np.int64)),
            "pose_mean": mean,
            "pose_scale": scale,
            "spread": code.square().mean(0).sqrt(),
            "seen_codes": seen.codes,
            "seen_reach": seen.reach,
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
        """The renderer back from tensors(). Raises ContentError for any that tensors() doesn't give."""
        sizes = check_tensors(tensors, TENSORS)
        seen.check_moving(sizes)
        frames = Frames(**within(tensors, "frames."))
        return cls(frames, {k: t for k, t in tensors.items() if "." not in k}, config)

    @property
    def n_codes(self) -> int:
        """Components of the motion codes that it renders."""
        return len(self.frames.basis)

    def tensors(self) -> dict[str, Tensor]:
        """All that from_tensors needs, detached."""
        names = ("index", "pose_mean", "pose_scale", "spread", "detail", "base", "shape", "deltas")
        state = {name: getattr(self, name).detach() for name in names}
        state |= {f"seen_{name}": tensor for name, tensor in vars(self.seen).items()}
        return {**state, **{f"frames.{k}": t for k, t in self.frames.tensors().items()}}

    def quantization_steps(self) -> dict[str, Tensor]:
        """Deltas of codes that vary little are kept the more coarsely."""
        return {
            "deltas": DELTA_STEP / self.spread.clamp(min=MIN_SPREAD)[:, None],
            "base": torch.tensor(BASE_STEP),
            "shape": torch.tensor(SHAPE_STEP),
        }

    def to(self, device: torch.device) -> GaussianRenderer:
        """The same renderer on another device."""
        moved = {name: tensor.to(device) for name, tensor in self.tensors().items()}
        return GaussianRenderer.from_tensors(moved, self.config)

    def render(
        self, motion: Tensor, viewmats: Tensor, ks: Tensor, height: int, width: int
    ) -> Rendering:
        """Images of motion codes [B, K] seen by viewmats [B, 4, 4] through ks [B, 3, 3]."""
        code = self._code(self.seen.project(motion), viewmats)
        made = self._render(motion, code, viewmats, ks, (height, width))
        return sharpened(made, self.detail)

    def draw(
        self,
        motion: Tensor,
        viewmats: Tensor,
        ks: Tensor,
        size: tuple[int, int],
        twist: Tensor | None = None,
    ) -> Rendering:
        """render() with nothing done to codes or images, differentiable by motion and twist.

        twist: [6] of twist_matrix, how the head has moved from where viewmats have it.
        """
        return self._render(motion, self._code(motion, viewmats), viewmats, ks, size, twist)

    def places(self, motion: Tensor, viewmats: Tensor) -> Tensor:
        """Where the Gaussians are in head space, [B, N, 3]."""
        return self._placed(motion, self._code(motion, viewmats), viewmats)[0]

    def part(self, chosen: Tensor) -> GaussianRenderer:
        """A head of some of the Gaussians, [n] indices; not to be fitted."""
        state = self.tensors()
        deltas = state["deltas"].reshape(len(state["deltas"]), -1, N_CHANNELS)[:, chosen]
        state |= {name: state[name][chosen] for name in ("index", "base", "shape")}
        head = self.from_tensors({**state, "deltas": deltas.flatten(1)}, self.config)
        for tensor in (head.base, head.shape, head.deltas):
            tensor.requires_grad_(False)
        return head

    def _code(self, motion: Tensor, viewmats: Tensor) -> Tensor:
        """What deltas listen to, [B, K + 12]: motion, and poses in standard deviations, clamped."""
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
        means, covars, opacities, colors = self._placed(motion, code, viewmats, twist)
        rgb, alpha = rasterize(means, covars, opacities, colors, viewmats, ks, *size)
        return Rendering(rgb, alpha)

    def _placed(
        self, motion: Tensor, code: Tensor, viewmats: Tensor, twist: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Means [B, N, 3], covariances [B, N, 6], opacities [B, N], colours [B, N, 3]."""
        change = self.blendshapes(code).reshape(len(code), -1, N_CHANNELS)
        blended = (self.base + change) * self.units
        gradients, origins = self.frames.pose(motion, viewmats)
        if twist is not None:
            gradients, origins = _twisted(gradients, origins, twist_matrix(twist))
        local, colors, logits = blended.split([3, 3, 1], dim=-1)
        means, covars = deform(gradients, origins, self.index, local.contiguous(), self.shape)
        return means, covars, torch.sigmoid(logits[..., 0]), colors.contiguous()

    def losses(self, batch: TrainBatch, step: int) -> dict[str, Tensor]:
        """L1 and windowed D-SSIM against the person over a backdrop."""
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
        """Base, shape and deltas."""
        return [
            {"params": [self.base], "lr": 1.0},
            {"params": [self.shape], "lr": self.config.shape_rate},
            {
                "params": [self.deltas],
                "lr": self.config.delta_rate,
                "blendshapes": self.blendshapes,
            },
        ]

    def finalize(self, batch: TrainBatch) -> None:
        """Measure how much of the finest detail is missing at the mouth."""
        size = (batch.images.shape[1], batch.images.shape[2])
        code = self._code(batch.motion, batch.viewmats)
        with torch.no_grad():
            made = [  # one at a time, as in fitting
                self._render(batch.motion[i], code[i], batch.viewmats[i], batch.ks[i], size)
                for i in torch.arange(len(code)).split(1)
            ]
            region = batch.weights[..., 0] >= RegionWeights().mouth
            rgb, alpha = (torch.cat([getattr(m, k) for m in made]) for k in ("rgb", "alpha"))
            self.detail = wanted_amount(Rendering(rgb, alpha), batch.images, region)


def twist_matrix(twist: Tensor) -> Tensor:
    """The rigid motion [4, 4] of a rotation vector and a shift, [6]."""
    (x, y, z), zero = twist[:3], torch.zeros_like(twist[0])
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3)
    top = torch.cat([torch.linalg.matrix_exp(cross), twist[3:, None]], dim=1)
    return torch.cat([top, top.new_tensor([[0.0, 0.0, 0.0, 1.0]])])


def _twisted(gradients: Tensor, origins: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Frames moved rigidly but for the last, the body's, which is not on the head."""
    turn, shift = matrix[:3, :3], matrix[:3, 3]
    return (
        torch.cat([turn @ gradients[:, :-1], gradients[:, -1:]], dim=1),
        torch.cat([origins[:, :-1] @ turn.T + shift, origins[:, -1:]], dim=1),
    )


def _channel_units(config: GaussianConfig) -> Tensor:
    """One step of each blended channel, [7]: channels of all units can share a tensor this way."""
    return torch.tensor([config.place_rate] * 3 + [config.colour_rate] * 3 + [config.opacity_rate])
