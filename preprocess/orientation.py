"""Whether footage that can't be used is only upside down: asked when it was refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from talkhead import media
from talkhead.preprocess.landmarks import FaceTracker
from talkhead.types import UInt8

N_LOOKS = 12
MIN_SEEN, MIN_GAIN = 10, 2
"""Of the looks at turned frames, so many must show a face, and so many more than those as they are."""


def is_upside_down(video: Path) -> bool:
    """Whether faces are seen in a video's frames turned by 180 degrees, and hardly as they are.

    Of a face that hangs the landmarker sees something in half of the frames. Raises MediaError.
    """
    as_they_are = turned = 0
    for frame in _spread(video):
        as_they_are += _has_face(frame)
        turned += _has_face(np.ascontiguousarray(frame[::-1, ::-1]))
    return turned >= MIN_SEEN and turned >= as_they_are + MIN_GAIN


def _spread(video: Path) -> Iterator[UInt8]:
    """Frames from all over a video."""
    length_s = media.probe(video).duration_s
    for place in range(N_LOOKS):
        start_s = length_s * (place + 0.5) / N_LOOKS
        with closing(media.read_frames(video, start_s=start_s, n_frames=1)) as frames:
            yield from frames


def _has_face(frame: UInt8) -> bool:
    tracker = FaceTracker()  # a fresh one, which follows no earlier face
    try:
        return tracker.track(frame) is not None
    finally:
        tracker.close()
