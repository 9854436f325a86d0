"""Subtitles: timed cues for a text and its audio.

Word times come from forced alignment if the text is known and English, otherwise from spreading its
words over the stretches of speech. Without a text, English is recognized. docs/output.md gives the
accuracy of each.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from talkhead.app.output.cue_layout import Cue, SpokenWord, make_cues
from talkhead.app.output.subtitle_files import (
    FONTS_DIR,
    MAX_CHARS,
    MAX_CUE_CHARS,
    line_chars,
    read_srt,
    shown_text,
    write_ass,
    write_srt,
)
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
from talkhead.storage import read_text
from talkhead.types import SAMPLE_RATE

MAX_TEXT_BYTES = 1 << 20
"""Maximum size of a transcript: 20 hours of speech."""
MAX_WORD_LETTERS = 60
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
    tokens = tokens_of(shown_text(text))
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
