"""Estimate the background behind the person.

Each pixel is its median over a few dozen frames, except those in which the person covers it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO

import cv2
import numpy as np

from talkhead.config import read_object
from talkhead.dataset import ADVICE, MASKS, ImageFile
from talkhead.preprocess.head_crops import SAMPLES, CropJob
from talkhead.preprocess.person_mask import CropPlan
from talkhead.storage import translate_os_errors, write_bytes, write_json
from talkhead.types import Bool, Float32, MediaInfo, UInt8

BACKGROUND_IMAGE, BACKGROUND_FACTS = "plate.png", "plate.json"

MAX_SAMPLES = 60
"""Largest number of frames that the background is made from."""
SEEN_AT_LEAST = 3
"""A pixel at which fewer frames than this show the background is filled in."""
PERSON_BELOW = 38
"""A pixel is background where the mask (0..255) is below this: masks have a faint halo around people
that is not part of them."""
HELD_BYTES = 256 << 20
"""Stacks up to this size are held in memory, larger ones on disk: 60 masks in 4K take 500 MB."""
BAND = 16
"""Rows that are processed at a time."""
MOVING_ABOVE = 12.0
"""The camera counts as moving if the backgrounds of the clip's two halves differ by more than this
(median, on a scale of 255)."""


@dataclass(frozen=True)
class Background:
    """The background of a clip, without the person.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        seen: [H, W] bool, False where the image was filled in.
        moving: True if the camera moves.
    """

    image: UInt8
    seen: Bool
    moving: bool


class ImageStack:
    """Images of the same shape that are read in bands of rows.

    Small stacks are held in memory, large ones in an unnamed temporary file.
    """

    def __init__(self, images: Iterable[UInt8] | ImageFile, folder: Path | None = None) -> None:
        """Store the images.

        Args:
            images: [H, W, ...] uint8 each, one after the other. An `ImageFile` is read in place.
            folder: Folder for a temporary file; None for the system's.

        Raises:
            OSError: The temporary file cannot be written.
        """
        self._file: IO[bytes]
        if isinstance(images, ImageFile):
            self._file = images.path.open("rb")
            self._n, self._shape = len(images), images.shape
            return
        where = None if folder is None else str(folder)
        self._file = SpooledTemporaryFile(HELD_BYTES, dir=where)  # noqa: SIM115
        self._n, self._shape = 0, (0, 0)
        for image in images:
            self._shape = image.shape
            self._file.write(np.ascontiguousarray(image).tobytes())
            self._n += 1

    def __enter__(self) -> ImageStack:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._n

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image."""
        return self._shape

    def rows(self, first: int, after: int, images: range) -> UInt8:
        """Read rows first to after - 1 of each of n images.

        Args:
            first: The first row.
            after: The row after the last one.
            images: Numbers of the images.

        Returns:
            [n, after - first, W, ...] uint8.
        """
        row_bytes = prod(self._shape[1:])
        parts = []
        for number in images:
            self._file.seek((number * self._shape[0] + first) * row_bytes)
            parts.append(self._file.read((after - first) * row_bytes))
        stack = np.frombuffer(b"".join(parts), np.uint8)
        return stack.reshape(len(images), after - first, *self._shape[1:])


def disk_bytes(height: int, width: int) -> int:
    """Return how many bytes `estimate_background` writes to disk, at most, for the masks of its frames.

    Args:
        height: Height of the source, pixels.
        width: Width of the source, pixels.

    Returns:
        Bytes; 0 while the masks fit in memory.
    """
    n_bytes = MAX_SAMPLES * height * width
    return n_bytes if n_bytes > HELD_BYTES else 0


def estimate_background(
    frames: Iterable[UInt8] | ImageFile, masks: Iterable[UInt8], folder: Path | None = None
) -> Background:
    """Estimate the background of a clip.

    Args:
        frames: A few dozen whole images [H, W, 3] uint8 RGB, one after the other.
        masks: Their person masks [H, W] uint8, 255 = person or unknown (where no mask was computed).
        folder: Where large stacks are held on disk; None for the system's temporary folder.

    Returns:
        The background, in the size of the frames.

    Raises:
        OSError: The folder cannot be written to.
    """
    with ImageStack(frames, folder) as stack, ImageStack(masks, folder) as people:
        half = len(stack) // 2
        image, seen = _masked_median(stack, people, range(len(stack)))
        moving = half >= SEEN_AT_LEAST and _moved(stack, people, half)
    return Background(_inpaint(image, seen), seen, moving)


@dataclass(frozen=True)
class BackgroundFacts:
    """Facts about a background that are stored next to its image.

    Attributes:
        moving: True if the camera moves.
        seen: Fraction of the pixels at which the background was seen.
    """

    moving: bool
    seen: float


def write_background(folder: Path, job: CropJob) -> None:
    """Make the background of the frames that were sampled while crops were cut.

    Writes plate.png, then plate.json with its facts, and removes the sampled frames.

    Args:
        folder: Folder of the dataset, with person masks and sampled frames.
        job: The crops that were cut.

    Raises:
        TalkheadError: The folder cannot be written to.
    """
    info, chosen = job.footage.info, np.flatnonzero(job.sampled)
    size = (job.plan.height, job.plan.width)
    images = ImageFile(folder / SAMPLES, (info.height, info.width, 3), chosen)
    masks = ImageFile(folder / MASKS, size, np.flatnonzero(job.has_image))
    whole_masks = (_whole_mask(masks[i], job.plan, int(i), info) for i in chosen)
    with translate_os_errors(folder / BACKGROUND_IMAGE):
        background = estimate_background(images, whole_masks, folder)
    _, png = cv2.imencode(".png", background.image[..., ::-1])
    write_bytes(folder / BACKGROUND_IMAGE, png.tobytes())
    facts = BackgroundFacts(moving=background.moving, seen=float(background.seen.mean()))
    write_json(folder / BACKGROUND_FACTS, asdict(facts))
    images.path.unlink()


def read_background_facts(folder: Path) -> BackgroundFacts:
    """Read the facts that `write_background` has stored.

    Args:
        folder: Folder of the dataset.

    Returns:
        The facts.

    Raises:
        PackageError: The file is damaged.
    """
    return read_object(folder / BACKGROUND_FACTS, BackgroundFacts, ADVICE)


def _whole_mask(mask: UInt8, plan: CropPlan, frame: int, info: MediaInfo) -> UInt8:
    """Return a crop's mask [h, w], dilated, in the whole image [H, W]; unknown (255) outside the crop."""
    whole = np.full((info.height, info.width), 255, dtype=np.uint8)
    height, width = (round(n / plan.scale) for n in (plan.height, plan.width))
    large = cv2.dilate(mask, np.ones((7, 7), np.uint8))
    if large.shape != (height, width):
        large = cv2.resize(large, (width, height), interpolation=cv2.INTER_LINEAR)
    left, top = (int(n) for n in plan.origins[frame])
    rows = slice(max(0, top), min(info.height, top + height))
    columns = slice(max(0, left), min(info.width, left + width))
    whole[rows, columns] = large[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]
    return whole


def _masked_median(stack: ImageStack, people: ImageStack, images: range) -> tuple[UInt8, Bool]:
    """Return the median [H, W, 3] of background pixels, and [H, W] where there are enough of them."""
    height, width = stack.shape[:2]
    image, seen = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.bool_)
    for first in range(0, height, BAND):
        after = min(first + BAND, height)
        band = stack.rows(first, after, images)
        background = people.rows(first, after, images) < PERSON_BELOW
        for row in range(after - first):  # row by row: a masked median needs floats
            image[first + row] = _median_row(band[:, row], background[:, row])
        seen[first:after] = background.sum(0) >= SEEN_AT_LEAST
    return image, seen


def _median_row(pixels: UInt8, background: Bool) -> Float32:
    """Return the median [W, 3] of the pixels [n, W, 3] that are background [n, W]; 0 where none is."""
    values = np.where(background[..., None], pixels.astype(np.float32), np.inf)
    ordered = np.sort(values, axis=0)
    middle = np.clip((background.sum(0) - 1) // 2, 0, None)
    picked = np.take_along_axis(ordered, middle[None, :, None], axis=0)[0]
    return np.where(np.isfinite(picked), picked, 0)


def _moved(stack: ImageStack, people: ImageStack, half: int) -> bool:
    """Return True if the backgrounds of the first `half` images and of the others differ."""
    first, first_seen = _masked_median(stack, people, range(half))
    last, last_seen = _masked_median(stack, people, range(half, len(stack)))
    both = first_seen & last_seen
    if both.sum() < 0.02 * both.size:
        return False
    change = np.abs(first[both].astype(np.int16) - last[both].astype(np.int16))
    return bool(np.median(change) > MOVING_ABOVE)


def _inpaint(image: UInt8, seen: Bool) -> UInt8:
    """Fill the pixels of [H, W, 3] that were not `seen` [H, W] smoothly, at a quarter of the size."""
    if seen.all():
        return image
    if not seen.any():
        return np.full_like(image, 127)
    height, width = seen.shape
    small_size = (max(1, width // 4), max(1, height // 4))
    weight = cv2.resize(seen.astype(np.float32), small_size, interpolation=cv2.INTER_AREA)
    color = image.astype(np.float32)
    color *= seen[..., None]
    color = cv2.resize(color, small_size, interpolation=cv2.INTER_AREA)
    filled = _push_pull(color, weight)
    large = cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR)
    large += np.float32(0.5)  # in place: these are the largest arrays here
    np.clip(large, 0, 255, out=large)
    return np.where(seen[..., None], image, large.astype(np.uint8))


def _push_pull(
    color: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    weight: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Turn premultiplied colors [h, w, 3] with weights [h, w] into colors everywhere, coarse to fine."""
    height, width = weight.shape
    if min(height, width) <= 2:
        mean = color.reshape(-1, 3).sum(0) / max(float(weight.sum()), 1e-6)
        coarse = np.broadcast_to(mean, color.shape).astype(np.float32)
    else:
        half = ((width + 1) // 2, (height + 1) // 2)
        small = _push_pull(
            cv2.resize(color, half, interpolation=cv2.INTER_AREA),
            cv2.resize(weight, half, interpolation=cv2.INTER_AREA),
        )
        coarse = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(color + coarse * (1.0 - weight[..., None]), dtype=np.float32)
