"""Measure, in a finished job, where the lines of a video are heard and seen."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path

import numpy as np
from scipy.signal import correlate

from talkhead.app.composer.resampling import interpolated, nearest_index
from talkhead.app.dubbing.dubbed_frames import Piece, SpokenLine
from talkhead.app.dubbing.timeline import Placement, Timeline
from talkhead.app.evaluation.measures.sync_model import MAX_LAG, SyncModel
from talkhead.media import read_audio, read_audio_chunks
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Bool, Float32, Float64

MARGIN = MAX_LAG + 1
"""Frames before and after a line whose sound is read, too."""
REACH_S = 0.2
"""Largest offset that is found, seconds."""
STEP_S = 0.005
"""Steps in which offsets of motion are found, seconds."""
COMPARED_S = 10.0
"""Seconds from its start in which a line is searched in the sound."""
_HOP = SAMPLE_RATE // FRAME_RATE


@dataclass(frozen=True)
class LineSync:
    """Offsets of a line, in milliseconds; positive: late.

    Attributes:
        sound_offset_ms: Of its sound in the mix, before it is encoded, from its planned start; at most
            REACH_S.
        motion_offset_ms: Of its motion in the codes that are rendered, from its planned start; at most
            REACH_S. None: its speaker is not seen.
        sync_offset_ms: Of the sound from the motion, as the audio-visual sync model finds it. None: the
            line is too short, or the model is not sure.
    """

    sound_offset_ms: float
    motion_offset_ms: float | None
    sync_offset_ms: float | None


def measure_sync(timeline: Timeline, pieces: Sequence[Piece], sound: Path) -> dict[int, LineSync]:
    """Measure the offsets of all lines. Memory grows with the longest line, not with the video.

    Args:
        timeline: The lines, all with audio and a place.
        pieces: The faces that are re-lipped.
        sound: File with the sound of the video.

    Returns:
        Offsets by the numbers of the lines.

    Raises:
        MediaError: Audio cannot be read.
    """
    model, found = SyncModel.load(), dict[int, LineSync]()
    placements = sorted(timeline.placements, key=lambda one: one.start_s)
    spans = [
        (floor(one.start_s * FRAME_RATE) - MARGIN, ceil(one.end_s * FRAME_RATE) + MARGIN)
        for one in placements
    ]
    with closing(_excerpts(sound, spans)) as excerpts:
        for placement, (first, after), heard in zip(placements, spans, excerpts, strict=True):
            times = np.arange(first, after) / FRAME_RATE
            motion_s, sync_offset_ms = None, None
            seen = _Seen.of(placement, pieces, times)
            if seen is not None:
                motion_s = seen.offset_s(placement.start_s)
                landmarks = seen.piece.footage.clip.face.vertices(seen.codes)
                sync_offset_ms = model.measure(heard, landmarks, seen.shown).offset_ms
            found[placement.line.number] = LineSync(
                round(1000.0 * _sound_offset(placement, heard, times[0]), 1),
                None if motion_s is None else round(1000.0 * motion_s, 1),
                None if sync_offset_ms is None else round(sync_offset_ms, 1),
            )
    return found


def _excerpts(path: Path, spans: Sequence[tuple[int, int]]) -> Generator[Float32, None, None]:
    """Yield the sound of spans of frames, which are in the order of their starts, with silence around."""
    at = _HOP * -MARGIN
    kept = np.zeros(-at, np.float32)
    with closing(read_audio_chunks(path, SAMPLE_RATE)) as chunks:
        for first, after in spans:
            start, stop = first * _HOP, after * _HOP
            while at + len(kept) < stop and (chunk := next(chunks, None)) is not None:
                kept = np.concatenate([kept, chunk])
                kept, at = kept[max(0, start - at) :], max(at, min(start, at + len(kept)))
            kept, at = kept[start - at :], start
            yield np.pad(kept[: stop - start], (0, max(0, stop - start - len(kept))))


def _sound_offset(placement: Placement, heard: Float32, start_s: float) -> float:
    """Find a line in the sound [n] around it, which begins at a time. Return its offset, seconds."""
    assert placement.line.audio is not None
    spoken = read_audio(placement.line.audio, SAMPLE_RATE, tempo=placement.speed)
    compared_s = min(placement.end_s - placement.start_s, COMPARED_S)
    spoken = spoken[: round(compared_s * SAMPLE_RATE)]
    planned = round((placement.start_s - start_s) * SAMPLE_RATE)
    reach = round(REACH_S * SAMPLE_RATE)
    near = heard[planned - reach : planned + reach + len(spoken)]
    likeness = correlate(near, spoken, mode="valid", method="fft")
    return float(int(np.argmax(likeness)) - reach) / SAMPLE_RATE


@dataclass(frozen=True)
class _Seen:
    """The motion of a line in the frames of a video, at the frames of 25 per second around it.

    Attributes:
        piece: A piece in which it is seen.
        line: The line.
        times: Times [N], seconds.
        codes: Motion codes [N, K]; zeros where it is not shown.
        shown: Flags [N] of the times at which it is shown.
    """

    piece: Piece
    line: SpokenLine
    times: Float64
    codes: Float32
    shown: Bool

    @classmethod
    def of(cls, placement: Placement, pieces: Sequence[Piece], times: Float64) -> _Seen | None:
        """Collect the motion of a line; None if it is not seen."""
        found = [
            (piece, line) for piece in pieces for line in piece.lines if line.placement == placement
        ]
        shown: Bool = np.zeros(len(times), dtype=bool)
        codes = np.zeros((len(times), found[0][1].codes.shape[1] if found else 0), np.float32)
        for piece, _ in found:
            own = (piece.first + np.arange(len(piece.footage))) / float(piece.footage.frame_rate)
            known = piece.footage.known[nearest_index(own, times)]
            known &= (times >= max(own[0], placement.start_s)) & (
                times <= min(own[-1], placement.end_s)
            )
            codes[known] = interpolated(piece.motion[0], own, times[known])
            shown |= known
        return cls(*found[0], times, codes, shown) if shown.any() else None

    def offset_s(self, start_s: float) -> float:
        """Find how late the motion is, from a start; of equal offsets, the smallest."""
        mouth = slice(0, self.piece.footage.clip.face.n_mouth)
        steps = np.arange(round(REACH_S / STEP_S) + 1)
        offsets = STEP_S * np.concatenate([[0], np.stack([steps[1:], -steps[1:]], 1).ravel()])
        spoken, shown = self.line.codes[:, mouth], self.codes[self.shown, mouth]
        places = np.arange(len(spoken), dtype=np.float64)
        errors = [
            np.square(
                interpolated(spoken, places, (self.times[self.shown] - start_s - late) * FRAME_RATE)
                - shown
            ).sum()
            for late in offsets
        ]
        return float(offsets[int(np.argmin(errors))])
