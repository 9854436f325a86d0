"""PASE's nets: an ear, an eye, and the phoneme anchors on which the two meet.

After "PASE: Phoneme-Aware Speech Encoder" (arXiv 2504.05803), as far as it says: STFT magnitudes and
a GRU hear (section 3, audio branch), a CNN over stacked lip frames sees, both are aligned with
learned phoneme embeddings by cross-attention, and what is masked of one is predicted from the rest.
Sizes, look-ahead and the gate are ours. Only `AudioBranch` and `PhonemeAttention` are needed to speak.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkhead.config import bounded
from talkhead.encoder.pase.corpus import LIPS_HEIGHT, LIPS_WIDTH
from talkhead.encoder.phones import PHONES
from talkhead.types import SAMPLE_RATE

N_FFT = 512
HOP_LENGTH = 160
N_BINS = N_FFT // 2 + 1
STRIDE = 2
"""Spectra a vector: 100 a second become 50."""
RATE = SAMPLE_RATE / HOP_LENGTH / STRIDE
POWER_FLOOR = 1e-5
"""Added to powers before the logarithm: with speech at its usual level, a quiet room is near it."""

FIRST_REACH, SECOND_REACH = 2, 1
"""How far the two convolutions see to either side, in spectra and in vectors."""
DELAY = 2
"""Vectors that the GRU hears on before it answers."""
MARGIN = STRIDE * SECOND_REACH + FIRST_REACH
"""Spectra of silence that are put before a waveform."""
LOOKAHEAD_S = (
    N_FFT / 2 + HOP_LENGTH * (FIRST_REACH + STRIDE * (SECOND_REACH + DELAY))
) / SAMPLE_RATE
"""How far past its moment a vector hears: half a window, both convolutions and the delay; 96 ms."""

CLEAN_AT_FIRST = 2.0
"""Before training, the logit by which inputs are taken as heard."""

STACK = 5
"""Lip frames, centred, that the eye sees at a time."""


@dataclass(frozen=True)
class PaseConfig:
    """Sizes and parts.

    width: of the convolutions. hidden, layers: of the GRU. dim: of what is aligned, of anchors and
    embeddings. has_anchors: without them what is aligned is the GRU's own, and phones a plain linear
    layer. clears: whether the detail is cleared of noise.
    """

    width: int = bounded(192, 1, 1024)
    hidden: int = bounded(256, 1, 1024)
    layers: int = bounded(2, 1, 8)
    dim: int = bounded(128, 1, 1024)
    has_anchors: bool = True
    clears: bool = True
    dropout: float = bounded(0.1, 0.0, 0.99)


class Aligned(NamedTuple):
    """Features [B, T, dim] and phone logits [B, T, P]."""

    features: Tensor
    logits: Tensor


def log_spectra(waveform: Tensor) -> Tensor:
    """Log powers [B, S, N_BINS] of waveforms [B, n_samples], S = 1 + (n_samples - N_FFT) // 160.

    Hann window (periodic), no padding. n_samples: at least N_FFT.
    """
    window = torch.hann_window(N_FFT, device=waveform.device, dtype=waveform.dtype)
    spectra = torch.fft.rfft(waveform.unfold(-1, N_FFT, HOP_LENGTH) * window)
    return torch.log(spectra.real.square() + spectra.imag.square() + POWER_FLOOR)


def padded_spectra(waveform: Tensor) -> Tensor:
    """Log powers [B, S, N_BINS] that the T vectors of waveforms [B, T * 320] need, with silence
    before and after."""
    n_vectors = waveform.shape[1] // (HOP_LENGTH * STRIDE)
    n_spectra = STRIDE * (n_vectors - 1 + DELAY) + 2 * MARGIN + 1
    before = MARGIN * HOP_LENGTH + N_FFT // 2
    total = (n_spectra - 1) * HOP_LENGTH + N_FFT
    return log_spectra(F.pad(waveform, (before, total - before - waveform.shape[1])))


def vector_spectra(waveform: Tensor) -> Tensor:
    """The log powers [B, T, N_BINS] about each vector's moment, of waveforms [B, T * 320]."""
    padded = F.pad(waveform, (N_FFT // 2, N_FFT // 2))
    return log_spectra(padded)[:, : waveform.shape[1] // HOP_LENGTH : STRIDE]


class AudioBranch(nn.Module):
    """Log spectra [B, S, N_BINS] -> hidden vectors [B, T, hidden], strictly in time's order.

    mean, spread: [N_BINS] of the log spectra, set before training.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, config: PaseConfig) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(N_BINS))
        self.register_buffer("spread", torch.ones(N_BINS))
        self.first = nn.Conv1d(N_BINS, config.width, 2 * FIRST_REACH + 1, stride=STRIDE)
        self.second = nn.Conv1d(config.width, config.width, 2 * SECOND_REACH + 1)
        self.mask = nn.Parameter(torch.zeros(config.width))
        dropout = config.dropout if config.layers > 1 else 0.0
        self.gru = nn.GRU(
            config.width, config.hidden, config.layers, batch_first=True, dropout=dropout
        )

    def inputs(self, spectra: Tensor) -> Tensor:
        """What the GRU hears, [B, T, width], T = (S - 2 * MARGIN - 1) // STRIDE + 1."""
        normal = (spectra - self.mean) / self.spread
        hidden = F.gelu(self.second(F.gelu(self.first(normal.transpose(1, 2)))))
        return hidden.transpose(1, 2)

    def extract_features(
        self, inputs: Tensor, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Hidden vectors [B, T, hidden] DELAY vectors late, and the GRU's state after them."""
        hidden, state = self.gru(inputs, state)
        return hidden, state

    def forward(self, spectra: Tensor, hidden_spans: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Inputs [B, T - DELAY, width], the newest heard, and hidden vectors [B, T - DELAY, hidden],
        in time with their moments.

        hidden_spans: [B, T] bool, which inputs the GRU hears as the mask.
        """
        inputs = heard = self.inputs(spectra)
        if hidden_spans is not None:
            heard = torch.where(hidden_spans[..., None], self.mask, inputs)
        return inputs[:, DELAY:], self.extract_features(heard)[0][:, DELAY:]


class VisualBranch(nn.Module):
    """Lip crops [B, T, H, W] in 0 to 1 -> hidden vectors [B, T, hidden], STACK frames at a time."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(STACK, 16, 5, stride=2, padding=2), nn.GELU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.GELU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.GELU(),
            nn.Flatten(), nn.Dropout(dropout),
            nn.Linear(64 * (LIPS_HEIGHT // 8) * (LIPS_WIDTH // 8), hidden), nn.GELU(),
        )  # fmt: skip

    def forward(self, lips: Tensor) -> Tensor:
        n, n_frames = lips.shape[:2]
        reach = STACK // 2
        steady = lips - lips.mean((1, 2, 3), keepdim=True)
        padded = torch.cat(
            [
                steady[:, :1].expand(-1, reach, -1, -1),
                steady,
                steady[:, -1:].expand(-1, reach, -1, -1),
            ],
            dim=1,
        )
        stacks = padded.unfold(1, STACK, 1).permute(0, 1, 4, 2, 3)
        seen: Tensor = self.layers(4.0 * stacks.reshape(n * n_frames, STACK, *lips.shape[2:]))
        return seen.reshape(n, n_frames, -1)


class PhonemeAttention(nn.Module):
    """Hidden vectors -> features that lean on phoneme anchors, by cross-attention.

    The hidden vector asks, the anchors are keys and (through a linear layer) values: attention
    weights are phone probabilities. A gate mixes what was said (the values) with how (the vector).
    """

    def __init__(self, config: PaseConfig, hidden: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, config.dim)
        self.own = nn.Linear(hidden, config.dim)
        self.values = nn.Linear(config.dim, config.dim)
        self.gate = nn.Linear(2 * config.dim, config.dim)
        self.plain = None if config.has_anchors else nn.Linear(config.dim, len(PHONES))

    def forward(self, hidden: Tensor, anchors: Tensor) -> Aligned:
        """Features and logits of hidden vectors [B, T, hidden]; anchors: [P, dim]."""
        own = self.own(hidden)
        if self.plain is not None:
            return Aligned(own, self.plain(own))
        logits = self.query(hidden) @ anchors.T * anchors.shape[1] ** -0.5
        said = logits.softmax(-1) @ self.values(anchors)
        gate = torch.sigmoid(self.gate(torch.cat([own, said], -1)))
        return Aligned((1.0 - gate) * own + gate * said, logits)


class AcousticFeatures(nn.Module):
    """What the aligned features leave out of the sound: the ear's inputs, beside them.

    Of each input the GRU knows how far it is speech, and what it would be without noise: a gate mixes
    what was heard with what was to be expected. Both parts are scaled to a mean spread of 1 in
    speech, which is measured after training. mean: [width] of the inputs. spread: [2] of the aligned
    features and of the inputs.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, config: PaseConfig) -> None:
        super().__init__()
        self.expected = nn.Linear(config.hidden, config.width) if config.clears else None
        self.gate = nn.Linear(config.hidden, config.width) if config.clears else None
        if self.gate is not None:
            nn.init.constant_(self.gate.bias, CLEAN_AT_FIRST)
        self.register_buffer("mean", torch.zeros(config.width))
        self.register_buffer("spread", torch.ones(2))

    def fit(self, inputs: Tensor, aligned: Tensor) -> None:
        """Measure inputs [N, width] and aligned features [N, dim]."""
        self.mean.copy_(inputs.mean(0))
        self.spread.copy_(torch.stack([aligned.std(0).mean(), inputs.std(0).mean()]))

    def cleared(self, inputs: Tensor, hidden: Tensor) -> Tensor:
        """Inputs [..., width] as they would be without noise, by hidden vectors [..., hidden]."""
        if self.gate is None or self.expected is None:
            return inputs
        return torch.lerp(self.expected(hidden), inputs, torch.sigmoid(self.gate(hidden)))

    def forward(self, inputs: Tensor, aligned: Tensor) -> Tensor:
        """Features [..., dim + width] of cleared inputs [..., width] and aligned ones [..., dim]."""
        return torch.cat([aligned / self.spread[0], (inputs - self.mean) / self.spread[1]], -1)


class Pase(nn.Module):
    """All of PASE, as it is trained. anchors: [P, dim], one phoneme embedding each, in PHONES' order."""

    def __init__(self, config: PaseConfig) -> None:
        super().__init__()
        self.config = config
        self.anchors = nn.Parameter(torch.randn(len(PHONES), config.dim))
        self.ear = AudioBranch(config)
        self.hear = PhonemeAttention(config, config.hidden)
        self.detail = AcousticFeatures(config)
        self.eye = VisualBranch(config.dim, config.dropout)
        self.see = PhonemeAttention(config, config.dim)

    def heard(self, waveform: Tensor, hidden_spans: Tensor | None = None) -> Aligned:
        """Features [B, T, dim] and logits of waveforms [B, T * 320]: moment i is sample i * 320."""
        _, hidden = self.ear(padded_spectra(waveform), hidden_spans)
        aligned: Aligned = self.hear(hidden, self.anchors)
        return aligned

    @property
    def n_features(self) -> int:
        """Values in a vector: what is said, and how."""
        return self.config.dim + self.config.width

    def vectors(self, inputs: Tensor, hidden: Tensor) -> Aligned:
        """What an encoder gives, [B, T, n_features], and logits.

        inputs: [B, T, width] of the ear, the newest heard. hidden: [B, T, hidden] that listen gave.
        """
        aligned = self.hear(hidden, self.anchors)
        cleared = self.detail.cleared(inputs, hidden)
        return Aligned(self.detail(cleared, aligned.features), aligned.logits)

    def seen(self, lips: Tensor) -> Aligned:
        """Features [B, F, dim] and logits of lip crops [B, F, H, W] in 0 to 1, 25 a second."""
        aligned: Aligned = self.see(self.eye(lips), self.anchors)
        return aligned
