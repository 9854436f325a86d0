"""Temporal convolution networks of a MotionPredictor, an ensemble in one tensor."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkhead.config import bounded
from talkhead.errors import TalkheadError
from talkhead.storage import ContentError
from talkhead.tensors import TensorSpec, module_specs
from talkhead.types import FRAME_RATE


@dataclass(frozen=True)
class PredictorConfig:
    """Architecture and training of a predictor.

    Attributes:
        width: Channels.
        layers: Kernel, an odd number, and dilation of each block; together they determine the
            receptive field.
        n_members: Networks in the ensemble, whose mean is predicted. Each holds out a different
            tenth of the training frames.
        n_steps: Steps of the optimizer.
        batch_size: Stretches of frames per step and network.
        n_frames: Frames in a stretch.
        learning_rate: Largest learning rate.
        weight_decay: Weight decay of AdamW.
        dropout: Dropped share of hidden values.
        gain_std: Standard deviation of changes of the features' level, in standard deviations of the
            features' mean.
        noise_std: Standard deviation of noise on each feature, in standard deviations of the feature.
        n_masks: Ranges of feature dimensions that are masked in a stretch.
        mask_width: Dimensions in the widest of them.
        velocity_weight: Weight of errors of lip velocity, relative to those of lip shape.
        gap_weight: Weight of errors of the distance between the lips.
        jaw_weight: Weight of errors of the jaw.
        inner_weight: Weight of errors of the codes of the inner mouth.
    """

    width: int = bounded(64, 1, 256)
    layers: tuple[tuple[int, int], ...] = bounded(((5, 1), (3, 2), (3, 3)), 1, 32, max_items=8)
    n_members: int = bounded(4, 1, 16)
    n_steps: int = bounded(500, 1, 100_000)
    batch_size: int = bounded(4, 1, 256)
    n_frames: int = bounded(50, 1, 1000)
    learning_rate: float = bounded(6e-3, 1e-8, 1.0)
    weight_decay: float = bounded(0.02, 0.0, 1.0)
    dropout: float = bounded(0.2, 0.0, 0.99)
    gain_std: float = bounded(0.2, 0.0, 10.0)
    noise_std: float = bounded(0.3, 0.0, 10.0)
    n_masks: int = bounded(2, 0, 100)
    mask_width: int = bounded(12, 0, 4096)
    velocity_weight: float = bounded(1.0, 0.0, 100.0)
    gap_weight: float = bounded(0.3, 0.0, 100.0)
    jaw_weight: float = bounded(0.15, 0.0, 100.0)
    inner_weight: float = bounded(0.3, 0.0, 100.0)

    def __post_init__(self) -> None:
        """Turn the lists of JSON into tuples."""
        layers = tuple((int(kernel), int(dilation)) for kernel, dilation in self.layers)
        object.__setattr__(self, "layers", layers)


PRESETS = {
    "preview": PredictorConfig(n_members=2),
    "standard": PredictorConfig(),
    "high": PredictorConfig(n_members=8),
}
"""The configurations by name."""


LOOKAHEAD_S = 0.24
"""Seconds after a video frame's moment that encoder and network together may depend on."""


@dataclass(frozen=True)
class ReceptiveField:
    """Frames that the prediction of one frame depends on besides that frame.

    Attributes:
        behind: Frames before it.
        ahead: Frames after it.
    """

    behind: int
    ahead: int


def receptive_field_of(
    config: PredictorConfig, per_frame: int, rate: float, lookahead_s: float
) -> ReceptiveField:
    """Divide a network's receptive field into frames behind and ahead.

    As many frames are ahead as LOOKAHEAD_S allows after the encoder's own look-ahead, at most half.

    Args:
        config: Its layers.
        per_frame: Feature vectors per video frame; the last one is (per_frame - 1) / rate seconds
            after its frame.
        rate: Feature vectors per second.
        lookahead_s: Seconds after its moment that a vector depends on.

    Returns:
        The receptive field.

    Raises:
        TalkheadError: If the look-ahead of the encoder alone is too long.
    """
    spare_s = LOOKAHEAD_S - lookahead_s - (per_frame - 1) / rate
    if spare_s < -1e-9:
        raise TalkheadError(
            f"the encoder has a look-ahead of {1000 * lookahead_s:.0f} ms; with the predictor "
            f"{1000 * LOOKAHEAD_S:.0f} ms are allowed. Use an encoder with a shorter one"
        )
    whole = receptive_frames(config.layers)
    ahead = min(whole // 2, int(spare_s * FRAME_RATE + 1e-6))
    return ReceptiveField(whole - ahead, ahead)


STORED = "nets."
"""Prefix of the names of stored weights."""


class TemporalNets(nn.Module):
    """N networks at once: inputs [N, B, T + behind + ahead, D] -> codes [N, B, T, K].

    A pointwise layer, then a residual block per (kernel, dilation) pair, without padding. Each
    block's receptive field is symmetric until the frames ahead are used up; the rest is behind.
    Call overhead dominates at this size, so the ensemble is one batched tensor.

    Attributes:
        ahead: Frames ahead.
        first: The pointwise layer.
        blocks: The residual blocks.
        dropout: Dropout before the last layer.
        last: The output layer.
    """

    def __init__(
        self, config: PredictorConfig, n_inputs: int, n_outputs: int, ahead: int, n_nets: int
    ) -> None:
        """Build the networks, with random weights.

        Args:
            config: Their architecture.
            n_inputs: Values per video frame, D.
            n_outputs: Values in a code, K.
            ahead: Frames ahead that a prediction depends on.
            n_nets: Number of networks, N.
        """
        super().__init__()
        self.ahead = ahead
        self.first = _Layers(n_nets, n_inputs, config.width)
        self.blocks = nn.ModuleList()
        for kernel, dilation in config.layers:
            own = min(ahead, (kernel - 1) // 2 * dilation)  # this block's frames ahead
            self.blocks.append(_Blocks(n_nets, config.width, kernel, dilation, own, config.dropout))
            ahead -= own
        self.dropout = nn.Dropout(config.dropout)
        self.last = _Layers(n_nets, config.width, n_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Predict codes.

        Args:
            inputs: [N, B, T + behind + ahead, D].

        Returns:
            [N, B, T, K].
        """
        hidden: Tensor = F.gelu(self.first(inputs))
        for block in self.blocks:
            hidden = block(hidden)
        codes: Tensor = self.last(self.dropout(hidden))
        return codes

    def __len__(self) -> int:
        """Number of networks."""
        return len(self.first.weight)

    def tensors(self) -> dict[str, Tensor]:
        """Copy the weights, under names that begin with STORED.

        Returns:
            Weights [N, n_inputs, n_outputs] and biases [N, 1, n_outputs] of each layer.
        """
        return {STORED + name: value.clone() for name, value in self.state_dict().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> TemporalNets:
        """Load weights and switch to evaluation mode.

        Args:
            tensors: Weights [N, n_inputs, n_outputs] and biases [N, 1, n_outputs], as returned by
                `tensors`, checked against `net_specs`. Other names are ignored.

        Returns:
            These networks.
        """
        own = {k.removeprefix(STORED): v for k, v in tensors.items() if k.startswith(STORED)}
        self.load_state_dict(own)
        return self.eval()

    def part(self, chosen: slice) -> TemporalNets:
        """Copy some of the networks.

        Args:
            chosen: Indices of the networks.

        Returns:
            New networks, which share no weights with these.
        """
        some = copy.deepcopy(self)
        for name, values in self.named_parameters():
            some.get_parameter(name).data = values.data[chosen].clone()
        return some


MAX_VIEW = 250
"""Largest receptive field that stored networks may have, in frames besides the predicted one: the
memory of prediction grows with it.
"""


def net_specs(
    config: PredictorConfig, n_inputs: int, n_outputs: int, ahead: int
) -> dict[str, TensorSpec]:
    """Specify the stored weights of a configuration.

    Args:
        config: The configuration.
        n_inputs: Values per video frame, 1 or more.
        n_outputs: Values in a code.
        ahead: Look-ahead in frames.

    Returns:
        Shape and type of each tensor of `TemporalNets.tensors`.

    Raises:
        ContentError: If the receptive field is too large or shorter than `ahead`.
    """
    if not ahead <= receptive_frames(config.layers) <= MAX_VIEW:
        raise ContentError(
            f"the networks depend on {receptive_frames(config.layers)} frames, where {ahead} to "
            f"{MAX_VIEW} are allowed"
        )
    return module_specs(
        lambda: TemporalNets(config, n_inputs, n_outputs, ahead, config.n_members), STORED
    )


class _Layers(nn.Module):
    """A linear layer in each of N networks, [N, B, T, n_inputs] -> [N, B, T, n_outputs]."""

    def __init__(self, n_nets: int, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_nets, n_inputs, n_outputs))
        self.bias = nn.Parameter(torch.empty(n_nets, 1, n_outputs))
        for values in (self.weight, self.bias):
            nn.init.uniform_(values, -(n_inputs**-0.5), n_inputs**-0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the layers to inputs [N, B, T, n_inputs]; returns [N, B, T, n_outputs]."""
        flat = torch.baddbmm(self.bias, inputs.flatten(1, 2), self.weight)
        return flat.unflatten(1, inputs.shape[1:3])


class _Blocks(nn.Module):
    """A residual block with a dilated convolution in each of N networks."""

    def __init__(
        self, n_nets: int, width: int, kernel: int, dilation: int, ahead: int, dropout: float
    ) -> None:
        super().__init__()
        self.kernel, self.dilation = kernel, dilation
        self.ahead, self.behind = ahead, (kernel - 1) * dilation - ahead
        self.spread = _Layers(n_nets, kernel * width, width)
        self.dropout = nn.Dropout(dropout)
        self.mix = _Layers(n_nets, width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """Apply the blocks: [N, B, T + behind + ahead, width] -> [N, B, T, width]."""
        n = hidden.shape[2] - self.behind - self.ahead
        # A convolution as a linear layer over the values at each tap, side by side.
        taps = [hidden[:, :, i * self.dilation :][:, :, :n] for i in range(self.kernel)]
        change: Tensor = self.mix(self.dropout(F.gelu(self.spread(torch.cat(taps, -1)))))
        return hidden[:, :, self.behind : self.behind + n] + change


def receptive_frames(layers: tuple[tuple[int, int], ...]) -> int:
    """Count the frames besides its own that a network depends on.

    Args:
        layers: Kernel and dilation of each block.

    Returns:
        Their number, behind and ahead together.
    """
    return sum((kernel - 1) * dilation for kernel, dilation in layers)


def rate_share(index: int, n_steps: int, warm_up_steps: int) -> float:
    """Compute the share of the learning rate at a step.

    A linear warm-up, then half a cosine down to 2 %.

    Args:
        index: The step, from 0.
        n_steps: All steps.
        warm_up_steps: Steps of the warm-up.

    Returns:
        Share, 0 to 1.
    """
    rise = min(1.0, (index + 1) / warm_up_steps)
    return rise * (0.02 + 0.49 * (1.0 + math.cos(math.pi * index / n_steps)))


def average_into(average: nn.Module, net: nn.Module, decay: float) -> None:
    """Update a running mean of parameters.

    Args:
        average: The mean, which is changed.
        net: The parameters.
        decay: Share of the mean that is kept.
    """
    with torch.no_grad():
        pairs = zip(average.parameters(), net.parameters(), strict=True)
        for kept, fresh in pairs:
            kept.lerp_(fresh, 1.0 - decay)


def frame_inputs(vectors: Tensor, per_frame: int) -> Tensor:
    """Group feature vectors by video frame.

    Args:
        vectors: [..., F * per_frame, D].
        per_frame: Vectors per frame.

    Returns:
        [..., F, per_frame * D].
    """
    return vectors.reshape(*vectors.shape[:-2], -1, per_frame * vectors.shape[-1])
