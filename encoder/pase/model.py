"""PASE model: audio branch, visual branch, and the phoneme embeddings that both share.

After "PASE: Phoneme-Aware Speech Encoder" (arXiv 2504.05803), as far as it gives details: a GRU
over STFT magnitudes encodes audio (section 3, audio branch), a CNN over stacked lip frames encodes
video, both are aligned with learned phoneme embeddings ("anchors") by cross-attention, and masked
parts of one are predicted from the rest. Sizes, look-ahead, the gate and the other audio branch, on
a pretrained encoder (`talkhead.encoder.pase.trunk`), are not from the paper. Only the audio branch,
`PhonemeAttention` and `AcousticFeatures` are needed for inference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkhead.config import bounded
from talkhead.encoder.pase.corpus import LIPS_HEIGHT, LIPS_WIDTH
from talkhead.encoder.pase.live import LiveBranch
from talkhead.encoder.pase.trunk import N_MELS, WIDTH, TrunkBranch
from talkhead.encoder.phones import PHONES
from talkhead.types import SAMPLE_RATE

N_FFT = 512
HOP_LENGTH = 160
N_BINS = N_FFT // 2 + 1
STRIDE = 2
"""Spectra per feature vector: 100 per second become 50."""
RATE = SAMPLE_RATE / HOP_LENGTH / STRIDE
"""Feature vectors per second."""
POWER_FLOOR = 1e-5
"""Added to powers before the logarithm; about the power of a quiet room when speech is at its usual
level.
"""

FIRST_REACH, SECOND_REACH = 2, 1
"""Reach of the two convolutions to either side, in spectra and in vectors."""
DELAY = 2
"""Delay of the GRU's output, in vectors."""
MARGIN = STRIDE * SECOND_REACH + FIRST_REACH
"""Spectra of silence that precede a waveform."""
LOOKAHEAD_S = (
    N_FFT / 2 + HOP_LENGTH * (FIRST_REACH + STRIDE * (SECOND_REACH + DELAY))
) / SAMPLE_RATE
"""Seconds after its moment that a vector depends on: half a window, both convolutions and the delay;
96 ms.
"""

INITIAL_GATE_LOGIT = 2.0
"""Initial logit of the share of an input that is used unchanged."""

STACK = 5
"""Consecutive lip frames, centered, that the visual branch takes at a time."""


@dataclass(frozen=True)
class PaseConfig:
    """Sizes and parts of the model.

    Attributes:
        on_whisper: True for an audio branch on Whisper's encoder, False for a GRU from scratch.
        rank: Rank of the trunk's adapters.
        width: Channels of the GRU's convolutions; mel bands of the trunk.
        hidden: Size of the GRU's state, or values in the trunk's vectors.
        layers: Layers of the GRU.
        dim: Size of aligned features, anchors and embeddings.
        has_anchors: False for an ablation in which the features are a linear map of the GRU's
            output, and the phones are a linear map of the features.
        clears: True to denoise the acoustic features.
        dropout: Dropout between the GRU's layers and in the visual branch.
        is_live: True for the audio branch of `talkhead.encoder.pase.live`.
    """

    on_whisper: bool = False
    rank: int = bounded(16, 0, 256)
    width: int = bounded(192, 1, 1024)
    hidden: int = bounded(256, 1, 1024)
    layers: int = bounded(2, 1, 8)
    dim: int = bounded(128, 1, 1024)
    has_anchors: bool = True
    clears: bool = True
    dropout: float = bounded(0.1, 0.0, 0.99)
    is_live: bool = False


TRUNK = PaseConfig(on_whisper=True, width=N_MELS, hidden=WIDTH)
"""Sizes of the model on Whisper's encoder."""
LIVE = PaseConfig(is_live=True, width=N_MELS, hidden=384, dropout=0.0)
"""Sizes of the small model with a short look-ahead."""


class Aligned(NamedTuple):
    """Features and phone probabilities of one modality.

    Attributes:
        features: [B, T, dim].
        logits: Logits of the phones, [B, T, P].
    """

    features: Tensor
    logits: Tensor


def log_spectra(waveform: Tensor) -> Tensor:
    """Compute log power spectra, with a periodic Hann window and no padding.

    Args:
        waveform: [B, n_samples], at least N_FFT samples.

    Returns:
        Natural logarithms of powers, [B, S, N_BINS], S = 1 + (n_samples - N_FFT) // HOP_LENGTH.
    """
    window = torch.hann_window(N_FFT, device=waveform.device, dtype=waveform.dtype)
    spectra = torch.fft.rfft(waveform.unfold(-1, N_FFT, HOP_LENGTH) * window)
    return torch.log(spectra.real.square() + spectra.imag.square() + POWER_FLOOR)


def padded_spectra(waveform: Tensor) -> Tensor:
    """Compute all log spectra that a waveform's vectors depend on, with silence around it.

    Args:
        waveform: [B, T * 320].

    Returns:
        [B, S, N_BINS], S = STRIDE * (T - 1 + DELAY) + 2 * MARGIN + 1.
    """
    n_vectors = waveform.shape[1] // (HOP_LENGTH * STRIDE)
    n_spectra = STRIDE * (n_vectors - 1 + DELAY) + 2 * MARGIN + 1
    before = MARGIN * HOP_LENGTH + N_FFT // 2
    total = (n_spectra - 1) * HOP_LENGTH + N_FFT
    return log_spectra(F.pad(waveform, (before, total - before - waveform.shape[1])))


def vector_spectra(waveform: Tensor) -> Tensor:
    """Compute the log spectrum at each vector's moment.

    Args:
        waveform: [B, T * 320].

    Returns:
        [B, T, N_BINS].
    """
    padded = F.pad(waveform, (N_FFT // 2, N_FFT // 2))
    return log_spectra(padded)[:, : waveform.shape[1] // HOP_LENGTH : STRIDE]


class AudioBranch(nn.Module):
    """Causal encoder of log spectra [B, S, N_BINS] into hidden vectors [B, T, hidden].

    Attributes:
        mean: Mean of the log spectra, [N_BINS], set before training.
        spread: Their standard deviation, [N_BINS].
        n_fft: Samples of a spectrum.
        margin: Spectra before and after its moment that an input depends on.
        n_late: Delay of the output, in vectors.
        lookahead_s: Seconds after its moment that a vector depends on.
        spectrum: Computes spectra without padding.
        spectra: Computes spectra with silence around the waveform.
    """

    mean: Tensor
    spread: Tensor
    n_fft, margin, n_late, lookahead_s = N_FFT, MARGIN, DELAY, LOOKAHEAD_S
    spectrum = staticmethod(log_spectra)
    spectra = staticmethod(padded_spectra)

    def __init__(self, config: PaseConfig) -> None:
        """Build the layers, with random weights.

        Args:
            config: Sizes.
        """
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
        """Run the convolutions.

        Args:
            spectra: [B, S, N_BINS].

        Returns:
            Inputs of the GRU, [B, T, width], T = (S - 2 * MARGIN - 1) // STRIDE + 1.
        """
        normal = (spectra - self.mean) / self.spread
        hidden = F.gelu(self.second(F.gelu(self.first(normal.transpose(1, 2)))))
        return hidden.transpose(1, 2)

    def extract_features(
        self, inputs: Tensor, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run the GRU.

        Args:
            inputs: [B, T, width].
            state: The GRU's state [layers, B, hidden] after earlier inputs; None at the beginning.

        Returns:
            Hidden vectors [B, T, hidden], DELAY vectors late, and the state after them.
        """
        hidden, state = self.gru(inputs, state)
        return hidden, state

    def step(
        self, spectra: Tensor, state: tuple[Tensor | None, int] | None
    ) -> tuple[Tensor, Tensor, tuple[Tensor | None, int]]:
        """Encode the next spectra of a stream.

        Args:
            spectra: [B, S, N_BINS], enough for at least one vector.
            state: State after the previous spectra; None at the beginning.

        Returns:
            Inputs [B, n, width] and hidden vectors [B, n, hidden] that are complete now, as in
            `forward`, and the state after them: the GRU's, and the vectors still to be dropped.
        """
        gru, n_late = (None, DELAY) if state is None else state
        inputs = self.inputs(spectra)
        hidden, gru = self.extract_features(inputs, gru)
        dropped = min(n_late, inputs.shape[1])
        return inputs[:, dropped:], hidden[:, dropped:], (gru, n_late - dropped)

    def forward(
        self, spectra: Tensor, hidden_spans: Tensor | None = None, first: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Encode spectra.

        Args:
            spectra: [B, S, N_BINS] as returned by `padded_spectra`.
            hidden_spans: Inputs that are replaced by the mask, [B, T] bool.
            first: Position in a stream, which makes no difference here.

        Returns:
            Inputs [B, T - DELAY, width] and hidden vectors [B, T - DELAY, hidden]. Hidden vector i
            describes moment i, and input i is the newest one that it depends on.
        """
        inputs = masked = self.inputs(spectra)
        if hidden_spans is not None:
            masked = torch.where(hidden_spans[..., None], self.mask, inputs)
        return inputs[:, DELAY:], self.extract_features(masked)[0][:, DELAY:]

    def acoustic(self, spectra: Tensor) -> Tensor:
        """Compute the first result of `forward` alone.

        Args:
            spectra: [B, S, N_BINS].

        Returns:
            [B, T - DELAY, width].
        """
        return self.inputs(spectra)[:, DELAY:]


class VisualBranch(nn.Module):
    """CNN over stacks of lip crops: [B, T, H, W] in [0, 1] -> hidden vectors [B, T, hidden]."""

    def __init__(self, hidden: int, dropout: float) -> None:
        """Build the layers, with random weights.

        Args:
            hidden: Values in a hidden vector.
            dropout: Dropped share of the CNN's outputs.
        """
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(STACK, 16, 5, stride=2, padding=2), nn.GELU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.GELU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.GELU(),
            nn.Flatten(), nn.Dropout(dropout),
            nn.Linear(64 * (LIPS_HEIGHT // 8) * (LIPS_WIDTH // 8), hidden), nn.GELU(),
        )  # fmt: skip

    def forward(self, lips: Tensor) -> Tensor:
        """Encode lip crops.

        Args:
            lips: [B, T, LIPS_HEIGHT, LIPS_WIDTH] in [0, 1].

        Returns:
            Hidden vectors, [B, T, hidden].
        """
        n, n_frames = lips.shape[:2]
        reach = STACK // 2
        # Subtract the mean brightness of the stretch: lighting and skin differ.
        level = lips - lips.mean((1, 2, 3), keepdim=True)
        # Repeat the first and the last frame, so that every frame has neighbors.
        padded = torch.cat(
            [
                level[:, :1].expand(-1, reach, -1, -1),
                level,
                level[:, -1:].expand(-1, reach, -1, -1),
            ],
            dim=1,
        )
        stacks = padded.unfold(1, STACK, 1).permute(0, 1, 4, 2, 3)  # [B, T, STACK, H, W]
        hidden: Tensor = self.layers(4.0 * stacks.reshape(n * n_frames, STACK, *lips.shape[2:]))
        return hidden.reshape(n, n_frames, -1)


class PhonemeAttention(nn.Module):
    """Aligns hidden vectors with the phoneme anchors by cross-attention.

    The hidden vector is the query; the anchors are keys and, through a linear layer, values. The
    attention weights are phone probabilities. A gate mixes the phone (the values) with its
    articulation (the hidden vector).
    """

    def __init__(self, config: PaseConfig, hidden: int) -> None:
        """Build the layers, with random weights.

        Args:
            config: Sizes.
            hidden: Values in a hidden vector.
        """
        super().__init__()
        self.query = nn.Linear(hidden, config.dim)
        self.own = nn.Linear(hidden, config.dim)
        self.values = nn.Linear(config.dim, config.dim)
        self.gate = nn.Linear(2 * config.dim, config.dim)
        self.plain = None if config.has_anchors else nn.Linear(config.dim, len(PHONES))

    def forward(self, hidden: Tensor, anchors: Tensor) -> Aligned:
        """Align hidden vectors.

        Args:
            hidden: [B, T, hidden].
            anchors: [P, dim].

        Returns:
            Features [B, T, dim] and phone logits [B, T, P].
        """
        own = self.own(hidden)
        if self.plain is not None:
            return Aligned(own, self.plain(own))
        logits = self.query(hidden) @ anchors.T * anchors.shape[1] ** -0.5  # [B, T, P]
        phone = logits.softmax(-1) @ self.values(anchors)  # [B, T, dim]
        gate = torch.sigmoid(self.gate(torch.cat([own, phone], -1)))
        return Aligned((1.0 - gate) * own + gate * phone, logits)


class AcousticFeatures(nn.Module):
    """Adds the acoustic detail that aligned features lack: the denoised inputs of the audio branch.

    From each hidden vector, a linear layer predicts the input without noise, and a gate decides how
    much of the actual input is used instead. Both parts are scaled to a mean spread of 1 in speech,
    measured after training.

    Attributes:
        mean: Mean of the inputs, [width].
        spread: Mean spread of the aligned features and of the inputs, [2].
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, config: PaseConfig) -> None:
        """Build the layers, with random weights.

        Args:
            config: Sizes; `clears` adds the layers that denoise.
        """
        super().__init__()
        self.expected = nn.Linear(config.hidden, config.width) if config.clears else None
        self.gate = nn.Linear(config.hidden, config.width) if config.clears else None
        if self.gate is not None:
            nn.init.constant_(self.gate.bias, INITIAL_GATE_LOGIT)
        self.register_buffer("mean", torch.zeros(config.width))
        self.register_buffer("spread", torch.ones(2))

    def fit(self, inputs: Tensor, aligned: Tensor) -> None:
        """Measure mean and spread.

        Args:
            inputs: [N, width].
            aligned: Aligned features, [N, dim].
        """
        self.mean.copy_(inputs.mean(0))
        self.spread.copy_(torch.stack([aligned.std(0).mean(), inputs.std(0).mean()]))

    def denoise(self, inputs: Tensor, hidden: Tensor) -> Tensor:
        """Remove noise from inputs.

        Args:
            inputs: [..., width].
            hidden: Hidden vectors of the same moments, [..., hidden].

        Returns:
            [..., width]; the inputs themselves without `clears`.
        """
        if self.gate is None or self.expected is None:
            return inputs
        return torch.lerp(self.expected(hidden), inputs, torch.sigmoid(self.gate(hidden)))

    def forward(self, inputs: Tensor, aligned: Tensor) -> Tensor:
        """Combine both parts.

        Args:
            inputs: Denoised inputs, [..., width].
            aligned: Aligned features, [..., dim].

        Returns:
            [..., dim + width].
        """
        return torch.cat([aligned / self.spread[0], (inputs - self.mean) / self.spread[1]], -1)


def _audio_branch(config: PaseConfig) -> AudioBranch | TrunkBranch | LiveBranch:
    """Build the audio branch of a configuration."""
    if config.on_whisper:
        return TrunkBranch(config.rank)
    if config.is_live:
        return LiveBranch(config.hidden, config.layers)
    return AudioBranch(config)


class AudioModel(nn.Module):
    """The part used for inference: the audio branch, its alignment with the anchors, and acoustic detail.

    `ear` is the audio branch, `hear` its alignment. Stored weights have these names.

    Attributes:
        config: Sizes and parts.
        anchors: A phoneme embedding for each of PHONES, [P, dim].
        detail: The acoustic features.
    """

    def __init__(self, config: PaseConfig) -> None:
        """Build the layers, with random weights.

        Args:
            config: Sizes and parts.
        """
        super().__init__()
        self.config = config
        self.anchors = nn.Parameter(torch.randn(len(PHONES), config.dim))
        self.ear = _audio_branch(config)
        self.hear = PhonemeAttention(config, config.hidden)
        self.detail = AcousticFeatures(config)

    def encode_audio(self, waveform: Tensor, hidden_spans: Tensor | None = None) -> Aligned:
        """Encode audio.

        Args:
            waveform: [B, T * 320] in [-1, 1] at 16 kHz; moment i is sample i * 320.
            hidden_spans: Inputs that are masked, [B, T + n_late] bool.

        Returns:
            Features [B, T, dim] and phone logits [B, T, P].
        """
        _, hidden = self.ear(self.ear.spectra(waveform), hidden_spans)
        aligned: Aligned = self.hear(hidden, self.anchors)
        return aligned

    @property
    def n_features(self) -> int:
        """Values in an encoder's vector: aligned features and acoustic ones."""
        return self.config.dim + self.config.width

    def vectors(self, inputs: Tensor, hidden: Tensor) -> Aligned:
        """Compute an encoder's vectors.

        Args:
            inputs: Inputs of the audio branch's GRU, [B, T, width].
            hidden: Hidden vectors of the same moments, [B, T, hidden].

        Returns:
            Features [B, T, n_features] and phone logits [B, T, P].
        """
        aligned = self.hear(hidden, self.anchors)
        denoised = self.detail.denoise(inputs, hidden)
        return Aligned(self.detail(denoised, aligned.features), aligned.logits)


class Pase(AudioModel):
    """The whole model, as it is trained: `eye` is the visual branch, `see` its alignment."""

    def __init__(self, config: PaseConfig) -> None:
        """Build the layers, with random weights.

        Args:
            config: Sizes and parts.
        """
        super().__init__(config)
        self.eye = VisualBranch(config.dim, config.dropout)
        self.see = PhonemeAttention(config, config.dim)

    def encode_lips(self, lips: Tensor) -> Aligned:
        """Encode video.

        Args:
            lips: Lip crops, [B, F, LIPS_HEIGHT, LIPS_WIDTH] in [0, 1], 25 per second.

        Returns:
            Features [B, F, dim] and phone logits [B, F, P].
        """
        aligned: Aligned = self.see(self.eye(lips), self.anchors)
        return aligned
