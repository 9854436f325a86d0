"""Evaluate any two videos of one face: the real one and one made by some system."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from talkhead import media
from talkhead.app.evaluation.audio import excerpt
from talkhead.app.evaluation.baselines import half_turned, mean_mouth, mismatched_speech
from talkhead.app.evaluation.evaluate_identity import FLOOR_ABOUT
from talkhead.app.evaluation.measures import image as image_measures
from talkhead.app.evaluation.reference import FrameReference, encoded, read_frames
from talkhead.app.evaluation.results import (
    MADE_VIDEO,
    MEAN_MOUTH,
    MISMATCHED_SPEECH,
    REAL_VIDEO,
    REENCODED,
    Variant,
    VariantKind,
)
from talkhead.app.evaluation.variant import (
    AudioContext,
    MeasurementTools,
    VisualMeasurement,
    make_variant,
    measure_images,
    track,
    with_syncnet,
    worst_lips,
)
from talkhead.errors import FootageError, MediaError
from talkhead.progress import Progress
from talkhead.types import FRAME_RATE, Float32, Int, MediaInfo, UInt8

MIN_SECONDS = 2.0
MIN_FACE = 0.5
"""Share of the frames that must show a face."""
SAME_ASPECT = 0.02
"""Aspect ratios that differ less than this, relatively, count as the same picture."""


@dataclass(frozen=True)
class Pair:
    """Two videos to be compared, beginning at their first frames.

    Attributes:
        real: The real video.
        made: The made video.
        n_frames: Number of compared frames, at 25 per second.
        warnings: What was done to make them comparable.
    """

    real: MediaInfo
    made: MediaInfo
    n_frames: int
    warnings: tuple[str, ...]


def align(real: Path, made: Path, max_frames: int) -> Pair:
    """Check that two videos can be compared, and how.

    Args:
        real: The real video.
        made: The made video.
        max_frames: Largest number of compared frames.

    Returns:
        The pair.

    Raises:
        MediaError: A video cannot be read, or they do not show the same picture.
        FootageError: They are too short.
    """
    infos = media.probe(real), media.probe(made)
    for info in infos:
        if not info.has_video:
            raise MediaError(f"{info.path}: has no picture. Pass two videos of the same face")
    first, second = infos
    ratio = (second.width / second.height) / (first.width / first.height)
    if abs(ratio - 1) > SAME_ASPECT:
        raise MediaError(
            f"{made}: {_size(second)} and {real}: {_size(first)} don't show the same picture. "
            "Crop or pad one of them to the aspect ratio of the other"
        )
    counts = [_count_frames(info.path, max_frames) for info in infos]
    n_frames = min(counts)
    if n_frames < MIN_SECONDS * FRAME_RATE:
        short = infos[int(np.argmin(counts))].path
        raise FootageError(
            f"{short}: {n_frames / FRAME_RATE:.1f} s can be compared, at least "
            f"{MIN_SECONDS:.0f} s are needed. Pass longer videos"
        )
    return Pair(first, second, n_frames, tuple(_warnings(first, second, counts)))


def _count_frames(video: Path, limit: int) -> int:
    """Count the frames that can be read: a file's audio may be longer than its picture."""
    with closing(media.read_frames(video, n_frames=limit)) as frames:
        return sum(1 for _ in frames)


def _size(info: MediaInfo) -> str:
    """Format the size of a video."""
    return f"{info.width}x{info.height}"


def _warnings(real: MediaInfo, made: MediaInfo, counts: list[int]) -> Iterator[str]:
    """Yield what is done to make two videos comparable."""
    if counts[0] != counts[1]:
        seconds = [count / FRAME_RATE for count in counts]
        yield (
            f"the videos are {seconds[0]:.2f} s and {seconds[1]:.2f} s long: the first "
            f"{min(seconds):.2f} s are compared"
        )
    if (real.width, real.height) != (made.width, made.height):
        yield f"the made video was scaled from {_size(made)} to {_size(real)}, which costs sharpness"
    for info in (real, made):
        if abs(info.frame_rate - FRAME_RATE) > 0.01:
            yield (
                f"{info.path.name} has {info.frame_rate:.2f} frames per second and was sampled "
                f"at {FRAME_RATE}"
            )


@dataclass(frozen=True)
class PairEvaluation:
    """Results of comparing two videos.

    Attributes:
        variants: The variants of the real video's frames.
        reference: The real frames.
        landmarks: Landmarks [L, 478, 2] of the real video; NaN without a face.
        worst: Positions [N] among the reference frames, the farthest from real first.
    """

    variants: tuple[Variant, ...]
    reference: FrameReference
    landmarks: Float32
    worst: Int


def measure_pair(
    pair: Pair,
    audios: tuple[AudioContext | None, AudioContext | None],
    tools: MeasurementTools,
    progress: Progress,
) -> PairEvaluation:
    """Measure the variants of a pair.

    Args:
        pair: The two videos.
        audios: Audio of the real and of the made video; None without speech.
        tools: Models that measures need.
        progress: Shows the progress.

    Returns:
        The variants.

    Raises:
        FootageError: One of the videos shows no face.
    """
    frames = np.arange(pair.n_frames)
    with progress.step("Comparing the videos", total=3 * pair.n_frames) as bar:
        blank = FrameReference(pair.real.path, frames, np.empty((0, 478, 2), np.float32))
        real = track(blank, blank.real(), tools.tracker)
        _check_face(pair.real.path, real)
        bar.advance(pair.n_frames)
        tracked = image_measures.has_face(real)
        reference = FrameReference(pair.real.path, frames[tracked], real[tracked])
        size = (pair.real.width, pair.real.height)
        with closing(fitted_frames(pair.made.path, reference.frames, size)) as images:
            made = measure_images(reference, images, tools, bar, full_frames=True)
        _check_face(pair.made.path, made.landmarks)
        with tempfile.TemporaryDirectory(prefix="talkhead-") as folder:
            compressed = encoded(reference, Path(folder))
            floor = measure_images(reference, compressed, tools, bar, full_frames=True)
    variants = _variants(pair, reference, floor, made, audios, tools)
    return PairEvaluation(variants, reference, real, worst_lips(made.landmarks, reference.points))


@dataclass(frozen=True)
class _Row:
    """A variant before its lips are measured."""

    name: str
    kind: VariantKind
    about: str
    visual: VisualMeasurement
    audio: AudioContext | None


def _variants(
    pair: Pair,
    reference: FrameReference,
    floor: VisualMeasurement,
    made: VisualMeasurement,
    audios: tuple[AudioContext | None, AudioContext | None],
    tools: MeasurementTools,
) -> tuple[Variant, ...]:
    """Make the variants of a pair from what was measured of the images."""
    true, frames = reference.points, reference.frames
    first, n_frames = int(frames[0]), int(frames[-1] - frames[0]) + 1
    audio, own = (None if one is None else excerpt(one, first, n_frames) for one in audios)
    if own is None and audio is not None:  # the phones are known, the timing of the audio is not
        own = replace(audio, waveform=audio.waveform[:0])
    still = VisualMeasurement(mean_mouth(true, true))
    mismatched = VisualMeasurement(mismatched_speech(true, half_turned(true)))
    rows = (
        _Row(REAL_VIDEO, "real", pair.real.path.name, VisualMeasurement(true), audio),
        _Row(REENCODED, "floor", f"the real video {FLOOR_ABOUT}", floor, audio),
        _Row(MADE_VIDEO, "made", pair.made.path.name, made, own),
        _Row(MEAN_MOUTH, "baseline", "a mouth that never moves (landmarks only)", still, audio),
        _Row(
            MISMATCHED_SPEECH,
            "baseline",
            "the real motion of half the clip later (landmarks only)",
            mismatched,
            audio,
        ),
    )
    videos = {REAL_VIDEO: pair.real.path, MADE_VIDEO: pair.made.path}
    size = (pair.real.width, pair.real.height)
    variants = []
    for row in rows:
        variant = make_variant(
            row.name, row.kind, row.about, row.visual, true, frames, row.audio, tools.sync_model
        )
        if row.name in videos:
            images = partial(fitted_frames, videos[row.name], frames, size)
            points = row.visual.landmarks
            variant = with_syncnet(variant, images, points, frames, row.audio, tools.syncnet)
        variants.append(variant)
    return tuple(variants)


def _check_face(path: Path, landmarks: Float32) -> None:
    """Raise FootageError if too few of the landmarks [N, 478, 2] are known."""
    found = int(image_measures.has_face(landmarks).sum())
    if found < MIN_FACE * len(landmarks):
        raise FootageError(
            f"{path}: a face was found in {found} of {len(landmarks)} frames. "
            "Both videos must show the same face, frontal and near"
        )


def fitted_frames(video: Path, frames: Int, size: tuple[int, int]) -> Generator[UInt8, None, None]:
    """Decode some frames of a video at another size.

    Args:
        video: The file.
        frames: Frame indices [N], ascending.
        size: Width and height.

    Yields:
        Images [H, W, 3], RGB.
    """
    for frame in read_frames(video, frames):
        if (frame.shape[1], frame.shape[0]) != size:
            frame = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))
        yield frame
