"""Multiresolution hash encoding of places: tiny-cuda-nn's where it is usable, else its twin in torch.

The twin keeps tiny-cuda-nn's parameters and their order, so that a head fitted with one is rendered
by the other: levels one after the other, dense where the grid is smaller than the table.
"""

from __future__ import annotations

import logging
import math
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from talkhead.device import tinycudann_unavailable_reason
from talkhead.renderers.nerf.config import HashConfig

_log = logging.getLogger(__name__)

PRIMES = (1, 2_654_435_761, 805_459_861)
"""Of the spatial hash (Mueller et al. 2022, eq. 4)."""
_ROUND_TO = 8  # tiny-cuda-nn rounds the entries of a level up


class Level(NamedTuple):
    """One grid: cells along a side less one (a real number), nodes along a side, where its entries
    begin in the table and how many there are, whether they are hashed."""

    scale: float
    resolution: int
    first: int
    n_entries: int
    is_hashed: bool


@lru_cache
def levels(config: HashConfig) -> tuple[Level, ...]:
    """The grids of an encoding, coarse to fine."""
    made: list[Level] = []
    first = 0
    for number in range(config.n_levels):
        scale = 2.0 ** (number * math.log2(config.growth)) * config.base_resolution - 1.0
        resolution = math.ceil(scale) + 1
        n_nodes = resolution**3
        n_entries = min(-(-n_nodes // _ROUND_TO) * _ROUND_TO, 2**config.log2_table)
        made.append(Level(scale, resolution, first, n_entries, n_nodes > n_entries))
        first += n_entries
    return tuple(made)


def n_parameters(config: HashConfig) -> int:
    """How many numbers the table of an encoding holds."""
    last = levels(config)[-1]
    return (last.first + last.n_entries) * config.n_features


def encode(places: Tensor, table: Tensor, config: HashConfig) -> Tensor:
    """Values [N, L * F] at places [N, 3] in [0, 1]; table: [n_parameters]. Differentiable in it."""
    entries = table.view(-1, config.n_features)
    columns = []
    for level in levels(config):
        place = places * level.scale + 0.5
        corner = place.floor()
        share, corner = place - corner, corner.long()
        value = places.new_zeros(len(places), config.n_features)
        for offset in product((0, 1), repeat=3):
            step = torch.tensor(offset, device=places.device)
            weight = torch.where(step > 0, share, 1.0 - share).prod(1, keepdim=True)
            value = value + weight * entries[level.first + _entry(corner + step, level)]
        columns.append(value)
    return torch.cat(columns, dim=1)


def _entry(node: Tensor, level: Level) -> Tensor:
    """Which entry of a level belongs to nodes [N, 3]."""
    if level.is_hashed:
        x, y, z = ((node[:, i] * PRIMES[i]) & 0xFFFFFFFF for i in range(3))
        return (x ^ y ^ z) % level.n_entries
    r = level.resolution
    return (node[:, 0] + node[:, 1] * r + node[:, 2] * r * r) % level.n_entries


class HashGrid:
    """Features of places in a box."""

    def __init__(self, box: Tensor, config: HashConfig) -> None:
        """box: [2, 3] least and largest corner."""
        self.config = config
        self._low, self._extent = box[0], box[1] - box[0]

    def __call__(self, points: Tensor, table: Tensor) -> Tensor:
        """Values [N, L * F] at points [N, 3]; table: [n_parameters]. Differentiable in the table."""
        places = ((points - self._low) / self._extent).clamp(0.0, 1.0)
        native = native_encoding(self.config) if points.is_cuda else None
        if native is None:
            return encode(places, table, self.config)
        # As a function of our own table: the module's parameters stand in for none of it.
        return torch.func.functional_call(native, {"params": table}, (places,)).float()


@lru_cache
def native_encoding(config: HashConfig) -> Any | None:
    """tiny-cuda-nn's encoding as a module, or None, told once, where it can't be used."""
    reason = tinycudann_unavailable_reason()
    if not reason:
        try:
            import tinycudann

            native = tinycudann.Encoding(3, _native_config(config), dtype=torch.float32)
        except Exception as error:  # a library that can be imported may still not run here
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            if native.params.numel() == n_parameters(config):
                return native
            reason = "its table has another size"
    _log.warning("tiny-cuda-nn is not used (%s): hash encoding in torch, slower", reason)
    return None


def _native_config(config: HashConfig) -> dict[str, Any]:
    return {
        "otype": "HashGrid",
        "n_levels": config.n_levels,
        "n_features_per_level": config.n_features,
        "log2_hashmap_size": config.log2_table,
        "base_resolution": config.base_resolution,
        "per_level_scale": config.growth,
    }
