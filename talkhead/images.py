"""Read still images. Their format and declared size are checked before they are decoded.

OpenCV decodes by content regardless of the file name, including rare formats whose decoders had
vulnerabilities. So only the formats listed here are passed to it. No other module decodes images.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from pathlib import Path

import cv2
import numpy as np

from talkhead.errors import MediaError
from talkhead.storage import read_bytes, translate_os_errors
from talkhead.types import UInt8

PNG, JPEG, WEBP, BMP = "PNG", "JPEG", "WebP", "BMP"
KINDS = (PNG, JPEG, WEBP, BMP)
MAX_IMAGE_BYTES = 256 << 20
"""Largest image file."""
MAX_IMAGE_PIXELS = 1 << 26
"""Largest image: 200 MB when decoded."""

Size = tuple[int, int]
"""Width and height."""


def image_kind(data: bytes) -> str | None:
    """Detect the format of an image.

    Args:
        data: The first 12 bytes of its file.

    Returns:
        One of KINDS; None for anything else.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if data.startswith(b"\xff\xd8\xff"):
        return JPEG
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WEBP
    return BMP if data.startswith(b"BM") else None


def kind_of_file(path: Path) -> str | None:
    """Detect the format of an image file.

    Args:
        path: Any path.

    Returns:
        One of KINDS; None for anything else.

    Raises:
        TalkheadError: The file cannot be read.
    """
    if not path.is_file():
        return None
    with translate_os_errors(path), path.open("rb") as file:
        return image_kind(file.read(12))


def read_image(path: Path, kinds: Collection[str] = KINDS, size: Size | None = None) -> UInt8:
    """Read an image file.

    Args:
        path: The file.
        kinds: Formats that are accepted.
        size: Width and height that it must have, pixels; None for any.

    Returns:
        [H, W, 3] uint8 RGB.

    Raises:
        MediaError: It is damaged, too large, or of another format or size.
        TalkheadError: The file cannot be read.
    """
    data = read_bytes(path, MAX_IMAGE_BYTES)
    image = decode_image(data, str(path), kinds)
    if size is not None and image.shape[:2] != size[::-1]:
        raise MediaError(f"{path}: is {image.shape[1]}x{image.shape[0]}, not {size[0]}x{size[1]}")
    return np.ascontiguousarray(image[..., ::-1])


def decode_image(
    data: bytes, name: str, kinds: Collection[str] = KINDS, flags: int = cv2.IMREAD_COLOR
) -> UInt8:
    """Decode an image with OpenCV.

    Args:
        data: Content of an image file.
        name: Name of its source, with which error messages begin.
        kinds: Formats that are accepted.
        flags: Flags of `cv2.imdecode`.

    Returns:
        With the default flags, [H, W, 3] uint8 BGR.

    Raises:
        MediaError: It is damaged, too large or of another format.
    """
    kind = image_kind(data[:12])
    if kind is None or kind not in kinds:
        raise MediaError(f"{name}: is not an image that can be read. Export it as {_either(kinds)}")
    try:
        width, height = _SIZES[kind](data)
    except (struct.error, ValueError, IndexError):
        raise _damaged(name, kind) from None
    if width < 1 or height < 1:
        raise _damaged(name, kind)
    if width * height > MAX_IMAGE_PIXELS:
        raise MediaError(
            f"{name}: an image of {width}x{height} is too large: at most "
            f"{MAX_IMAGE_PIXELS / 1e6:.0f} million pixels are read. Scale it down"
        )
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise _damaged(name, kind)
    return np.asarray(image)


def _damaged(name: str, kind: str) -> MediaError:
    return MediaError(f"{name}: is a damaged {kind} image. Export it again")


def _either(names: Collection[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def _png_size(data: bytes) -> Size:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _jpeg_size(data: bytes) -> Size:
    """Return the size in the frame header, which is one of several segments that state their lengths."""
    place = 2
    while True:
        if data[place] != 0xFF:
            raise ValueError("no marker")
        while data[place] == 0xFF:  # fill bytes
            place += 1
        marker = data[place]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, place + 4)
            return width, height
        place += 1
        if marker != 0x01 and not 0xD0 <= marker <= 0xD8:
            place += struct.unpack_from(">H", data, place)[0]


def _webp_size(data: bytes) -> Size:
    match data[12:16]:
        case b"VP8X":
            width, height = (int.from_bytes(data[i : i + 3], "little") + 1 for i in (24, 27))
        case b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            width, height = (size & 0x3FFF for size in struct.unpack_from("<HH", data, 26))
        case _:
            raise ValueError("no picture")
    return width, height


def _bmp_size(data: bytes) -> Size:
    is_old = struct.unpack_from("<I", data, 14)[0] == 12
    width, height = struct.unpack_from("<HH" if is_old else "<ii", data, 18)
    return width, abs(height)


_SIZES: dict[str, Callable[[bytes], Size]] = {
    PNG: _png_size,
    JPEG: _jpeg_size,
    WEBP: _webp_size,
    BMP: _bmp_size,
}
