"""The NeRF head: rays through the head at rest, a field conditioned on the code, compositing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.dataset import IdentityDataset
from talkhead.face import MAX_CODES, check_n_mouth
from talkhead.renderers.base import RendererBase, TrainBatch
from talkhead.renderers.losses import WINDOW, backdrop, photometric_loss
from talkhead.renderers.nerf.config import HASH, PRESETS, NerfConfig
from talkhead.renderers.nerf.field import Field, tensor_specs
from talkhead.renderers.nerf.hash_grid import native_encoding
from talkhead.renderers.nerf.ray_marching import (
    CELL,
    MAX_CELLS,
    Occupancy,
    composite,
    grid_resolution,
    march,
)
from talkhead.renderers.nerf.rays import OUTER_STEP, HeadSpace, Pieces, Rays
from talkhead.renderers.nerf.rays import TENSORS as SPACE_TENSORS
from talkhead.renderers.nerf.visual_hull import visual_hull
from talkhead.renderers.pose_features import POSE_TENSORS, pose_code, pose_statistics
from talkhead.storage import ContentError
from talkhead.tensors import TensorSpec, add_prefix, check_tensors, strip_prefix
from talkhead.types import Rendering

MIN_LIGHT, STEPS_AT_ONCE = 1e-3, 4
"""Rays are followed STEPS_AT_ONCE steps at a time, until less than MIN_LIGHT of the light passes."""
RAYS_AT_ONCE = {"cpu": 1 << 12, "cuda": 1 << 18}
"""Rays that are processed together. On a CPU, with this many the network's layers stay in its cache,
which is three times as fast as all rays at once.
"""


SPACE = "space."
"""Prefix of the names of HeadSpace's tensors."""
TENSORS = {
    **add_prefix(SPACE_TENSORS, SPACE),
    **POSE_TENSORS,
    "n_mouth": TensorSpec((1,), torch.int64, minimum=1, maximum=MAX_CODES),
}
"""The tensors that determine the shape of the others: the occupancy grid and the field's parameters."""


class NerfRenderer(RendererBase):
    """A head as a radiance field. Its parameters are plain tensors with requires_grad."""

    name: ClassVar[str] = "nerf"
    config_class: ClassVar[type[NerfConfig]] = NerfConfig
    presets: ClassVar[Mapping[str, NerfConfig]] = PRESETS
    test_config: ClassVar[NerfConfig] = NerfConfig(
        fine_unit=0.03, blend_unit=0.05, pose_unit=0.1, n_steps=150, n_patches=32
    )

    def __init__(self, space: HeadSpace, state: Mapping[str, Tensor], config: NerfConfig) -> None:
        """Create a renderer from its state.

        Args:
            space: The space of the head at rest.
            state: n_mouth [1], pose_mean and pose_scale [12], occs [cells], and the field's
                parameters.
            config: The settings.
        """
        self.config = config
        self.space = space
        self.n_mouth = int(state["n_mouth"][0])
        self.pose_mean, self.pose_scale = state["pose_mean"], state["pose_scale"]
        self.field = Field(space, self.n_mouth, state, config)
        self.occupancy = Occupancy(space.box, state["occs"])
        self.rays_at_once = RAYS_AT_ONCE.get(space.box.device.type, RAYS_AT_ONCE["cuda"])
        self.n_patches = config.n_patches
        self._last_planes: list[Tensor] = []

    @classmethod
    def from_dataset(cls, dataset: IdentityDataset, config: NerfConfig, seed: int) -> NerfRenderer:
        """Initialize a field in the space that the training frames show.

        Args:
            dataset: The person's footage.
            config: The settings.
            seed: Seeds the parameters.

        Returns:
            An untrained renderer.
        """
        space = HeadSpace.from_dataset(dataset)
        mean, scale = pose_statistics(dataset)
        occupancy = Occupancy(space.box)
        occupancy.exclude(~visual_hull(dataset, space, occupancy.centers(), CELL))
        generator = torch.Generator().manual_seed(seed)
        state = {
            "n_mouth": torch.tensor([dataset.face.n_mouth]),
            "pose_mean": mean,
            "pose_scale": scale,
            "occs": occupancy.occs,
            **Field.initial_state(dataset.face, space, config, generator),
        }
        return cls(space, state, config)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], config: NerfConfig) -> NerfRenderer:
        """Restore a renderer.

        Args:
            tensors: What tensors() returned. Name, type, shape and range of each are checked.
            config: The settings.

        Returns:
            The renderer, on the device of the tensors.

        Raises:
            ContentError: If a tensor is missing, unknown or malformed.
        """
        space = _checked_space(tensors, config)
        state = {k: t for k, t in tensors.items() if not k.startswith(SPACE)}
        return cls(space, state, config)

    @property
    def n_codes(self) -> int:
        """Components of the motion codes that it renders."""
        return len(self.space.basis)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that from_tensors needs, detached, each of its documented shape."""
        return {
            "n_mouth": torch.tensor([self.n_mouth], device=self.pose_mean.device),
            "pose_mean": self.pose_mean,
            "pose_scale": self.pose_scale,
            "occs": self.occupancy.occs,
            **{name: t.detach() for name, t in self.field.parameters.items()},
            **{SPACE + name: t for name, t in self.space.tensors().items()},
        }

    def render(
        self, motion: Tensor, viewmats: Tensor, ks: Tensor, height: int, width: int
    ) -> Rendering:
        """Render images. Not differentiable in the geometry.

        Args:
            motion: [B, K], motion codes.
            viewmats: [B, 4, 4], world to camera.
            ks: [B, 3, 3], intrinsics, pixels.
            height: Height of the images, pixels.
            width: Width of the images, pixels.

        Returns:
            rgb [B, H, W, 3], premultiplied, and alpha [B, H, W, 1].
        """
        # Blend the planes and rasterize the mesh once per image.
        n = len(motion)
        planes = self.field.blend(self._code(motion, viewmats))
        motion, viewmats = motion.detach(), viewmats.detach()  # geometry is not differentiated
        hits = self.space.hits(motion, viewmats, ks, (height, width))
        grid = (torch.arange(m, device=motion.device) for m in (n, height, width))
        pixels = torch.cartesian_prod(*grid).view(-1, 3)
        # Composite some rays at a time; fewer if memory runs out.
        parts = []
        first = 0
        while first < len(pixels):
            part = pixels[first : first + self.rays_at_once]
            try:
                rays = self.space.rays(hits, part, motion, viewmats, ks)
                parts.append(torch.cat(self._trace(rays, planes, None), dim=1))
            except torch.OutOfMemoryError:
                if not self.reduce_memory():
                    raise
                continue
            first += len(part)
        # Sums of weights exceed 1 by rounding errors.
        image = torch.cat(parts).view(n, height, width, 4).clamp(0.0, 1.0)
        return Rendering(image[..., :3], image[..., 3:])

    def reduce_memory(self) -> bool:
        """Halve the number of rays that are processed together.

        Returns:
            False if it is already so small that this would not help.
        """
        self.rays_at_once //= 2
        self.n_patches = max(8, self.n_patches // 2)
        torch.cuda.empty_cache()
        return self.rays_at_once >= 256

    @classmethod
    def config_for_device(cls, config: NerfConfig, device: torch.device) -> NerfConfig:
        """Choose the encoding that is faster on a device.

        Args:
            config: A preset.
            device: The device of the fit.

        Returns:
            The config with the hash grid where tiny-cuda-nn runs it. Elsewhere planes are kept: they
            cost a tenth of the hash grid in torch.
        """
        if device.type == "cuda" and native_encoding(HASH) is not None:
            return replace(config, encoding="hash")
        return config

    def _code(self, motion: Tensor, viewmats: Tensor) -> Tensor:
        """Return the code that weights the deltas, [B, K + 12]: motion and normalized pose."""
        pose = pose_code(viewmats, motion, self.pose_mean, self.pose_scale)
        return torch.cat([motion, pose], dim=1)

    def _trace(
        self, rays: Rays, planes: list[Tensor], generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Composite rays front to back.

        Args:
            rays: R rays.
            planes: The blended planes of the field.
            generator: Draws the jitter of the steps; None for no jitter.

        Returns:
            Colors, premultiplied, [R, 3], and alphas [R, 1].
        """
        rgb = rays.origin.new_zeros(len(rays.origin), 3)
        alpha = rays.origin.new_zeros(len(rays.origin), 1)
        for pieces, first in _steps_in_turn(rays.pieces):
            # Continue the rays through which enough light still passes.
            last = min(first + STEPS_AT_ONCE, pieces.n_steps)
            unfinished = torch.nonzero(1.0 - alpha.detach()[pieces.ray, 0] > MIN_LIGHT)[:, 0]
            part = pieces.of(unfinished, first, last)
            jitter = None
            if generator is not None:
                jitter = torch.rand(len(unfinished), part.n_steps, generator=generator) - 0.5
                jitter = jitter.to(rgb.device)
            steps = march(rays, part, self.occupancy, jitter)
            if len(steps.point) == 0:
                continue
            density, color = self.field.evaluate(steps.point, steps.image, planes)
            # Add what these steps contribute, seen through those before them.
            rgb_here, alpha_here = composite(steps, density, color)
            through = (1.0 - alpha)[part.ray]
            rgb = rgb.index_add(0, part.ray, through * rgb_here)
            alpha = alpha.index_add(0, part.ray, through * alpha_here)
        return rgb, alpha

    def losses(self, batch: TrainBatch, step: int) -> dict[str, Tensor]:
        """Compute L1 and D-SSIM of patches against the person over a random background.

        Args:
            batch: Training frames.
            step: Seeds noise, background, patches and jitter.

        Returns:
            The scalars "l1" and "dssim", weighted.
        """
        generator = torch.Generator().manual_seed(7919 * step + 17)
        background, target = backdrop(batch, generator)
        code = self._code(batch.motion, batch.viewmats)
        noise = torch.randn(code.shape, generator=generator) * self.config.code_noise
        planes = self.field.blend(code + noise.to(code.device))
        self._last_planes = [plane.detach() for plane in planes]
        # Render patches, drawn where pixels have weight.
        size = (batch.images.shape[1], batch.images.shape[2])
        hits = self.space.hits(batch.motion, batch.viewmats, batch.ks, size)
        pixels = draw_patches(batch.weights, self.n_patches, generator)
        rays = self.space.rays(hits, pixels, batch.motion, batch.viewmats, batch.ks)
        rgb, alpha = self._trace(rays, planes, generator)
        patches = Rendering(_as_patches(rgb), _as_patches(alpha))
        b, y, x = pixels.unbind(1)
        true, behind = (_as_patches(images[b, y, x]) for images in (target, background))
        even = torch.ones_like(patches.alpha)
        l1, dssim = photometric_loss(patches, true, even, behind, (0, 0))
        share = self.config.dssim_weight
        return {"l1": (1.0 - share) * l1, "dssim": share * dssim}

    def param_groups(self) -> list[dict[str, Any]]:
        """Return planes, deltas and the network."""
        return self.field.param_groups(self.config)

    def after_step(self, step: int) -> None:
        """Update the occupancy grid from the field, with the codes of this step.

        Args:
            step: The step that was just made.
        """
        planes = self._last_planes

        def optical_depth(points: Tensor) -> Tensor:
            """Return the optical depth of a step at points [N, 3], [N, 1], each in one of the images."""
            image = torch.arange(len(points), device=points.device) % max(len(p) for p in planes)
            density, _ = self.field.evaluate(points, image, planes)
            return density[:, None] * OUTER_STEP

        self.occupancy.update(step, optical_depth)


def _checked_space(tensors: Mapping[str, Tensor], config: NerfConfig) -> HeadSpace:
    """Check name, type, shape and range of all tensors; return the space. Raises ContentError."""
    check_tensors({k: t for k, t in tensors.items() if k in TENSORS}, TENSORS)
    space, n_mouth = HeadSpace(**strip_prefix(tensors, SPACE)), int(tensors["n_mouth"][0])
    check_n_mouth(n_mouth, len(space.basis))
    cells = int(grid_resolution(space.box).prod())
    if cells > MAX_CELLS:
        raise ContentError(
            f"the tensor space.box spans {cells:,} cells, where {MAX_CELLS:,} at most are allowed"
        )
    others = {k: t for k, t in tensors.items() if k not in TENSORS}
    occupancy = TensorSpec((cells,), minimum=-1.0)
    check_tensors(others, {"occs": occupancy, **tensor_specs(space, n_mouth, config)})
    return space


def _steps_in_turn(pieces: tuple[Pieces, ...]) -> Iterator[tuple[Pieces, int]]:
    """Yield pieces and their first step, front to back, STEPS_AT_ONCE steps at a time."""
    return ((one, first) for one in pieces for first in range(0, one.n_steps, STEPS_AT_ONCE))


def draw_patches(weights: Tensor, n_patches: int, generator: torch.Generator) -> Tensor:
    """Choose random patches of 8x8 pixels.

    Args:
        weights: [B, H, W, 1]. A patch is drawn in proportion to the weight of its center.
        n_patches: Number of patches.
        generator: Draws them.

    Returns:
        Pixels [n_patches * 64, 3], int64: image, row, column.
    """
    n_images, height, width = weights.shape[:3]
    middle = torch.multinomial(
        weights.flatten().cpu(), n_patches, replacement=True, generator=generator
    )
    image, row, column = torch.unravel_index(middle, (n_images, height, width))
    row = (row - WINDOW // 2).clamp(0, height - WINDOW)
    column = (column - WINDOW // 2).clamp(0, width - WINDOW)
    corner = torch.stack([image, row, column], dim=1)
    offsets = F.pad(torch.cartesian_prod(*[torch.arange(WINDOW)] * 2), (1, 0))
    return (corner[:, None] + offsets).view(-1, 3).to(weights.device)


def _as_patches(values: Tensor) -> Tensor:
    """Reshape values [n * 64, C] to images [n, 8, 8, C]."""
    return values.view(-1, WINDOW, WINDOW, values.shape[1])
