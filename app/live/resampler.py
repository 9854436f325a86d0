"""Resampling of audio that arrives in pieces."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, gcd

import numpy as np
import scipy.signal

from talkhead.types import Float32

HALF_TAPS = 10
"""Samples of the lower rate that a resampled one depends on, to either side."""
KAISER_BETA = 5.0
"""Shape of the filter's window; it is the filter of `talkhead.audio.resample`."""


class Resampler:
    """Changes the sample rate of a waveform that arrives in pieces, as if it were whole.

    Its output is late by HALF_TAPS samples of the lower rate.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        """Begin a waveform.

        Args:
            from_rate: Its samples per second.
            to_rate: Samples per second of the result.
        """
        common = gcd(from_rate, to_rate)
        self._up, self._down = to_rate // common, from_rate // common
        self._half = HALF_TAPS * max(self._up, self._down)
        self._n_taps = 2 * self._half // self._up + 1
        # Silence comes before the first sample; `_first` is the number of `_held`'s first sample.
        self._held = np.zeros(self._n_taps - 1, np.float32)
        self._first = 1 - self._n_taps
        self._n_pushed = self._n_given = 0

    def push(self, samples: Float32) -> Float32:
        """Resample the next piece.

        Args:
            samples: [n].

        Returns:
            The samples [m] that no later one can change.
        """
        if self._up == self._down:
            return samples
        self._n_pushed += len(samples)
        return self._extended(samples, (self._n_pushed * self._up - self._half - 1) // self._down)

    def finish(self) -> Float32:
        """End the waveform.

        Returns:
            The samples [m] that were still waiting.
        """
        if self._up == self._down:
            return np.zeros(0, np.float32)
        silence = np.zeros(self._n_taps, np.float32)
        return self._extended(silence, ceil(self._n_pushed * self._up / self._down) - 1)

    def _extended(self, samples: Float32, last: int) -> Float32:
        """Add samples [n], and return the next ones of the result [m], up to number `last`."""
        self._held = np.concatenate([self._held, samples])
        numbers = np.arange(self._n_given, last + 1)
        if len(numbers) == 0:
            return np.zeros(0, np.float32)
        newest, phases = np.divmod(numbers * self._down + self._half, self._up)
        oldest = newest - (self._n_taps - 1) - self._first
        windows = np.lib.stride_tricks.sliding_window_view(self._held, self._n_taps)[oldest]
        result = np.einsum("mt,mt->m", windows, _filters(self._up, self._down)[phases])
        self._n_given = last + 1
        following = (self._n_given * self._down + self._half) // self._up - (self._n_taps - 1)
        self._held = self._held[following - self._first :]
        self._first = following
        return result


@lru_cache(maxsize=8)
def _filters(up: int, down: int) -> Float32:
    """For each position between two samples, the weights of the samples around it, [up, n_taps]."""
    half = HALF_TAPS * max(up, down)
    window = ("kaiser", KAISER_BETA)
    weights = up * scipy.signal.firwin(2 * half + 1, 1.0 / max(up, down), window=window)
    n_taps = 2 * half // up + 1
    padded = np.concatenate([weights, np.zeros(n_taps * up - len(weights))])
    return np.ascontiguousarray(padded.reshape(n_taps, up).T[:, ::-1], np.float32)
