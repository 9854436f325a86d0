"""The head alone, as it is cut out for another background: is all of it there, and nothing else?

Over the background that it was filmed in, a head with holes and scraps of that background can look
perfect. So its opacity is compared with the person mask of the real frame, in a strip on each side of
the mask's outline, and it is shown over a color that it doesn't have.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from talkhead.app.evaluation.reference import composite, rendered_heads
from talkhead.app.evaluation.report.contact_sheets import spread
from talkhead.app.evaluation.results import CutoutMetrics, summarize
from talkhead.dataset import IdentityDataset
from talkhead.renderers.base import Renderer
from talkhead.types import Bool, Float32, Int, UInt8

MAX_FRAMES = 24
"""Frames that are looked at: the outline changes little from one to the next."""
MARGIN, REACH = 0.015, 0.05
"""Shares of the image's height: what lies nearer to the outline isn't judged, for masks and soft hair
are not that exact; what lies farther isn't either, or a torso would outweigh all hair."""
PERSON_FROM = 0.5
"""A pixel is the person's where the mask is above this."""
COLORS: tuple[tuple[int, int, int], ...] = (
    (0, 192, 64), (255, 0, 200), (0, 96, 255), (255, 210, 0), (0, 210, 230), (230, 20, 20),
)  # fmt: skip
"""What heads are shown over: the one that is farthest from their own colors."""


def cutout_metrics(
    renderer: Renderer, dataset: IdentityDataset, frames: Int, motion: Float32
) -> CutoutMetrics:
    """How well the head alone is cut out, over up to MAX_FRAMES of the frames.

    frames: [N] numbers of kept frames. motion: [N, K] codes, one for each.
    """
    chosen = np.array(spread(len(frames), MAX_FRAMES))
    heads = rendered_heads(renderer, dataset, frames[chosen], motion[chosen])
    rows = [
        strip_shares(alpha[..., 0], dataset.person(number))
        for number, (_, alpha) in zip(frames[chosen], heads, strict=True)
    ]
    see_through, scraps = np.array(rows).T
    return CutoutMetrics(
        len(rows),
        see_through=summarize(see_through, less_is_better=True),
        scraps=summarize(scraps, less_is_better=True),
    )


def strip_shares(alpha: Float32, person: Float32) -> tuple[float, float]:
    """What is missing of the person inside their outline, and what is there outside of it: means of
    1 - alpha and of alpha over a strip on either side; NaN where there is no strip.

    alpha, person: [H, W] in [0, 1], the made head's opacity and the real frame's mask.
    """
    inside, outside = _strip(person > PERSON_FROM), _strip(person <= PERSON_FROM)
    missing = float((1.0 - alpha[inside]).mean()) if inside.any() else float("nan")
    return missing, float(alpha[outside].mean()) if outside.any() else float("nan")


def _strip(area: Bool) -> Bool:
    """Where an area [H, W] lies MARGIN to REACH from what is not it."""
    if area.all():
        return np.zeros_like(area)
    depth = cv2.distanceTransform(area.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    share = depth / np.float32(len(area))
    return np.asarray((share > MARGIN) & (share <= REACH))


def cutout_rows(
    renderer: Renderer, dataset: IdentityDataset, frames: Int, motion: Float32
) -> list[tuple[str, list[UInt8]]]:
    """Rows of pictures over a color that the person doesn't have: the real frames, cut out by their
    masks, and the rendered heads. frames: [N]. motion: [N, K]."""
    real = [dataset.frames[number] for number in frames]
    masks = [dataset.person(number)[..., None] for number in frames]
    color = contrasting_color(real[0][masks[0][..., 0] > PERSON_FROM])
    background = np.full_like(real[0], color)
    heads = rendered_heads(renderer, dataset, frames, motion)
    return [
        ("real, cut out by its mask", list(_cut_out(real, masks, background))),
        ("rendered head alone", [composite(rgb, alpha, background) for rgb, alpha in heads]),
    ]


def _cut_out(images: list[UInt8], masks: list[Float32], background: UInt8) -> Iterator[UInt8]:
    for image, mask in zip(images, masks, strict=True):
        yield composite(image * (mask / np.float32(255)), mask, background)


def contrasting_color(pixels: UInt8) -> UInt8:
    """The one of COLORS, [3], that is farthest from pixels [n, 3], all but the nearest twentieth."""
    if not len(pixels):
        return np.array(COLORS[0], np.uint8)
    few = pixels[:: max(1, len(pixels) // 4096)].astype(np.float32)
    gaps = [np.percentile(np.linalg.norm(few - np.array(c, np.float32), axis=1), 5) for c in COLORS]
    return np.array(COLORS[int(np.argmax(gaps))], np.uint8)
