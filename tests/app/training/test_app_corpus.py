"""Building shards on the command line: joined sentences, and own footage with its text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import SAMPLES

from talkhead.app.training import corpus as building
from talkhead.app.training.corpus import (
    MAX_UTTERANCE_S,
    MIN_UTTERANCE_S,
    cut_in_pauses,
    read_sentences,
)
from talkhead.app.training.tracked_video import MOUTH_POINTS
from talkhead.encoder.forced_alignment import phones_unavailable_reason
from talkhead.encoder.pase.corpus import UNKNOWN, read_shard
from talkhead.encoder.pase.corpus_store import read_manifest
from talkhead.encoder.phones import PHONES, SILENCE, Phone
from talkhead.errors import FootageError
from talkhead.media import read_audio, read_frames, write_video
from talkhead.storage import sha256_of, write_tensors

TRUTH = json.loads((SAMPLES / "truth.json").read_text())
PERSON = SAMPLES / "person.mp4"
N_FRAMES = 310
needs_sphinx = pytest.mark.skipif(
    bool(phones_unavailable_reason()), reason=phones_unavailable_reason() or "usable"
)


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the first 12.4 s of the sample person, already tracked as a face without
    motion.
    """
    folder = tmp_path_factory.mktemp("clip")
    (folder / "takes").mkdir()
    video = folder / "takes" / "robert.mp4"
    frames = list(read_frames(PERSON, n_frames=N_FRAMES))
    write_video(video, frames, audio_path=PERSON)
    random = np.random.default_rng(0)
    landmarks = random.uniform(100, 280, (1, 478, 2)) + random.normal(0, 0.5, (N_FRAMES, 478, 2))
    (folder / "work" / "tracked").mkdir(parents=True)
    tracked = {
        "landmarks": torch.from_numpy(landmarks.astype(np.float32)),
        "seen": torch.ones(N_FRAMES, dtype=torch.bool),
        "waveform": torch.from_numpy(read_audio(PERSON)[: 640 * N_FRAMES]),
    }
    digest = sha256_of(video)[:12]
    write_tensors(folder / "work" / "tracked" / f"robert-{digest}.safetensors", tracked)
    return folder


def run(folder: Path, clip: Path, *options: str) -> int:
    cache = ["--cache", str(clip / "work" / "tracked"), "--progress", "silent"]
    return building.main([*options, "--output", str(folder), *cache])


# -------------------------------------------------------------------------------- footage


@needs_sphinx
def test_a_shard_of_own_footage(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Audio, phones and lips of a moment belong together; the last tenth is held out; a second run
    does nothing."""
    options = ["footage", str(clip / "takes"), "--name", "robert", "--licence", "CC0"]
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "robert.txt").write_text(" ".join(TRUTH["texts"][:3]))
    options += ["--texts", str(texts)]
    assert run(tmp_path, clip, *options) == 0
    entry = json.loads(capsys.readouterr().out)
    shard = read_shard(tmp_path / "robert.safetensors")
    assert entry["audio_visual"] and not entry["shippable"] and entry["licence"] == "CC0"
    assert shard.starts[-1] == len(shard.lips) == len(shard.mouth) == N_FRAMES
    assert shard.mouth.shape[1:] == (len(MOUTH_POINTS), 2)
    held = shard.starts[:-1][shard.splits == 1]
    assert held.tolist() == [279] and (shard.splits != 2).all()
    sound = read_audio(PERSON)[: 640 * N_FRAMES]
    assert np.abs(shard.waveform / 32767 - sound).max() < 1e-4
    labels = {"pau": SILENCE, "ax": "AH"}
    true = [
        (labels.get(p["phone"], p["phone"].upper()), (p["start_s"] + p["end_s"]) / 2)
        for p in TRUTH["phones"]
        if p["end_s"] < 11.0 and p["phone"] != "pau"
    ]
    right = [shard.labels[round(middle * 50)] == PHONES.index(name) for name, middle in true]
    assert np.mean(right) > 0.75
    monkeypatch.setattr(building, "align_phones", None)
    before = (tmp_path / "robert.safetensors").stat().st_mtime_ns
    assert run(tmp_path, clip, *options) == 0
    assert (tmp_path / "robert.safetensors").stat().st_mtime_ns == before
    # Other terms of use make another shard, from the stored alignment.
    assert run(tmp_path, clip, *options, "--shippable") == 0
    assert read_manifest(tmp_path)["robert"]["shippable"] is True


@needs_sphinx
def test_a_text_that_does_not_match(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = "colourless green ideas sleep furiously under the old wooden bridge near our village"
    (tmp_path / "robert.txt").write_text(wrong)
    options = ["footage", str(clip / "takes"), "--name", "robert", "--licence", "CC0"]
    assert run(tmp_path, clip, *options, "--texts", str(tmp_path)) == 1
    assert "robert.mp4: the text" in capsys.readouterr().err
    assert read_manifest(tmp_path) == {}


def test_footage_without_a_text(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["footage", str(clip / "takes"), "--name", "robert", "--licence", "CC0"]
    assert run(tmp_path, clip, *options) == 1
    assert "robert.txt: there is no such file" in capsys.readouterr().err
    assert run(tmp_path, clip, *options, "--recognize", "--late", "else=40") == 1
    assert "no video else.mp4" in capsys.readouterr().err
    (tmp_path / "robert.txt").write_bytes(b"\xff\xfe\xfa")
    assert run(tmp_path, clip, *options, "--texts", str(tmp_path)) == 1
    assert "not UTF-8 text" in capsys.readouterr().err


def test_invalid_options(clip: Path, tmp_path: Path) -> None:
    for late in ("x", "a=b"):
        with pytest.raises(SystemExit):
            run(tmp_path, clip, "footage", str(clip), "--name", "a", "--licence", "b",
                "--late", late)  # fmt: skip


# -------------------------------------------------------------------------- joined sentences


@needs_sphinx
def test_joined_sentences_whose_words_fit(clip: Path, tmp_path: Path) -> None:
    """The sentence whose words do not match is left out."""
    folder = tmp_path / "joined"
    shutil.copytree(clip / "takes", folder)
    good = TRUTH["texts"][0].strip(".").lower().split()
    lines = [(0.0, good), (2.0, ["zebra", "banana"] * 4)]
    index = [
        {"file": "robert.mp4", "start": start, "words": [[0.1, 0.2, w] for w in ["sp", *words]]}
        for start, words in lines
    ]
    (folder / "index.jsonl").write_text("\n".join(json.dumps(line) for line in index))
    assert run(tmp_path, clip, "grid", str(folder)) == 0
    shard = read_shard(tmp_path / "grid.safetensors")
    entry = read_manifest(tmp_path)["grid"]
    assert (entry["given"], entry["utterances"], entry["rejected"]) == (2, 1, 0.5)
    assert shard.starts.tolist() == [0, 50] and shard.names == ("grid",)
    assert (shard.labels == UNKNOWN).mean() < 0.1


def test_sentences_are_read_with_letters_by_name(tmp_path: Path) -> None:
    entries = [
        {"file": "b.mp4", "start": 3.0, "words": [[0, 1, "a"], [1, 2, "z"], [2, 3, "sp"]]},
        {"file": "b.mp4", "start": 0.0, "words": [[0, 1, "sil"], [1, 2, "bin"]]},
    ]
    (tmp_path / "i.jsonl").write_text("\n".join(json.dumps(e) for e in entries))
    first, second = read_sentences(tmp_path / "i.jsonl")["b.mp4"]
    assert (first.start, first.text) == (0, "bin")
    assert (second.start, second.text) == (75, "ay zed")


@pytest.mark.parametrize("text", ["{", '{"file": "a", "start": 0}', '{"file": 1, "words": [3]}'])
def test_a_damaged_index_of_sentences(tmp_path: Path, text: str) -> None:
    (tmp_path / "i.jsonl").write_text(text)
    with pytest.raises(FootageError, match="line 1 must be"):
        read_sentences(tmp_path / "i.jsonl")


# ------------------------------------------------------------------------------------ cuts


def test_cuts_are_in_the_longest_pauses() -> None:
    phones = [
        Phone(SILENCE, 4.0, 4.2), Phone("AA", 4.2, 8.0), Phone(SILENCE, 8.0, 9.0),
        Phone("AA", 9.0, 11.0), Phone(SILENCE, 11.0, 11.1), Phone("AA", 11.1, 16.0),
    ]  # fmt: skip
    assert list(cut_in_pauses((0, 400), phones)) == [(0, 212), (212, 400)]


def test_cuts_keep_every_frame_and_no_part_is_too_long() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        start = int(random.integers(0, 500))
        take = (start, start + int(random.integers(1, 3000)))
        ends = np.sort(random.uniform(0, 140, int(random.integers(0, 40)))).tolist()
        phones = [Phone(SILENCE, end, end + 0.3) for end in ends]
        spans = list(cut_in_pauses(take, phones))
        assert spans[0][0] == take[0] and spans[-1][1] == take[1]
        assert all(a[1] == b[0] for a, b in pairwise(spans))
        lengths = [b - a for a, b in spans]
        assert max(lengths) <= MAX_UTTERANCE_S * 25
        assert len(spans) == 1 or min(lengths) >= MIN_UTTERANCE_S * 25


def test_no_speech_at_all(tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, clip, "speech", str(tmp_path)) == 1
    assert "index.jsonl: there is no such file" in capsys.readouterr().err
    (tmp_path / "index.jsonl").write_text("")
    assert run(tmp_path, clip, "speech", str(tmp_path)) == 1
    assert "no utterance could be used" in capsys.readouterr().err
