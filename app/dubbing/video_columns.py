"""The columns of a table that dub whole videos: timed lines, speakers, and the sound under them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from talkhead.app.choices import DEFAULT_MODE, SOURCE
from talkhead.app.dubbing.line_planner import PlacementLimits
from talkhead.app.dubbing.row_checks import cell_text, cell_value, resolve_path
from talkhead.app.dubbing.timed_lines import TimedLines, read_lines
from talkhead.app.dubbing.video_dub import NO_BED, ORIGINAL, LineSettings
from talkhead.app.text_to_speech import URL_VARIABLE, is_available
from talkhead.config import from_json
from talkhead.errors import MediaError, TalkheadError
from talkhead.media import probe
from talkhead.media.probing import count_frames, own_rate
from talkhead.storage import ContentError

LINES, SPEAKERS, BED = "lines", "speakers", "bed"
_LIMITS: Mapping[str, tuple[str, type[Any]]] = {
    "max_speed": ("max_speed", float),
    "max_early": ("max_early_s", float),
    "overflow": ("overflow", str),
    "overlaps": ("overlaps", bool),
}
"""Field of PlacementLimits of each column, and its type."""
VIDEO_COLUMNS = (LINES, SPEAKERS, BED, *_LIMITS)
_WITHOUT_EFFECT = ("footage_end", "background", "expression", "blinks")
"""Options of rows with audio that whole videos do not have."""
_FIXED = {"mode": DEFAULT_MODE, "timeline": SOURCE}
"""Columns that can have only one value with lines: they are spoken in the footage."""


def read_speakers(value: Any) -> dict[str, str]:
    """Read the cell `speakers`.

    Args:
        value: "Anna=anna; Ben=ben", or a mapping of names to identities; None or "" for none.

    Returns:
        Identities as they are written, by name.

    Raises:
        TalkheadError: The cell is invalid, or names a speaker twice.
    """
    speakers: dict[str, str] = {}
    for name, identity in _pairs(value):
        if not name or not identity:
            raise TalkheadError(
                f"{SPEAKERS}: {name or identity!r} is incomplete. Pass NAME=IDENTITY; NAME=IDENTITY"
            )
        if name.casefold() in {one.casefold() for one in speakers}:
            raise TalkheadError(f"{SPEAKERS}: {name} is named twice. Pass each speaker once")
        speakers[name] = identity
    return speakers


def _pairs(value: Any) -> Iterable[tuple[str, str]]:
    """Yield names and identities without surrounding spaces."""
    if isinstance(value, Mapping):
        for name, identity in value.items():
            yield cell_text(SPEAKERS, name), cell_text(SPEAKERS, identity)
        return
    for part in cell_text(SPEAKERS, value).split(";"):
        if part.strip():
            name, _, identity = part.partition("=")
            yield name.strip(), identity.strip()


def read_line_settings(
    given: Mapping[str, str], speakers: Mapping[str, str], folder: Path
) -> LineSettings | None:
    """Read the columns of a row that concern a whole video.

    Args:
        given: The cells of the row that are not empty.
        speakers: Identities by the names of speakers; see `read_speakers`.
        folder: Folder of the table.

    Returns:
        The settings; None if the row has no lines.

    Raises:
        TalkheadError: A value is invalid, or has no effect in this row.
    """
    if LINES not in given:
        named = [SPEAKERS] if speakers else [name for name in VIDEO_COLUMNS if name in given]
        if named:
            raise TalkheadError(
                f"{named[0]}: has no effect with audio. Pass lines, or leave it out"
            )
        return None
    _check_others(given, speakers)
    bed = given.get(BED, ORIGINAL)
    is_file = bed.lower() not in (ORIGINAL, NO_BED)
    return LineSettings(
        str(resolve_path(given[LINES], folder)),
        speakers,
        str(resolve_path(bed, folder)) if is_file else bed.lower(),
        _limits(given),
    )


def _check_others(given: Mapping[str, str], speakers: Mapping[str, str]) -> None:
    """Raise TalkheadError if another column does not go together with lines."""
    if "audio" in given:
        raise TalkheadError("audio and lines are both given. Pass one of them")
    if "video" not in given:
        raise TalkheadError("lines need a video, in which they are spoken. Pass one")
    if "identity" in given and speakers:
        raise TalkheadError("identity and speakers are both given. Pass one of them")
    for name, value in _FIXED.items():
        if given.get(name, value) != value:
            raise TalkheadError(
                f"{name} {given[name]!r}: lines are spoken in the video itself. Leave {name} out"
            )
    if "transcript" in given:
        raise TalkheadError("transcript: has no effect with lines, which have their own text")
    for name in _WITHOUT_EFFECT:
        if name in given:
            raise TalkheadError(
                f"{name}: has no effect with lines, whose video stays as it is but for the mouths. "
                "Leave it out"
            )


def _limits(given: Mapping[str, str]) -> PlacementLimits:
    values = {
        field: cell_value(column, kind, given[column])
        for column, (field, kind) in _LIMITS.items()
        if column in given
    }
    try:
        return from_json(PlacementLimits, values)
    except ContentError as error:
        raise TalkheadError(str(error).replace("max_early_s", "max_early")) from error


def check_line_files(settings: LineSettings, video: Path) -> None:
    """Check what can be known about the lines of a video before it is dubbed.

    How long the speech is, and whether it fits, is known once it is decoded or synthesized.

    Args:
        settings: The lines.
        video: The video.

    Raises:
        TalkheadError: The video has no picture or the bed no sound, lines are invalid or name several
            people for one identity, or a text cannot be spoken on this machine.
    """
    if not probe(video).has_video:
        raise MediaError(f"{video}: has no picture. Pass a video of the people who speak")
    bed = settings.bed_file
    if bed is not None and not probe(bed).has_audio:
        raise MediaError(f"{bed}: has no sound. Pass music and effects, or bed none")
    rate, overlaps = own_rate(video), settings.limits.overlaps
    length_s = float(count_frames(video, rate) / rate)  # the file may state that of its sound
    timed = read_lines(Path(settings.lines), length_s, settings.speakers, overlaps=overlaps)
    timed.check()
    if not settings.speakers:
        _check_one_speaker(timed)
    _check_voices(timed)


def _check_one_speaker(timed: TimedLines) -> None:
    names = {line.speaker.casefold(): line.speaker for line in timed.lines if line.speaker}
    if len(names) > 1:
        some = list(names.values())[:2]
        raise TalkheadError(
            f"{timed.path}: names {len(names)} speakers. Pass speakers, with the identity of each: "
            f"{some[0]}=IDENTITY; {some[1]}=IDENTITY"
        )


def _check_voices(timed: TimedLines) -> None:
    """Raise TalkheadError if a line has only a text, and no voice can speak it."""
    url = os.environ.get(URL_VARIABLE)
    for line in timed.lines:
        if line.audio is not None:
            continue
        where = f"{timed.path}: line {line.source}"
        if not is_available(url):
            raise TalkheadError(
                f"{where} has no audio, and no voice is installed that speaks its text. Run: pip install "
                f"'talkhead[voice]' (English), or set {URL_VARIABLE} to the address of a voice server"
            )
        if line.voice is not None and url is None:
            raise TalkheadError(
                f"{where}: only a voice server has several voices. Set {URL_VARIABLE} to its address, or "
                "leave out voice"
            )
