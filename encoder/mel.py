"""Acoustic baseline: log-mel energies, 50 vectors per second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from talkhead.audio import log_mel, mel_context
from talkhead.types import SAMPLE_RATE, Float32, SpeechFeatures

N_FFT = 512
HOP_LENGTH = 320
N_MELS = 80
MIN_LOG_ENERGY = -16.0
"""Smallest log energy, about -75 dB of full scale, so that digital silence and a quiet room give the
same features.
"""


@dataclass(frozen=True)
class MelEncoder:
    """Natural logarithms of mel band powers, at least MIN_LOG_ENERGY.

    Attributes:
        name: The name under which it is registered.
        version: Version of the features.
        sample_rate: Samples per second of its waveforms.
        rate: Vectors per second.
        dim: Values in a vector, one per mel band.
        lookahead_s: Half a window.
    """

    name: str = "mel"
    version: str = "1"
    sample_rate: int = SAMPLE_RATE
    rate: float = SAMPLE_RATE / HOP_LENGTH
    dim: int = N_MELS
    lookahead_s: float = N_FFT / 2 / SAMPLE_RATE

    def encode(self, waveform: Float32) -> SpeechFeatures:
        """Encode a waveform.

        Args:
            waveform: [n_samples] in [-1, 1] at 16 kHz.

        Returns:
            Features whose values are [ceil(n_samples / HOP_LENGTH), N_MELS].
        """
        return SpeechFeatures(_features(waveform), self.rate, self.lookahead_s)

    def stream(self) -> MelStream:
        """Start encoding a new waveform in chunks."""
        return MelStream()


def _features(waveform: Float32) -> Float32:
    """Floored log-mel energies [F, N_MELS] of a waveform [n_samples]."""
    energies = log_mel(waveform, SAMPLE_RATE, n_fft=N_FFT, hop_length=HOP_LENGTH, n_mels=N_MELS)
    return np.maximum(energies, np.float32(MIN_LOG_ENERGY))


class MelStream:
    """Stream of MelEncoder: keeps the samples that later vectors still need."""

    def __init__(self) -> None:
        self._samples = np.zeros(0, np.float32)
        self._behind = 0  # vectors at the start of _samples that were returned already

    def push(self, waveform: Float32) -> Float32:
        """Encode the next samples.

        Args:
            waveform: [n_samples] in [-1, 1] at 16 kHz.

        Returns:
            The vectors whose windows are complete now, [n, N_MELS].
        """
        self._samples = np.concatenate([self._samples, np.asarray(waveform, np.float32)])
        n_ready = (len(self._samples) - N_FFT // 2) // HOP_LENGTH + 1
        if n_ready <= self._behind:
            return np.zeros((0, N_MELS), np.float32)
        vectors = _features(self._samples)[self._behind : n_ready]
        spare = max(0, n_ready - mel_context(N_FFT, HOP_LENGTH) // HOP_LENGTH)
        self._samples = self._samples[spare * HOP_LENGTH :]
        self._behind = n_ready - spare
        return vectors

    def finish(self) -> Float32:
        """End the waveform.

        Returns:
            The last vectors, [n, N_MELS], with zeros beyond the waveform's end.
        """
        vectors = _features(self._samples)[self._behind :]
        self._samples, self._behind = self._samples[:0], 0
        return vectors
