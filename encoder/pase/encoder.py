"""PASE as a speech encoder: a waveform to phoneme-aware features, 50 vectors per second."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from talkhead.encoder.pase.losses import Contrast
from talkhead.encoder.pase.model import HOP_LENGTH, RATE, STRIDE, AudioModel, Pase
from talkhead.encoder.pase.trunk import TrunkBranch
from talkhead.encoder.pase.weights import read_encoder
from talkhead.storage import sha256_of, translate_os_errors
from talkhead.types import SAMPLE_RATE, Float32, SpeechFeatures
from talkhead.weights import resolve

WEIGHTS = "pase.safetensors"
GRU_WEIGHTS = "pase_gru.safetensors"
LIVE_WEIGHTS = "pase_live.safetensors"
VERSION_DIGITS = 16
NOT_AUDIOVISUAL = "{} has no visual branch. Use pase or pase-gru"
BLOCK_S = 20
"""Seconds of audio that are encoded at a time, which bounds the memory."""


@dataclass(frozen=True)
class PaseEncoder:
    """Features in which a phone and its mouth shape are close to each other (arXiv 2504.05803).

    Attributes:
        pase: The model.
        contrast: The layers that map audio and lips to one space; None for the small model, which has
            no visual branch.
        version: First digits of the SHA-256 of the weights.
        imitates: For the small model, version of the encoder whose features it reproduces, so that a
            predictor that was fitted with that encoder works with this one.
        name: The name under which it is registered.
        sample_rate: Samples per second of its waveforms.
        rate: Vectors per second.
    """

    pase: AudioModel
    contrast: Contrast | None
    version: str
    imitates: str = ""
    name: str = "pase"
    sample_rate: int = SAMPLE_RATE
    rate: float = RATE

    @classmethod
    def shipped(cls) -> PaseEncoder:
        """Load the encoder that comes with talkhead.

        Returns:
            The encoder.

        Raises:
            PackageError: If its weights are missing or damaged.
        """
        return cls.from_file(resolve(WEIGHTS))

    @classmethod
    def gru(cls) -> PaseEncoder:
        """Load the smaller encoder that comes with talkhead, a GRU trained from scratch.

        Returns:
            The encoder.

        Raises:
            PackageError: If its weights are missing or damaged.
        """
        return replace(cls.from_file(resolve(GRU_WEIGHTS)), name="pase-gru")

    @classmethod
    def live(cls) -> PaseEncoder:
        """Load the small encoder with a short look-ahead that comes with talkhead.

        Returns:
            The encoder.

        Raises:
            PackageError: If its weights are missing or damaged.
        """
        return replace(cls.from_file(resolve(LIVE_WEIGHTS)), name="pase-live")

    @classmethod
    def from_file(cls, path: Path) -> PaseEncoder:
        """Load an encoder with other weights.

        Args:
            path: A .safetensors file that `talkhead.encoder.pase.train` wrote.

        Returns:
            The encoder. A file that was loaded before is only read again if it has changed.

        Raises:
            TalkheadError: If the file cannot be read.
            PackageError: If it does not have weights of PASE.
        """
        with translate_os_errors(path):
            stamp = path.stat()
        pase, contrast, imitates, version = _nets(path, stamp.st_mtime_ns, stamp.st_size)
        return cls(pase, contrast, version, imitates)

    @property
    def lookahead_s(self) -> float:
        """Seconds after its moment that a vector depends on."""
        return self.pase.ear.lookahead_s

    @property
    def dim(self) -> int:
        """Values in a vector."""
        return self.pase.n_features

    def encode(self, waveform: Float32) -> SpeechFeatures:
        """Encode a waveform.

        Args:
            waveform: [n_samples] in [-1, 1] at 16 kHz.

        Returns:
            Features whose values are [ceil(n_samples / 320), dim].
        """
        stream, size = self.stream(), BLOCK_S * SAMPLE_RATE
        parts = [stream.push(waveform[at : at + size]) for at in range(0, len(waveform), size)]
        return SpeechFeatures(
            np.concatenate([*parts, stream.finish()]), self.rate, self.lookahead_s
        )

    def stream(self) -> PaseStream:
        """Start encoding a new waveform in chunks."""
        return PaseStream(self.pase)

    def phone_stream(self) -> PaseStream:
        """Start computing phone posteriors, [n, P] in the order of PHONES, of a waveform in chunks."""
        return PaseStream(self.pase, gives_phones=True)

    def phone_posteriors(self, waveform: Float32) -> Float32:
        """Compute the probability of each phone.

        Args:
            waveform: [n_samples] in [-1, 1] at 16 kHz.

        Returns:
            [ceil(n_samples / 320), P] in the order of PHONES, of the moments i / 50 s.
        """
        stream, size = self.phone_stream(), BLOCK_S * SAMPLE_RATE
        parts = [stream.push(waveform[at : at + size]) for at in range(0, len(waveform), size)]
        return np.concatenate([*parts, stream.finish()])

    def audio_embedding(self, waveform: Float32) -> Float32:
        """Embed audio in the space that it shares with lips.

        Args:
            waveform: [n_samples] in [-1, 1] at 16 kHz.

        Returns:
            Unit vectors [ceil(n_samples / 640), E], one per video frame.

        Raises:
            ValueError: For the small model.
        """
        features = self.encode(waveform).values[:, : self.pase.config.dim]
        padded = np.concatenate([features, features[-1:]])[: 2 * (-(-len(features) // 2))]
        frames = torch.from_numpy(padded).unflatten(0, (-1, 2)).mean(1)  # [F, config.dim]
        if self.contrast is None:
            raise ValueError(NOT_AUDIOVISUAL.format(self.name))
        with torch.no_grad():
            # The aligned features were divided by their spread: undo that.
            return _unit(self.contrast.heard(frames * self.pase.detail.spread[0]))

    def lip_embedding(self, lips: Float32) -> Float32:
        """Embed lips in the space that they share with audio.

        Args:
            lips: Lip crops [F, LIPS_HEIGHT, LIPS_WIDTH] in [0, 1].

        Returns:
            Unit vectors, [F, E].

        Raises:
            ValueError: For the small model.
        """
        if self.contrast is None or not isinstance(self.pase, Pase):
            raise ValueError(NOT_AUDIOVISUAL.format(self.name))
        with torch.no_grad():
            crops = torch.from_numpy(np.asarray(lips, np.float32))[None]
            return _unit(self.contrast.seen(self.pase.encode_lips(crops).features[0]))


def _unit(vectors: Tensor) -> Float32:
    """Scale vectors [..., E] to length 1."""
    return np.asarray(torch.nn.functional.normalize(vectors, dim=-1).numpy())


@lru_cache(maxsize=4)
def _nets(
    path: Path, _modified_ns: int, _n_bytes: int
) -> tuple[AudioModel, Contrast | None, str, str]:
    """Return `read_encoder` of a file and its version; the file is read again only if it has changed."""
    return *read_encoder(path), sha256_of(path)[:VERSION_DIGITS]


class PaseStream:
    """Stream of PaseEncoder: keeps the samples, spectra and state that later vectors need."""

    def __init__(self, pase: AudioModel, gives_phones: bool = False) -> None:
        """Create a stream without samples.

        Args:
            pase: The model.
            gives_phones: True for phone posteriors, False for features.
        """
        self._pase, self._gives_phones = pase, gives_phones
        branch = pase.ear
        # Silence, as before every stretch in training.
        self._samples = np.zeros(branch.margin * HOP_LENGTH + branch.n_fft // 2, np.float32)
        self._spectra: Tensor | None = None
        self._state: Any = None
        self._n_samples = self._n_returned = 0

    def push(self, waveform: Float32) -> Float32:
        """Encode the next samples.

        Args:
            waveform: [n_samples] in [-1, 1] at 16 kHz.

        Returns:
            The vectors that no later sample can change, [n, dim] or [n, P].
        """
        self._n_samples += len(waveform)
        return self._encode(np.asarray(waveform, np.float32))

    def finish(self) -> Float32:
        """End the waveform.

        Returns:
            The last vectors, [n, dim] or [n, P], with silence beyond the waveform's end.
        """
        branch = self._pase.ear
        n_vectors = -(-self._n_samples // (HOP_LENGTH * STRIDE))
        n_silent = HOP_LENGTH * STRIDE * (branch.n_late + branch.margin)
        silence = np.zeros(branch.n_fft + n_silent, np.float32)
        n_left = n_vectors - self._n_returned
        return self._encode(silence)[: max(0, n_left)]

    def pending(self) -> Float32:
        """Encode what has arrived beyond the complete vectors, as if nothing followed.

        Returns:
            Approximations of the next vectors, [n, dim] or [n, P]; n is 0 for a model that cannot
            approximate them.
        """
        branch = self._pase.ear
        if self._state is None or not isinstance(branch, TrunkBranch):
            return self._no_vectors()
        with torch.no_grad():
            return self._results(*branch.pending(self._state))

    def _encode(self, waveform: Float32) -> Float32:
        """Return the vectors [n, dim] or [n, P] that are completed by further samples [n_samples]."""
        branch = self._pase.ear
        self._samples = np.concatenate([self._samples, waveform])
        n_spectra = max(0, (len(self._samples) - branch.n_fft) // HOP_LENGTH + 1)
        with torch.no_grad():
            if n_spectra:
                fresh = branch.spectrum(torch.from_numpy(self._samples)[None])
                past = [] if self._spectra is None else [self._spectra]
                self._spectra = torch.cat([*past, fresh], 1)
                self._samples = self._samples[n_spectra * HOP_LENGTH :]
            vectors = self._vectors()
        self._n_returned += len(vectors)
        return vectors

    def _vectors(self) -> Float32:
        """Return vectors [n, dim] or [n, P] of the spectra so far; keep spectra that later ones need."""
        n_wide = 2 * self._pase.ear.margin + 1
        n_spectra = 0 if self._spectra is None else self._spectra.shape[1]
        n_inputs = max(0, (n_spectra - n_wide) // STRIDE + 1)
        if self._spectra is None or n_inputs == 0:
            return self._no_vectors()
        used = self._spectra[:, : STRIDE * (n_inputs - 1) + n_wide]
        inputs, hidden, self._state = self._pase.ear.step(used, self._state)
        self._spectra = self._spectra[:, STRIDE * n_inputs :]
        return self._results(inputs, hidden)

    def _results(self, inputs: Tensor, hidden: Tensor) -> Float32:
        """Return the vectors [n, dim] or [n, P] of energies and hidden vectors, both [1, n, ...]."""
        aligned = self._pase.vectors(inputs, hidden)
        result = aligned.logits.softmax(-1) if self._gives_phones else aligned.features
        return np.asarray(result[0].numpy())

    def _no_vectors(self) -> Float32:
        n_out = len(self._pase.anchors) if self._gives_phones else self._pase.n_features
        return np.zeros((0, n_out), np.float32)
