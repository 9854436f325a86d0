"""Measures of the outline of a rendered head: holes in it, and background around it.

Over its original background, a head with holes and with scraps of that background can look
perfect. Therefore its opacity is compared with the person mask of the real frame, in a strip on
each side of the mask's outline.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from talkhead.app.evaluation.measures.registry import FrameMeasures
from talkhead.types import Bool, Float32

MARGIN, REACH = 0.015, 0.05
"""Shares of the image's height: pixels nearer to the outline are ignored, because masks and soft hair
are not that exact, and so are those farther away, or a torso would outweigh all hair."""
PERSON_FROM = 0.5
"""A pixel belongs to the person if the mask is above this."""

CUTOUT_MEASURES: FrameMeasures[HeadOpacity] = FrameMeasures(
    "cutout", "Outline of the head alone", "Number of frames whose outline was measured"
)
"""Measures of the opacity of a rendered head along the person's outline."""


@dataclass(frozen=True)
class HeadOpacity:
    """Opacity of a rendered head and the real frame's person mask: the input of cut-out measures.

    Attributes:
        alpha: Opacity [H, W] in [0, 1] of the rendered head.
        person: Person mask [H, W] in [0, 1] of the real frame.
    """

    alpha: Float32
    person: Float32

    @cached_property
    def inside(self) -> Bool:
        """Mask [H, W] of the strip inside the outline."""
        return _strip(self.person > PERSON_FROM)

    @cached_property
    def outside(self) -> Bool:
        """Mask [H, W] of the strip outside the outline."""
        return _strip(self.person <= PERSON_FROM)


@CUTOUT_MEASURES.measure("see_through", label="see-through", better="less", digits=3)
def _see_through(head: HeadOpacity) -> float:
    """Share of the person just inside the outline that a new background shows through."""
    return float((1.0 - head.alpha[head.inside]).mean()) if head.inside.any() else float("nan")


@CUTOUT_MEASURES.measure("scraps", label="scraps", better="less", digits=3)
def _scraps(head: HeadOpacity) -> float:
    """Share of the surroundings just outside the outline that remain."""
    return float(head.alpha[head.outside].mean()) if head.outside.any() else float("nan")


def strip_shares(alpha: Float32, person: Float32) -> tuple[float, float]:
    """Compute the measures of one frame.

    Args:
        alpha: Opacity [H, W] in [0, 1] of the rendered head.
        person: Person mask [H, W] in [0, 1] of the real frame.

    Returns:
        Means of 1 - alpha over the strip inside the outline and of alpha over the strip outside; NaN
        without such a strip.
    """
    head = HeadOpacity(alpha, person)
    return _see_through(head), _scraps(head)


def _strip(area: Bool) -> Bool:
    """Find the pixels of an area [H, W] that are MARGIN to REACH away from its outside."""
    if area.all():
        return np.zeros_like(area)
    depth = cv2.distanceTransform(area.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    share = depth / np.float32(len(area))
    return np.asarray((share > MARGIN) & (share <= REACH))
