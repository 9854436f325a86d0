"""Detection of hands, microphones and cups in front of a face, on clips of people; prints JSON lines.

    python -m benchmarks.occlusion VIDEO... [--sheets FOLDER]

A clip is tracked twice: unchanged, so that every detection is a false alarm, and with objects drawn
in front of the face, which appear, stay and go. A frame counts as occluded where an object covers
more than MIN_SHOWN of the face; only pixels of the face are counted. --sheets writes pictures of the
detections to a folder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from talkhead import media
from talkhead.cameras import default_intrinsics
from talkhead.crops import occluded_area
from talkhead.face import FACE_OVAL, LIPS, NOSE_BOTTOM
from talkhead.frame_selection import train_frames
from talkhead.preprocess.av_sync import lip_measures
from talkhead.preprocess.head_pose import track_head
from talkhead.preprocess.landmarks import FaceTracker, mesh_triangles
from talkhead.preprocess.occlusion import (
    face_colors,
    head_posture,
    mouth_occluded,
    occluded_triangles,
)
from talkhead.types import FRAME_RATE, Bool, Float32, Float64, UInt8

MIN_SHOWN = 0.05
EVERY, STAYS, COMES = 100, 20, 8
"""Numbers of frames: from object to object, while one is in place, and to appear or disappear."""
KINDS = ("hand", "microphone", "cup")
TONES = (1.0, 0.9, 1.1)
"""Brightness of hands, relative to the face's median."""
PLACES = ((0.0, 0.0), (0.35, 0.1), (-0.3, -0.35), (0.0, -0.25), (-0.45, -0.05), (0.1, 0.15))
"""Positions of objects, relative to the middle of the mouth, in widths of the face."""


@dataclass(frozen=True)
class Tracked:
    """landmarks: [F, 478, 3]. colors: [F, T, 3]. detected: frames with a face, [F]."""

    landmarks: Float32
    colors: UInt8
    detected: Bool


@dataclass(frozen=True)
class Found:
    """occluded: covered triangles, [F, T]. mouth: frames with an occluded mouth, [F]."""

    occluded: Bool
    mouth: Bool


def track(frames: Iterator[UInt8]) -> Tracked:
    """Landmarks and colors of frames, as in preprocessing."""
    tracker, triangles = FaceTracker(), mesh_triangles()
    landmarks, colors, found = [], [], []
    for frame in frames:
        face = tracker.track(frame)
        found.append(face is not None)
        landmarks.append(np.zeros((478, 3), np.float32) if face is None else face)
        colors.append(
            np.zeros((len(triangles), 3), np.uint8)
            if face is None
            else face_colors(frame, face, triangles)
        )
    tracker.close()
    return Tracked(np.stack(landmarks), np.stack(colors), np.array(found))


def pasted(frame: UInt8, number: int, clean: Tracked) -> tuple[UInt8, Bool]:
    """A frame with the object in front of the face, and its mask [H, W]."""
    event, phase = divmod(number, EVERY)
    away = max(0.0, 1.0 - phase / COMES, (phase - COMES - STAYS) / COMES)
    if away > 1.0 or event == 0 or not clean.detected[number]:
        return frame, np.zeros(frame.shape[:2], bool)
    points = clean.landmarks[number, :, :2].astype(np.float64)
    width = float(np.ptp(points[list(FACE_OVAL), 0]))
    x, y = PLACES[(event + event // 3) % len(PLACES)]
    middle = points[list(LIPS)].mean(0) + width * np.array([x, y + 1.6 * away])
    skin = np.median(clean.colors[number], axis=0) * TONES[event // 3 % 3]
    color, alpha = draw(KINDS[event % 3], frame.shape[:2], middle, width, skin)
    mixed = frame + alpha[..., None] * (color - frame)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8), alpha > 0.5


def draw(
    kind: str, size: tuple[int, int], middle: Float64, width: float, skin: Float64
) -> tuple[Float64, Float64]:
    """Color [H, W, 3] and cover [H, W] of an object that moves from below to `middle`."""
    cover = np.zeros(size, np.uint8)
    light = np.ones(size, np.float32)

    def at(x: float, y: float) -> tuple[int, int]:
        px, py = middle + width * np.array([x, y])
        return round(float(px)), round(float(py))

    def long(n: float) -> int:
        return max(1, round(n * width))

    if kind == "hand":
        cv2.ellipse(cover, at(0, 0.22), (long(0.21), long(0.26)), 0, 0, 360, 255, -1)
        cv2.line(cover, at(0, 0.4), at(0.1, 2.0), 255, long(0.28))
        for i, reach in enumerate((0.28, 0.36, 0.34, 0.24)):
            finger = (at(-0.16 + 0.105 * i, 0.1), at(-0.21 + 0.135 * i, -reach))
            cv2.line(cover, *finger, 255, long(0.095))
            cv2.line(light, *finger, 1.06, long(0.05))
        cv2.line(cover, at(0.18, 0.25), at(0.38, 0.02), 255, long(0.11))
        base = skin
    elif kind == "microphone":
        cv2.circle(cover, at(0, 0.05), long(0.16), 255, -1)
        cv2.line(cover, at(0, 0.1), at(0.15, 2.0), 255, long(0.15))
        base = np.array([38.0, 38.0, 42.0])
    else:
        corners = np.array([at(-0.25, -0.25), at(0.25, -0.25), at(0.2, 0.4), at(-0.2, 0.4)])
        cv2.fillPoly(cover, [corners.astype(np.int32)], 255)
        cv2.line(cover, at(0.1, 0.3), at(0.3, 2.0), 255, long(0.2))
        base = np.array([225.0, 225.0, 220.0])
    inside = cv2.distanceTransform(cover, cv2.DIST_L2, 5) / (0.06 * width)
    shade = cv2.GaussianBlur(light * (0.8 + 0.22 * np.minimum(1.0, inside)), (0, 0), 0.012 * width)
    rough = np.random.default_rng(0).normal(0.0, 2.0, (*size, 1))
    alpha = cv2.GaussianBlur(cover.astype(np.float32) / 255, (0, 0), 0.8)
    return np.asarray(shade[..., None] * base + rough, np.float64), alpha.astype(np.float64)


def detect(tracked: Tracked, size: tuple[int, int]) -> Found:
    """Detections of preprocessing in a tracked clip; size: height, width of its frames."""
    found, train = tracked.detected, train_frames(len(tracked.detected))
    intrinsics = default_intrinsics(size[1], size[0])
    head = track_head(tracked.landmarks, found, found & train, intrinsics)
    posture = head_posture(head.poses.viewmats, lip_measures(head.canonical), found & train)
    triangles = mesh_triangles()
    occluded = occluded_triangles(tracked.colors, posture, found, train, head.template, triangles)
    return Found(occluded, mouth_occluded(occluded, head.template, triangles))


def face_cover(cover: Bool, points: Float32) -> tuple[Bool, Bool]:
    """Mask [H, W] of the face with landmarks [478, 2], and the part of it that is covered."""
    oval = points[list(FACE_OVAL)].round().astype(np.int32)
    face = cv2.fillPoly(np.zeros(cover.shape, np.uint8), [oval], 1) > 0
    return face, face & cover


def bench(video: Path, sheets: Path | None) -> dict[str, Any]:
    """False alarms on the unchanged clip; recall and precision with objects in front of the face."""
    info = media.probe(video)
    size = info.height, info.width
    clean = track(media.read_frames(video))
    alarms = detect(clean, size).occluded.any(1)
    covers: list[UInt8] = []

    def shown() -> Iterator[UInt8]:
        for number, frame in enumerate(media.read_frames(video)):
            image, cover = pasted(frame, number, clean)
            covers.append(np.packbits(cover))
            yield image

    tracked = track(shown())
    found = detect(tracked, size)
    triangles, counts = mesh_triangles(), np.zeros(3)
    share, mouth = np.zeros(len(covers)), np.zeros(len(covers))
    for number in np.flatnonzero([packed.any() for packed in covers]):
        cover = np.unpackbits(covers[number])[: size[0] * size[1]].reshape(size) > 0
        points = clean.landmarks[number, :, :2]
        face, covered = face_cover(cover, points)
        below = np.arange(size[0])[:, None] > points[NOSE_BOTTOM, 1]
        share[number] = covered.sum() / face.sum()
        mouth[number] = (covered & below).sum() / face.sum()
        chosen = triangles[found.occluded[number]]
        area = face & occluded_area(tracked.landmarks[number, :, :2], chosen, size)
        counts += (area & covered).sum(), covered.sum(), area.sum()
        if sheets and number % EVERY in (COMES, COMES + STAYS // 2):
            write_picture(sheets / f"{video.stem}-{number:05d}.png", video, number, clean, area)
    flagged, true = found.occluded.any(1), share > MIN_SHOWN
    return {
        "benchmark": "occlusion",
        "video": video.name,
        "n_frames": len(covers),
        "false_alarms": round(float(alarms.mean()), 4),
        "n_hidden": int(true.sum()),
        "frame_recall": round(float(flagged[true].mean()), 3),
        "mouth_recall": round(float(found.mouth[mouth > MIN_SHOWN / 2].mean()), 3),
        "frame_precision": round(float((share[flagged] > 0).mean()), 3),
        "pixel_recall": round(float(counts[0] / counts[1]), 3),
        "pixel_precision": round(float(counts[0] / counts[2]), 3),
    }


def write_picture(path: Path, video: Path, number: int, clean: Tracked, area: Bool) -> None:
    """Write a frame next to a copy in which the detected area is green."""
    start_s = number / FRAME_RATE
    frame = next(iter(media.read_frames(video, start_s=start_s, n_frames=1)))
    image, _ = pasted(frame, number, clean)
    marked = np.where(area[..., None], image // 2 + np.array([0, 127, 0], np.uint8), image)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.concatenate([image, marked], axis=1)[..., ::-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--sheets", type=Path)
    given = parser.parse_args()
    for video in given.videos:
        print(json.dumps(bench(video, given.sheets)), flush=True)


if __name__ == "__main__":
    main()
