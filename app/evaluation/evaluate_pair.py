"""Any two videos of one face, judged: the real one and what some system made."""

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
from talkhead.app.evaluation.measures import image as metrics
from talkhead.app.evaluation.reference import FrameReference, encoded, frames_of
from talkhead.app.evaluation.results import FLOOR, MADE, MEAN, REAL, WRONG, Variant, VariantKind
from talkhead.app.evaluation.variant import (
    AudioContext,
    MeasurementTools,
    VisualMeasurement,
    look,
    make_variant,
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
SAME_SHAPE = 0.02
"""Aspect ratios this near, relatively, are taken for the same picture."""


@dataclass(frozen=True)
class Pair:
    """Two videos side by side, from their first frames on.

    n_frames: compared, at 25 a second. words: what was done to make them comparable.
    """

    real: MediaInfo
    made: MediaInfo
    n_frames: int
    words: tuple[str, ...]


def align(real: Path, made: Path, max_frames: int) -> Pair:
    """How two videos are compared.

    Raises MediaError where one can't be read or shows another picture, FootageError where too little
    is left.
    """
    infos = media.probe(real), media.probe(made)
    for info in infos:
        if not info.has_video:
            raise MediaError(f"{info.path}: has no picture. Give two videos of the same face")
    first, second = infos
    ratio = (second.width / second.height) / (first.width / first.height)
    if abs(ratio - 1) > SAME_SHAPE:
        raise MediaError(
            f"{made}: {_size(second)} and {real}: {_size(first)} don't show the same picture. "
            "Crop or pad one of them to the other's shape"
        )
    counts = [_count_frames(info.path, max_frames) for info in infos]
    n_frames = min(counts)
    if n_frames < MIN_SECONDS * FRAME_RATE:
        brief = infos[int(np.argmin(counts))].path
        raise FootageError(
            f"{brief}: {n_frames / FRAME_RATE:.1f} s can be compared, at least "
            f"{MIN_SECONDS:.0f} s are needed. Give longer videos"
        )
    return Pair(first, second, n_frames, tuple(_words(first, second, counts)))


def _count_frames(video: Path, most: int) -> int:
    """How many frames there are to read: a file's sound may outlast its picture."""
    with closing(media.read_frames(video, n_frames=most)) as frames:
        return sum(1 for _ in frames)


def _size(info: MediaInfo) -> str:
    return f"{info.width}x{info.height}"


def _words(real: MediaInfo, made: MediaInfo, counts: list[int]) -> Iterator[str]:
    if counts[0] != counts[1]:
        seconds = [count / FRAME_RATE for count in counts]
        yield (
            f"the pictures last {seconds[0]:.2f} s and {seconds[1]:.2f} s: compared from their "
            f"beginnings on, {min(seconds):.2f} s"
        )
    if (real.width, real.height) != (made.width, made.height):
        yield f"the made video was scaled from {_size(made)} to {_size(real)}, which costs sharpness"
    for info in (real, made):
        if abs(info.frame_rate - FRAME_RATE) > 0.01:
            yield (
                f"{info.path.name} has {info.frame_rate:.2f} frames a second and was sampled "
                f"at {FRAME_RATE}"
            )


@dataclass(frozen=True)
class PairEvaluation:
    """The takes, and what pictures are drawn from. landmarks: [L, 478, 2] of the real video, NaN
    without a face. worst: places among the scene's frames, farthest from real first."""

    takes: tuple[Variant, ...]
    scene: FrameReference
    landmarks: Float32
    worst: Int


def measure_pair(
    pair: Pair,
    sounds: tuple[AudioContext | None, AudioContext | None],
    instruments: MeasurementTools,
    progress: Progress,
) -> PairEvaluation:
    """The takes of a pair. sounds: of the real and the made video, None without speech.

    Raises FootageError where one of them shows no face.
    """
    numbers = np.arange(pair.n_frames)
    with progress.step("Comparing the videos", total=3 * pair.n_frames) as bar:
        blank = FrameReference(pair.real.path, numbers, np.empty((0, 478, 2), np.float32))
        real = track(blank, blank.real(), instruments.tracker)
        _check_face(pair.real.path, real)
        bar.advance(pair.n_frames)
        seen = metrics.has_face(real)
        scene = FrameReference(pair.real.path, numbers[seen], real[seen])
        size = (pair.real.width, pair.real.height)
        with closing(fitted_frames(pair.made.path, scene.numbers, size)) as images:
            made = look(scene, images, instruments, bar, whole=True)
        _check_face(pair.made.path, made.landmarks)
        with tempfile.TemporaryDirectory(prefix="talkhead-") as folder:
            floor = look(scene, encoded(scene, Path(folder)), instruments, bar, whole=True)
    takes = _takes(pair, scene, floor, made, sounds, instruments)
    return PairEvaluation(takes, scene, real, worst_lips(made.landmarks, scene.points))


def _takes(
    pair: Pair,
    scene: FrameReference,
    floor: VisualMeasurement,
    made: VisualMeasurement,
    sounds: tuple[AudioContext | None, AudioContext | None],
    instruments: MeasurementTools,
) -> tuple[Variant, ...]:
    true, numbers = scene.points, scene.numbers
    first, n_frames = int(numbers[0]), int(numbers[-1] - numbers[0]) + 1
    heard, own = (None if one is None else excerpt(one, first, n_frames) for one in sounds)
    if own is None and heard is not None:  # what should be said is known, how it is timed is not
        own = replace(heard, waveform=heard.waveform[:0])
    rows: tuple[tuple[str, VariantKind, str, VisualMeasurement, AudioContext | None], ...] = (
        (REAL, "real", pair.real.path.name, VisualMeasurement.of_landmarks(true), heard),
        (
            FLOOR,
            "floor",
            "the real video after x264 at CRF 23: the best that any method can get",
            floor,
            heard,
        ),
        (MADE, "made", pair.made.path.name, made, own),
        (
            MEAN,
            "baseline",
            "a mouth that never moves (landmarks alone)",
            VisualMeasurement.of_landmarks(mean_mouth(true, true)),
            heard,
        ),
        (
            WRONG,
            "baseline",
            "the real motion of half the clip later (landmarks alone)",
            VisualMeasurement.of_landmarks(mismatched_speech(true, half_turned(true))),
            heard,
        ),
    )
    takes = [
        make_variant(name, kind, about, sight, true, numbers, sound, instruments.judge)
        for name, kind, about, sight, sound in rows
    ]
    for place, video in ((0, pair.real.path), (2, pair.made.path)):
        images = partial(fitted_frames, video, scene.numbers, (pair.real.width, pair.real.height))
        points, sound = rows[place][3].landmarks, rows[place][4]
        takes[place] = with_syncnet(
            takes[place], images, points, scene.numbers, sound, instruments.syncnet
        )
    return tuple(takes)


def _check_face(path: Path, landmarks: Float32) -> None:
    found = int(metrics.has_face(landmarks).sum())
    if found < MIN_FACE * len(landmarks):
        raise FootageError(
            f"{path}: a face was found in {found} of {len(landmarks)} frames. "
            "Both videos must show the same face, frontal and near"
        )


def fitted_frames(video: Path, numbers: Int, size: tuple[int, int]) -> Generator[UInt8, None, None]:
    """Frames of a video at another size (width, height)."""
    for frame in frames_of(video, numbers):
        if (frame.shape[1], frame.shape[0]) != size:
            frame = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))
        yield frame
