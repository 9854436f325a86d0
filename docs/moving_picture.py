"""Make the animation of the README from the fitted sample person: real footage next to the spoken line.

    make demo && .venv/bin/python docs/moving_picture.py demo

Reads demo/line.mp4 and samples/person.mp4, both of them synthetic, and writes docs/demo.webp. With
`--placeholder` it writes a gray picture of the same shape, for use until the animation exists.
"""

from __future__ import annotations

import argparse
import os
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from talkhead import media
from talkhead.types import FRAME_RATE, UInt8

ROOT = Path(__file__).parents[1]
PERSON, TARGET = ROOT / "samples" / "person.mp4", ROOT / "docs" / "demo.webp"
MAX_SECONDS = 6.0
HEIGHT = 320
"""Pixels of each half."""
GAP = 8
"""Pixels between the halves."""
MAX_BYTES = 1_500_000
QUALITIES = (80, 70, 60, 50, 40, 30, 20)
"""WebP qualities, tried in this order until the file is small enough."""


def read_half(video: Path, n_frames: int) -> list[UInt8]:
    """Read the first frames of a video, scaled to HEIGHT and an even width, as [H, W, 3] RGB."""
    info = media.probe(video)
    width = round(info.width / info.height * HEIGHT / 2) * 2
    frames = media.read_frames(video, n_frames=n_frames, size=(width, HEIGHT))
    with closing(frames):
        return list(frames)


def join_halves(left: list[UInt8], right: list[UInt8]) -> list[UInt8]:
    """Join frames side by side with a white gap, up to the length of the shorter list."""
    gap = np.full((HEIGHT, GAP, 3), 255, np.uint8)
    return [np.hstack([one, gap, other]) for one, other in zip(left, right, strict=False)]


def write_animation(frames: list[UInt8], target: Path, max_bytes: int = MAX_BYTES) -> int:
    """Write frames [H, W, 3] RGB as a looping WebP animation.

    Args:
        frames: At least one frame.
        target: File to write. An existing file is replaced only by a complete one.
        max_bytes: Size limit. The highest quality that stays within it is chosen.

    Returns:
        The quality that was chosen.

    Raises:
        ValueError: If even the lowest quality exceeds `max_bytes`.
    """
    first, *others = [Image.fromarray(frame) for frame in frames]
    duration = round(1000 / FRAME_RATE)
    temporary = target.with_name(f".{target.name}")  # the suffix determines the format
    try:
        for quality in QUALITIES:
            # Whole frames only: blocks that are kept from earlier frames leave jagged edges.
            first.save(
                temporary, save_all=True, append_images=others, duration=duration, loop=0,
                quality=quality, method=6, kmin=0, kmax=1,
            )  # fmt: skip
            if temporary.stat().st_size <= max_bytes:
                os.replace(temporary, target)
                return quality
    finally:
        temporary.unlink(missing_ok=True)
    raise ValueError(f"{target}: more than {max_bytes} bytes at the lowest quality; show less")


def placeholder() -> list[UInt8]:
    """Return one gray frame [H, W, 3] of the animation's shape that names the command to run."""
    frame = np.full((HEIGHT, 2 * HEIGHT + GAP, 3), 225, np.uint8)
    frame[:, HEIGHT : HEIGHT + GAP] = 255
    cv2.putText(
        frame, "make demo", (40, HEIGHT // 2), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (110, 110, 110), 2
    )
    return [frame]


def main() -> None:
    """Read the arguments and write the animation."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("demo", type=Path, nargs="?", help="the folder that `make demo` created")
    parser.add_argument("--placeholder", action="store_true", help="write a gray picture")
    parser.add_argument("--output", type=Path, default=TARGET, help="default: docs/demo.webp")
    arguments = parser.parse_args()
    if arguments.placeholder:
        frames = placeholder()
    elif arguments.demo is None:
        parser.error("pass the folder that `make demo` created, or --placeholder")
    else:
        n_frames = int(MAX_SECONDS * FRAME_RATE)
        right = read_half(arguments.demo / "line.mp4", n_frames)
        frames = join_halves(read_half(PERSON, len(right)), right)
    quality = write_animation(frames, arguments.output)
    n_bytes = arguments.output.stat().st_size
    print(f"{arguments.output}: {len(frames)} frames, {n_bytes:,} bytes, quality {quality}")


if __name__ == "__main__":
    main()
