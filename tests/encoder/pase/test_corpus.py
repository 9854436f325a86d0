"""Shards: audio, labels and lips are aligned in time, and can be read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from talkhead.encoder.pase.corpus import (
    LABELS_PER_FRAME,
    LIPS_HEIGHT,
    LIPS_WIDTH,
    SAMPLES_PER_FRAME,
    UNKNOWN,
    CorpusShard,
    Utterance,
    label_frames,
    make_shard,
    read_shard,
    write_shard,
)
from talkhead.encoder.phones import PHONES, SILENCE, Phone
from talkhead.errors import TalkheadError
from talkhead.storage import read_tensors, write_tensors


def utterance(n_samples: int, level: float, speaker: str = "a", frames: int = 0) -> Utterance:
    """Audio of one level; lips that encode their frame number."""
    number = np.arange(frames)
    lips = np.broadcast_to(number[:, None, None], (frames, LIPS_HEIGHT, LIPS_WIDTH))
    return Utterance(
        np.full(n_samples, level, np.float32),
        (Phone("P", 0.0, n_samples / 16000),),
        speaker,
        lips=lips.astype(np.uint8) if frames else None,
        mouth=np.ones((frames, 3, 2), np.float32) * number[:, None, None].astype(np.float32)
        if frames
        else None,
    )


def shard_of(*utterances: Utterance) -> CorpusShard:
    return make_shard(
        utterances, source="test", licence="CC0", attribution="unknown", shippable=True
    )


def test_each_utterance_starts_at_a_whole_frame() -> None:
    """The first one is padded with silence, which is labeled as an unknown phone."""
    shard = shard_of(utterance(SAMPLES_PER_FRAME * 2 + 1, 0.5, "b"), utterance(640, -1.0))
    assert shard.starts.tolist() == [0, 3, 4]
    assert shard.waveform[: 2 * SAMPLES_PER_FRAME + 1].tolist() == [16384] * 1281
    assert not shard.waveform[1281 : 3 * SAMPLES_PER_FRAME].any()
    assert shard.waveform[3 * SAMPLES_PER_FRAME :].tolist() == [-32767] * 640
    assert [shard.names[i] for i in shard.speakers] == ["b", "a"]
    known = shard.labels == PHONES.index("P")
    assert known.tolist() == [True] * 5 + [False] + [True] * 2
    assert shard.labels[5] == UNKNOWN and not shard.has_lips


def test_lips_are_at_the_frames_of_their_audio() -> None:
    """Lips that are too long are cut; if they are too short, the last frame is repeated."""
    shard = shard_of(utterance(3 * 640, 0, frames=5), utterance(4 * 640, 0, frames=2))
    assert shard.lips[:, 0, 0].tolist() == [0, 1, 2, 0, 1, 1, 1]
    assert shard.mouth[:, 1, 1].tolist() == [0, 1, 2, 0, 1, 1, 1]
    assert len(shard.labels) == LABELS_PER_FRAME * len(shard.lips) == 14
    with pytest.raises(ValueError, match="all utterances"):
        shard_of(utterance(640, 0, frames=1), utterance(640, 0))


def test_loud_sound_is_clipped_and_does_not_wrap() -> None:
    assert shard_of(utterance(640, 1.5)).waveform.min() == 32767


def test_a_shard_needs_an_utterance() -> None:
    with pytest.raises(TalkheadError, match="no utterance"):
        shard_of()


def test_labels_are_those_of_the_phone_at_their_moment() -> None:
    """For all boundaries, label i belongs to the phone at i / 50 s."""
    random = np.random.default_rng(0)
    for _ in range(50):
        bounds = np.sort(random.uniform(-0.2, 2.2, 13))
        kinds = random.choice(PHONES, 12)
        phones = [
            Phone(str(kind), float(a), float(b))
            for kind, a, b in zip(kinds, bounds, bounds[1:], strict=False)
            if kind != SILENCE
        ]
        labels = label_frames(phones, 100)
        for number, label in enumerate(labels):
            heard = [p.label for p in phones if p.start_s <= number / 50 < p.end_s]
            assert (PHONES[label] if label != UNKNOWN else None) == (heard[0] if heard else None)


def test_phones_that_meet_on_a_label_leave_no_gap() -> None:
    labels = label_frames([Phone("B", 0.0, 0.06), Phone("AA", 0.06, 0.1)], 6)
    expected = [PHONES.index(p) for p in ("B", "B", "B", "AA", "AA")]
    assert labels.tolist() == [*expected, UNKNOWN]


def test_a_shard_is_read_back(tmp_path: Path) -> None:
    split = replace(utterance(1000, 0.1, "\u00e9", frames=2), split="test")
    shard = shard_of(utterance(700, 0.2, frames=2), split)
    write_shard(tmp_path / "s.safetensors", shard)
    back = read_shard(tmp_path / "s.safetensors")
    for name, value in vars(shard).items():
        assert np.array_equal(getattr(back, name), value), name
    assert back.splits.tolist() == [0, 2] and back.names == ("a", "\u00e9")


@pytest.mark.parametrize("lost", ["facts", "labels"])
def test_a_damaged_shard_is_named(tmp_path: Path, lost: str) -> None:
    path = tmp_path / "s.safetensors"
    write_shard(path, shard_of(utterance(700, 0.2)))
    tensors = read_tensors(path)
    write_tensors(path, {name: value for name, value in tensors.items() if name != lost})
    with pytest.raises(TalkheadError, match=r"s\.safetensors: this is not a shard"):
        read_shard(path)
