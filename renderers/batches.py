"""Training batches: which frames, and their pixels, masks and weights."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from talkhead.dataset import IdentityDataset
from talkhead.device import aligned
from talkhead.face import FACE_OVAL, LEFT_EYE, OUTER_LIPS, RIGHT_EYE
from talkhead.frame_selection import spread_frames
from talkhead.renderers.base import RegionWeights, TrainBatch
from talkhead.renderers.matting import rim_matte
from talkhead.types import Bool, Float32, Int, UInt8

N_SPREAD = 16
"""Frames that a finished renderer is measured on."""


def draw_frames(usable: Int, size: int, seed: int, step: int) -> Int:
    """The frames of a step: shuffled epochs, so that each frame is seen equally often."""
    start = step * size
    epochs = range(start // len(usable), (start + size - 1) // len(usable) + 1)
    order = np.concatenate([np.random.default_rng((seed, e)).permutation(usable) for e in epochs])
    offset = start - epochs[0] * len(usable)
    return np.asarray(order[offset : offset + size])


def make_batch(dataset: IdentityDataset, landmarks: Float32, frames: Int) -> TrainBatch:
    """Frames of a dataset as a batch; landmarks [F, 478, 2] in crop pixels.

    What stands before the person counts nothing.
    """
    images = [_unit_range(dataset.frames[i]) for i in frames]
    masks = [dataset.masks[i] for i in frames]
    regions = [mask_regions(mask) for mask in masks]
    weights = [
        weight_map(landmarks[i], inner, rim, RegionWeights()) * ~dataset.hidden_area(i)
        for i, (inner, rim) in zip(frames, regions, strict=True)
    ]
    mattes = [
        rim_matte(image, mask, *region)
        for image, mask, region in zip(images, masks, regions, strict=True)
    ]
    tracks = dataset.tracks
    return TrainBatch(
        motion=aligned(tracks.codes[frames]),
        viewmats=aligned(tracks.viewmats[frames]),
        ks=aligned(dataset.crop_ks[frames]),
        images=torch.from_numpy(np.stack([person for _, person in mattes])),
        masks=torch.from_numpy(np.stack([alpha for alpha, _ in mattes]))[..., None],
        weights=torch.from_numpy(np.stack(weights))[..., None],
    )


def spread_batch(dataset: IdentityDataset) -> TrainBatch:
    """N_SPREAD training frames, evenly spread."""
    frames = spread_frames(dataset.tracks.clear & dataset.tracks.learnt, N_SPREAD)
    return make_batch(dataset, dataset.crop_landmarks(), frames)


def mask_regions(mask: UInt8) -> tuple[Bool, Bool]:
    """The person for sure, and the rim that may be either, of a mask [H, W]: two [H, W] bool."""
    inner = cv2.erode(mask, np.ones((7, 7), np.uint8)) > 230
    outer = cv2.dilate(mask, np.ones((7, 7), np.uint8)) > 25
    return inner, outer & ~inner


def weight_map(landmarks: Float32, inner: Bool, rim: Bool, regions: RegionWeights) -> Float32:
    """Pixel weights [H, W]: landmarks [478, 2] crop pixels, the regions of the mask [H, W]."""
    r = regions
    weights = np.zeros(256, np.float32)
    weights[:6] = r.outside, r.person, r.edge, r.face, r.eyes, r.mouth
    shown = inner.view(np.uint8) + 2 * rim.view(np.uint8)  # which of `weights`
    face = np.zeros_like(shown)
    _fill_hull(face, landmarks[list(FACE_OVAL)], 1.0, 2)
    shown += face * inner
    for eye in (LEFT_EYE, RIGHT_EYE):
        _fill_hull(shown, landmarks[list(eye)], 1.6, 4)
    _fill_hull(shown, landmarks[list(OUTER_LIPS)], 1.35, 5)
    return np.asarray(cv2.LUT(shown, weights), np.float32)


def _fill_hull(image: UInt8, points: Float32, enlarge: float, value: int) -> None:
    """Writes value where the points' hull, enlarged about its middle, lies in an image [H, W]."""
    middle = points.mean(0)
    corners = ((points - middle) * enlarge + middle).round().astype(np.int32)
    cv2.fillConvexPoly(image, cv2.convexHull(corners), value)


def _unit_range(image: UInt8) -> Float32:
    """An image in [0, 1]."""
    return np.divide(image, np.float32(255.0), dtype=np.float32)
