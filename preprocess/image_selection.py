"""Select diverse frames of long footage, by farthest-point sampling.

Mouth shapes recur in speech: in half an hour of footage, a few thousand frames show all of them. The
images of the other frames would only take disk space.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from talkhead.frame_selection import farthest_first, longest_run_of_clips
from talkhead.preprocess.occlusion import head_posture
from talkhead.types import Bool, Float32

MAX_FRAMES = 3000
"""Footage of up to two minutes keeps the images of all frames."""
MAX_FOLLOWED = 6000
"""Further footage of a known person keeps more, since it is spoken in from beginning to end."""
IDLE_FRACTION, HELD_OUT_FRACTION = 4, 10
"""The idle clip keeps up to 1 / IDLE_FRACTION of them, 30 s, and the held-out frames up to
1 / HELD_OUT_FRACTION, 12 s, both without gaps."""
POSE_FRACTION = 4.0
"""Weight of a radian of head rotation relative to a unit of the code."""


def frame_places(codes: Float32, viewmats: Float32, training: Bool) -> Float32:
    """Embed frames so that similar mouths in similar poses are close.

    Args:
        codes: [F, K] motion codes.
        viewmats: [F, 4, 4] head poses.
        training: [F] frames whose mean head direction is the origin.

    Returns:
        [F, D] motion code, head direction and head position.
    """
    nothing = np.zeros((len(codes), 0), np.float32)
    posture = POSE_FRACTION * head_posture(viewmats, nothing, training)
    return np.concatenate([codes, posture], axis=1, dtype=np.float32)


def choose_stored_frames(
    places: Float32,
    unoccluded: Bool,
    train: Bool,
    occluded: Bool,
    max_frames: int,
    joins: Sequence[int] = (),
) -> Bool:
    """Select the frames whose images are stored.

    All frames of short footage are kept. Of long footage, two runs are kept: the longest unoccluded
    one of training frames, for the idle clip, and the part of the held-out frames with the most
    unoccluded ones. Then unoccluded training frames are added, always the one farthest from those already
    chosen.

    Args:
        places: [F, D] of `frame_places`.
        unoccluded: [F] usable frames with nothing in front of the face.
        train: [F] frames that are not held out.
        occluded: [F] frames with something in front of the face.
        max_frames: Number of frames to keep at most.
        joins: First frame of each clip but the first one, of a joined video.

    Returns:
        [F] bool.
    """
    if len(places) <= max_frames:
        return np.ones(len(places), dtype=bool)
    kept = np.zeros(len(places), dtype=bool)
    for first, after in (
        longest_run_of_clips(unoccluded & train, occluded, joins, max_frames // IDLE_FRACTION),
        _least_occluded_run(unoccluded, ~train, max_frames // HELD_OUT_FRACTION),
    ):
        kept[first:after] = True
    allowed = np.flatnonzero(unoccluded & train)
    new = farthest_first(places[allowed], kept[allowed], max_frames - int(kept.sum()))
    kept[allowed[new]] = True
    return kept


def _least_occluded_run(unoccluded: Bool, allowed: Bool, max_frames: int) -> tuple[int, int]:
    """Find the run of at most `max_frames` allowed frames with the most unoccluded ones.

    unoccluded: [F]. allowed: [F], consecutive. Returns the first frame and the one after the last.
    """
    start = int(allowed.argmax()) if allowed.any() else len(allowed)
    after = start + int(allowed.sum())
    length = min(max_frames, after - start)
    before = np.concatenate([[0], np.cumsum(unoccluded[start:after])])
    first = start + int((before[length:] - before[: len(before) - length]).argmax())
    return first, first + length
