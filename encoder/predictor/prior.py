"""What mouths do when speech is heard, learned from other people: where a person's predictor begins.

    python -m talkhead.encoder.predictor.prior SHARD... --encoder NAME --output FILE [--seed 0]

Shards are files of a corpus with pictures (`talkhead.encoder.pase.corpus`). A prior belongs to one
encoder. It moves a mouth that is nobody's: points in eye distances on a face that holds still; least
squares carry it over into a person's mouth codes. It takes minutes on one core, and the same
shards, encoder and seed give the same file.
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
from talkhead.device import aligned
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
    alone,
    feature_spread,
    make_training_tensors,
    train_nets,
    vectors_per_frame,
)
from talkhead.encoder.registry import load_encoder
from talkhead.errors import TalkheadError
from talkhead.face import MAX_CODES, MOUTH_POINTS, FaceModel
from talkhead.progress import Progress, make_progress
from talkhead.storage import content_errors, read_tensors, write_tensors
from talkhead.tensors import Size, TensorSpec, check_tensors, json_in, json_tensor
from talkhead.types import FRAME_RATE, Bool, Float32, Float64
from talkhead.weights import resolve

WEIGHTS = "prior.safetensors"
FACTS, FIRST = "facts", f"{STORED}first.weight"
INPUTS, OUTPUTS = Size("inputs", 1, 1 << 16), Size("components", 1, MAX_CODES)
N_COMPONENTS = 20
"""Components of the mouth space, as many as a person's mouth code has."""
CONFIG = PredictorConfig(n_members=4, n_steps=2000, batch_size=8)
VOICES = 3
"""Times that all is learned from, but the first with other formants: one speaker is not everybody."""
FORMANTS = (0.8, 1.25)
"""Range of the factors on formants, one an utterance."""
DAMPING = 1e-3
"""Of the least squares into a person's codes, over the mean square of what a unit of code moves."""


@dataclass(frozen=True)
class Prior:
    """Nets that move a mouth which is nobody's.

    encoder, version, rate: of what they hear with. ahead: frames they see after their own. basis:
    [N_COMPONENTS, P, 2] what a unit of each output moves the MOUTH_POINTS, in eye distances.
    sources: what they learned from, and its licences.
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
        """Whether it learned from these very features."""
        return (self.encoder, self.version) == (encoder.name, encoder.version)

    def begin(self, nets: TemporalNets, bases: Sequence[Float32]) -> None:
        """Let nets of some people, as many of each, begin as the prior's in turn.

        bases: [K, P, 2] what each person's mouth codes move. Raises TalkheadError for nets that hear
        other features or have another shape.
        """
        n_each = len(nets) // len(bases)
        turn = torch.arange(n_each).remainder(len(self.nets)).repeat(len(bases))
        state = {name: values[turn] for name, values in self.nets.state_dict().items()}
        codes = torch.from_numpy(np.stack([carried_over(self.basis, basis) for basis in bases]))
        codes = codes.repeat_interleave(n_each, 0)
        try:
            if nets.ahead != self.ahead:
                raise ValueError(f"{nets.ahead} frames ahead, not {self.ahead}")
            for name in ("last.weight", "last.bias"):
                state[name] = state[name] @ codes
            nets.load_state_dict(state)
        except (RuntimeError, ValueError) as error:
            raise TalkheadError(
                f"this prior was trained for the encoder {self.encoder} and does not fit these "
                "features. Use a prior of the encoder you fit with, or none"
            ) from error

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a file must keep."""
        facts = {one.name: getattr(self, one.name) for one in fields(_Facts)}
        stored = {FACTS: json_tensor({**facts, "config": to_json(self.config)})}
        stored["basis"] = torch.from_numpy(self.basis)
        return stored | self.nets.tensors()


@dataclass(frozen=True)
class _Facts:
    """What a file says of a Prior beside its tensors."""

    encoder: str
    version: str
    rate: float = field(metadata=limits(FRAME_RATE, 1000.0))
    ahead: int = field(metadata=limits(0, MAX_VIEW))
    sources: tuple[str, ...]
    config: PredictorConfig


def read_prior(path: Path) -> Prior:
    """The prior in a file. Raises TalkheadError naming the file when it is none or damaged."""
    tensors = read_tensors(path)
    with content_errors(path, "This is no prior of a predictor, or a damaged one: train it again"):
        facts = from_json(_Facts, json_in(tensors, FACTS))
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
    """The prior that comes with talkhead if it learned from this encoder's features and its nets are
    of that shape, else None.

    Raises PackageError when it is missing or damaged.
    """
    prior = read_prior(resolve(WEIGHTS))
    alike = (prior.config.width, prior.config.layers) == (config.width, config.layers)
    return prior if alike and prior.belongs_to(encoder) else None


def mouth_basis(face: FaceModel) -> Float32:
    """What a unit of each mouth code moves the MOUTH_POINTS on screen, [K, P, 2] eye distances."""
    return np.asarray(face.basis[: face.n_mouth, list(MOUTH_POINTS), :2])


def carried_over(components: Float32, basis: Float32) -> Float32:
    """The person's codes [N, K] whose basis [K, P, 2] moves the points most like components [N, P, 2].

    Least squares, damped so that codes that hardly move anything stay small.
    """
    wanted, moves = (b.reshape(len(b), -1).astype(np.float64) for b in (components, basis))
    gram = moves @ moves.T
    gram += DAMPING * np.trace(gram) * np.eye(len(gram)) / len(gram)
    return np.asarray(np.linalg.solve(gram, moves @ wanted.T).T, dtype=np.float32)


# ------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Speaker:
    """One speaker of a corpus, F frames: vectors [F * per_frame, D] normalised features, mouth
    [F, P, 2] less its mean, weights [F] how much a frame counts; spread [D] of the features."""

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
    """A prior for that encoder from the training part of shards with pictures.

    Raises TalkheadError when no shard has any, or their points are not the MOUTH_POINTS.
    """
    footage = [part for shard in shards for part in _footage(shard, encoder, seed)]
    if not footage:
        raise TalkheadError("no shard holds mouths to learn from. Build a corpus with pictures")
    n_vectors = vectors_per_frame(encoder.rate)
    view = receptive_field_of(config, n_vectors, encoder.rate, encoder.lookahead_s)
    mouth, vectors, weights = (
        np.concatenate([getattr(part, name) for part in footage])
        for name in ("mouth", "vectors", "weights")
    )
    spread = np.mean([part.spread for part in footage], axis=0)
    codes, basis = _components(mouth, weights > 0)
    margins = (view.behind * n_vectors, view.ahead * n_vectors)
    padded = np.pad(vectors[None], ((0, 0), margins, (0, 0)))
    lesson = make_training_tensors(aligned(padded), codes, weights, basis, spread, view)
    nothing = torch.zeros(len(codes), dtype=torch.bool)
    tasks = [Task(lesson, nothing, seed * 1000 + index) for index in range(config.n_members)]
    n_inputs = n_vectors * vectors.shape[1]
    with progress.step("Learning the prior", total=config.n_steps) as step, alone():
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


def _footage(shard: CorpusShard, encoder: SpeechEncoder, seed: int) -> Iterator[Speaker]:
    """Each speaker of a shard's training part, in VOICES: everybody has a voice, a room and a face of
    their own."""
    if not len(shard.mouth):
        return
    if shard.mouth.shape[1:] != (len(MOUTH_POINTS), 2):
        raise TalkheadError(
            f"{shard.source}: mouths of {shard.mouth.shape[1]} points, not {len(MOUTH_POINTS)}. "
            "Build the corpus again"
        )
    learned = shard.splits == SPLITS.index("train")
    for speaker in np.unique(shard.speakers[learned]):
        spans = [
            (shard.starts[i], shard.starts[i + 1])
            for i in np.flatnonzero(learned & (shard.speakers == speaker))
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
    """Footage of utterances from frame to frame, of other formants where `random` draws them.

    The first frame of each counts nothing, so that no motion from one to the next is learned.
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
        heard = encoder.encode(gain * sound).values
        vectors.append(heard[np.arange(n * per_frame).clip(max=len(heard) - 1)])
        weights.append((np.arange(n) > 0).astype(np.float32))
    values = np.concatenate(vectors).astype(np.float64)
    spread = feature_spread(values)
    mouth = np.concatenate([shard.mouth[first:stop] for first, stop in spans])
    seen = np.isfinite(mouth).all((1, 2))
    weight = np.concatenate(weights) * np.where(silent[: len(seen)], SILENCE_WEIGHT, 1.0) * seen
    mean = mouth[seen].mean(0)
    return Speaker(
        vectors=((values - values.mean(0)) / spread).astype(np.float32),
        mouth=np.where(seen[:, None, None], mouth - mean, 0.0).astype(np.float32),
        weights=weight.astype(np.float32),
        spread=spread,
    )


def _components(mouth: Float32, used: Bool) -> tuple[Float32, Float32]:
    """Codes [F, N] of mouths [F, P, 2] and their basis [N, P, 2]: principal components, scaled so
    that the first has spread 1 on the frames used [F]."""
    flat: Float64 = mouth.reshape(len(mouth), -1).astype(np.float64)
    values, vectors = np.linalg.eigh(flat[used].T @ flat[used] / used.sum())
    leading = vectors[:, ::-1][:, :N_COMPONENTS].T
    scale = np.sqrt(values[-1])
    codes = flat @ leading.T / scale
    basis = (scale * leading).reshape(len(leading), -1, 2)
    return codes.astype(np.float32), basis.astype(np.float32)


def main() -> None:
    """Train a prior and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards", nargs="+", type=Path, help="files of a corpus with pictures")
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    shards = [read_shard(path) for path in given.shards]
    encoder = load_encoder(given.encoder)
    prior = train_prior(shards, encoder, CONFIG, given.seed, make_progress("bars"))
    write_tensors(given.output, prior.tensors())


if __name__ == "__main__":
    main()
