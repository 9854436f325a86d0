"""Check whether footage is suitable: refuse it, or report unusable frames with reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from talkhead.errors import FootageError
from talkhead.face import OUTER_EYE_CORNERS, lip_aperture
from talkhead.types import FRAME_RATE, Bool, Float32, HeadPoses, Tracking

MIN_SECONDS = 4.0
MIN_TRAINABLE_FRAMES = 100
MIN_EYE_DISTANCE_PX = 30.0
MAX_RESIDUAL = 0.05
"""A frame whose pose residual exceeds this fraction of the eye distance is not well tracked."""
MAX_TURN_DEG = 45.0


@dataclass(frozen=True)
class QualityReport:
    """Quality of a clip. Lists of frames are [first, last] ranges at 25 frames per second.

    Attributes:
        n_frames: Number of frames.
        n_usable: Frames that can be trained on.
        n_faces: The largest number of faces in one frame.
        eye_distance_px: Median distance between the outer eye corners, source pixels.
        pose_residual_px: Median residual of the head pose, source pixels.
        head_turn_deg: 95th percentile of the angle between face and camera, degrees.
        lip_range: Range of the lip aperture, 5th to 95th percentile.
        no_face: Frames without a face.
        hidden: Frames in which something covers the face.
        badly_tracked: Frames whose pose does not fit.
        turned_away: Frames whose face is turned away.
        warnings: Messages for the user.
    """

    n_frames: int
    n_usable: int
    n_faces: int
    eye_distance_px: float
    pose_residual_px: float
    head_turn_deg: float
    lip_range: float
    no_face: list[list[int]]
    hidden: list[list[int]]
    badly_tracked: list[list[int]]
    turned_away: list[list[int]]
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """Convert the report to what quality.json stores.

        Returns:
            A JSON object.
        """
        return asdict(self)


def check_footage(
    tracking: Tracking, min_face: float, video: str, min_s: float = MIN_SECONDS
) -> None:
    """Refuse footage whose face is found in too few frames, too small or too briefly.

    Args:
        tracking: Tracking of the video.
        min_face: Fraction of the frames that must show a face.
        video: Name of the video for messages.
        min_s: Seconds for which a face must be visible.

    Raises:
        FootageError: The footage is unsuitable.
    """
    n_found = int(tracking.detected.sum())
    check_found(n_found, len(tracking), min_face, video)
    if n_found < min_s * FRAME_RATE:
        raise FootageError(
            f"{video}: the face is visible for {n_found / FRAME_RATE:.1f} s, at least "
            f"{min_s:g} s are needed. Record a minute for a good head"
        )
    check_size(tracking.landmarks[tracking.detected], video)


def check_found(n_found: int, n_frames: int, min_face: float, video: str) -> None:
    """Refuse footage whose face is found in too few frames.

    Args:
        n_found: Number of frames with a face.
        n_frames: Number of frames that were searched.
        min_face: Fraction of the frames that must show a face.
        video: Name of the video for messages.

    Raises:
        FootageError: There are too few.
    """
    if n_found == 0:
        raise FootageError(
            f"{video}: no face was found in any of {n_frames} frames. "
            "Record one person facing the camera, in good light"
        )
    if n_found < min_face * n_frames:
        raise FootageError(
            f"{video}: a face was found in {n_found} of {n_frames} frames ({min_face:.0%} needed). "
            f"Record with the face unobstructed, or pass --min-face {10 * n_found // n_frames / 10}"
        )


def check_size(landmarks: Float32, video: str) -> None:
    """Refuse footage whose face is too small.

    Args:
        landmarks: [F, 478, 3] of frames with a face, pixels.
        video: Name of the video for messages.

    Raises:
        FootageError: It is.
    """
    distance = eye_distance(landmarks)
    if distance < MIN_EYE_DISTANCE_PX:
        raise FootageError(
            f"{video}: the face is too small, its eyes are {distance:.0f} px apart (at least "
            f"{MIN_EYE_DISTANCE_PX:.0f} needed). Record closer or at a higher resolution"
        )


def eye_distance(landmarks: Float32) -> float:
    """Return the median distance between the outer eye corners.

    Args:
        landmarks: [F, 478, 3] in pixels.

    Returns:
        Pixels.
    """
    left, right = OUTER_EYE_CORNERS
    return float(np.median(np.linalg.norm(landmarks[:, left] - landmarks[:, right], axis=-1)))


def well_tracked(
    tracking: Tracking,
    covered: Bool,
    poses: HeadPoses,
    parts: Sequence[slice] = (slice(None),),
) -> Bool:
    """Select the frames whose face was tracked accurately and is not turned away.

    Args:
        tracking: Tracking of F frames.
        covered: [F] frames with landmarks.
        poses: Head poses.
        parts: Frames of each clip of a joined video, in which the face may have another size.

    Returns:
        [F] bool.
    """
    limit = np.zeros(len(covered), np.float32)
    for part in parts:
        seen = tracking.landmarks[part][covered[part]]
        if len(seen):
            limit[part] = MAX_RESIDUAL * eye_distance(seen)
    return covered & (poses.residual_px <= limit) & (head_turn(poses) <= MAX_TURN_DEG)


def check_trainable(trainable: Bool, video: str) -> None:
    """Refuse footage with too few frames to train on.

    Args:
        trainable: [F] frames that can be trained on.
        video: Name of the video for messages.

    Raises:
        FootageError: There are fewer than MIN_TRAINABLE_FRAMES.
    """
    n = int(trainable.sum())
    if n < MIN_TRAINABLE_FRAMES:
        raise FootageError(
            f"{video}: only {n} of {len(trainable)} frames can be used for training, at least "
            f"{MIN_TRAINABLE_FRAMES} are needed: the face is turned away, hidden or visible too "
            "briefly. Record a minute, facing the camera"
        )


def head_turn(poses: HeadPoses) -> Float32:
    """Return the angle between the direction of the face and the axis of the camera.

    Args:
        poses: Poses of F frames.

    Returns:
        [F] degrees.
    """
    return np.asarray(np.degrees(np.arccos(np.clip(poses.viewmats[:, 2, 2], -1.0, 1.0))))


def report_quality(
    tracking: Tracking,
    covered: Bool,
    poses: HeadPoses,
    usable: Bool,
    hidden: Bool,
    n_faces: int,
    warnings: list[str],
    parts: Sequence[slice] = (slice(None),),
) -> QualityReport:
    """Report on a tracked clip of F frames.

    Args:
        tracking: Landmarks.
        covered: [F] frames with landmarks.
        poses: Head poses.
        usable: [F] frames that can be trained on.
        hidden: [F] frames in which something covers the face.
        n_faces: The largest number of faces in one frame.
        warnings: Warnings of earlier steps.
        parts: See `well_tracked`.

    Returns:
        The report, with these warnings and further ones.
    """
    distance = eye_distance(tracking.landmarks[covered])
    aperture = lip_aperture(tracking.landmarks[usable])
    turn = head_turn(poses)
    lip_range = float(np.percentile(aperture, 95) - np.percentile(aperture, 5))
    notes = list(warnings)
    if hidden.any():
        notes.append(
            f"something covers the face in {int(hidden.sum())} of {len(tracking)} frames: these "
            f"parts are not learned, and {int((hidden & ~usable).sum())} of the frames are left out"
        )
    if n_faces > 1:
        notes.append(
            f"{n_faces} faces were found; the largest, most central one at the start is followed"
        )
    if lip_range < 0.05:
        notes.append("the mouth hardly moves: is the person speaking?")
    if usable.sum() < 20 * FRAME_RATE:
        notes.append("under 20 s of usable footage: mouth shapes will be missing")
    return QualityReport(
        n_frames=len(tracking),
        n_usable=int(usable.sum()),
        n_faces=n_faces,
        eye_distance_px=round(distance, 1),
        pose_residual_px=round(float(np.median(poses.residual_px[covered])), 2),
        head_turn_deg=round(float(np.percentile(turn[covered], 95)), 1),
        lip_range=round(lip_range, 3),
        no_face=_ranges(~covered),
        hidden=_ranges(hidden),
        badly_tracked=_ranges(
            covered & ~well_tracked(tracking, covered, poses, parts) & (turn <= MAX_TURN_DEG)
        ),
        turned_away=_ranges(covered & (turn > MAX_TURN_DEG)),
        warnings=notes,
    )


def _ranges(flags: Bool) -> list[list[int]]:
    """Convert flags [F] to runs of True as [first, last] frame numbers."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [[int(first), int(after) - 1] for first, after in edges.reshape(-1, 2)]
