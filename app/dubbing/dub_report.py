"""The report of a dubbed video: what became of its lines, and how well its speakers were followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from talkhead.app.composer.source_clip import SourceFootage
from talkhead.app.dubbing.dubbed_frames import Piece
from talkhead.app.dubbing.line_sync import LineSync
from talkhead.app.dubbing.timeline import Placement, Shot
from talkhead.types import Bool


@dataclass(frozen=True)
class LineReport:
    """What became of a line.

    Attributes:
        line: Line of the file.
        speaker: Who speaks; "" if the video has one speaker.
        start_s: When it begins.
        end_s: When it ends.
        speed: Speed relative to its recording.
        status: See `talkhead.app.dubbing.timeline.STATUSES`.
        on_screen: Fraction of its frames in which the speaker's mouth follows it.
        sound_offset_ms: See `talkhead.app.dubbing.line_sync.LineSync`.
        motion_offset_ms: See LineSync.
        sync_offset_ms: See LineSync.
    """

    line: int
    speaker: str
    start_s: float
    end_s: float
    speed: float
    status: str
    on_screen: float
    sound_offset_ms: float
    motion_offset_ms: float | None
    sync_offset_ms: float | None

    @classmethod
    def of(
        cls,
        placement: Placement,
        sync: LineSync,
        pieces: Sequence[Piece],
        n_frames: int,
        frame_rate: Fraction,
    ) -> LineReport:
        """Report a line.

        Args:
            placement: The line.
            sync: Its offsets.
            pieces: The faces that are re-lipped.
            n_frames: Number of frames of the video.
            frame_rate: Its frames per second.

        Returns:
            The report.
        """
        frames = Shot(0, n_frames).frames_of(placement, frame_rate)
        seen: Bool = np.zeros(len(frames), dtype=bool)
        for piece in pieces:
            if all(one.placement != placement for one in piece.lines):
                continue
            inside = range(max(frames.start, piece.first), min(frames.stop, piece.after))
            if inside:
                known = piece.footage.known[inside.start - piece.first : inside.stop - piece.first]
                seen[inside.start - frames.start : inside.stop - frames.start] |= known
        return cls(
            placement.line.source,
            placement.line.speaker or "",
            round(placement.start_s, 3),
            round(placement.end_s, 3),
            round(placement.speed, 3),
            placement.status,
            round(float(seen.mean()), 3) if len(seen) else 0.0,
            sync.sound_offset_ms,
            sync.motion_offset_ms,
            sync.sync_offset_ms,
        )


@dataclass(frozen=True)
class FollowReport:
    """How well a speaker was followed in consecutive frames of a shot.

    Attributes:
        speaker: Who; "" if the video has one speaker.
        start_s: Time of the first frame.
        end_s: End of the last frame.
        followed: Fraction of the frames in which the face is followed.
        face_px: Width of the face, pixels of the video; median over the frames. None: not known.
        residual_px: Residual of the head's pose, pixels of the video; median over the frames. None: not
            known.
    """

    speaker: str
    start_s: float
    end_s: float
    followed: float
    face_px: float | None
    residual_px: float | None

    @classmethod
    def of(cls, speaker: str, first: int, footage: SourceFootage) -> FollowReport:
        """Report frames in which a face was followed.

        Args:
            speaker: Whose face; "" if the video has one speaker.
            first: Their first one in the video.
            footage: The frames.

        Returns:
            The report.
        """
        tracks = footage.clip.dataset.tracks
        used = tracks.usable & np.isfinite(tracks.residual_px)
        widths, residuals = np.ptp(tracks.landmarks[used, :, 0], axis=1), tracks.residual_px[used]
        return cls(
            speaker,
            round(float(first / footage.frame_rate), 3),
            round(float((first + len(footage)) / footage.frame_rate), 3),
            round(float(footage.known.mean()), 3),
            round(float(np.median(widths)), 1) if used.any() else None,
            round(float(np.median(residuals)), 2) if used.any() else None,
        )


@dataclass(frozen=True)
class DubReport:
    """What became of the lines and shots of a video.

    Attributes:
        n_frames: Number of frames.
        duration_s: Length in seconds.
        n_shots: Number of shots.
        n_relipped: Frames in which a mouth was changed.
        loudness_lufs: Integrated loudness of the sound.
        lines: The lines in order.
        notes: Messages about what was not possible.
        followed: The frames in which speakers are followed.
    """

    n_frames: int
    duration_s: float
    n_shots: int
    n_relipped: int
    loudness_lufs: float
    lines: tuple[LineReport, ...]
    notes: tuple[str, ...]
    followed: tuple[FollowReport, ...]

    def to_json(self) -> dict[str, Any]:
        """Convert the report to a JSON object.

        Returns:
            The object.
        """
        return asdict(self)
