"""Speech features -> mouth codes: a small ensemble of bounded view, fitted per person.

Whatever the length, prediction runs in blocks of BLOCK frames with their context, on a fixed grid:
so an hour of speech takes the memory of a minute, and pieces equal the whole bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from talkhead.encoder.network import (
    PredictorConfig,
    TemporalNet,
    context_frames,
    frame_inputs,
    make_net,
)
from talkhead.encoder.training import Lesson, train_member
from talkhead.errors import TalkheadError
from talkhead.face import FaceModel
from talkhead.progress import Progress
from talkhead.types import FRAME_RATE, Bool, Float32, SpeechFeatures

BLOCK = 250
"""Frames predicted at a time."""
CLOSING_FRAMES = 2
"""Frames at either end of a silent stretch over which the mouth goes to rest."""


@dataclass(frozen=True)
class Scaling:
    """What a predictor knows of its person besides the nets' weights.

    rate: of the features. mean, spread: [D] of the features. centre: [K] mean mouth code. low,
    high: [K] range of mouth codes in training. rest: [n_codes] the code at rest. gain: factor on
    what the nets predict, against their timidity.
    """

    rate: float
    mean: Float32
    spread: Float32
    centre: Float32
    low: Float32
    high: Float32
    rest: Float32
    gain: float

    @property
    def vectors_per_frame(self) -> int:
        return vectors_per_frame(self.rate)

    @property
    def n_inputs(self) -> int:
        """Values a net hears of one video frame."""
        return len(self.mean) * self.vectors_per_frame

    def normalised(self, values: Float32) -> Float32:
        """Features [n, D] with mean 0 and spread 1 in training."""
        return np.asarray((values - self.mean) / self.spread, dtype=np.float32)


def vectors_per_frame(rate: float) -> int:
    """Feature vectors a video frame. Raises TalkheadError when that is no whole number."""
    n = round(rate / FRAME_RATE)
    if n < 1 or abs(n * FRAME_RATE - rate) > 1e-6:
        raise TalkheadError(
            f"features at {rate:g} vectors a second: a multiple of {FRAME_RATE} is needed"
        )
    return n


@dataclass(frozen=True)
class MotionPredictor:
    """A person's speech -> motion."""

    config: PredictorConfig
    scaling: Scaling
    members: tuple[TemporalNet, ...]

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
        context = context_frames(self.config.layers)
        start = 0
        for window in self._windows(chunks, context, n_frames):
            n = min(BLOCK, n_frames - start)
            codes = self._speaking(window)[:n]
            weight = share[start : start + n]
            result = weight * self.scaling.rest
            result[:, : codes.shape[1]] += (1.0 - weight) * codes
            start += n
            yield result

    def _windows(
        self, chunks: Iterable[Float32], context: int, n_frames: int
    ) -> Iterator[Float32]:
        """Normalised features [(BLOCK + 2 * context) * vectors_per_frame, D] of each block.

        Before the first vector stands the first, after the last one the last.
        """
        source = iter(chunks)
        per_frame = self.scaling.vectors_per_frame
        size, step = (BLOCK + 2 * context) * per_frame, BLOCK * per_frame
        held = np.zeros((0, len(self.scaling.mean)), np.float32)
        for start in range(0, n_frames, BLOCK):
            first = start == 0
            held = _filled(held, source, size - first * context * per_frame)
            if held.shape[1] != len(self.scaling.mean) or len(held) == 0:
                raise TalkheadError(
                    f"features of shape {held.shape}; the predictor was fitted on "
                    f"[F, {len(self.scaling.mean)}]. Use the encoder it was fitted with"
                )
            if first:
                held = np.concatenate([np.repeat(held[:1], context * per_frame, axis=0), held])
            missing = max(0, size - len(held))
            whole = np.concatenate([held, np.repeat(held[-1:], missing, axis=0)])
            yield self.scaling.normalised(whole[:size])
            held = whole[step:] if missing else held[step:]

    def _speaking(self, window: Float32) -> Float32:
        """Mouth codes [BLOCK, K] as if nothing were silent."""
        inputs = frame_inputs(torch.from_numpy(window), self.scaling.vectors_per_frame)[None]
        with torch.no_grad():
            total = torch.stack([member(inputs)[0].T for member in self.members]).mean(0)
        codes = self.scaling.centre + self.scaling.gain * total.numpy()
        return np.asarray(np.clip(codes, self.scaling.low, self.scaling.high), dtype=np.float32)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a package must keep."""
        scaling = {f"scaling.{k}": torch.tensor(v) for k, v in vars(self.scaling).items()}
        for index, member in enumerate(self.members):
            scaling |= {f"member{index}.{k}": v.clone() for k, v in member.state_dict().items()}
        return scaling

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], config: PredictorConfig
    ) -> MotionPredictor:
        """A predictor back from tensors(). Raises KeyError when one is missing."""
        stored = {
            k.removeprefix("scaling."): v for k, v in tensors.items() if k.startswith("scaling.")
        }
        rate, gain = float(stored.pop("rate")), float(stored.pop("gain"))
        scaling = Scaling(rate=rate, gain=gain, **{k: v.numpy() for k, v in stored.items()})
        members = []
        for index in range(config.n_members):
            prefix = f"member{index}."
            net = make_net(config, scaling.n_inputs, len(scaling.centre))
            state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            net.load_state_dict(state)
            members.append(net.eval())
        return cls(config, scaling, tuple(members))


def rest_share(silent: Bool, n_frames: int) -> Float32:
    """How far [n_frames] the mouth is at rest: 0 in speech, 1 inside silence, smooth between.

    The way to rest and back lies inside the silent stretch, so that speech is never damped;
    silence is taken to go on beyond both ends.
    """
    flags = np.ones(n_frames, dtype=bool)
    flags[: len(silent)] = silent[:n_frames]
    near = np.arange(-CLOSING_FRAMES, CLOSING_FRAMES + 1)
    padded = np.pad(flags, CLOSING_FRAMES, constant_values=True)
    distance = np.full(n_frames, CLOSING_FRAMES + 1.0)
    for shift in near:
        spoken = ~padded[CLOSING_FRAMES + shift : CLOSING_FRAMES + shift + n_frames]
        distance[spoken] = np.minimum(distance[spoken], abs(shift))
    share = distance / (CLOSING_FRAMES + 1.0)
    return np.asarray(share * share * (3.0 - 2.0 * share), dtype=np.float32)


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


def fit_predictor(
    features: SpeechFeatures,
    codes: Float32,
    train: Bool,
    silent: Bool,
    face: FaceModel,
    config: PredictorConfig,
    seed: int,
    progress: Progress,
) -> MotionPredictor:
    """A predictor of a person's mouth codes, from training frames alone.

    codes: [F, n_codes] tracked. train: [F] frames to learn from; nothing of the others is read.
    silent: [F] video frames without speech. Raises TalkheadError when there is too little to learn
    from. On a CPU the same seed gives the same predictor, bit for bit.
    """
    lesson = _lesson(features, codes, train, silent, face, config)
    n_fit = int(train.sum())
    if n_fit < config.n_members * 2 * config.n_frames:
        raise TalkheadError(f"{n_fit} frames of usable footage are too few to learn speech from")
    scaling = _scaling(features, codes, train, face)
    with progress.step("Learning the mouth", total=config.n_members * config.n_steps) as step:
        ...
