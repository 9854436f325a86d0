"""Track face landmarks: 478 points per frame, of one face followed through the clip."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from talkhead.blendshapes import N_BLENDSHAPES
from talkhead.face import N_LANDMARKS, N_SURFACE
from talkhead.types import Bool, Float32, Int, Tracking, UInt8
from talkhead.weights import resolve

MODEL = "face_landmarker.task"
MAX_FACES = 3
"""Faces to search for. At least 2: when it searches for one, the landmarker smooths landmarks over time,
which flattens lip motion."""
MAX_JUMP = 0.6
"""A face whose center moved by more than this fraction of its size is a different one."""
FORGET_FRAMES = 25
"""After a longer absence the face may reappear anywhere: the most prominent one is followed."""
BRIDGE_FRAMES = 5
"""Gaps up to this length are interpolated; longer ones remain without a face."""


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Silence stderr inside the block.

    mediapipe's C++ log ignores its settings; only the file descriptor silences it.

    Yields:
        None.
    """
    saved = os.dup(2)
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def mesh_triangles() -> Int:
    """Return the triangles of the face mesh, which mediapipe lists as triples of edges.

    Returns:
        [852, 3] vertex indices.
    """
    from mediapipe.tasks.python.vision import FaceLandmarksConnections

    edges = FaceLandmarksConnections.FACE_LANDMARKS_TESSELATION
    return np.array([edge.start for edge in edges], dtype=np.int64).reshape(-1, 3)


@dataclass(frozen=True)
class TrackedFace:
    """One face in one frame.

    Attributes:
        landmarks: [478, 3] in pixels of the frame.
        blendshapes: [52] in [0, 1], in the order of `talkhead.blendshapes.BLENDSHAPES`.
    """

    landmarks: Float32
    blendshapes: Float32


class ThreadModels:
    """A mediapipe model, loaded anew in each thread that uses it.

    A model may not be used by two threads at the same time.
    """

    _loading = threading.Lock()  # stderr is silenced for the whole process

    def __init__(self, load: Callable[[], Any]) -> None:
        """Load the model in this thread, so that errors are raised here.

        Args:
            load: Loads the model.
        """
        self._load, self._local, self._loaded = load, threading.local(), list[Any]()
        # Closed before the interpreter unloads mediapipe, which would print a traceback.
        self._closing = weakref.finalize(self, _close_all, self._loaded)
        self.own()

    def own(self) -> Any:
        """Return the model of the calling thread."""
        model = getattr(self._local, "model", None)
        if model is None:
            with self._loading, quiet_stderr():
                model = self._local.model = self._load()
                self._loaded.append(model)
        return model

    def close(self) -> None:
        """Release the models of all threads."""
        self._closing()


def _close_all(models: list[Any]) -> None:
    for model in models:
        model.close()


class FaceDetector:
    """Finds all faces in single frames. Several threads may use it at the same time."""

    def __init__(self) -> None:
        """Load the landmarker."""
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_buffer=resolve(MODEL).read_bytes()),
            running_mode=vision.RunningMode.IMAGE,
            num_faces=MAX_FACES,
            output_face_blendshapes=True,
        )
        self._models = ThreadModels(lambda: vision.FaceLandmarker.create_from_options(options))

    def detect(self, frame: UInt8) -> list[TrackedFace]:
        """Find the faces in a frame.

        Args:
            frame: [H, W, 3] uint8 RGB.

        Returns:
            At most MAX_FACES faces.
        """
        height, width = frame.shape[:2]
        return _faces(self._models.own().detect(as_image(frame)), width, height)

    def close(self) -> None:
        """Release the landmarker."""
        self._models.close()


class FaceTracker:
    """Follows one face: first the largest and most central one, then the one nearest to its last place.

    Landmarks depend on their own frame alone; earlier frames only determine which face is followed.

    Attributes:
        max_faces: Largest number of faces in a frame so far.
    """

    def __init__(self, last: Float32 | None = None, detector: FaceDetector | None = None) -> None:
        """Initialize the tracker.

        Args:
            last: Landmarks [478, 3] of the face to follow, None to choose one.
            detector: Finds the faces; None for a new one.
        """
        self._detector = detector or FaceDetector()
        self._last = last
        self._missed = 0
        self.max_faces = 0

    def track(self, frame: UInt8) -> Float32 | None:
        """Track the face in a frame.

        Args:
            frame: [H, W, 3] uint8 RGB.

        Returns:
            Landmarks [478, 3] in pixels of the frame, None where the face was not found.
        """
        face = self.follow(frame)
        return None if face is None else face.landmarks

    def follow(self, frame: UInt8) -> TrackedFace | None:
        """Track the face in a frame, with blendshapes.

        Args:
            frame: [H, W, 3] uint8 RGB.

        Returns:
            The face, None where it was not found.
        """
        height, width = frame.shape[:2]
        return self.choose(self._detector.detect(frame), width, height)

    def choose(self, faces: list[TrackedFace], width: int, height: int) -> TrackedFace | None:
        """Choose the face to follow among those of the next frame.

        Args:
            faces: The faces, as `FaceDetector.detect` returns them.
            width: Width of the frame, pixels.
            height: Height of the frame, pixels.

        Returns:
            The face, None where it was not found.
        """
        self.max_faces = max(self.max_faces, len(faces))
        face = self._choose(faces, width, height)
        self._missed = 0 if face is not None else self._missed + 1
        if face is not None or self._missed > FORGET_FRAMES:
            self._last = None if face is None else face.landmarks
        return face

    def _choose(self, faces: list[TrackedFace], width: int, height: int) -> TrackedFace | None:
        if not faces:
            return None
        if self._last is None:
            return max(faces, key=lambda face: _prominence(face.landmarks, width, height))
        last = self._last
        size = float(np.ptp(last[:, 0]))
        nearest = min(faces, key=lambda face: face_distance(face.landmarks, last))
        return nearest if face_distance(nearest.landmarks, last) < MAX_JUMP * size else None

    def forget(self) -> None:
        """Choose the face anew in the next frame, which does not continue the one before."""
        self._last, self._missed = None, 0

    def close(self) -> None:
        """Release the landmarker."""
        self._detector.close()


def as_image(frame: UInt8) -> Any:
    """Convert a frame to mediapipe's image.

    Args:
        frame: [H, W, 3] uint8 RGB.

    Returns:
        A `mediapipe.Image`.
    """
    import mediapipe as mp

    return mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(frame))


def _faces(found: Any, width: int, height: int) -> list[TrackedFace]:
    """Convert what the landmarker found in an image of this size."""
    scale = np.array([width, height, width], dtype=np.float32)
    return [
        TrackedFace(
            np.array([(p.x, p.y, p.z) for p in points], dtype=np.float32) * scale,
            np.array([category.score for category in scores], dtype=np.float32),
        )
        for points, scores in zip(found.face_landmarks, found.face_blendshapes, strict=True)
    ]


def face_distance(face: Float32, other: Float32) -> float:
    """Return the distance between the centers of two faces.

    Args:
        face: [478, 3] in pixels.
        other: [478, 3] in pixels.

    Returns:
        Pixels.
    """
    return float(np.linalg.norm(face[:N_SURFACE, :2].mean(0) - other[:N_SURFACE, :2].mean(0)))


def _prominence(face: Float32, width: int, height: int) -> float:
    """Return the area of a face [478, 3], reduced by its distance from the middle of the image."""
    extent = np.ptp(face[:, :2], axis=0)
    offset = face[:, :2].mean(0) - np.array([width / 2, height / 2])
    return float(extent[0] * extent[1] * np.exp(-np.linalg.norm(offset) / max(width, height)))


def track_frames(tracker: FaceTracker, frames: Iterable[UInt8]) -> Tracking:
    """Track the face through frames.

    Args:
        tracker: The tracker.
        frames: [H, W, 3] uint8 RGB each.

    Returns:
        Landmarks and blendshapes; 0 and not found in frames without the face.
    """
    return as_tracking([tracker.follow(frame) for frame in frames])


def as_tracking(faces: list[TrackedFace | None]) -> Tracking:
    """Stack faces frame by frame.

    Args:
        faces: One for each of F frames, None where none was found.

    Returns:
        A tracking of F frames; 0 and not found where there is no face.
    """
    landmarks = np.zeros((len(faces), N_LANDMARKS, 3), dtype=np.float32)
    blendshapes = np.zeros((len(faces), N_BLENDSHAPES), dtype=np.float32)
    for i, face in enumerate(faces):
        if face is not None:
            landmarks[i], blendshapes[i] = face.landmarks, face.blendshapes
    found = np.array([face is not None for face in faces], dtype=bool)
    return Tracking(landmarks, blendshapes, found)


def bridge_gaps(tracking: Tracking, joins: Sequence[int] = ()) -> tuple[Tracking, Bool]:
    """Interpolate short gaps.

    Args:
        tracking: Tracking of F frames.
        joins: First frame of each clip but the first one; nothing is interpolated between clips.

    Returns:
        The tracking without short gaps, and the frames [F] that have landmarks now.
    """
    found = tracking.detected
    if not found.any():
        return tracking, found.copy()
    known = np.flatnonzero(found)
    tracks = tracking.landmarks.copy(), tracking.blendshapes.copy()
    covered = found.copy()
    for before, after in pairwise(known):
        is_cut = any(before < join <= after for join in joins)
        if 1 < after - before <= BRIDGE_FRAMES + 1 and not is_cut:
            share = (np.arange(before + 1, after) - before) / (after - before)
            for track in tracks:
                spread = share.reshape(-1, *[1] * (track.ndim - 1))
                track[before + 1 : after] = track[before] + spread * (track[after] - track[before])
            covered[before + 1 : after] = True
    return Tracking(*tracks, found), covered
