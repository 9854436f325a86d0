"""Settings of the NeRF head, and its presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from talkhead.config import bounded, one_of
from talkhead.renderers.base import TrainConfig

ENCODINGS = ("planes", "hash")


@dataclass(frozen=True)
class HashConfig:
    """Settings of a multiresolution hash grid, as in tiny-cuda-nn.

    Source: Mueller et al. 2022, arXiv 2201.05989. Level l has a grid of base_resolution * growth**l
    cells along each side and at most 2**log2_table entries.

    Attributes:
        n_levels: Number of grids.
        n_features: Values per entry.
        log2_table: Logarithm to base 2 of the maximum number of entries of a level.
        base_resolution: Cells along each side of the coarsest grid.
        growth: Ratio of the resolutions of two successive levels.
    """

    n_levels: int = 12
    n_features: int = 2
    log2_table: int = 17
    base_resolution: int = 16
    growth: float = 1.39

    @property
    def n_values(self) -> int:
        """Number of values per point."""
        return self.n_levels * self.n_features


HASH = HashConfig()
"""The settings with which all heads are made."""


@dataclass(frozen=True)
class NerfConfig(TrainConfig):
    """Settings of the NeRF head.

    Attributes:
        encoding: How static features are stored: "planes", or "hash", which is slow without
            tiny-cuda-nn.
        fine_unit: Distance between the nodes of planes that do not depend on the code, world units.
        blend_unit: Distance between the nodes of planes that depend on mouth and eyes.
        pose_unit: Distance between the nodes of the plane that depends on the pose.
        n_front: Channels of the static plane parallel to the image.
        n_side: Channels of the other static planes.
        n_blend: Channels of planes that depend on the code.
        n_hidden: Width of the network's hidden layers.
        n_steps: Optimizer steps.
        batch_size: Frames per step.
        n_patches: Patches of 8x8 pixels per step.
        code_noise: Standard deviation of the noise that is added to the code in training.
        dssim_weight: Weight of D-SSIM; that of L1 is 1 minus this.
        base_rate: Learning rate of planes and hash table.
        delta_rate: Learning rate of deltas.
        net_rate: Learning rate of the network.
    """

    encoding: str = one_of("planes", *ENCODINGS)
    fine_unit: float = bounded(0.01, 0.002, 1.0)
    blend_unit: float = bounded(0.016, 0.002, 1.0)
    pose_unit: float = bounded(0.03, 0.002, 1.0)
    n_front: int = bounded(16, 1, 128)
    n_side: int = bounded(8, 1, 128)
    n_blend: int = bounded(8, 1, 128)
    n_hidden: int = bounded(64, 1, 1024)
    n_steps: int = bounded(9_000, 0, 1_000_000)
    batch_size: int = bounded(2, 1, 64)
    n_patches: int = bounded(64, 1, 4096)
    code_noise: float = bounded(0.1, 0.0, 10.0)
    dssim_weight: float = bounded(0.2, 0.0, 1.0)
    base_rate: float = bounded(1e-2, 1e-8, 1.0)
    delta_rate: float = bounded(1e-3, 1e-8, 1.0)
    net_rate: float = bounded(2e-3, 1e-8, 1.0)


PRESETS: Mapping[str, NerfConfig] = {
    "preview": NerfConfig(n_steps=1_500),
    "standard": NerfConfig(),
    "high": NerfConfig(n_steps=18_000),
}
