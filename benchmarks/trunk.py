"""The trunk without PASE, as a baseline: Whisper's block 2 and log-mel, for the other benchmarks.

    python -m benchmarks.trunk prior SHARD... --encoder trunk --output trunk.prior.safetensors
    python -m benchmarks.trunk lips CLIPS.json --encoder pase,weights/prior.safetensors \
        --against trunk,trunk.prior.safetensors ...

Runs `talkhead.encoder.predictor.prior` or `benchmarks.lips` with one more encoder, `trunk`. It has the
attention of PASE (4 s before a vector, 60 ms after it), so the same look-ahead.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks import lips
from talkhead.encoder.pase.model import HOP_LENGTH, RATE, STRIDE, TRUNK
from talkhead.encoder.pase.trunk import LOOKAHEAD_S, N_MELS, WIDTH, TrunkBranch
from talkhead.encoder.pase.weights import make_pase
from talkhead.encoder.predictor import prior
from talkhead.encoder.registry import ENCODERS
from talkhead.types import SAMPLE_RATE, Float32, SpeechFeatures

HOP = HOP_LENGTH * STRIDE


@dataclass(frozen=True)
class TrunkEncoder:
    """Hidden vectors of Whisper's second block, without adapters, together with log-mel energies.

    Attributes:
        branch: The blocks.
        name: The name it is registered by.
        version: Version of the features.
        sample_rate: Samples per second of its waveforms.
        rate: Vectors per second.
        dim: Values in a vector.
        lookahead_s: Seconds after its moment on which a vector depends.
    """

    branch: TrunkBranch
    name: str = "trunk"
    version: str = "1"
    sample_rate: int = SAMPLE_RATE
    rate: float = RATE
    dim: int = WIDTH + N_MELS
    lookahead_s: float = LOOKAHEAD_S

    @classmethod
    def shipped(cls) -> TrunkEncoder:
        """Make the encoder, with the weights that come with talkhead."""
        branch = make_pase(TRUNK).ear
        assert isinstance(branch, TrunkBranch)
        return cls(branch.eval())

    def encode(self, waveform: Float32) -> SpeechFeatures:
        """Encode a waveform [n_samples] into features whose values are [ceil(n_samples / 320), dim]."""
        n = -(-len(waveform) // HOP)
        padded = np.pad(np.asarray(waveform, np.float32), (0, n * HOP - len(waveform)))
        spectra = self.branch.spectra(torch.from_numpy(padded)[None])
        with torch.no_grad():
            energies, hidden, _ = self.branch.step(spectra, None)
        values = torch.cat([hidden[0, :n], energies[0, :n]], -1)
        return SpeechFeatures(values.numpy(), self.rate, self.lookahead_s)


def main(arguments: Sequence[str]) -> None:
    """Run a benchmark or the training of a prior with the encoder of this module."""
    ENCODERS["trunk"] = "benchmarks.trunk:TrunkEncoder.shipped"
    programs = {"prior": prior.main, "lips": lips.main}
    if not arguments or arguments[0] not in programs:
        raise SystemExit(f"usage: python -m benchmarks.trunk {{{','.join(programs)}}} ...")
    programs[arguments[0]](arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
