"""A take's figures: its images against the real ones, its lips against the real lips and the sound."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from talkhead.app.evaluation.measures import image as metrics
from talkhead.app.evaluation.measures.lips import lip_metrics, silence_leak
from talkhead.app.evaluation.measures.lpips import Perceptual
from talkhead.app.evaluation.measures.phonemes import phoneme_metrics, viseme_table
from talkhead.app.evaluation.measures.sync_model import SyncModel
from talkhead.app.evaluation.measures.syncnet import MIN_FRAMES, SyncNet, syncnet_metrics
from talkhead.app.evaluation.reference import ReferenceFrames
from talkhead.app.evaluation.results import (
    ImageMetrics,
    LipMetrics,
    SyncMetrics,
    Variant,
    VariantKind,
    summarize,
)
from talkhead.encoder.phones import Phone
from talkhead.face import lip_aperture
from talkhead.preprocess.landmarks import FaceTracker
from talkhead.progress import Step
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Bool, Float32, Float64, Int, UInt8


class LandmarkTracker(Protocol):
    """What evaluation needs of a FaceTracker; it may remember the frames before."""

    def track(self, frame: UInt8) -> Float32 | None:
        """Landmarks [478, 3] in pixels of a frame [H, W, 3], None without a face."""

    def close(self) -> None:
        """Free what it holds."""


TrackerMaker = Callable[[], LandmarkTracker]


@dataclass(frozen=True)
class MeasurementTools:
    """What measures; None where it can't be had."""

    judge: SyncModel | None = None
    perceptual: Perceptual | None = None
    syncnet: SyncNet | None = None
    tracker: TrackerMaker = FaceTracker


@dataclass(frozen=True)
class VisualMeasurement:
    """What was seen of a take.

    landmarks: [N, 478, 2] in source pixels, NaN without a face. psnr_mouth: [N] dB, empty where
    nothing was compared.
    """

    landmarks: Float32
    images: ImageMetrics | None
    psnr_mouth: Float64

    @classmethod
    def of_landmarks(cls, landmarks: Float32) -> VisualMeasurement:
        """Landmarks [N, 478, 2] alone: no image was compared."""
        return cls(landmarks, None, np.zeros(0))


@dataclass(frozen=True)
class AudioContext:
    """What is heard from the first to the last of the frames, L of them.

    waveform: 16 kHz, from `lead` frames before the first one on, and perhaps beyond the last one.
    silent: [L]. phones: with times from the first frame's; None: not known.
    """

    waveform: Float32
    silent: Bool
    phones: list[Phone] | None
    lead: int = 0


def track(scene: ReferenceFrames, images: Iterable[UInt8], tracker: TrackerMaker) -> Float32:
    """Landmarks [N, 478, 2] of a scene's images in source pixels, NaN without a face."""
    found = []
    with closing(tracker()) as follower:
        for i, image in enumerate(images):
            points = follower.track(scene.shown(i, image))
            found.append(_NOWHERE if points is None else scene.located(i, points[:, :2]))
    return np.stack(found).astype(np.float32)


_NOWHERE = np.full((478, 2), np.nan, np.float32)


def look(
    scene: ReferenceFrames,
    images: Iterable[UInt8],
    instruments: MeasurementTools,
    bar: Step,
    *,
    whole: bool = False,
) -> VisualMeasurement:
    """What is seen of images, one for each of the scene's frames. whole: figures of the whole image,
    too."""
    rows: list[tuple[float, ...]] = []

    def scored() -> Iterable[UInt8]:
        for i, (image, real) in enumerate(zip(images, scene.real(), strict=True)):
            rows.append(_score(image, real, scene.landmarks(i), instruments.perceptual, whole))
            bar.advance()
            yield image

    landmarks = track(scene, scored(), instruments.tracker)
    columns = np.array(rows).T
    left_out = (() if whole else _WHOLE) + (() if instruments.perceptual else _LPIPS)
    figures: dict[str, Any] = {
        name: None if name in left_out else summarize(column, name in _LPIPS)
        for name, column in zip(_IMAGE_MEASURES, columns, strict=True)
    }
    return VisualMeasurement(landmarks, ImageMetrics(len(rows), **figures), columns[2])


_WHOLE = ("psnr_frame", "ssim_frame")
_LPIPS = ("lpips_face", "lpips_mouth")
_IMAGE_MEASURES = (
    "psnr_face", "psnr_head", "psnr_mouth", "ssim_face", "ssim_head", "ssim_mouth",
    "sharpness", "gradient_correlation", *_WHOLE, *_LPIPS,
)  # fmt: skip


def _score(
    image: UInt8, real: UInt8, landmarks: Float32, perceptual: Perceptual | None, whole: bool
) -> tuple[float, ...]:
    """The image measures of a frame, in the order of _IMAGE_MEASURES."""
    size = (real.shape[0], real.shape[1])
    face = metrics.face_box(landmarks).clipped(*size)
    mouth = metrics.mouth_box(landmarks).clipped(*size)
    head = metrics.head_mask(landmarks, size)
    similarity = metrics.ssim_map(image, real, face)
    inside = similarity[face.cut(head)]
    nothing = float("nan")
    return (
        metrics.psnr(image, real, face),
        metrics.masked_psnr(image, real, head, face),
        metrics.psnr(image, real, mouth),
        float(similarity.mean(dtype=np.float64)),
        float(inside.mean(dtype=np.float64)) if len(inside) else nothing,
        metrics.ssim(image, real, mouth),
        metrics.sharpness_ratio(image, real, mouth),
        metrics.gradient_correlation(image, real, mouth),
        metrics.psnr(image, real) if whole else nothing,
        metrics.ssim(image, real) if whole else nothing,
        perceptual.distance(image, real, face) if perceptual else nothing,
        perceptual.distance(image, real, mouth) if perceptual else nothing,
    )


def make_variant(
    name: str,
    kind: VariantKind,
    about: str,
    sight: VisualMeasurement,
    real: Float32 | None,
    numbers: Int,
    sound: AudioContext | None,
    judge: SyncModel | None,
) -> Variant:
    """A take's figures.

    real: landmarks [N, 478, 2] of the real frames, seen by the same tracker, None where there are
    none. numbers: [N] of the frames, rising. sound: of the frames from the first to the last, None
    without any.
    """
    own, place = sight.landmarks, numbers - numbers[0]
    n_frames = int(place[-1]) + 1
    aperture = _laid_out(np.asarray(lip_aperture(own)), place, n_frames)
    whole = _laid_out(own, place, n_frames)
    heard: dict[str, Any] = {}
    if sound is not None and sound.phones is not None:
        heard["phonemes"] = phoneme_metrics(sound.phones, aperture)
        if real is not None:
            true = _laid_out(real, place, n_frames)
            heard["visemes"] = viseme_table(
                sound.phones, true, whole, metrics.has_face(whole, true)
            )
    if sound is not None and judge is not None:
        heard["sync"] = _judged(judge, sound, whole)
    silent = None if sound is None else sound.silent[place]
    if real is not None:
        heard["lips"] = _lips(own, real, numbers, silent)
        distance = np.full(len(numbers), np.nan)
        both = metrics.has_face(own, real)
        distance[both] = metrics.lmd(own[both], real[both])
        heard["lmd_px"] = tuple(_laid_out(distance, place, n_frames).tolist())
    elif silent is not None:
        heard["lips"] = _lips_alone(own, numbers, silent)
    return Variant(name, kind, about, sight.images, aperture=tuple(aperture.tolist()), **heard)


def _judged(judge: SyncModel, sound: AudioContext, landmarks: Float32) -> SyncMetrics:
    """What the judge says of landmarks [L, 478, 2], to which the sound around them belongs."""
    n_heard = len(sound.waveform) * FRAME_RATE // SAMPLE_RATE
    after = max(0, n_heard - sound.lead - len(landmarks))
    margins = ((sound.lead, after), (0, 0), (0, 0))
    padded = np.pad(landmarks, margins, constant_values=np.nan)
    return judge.judge(sound.waveform, np.nan_to_num(padded), metrics.has_face(padded))


def with_syncnet(
    take: Variant,
    images: Callable[[], Iterable[UInt8]],
    landmarks: Float32,
    numbers: Int,
    sound: AudioContext | None,
    net: SyncNet | None,
) -> Variant:
    """The take with SyncNet's scores, where there is such a net, and sound and frames enough.

    images: makes whole frames. landmarks: [N, 478, 2] in their pixels, NaN without a face.
    numbers: [N] of the frames: those up to the first gap count.
    """
    gaps = np.flatnonzero(np.diff(numbers) != 1)
    n = int(gaps[0]) + 1 if len(gaps) else len(numbers)
    seen = metrics.has_face(landmarks[:n])
    if net is None or sound is None or not seen.any() or n < MIN_FRAMES:
        return take
    points = np.nan_to_num(landmarks[:n])
    own = sound.waveform[sound.lead * SAMPLE_RATE // FRAME_RATE :]
    return replace(take, syncnet=syncnet_metrics(net, images(), points, seen, own))


def worst_lips(own: Float32, real: Float32) -> Int:
    """Places of frames [N], those with lips farthest from real first; before them those without."""
    distance = np.nan_to_num(metrics.lmd(own, real), nan=np.inf)
    return np.argsort(-distance, kind="stable")


def _lips(own: Float32, real: Float32, numbers: Int, silent: Bool | None) -> LipMetrics | None:
    both = metrics.has_face(own, real)
    if not both.any():
        return None
    n_lost = int((metrics.has_face(real) & ~both).sum())
    quiet = None if silent is None else silent[both]
    return lip_metrics(numbers[both], own[both], real[both], n_lost, quiet)


def _lips_alone(own: Float32, numbers: Int, silent: Bool) -> LipMetrics:
    """What can be said of lips without real ones: what they do in silence."""
    seen = metrics.has_face(own)
    leak, n_silent = silence_leak(own[seen], numbers[seen], silent[seen])
    nothing = float("nan")
    return LipMetrics(
        n_tracked=int(seen.sum()),
        n_lost=0,
        lmd_px=summarize([]),
        lmd_eyes=nothing,
        aperture_correlation=nothing,
        aperture_lag_ms=nothing,
        aperture_spread=nothing,
        closure_f1=nothing,
        closure_f1_at_rate=nothing,
        jitter_ratio=nothing,
        silence_leak=leak,
        n_silent=n_silent,
    )


def _laid_out(values: Any, place: Int, n_frames: int) -> Any:
    """Values [N, ...] put at their places among n_frames, NaN between."""
    whole = np.full((n_frames, *values.shape[1:]), np.nan, values.dtype)
    whole[place] = values
    return whole
