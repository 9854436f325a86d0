"""The interface of a renderer: a fitted model that turns motion codes and head poses into images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from talkhead.config import bounded
from talkhead.dataset import IdentityDataset
from talkhead.types import Rendering


@dataclass(frozen=True)
class TrainBatch:
    """Training frames on one device.

    Attributes:
        motion: [B, K], motion codes.
        viewmats: [B, 4, 4], world to camera.
        ks: [B, 3, 3], intrinsics of the crops, pixels.
        images: [B, H, W, 3] in [0, 1], the person alone, premultiplied by masks.
        masks: [B, H, W, 1] in [0, 1], opacity of the person.
        weights: [B, H, W, 1], weight of each pixel in the losses; 0 where something occludes the person.
    """

    motion: Tensor
    viewmats: Tensor
    ks: Tensor
    images: Tensor
    masks: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> TrainBatch:
        """Copy the batch to a device.

        Args:
            device: The device.

        Returns:
            The batch itself if it is on the CPU and stays there.
        """
        if device.type == "cpu":
            return self
        return TrainBatch(**{k: v.to(device, non_blocking=True) for k, v in vars(self).items()})


@dataclass(frozen=True)
class RegionWeights:
    """Weight of a pixel in the losses, by the region it belongs to.

    Attributes:
        mouth: The lips and their surroundings.
        eyes: The eyes and their surroundings.
        face: The rest of the face.
        person: The rest of the person.
        outside: The background.
        edge: The rim of the mask, whose pixels may belong to either.
    """

    mouth: float = 3.0
    eyes: float = 2.0
    face: float = 1.0
    person: float = 0.6
    outside: float = 0.25
    edge: float = 0.6


@dataclass(frozen=True)
class TrainConfig:
    """The settings that the training loop reads. The config of a trained renderer derives from it.

    Attributes:
        n_steps: Optimizer steps.
        batch_size: Frames per step.
    """

    n_steps: int = bounded(0, 0, 1_000_000)
    batch_size: int = bounded(1, 1, 64)


class Renderer(Protocol):
    """A fitted identity that can be rendered. It computes on the device of its tensors.

    `RendererBase` has defaults for the members that not every renderer needs.

    Attributes:
        name: The name in the registry, on the command line and in packages.
        config_class: A frozen dataclass with defaults and bounds (`talkhead.config`). That of a renderer
            with parameters derives from `TrainConfig`.
        presets: Configs by name; "preview", "standard" and "high" are required.
        test_config: A config with which the contract tests fit in seconds; None for the preview preset.
        config: The instance of config_class that it was made with.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[Any]]
    presets: ClassVar[Mapping[str, Any]]
    test_config: ClassVar[Any]
    config: Any

    @classmethod
    @abstractmethod
    def from_dataset(cls, dataset: IdentityDataset, config: Any, seed: int) -> Renderer:
        """Make the renderer with which a fit begins.

        Args:
            dataset: The person's footage. Only training frames may be used.
            config: An instance of config_class.
            seed: Seeds everything random: the same seed gives the same tensors, bit for bit.

        Returns:
            A renderer on the CPU.
        """

    @classmethod
    @abstractmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], config: Any) -> Renderer:
        """Restore a renderer from what tensors() returned.

        Args:
            tensors: Tensors by name, all on one device. Packages are untrusted input, so every name,
                dtype, shape and range must be checked (`talkhead.tensors.check_tensors`).
            config: The config that it was made with.

        Returns:
            A renderer on the device of the tensors.

        Raises:
            ContentError: If a tensor is missing, unknown or malformed.
        """

    @property
    @abstractmethod
    def n_codes(self) -> int:
        """Number of components of the motion codes, K."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return the model's complete state, detached, for packages and checkpoints.

        Returns:
            Tensors of any shape by name. Names with a dot group tensors, such as those of the face
            model.
        """

    def quantization_steps(self) -> dict[str, Tensor]:
        """Return how coarsely a package may store tensors.

        Returns:
            For some of the names of tensors(), the step to whose multiples the tensor is rounded,
            of a shape that broadcasts against it. Rounding all of them must cost less than 0.1 dB
            of PSNR. Other tensors are stored exactly.
        """

    @abstractmethod
    def render(
        self, motion: Tensor, viewmats: Tensor, ks: Tensor, height: int, width: int
    ) -> Rendering:
        """Render images. Several threads may call this at the same time if numba allows it
        (`talkhead.device.kernel_concurrency`).

        Args:
            motion: [B, K], motion codes.
            viewmats: [B, 4, 4], world to camera, OpenCV axes.
            ks: [B, 3, 3], intrinsics, pixels.
            height: Height of the images, pixels.
            width: Width of the images, pixels.

        Returns:
            rgb [B, H, W, 3], premultiplied by alpha, and alpha [B, H, W, 1], both float32 in [0, 1].
        """

    def losses(self, batch: TrainBatch, step: int) -> dict[str, Tensor]:
        """Compute the training losses of a batch.

        Args:
            batch: Training frames.
            step: The optimizer step, from which everything random must be seeded.

        Returns:
            Named scalars, whose sum is minimized.
        """

    def param_groups(self) -> list[dict[str, Any]]:
        """Return the trainable parameters with their learning rates, for `optimizer.Adam`.

        Returns:
            Parameter groups as those of torch.optim. An empty list means that nothing is trained: the
            training loop is skipped.
        """

    def after_step(self, step: int) -> None:
        """Update the state that is not trained by gradients. Called after each optimizer step.

        Args:
            step: The step that was just made.
        """

    def finalize(self, batch: TrainBatch) -> None:
        """Complete the model after the last step.

        Args:
            batch: Training frames spread over the footage.
        """

    def reduce_memory(self) -> bool:
        """Process less at a time from now on. Called when the memory of a GPU ran out.

        Returns:
            False if that is not possible; the error is then raised.
        """

    @classmethod
    def config_for_device(cls, config: Any, device: torch.device) -> Any:
        """Adapt a preset to the device on which it will be fitted.

        Args:
            config: An instance of config_class.
            device: The device of the fit. The fitted renderer must run on every device.

        Returns:
            The config to fit with.
        """


class RendererBase(Renderer):
    """Base class of renderers, with defaults for one that is not trained and is stored exactly.

    A subclass sets the class attributes of `Renderer` and implements from_dataset, from_tensors, n_codes,
    tensors and render. One that is trained implements losses and param_groups as well.
    """

    test_config: ClassVar[Any] = None

    def quantization_steps(self) -> dict[str, Tensor]:
        """Return no steps: tensors of every shape are stored exactly."""
        return {}

    def losses(self, batch: TrainBatch, step: int) -> dict[str, Tensor]:
        """Return no losses: nothing is trained.

        Args:
            batch: Ignored.
            step: Ignored.

        Returns:
            No scalars.
        """
        return {}

    def param_groups(self) -> list[dict[str, Any]]:
        """Return no parameters: nothing is trained."""
        return []

    def after_step(self, step: int) -> None:
        """Do nothing.

        Args:
            step: Ignored.
        """

    def finalize(self, batch: TrainBatch) -> None:
        """Do nothing.

        Args:
            batch: Ignored.
        """

    def reduce_memory(self) -> bool:
        """Return False: memory cannot be reduced."""
        return False

    @classmethod
    def config_for_device(cls, config: Any, device: torch.device) -> Any:
        """Return the config unchanged.

        Args:
            config: An instance of config_class.
            device: Ignored.

        Returns:
            The same config.
        """
        return config


def device_of(renderer: Renderer) -> torch.device:
    """Return the device that a renderer computes on.

    Args:
        renderer: The renderer.

    Returns:
        The device of its tensors; the CPU if it has none.
    """
    return next((tensor.device for tensor in renderer.tensors().values()), torch.device("cpu"))
