"""Audio branch of PASE on the first blocks of Whisper tiny.en's encoder, with bounded attention.

Whisper's encoder (Radford et al. 2022, arXiv 2212.04356, section 2.2; weights under the MIT license)
takes 30 s at a time, and each vector attends to all others. Here a vector attends to PAST vectors
before it and to AHEAD after it, so that speech of any length is encoded as it arrives. Low-rank
adapters (Hu et al. 2021, arXiv 2106.09685), trained with the rest of PASE, compensate for the
shorter attention. Only the first N_BLOCKS blocks are used: their output predicts lips better
than that of the later ones (docs/experiments/pase.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkhead.audio import mel_filters
from talkhead.storage import read_tensors
from talkhead.tensors import TensorSpec, check_tensors
from talkhead.types import SAMPLE_RATE
from talkhead.weights import resolve

WEIGHTS = "whisper_tiny_en.safetensors"
"""File of Whisper's weights, which `talkhead.app.training.whisper` converts."""
N_BLOCKS = 2
"""Blocks that are used, of four."""
WIDTH, N_HEADS, N_MELS = 384, 6, 80
N_POSITIONS = 1500
"""Positions that Whisper was trained on, 30 s; after the last one, vectors start again at the first."""
N_FFT, HOP_LENGTH, STRIDE = 400, 160, 2
REACH = 2
"""Reach of the two convolutions to either side, in mel frames."""
PAST = 200
"""Vectors before its own that a vector attends to, in each block: 4 s."""
AHEAD = (2, 1)
"""Vectors after its own that a vector attends to, in each block."""
LOOKAHEAD_S = (N_FFT / 2 + HOP_LENGTH * (REACH + STRIDE * sum(AHEAD))) / SAMPLE_RATE
"""Seconds after its moment that a vector depends on: half a window, the convolutions and the
attention; 92.5 ms.
"""
MIN_LOG_POWER = -7.0
"""Floor of the log mel powers. Whisper's is 8 below the largest of 30 s, which is about 1 in speech at
the level that encoders expect. In a stream, the largest value is not available, so the floor is fixed.
"""
STRETCH = 200
"""Vectors that a stream encodes at a time."""


def log_mels(waveform: Tensor) -> Tensor:
    """Compute log mel energies as Whisper's, with a fixed floor and no padding.

    Args:
        waveform: [B, n_samples] in [-1, 1] at 16 kHz, at least N_FFT samples.

    Returns:
        [B, S, N_MELS], S = 1 + (n_samples - N_FFT) // HOP_LENGTH, about -0.75 to 1.3.
    """
    window = torch.hann_window(N_FFT, device=waveform.device, dtype=waveform.dtype)
    spectra = torch.fft.rfft(waveform.unfold(-1, N_FFT, HOP_LENGTH) * window)
    powers = spectra.real.square() + spectra.imag.square()
    logs = torch.log10((powers @ _filters().to(powers).T).clamp(min=10.0**MIN_LOG_POWER))
    return (logs + 4.0) / 4.0


def padded_mels(waveform: Tensor, n_late: int) -> Tensor:
    """Compute the log mel energies that a waveform's vectors depend on, with silence around it.

    Args:
        waveform: [B, T * 320].
        n_late: Vectors after its own that a vector depends on.

    Returns:
        [B, S, N_MELS], S = STRIDE * (T - 1 + n_late) + 2 * REACH + 1.
    """
    n_vectors = waveform.shape[1] // (HOP_LENGTH * STRIDE)
    n_spectra = STRIDE * (n_vectors - 1 + n_late) + 2 * REACH + 1
    before = REACH * HOP_LENGTH + N_FFT // 2
    total = (n_spectra - 1) * HOP_LENGTH + N_FFT
    return log_mels(F.pad(waveform, (before, total - before - waveform.shape[1])))


def moments(spectra: Tensor) -> Tensor:
    """Select the spectrum at the moment of each vector, whether the vector is complete or not.

    Args:
        spectra: [B, S, N_MELS].

    Returns:
        [B, (S - 2 * REACH - 1) // STRIDE + 1, N_MELS].
    """
    return spectra[:, REACH : spectra.shape[1] - REACH : STRIDE]


@lru_cache(maxsize=1)
def _filters() -> Tensor:
    """Mel filters, [N_MELS, N_FFT // 2 + 1]."""
    return torch.from_numpy(mel_filters(SAMPLE_RATE, N_FFT, N_MELS).copy())


def positions() -> Tensor:
    """Compute Whisper's sinusoidal position embeddings.

    Returns:
        [N_POSITIONS, WIDTH].
    """
    half = WIDTH // 2
    rates = torch.exp(-torch.arange(half) * (torch.log(torch.tensor(10000.0)) / (half - 1)))
    angles = torch.arange(N_POSITIONS)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class AdaptedLinear(nn.Module):
    """A frozen linear layer plus a trained one of low rank: y = W x + b + U D x."""

    weight: Tensor
    bias: Tensor

    def __init__(self, n_inputs: int, n_outputs: int, rank: int) -> None:
        """Build the layer; U is 0, so at first it computes the frozen layer.

        Args:
            n_inputs: Values in an input.
            n_outputs: Values in an output.
            rank: Rank of U D; 0 for the frozen layer alone.
        """
        super().__init__()
        # Frozen values come from the file of Whisper's weights, and aren't stored with PASE's.
        self.register_buffer("weight", torch.zeros(n_outputs, n_inputs), persistent=False)
        self.register_buffer("bias", torch.zeros(n_outputs), persistent=False)
        self.down = nn.Parameter(torch.randn(rank, n_inputs) * n_inputs**-0.5)
        self.up = nn.Parameter(torch.zeros(n_outputs, rank))

    def forward(self, values: Tensor, adapted: bool = True) -> Tensor:
        """Apply the layer.

        Args:
            values: [..., n_inputs].
            adapted: False for the frozen layer alone.

        Returns:
            [..., n_outputs].
        """
        frozen = F.linear(values, self.weight, self.bias)
        return frozen + (values @ self.down.T) @ self.up.T if adapted else frozen


class FrozenNorm(nn.Module):
    """Layer normalization with frozen scale and shift."""

    weight: Tensor
    bias: Tensor

    def __init__(self) -> None:
        """Build the layer."""
        super().__init__()
        self.register_buffer("weight", torch.ones(WIDTH), persistent=False)
        self.register_buffer("bias", torch.zeros(WIDTH), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Normalize values [..., WIDTH]; returns the same shape."""
        return F.layer_norm(values, (WIDTH,), self.weight, self.bias)


class BlockState(NamedTuple):
    """State of a block in a stream.

    Attributes:
        waiting: Inputs whose outputs wait for later inputs, [B, n, WIDTH].
        queries: Queries of these inputs, [B, N_HEADS, n, WIDTH // N_HEADS].
        keys: Keys of the newest inputs, [B, N_HEADS, m, WIDTH // N_HEADS].
        values: Values of the newest inputs, of the same shape as keys.
    """

    waiting: Tensor
    queries: Tensor
    keys: Tensor
    values: Tensor


class Block(nn.Module):
    """A transformer block: attention to neighbors, then two linear layers, both residual."""

    def __init__(self, ahead: int, rank: int) -> None:
        """Build the block, with zeros for the frozen weights.

        Args:
            ahead: Vectors after its own that a vector attends to.
            rank: Rank of the adapters.
        """
        super().__init__()
        self.ahead = ahead
        self.attention_norm, self.mlp_norm = FrozenNorm(), FrozenNorm()
        self.qkv = AdaptedLinear(WIDTH, 3 * WIDTH, rank)
        self.out = AdaptedLinear(WIDTH, WIDTH, rank)
        self.up = AdaptedLinear(WIDTH, 4 * WIDTH, rank)
        self.down = AdaptedLinear(4 * WIDTH, WIDTH, rank)

    def forward(
        self, inputs: Tensor, state: BlockState | None, n_early: int = 0
    ) -> tuple[Tensor, int, BlockState]:
        """Encode the next inputs of a stream.

        Args:
            inputs: [B, n, WIDTH].
            state: State after the previous inputs; None at the beginning.
            n_early: How many of the last inputs are approximations. They do not enter the state.

        Returns:
            The outputs of all inputs that were waiting and of these, [B, m, WIDTH]; how many of them
            are complete; and the state after them. The other outputs, `ahead` more than n_early
            except at the beginning, are computed as if no inputs followed.
        """
        waiting, query, keys, values = self._extended(inputs, state)
        # Complete outputs attend at most to the last input that is no approximation.
        outputs = self._transform(waiting, query, keys, values, self._mask(query, keys))
        n_inputs, n_keys = waiting.shape[1] - n_early, keys.shape[2] - n_early
        n_complete = max(0, n_inputs - self.ahead)
        first = max(0, n_keys - PAST - self.ahead)
        kept = BlockState(
            waiting[:, n_complete:n_inputs],
            query[:, :, n_complete:n_inputs],
            keys[:, :, first:n_keys],
            values[:, :, first:n_keys],
        )
        return outputs, n_complete, kept

    def _extended(self, inputs: Tensor, state: BlockState | None) -> BlockState:
        """Add inputs [B, n, WIDTH] to a state."""
        query, key, value = self._heads(inputs)
        if state is None:
            return BlockState(inputs, query, key, value)
        return BlockState(
            torch.cat([state.waiting, inputs], 1),
            torch.cat([state.queries, query], 2),
            torch.cat([state.keys, key], 2),
            torch.cat([state.values, value], 2),
        )

    def _mask(self, query: Tensor, keys: Tensor) -> Tensor:
        """Tell which of m keys the newest n inputs attend to, [n, m], by their queries and keys."""
        n, n_keys = query.shape[2], keys.shape[2]
        distance = torch.arange(n_keys) - (n_keys - n) - torch.arange(n)[:, None]
        return ((distance >= -PAST) & (distance <= self.ahead)).to(query.device)

    def whole(self, inputs: Tensor) -> Tensor:
        """Compute Whisper's own block: frozen layers, and attention to all vectors.

        Args:
            inputs: [B, T, WIDTH].

        Returns:
            [B, T, WIDTH].
        """
        query, key, value = self._heads(inputs, adapted=False)
        return self._transform(inputs, query, key, value, None, adapted=False)

    def _heads(self, inputs: Tensor, adapted: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values [B, N_HEADS, n, WIDTH // N_HEADS] of inputs [B, n, WIDTH]."""
        parts = self.qkv(self.attention_norm(inputs), adapted)
        query, key, value = parts.unflatten(-1, (3, N_HEADS, -1)).permute(2, 0, 3, 1, 4)
        return query, key, value

    def _transform(
        self,
        inputs: Tensor,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None,
        adapted: bool = True,
    ) -> Tensor:
        """Return outputs [B, n, WIDTH] of inputs [B, n, WIDTH] with their queries; mask: [n, keys]."""
        attended = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        hidden = inputs + self.out(attended.transpose(1, 2).flatten(2), adapted)
        change: Tensor = self.down(F.gelu(self.up(self.mlp_norm(hidden), adapted)), adapted)
        return hidden + change


@dataclass(frozen=True)
class TrunkState:
    """State of a stream of vectors.

    Attributes:
        n_inputs: Inputs so far.
        blocks: State of each block.
        early: Hidden vectors that wait for later inputs, computed as if none followed,
            [B, n, WIDTH]; None at the beginning. They cost little beside those that are complete,
            because most of the time is spent on reading the weights.
    """

    n_inputs: int
    blocks: tuple[BlockState | None, ...]
    early: Tensor | None = None


START = TrunkState(0, (None,) * N_BLOCKS)
"""State of a stream without inputs."""


class TrunkBranch(nn.Module):
    """Encoder of log mel energies [B, S, N_MELS] into hidden vectors [B, T, WIDTH].

    Attributes:
        n_fft: Samples of a spectrum.
        margin: Spectra before and after its moment that an input depends on.
        n_late: Vectors after its own that a hidden vector depends on.
        lookahead_s: Seconds after its moment that a vector depends on.
        spectrum: Computes spectra without padding.
    """

    first_weight: Tensor
    first_bias: Tensor
    second_weight: Tensor
    second_bias: Tensor
    positions: Tensor
    n_fft, margin, n_late, lookahead_s = N_FFT, REACH, sum(AHEAD), LOOKAHEAD_S
    spectrum = staticmethod(log_mels)

    def __init__(self, rank: int) -> None:
        """Build the layers, with zeros for the frozen weights (`load_whisper`).

        Args:
            rank: Rank of the adapters.
        """
        super().__init__()
        for name, n_inputs in (("first", N_MELS), ("second", WIDTH)):
            self.register_buffer(
                f"{name}_weight", torch.zeros(WIDTH, n_inputs, 3), persistent=False
            )
            self.register_buffer(f"{name}_bias", torch.zeros(WIDTH), persistent=False)
        self.register_buffer("positions", positions(), persistent=False)
        self.mask = nn.Parameter(torch.zeros(WIDTH))
        self.blocks = nn.ModuleList(Block(ahead, rank) for ahead in AHEAD)

    @staticmethod
    def spectra(waveform: Tensor) -> Tensor:
        """Compute the log mel energies that a waveform's vectors depend on (`padded_mels`).

        Args:
            waveform: [B, T * 320].

        Returns:
            [B, S, N_MELS], S = STRIDE * (T - 1 + n_late) + 2 * REACH + 1.
        """
        return padded_mels(waveform, sum(AHEAD))

    def convolve(self, spectra: Tensor) -> Tensor:
        """Run the convolutions.

        Args:
            spectra: [B, S, N_MELS].

        Returns:
            [B, n, WIDTH], n = (S - 2 * REACH - 1) // STRIDE + 1.
        """
        hidden = F.gelu(F.conv1d(spectra.transpose(1, 2), self.first_weight, self.first_bias))
        hidden = F.gelu(F.conv1d(hidden, self.second_weight, self.second_bias, stride=STRIDE))
        return hidden.transpose(1, 2)

    def extract_features(
        self, inputs: Tensor, state: TrunkState = START
    ) -> tuple[Tensor, TrunkState]:
        """Run the blocks over the next inputs of a stream.

        Args:
            inputs: Result of `convolve`, [B, n, WIDTH].
            state: State after the previous inputs.

        Returns:
            The hidden vectors that are complete now, [B, m, WIDTH], and the state after them.
        """
        places = (state.n_inputs + torch.arange(inputs.shape[1])) % N_POSITIONS
        hidden, blocks, n_early = inputs + self.positions[places], [], 0
        for block, own in zip(self.blocks, state.blocks, strict=True):
            hidden, n_complete, after = block(hidden, own, n_early)
            n_early = hidden.shape[1] - n_complete
            blocks.append(after)
        n_inputs = state.n_inputs + inputs.shape[1]
        return hidden[:, :n_complete], TrunkState(n_inputs, tuple(blocks), hidden[:, n_complete:])

    def forward(
        self, spectra: Tensor, hidden_spans: Tensor | None = None, first: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Encode spectra.

        Args:
            spectra: [B, S, N_MELS] from `spectra`.
            hidden_spans: Inputs that are replaced by the mask, [B, T + n_late] bool.
            first: Position of the first vector in its stream.

        Returns:
            The energies at each vector's moment [B, T, N_MELS] and hidden vectors [B, T, WIDTH].
        """
        inputs = self.convolve(spectra)
        if hidden_spans is not None:
            inputs = torch.where(hidden_spans[..., None], self.mask, inputs)
        hidden, _ = self.extract_features(inputs, TrunkState(first, (None,) * N_BLOCKS))
        return self.acoustic(spectra), hidden

    def pending(self, state: tuple[TrunkState, Tensor]) -> tuple[Tensor, Tensor]:
        """Select what a stream has computed of its next vectors, as if nothing followed.

        Args:
            state: State of the stream.

        Returns:
            Energies [B, n, N_MELS] and hidden vectors [B, n, WIDTH], n = n_late except at the
            beginning. They attend to fewer vectors after their own than complete ones.
        """
        blocks, energies = state
        hidden = (
            energies.new_zeros(len(energies), 0, WIDTH) if blocks.early is None else blocks.early
        )
        return energies, hidden

    def acoustic(self, spectra: Tensor) -> Tensor:
        """Compute the first result of `forward` alone.

        Args:
            spectra: [B, S, N_MELS].

        Returns:
            [B, T, N_MELS].
        """
        return moments(spectra)[:, : -self.n_late]

    def step(
        self, spectra: Tensor, state: tuple[TrunkState, Tensor] | None
    ) -> tuple[Tensor, Tensor, tuple[TrunkState, Tensor]]:
        """Encode the next spectra of a stream.

        Args:
            spectra: [B, S, N_MELS], enough for at least one vector.
            state: State after the previous spectra; None at the beginning.

        Returns:
            Energies [B, n, N_MELS] and hidden vectors [B, n, WIDTH] that are complete now, as
            `forward` returns them, and the state after them: that of the blocks, and the energies
            whose vectors are not complete.
        """
        own = moments(spectra)
        blocks, waiting = (START, own[:, :0]) if state is None else state
        energies, parts = torch.cat([waiting, own], 1), []
        # In one piece, attention between all vectors would be computed, and most of it masked.
        for inputs in self.convolve(spectra).split(STRETCH, dim=1):
            hidden, blocks = self.extract_features(inputs, blocks)
            parts.append(hidden)
        vectors = torch.cat(parts, 1)
        n = vectors.shape[1]
        return energies[:, :n], vectors, (blocks, energies[:, n:])

    def whole(self, spectra: Tensor) -> Tensor:
        """Compute the vectors of Whisper itself: without adapters, and with attention to all others.

        Args:
            spectra: [B, S, N_MELS].

        Returns:
            [B, n, WIDTH], with the n of `convolve`.
        """
        hidden = self.convolve(spectra)
        hidden = hidden + self.positions[: hidden.shape[1]]
        for block in self.blocks:
            assert isinstance(block, Block)
            hidden = block.whole(hidden)
        return hidden


def whisper_specs() -> dict[str, TensorSpec]:
    """Specify the frozen weights.

    Returns:
        Shape and type of each tensor of the file WEIGHTS.
    """
    with torch.device("meta"):
        branch = TrunkBranch(0)
    frozen = {name: value for name, value in branch.named_buffers() if name != "positions"}
    return {name: TensorSpec(tuple(v.shape), torch.float16) for name, v in frozen.items()}


def load_whisper(branch: TrunkBranch, tensors: Mapping[str, Tensor] | None = None) -> None:
    """Set a branch's frozen weights.

    Args:
        branch: The branch; it is changed.
        tensors: Weights that fit `whisper_specs`; None for those that come with talkhead.

    Raises:
        PackageError: If the shipped weights are missing or damaged.
        ContentError: For weights of other shapes or types.
    """
    given = _shipped() if tensors is None else tensors
    check_tensors(given, whisper_specs())
    for name, value in given.items():
        branch.get_buffer(name).copy_(value)


@lru_cache(maxsize=1)
def _shipped() -> dict[str, Tensor]:
    """Read the weights of Whisper that come with talkhead, by the names of `whisper_specs`."""
    return read_tensors(resolve(WEIGHTS))
