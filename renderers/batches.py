"""Training batches: the choice of frames, and their pixels, masks and weights."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from talkhead.dataset import IdentityDataset
from talkhead.device import aligned_copy
from talkhead.face import FACE_OVAL, LEFT_EYE, OUTER_LIPS, RIGHT_EYE
from talkhead.frame_selection import spread_frames
from talkhead.renderers.base import RegionWeights, TrainBatch
from talkhead.renderers.matting import rim_matte
from talkhead.types import Bool, Float32, Int, UInt8

N_SPREAD = 16
"""Number of frames that are passed to `Renderer.finalize`."""
DEPTH = 0.01
MIN_DEPTH = 4
"""A pixel whose neighbors up to this distance probably all show the person certainly shows them, too:
fraction of an image's height, and pixels.
"""


def draw_frames(usable: Int, size: int, seed: int, step: int) -> Int:
    """Choose the frames of a step from shuffled epochs, so that each is used equally often.

    Args:
        usable: [n], the frames to choose from.
        size: Frames per step.
        seed: Seed of the fit.
        step: Number of the step.

    Returns:
        [size] of the frames. They depend on the arguments alone, so that a fit can resume at any
        step.
    """
    # Draws are numbered consecutively over all epochs; this step uses those from start on.
    start = step * size
    epochs = range(start // len(usable), (start + size - 1) // len(usable) + 1)
    order = np.concatenate([np.random.default_rng((seed, e)).permutation(usable) for e in epochs])
    offset = start - epochs[0] * len(usable)
    return np.asarray(order[offset : offset + size])


def make_batch(dataset: IdentityDataset, landmarks: Float32, frames: Int) -> TrainBatch:
    """Load frames of a dataset as a batch.

    Args:
        dataset: The person's footage.
        landmarks: [F, 478, 2], landmarks of all frames in crop pixels.
        frames: [B], indices of frames.

    Returns:
        The batch, on the CPU. Pixels in which something occludes the person have weight 0.
    """
    images = [_unit_range(dataset.frames[i]) for i in frames]
    masks = [dataset.masks[i] for i in frames]
    regions = [mask_regions(mask) for mask in masks]
    weights = [
        weight_map(landmarks[i], inner, rim, RegionWeights()) * ~dataset.occluded_area(i)
        for i, (inner, rim) in zip(frames, regions, strict=True)
    ]
    mattes = [
        rim_matte(image, mask, *region)
        for image, mask, region in zip(images, masks, regions, strict=True)
    ]
    tracks = dataset.tracks
    return TrainBatch(
        motion=aligned_copy(tracks.codes[frames]),
        viewmats=aligned_copy(tracks.viewmats[frames]),
        ks=aligned_copy(dataset.crop_ks[frames]),
        images=torch.from_numpy(np.stack([person for _, person in mattes])),
        masks=torch.from_numpy(np.stack([alpha for alpha, _ in mattes]))[..., None],
        weights=torch.from_numpy(np.stack(weights))[..., None],
    )


def spread_batch(dataset: IdentityDataset) -> TrainBatch:
    """Load N_SPREAD training frames, evenly spread over the footage.

    Args:
        dataset: The person's footage.

    Returns:
        The batch, on the CPU.
    """
    frames = spread_frames(dataset.tracks.unoccluded & dataset.tracks.trainable, N_SPREAD)
    return make_batch(dataset, dataset.crop_landmarks(), frames)


def mask_regions(mask: UInt8) -> tuple[Bool, Bool]:
    """Split a mask into its certain inside and its uncertain rim.

    Args:
        mask: [H, W], 255 where the person is.

    Returns:
        inner and rim, both [H, W]: pixels that certainly show the person, and pixels that may not.
    """
    near, depth = np.ones((7, 7), np.uint8), max(MIN_DEPTH, round(DEPTH * len(mask)))
    # Segmentation is unsure of hair in front of a background of its color even far inside.
    deep = cv2.erode(mask, np.ones((2 * depth + 1,) * 2, np.uint8)) > 127
    inner = (cv2.erode(mask, near) > 230) | deep
    outer = cv2.dilate(mask, near) > 25
    return inner, outer & ~inner


def weight_map(landmarks: Float32, inner: Bool, rim: Bool, regions: RegionWeights) -> Float32:
    """Weight each pixel by the region that it shows.

    Args:
        landmarks: [478, 2], crop pixels.
        inner: [H, W], pixels that certainly show the person.
        rim: [H, W], pixels that may show the person or the background.
        regions: Weight of each region.

    Returns:
        Weights [H, W].
    """
    r = regions
    weights = np.zeros(256, np.float32)
    weights[:6] = r.outside, r.person, r.edge, r.face, r.eyes, r.mouth
    region_ids = inner.view(np.uint8) + 2 * rim.view(np.uint8)  # indices into `weights`
    face = np.zeros_like(region_ids)
    _fill_hull(face, landmarks[list(FACE_OVAL)], 1.0, 2)
    region_ids += face * inner
    for eye in (LEFT_EYE, RIGHT_EYE):
        _fill_hull(region_ids, landmarks[list(eye)], 1.6, 4)
    _fill_hull(region_ids, landmarks[list(OUTER_LIPS)], 1.35, 5)
    return np.asarray(cv2.LUT(region_ids, weights), np.float32)


def _fill_hull(image: UInt8, points: Float32, enlarge: float, value: int) -> None:
    """Write value into an image [H, W] inside the enlarged convex hull of points [n, 2]."""
    middle = points.mean(0)
    corners = ((points - middle) * enlarge + middle).round().astype(np.int32)
    cv2.fillConvexPoly(image, cv2.convexHull(corners), value)


def _unit_range(image: UInt8) -> Float32:
    """Convert an image [H, W, 3] to [0, 1]."""
    return np.divide(image, np.float32(255.0), dtype=np.float32)
