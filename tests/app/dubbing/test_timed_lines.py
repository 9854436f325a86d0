"""Reading timed lines: formats, encodings, speakers, and wrong lines, which are all named at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from talkhead.app.dubbing.timed_lines import TimedLines, read_lines
from talkhead.app.dubbing.timeline import Line
from talkhead.errors import TalkheadError

LENGTH_S = 9000.0
SRT = """1
00:00:01,000 --> 00:00:02,500
Grüße, Welt

2
02:10:03,250 --> 02:10:05,000
<i>Zwei</i>
Zeilen
"""
SRT_LINES = (
    Line(1, 1.0, 2.5, text="Grüße, Welt", source=2),
    Line(2, 7803.25, 7805.0, text="Zwei\nZeilen", source=6),
)


def written(path: Path, content: str | bytes | list[Any]) -> Path:
    if isinstance(content, list):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def subtitles(*texts: str, head: str = "") -> str:
    """Subtitles of one second each, one after the other."""
    cues = [f"00:00:{i:02}.000 --> 00:00:{i + 1:02}.000\n{text}\n" for i, text in enumerate(texts)]
    return head + "\n".join(cues)


def reasons(lines: TimedLines) -> dict[int, str]:
    return {one.line: one.reason for one in lines.bad}


# ---------------------------------------------------------------------------- formats


def test_subrip(tmp_path: Path) -> None:
    read = read_lines(written(tmp_path / "a.srt", SRT), LENGTH_S)
    assert read.lines == SRT_LINES and not read.bad and not read.notes
    read.check()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_encodings(tmp_path: Path, encoding: str, ending: str) -> None:
    content = SRT.replace("\n", ending).encode(encoding)
    read = read_lines(written(tmp_path / "a.srt", content), LENGTH_S)
    assert read.lines == SRT_LINES
    assert bool(read.notes) == (encoding == "cp1252")
    assert all("a.srt: is not UTF-8, read as Windows-1252" in note for note in read.notes)


@pytest.mark.parametrize(
    "content", [SRT.encode("utf-16-le"), b"\xff\xfea", b"\x81\x8d\xff", b"a\0b\0"]
)
def test_files_that_are_not_text(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(TalkheadError, match=r"a\.srt: is not text in a known encoding"):
        read_lines(written(tmp_path / "a.srt", content), LENGTH_S)


def test_webvtt_with_voices(tmp_path: Path) -> None:
    text = subtitles(
        "<v Anna>Hi &amp; hello</v>", "<v.loud ben>Oh", "Anna: it is", head="WEBVTT\n\nNOTE x\n\n"
    )
    read = read_lines(written(tmp_path / "a.vtt", text), LENGTH_S, ["Anna", "Ben"])
    assert [(one.speaker, one.text) for one in read.lines] == [
        ("Anna", "Hi & hello"),
        ("Ben", "Oh"),
        ("Anna", "it is"),
    ]


def test_json(tmp_path: Path) -> None:
    (tmp_path / "b.wav").write_bytes(b"sound")
    path = written(
        tmp_path / "a.json",
        """[
  {"start": 1, "end": 2.5, "speaker": "anna", "text": "Hi ]", "voice": "alloy"}, {"start":
    "2:10:03.250", "end": "2:10:05", "audio": "b.wav", "speaker": "Ben", "text": null},

  {"start": "00:03,5", "end": 4, "text": "Oh", "speaker": "Ben"}
]""",
    )
    assert read_lines(path, LENGTH_S, ["Anna", "Ben"]).lines == (
        Line(1, 1.0, 2.5, "Anna", text="Hi ]", voice="alloy", source=2),
        Line(2, 7803.25, 7805.0, "Ben", tmp_path / "b.wav", source=2),
        Line(3, 3.5, 4.0, "Ben", text="Oh", source=5),
    )


# ---------------------------------------------------------------------------- speakers


def test_without_declared_speakers_a_prefix_is_text(tmp_path: Path) -> None:
    read = read_lines(written(tmp_path / "a.srt", subtitles("Note: go", "<v Ben>Hi")), LENGTH_S)
    assert [(one.speaker, one.text) for one in read.lines] == [(None, "Note: go"), ("Ben", "Hi")]


def test_the_only_speaker_need_not_be_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.srt", subtitles("Hi", "ANNA : Oh", "at 10:30 sharp", "Ben: no"))
    read = read_lines(path, LENGTH_S, ["Anna"])
    assert [(one.speaker, one.text) for one in read.lines] == [
        ("Anna", "Hi"),
        ("Anna", "Oh"),
        ("Anna", "at 10:30 sharp"),
    ]
    assert reasons(read) == {10: "unknown speaker 'Ben'. The speakers are: Anna"}


def test_each_line_of_several_speakers_names_one(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.vtt", subtitles("Anna: Hi", "Hi", "<v Ben>Hi<v Anna>Oh", head="WEBVTT\n\n")
    )
    assert reasons(read_lines(path, LENGTH_S, ["Anna", "Ben"])) == {
        6: "names no speaker. Begin the text with one of: Anna:, Ben:",
        9: "names several speakers: Ben, Anna. Divide it",
    }


# ---------------------------------------------------------------------------- wrong lines


def test_all_wrong_lines_of_a_file_are_named(tmp_path: Path) -> None:
    cues = [
        "00:00:01,000 --> 00:00:02,000\nGood",
        "00:00:03,000 --> 00:00:03,000\nEmpty time",
        "-00:00:04,000 --> 00:00:05,000\nNegative",
        "00:00:06,000 --> 00:00:07,000\n<i></i>",
        "00:00:08,000 --> 00:00:09,000\n♪ ♪",
        "00:00:10 --> 00:00:11\nNo fraction",
        "00:00:58,000 --> 00:01:00,500\nToo late",
        "00:00:20,000 --> 00:00:30,000\nLong",
        "00:00:29,999 --> 00:00:31,000\nOverlap",
        f"99999999999:00:00,000 --> 00:00:31,000\n{'x' * 6000}",
    ]
    path = written(tmp_path / "a.srt", "\n\n".join(cues))
    read = read_lines(path, 60.0)
    assert [line.text for line in read.lines] == ["Good", "Long"]
    assert reasons(read) == {
        4: "ends at 3 s, but begins at 3 s",
        7: "has a negative time: '-00:00:04,000 --> 00:00:05,000'",
        10: "has no text",
        13: "has no words: '♪ ♪'",
        16: "'00:00:10 --> 00:00:11' is not hours:minutes:seconds,fraction --> ...",
        19: "ends at 60.5 s, but the video at 60.00 s",
        25: "begins at 29.999 s, while line 22 is spoken until 30 s",
        28: "end is inf: expected seconds or h:mm:ss.mmm; has 6000 characters, at most 5000 can be "
        "spoken. Divide it",
    }
    with pytest.raises(TalkheadError) as error:
        read.check()
    message = str(error.value)
    assert message.startswith(f"{path}: 8 of 10 lines cannot be spoken. line 4: ends at 3 s")
    assert "\n" not in message


def test_wrong_objects_are_named_with_all_their_faults(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    objects = [
        5,
        {"start": 0, "end": 1, "txt": "a"},
        {"start": -1, "end": 1, "text": 7, "speaker": "Carl"},
        {"start": True, "speaker": "Anna", "audio": "gone.wav"},
        {"start": "x", "end": 10**400, "speaker": "Anna", "audio": "empty.wav"},
        {"start": 1, "end": 2, "speaker": "Anna", "audio": "."},
    ]
    path = written(
        tmp_path / "a.json", f"[\n{','.join(json.dumps(one) + chr(10) for one in objects)}]"
    )
    read = read_lines(path, LENGTH_S, ["Anna", "Ben"])
    assert not read.lines and [one.line for one in read.bad] == [2, 3, 4, 5, 6, 7]
    assert [one.reason.replace(str(tmp_path), "F") for one in read.bad] == [
        "not a JSON object",
        "unknown key 'txt'. The keys are: start, end, speaker, audio, text, voice",
        "text is 7: expected text; has a negative time: -1 s; unknown speaker 'Carl'. The speakers "
        "are: Anna, Ben; has no text",
        "start is True: expected seconds or h:mm:ss.mmm; end is missing: expected seconds or "
        "h:mm:ss.mmm; F/gone.wav: no such file",
        "start is 'x': expected seconds or h:mm:ss.mmm; end is "
        f"{'1' + 59 * '0'}...: expected seconds or h:mm:ss.mmm; F/empty.wav: is empty (0 bytes)",
        "F: is a folder. Pass one file",
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "Hi", "unsupported file extension. Pass a .srt, .vtt or .json file"),
        ("a.srt", "", "contains no lines"),
        ("a.vtt", "WEBVTT\n", "contains no lines"),
        ("a.json", "[]", "contains no lines"),
        ("a.json", "{}", "is not a list such as"),
        ("a.json", "[NaN]", "invalid JSON"),
        ("a.json", "[" * 9999, "invalid JSON"),
        ("a.srt", b"a" * ((4 << 20) + 1), "more than 4 MiB"),
    ],
)
def test_files_that_are_refused(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(TalkheadError, match=message):
        read_lines(written(tmp_path / name, content), LENGTH_S)
    with pytest.raises(TalkheadError, match="there is no such file"):
        read_lines(tmp_path / "gone.srt", LENGTH_S)


def test_overlaps_of_different_speakers_are_allowed_if_asked(tmp_path: Path) -> None:
    objects = [
        {"start": 5, "end": 9, "speaker": "Anna", "text": "long"},
        {"start": 6, "end": 7, "speaker": "Ben", "text": "within"},
        {"start": 8, "end": 10, "speaker": "Anna", "text": "overlap"},
        {"start": 1, "end": 5, "speaker": "Anna", "text": "out of order"},
    ]
    path = written(tmp_path / "a.json", objects)
    apart = read_lines(path, LENGTH_S, ["Anna", "Ben"])
    assert [one.number for one in apart.lines] == [1, 4] and len(apart.bad) == 2
    both = read_lines(path, LENGTH_S, ["Anna", "Ben"], overlaps=True)
    assert [one.number for one in both.lines] == [1, 2, 4]
    assert "while line 1 is spoken until 9 s" in both.bad[0].reason


@given(st.text(alphabet="0123:,.->\n\ufeff <v>Aa&;", max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_read_or_refused(tmp_path: Path, text: str) -> None:
    """Each subtitle is either a valid line or a wrong one."""
    path = written(tmp_path / "a.vtt", text)
    try:
        read = read_lines(path, LENGTH_S, ["A"])
    except TalkheadError as error:
        assert "contains no lines" in str(error)
        return
    for line in read.lines:
        assert 0.0 <= line.start_s < line.end_s <= LENGTH_S + 0.001 and line.text
    numbers = [line.source for line in read.lines] + [one.line for one in read.bad]
    assert len({*numbers}) == len(numbers)


@pytest.mark.parametrize("junk", ["1", "<v ", "a:", "a: ", "&amp", "A :", "-1", "\n "])
def test_reading_takes_linear_time(tmp_path: Path, junk: str) -> None:
    """With a pattern that tries to match at each character, these texts would take hours."""
    text = f"{subtitles('A: ' + junk * 200_000)}\n\n{junk * 200_000} --> {junk * 200_000}\n"
    read = read_lines(written(tmp_path / "a.srt", text), LENGTH_S, ["A"])
    assert len(read.bad) + len(read.lines) == 2
    assert all(len(one.reason) < 1000 for one in read.bad)
