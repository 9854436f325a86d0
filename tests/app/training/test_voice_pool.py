"""The file of other voices: selection, joining and writing of their speech."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import wavfile

from talkhead.app.training import voice_pool
from talkhead.audio import measure_loudness
from talkhead.encoder.base import SPEECH_LEVEL_DB
from talkhead.errors import TalkheadError
from talkhead.media import read_audio
from talkhead.storage import sha256_of
from talkhead.types import SAMPLE_RATE


def row(speaker: str, number: int, **changes: Any) -> Mapping[str, Any]:
    gender = "f" if int(speaker) % 2 else "m"
    found = {"file": f"{speaker}/{number}.wav", "speaker": speaker, "split": "test"}
    return {**found, "gender": gender, "age": 30, "seconds": 3.0 + number, **changes}


def write_index(folder: Path, rows: list[Mapping[str, Any]]) -> Path:
    (folder / "index.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return folder


def test_adults_of_the_test_split_women_and_men_in_turn(tmp_path: Path) -> None:
    speakers = [f"{number:04}" for number in range(10, 20)]
    rows = [row(speaker, number) for speaker in speakers for number in range(4)]
    rows += [row("0001", 1, age=17), row("0003", 1, split="train")]
    chosen = voice_pool.choose_speechocean(write_index(tmp_path, rows))
    assert [files[0].parent.name for files in chosen] == [
        "0011", "0010", "0013", "0012", "0015", "0014", "0017", "0016",
    ]  # fmt: skip
    assert [path.name for path in chosen[0]] == ["3.wav", "2.wav"]  # the longest, 11 s in total


def test_too_few_speakers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TalkheadError, match="fewer than 8 adult speakers"):
        voice_pool.choose_speechocean(write_index(tmp_path, [row("0001", 1), row("0002", 1)]))
    with pytest.raises(TalkheadError, match="fewer than 6 speakers"):
        voice_pool.choose_grid(tmp_path)


def test_two_sentences_of_each_speaker_of_grid(tmp_path: Path) -> None:
    for speaker in ("s2", "s4", "s10", "s26", "s30", "v", "y"):
        for sentence in ("abc", "bcd", "cde"):
            (tmp_path / f"{speaker}_{sentence}.mp4").touch()
    (tmp_path / "s9_abc.mp4").touch()  # only one
    names = {path.name for files in voice_pool.choose_grid(tmp_path) for path in files}
    speakers = ("s2", "s4", "s10", "s26", "s30", "v")
    assert names == {f"{s}_{sentence}.mp4" for s in speakers for sentence in ("abc", "bcd")}


def tone(seconds: float, level: float, hz: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A tone that starts after a second of silence."""
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    sound = level * np.sin(2.0 * np.pi * hz * times) * (1.0 + 0.5 * np.sin(20.0 * times))
    return np.concatenate([np.zeros(SAMPLE_RATE), sound]).astype(np.float32)


def test_voices_are_joined_at_one_level(tmp_path: Path) -> None:
    paths = []
    for number, level in enumerate((0.005, 0.4)):
        paths.append(tmp_path / f"{number}.wav")
        wavfile.write(paths[-1], SAMPLE_RATE, tone(3.0, level, 300.0))
    joined = voice_pool.join_voices([[paths[0]], [paths[1]]])
    longest = 2 * 3.0 + 3 * voice_pool.PAUSE_S + 4 * voice_pool.MARGIN_FRAMES / 25
    assert 6.5 < len(joined) / SAMPLE_RATE <= longest + 0.1
    levels = []
    for half in np.array_split(joined, 2):
        loud = np.sort(measure_loudness([half]).powers)[-60:]
        levels.append(10.0 * np.log10(loud.mean()))
    assert levels[0] == pytest.approx(levels[1], abs=0.5)  # of tones 38 dB apart
    assert levels[0] == pytest.approx(SPEECH_LEVEL_DB, abs=3.0)
    output = tmp_path / "voices.ogg"
    voice_pool.write_opus(joined, output)
    again = tmp_path / "again.ogg"
    voice_pool.write_opus(joined, again)
    assert output.read_bytes() == again.read_bytes()
    assert output.stat().st_size < len(joined) // 2
    read = read_audio(output)
    assert len(read) == pytest.approx(len(joined), abs=SAMPLE_RATE // 50)
    assert np.square(read).mean() == pytest.approx(np.square(joined).mean(), rel=0.1)
    entry = voice_pool.manifest_entry(output, [[[paths[0]]], [[paths[1]]]])
    assert entry["sha256"] == sha256_of(output) and entry["bytes"] == output.stat().st_size
