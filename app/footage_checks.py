"""Whether footage can work, as far as minutes of preparing are not needed to say so."""

from __future__ import annotations

from contextlib import closing
from math import ceil
from pathlib import Path

from talkhead import media
from talkhead.encoder.vad import speech_seconds
from talkhead.errors import FootageError
from talkhead.preprocess.orientation import is_upside_down
from talkhead.progress import Progress
from talkhead.types import SAMPLE_RATE

LISTENING = "Listening for speech"
CHUNK_S = 30.0
MIN_FRACTION = 0.15
"""Footage with speech in less of it is refused: noise and music reach a tenth."""
ENOUGH_S = 20.0
"""With less speech than this a person is told what to expect."""


def check_speech(video: Path, progress: Progress, *, required: bool = True) -> None:
    """Listen until there is enough speech, and tell what to expect of little.

    required: raise FootageError where there is hardly any. Raises MediaError for sound that can't be
    read.
    """
    heard_s = spoken_s = 0.0
    total = ceil(media.probe(video).duration_s / CHUNK_S)
    chunks = media.read_audio_chunks(video, SAMPLE_RATE, CHUNK_S)
    with progress.step(LISTENING, total=total) as step, closing(chunks):
        for chunk in chunks:
            heard_s += len(chunk) / SAMPLE_RATE
            spoken_s += speech_seconds(chunk)
            step.advance()
            if spoken_s >= max(ENOUGH_S, MIN_FRACTION * heard_s):
                return
    if spoken_s < MIN_FRACTION * heard_s:
        if required:
            raise FootageError(
                f"{video}: hardly any speech is heard, {spoken_s:.0f} s in {heard_s:.0f} s. Lips are "
                "learned from speech: record a person speaking, or pass --no-speech-check"
            )
        progress.message(f"Hardly any speech is heard, {spoken_s:.0f} s in {heard_s:.0f} s")
    elif spoken_s < ENOUGH_S:
        progress.message(little_speech(spoken_s))


def little_speech(spoken_s: float) -> str:
    """What to expect of less than ENOUGH_S of speech; "" for more."""
    if spoken_s >= ENOUGH_S:
        return ""
    return (
        f"{spoken_s:.0f} s of speech are enough for a first try: expect lips that follow the sound "
        "roughly. Half a minute or more gives better ones"
    )


def explained(error: FootageError, video: Path) -> FootageError:
    """A refusal of footage, or what is behind it: that the person is upside down."""
    if not is_upside_down(video):
        return error
    turned = video.with_name(f"{video.stem}-turned{video.suffix}").name
    return FootageError(
        f"{video}: the person is upside down. Turn the video: ffmpeg -i {video.name} -vf "
        f"hflip,vflip {turned}"
    )
