"""The trunk without PASE, as a baseline: Whisper's block 2 and log-mel, for the other benchmarks.

    python -m benchmarks.trunk prior SHARD... --encoder trunk --output trunk.prior.safetensors
    python -m benchmarks.trunk lips CLIPS.json --encoder pase,weights/prior.safetensors \
        --against trunk,trunk.prior.safetensors ...

Runs `talkhead.encoder.predictor.prior` or `benchmarks.lips` with two more encoders:

* trunk: The attention of PASE (4 s before a vector, 60 ms after it), so the same look-ahead.
* trunk-whole: Whisper's own attention, to all of a window of 28 s. It needs the whole waveform.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks import lips
from talkhead.encoder.pase.model import TRUNK
from talkhead.encoder.pase.trunk import LOOKAHEAD_S, N_MELS, STRIDE, WIDTH, TrunkBranch
from talkhead.encoder.pase.weights import make_pase
from talkhead.encoder.predictor import prior
from talkhead.encoder.registry import ENCODERS
from talkhead.types import SAMPLE_RATE, Float32, SpeechFeatures

HOP = 320
RATE = SAMPLE_RATE / HOP
WINDOW, MARGIN = 1400, 150
"""Vectors of a window of trunk-whole, and those at its ends that only give context."""


@dataclass(frozen=True)
class TrunkEncoder:
    """Hidden vectors of Whisper's second block, without adapters, together with log-mel energies.

    Attributes:
        branch: The blocks.
        name: trunk or trunk-whole.
        version: Version of the features.
        sample_rate: Samples per second of its waveforms.
        rate: Vectors per second.
        dim: Values in a vector.
        lookahead_s: Seconds after its moment on which a vector depends; for trunk-whole, the value
        of trunk.
    """

    branch: TrunkBranch
    name: str = "trunk"
    version: str = "1"
    sample_rate: int = SAMPLE_RATE
    rate: float = RATE
    dim: int = WIDTH + N_MELS
    lookahead_s: float = LOOKAHEAD_S

    @classmethod
    def short(cls) -> TrunkEncoder:
        """Make the encoder with short attention."""
        return cls(_branch())

    @classmethod
    def whole(cls) -> TrunkEncoder:
        """Make the encoder with Whisper's attention."""
        return cls(_branch(), "trunk-whole")

    def encode(self, waveform: Float32) -> SpeechFeatures:
        """Encode a waveform [n_samples] into features whose values are [ceil(n_samples / 320), dim]."""
        n = -(-len(waveform) // HOP)
        padded = np.pad(np.asarray(waveform, np.float32), (0, n * HOP - len(waveform)))
        spectra = self.branch.spectra(torch.from_numpy(padded)[None])
        with torch.no_grad():
            if self.name == "trunk":
                energies, hidden, _ = self.branch.step(spectra, None)
            else:
                energies, hidden = self.branch.acoustic(spectra), self._whole(spectra)
        values = torch.cat([hidden[0, :n], energies[0, :n]], -1)
        return SpeechFeatures(values.numpy(), self.rate, self.lookahead_s)

    def _whole(self, spectra: torch.Tensor) -> torch.Tensor:
        """Hidden vectors [1, n, WIDTH] of spectra [1, S, N_MELS], window by window."""
        n = (spectra.shape[1] - 1) // STRIDE
        parts = []
        for first in range(0, n, WINDOW - 2 * MARGIN):
            begin = max(0, first - MARGIN)
            window = spectra[:, STRIDE * begin : STRIDE * (begin + WINDOW)]
            if window.shape[1] > 2 * STRIDE:
                found = self.branch.whole(window)[:, first - begin :]
                parts.append(found[:, : WINDOW - 2 * MARGIN])
        return torch.cat(parts, 1)


def _branch() -> TrunkBranch:
    branch = make_pase(TRUNK).ear
    assert isinstance(branch, TrunkBranch)
    return branch.eval()


def main(arguments: Sequence[str]) -> None:
    """Run a benchmark or the training of a prior with the encoders of this module."""
    ENCODERS["trunk"] = "benchmarks.trunk:TrunkEncoder.short"
    ENCODERS["trunk-whole"] = "benchmarks.trunk:TrunkEncoder.whole"
    programs = {"prior": prior.main, "lips": lips.main}
    if not arguments or arguments[0] not in programs:
        raise SystemExit(f"usage: python -m benchmarks.trunk {{{','.join(programs)}}} ...")
    sys.argv = [f"benchmarks.trunk {arguments[0]}", *arguments[1:]]
    programs[arguments[0]]()


if __name__ == "__main__":
    main(sys.argv[1:])
