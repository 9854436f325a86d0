"""Smooth transitions."""

from __future__ import annotations

import numpy as np

from talkhead.types import Float64


def smooth_step(share: Float64) -> Float64:
    """Compute a step with round corners, 3 x^2 - 2 x^3.

    Args:
        share: Positions in the step, of any shape; it begins at 0 and ends at 1.

    Returns:
        0 to 1, of that shape.
    """
    share = np.clip(share, 0.0, 1.0)
    return np.asarray(share * share * (3.0 - 2.0 * share))
