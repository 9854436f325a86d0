"""Still images: only a few formats, only of their declared size."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from talkhead import images
from talkhead.errors import TalkheadError
from talkhead.images import BMP, JPEG, KINDS, PNG, WEBP, image_kind, kind_of_file, read_image
from talkhead.types import UInt8

SUFFIXES = {PNG: ".png", JPEG: ".jpg", WEBP: ".webp", BMP: ".bmp"}


def picture(width: int = 45, height: int = 31) -> UInt8:
    """A smooth RGB image."""
    y, x = np.mgrid[:height, :width]
    return np.stack([3 * x, 5 * y, 2 * (x + y)], axis=2).astype(np.uint8)


def encoded(kind: str, image: UInt8, *options: int) -> bytes:
    whole, data = cv2.imencode(SUFFIXES[kind], image[..., ::-1], options)
    assert whole
    return data.tobytes()


def png(width: int, height: int) -> bytes:
    """The beginning of a PNG of a given size, with its checksum."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packed = zlib.compress(bytes(1000))
    data = b"IDAT" + packed
    parts = [struct.pack(">I", 13), head, struct.pack(">I", zlib.crc32(head))]
    parts += [struct.pack(">I", len(packed)), data, struct.pack(">I", zlib.crc32(data))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("name", ["plate.png", "plate.jpg", "plate"])
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_are_detected_by_content(tmp_path: Path, kind: str, name: str) -> None:
    path, image = tmp_path / name, picture()
    path.write_bytes(encoded(kind, image))
    assert kind_of_file(path) == kind
    found = read_image(path)
    assert found.shape == image.shape and found.flags.c_contiguous
    assert np.abs(found.astype(int) - image).mean() < (8 if kind in (JPEG, WEBP) else 0.01)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (45, 31), (640, 3)])
def test_sizes_are_read_from_the_header(kind: str, size: tuple[int, int]) -> None:
    assert images._SIZES[kind](encoded(kind, picture(*size))) == size


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (JPEG, (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        (JPEG, (cv2.IMWRITE_JPEG_RST_INTERVAL, 1)),
        (WEBP, (cv2.IMWRITE_WEBP_QUALITY, 101)),  # lossless
    ],
)
def test_sizes_of_variants(kind: str, options: tuple[int, ...]) -> None:
    assert images._SIZES[kind](encoded(kind, picture(), *options)) == (45, 31)


def test_a_webp_with_alpha_is_read(tmp_path: Path) -> None:
    image = np.dstack([picture(), np.full((31, 45), 99, np.uint8)])
    data = cv2.imencode(".webp", image)[1].tobytes()
    assert images._SIZES[WEBP](data) == (45, 31)


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    """The rotation is that of the camera's orientation tag, which is stored before the size."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0MM\0\x2a\0\0\0\x08" + struct.pack(">H", 1) + entry + bytes(4)
    data = encoded(JPEG, picture())
    path = tmp_path / "photo.jpg"
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
    assert read_image(path).shape == (45, 31, 3)


@pytest.mark.parametrize("suffix", [".jp2", ".tiff", ".ppm", ".hdr", ".pbm", ".ras"])
def test_other_formats_are_refused_under_any_suffix(tmp_path: Path, suffix: str) -> None:
    image = picture(96, 80)
    if suffix == ".hdr":
        image = image.astype(np.float32) / 255
    if suffix == ".pbm":
        image = image[..., 0]
    try:
        whole, data = cv2.imencode(suffix, image)
    except cv2.error:
        pytest.skip(f"this OpenCV writes no {suffix}")
    assert whole and cv2.imdecode(data, cv2.IMREAD_COLOR) is not None
    path = tmp_path / "plate.png"
    path.write_bytes(data.tobytes())
    with pytest.raises(TalkheadError) as error:
        read_image(path)
    assert str(error.value) == (
        f"{path}: is not an image that can be read. Export it as PNG, JPEG, WebP or BMP"
    )


def test_only_requested_formats_are_read(tmp_path: Path) -> None:
    path = tmp_path / "plate.png"
    path.write_bytes(encoded(JPEG, picture()))
    with pytest.raises(TalkheadError, match=r"Export it as PNG$"):
        read_image(path, (PNG,))


def test_too_large_an_image_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plate.png"
    path.write_bytes(png(16_384, 16_384))

    def decode(*arguments: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", decode)
    with pytest.raises(TalkheadError, match="16384x16384 is too large: at most 67 million pixels"):
        read_image(path)
    path.write_bytes(png(0, 5))
    with pytest.raises(TalkheadError, match="is a damaged PNG image"):
        read_image(path)
    monkeypatch.setattr(images, "MAX_IMAGE_BYTES", 50)
    with pytest.raises(TalkheadError, match="has more than"):
        read_image(path)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_images_are_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    data, path = encoded(kind, picture()), tmp_path / "plate"
    for n_bytes in (0, 1, 3, 11, 12, 13, 17, 20, 23, 25, 27, 29):
        path.write_bytes(data[:n_bytes])
        with pytest.raises(TalkheadError) as error:
            read_image(path)
        assert "\n" not in str(error.value) and str(error.value).startswith(f"{path}: ")


def test_paths_that_are_not_files_are_not_images(tmp_path: Path) -> None:
    assert kind_of_file(tmp_path) is None and kind_of_file(tmp_path / "missing") is None
    with pytest.raises(TalkheadError, match="there is no such file"):
        read_image(tmp_path / "missing")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        assert kind_of_file(tmp_path / "pipe.png") is None
        with pytest.raises(TalkheadError, match="pipe"):
            read_image(tmp_path / "pipe.png")


def test_other_content_is_not_an_image() -> None:
    assert [image_kind(data) for data in (b"", b"RIFF\0\0\0\0WAVE", b"GIF89a", b"\0" * 12)] == [
        None
    ] * 4
