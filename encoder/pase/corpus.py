"""The corpus that PASE learns from: shelves of utterances, one safetensors file a source.

A shelf keeps its utterances end to end on a grid of video frames, so that sound, phones and lips
of a moment are found by arithmetic: frame f is samples f * 640 on, labels 2 f and 2 f + 1, lips f.
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
from talkhead.tensors import json_in, json_tensor
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32, Int, Int16, UInt8

SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE
LABELS_PER_FRAME = 2
LABEL_RATE = FRAME_RATE * LABELS_PER_FRAME
UNKNOWN = 255
"""The label of a moment whose phone nobody knows: no part of any phone loss."""
LIPS_HEIGHT, LIPS_WIDTH = 32, 48
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Utterance:
    """One stretch of one speaker.

    waveform: [n_samples] at 16 kHz in [-1, 1]. phones: in order, with silences; gaps are unknown.
    lips: [F, LIPS_HEIGHT, LIPS_WIDTH] grey crops, mouth: [F, P, 2] points in eye distances as on a
    face that holds still, at 25 a second from second 0; both None without a picture.
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

    waveform: [F * 640] int16. labels: [F * 2] index into PHONES or UNKNOWN, of moments 20 ms apart.
    starts: [U + 1] first frame of each utterance, and F. speakers: [U] index into names. splits: [U]
    index into SPLITS. names: of the speakers. lips: [F, LIPS_HEIGHT, LIPS_WIDTH] and mouth [F, P, 2],
    or [0, ...] for a source without pictures. source: what it is. licence, attribution: its terms.
    shippable: whether weights that learnt from it may be shipped.
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
        return len(self.speakers)

    @property
    def has_lips(self) -> bool:
        return len(self.lips) > 0


def make_shard(
    utterances: Iterable[Utterance],
    *,
    source: str,
    licence: str,
    attribution: str,
    shippable: bool,
) -> CorpusShard:
    """The utterances end to end, each padded with zeros to whole frames.

    Raises TalkheadError when there are none, ValueError when some have lips and others don't.
    """
    given = list(utterances)
    if not given:
        raise TalkheadError(f"{source}: no utterance could be used. Check the folder's content")
    if len({u.lips is None for u in given}) > 1:
        raise ValueError("all utterances of a shelf have lips, or none")
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
    """The phone at each moment i / 50 s, [n_labels] indices into PHONES, UNKNOWN in gaps."""
    labels = np.full(n_labels, UNKNOWN, np.uint8)
    for phone in phones:
        first, last = (int(np.ceil(s * LABEL_RATE - 1e-6)) for s in (phone.start_s, phone.end_s))
        labels[max(0, first) : max(0, last)] = PHONES.index(phone.label)
    return labels


def _of_length(values: np.ndarray, n: int) -> np.ndarray:  # type: ignore[type-arg]
    """The first n values, the last one repeated where they end."""
    return np.asarray(values[np.arange(n).clip(max=len(values) - 1)])


ARRAYS = ("waveform", "labels", "starts", "speakers", "splits", "lips", "mouth")


def write_shard(path: Path, shelf: CorpusShard) -> None:
    """The shelf as one safetensors file. Raises TalkheadError where it can't be written."""
    tensors = {name: torch.from_numpy(getattr(shelf, name)) for name in ARRAYS}
    facts = {name: value for name, value in vars(shelf).items() if name not in ARRAYS}
    write_tensors(path, tensors | {"facts": json_tensor(facts)})


def read_shard(path: Path) -> CorpusShard:
    """The shelf back. Raises TalkheadError naming the file when it is none or damaged."""
    tensors = read_tensors(path)
    try:
        facts: dict[str, Any] = json_in(tensors, "facts")
        facts["names"] = tuple(facts["names"])
        facts |= {name: tensors[name].numpy() for name in ARRAYS}
        return CorpusShard(**facts)
    except (ContentError, KeyError, TypeError, ValueError) as error:
        raise TalkheadError(
            f"{path}: this is no shelf of a corpus ({error}). Build the corpus again"
        ) from error
