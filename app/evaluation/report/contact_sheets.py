"""Contact sheets: rows of labeled frames in one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from talkhead.app.evaluation.measures.image import Box
from talkhead.errors import TalkheadError
from talkhead.storage import write_bytes
from talkhead.types import UInt8

TITLE_HEIGHT, LABEL_WIDTH, GAP = 40, 130, 4
"""Pixels of the bar at the top, of the column at the left, and between images."""
PAPER, INK = 24, 235
MOUTH_ZOOM = 3
DIFFERENCE_GAIN = 4


def contact_sheet(
    rows: Sequence[tuple[str, Sequence[UInt8]]],
    path: Path,
    title: str,
    cell_height: int | None = None,
) -> None:
    """Write labeled rows of images as one PNG of the size that `sheet_size` gives.

    All cells are as large as the largest image; smaller ones are placed at their upper left.

    Args:
        rows: Label and images [h, w, 3] of each row, uint8 RGB.
        path: The PNG to write.
        title: Heading.
        cell_height: Images higher than this are scaled down to it; None for no limit.

    Raises:
        ValueError: There is no image.
        TalkheadError: The file cannot be written.
    """
    fitted = [
        (label, [scaled_down(image, cell_height) for image in images]) for label, images in rows
    ]
    height, width = _cell([image for _, images in fitted for image in images])
    n_columns = max(len(images) for _, images in fitted)
    sheet = np.full((*sheet_size(len(rows), n_columns, height, width), 3), PAPER, np.uint8)
    _write_text(sheet, title, (10, 28), 0.7)
    for row, (label, images) in enumerate(fitted):
        top = TITLE_HEIGHT + row * (height + GAP)
        _write_label(sheet, label, top + min(height, 60) // 2)
        for column, image in enumerate(images):
            left = LABEL_WIDTH + column * (width + GAP)
            sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    _write_png(path, sheet)


def mouth_sheet(
    real: Sequence[UInt8],
    rendered: Sequence[UInt8],
    boxes: Sequence[Box],
    path: Path,
    title: str,
) -> None:
    """Write a contact sheet of enlarged mouths: real, rendered, and their amplified difference.

    Args:
        real: Real images [H, W, 3].
        rendered: Rendered images [H, W, 3].
        boxes: The part of each pair to show.
        path: The PNG to write.
        title: Heading.

    Raises:
        ValueError: There is no image.
        TalkheadError: The file cannot be written.
    """
    mouths, ours, differences = [], [], []
    for true, own, box in zip(real, rendered, boxes, strict=True):
        inside = box.clipped(*true.shape[:2])
        pair = inside.cut(true), inside.cut(own)
        mouths.append(_enlarge(pair[0]))
        ours.append(_enlarge(pair[1]))
        differences.append(_enlarge(difference(*pair)))
    label = f"difference x{DIFFERENCE_GAIN}"
    contact_sheet([("real", mouths), ("rendered", ours), (label, differences)], path, title)


def difference(real: UInt8, made: UInt8) -> UInt8:
    """Compute DIFFERENCE_GAIN times the absolute difference of two images.

    Args:
        real: Image [H, W, 3].
        made: Image [H, W, 3].

    Returns:
        Difference [H, W, 3], black where the images are equal.
    """
    gap = np.abs(real.astype(np.int16) - made)
    return np.minimum(gap * DIFFERENCE_GAIN, 255).astype(np.uint8)


def sheet_size(n_rows: int, n_columns: int, height: int, width: int) -> tuple[int, int]:
    """Compute the size of a contact sheet.

    Args:
        n_rows: Number of rows.
        n_columns: Number of columns.
        height: Height of a cell in pixels.
        width: Width of a cell in pixels.

    Returns:
        Height and width of the sheet in pixels.
    """
    return TITLE_HEIGHT + n_rows * (height + GAP), LABEL_WIDTH + n_columns * (width + GAP)


def spread(n_frames: int, n_columns: int) -> list[int]:
    """Choose positions evenly over some frames, in the middle of equal parts.

    Args:
        n_frames: Number of frames.
        n_columns: Largest number of positions.

    Returns:
        The positions, ascending.
    """
    count = min(n_frames, n_columns)
    return [int((i + 0.5) * n_frames / count) for i in range(count)]


def scaled_down(image: UInt8, cell_height: int | None) -> UInt8:
    """Scale an image down to a height.

    Args:
        image: Image [h, w, 3].
        cell_height: Largest height; None for no limit.

    Returns:
        Image [h, w, 3]; a smaller one unchanged.
    """
    if cell_height is None or image.shape[0] <= cell_height:
        return image
    width = max(1, round(image.shape[1] * cell_height / image.shape[0]))
    return np.asarray(cv2.resize(image, (width, cell_height), interpolation=cv2.INTER_AREA))


def _enlarge(image: UInt8) -> UInt8:
    """Scale an image [h, w, 3] up by MOUTH_ZOOM."""
    size = (image.shape[1] * MOUTH_ZOOM, image.shape[0] * MOUTH_ZOOM)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC))


def _cell(images: Sequence[UInt8]) -> tuple[int, int]:
    """Compute the largest height and width of images [h, w, 3]."""
    if not images:
        raise ValueError("a sheet needs at least one image")
    return max(i.shape[0] for i in images), max(i.shape[1] for i in images)


def _write_label(sheet: UInt8, label: str, top: int) -> None:
    """Write one word per line into a sheet [H, W, 3]."""
    for i, word in enumerate(label.split()):
        _write_text(sheet, word, (10, top + 24 * i), 0.6)


def _write_text(sheet: UInt8, text: str, place: tuple[int, int], scale: float) -> None:
    """Write text into a sheet [H, W, 3]; OpenCV's font is ASCII: other letters become "?"."""
    plain = text.encode("ascii", "replace").decode()
    ink = (INK, INK, INK)
    cv2.putText(sheet, plain, place, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)


def _write_png(path: Path, image: UInt8) -> None:
    """Write an image [H, W, 3] atomically."""
    whole, data = cv2.imencode(".png", image[..., ::-1])
    if not whole:
        raise TalkheadError(f"{path}: an image of {image.shape} cannot be encoded as PNG")
    write_bytes(path, data.tobytes())
