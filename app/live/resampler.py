"""Resampling of audio that arrives in pieces."""

from __future__ import annotations

from math import ceil, gcd

import numpy as np

from talkhead.audio import resample
from talkhead.types import Float32

TAPS = 12
"""Samples of the lower rate that a resampled one depends on, to either side; more than the filter's."""


class Resampler:
    """Changes the sample rate of a waveform that arrives in pieces, as if it were whole.

    Its output is late by TAPS samples of the lower rate.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        """Begin a waveform.

        Args:
            from_rate: Its samples per second.
            to_rate: Samples per second of the result.
        """
        common = gcd(from_rate, to_rate)
        self._up, self._down = to_rate // common, from_rate // common
        self._rates = (from_rate, to_rate)
        # A whole number of periods, after which input and output samples coincide.
        self._margin = ceil(TAPS * max(self._up, self._down) / self._up / self._down) * self._down
        self._held = np.zeros(0, np.float32)
        self._n_skipped = 0  # samples at the start of `held` that are only context

    def push(self, samples: Float32) -> Float32:
        """Resample the next piece.

        Args:
            samples: [n].

        Returns:
            The samples [m] that no later one can change.
        """
        if self._up == self._down:
            return samples
        self._held = np.concatenate([self._held, samples])
        n_ready = (len(self._held) - self._n_skipped - self._margin) // self._down * self._down
        return self._resampled(n_ready) if n_ready > 0 else np.zeros(0, np.float32)

    def finish(self) -> Float32:
        """End the waveform.

        Returns:
            The samples [m] that were still waiting.
        """
        n_left = len(self._held) - self._n_skipped
        return self._resampled(n_left) if n_left > 0 else np.zeros(0, np.float32)

    def _resampled(self, n: int) -> Float32:
        """Resample the next n samples, keeping what is context for those after them; returns [m]."""
        whole = resample(self._held, *self._rates)
        first = self._n_skipped * self._up // self._down
        result = whole[first : first + ceil(n * self._up / self._down)]
        used = self._n_skipped + n
        dropped = max(0, (used - self._margin) // self._down * self._down)
        self._held, self._n_skipped = self._held[dropped:], used - dropped
        return result
