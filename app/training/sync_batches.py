"""Training batches of the sync model: windows of lips and audio, augmented to resemble other people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from talkhead.app.evaluation.measures.sync_model import CHIN, LAGS, MAX_LAG, N_MELS, VECTORS
from talkhead.app.training.tracked_video import Span
from talkhead.errors import FootageError
from talkhead.types import Float32, Float64

_LOOP = [(10 - i) % 20 for i in range(20)]
MIRROR = [*_LOOP, *(20 + i for i in _LOOP), *(40 + i for i in reversed(range(len(CHIN))))]
"""Order of POINTS in the mirrored face; both lip lines run once around the mouth from one corner."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of the training. Standard deviations refer to augmentation, drawn per window.

    Attributes:
        n_steps: Steps of the optimizer.
        batch_size: Windows in a batch.
        learning_rate: Maximum learning rate.
        weight_decay: Weight decay of AdamW.
        averaging: Share of new weights in their running mean.
        frames: Minimum and maximum number of frames of lips in a window, at most TEST_FRAMES.
        tempo: Largest factor by which a window is made faster or slower.
        stretch_std: Deviation of the affine map of the lips.
        gain_std: Deviation of the amplitude of each point's motion.
        jitter: Deviation of the points per frame, in eye distances.
        drift: Deviation of slow motion of all points, in eye distances.
        warp_std: Deviation of the scale of the mel axis, logarithmic.
        snr: Range of noise levels below the largest energy, natural logarithm.
        mask_share: Share of the windows in which mel bands are masked.
        n_wrong: Number of other windows whose audio is compared with each window's lips.
        wrong_weight: Weight of the loss of this comparison.
        blur: Target probability of each lag next to the true one.
    """

    n_steps: int = 400
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    averaging: float = 0.01
    frames: tuple[int, int] = (36, 45)
    tempo: float = 1.15
    stretch_std: float = 0.08
    gain_std: float = 0.25
    jitter: float = 0.003
    drift: float = 0.01
    warp_std: float = 0.08
    snr: tuple[float, float] = (4.0, 14.0)
    mask_share: float = 0.7
    n_wrong: int = 8
    wrong_weight: float = 2.0
    blur: float = 0.15


@dataclass(frozen=True)
class Clip:
    """Inputs of the sync model for a video of F frames.

    Attributes:
        name: Name of the video.
        source: Path that it was read from.
        points: Lip and chin points without head motion, [F, P, 2].
        mel: Log-mel energies, [F, VECTORS, N_MELS].
        train: Spans to train on.
        validation: Spans that are not trained on.
    """

    name: str
    source: str
    points: Float32
    mel: Float32
    train: tuple[Span, ...]
    validation: tuple[Span, ...]


@dataclass(frozen=True)
class Batch:
    """A batch of windows.

    Attributes:
        points: [B, T, P, 2].
        mel: [B, T + 2 MAX_LAG, VECTORS, N_MELS].
        lag: Index of the true lag in LAGS, [B].
    """

    points: Tensor
    mel: Tensor
    lag: Tensor


class Windows:
    """Draws windows from clips.

    A source is drawn in proportion to the square root of its length, so that people with little
    footage have some influence.
    """

    def __init__(self, clips: Sequence[Clip], config: TrainingConfig, seed: int) -> None:
        """Set up the draws.

        Args:
            clips: The clips.
            config: Settings of the training.
            seed: Determines all windows.

        Raises:
            FootageError: If no clip has a span to train on.
        """
        self._clips = [clip for clip in clips if clip.train]
        if not self._clips:
            raise FootageError("nothing to train on: no take of 2 s with a face in every frame")
        lengths = np.array([sum(b - a for a, b in clip.train) for clip in self._clips], np.float64)
        sources = np.array([clip.source for clip in self._clips])
        shares = [
            n / np.sqrt(lengths[sources == s].sum()) for n, s in zip(lengths, sources, strict=True)
        ]
        self._shares = np.array(shares) / np.sum(shares)
        self._config = config
        self._random = np.random.default_rng(seed)

    def draw(self) -> Batch:
        """Draw an augmented batch, each window with its true lag anywhere in the range.

        Returns:
            The batch.
        """
        low, high = self._config.frames
        n_frames = int(self._random.integers(low, high + 1))
        chosen = self._random.choice(len(self._clips), self._config.batch_size, p=self._shares)
        pieces = [self._window(self._clips[i], n_frames) for i in chosen]
        points, mel, lags = zip(*pieces, strict=True)
        return Batch(
            change_points(torch.from_numpy(np.stack(points)), self._config, self._random),
            change_mel(torch.from_numpy(np.stack(mel)), self._config, self._random),
            torch.tensor(lags),
        )

    def _window(self, clip: Clip, n_frames: int) -> tuple[Float32, Float32, int]:
        """Return lips, audio and lag of a window within a span, at a random tempo.

        Lips are [T, P, 2], audio is [T + 2 MAX_LAG, VECTORS, N_MELS].
        """
        random, n_sound = self._random, n_frames + 2 * MAX_LAG
        start, stop = clip.train[int(random.choice(len(clip.train), p=_lengths(clip.train)))]
        slack = stop - start - 1
        tempo = min(
            random.uniform(1 / self._config.tempo, self._config.tempo), slack / (n_sound - 1)
        )
        first = start + random.uniform(0, slack - (n_sound - 1) * tempo)
        lag = int(random.integers(len(LAGS)))
        frames = first + np.arange(n_sound, dtype=np.float64) * tempo
        middle = VECTORS // 2
        within = np.arange(VECTORS, dtype=np.float64) - middle
        vectors = VECTORS * frames[:, None] + middle + within * tempo
        lips = _between(clip.points, frames[lag : lag + n_frames])
        return lips, _between(clip.mel.reshape(-1, N_MELS), vectors), lag


def _lengths(spans: Sequence[Span]) -> Float64:
    """Share of all frames in each span, [n]."""
    lengths = np.array([stop - start for start, stop in spans], np.float64)
    return np.asarray(lengths / lengths.sum())


def _between(values: Float32, positions: Float64) -> Float32:
    """Values [N, ...] at fractional positions of any shape, linearly interpolated."""
    inside = np.clip(positions, 0, len(values) - 1.001)
    before = inside.astype(np.int64)
    share = (inside - before).astype(np.float32)
    share = share.reshape(share.shape + (1,) * (values.ndim - 1))
    return np.asarray(values[before] * (1 - share) + values[before + 1] * share, np.float32)


def change_points(points: Tensor, config: TrainingConfig, random: np.random.Generator) -> Tensor:
    """Augment lips to resemble other people and other trackers.

    They are mirrored, stretched, and each point's motion is scaled; jitter and drift are added.

    Args:
        points: [B, T, P, 2].
        config: Settings of the training.
        random: Draws the changes.

    Returns:
        [B, T, P, 2].
    """
    n, n_frames, n_points = points.shape[:3]
    # Another face: mirrored in half of the windows, and stretched.
    mirrored = points[:, :, MIRROR] * torch.tensor([-1.0, 1.0])
    points = torch.where(_uniform(random, (n, 1, 1, 1)) < 0.5, mirrored, points)
    stretch = torch.eye(2) + config.stretch_std * _normal(random, (n, 2, 2))
    points = torch.einsum("btpi,bij->btpj", points, stretch)
    # Another way of speaking: each point moves more or less.
    mean = points.mean(1, keepdim=True)
    gain = 1 + config.gain_std * _normal(random, (n, 1, n_points, 2))
    # Another tracker: jitter, and a slow wave of all points.
    jitter = config.jitter * torch.exp(0.7 * _normal(random, (n, 1, 1, 1)))
    times = torch.linspace(-1, 1, n_frames)[None, :, None, None]
    wave = _uniform(random, (n, 1, 1, 2)) * 12 * times + 2 * math.pi * _uniform(
        random, (n, 1, 1, 2)
    )
    drift = config.drift * _normal(random, (n, 1, 1, 2)) * torch.sin(wave)
    return mean + (points - mean) * gain + jitter * _normal(random, points.shape) + drift


def change_mel(mel: Tensor, config: TrainingConfig, random: np.random.Generator) -> Tensor:
    """Augment audio to resemble other voices and rooms.

    The mel axis is stretched, colored noise is added, contrast is changed, and bands are masked.

    Args:
        mel: [B, T, VECTORS, M].
        config: Settings of the training.
        random: Draws the changes.

    Returns:
        [B, T, VECTORS, M].
    """
    n, _, _, n_mels = mel.shape
    # Another voice: formants at other frequencies.
    mel = _warp_mel(mel, torch.exp(config.warp_std * _normal(random, (n, 2))))
    # Another room: noise of a random color, and another contrast.
    low, high = config.snr
    level = mel.amax((1, 2, 3), keepdim=True) - (
        low + (high - low) * _uniform(random, (n, 1, 1, 1))
    )
    waves = torch.cos(math.pi * torch.arange(4)[:, None] * torch.linspace(0, 1, n_mels))
    color = 1.5 * _normal(random, (n, 4)) @ waves
    noise = level + color[:, None, None] + 0.5 * _normal(random, mel.shape)
    mel = torch.logaddexp(mel, noise) * (0.8 + 0.4 * _uniform(random, (n, 1, 1, 1)))
    # Another microphone: a range of bands and the uppermost ones may be missing.
    bands = torch.arange(n_mels)
    first = _uniform(random, (n, 1)) * (n_mels - 4)
    width = 8 * _uniform(random, (n, 1)) * (_uniform(random, (n, 1)) < config.mask_share)
    top = n_mels * (0.55 + 0.4 * _uniform(random, (n, 1)))
    top = torch.where(_uniform(random, (n, 1)) < 0.4 * config.mask_share, top, n_mels)
    lost = ((bands >= first) & (bands < first + width)) | (bands >= top)
    return torch.where(lost[:, None, None], mel.amin((1, 2, 3), keepdim=True), mel)


def _warp_mel(mel: Tensor, scales: Tensor) -> Tensor:
    """Stretch the mel axis of windows [B, T, VECTORS, M] by scales [B, 2] at its lower and upper end."""
    n, n_frames, n_vectors, n_mels = mel.shape
    bands = torch.arange(n_mels, dtype=torch.float32)
    share = bands / (n_mels - 1)
    rates = scales[:, :1] * (1 - share) + scales[:, 1:] * share
    places = (bands * rates).clamp(0, n_mels - 1.001)
    below = places.floor().long()
    share = (places - below)[:, None, None]
    shape = (n, n_frames, n_vectors, n_mels)
    lower = mel.gather(3, below[:, None, None].expand(shape))
    upper = mel.gather(3, (below + 1)[:, None, None].expand(shape))
    return lower * (1 - share) + upper * share


def _normal(random: np.random.Generator, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers of a shape."""
    return torch.from_numpy(random.standard_normal(tuple(shape), np.float32))


def _uniform(random: np.random.Generator, shape: Sequence[int]) -> Tensor:
    """Numbers of a shape in [0, 1)."""
    return torch.from_numpy(random.random(tuple(shape), np.float32))
