"""Ground truth of the sample: spoken text and phones, poses of the mesh, positions of points."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from camera import Camera
from head import Head, Points, Pose
from speech import CLIP, LINE, SAMPLE_RATE, VOICE, Speech

# Vertices of the base mesh. `right` is the person's right, at the left of the picture.
POINTS: dict[str, int] = {
    "left_eye_outer": 6806,
    "left_eye_inner": 6853,
    "nose_tip": 297,
    "left_mouth_corner": 7162,
    "upper_lip_outer": 362,
    "upper_lip_inner": 474,
    "lower_lip_inner": 523,
    "lower_lip_outer": 5337,
    "chin": 5171,
}
MIRRORED = {f"right_{name[5:]}": name for name in POINTS if name.startswith("left_")}
UPPER_LIP_MIDLINE = (468, 474, 509, 520, 537, 554)
LOWER_LIP_MIDLINE = (493, 494, 495, 513, 523, 540, 557)


def point_vertices(head: Head) -> dict[str, int]:
    """Every named point's vertex; those of the right side are the mirror images of the left's."""
    mirror = np.array([-1.0, 1.0, 1.0])
    vertices = dict(POINTS)
    for right, left in MIRRORED.items():
        away = np.linalg.norm(head.neutral - head.neutral[POINTS[left]] * mirror, axis=1)
        vertices[right] = int(np.argmin(away))
    return vertices


def lip_gap(head: Head, pose: Pose) -> float:
    """The inner lips' opening over the distance of the outer eye corners; 0 where they touch."""
    body = head.posed(Pose(pose.expression))["body"]
    vertices = point_vertices(head)
    width = np.linalg.norm(body[vertices["left_eye_outer"]] - body[vertices["right_eye_outer"]])
    opening = body[list(UPPER_LIP_MIDLINE), 1].min() - body[list(LOWER_LIP_MIDLINE), 1].max()
    return float(max(opening, 0.0) / width)


def projected(head: Head, pose: Pose, camera: Camera) -> Points:
    """Pixels [P, 2] of the named points."""
    return camera.project(head.posed(pose)["body"][list(point_vertices(head).values())])


def arrays(head: Head, poses: Sequence[Pose], camera: Camera) -> dict[str, Any]:
    """The per-frame arrays of the clip."""
    names = list(poses[0].expression)
    return {
        "weights": np.array(
            [[pose.expression[name] for name in names] for pose in poses], np.float32
        ),
        "jaw": np.array([pose.expression["mouth-open"] for pose in poses], np.float32),
        "blink": np.array([pose.expression["eye-left-closure"] for pose in poses], np.float32),
        "head_angles_deg": np.array(
            [[p.yaw_deg, p.pitch_deg, p.roll_deg] for p in poses], np.float32
        ),
        "head_rotation": np.array([pose.turn() for pose in poses], np.float32),
        "gaze_deg": np.array([pose.gaze_deg for pose in poses], np.float32),
        "sway_dm": np.array([pose.sway for pose in poses], np.float32),
        "lip_gap": np.array([lip_gap(head, pose) for pose in poses], np.float32),
        "points_px": np.array([projected(head, pose, camera) for pose in poses], np.float32),
        "pivot_dm": head.pivot,
        "K": camera.intrinsics(),
        "viewmat": camera.viewmat(),
    }


def phone_list(speech: Speech) -> list[dict[str, Any]]:
    """The phones as JSON."""
    return [
        {"phone": p.name, "start_s": round(p.start_s, 4), "end_s": round(p.end_s, 4)}
        for p in speech.phones
    ]


def write(
    folder: Path,
    head: Head,
    clip: Speech,
    poses: Sequence[Pose],
    line: Speech,
    line_poses: Sequence[Pose],
) -> None:
    """Write truth.npz (numbers) and truth.json (names, phones, texts)."""
    values = arrays(head, poses, Camera())
    values["line_weights"] = np.array(
        [list(pose.expression.values()) for pose in line_poses], np.float32
    )
    values["line_lip_gap"] = np.array([lip_gap(head, pose) for pose in line_poses], np.float32)
    np.savez_compressed(folder / "truth.npz", **values)
    described = {
        "fps": 25,
        "n_frames": len(poses),
        "sample_rate": SAMPLE_RATE,
        "voice": VOICE,
        "texts": [text for _, text in CLIP],
        "line_text": LINE,
        "weight_names": list(poses[0].expression),
        "point_names": list(point_vertices(head)),
        "phones": phone_list(clip),
        "line_phones": phone_list(line),
    }
    (folder / "truth.json").write_text(json.dumps(described, indent=1) + "\n")
