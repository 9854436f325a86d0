"""Footage of people who speak: tracked once and kept, and its mouths as on faces that hold still."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch

from talkhead.app.evaluation.measures.sync_model import SyncModel, steady_maps, steady_points
from talkhead.cameras import MAX_PX
from talkhead.dataset import ALL_FRAMES, FLAGS, WAVEFORM_TENSORS
from talkhead.encoder.pase.corpus import LIPS_HEIGHT, LIPS_WIDTH
from talkhead.errors import FootageError
from talkhead.face import LIPS, MOUTH_POINTS, N_LANDMARKS
from talkhead.media import read_audio, read_frames
from talkhead.preprocess.av_sync import shift_waveform
from talkhead.preprocess.landmarks import FaceTracker, bridge_gaps, track_frames
from talkhead.progress import Progress
from talkhead.storage import decode_json, make_folder, sha256_of, translate_os_errors, write_tensors
from talkhead.tensors import TensorSpec, read_checked
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Bool, Float32, Float64, UInt8

INDEX = "index.jsonl"
VALIDATION_FRACTION = 0.1

CROP_SCALE = 0.02
"""Eye distances a pixel of a crop: 48 are 0.96, the mouth about half of it."""
CROP_RISE = 0.06
"""How far the middle of the lips lies above the middle of a crop, in eye distances: jaws fall."""

TENSORS = {
    "landmarks": TensorSpec((ALL_FRAMES, N_LANDMARKS, 2), least=-MAX_PX, most=MAX_PX),
    "seen": FLAGS,
    **WAVEFORM_TENSORS,
}
"""What the cache holds of a video."""

Span = tuple[int, int]
"""Start and stop of frames that belong together: one take, a face in each."""


@dataclass(frozen=True)
class TrackedVideo:
    """A tracked video. landmarks: [F, 478, 2]. seen: [F]. waveform: [n_samples] at 16 kHz, in sync.
    source: the path it was read from, itself or its folder. takes: frames that belong together.
    validation: takes that are not trained on."""

    name: str
    source: str
    landmarks: Float32
    seen: Bool
    waveform: Float32
    takes: tuple[Span, ...]
    validation: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Mouths:
    """The mouths of a video. lips: [F, LIPS_HEIGHT, LIPS_WIDTH] grey crops. points: [F, P, 2]
    MOUTH_POINTS in eye distances on a face that holds still, y down."""

    lips: UInt8
    points: Float32


# -------------------------------------------------------------------------- tracked videos


def read_footage(
    path: Path,
    cache: Path,
    progress: Progress,
    late_ms: Mapping[str, float] | None = None,
    least_take: int = 1,
) -> list[TrackedVideo]:
    """The tracked videos of a path: a video, or a folder of them with or without an index.jsonl.

    late_ms: by how much the sound of a video is late, by its stem; it is put right. least_take:
    frames below which a take is left out. Validation: the last VALIDATION_FRACTION of a folder's takes
    when it has an index. Raises TalkheadError.
    """
    index = read_joins(path / INDEX) if path.is_dir() and (path / INDEX).exists() else {}
    footage = []
    for video in find_videos(path):
        one = track_video(video, cache, progress, (late_ms or {}).get(video.stem, 0.0))
        takes = tuple(find_takes(one.seen, index.get(video.name, [0]), least_take))
        footage.append(replace(one, source=str(path), takes=takes))
    return _with_validation(footage) if index else footage


def find_videos(path: Path) -> list[Path]:
    """The video itself, or those of a folder by name. Raises FootageError for an empty folder."""
    videos = sorted(path.glob("*.mp4")) if path.is_dir() else [path]
    if not videos:
        raise FootageError(f"{path}: no .mp4 in this folder. Give a folder of videos")
    return videos


def track_video(video: Path, cache: Path, progress: Progress, late_ms: float = 0.0) -> TrackedVideo:
    """The video tracked, from the cache if it was before, as far as picture and sound both go.

    Its only take is all of it, whether a face is seen or not. Raises TalkheadError.
    """
    stored = make_folder(cache) / f"{video.stem}-{sha256_of(video)[:12]}.safetensors"
    if not stored.exists():
        with progress.step(f"Tracking {video.name}") as step:
            tracker = FaceTracker()
            tracking, seen = bridge_gaps(track_frames(tracker, _advancing(video, step.advance)))
            tracker.close()
        tensors = {
            "landmarks": torch.from_numpy(tracking.landmarks[..., :2].copy()),
            "seen": torch.from_numpy(seen),
            "waveform": torch.from_numpy(read_audio(video)),
        }
        write_tensors(stored, tensors)
    tensors = read_checked(stored, TENSORS, "Remove this file and run the same command again")
    tracked = {name: tensor.numpy() for name, tensor in tensors.items()}
    waveform = shift_waveform(tracked["waveform"], late_ms)
    n_frames = min(len(tracked["seen"]), len(waveform) * FRAME_RATE // SAMPLE_RATE)
    return TrackedVideo(
        video.stem,
        str(video),
        tracked["landmarks"][:n_frames],
        tracked["seen"][:n_frames],
        waveform,
        ((0, n_frames),),
    )


def _advancing(video: Path, advance: Callable[[], None]) -> Iterator[UInt8]:
    for frame in read_frames(video):
        advance()
        yield frame


def read_joins(path: Path) -> dict[str, list[int]]:
    """First frames of the takes of each file of an index."""
    starts: dict[str, list[int]] = {}
    try:
        with translate_os_errors(path):
            lines = path.read_text(encoding="utf-8").splitlines()
        for line in lines:
            take = decode_json(line)
            starts.setdefault(take["file"], []).append(round(take["start"] * FRAME_RATE))
    except (ValueError, KeyError, TypeError) as error:
        raise FootageError(
            f'{path}: each line must be {{"file": NAME, "start": SECONDS}} ({error})'
        ) from error
    return {name: sorted(frames) for name, frames in starts.items()}


def find_takes(seen: Bool, starts: Sequence[int], least_take: int = 1) -> Iterator[Span]:
    """Runs with a face, of least_take frames or more, between one start and the next."""
    bounds = sorted({0, *starts, len(seen)})
    for low, high in pairwise(bounds):
        flags = np.concatenate([[0], seen[low:high].astype(np.int8), [0]])
        for start, stop in np.flatnonzero(np.diff(flags)).reshape(-1, 2) + low:
            if stop - start >= least_take:
                yield int(start), int(stop)


def _with_validation(footage: Sequence[TrackedVideo]) -> list[TrackedVideo]:
    """The last takes set aside."""
    spare = round(VALIDATION_FRACTION * sum(len(one.takes) for one in footage))
    split = []
    for one in reversed(footage):
        n_kept = max(0, len(one.takes) - spare)
        split.append(replace(one, takes=one.takes[:n_kept], validation=one.takes[n_kept:]))
        spare -= len(one.takes) - n_kept
    return split[::-1]


# --------------------------------------------------------------------------------- mouths


def steady_template() -> Float32:
    """Where the judge's anchors lie on a mean face, [A, 2]: the same for all footage, so that
    mouths of different people and corpora share one space. Raises PackageError."""
    return np.asarray(SyncModel.load().net.template.numpy(), np.float32)


def read_mouths(
    video: Path, footage: TrackedVideo, template: Float32, progress: Progress
) -> Mouths:
    """Lips and jaw of every frame of a tracked video; nonsense where no face was seen.

    A crop shows what lies around the lips' mean place in the video on a face that holds still, so
    it is level, of one scale, and lips and jaw move in it. Raises TalkheadError.
    """
    points = steady_points(footage.landmarks, template, MOUTH_POINTS)
    seen = footage.seen
    if not seen.any():
        raise FootageError(f"{video}: no face in it. Give footage of one person who speaks")
    centre = points[seen][:, : len(LIPS)].mean((0, 1)) + np.array([0.0, CROP_RISE])
    lips = np.zeros((len(seen), LIPS_HEIGHT, LIPS_WIDTH), np.uint8)
    origins, maps = steady_maps(footage.landmarks, template)
    with progress.step(f"Cutting mouths of {video.name}", len(seen)) as step:
        frames: Iterable[UInt8] = read_frames(video, n_frames=len(seen))
        for number, frame in enumerate(frames):
            if seen[number]:
                lips[number] = crop_steadily(frame, origins[number], maps[number], centre)
            step.advance()
    return Mouths(lips, points)


def crop_steadily(
    frame: UInt8, origin: Float64, to_steady: Float64, centre: Float64 | Float32
) -> UInt8:
    """A grey crop [LIPS_HEIGHT, LIPS_WIDTH] about a centre [2] of the face that holds still.

    frame: [H, W, 3]. origin [1, 2], to_steady [2, 2]: see steady_maps. Each pixel is the mean of
    what it covers; beyond the frame its edge goes on.
    """
    to_pixels = np.linalg.inv(to_steady)
    # Finer than the frame, or as fine, then averaged: no detail is missed and none is invented.
    fine = max(1, round(CROP_SCALE * float(np.sqrt(abs(np.linalg.det(to_pixels))))))
    step = CROP_SCALE / fine
    size = (LIPS_WIDTH * fine, LIPS_HEIGHT * fine)
    first = centre - step * (np.array(size) - 1) / 2
    affine = np.column_stack([(step * to_pixels).T, first @ to_pixels + origin[0]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    cut = cv2.warpAffine(gray, affine, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    crop = cv2.resize(cut, (LIPS_WIDTH, LIPS_HEIGHT), interpolation=cv2.INTER_AREA)
    return np.asarray(crop, np.uint8)
