"""A speech encoder in a separate package: the energy of eight frequency bands, 50 times per second.

talkhead finds it through the entry point in pyproject.toml. docs/extending/encoder.md lists the rules.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from talkhead.types import SAMPLE_RATE, Float32, SpeechFeatures

BLOCK = SAMPLE_RATE // 50
"""Samples per vector: 20 ms."""
EDGES_HZ = (0, 200, 400, 700, 1100, 1700, 2700, 4200, 8000)


@dataclass(frozen=True)
class BandEncoder:
    """Natural logarithm of the energy in eight bands.

    Attributes:
        name: Name of the entry point.
        version: Raised whenever the features change.
        sample_rate: Sample rate of the waveform, Hz.
        rate: Vectors per second, a multiple of 25.
        dim: Components of a vector.
        lookahead_s: How much audio after a moment contributes to its vector.
    """

    name: str = "bands"
    version: str = "1"
    sample_rate: int = SAMPLE_RATE
    rate: float = SAMPLE_RATE / BLOCK
    dim: int = len(EDGES_HZ) - 1
    lookahead_s: float = BLOCK / SAMPLE_RATE

    def encode(self, waveform: Float32) -> SpeechFeatures:
        """Encode a waveform.

        Args:
            waveform: Samples [n_samples] at a normalized level.

        Returns:
            Features [ceil(n_samples / BLOCK), 8].
        """
        n_missing = -len(waveform) % BLOCK
        blocks = np.pad(waveform, (0, n_missing)).reshape(-1, BLOCK)
        power = np.abs(np.fft.rfft(blocks * np.hanning(BLOCK), axis=1)) ** 2
        frequencies = np.fft.rfftfreq(BLOCK, 1 / SAMPLE_RATE)
        bands = np.digitize(frequencies, EDGES_HZ[1:-1])
        energy = np.stack([power[:, bands == band].sum(1) for band in range(self.dim)], axis=1)
        return SpeechFeatures(np.log(energy + 1e-6).astype(np.float32), self.rate, self.lookahead_s)

    def stream(self) -> BandStream:
        """Start to encode a waveform that arrives in pieces."""
        return BandStream(self)


class BandStream:
    """Keeps samples until a block is complete."""

    def __init__(self, encoder: BandEncoder) -> None:
        self._encoder = encoder
        self._samples = np.zeros(0, np.float32)

    def push(self, waveform: Float32) -> Float32:
        """Add samples.

        Args:
            waveform: The next samples [n].

        Returns:
            Vectors [m, 8] of the blocks that they complete.
        """
        samples = np.concatenate([self._samples, waveform])
        n = len(samples) // BLOCK * BLOCK
        self._samples = samples[n:]
        return self._encoder.encode(samples[:n]).values

    def finish(self) -> Float32:
        """Encode the samples that are left.

        Returns:
            Vectors [0 or 1, 8].
        """
        samples, self._samples = self._samples, self._samples[:0]
        return self._encoder.encode(samples).values
