"""Mouths that were never seen are drawn from those that were.

Deltas are linear in the code: far from all training codes they add up to colours that no mouth has.
There the code that deltas hear is drawn towards its neighbours in training; where the mesh goes it
still says itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from talkhead.dataset import IdentityDataset
from talkhead.face import CODES, N_BODY
from talkhead.face import MAX_CODES as LONGEST_CODE
from talkhead.storage import ContentError
from talkhead.tensors import Size, TensorSpec

MAX_CODES = 2000
NEIGHBOURS = 20
APART_FRAMES = 12
"""Frames nearer in time than this are one moment: how far apart codes lie is told by others."""
REACH_SHARES = (0.9, 0.99)
BANDWIDTH = 0.5
"""Of the neighbours' weights, over the distance to the nearest."""
MOVING = Size("M", 0, LONGEST_CODE)
TENSORS = {
    "codes": TensorSpec((Size("S", 1, MAX_CODES), MOVING)),
    "reach": TensorSpec((2,), least=0.0, is_finite=False),
}


def check_moving(sizes: Mapping[str, int]) -> None:
    """Raises ContentError where the codes of TENSORS, of these sizes, are longer than a mouth's."""
    n_moving, most = sizes[MOVING.name], sizes[CODES.name] - N_BODY
    if n_moving > most:
        raise ContentError(
            f"the seen mouths have {n_moving} components, where {most} at most are allowed"
        )


@dataclass(frozen=True)
class CodeProjector:
    """codes: [M, n] of training, the mouth components that move vertices. reach: [2] distances to the
    nearest of them up to which a code is left as it is, and from which it is its neighbours'."""

    codes: Tensor
    reach: Tensor

    @classmethod
    def from_dataset(cls, dataset: IdentityDataset) -> CodeProjector:
        """Mouths of the usable training frames."""
        face, tracks = dataset.face, dataset.tracks
        n_moving = int(face.basis[: face.n_mouth].any(axis=(1, 2)).sum())
        frames = tracks.learnt.nonzero()[0]
        frames = frames[:: -(-len(frames) // MAX_CODES)]
        codes = torch.from_numpy(tracks.codes[frames, :n_moving].copy())
        moments = torch.from_numpy(frames)
        gaps = torch.cdist(codes, codes)
        gaps[(moments[:, None] - moments).abs() < APART_FRAMES] = torch.inf
        nearest = gaps.min(1).values
        nearest = nearest[nearest.isfinite()]
        if len(nearest) == 0:  # less than half a second of footage tells nothing
            return cls(codes, torch.full((2,), torch.inf))
        return cls(codes, torch.quantile(nearest, torch.tensor(REACH_SHARES)))

    def project(self, motion: Tensor) -> Tensor:
        """Motion codes [B, K], those with mouths far from all seen ones drawn towards these."""
        n_moving = self.codes.shape[1]
        mouth = motion[:, :n_moving]
        found = torch.cdist(mouth, self.codes).topk(min(NEIGHBOURS, len(self.codes)), largest=False)
        nearest = found.values[:, :1]
        low, high = self.reach
        share = ((nearest - low) / (high - low)).nan_to_num(0.0).clamp(0.0, 1.0)
        share = share * share * (3.0 - 2.0 * share)
        weights = torch.softmax(-0.5 * (found.values / (BANDWIDTH * nearest + 1e-6)) ** 2, dim=1)
        around = (weights[..., None] * self.codes[found.indices]).sum(1)
        return torch.cat([torch.lerp(mouth, around, share), motion[:, n_moving:]], dim=1)
