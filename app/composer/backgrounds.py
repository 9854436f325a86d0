"""Backgrounds of heads and of cut-out people: a color, an image, a looping video, or their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np

from talkhead import media
from talkhead.app.choices import IMAGE_SUFFIXES, OWN, background_file, parse_color
from talkhead.errors import MediaError
from talkhead.images import kind_of_file, read_image
from talkhead.types import FRAME_RATE, UInt8

Backgrounds = Callable[[int, int], Iterator[UInt8]]
"""first, after -> backgrounds [h, w, 3] of the frames first to after - 1."""

MAX_MISFIT = 16.0
"""A background scaled to cover the picture has at most this many times its area before cropping."""

MAX_LOOP_BYTES = 64 << 20
"""A video whose frames take no more memory is decoded once, not once in every round."""


def check_background(text: str) -> None:
    """Check that a background can be used.

    Args:
        text: Value of the option `background`.

    Raises:
        TalkheadError: It is neither a color nor an image or video.
        MediaError: The file cannot be read or has no picture.
    """
    path = background_file(text)
    if path is None:
        return
    if _is_image(path):
        read_image(path)
    elif not media.probe(path).has_video:
        raise MediaError(f"{path}: has no picture. Pass an image, a video or a color")


def backgrounds_of(
    text: str | None, own: UInt8, n_frames: int, rate: Fraction = Fraction(FRAME_RATE)
) -> Backgrounds:
    """Make the backgrounds that an option asks for.

    Args:
        text: A color, an image, a video, or None or "own".
        own: The person's own background [h, w, 3]. All others are scaled to cover its size, and
            cropped.
        n_frames: Number of frames.
        rate: Frames per second.

    Returns:
        The backgrounds.

    Raises:
        TalkheadError: It cannot be read, or its shape is too different.
    """
    if text is None or text == OWN:
        return _still(own)
    check_background(text)
    color = parse_color(text)
    if color is not None:
        return _still(np.full_like(own, color))
    path, size = Path(text), (own.shape[1], own.shape[0])
    if _is_image(path):
        return _still(_covering(path, read_image(path), size))
    return _looping(path, size, n_frames, rate)


def is_still(text: str | None) -> bool:
    """Check if a background is the same in all frames.

    Args:
        text: A color, an image, a video, or None or "own".

    Returns:
        False for a video.

    Raises:
        TalkheadError: It is none of these.
    """
    path = None if text is None else background_file(text)
    return path is None or _is_image(path)


def _still(picture: UInt8) -> Backgrounds:
    """Repeat a picture [h, w, 3]."""
    return lambda first, after: repeat(picture, after - first)


def _looping(path: Path, size: tuple[int, int], n_needed: int, rate: Fraction) -> Backgrounds:
    info = media.probe(path)
    cover = _cover(path, (info.width, info.height), size)
    with closing(
        media.read_frames(path, n_frames=n_needed, size=(2, 2), frame_rate=rate)
    ) as frames:
        n_loop = sum(1 for _ in frames)
    if n_loop == 0:
        raise MediaError(f"{path}: has no frame that can be read. Export it again")

    if n_loop * size[0] * size[1] * 3 <= MAX_LOOP_BYTES:
        with closing(
            media.read_frames(path, n_frames=n_loop, size=cover, frame_rate=rate)
        ) as frames:
            kept = [np.ascontiguousarray(_cut(frame, size)) for frame in frames]
        if len(kept) == n_loop:
            return lambda first, after: (kept[i % n_loop] for i in range(first, after))

    def run(first: int, after: int) -> Iterator[UInt8]:
        while first < after:
            start = first % n_loop
            count = min(n_loop - start, after - first)
            source = media.read_frames(
                path, start_s=float(start / rate), n_frames=count, size=cover, frame_rate=rate
            )
            with closing(source):
                for frame in source:
                    yield _cut(frame, size)
                    first, count = first + 1, count - 1
            if count:
                raise MediaError(f"{path}: cannot be read to its end. Export it again")

    return run


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES or kind_of_file(path) is not None


def _covering(path: Path, picture: UInt8, size: tuple[int, int]) -> UInt8:
    """Scale an image [H, W, 3] to cover (width, height), and crop it around its center, [h, w, 3]."""
    height, width = picture.shape[:2]
    cover = _cover(path, (width, height), size)
    shrinks = width > size[0] and height > size[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return _cut(np.asarray(cv2.resize(picture, cover, interpolation=how), np.uint8), size)


def _cover(path: Path, own: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Return the size to which an image of size `own` (width, height) is scaled to cover another
    size.

    Raises MediaError if the shapes are too different.
    """
    scale = max(size[0] / own[0], size[1] / own[1])
    cover = max(size[0], round(own[0] * scale)), max(size[1], round(own[1] * scale))
    if cover[0] * cover[1] > MAX_MISFIT * size[0] * size[1]:
        raise MediaError(
            f"{path}: {own[0]}x{own[1]} is too different in shape from the video, {size[0]}x{size[1]}. "
            "Crop it to a similar shape"
        )
    return cover


def _cut(picture: UInt8, size: tuple[int, int]) -> UInt8:
    """Crop a picture [H, W, 3] around its center to (width, height)."""
    top, left = (picture.shape[0] - size[1]) // 2, (picture.shape[1] - size[0]) // 2
    return picture[top : top + size[1], left : left + size[0]]
