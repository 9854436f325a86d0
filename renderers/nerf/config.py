"""Sizes and rates of the NeRF head, and its presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ENCODINGS = ("planes", "hash")


@dataclass(frozen=True)
class HashConfig:
    """A multiresolution hash grid (Mueller et al. 2022, arXiv 2201.05989), as tiny-cuda-nn has it.

    Level l has a grid of base_resolution * growth**l cells along each side and at most
    2**log2_table entries of n_features.
    """

    n_levels: int = 12
    n_features: int = 2
    log2_table: int = 17
    base_resolution: int = 16
    growth: float = 1.39

    @property
    def n_values(self) -> int:
        return self.n_levels * self.n_features


HASH = HashConfig()
"""The one that heads are made with."""


@dataclass(frozen=True)
class NerfConfig:
    """How fine the field is, how it learns.

    encoding: of the features that don't move: "planes", or "hash", which is slow without
    tiny-cuda-nn. *_unit: distance of a plane's nodes, world units: of what doesn't move, of what
    listens to mouth and eyes, of what listens to the pose. n_patches: 8x8 pixels each, a step.
    code_noise: standard deviation of what is added to the code in training. *_rate: step sizes of
    Adam.
    """

    encoding: str = "planes"
    fine_unit: float = 0.01
    blend_unit: float = 0.016
    pose_unit: float = 0.03
    n_front: int = 16
    n_side: int = 8
    n_blend: int = 8
    n_hidden: int = 64
    n_steps: int = 9_000
    batch_size: int = 2
    n_patches: int = 64
    code_noise: float = 0.1
    dssim_weight: float = 0.2
    base_rate: float = 1e-2
    delta_rate: float = 1e-3
    net_rate: float = 2e-3


PRESETS: Mapping[str, NerfConfig] = {
    "preview": NerfConfig(n_steps=1_500),
    "standard": NerfConfig(),
    "high": NerfConfig(n_steps=18_000),
}
