"""Batches of the corpus: stretches of speech, some with lips, at other speeds and damaged."""

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
BABBLE_S = 6.0


@dataclass(frozen=True)
class BatchConfig:
    """n_rows, n_seen: stretches in a batch, and how many of them show lips; the others come from
    shelves without pictures where there are some. n_frames: their length. speed: up to how much
    faster or slower; as_it_was: share left at their speed. power: a shelf is drawn from by its
    hours to this. lip_shift: pixels that lip crops are off by; lip_light: contrast and brightness."""

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

    noisy, clean: [B, F * 640] waveforms. labels: [B, F * 2]. lips: [S, F, H, W] in 0 to 1. mouth:
    [S, F, 2 P] offsets of the speaker's mean mouth, in units of the typical one.
    """

    noisy: Tensor
    clean: Tensor
    labels: Tensor
    lips: Tensor
    mouth: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(**{name: value.to(device) for name, value in vars(self).items()})


class Batches:
    """Draws batches from shelves' training utterances; batch k depends on the seed and k alone."""

    def __init__(
        self,
        shelves: Sequence[CorpusShard],
        config: BatchConfig,
        augment: AugmentConfig,
        seed: int,
        split: str = "train",
    ) -> None:
        """Raises TalkheadError when no shelf has utterances of that split."""
        self._config, self._seed = config, seed
        self._shelves = [_Frames(shelf, split) for shelf in shelves]
        self._shelves = [frames for frames in self._shelves if len(frames) > 2 * config.n_frames]
        if not self._shelves:
            raise TalkheadError("the corpus has no training utterances. Build it first")
        self._seen = [frames for frames in self._shelves if frames.shelf.has_lips]
        self._unseen = [frames for frames in self._shelves if not frames.shelf.has_lips]
        babble = list(self._babble(np.random.default_rng((seed, 1 << 30))))
        self._augment = Augmenter(augment, babble)

    @property
    def n_points(self) -> int:
        """Points of a mouth, 0 when nobody is seen."""
        return self._seen[0].shelf.mouth.shape[1] if self._seen else 0

    def draw(self, number: int) -> Batch:
        """The batch of that number."""
        random = np.random.default_rng((self._seed, number))
        n_seen = self._config.n_seen if self._seen else 0
        seen = [self._stretch(self._seen, random) for _ in range(n_seen)]
        others = self._unseen or self._seen
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
        """A stretch of lip crops [F, H, W] in 0 to 1 as of another face, camera and lamp.

        Shifted, of other contrast and brightness, and grainy; alike in all frames.
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
        self, shelves: list[_Frames], random: np.random.Generator
    ) -> tuple[_Frames, _Place]:
        shares = np.array([len(frames) for frames in shelves], np.float64) ** self._config.power
        frames = shelves[int(random.choice(len(shelves), p=shares / shares.sum()))]
        speed = float(np.exp(random.uniform(-1.0, 1.0) * np.log(self._config.speed)))
        speed = 1.0 if random.random() < self._config.as_it_was else speed
        n_source = int(np.ceil(self._config.n_frames * speed)) + 1
        first = int(random.integers(len(frames) - n_source))
        return frames, _Place(first, n_source, speed, self._config.n_frames)

    def _babble(self, random: np.random.Generator) -> list[Float32]:
        n_frames = int(BABBLE_S * FRAME_RATE)
        config = BatchConfig(n_frames=n_frames, speed=1.0)
        places = []
        for _ in range(N_BABBLE):
            frames = self._shelves[int(random.integers(len(self._shelves)))]
            first = int(random.integers(max(1, len(frames) - n_frames - 1)))
            n = min(n_frames, len(frames) - first - 1)
            places.append(frames.sound(_Place(first, n + 1, config.speed, n)))
        return places


@dataclass(frozen=True)
class _Place:
    """n_source frames from the first on, played so much faster that n_frames come out."""

    first: int
    n_source: int
    speed: float
    n_frames: int

    def positions(self, rate: int) -> Float32:
        """Where in the source each of n_frames * rate moments lies, in source moments."""
        return np.arange(self.n_frames * rate) * self.speed


class _Frames:
    """The frames of one split of a shelf, end to end."""

    def __init__(self, shelf: CorpusShard, split: str) -> None:
        chosen = np.flatnonzero(shelf.splits == SPLITS.index(split))
        spans = [np.arange(shelf.starts[u], shelf.starts[u + 1]) for u in chosen]
        self.shelf = shelf
        self._index: Int = np.concatenate(spans) if spans else np.zeros(0, np.int64)
        self._means, self._typical = _mouths(shelf, self._index)

    def __len__(self) -> int:
        return len(self._index)

    def _frames(self, place: _Place) -> Int:
        return self._index[place.first : place.first + place.n_source]

    def sound(self, place: _Place) -> Float32:
        """[n_frames * 640] in [-1, 1]."""
        frames = self._frames(place)
        samples = self.shelf.waveform.reshape(-1, SAMPLES_PER_FRAME)[frames].reshape(-1)
        played = samples.astype(np.float32) / np.float32(32768.0)
        if place.speed != 1.0:
            played = change_speed(played, place.speed)
        return played[: place.n_frames * SAMPLES_PER_FRAME]

    def labels(self, place: _Place) -> UInt8:
        """[n_frames * 2]."""
        labels = self.shelf.labels.reshape(-1, LABELS_PER_FRAME)[self._frames(place)].reshape(-1)
        nearest = np.rint(place.positions(LABELS_PER_FRAME)).astype(np.int64)
        return np.asarray(labels[nearest])

    def lips(self, place: _Place) -> UInt8:
        """[n_frames, H, W]."""
        return np.asarray(self.shelf.lips[self._nearest(place)])

    def mouth(self, place: _Place) -> Float32:
        """[n_frames, 2 P]."""
        frames = self._nearest(place)
        speaker = np.searchsorted(self.shelf.starts, frames, "right") - 1
        moved = self.shelf.mouth[frames] - self._means[self.shelf.speakers[speaker]]
        return np.asarray(moved.reshape(len(frames), -1) / self._typical, np.float32)

    def _nearest(self, place: _Place) -> Int:
        nearest = np.rint(place.positions(1)).astype(np.int64)
        return np.asarray(self._frames(place)[nearest])


def _mouths(shelf: CorpusShard, frames: Int) -> tuple[Float32, float]:
    """Each speaker's mean mouth [N, P, 2], and how far points typically move from it."""
    if not shelf.has_lips or len(frames) == 0:
        return np.zeros((len(shelf.names), 0, 2), np.float32), 1.0
    speakers = shelf.speakers[np.searchsorted(shelf.starts, frames, "right") - 1]
    means = np.zeros((len(shelf.names), *shelf.mouth.shape[1:]), np.float32)
    for speaker in np.unique(speakers):
        means[speaker] = shelf.mouth[frames[speakers == speaker]].mean(0)
    moved = shelf.mouth[frames] - means[speakers]
    return means, float(np.sqrt(np.square(moved).mean()))


def sample_spans(
    shape: tuple[int, int], share: float, longest: int, random: np.random.Generator
) -> Tensor:
    """Random spans of 1 to `longest` that cover about a share of each row, [B, T] bool."""
    n_rows, length = shape
    hidden = np.zeros(shape, dtype=bool)
    n_spans = round(share * length / ((1 + longest) / 2))
    for row in range(n_rows):
        for _ in range(n_spans):
            first = int(random.integers(length))
            hidden[row, first : first + int(random.integers(1, longest + 1))] = True
    return torch.from_numpy(hidden)
