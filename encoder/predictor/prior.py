"""Prior of the motion predictor: initial weights, trained on other people.

    python -m talkhead.encoder.predictor.prior SHARD... --encoder NAME --output FILE [--seed 0]

The shards must have video (`talkhead.encoder.pase.corpus`). A prior belongs to one encoder;
predictors of encoders without one start from random weights. Speakers are drawn in proportion to
the square root of their footage's length, so that no speaker dominates. A prior moves the points of
a generic mouth, in eye distances without head motion; least squares convert this to a person's
mouth codes. Training takes minutes on one core, and the same shards, encoder and seed give the same
file.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from talkhead.audio import measure_loudness, silent_frames
from talkhead.config import from_json, limits, to_json
from talkhead.device import aligned_copy
from talkhead.encoder.base import SpeechEncoder, speech_gain
from talkhead.encoder.pase.augment import change_formants
from talkhead.encoder.pase.corpus import SAMPLES_PER_FRAME, SPLITS, CorpusShard, read_shard
from talkhead.encoder.predictor.network import (
    MAX_VIEW,
    STORED,
    PredictorConfig,
    TemporalNets,
    net_specs,
    receptive_field_of,
)
from talkhead.encoder.predictor.training import (
    SILENCE_WEIGHT,
    Task,
    feature_spread,
    make_training_tensors,
    single_threaded,
    train_nets,
    vectors_per_frame,
)
from talkhead.encoder.registry import load_encoder
from talkhead.errors import TalkheadError
from talkhead.face import MAX_CODES, MOUTH_POINTS, FaceModel
from talkhead.progress import Progress, make_progress
from talkhead.storage import content_errors, read_tensors, write_tensors
from talkhead.tensors import Size, TensorSpec, check_tensors, json_tensor, read_json_tensor
from talkhead.types import FRAME_RATE, Bool, Float32, Float64
from talkhead.weights import resolve

WEIGHTS = "prior.safetensors"
"""Name of the shipped prior."""
FACTS, FIRST = "facts", f"{STORED}first.weight"
"""Names of the tensor with JSON, and of the one that gives the number of inputs."""
INPUTS, OUTPUTS = Size("inputs", 1, 1 << 16), Size("components", 1, MAX_CODES)
N_COMPONENTS = 20
"""Components of the generic mouth space, as many as in a person's mouth code."""
CONFIG = PredictorConfig(n_members=4, n_steps=2000, batch_size=8)
"""Settings of the training."""
VOICES = 3
"""Copies of each utterance: the original, and others with moved formants."""
FORMANTS = (0.8, 1.25)
"""Range of the factors on formants, one per utterance."""
SHARE_POWER = 0.5
"""Speakers are drawn in proportion to the length of their footage raised to this power."""
DAMPING = 1e-3
"""Damping of the least squares, relative to the mean square of the displacements."""


@dataclass(frozen=True)
class Prior:
    """Networks that move a generic mouth.

    Attributes:
        encoder: Name of the encoder.
        version: Its version.
        rate: Its feature vectors per second.
        ahead: Frames ahead that the networks depend on.
        config: Settings of the training.
        basis: Displacement of the MOUTH_POINTS by one unit of each output, [N_COMPONENTS, P, 2], in
            eye distances.
        nets: The networks.
        sources: The training data, with licenses.
    """

    encoder: str
    version: str
    rate: float
    ahead: int
    config: PredictorConfig
    basis: Float32
    nets: TemporalNets
    sources: tuple[str, ...]

    def belongs_to(self, encoder: SpeechEncoder) -> bool:
        """Check whether it was trained on the features of an encoder.

        Args:
            encoder: The encoder.

        Returns:
            True if name and version are the same.
        """
        return (self.encoder, self.version) == (encoder.name, encoder.version)

    def initialize(self, nets: TemporalNets, bases: Sequence[Float32]) -> None:
        """Set the initial weights of several people's networks.

        Args:
            nets: The networks, the same number for each person. Their weights are set in place to
                those of the prior's networks, in turn.
            bases: Displacement by one unit of each mouth code, [K, P, 2], of each person.

        Raises:
            TalkheadError: If the networks have another shape or other features.
        """
        n_each = len(nets) // len(bases)
        turn = torch.arange(n_each).remainder(len(self.nets)).repeat(len(bases))
        state = {name: values[turn] for name, values in self.nets.state_dict().items()}
        # Convert the last layer from the generic mouth to each person's codes.
        codes = torch.from_numpy(np.stack([project_basis(self.basis, basis) for basis in bases]))
        codes = codes.repeat_interleave(n_each, 0)  # [N, N_COMPONENTS, K]
        try:
            for name in ("last.weight", "last.bias"):
                state[name] = state[name] @ codes
            nets.load_state_dict(state)
        except RuntimeError as error:
            raise self._mismatch() from error
        if nets.ahead != self.ahead:
            raise self._mismatch()

    def _mismatch(self) -> TalkheadError:
        """Return the error for networks of another shape or other features."""
        return TalkheadError(
            f"this prior was trained for the encoder {self.encoder} and does not fit these features. "
            "Use a prior of the encoder you fit with, or none"
        )

    def tensors(self) -> dict[str, Tensor]:
        """Collect everything that a file stores.

        Returns:
            The JSON of _Facts as a uint8 tensor [n], `basis` [N_COMPONENTS, P, 2], and the
            networks' weights.
        """
        facts = {one.name: getattr(self, one.name) for one in fields(_Facts)}
        stored = {FACTS: json_tensor({**facts, "config": to_json(self.config)})}
        stored["basis"] = torch.from_numpy(self.basis)
        return stored | self.nets.tensors()


@dataclass(frozen=True)
class _Facts:
    """Fields of a Prior that are stored as JSON."""

    encoder: str
    version: str
    rate: float = field(metadata=limits(FRAME_RATE, 1000.0))
    ahead: int = field(metadata=limits(0, MAX_VIEW))
    sources: tuple[str, ...]
    config: PredictorConfig


def read_prior(path: Path) -> Prior:
    """Read a prior.

    Args:
        path: A file of this module.

    Returns:
        The prior, its networks in evaluation mode.

    Raises:
        TalkheadError: If the file is not a prior, or damaged.
    """
    tensors = read_tensors(path)
    with content_errors(
        path, "This is not a prior of a predictor, or it is damaged: train it again"
    ):
        facts = from_json(_Facts, read_json_tensor(tensors, FACTS))
        del tensors[FACTS]
        config = facts.config
        known = {
            "basis": TensorSpec((OUTPUTS, len(MOUTH_POINTS), 2)),
            FIRST: TensorSpec((config.n_members, INPUTS, config.width)),
        }
        sizes = check_tensors({k: t for k, t in tensors.items() if k in known}, known)
        shape = (sizes[INPUTS.name], sizes[OUTPUTS.name], facts.ahead)
        check_tensors(tensors, known | net_specs(config, *shape))
    nets = TemporalNets(config, *shape, config.n_members).load(tensors)
    return Prior(basis=tensors["basis"].numpy(), nets=nets, **vars(facts))


def shipped_prior(encoder: SpeechEncoder, config: PredictorConfig) -> Prior | None:
    """Load the prior that comes with talkhead, if it fits.

    Args:
        encoder: The encoder of the features.
        config: Architecture of the networks that start from it.

    Returns:
        The prior, or None if it is for another encoder or architecture.

    Raises:
        PackageError: If its file is missing or damaged.
    """
    prior = read_prior(resolve(WEIGHTS))
    alike = (prior.config.width, prior.config.layers) == (config.width, config.layers)
    return prior if alike and prior.belongs_to(encoder) else None


def mouth_basis(face: FaceModel) -> Float32:
    """Select the displacement of the MOUTH_POINTS on screen by one unit of each mouth code.

    Args:
        face: A face model.

    Returns:
        [K, P, 2], in eye distances.
    """
    return np.asarray(face.basis[: face.n_mouth, list(MOUTH_POINTS), :2])


def project_basis(components: Float32, basis: Float32) -> Float32:
    """Find the codes of a person that move the points as the given components do.

    Least squares, damped so that codes which hardly move anything stay small.

    Args:
        components: Wanted displacements, [N, P, 2].
        basis: Displacement by one unit of each of the person's codes, [K, P, 2].

    Returns:
        [N, K].
    """
    wanted, moves = (b.reshape(len(b), -1).astype(np.float64) for b in (components, basis))
    gram = moves @ moves.T
    gram += DAMPING * np.trace(gram) * np.eye(len(gram)) / len(gram)
    return np.asarray(np.linalg.solve(gram, moves @ wanted.T).T, dtype=np.float32)


# ------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Speaker:
    """Training data of one speaker, F frames.

    Attributes:
        vectors: Normalized features, [F * per_frame, D].
        mouth: Mouth points minus their mean, [F, P, 2].
        weights: Weight of each frame, [F].
        spread: Divisor of the features, [D].
    """

    vectors: Float32
    mouth: Float32
    weights: Float32
    spread: Float32


def train_prior(
    shards: Sequence[CorpusShard],
    encoder: SpeechEncoder,
    config: PredictorConfig,
    seed: int,
    progress: Progress,
) -> Prior:
    """Train a prior on the training split of shards with video.

    Args:
        shards: The corpus.
        encoder: The encoder that the prior is for.
        config: Settings of the training.
        seed: Determines weights, stretches and voices.
        progress: Shows the steps.

    Returns:
        The prior.

    Raises:
        TalkheadError: If no shard has video, or its points are not the MOUTH_POINTS.
    """
    speakers = [part for shard in shards for part in _speakers(shard, encoder, seed)]
    if not speakers:
        raise TalkheadError("no shard has mouths to train on. Build a corpus with video")
    n_vectors = vectors_per_frame(encoder.rate)
    view = receptive_field_of(config, n_vectors, encoder.rate, encoder.lookahead_s)
    mouth, vectors, weights = (
        np.concatenate([getattr(part, name) for part in speakers])
        for name in ("mouth", "vectors", "weights")
    )
    spread = np.mean([part.spread for part in speakers], axis=0)
    codes, basis = _components(mouth, weights > 0)
    margins = (view.behind * n_vectors, view.ahead * n_vectors)
    padded = np.pad(vectors[None], ((0, 0), margins, (0, 0)))
    shares = np.concatenate(
        [np.full(len(p.mouth), len(p.mouth) ** (SHARE_POWER - 1.0), np.float32) for p in speakers]
    )
    data = make_training_tensors(aligned_copy(padded), codes, weights, basis, spread, view, shares)
    held_out = torch.zeros(len(codes), dtype=torch.bool)  # nothing
    tasks = [Task(data, held_out, seed * 1000 + index) for index in range(config.n_members)]
    n_inputs = n_vectors * vectors.shape[1]
    with progress.step("Training the prior", total=config.n_steps) as step, single_threaded():
        torch.manual_seed(seed)
        nets = TemporalNets(config, n_inputs, len(basis), view.ahead, config.n_members)
        nets = train_nets(tasks, nets, config, step.advance)
    return Prior(
        encoder=encoder.name,
        version=encoder.version,
        rate=encoder.rate,
        ahead=view.ahead,
        config=config,
        basis=basis,
        nets=nets,
        sources=tuple(f"{s.source} ({s.licence})" for s in shards if len(s.mouth)),
    )


def _speakers(shard: CorpusShard, encoder: SpeechEncoder, seed: int) -> Iterator[Speaker]:
    """Yield the training data of each speaker of a shard, VOICES times.

    Features and mouth are normalized for each of them separately.

    Raises:
        TalkheadError: If the mouth points are not the MOUTH_POINTS.
    """
    if not len(shard.mouth):
        return
    if shard.mouth.shape[1:] != (len(MOUTH_POINTS), 2):
        raise TalkheadError(
            f"{shard.source}: mouths of {shard.mouth.shape[1]} points, not {len(MOUTH_POINTS)}. "
            "Build the corpus again"
        )
    training = shard.splits == SPLITS.index("train")
    for speaker in np.unique(shard.speakers[training]):
        spans = [
            (shard.starts[i], shard.starts[i + 1])
            for i in np.flatnonzero(training & (shard.speakers == speaker))
        ]
        random = np.random.default_rng(seed)
        yield _speaker(shard, spans, encoder, None)
        for _ in range(VOICES - 1):
            yield _speaker(shard, spans, encoder, random)


def _speaker(
    shard: CorpusShard,
    spans: list[tuple[int, int]],
    encoder: SpeechEncoder,
    random: np.random.Generator | None,
) -> Speaker:
    """Return the training data of some utterances, given by first frame and stop.

    Formants are moved if `random` is given. The first frame of each utterance has weight 0, so that
    motion between utterances is not learned.
    """
    per_frame = vectors_per_frame(encoder.rate)
    sounds = [
        shard.waveform[first * SAMPLES_PER_FRAME : stop * SAMPLES_PER_FRAME].astype(np.float32)
        / 32767.0
        for first, stop in spans
    ]
    if random is not None:
        factors = np.exp(random.uniform(np.log(FORMANTS[0]), np.log(FORMANTS[1]), len(sounds)))
        sounds = [change_formants(*pair) for pair in zip(sounds, factors.tolist(), strict=True)]
    loudness = measure_loudness(sounds)
    silent = silent_frames(loudness.energy_db)
    gain = np.float32(speech_gain(loudness.powers, silent))
    vectors, weights = [], []
    for sound, (first, stop) in zip(sounds, spans, strict=True):
        n = stop - first
        features = encoder.encode(gain * sound).values
        # The last vector is repeated until there are enough for the frames.
        vectors.append(features[np.arange(n * per_frame).clip(max=len(features) - 1)])
        weights.append((np.arange(n) > 0).astype(np.float32))
    values = np.concatenate(vectors).astype(np.float64)
    spread = feature_spread(values)
    mouth = np.concatenate([shard.mouth[first:stop] for first, stop in spans])
    tracked = np.isfinite(mouth).all((1, 2))
    weight = np.concatenate(weights) * np.where(silent[: len(tracked)], SILENCE_WEIGHT, 1.0)
    weight = weight * tracked
    mean = mouth[tracked].mean(0)
    return Speaker(
        vectors=((values - values.mean(0)) / spread).astype(np.float32),
        mouth=np.where(tracked[:, None, None], mouth - mean, 0.0).astype(np.float32),
        weights=weight.astype(np.float32),
        spread=spread,
    )


def _components(mouth: Float32, used: Bool) -> tuple[Float32, Float32]:
    """Compute principal components of mouths [F, P, 2]: codes [F, N] and basis [N, P, 2].

    They are scaled so that the first code has spread 1 in the frames that are used, [F].
    """
    flat: Float64 = mouth.reshape(len(mouth), -1).astype(np.float64)
    values, vectors = np.linalg.eigh(flat[used].T @ flat[used] / used.sum())
    leading = vectors[:, ::-1][:, :N_COMPONENTS].T
    scale = np.sqrt(values[-1])
    codes = flat @ leading.T / scale
    basis = (scale * leading).reshape(len(leading), -1, 2)
    return codes.astype(np.float32), basis.astype(np.float32)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train a prior and write it.

    Args:
        arguments: Command-line arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards", nargs="+", type=Path, help="files of a corpus with video")
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    shards = [read_shard(path) for path in given.shards]
    encoder = load_encoder(given.encoder)
    prior = train_prior(shards, encoder, CONFIG, given.seed, make_progress("bars"))
    write_tensors(given.output, prior.tensors())


if __name__ == "__main__":
    main()
