"""Frames of a dubbed video: those of the video, in which speaking faces are re-lipped.

Frames in which nobody speaks a line are exactly those of the video.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, partial
from pathlib import Path

import cv2
import numpy as np

from talkhead import media
from talkhead.app.composer.frames import Compositor, Face, State
from talkhead.app.composer.resampling import interpolated
from talkhead.app.composer.source_clip import SourceFootage, timeline_frames
from talkhead.app.dubbing.timeline import Placement
from talkhead.device import kernel_concurrency, map_concurrently
from talkhead.easing import smooth_step
from talkhead.renderers.base import Renderer, device_of
from talkhead.types import FRAME_RATE, Float32, Float64, UInt8

EASE_S = 0.16
"""Time in which a mouth changes from that of the video to that of a line before it, and back after it."""
FADE_S = 0.06
"""Part of this time in which the rendering fades in or out."""


@dataclass(frozen=True)
class SpokenLine:
    """A line as motion.

    Attributes:
        placement: When it is spoken.
        codes: Motion codes [N, K] at 25 per second from its start, with the mouth at rest after its end.
    """

    placement: Placement
    codes: Float32


@dataclass(frozen=True)
class Piece:
    """Consecutive frames of a video in which a speaker's face is followed.

    Attributes:
        first: First frame in the video.
        footage: The frames with their tracks.
        renderer: The speaker's renderer.
        lines: Lines of the speaker.
    """

    first: int
    footage: SourceFootage
    renderer: Renderer
    lines: tuple[SpokenLine, ...]

    @property
    def after(self) -> int:
        """The frame after the last one, in the video."""
        return self.first + len(self.footage)

    @cached_property
    def motion(self) -> tuple[Float32, Float64]:
        """Motion codes [F, K] of the frames, and the opacities [F] of the lower face, 0 to 1."""
        rate, codes = self.footage.frame_rate, self.footage.clip.codes.copy()
        times = (self.first + np.arange(len(codes))) / float(rate)
        opacity = np.zeros(len(codes))
        for line in self.lines:
            start_s, end_s = line.placement.start_s, line.placement.end_s
            near = (times > start_s - EASE_S) & (times < end_s + EASE_S)
            if not near.any():
                continue
            at = np.clip((times[near] - start_s) * FRAME_RATE, 0.0, len(line.codes) - 1.0)
            spoken = interpolated(line.codes, np.arange(len(line.codes), dtype=np.float64), at)
            away = np.minimum(times[near] - start_s, end_s - times[near]) + EASE_S
            share = smooth_step(away / EASE_S)[:, None]
            codes[near] = (codes[near] + share * (spoken - codes[near])).astype(np.float32)
            opacity[near] = np.maximum(opacity[near], smooth_step(away / FADE_S))
        return codes, opacity


class DubbedFrames:
    """Renders the frames of a dubbed video. See FrameRenderer."""

    def __init__(
        self, video: Path, n_frames: int, frame_rate: Fraction, pieces: Sequence[Piece]
    ) -> None:
        """Initialize the renderer.

        Args:
            video: The video.
            n_frames: Its number of frames.
            frame_rate: Its frames per second.
            pieces: The faces to re-lip; those of several speakers may overlap.
        """
        self._video, self._n_frames, self.frame_rate = video, n_frames, frame_rate
        self._pieces = tuple(pieces)
        self._gains: dict[int, State] = {}
        info = media.probe(video)
        self.size = (info.width, info.height)

    def __len__(self) -> int:
        return self._n_frames

    @property
    def state(self) -> State:
        """Number and color gain of each piece that has been pasted, one after the other."""
        return [
            value
            for number, gain in sorted(self._gains.items())
            for value in (float(number), *gain)
        ]

    @state.setter
    def state(self, state: State) -> None:
        self._gains = {
            int(state[start]): state[start + 1 : start + 4] for start in range(0, len(state), 4)
        }

    def frames(self, first: int, after: int) -> Generator[UInt8, None, None]:
        """Render frames. See FrameRenderer.

        Args:
            first: First frame.
            after: Frame after the last one.

        Yields:
            Frames [H, W, 3].
        """
        devices = [device_of(one.renderer) for one in self._pieces]
        n_threads = max([kernel_concurrency(one) for one in devices], default=1)
        compositors: dict[int, Compositor] = {}
        for number, piece in enumerate(self._pieces):
            if piece.first < after and first < piece.after:
                made = compositors[number] = Compositor(piece.renderer, piece.footage.clip)
                made.composer.gain = self._gains.get(number, [])
        faces = map_concurrently(partial(self._faces, compositors), range(first, after), n_threads)
        source = timeline_frames(self._video, self.frame_rate, first, after)
        with closing(faces), closing(source) as frames:
            for frame, found in zip(frames, faces, strict=True):
                for number, face, opacity in found:
                    composer = compositors[number].composer
                    pasted = compositors[number].paste(frame, face)
                    self._gains[number] = composer.gain
                    frame = pasted if opacity == 1.0 else _mixed(frame, pasted, opacity)
                yield frame

    def _faces(
        self, compositors: Mapping[int, Compositor], frame: int
    ) -> list[tuple[int, Face, float]]:
        """Render the speaking faces of a frame: number of the piece, face, and opacity."""
        found = []
        for number, compositor in compositors.items():
            piece = self._pieces[number]
            if not piece.first <= frame < piece.after:
                continue
            index = piece.footage.track_index(frame - piece.first)
            codes, opacity = piece.motion
            if index is not None and opacity[frame - piece.first] > 0.0:
                face = compositor.render(index, codes[frame - piece.first])
                found.append((number, face, float(opacity[frame - piece.first])))
        return found


def _mixed(frame: UInt8, pasted: UInt8, opacity: float) -> UInt8:
    return np.asarray(cv2.addWeighted(frame, 1.0 - opacity, pasted, opacity, 0.0), np.uint8)
