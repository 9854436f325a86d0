"""Video frames -> Tracking: 478 landmarks a frame, of one face followed through the clip."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from talkhead.face import N_LANDMARKS, N_SURFACE
from talkhead.types import Bool, Float32, Int, Tracking, UInt8

MAX_FACES = 3
MAX_JUMP = 0.6
"""A face whose centre moved by more than this share of its size is another face."""
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
    """Triangles [852, 3] of the face mesh; the wheel has them only as a text of edge triples."""
    from mediapipe.python.solutions import face_mesh_connections

    source = inspect.getsource(face_mesh_connections)
    body = source.split("FACEMESH_TESSELATION", 1)[1]
    edges = np.array(re.findall(r"\((\d+),\s*(\d+)\)", body), dtype=np.int64)
    first_edges = edges.reshape(-1, 3, 2)
    return np.ascontiguousarray(first_edges[:, :, 0])


class FaceTracker:
    """Follows one face: the largest and most central at first, then the nearest to the last."""

    def __init__(self, last: Float32 | None = None) -> None:
        """last: landmarks [478, 3] of the face to follow, None to choose one."""
        import mediapipe as mp

        with quiet_stderr():
            self._mesh: Any = mp.solutions.face_mesh.FaceMesh(
                static_image_mode=False, max_num_faces=MAX_FACES, refine_landmarks=True
            )
        self._last = last
        self._missed = 0
        self._started = False
        self.most_faces = 0

    def track(self, frame: UInt8) -> Float32 | None:
        """Landmarks [478, 3] in pixels of a frame [H, W, 3] uint8 RGB, None without the face."""
        height, width = frame.shape[:2]
        with contextlib.nullcontext() if self._started else quiet_stderr():
            found = self._mesh.process(frame).multi_face_landmarks or []
        self._started = self._started or bool(found)  # the mesh model loads with the first face
        faces = [_pixels(face, width, height) for face in found]
        self.most_faces = max(self.most_faces, len(faces))
        face = self._choose(faces, width, height)
        self._missed = 0 if face is not None else self._missed + 1
        if face is not None or self._missed > FORGET_FRAMES:
            self._last = face
        return face

    def _choose(self, faces: list[Float32], width: int, height: int) -> Float32 | None:
        if not faces:
            return None
        if self._last is None:
            return max(faces, key=lambda face: _prominence(face, width, height))
        last = self._last
        size = float(np.ptp(last[:, 0]))
        nearest = min(faces, key=lambda face: _distance(face, last))
        return nearest if _distance(nearest, last) < MAX_JUMP * size else None

    def close(self) -> None:
        self._mesh.close()


def _pixels(face: Any, width: int, height: int) -> Float32:
    normalised = np.array([(p.x, p.y, p.z) for p in face.landmark], dtype=np.float32)
    return normalised * np.array([width, height, width], dtype=np.float32)


def _distance(face: Float32, other: Float32) -> float:
    return float(np.linalg.norm(face[:N_SURFACE, :2].mean(0) - other[:N_SURFACE, :2].mean(0)))


def _prominence(face: Float32, width: int, height: int) -> float:
    """Area of the face, less the farther it is from the middle of the image."""
    extent = np.ptp(face[:, :2], axis=0)
    offset = face[:, :2].mean(0) - np.array([width / 2, height / 2])
    return float(extent[0] * extent[1] * np.exp(-np.linalg.norm(offset) / max(width, height)))


def track_frames(tracker: FaceTracker, frames: Iterable[UInt8]) -> Tracking:
    """Landmarks of frames; those without the face are zero and not found."""
    return as_tracking([tracker.track(frame) for frame in frames])


def as_tracking(faces: list[Float32 | None]) -> Tracking:
    """Faces frame by frame as a Tracking; None is zero and not found."""
    empty = np.zeros((N_LANDMARKS, 3), dtype=np.float32)
    landmarks = np.array([empty if face is None else face for face in faces], dtype=np.float32)
    found = np.array([face is not None for face in faces], dtype=bool)
    return Tracking(landmarks.reshape(-1, N_LANDMARKS, 3), found)


def bridge_gaps(tracking: Tracking) -> tuple[Tracking, Bool]:
    """Short gaps interpolated, and which frames [F] have landmarks after that."""
    found = tracking.found
    if not found.any():
        return tracking, found.copy()
    known = np.flatnonzero(found)
    landmarks = tracking.landmarks.copy()
    covered = found.copy()
    for before, after in pairwise(known):
        if 1 < after - before <= BRIDGE_FRAMES + 1:
            share = (np.arange(before + 1, after) - before) / (after - before)
            span = landmarks[after] - landmarks[before]
            landmarks[before + 1 : after] = landmarks[before] + share[:, None, None] * span
            covered[before + 1 : after] = True
    return Tracking(landmarks, found), covered
