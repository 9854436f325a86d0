"""Motion predictor: speech features to mouth codes, by a small ensemble of networks fitted per person.

Prediction runs in blocks of BLOCK frames with their context, on a fixed grid. So an hour of speech
takes no more memory than a minute, and features that arrive in chunks give exactly the same codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from talkhead.device import aligned_copy
from talkhead.encoder.predictor.lip_range import LIP_RANGE, LipRange, fit_lip_range, scale_motion
from talkhead.encoder.predictor.network import (
    MAX_VIEW,
    STORED,
    PredictorConfig,
    ReceptiveField,
    TemporalNets,
    frame_inputs,
    net_specs,
    receptive_field_of,
    receptive_frames,
)
from talkhead.encoder.predictor.prior import Prior, mouth_basis
from talkhead.encoder.predictor.rest import rest_share, speech_share
from talkhead.encoder.predictor.training import (
    MIN_DIVISOR,
    SILENCE_WEIGHT,
    Task,
    TrainingTensors,
    feature_spread,
    lip_distance,
    make_training_tensors,
    predicted_codes,
    single_threaded,
    train_nets,
    vectors_per_frame,
)
from talkhead.encoder.predictor.voices import OtherVoices
from talkhead.errors import TalkheadError
from talkhead.face import MAX_CODE, MAX_CODES, FaceModel
from talkhead.progress import Progress
from talkhead.storage import ContentError
from talkhead.tensors import Size, TensorSpec, add_prefix, check_tensors, strip_prefix
from talkhead.types import FRAME_RATE, Bool, Float32, Int, SpeechFeatures

BLOCK = 250
"""Frames predicted at a time."""
GAINS = tuple(1.0 + 0.05 * step for step in range(9))
"""Gains among which the best is chosen."""
MAX_GAIN_ERROR = 0.015
"""Relative increase of the lips' error on held-out frames that a larger gain may cause."""
HELD_OUT = 0.1
"""Share of the training frames that each network leaves out, for evaluation."""
MIN_FRAMES = 100
"""Smallest number of training frames."""
RANGE_PERCENT = (0.2, 99.8)
"""Percentiles of the training codes that limit predicted codes."""


MAX_RATE = 1000.0
"""Most feature vectors per second that a stored predictor may have."""
MAX_GAIN = 10.0
"""Largest gain that a stored predictor may have."""
FEATURES = Size("D", 1, 4096)
MOUTH_CODES, ALL_CODES = Size("K", 1, MAX_CODES), Size("R", 1, MAX_CODES)
SCALING = "scaling."
"""Prefix of the names of a Scaling's tensors."""
SCALING_TENSORS = {
    "rate": TensorSpec((), minimum=FRAME_RATE, maximum=MAX_RATE),
    "ahead": TensorSpec((), torch.int64, minimum=0, maximum=MAX_VIEW),
    "mean": TensorSpec((FEATURES,)),
    "spread": TensorSpec((FEATURES,), minimum=MIN_DIVISOR / 2),
    "centre": TensorSpec((MOUTH_CODES,), minimum=-MAX_CODE, maximum=MAX_CODE),
    "low": TensorSpec((MOUTH_CODES,), minimum=-MAX_CODE, maximum=MAX_CODE),
    "high": TensorSpec((MOUTH_CODES,), minimum=-MAX_CODE, maximum=MAX_CODE),
    "rest": TensorSpec((ALL_CODES,), minimum=-MAX_CODE, maximum=MAX_CODE),
    "gain": TensorSpec((), minimum=0.0, maximum=MAX_GAIN),
    "held_out": TensorSpec((), minimum=0.0, is_finite=False),
}
"""Shape and range of each tensor of a Scaling."""


@dataclass(frozen=True)
class Scaling:
    """Everything in a predictor except its configuration and the networks' weights.

    Attributes:
        rate: Feature vectors per second.
        ahead: Frames ahead that a network depends on.
        mean: Mean of the features, [D].
        spread: Divisor of the features, [D].
        centre: Mean mouth code, [K].
        low: Smallest mouth code, [K].
        high: Largest mouth code, [K].
        rest: Motion code at rest, [n_codes].
        gain: Factor on the networks' output, whose motion is too small on average.
        held_out: Lip distance on training frames by networks that left them out, relative to the
            typical lip motion.
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
        """Feature vectors per video frame."""
        return vectors_per_frame(self.rate)

    @property
    def n_inputs(self) -> int:
        """Values per video frame that a network takes."""
        return len(self.mean) * self.vectors_per_frame

    def normalized(self, values: Float32) -> Float32:
        """Normalize features.

        Args:
            values: [n, D].

        Returns:
            [n, D] with mean 0 and spread about 1 in training.
        """
        return np.asarray((values - self.mean) / self.spread, dtype=np.float32)


@dataclass(frozen=True)
class MotionPredictor:
    """Maps speech features to a person's motion codes.

    Attributes:
        config: Architecture of the networks.
        scaling: Normalization of features and codes.
        nets: The networks.
        lip_range: Corrects how far the lips move. None: they move as predicted.
    """

    config: PredictorConfig
    scaling: Scaling
    nets: TemporalNets
    lip_range: LipRange | None = None

    def predict(
        self, features: SpeechFeatures, silent: Bool, n_frames: int, intensity: float = 1.0
    ) -> Float32:
        """Predict the motion codes of a waveform.

        Args:
            features: Its features, whose values are [n, D].
            silent: Video frames without speech, [F]. Frames after its end count as silent.
            n_frames: Video frames to predict.
            intensity: Factor on the motion of the mouth; closed lips stay closed.

        Returns:
            [n_frames, n_codes], with the mouth at rest in silence and all other codes 0 in speech.

        Raises:
            TalkheadError: For features of a different rate or dimension than the predictor was
                fitted with.
        """
        if features.rate != self.scaling.rate:
            raise TalkheadError(
                f"features at {features.rate:g} vectors per second; the predictor was fitted on "
                f"{self.scaling.rate:g}. Use the encoder it was fitted with"
            )
        blocks = list(self.predict_chunks([features.values], silent, n_frames, intensity))
        empty = np.zeros((0, len(self.scaling.rest)), np.float32)
        return np.concatenate([empty, *blocks])

    def predict_chunks(
        self, chunks: Iterable[Float32], silent: Bool, n_frames: int, intensity: float = 1.0
    ) -> Iterator[Float32]:
        """Predict motion codes from features that arrive in chunks.

        Args:
            chunks: Consecutive feature vectors, each chunk [m, D].
            silent: Video frames without speech, [F]. Frames after its end count as silent.
            n_frames: Video frames to predict.
            intensity: As in `predict`.

        Yields:
            Codes [n, n_codes]; concatenated, those of `predict`.

        Raises:
            TalkheadError: For features of a different dimension than the predictor was fitted with.
        """
        share = rest_share(silent, n_frames)[:, None]
        line = None if self.lip_range is None else self.lip_range.line()
        near, spoken = speech_share(silent, n_frames), np.zeros(n_frames, dtype=bool)
        spoken[: len(silent)] = ~silent[:n_frames]
        low, high, start = self.scaling.low, self.scaling.high, 0
        rest = self.scaling.rest[: len(low)]
        for window in self._windows(chunks, n_frames):
            n = min(BLOCK, n_frames - start)
            part, codes = slice(start, start + n), self._predict_block(window)[:n]
            codes = codes if line is None else line.correct(codes, near[part], spoken[part])
            codes = np.clip(codes, low, high)
            codes = scale_motion(codes, rest, self.lip_range, intensity)
            weight = share[part]
            result = weight * self.scaling.rest
            result[:, : codes.shape[1]] += (1.0 - weight) * codes
            start += n
            yield result

    def raw_codes(self, features: SpeechFeatures, n_frames: int) -> Float32:
        """Predict mouth codes without correction, limits and rest.

        Args:
            features: Features, whose values are [n, D].
            n_frames: Video frames to predict, 1 or more.

        Returns:
            [n_frames, K].
        """
        windows = self._windows([features.values], n_frames)
        return np.concatenate([self._predict_block(window) for window in windows])[:n_frames]

    @property
    def view(self) -> ReceptiveField:
        """Receptive field of the networks."""
        return ReceptiveField(
            receptive_frames(self.config.layers) - self.scaling.ahead, self.scaling.ahead
        )

    def _windows(self, chunks: Iterable[Float32], n_frames: int) -> Iterator[Float32]:
        """Yield the normalized features of each block of frames, with their context.

        [(behind + BLOCK + ahead) * vectors_per_frame, D] each. The first vector is repeated before
        the beginning, and the last one after the end.

        Raises:
            TalkheadError: For features of another dimension, or none.
        """
        source = iter(chunks)
        per_frame = self.scaling.vectors_per_frame
        # The window's vectors before, in and after a block; those still needed stay for the next.
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

    def _predict_block(self, window: Float32) -> Float32:
        """Predict mouth codes [BLOCK, K] from normalized features [m, D], without limits and rest."""
        inputs = frame_inputs(aligned_copy(window), self.scaling.vectors_per_frame)[None]
        with torch.no_grad():
            mean = self.nets(inputs.expand(len(self.nets), -1, -1, -1))[:, 0].mean(0)
        codes = self.scaling.centre + self.scaling.gain * mean.numpy()
        return np.asarray(codes, dtype=np.float32)

    def tensors(self) -> dict[str, Tensor]:
        """Collect everything that a package stores.

        Returns:
            The tensors of the Scaling (scalars, [D], [K] and [n_codes]), whose names begin with SCALING;
            those of the networks (`TemporalNets.tensors`); and, if there is a LipRange, its tensors,
            whose names begin with LIP_RANGE.
        """
        scaling = {SCALING + k: torch.tensor(v) for k, v in vars(self.scaling).items()}
        lips = {} if self.lip_range is None else self.lip_range.tensors()
        return scaling | lips | self.nets.tensors()

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], config: PredictorConfig
    ) -> MotionPredictor:
        """Restore a predictor.

        Args:
            tensors: As returned by `tensors`: scalars, [D], [K] and [n_codes] of the Scaling, [MEASURES],
                [MEASURES, K] and [MEASURES, N_LEVELS] of the LipRange, and the networks' weights.
            config: Its configuration.

        Returns:
            The predictor, in evaluation mode.

        Raises:
            ContentError: For tensors with other names, shapes or types.
        """
        lips = {k: t for k, t in tensors.items() if k.startswith(LIP_RANGE)}
        others = (STORED, LIP_RANGE)
        scaling = _scaling_of({k: t for k, t in tensors.items() if not k.startswith(others)})
        lip_range = LipRange.from_tensors(lips, len(scaling.centre)) if lips else None
        shape = (scaling.n_inputs, len(scaling.centre), scaling.ahead)
        nets = {k: t for k, t in tensors.items() if k.startswith(STORED)}
        check_tensors(nets, net_specs(config, *shape))
        members = TemporalNets(config, *shape, config.n_members).load(nets)
        return cls(config, scaling, members, lip_range)


def _scaling_of(tensors: Mapping[str, Tensor]) -> Scaling:
    """Restore a Scaling from scalars, [D], [K] and [n_codes], under names that begin with SCALING.

    Raises:
        ContentError: For tensors that are not those of a Scaling.
    """
    sizes = check_tensors(tensors, add_prefix(SCALING_TENSORS, SCALING))
    if sizes[MOUTH_CODES.name] > sizes[ALL_CODES.name]:
        raise ContentError("the mouth has more components than the whole motion code")
    known: dict[str, Any] = {
        name: value.numpy() if value.ndim else value.item()
        for name, value in strip_prefix(tensors, SCALING).items()
    }
    scaling = Scaling(**known)
    if scaling.rate % FRAME_RATE:
        raise ContentError(
            f"features at {scaling.rate:g} per second, which is not a multiple of {FRAME_RATE}"
        )
    return scaling


def _filled(held: Float32, source: Iterator[Float32], n_wanted: int) -> Float32:
    """Return the vectors [m, D] so far, and more from the source until there are n_wanted or it ends."""
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
    """A clip of F frames that a predictor is fitted on.

    Attributes:
        features: Features of its audio.
        codes: Tracked motion codes, [F, n_codes].
        train: Frames to train on, [F]; codes and features of others are not used.
        silent: Video frames without speech, [F].
        face: The person's face model.
        augmented: Features of augmented copies of the audio
            (`talkhead.encoder.predictor.augmented`).
        voices: Other people's speech, by which the range of the lips is corrected; None to skip this.
    """

    features: SpeechFeatures
    codes: Float32
    train: Bool
    silent: Bool
    face: FaceModel
    augmented: Sequence[SpeechFeatures] = ()
    voices: OtherVoices | None = None


def fit_predictor(
    data: PredictorTrainingData,
    config: PredictorConfig,
    seed: int,
    progress: Progress,
    prior: Prior | None = None,
) -> MotionPredictor:
    """Fit a predictor of a person's mouth codes.

    Args:
        data: The clip to fit it on.
        config: Architecture and training.
        seed: On a CPU, the same seed gives the same predictor, bit for bit.
        progress: Shows the steps.
        prior: Weights to start from; None to start from random ones.

    Returns:
        The predictor.

    Raises:
        TalkheadError: For too few training frames, for an encoder with too long a look-ahead, and
            for a prior of another encoder.
    """
    return fit_predictors([data], config, seed, progress, prior)[0]


def fit_predictors(
    clips: Sequence[PredictorTrainingData],
    config: PredictorConfig,
    seed: int,
    progress: Progress,
    prior: Prior | None = None,
) -> list[MotionPredictor]:
    """Fit predictors for several clips at once; each is trained on its own clip alone.

    Initial weights and dropout are drawn for all together, so a predictor that is fitted together
    with others differs from one that is fitted alone, as if the seed were different.

    Args:
        clips: The clips, whose features are all of the same encoder.
        config: Architecture and training.
        seed: On a CPU, the same seed gives the same predictors, bit for bit.
        progress: Shows the steps.
        prior: Weights to start from; None to start from random ones.

    Returns:
        A predictor for each clip.

    Raises:
        TalkheadError: As for `fit_predictor`.
    """
    drafts = [_draft(clip, config) for clip in clips]
    n_nets, first = config.n_members, drafts[0].scaling
    shape = (first.n_inputs, len(first.centre), first.ahead)
    tasks = [
        Task(draft.data, block, seed * 1000 + index)
        for draft in drafts
        for index, block in enumerate(draft.blocks)
    ]
    with progress.step("Fitting the predictor", total=config.n_steps) as step, single_threaded():
        torch.manual_seed(seed)
        nets = TemporalNets(config, *shape, n_nets=len(tasks))
        if prior is not None:
            prior.initialize(nets, [mouth_basis(clip.face) for clip in clips])
        nets = train_nets(tasks, nets, config, step.advance)
        return [
            _finish(clip, draft, nets.part(slice(i * n_nets, (i + 1) * n_nets)), config)
            for i, (clip, draft) in enumerate(zip(clips, drafts, strict=True))
        ]


class _Draft(NamedTuple):
    """A predictor before its networks are trained.

    Attributes:
        scaling: Without gain and held-out error.
        data: Training data.
        blocks: Frames that each network leaves out, [F] bool.
    """

    scaling: Scaling
    data: TrainingTensors
    blocks: list[Tensor]


def _draft(clip: PredictorTrainingData, config: PredictorConfig) -> _Draft:
    """Prepare the training of a clip's networks.

    Raises:
        TalkheadError: For too few training frames or too long a look-ahead.
    """
    if clip.train.sum() < MIN_FRAMES:
        raise TalkheadError(
            f"{clip.train.sum()} usable frames of footage are too few to fit a predictor; "
            f"{MIN_FRAMES} are needed. Record a longer video"
        )
    features = clip.features
    view = receptive_field_of(
        config, vectors_per_frame(features.rate), features.rate, features.lookahead_s
    )
    scaling = _scaling(clip, view)
    blocks = list(_blocks(clip.train, config.n_members))
    return _Draft(scaling, _training_tensors(clip, scaling, view), blocks)


def _finish(
    clip: PredictorTrainingData, draft: _Draft, nets: TemporalNets, config: PredictorConfig
) -> MotionPredictor:
    """Calibrate trained networks on the frames that they left out, and on other voices."""
    shrunken = torch.zeros_like(draft.data.targets)  # [F, K]
    evaluated = torch.zeros(len(shrunken), dtype=torch.bool)
    for codes, held_out in zip(predicted_codes(draft.data, nets), draft.blocks, strict=True):
        shrunken[held_out] = codes[held_out]
        evaluated |= held_out
    gain, distance = _calibrate_gain(shrunken, draft.data, evaluated)
    scaling = replace(draft.scaling, gain=gain, held_out=distance)
    predictor = MotionPredictor(config, scaling, nets)
    if clip.voices is None:
        return predictor
    spoken = clip.train & ~clip.silent
    known = scaling.centre + gain * shrunken.numpy()[evaluated.numpy() & spoken]
    heard = ~clip.voices.silent
    others = predictor.raw_codes(clip.voices.features, len(heard))[heard]
    tracked = clip.codes[spoken, : clip.face.n_mouth]
    lip_range = fit_lip_range(clip.face, tracked, known.astype(np.float32), others)
    return replace(predictor, lip_range=lip_range)


def _scaling(clip: PredictorTrainingData, view: ReceptiveField) -> Scaling:
    """Compute the scaling of features and codes from the training frames."""
    features, face = clip.features, clip.face
    used = features.values[_vectors_of(clip.train, features)].astype(np.float64)
    mouth = clip.codes[clip.train, : face.n_mouth].astype(np.float64)
    low, high = np.percentile(mouth, RANGE_PERCENT, axis=0)
    return Scaling(
        rate=features.rate,
        ahead=view.ahead,
        mean=used.mean(0).astype(np.float32),
        spread=feature_spread(used),
        centre=mouth.mean(0).astype(np.float32),
        low=low.astype(np.float32),
        high=high.astype(np.float32),
        rest=face.silence.astype(np.float32),
        gain=1.0,
        held_out=0.0,
    )


def _training_tensors(
    clip: PredictorTrainingData, scaling: Scaling, view: ReceptiveField
) -> TrainingTensors:
    """Normalize features and codes, with 0 in all frames that are not for training."""
    copies = (clip.features, *clip.augmented)
    n_frames, per_frame = len(clip.codes), scaling.vectors_per_frame
    train, face = clip.train, clip.face
    # Features of the audio and its copies, with room for the context of the first and last frame.
    n_vectors = (view.behind + n_frames + view.ahead) * per_frame
    vectors = torch.zeros(len(copies), n_vectors, len(scaling.mean))
    for copy, features in zip(vectors.numpy(), copies, strict=True):
        used = _vectors_of(train, features)
        copy[used + view.behind * per_frame] = scaling.normalized(features.values[used])
    targets = np.zeros((n_frames, face.n_mouth), np.float32)
    targets[train] = clip.codes[train, : face.n_mouth] - scaling.centre
    weights = np.zeros(n_frames, np.float32)
    weights[train] = np.where(clip.silent[train], SILENCE_WEIGHT, 1.0)
    return make_training_tensors(vectors, targets, weights, mouth_basis(face), scaling.spread, view)


def _vectors_of(frames: Bool, features: SpeechFeatures) -> Int:
    """Return the indices [m] of the feature vectors in the given frames [F]."""
    used = np.flatnonzero(np.repeat(frames, vectors_per_frame(features.rate)))
    return used[used < len(features)]


def _blocks(train: Bool, n_blocks: int) -> Iterator[Tensor]:
    """Split the training frames into n_blocks parts and yield a mask [F] of a block in each.

    A block has the share HELD_OUT of all training frames, if its part is long enough.
    """
    for part in np.array_split(np.flatnonzero(train), n_blocks):
        spare = round(len(part) * max(0.0, 1.0 - HELD_OUT * n_blocks)) // 2
        block = torch.zeros(len(train), dtype=torch.bool)
        block[torch.from_numpy(part[spare : len(part) - spare])] = True
        yield block


def _calibrate_gain(
    shrunken: Tensor, data: TrainingTensors, evaluated: Tensor
) -> tuple[float, float]:
    """Choose the largest of GAINS that costs at most MAX_GAIN_ERROR.

    Models trained on little data regress toward the mean. A mouth that moves as far as the person's
    own looks better than its lip distance suggests.

    Args:
        shrunken: Codes predicted for held-out frames, minus their mean, [F, K].
        data: Training data.
        evaluated: Frames that were held out, [F].

    Returns:
        The gain, and the lip distance with it.
    """
    weights = data.weights * evaluated
    errors = [
        float(lip_distance(((gain * shrunken - data.targets) @ data.lips)[None], weights[None]))
        for gain in GAINS
    ]
    allowed = (1.0 + MAX_GAIN_ERROR) * min(errors)
    return max((g, error) for g, error in zip(GAINS, errors, strict=True) if error <= allowed)
