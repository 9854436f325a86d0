"""The small temporal-convolution nets inside a MotionPredictor."""

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
    """How a predictor is built and fitted.

    layers: (kernel, dilation) of each block, kernels odd: together the view, see receptive_field_of.
    n_members: nets whose mean counts, each holding out another tenth of the training part.
    gain_std, noise_std: of the features' level and values, in their mean and each one's standard
    deviation. n_masks, mask_width: stretches of feature dimensions that are hidden.
    velocity_weight, gap_weight, jaw_weight, inner_weight: of the errors of lip motion, lip opening, jaw
    and what shows between the lips beside those of the lips' shape.
    """

    width: int = bounded(64, 1, 256)
    layers: tuple[tuple[int, int], ...] = bounded(((5, 1), (3, 2), (3, 3)), 1, 32, most_items=8)
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
        """JSON knows no tuples."""
        layers = tuple((int(kernel), int(dilation)) for kernel, dilation in self.layers)
        object.__setattr__(self, "layers", layers)


PRESETS = {
    "preview": PredictorConfig(n_members=2),
    "standard": PredictorConfig(),
    "high": PredictorConfig(n_members=8),
}


LOOKAHEAD_S = 0.24
"""How far past a video frame's moment encoder and net together may hear."""


@dataclass(frozen=True)
class ReceptiveField:
    """How many frames a net sees before its own and after it."""

    behind: int
    ahead: int


def receptive_field_of(
    config: PredictorConfig, per_frame: int, rate: float, lookahead_s: float
) -> ReceptiveField:
    """The view of a net behind an encoder that hears lookahead_s past a vector's moment.

    As many frames of the layers' whole view lie ahead as LOOKAHEAD_S leaves, at most half of them.
    The last of a frame's per_frame vectors is already (per_frame - 1) / rate late. Raises
    TalkheadError when the encoder alone hears too far.
    """
    spare_s = LOOKAHEAD_S - lookahead_s - (per_frame - 1) / rate
    if spare_s < -1e-9:
        raise TalkheadError(
            f"the encoder hears {1000 * lookahead_s:.0f} ms ahead; with the predictor "
            f"{1000 * LOOKAHEAD_S:.0f} ms are allowed. Use an encoder that hears less far"
        )
    whole = whole_view(config.layers)
    ahead = min(whole // 2, int(spare_s * FRAME_RATE + 1e-6))
    return ReceptiveField(whole - ahead, ahead)


STORED = "nets."
"""What the names of stored weights begin with."""


class TemporalNets(nn.Module):
    """N nets at once: frame inputs [N, B, T + behind + ahead, D] -> codes [N, B, T, K].

    No padding, a bounded view. A pointwise layer, then one residual block a (kernel, dilation) pair.
    A block's view is even to both sides until the frames ahead are used up; the rest of it lies
    behind. Nets so small cost more in calls than in sums: all learn in one go.
    """

    def __init__(
        self, config: PredictorConfig, n_inputs: int, n_outputs: int, ahead: int, n_nets: int
    ) -> None:
        super().__init__()
        self.ahead = ahead
        self.first = _Layers(n_nets, n_inputs, config.width)
        self.blocks = nn.ModuleList()
        for kernel, dilation in config.layers:
            own = min(ahead, (kernel - 1) // 2 * dilation)
            self.blocks.append(_Blocks(n_nets, config.width, kernel, dilation, own, config.dropout))
            ahead -= own
        self.dropout = nn.Dropout(config.dropout)
        self.last = _Layers(n_nets, config.width, n_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Codes of frame inputs."""
        hidden: Tensor = F.gelu(self.first(inputs))
        for block in self.blocks:
            hidden = block(hidden)
        codes: Tensor = self.last(self.dropout(hidden))
        return codes

    def __len__(self) -> int:
        return len(self.first.weight)

    def tensors(self) -> dict[str, Tensor]:
        """The weights, as files keep them beside other things."""
        return {STORED + name: value.clone() for name, value in self.state_dict().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> TemporalNets:
        """These nets with the weights of tensors(), as net_specs has them; in evaluation mode."""
        own = {k.removeprefix(STORED): v for k, v in tensors.items() if k.startswith(STORED)}
        self.load_state_dict(own)
        return self.eval()

    def part(self, chosen: slice) -> TemporalNets:
        """Some of the nets, with weights of their own."""
        some = copy.deepcopy(self)
        for name, values in self.named_parameters():
            some.get_parameter(name).data = values.data[chosen].clone()
        return some


MAX_VIEW = 250
"""Frames besides its own that a stored net may see: what it predicts at once takes memory."""


def net_specs(
    config: PredictorConfig, n_inputs: int, n_outputs: int, ahead: int
) -> dict[str, TensorSpec]:
    """What the weights of a config's members must be, as tensors() names them. Raises ContentError."""
    if not ahead <= whole_view(config.layers) <= MAX_VIEW:
        raise ContentError(
            f"the nets see {whole_view(config.layers)} frames, where {ahead} to {MAX_VIEW} is allowed"
        )
    return module_specs(
        lambda: TemporalNets(config, n_inputs, n_outputs, ahead, config.n_members), STORED
    )


class _Layers(nn.Module):
    """A linear layer of each of N nets, [N, B, T, n_inputs] -> [N, B, T, n_outputs]."""

    def __init__(self, n_nets: int, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_nets, n_inputs, n_outputs))
        self.bias = nn.Parameter(torch.empty(n_nets, 1, n_outputs))
        for values in (self.weight, self.bias):
            nn.init.uniform_(values, -(n_inputs**-0.5), n_inputs**-0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        flat = torch.baddbmm(self.bias, inputs.flatten(1, 2), self.weight)
        return flat.unflatten(1, inputs.shape[1:3])


class _Blocks(nn.Module):
    """A dilated convolution and what it changes, of each of N nets."""

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
        n = hidden.shape[2] - self.behind - self.ahead
        taps = [hidden[:, :, i * self.dilation :][:, :, :n] for i in range(self.kernel)]
        change: Tensor = self.mix(self.dropout(F.gelu(self.spread(torch.cat(taps, -1)))))
        return hidden[:, :, self.behind : self.behind + n] + change


def whole_view(layers: tuple[tuple[int, int], ...]) -> int:
    """How many frames besides its own a net of these layers sees."""
    return sum((kernel - 1) * dilation for kernel, dilation in layers)


def rate_share(index: int, n_steps: int, warm_up_steps: int) -> float:
    """Share of the learning rate at a step: a short rise, then half a cosine down to 2 %."""
    rise = min(1.0, (index + 1) / warm_up_steps)
    return rise * (0.02 + 0.49 * (1.0 + math.cos(math.pi * index / n_steps)))


def average_into(average: nn.Module, net: nn.Module, decay: float) -> None:
    """Move the average's parameters towards the net's."""
    with torch.no_grad():
        pairs = zip(average.parameters(), net.parameters(), strict=True)
        for kept, fresh in pairs:
            kept.lerp_(fresh, 1.0 - decay)


def frame_inputs(vectors: Tensor, per_frame: int) -> Tensor:
    """Vectors [..., F * per_frame, D] as frame inputs [..., F, per_frame * D]."""
    return vectors.reshape(*vectors.shape[:-2], -1, per_frame * vectors.shape[-1])
