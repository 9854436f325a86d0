"""Person masks at a quarter of the size, for footage of which only some images are stored.

Only pasting into every frame of such footage needs them, and segmenting takes longer than all else in
cutting out heads, so they are made when they are first needed.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from talkhead import media
from talkhead.crops import cut_crop, shrunk_mask
from talkhead.dataset import IdentityDataset
from talkhead.device import map_concurrently
from talkhead.preprocess.head_crops import CHUNK
from talkhead.preprocess.person_mask import PersonSegmenter
from talkhead.progress import Progress
from talkhead.types import FRAME_RATE, UInt8


def has_small_masks(dataset: IdentityDataset, n_frames: int) -> bool:
    """Check if `IdentityDataset.person` knows the person in each of the first frames.

    Args:
        dataset: The dataset.
        n_frames: Number of frames.

    Returns:
        True if their images or their small masks are stored.
    """
    return bool(dataset.tracks.has_image[:n_frames].all()) or len(dataset.small_masks) >= n_frames


def write_small_masks(
    dataset: IdentityDataset, video: Path, n_frames: int, progress: Progress
) -> None:
    """Segment the person in the first frames of the footage; continues where it was interrupted.

    Args:
        dataset: Dataset of the footage. The masks that it has are only made smaller.
        video: The footage.
        n_frames: Number of frames.
        progress: Where the step is shown.

    Raises:
        MediaError: The picture cannot be decoded.
        TalkheadError: A file cannot be written.
    """
    small = dataset.small_masks
    small.truncate(len(small))  # a mask may be written in part
    done = len(small)
    if done >= n_frames:  # by a process that this one waited for
        return
    segmenter = PersonSegmenter()
    frames = media.read_frames(video, start_s=done / FRAME_RATE, n_frames=n_frames - done)
    masks = map_concurrently(
        partial(_small_mask, dataset, segmenter),
        enumerate(frames, start=done),
        torch.get_num_threads(),
    )
    with (
        closing(frames),
        closing(segmenter),
        closing(masks),
        progress.step("Segmenting the person", total=n_frames, done=done) as step,
    ):
        while chunk := list(islice(masks, CHUNK)):
            small.append(chunk)
            step.advance(len(chunk))


def _small_mask(
    dataset: IdentityDataset, segmenter: PersonSegmenter, numbered: tuple[int, UInt8]
) -> UInt8:
    """Return the small mask of a frame, given as number and image."""
    frame, image = numbered
    if dataset.tracks.has_image[frame]:
        return shrunk_mask(dataset.masks[frame])
    crop = cut_crop(
        image, dataset.tracks.origins[frame], dataset.info.crop_size, dataset.info.scale
    )
    return shrunk_mask(segmenter.mask(crop))
