"""Smooth limits."""

from __future__ import annotations

import numpy as np

from talkhead.types import Float64


def limit_smoothly(
    values: Float64, low: Float64 | float, high: Float64 | float, tolerance: float
) -> Float64:
    """Limit values smoothly to a range and a tolerance.

    Args:
        values: Values [F, n].
        low: Lower ends, a scalar or [n].
        high: Upper ends, a scalar or [n].
        tolerance: How far values go beyond them, above 0.

    Returns:
        Values [F, n]. Those inside the range are unchanged, and their order is kept.
    """
    above = np.tanh(np.maximum(values - high, 0.0) / tolerance)
    below = np.tanh(np.maximum(low - values, 0.0) / tolerance)
    return np.asarray(np.clip(values, low, high) + tolerance * (above - below))
