"""The speech of the lines of a dubbed video, as audio and as motion of a mouth."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from talkhead.app.avatar import Avatar, predict_motion
from talkhead.app.dubbing.soundtrack import speech_duration
from talkhead.app.dubbing.timeline import Line, Placement
from talkhead.app.text_to_speech import URL_VARIABLE, synthesize
from talkhead.errors import TalkheadError
from talkhead.media import read_audio
from talkhead.media.loudness import write_audio
from talkhead.progress import Progress
from talkhead.storage import fingerprint, make_folder
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32

REST_S = 0.24
"""Motion after the end of a line, in which the mouth comes to rest."""


def speak_lines(lines: Sequence[Line], folder: Path, progress: Progress) -> list[Line]:
    """Synthesize the lines that have a text only, or find what an earlier call has made.

    Args:
        lines: The lines.
        folder: Folder for the audio.
        progress: Receives the number of lines.

    Returns:
        The lines, all with audio.

    Raises:
        TalkheadError: A text cannot be spoken; the message names the line.
    """
    spoken = []
    with progress.step("Speaking the lines", total=len(lines)) as step:
        for line in lines:
            spoken.append(line if line.audio is not None else _synthesized(line, folder))
            step.advance()
    return spoken


def _synthesized(line: Line, folder: Path) -> Line:
    """Return a line with audio that speaks its text."""
    url = os.environ.get(URL_VARIABLE)
    path = make_folder(folder) / f"{fingerprint([line.text, line.voice, url])[:16]}.wav"
    if not path.exists():
        try:
            samples, rate = synthesize(line.text or "", voice=line.voice, url=url)
        except TalkheadError as error:
            raise TalkheadError(f"line {line.source}: {error}") from error
        block = samples.astype(np.float32) / np.float32(32768.0)
        write_audio(path, [block], rate, 1, 0.0)
    return replace(line, audio=path)


def durations(lines: Sequence[Line]) -> list[float]:
    """Measure how long the lines are.

    Args:
        lines: The lines, all with audio.

    Returns:
        Seconds.

    Raises:
        TalkheadError: Audio cannot be read or is silent; the message names the line.
    """
    found = []
    for line in lines:
        assert line.audio is not None
        try:
            found.append(speech_duration(line.audio))
        except TalkheadError as error:
            raise TalkheadError(f"line {line.source}: {error}") from error
    return found


def line_codes(placement: Placement, avatar: Avatar, folder: Path, intensity: float) -> Float32:
    """Predict the motion of a speaker's mouth in a line.

    Args:
        placement: The line and when it is spoken.
        avatar: The speaker.
        folder: Folder for the audio at its planned speed.
        intensity: Factor on the motion of the mouth.

    Returns:
        Motion codes [N, K] at 25 per second from the start of the line, with the rest after it.

    Raises:
        MediaError: The audio cannot be read.
    """
    audio = placement.line.audio
    assert audio is not None
    if placement.speed != 1.0:
        samples = read_audio(audio, SAMPLE_RATE, tempo=placement.speed)
        audio = make_folder(folder) / f"{placement.line.number:05d}.wav"
        write_audio(audio, [samples], SAMPLE_RATE, 1, 0.0)
    spoken_s = placement.end_s - placement.start_s
    n_frames = max(1, int(np.ceil((spoken_s + REST_S) * FRAME_RATE)) + 1)
    return predict_motion(audio, avatar.encoder, avatar.predictor, n_frames, intensity)
