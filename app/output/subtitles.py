"""Subtitles: timed cues for a text and its audio, and the files that contain them.

Word times come from forced alignment if the text is known and English, otherwise from spreading its
words over the stretches of speech. Without a text, English is recognized. docs/output.md gives the
accuracy of each.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

import numpy as np

from talkhead.app.output.cue_layout import Cue, SpokenWord, make_cues
from talkhead.app.output.word_timing import Token, check_pace, spread_over, tokens_of, weight_of
from talkhead.app.request import BURN, NONE, SUBTITLE_FILES, OutputOptions, transcript_file
from talkhead.audio import as_int16
from talkhead.encoder.forced_alignment import (
    align_words,
    phones_unavailable_reason,
    recognize_words,
    words_of,
)
from talkhead.encoder.vad import detect_speech
from talkhead.errors import TalkheadError
from talkhead.media import Captions, probe, read_audio_chunks
from talkhead.storage import read_text, write_bytes
from talkhead.types import SAMPLE_RATE

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
MAX_TEXT_BYTES, MAX_SUBTITLE_BYTES = 1 << 20, 4 << 20
"""Maximum sizes of a transcript (20 hours of speech) and of a file with its subtitles."""
MAX_WORD_LETTERS = 60
MAX_HOURS = 100
"""Limit of subtitle times, whose hours have two digits."""
MAX_CUE_CHARS, MAX_AT_ONCE = 1000, 8
"""Limits of one subtitle in a file, and of those burned in at one moment: drawing them takes time."""
MAX_CHARS = 42
MIN_CHARS = 12
ENGLISH = "en"

ALIGNED, SPREAD, RECOGNIZED, GIVEN = "aligned", "spread", "recognized", "given"
"""How the times of subtitles were found."""
NOTHING_SAID = "subtitles: there are none, since no words are within the length of the output"


@dataclass(frozen=True)
class Subtitles:
    """Timed subtitles.

    Attributes:
        cues: Cues in order.
        source: How their times were found: ALIGNED, SPREAD, RECOGNIZED or GIVEN.
        note: A remark on their quality for the user, or "".
    """

    cues: tuple[Cue, ...]
    source: str
    note: str = ""


def subtitle(
    audio: Path, transcript: str | None, language: str, max_chars: int = MAX_CHARS
) -> Subtitles:
    """Make the subtitles of an audio file.

    Args:
        audio: The audio.
        transcript: Spoken text, or a file with it; .srt and .vtt files keep their times. None:
            English is recognized.
        language: Language of the speech, ISO 639-1.
        max_chars: Characters per line.

    Returns:
        The subtitles.

    Raises:
        TalkheadError: The transcript is missing, empty or too long, another language has no
            transcript, or pocketsphinx is needed and not installed.
    """
    path = transcript_file(transcript)
    if path is not None and path.suffix.lower() in SUBTITLE_FILES:
        return Subtitles(read_srt(path), GIVEN)
    text = transcript if path is None else read_text(path, MAX_TEXT_BYTES)
    if text is None:
        return _recognized(audio, language, max_chars)
    if len(text) > MAX_TEXT_BYTES:
        raise TalkheadError("the transcript is too long. Pass the spoken text")
    tokens = tokens_of(_shown(text))
    if not tokens:
        raise TalkheadError("the transcript has no words. Pass the spoken text, or no transcript")
    if (longest := max(len(token.text) for token in tokens)) > MAX_CUE_CHARS:
        raise TalkheadError(
            f"the transcript has a word of {longest} characters. Pass the spoken text"
        )
    check_pace(tokens, probe(audio).duration_s)
    reason = _why_not_aligned(language)
    if not reason:
        try:
            return Subtitles(make_cues(_aligned(audio, tokens), max_chars), ALIGNED)
        except TalkheadError as error:
            reason = str(error)
    note = f"subtitles: words are spread over the speech, so their times are approximate: {reason}"
    return Subtitles(make_cues(_spread(audio, tokens), max_chars), SPREAD, note)


def _why_not_aligned(language: str) -> str:
    """Return why speech of a language cannot be aligned; "" if it can."""
    if language != ENGLISH:
        return f"only English can be aligned, not {language!r}"
    return phones_unavailable_reason()


def _recognized(audio: Path, language: str, max_chars: int) -> Subtitles:
    if language != ENGLISH:
        raise TalkheadError(
            f"subtitles in {language!r} need the text: only English is recognized. Pass --transcript"
        )
    recognized = recognize_words(lambda: read_audio_chunks(audio))
    note = "subtitles: recognized by a small model, so some words are wrong; check them"
    words = [SpokenWord(w.text, w.start_s, w.end_s) for w in recognized]
    return Subtitles(make_cues(words, max_chars), RECOGNIZED, note)


# ---------------------------------------------------------------------------- for a request


@dataclass(frozen=True)
class LineSubtitles:
    """The subtitles of a request in its work folder.

    Attributes:
        srt: Subtitle file.
        captions: The captions to burn in; None if there are none.
        note: See Subtitles.
    """

    srt: Path
    captions: Captions | None
    note: str = ""


def prepare_subtitles(
    audio: Path, options: OutputOptions, work: Path, size: tuple[int, int], length_s: float
) -> LineSubtitles | None:
    """Make the subtitles that options ask for, or reuse those in the work folder.

    Args:
        audio: The audio.
        options: Options of the output.
        work: Work folder.
        size: Width and height of the finished frames.
        length_s: Length of the output, seconds.

    Returns:
        The subtitles; None if none are requested.

    Raises:
        TalkheadError: See `subtitle`; or the font lacks letters that are to be burned in.
    """
    if options.subtitles == NONE:
        return None
    srt, note = work / "subtitles.srt", ""
    if not srt.exists():
        max_chars = line_chars(size) if options.subtitles == BURN else MAX_CHARS
        made = subtitle(audio, options.transcript, options.language, max_chars)
        cues = [replace(c, end_s=min(c.end_s, length_s)) for c in made.cues if c.start_s < length_s]
        write_srt(srt, cues)
        note = made.note if cues else NOTHING_SAID
    captions = None
    if options.subtitles == BURN:
        captions = Captions(work / "captions.ass", FONTS_DIR)
        write_ass(captions.path, read_srt(srt) if srt.stat().st_size else (), size)
    return LineSubtitles(srt, captions, note)


# ---------------------------------------------------------------------------- word times


def _aligned(audio: Path, tokens: Sequence[Token]) -> list[SpokenWord]:
    """Align tokens with the audio; those that cannot be aligned are placed between their neighbors.

    Raises TalkheadError if the text as a whole cannot be aligned.
    """
    held = bytearray()  # 115 MB per hour; only one copy is kept in memory
    for chunk in read_audio_chunks(audio):
        held += as_int16(chunk).data
    waveform = np.frombuffer(held, np.int16)
    spoken = [[] if _NOT_ALIGNABLE.search(t.text) else words_of(t.text) for t in tokens]
    found = iter(align_words(waveform, " ".join(word for words in spoken for word in words)))
    times: list[tuple[float, float] | None] = []
    for words in spoken:
        own = [word for word in (next(found) for _ in words) if word is not None]
        times.append((own[0].start_s, own[-1].end_s) if own else None)
    return _between(tokens, times, len(waveform) / SAMPLE_RATE)


_NOT_ALIGNABLE = re.compile(rf"\d|[^\W\d_]{{{MAX_WORD_LETTERS + 1}}}")
"""Matches digits, and more letters than any word has: words with such a match are not aligned."""


def _between(
    tokens: Sequence[Token], times: Sequence[tuple[float, float] | None], length_s: float
) -> list[SpokenWord]:
    """Give every token a time; those without one divide the gap in proportion to their letters."""
    words: list[SpokenWord] = []
    at, index = 0.0, 0
    while index < len(tokens):
        known = times[index]
        if known is not None:
            words.append(tokens[index].said(*known))
            at, index = known[1], index + 1
            continue
        after = next((i for i in range(index, len(tokens)) if times[i] is not None), len(tokens))
        following = times[after] if after < len(tokens) else None
        until = max(at, following[0] if following else length_s)
        gap = tokens[index:after]
        total, done = sum(weight_of(t) for t in gap), 0.0
        for token in gap:
            start = at + (until - at) * done / total
            done += weight_of(token)
            words.append(token.said(start, at + (until - at) * done / total))
        at, index = until, after
    return words


def _spread(audio: Path, tokens: Sequence[Token]) -> list[SpokenWord]:
    """Spread tokens over the stretches with speech."""
    return spread_over(tokens, detect_speech(lambda: read_audio_chunks(audio)).silent)


# ---------------------------------------------------------------------------- files


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
    lines = iter(enumerate(read_text(path, MAX_SUBTITLE_BYTES).split("\n"), 1))
    for number, line in lines:
        if "-->" not in line:
            continue
        found = _TIMES.search(line)
        if found is None and not _ENDLESS.search(line):
            continue
        start, end = (0.0, np.inf) if found is None else _times(found)
        text = "\n".join(takewhile(str.strip, (held for _, held in lines)))
        words = _shown(_MARKUP.sub("", text)).strip()
        if end > MAX_HOURS * 3600:
            raise TalkheadError(
                f"{path}: line {number}: times beyond {MAX_HOURS} hours are not supported"
            )
        if len(words) > MAX_CUE_CHARS:
            raise TalkheadError(
                f"{path}: line {number}: a subtitle of {len(words)} characters. Divide it"
            )
        if words and end > start:
            cues.append(Cue(start, end, words))
    if not cues:
        raise TalkheadError(f"{path}: has no subtitles. Pass a SubRip file, or the plain text")
    return tuple(sorted(cues, key=lambda cue: cue.start_s))


def _times(found: re.Match[str]) -> tuple[float, float]:
    """Return start and end of a cue in seconds."""
    return _seconds(*found.groups()[:4]), _seconds(*found.groups()[4:])


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(f"{seconds}.{fraction}")


def _shown(text: str) -> str:
    """Remove control characters, which have no meaning in a subtitle; a tab becomes a space."""
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
