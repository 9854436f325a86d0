"""PASE as a speech encoder: waveform in, phoneme-aware features out, 50 vectors a second."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from talkhead.encoder.pase.losses import Contrast
from talkhead.encoder.pase.model import (
    DELAY,
    HOP_LENGTH,
    LOOKAHEAD_S,
    MARGIN,
    N_BINS,
    N_FFT,
    RATE,
    STRIDE,
    Pase,
    log_spectra,
)
from talkhead.encoder.pase.weights import read_pase
from talkhead.storage import sha256_of, translate_os_errors
from talkhead.types import SAMPLE_RATE, Float32, SpeechFeatures
from talkhead.weights import resolve

WEIGHTS = "pase.safetensors"
VERSION_DIGITS = 16
BLOCK_S = 20
"""Seconds of sound that are heard at a time, which bounds the memory."""


@dataclass(frozen=True)
class PaseEncoder:
    """Features in which a phone and its mouth shape correspond (arXiv 2504.05803).

    Frozen, and deaf to what comes more than lookahead_s later.
    """

    pase: Pase
    contrast: Contrast
    version: str
    name: str = "pase"
    sample_rate: int = SAMPLE_RATE
    rate: float = RATE
    lookahead_s: float = LOOKAHEAD_S

    @classmethod
    def shipped(cls) -> PaseEncoder:
        """The encoder that comes with talkhead. Raises PackageError when its weights are missing or
        damaged."""
        return cls.from_file(resolve(WEIGHTS))

    @classmethod
    def from_file(cls, path: Path) -> PaseEncoder:
        """An encoder of one's own weights. Raises TalkheadError, PackageError."""
        with translate_os_errors(path):
            stamp = path.stat()
        return cls(*_nets(path, stamp.st_mtime_ns, stamp.st_size))

    @property
    def dim(self) -> int:
        return self.pase.n_features

    def encode(self, waveform: Float32) -> SpeechFeatures:
        """Features [ceil(n_samples / 320), dim] of a waveform [n_samples] at 16 kHz."""
        stream, size = self.stream(), BLOCK_S * SAMPLE_RATE
        parts = [stream.push(waveform[at : at + size]) for at in range(0, len(waveform), size)]
        return SpeechFeatures(
            np.concatenate([*parts, stream.finish()]), self.rate, self.lookahead_s
        )

    def stream(self) -> PaseStream:
        """A fresh stream of one waveform."""
        return PaseStream(self.pase)

    def phone_stream(self) -> PaseStream:
        """A fresh stream that gives how likely each of PHONES is, [n, P]."""
        return PaseStream(self.pase, gives_phones=True)

    def phone_posteriors(self, waveform: Float32) -> Float32:
        """How likely each of PHONES is at each moment i / 50 s, [ceil(n_samples / 320), P]."""
        stream, size = self.phone_stream(), BLOCK_S * SAMPLE_RATE
        parts = [stream.push(waveform[at : at + size]) for at in range(0, len(waveform), size)]
        return np.concatenate([*parts, stream.finish()])

    def audio_embedding(self, waveform: Float32) -> Float32:
        """Unit vectors [ceil(n_samples / 640), E], one a video frame, in the space that lips share."""
        features = self.encode(waveform).values[:, : self.pase.config.dim]
        padded = np.concatenate([features, features[-1:]])[: 2 * (-(-len(features) // 2))]
        frames = torch.from_numpy(padded).unflatten(0, (-1, 2)).mean(1)
        with torch.no_grad():
            return _unit(self.contrast.heard(frames * self.pase.detail.spread[0]))

    def lip_embedding(self, lips: Float32) -> Float32:
        """Unit vectors [F, E] of lip crops [F, LIPS_HEIGHT, LIPS_WIDTH] in 0 to 1, in that space."""
        with torch.no_grad():
            features = self.pase.seen(torch.from_numpy(np.asarray(lips, np.float32))[None]).features
            return _unit(self.contrast.seen(features[0]))


def _unit(vectors: Tensor) -> Float32:
    return np.asarray(torch.nn.functional.normalize(vectors, dim=-1).numpy())


@lru_cache(maxsize=4)
def _nets(path: Path, _modified_ns: int, _n_bytes: int) -> tuple[Pase, Contrast, str]:
    """Nets of a file and its fingerprint, read again only when it has changed."""
    return *read_pase(path), sha256_of(path)[:VERSION_DIGITS]


class PaseStream:
    """Keeps the samples and inputs that coming vectors still need, and the GRU's state."""

    def __init__(self, pase: Pase, gives_phones: bool = False) -> None:
        self._pase, self._gives_phones = pase, gives_phones
        # Silence, as training puts it before every stretch.
        self._samples = np.zeros(MARGIN * HOP_LENGTH + N_FFT // 2, np.float32)
        self._spectra = torch.zeros(0, N_BINS)
        self._state: Tensor | None = None
        self._late = DELAY
        self._n_heard = self._n_given = 0

    def push(self, waveform: Float32) -> Float32:
        """The vectors [n, dim] that are certain after these samples [n_samples]."""
        self._n_heard += len(waveform)
        return self._given(np.asarray(waveform, np.float32))

    def finish(self) -> Float32:
        """The last vectors [n, dim], with silence beyond the waveform's end."""
        n_vectors = -(-self._n_heard // (HOP_LENGTH * STRIDE))
        silence = np.zeros(N_FFT + HOP_LENGTH * STRIDE * (DELAY + MARGIN), np.float32)
        n_left = n_vectors - self._n_given
        return self._given(silence)[: max(0, n_left)]

    def _given(self, waveform: Float32) -> Float32:
        self._samples = np.concatenate([self._samples, waveform])
        n_spectra = max(0, (len(self._samples) - N_FFT) // HOP_LENGTH + 1)
        with torch.no_grad():
            if n_spectra:
                fresh = log_spectra(torch.from_numpy(self._samples)[None])[0]
                self._spectra = torch.cat([self._spectra, fresh])
                self._samples = self._samples[n_spectra * HOP_LENGTH :]
            vectors = self._vectors()
        self._n_given += len(vectors)
        return vectors

    def _vectors(self) -> Float32:
        """What the spectra at hand give; those that later ones need stay."""
        n_inputs = max(0, (len(self._spectra) - 2 * MARGIN - 1) // STRIDE + 1)
        n_out = len(self._pase.anchors) if self._gives_phones else self._pase.n_features
        if n_inputs == 0:
            return np.zeros((0, n_out), np.float32)
        inputs = self._pase.ear.inputs(
            self._spectra[: STRIDE * (n_inputs - 1) + 2 * MARGIN + 1][None]
        )
        self._spectra = self._spectra[STRIDE * n_inputs :]
        hidden, self._state = self._pase.ear.extract_features(inputs, self._state)
        dropped = min(self._late, n_inputs)
        self._late -= dropped
        aligned = self._pase.vectors(inputs[:, dropped:], hidden[:, dropped:])
        result = aligned.logits.softmax(-1) if self._gives_phones else aligned.features
        return np.asarray(result[0].numpy())
