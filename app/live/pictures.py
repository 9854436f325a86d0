"""Pictures of a person for live codes: the footage plays on, and the mouth is pasted into it."""

from __future__ import annotations

import sys
import threading
import zlib
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from queue import Empty, Full, Queue

import cv2
import numpy as np

from talkhead.app.composer.frames import Compositor, IdleFootage
from talkhead.app.composer.idle_clip import IdleClip
from talkhead.renderers.base import Renderer
from talkhead.types import Float32, UInt8

N_PREFETCHED = 30
"""Frames of footage that are read ahead: while the clip plays backward, they come in bursts."""
MAX_CACHE_BYTES = 96 << 20
"""Memory for pictures of the mouth at rest."""
BADGE = "AI-generated"
BADGE_HEIGHT = 0.035
"""Height of the badge over that of the picture."""


@dataclass(frozen=True)
class _Patch:
    """A part of a picture, compressed.

    Attributes:
        top: Its first row.
        left: Its first column.
        shape: Its height, width and channels.
        content: Its bytes, compressed.
    """

    top: int
    left: int
    shape: tuple[int, ...]
    content: bytes


class LivePictures:
    """Renders one picture after the other; each shows the next frame of the footage.

    The mouth at rest is rendered once for each frame of the footage, and kept.
    """

    def __init__(
        self, renderer: Renderer, clip: IdleClip, rest: Float32, badge: bool = True
    ) -> None:
        """Open the footage.

        Args:
            renderer: Renders motion codes.
            clip: The footage.
            rest: Motion code of the mouth at rest, [K].
            badge: True to mark every picture as made by a machine.
        """
        self._compositor, self._footage = Compositor(renderer, clip), IdleFootage(clip)
        self._rest = rest[: clip.face.n_mouth]
        self._reader = _Reader(self._footage)
        self._cache: dict[int, _Patch] = {}
        self._n_cached = 0
        self._n_shown = 0
        height, width = clip.background.shape[:2]
        self.size = (width, height)
        self._badge = _badge(height) if badge else None

    def next(self, code: Float32) -> UInt8:
        """Render the next picture.

        Args:
            code: Motion code [K].

        Returns:
            Picture [H, W, 3], RGB.

        Raises:
            MediaError: The footage can no longer be read.
        """
        frame = self._reader.next()
        index = self._footage.track_index(self._n_shown)
        self._n_shown += 1
        is_rest = np.array_equal(code[: len(self._rest)], self._rest)
        kept = self._cache.get(index) if is_rest else None
        if kept is not None:
            picture = frame.copy()
            height, width = kept.shape[:2]
            patch = np.frombuffer(zlib.decompress(kept.content), np.uint8).reshape(kept.shape)
            picture[kept.top : kept.top + height, kept.left : kept.left + width] = patch
        else:
            picture = self._compositor(frame, index, code)
            if is_rest and self._n_cached < MAX_CACHE_BYTES:
                self._keep(index, frame, picture)
        if self._badge is not None:
            _draw_badge(picture, self._badge)
        return picture

    def close(self) -> None:
        """Stop reading the footage."""
        self._reader.close()

    def _keep(self, index: int, frame: UInt8, picture: UInt8) -> None:
        """Keep the part of a picture [H, W, 3] in which it differs from a frame [H, W, 3]."""
        changed = (frame != picture).any(2)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        if len(rows) == 0:
            rows = columns = np.zeros(1, np.int64)
        part = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        content = zlib.compress(part.tobytes(), 1)
        self._cache[index] = _Patch(int(rows[0]), int(columns[0]), part.shape, content)
        self._n_cached += len(content)


class _Reader:
    """Reads footage ahead in a thread of its own."""

    def __init__(self, footage: IdleFootage) -> None:
        """Begin at the first frame.

        Args:
            footage: The footage, which is played without end.
        """
        self._queue: Queue[UInt8 | Exception] = Queue(N_PREFETCHED)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(footage,), daemon=True)
        self._thread.start()

    def next(self) -> UInt8:
        """Return the next frame, [H, W, 3].

        Raises:
            MediaError: The footage cannot be read.
        """
        item = self._queue.get()
        if isinstance(item, Exception):
            raise item
        return item

    def close(self) -> None:
        """Stop reading."""
        self._closed.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except Empty:
                self._thread.join(0.05)

    def _read(self, footage: IdleFootage) -> None:
        try:
            frames: Generator[UInt8, None, None] = footage.frames(0, sys.maxsize)
            with closing(frames):
                for frame in frames:
                    if not self._put(frame):
                        return
        except Exception as error:  # passed on to the thread that shows the frames
            self._put(error)

    def _put(self, item: UInt8 | Exception) -> bool:
        """Add an item; returns False if reading was stopped."""
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.2)
                return True
            except Full:
                continue
        return False


def _badge(height: int) -> UInt8:
    """Draw the badge of pictures of a height, [h, w] from 0 to 255."""
    size = max(9, round(BADGE_HEIGHT * height))
    scale, thickness = size / 28.0, max(1, round(size / 18))
    (width, ascent), descent = cv2.getTextSize(BADGE, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    pad = max(3, size // 4)
    badge = np.zeros((ascent + descent + 2 * pad, width + 2 * pad), np.uint8)
    at = (pad, pad + ascent)
    cv2.putText(badge, BADGE, at, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thickness, cv2.LINE_AA)
    return badge


def _draw_badge(picture: UInt8, badge: UInt8) -> None:
    """Draw a badge [h, w] into the lower left corner of a picture [H, W, 3], in place."""
    height, width = (min(a, b) for a, b in zip(badge.shape, picture.shape, strict=False))
    part = picture[picture.shape[0] - height :, :width]
    share = badge[:height, :width, None].astype(np.float32) / 255.0
    part[:] = (0.45 * part * (1.0 - share) + 255.0 * share + 0.5).astype(np.uint8)
