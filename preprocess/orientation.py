"""Detect footage that is upside down, when it was refused for another reason."""

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
"""Number of rotated frames that must show a face, and by how many they must exceed the unrotated ones."""


def is_upside_down(video: Path) -> bool:
    """Compare how many frames show a face upright and rotated by 180 degrees.

    The landmarker detects something in about half of the frames of an upside-down face.

    Args:
        video: The video.

    Returns:
        True if nearly all rotated frames show a face, and clearly fewer of the unrotated ones.

    Raises:
        MediaError: The video cannot be decoded.
    """
    as_they_are = turned = 0
    for frame in _spread(video):
        as_they_are += _has_face(frame)
        turned += _has_face(np.ascontiguousarray(frame[::-1, ::-1]))
    return turned >= MIN_SEEN and turned >= as_they_are + MIN_GAIN


def _spread(video: Path) -> Iterator[UInt8]:
    """Decode frames [H, W, 3] spread over a video."""
    length_s = media.probe(video).duration_s
    for place in range(N_LOOKS):
        start_s = length_s * (place + 0.5) / N_LOOKS
        with closing(media.read_frames(video, start_s=start_s, n_frames=1)) as frames:
            yield from frames


def _has_face(frame: UInt8) -> bool:
    """Detect a face in a frame [H, W, 3]."""
    tracker = FaceTracker()  # a new one, which follows no earlier face
    try:
        return tracker.track(frame) is not None
    finally:
        tracker.close()
