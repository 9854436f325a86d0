"""Sizes and rates of the NeRF head, and its presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from talkhead.config import bounded, one_of
from talkhead.renderers.base import TrainConfig

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
class NerfConfig(TrainConfig):
    """How fine the field is, how it learns.

    encoding: of the features that don't move: "planes", or "hash", which is slow without
    tiny-cuda-nn. *_unit: distance of a plane's nodes, world units: of what doesn't move, of what
    listens to mouth and eyes, of what listens to the pose. n_patches: 8x8 pixels each, a step.
    code_noise: standard deviation of what is added to the code in training. *_rate: step sizes of
    Adam.
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
