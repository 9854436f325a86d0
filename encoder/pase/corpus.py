"""The training corpus of PASE: shards of utterances, one safetensors file per source.

A shard keeps its utterances end to end on a grid of video frames, so that the audio, phones and
lips of a moment are found by arithmetic: frame f begins at sample f * 640 and has labels 2 f and 2
f + 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from talkhead.encoder.phones import PHONES, Phone
from talkhead.errors import TalkheadError
from talkhead.storage import ContentError, read_tensors, write_tensors
from talkhead.tensors import json_tensor, read_json_tensor
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32, Int, Int16, UInt8

SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE
"""Samples of a video frame, at 16 kHz."""
LABELS_PER_FRAME = 2
"""Phone labels of a video frame."""
LABEL_RATE = FRAME_RATE * LABELS_PER_FRAME
"""Phone labels per second."""
UNKNOWN = 255
"""Label of a moment whose phone is unknown; phone losses ignore it."""
LIPS_HEIGHT, LIPS_WIDTH = 32, 48
"""Pixels of a lip crop."""
SPLITS = ("train", "validation", "test")
"""Names of the splits, in the order of `CorpusShard.splits`."""


@dataclass(frozen=True)
class Utterance:
    """One stretch of speech by one speaker.

    Attributes:
        waveform: [n_samples] in [-1, 1] at 16 kHz.
        phones: Phones in order, with silences. A gap is unknown.
        speaker: Name of the speaker.
        split: One of SPLITS.
        lips: Gray lip crops, [F, LIPS_HEIGHT, LIPS_WIDTH], 25 per second; None without video.
        mouth: Mouth points without head motion, [F, P, 2], in eye distances; None without video.
    """

    waveform: Float32
    phones: tuple[Phone, ...]
    speaker: str
    split: str = "train"
    lips: UInt8 | None = None
    mouth: Float32 | None = None


@dataclass(frozen=True)
class CorpusShard:
    """Utterances of one source, end to end, F frames.

    Attributes:
        waveform: [F * 640] int16 at 16 kHz.
        labels: Indices into PHONES or UNKNOWN, [F * 2], of moments 20 ms apart.
        starts: First frame of each utterance, and F, [U + 1].
        speakers: Indices into names, [U].
        splits: Indices into SPLITS, [U].
        lips: Gray lip crops, [F, LIPS_HEIGHT, LIPS_WIDTH]; [0, ...] for a source without video.
        mouth: Mouth points, [F, P, 2], in eye distances; [0, ...] without video.
        names: Names of the speakers.
        source: Description of the source.
        licence: Its license.
        attribution: The author to credit.
        shippable: True if weights that were trained on it may be distributed.
    """

    waveform: Int16
    labels: UInt8
    starts: Int
    speakers: Int
    splits: Int
    lips: UInt8
    mouth: Float32
    names: tuple[str, ...]
    source: str
    licence: str
    attribution: str
    shippable: bool

    @property
    def n_utterances(self) -> int:
        """The number of utterances."""
        return len(self.speakers)

    @property
    def has_lips(self) -> bool:
        """True for a source with video."""
        return len(self.lips) > 0


def make_shard(
    utterances: Iterable[Utterance],
    *,
    source: str,
    licence: str,
    attribution: str,
    shippable: bool,
) -> CorpusShard:
    """Put utterances end to end, each padded with zeros to whole frames.

    Args:
        utterances: The utterances, all with lips or none.
        source: Description of the source.
        licence: Its license.
        attribution: The author to credit.
        shippable: True if weights that were trained on it may be distributed.

    Returns:
        The shard.

    Raises:
        TalkheadError: If there are no utterances.
        ValueError: If only some have lips.
    """
    given = list(utterances)
    if not given:
        raise TalkheadError(f"{source}: no utterance could be used. Check the folder's content")
    if len({u.lips is None for u in given}) > 1:
        raise ValueError("all utterances of a shard have lips, or none")
    counts = [-(-len(u.waveform) // SAMPLES_PER_FRAME) for u in given]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    waveform = np.zeros(starts[-1] * SAMPLES_PER_FRAME, np.int16)
    labels = np.full(starts[-1] * LABELS_PER_FRAME, UNKNOWN, np.uint8)
    names = sorted({u.speaker for u in given})
    lips, mouth = [], []
    for utterance, start, n in zip(given, starts, counts, strict=False):
        first = start * SAMPLES_PER_FRAME
        samples = np.clip(np.rint(utterance.waveform * 32767.0), -32768, 32767)
        waveform[first : first + len(samples)] = samples
        first = start * LABELS_PER_FRAME
        labels[first : first + n * LABELS_PER_FRAME] = label_frames(
            utterance.phones, n * LABELS_PER_FRAME
        )
        if utterance.lips is not None and utterance.mouth is not None:
            lips.append(_of_length(utterance.lips, n))
            mouth.append(_of_length(utterance.mouth, n))
    return CorpusShard(
        waveform=waveform,
        labels=labels,
        starts=starts,
        speakers=np.array([names.index(u.speaker) for u in given], np.int64),
        splits=np.array([SPLITS.index(u.split) for u in given], np.int64),
        lips=np.concatenate(lips) if lips else np.zeros((0, LIPS_HEIGHT, LIPS_WIDTH), np.uint8),
        mouth=np.concatenate(mouth) if mouth else np.zeros((0, 0, 2), np.float32),
        names=tuple(names),
        source=source,
        licence=licence,
        attribution=attribution,
        shippable=shippable,
    )


def label_frames(phones: Sequence[Phone], n_labels: int) -> UInt8:
    """Sample phones at the moments i / 50 s.

    Args:
        phones: Phones with times.
        n_labels: The number of moments.

    Returns:
        Indices into PHONES, UNKNOWN in gaps, [n_labels].
    """
    labels = np.full(n_labels, UNKNOWN, np.uint8)
    for phone in phones:
        first, last = (int(np.ceil(s * LABEL_RATE - 1e-6)) for s in (phone.start_s, phone.end_s))
        labels[max(0, first) : max(0, last)] = PHONES.index(phone.label)
    return labels


def _of_length(values: np.ndarray, n: int) -> np.ndarray:  # type: ignore[type-arg]
    """The first n of some values [m, ...], with the last one repeated if m < n."""
    return np.asarray(values[np.arange(n).clip(max=len(values) - 1)])


ARRAYS = ("waveform", "labels", "starts", "speakers", "splits", "lips", "mouth")
"""Fields of CorpusShard that are stored as tensors."""


def write_shard(path: Path, shard: CorpusShard) -> None:
    """Write a shard as a safetensors file.

    Args:
        path: The file.
        shard: The shard.

    Raises:
        TalkheadError: If the file cannot be written.
    """
    tensors = {name: torch.from_numpy(getattr(shard, name)) for name in ARRAYS}
    facts = {name: value for name, value in vars(shard).items() if name not in ARRAYS}
    write_tensors(path, tensors | {"facts": json_tensor(facts)})


def read_shard(path: Path) -> CorpusShard:
    """Read a shard.

    Args:
        path: A file of `write_shard`.

    Returns:
        The shard.

    Raises:
        TalkheadError: If the file is not a shard, or damaged.
    """
    tensors = read_tensors(path)
    try:
        facts: dict[str, Any] = read_json_tensor(tensors, "facts")
        facts["names"] = tuple(facts["names"])
        facts |= {name: tensors[name].numpy() for name in ARRAYS}
        return CorpusShard(**facts)
    except (ContentError, KeyError, TypeError, ValueError) as error:
        raise TalkheadError(
            f"{path}: this is not a shard of a corpus ({error}). Build the corpus again"
        ) from error
