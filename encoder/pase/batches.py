"""Training batches: augmented stretches of speech at varying speed, some of them with lips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from talkhead.encoder.pase.augment import AugmentConfig, Augmenter, change_speed
from talkhead.encoder.pase.corpus import (
    LABELS_PER_FRAME,
    SAMPLES_PER_FRAME,
    SPLITS,
    CorpusShard,
)
from talkhead.errors import TalkheadError
from talkhead.types import FRAME_RATE, Float32, Int, UInt8

N_BABBLE = 400
"""Stretches of speech that babble noise is made of."""
BABBLE_S = 6.0
"""Their length in seconds."""


@dataclass(frozen=True)
class BatchConfig:
    """Settings of the batches.

    Attributes:
        n_rows: Stretches in a batch.
        n_seen: Number of them with lips. The others come from shards without lips, if there are any.
        n_frames: Video frames in a stretch.
        speed: Largest factor by which a stretch is made faster or slower.
        as_it_was: Share of the stretches whose speed is not changed.
        power: The probability of drawing from a shard is proportional to its length raised to this power.
        lip_shift: Largest shift of lip crops, in pixels.
        lip_light: Standard deviation of changes of contrast and brightness.
    """

    n_rows: int = 16
    n_seen: int = 4
    n_frames: int = 100
    speed: float = 1.15
    as_it_was: float = 0.35
    power: float = 0.6
    lip_shift: int = 2
    lip_light: float = 0.2


@dataclass(frozen=True)
class Batch:
    """B stretches of F frames; the first S of them with lips.

    Attributes:
        noisy: Augmented waveforms, [B, F * 640].
        clean: The waveforms before augmentation, [B, F * 640].
        labels: Indices into PHONES or UNKNOWN, [B, F * 2].
        lips: Lip crops, [S, F, H, W] in [0, 1].
        mouth: Offsets from the speaker's mean mouth, [S, F, 2 P], in units of the typical offset.
    """

    noisy: Tensor
    clean: Tensor
    labels: Tensor
    lips: Tensor
    mouth: Tensor

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to a device.

        Args:
            device: The device.

        Returns:
            A batch on it.
        """
        return Batch(**{name: value.to(device) for name, value in vars(self).items()})


class Batches:
    """Draws batches of the utterances of a split; batch k depends on the seed and k alone."""

    def __init__(
        self,
        shards: Sequence[CorpusShard],
        config: BatchConfig,
        augment: AugmentConfig,
        seed: int,
        split: str = "train",
    ) -> None:
        """Collect the utterances.

        Args:
            shards: The corpus.
            config: Settings of the batches.
            augment: Settings of the augmentation.
            seed: Determines all batches.
            split: One of SPLITS.

        Raises:
            TalkheadError: If no shard has enough utterances of that split.
        """
        self._config, self._seed = config, seed
        self._shards = [_Frames(shard, split) for shard in shards]
        self._shards = [frames for frames in self._shards if len(frames) > 2 * config.n_frames]
        if not self._shards:
            raise TalkheadError("the corpus has no training utterances. Build it first")
        self._with_lips = [frames for frames in self._shards if frames.shard.has_lips]
        self._without_lips = [frames for frames in self._shards if not frames.shard.has_lips]
        babble = list(self._babble(np.random.default_rng((seed, 1 << 30))))
        self._augment = Augmenter(augment, babble)

    @property
    def n_points(self) -> int:
        """Points of a mouth; 0 without lips."""
        return self._with_lips[0].shard.mouth.shape[1] if self._with_lips else 0

    def draw(self, number: int) -> Batch:
        """Draw a batch.

        Args:
            number: Its number, 0 or more.

        Returns:
            The batch.
        """
        random = np.random.default_rng((self._seed, number))
        n_seen = self._config.n_seen if self._with_lips else 0
        seen = [self._stretch(self._with_lips, random) for _ in range(n_seen)]
        others = self._without_lips or self._with_lips
        rows = seen + [self._stretch(others, random) for _ in range(self._config.n_rows - n_seen)]
        clean = np.stack([frames.sound(at) for frames, at in rows])
        labels = np.stack([frames.labels(at) for frames, at in rows])
        lips = [self._other_light(frames.lips(at), random) for frames, at in seen]
        mouth = [frames.mouth(at) for frames, at in seen]
        return Batch(
            noisy=torch.from_numpy(self._augment(clean, random)),
            clean=torch.from_numpy(clean),
            labels=torch.from_numpy(labels.astype(np.int64)),
            lips=torch.from_numpy(np.stack(lips)) if lips else torch.zeros(0),
            mouth=torch.from_numpy(np.stack(mouth)) if mouth else torch.zeros(0),
        )

    def _other_light(self, lips: UInt8, random: np.random.Generator) -> Float32:
        """Change lip crops [F, H, W] as a different camera and light would; returns values in [0, 1].

        Shift, contrast and brightness are the same in all frames; noise is not.
        """
        reach, light = self._config.lip_shift, self._config.lip_light
        down, right = (int(n) for n in random.integers(-reach, reach + 1, 2))
        moved = np.roll(lips.astype(np.float32) / 255.0, (down, right), (1, 2))
        contrast, brightness = np.exp(light * random.normal()), light * random.normal()
        grain = 0.02 * random.random() * random.standard_normal(moved.shape)
        middle = float(moved.mean())
        changed = (moved - middle) * contrast + middle + brightness + grain
        return np.asarray(np.clip(changed, 0.0, 1.0), np.float32)

    def _stretch(
        self, shards: list[_Frames], random: np.random.Generator
    ) -> tuple[_Frames, _Place]:
        """Draw a stretch from some shards."""
        shares = np.array([len(frames) for frames in shards], np.float64) ** self._config.power
        frames = shards[int(random.choice(len(shards), p=shares / shares.sum()))]
        speed = float(np.exp(random.uniform(-1.0, 1.0) * np.log(self._config.speed)))
        speed = 1.0 if random.random() < self._config.as_it_was else speed
        n_source = int(np.ceil(self._config.n_frames * speed)) + 1
        first = int(random.integers(len(frames) - n_source))
        return frames, _Place(first, n_source, speed, self._config.n_frames)

    def _babble(self, random: np.random.Generator) -> list[Float32]:
        """Draw stretches [n] of single speakers, from which babble noise is mixed."""
        n_frames = int(BABBLE_S * FRAME_RATE)
        config = BatchConfig(n_frames=n_frames, speed=1.0)
        places = []
        for _ in range(N_BABBLE):
            frames = self._shards[int(random.integers(len(self._shards)))]
            first = int(random.integers(max(1, len(frames) - n_frames - 1)))
            n = min(n_frames, len(frames) - first - 1)
            places.append(frames.sound(_Place(first, n + 1, config.speed, n)))
        return places


@dataclass(frozen=True)
class _Place:
    """Source frames beginning at `first`, played `speed` times as fast, so that n_frames result."""

    first: int
    n_source: int
    speed: float
    n_frames: int

    def positions(self, rate: int) -> Float32:
        """Return the position in the source of each moment, [n_frames * rate], with `rate` per frame."""
        return np.arange(self.n_frames * rate) * self.speed


class _Frames:
    """The frames of one split of a shard, end to end."""

    def __init__(self, shard: CorpusShard, split: str) -> None:
        chosen = np.flatnonzero(shard.splits == SPLITS.index(split))
        spans = [np.arange(shard.starts[u], shard.starts[u + 1]) for u in chosen]
        self.shard = shard
        self._index: Int = np.concatenate(spans) if spans else np.zeros(0, np.int64)
        self._means, self._typical = _mouths(shard, self._index)

    def __len__(self) -> int:
        return len(self._index)

    def _frames(self, place: _Place) -> Int:
        """Return the frames of the shard [n_source] that a stretch is made of."""
        return self._index[place.first : place.first + place.n_source]

    def sound(self, place: _Place) -> Float32:
        """Waveform [n_frames * 640] in [-1, 1]."""
        frames = self._frames(place)
        samples = self.shard.waveform.reshape(-1, SAMPLES_PER_FRAME)[frames].reshape(-1)
        played = samples.astype(np.float32) / np.float32(32768.0)
        if place.speed != 1.0:
            played = change_speed(played, place.speed)
        return played[: place.n_frames * SAMPLES_PER_FRAME]

    def labels(self, place: _Place) -> UInt8:
        """Return labels [n_frames * 2], taken from the nearest labels of the source."""
        labels = self.shard.labels.reshape(-1, LABELS_PER_FRAME)[self._frames(place)].reshape(-1)
        nearest = np.rint(place.positions(LABELS_PER_FRAME)).astype(np.int64)
        return np.asarray(labels[nearest])

    def lips(self, place: _Place) -> UInt8:
        """Return lip crops [n_frames, H, W], taken from the nearest frames of the source."""
        return np.asarray(self.shard.lips[self._nearest(place)])

    def mouth(self, place: _Place) -> Float32:
        """Return mouth offsets [n_frames, 2 P], taken from the nearest frames of the source."""
        frames = self._nearest(place)
        speaker = np.searchsorted(self.shard.starts, frames, "right") - 1
        moved = self.shard.mouth[frames] - self._means[self.shard.speakers[speaker]]
        return np.asarray(moved.reshape(len(frames), -1) / self._typical, np.float32)

    def _nearest(self, place: _Place) -> Int:
        """Return, for each frame of a stretch, the nearest frame of the shard, [n_frames]."""
        nearest = np.rint(place.positions(1)).astype(np.int64)
        return np.asarray(self._frames(place)[nearest])


def _mouths(shard: CorpusShard, frames: Int) -> tuple[Float32, float]:
    """Return each speaker's mean mouth, [N, P, 2], and the root mean square offset of points from it."""
    if not shard.has_lips or len(frames) == 0:
        return np.zeros((len(shard.names), 0, 2), np.float32), 1.0
    speakers = shard.speakers[np.searchsorted(shard.starts, frames, "right") - 1]
    means = np.zeros((len(shard.names), *shard.mouth.shape[1:]), np.float32)
    for speaker in np.unique(speakers):
        means[speaker] = shard.mouth[frames[speakers == speaker]].mean(0)
    moved = shard.mouth[frames] - means[speakers]
    return means, float(np.sqrt(np.square(moved).mean()))


def sample_spans(
    shape: tuple[int, int], share: float, longest: int, random: np.random.Generator
) -> Tensor:
    """Draw random spans of 1 to `longest` in each row.

    Args:
        shape: Rows and their length.
        share: Approximate share of each row that the spans cover together; they may overlap.
        longest: Length of the longest span.
        random: Draws the spans.

    Returns:
        True within spans, [B, T].
    """
    n_rows, length = shape
    hidden = np.zeros(shape, dtype=bool)
    n_spans = round(share * length / ((1 + longest) / 2))
    for row in range(n_rows):
        for _ in range(n_spans):
            first = int(random.integers(length))
            hidden[row, first : first + int(random.integers(1, longest + 1))] = True
    return torch.from_numpy(hidden)
