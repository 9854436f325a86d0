"""Video of people who speak: tracked once and cached, and their mouths without head motion."""

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
"""Share of a folder's takes, the last ones, that are used for validation."""

CROP_SCALE = 0.02
"""Eye distances per pixel of a crop: 48 are 0.96, about twice the width of the mouth."""
CROP_RISE = 0.06
"""Eye distances from the center of a crop up to that of the lips, so that the jaw can open within
the crop."""

TENSORS = {
    "landmarks": TensorSpec((ALL_FRAMES, N_LANDMARKS, 2), minimum=-MAX_PX, maximum=MAX_PX),
    "seen": FLAGS,
    **WAVEFORM_TENSORS,
}
"""Tensors in the cache of a video."""

Span = tuple[int, int]
"""Start and stop of consecutive frames that belong to one take, with a face in each."""


@dataclass(frozen=True)
class TrackedVideo:
    """Tracking results of a video, F frames.

    Attributes:
        name: Its name without suffix.
        source: Path that it was read from: its own or its folder's.
        landmarks: [F, 478, 2], in pixels.
        seen: Frames with a face, [F].
        waveform: [n_samples] in [-1, 1] at 16 kHz, in sync.
        takes: Spans to train on.
        validation: Spans that are not trained on.
    """

    name: str
    source: str
    landmarks: Float32
    seen: Bool
    waveform: Float32
    takes: tuple[Span, ...]
    validation: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Mouths:
    """Mouths of a video, F frames.

    Attributes:
        lips: Gray crops, [F, LIPS_HEIGHT, LIPS_WIDTH].
        points: MOUTH_POINTS without head motion, [F, P, 2], in eye distances, y down.
    """

    lips: UInt8
    points: Float32


# -------------------------------------------------------------------------- tracked videos


def read_footage(
    path: Path,
    cache: Path,
    progress: Progress,
    late_ms: Mapping[str, float] | None = None,
    min_take: int = 1,
) -> list[TrackedVideo]:
    """Track the videos of a path, using the cache.

    Args:
        path: A video, or a folder of them with or without an index.jsonl of joined takes.
        cache: Folder of tracked videos.
        progress: Shows the steps.
        late_ms: Milliseconds by which the audio of a video is late, which is corrected. Keys are names
            of videos without suffix.
        min_take: Frames in the shortest take.

    Returns:
        The videos. With an index, the last VALIDATION_FRACTION of the takes is for validation.

    Raises:
        TalkheadError: If a file cannot be read or tracked.
    """
    index = read_joins(path / INDEX) if path.is_dir() and (path / INDEX).exists() else {}
    footage = []
    for video in find_videos(path):
        one = track_video(video, cache, progress, (late_ms or {}).get(video.stem, 0.0))
        takes = tuple(find_takes(one.seen, index.get(video.name, [0]), min_take))
        footage.append(replace(one, source=str(path), takes=takes))
    return _with_validation(footage) if index else footage


def find_videos(path: Path) -> list[Path]:
    """List the videos of a path.

    Args:
        path: A video, or a folder.

    Returns:
        The video itself, or the .mp4 files of the folder by name.

    Raises:
        FootageError: If the folder has no .mp4 files.
    """
    videos = sorted(path.glob("*.mp4")) if path.is_dir() else [path]
    if not videos:
        raise FootageError(f"{path}: no .mp4 in this folder. Pass a folder of videos")
    return videos


def track_video(video: Path, cache: Path, progress: Progress, late_ms: float = 0.0) -> TrackedVideo:
    """Track a video, or read it from the cache.

    Args:
        video: The video.
        cache: Folder of tracked videos.
        progress: Shows the step.
        late_ms: Milliseconds by which its audio is late. It is corrected.

    Returns:
        Its frames, up to the end of the picture or the audio, whichever is shorter. The only take
        is the whole video, with or without a face.

    Raises:
        TalkheadError: If the video cannot be read.
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
    """Frames [H, W, 3] of a video, each reported as progress."""
    for frame in read_frames(video):
        advance()
        yield frame


def read_joins(path: Path) -> dict[str, list[int]]:
    """Read where takes begin.

    Args:
        path: An index with lines of {"file": NAME, "start": SECONDS}.

    Returns:
        First frames of the takes of each file, in order.

    Raises:
        FootageError: For a line that cannot be read.
    """
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


def find_takes(seen: Bool, starts: Sequence[int], min_take: int = 1) -> Iterator[Span]:
    """Find stretches with a face.

    Args:
        seen: Frames with a face, [F].
        starts: First frames of joined takes, which no stretch may cross.
        min_take: Frames in the shortest stretch.

    Yields:
        Start and stop.
    """
    bounds = sorted({0, *starts, len(seen)})
    for low, high in pairwise(bounds):
        flags = np.concatenate([[0], seen[low:high].astype(np.int8), [0]])
        for start, stop in np.flatnonzero(np.diff(flags)).reshape(-1, 2) + low:
            if stop - start >= min_take:
                yield int(start), int(stop)


def _with_validation(footage: Sequence[TrackedVideo]) -> list[TrackedVideo]:
    """The videos, with the last takes moved to validation."""
    spare = round(VALIDATION_FRACTION * sum(len(one.takes) for one in footage))
    split = []
    for one in reversed(footage):
        n_kept = max(0, len(one.takes) - spare)
        split.append(replace(one, takes=one.takes[:n_kept], validation=one.takes[n_kept:]))
        spare -= len(one.takes) - n_kept
    return split[::-1]


# --------------------------------------------------------------------------------- mouths


def steady_template() -> Float32:
    """Load the mean face of the sync model.

    It is used for all videos, so that mouths of different people are comparable.

    Returns:
        Positions of its anchors, [A, 2], in eye distances.

    Raises:
        PackageError: If the weights of the model are missing or damaged.
    """
    return np.asarray(SyncModel.load().net.template.numpy(), np.float32)


def read_mouths(
    video: Path, footage: TrackedVideo, template: Float32, progress: Progress
) -> Mouths:
    """Cut out the mouth of every frame of a tracked video.

    A crop shows the surroundings of the lips' mean position in the video after head motion is
    removed, so it is level and of fixed scale, and lips and jaw move within it.

    Args:
        video: The video.
        footage: Its tracking results.
        template: As returned by `steady_template`, [A, 2].
        progress: Shows the frames.

    Returns:
        The mouths; meaningless in frames without a face.

    Raises:
        FootageError: If there is no face at all.
        TalkheadError: If the video cannot be read.
    """
    points = steady_points(footage.landmarks, template, MOUTH_POINTS)
    seen = footage.seen
    if not seen.any():
        raise FootageError(f"{video}: no face in it. Pass footage of one person who speaks")
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
    """Cut a gray crop around a point of the face, with head motion removed.

    Args:
        frame: [H, W, 3] RGB.
        origin: As returned by `steady_maps`, [1, 2].
        to_steady: As returned by `steady_maps`, [2, 2].
        centre: Center of the crop, [2], in eye distances.

    Returns:
        [LIPS_HEIGHT, LIPS_WIDTH]. Each pixel is the mean of the area that it covers; beyond the
        frame, its border is repeated.
    """
    to_pixels = np.linalg.inv(to_steady)
    # Sample at least as finely as the frame, then average: no aliasing, and no detail is lost.
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
