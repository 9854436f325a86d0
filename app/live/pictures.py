"""Pictures of a person for live codes: the footage plays on, and the mouth is pasted into it.

In mode "head", the head is rendered alone, with the head motion of the footage.
"""

from __future__ import annotations

import sys
import threading
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import Protocol

import cv2
import numpy as np

from talkhead.app.choices import DEFAULT_MODE
from talkhead.app.composer.backgrounds import backgrounds_of, is_still
from talkhead.app.composer.frames import Compositor, HeadCompositor, IdleFootage, own_background
from talkhead.app.composer.head_view import View, out_of_range_message
from talkhead.app.composer.idle_clip import IdleClip, ping_pong
from talkhead.app.live.frames import NO_PICTURE
from talkhead.app.live.options import DEFAULTS, MAX_LIVE_WIDTH, LiveOptions
from talkhead.errors import TalkheadError
from talkhead.media import scaled_size
from talkhead.renderers.base import Renderer
from talkhead.types import FRAME_RATE, Float32, UInt8

N_PREFETCHED = 30
"""Frames of footage that are read ahead: while the clip plays backward, they come in bursts."""
MAX_CACHE_BYTES = 96 << 20
"""Memory for pictures of the mouth at rest."""
MAX_BACKGROUND_FRAMES = 600 * FRAME_RATE
"""A video as a background is repeated after its end, or after so many frames."""
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


class Pictures(Protocol):
    """Makes one picture after the other.

    Attributes:
        size: Width and height.
        note: What cannot be shown as requested; "" if there is nothing.
    """

    size: tuple[int, int]
    note: str

    def next(self, code: Float32) -> UInt8:
        """Make the next picture for a motion code [K]."""

    def close(self) -> None:
        """Free what the pictures need."""


class NoPictures:
    """Stands for the pictures of a session that does not render."""

    size, note = (0, 0), ""

    def next(self, code: Float32) -> UInt8:
        """Return an empty picture, [0, 0, 3].

        Args:
            code: Motion code [K], which is not used.

        Returns:
            The picture.
        """
        return NO_PICTURE

    def close(self) -> None:
        """Do nothing."""


class _Scene(Protocol):
    """What a person is shown in: an endless sequence of frames, into which a head is rendered.

    Attributes:
        size: Width and height of the pictures.
        is_kept: True if the picture of the mouth at rest depends on the index in the clip alone.
        note: What cannot be shown as requested; "" if there is nothing.
    """

    size: tuple[int, int]
    is_kept: bool
    note: str

    def next_frame(self) -> UInt8:
        """Return the next frame that the head is rendered into, [H, W, 3 or 4]."""

    def render(self, frame: UInt8, index: int, code: Float32) -> UInt8:
        """Render a motion code [K] at an index of the clip into a frame [H, W, 3 or 4]."""

    def close(self) -> None:
        """Stop reading."""


class _PastedScene:
    """The person's own footage, into which the mouth is pasted."""

    is_kept, note = True, ""

    def __init__(self, renderer: Renderer, clip: IdleClip) -> None:
        self._compositor = Compositor(renderer, clip)
        self._reader = _Reader(IdleFootage(clip).frames(0, sys.maxsize))
        height, width = clip.background.shape[:2]
        self.size = (width, height)

    def next_frame(self) -> UInt8:
        return self._reader.next()

    def render(self, frame: UInt8, index: int, code: Float32) -> UInt8:
        return self._compositor(frame, index, code)

    def close(self) -> None:
        self._reader.close()


class _HeadScene:
    """The head alone, over a background."""

    def __init__(self, renderer: Renderer, clip: IdleClip, options: LiveOptions) -> None:
        view = View.from_options(options)
        self._compositor = HeadCompositor(renderer, clip, view)
        self.size, self.note = self._compositor.size, out_of_range_message(clip, view)
        self._is_transparent = options.has_alpha
        own = own_background(clip)
        found = None
        if not self._is_transparent:
            found = backgrounds_of(options.background, own, MAX_BACKGROUND_FRAMES)
        self.is_kept = found is None or is_still(options.background)
        self._still = np.zeros((*own.shape[:2], 4), np.uint8)
        self._reader: _Reader | None = None
        if found is not None and self.is_kept:
            self._still = next(found(0, 1))
        elif found is not None:
            self._reader = _Reader(found(0, sys.maxsize))

    def next_frame(self) -> UInt8:
        return self._still if self._reader is None else self._reader.next()

    def render(self, frame: UInt8, index: int, code: Float32) -> UInt8:
        return self._compositor(None if self._is_transparent else frame, index, code)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()


class LivePictures:
    """Renders one picture after the other; each shows the next frame of the footage.

    The mouth at rest is rendered once for each frame of the footage, and kept.
    """

    def __init__(
        self,
        renderer: Renderer,
        clip: IdleClip,
        rest: Float32,
        options: LiveOptions = DEFAULTS,
    ) -> None:
        """Open the footage.

        Args:
            renderer: Renders motion codes.
            clip: The footage.
            rest: Motion code of the mouth at rest, [K].
            options: Mode, background, view, height and badge.

        Raises:
            TalkheadError: The background cannot be read, its shape is too different, or the pictures
                would be too wide.
        """
        self._scene: _Scene = (
            _PastedScene(renderer, clip)
            if options.mode == DEFAULT_MODE
            else _HeadScene(renderer, clip, options)
        )
        self._n_clip = len(clip)
        self._rest = rest[: clip.face.n_mouth]
        self._cache: dict[int, _Patch] = {}
        self._n_cached = 0
        self._n_shown = 0
        self.note = self._scene.note
        width, height = self._scene.size
        self.size = (width, height)
        if options.height is not None:
            self.size = scaled_size(width, height, options.height)
            if self.size[0] > MAX_LIVE_WIDTH:
                self.close()
                raise TalkheadError(
                    f"pictures of {self.size[0]}x{self.size[1]} are too wide for a live session. Choose "
                    f"a height of at most {height * MAX_LIVE_WIDTH // width // 2 * 2}"
                )
        self._badge = _badge(self.size[1]) if options.badge else None

    def next(self, code: Float32) -> UInt8:
        """Render the next picture.

        Args:
            code: Motion code [K].

        Returns:
            Picture [H, W, 3], RGB; [H, W, 4] with a transparent background.

        Raises:
            MediaError: The footage can no longer be read.
        """
        frame = self._scene.next_frame()
        index = int(ping_pong(self._n_clip, 1, self._n_shown)[0])
        self._n_shown += 1
        is_rest = self._scene.is_kept and np.array_equal(code[: len(self._rest)], self._rest)
        kept = self._cache.get(index) if is_rest else None
        if kept is not None:
            picture = frame.copy()
            height, width = kept.shape[:2]
            patch = np.frombuffer(zlib.decompress(kept.content), np.uint8).reshape(kept.shape)
            picture[kept.top : kept.top + height, kept.left : kept.left + width] = patch
        else:
            picture = self._scene.render(frame, index, code)
            if is_rest and self._n_cached < MAX_CACHE_BYTES:
                self._keep(index, frame, picture)
        return self._finished(picture)

    def close(self) -> None:
        """Stop reading the footage."""
        self._scene.close()

    def _finished(self, picture: UInt8) -> UInt8:
        """Scale a picture [H, W, 3 or 4] and draw the badge."""
        height, width = picture.shape[:2]
        if (width, height) != self.size:
            how = cv2.INTER_AREA if self.size[1] < height else cv2.INTER_CUBIC
            picture = np.asarray(cv2.resize(picture, self.size, interpolation=how), np.uint8)
        if self._badge is not None:
            _draw_badge(picture, self._badge)
        return picture

    def _keep(self, index: int, frame: UInt8, picture: UInt8) -> None:
        """Keep the part of a picture in which it differs from a frame, both [H, W, 3 or 4]."""
        changed = (frame != picture).any(2)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        if len(rows) == 0:
            rows = columns = np.zeros(1, np.int64)
        part = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        content = zlib.compress(part.tobytes(), 1)
        self._cache[index] = _Patch(int(rows[0]), int(columns[0]), part.shape, content)
        self._n_cached += len(content)


def make_pictures(
    renderer: Renderer, clip: IdleClip, rest: Float32, options: LiveOptions
) -> Pictures:
    """Make the pictures of a session.

    Args:
        renderer: Renders motion codes.
        clip: The footage.
        rest: Motion code of the mouth at rest, [K].
        options: Options of the session.

    Returns:
        The pictures; none if the options say so.

    Raises:
        TalkheadError: The background cannot be used, or the pictures would be too wide.
    """
    return LivePictures(renderer, clip, rest, options) if options.rendered else NoPictures()


class _Reader:
    """Reads frames ahead in a thread of its own."""

    def __init__(self, frames: Iterator[UInt8]) -> None:
        """Begin at the first frame.

        Args:
            frames: Frames without end.
        """
        self._queue: Queue[UInt8 | Exception] = Queue(N_PREFETCHED)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(frames,), daemon=True)
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

    def _read(self, frames: Iterator[UInt8]) -> None:
        try:
            for frame in frames:
                if not self._put(frame):
                    break
        except Exception as error:  # passed on to the thread that shows the frames
            self._put(error)
        finally:
            if isinstance(frames, Generator):  # it may hold a process that decodes
                frames.close()

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
    """Draw a badge [h, w] into the lower left corner of a picture [H, W, 3 or 4], in place."""
    height, width = (min(a, b) for a, b in zip(badge.shape, picture.shape, strict=False))
    part = picture[picture.shape[0] - height :, :width]
    share = badge[:height, :width, None].astype(np.float32) / 255.0
    dark = 0.45 * part[..., :3] * (1.0 - share)
    part[..., :3] = (dark + 255.0 * share + 0.5).astype(np.uint8)
    part[..., 3:] = 255
