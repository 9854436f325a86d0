"""What is behind the head in mode head: a colour, an image, a looping video, or the person's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np

from talkhead import media
from talkhead.errors import MediaError, TalkheadError
from talkhead.images import kind_of_file, read_image
from talkhead.types import FRAME_RATE, UInt8

Backgrounds = Callable[[int, int], Iterator[UInt8]]
"""first, after -> the pictures [h, w, 3] behind the frames first to after - 1 of a line."""

OWN, ALPHA = "own", "alpha"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".jp2", ".exr", ".hdr")
"""Of files that are images or nothing; other files may be images or videos."""
MOST_MISFIT = 16.0
"""What covers a picture is at most so many times as large, before it is cut."""
COLOURS = {
    "black": "#000000", "white": "#ffffff", "grey": "#808080", "gray": "#808080",
    "silver": "#c0c0c0", "red": "#ff0000", "maroon": "#800000", "orange": "#ffa500",
    "yellow": "#ffff00", "olive": "#808000", "lime": "#00ff00", "green": "#008000",
    "teal": "#008080", "cyan": "#00ffff", "blue": "#0000ff", "navy": "#000080",
    "purple": "#800080", "magenta": "#ff00ff", "pink": "#ffc0cb", "brown": "#a52a2a",
    "beige": "#f5f5dc", "chroma-green": "#00b140", "chroma-blue": "#0047bb",
}  # fmt: skip
"""Names of CSS, and the two that keyers expect."""


def check_background(text: str) -> None:
    """Raises TalkheadError for what is no background."""
    if text in (OWN, ALPHA) or colour_of(text) is not None:
        return
    path = Path(text)
    if not path.is_file():
        raise TalkheadError(
            f"background {text!r}: neither a colour (a name, or #rrggbb), nor own, nor alpha, nor "
            "an image or video that is there"
        )
    if _is_image(path):
        read_image(path)
    elif not media.probe(path).has_video:
        raise MediaError(f"{path}: has no picture. Give an image, a video or a colour")


def backgrounds_of(text: str | None, own: UInt8, n_frames: int) -> Backgrounds:
    """The backgrounds that text asks for, a colour, an image, a video, or None or "own".

    own: [h, w, 3], the person's own background; all are of its size: what has another shape is
    enlarged to cover it and cut. n_frames: how many are needed at most. Raises TalkheadError.
    """
    if text is None or text == OWN:
        return _still(own)
    check_background(text)
    colour = colour_of(text)
    if colour is not None:
        return _still(np.full_like(own, colour))
    path, size = Path(text), (own.shape[1], own.shape[0])
    if _is_image(path):
        return _still(_covering(path, read_image(path), size))
    return _looping(path, size, n_frames)


def colour_of(text: str) -> tuple[int, int, int] | None:
    """Red, green, blue of a name of COLOURS, #rgb or #rrggbb; None for anything else."""
    found = re.fullmatch(r"#?([0-9a-f]{3}|[0-9a-f]{6})", COLOURS.get(text.lower(), text.lower()))
    if not found or not (text.startswith("#") or text.lower() in COLOURS):
        return None
    digits = found[1] if len(found[1]) == 6 else "".join(2 * digit for digit in found[1])
    red, green, blue = (int(digits[i : i + 2], 16) for i in (0, 2, 4))
    return red, green, blue


def _still(picture: UInt8) -> Backgrounds:
    return lambda first, after: repeat(picture, after - first)


def _looping(path: Path, size: tuple[int, int], n_needed: int) -> Backgrounds:
    info = media.probe(path)
    cover = _cover(path, (info.width, info.height), size)
    with closing(media.read_frames(path, n_frames=n_needed, size=(2, 2))) as frames:
        n_loop = sum(1 for _ in frames)
    if n_loop == 0:
        raise MediaError(f"{path}: has no picture that can be read. Export it again")

    def run(first: int, after: int) -> Iterator[UInt8]:
        while first < after:
            start = first % n_loop
            count = min(n_loop - start, after - first)
            source = media.read_frames(path, start_s=start / FRAME_RATE, n_frames=count, size=cover)
            with closing(source):
                for frame in source:
                    yield _cut(frame, size)
                    first, count = first + 1, count - 1
            if count:
                raise MediaError(f"{path}: can't be read to its end. Export it again")

    return run


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES or kind_of_file(path) is not None


def _covering(path: Path, picture: UInt8, size: tuple[int, int]) -> UInt8:
    """An image scaled to cover (width, height), cut to it around its middle."""
    height, width = picture.shape[:2]
    cover = _cover(path, (width, height), size)
    shrinks = width > size[0] and height > size[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return _cut(np.asarray(cv2.resize(picture, cover, interpolation=how), np.uint8), size)


def _cover(path: Path, own: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The size to which what has its own size (width, height) is brought, to cover another size.

    Raises MediaError where the shapes are too far apart.
    """
    scale = max(size[0] / own[0], size[1] / own[1])
    cover = max(size[0], round(own[0] * scale)), max(size[1], round(own[1] * scale))
    if cover[0] * cover[1] > MOST_MISFIT * size[0] * size[1]:
        raise MediaError(
            f"{path}: {own[0]}x{own[1]} is too far from the shape of the video, {size[0]}x{size[1]}. "
            "Cut it to a similar shape"
        )
    return cover


def _cut(picture: UInt8, size: tuple[int, int]) -> UInt8:
    top, left = (picture.shape[0] - size[1]) // 2, (picture.shape[1] - size[0]) // 2
    return picture[top : top + size[1], left : left + size[0]]
