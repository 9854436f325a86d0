"""Video frames -> Tracking: 478 landmarks a frame, of one face followed through the clip."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from talkhead.face import N_BLENDSHAPES, N_LANDMARKS, N_SURFACE
from talkhead.types import Bool, Float32, Int, Tracking, UInt8
from talkhead.weights import resolve

MODEL = "face_landmarker.task"
MAX_FACES = 3
"""Faces that are looked for. At least 2: a landmarker of one face smooths landmarks over time, which
flattens lips."""
MAX_JUMP = 0.6
"""A face whose center moved by more than this share of its size is another face."""
FORGET_FRAMES = 25
"""A face that was gone for longer may come back anywhere: the most prominent one is taken."""
BRIDGE_FRAMES = 5
"""Gaps up to this long are interpolated; longer ones stay without a face."""


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """mediapipe's C++ log heeds no setting; only the file descriptor silences it."""
    saved = os.dup(2)
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def mesh_triangles() -> Int:
    """Triangles [852, 3] of the face mesh, which mediapipe lists as triples of edges."""
    from mediapipe.tasks.python.vision import FaceLandmarksConnections

    edges = FaceLandmarksConnections.FACE_LANDMARKS_TESSELATION
    return np.array([edge.start for edge in edges], dtype=np.int64).reshape(-1, 3)


@dataclass(frozen=True)
class TrackedFace:
    """One face in one frame.

    landmarks: [478, 3] in pixels of the frame. blendshapes: [52] in [0, 1], in the order of
    `talkhead.face.BLENDSHAPES`.
    """

    landmarks: Float32
    blendshapes: Float32


class FaceTracker:
    """Follows one face: the largest and most central at first, then the nearest to the last.

    Landmarks of a frame depend on this frame alone; the frames before only say whose face it is.
    """

    def __init__(self, last: Float32 | None = None) -> None:
        """Load the landmarker.

        Args:
            last: Landmarks [478, 3] of the face to follow, None to choose one.
        """
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_buffer=resolve(MODEL).read_bytes()),
            running_mode=vision.RunningMode.IMAGE,
            num_faces=MAX_FACES,
            output_face_blendshapes=True,
        )
        with quiet_stderr():
            self._landmarker: Any = vision.FaceLandmarker.create_from_options(options)
        # At the latest before the interpreter takes mediapipe apart, which would print a traceback.
        self._closing = weakref.finalize(self, self._landmarker.close)
        self._last = last
        self._missed = 0
        self.most_faces = 0

    def track(self, frame: UInt8) -> Float32 | None:
        """Landmarks [478, 3] in pixels of a frame [H, W, 3] uint8 RGB, None without the face."""
        face = self.follow(frame)
        return None if face is None else face.landmarks

    def follow(self, frame: UInt8) -> TrackedFace | None:
        """The face in a frame [H, W, 3] uint8 RGB, None where it is not seen."""
        height, width = frame.shape[:2]
        faces = _faces(self._landmarker.detect(as_image(frame)), width, height)
        self.most_faces = max(self.most_faces, len(faces))
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
        nearest = min(faces, key=lambda face: _distance(face.landmarks, last))
        return nearest if _distance(nearest.landmarks, last) < MAX_JUMP * size else None

    def close(self) -> None:
        """Free the landmarker."""
        self._closing()


def as_image(frame: UInt8) -> Any:
    """A frame [H, W, 3] uint8 RGB as mediapipe's image."""
    import mediapipe as mp

    return mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(frame))


def _faces(found: Any, width: int, height: int) -> list[TrackedFace]:
    """What the landmarker found in an image of this size."""
    scale = np.array([width, height, width], dtype=np.float32)
    return [
        TrackedFace(
            np.array([(p.x, p.y, p.z) for p in points], dtype=np.float32) * scale,
            np.array([category.score for category in scores], dtype=np.float32),
        )
        for points, scores in zip(found.face_landmarks, found.face_blendshapes, strict=True)
    ]


def _distance(face: Float32, other: Float32) -> float:
    return float(np.linalg.norm(face[:N_SURFACE, :2].mean(0) - other[:N_SURFACE, :2].mean(0)))


def _prominence(face: Float32, width: int, height: int) -> float:
    """Area of the face, less the farther it is from the middle of the image."""
    extent = np.ptp(face[:, :2], axis=0)
    offset = face[:, :2].mean(0) - np.array([width / 2, height / 2])
    return float(extent[0] * extent[1] * np.exp(-np.linalg.norm(offset) / max(width, height)))


def track_frames(tracker: FaceTracker, frames: Iterable[UInt8]) -> Tracking:
    """Landmarks of frames; those without the face are zero and not found."""
    return as_tracking([tracker.follow(frame) for frame in frames])


def as_tracking(faces: list[TrackedFace | None]) -> Tracking:
    """Faces frame by frame as a Tracking; None is zero and not found."""
    landmarks = np.zeros((len(faces), N_LANDMARKS, 3), dtype=np.float32)
    blendshapes = np.zeros((len(faces), N_BLENDSHAPES), dtype=np.float32)
    for i, face in enumerate(faces):
        if face is not None:
            landmarks[i], blendshapes[i] = face.landmarks, face.blendshapes
    found = np.array([face is not None for face in faces], dtype=bool)
    return Tracking(landmarks, blendshapes, found)


def bridge_gaps(tracking: Tracking) -> tuple[Tracking, Bool]:
    """Short gaps interpolated, and which frames [F] have landmarks after that."""
    found = tracking.found
    if not found.any():
        return tracking, found.copy()
    known = np.flatnonzero(found)
    tracks = tracking.landmarks.copy(), tracking.blendshapes.copy()
    covered = found.copy()
    for before, after in pairwise(known):
        if 1 < after - before <= BRIDGE_FRAMES + 1:
            share = (np.arange(before + 1, after) - before) / (after - before)
            for track in tracks:
                spread = share.reshape(-1, *[1] * (track.ndim - 1))
                track[before + 1 : after] = track[before] + spread * (track[after] - track[before])
            covered[before + 1 : after] = True
    return Tracking(*tracks, found), covered
