"""Cuts of a video, found by PySceneDetect in frames that talkhead.media reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from talkhead import media
from talkhead.app.dubbing.timeline import Shot
from talkhead.media.probing import count_frames, own_rate
from talkhead.progress import Progress
from talkhead.types import Float64, UInt8

if TYPE_CHECKING:
    from scenedetect.detectors import AdaptiveDetector, ContentDetector

N_PIXELS = 160 * 284
"""Number of pixels that frames are reduced to."""
MIN_SHOT_S = 0.4
"""Shots shorter than this belong to the one before."""


@dataclass(frozen=True)
class _Limits:
    """What counts as a change between two frames.

    Attributes:
        ratio: Least size, relative to the mean of the changes around it.
        change: Least size, mean of the differences of hue, saturation and brightness, 0 to 255.
        window: Number of changes before and after that it is compared with.
        near: Changes that are fewer frames apart are one.
    """

    ratio: float
    change: float
    window: int
    near: int


QUICK = partial(_Limits, 2.0, 10.0, 2)
"""Hard cuts. In eleven clips of people who speak, cuts between scenes have 52 to 90, four cuts within a
scene have 10.7 to 20 with ratios above 12, and other frames with a ratio above 2 have at most 8. The two
changes of a flash have ratios of up to 4."""
SLOW, SLOW_STEP_S = _Limits(1.5, 32.0, 2, 2), 1.0
"""Dissolves, found between frames that are SLOW_STEP_S apart. In the same clips, these have up to 31;
dissolves of up to 1.2 s between them are found, of 1.6 s most."""
USUAL_PERCENT = 25
"""Percentile of the steps around a dissolve that is the motion in it."""


def find_shots(video: Path, progress: Progress) -> tuple[Shot, ...]:
    """Divide a video into shots.

    Dissolves of up to about a second are found, and end in their middle; flashes of light are no cuts.

    Args:
        video: The video.
        progress: Receives the progress.

    Returns:
        Shots that cover all frames at the video's own rate, which are numbered as those of
        `SourceFootage`. Each is at least MIN_SHOT_S long, unless the video is shorter.

    Raises:
        MediaError: The video cannot be read, has no picture, or has an unsupported frame rate.
    """
    info, rate = media.probe(video), own_rate(video)
    n_frames = count_frames(video, rate)
    scale = min(1.0, (N_PIXELS / max(1, info.width * info.height)) ** 0.5)
    size = (max(1, round(info.width * scale)), max(1, round(info.height * scale)))
    frames = media.read_frames(video, n_frames=n_frames, size=size, frame_rate=rate)
    with progress.step("Finding cuts", total=n_frames) as step, closing(frames):

        def counted() -> Iterator[UInt8]:
            for frame in frames:
                step.advance()
                yield frame

        cuts = find_cuts(counted(), rate)
    least = _shortest(rate)
    kept = [cut for cut in cuts if least <= cut <= n_frames - least]
    return tuple(Shot(first, after) for first, after in pairwise([0, *kept, n_frames]))


def find_cuts(frames: Iterable[UInt8], rate: Fraction) -> list[int]:
    """Find cuts in frames. Only a few of them are in memory at a time.

    Args:
        frames: [h, w, 3] uint8 RGB each, small.
        rate: Frames per second.

    Returns:
        The frames after a cut, ascending, at least MIN_SHOT_S apart.
    """
    least, stride = _shortest(rate), max(1, round(SLOW_STEP_S * rate))
    quick, slow = _ChangeFinder(QUICK(least)), _ChangeFinder(SLOW)
    hard, soft = list[tuple[int, int]](), list[tuple[int, int]]()
    steps, before = list[float](), None
    for i, frame in enumerate(frames):
        steps.append(0.0 if before is None else cv2.norm(frame, before, cv2.NORM_L1))
        before = frame
        hard += quick.add(frame)
        if i % stride == 0:
            soft += slow.add(frame)
    cuts = [last for _, last in hard + quick.finish()]
    sharp = cuts + quick.undone
    for change in soft + slow.finish():
        first, after = (change[0] - 1) * stride + 1, change[1] * stride + 1
        if all(cut < first - least or cut > after + least for cut in sharp):
            cuts.append(first + _middle(np.array(steps[first:after])))
    return sorted(cuts)


def _middle(steps: Float64) -> int:
    """Return the position in steps [n] between frames at which half of a dissolve is done."""
    done = np.cumsum(np.maximum(steps - np.percentile(steps, USUAL_PERCENT), 0.0))
    return int(np.searchsorted(done, done[-1] / 2))


def _shortest(rate: Fraction) -> int:
    """Return the number of frames of the shortest shot."""
    return max(1, round(MIN_SHOT_S * rate))


class _ChangeFinder:
    """Finds changes between frames that are much larger than those before and after.

    Changes that follow each other closely are one change; it counts if the frames before and after it
    differ, which they do not if it is a flash.

    Attributes:
        undone: The last frames of changes that do not count.
    """

    def __init__(self, limits: _Limits) -> None:
        """Prepare the detector.

        Args:
            limits: What counts as a change.
        """
        from scenedetect.detectors import AdaptiveDetector

        self._limits = limits
        self._detector: AdaptiveDetector = AdaptiveDetector(
            limits.ratio,
            min_scene_len=0,
            window_width=limits.window,
            min_content_val=limits.change,
        )
        self._recent: list[UInt8] = []  # the last frames
        self._n_frames = 0
        self._group: tuple[int, int] | None = None  # first and last frame of an unfinished change
        self._before = self._at_last = np.zeros((0, 0, 3), np.uint8)
        self.undone: list[int] = []

    def add(self, frame: UInt8) -> list[tuple[int, int]]:
        """Pass the next frame.

        Args:
            frame: [h, w, 3] uint8 RGB.

        Returns:
            First and last frame of each change that has ended.
        """
        bgr = np.ascontiguousarray(frame[..., ::-1])
        if not self._n_frames:  # so that frame 1 has frames before it, too
            for i in range(-self._limits.window, 0):
                self._detector.process_frame(i, bgr)
        self._recent = [*self._recent, bgr][-self._limits.window - 2 :]
        found = self._detector.process_frame(self._n_frames, bgr)
        ended = self._ended(self._n_frames - self._limits.window)
        self._n_frames += 1
        for cut in found:
            self._extend(int(cut))
        return ended

    def finish(self) -> list[tuple[int, int]]:
        """Return what `add` would if the last frame were repeated."""
        ended: list[tuple[int, int]] = []
        if self._recent:
            last = np.ascontiguousarray(self._recent[-1][..., ::-1])
            for _ in range(self._limits.window + self._limits.near):
                ended += self.add(last)
        return ended

    def _extend(self, cut: int) -> None:
        """Begin a change at a frame, or extend the unfinished one."""
        place = cut - self._n_frames  # from the end of the last frames
        if self._group is None:
            self._before = self._recent[place - 1]
        self._at_last = self._recent[place]
        self._group = (cut if self._group is None else self._group[0], cut)

    def _ended(self, known: int) -> list[tuple[int, int]]:
        """Return the unfinished change, unless it is undone or frames after `known` may belong to it."""
        if self._group is None or known - self._group[1] < self._limits.near:
            return []
        change, self._group = self._group, None
        is_long = not 0 < change[1] - change[0] < self._limits.near
        if is_long or _differ(self._before, self._at_last, self._limits.change):
            return [change]
        self.undone.append(change[1])
        return []


def _differ(frame: UInt8, other: UInt8, least: float) -> bool:
    """Check whether the change between two frames [h, w, 3] BGR is at least a limit."""
    from scenedetect.detectors import ContentDetector

    detector: ContentDetector = ContentDetector(threshold=least, min_scene_len=0)
    detector.process_frame(0, frame)
    return bool(detector.process_frame(1, other))
