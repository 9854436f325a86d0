"""How one net of a MotionPredictor learns: stretches of altered sound, errors as lips show them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkhead.encoder.network import (
    PredictorConfig,
    TemporalNet,
    average_into,
    context_frames,
    frame_inputs,
)

AVERAGING = 0.99
"""Decay, a step, of the running mean of the weights, which is what is kept."""
WARM_UP_STEPS = 20
MAX_GRADIENT = 2.0
LEAST_SHARE = 0.8
"""A stretch is learned from if so many of its frames may be."""


@dataclass(frozen=True)
class Lesson:
    """What there is to learn, F frames; of frames that may not be learned from all values are 0.

    vectors: [F * per_frame, D] normalised features. targets: [F, K] mouth codes less their mean.
    weights: [F] how much a frame counts. lips, gap, jaw: [K, P * 2] what a unit of code moves on
    screen, x and y of P points (gap: of the upper lip against the lower), in units of the typical
    lip motion. spread: [D] of the features.
    """

    vectors: Tensor
    targets: Tensor
    weights: Tensor
    lips: Tensor
    gap: Tensor
    jaw: Tensor
    spread: Tensor

    @property
    def per_frame(self) -> int:
        return len(self.vectors) // len(self.targets)


def train_member(
    lesson: Lesson,
    held_out: Tensor,
    net: TemporalNet,
    config: PredictorConfig,
    generator: torch.Generator,
    on_step: Callable[[], None],
) -> TemporalNet:
    """The net, trained on all frames of the lesson but held_out [F] bool, in evaluation mode."""
    weights = lesson.weights * (~held_out)
    starts = _starts(weights, config.n_frames)
    average = copy.deepcopy(net)
    optimiser = torch.optim.AdamW(
        net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    net.train()
    for index in range(config.n_steps):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * _schedule(index, config.n_steps)
        chosen = starts[torch.randint(len(starts), (config.batch_size,), generator=generator)]
        loss = _loss(lesson, weights, chosen, net, config, generator)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), MAX_GRADIENT)
        optimiser.step()
        average_into(average, net, min(AVERAGING, (1 + index) / (10 + index)))
        on_step()
    return average.eval()


def _starts(weights: Tensor, n_frames: int) -> Tensor:
    """First frames of the stretches that are learned from; all when none is good enough."""
    shares = (weights > 0).float().unfold(0, n_frames, 1).mean(-1)
    return torch.nonzero(shares >= min(LEAST_SHARE, float(shares.max()))).flatten()


def _schedule(index: int, n_steps: int) -> float:
    """Share of the learning rate: a short rise, then half a cosine down to 2 %."""
    rise = min(1.0, (index + 1) / WARM_UP_STEPS)
    return rise * (0.02 + 0.49 * (1.0 + math.cos(math.pi * index / n_steps)))


def _loss(
    lesson: Lesson,
    weights: Tensor,
    starts: Tensor,
    net: TemporalNet,
    config: PredictorConfig,
    generator: torch.Generator,
) -> Tensor:
    """Mean error of lips and jaw and of the lips' velocity over stretches, a scalar."""
    frames = starts[:, None] + torch.arange(config.n_frames)
    vectors = _altered(_heard(lesson, starts, config), lesson.spread, config, generator)
    predicted = net(frame_inputs(vectors, lesson.per_frame)).transpose(1, 2)
    error = predicted - lesson.targets[frames]
    weight = weights[frames]
    lips = error @ lesson.lips
    moved = (lips[:, 1:] - lips[:, :-1], weight[:, 1:] * weight[:, :-1])
    return (
        lip_distance(lips, weight)
        + config.gap_weight * lip_distance(error @ lesson.gap, weight)
        + config.jaw_weight * lip_distance(error @ lesson.jaw, weight)
        + config.velocity_weight * lip_distance(*moved)
    )


def lip_distance(offsets: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean length of point offsets [..., F, P * 2], weights [..., F]."""
    squares = offsets.unflatten(-1, (-1, 2)).square().sum(-1)
    lengths = torch.sqrt(squares + 1e-6).mean(-1)
    return (lengths * weights).sum() / weights.sum().clamp(min=1e-6)


def _heard(lesson: Lesson, starts: Tensor, config: PredictorConfig) -> Tensor:
    """Features [B, T, D] of stretches and their context; 0 beyond the clip."""
    margin = context_frames(config.layers) * lesson.per_frame
    length = config.n_frames * lesson.per_frame + 2 * margin
    padded = F.pad(lesson.vectors, (0, 0, margin, margin))
    return padded[(starts * lesson.per_frame)[:, None] + torch.arange(length)]


def _altered(
    vectors: Tensor, spread: Tensor, config: PredictorConfig, generator: torch.Generator
) -> Tensor:
    """Features [B, T, D] at another level, with noise, and with stretches of dimensions hidden."""
    n, _, dim = vectors.shape
    level = torch.randn(n, 1, 1, generator=generator) * config.gain_std / spread
    noise = torch.randn(vectors.shape, generator=generator) * config.noise_std
    return (vectors + level + noise) * _shown(n, dim, config, generator)[:, None]


def _shown(n: int, dim: int, config: PredictorConfig, generator: torch.Generator) -> Tensor:
    """1 where a dimension is left as it is, 0 where it is hidden, [n, dim] (SpecAugment)."""
    shape = (n, config.n_masks, 1)
    width = torch.randint(config.mask_width + 1, shape, generator=generator)
    first = (torch.rand(shape, generator=generator) * (dim - width + 1)).long()
    index = torch.arange(dim)
    return ((index < first) | (index >= first + width)).all(1).float()


def heard_codes(lesson: Lesson, net: TemporalNet, config: PredictorConfig) -> Tensor:
    """What a net predicts of all frames of a lesson, [F, K]."""
    margin = context_frames(config.layers) * lesson.per_frame
    padded = F.pad(lesson.vectors, (0, 0, margin, margin))
    with torch.no_grad():
        codes: Tensor = net(frame_inputs(padded[None], lesson.per_frame))[0].T
    return codes
