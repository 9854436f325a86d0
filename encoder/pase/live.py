"""Small audio branch of PASE with a short look-ahead, for microphones: a GRU on log mel energies.

It is trained to give the features of the larger model (`talkhead.encoder.pase.distill`), so that a
predictor fitted with one works with the other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkhead.encoder.pase.trunk import (
    HOP_LENGTH,
    N_FFT,
    N_MELS,
    REACH,
    STRIDE,
    log_mels,
    moments,
    padded_mels,
)
from talkhead.types import SAMPLE_RATE

DELAY = 1
"""Delay of the GRU's output, in vectors."""
LOOKAHEAD_S = (N_FFT / 2 + HOP_LENGTH * (REACH + STRIDE * DELAY)) / SAMPLE_RATE
"""Seconds after its moment that a vector depends on: half a window, the convolution and the delay;
52.5 ms.
"""
CHANNELS = 192
"""Channels of the convolution."""


class LiveBranch(nn.Module):
    """Causal encoder of log mel energies [B, S, N_MELS] into hidden vectors [B, T, hidden].

    Attributes:
        n_fft: Samples of a spectrum.
        margin: Spectra before and after its moment that an input depends on.
        n_late: Delay of the output, in vectors.
        lookahead_s: Seconds after its moment that a vector depends on.
        spectrum: Computes spectra without padding.
    """

    n_fft, margin, n_late, lookahead_s = N_FFT, REACH, DELAY, LOOKAHEAD_S
    spectrum = staticmethod(log_mels)

    def __init__(self, hidden: int, layers: int) -> None:
        """Build the layers, with random weights.

        Args:
            hidden: Size of the GRU's state.
            layers: Layers of the GRU.
        """
        super().__init__()
        self.first = nn.Conv1d(N_MELS, CHANNELS, 2 * REACH + 1, stride=STRIDE)
        self.gru = nn.GRU(CHANNELS, hidden, layers, batch_first=True)

    @staticmethod
    def spectra(waveform: Tensor) -> Tensor:
        """Compute the log mel energies that a waveform's vectors depend on (`padded_mels`).

        Args:
            waveform: [B, T * 320].

        Returns:
            [B, S, N_MELS], S = STRIDE * (T - 1 + DELAY) + 2 * REACH + 1.
        """
        return padded_mels(waveform, DELAY)

    def forward(
        self, spectra: Tensor, hidden_spans: Tensor | None = None, first: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Encode spectra.

        Args:
            spectra: [B, S, N_MELS] as returned by `spectra`.
            hidden_spans: Not supported: this branch is trained without masks.
            first: Position in a stream, which makes no difference here.

        Returns:
            The energies at each vector's moment [B, T, N_MELS] and hidden vectors [B, T, hidden].
        """
        assert hidden_spans is None
        own, hidden, _ = self.step(spectra, None)
        return own, hidden

    def step(
        self, spectra: Tensor, state: tuple[Tensor | None, int, Tensor] | None
    ) -> tuple[Tensor, Tensor, tuple[Tensor | None, int, Tensor]]:
        """Encode the next spectra of a stream.

        Args:
            spectra: [B, S, N_MELS], enough for at least one vector.
            state: State after the previous spectra; None at the beginning.

        Returns:
            Energies [B, n, N_MELS] and hidden vectors [B, n, hidden] that are complete now, and the
            state after them: that of the GRU, the vectors still to be dropped, and the energies
            whose vectors are not complete.
        """
        own = moments(spectra)
        gru, n_late, waiting = (None, DELAY, own[:, :0]) if state is None else state
        hidden, gru = self.gru(F.gelu(self.first(spectra.transpose(1, 2))).transpose(1, 2), gru)
        dropped = min(n_late, hidden.shape[1])
        hidden, energies = hidden[:, dropped:], torch.cat([waiting, own], 1)
        n = hidden.shape[1]
        return energies[:, :n], hidden, (gru, n_late - dropped, energies[:, n:])

    def acoustic(self, spectra: Tensor) -> Tensor:
        """Compute the first result of `forward` alone.

        Args:
            spectra: [B, S, N_MELS].

        Returns:
            [B, T, N_MELS].
        """
        return moments(spectra)[:, : -self.n_late]
