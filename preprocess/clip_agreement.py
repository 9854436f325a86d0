"""Compare the clips of one person: whether they show the same face, and look alike.

A few dozen frames of each clip are searched for the face. The images of a clip whose light, size, clothes
or background differ from the first clip's would blur the renderer; its lips still show how the person
speaks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path

import cv2
import numpy as np

from talkhead import media
from talkhead.cameras import default_intrinsics
from talkhead.crops import body_area
from talkhead.errors import FootageError
from talkhead.preprocess.background import MOVING_ABOVE, PERSON_BELOW, SEEN_AT_LEAST
from talkhead.preprocess.head_pose import shape_difference, track_head
from talkhead.preprocess.landmarks import FaceDetector, FaceTracker, mesh_triangles
from talkhead.preprocess.occlusion import face_colors
from talkhead.preprocess.person_mask import PersonSegmenter
from talkhead.preprocess.quality import MIN_SECONDS, check_found, check_size, eye_distance
from talkhead.types import FRAME_RATE, Float32, Float64, MediaInfo, UInt8

N_SAMPLES = 30
"""Frames of a clip that are looked at, evenly spread."""
SMALL_HEIGHT = 180
"""Clothes and background are compared at about this height, pixels."""
PERSON_ABOVE = 200
"""A pixel shows the person where the mask (0..255) is above this."""
OTHER_PERSON, PERHAPS_OTHER = 0.04, 0.028
"""Differences of face shapes from which another person is certain, or likely. Of 35 pairs of clips of one
of 8 people, 32 differ by at most 0.026 and all by at most 0.035 (some were cropped after they were
filmed); of 631 pairs of different people, 93 % differ by more than 0.028 and 45 % by more than 0.04."""
MAX_SIZE_RATIO = 1.5
"""The faces of clips whose images are used differ in size by at most this factor."""
MAX_SKIN, MAX_CLOTHES, MAX_BACKGROUND = 8.0, 20.0, MOVING_ABOVE
"""Largest mean differences of colors (0 to 255) at which clips look alike. In 5 pairs of clips of one
session they are at most 2.3, 3.7 and 2; in 8 pairs of one person in different sessions at least 16, 10
and 14."""


@dataclass(frozen=True)
class ClipLook:
    """How a clip looks, from a few of its frames.

    Attributes:
        video: The clip.
        shape: [478, 3] mean face without pose, eye distances.
        eyes_px: Distance of the outer eye corners in the joined video, pixels.
        own_eyes_px: The same in the clip itself.
        skin: [3] median color of the face, 0 to 255.
        clothes: [3] median color of the clothes; NaN if they are not visible.
        background: [h, w, 3] median colors of the background; NaN where it was not seen.
    """

    video: Path
    shape: Float32
    eyes_px: float
    own_eyes_px: float
    skin: Float64
    clothes: Float64
    background: Float64


def read_fitted(
    video: Path, size: tuple[int, int], frame_rate: float | Fraction = FRAME_RATE
) -> Iterator[UInt8]:
    """Read a clip in the size of a joined video, padded by its edge where the shape differs.

    Args:
        video: The clip.
        size: Height and width H, W of the joined video.
        frame_rate: Frames per second.

    Yields:
        Frames [H, W, 3], RGB.
    """
    (height, width), (top, left) = _placed(media.probe(video), size)
    pad = ((top, size[0] - height - top), (left, size[1] - width - left), (0, 0))
    with closing(media.read_frames(video, size=(width, height), frame_rate=frame_rate)) as frames:
        for frame in frames:
            yield np.pad(frame, pad, mode="edge") if (height, width) != size else frame


def _placed(info: MediaInfo, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return height and width of a clip inside a joined video of this size, and its top and left."""
    scale = min(size[0] / info.height, size[1] / info.width)
    height, width = max(1, round(info.height * scale)), max(1, round(info.width * scale))
    return (height, width), ((size[0] - height) // 2, (size[1] - width) // 2)


def look_at(video: Path, size: tuple[int, int], min_face: float) -> ClipLook:
    """Look at a few frames of a clip.

    Args:
        video: The clip.
        size: Height and width of the joined video.
        min_face: Fraction of the frames that must show a face.

    Returns:
        How it looks in the joined video.

    Raises:
        FootageError: It is too short, or shows no face, in too few frames, or too small.
        MediaError: The picture cannot be decoded.
    """
    info = media.probe(video)
    if info.duration_s < MIN_SECONDS:
        raise FootageError(
            f"{video}: lasts {info.duration_s:.1f} s, at least {MIN_SECONDS:.0f} s are needed. "
            "Leave this clip out"
        )
    rate = min(Fraction(FRAME_RATE), Fraction(N_SAMPLES, ceil(info.duration_s)))
    landmarks, colors, samples = [], [], _Samples()
    detector, segmenter = FaceDetector(), PersonSegmenter()
    tracker, n_frames = FaceTracker(detector=detector), 0
    with closing(detector), closing(segmenter):
        for frame in read_fitted(video, size, rate):
            n_frames += 1
            tracker.forget()  # samples are seconds apart
            points = tracker.track(frame)
            if points is not None:
                landmarks.append(points)
                colors.append(face_colors(frame, points, mesh_triangles()))
                samples.add(frame, points, segmenter)
    check_found(len(landmarks), n_frames, min_face, str(video))
    points, every = np.stack(landmarks), np.ones(len(landmarks), dtype=bool)
    # In pixels of the clip itself, for whose camera the intrinsics are.
    (height, _), (top, left) = _placed(info, size)
    own = (points - np.array([left, top, 0], np.float32)) * np.float32(info.height / height)
    check_size(own, str(video))
    return ClipLook(
        video=video,
        shape=track_head(own, every, every, default_intrinsics(info.width, info.height)).template,
        eyes_px=eye_distance(points),
        own_eyes_px=eye_distance(own),
        skin=np.median(np.concatenate(colors), axis=0),
        clothes=samples.clothes(),
        background=samples.background(),
    )


class _Samples:
    """Clothes and background of frames, at a small size."""

    def __init__(self) -> None:
        self._clothes: list[Float32] = []
        self._behind: list[Float32] = []

    def add(self, frame: UInt8, landmarks: Float32, segmenter: PersonSegmenter) -> None:
        """Add a frame [H, W, 3] whose face has these landmarks [478, 3]."""
        share = min(1.0, SMALL_HEIGHT / len(frame))
        size = tuple(max(1, round(n * share)) for n in frame.shape[1::-1])
        small = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
        mask = segmenter.mask(small)
        body = body_area(landmarks[:, :2] * share, (small.shape[0], small.shape[1])) > 0
        self._clothes.append(small[body & (mask > PERSON_ABOVE)].astype(np.float32))
        behind = small.astype(np.float32)
        behind[mask >= PERSON_BELOW] = np.nan
        self._behind.append(behind)

    def clothes(self) -> Float64:
        """Return the median color [3], NaN if nothing of them is visible."""
        seen = np.concatenate(self._clothes)
        return np.median(seen, axis=0) if len(seen) else np.full(3, np.nan)

    def background(self) -> Float64:
        """Return the median colors [h, w, 3], NaN where the background was hardly seen."""
        stack = np.stack(self._behind)
        seen = np.isfinite(stack[..., 0]).sum(0) >= min(SEEN_AT_LEAST, len(stack))
        image = np.full(stack.shape[1:], np.nan)
        image[seen] = np.nanmedian(stack[:, seen], axis=0)
        return image


def check_same_person(first: ClipLook, other: ClipLook) -> str:
    """Refuse a clip of another person.

    Args:
        first: The first clip.
        other: Another one.

    Returns:
        A warning if the faces differ more than usual, otherwise "".

    Raises:
        FootageError: Another person is certain.
    """
    difference = shape_difference(first.shape, other.shape)
    facts = (
        f"its face differs from that of {first.video.name} by {difference:.3f} eye distances "
        f"(usually at most {PERHAPS_OTHER} in clips of one person)"
    )
    if difference > OTHER_PERSON:
        raise FootageError(
            f"{other.video}: shows another person, or is stretched: {facts}. "
            "Fit each person under another --name"
        )
    if difference > PERHAPS_OTHER:
        return f"{other.video.name}: {facts}. If it shows another person, leave it out"
    return ""


def difference_of_looks(first: ClipLook, other: ClipLook) -> str:
    """Describe why the images of a clip cannot be used together with those of the first one.

    Args:
        first: The first clip.
        other: Another one.

    Returns:
        The reasons with figures; "" if the clips look alike.
    """
    reasons = []
    if not _alike(first.skin, other.skin, MAX_SKIN):
        reasons.append(
            f"the light differs (skin {_rgb(other.skin)}; first clip {_rgb(first.skin)})"
        )
    ratio = other.eyes_px / first.eyes_px
    if not 1 / MAX_SIZE_RATIO <= ratio <= MAX_SIZE_RATIO:
        reasons.append(f"the face is {ratio:.1f} times as large as in the first clip")
    elif other.own_eyes_px * MAX_SIZE_RATIO < first.own_eyes_px:
        reasons.append(
            f"the picture is coarser (the eyes are {other.own_eyes_px:.0f} px apart; "
            f"first clip {first.own_eyes_px:.0f})"
        )
    if not _alike(first.clothes, other.clothes, MAX_CLOTHES):
        reasons.append(
            f"the clothes differ (color {_rgb(other.clothes)}; first clip {_rgb(first.clothes)})"
        )
    change = np.abs(first.background - other.background)
    change = change[np.isfinite(change)]
    if len(change) and np.median(change) > MAX_BACKGROUND:
        reasons.append(f"the background differs (by {np.median(change):.0f} of 255)")
    return ", ".join(reasons)


def _alike(first: Float64, other: Float64, most: float) -> bool:
    """Compare two colors [3]; unknown ones (NaN) do not differ."""
    return not np.abs(first - other).mean() > most


def _rgb(color: Float64) -> str:
    return ",".join(f"{value:.0f}" for value in color)
