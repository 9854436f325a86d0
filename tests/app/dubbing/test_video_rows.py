"""Rows that dub whole videos: their columns, and what is checked before any work starts."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import pytest
from paths import SAMPLES

from talkhead import media
from talkhead.app.dubbing import video_columns
from talkhead.app.dubbing.line_planner import PlacementLimits
from talkhead.app.dubbing.table import Row, Table, read_table
from talkhead.app.dubbing.video_dub import NO_BED, ORIGINAL, LineSettings
from talkhead.app.text_to_speech import URL_VARIABLE
from talkhead.errors import TalkheadError

SRT = "1\n00:00:00,000 --> 00:00:01,000\n{}\n\n2\n00:00:01,000 --> 00:00:02,000\n{}\n"


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of two seconds without sound."""
    path = tmp_path_factory.mktemp("movie") / "movie.mp4"
    media.write_video(path, np.zeros((50, 16, 16, 3), np.uint8))
    return path


@pytest.fixture
def folder(tmp_path: Path, movie: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A video, its lines, and sounds."""
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    monkeypatch.setattr(video_columns, "is_available", lambda url: True)
    copyfile(movie, tmp_path / "movie.mp4")
    for name in ("music.wav", "a.wav", "b.wav"):
        copyfile(SAMPLES / "line.wav", tmp_path / name)
    (tmp_path / "de.srt").write_text(SRT.format("Anna: Guten Tag", "Ben: Hallo"))
    lines = [
        {"start": 0, "end": 1, "speaker": "Anna", "audio": "a.wav"},
        {"start": 1, "end": 2, "speaker": "Ben", "audio": "b.wav", "text": "Hello"},
    ]
    (tmp_path / "en.json").write_text(json.dumps(lines))
    return tmp_path


def read(path: Path, text: str) -> Table:
    path.write_text(text)

    def find(identity: str, place: Path) -> str:
        if identity in ("anna", "ben"):
            return identity
        if place.name == "package":
            return str(place)
        raise TalkheadError(f"identity {identity}: not found")

    return read_table(path, find, reads_files=True)


def one_row(folder: Path, **cells: Any) -> Row:
    """The valid row of these cells."""
    table = read(folder / "t.jsonl", json.dumps(cells))
    assert not table.bad, table.bad
    return table.rows[0]


CELLS = {"video": "movie.mp4", "lines": "de.srt", "output": "movie.de.mp4"}
SPEAKERS = {"Anna": "anna", "Ben": "package"}


def test_all_formats_have_the_same_content(folder: Path) -> None:
    more = {"bed": "music.wav", "max_speed": 1.3, "max_early": 0, "overflow": "overrun"}
    cells = {**CELLS, "speakers": SPEAKERS, **more, "overlaps": True, "subtitles": "track"}
    csv = (
        "Video,lines,output,speakers,bed,max speed,max-early,overflow,overlaps,subtitles\n"
        "movie.mp4,de.srt,movie.de.mp4,Anna=anna;Ben = package;,music.wav,1.3,0,overrun,yes,track\n"
    )
    yaml = "\n".join(f"{k}: {json.dumps(v)}" for k, v in cells.items())
    tables = [
        read(folder / "t.csv", csv),
        read(folder / "t.jsonl", json.dumps(cells)),
        read(folder / "t.yaml", f"- {yaml}".replace("\n", "\n  ")),
        read(folder / "movie.yaml", f"# one job\n{yaml}"),
    ]
    assert [table.bad for table in tables] == [()] * 4
    rows = [replace(row, line=0) for table in tables for row in table.rows]
    assert rows == [rows[0]] * 4
    assert [table.rows[0].line for table in tables] == [2, 1, 1, 2]
    limits = PlacementLimits(max_speed=1.3, max_early_s=0.0, overflow="overrun", overlaps=True)
    speakers = {"Anna": "anna", "Ben": str(folder / "package")}
    row = rows[0]
    assert row.dub == LineSettings(
        str(folder / "de.srt"), speakers, str(folder / "music.wav"), limits
    )
    assert (row.audio, row.identity, row.video) == (None, "", folder / "movie.mp4")
    assert row.options == {"subtitles": "track", "timeline": "source"} and row.keeps_footage
    names = ["movie.de.mp4", "movie.de.srt", "movie.de.report.json"]
    assert [path.name for path in row.outputs] == names


def test_defaults(folder: Path) -> None:
    (folder / "one.vtt").write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nAnna: and so on\n")
    row = one_row(folder, **{**CELLS, "lines": "one.vtt"}, bed="None", identity="anna")
    assert row.dub == LineSettings(str(folder / "one.vtt"), bed=NO_BED)
    row = one_row(folder, **{**CELLS, "lines": "one.vtt"})
    assert row.identity == "" and row.dub is not None and row.dub.bed == ORIGINAL
    assert row.dub.limits == PlacementLimits() and row.options == {"timeline": "source"}


def test_the_inputs_include_what_lines_name(folder: Path) -> None:
    row = one_row(folder, **{**CELLS, "lines": "en.json"}, speakers=SPEAKERS, bed="music.wav")
    names = ["movie.mp4", "en.json", "music.wav", "a.wav", "b.wav"]
    assert row.inputs == [folder / name for name in names]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "neither": ({"lines": None}, "audio is missing. Pass it, or lines"),
    "both": ({"audio": "a.wav"}, "audio and lines are both given"),
    "no video": ({"video": None}, "lines need a video"),
    "no effect": (
        {"lines": None, "audio": "a.wav", "speakers": None, "bed": "none"},
        "bed: has no effect with audio",
    ),
    "no effect of speakers": (
        {"lines": None, "audio": "a.wav"},
        "speakers: has no effect with audio",
    ),
    "two kinds of people": ({"identity": "anna"}, "identity and speakers are both given"),
    "head": ({"mode": "head"}, "mode 'head': lines are spoken in the video itself"),
    "idle": ({"timeline": "idle"}, "timeline 'idle': lines are spoken in the video itself"),
    "transcript": ({"transcript": "Hello"}, "transcript: has no effect with lines"),
    "footage end": ({"footage_end": "stop"}, "footage_end: has no effect with lines"),
    "speed": ({"max_speed": 3}, "max_speed is 3.0, where 1 to 2 is allowed"),
    "not a number": ({"max_speed": "nan"}, "max_speed is nan"),
    "text": ({"max_early": "soon"}, "max_early 'soon': expected a number"),
    "early": ({"max_early": 61}, "max_early is 61.0, where 0 to 60 is allowed"),
    "overflow": ({"overflow": "cut"}, "overflow is 'cut', where one of refuse, overrun"),
    "overlaps": ({"overlaps": "maybe"}, "overlaps 'maybe': expected true or false"),
    "list": ({"speakers": ["Anna"]}, "speakers: must be text or a number"),
    "nested": ({"speakers": {"Anna": {"a": "b"}}}, "speakers: must be text or a number"),
    "incomplete": ({"speakers": "Anna=anna; Ben"}, "speakers: 'Ben' is incomplete"),
    "empty": ({"speakers": {"": "anna"}}, "speakers: 'anna' is incomplete"),
    "twice": ({"speakers": "Anna=anna; ANNA=anna"}, "speakers: ANNA is named twice"),
    "stranger": ({"speakers": "Anna=anna; Ben=carl"}, "identity carl: not found"),
    "no lines": ({"lines": "lost.srt"}, "lost.srt: no such file"),
    "format": ({"lines": "a.wav"}, "a.wav: unsupported file extension"),
    "no bed": ({"bed": "lost.wav"}, "lost.wav: no such file"),
    "silent bed": ({"bed": "movie.mp4"}, "movie.mp4: has no sound. Pass music and effects"),
    "no picture": ({"video": "a.wav"}, "a.wav: has no picture. Pass a video of the people"),
    "unknown": ({"speakers": "Anna=anna"}, "line 6: unknown speaker 'Ben'"),
    "itself": ({"output": "movie.mp4"}, "movie.mp4: is an input of line 1"),
    "its lines": ({"output": "de.mp4", "subtitles": "srt"}, "de.srt: is an input of line 1"),
    "its report": (
        {"output": "en.mp4", "lines": "en.report.json"},
        "en.report.json: is an input of line 1",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_rows(folder: Path, name: str) -> None:
    changes, reason = BAD[name]
    copyfile(folder / "en.json", folder / "en.report.json")
    cells = {**CELLS, "speakers": {**SPEAKERS}, **changes}
    table = read(folder / "t.jsonl", json.dumps(cells))
    assert [bad.line for bad in table.bad] == [1] and not table.rows
    assert reason in table.bad[0].reason, table.bad[0].reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("speakers: {Anna: [a]}", "speakers: must be text or a number"),
        ("speakers: {[Anna]: anna}", "a column name is not text"),
        ("speakers: &cast {Anna: anna}\nbed: *cast", "*cast refers to no earlier cell"),
        (f"speakers: {{{', '.join(f'a{n}: b' for n in range(101))}}}", "has more than 100 cells"),
        ("audio: {a: b}", "audio: must be text or a number"),
        ("- a", "invalid YAML"),
    ],
)
def test_wrong_rows_of_yaml(folder: Path, text: str, reason: str) -> None:
    whole = "video: movie.mp4\nlines: de.srt\noutput: a.mp4\n" + text
    if text.startswith("-"):
        with pytest.raises(TalkheadError, match=reason):
            read(folder / "movie.yaml", whole)
        return
    (bad,) = read(folder / "movie.yaml", whole).bad
    assert bad.line == 1 and reason in bad.reason


def test_all_wrong_lines_are_named(folder: Path) -> None:
    lines = [
        {"start": 0, "end": 1, "audio": "lost.wav"},
        {"start": 1, "end": 3, "text": "Hello"},
        {"start": "soon", "end": 3, "text": "Hello"},
    ]
    (folder / "en.json").write_text(json.dumps(lines, indent=0))
    table = read(folder / "t.jsonl", json.dumps({**CELLS, "lines": "en.json"}))
    reason = table.bad[0].reason
    assert "en.json: 3 of 3 lines" in reason and "lost.wav: no such file" in reason
    assert "line 7: ends at 3 s, but the video at 2.00 s" in reason and "line 12: start" in reason


def test_a_video_is_as_long_as_its_picture(folder: Path) -> None:
    """2 s of picture with 6 s of sound: the file states 6 s."""
    inputs = ["-i", str(folder / "movie.mp4"), "-i", str(folder / "a.wav")]
    longer = folder / "longer.mp4"
    call = [media.ffmpeg_path(), "-v", "error", *inputs, "-c:v", "copy", "-c:a", "aac", str(longer)]
    subprocess.run(call, check=True)
    assert media.probe(longer).duration_s > 5.0
    (folder / "en.json").write_text(json.dumps([{"start": 1, "end": 2.5, "audio": "b.wav"}]))
    cells = {**CELLS, "lines": "en.json", "identity": "anna", "video": "longer.mp4"}
    (bad,) = read(folder / "t.jsonl", json.dumps(cells)).bad
    assert "line 1: ends at 2.5 s, but the video at 2.00 s" in bad.reason


def test_lines_of_several_people_need_speakers(folder: Path) -> None:
    table = read(folder / "t.jsonl", json.dumps({**CELLS, "lines": "en.json", "identity": "anna"}))
    assert "names 2 speakers. Pass speakers" in table.bad[0].reason


def test_overlapping_lines(folder: Path) -> None:
    lines = [
        {"start": 0, "end": 1.5, "speaker": "anna", "text": "Hello"},
        {"start": 1, "end": 2, "speaker": "Ben", "text": "Hi"},
    ]
    (folder / "en.json").write_text(json.dumps(lines))
    cells = {**CELLS, "lines": "en.json", "speakers": SPEAKERS}
    table = read(folder / "t.jsonl", json.dumps(cells))
    assert "begins at 1 s, while line" in table.bad[0].reason
    assert one_row(folder, **cells, overlaps=True).dub is not None


def test_texts_need_a_voice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_columns, "is_available", lambda url: url is not None)
    spoken = json.dumps({**CELLS, "lines": "en.json", "speakers": SPEAKERS})
    assert not read(folder / "t.jsonl", spoken).bad, "all lines have audio"
    cells = json.dumps({**CELLS, "speakers": SPEAKERS})
    (bad,) = read(folder / "t.jsonl", cells).bad
    assert "de.srt: line 2 has no audio, and no voice is installed" in bad.reason
    monkeypatch.setenv(URL_VARIABLE, "http://localhost:8880")
    assert not read(folder / "t.jsonl", cells).bad


def test_names_of_voices_need_a_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = {"start": 0, "end": 1, "text": "Hello", "voice": "nova"}
    (folder / "en.json").write_text(json.dumps([line]))
    cells = json.dumps({**CELLS, "lines": "en.json", "identity": "anna"})
    (bad,) = read(folder / "t.jsonl", cells).bad
    assert "line 1: only a voice server has several voices" in bad.reason
    monkeypatch.setenv(URL_VARIABLE, "http://localhost:8880")
    assert not read(folder / "t.jsonl", cells).bad
