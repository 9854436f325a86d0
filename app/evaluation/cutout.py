"""The rendered head alone, cut out for another background: its measures and its pictures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from talkhead.app.evaluation.measures.cutout import CUTOUT_MEASURES, PERSON_FROM, HeadOpacity
from talkhead.app.evaluation.reference import composite, rendered_heads
from talkhead.app.evaluation.report.contact_sheets import spread
from talkhead.app.evaluation.results import Results
from talkhead.dataset import IdentityDataset
from talkhead.renderers.base import Renderer
from talkhead.types import Float32, Int, UInt8

MAX_FRAMES = 24
"""Frames that are measured: the outline changes little from one to the next."""
COLORS: tuple[tuple[int, int, int], ...] = (
    (0, 192, 64), (255, 0, 200), (0, 96, 255), (255, 210, 0), (0, 210, 230), (230, 20, 20),
)  # fmt: skip
"""Backgrounds for pictures of heads: the one that is farthest from a head's own colors is used."""


def cutout_results(
    renderer: Renderer, dataset: IdentityDataset, frames: Int, motion: Float32
) -> Results:
    """Measure how well the head alone is cut out, over up to MAX_FRAMES of the frames.

    Args:
        renderer: The renderer.
        dataset: Its dataset.
        frames: Frame indices [N].
        motion: Motion codes [N, K].

    Returns:
        Value by name.
    """
    chosen = np.array(spread(len(frames), MAX_FRAMES))
    heads = rendered_heads(renderer, dataset, frames[chosen], motion[chosen])
    rows = [
        CUTOUT_MEASURES.compute(HeadOpacity(alpha[..., 0], _mask(dataset, frame)))
        for frame, (_, alpha) in zip(frames[chosen], heads, strict=True)
    ]
    return CUTOUT_MEASURES.summarize(rows)


def cutout_rows(
    renderer: Renderer, dataset: IdentityDataset, frames: Int, motion: Float32
) -> list[tuple[str, list[UInt8]]]:
    """Show heads over a color that the person does not have.

    Args:
        renderer: The renderer.
        dataset: Its dataset.
        frames: Frame indices [N].
        motion: Motion codes [N, K].

    Returns:
        Label and images [H, W, 3] of two rows: the real frames, cut out by their masks, and the
        rendered heads.
    """
    real = [dataset.frames[frame] for frame in frames]
    masks = [_mask(dataset, frame)[..., None] for frame in frames]
    color = contrasting_color(real[0][masks[0][..., 0] > PERSON_FROM])
    background = np.full_like(real[0], color)
    heads = rendered_heads(renderer, dataset, frames, motion)
    return [
        ("real, cut out by its mask", list(_cut_out(real, masks, background))),
        ("rendered head alone", [composite(rgb, alpha, background) for rgb, alpha in heads]),
    ]


def _mask(dataset: IdentityDataset, frame: int) -> Float32:
    """Return the person mask [H, W] of a frame, in [0, 1]."""
    return dataset.masks[frame].astype(np.float32) / np.float32(255.0)


def _cut_out(images: list[UInt8], masks: list[Float32], background: UInt8) -> Iterator[UInt8]:
    """Yield images [H, W, 3] over a background [H, W, 3] outside their masks [H, W, 1]."""
    for image, mask in zip(images, masks, strict=True):
        yield composite(image * (mask / np.float32(255)), mask, background)


def contrasting_color(pixels: UInt8) -> UInt8:
    """Choose the one of COLORS that is farthest from all but the nearest twentieth of some pixels.

    Args:
        pixels: Colors [n, 3], RGB.

    Returns:
        The color [3].
    """
    if not len(pixels):
        return np.array(COLORS[0], np.uint8)
    few = pixels[:: max(1, len(pixels) // 4096)].astype(np.float32)
    gaps = [np.percentile(np.linalg.norm(few - np.array(c, np.float32), axis=1), 5) for c in COLORS]
    return np.array(COLORS[int(np.argmax(gaps))], np.uint8)
