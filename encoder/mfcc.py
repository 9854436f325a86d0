"""Classical baseline: mel-frequency cepstral coefficients and their differences.

The coefficients (Davis and Mermelstein, 1980, IEEE TASSP 28(4)) are the cosine transform of log-mel
energies. The first ones describe the shape of the vocal tract, the later ones the pitch. The first
and second differences are computed by linear regression over two vectors on either side (Furui,
1986, IEEE TASSP 34(1)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from talkhead.encoder.mel import HOP_LENGTH, N_FFT, MelEncoder, MelStream
from talkhead.types import SAMPLE_RATE, Float32, SpeechFeatures

N_COEFFICIENTS = 13
REACH = 2
"""Vectors on either side over which a difference is taken."""
SCALES = (1.0, 2.5, 6.0)
"""Factors by which coefficients and first and second differences are multiplied, so that their
values in speech have a similar spread.
"""
_CONTEXT = 2 * REACH
_SLOPE = np.arange(-REACH, REACH + 1) / np.sum(np.arange(-REACH, REACH + 1) ** 2)


@dataclass(frozen=True)
class MfccEncoder:
    """Cepstral coefficients of `MelEncoder`'s energies, with first and second differences.

    Attributes:
        name: The name under which it is registered.
        version: Version of the features.
        sample_rate: Samples per second of its waveforms.
        rate: Vectors per second.
        dim: Values in a vector: 3 * 13.
        lookahead_s: How far past its own moment a vector depends on the waveform, in seconds: half
            a window, and the vectors needed for both differences.
    """

    name: str = "mfcc"
    version: str = "1"
    sample_rate: int = SAMPLE_RATE
    rate: float = SAMPLE_RATE / HOP_LENGTH
    dim: int = N_COEFFICIENTS * len(SCALES)
    lookahead_s: float = (N_FFT / 2 + _CONTEXT * HOP_LENGTH) / SAMPLE_RATE

    def encode(self, waveform: Float32) -> SpeechFeatures:
        """Encode a waveform.

        Args:
            waveform: [n_samples] in [-1, 1] at 16 kHz.

        Returns:
            Features whose values are [ceil(n_samples / HOP_LENGTH), 39].
        """
        cepstra = _cepstra(MelEncoder().encode(waveform).values)
        vectors = _with_differences(_extended(cepstra, before=True, after=True))
        return SpeechFeatures(vectors, self.rate, self.lookahead_s)

    def stream(self) -> MfccStream:
        """Start encoding a new waveform in chunks."""
        return MfccStream()


def _cepstra(energies: Float32) -> Float32:
    """Return cepstral coefficients [F, N_COEFFICIENTS] of log-mel energies [F, M]: orthonormal DCT-II."""
    if len(energies) == 0:
        return np.zeros((0, N_COEFFICIENTS), np.float32)
    coefficients = scipy.fft.dct(energies, type=2, norm="ortho", axis=1)[:, :N_COEFFICIENTS]
    return np.asarray(coefficients, np.float32)


def _extended(cepstra: Float32, *, before: bool, after: bool) -> Float32:
    """Pad vectors [F, D] with _CONTEXT copies of the first one in front, and of the last one behind."""
    margins = (before * _CONTEXT, after * _CONTEXT)
    return np.pad(cepstra, (margins, (0, 0)), mode="edge") if len(cepstra) else cepstra


def _with_differences(cepstra: Float32) -> Float32:
    """Append first and second differences to coefficients [n + 2 * _CONTEXT, 13].

    The outer _CONTEXT vectors on each side are used only for the differences. Returns [n, 39].
    """
    if len(cepstra) <= 2 * _CONTEXT:
        return np.zeros((0, N_COEFFICIENTS * len(SCALES)), np.float32)
    first = _slopes(cepstra)
    parts = (cepstra[_CONTEXT:-_CONTEXT], first[REACH:-REACH], _slopes(first))
    scaled = [np.float32(scale) * part for scale, part in zip(SCALES, parts, strict=True)]
    return np.asarray(np.concatenate(scaled, axis=1), np.float32)


def _slopes(values: Float32) -> Float32:
    """Return the change per step, [n, D], of values [n + 2 * REACH, D]."""
    n = len(values) - 2 * REACH
    return np.asarray(sum(w * values[i : i + n] for i, w in enumerate(_SLOPE)), np.float32)


class MfccStream:
    """Stream of MfccEncoder: keeps the coefficients that later vectors still need."""

    def __init__(self) -> None:
        self._mel = MelStream()
        self._cepstra = np.zeros((0, N_COEFFICIENTS), np.float32)
        self._has_begun = False

    def push(self, waveform: Float32) -> Float32:
        """Encode the next samples.

        Args:
            waveform: [n_samples] in [-1, 1] at 16 kHz.

        Returns:
            The vectors whose context is complete now, [n, 39].
        """
        return self._more(_cepstra(self._mel.push(waveform)), last=False)

    def finish(self) -> Float32:
        """End the waveform.

        Returns:
            The last vectors, [n, 39], as if the last coefficients continued forever.
        """
        return self._more(_cepstra(self._mel.finish()), last=True)

    def _more(self, cepstra: Float32, *, last: bool) -> Float32:
        """Return the vectors [n, 39] that are completed by further coefficients [m, 13]."""
        if not self._has_begun:
            cepstra = _extended(cepstra, before=True, after=False)
            self._has_begun = len(cepstra) > 0
        held = np.concatenate([self._cepstra, cepstra])
        vectors = _with_differences(_extended(held, before=False, after=last))
        self._cepstra = held[len(vectors) :]
        return vectors
