"""Checks of footage that do not need preprocessing: for speech, and for upside-down video."""

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

CHECKING_SPEECH = "Checking for speech"
CHUNK_S = 30.0
MIN_FRACTION = 0.15
"""Footage with a smaller share of speech is refused. At most 0.1 of noise and music is mistaken for
speech.
"""
ENOUGH_S = 20.0
"""With less speech than this, in seconds, a message describes what to expect."""


def check_speech(
    video: Path, progress: Progress, *, required: bool = True, title: str = ""
) -> None:
    """Check that footage contains speech, and report if there is little.

    Args:
        video: Footage with audio, which is read until enough speech was found.
        progress: Receives the progress and messages.
        required: Refuse footage with hardly any speech; if False, only report it.
        title: What to call it in the error. "": its path.

    Raises:
        FootageError: There is hardly any speech.
        MediaError: The audio cannot be read.
    """
    read_s = speech_s = 0.0
    total = ceil(media.probe(video).duration_s / CHUNK_S)
    chunks = media.read_audio_chunks(video, SAMPLE_RATE, CHUNK_S)
    with progress.step(CHECKING_SPEECH, total=total) as step, closing(chunks):
        for chunk in chunks:
            read_s += len(chunk) / SAMPLE_RATE
            speech_s += speech_seconds(chunk)
            step.advance()
            if speech_s >= max(ENOUGH_S, MIN_FRACTION * read_s):
                return
    if speech_s < MIN_FRACTION * read_s:
        found = f"hardly any speech was found, {speech_s:.0f} s in {read_s:.0f} s"
        if required:
            raise FootageError(
                f"{title or video}: {found}. Lip motion is learned from speech: record a person "
                "speaking, or pass --no-speech-check"
            )
        progress.message(f"{found[0].upper()}{found[1:]}")
    elif speech_s < ENOUGH_S:
        progress.message(little_speech(speech_s))


def little_speech(speech_s: float) -> str:
    """Describe what quality to expect from little speech.

    Args:
        speech_s: Seconds of speech.

    Returns:
        A sentence; "" for ENOUGH_S or more.
    """
    if speech_s >= ENOUGH_S:
        return ""
    return (
        f"{speech_s:.0f} s of speech are enough for a first try: expect the lips to follow the audio "
        "roughly. Half a minute or more gives better results"
    )


def explained(error: FootageError, video: Path) -> FootageError:
    """Replace an error about footage by a clearer one if the person is upside down.

    Args:
        error: The refusal.
        video: The footage.

    Returns:
        The error to raise.
    """
    if not is_upside_down(video):
        return error
    turned = video.with_name(f"{video.stem}-turned{video.suffix}").name
    return FootageError(
        f"{video}: the person is upside down. Turn the video: ffmpeg -i {video.name} -vf "
        f"hflip,vflip {turned}"
    )
