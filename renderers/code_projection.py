"""Projection of motion codes onto the range seen in training.

Blendshape deltas are linear in the code: far from all training codes they add up to colors that no
mouth has. Such a code is moved toward its neighbors among the training codes before it weights the
deltas. The mesh still follows the code itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from talkhead.dataset import IdentityDataset
from talkhead.face import CODES, N_BODY
from talkhead.face import MAX_CODES as MAX_COMPONENTS
from talkhead.storage import ContentError
from talkhead.tensors import Size, TensorSpec

MAX_CODES = 2000
NEIGHBORS = 20
MIN_GAP_FRAMES = 12
"""Frames less than this apart are not independent; they are excluded when the distance between codes
is measured.
"""
REACH_QUANTILES = (0.9, 0.99)
"""Quantiles, over the training codes, of the distance to the nearest other one. They become
`CodeProjector.reach`.
"""
BANDWIDTH = 0.5
"""Standard deviation of the neighbors' Gaussian weights, relative to the distance to the nearest one."""
MOVING = Size("M", 0, MAX_COMPONENTS)
TENSORS = {
    "codes": TensorSpec((Size("S", 1, MAX_CODES), MOVING)),
    "reach": TensorSpec((2,), minimum=0.0, is_finite=False),
}


def check_moving(sizes: Mapping[str, int]) -> None:
    """Check that the stored codes are no longer than the mouth's part of a motion code.

    Args:
        sizes: Sizes by name, as check_tensors returns them for TENSORS.

    Raises:
        ContentError: If they are longer.
    """
    n_moving, most = sizes[MOVING.name], sizes[CODES.name] - N_BODY
    if n_moving > most:
        raise ContentError(
            f"the training codes have {n_moving} components, where {most} at most are allowed"
        )


@dataclass(frozen=True)
class CodeProjector:
    """Moves mouth codes that are far from all training codes toward the nearest of these.

    Attributes:
        codes: [S, M], training codes: the mouth components that move vertices.
        reach: [2], distances to the nearest training code up to which a code is kept and from which
            it is replaced by its neighbors.
    """

    codes: Tensor
    reach: Tensor

    @classmethod
    def from_dataset(cls, dataset: IdentityDataset) -> CodeProjector:
        """Collect the mouth codes of the training frames.

        Args:
            dataset: The person's footage.

        Returns:
            The projector. It keeps every code if the footage is shorter than half a second.
        """
        face, tracks = dataset.face, dataset.tracks
        n_moving = int(face.basis[: face.n_mouth].any(axis=(1, 2)).sum())
        frames = tracks.trainable.nonzero()[0]
        frames = frames[:: -(-len(frames) // MAX_CODES)]  # at most MAX_CODES, evenly spread
        codes = torch.from_numpy(tracks.codes[frames, :n_moving].copy())
        moments = torch.from_numpy(frames)
        # Distance from each code to the nearest one of another moment.
        gaps = torch.cdist(codes, codes)  # [S, S]
        gaps[(moments[:, None] - moments).abs() < MIN_GAP_FRAMES] = torch.inf
        nearest = gaps.min(1).values
        nearest = nearest[nearest.isfinite()]
        if len(nearest) == 0:  # less than half a second of footage
            return cls(codes, torch.full((2,), torch.inf))
        return cls(codes, torch.quantile(nearest, torch.tensor(REACH_QUANTILES)))

    def project(self, motion: Tensor) -> Tensor:
        """Project motion codes.

        Args:
            motion: [B, K], motion codes.

        Returns:
            Motion codes [B, K]. Only mouth components are changed.
        """
        n_moving = self.codes.shape[1]
        mouth = motion[:, :n_moving]
        neighbors = torch.cdist(mouth, self.codes).topk(
            min(NEIGHBORS, len(self.codes)), largest=False
        )
        nearest = neighbors.values[:, :1]
        # Fraction of the way to the neighbors' mean: a smooth step between the two distances.
        low, high = self.reach
        fraction = ((nearest - low) / (high - low)).nan_to_num(0.0).clamp(0.0, 1.0)
        fraction = fraction * fraction * (3.0 - 2.0 * fraction)
        # The neighbors' mean, weighted by a Gaussian of their distance.
        weights = torch.softmax(
            -0.5 * (neighbors.values / (BANDWIDTH * nearest + 1e-6)) ** 2, dim=1
        )
        mean_neighbor = (weights[..., None] * self.codes[neighbors.indices]).sum(1)  # [B, M]
        return torch.cat([torch.lerp(mouth, mean_neighbor, fraction), motion[:, n_moving:]], dim=1)
