"""Files of subtitles: read SubRip and WebVTT, write SubRip and, for burning in, ASS."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from talkhead.app.output.cue_layout import Cue
from talkhead.errors import TalkheadError
from talkhead.storage import read_text, write_bytes

FONTS_DIR = Path(__file__).parent / "fonts"
FONT = "Noto Sans"
COVERED = (
    (0x20, 0x7E), (0xA0, 0x52F), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x209C),
    (0x20A0, 0x20BF), (0x2100, 0x215F),
)  # fmt: skip
"""Characters of the included font: Latin, Greek, Cyrillic, punctuation."""
FONT_FRACTION = 0.055
"""Line height, relative to the shorter side of the picture."""
LETTER_FRACTION = 0.56
"""Width of a bold letter, relative to the line height; a little more than the average."""
MAX_SUBTITLE_BYTES = 4 << 20
"""Maximum size of a file with subtitles."""
MAX_HOURS = 100
"""Limit of subtitle times, whose hours have two digits."""
MAX_CUE_CHARS, MAX_AT_ONCE = 1000, 8
"""Limits of one subtitle in a file, and of those burned in at one moment: drawing them takes time."""
MAX_CHARS, MIN_CHARS = 42, 12
"""Largest and smallest number of characters of a line."""


def write_srt(path: Path, cues: Sequence[Cue]) -> None:
    """Write cues as a SubRip file.

    Args:
        path: The file.
        cues: Cues in order.

    Raises:
        TalkheadError: The file cannot be written.
    """
    blocks = [
        f"{number}\n{_clock(cue.start_s, ',', 3)} --> {_clock(cue.end_s, ',', 3)}\n{cue.text}\n"
        for number, cue in enumerate(cues, 1)
    ]
    write_bytes(path, "\n".join(blocks).encode())


_TIME = r"(?:(\d{1,9}):)?(\d{1,9}):(\d{1,9})[.,](\d{1,9})"
_TIMES = re.compile(rf"(?<![\d:.,]){_TIME}\s{{0,99}}-->\s{{0,99}}{_TIME}(?!\d)", re.ASCII)
_ENDLESS = re.compile(r"\d{10}", re.ASCII)
_MARKUP = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")
_ENTITIES = {"amp": "&", "lt": "<", "gt": ">", "nbsp": " ", "lrm": "\u200e", "rlm": "\u200f"}
_ENTITY = re.compile(rf"&({'|'.join(_ENTITIES)});")
"""Escapes of WebVTT."""


@dataclass(frozen=True)
class WrittenCue:
    """A subtitle as it is written in a file.

    Attributes:
        line: Line of the file with its times.
        times: That line.
        text: The lines below it, with markup.
    """

    line: int
    times: str
    text: str

    @property
    def seconds(self) -> tuple[float, float] | None:
        """Start and end, seconds; None if they are not written as hours:minutes:seconds,fraction."""
        found = _TIMES.search(self.times)
        if found is None:
            return (0.0, math.inf) if _ENDLESS.search(self.times) else None
        return _seconds(*found.groups()[:4]), _seconds(*found.groups()[4:])

    @property
    def words(self) -> str:
        """The text without markup, in several lines."""
        plain = _ENTITY.sub(lambda found: _ENTITIES[found[1]], _MARKUP.sub("", self.text))
        return shown_text(plain).strip()


def scan_cues(text: str) -> Iterator[WrittenCue]:
    """Find the subtitles of a SubRip or WebVTT file. They need not be valid.

    Args:
        text: Content of the file, its lines ended by newlines.

    Yields:
        The subtitles in the order of the file.
    """
    lines = iter(enumerate(text.split("\n"), 1))
    for number, line in lines:
        if "-->" in line:
            below = takewhile(str.strip, (held for _, held in lines))
            yield WrittenCue(number, line, "\n".join(below))


def read_srt(path: Path) -> tuple[Cue, ...]:
    """Read a SubRip or WebVTT file, without markup.

    Args:
        path: The file.

    Returns:
        Cues in order.

    Raises:
        TalkheadError: It has no cues, times beyond MAX_HOURS, or cues too long to read.
    """
    cues = []
    for cue in scan_cues(read_text(path, MAX_SUBTITLE_BYTES)):
        times, words = cue.seconds, cue.words
        if times is None:
            continue
        start, end = times
        if end > MAX_HOURS * 3600:
            raise TalkheadError(
                f"{path}: line {cue.line}: times beyond {MAX_HOURS} hours are not supported"
            )
        if len(words) > MAX_CUE_CHARS:
            raise TalkheadError(
                f"{path}: line {cue.line}: a subtitle of {len(words)} characters. Divide it"
            )
        if words and end > start:
            cues.append(Cue(start, end, words))
    if not cues:
        raise TalkheadError(f"{path}: has no subtitles. Pass a SubRip file, or the plain text")
    return tuple(sorted(cues, key=lambda cue: cue.start_s))


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(f"{seconds}.{fraction}")


def shown_text(text: str) -> str:
    """Remove control characters, which have no meaning in a subtitle; a tab becomes a space.

    Args:
        text: Any text.

    Returns:
        The text, with its line breaks.
    """
    plain = text.replace("\t", " ")
    return "".join(c for c in plain if c == "\n" or unicodedata.category(c) != "Cc")


def _clock(time_s: float, point: str, digits: int) -> str:
    """Format a time: 00:01:02,345."""
    ticks = round(time_s * 10**digits)
    seconds, fraction = divmod(ticks, 10**digits)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}{point}{fraction:0{digits}}"


def line_chars(size: tuple[int, int]) -> int:
    """Return how many characters of a burned-in line fit into a picture.

    Args:
        size: Width and height of the picture.

    Returns:
        Number of characters.
    """
    letter = LETTER_FRACTION * FONT_FRACTION * min(size)
    return max(MIN_CHARS, min(MAX_CHARS, int(0.92 * size[0] / letter)))


def check_letters(cues: Sequence[Cue]) -> None:
    """Check that the included font has all letters.

    Args:
        cues: The cues.

    Raises:
        TalkheadError: Letters are missing.
    """
    letters = {c for cue in cues for c in cue.text if c != "\n"}
    missing = sorted(c for c in letters if not any(a <= ord(c) <= b for a, b in COVERED))
    if missing:
        raise TalkheadError(
            f"subtitles: the font for burning in has no {' '.join(missing[:5])} (it has Latin, "
            "Greek and Cyrillic). Choose --subtitles track or srt, which players draw"
        )


def _check_at_once(cues: Sequence[Cue]) -> None:
    """Raise TalkheadError if more cues are shown at the same time than fit into a picture."""
    ends: list[float] = []
    for cue in sorted(cues, key=lambda cue: cue.start_s):
        ends = [end for end in ends if end > cue.start_s]
        ends.append(cue.end_s)
        if len(ends) > MAX_AT_ONCE:
            raise TalkheadError(
                f"subtitles: more than {MAX_AT_ONCE} are shown at {cue.start_s:.1f} s. Shorten "
                "them, or choose --subtitles track or srt"
            )


_ASS = """[Script Info]
ScriptType: v4.00+
PlayResX: {width}
PlayResY: {height}
WrapStyle: 2
ScaledBorderAndShadow: yes

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, OutlineColour, BackColour, Bold, BorderStyle, \
Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default, {font}, {size:.1f}, &H00FFFFFF, &H00101010, &H80000000, -1, 1, \
{outline:.2f}, {shadow:.2f}, 2, 0, 0, {margin}, 1

[Events]
Format: Layer, Start, End, Style, Text
"""


def write_ass(path: Path, cues: Sequence[Cue], size: tuple[int, int]) -> None:
    """Write cues as an ASS file, from which they are burned into pictures.

    Args:
        path: The .ass file.
        cues: Cues in order.
        size: Width and height of the pictures.

    Raises:
        TalkheadError: The font lacks letters, too many cues are shown at once, or the file
            cannot be written.
    """
    check_letters(cues)
    _check_at_once(cues)
    line = FONT_FRACTION * min(size)
    head = _ASS.format(
        width=size[0],
        height=size[1],
        font=FONT,
        size=line * 1.36,  # the size is the font's total height, 1.36 of its em
        outline=line * 0.07,
        shadow=line * 0.04,
        margin=round(0.05 * size[1]),
    )
    events = [
        f"Dialogue: 0,{_clock(c.start_s, '.', 2)},{_clock(c.end_s, '.', 2)},Default,"
        f"{_ass_text(c.text)}\n"
        for c in cues
    ]
    write_bytes(path, (head + "".join(events)).encode())


def _ass_text(text: str) -> str:
    r"""Escape text so that nothing in it is markup: a word joiner separates \ from what follows."""
    safe = text.replace("\\", "\\\u2060").replace("{", "\\{").replace("}", "\\}")
    return safe.replace("\n", "\\N")
