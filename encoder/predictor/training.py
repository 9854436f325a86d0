"""How the nets of MotionPredictors learn: stretches of altered sound, errors as lips show them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from talkhead.device import aligned
from talkhead.encoder.predictor.network import (
    PredictorConfig,
    ReceptiveField,
    TemporalNets,
    average_into,
    frame_inputs,
    rate_share,
)
from talkhead.errors import TalkheadError
from talkhead.face import JAW_LINE, LIPS, MOUTH_POINTS
from talkhead.types import FRAME_RATE, Float32, Float64

LIPS_CENTRED = 0.7
"""Share of the lips' common motion that is no error: their shape matters more than their place."""
LIP_GAPS = ((13, 14), (82, 87), (312, 317))
"""Landmarks of the inner lips, upper and lower, whose distance is how far the mouth is open."""
SILENCE_WEIGHT = 0.5
"""How much a frame counts in which nothing is said: the mouth may be doing anything."""
MIN_SPREAD = 0.2
"""Share of the features' mean spread that is added to each one's, so that dimensions that hardly
vary are not blown up."""
MIN_DIVISOR = 1e-6
"""Nothing is divided by less, whatever the features are."""
AUGMENTED_FRACTION = 0.5
"""Of the stretches, how many are learned from as they might have sounded."""
AVERAGING = 0.99
"""Decay, a step, of the running mean of the weights, which is what is kept."""
WARM_UP_STEPS = 20
MAX_GRADIENT = 2.0
MIN_FRACTION = 0.8
"""A stretch is learned from if so many of its frames may be."""
PREDICTED_AT_ONCE = 6000
"""Frames that nets predict at once when all of a lesson is asked for: they take memory."""


@dataclass(frozen=True)
class TrainingTensors:
    """What there is to learn, F frames; of frames that may not be learned from all values are 0.

    vectors: [V, (behind + F + ahead) * per_frame, D] normalised features, 0 before and after for as far
    as nets see, of the sound as it is and as it might have been (another voice, noise).
    targets: [F, K] mouth codes less their mean.
    weights: [F] how much a frame counts. lips, gap, jaw: [K, P * 2] what a unit of code moves on
    screen, x and y of P points (gap: of the upper lip against the lower), in units of the typical
    lip motion. inner: [K] 1 where a code moves nothing: what shows between the lips. spread: [D] of the
    features. view: of the nets that learn it.
    """

    vectors: Tensor
    targets: Tensor
    weights: Tensor
    lips: Tensor
    gap: Tensor
    jaw: Tensor
    inner: Tensor
    spread: Tensor
    view: ReceptiveField

    @property
    def per_frame(self) -> int:
        return self.vectors.shape[1] // (self.view.behind + len(self.targets) + self.view.ahead)


def vectors_per_frame(rate: float) -> int:
    """Feature vectors a video frame. Raises TalkheadError when that is no whole number."""
    n = round(rate / FRAME_RATE)
    if n < 1 or abs(n * FRAME_RATE - rate) > 1e-6:
        raise TalkheadError(
            f"features at {rate:g} vectors a second: a multiple of {FRAME_RATE} is needed"
        )
    return n


@contextmanager
def alone() -> Iterator[None]:
    """One thread, which is faster for nets so small, and torch's global generator put back after."""
    n_threads = torch.get_num_threads()
    with torch.random.fork_rng([]):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(n_threads)


def make_training_tensors(
    vectors: Tensor,
    targets: Float32,
    weights: Float32,
    basis: Float32,
    spread: Float32,
    view: ReceptiveField,
) -> TrainingTensors:
    """The lesson of mouth codes that move the MOUTH_POINTS by basis [K, P, 2]; else as in Lesson.

    vectors: in torch's own memory, see `aligned`; they aren't copied.
    """

    def moved_by(points: tuple[int, ...]) -> Float32:
        return basis[:, [MOUTH_POINTS.index(point) for point in points]]

    lips = moved_by(LIPS)
    lips = lips - LIPS_CENTRED * lips.mean(1, keepdims=True)
    gap = moved_by(tuple(top for top, _ in LIP_GAPS)) - moved_by(tuple(low for _, low in LIP_GAPS))
    typical = np.linalg.norm(np.tensordot(targets[weights > 0], lips, 1), axis=-1).mean()

    def in_typical(points: Float32) -> Tensor:
        return aligned((points / typical).reshape(len(basis), -1))

    return TrainingTensors(
        vectors=vectors,
        targets=aligned(targets),
        weights=aligned(weights),
        lips=in_typical(lips),
        gap=in_typical(gap),
        jaw=in_typical(moved_by(JAW_LINE)),
        inner=aligned((~basis.any((1, 2))).astype(np.float32)),
        spread=aligned(spread),
        view=view,
    )


@dataclass(frozen=True)
class Task:
    """What one net learns: a lesson, but for the frames held out, [F] bool, from this seed on."""

    lesson: TrainingTensors
    held_out: Tensor
    seed: int


def train_nets(
    tasks: Sequence[Task], nets: TemporalNets, config: PredictorConfig, on_step: Callable[[], None]
) -> TemporalNets:
    """The nets, one a task, trained at once and in evaluation mode.

    Lessons are alike in all but what is to be learned: dimensions and view.
    """
    pupils = [_Learner(task, config) for task in tasks]
    moves = _Moves(*(torch.stack([getattr(t.lesson, k) for t in tasks]) for k in _Moves._fields))
    average = copy.deepcopy(nets)
    optimizer = torch.optim.AdamW(
        nets.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    nets.train()
    for index in range(config.n_steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * rate_share(index, config.n_steps, WARM_UP_STEPS)
        drawn = [pupil.stretches() for pupil in pupils]
        inputs, targets, weights = (torch.stack(parts) for parts in zip(*drawn, strict=True))
        loss = _losses(nets(inputs) - targets, weights, moves, config).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        _clip_gradients(nets)
        optimizer.step()
        average_into(average, nets, min(AVERAGING, (1 + index) / (10 + index)))
        on_step()
    return average.eval()


class _Moves(NamedTuple):
    """What units of code move, of each net; as in Lesson."""

    lips: Tensor
    gap: Tensor
    jaw: Tensor
    inner: Tensor


class _Learner:
    """Draws what one net learns from, step by step."""

    def __init__(self, task: Task, config: PredictorConfig) -> None:
        self._training_tensors, self._config = task.lesson, config
        self._weights = task.lesson.weights * (~task.held_out)
        self._starts = _starts(self._weights, config.n_frames)
        self._generator = torch.Generator().manual_seed(task.seed)

    def stretches(self) -> tuple[Tensor, Tensor, Tensor]:
        """Frame inputs [B, T + behind + ahead, D], codes [B, T, K] and weights [B, T] of some
        stretches."""
        lesson, config, generator = self._training_tensors, self._config, self._generator
        index = torch.randint(len(self._starts), (config.batch_size,), generator=generator)
        starts = self._starts[index]
        heard = _heard(lesson, starts, config.n_frames, generator)
        altered = _altered(heard, lesson.spread, config, generator)
        frames = starts[:, None] + torch.arange(config.n_frames)
        inputs = frame_inputs(altered, lesson.per_frame)
        return inputs, lesson.targets[frames], self._weights[frames]


def _starts(weights: Tensor, n_frames: int) -> Tensor:
    """First frames of the stretches that are learned from; all when none is good enough."""
    shares = (weights > 0).float().unfold(0, n_frames, 1).mean(-1)
    return torch.nonzero(shares >= min(MIN_FRACTION, float(shares.max()))).flatten()


def _losses(error: Tensor, weight: Tensor, moves: _Moves, config: PredictorConfig) -> Tensor:
    """Each net's mean error of lips and jaw, of the lips' velocity and of what shows between them, [N].

    error: [N, B, T, K] of codes. weight: [N, B, T].
    """
    lips, gap, jaw = (torch.einsum("nbtk,nkp->nbtp", error, move) for move in moves[:3])
    inner = error * moves.inner[:, None, None]
    moved = (lips[:, :, 1:] - lips[:, :, :-1], weight[:, :, 1:] * weight[:, :, :-1])
    return (
        lip_distance(lips, weight)
        + config.gap_weight * lip_distance(gap, weight)
        + config.jaw_weight * lip_distance(jaw, weight)
        + config.velocity_weight * lip_distance(*moved)
        + config.inner_weight * _inner_distance(inner, weight)
    )


def _clip_gradients(nets: TemporalNets) -> None:
    """Each net's gradient at most MAX_GRADIENT long."""
    gradients = [p.grad for p in nets.parameters() if p.grad is not None]
    squares = torch.stack([g.square().sum((1, 2)) for g in gradients]).sum(0)
    shares = (MAX_GRADIENT / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(shares[:, None, None])


def feature_spread(values: Float64) -> Float32:
    """What normalised features [n, D] are divided by, [D]."""
    spread = values.std(0)
    return np.asarray(spread + MIN_SPREAD * spread.mean() + MIN_DIVISOR, np.float32)


def lip_distance(offsets: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean lengths [N] of point offsets [N, ..., F, P * 2], weights [N, ..., F]."""
    squares = offsets.unflatten(-1, (-1, 2)).square().sum(-1)
    return _weighted(torch.sqrt(squares + 1e-6).mean(-1), weights)


def _inner_distance(errors: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean lengths [N] of code errors [N, ..., F, K], weights [N, ..., F]."""
    return _weighted(torch.sqrt(errors.square().sum(-1) + 1e-6), weights)


def _weighted(lengths: Tensor, weights: Tensor) -> Tensor:
    return (lengths * weights).flatten(1).sum(1) / weights.flatten(1).sum(1).clamp(min=1e-6)


def _heard(
    lesson: TrainingTensors, starts: Tensor, n_frames: int, generator: torch.Generator
) -> Tensor:
    """Features [B, T, D] of stretches of n_frames and what their view adds; 0 beyond the clip."""
    view, per_frame = lesson.view, lesson.per_frame
    length = (n_frames + view.behind + view.ahead) * per_frame
    moments = (starts * per_frame)[:, None] + torch.arange(length)
    return lesson.vectors[_feature_copies(lesson, len(starts), generator)[:, None], moments]


def _feature_copies(lesson: TrainingTensors, n: int, generator: torch.Generator) -> Tensor:
    """Which of its V hearings each of n stretches is learned from: half of them the first."""
    n_others = len(lesson.vectors) - 1
    if n_others == 0:
        return torch.zeros(n, dtype=torch.long)
    others = torch.randint(1, n_others + 1, (n,), generator=generator)
    return others * (torch.rand(n, generator=generator) < AUGMENTED_FRACTION)


def _altered(
    vectors: Tensor, spread: Tensor, config: PredictorConfig, generator: torch.Generator
) -> Tensor:
    """Features [B, T, D] at another level, with noise, and with stretches of dimensions hidden."""
    n, _, dim = vectors.shape
    typical = config.gain_std * spread.mean()
    level = torch.randn(n, 1, 1, generator=generator) * typical / spread
    noise = torch.randn(vectors.shape, generator=generator) * config.noise_std
    return (vectors + level + noise) * _shown(n, dim, config, generator)[:, None]


def _shown(n: int, dim: int, config: PredictorConfig, generator: torch.Generator) -> Tensor:
    """1 where a dimension is left as it is, 0 where it is hidden, [n, dim] (SpecAugment)."""
    shape = (n, config.n_masks, 1)
    width = torch.randint(config.mask_width + 1, shape, generator=generator)
    first = (torch.rand(shape, generator=generator) * (dim - width + 1)).long()
    index = torch.arange(dim)
    return ((index < first) | (index >= first + width)).all(1).float()


def predicted_codes(lesson: TrainingTensors, nets: TemporalNets) -> Tensor:
    """What each of N nets predicts of all frames of a lesson, [N, F, K]."""
    inputs = frame_inputs(lesson.vectors[:1], lesson.per_frame).expand(len(nets), -1, -1, -1)
    around = lesson.view.behind + lesson.view.ahead
    with torch.no_grad():
        parts = [
            nets(inputs[:, :, start : start + PREDICTED_AT_ONCE + around])[:, 0]
            for start in range(0, len(lesson.targets), PREDICTED_AT_ONCE)
        ]
    return torch.cat(parts, dim=1)
