"""The folder of a corpus: shards are made once, made again when their inputs change, and
described."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talkhead.encoder.pase.corpus import Utterance, read_shard
from talkhead.encoder.pase.corpus_store import (
    MANIFEST,
    ShardContents,
    Source,
    build_shard,
    file_inputs,
    read_manifest,
)
from talkhead.encoder.phones import Phone
from talkhead.errors import TalkheadError
from talkhead.progress import SilentProgress
from talkhead.storage import sha256_of


def source(name: str, inputs: Mapping[str, Any], calls: list[str], licence: str = "CC0") -> Source:
    """Two utterances of 2 s out of four; half of each is labeled. calls: gets an entry per reading."""

    def read() -> ShardContents:
        calls.append(name)
        sound = np.zeros(32000, np.float32)
        made = [
            Utterance(sound, (Phone("AA", 0, 1),), s, split)
            for s, split in (("x", "train"), ("y", "test"))
        ]
        return ShardContents(iter(made), 4)

    return Source(name, f"source {name}", licence, "A. N. Other", False, inputs, read)


def test_a_shard_is_made_again_only_when_its_inputs_change(tmp_path: Path) -> None:
    calls: list[str] = []
    for inputs, licence in (({"a": 1}, "CC0"), ({"a": 1}, "CC0"), ({"a": 2}, "CC0")):
        path = build_shard(tmp_path, source("one", inputs, calls, licence), SilentProgress())
    assert calls == ["one"] * 2
    build_shard(tmp_path, source("one", {"a": 2}, calls, "CC BY"), SilentProgress())
    assert len(calls) == 3 and read_shard(path).licence == "CC BY"
    path.unlink()
    build_shard(tmp_path, source("one", {"a": 2}, calls, "CC BY"), SilentProgress())
    assert len(calls) == 4 and path.exists()


def test_the_manifest_counts_what_was_made_and_left_out(tmp_path: Path) -> None:
    for name in ("two", "one"):
        build_shard(tmp_path, source(name, {}, []), SilentProgress())
    manifest = read_manifest(tmp_path)
    assert list(manifest) == ["one", "two"]
    entry = manifest["one"]
    assert entry["sha256"] == sha256_of(tmp_path / entry["file"])
    assert (entry["utterances"], entry["given"], entry["rejected"]) == (2, 4, 0.5)
    assert entry["labelled"] == 0.5 and entry["shippable"] is False
    assert entry["splits"]["test"] == {"utterances": 1, "speakers": 1, "hours": round(2 / 3600, 4)}
    assert entry["splits"]["validation"] == {"utterances": 0, "speakers": 0, "hours": 0.0}


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_damaged_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(TalkheadError, match=r"corpus\.json: damaged"):
        build_shard(tmp_path, source("one", {}, []), SilentProgress())


def test_texts_count_by_content_and_recordings_by_size(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "a.mp4").write_bytes(b"123")
    paths = [tmp_path / "a.txt", tmp_path / "a.mp4"]
    before = file_inputs(paths, tmp_path)
    assert before["a.mp4"] == "3"
    (tmp_path / "a.txt").write_text("two")
    after = file_inputs(paths, tmp_path)
    assert [name for name in before if before[name] != after[name]] == ["a.txt"]
    with pytest.raises(TalkheadError, match=r"b\.txt: there is no such file"):
        file_inputs([tmp_path / "b.txt"], tmp_path)
