"""Multiresolution hash encoding of points: by tiny-cuda-nn where it is usable, otherwise by torch.

The torch version has the same parameters in the same order, so that a head fitted with one can be
rendered with the other: one level after the other, dense where the grid is smaller than the table.
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
"""Factors of the spatial hash (Mueller et al. 2022, equation 4)."""
_ROUND_TO = 8  # tiny-cuda-nn rounds the entries of a level up


class Level(NamedTuple):
    """One grid of an encoding.

    Attributes:
        scale: Cells along a side minus one, a real number.
        resolution: Nodes along a side.
        first: Index of its first entry in the table.
        n_entries: Number of its entries.
        is_hashed: True if it has more nodes than entries.
    """

    scale: float
    resolution: int
    first: int
    n_entries: int
    is_hashed: bool


@lru_cache
def levels(config: HashConfig) -> tuple[Level, ...]:
    """List the grids of an encoding, coarse to fine.

    Args:
        config: The settings.

    Returns:
        The grids.
    """
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
    """Count the values in the table of an encoding.

    Args:
        config: The settings.

    Returns:
        Their number.
    """
    last = levels(config)[-1]
    return (last.first + last.n_entries) * config.n_features


def encode(places: Tensor, table: Tensor, config: HashConfig) -> Tensor:
    """Encode points in plain torch, differentiably in the table.

    Args:
        places: [N, 3] in [0, 1].
        table: [n_parameters].
        config: The settings.

    Returns:
        Values [N, n_values], those of all levels side by side.
    """
    entries = table.view(-1, config.n_features)
    columns = []
    for level in levels(config):
        # Trilinear interpolation between the eight nodes around each point.
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
    """Return the entry of a level that belongs to each of the nodes [N, 3]: [N]."""
    if level.is_hashed:
        x, y, z = ((node[:, i] * PRIMES[i]) & 0xFFFFFFFF for i in range(3))
        return (x ^ y ^ z) % level.n_entries
    r = level.resolution
    return (node[:, 0] + node[:, 1] * r + node[:, 2] * r * r) % level.n_entries


class HashGrid:
    """A hash encoding of the points in a box."""

    def __init__(self, box: Tensor, config: HashConfig) -> None:
        """Create the encoding of a box.

        Args:
            box: [2, 3], lower and upper corner.
            config: The settings.
        """
        self.config = config
        self._low, self._extent = box[0], box[1] - box[0]

    def __call__(self, points: Tensor, table: Tensor) -> Tensor:
        """Encode points [N, 3], differentiably in the table [n_parameters], as [N, n_values]."""
        places = ((points - self._low) / self._extent).clamp(0.0, 1.0)
        native = native_encoding(self.config) if points.is_cuda else None
        if native is None:
            return encode(places, table, self.config)
        # The given table replaces the module's parameters.
        return torch.func.functional_call(native, {"params": table}, (places,)).float()


@lru_cache
def native_encoding(config: HashConfig) -> Any | None:
    """Create tiny-cuda-nn's encoding.

    Args:
        config: The settings.

    Returns:
        The module, or None, with one warning, if it cannot be used.
    """
    reason = tinycudann_unavailable_reason()
    if not reason:
        try:
            import tinycudann

            native = tinycudann.Encoding(3, _native_config(config), dtype=torch.float32)
        except Exception as error:  # a library that can be imported may still not run
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            if native.params.numel() == n_parameters(config):
                return native
            reason = "its table has a different size"
    _log.warning("tiny-cuda-nn is not used (%s); the slower hash encoding in torch is used", reason)
    return None


def _native_config(config: HashConfig) -> dict[str, Any]:
    """Return the settings as tiny-cuda-nn names them."""
    return {
        "otype": "HashGrid",
        "n_levels": config.n_levels,
        "n_features_per_level": config.n_features,
        "log2_hashmap_size": config.log2_table,
        "base_resolution": config.base_resolution,
        "per_level_scale": config.growth,
    }
