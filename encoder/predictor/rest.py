"""Silence in a line: to what degree the mouth is at rest, and how near speech is."""

from __future__ import annotations

import numpy as np

from talkhead.easing import smooth_step
from talkhead.types import Bool, Float32, Float64

SETTLING_FRAMES = 20
"""Frames at the beginning of a pause in which the networks still move the mouth: in short pauses
people breathe with the mouth open.
"""
STIRRING_FRAMES = 4
"""Frames at the end of a pause in which the networks move the mouth: it opens before the first sound."""
CLOSING_FRAMES = 2
"""Frames over which the mouth moves to rest, and away from it before the last STIRRING_FRAMES."""
NEAR_FRAMES, FADING_FRAMES = 3, 4
"""Frames within NEAR_FRAMES of speech count as speech; over the next FADING_FRAMES, they gradually
count less."""


def rest_share(silent: Bool, n_frames: int) -> Float32:
    """Compute to what degree the mouth is at rest.

    Args:
        silent: Video frames without speech, [F]. Frames before and after it count as silent.
        n_frames: Video frames.

    Returns:
        [n_frames]: 0 in speech, 1 well inside silence, smooth in between.
    """
    share = smooth_step(rest_ramp(*_distances(silent, n_frames)))
    return np.asarray(share, dtype=np.float32)


def speech_share(silent: Bool, n_frames: int) -> Float64:
    """Compute to what degree a frame belongs to speech.

    It depends on speech at most NEAR_FRAMES + FADING_FRAMES - 1 frames ahead, 240 ms.

    Args:
        silent: Video frames without speech, [F]. Frames before and after it count as silent.
        n_frames: Video frames.

    Returns:
        [n_frames]: 1 within NEAR_FRAMES of speech, then linearly to 0 over FADING_FRAMES.
    """
    return speech_ramp(np.minimum(*_distances(silent, n_frames)))


def rest_ramp(since: Float64, until: Float64) -> Float64:
    """Compute a ramp from motion to rest, over CLOSING_FRAMES, and back.

    Args:
        since: Frames since the last speech, of any shape.
        until: Frames until the next speech, of the same shape.

    Returns:
        0 to 1, of that shape.
    """
    settled = (since - SETTLING_FRAMES) / CLOSING_FRAMES
    unmoved = (until - STIRRING_FRAMES) / CLOSING_FRAMES
    return np.clip(np.minimum(settled, unmoved), 0.0, 1.0)


def speech_ramp(distance: Float64) -> Float64:
    """Compute a ramp from speech to silence: 1 within NEAR_FRAMES, then to 0 over FADING_FRAMES.

    Args:
        distance: Frames to the nearest speech, of any shape.

    Returns:
        0 to 1, of that shape.
    """
    return np.clip(1.0 - (distance - NEAR_FRAMES) / FADING_FRAMES, 0.0, 1.0)


def _distances(silent: Bool, n_frames: int) -> tuple[Float64, Float64]:
    """Return frames [n_frames] since the last and until the next speech, infinite where there is none."""
    flags = np.ones(n_frames, dtype=bool)
    flags[: len(silent)] = silent[:n_frames]
    return _frames_since(~flags), _frames_since(~flags[::-1])[::-1]


def _frames_since(flags: Bool) -> Float64:
    """Return the frames [F] since the last True of flags [F], infinite before the first."""
    index = np.arange(len(flags))
    last = np.maximum.accumulate(np.where(flags, index, -1))
    return np.where(last >= 0, index - last, np.inf)
