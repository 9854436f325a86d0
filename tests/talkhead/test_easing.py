"""Smooth transitions."""

from __future__ import annotations

import numpy as np

from talkhead.easing import smooth_step


def test_a_smooth_step() -> None:
    """0 before and 1 after it, symmetric, without corners, with the usual values in between."""
    x = np.linspace(-1.0, 2.0, 301)
    y = smooth_step(x)
    assert (y[x <= 0.0] == 0.0).all() and (y[x >= 1.0] == 1.0).all()
    np.testing.assert_allclose(y + y[::-1], 1.0, atol=1e-12)
    np.testing.assert_allclose(smooth_step(np.array([[0.25, 0.5]])), [[0.15625, 0.5]])
    assert np.abs(np.diff(y, 2)).max() < 1e-3 and (np.diff(y) >= 0.0).all()
