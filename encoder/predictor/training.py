"""Training of the networks in MotionPredictors: augmented stretches of features, losses on the lips."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from talkhead.device import aligned_copy
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

LIPS_CENTERED = 0.7
"""Share of the lips' common motion that does not count as an error: their shape matters more than
their position.
"""
LIP_GAPS = ((13, 14), (82, 87), (312, 317))
"""Pairs of landmarks of the inner upper and lower lip, whose distance is how far the mouth is open."""
SILENCE_WEIGHT = 0.5
"""Weight of a frame without speech, in which the motion of the mouth matters little."""
MIN_SPREAD = 0.2
"""Share of the mean spread that is added to each dimension's, so that almost constant dimensions are
not amplified.
"""
MIN_DIVISOR = 1e-6
"""Smallest number that features are divided by."""
AUGMENTED_FRACTION = 0.5
"""Share of the stretches that are taken from an augmented copy."""
AVERAGING = 0.99
"""Decay per step of the running mean of the weights, which is the result."""
WARM_UP_STEPS = 20
MAX_GRADIENT = 2.0
"""Largest norm of a network's gradient."""
MIN_FRACTION = 0.8
"""Smallest share of training frames in a stretch."""
PREDICTION_BLOCK = 6000
"""Frames that all networks predict at a time, which bounds the memory."""


@dataclass(frozen=True)
class TrainingTensors:
    """Training data of one clip of F frames; values of frames that are not for training are 0.

    Attributes:
        vectors: Normalized features of the audio and of its augmented copies,
            [V, (behind + F + ahead) * per_frame, D], with zeros before and after the clip.
        targets: Mouth codes minus their mean, [F, K].
        weights: Weight of each frame, [F].
        shares: How often stretches that begin at each frame are drawn, relative to others, [F].
        lips: Displacement by one unit of each code, [K, P * 2], of P points in x and y, in units of
            the typical lip motion.
        gap: Displacement of the upper lip relative to the lower, in the same units, [K, P * 2].
        jaw: Displacement of the jaw, in the same units, [K, P * 2].
        inner: 1 for codes of the inner mouth, which move no point, [K].
        spread: Divisor of the features, [D].
        view: Receptive field of the networks.
    """

    vectors: Tensor
    targets: Tensor
    weights: Tensor
    shares: Tensor
    lips: Tensor
    gap: Tensor
    jaw: Tensor
    inner: Tensor
    spread: Tensor
    view: ReceptiveField

    @property
    def per_frame(self) -> int:
        """Feature vectors per video frame."""
        return self.vectors.shape[1] // (self.view.behind + len(self.targets) + self.view.ahead)


def vectors_per_frame(rate: float) -> int:
    """Compute the feature vectors per video frame.

    Args:
        rate: Feature vectors per second.

    Returns:
        A whole number, at least 1.

    Raises:
        TalkheadError: If the rate is not a multiple of FRAME_RATE.
    """
    n = round(rate / FRAME_RATE)
    if n < 1 or abs(n * FRAME_RATE - rate) > 1e-6:
        raise TalkheadError(
            f"features at {rate:g} vectors per second: a multiple of {FRAME_RATE} is needed"
        )
    return n


@contextmanager
def single_threaded() -> Iterator[None]:
    """Run a block with one thread, which is faster for such small networks.

    Afterwards, torch's number of threads and its global generator are as before.

    Yields:
        None.
    """
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
    shares: Float32 | None = None,
) -> TrainingTensors:
    """Prepare training data.

    Args:
        vectors: As in TrainingTensors, [V, n, D], in torch's own memory (`aligned`); not copied.
        targets: Mouth codes minus their mean, [F, K].
        weights: Weight of each frame, [F].
        basis: Displacement of the MOUTH_POINTS by one unit of each code, [K, P, 2].
        spread: Divisor of the features, [D].
        view: Receptive field of the networks.
        shares: As in TrainingTensors, [F]; None to draw all equally often.

    Returns:
        The training data.
    """

    def basis_of(points: tuple[int, ...]) -> Float32:
        return basis[:, [MOUTH_POINTS.index(point) for point in points]]

    lips = basis_of(LIPS)
    lips = lips - LIPS_CENTERED * lips.mean(1, keepdims=True)
    # The opening: upper lip points minus lower ones.
    gap = basis_of(tuple(top for top, _ in LIP_GAPS)) - basis_of(tuple(low for _, low in LIP_GAPS))
    # Errors are measured in units of the mean length of the lips' offsets.
    typical = np.linalg.norm(np.tensordot(targets[weights > 0], lips, 1), axis=-1).mean()

    def in_typical(points: Float32) -> Tensor:
        return aligned_copy((points / typical).reshape(len(basis), -1))

    return TrainingTensors(
        vectors=vectors,
        targets=aligned_copy(targets),
        weights=aligned_copy(weights),
        shares=torch.ones(len(targets)) if shares is None else aligned_copy(shares),
        lips=in_typical(lips),
        gap=in_typical(gap),
        jaw=in_typical(basis_of(JAW_LINE)),
        inner=aligned_copy((~basis.any((1, 2))).astype(np.float32)),
        spread=aligned_copy(spread),
        view=view,
    )


@dataclass(frozen=True)
class Task:
    """Training of one network.

    Attributes:
        data: Training data.
        held_out: Frames that are left out, [F] bool.
        seed: Determines its stretches and their augmentation.
    """

    data: TrainingTensors
    held_out: Tensor
    seed: int


def train_nets(
    tasks: Sequence[Task], nets: TemporalNets, config: PredictorConfig, on_step: Callable[[], None]
) -> TemporalNets:
    """Train several networks together.

    Args:
        tasks: One per network. Their data have equal dimensions and receptive fields.
        nets: The networks, with initial weights; they are changed.
        config: Settings of the training.
        on_step: Called after each step.

    Returns:
        The running mean of the networks, in evaluation mode.
    """
    samplers = [_Sampler(task, config) for task in tasks]
    bases = _Bases(*(torch.stack([getattr(t.data, k) for t in tasks]) for k in _Bases._fields))
    average = copy.deepcopy(nets)
    optimizer = torch.optim.AdamW(
        nets.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    nets.train()
    for index in range(config.n_steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * rate_share(index, config.n_steps, WARM_UP_STEPS)
        drawn = [sampler.draw() for sampler in samplers]
        inputs, targets, weights = (torch.stack(parts) for parts in zip(*drawn, strict=True))
        # The sum keeps the networks' gradients independent of each other.
        loss = _losses(nets(inputs) - targets, weights, bases, config).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        _clip_gradients(nets)
        optimizer.step()
        average_into(average, nets, min(AVERAGING, (1 + index) / (10 + index)))
        on_step()
    return average.eval()


class _Bases(NamedTuple):
    """Displacements by one unit of each code, as in TrainingTensors, for N networks: [N, ...]."""

    lips: Tensor
    gap: Tensor
    jaw: Tensor
    inner: Tensor


class _Sampler:
    """Draws training stretches for one network."""

    def __init__(self, task: Task, config: PredictorConfig) -> None:
        self._data, self._config = task.data, config
        self._weights = task.data.weights * (~task.held_out)
        self._starts = _starts(self._weights, config.n_frames)
        shares = task.data.shares[self._starts]
        # Equal shares are drawn without weights, as in earlier versions, to give the same numbers.
        self._shares = None if bool((shares == shares[0]).all()) else shares
        self._generator = torch.Generator().manual_seed(task.seed)

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Draw a batch.

        Returns:
            Inputs [B, T + behind + ahead, D], codes [B, T, K] and weights [B, T].
        """
        data, config, generator = self._data, self._config, self._generator
        n = config.batch_size
        if self._shares is None:
            index = torch.randint(len(self._starts), (n,), generator=generator)
        else:
            index = torch.multinomial(self._shares, n, replacement=True, generator=generator)
        starts = self._starts[index]
        vectors = _stretches(data, starts, config.n_frames, generator)
        augmented = _augment(vectors, data.spread, config, generator)
        frames = starts[:, None] + torch.arange(config.n_frames)  # [B, T]
        inputs = frame_inputs(augmented, data.per_frame)
        return inputs, data.targets[frames], self._weights[frames]


def _starts(weights: Tensor, n_frames: int) -> Tensor:
    """Return first frames, [S], of stretches with enough weights [F] above 0, else of the best ones."""
    shares = (weights > 0).float().unfold(0, n_frames, 1).mean(-1)
    return torch.nonzero(shares >= min(MIN_FRACTION, float(shares.max()))).flatten()


def _losses(error: Tensor, weight: Tensor, bases: _Bases, config: PredictorConfig) -> Tensor:
    """Compute each network's loss, [N], of errors of codes [N, B, T, K] with weights [N, B, T].

    Mean errors of lips, opening, jaw, lip velocity and inner mouth.
    """
    # Errors of codes as offsets of points, [N, B, T, P * 2] each.
    lips, gap, jaw = (torch.einsum("nbtk,nkp->nbtp", error, basis) for basis in bases[:3])
    inner = error * bases.inner[:, None, None]
    velocity = (lips[:, :, 1:] - lips[:, :, :-1], weight[:, :, 1:] * weight[:, :, :-1])
    return (
        lip_distance(lips, weight)
        + config.gap_weight * lip_distance(gap, weight)
        + config.jaw_weight * lip_distance(jaw, weight)
        + config.velocity_weight * lip_distance(*velocity)
        + config.inner_weight * _inner_distance(inner, weight)
    )


def _clip_gradients(nets: TemporalNets) -> None:
    """Scale each network's gradient to a norm of at most MAX_GRADIENT."""
    gradients = [p.grad for p in nets.parameters() if p.grad is not None]
    squares = torch.stack([g.square().sum((1, 2)) for g in gradients]).sum(0)  # [N]
    shares = (MAX_GRADIENT / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(shares[:, None, None])


def feature_spread(values: Float64) -> Float32:
    """Compute the divisor of each feature.

    Args:
        values: Features, [n, D].

    Returns:
        [D], above 0.
    """
    spread = values.std(0)
    return np.asarray(spread + MIN_SPREAD * spread.mean() + MIN_DIVISOR, np.float32)


def lip_distance(offsets: Tensor, weights: Tensor) -> Tensor:
    """Average the lengths of point offsets over points and, weighted, over frames.

    Args:
        offsets: [N, ..., F, P * 2].
        weights: [N, ..., F].

    Returns:
        [N].
    """
    squares = offsets.unflatten(-1, (-1, 2)).square().sum(-1)
    return _weighted(torch.sqrt(squares + 1e-6).mean(-1), weights)


def _inner_distance(errors: Tensor, weights: Tensor) -> Tensor:
    """Return weighted mean lengths [N] of code errors [N, ..., F, K], weights [N, ..., F]."""
    return _weighted(torch.sqrt(errors.square().sum(-1) + 1e-6), weights)


def _weighted(lengths: Tensor, weights: Tensor) -> Tensor:
    """Return the mean [N] of lengths [N, ..., F] with weights [N, ..., F]."""
    return (lengths * weights).flatten(1).sum(1) / weights.flatten(1).sum(1).clamp(min=1e-6)


def _stretches(
    data: TrainingTensors, starts: Tensor, n_frames: int, generator: torch.Generator
) -> Tensor:
    """Return features of stretches of n_frames T beginning at `starts` [B], with their context.

    [B, (T + behind + ahead) * per_frame, D].
    """
    view, per_frame = data.view, data.per_frame
    length = (n_frames + view.behind + view.ahead) * per_frame
    moments = (starts * per_frame)[:, None] + torch.arange(length)
    return data.vectors[_feature_copies(data, len(starts), generator)[:, None], moments]


def _feature_copies(data: TrainingTensors, n: int, generator: torch.Generator) -> Tensor:
    """Draw one of V copies for each of n stretches, [n]; often the first, which is the original."""
    n_others = len(data.vectors) - 1
    if n_others == 0:
        return torch.zeros(n, dtype=torch.long)
    others = torch.randint(1, n_others + 1, (n,), generator=generator)
    return others * (torch.rand(n, generator=generator) < AUGMENTED_FRACTION)


def _augment(
    vectors: Tensor, spread: Tensor, config: PredictorConfig, generator: torch.Generator
) -> Tensor:
    """Return features [B, T, D] with a different level, noise and masked dimensions."""
    n, _, dim = vectors.shape
    # A louder voice adds the same to all features, so less to those that were divided by more.
    typical = config.gain_std * spread.mean()
    level = torch.randn(n, 1, 1, generator=generator) * typical / spread
    noise = torch.randn(vectors.shape, generator=generator) * config.noise_std
    return (vectors + level + noise) * _dimension_mask(n, dim, config, generator)[:, None]


def _dimension_mask(
    n: int, dim: int, config: PredictorConfig, generator: torch.Generator
) -> Tensor:
    """Return 1 where a dimension stays, 0 where it is masked, [n, dim] (SpecAugment)."""
    shape = (n, config.n_masks, 1)
    width = torch.randint(config.mask_width + 1, shape, generator=generator)
    first = (torch.rand(shape, generator=generator) * (dim - width + 1)).long()
    index = torch.arange(dim)
    return ((index < first) | (index >= first + width)).all(1).float()


def predicted_codes(data: TrainingTensors, nets: TemporalNets) -> Tensor:
    """Predict all frames of a clip with each network.

    Args:
        data: Training data of the clip.
        nets: N networks.

    Returns:
        Mouth codes minus their mean, [N, F, K].
    """
    inputs = frame_inputs(data.vectors[:1], data.per_frame).expand(len(nets), -1, -1, -1)
    around = data.view.behind + data.view.ahead
    with torch.no_grad():
        parts = [
            nets(inputs[:, :, start : start + PREDICTION_BLOCK + around])[:, 0]
            for start in range(0, len(data.targets), PREDICTION_BLOCK)
        ]
    return torch.cat(parts, dim=1)
