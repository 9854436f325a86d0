"""Speed of a fitted identity on this machine, measured in a few seconds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from importlib.resources import as_file, files
from pathlib import Path
from typing import TypeVar

import numpy as np

from talkhead import media
from talkhead.app.avatar import Avatar, predict_motion
from talkhead.app.composer.frames import Compositor, IdleFootage, PasteFrameRenderer
from talkhead.types import FRAME_RATE, Float32

MAX_FRAMES = 3 * FRAME_RATE
MAX_S = 4.0
"""Slow renderers are measured on fewer frames."""
Item = TypeVar("Item")


def measure_speed_of_avatar(avatar: Avatar) -> tuple[float, float]:
    """Measure the speed of a loaded identity. Loading is not measured.

    Args:
        avatar: The identity.

    Returns:
        Frames per second of rendering and pasting only, and seconds of finished video per second.
        The latter includes encoding the audio, reading the footage and encoding the video.
    """
    with as_file(files("talkhead.samples") / "line.wav") as line:
        start = time.perf_counter()
        codes = predict_motion(line, avatar.encoder, avatar.predictor)
        encoded_s = (time.perf_counter() - start) / len(codes)
    made_s = _made_s(avatar, codes)
    return 1.0 / _pasted_s(avatar, codes), 1.0 / (FRAME_RATE * (encoded_s + made_s))


def _pasted_s(avatar: Avatar, codes: Float32) -> float:
    """Measure the median seconds per frame of rendering and pasting codes [F, K] in memory."""
    paste, footage = Compositor(avatar.renderer, avatar.idle), IdleFootage(avatar.idle)
    with closing(footage.frames(0, 1)) as frames:
        frame = next(frames)
    times = [time.perf_counter()]
    for place in _for_a_while(range(min(MAX_FRAMES, len(codes)))):
        paste(frame, footage.track_index(place), codes[place])
        times.append(time.perf_counter())
    return float(np.median(np.diff(times)))


def _made_s(avatar: Avatar, codes: Float32) -> float:
    """Measure the seconds per frame of making a video of codes [F, K], including its start and
    end."""
    shot = PasteFrameRenderer(avatar.renderer, IdleFootage(avatar.idle), codes)
    start, n_made = time.perf_counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        with (
            closing(shot.frames(0, min(MAX_FRAMES, len(codes)))) as images,
            media.VideoWriter(Path(folder) / "line.mp4") as video,
        ):
            for image in _for_a_while(images):
                video.write(image)
                n_made += 1
        return (time.perf_counter() - start) / n_made


def _for_a_while(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items until MAX_S have passed, at least one."""
    start = time.perf_counter()
    for item in items:
        yield item
        if time.perf_counter() - start > MAX_S:
            return
