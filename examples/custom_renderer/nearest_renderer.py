"""A renderer in a separate package: it shows the training frame with the nearest motion code, aligned
with the requested pose.

talkhead finds it through the entry point in pyproject.toml. docs/extending/renderer.md describes a
renderer that is trained, and lists the rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.cameras import MAX_PX, view_fault
from talkhead.config import bounded
from talkhead.dataset import IdentityDataset
from talkhead.face import CODES, MAX_CODE, N_SURFACE, WORLD
from talkhead.frame_selection import spread_frames
from talkhead.renderers.base import RendererBase
from talkhead.tensors import Size, TensorSpec, check_tensors
from talkhead.types import Rendering

FRAMES = Size("N", 1, 500)
HEIGHT, WIDTH = Size("H", 1, 2048), Size("W", 1, 2048)


@dataclass(frozen=True)
class NearestConfig:
    """Settings of the renderer.

    Attributes:
        n_frames: Training frames that are kept, spread over the footage.
    """

    n_frames: int = bounded(100, 1, 500)


class NearestRenderer(RendererBase):
    """Training frames with their motion codes, poses and cameras. Nothing is trained."""

    name: ClassVar[str] = "nearest"
    config_class: ClassVar[type[NearestConfig]] = NearestConfig
    presets: ClassVar[Mapping[str, NearestConfig]] = {
        "preview": NearestConfig(50),
        "standard": NearestConfig(),
        "high": NearestConfig(300),
    }

    def __init__(self, tensors: Mapping[str, Tensor], config: NearestConfig) -> None:
        self.config = config
        self._tensors = dict(tensors)

    @classmethod
    def from_dataset(
        cls, dataset: IdentityDataset, config: NearestConfig, seed: int
    ) -> NearestRenderer:
        """Keep training frames. See Renderer."""
        kept = spread_frames(dataset.tracks.unoccluded & dataset.tracks.trainable, config.n_frames)
        images = [np.dstack([dataset.frames[i], dataset.masks[i]]) for i in kept]
        tensors = {
            "images": torch.from_numpy(np.stack(images)),
            "codes": torch.from_numpy(dataset.tracks.codes[kept]),
            "viewmats": torch.from_numpy(dataset.tracks.viewmats[kept]),
            "ks": torch.from_numpy(dataset.crop_ks[kept]),
            "template": torch.from_numpy(dataset.face.template[:N_SURFACE]),
        }
        return cls(tensors, config)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], config: NearestConfig) -> NearestRenderer:
        """Check the tensors of a package, which is untrusted input. See Renderer."""
        specs = {
            "images": TensorSpec((FRAMES, HEIGHT, WIDTH, 4), torch.uint8),
            "codes": TensorSpec((FRAMES, CODES), minimum=-MAX_CODE, maximum=MAX_CODE),
            "viewmats": TensorSpec((FRAMES, 4, 4), minimum=-WORLD, maximum=WORLD, fault=view_fault),
            "ks": TensorSpec((FRAMES, 3, 3), minimum=-MAX_PX, maximum=MAX_PX),
            "template": TensorSpec((N_SURFACE, 3), minimum=-WORLD, maximum=WORLD),
        }
        check_tensors(tensors, specs)
        return cls(tensors, config)

    @property
    def n_codes(self) -> int:
        """Components of a motion code."""
        return self._tensors["codes"].shape[1]

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a package stores."""
        return dict(self._tensors)

    def render(
        self, motion: Tensor, viewmats: Tensor, ks: Tensor, height: int, width: int
    ) -> Rendering:
        """Render images of motion codes [B, K] with viewmats [B, 4, 4] and ks [B, 3, 3]. See Renderer."""
        state = self._tensors
        shown = []
        for code, viewmat, k in zip(motion, viewmats, ks, strict=True):
            n = int(((state["codes"] - code) ** 2).sum(1).argmin())
            wanted = self._project(viewmat, k)  # [V, 2]
            kept = self._project(state["viewmats"][n], state["ks"][n])
            design = torch.cat([wanted, torch.ones_like(wanted[:, :1])], dim=1)
            affine = torch.linalg.lstsq(design, kept).solution  # [3, 2], wanted -> kept
            y = torch.arange(height, dtype=torch.float64) + 0.5
            x = torch.arange(width, dtype=torch.float64) + 0.5
            rows, columns = torch.meshgrid(y, x, indexing="ij")
            pixels = torch.stack([columns, rows, torch.ones_like(rows)], dim=-1) @ affine
            image = state["images"][n].movedim(-1, 0).float() / 255.0
            size = torch.tensor([image.shape[2], image.shape[1]], dtype=torch.float64)
            grid = (2.0 * pixels / size - 1.0).float()
            shown.append(F.grid_sample(image[None], grid[None], align_corners=False)[0])
        stacked = torch.stack(shown).movedim(1, -1)
        alpha = stacked[..., 3:].clamp(0.0, 1.0)
        return Rendering(stacked[..., :3].clamp(0.0, 1.0) * alpha, alpha)

    def _project(self, viewmat: Tensor, k: Tensor) -> Tensor:
        """Project the face at rest to pixels [V, 2]."""
        viewmat, k = viewmat.double(), k.double()
        camera = self._tensors["template"].double() @ viewmat[:3, :3].T + viewmat[:3, 3]
        image = camera @ k.T
        return image[:, :2] / image[:, 2:]

    def param_groups(self) -> list[dict[str, Any]]:
        """Return no parameters: nothing is trained."""
        return []
