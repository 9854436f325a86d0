"""The sample person's shape: MakeHuman's base mesh, its fitted parts, and how they are posed.

Everything is in MakeHuman's space: decimeters, Y up, facing +Z, +X towards the person's left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

# Part name -> its .mhclo file; the .obj of the same name is in the same folder.
PARTS: dict[str, str] = {
    "shirt": "clothes/male_casualsuit03.mhclo",
    "eyes": "eyes/high-poly.mhclo",
    "brows": "eyebrows/eyebrow001.mhclo",
    "lashes": "eyelashes/eyelashes01.mhclo",
    "teeth": "mouth/teeth_base.mhclo",
    "tongue": "mouth/tongue01.mhclo",
    "hair": "hair/short02.mhclo",
}
SHAPE = "shape/caucasian-male-young.target"
BODY_FLOOR_DM = 4.3  # parts below the chest are never visible
ARM_LIMIT_DM = 2.2
UPPER_TEETH_SHIFT = np.array([0.0, -0.045, 0.0])
LOWER_TEETH_SHIFT = np.array([0.0, -0.05, 0.0])
SIDES = ("left", "right")


@dataclass(frozen=True)
class Surface:
    """The faces of one mesh: vertex indices per face, and a texture coordinate per corner."""

    faces: list[tuple[int, ...]]
    uvs: list[tuple[float, float]]  # one per face corner, in the order of the faces


@dataclass(frozen=True)
class Fit:
    """Attachment of a part to the base mesh: `sum_k weights[:, k] * base[indices[:, k]] + offsets`."""

    indices: NDArray[np.int64]  # [V, 3]
    weights: Points  # [V, 3]
    offsets: Points  # [V, 3], decimeters
    hidden: NDArray[np.int64]  # base vertices this part hides

    def apply(self, base: Points) -> Points:
        """The part's vertices [V, 3] on the base mesh's vertices."""
        fitted = np.einsum("vk,vkc->vc", self.weights, base[self.indices])
        return np.asarray(fitted + self.offsets)


@dataclass(frozen=True)
class Pose:
    """Motion of the person in one frame."""

    expression: Mapping[str, float]  # target name -> weight; `tongue-up` is ours
    yaw_deg: float = 0.0  # positive: towards the person's left
    pitch_deg: float = 0.0  # positive: looking down
    roll_deg: float = 0.0  # positive: the top of the head towards the person's right
    gaze_deg: tuple[float, float] = (0.0, 0.0)  # yaw, pitch of the eyes in the head
    sway: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of the whole person, decimeters

    def turn(self) -> Points:
        """The head's rotation [3, 3]."""
        return rotation(self.yaw_deg, self.pitch_deg, self.roll_deg)


def read_obj(path: Path) -> tuple[Points, dict[str, Surface]]:
    """The vertices [V, 3] and, per group, the surface of a Wavefront file."""
    vertices: list[list[float]] = []
    texture: list[tuple[float, float]] = []
    groups: dict[str, Surface] = {}
    group = "default"
    for line in path.read_text().splitlines():
        key, *fields = line.split() or [""]
        if key == "v":
            vertices.append([float(field) for field in fields])
        elif key == "vt":
            texture.append((float(fields[0]), float(fields[1])))
        elif key == "g":
            group = fields[0]
        elif key == "f":
            corners = [field.split("/") for field in fields]
            surface = groups.setdefault(group, Surface([], []))
            surface.faces.append(tuple(int(corner[0]) - 1 for corner in corners))
            surface.uvs.extend(texture[int(corner[1]) - 1] for corner in corners)
    return np.array(vertices), groups


def keep_faces(surface: Surface, keep: NDArray[np.bool_]) -> Surface:
    """The faces of which every vertex is kept."""
    faces, uvs, at = [], [], 0
    for face in surface.faces:
        if all(keep[vertex] for vertex in face):
            faces.append(face)
            uvs.extend(surface.uvs[at : at + len(face)])
        at += len(face)
    return Surface(faces, uvs)


def read_target(path: Path, n_vertices: int) -> Points:
    """The displacement [V, 3] of a morph target."""
    rows = [
        line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")
    ]
    delta = np.zeros((n_vertices, 3))
    delta[[int(row[0]) for row in rows if len(row) == 4]] = [
        [float(field) for field in row[1:]] for row in rows if len(row) == 4
    ]
    return delta


def read_fit(path: Path, neutral: Points) -> Fit:
    """A part's fit; the offsets' scale is taken from the neutral base mesh."""
    scale = np.ones(3)
    rows: list[list[str]] = []
    hidden: list[int] = []
    section = "head"
    for line in path.read_text().splitlines():
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        if fields[0] in ("verts", "delete_verts"):
            section = fields[0]
        elif section == "head" and fields[0] in ("x_scale", "y_scale", "z_scale"):
            axis = "xyz".index(fields[0][0])
            first, second = (neutral[int(field)][axis] for field in fields[1:3])
            scale[axis] = abs(first - second) / float(fields[3])
        elif section == "verts" and fields[0].isdigit():
            rows.append(fields)
        elif section == "delete_verts":
            hidden.extend(_vertex_range(fields))
    full = [row if len(row) == 9 else [row[0]] * 3 + ["1"] + ["0"] * 5 for row in rows]
    table = np.array(full, dtype=np.float64)
    return Fit(
        table[:, :3].astype(np.int64),
        table[:, 3:6],
        table[:, 6:] * scale,
        np.array(hidden, np.int64),
    )


def _vertex_range(fields: list[str]) -> list[int]:
    """The indices of `1 5 - 9 12`."""
    indices: list[int] = []
    previous = -1
    ranged = False
    for field in fields:
        if field == "-":
            ranged = True
            continue
        value = int(field)
        indices.extend(range(previous + 1, value + 1) if ranged else [value])
        previous, ranged = value, False
    return indices


def rotation(yaw_deg: float, pitch_deg: float, roll_deg: float) -> Points:
    """The matrix [3, 3] turning by roll, then pitch, then yaw (Y up, Z forward)."""
    yaw, pitch, roll = np.radians([yaw_deg, pitch_deg, roll_deg])
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array(
        [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    )
    about_z = np.array(
        [[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]
    )
    return np.asarray(about_y @ about_x @ about_z)


def smoothstep(x: Points) -> Points:
    """0 below 0, 1 above 1, smooth between."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


class Head:
    """The posable person: `surfaces` once, `posed(pose)` for every frame."""

    def __init__(self, assets: Path) -> None:
        raw, groups = read_obj(assets / "base.obj")
        self.neutral = raw + read_target(assets / SHAPE, len(raw))
        self._groups = groups
        self.targets = {
            path.stem: read_target(path, len(raw))
            for path in sorted((assets / "expressions").glob("*.target"))
        }
        self.fits = {name: read_fit(assets / file, self.neutral) for name, file in PARTS.items()}
        self.surfaces = {"body": self._body_surface()}
        for name, file in PARTS.items():
            _, part_groups = read_obj((assets / file).with_suffix(".obj"))
            self.surfaces[name] = Surface(
                [face for group in part_groups.values() for face in group.faces],
                [uv for group in part_groups.values() for uv in group.uvs],
            )
        self.pivot = (self.joint("joint-neck") + self.joint("joint-head")) / 2.0
        self.eye_centres = {side: self.joint(f"joint-{side[0]}-eye") for side in SIDES}
        self._add_tongue_motion()
        self._lower_teeth()
        rest = self._parts(self.neutral)
        self._turning = {
            name: self._turn_weights(points) for name, points in rest.items() if name != "shirt"
        }

    def joint(self, group: str) -> Points:
        """The center [3] of one of the base mesh's joint cubes in the neutral shape."""
        return np.asarray(self.neutral[self.group_vertices(group)].mean(axis=0))

    def group_vertices(self, group: str) -> NDArray[np.int64]:
        """The indices of a group's vertices."""
        return np.unique([vertex for face in self._groups[group].faces for vertex in face])

    def posed(self, pose: Pose) -> dict[str, Points]:
        """Every part's vertices [V, 3]; `body` is the whole base mesh."""
        base = self.neutral.copy()
        for name, weight in pose.expression.items():
            if weight != 0.0:
                base += weight * self.targets[name]
        parts = self._parts(base)
        self._turn_eyes(parts["eyes"], pose.gaze_deg)
        turn = pose.turn()
        for name, weights in self._turning.items():
            turned = (parts[name] - self.pivot) @ turn.T + self.pivot
            parts[name] = parts[name] + weights[:, None] * (turned - parts[name])
        return {name: points + np.array(pose.sway) for name, points in parts.items()}

    def _parts(self, base: Points) -> dict[str, Points]:
        return {"body": base.copy(), **{name: fit.apply(base) for name, fit in self.fits.items()}}

    def _body_surface(self) -> Surface:
        keep = (self.neutral[:, 1] > BODY_FLOOR_DM) & (np.abs(self.neutral[:, 0]) < ARM_LIMIT_DM)
        keep[self.fits["shirt"].hidden] = False
        return keep_faces(self._groups["body"], keep)

    def _turn_weights(self, points: Points) -> Points:
        """Share of the head's turn that each vertex follows: 0 at the collar, 1 at the skull."""
        low = self.joint("joint-neck")[1] - 0.15
        high = self.joint("joint-head")[1] - 0.45
        return smoothstep((points[:, 1] - low) / (high - low))

    def _turn_eyes(self, eyes: Points, gaze_deg: tuple[float, float]) -> None:
        turn = rotation(gaze_deg[0], gaze_deg[1], 0.0)
        for side, centre in self.eye_centres.items():
            mine = (eyes[:, 0] > 0) == (side == "left")
            eyes[mine] = (eyes[mine] - centre) @ turn.T + centre

    def _lower_teeth(self) -> None:
        """Move the teeth down: MakeHuman's upper row is never visible below the lip."""
        fit = self.fits["teeth"]
        jaw = np.linalg.norm(fit.apply(self.targets["mouth-open"]) - fit.offsets, axis=1) > 1e-4
        fit.offsets[~jaw] += UPPER_TEETH_SHIFT
        fit.offsets[jaw] += LOWER_TEETH_SHIFT

    def _add_tongue_motion(self) -> None:
        """Let the tongue follow the jaw, which `mouth-open` lacks, and add `tongue-up`."""
        tongue = self.group_vertices("helper-tongue")
        depth = self.neutral[tongue, 2]
        frontness = (depth - depth.min()) / np.ptp(depth)
        jaw = self.targets["mouth-open"][self.group_vertices("helper-lower-teeth")].mean(axis=0)
        self.targets["mouth-open"][tongue] += (0.25 + 0.65 * frontness)[:, None] * jaw
        lift = np.zeros_like(self.neutral)
        lift[tongue] = (frontness**2)[:, None] * np.array([0.0, 0.16, 0.04])
        self.targets["tongue-up"] = lift
