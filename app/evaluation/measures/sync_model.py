"""A small audio-visual judge: how late the sound is, and how clearly lips and sound agree.

It sees what the tracker sees (lips and chin, freed of the head's place, size and turn) and hears
log-mel energies. Two small nets turn each frame of either into a unit vector; a lag's score is the
mean over frames of the product of lips[t] and sound[t + lag]. It was trained apart from every
encoder (judge_training) and shares nothing with one. docs/judge.md: how well it does.
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
from talkhead.app.evaluation.results import OffsetEvidence, SyncMetrics
from talkhead.audio import log_mel, mel_context
from talkhead.face import LIPS, N_LANDMARKS
from talkhead.preprocess.av_sync import peak_index
from talkhead.tensors import module_specs, read_checked
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Bool, Float32, Float64
from talkhead.weights import manifest, resolve

WEIGHTS = "judge.safetensors"
ADVICE = "These are weights of another version of the judge, or damaged: reinstall talkhead"
MAX_LAG = 15
LAGS = tuple(range(-MAX_LAG, MAX_LAG + 1))
FRAME_MS = 1000.0 / FRAME_RATE

CHIN = (176, 148, 152, 377, 400)
POINTS = LIPS + CHIN
ANCHORS = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 10, 151, 9, 127, 356, 234, 454, 93, 323)
"""Points that speech moves little: eye corners, nose, forehead, temples. They are laid on the
template's, which takes place, size, roll and most of yaw and pitch off the lips."""

N_MELS, N_FFT, HOP = 40, 400, 160
VECTORS = SAMPLE_RATE // HOP // FRAME_RATE
"""Mel vectors a video frame: from half a frame before its moment to half a frame after."""
FLOOR = -16.0
"""Quieter than about -75 dB of full scale counts as this."""
MEL_SPREAD = 2.5
"""Typical deviation of log-mel energies from their mean over time."""
STILL = 0.003
"""Added to the lips' motion (eye distances) before it is scaled to 1: still lips stay still."""

WINDOW = 125
"""Frames of lips judged at a time, with MAX_LAG more of sound on both sides."""
MIN_RUN = 15
"""Shorter runs of frames with a face are left out."""
MIN_FRAMES = 40
MIN_CONFIDENCE = 3.0
"""Below this nothing stands out; see docs/judge.md on how rarely wrong sound reaches it."""
N_CONTROLS = 12
MIN_CONTROL_S = 2.0
"""Sound shifted by less than this is not wrong sound."""


# ------------------------------------------------------------------------------ inputs


def steady_points(landmarks: Points, template: Float32, points: Sequence[int] = POINTS) -> Float32:
    """Lips and chin [F, P, 2] as on a face that holds still: in eye distances, y down.

    landmarks: [F, 478, 2 or 3] pixels. template: [A, 2] where ANCHORS belong. Each frame's anchors
    are laid on the template by the affine map of least squares, which then moves the points.
    """
    centre, maps = steady_maps(landmarks, template)
    return np.asarray((landmarks[:, list(points), :2] - centre) @ maps, np.float32)


def steady_maps(landmarks: Points, template: Float32) -> tuple[Float64, Float64]:
    """From pixels to a face that holds still, centre [F, 1, 2] and maps [F, 2, 2]: (x - centre) @
    map. Arguments as in steady_points."""
    anchors = landmarks[:, list(ANCHORS), :2].astype(np.float64)
    centre = anchors.mean(1, keepdims=True)
    anchors -= centre
    target = (template - template.mean(0)).astype(np.float64)
    own = np.einsum("fai,faj->fij", anchors, anchors)
    own += 1e-9 * (1.0 + np.trace(own, axis1=1, axis2=2))[:, None, None] * np.eye(2)
    return centre, np.linalg.solve(own, np.einsum("fai,aj->fij", anchors, target))


def frame_mel(waveform: Float32, first: int, n_frames: int) -> Float32:
    """Log-mel energies of video frames, [n_frames, VECTORS, N_MELS], at least FLOOR.

    waveform: [n_samples] at 16 kHz. Of frame k they are the VECTORS vectors around k / 25 s.
    """
    start = VECTORS * first - VECTORS // 2
    margin = mel_context(N_FFT, HOP)
    low, high = start * HOP - margin, (start + VECTORS * n_frames) * HOP + margin
    piece = waveform[max(0, low) : max(0, high)]
    before = max(0, -low)
    piece = np.pad(piece, (before, max(0, high - low - before - len(piece))))
    mel = log_mel(piece, n_fft=N_FFT, hop_length=HOP, n_mels=N_MELS)
    mel = mel[margin // HOP :][: VECTORS * n_frames]
    return np.maximum(mel, np.float32(FLOOR)).reshape(n_frames, VECTORS, N_MELS)


def lip_inputs(points: Tensor) -> Tensor:
    """What the net sees of windows of lips [B, T, P, 2]: [B, T, 4 P].

    Points without their mean over the window (which is the person's face), over the window's
    spread, and their velocities.
    """
    moved = points - points.mean(1, keepdim=True)
    moved = moved / (moved.square().mean((1, 2, 3), keepdim=True).sqrt() + STILL)
    speed = functional.pad(moved[:, 2:] - moved[:, :-2], (0, 0, 0, 0, 1, 1))
    return torch.cat([moved, speed], 2).flatten(2)


def sound_inputs(mel: Tensor) -> Tensor:
    """What the net hears of windows of sound [B, T, VECTORS, N_MELS]: [B, T, VECTORS * N_MELS].

    Energies without each band's mean over the window, which is the room's and the microphone's.
    """
    return ((mel - mel.mean((1, 2), keepdim=True)) / MEL_SPREAD).flatten(2)


# -------------------------------------------------------------------------------- nets


class TemporalNet(nn.Module):
    """Frames [B, T, D] -> unit vectors [B, T, E], each of which sees the frames around it."""

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
        hidden = self.first(frames.transpose(1, 2))
        for around, mix in zip(self.around, self.mix, strict=True):
            step = functional.gelu(around(functional.gelu(hidden)))
            hidden = hidden + self.dropout(mix(step))
        outputs = self.last(functional.gelu(hidden))
        return functional.normalize(outputs.transpose(1, 2), dim=-1)


class SyncModelNet(nn.Module):
    """Both nets and what belongs to them.

    template: [A, 2] places of ANCHORS. noise: standard deviation that the score of wrong sound has,
    times the square root of the number of frames.
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
        """Unit vectors of lips [B, T, P, 2] and sound [B, T', VECTORS, N_MELS]."""
        return self.lips(lip_inputs(points)), self.sound(sound_inputs(mel))


def lag_scores(lips: Tensor, sound: Tensor) -> Tensor:
    """Mean product of lips [B, T, E] and the sound [B, T + n - 1, E] of every lag, [B, n]."""
    n_frames = lips.shape[1]
    n_lags = sound.shape[1] - n_frames + 1
    pieces = [(lips * sound[:, lag : lag + n_frames]).sum((1, 2)) for lag in range(n_lags)]
    return torch.stack(pieces, 1) / n_frames


# ------------------------------------------------------------------------------- judge


@dataclass(frozen=True)
class SyncModel:
    """Judges any video's lips and sound. net: on the CPU, in evaluation mode."""

    net: SyncModelNet

    @classmethod
    def load(cls, path: Path | None = None) -> SyncModel:
        """The shipped judge, or the one in a file that judge_training wrote.

        Raises PackageError when the weights are missing, damaged or of another version.
        """
        path = path or resolve(WEIGHTS)
        tensors = read_checked(path, module_specs(SyncModelNet), ADVICE)
        net = SyncModelNet()
        net.load_state_dict(tensors)
        return cls(net.eval())

    def judge(self, waveform: Float32, landmarks: Points, seen: Bool) -> SyncMetrics:
        """How late the sound is, and how clearly that shows.

        waveform: [n_samples] at 16 kHz. landmarks: [F, 478, 2 or 3] pixels of any image size, at 25
        a second. seen: [F] which frames have a face. Frames count that belong to a run of at least
        MIN_RUN and have sound at every lag: nothing is padded. confidence: the best score less
        the median one, over the standard deviation that wrong sound's score has at this length.
        NaN without a frame.
        offset_ms is None below MIN_CONFIDENCE, under MIN_FRAMES frames, and where the best lag
        is the first or the last. Memory does not grow with the length.

        Raises ValueError when the arrays don't fit together.
        """
        _check(waveform, landmarks, seen)
        scores, n_frames = self._scores(waveform, landmarks, seen)
        above = float(scores.max() - np.median(scores))
        confidence = above * math.sqrt(n_frames) / float(self.net.noise)
        best = peak_index(scores)
        lag = None if best is None else best - MAX_LAG
        sure = n_frames >= MIN_FRAMES and confidence >= MIN_CONFIDENCE
        return SyncMetrics(
            offset_ms=lag * FRAME_MS if sure and lag is not None else None,
            confidence=confidence if n_frames else math.nan,
            n_frames=n_frames,
            lags_ms=[lag * FRAME_MS for lag in LAGS],
            scores=[float(score) for score in scores],
        )

    def evidence(self, waveform: Float32, landmarks: Points, seen: Bool) -> OffsetEvidence:
        """The clip's own offset; arguments as in judge.

        control: the best score of any lag when the sound is shifted, in a circle, by a good part of
        the clip; NaN in clips that are too short for it. An offset whose score the control reaches
        is no evidence: None.
        """
        found = self.judge(waveform, landmarks, seen)
        score, control = max(found.scores), self._control(waveform, landmarks, seen)
        sure = math.isnan(control) or score > control
        return OffsetEvidence(
            means="audio-visual judge",
            offset_ms=found.offset_ms if sure else None,
            score=score,
            control=control,
            lags_ms=found.lags_ms,
            scores=found.scores,
        )

    def _control(self, waveform: Float32, landmarks: Points, seen: Bool) -> float:
        whole = waveform[: len(seen) * SAMPLE_RATE // FRAME_RATE]
        shifts = np.linspace(0.2, 0.8, N_CONTROLS) * len(whole)
        if not len(whole) or shifts[0] < MIN_CONTROL_S * SAMPLE_RATE:
            return math.nan
        wrong = [self._scores(np.roll(whole, int(n)), landmarks, seen)[0].max() for n in shifts]
        return float(max(wrong))

    def _scores(self, waveform: Float32, landmarks: Points, seen: Bool) -> tuple[Float64, int]:
        """Each lag's score [len(LAGS)] and the frames they are over; zeros over none."""
        total, n_frames = np.zeros(len(LAGS)), 0
        template = self.net.template.numpy()
        for start, stop in windows(seen, len(waveform) * FRAME_RATE // SAMPLE_RATE):
            points = steady_points(landmarks[start:stop], template)
            mel = frame_mel(waveform, start - MAX_LAG, stop - start + 2 * MAX_LAG)
            with torch.no_grad():
                lips, sound = self.net(torch.from_numpy(points)[None], torch.from_numpy(mel)[None])
                scores = lag_scores(lips, sound)[0]
            total += (stop - start) * scores.double().numpy()
            n_frames += stop - start
        return total / max(n_frames, 1), n_frames


def windows(seen: Bool, n_sound: int) -> Iterator[tuple[int, int]]:
    """Start and stop of the windows that are judged: runs with a face, in equal parts of at most
    WINDOW frames, with MAX_LAG frames of the n_sound frames of sound on both sides."""
    usable = np.array(seen, bool)
    usable[:MAX_LAG] = False
    usable[max(0, n_sound - MAX_LAG) :] = False
    edges = np.flatnonzero(np.diff(np.concatenate([[0], usable.astype(np.int8), [0]])))
    for start, stop in edges.reshape(-1, 2):
        if stop - start < MIN_RUN:
            continue
        cuts = np.linspace(start, stop, math.ceil((stop - start) / WINDOW) + 1).round()
        yield from zip(cuts[:-1].astype(int), cuts[1:].astype(int), strict=True)


def sync_model_accuracy() -> Mapping[str, float]:
    """How well the shipped judge finds known shifts of real video it never saw, by name.

    Shares within one frame among +-15 (chance: 3 in 31). Raises PackageError.
    """
    figures: Mapping[str, float] = manifest()[WEIGHTS]["figures"]
    return figures


def was_trained_on(video_sha256: str) -> bool:
    """Whether the shipped judge was trained on a video: what it says of it is no evidence."""
    return any(video_sha256 in part["sha256"] for part in manifest()[WEIGHTS]["trained_on"])


def _check(waveform: Float32, landmarks: Points, seen: Bool) -> None:
    if waveform.ndim != 1:
        raise ValueError(f"a waveform is [n_samples], not {waveform.shape}")
    if landmarks.ndim != 3 or landmarks.shape[1] != N_LANDMARKS or landmarks.shape[2] < 2:
        raise ValueError(f"landmarks are [F, {N_LANDMARKS}, 2 or 3], not {landmarks.shape}")
    if seen.shape != landmarks.shape[:1]:
        raise ValueError(f"{len(landmarks)} frames of landmarks and {seen.shape} of seen")
