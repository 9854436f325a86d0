"""Read the timed lines of a video. All wrong lines are found before any work starts.

A file is SubRip (.srt) or WebVTT (.vtt), whose texts are spoken, or a JSON list of objects:

    [{"start": 1.5, "end": 4.2, "speaker": "Anna", "text": "Hello", "voice": "alloy"},
     {"start": "0:00:05.000", "end": "0:00:07.500", "speaker": "Ben", "audio": "ben-1.wav"}]

`start` and `end` are seconds or h:mm:ss.mmm; an object has `audio`, a path relative to the folder of the
file, or `text`, or both. In a subtitle, the speaker is named by `Anna: Hello` or by `<v Anna>Hello`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from talkhead.app.dubbing.row_checks import BadRow, check_input, list_bad, resolve_path
from talkhead.app.dubbing.timeline import Line
from talkhead.app.output.subtitle_files import (
    MAX_SUBTITLE_BYTES,
    WrittenCue,
    scan_cues,
    shown_text,
)
from talkhead.app.request import SUBTITLE_FILES
from talkhead.app.text_to_speech import MAX_TEXT
from talkhead.errors import InputError, TalkheadError
from talkhead.storage import decode_json, read_bytes, short_repr

KEYS = ("start", "end", "speaker", "audio", "text", "voice")
"""Keys of a JSON object."""
FALLBACK_ENCODING = "cp1252"
"""Encoding of a file that is neither UTF-8 nor UTF-16: that of Windows in Western Europe."""
_ROUNDING_S = 0.001  # precision of subtitle times


@dataclass(frozen=True)
class TimedLines:
    """The lines of a file.

    Attributes:
        path: The file.
        lines: The valid lines in the order of the file.
        bad: The wrong ones, with all that is wrong with each.
        notes: Messages for the user.
    """

    path: Path
    lines: tuple[Line, ...]
    bad: tuple[BadRow, ...]
    notes: tuple[str, ...] = ()

    def check(self) -> None:
        """Check that all lines are valid.

        Raises:
            InputError: Lines are wrong; the message names each.
        """
        if not self.bad:
            return
        raise InputError(
            f"{self.path}: {len(self.bad)} of {len(self.bad) + len(self.lines)} lines cannot be "
            f"spoken. {list_bad(self.bad)}. Correct them"
        )


@dataclass(frozen=True)
class _Rules:
    """What the lines of a file have to fit."""

    folder: Path
    length_s: float
    speakers: Mapping[str, str]  # names by their lower-case form


def read_lines(
    path: Path, length_s: float, speakers: Collection[str] = (), *, overlaps: bool = False
) -> TimedLines:
    """Read and validate timed lines.

    Args:
        path: A .srt, .vtt or .json file in UTF-8, UTF-16 with a byte order mark, or Windows-1252.
        length_s: Length of the video, seconds.
        speakers: The people of the video. If there are several, each line has to name one. Without
            any, `Anna:` at the beginning of a text belongs to the text.
        overlaps: Lines of different speakers may overlap.

    Returns:
        The valid and the wrong lines. See `TimedLines.check`.

    Raises:
        TalkheadError: The file cannot be read, is not of such a format, or has no lines.
    """
    suffix = path.suffix.lower()
    if suffix not in (*SUBTITLE_FILES, ".json"):
        raise TalkheadError(f"{path}: unsupported file extension. Pass a .srt, .vtt or .json file")
    text, notes = _decoded(path)
    rules = _Rules(path.absolute().parent, length_s, {name.casefold(): name for name in speakers})
    entries = _json_entries(path, text) if suffix == ".json" else _subtitle_entries(text, rules)
    good: list[tuple[int, Line]] = []
    bad: list[BadRow] = []
    for number, (at, cells) in enumerate(entries, 1):
        line, problems = _read_line(number, at, cells, rules)
        if problems:
            bad.append(BadRow(at, "; ".join(problems)))
        else:
            good.append((at, line))
    clashes = _overlapping(good, overlaps)
    bad += [BadRow(at, clashes[line.number]) for at, line in good if line.number in clashes]
    lines = tuple(line for _, line in good if line.number not in clashes)
    if not lines and not bad:
        raise TalkheadError(f"{path}: contains no lines. Pass a file with timed lines")
    return TimedLines(path, lines, tuple(sorted(bad, key=lambda one: one.line)), notes)


def named_audio(path: Path) -> list[Path]:
    """List the audio files that timed lines name. The lines are not checked.

    Args:
        path: A file for `read_lines`.

    Returns:
        Absolute paths in order, existing or not; none if the file cannot be read.
    """
    if path.suffix.lower() != ".json":
        return []
    folder, found = path.absolute().parent, []
    with suppress(TalkheadError):
        for _, cells in _json_entries(path, _decoded(path)[0]):
            audio = _audio(_word("audio", cells.get("audio"), []), folder, [])
            found += [] if audio is None else [audio]
    return found


def with_audio(path: Path, folder: Path, places: Mapping[str, str]) -> str:
    """Replace the paths of audio in timed lines. Each remains on its line of the file.

    Args:
        path: A .json file for `read_lines`, which must be valid, or a copy of it in another folder.
        folder: Folder of the file itself.
        places: New paths by the absolute ones.

    Returns:
        Content of a file with the new paths.

    Raises:
        TalkheadError: The file cannot be read.
    """
    text, line = "", 1
    for at, cells in _json_entries(path, _decoded(path)[0]):
        audio = _audio(_word("audio", cells.get("audio"), []), folder, [])
        moved = {} if audio is None else {"audio": places.get(str(audio), str(audio))}
        text += f"{',' if text else '['}{chr(10) * (at - line)}{json.dumps({**cells, **moved})}"
        line = at
    return f"{text or '['}]"


def _decoded(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return the text of a file, lines ended by newlines, and a note if its encoding was guessed."""
    data = read_bytes(path, MAX_SUBTITLE_BYTES)
    is_utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding in ("utf-16",) if is_utf16 else ("utf-8-sig", FALLBACK_ENCODING):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        note = f"{path}: is not UTF-8, read as Windows-1252. If letters are wrong, save it as UTF-8"
        notes = (note,) if encoding == FALLBACK_ENCODING else ()
        return text.replace("\r\n", "\n").replace("\r", "\n"), notes
    raise TalkheadError(f"{path}: is not text in a known encoding. Save it as UTF-8")


# ---------------------------------------------------------------------------- formats

Entry = tuple[int, Mapping[str, Any]]
"""Line of the file, and values by KEYS; "" is the reason why the entry cannot be read."""
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^<>]*)>")
_PREFIX = re.compile(r"\s*([^\W\d_][^:\n]{0,39}?)\s{0,9}:(?=\s)\s*")
_NEGATIVE = re.compile(r"(?:^|\s|>)-\d")


def _subtitle_entries(text: str, rules: _Rules) -> Iterator[Entry]:
    """Yield the subtitles of a file."""
    for cue in scan_cues(text):
        yield cue.line, _subtitle_cells(cue, rules)


def _subtitle_cells(cue: WrittenCue, rules: _Rules) -> Mapping[str, Any]:
    if _NEGATIVE.search(cue.times):
        return {"": f"has a negative time: {short_repr(cue.times.strip())}"}
    if cue.seconds is None:
        return {
            "": f"{short_repr(cue.times.strip())} is not hours:minutes:seconds,fraction --> ..."
        }
    (start, end), text = cue.seconds, cue.words
    named = list(dict.fromkeys(name.strip() for name in _VOICE.findall(cue.text)))
    if len(named) > 1:
        return {"": f"names several speakers: {', '.join(named)}. Divide it"}
    prefix = _PREFIX.match(text) if rules.speakers and not named else None
    if prefix is not None:
        named, text = [prefix[1]], text[prefix.end() :]
    return {"start": start, "end": end, "speaker": named[0] if named else None, "text": text}


def _json_entries(path: Path, text: str) -> Iterator[Entry]:
    """Yield the objects of a JSON list, with the lines on which they begin."""
    try:
        entries = decode_json(text)
    except ValueError as error:
        raise TalkheadError(f"{path}: invalid JSON ({error})") from error
    if not isinstance(entries, list):
        raise TalkheadError(
            f'{path}: is not a list such as [{{"start": 0, "end": 2, "text": "Hi"}}]'
        )
    for at, entry in zip(_entry_lines(text), entries, strict=True):
        if not isinstance(entry, dict):
            yield at, {"": "not a JSON object"}
        elif unknown := sorted(set(entry) - set(KEYS)):
            yield at, {"": f"unknown key {short_repr(unknown[0])}. The keys are: {', '.join(KEYS)}"}
        else:
            yield at, entry


def _entry_lines(text: str) -> Iterator[int]:
    """Yield the line on which each value of a valid JSON list begins."""
    decoder, gap = json.JSONDecoder(), re.compile(r"[\s,]*")
    at, line = text.index("[") + 1, 1 + text.count("\n", 0, text.index("["))
    while True:
        begin = gap.match(text, at).end()  # type: ignore[union-attr]
        line += text.count("\n", at, begin)
        if text[begin] == "]":
            return
        yield line
        _, at = decoder.raw_decode(text, begin)
        line += text.count("\n", begin, at)


# ---------------------------------------------------------------------------- one line


def _read_line(
    number: int, at: int, cells: Mapping[str, Any], rules: _Rules
) -> tuple[Line, list[str]]:
    """Make a line from its values. Return it with all that is wrong with it."""
    if "" in cells:
        return Line(number, 0.0, 0.0), [str(cells[""])]
    problems: list[str] = []
    start, end = (_time(name, cells.get(name), problems) for name in ("start", "end"))
    words = {name: _word(name, cells.get(name), problems) for name in KEYS[2:]}
    speaker = words["speaker"]
    if speaker is not None:
        speaker = rules.speakers.get(speaker.casefold(), speaker)
    elif len(rules.speakers) == 1:
        speaker = next(iter(rules.speakers.values()))
    audio = _audio(words["audio"], rules.folder, problems)
    line = Line(number, start, end, speaker, audio, words["text"], words["voice"], at)
    return line, [*problems, *_time_problems(line, rules), *_content_problems(line, rules)]


def _time(name: str, value: Any, problems: list[str]) -> float:
    """Return seconds; NaN, and a problem, if the value is not a time."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9:
        return float(value)
    found = _CLOCK.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        what = "is missing" if value is None else f"is {short_repr(value)}"
        problems.append(f"{name} {what}: expected seconds or h:mm:ss.mmm")
        return math.nan
    hours, minutes, seconds = found.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds.replace(",", "."))


_CLOCK = re.compile(r"(?:(\d{1,4}):)?(\d{1,4}):(\d{1,4}(?:[.,]\d{1,9})?)", re.ASCII)


def _word(name: str, value: Any, problems: list[str]) -> str | None:
    """Return a text without control characters; None if it is empty or, with a problem, not a text."""
    if value is not None and not isinstance(value, str):
        problems.append(f"{name} is {short_repr(value)}: expected text")
        return None
    return shown_text(value or "").strip() or None


def _audio(text: str | None, folder: Path, problems: list[str]) -> Path | None:
    """Return the path that a line names; None, with a problem, if it cannot be resolved."""
    try:
        return None if text is None else resolve_path(text, folder)
    except TalkheadError as error:
        problems.append(f"audio: {error}")
        return None


def _time_problems(line: Line, rules: _Rules) -> Iterator[str]:
    """Yield what is wrong with the times of a line; nothing about times that could not be read."""
    start, end = line.start_s, line.end_s
    if start < 0.0 or end < 0.0:
        yield f"has a negative time: {min(start, end):g} s"
    elif end <= start:
        yield f"ends at {end:g} s, but begins at {start:g} s"
    elif end > rules.length_s + _ROUNDING_S:
        yield f"ends at {end:g} s, but the video at {rules.length_s:.2f} s"


def _content_problems(line: Line, rules: _Rules) -> Iterator[str]:
    """Yield what is wrong with the speaker, the text and the audio of a line."""
    known = rules.speakers.values()
    if known and line.speaker is None:
        yield f"names no speaker. Begin the text with one of: {', '.join(f'{k}:' for k in known)}"
    elif known and line.speaker not in known:
        yield f"unknown speaker {short_repr(line.speaker)}. The speakers are: {', '.join(known)}"
    if line.audio is not None:
        try:
            check_input(line.audio)
        except TalkheadError as error:
            yield str(error)
    elif line.text is None:
        yield "has no text"
    elif not any(letter.isalnum() for letter in line.text):
        yield f"has no words: {short_repr(line.text)}"
    elif len(line.text) > MAX_TEXT:
        yield f"has {len(line.text)} characters, at most {MAX_TEXT} can be spoken. Divide it"


def _overlapping(lines: list[tuple[int, Line]], overlaps: bool) -> dict[int, str]:
    """Map the numbers of lines that begin before an earlier one has ended to reasons."""
    clashes: dict[int, str] = {}
    latest: dict[str | None, Line] = {}
    for _, line in sorted(lines, key=lambda one: one[1].order):
        group = line.speaker if overlaps else None
        before = latest.get(group)
        if before is not None and line.start_s < before.end_s:
            clashes[line.number] = (
                f"begins at {line.start_s:g} s, while line {before.source} is spoken until "
                f"{before.end_s:g} s"
            )
        if before is None or line.end_s > before.end_s:
            latest[group] = line
    return clashes
