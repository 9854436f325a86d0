"""A small audio-visual sync model: A/V offset and how clearly lips and audio agree.

Its inputs are tracked lips and chin, without position, size and rotation of the head, and log-mel
energies. Two small networks turn each frame of either into a unit vector; the score of a lag is the
mean over frames of the product of lips[t] and audio[t + lag]. The model is trained separately from
every speech encoder (`app.training.sync_model`) and shares no weights with one. docs/sync_model.md
gives its accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from talkhead.app.evaluation.measures.image import Points
from talkhead.app.evaluation.measures.registry import ClipMeasures
from talkhead.app.evaluation.results import OffsetEvidence, Results
from talkhead.audio import log_mel, mel_context
from talkhead.face import LIPS, N_LANDMARKS
from talkhead.preprocess.av_sync import peak_index
from talkhead.tensors import module_specs, read_checked
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Bool, Float32, Float64
from talkhead.weights import manifest, resolve

WEIGHTS = "judge.safetensors"
ADVICE = "The weights of the sync model are damaged or of another version: reinstall talkhead"
MAX_LAG = 15
LAGS = tuple(range(-MAX_LAG, MAX_LAG + 1))
FRAME_MS = 1000.0 / FRAME_RATE

CHIN = (176, 148, 152, 377, 400)
POINTS = LIPS + CHIN
ANCHORS = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 10, 151, 9, 127, 356, 234, 454, 93, 323)
"""Points that speech moves little: eye corners, nose, forehead, temples. Aligning them with the
template's removes position, size, roll and most of yaw and pitch from the lips."""

N_MELS, N_FFT, HOP = 40, 400, 160
VECTORS = SAMPLE_RATE // HOP // FRAME_RATE
"""Mel vectors per video frame, from half a frame before its time to half a frame after."""
MIN_LOG_ENERGY = -16.0
"""Lower limit of log-mel energies, about -75 dB of full scale."""
MEL_SPREAD = 2.5
"""Typical standard deviation of log-mel energies over time."""
STILL = 0.003
"""Added to the lips' motion (eye distances) before it is scaled to 1: still lips stay still."""

WINDOW = 125
"""Frames of lips processed at a time, with MAX_LAG more of audio on both sides."""
MIN_RUN = 15
"""Shorter runs of frames with a face are ignored."""
MIN_FRAMES = 40
MIN_CONFIDENCE = 3.0
"""Below this no offset is given. docs/sync_model.md shows how rarely mismatched audio reaches it."""
N_CONTROLS = 12
MIN_CONTROL_S = 2.0
"""Audio shifted by less than this is not mismatched."""

SYNC_MEASURES: ClipMeasures[LagScores] = ClipMeasures("sync", "Sync", needs_reference=False)
"""Measures of the sync model's scores by lag."""


# ------------------------------------------------------------------------------ inputs


def steady_points(landmarks: Points, template: Float32, points: Sequence[int] = POINTS) -> Float32:
    """Remove the head's motion from lips and chin.

    Each frame's anchors are aligned with the template by the least-squares affine map, which is then
    applied to the points.

    Args:
        landmarks: Landmarks [F, 478, 2 or 3], pixels.
        template: Places of ANCHORS on a still face, [A, 2].
        points: Indices of the P points.

    Returns:
        Points [F, P, 2] in eye distances, y down.
    """
    center, maps = steady_maps(landmarks, template)
    return np.asarray((landmarks[:, list(points), :2] - center) @ maps, np.float32)


def steady_maps(landmarks: Points, template: Float32) -> tuple[Float64, Float64]:
    """Compute the affine maps from pixels to a still face: (x - center) @ map.

    Args:
        landmarks: Landmarks [F, 478, 2 or 3], pixels.
        template: Places of ANCHORS on a still face, [A, 2].

    Returns:
        Centers [F, 1, 2] and maps [F, 2, 2].
    """
    anchors = landmarks[:, list(ANCHORS), :2].astype(np.float64)
    center = anchors.mean(1, keepdims=True)
    anchors -= center
    target = (template - template.mean(0)).astype(np.float64)
    own = np.einsum("fai,faj->fij", anchors, anchors)
    own += 1e-9 * (1.0 + np.trace(own, axis1=1, axis2=2))[:, None, None] * np.eye(2)
    return center, np.linalg.solve(own, np.einsum("fai,aj->fij", anchors, target))


def frame_mel(waveform: Float32, first: int, n_frames: int) -> Float32:
    """Compute log-mel energies of video frames: of frame k the VECTORS vectors around k / 25 s.

    Args:
        waveform: Samples [n_samples], 16 kHz.
        first: Index of the first frame; negative before the beginning of the waveform.
        n_frames: Number of frames.

    Returns:
        Energies [n_frames, VECTORS, N_MELS], at least MIN_LOG_ENERGY.
    """
    start = VECTORS * first - VECTORS // 2
    margin = mel_context(N_FFT, HOP)
    low, high = start * HOP - margin, (start + VECTORS * n_frames) * HOP + margin
    piece = waveform[max(0, low) : max(0, high)]
    before = max(0, -low)
    piece = np.pad(piece, (before, max(0, high - low - before - len(piece))))
    mel = log_mel(piece, n_fft=N_FFT, hop_length=HOP, n_mels=N_MELS)
    mel = mel[margin // HOP :][: VECTORS * n_frames]
    return np.maximum(mel, np.float32(MIN_LOG_ENERGY)).reshape(n_frames, VECTORS, N_MELS)


def lip_inputs(points: Tensor) -> Tensor:
    """Compute the network's visual input: normalized points and their velocities.

    The mean over the window, which is the shape of the person's face, is subtracted, and the spread
    over the window is set to 1.

    Args:
        points: Windows of lips [B, T, P, 2].

    Returns:
        Features [B, T, 4 * P].
    """
    moved = points - points.mean(1, keepdim=True)
    moved = moved / (moved.square().mean((1, 2, 3), keepdim=True).sqrt() + STILL)
    speed = functional.pad(moved[:, 2:] - moved[:, :-2], (0, 0, 0, 0, 1, 1))
    return torch.cat([moved, speed], 2).flatten(2)


def sound_inputs(mel: Tensor) -> Tensor:
    """Compute the network's audio input: energies minus each band's mean over the window.

    The mean depends on room and microphone.

    Args:
        mel: Windows of log-mel energies [B, T, VECTORS, N_MELS].

    Returns:
        Features [B, T, VECTORS * N_MELS].
    """
    return ((mel - mel.mean((1, 2), keepdim=True)) / MEL_SPREAD).flatten(2)


# ---------------------------------------------------------------------------- networks


class TemporalNet(nn.Module):
    """Network from frames [B, T, D] to unit vectors [B, T, E], with the frames around each as context.

    Args:
        n_inputs: Size D of an input frame.
        width: Channels of the hidden layers.
        n_outputs: Size E of an output vector.
        dilations: Dilation of each residual block.
        dropout: Probability that a channel is dropped in training.
    """

    def __init__(
        self, n_inputs: int, width: int, n_outputs: int, dilations: tuple[int, ...], dropout: float
    ) -> None:
        super().__init__()
        self.first = nn.Conv1d(n_inputs, width, 1)
        self.around = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=d, dilation=d) for d in dilations
        )
        self.mix = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in dilations)
        self.last = nn.Conv1d(width, n_outputs, 1)
        self.dropout = nn.Dropout1d(dropout)

    def forward(self, frames: Tensor) -> Tensor:
        """Compute unit vectors.

        Args:
            frames: Input [B, T, D].

        Returns:
            Vectors [B, T, E] of length 1.
        """
        hidden = self.first(frames.transpose(1, 2))
        for around, mix in zip(self.around, self.mix, strict=True):
            step = functional.gelu(around(functional.gelu(hidden)))
            hidden = hidden + self.dropout(mix(step))
        outputs = self.last(functional.gelu(hidden))
        return functional.normalize(outputs.transpose(1, 2), dim=-1)


class SyncModelNet(nn.Module):
    """Both networks and their constants.

    Args:
        width: Channels of the hidden layers.
        n_outputs: Size E of the unit vectors.
        dilations: Dilation of each residual block.
        dropout: Probability that a channel is dropped in training.

    Attributes:
        template: Places of ANCHORS on a still face, [A, 2].
        noise: Standard deviation of the score of mismatched audio, times the square root of the
            number of frames; a scalar.
    """

    template: Tensor
    noise: Tensor

    def __init__(
        self,
        width: int = 64,
        n_outputs: int = 32,
        dilations: tuple[int, ...] = (1,),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.lips = TemporalNet(4 * len(POINTS), width, n_outputs, dilations, dropout)
        self.sound = TemporalNet(VECTORS * N_MELS, width, n_outputs, dilations, dropout)
        self.register_buffer("template", torch.zeros(len(ANCHORS), 2))
        self.register_buffer("noise", torch.ones(()))

    def forward(self, points: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Compute unit vectors of lips and audio.

        Args:
            points: Windows of lips [B, T, P, 2].
            mel: Windows of log-mel energies [B, T', VECTORS, N_MELS].

        Returns:
            Vectors [B, T, E] of the lips and [B, T', E] of the audio.
        """
        return self.lips(lip_inputs(points)), self.sound(sound_inputs(mel))


def lag_scores(lips: Tensor, sound: Tensor) -> Tensor:
    """Compute the mean product of lips and audio at every lag.

    Args:
        lips: Unit vectors [B, T, E].
        sound: Unit vectors [B, T + n - 1, E].

    Returns:
        Scores [B, n].
    """
    n_frames = lips.shape[1]
    n_lags = sound.shape[1] - n_frames + 1
    pieces = [(lips * sound[:, lag : lag + n_frames]).sum((1, 2)) for lag in range(n_lags)]
    return torch.stack(pieces, 1) / n_frames


# -------------------------------------------------------------------------- sync model


@dataclass(frozen=True)
class LagScores:
    """Scores of the sync model by lag: the input of sync measures.

    Attributes:
        scores: Score of each of LAGS, [L]; zeros without a frame.
        n_frames: Number of frames that the scores are averaged over.
        noise: Standard deviation of the score of mismatched audio, times the square root of the
            number of frames.
    """

    scores: Float64
    n_frames: int
    noise: float

    @property
    def confidence(self) -> float:
        """The best score minus the median, over the deviation that mismatched audio's score has."""
        above = float(self.scores.max() - np.median(self.scores))
        return above * math.sqrt(self.n_frames) / self.noise


@SYNC_MEASURES.measure("offset_ms", label="A/V offset", better="real", unit="ms", digits=0)
def _offset_ms(lags: LagScores) -> float | None:
    """Delay of the audio as estimated by the sync model; 0 is in sync."""
    best = peak_index(lags.scores)
    is_sure = lags.n_frames >= MIN_FRAMES and lags.confidence >= MIN_CONFIDENCE
    return (best - MAX_LAG) * FRAME_MS if is_sure and best is not None else None


@SYNC_MEASURES.measure("confidence", label="sync confidence", better="real", digits=1)
def _confidence(lags: LagScores) -> float:
    """Clarity of the best lag; compare with the real video, not beyond it."""
    return lags.confidence if lags.n_frames else math.nan


@SYNC_MEASURES.measure("n_frames", label="frames", digits=0)
def _n_frames(lags: LagScores) -> int:
    """Number of frames that the sync model used."""
    return lags.n_frames


@dataclass(frozen=True)
class SyncModel:
    """Measures how well the lips and the audio of any video match.

    Attributes:
        net: The networks, on the CPU and in evaluation mode.
    """

    net: SyncModelNet

    @classmethod
    def load(cls, path: Path | None = None) -> SyncModel:
        """Load the weights.

        Args:
            path: A file written by `app.training.sync_model`; None for the shipped one.

        Returns:
            The model.

        Raises:
            PackageError: The weights are missing, damaged or of another version.
        """
        path = path or resolve(WEIGHTS)
        tensors = read_checked(path, module_specs(SyncModelNet), ADVICE)
        net = SyncModelNet()
        net.load_state_dict(tensors)
        return cls(net.eval())

    def measure(self, waveform: Float32, landmarks: Points, tracked: Bool) -> Results:
        """Measure the A/V offset and its confidence.

        Frames count that belong to a run of at least MIN_RUN frames with a face and have audio at
        every lag: nothing is padded. The confidence is the best score minus the median one, over the
        standard deviation that the score of mismatched audio has at this length; it is NaN without a
        frame. The offset is None below MIN_CONFIDENCE, with fewer than MIN_FRAMES frames, and if the
        best lag is the first or the last. Memory does not grow with the length.

        Args:
            waveform: Samples [n_samples], 16 kHz.
            landmarks: Landmarks [F, 478, 2 or 3] in pixels of any image size, 25 per second.
            tracked: Mask [F] of the frames with a face.

        Returns:
            The registered sync measures, with the tested lags as "lags_ms", [L], and their scores as
            "scores", [L].

        Raises:
            ValueError: The arrays do not fit together.
        """
        _check(waveform, landmarks, tracked)
        scores, n_frames = self._scores(waveform, landmarks, tracked)
        results = SYNC_MEASURES.compute(LagScores(scores, n_frames, float(self.net.noise)))
        results["lags_ms"] = [lag * FRAME_MS for lag in LAGS]
        results["scores"] = [float(score) for score in scores]
        return results

    def evidence(self, waveform: Float32, landmarks: Points, tracked: Bool) -> OffsetEvidence:
        """Measure the A/V offset of a clip, with a control.

        The control is the best score of any lag if the audio is shifted circularly by a good part of
        the clip; it is NaN in clips that are too short for it.

        Args:
            waveform: Samples [n_samples], 16 kHz.
            landmarks: Landmarks [F, 478, 2 or 3] in pixels, 25 per second.
            tracked: Mask [F] of the frames with a face.

        Returns:
            The evidence; its offset is None if the control reaches the score.
        """
        found = self.measure(waveform, landmarks, tracked)
        score, control = max(found.scores), self._control(waveform, landmarks, tracked)
        is_sure = math.isnan(control) or score > control
        return OffsetEvidence(
            method="audio-visual sync model",
            offset_ms=found.offset_ms if is_sure else None,
            score=score,
            control=control,
            lags_ms=found.lags_ms,
            scores=found.scores,
        )

    def _control(self, waveform: Float32, landmarks: Points, tracked: Bool) -> float:
        """Compute the best score of any lag for circularly shifted audio [n_samples]."""
        whole = waveform[: len(tracked) * SAMPLE_RATE // FRAME_RATE]
        shifts = np.linspace(0.2, 0.8, N_CONTROLS) * len(whole)
        if not len(whole) or shifts[0] < MIN_CONTROL_S * SAMPLE_RATE:
            return math.nan
        scores = [self._scores(np.roll(whole, int(n)), landmarks, tracked)[0].max() for n in shifts]
        return float(max(scores))

    def _scores(self, waveform: Float32, landmarks: Points, tracked: Bool) -> tuple[Float64, int]:
        """Compute the score of each lag, [L], and the number of frames; zeros without a frame."""
        total, n_frames = np.zeros(len(LAGS)), 0
        template = self.net.template.numpy()
        for start, stop in windows(tracked, len(waveform) * FRAME_RATE // SAMPLE_RATE):
            points = steady_points(landmarks[start:stop], template)
            mel = frame_mel(waveform, start - MAX_LAG, stop - start + 2 * MAX_LAG)
            with torch.no_grad():
                lips, sound = self.net(torch.from_numpy(points)[None], torch.from_numpy(mel)[None])
                scores = lag_scores(lips, sound)[0]
            total += (stop - start) * scores.double().numpy()
            n_frames += stop - start
        return total / max(n_frames, 1), n_frames


def windows(tracked: Bool, n_sound: int) -> Iterator[tuple[int, int]]:
    """Divide the runs of frames with a face into windows of at most WINDOW frames.

    Args:
        tracked: Mask [F] of the frames with a face.
        n_sound: Number of frames with audio, of which MAX_LAG are needed on both sides.

    Yields:
        Start and stop of each window.
    """
    usable = np.array(tracked, bool)
    usable[:MAX_LAG] = False
    usable[max(0, n_sound - MAX_LAG) :] = False
    edges = np.flatnonzero(np.diff(np.concatenate([[0], usable.astype(np.int8), [0]])))
    for start, stop in edges.reshape(-1, 2):
        if stop - start < MIN_RUN:
            continue
        cuts = np.linspace(start, stop, math.ceil((stop - start) / WINDOW) + 1).round()
        yield from zip(cuts[:-1].astype(int), cuts[1:].astype(int), strict=True)


def sync_model_accuracy() -> Mapping[str, float]:
    """Read how well the shipped sync model finds known shifts of real video.

    Returns:
        Share of offsets within one frame of the true one, by name of the clip and window; the shifts
        are within 15 frames, so that chance is 3 in 31.

    Raises:
        PackageError: The manifest of the weights cannot be read.
    """
    figures: Mapping[str, float] = manifest()[WEIGHTS]["figures"]
    return figures


def was_trained_on(video_sha256: str) -> bool:
    """Check whether the shipped sync model was trained on a video.

    Args:
        video_sha256: SHA-256 of the file.

    Returns:
        True if it was; its results on this video then prove nothing.
    """
    return any(video_sha256 in part["sha256"] for part in manifest()[WEIGHTS]["trained_on"])


def _check(waveform: Float32, landmarks: Points, tracked: Bool) -> None:
    """Raise ValueError unless the shapes are [n_samples], [F, 478, 2 or 3] and [F]."""
    if waveform.ndim != 1:
        raise ValueError(f"a waveform is [n_samples], not {waveform.shape}")
    if landmarks.ndim != 3 or landmarks.shape[1] != N_LANDMARKS or landmarks.shape[2] < 2:
        raise ValueError(f"landmarks are [F, {N_LANDMARKS}, 2 or 3], not {landmarks.shape}")
    if tracked.shape != landmarks.shape[:1]:
        raise ValueError(
            f"{len(landmarks)} frames of landmarks, but a mask of shape {tracked.shape}"
        )
