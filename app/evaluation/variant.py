"""Measure one variant: its images against the real ones, its lips against real lips and the audio."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from talkhead.app.evaluation.measures import image as image_measures
from talkhead.app.evaluation.measures.image import IMAGE_MEASURES, FramePair
from talkhead.app.evaluation.measures.lips import LIP_MEASURES, LipTracks, lip_results
from talkhead.app.evaluation.measures.lpips import Perceptual
from talkhead.app.evaluation.measures.phonemes import phoneme_results, viseme_table
from talkhead.app.evaluation.measures.sync_model import SyncModel
from talkhead.app.evaluation.measures.syncnet import MIN_FRAMES, SyncNet, syncnet_results
from talkhead.app.evaluation.reference import ReferenceFrames
from talkhead.app.evaluation.results import Results, Variant, VariantKind
from talkhead.encoder.phones import Phone
from talkhead.face import lip_aperture
from talkhead.preprocess.landmarks import FaceTracker
from talkhead.progress import Step
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Bool, Float32, Float64, Int, UInt8


class LandmarkTracker(Protocol):
    """The part of a FaceTracker that evaluation uses; it may keep state between frames."""

    def track(self, frame: UInt8) -> Float32 | None:
        """Detect the landmarks of a face.

        Args:
            frame: Image [H, W, 3], RGB.

        Returns:
            Landmarks [478, 3] in pixels; None without a face.
        """

    def close(self) -> None:
        """Free the tracker's resources."""


TrackerMaker = Callable[[], LandmarkTracker]


@dataclass(frozen=True)
class MeasurementTools:
    """Models that measures need.

    Attributes:
        sync_model: The sync model; None to omit its measures.
        perceptual: LPIPS; None without its weights.
        syncnet: SyncNet; None without its weights.
        tracker: Makes a face tracker.
    """

    sync_model: SyncModel | None = None
    perceptual: Perceptual | None = None
    syncnet: SyncNet | None = None
    tracker: TrackerMaker = FaceTracker


@dataclass(frozen=True)
class VisualMeasurement:
    """Landmarks and image measures of the images of a variant.

    Attributes:
        landmarks: Landmarks [N, 478, 2] in source pixels; NaN without a face.
        images: Image measures; None if no images were compared.
        per_frame: Value of each image measure in each frame, [N], by name; NaN where it is undefined.
    """

    landmarks: Float32
    images: Results | None = None
    per_frame: Mapping[str, Float64] = field(default_factory=dict)


@dataclass(frozen=True)
class AudioContext:
    """The audio from the first to the last of the evaluated frames, L of them.

    Attributes:
        waveform: Samples [n_samples], 16 kHz, beginning `lead` frames before the first frame, possibly
            beyond the last one.
        silent: Mask [L] of the frames without speech.
        phones: Phones with times in seconds from the first frame; None if unknown.
        lead: Number of frames of audio before the first frame.
    """

    waveform: Float32
    silent: Bool
    phones: list[Phone] | None
    lead: int = 0


def track(reference: ReferenceFrames, images: Iterable[UInt8], tracker: TrackerMaker) -> Float32:
    """Track the face in images of the reference frames.

    Args:
        reference: The reference frames.
        images: One image [H, W, 3] per frame.
        tracker: Makes a face tracker.

    Returns:
        Landmarks [N, 478, 2] in source pixels; NaN without a face.
    """
    found = []
    with closing(tracker()) as follower:
        for i, image in enumerate(images):
            points = follower.track(reference.to_canvas(i, image))
            found.append(_NO_FACE if points is None else reference.to_source(i, points[:, :2]))
    return np.stack(found).astype(np.float32)


_NO_FACE = np.full((478, 2), np.nan, np.float32)


def measure_images(
    reference: ReferenceFrames,
    images: Iterable[UInt8],
    tools: MeasurementTools,
    bar: Step,
    *,
    full_frames: bool = False,
) -> VisualMeasurement:
    """Compare images with the reference frames and track their faces.

    Args:
        reference: The reference frames.
        images: One image [H, W, 3] per frame.
        tools: Tracker and LPIPS.
        bar: Advanced by one per frame.
        full_frames: True if the images are whole frames of the video: then the measures of full
            frames are computed, too.

    Returns:
        Landmarks and image measures.
    """
    rows: list[dict[str, float | None]] = []
    lpips = None if tools.perceptual is None else tools.perceptual.distance

    def measured() -> Iterable[UInt8]:
        for i, (image, real) in enumerate(zip(images, reference.real(), strict=True)):
            pair = FramePair(image, real, reference.landmarks(i), full_frames, lpips)
            rows.append(IMAGE_MEASURES.compute(pair))
            bar.advance()
            yield image

    landmarks = track(reference, measured(), tools.tracker)
    per_frame = {
        name: np.array([np.nan if row[name] is None else row[name] for row in rows])
        for name in rows[0]
    }
    return VisualMeasurement(landmarks, IMAGE_MEASURES.summarize(rows), per_frame)


def make_variant(
    name: str,
    kind: VariantKind,
    about: str,
    visual: VisualMeasurement,
    real: Float32 | None,
    frames: Int,
    audio: AudioContext | None,
    sync_model: SyncModel | None,
) -> Variant:
    """Compute the lip measures of a variant and combine them with its image measures.

    Args:
        name: Its name in tables and plots.
        kind: Its part in the comparison.
        about: One line that describes it.
        visual: Landmarks and image measures.
        real: Landmarks [N, 478, 2] of the real frames from the same tracker; None without real frames.
        frames: Frame indices [N], ascending.
        audio: The audio from the first to the last frame; None without audio.
        sync_model: The sync model; None to omit its measures.

    Returns:
        The variant.
    """
    own, place = visual.landmarks, frames - frames[0]
    n_frames = int(place[-1]) + 1
    aperture = _spread(np.asarray(lip_aperture(own)), place, n_frames)
    whole = _spread(own, place, n_frames)
    parts: dict[str, Any] = {}
    if audio is not None and audio.phones is not None:
        parts["phonemes"] = phoneme_results(audio.phones, aperture)
        if real is not None:
            true = _spread(real, place, n_frames)
            both = image_measures.has_face(whole, true)
            parts["visemes"] = viseme_table(audio.phones, true, whole, both)
    if audio is not None and sync_model is not None:
        parts["sync"] = _sync(sync_model, audio, whole)
    silent = None if audio is None else audio.silent[place]
    if real is not None:
        parts["lips"] = _lips(own, real, frames, silent)
        distance = np.full(len(frames), np.nan)
        both = image_measures.has_face(own, real)
        distance[both] = image_measures.lmd(own[both], real[both])
        parts["lmd_px"] = tuple(_spread(distance, place, n_frames).tolist())
    elif silent is not None:
        parts["lips"] = _lips_without_reference(own, frames, silent)
    return Variant(name, kind, about, visual.images, aperture=tuple(aperture.tolist()), **parts)


def _sync(model: SyncModel, audio: AudioContext, landmarks: Float32) -> Results:
    """Measure the sync of landmarks [L, 478, 2] with the audio, which may extend beyond them."""
    n_audio = len(audio.waveform) * FRAME_RATE // SAMPLE_RATE
    after = max(0, n_audio - audio.lead - len(landmarks))
    margins = ((audio.lead, after), (0, 0), (0, 0))
    padded = np.pad(landmarks, margins, constant_values=np.nan)
    return model.measure(audio.waveform, np.nan_to_num(padded), image_measures.has_face(padded))


def with_syncnet(
    variant: Variant,
    images: Callable[[], Iterable[UInt8]],
    landmarks: Float32,
    frames: Int,
    audio: AudioContext | None,
    net: SyncNet | None,
) -> Variant:
    """Add SyncNet's measures to a variant.

    Args:
        variant: The variant.
        images: Makes its whole frames [H, W, 3].
        landmarks: Landmarks [N, 478, 2] in pixels of the frames; NaN without a face.
        frames: Frame indices [N], ascending. Those up to the first gap count.
        audio: The audio from the first to the last frame; None without audio.
        net: SyncNet; None without its weights.

    Returns:
        The variant with SyncNet's measures, or as it was if there is no network, no audio, no face or
        not enough frames.
    """
    gaps = np.flatnonzero(np.diff(frames) != 1)
    n = int(gaps[0]) + 1 if len(gaps) else len(frames)
    tracked = image_measures.has_face(landmarks[:n])
    if net is None or audio is None or not tracked.any() or n < MIN_FRAMES:
        return variant
    points = np.nan_to_num(landmarks[:n])
    own = audio.waveform[audio.lead * SAMPLE_RATE // FRAME_RATE :]
    return replace(variant, syncnet=syncnet_results(net, images(), points, tracked, own))


def worst_lips(own: Float32, real: Float32) -> Int:
    """Order frames by the distance of their lips from the real ones.

    Args:
        own: Landmarks [N, 478, 2]; NaN without a face.
        real: Real landmarks [N, 478, 2].

    Returns:
        Positions [N] of the frames, the farthest first; before them those without a face.
    """
    distance = np.nan_to_num(image_measures.lmd(own, real), nan=np.inf)
    return np.argsort(-distance, kind="stable")


def _lips(own: Float32, real: Float32, frames: Int, silent: Bool | None) -> Results | None:
    """Compute the lip measures of landmarks [N, 478, 2]; None if no frame has a face in both."""
    both = image_measures.has_face(own, real)
    if not both.any():
        return None
    n_lost = int((image_measures.has_face(real) & ~both).sum())
    quiet = None if silent is None else silent[both]
    return lip_results(frames[both], own[both], real[both], n_lost, quiet)


def _lips_without_reference(own: Float32, frames: Int, silent: Bool) -> Results:
    """Compute the lip measures of landmarks [N, 478, 2] that need no real lips."""
    known = image_measures.has_face(own)
    points = own[known]
    tracks = LipTracks(frames[known], points, points, silent=silent[known])
    return LIP_MEASURES.compute(tracks, has_reference=False)


def _spread(values: Any, place: Int, n_frames: int) -> Any:
    """Put values [N, ...] at their places [N] among n_frames, NaN between."""
    whole = np.full((n_frames, *values.shape[1:]), np.nan, values.dtype)
    whole[place] = values
    return whole
