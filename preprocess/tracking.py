"""Track the face through a whole video, in chunks, so that an interrupted run resumes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from talkhead import media
from talkhead.dataset import ADVICE, ALL_FRAMES, TENSORS
from talkhead.device import map_concurrently
from talkhead.footage import Footage, first_frames
from talkhead.preprocess.landmarks import (
    FaceDetector,
    FaceTracker,
    TrackedFace,
    as_tracking,
    mesh_triangles,
)
from talkhead.preprocess.occlusion import face_colors
from talkhead.progress import Progress
from talkhead.storage import write_tensors
from talkhead.tensors import Size, TensorSpec, read_checked
from talkhead.types import FRAME_RATE, Float32, UInt8

CHUNK = 200
"""Frames between checkpoints; a few seconds of work."""
TRACKING = "tracking.safetensors"
TRACKING_TENSORS = {
    **{name: TENSORS[name] for name in ("landmarks", "blendshapes", "found")},
    "colours": TensorSpec((ALL_FRAMES, Size("triangles"), 3), torch.uint8),
    "n_faces": TensorSpec((), torch.int64, minimum=0),
}
"""Contents of the tracking file, and of the file of each chunk."""


def track_video(
    footage: Footage, folder: Path, progress: Progress, face: Float32 | None = None
) -> None:
    """Track the face in every frame and write `TRACKING`; resumes after the last finished chunk.

    The file holds the landmarks, the blendshapes, the frames with a face, the mean colors of the mesh
    triangles and the largest number of faces in one frame.

    Args:
        footage: The video.
        folder: Folder of the dataset.
        progress: Where the step is shown.
        face: Landmarks [478, 3] of the face to follow, in pixels. None: the largest, most central one.

    Raises:
        MediaError: The video cannot be decoded.
        PackageError: The file of a finished chunk is damaged.
        TalkheadError: The disk is full or not writable.
    """
    chunks = _tracked_chunks(footage, folder, progress, face)
    most = torch.stack([chunk["n_faces"] for chunk in chunks]).max()
    # Popped, so that the tracks of long footage are in memory only once.
    tracks = {
        name: torch.cat([chunk.pop(name) for chunk in chunks])
        for name in ("landmarks", "blendshapes", "found", "colours")
    }
    write_tensors(folder / TRACKING, {**tracks, "n_faces": most})
    for leftover in folder.glob("tracking.part*.safetensors"):
        leftover.unlink()


def _tracked_chunks(
    footage: Footage, folder: Path, progress: Progress, face: Float32 | None
) -> list[dict[str, Tensor]]:
    """Return the tensors of all chunks, [n, ...] each; missing chunks are made."""
    chunks: list[dict[str, Tensor]] = []
    while (path := folder / f"tracking.part{len(chunks):05d}.safetensors").exists():
        chunks.append(read_checked(path, TRACKING_TENSORS, ADVICE))
    done = sum(len(chunk["found"]) for chunk in chunks)
    if chunks and len(chunks[-1]["found"]) < CHUNK:  # the last one of the video
        return chunks
    joins = first_frames(footage.clips)
    total = max(1, round(footage.info.duration_s * FRAME_RATE))
    with progress.step("Tracking the face", total=total, done=done) as step:
        frames = media.read_frames(footage.path, start_s=done / FRAME_RATE)
        detector = FaceDetector()
        found = map_concurrently(
            lambda frame: (frame, detector.detect(frame)), frames, torch.get_num_threads()
        )
        with closing(frames), closing(detector), closing(found):
            while len((chunk := _track_chunk(found, detector, chunks, joins, face))["found"]):
                chunks.append(chunk)
                name = f"tracking.part{len(chunks) - 1:05d}.safetensors"
                write_tensors(folder / name, chunk)
                step.advance(len(chunk["found"]))
    return chunks


def _track_chunk(
    found: Iterator[tuple[UInt8, list[TrackedFace]]],
    detector: FaceDetector,
    earlier: list[dict[str, Tensor]],
    joins: Sequence[int],
    known_face: Float32 | None,
) -> dict[str, Tensor]:
    """Follow the face of the earlier chunks through the next CHUNK frames [H, W, 3] and their faces.

    It is chosen anew at the joins, which are numbers of frames.
    """
    # A new tracker, as after an interruption.
    last = _last_face(earlier)
    tracker = FaceTracker(known_face if last is None else last, detector)
    triangles = mesh_triangles()
    faces, colors = [], np.zeros((CHUNK, len(triangles), 3), np.uint8)
    start = sum(len(chunk["found"]) for chunk in earlier)
    for i, (frame, candidates) in enumerate(islice(found, CHUNK)):
        if start + i in joins:
            tracker.forget()
        faces.append(face := tracker.choose(candidates, frame.shape[1], frame.shape[0]))
        if face is not None:
            colors[i] = face_colors(frame, face.landmarks, triangles)
    tracking = as_tracking(faces)
    return {
        "landmarks": torch.from_numpy(tracking.landmarks),
        "blendshapes": torch.from_numpy(tracking.blendshapes),
        "found": torch.from_numpy(tracking.detected),
        "colours": torch.from_numpy(colors[: len(faces)]),
        "n_faces": torch.tensor(tracker.max_faces),
    }


def _last_face(chunks: list[dict[str, Tensor]]) -> Float32 | None:
    """Return the last landmarks [478, 3] that were found in the chunks; None if there are none."""
    for chunk in reversed(chunks):
        found = chunk["found"].numpy()
        if found.any():
            return np.asarray(chunk["landmarks"][int(np.flatnonzero(found)[-1])].numpy())
    return None
