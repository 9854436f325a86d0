"""A synthetic head: 478 vertices arranged as a face, with a known linear motion, drawn as a clip.

The vertices that are named in talkhead.face (eyes, brows, lips, oval, chin) are at their positions,
and the others fill the oval. Every property that is estimated for real faces is therefore known
exactly for this one.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import Delaunay
from scipy.spatial.transform import Rotation

from talkhead.app.composer.idle_clip import IdleClip
from talkhead.blendshapes import N_BLENDSHAPES
from talkhead.cameras import default_intrinsics, project
from talkhead.crops import cut_crop
from talkhead.dataset import FRAMES, MASKS, WAVEFORM, DatasetInfo, IdentityDataset, Tracks
from talkhead.face import (
    FACE_OVAL,
    INNER_LIPS,
    LEFT_BROW,
    LEFT_EYE,
    N_BODY,
    N_LANDMARKS,
    N_SURFACE,
    OUTER_LIPS,
    RIGHT_BROW,
    RIGHT_EYE,
    FaceModel,
)
from talkhead.frame_selection import train_frames
from talkhead.storage import write_tensors
from talkhead.types import Bool, Float32, Float64, Int, UInt8

N_MOUTH, N_EYES = 3, 2
N_CODES = N_MOUTH + N_EYES + N_BODY
MOUTH_Y = 0.68
UPPER_LIDS = (*LEFT_EYE[9:], *RIGHT_EYE[9:])
# Cheeks and nose, and the chin below the lower lip.
SINGLE = {
    2: (0.0, 0.42), 4: (0.0, 0.32), 195: (0.0, 0.2), 18: (0.0, 0.9), 83: (-0.08, 0.89),
    313: (0.08, 0.89), 200: (0.0, 1.05), 199: (0.0, 1.15), 175: (0.0, 1.25), 116: (-0.62, 0.22),
    117: (-0.5, 0.23), 118: (-0.36, 0.24), 119: (-0.22, 0.23), 348: (0.22, 0.23),
    347: (0.36, 0.24), 346: (0.5, 0.23), 345: (0.62, 0.22),
}  # fmt: skip


@cache
def make_face() -> FaceModel:
    """Make the face with its true motion: jaw, width, pout; blink, brows. Read-only: it is shared."""
    template = _template()
    return FaceModel(
        template=template.astype(np.float32),
        basis=_basis(template).astype(np.float32),
        n_mouth=N_MOUTH,
        triangles=_triangles(template),
        silence=np.array([-0.4] + [0.0] * (N_CODES - 1), np.float32),
    )


def _template() -> Float64:
    flat = np.full((N_LANDMARKS, 2), np.nan)
    for index, place in SINGLE.items():
        flat[index] = place
    angles = 2 * np.pi * np.arange(36) / 36
    flat[list(FACE_OVAL)] = np.stack([0.75 * np.sin(angles), 0.3 - 1.05 * np.cos(angles)], 1)
    for ring, size in ((OUTER_LIPS, (0.3, 0.13)), (INNER_LIPS, (0.24, 0.02))):
        flat[list(ring)] = _ring(20, (0.0, MOUTH_Y), size)
    for side, eye, brow, iris in ((1, LEFT_EYE, LEFT_BROW, 468), (-1, RIGHT_EYE, RIGHT_BROW, 473)):
        mirror = np.array([side, 1.0])
        flat[list(eye)] = _ring(16, (-0.33, 0.0), (0.17, 0.06)) * mirror
        across = np.linspace(-0.52, -0.15, 5)
        rows = [(x, -0.26) for x in across] + [(x, -0.2) for x in across[::-1]]
        flat[list(brow)] = np.array(rows) * mirror
        circle = [(0.0, 0.0), (0.05, 0.0), (0.0, -0.05), (-0.05, 0.0), (0.0, 0.05)]
        flat[iris : iris + 5] = (np.array(circle) + np.array([-0.33, 0.0])) * mirror
    _fill(flat)
    return np.concatenate([flat, _depth(flat)[:, None]], axis=1)


def _ring(n: int, middle: tuple[float, float], size: tuple[float, float]) -> Float64:
    """Points [n, 2] from the left end along the lower side to the right end, and back along the
    upper side.
    """
    angles = 2 * np.pi * np.arange(n) / n
    return np.stack([-np.cos(angles), np.sin(angles)], 1) * np.array(size) + np.array(middle)


def _fill(flat: Float64) -> None:
    """Spread the unnamed vertices over the oval, far from each other and outside the mouth."""
    rng = np.random.default_rng(0)
    radius, angle = np.sqrt(rng.random(6000)) * 0.97, rng.random(6000) * 2 * np.pi
    spots = np.stack([0.75 * radius * np.sin(angle), 0.3 + 1.05 * radius * np.cos(angle)], 1)
    inside = ((spots - np.array([0.0, MOUTH_Y])) / np.array([0.26, 0.06])) ** 2
    spots = spots[inside.sum(1) > 1.0]
    known = flat[~np.isnan(flat[:, 0])]
    distance = np.linalg.norm(spots[:, None] - known[None], axis=-1).min(1)
    for index in np.flatnonzero(np.isnan(flat[:, 0])):
        best = int(distance.argmax())
        flat[index] = spots[best]
        distance = np.minimum(distance, np.linalg.norm(spots - spots[best], axis=-1))


def _depth(flat: Float64) -> Float64:
    """Return the depth of a half-ellipsoid with a nose; 0 at the outer eye corners."""

    def surface(points: Float64) -> Float64:
        x, y = points[:, 0], points[:, 1] - 0.3
        bulge = np.sqrt(np.maximum(0.0, 1.0 - (x / 0.8) ** 2 - (y / 1.12) ** 2))
        nose = np.exp(-((x / 0.12) ** 2) - (y / 0.16) ** 2)
        return np.asarray(-0.55 * bulge - 0.16 * nose)

    return surface(flat) - surface(np.array([[0.5, 0.0]]))


def _basis(template: Float64) -> Float64:
    x, y = template[:, 0], template[:, 1]
    basis = np.zeros((N_CODES, N_LANDMARKS, 3))
    below = (
        1.0 / (1.0 + np.exp(-np.clip((y - MOUTH_Y) / 0.004, -50, 50))) * np.exp(-((x / 0.5) ** 2))
    )
    basis[0, :, 1], basis[0, :, 2] = 0.06 * below, 0.02 * below
    near = np.exp(-((x / 0.35) ** 2) - ((y - MOUTH_Y) / 0.25) ** 2)
    basis[1, :, 0] = 0.1 * x * near
    basis[2, :, 2] = -0.05 * near
    basis[3, list(UPPER_LIDS), 1] = -0.5 * y[list(UPPER_LIDS)]
    basis[4, list(LEFT_BROW + RIGHT_BROW), 1] = -0.03
    return basis


def _triangles(template: Float64) -> Int:
    """Delaunay triangles of the surface without those across the mouth, facing -z."""
    triangles = Delaunay(template[:N_SURFACE, :2]).simplices.astype(np.int64)
    triangles = triangles[~np.isin(triangles, INNER_LIPS).all(1)]
    a, b, c = (template[triangles[:, i], :2] for i in range(3))
    first, second = b - a, c - a
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    triangles, area = triangles[np.abs(area) > 1e-6], area[np.abs(area) > 1e-6]
    # normal z = x1 y2 - y1 x2; it must point to -z
    triangles[area > 0] = triangles[area > 0][:, [0, 2, 1]]
    return triangles


def make_codes(n_frames: int, seed: int = 0) -> Float32:
    """Make smooth random motion codes [F, 9]: mean 0, standard deviation about 1, body at rest."""
    rng = np.random.default_rng(seed)
    times = np.arange(n_frames)[:, None] / 25
    rates = rng.uniform(0.7, 3.0, (3, N_MOUTH + N_EYES))
    phases = rng.uniform(0, 2 * np.pi, rates.shape)
    waves = [np.sin(2 * np.pi * r * times + p) for r, p in zip(rates, phases, strict=True)]
    codes = np.sum(waves, axis=0) / np.sqrt(1.5)
    return np.pad(codes, ((0, 0), (0, N_BODY))).astype(np.float32)


def with_clothes(dataset: IdentityDataset, clothes: Float32) -> IdentityDataset:
    """Insert components of the clothes [F, n] into the motion codes of a dataset."""
    face, tracks, n = dataset.face, dataset.tracks, clothes.shape[1]
    at = face.n_codes - N_BODY
    basis = np.insert(face.basis, [at] * n, 0.0, axis=0)
    silence = np.insert(face.silence, [at] * n, 0.0)
    codes = np.concatenate([tracks.codes[:, :at], clothes, tracks.codes[:, at:]], axis=1)
    return replace(
        dataset,
        face=replace(face, basis=basis, silence=silence),
        tracks=replace(tracks, codes=codes),
    )


def make_poses(n_frames: int, depth: float = 4.6, turn_deg: float = 6.0) -> Float64:
    """View matrices [F, 4, 4] of a head that slowly turns, nods and sways."""
    times = np.arange(n_frames) / 25
    angles = np.stack(
        [0.6 * np.sin(2.3 * times), np.sin(1.1 * times + 1), 0.4 * np.sin(1.7 * times + 2)], axis=1
    )
    viewmats = np.repeat(np.eye(4)[None], n_frames, axis=0)
    viewmats[:, :3, :3] = Rotation.from_rotvec(np.radians(turn_deg) * angles).as_matrix()
    sway = np.stack([0.12 * np.sin(0.9 * times), 0.05 * np.cos(1.3 * times)], axis=1)
    viewmats[:, :2, 3] = sway - np.array([0.0, 0.15])
    viewmats[:, 2, 3] = depth + 0.1 * np.sin(0.7 * times)
    return viewmats


def make_landmarks(vertices: Float64, viewmats: Float64, intrinsics: Float64) -> Float32:
    """Project vertices [F, 478, 3] as a tracker returns them: x, y and depth in pixels."""
    depth = np.einsum("fvc,fc->fv", vertices, viewmats[:, 2, :3])
    scale = intrinsics[0, 0] / viewmats[:, 2, 3]
    pixels = project(vertices, viewmats, intrinsics)
    return np.concatenate([pixels, (depth * scale[:, None])[..., None]], axis=2).astype(np.float32)


def make_background(height: int, width: int) -> UInt8:
    """Make a smooth image [H, W, 3]."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    image = np.stack([60 + 80 * x / width, 150 - 60 * y / height, 90 + 40 * np.sin(x / 9)], axis=-1)
    return image.astype(np.uint8)


def draw_head(
    face: FaceModel, points: Float64, background: UInt8
) -> tuple[UInt8, NDArray[np.uint8]]:
    """Draw image [H, W, 3] and person mask [H, W] of a mesh with vertices at pixels [478, 2]."""
    image, mask = background.copy(), np.zeros(background.shape[:2], np.uint8)
    middle, top, chin = points[1:468].mean(0), points[10], points[152]
    size = float(np.linalg.norm(chin - top))
    hair = (round(float(middle[0])), round(float(middle[1]) - round(0.08 * size)))
    axes = (round(0.48 * size), round(0.62 * size))
    neck = [chin + size * np.array(p) for p in ((-0.2, -0.2), (0.2, -0.2), (0.3, 2.0), (-0.3, 2.0))]
    for target, dark, skin in ((image, (50, 36, 28), (190, 150, 130)), (mask, 255, 255)):
        cv2.ellipse(target, hair, axes, 0, 0, 360, dark, -1)
        cv2.fillPoly(target, [np.round(neck).astype(np.int32)], skin)
    mouth = np.round(points[list(INNER_LIPS)]).astype(np.int32)
    centers = face.template[face.triangles].mean(1)
    lips = np.isin(face.triangles, OUTER_LIPS + INNER_LIPS).all(1)
    shade = 0.85 + 0.15 * np.cos(5 * centers[:, 0]) * np.cos(4 * centers[:, 1])
    colors = np.where(lips[:, None], (170.0, 70.0, 70.0), (215.0, 170.0, 145.0)) * shade[:, None]
    corners = np.round(points[face.triangles]).astype(np.int32)
    for corner, color in zip(corners, colors, strict=True):
        cv2.fillConvexPoly(image, corner, color.tolist())
    cv2.fillPoly(image, [mouth], (60, 20, 25))
    for eye in (LEFT_EYE, RIGHT_EYE):
        cv2.fillPoly(image, [np.round(points[list(eye)]).astype(np.int32)], (235, 235, 240))
    hull = np.round(points[list(FACE_OVAL)]).astype(np.int32)
    cv2.fillPoly(mask, [hull], 255)
    return cv2.GaussianBlur(image, (0, 0), 0.7), mask


def make_dataset(
    path: Path, n_frames: int = 40, size: tuple[int, int] = (128, 96), scale: float = 1.0
) -> IdentityDataset:
    """Write a dataset of the synthetic head into a folder; crops of `size` (height, width)."""
    path.mkdir(parents=True, exist_ok=True)
    height, width = (round(n / scale) for n in size)
    whole = (height + 32, width + 64)
    intrinsics = default_intrinsics(whole[1], whole[0])
    face, codes, viewmats = make_face(), make_codes(n_frames), make_poses(n_frames)
    vertices = face.vertices(codes).astype(np.float64)
    landmarks = make_landmarks(vertices, viewmats, intrinsics)
    middle = landmarks[:, list(FACE_OVAL), :2].mean(1)
    origins = np.round(middle - np.array([width / 2, 0.52 * height])).astype(np.float32)
    background = make_background(*whole)
    frames = np.empty((n_frames, *size, 3), np.uint8)
    masks = np.empty((n_frames, *size), np.uint8)
    for i in range(n_frames):
        image, mask = draw_head(face, landmarks[i, :, :2].astype(np.float64), background)
        frames[i] = cut_crop(image, origins[i], size, scale)
        masks[i] = cut_crop(mask, origins[i], size, scale)
    frames.tofile(path / FRAMES)
    masks.tofile(path / MASKS)
    cv2.imwrite(str(path / "plate.png"), background[..., ::-1])
    write_tensors(path / WAVEFORM, {"waveform": torch.zeros(n_frames * 640)})
    info = DatasetInfo(
        video="synthetic.mp4",
        n_frames=n_frames,
        width=whole[1],
        height=whole[0],
        crop_width=size[1],
        crop_height=size[0],
        scale=scale,
        av_offset_ms=0.0,
        n_faces=1,
        moving_camera=False,
        uses_all_frames=False,
    )
    flags: Bool = np.ones(n_frames, dtype=bool)
    tracks = Tracks(
        landmarks=landmarks,
        blendshapes=np.zeros((n_frames, N_BLENDSHAPES), np.float32),
        detected=flags,
        usable=flags.copy(),
        train=train_frames(n_frames),
        silent=~flags,
        has_image=flags.copy(),
        occluded=np.zeros((n_frames, len(face.triangles)), dtype=bool),
        viewmats=viewmats.astype(np.float32),
        residual_px=np.zeros(n_frames, np.float32),
        codes=codes,
        origins=origins,
    )
    IdentityDataset.save(path, info, face, tracks)
    return IdentityDataset.load(path)


def make_clip(codes: Float32, blendshapes: Float32 | None = None) -> IdleClip:
    """Make an idle clip of this face that does not move, without pictures."""
    n = len(codes)
    return IdleClip(
        path=Path("idle.mp4"),
        face=make_face(),
        codes=codes,
        viewmats=np.tile(np.eye(4, dtype=np.float32), (n, 1, 1)),
        origins=np.zeros((n, 2), np.float32),
        masks=np.zeros((n, 1, 1), np.uint8),
        background=np.zeros((4, 4, 3), np.uint8),
        crop_height=4,
        crop_width=4,
        scale=1.0,
        blendshapes=blendshapes,
    )
