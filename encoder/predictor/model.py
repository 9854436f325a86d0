"""Speech features -> mouth codes: a small ensemble of bounded view, fitted per person.

Whatever the length, prediction runs in blocks of BLOCK frames with their context, on a fixed grid:
so an hour of speech takes the memory of a minute, and pieces equal the whole bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from talkhead.device import aligned
from talkhead.encoder.predictor.network import (
    MAX_VIEW,
    STORED,
    PredictorConfig,
    ReceptiveField,
    TemporalNets,
    frame_inputs,
    net_specs,
    receptive_field_of,
    whole_view,
)
from talkhead.encoder.predictor.prior import Prior, mouth_basis
from talkhead.encoder.predictor.training import (
    MIN_DIVISOR,
    SILENCE_WEIGHT,
    Task,
    TrainingTensors,
    alone,
    feature_spread,
    lip_distance,
    make_training_tensors,
    predicted_codes,
    train_nets,
    vectors_per_frame,
)
from talkhead.errors import TalkheadError
from talkhead.face import MAX_CODE, MAX_CODES, FaceModel
from talkhead.progress import Progress
from talkhead.storage import ContentError
from talkhead.tensors import Size, TensorSpec, check_tensors, prefixed, within
from talkhead.types import FRAME_RATE, Bool, Float32, Float64, Int, SpeechFeatures

BLOCK = 250
"""Frames predicted at a time."""
SETTLING_FRAMES = 20
STIRRING_FRAMES = 4
"""Frames after speech and before it that are left to the nets though nothing sounds: in short
pauses people breathe with the mouth open, and they open it before the first sound."""
CLOSING_FRAMES = 2
"""Frames over which the mouth goes to rest, and leaves it: STIRRING_FRAMES before speech it has left
it."""
GAINS = tuple(1.0 + 0.05 * step for step in range(9))
MAX_GAIN_ERROR = 0.015
"""By how much the lips' error on held-out frames may grow for motion as large as the person's."""
HELD_OUT = 0.1
"""Share of the training frames that each net leaves out, so that there are some to judge nets on."""
MIN_FRAMES = 100
RANGE_PERCENT = (0.2, 99.8)
"""Percentiles of the training codes that predicted codes stay between."""


MAX_RATE = 1000.0
"""Feature vectors a second."""
MAX_GAIN = 10.0
FEATURES = Size("D", 1, 4096)
MOUTH_CODES, ALL_CODES = Size("K", 1, MAX_CODES), Size("R", 1, MAX_CODES)
SCALING = "scaling."
"""What the names of a Scaling's tensors begin with."""
SCALING_TENSORS = {
    "rate": TensorSpec((), least=FRAME_RATE, most=MAX_RATE),
    "ahead": TensorSpec((), torch.int64, least=0, most=MAX_VIEW),
    "mean": TensorSpec((FEATURES,)),
    "spread": TensorSpec((FEATURES,), least=MIN_DIVISOR / 2),
    "centre": TensorSpec((MOUTH_CODES,), least=-MAX_CODE, most=MAX_CODE),
    "low": TensorSpec((MOUTH_CODES,), least=-MAX_CODE, most=MAX_CODE),
    "high": TensorSpec((MOUTH_CODES,), least=-MAX_CODE, most=MAX_CODE),
    "rest": TensorSpec((ALL_CODES,), least=-MAX_CODE, most=MAX_CODE),
    "gain": TensorSpec((), least=0.0, most=MAX_GAIN),
    "held_out": TensorSpec((), least=0.0, is_finite=False),
}


@dataclass(frozen=True)
class Scaling:
    """What a predictor knows of its person besides the nets' weights.

    rate: of the features. ahead: frames that a net sees after its own. mean, spread: [D] of the
    features. centre: [K] mean mouth code. low, high: [K] range of mouth codes in training. rest:
    [n_codes] the code at rest. gain: factor on what the nets predict, against their timidity.
    held_out: lip distance on training frames by nets that have not seen them, over the lips' typical
    motion.
    """

    rate: float
    ahead: int
    mean: Float32
    spread: Float32
    centre: Float32
    low: Float32
    high: Float32
    rest: Float32
    gain: float
    held_out: float

    @property
    def vectors_per_frame(self) -> int:
        return vectors_per_frame(self.rate)

    @property
    def n_inputs(self) -> int:
        """Values a net hears of one video frame."""
        return len(self.mean) * self.vectors_per_frame

    def normalized(self, values: Float32) -> Float32:
        """Features [n, D] with mean 0 and spread 1 in training."""
        return np.asarray((values - self.mean) / self.spread, dtype=np.float32)


@dataclass(frozen=True)
class MotionPredictor:
    """A person's speech -> motion."""

    config: PredictorConfig
    scaling: Scaling
    nets: TemporalNets

    def predict(self, features: SpeechFeatures, silent: Bool, n_frames: int) -> Float32:
        """Motion codes [n_frames, n_codes], eyes at zero, at rest where the audio is silent.

        silent: [F] video frames without speech; frames past its end count as silent. Raises
        TalkheadError for features of another rate or dimension than those fitted.
        """
        if features.rate != self.scaling.rate:
            raise TalkheadError(
                f"features at {features.rate:g} vectors a second; the predictor was fitted on "
                f"{self.scaling.rate:g}. Use the encoder it was fitted with"
            )
        blocks = list(self.predict_chunks([features.values], silent, n_frames))
        empty = np.zeros((0, len(self.scaling.rest)), np.float32)
        return np.concatenate([empty, *blocks])

    def predict_chunks(
        self, chunks: Iterable[Float32], silent: Bool, n_frames: int
    ) -> Iterator[Float32]:
        """The same codes [n, n_codes], piece by piece, of features that come in chunks [m, D]."""
        share = rest_share(silent, n_frames)[:, None]
        start = 0
        for window in self._windows(chunks, n_frames):
            n = min(BLOCK, n_frames - start)
            codes = self._speaking(window)[:n]
            weight = share[start : start + n]
            result = weight * self.scaling.rest
            result[:, : codes.shape[1]] += (1.0 - weight) * codes
            start += n
            yield result

    @property
    def view(self) -> ReceptiveField:
        """What a net sees besides its own frame."""
        return ReceptiveField(
            whole_view(self.config.layers) - self.scaling.ahead, self.scaling.ahead
        )

    def _windows(self, chunks: Iterable[Float32], n_frames: int) -> Iterator[Float32]:
        """Normalised features [(behind + BLOCK + ahead) * vectors_per_frame, D] of each block.

        Before the first vector stands the first, after the last one the last.
        """
        source = iter(chunks)
        per_frame = self.scaling.vectors_per_frame
        before, after = (n * per_frame for n in (self.view.behind, self.view.ahead))
        step = BLOCK * per_frame
        size = before + step + after
        held = np.zeros((0, len(self.scaling.mean)), np.float32)
        for start in range(0, n_frames, BLOCK):
            first = start == 0
            held = _filled(held, source, size - first * before)
            if held.shape[1] != len(self.scaling.mean) or len(held) == 0:
                raise TalkheadError(
                    f"features of shape {held.shape}; the predictor was fitted on "
                    f"[F, {len(self.scaling.mean)}]. Use the encoder it was fitted with"
                )
            if first:
                held = np.concatenate([np.repeat(held[:1], before, axis=0), held])
            missing = max(0, size - len(held))
            whole = np.concatenate([held, np.repeat(held[-1:], missing, axis=0)])
            yield self.scaling.normalized(whole[:size])
            held = whole[step:] if missing else held[step:]

    def _speaking(self, window: Float32) -> Float32:
        """Mouth codes [BLOCK, K] as if nothing were silent."""
        inputs = frame_inputs(aligned(window), self.scaling.vectors_per_frame)[None]
        with torch.no_grad():
            mean = self.nets(inputs.expand(len(self.nets), -1, -1, -1))[:, 0].mean(0)
        codes = self.scaling.centre + self.scaling.gain * mean.numpy()
        return np.asarray(np.clip(codes, self.scaling.low, self.scaling.high), dtype=np.float32)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a package must keep."""
        scaling = {SCALING + k: torch.tensor(v) for k, v in vars(self.scaling).items()}
        return scaling | self.nets.tensors()

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], config: PredictorConfig
    ) -> MotionPredictor:
        """A predictor back from tensors(). Raises ContentError for any that tensors() doesn't give."""
        scaling = _scaling_of({k: t for k, t in tensors.items() if not k.startswith(STORED)})
        shape = (scaling.n_inputs, len(scaling.centre), scaling.ahead)
        nets = {k: t for k, t in tensors.items() if k.startswith(STORED)}
        check_tensors(nets, net_specs(config, *shape))
        return cls(config, scaling, TemporalNets(config, *shape, config.n_members).load(nets))


def _scaling_of(tensors: Mapping[str, Tensor]) -> Scaling:
    """The scaling that a predictor keeps under names of SCALING. Raises ContentError."""
    sizes = check_tensors(tensors, prefixed(SCALING_TENSORS, SCALING))
    if sizes[MOUTH_CODES.name] > sizes[ALL_CODES.name]:
        raise ContentError("the mouth has more components than the whole motion code")
    known: dict[str, Any] = {
        name: value.numpy() if value.ndim else value.item()
        for name, value in within(tensors, SCALING).items()
    }
    scaling = Scaling(**known)
    if scaling.rate % FRAME_RATE:
        raise ContentError(f"features at {scaling.rate:g} a second, no multiple of {FRAME_RATE}")
    return scaling


def rest_share(silent: Bool, n_frames: int) -> Float32:
    """How far [n_frames] the mouth is at rest: 0 in speech, 1 well inside silence, smooth between.

    silent: [F] video frames without speech; silence is taken to go on beyond both ends.
    """
    flags = np.ones(n_frames, dtype=bool)
    flags[: len(silent)] = silent[:n_frames]
    since, until = _frames_since(~flags), _frames_since(~flags[::-1])[::-1]
    settled = (since - SETTLING_FRAMES) / CLOSING_FRAMES
    unstirred = (until - STIRRING_FRAMES) / CLOSING_FRAMES
    share = np.clip(np.minimum(settled, unstirred), 0.0, 1.0)
    return np.asarray(share * share * (3.0 - 2.0 * share), dtype=np.float32)


def _frames_since(flags: Bool) -> Float64:
    """Frames [F] since the last True, infinite before the first."""
    index = np.arange(len(flags))
    last = np.maximum.accumulate(np.where(flags, index, -1))
    return np.where(last >= 0, index - last, np.inf)


def _filled(held: Float32, source: Iterator[Float32], n_wanted: int) -> Float32:
    """What is held and as much of the source as makes n_wanted vectors, or all there are."""
    parts, n = [held] if len(held) else [], len(held)
    while n < n_wanted:
        chunk = next(source, None)
        if chunk is None:
            break
        parts.append(chunk)
        n += len(chunk)
    return np.concatenate(parts) if parts else held


@dataclass(frozen=True)
class PredictorTrainingData:
    """What a predictor learns from, F frames.

    features: of the sound. codes: [F, n_codes] tracked. train: [F] frames to learn from; nothing of
    the others is read. silent: [F] video frames without speech. otherwise: features of the same
    sound as it might have been, see `talkhead.encoder.predictor.augmented`.
    """

    features: SpeechFeatures
    codes: Float32
    train: Bool
    silent: Bool
    face: FaceModel
    otherwise: Sequence[SpeechFeatures] = ()


def fit_predictor(
    footage: PredictorTrainingData,
    config: PredictorConfig,
    seed: int,
    progress: Progress,
    prior: Prior | None = None,
) -> MotionPredictor:
    """A predictor of a person's mouth codes.

    prior: where the nets begin instead of at random. Raises TalkheadError when there is too little to
    learn from, and for a prior of another encoder. On a CPU the same seed gives the same predictor, bit
    for bit.
    """
    return fit_predictors([footage], config, seed, progress, prior)[0]


def fit_predictors(
    footages: Sequence[PredictorTrainingData],
    config: PredictorConfig,
    seed: int,
    progress: Progress,
    prior: Prior | None = None,
) -> list[MotionPredictor]:
    """A predictor for each piece of footage, heard by one encoder, all fitted at once; else as
    fit_predictor.

    None learns from another's footage. First weights and dropout are drawn for all together: fitted
    with others, a predictor differs from one fitted alone as another seed's does.
    """
    drafts = [_draft(footage, config) for footage in footages]
    n_nets, first = config.n_members, drafts[0].scaling
    shape = (first.n_inputs, len(first.centre), first.ahead)
    tasks = [
        Task(draft.lesson, block, seed * 1000 + index)
        for draft in drafts
        for index, block in enumerate(draft.blocks)
    ]
    with progress.step("Learning the mouth", total=config.n_steps) as step, alone():
        torch.manual_seed(seed)
        nets = TemporalNets(config, *shape, n_nets=len(tasks))
        if prior is not None:
            prior.begin(nets, [mouth_basis(footage.face) for footage in footages])
        nets = train_nets(tasks, nets, config, step.advance)
        return [
            _learned(draft, nets.part(slice(i * n_nets, (i + 1) * n_nets)), config)
            for i, draft in enumerate(drafts)
        ]


class _Draft(NamedTuple):
    """A predictor to be. blocks: what each of its nets leaves out, [F] bool."""

    scaling: Scaling
    lesson: TrainingTensors
    blocks: list[Tensor]


def _draft(footage: PredictorTrainingData, config: PredictorConfig) -> _Draft:
    if footage.train.sum() < MIN_FRAMES:
        raise TalkheadError(
            f"{footage.train.sum()} frames of usable footage are too few to learn speech from; "
            f"{MIN_FRAMES} are needed. Record a longer video"
        )
    features = footage.features
    view = receptive_field_of(
        config, vectors_per_frame(features.rate), features.rate, features.lookahead_s
    )
    scaling = _scaling(footage, view)
    blocks = list(_blocks(footage.train, config.n_members))
    return _Draft(scaling, _training_tensors(footage, scaling, view), blocks)


def _learned(draft: _Draft, nets: TemporalNets, config: PredictorConfig) -> MotionPredictor:
    """The predictor of trained nets, as bold as frames allow that they have not seen."""
    timid = torch.zeros_like(draft.lesson.targets)
    judged = torch.zeros(len(timid), dtype=torch.bool)
    for codes, held_out in zip(predicted_codes(draft.lesson, nets), draft.blocks, strict=True):
        timid[held_out] = codes[held_out]
        judged |= held_out
    gain, distance = _calibrate_gain(timid, draft.lesson, judged)
    return MotionPredictor(config, replace(draft.scaling, gain=gain, held_out=distance), nets)


def _scaling(footage: PredictorTrainingData, view: ReceptiveField) -> Scaling:
    features, face = footage.features, footage.face
    heard = features.values[_vectors_of(footage.train, features)].astype(np.float64)
    mouth = footage.codes[footage.train, : face.n_mouth].astype(np.float64)
    low, high = np.percentile(mouth, RANGE_PERCENT, axis=0)
    return Scaling(
        rate=features.rate,
        ahead=view.ahead,
        mean=heard.mean(0).astype(np.float32),
        spread=feature_spread(heard),
        centre=mouth.mean(0).astype(np.float32),
        low=low.astype(np.float32),
        high=high.astype(np.float32),
        rest=face.silence.astype(np.float32),
        gain=1.0,
        held_out=0.0,
    )


def _training_tensors(
    footage: PredictorTrainingData, scaling: Scaling, view: ReceptiveField
) -> TrainingTensors:
    hearings = (footage.features, *footage.otherwise)
    n_frames, per_frame = len(footage.codes), scaling.vectors_per_frame
    train, face = footage.train, footage.face
    n_vectors = (view.behind + n_frames + view.ahead) * per_frame
    vectors = torch.zeros(len(hearings), n_vectors, len(scaling.mean))
    for heard, features in zip(vectors.numpy(), hearings, strict=True):
        used = _vectors_of(train, features)
        heard[used + view.behind * per_frame] = scaling.normalized(features.values[used])
    targets = np.zeros((n_frames, face.n_mouth), np.float32)
    targets[train] = footage.codes[train, : face.n_mouth] - scaling.centre
    weights = np.zeros(n_frames, np.float32)
    weights[train] = np.where(footage.silent[train], SILENCE_WEIGHT, 1.0)
    return make_training_tensors(vectors, targets, weights, mouth_basis(face), scaling.spread, view)


def _vectors_of(frames: Bool, features: SpeechFeatures) -> Int:
    """Which feature vectors belong to some of the frames [F]."""
    used = np.flatnonzero(np.repeat(frames, vectors_per_frame(features.rate)))
    return used[used < len(features)]


def _blocks(train: Bool, n_blocks: int) -> Iterator[Tensor]:
    """A block of HELD_OUT of the training frames for each of n_blocks equal parts, as [F] bool."""
    for part in np.array_split(np.flatnonzero(train), n_blocks):
        spare = round(len(part) * max(0.0, 1.0 - HELD_OUT * n_blocks)) // 2
        block = torch.zeros(len(train), dtype=torch.bool)
        block[torch.from_numpy(part[spare : len(part) - spare])] = True
        yield block


def _calibrate_gain(timid: Tensor, lesson: TrainingTensors, judged: Tensor) -> tuple[float, float]:
    """The largest of GAINS on codes [F, K] that costs at most MAX_GAIN_ERROR on the frames judged [F],
    and the lip distance there.

    Nets that learn from little shrink every motion towards the mean; a mouth that moves as far as
    the person's looks more right than its distance says.
    """
    weights = lesson.weights * judged
    errors = [
        float(lip_distance(((gain * timid - lesson.targets) @ lesson.lips)[None], weights[None]))
        for gain in GAINS
    ]
    allowed = (1.0 + MAX_GAIN_ERROR) * min(errors)
    return max((g, error) for g, error in zip(GAINS, errors, strict=True) if error <= allowed)
