"""What every renderer is: one fitted identity, motion code and pose in, an image out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor

from talkhead.dataset import IdentityDataset
from talkhead.types import Rendering


@dataclass(frozen=True)
class TrainBatch:
    """Frames to learn from.

    motion: [B, K]. viewmats: [B, 4, 4]. ks: [B, 3, 3] of the crops. images: [B, H, W, 3] in
    [0, 1], the person alone, premultiplied by masks: [B, H, W, 1] how opaque they are, in [0, 1].
    weights: [B, H, W, 1] how much a pixel counts.
    """

    motion: Tensor
    viewmats: Tensor
    ks: Tensor
    images: Tensor
    masks: Tensor
    weights: Tensor


@dataclass(frozen=True)
class RegionWeights:
    """How much a pixel counts, by what it shows; `edge`: the uncertain rim of the mask."""

    mouth: float = 3.0
    eyes: float = 2.0
    face: float = 1.0
    person: float = 0.6
    outside: float = 0.25
    edge: float = 0.6


class Renderer(Protocol):
    """One fitted identity. Code follows its tensors' device; nothing here chooses one."""

    name: ClassVar[str]

    @property
    def config(self) -> Any:
        """The frozen dataclass it was built with."""

    @classmethod
    def from_dataset(cls, dataset: IdentityDataset, config: Any, seed: int) -> Renderer:
        """The start of a fit, from training frames alone."""

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], config: Any) -> Renderer:
        """A fitted renderer back from tensors().

        Raises ContentError for a missing, extra or malformed one: packages come from strangers.
        """

    @property
    def n_codes(self) -> int:
        """Components of the motion codes that it renders."""

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a package must keep, and all that resuming a fit needs of the model."""

    def steps(self) -> dict[str, Tensor]:
        """How coarsely a package may keep tensors(): steps that a tensor is rounded to, broadcast against
        it, such that images lose less than 0.1 dB. What isn't named is kept exactly."""

    def render(
        self, motion: Tensor, viewmats: Tensor, ks: Tensor, height: int, width: int
    ) -> Rendering:
        """Images [B, height, width] of motion codes [B, K] seen by viewmats [B, 4, 4], ks [B, 3, 3]."""

    def losses(self, batch: TrainBatch, step: int) -> dict[str, Tensor]:
        """Scalars whose sum is to be minimised."""

    def param_groups(self) -> list[dict[str, Any]]:
        """Parameters with their learning rates, as adam.Adam takes them; empty: nothing to fit."""

    def after_step(self, step: int) -> None:
        """Called after each optimiser step."""

    def finalize(self, batch: TrainBatch) -> None:
        """Called once the last step is done, with training frames spread over the footage."""

    def reduce_memory(self) -> bool:
        """Called when a GPU's memory ran out: do less at once; False where that is not possible."""
