"""Color match: how a fitted person's face appears in other footage, in other light or by another camera.

Light from another side brightens one cheek and darkens the other, and another camera sees folds and
edges where the fit has others, so the match varies over the face: a gain for each channel at each
point of a fine grid on the face mesh, and one for teeth, constant in time.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from talkhead.cameras import project
from talkhead.crops import crop_landmarks
from talkhead.dataset import IdentityDataset
from talkhead.face import FACE_OVAL, INNER_LIPS, N_SURFACE, FaceModel
from talkhead.frame_selection import spread_frames
from talkhead.renderers.base import Renderer, device_of
from talkhead.types import Bool, Float32, Int

N_FRAMES, N_QUICK = 24, 8
"""Numbers of frames that are compared, and for a match that alone serves to align the motion."""
OPAQUE = 0.98
"""Least opacity of the rendering where colors are compared."""
SPACING = 1 / 128
"""Distance of the anchors; this and the lengths below are relative to the face's width."""
BLUR = 0.004
"""Standard deviation of the blur of images before they are compared."""
SMOOTH = 0.007
"""The same of the gains, over the face and in an image."""
FAR = 0.03
"""The same where there is no anchor nearby: inside the mouth and beyond the face."""
FAR_WEIGHT = 0.01
OPEN = 0.06
"""Root of the area between the lips of an open mouth, relative to the face's width, at least."""
MIN_SHARE = 0.3
"""Least fraction of the blur's weight that must be inside the face, and of the frames."""
DARK = 0.06
"""Added to both colors, so that neither noise in shadows nor a dark corner of the mouth makes a gain."""
GAINS = (0.2, 5.0)
COARSE = 8
"""Gains far from the anchors are computed at this fraction of the image's size."""
MAX_ANCHORS = 40_000


@dataclass(frozen=True)
class Anchors:
    """Points of a face mesh that form a grid in the front view of the template.

    Attributes:
        corners: [A, 3], vertices of the triangle of each.
        weights: [A, 3], barycentric coordinates.
        cells: [A, 2], column and row in the grid.
    """

    corners: Int
    weights: Float32
    cells: Int

    @classmethod
    def of(cls, face: FaceModel) -> Anchors:
        """Choose the points of a face.

        Args:
            face: The face model.

        Returns:
            Its anchors, SPACING of the face's width apart.
        """
        # The triangle of each cell, [h, w]. Where triangles overlap, it is any of them.
        places = face.template[:N_SURFACE, :2].astype(np.float64)
        width, height = np.ptp(places, axis=0)
        # However long a face is, the grid has a limited size.
        places = (places - places.min(axis=0)) / (SPACING * max(width, height / 2, 1e-6))
        n_columns, n_rows = np.ceil(places.max(axis=0)).astype(int) + 1
        number = np.full((n_rows, n_columns), -1, np.int32)
        for i, corners in enumerate(places[face.triangles].round().astype(np.int32)):
            cv2.fillConvexPoly(number, corners, i)
        rows, columns = np.nonzero(number >= 0)
        corners = face.triangles[number[rows, columns]]
        # Barycentric coordinates; cells beyond an edge are moved into the triangle.
        first, second, third = np.moveaxis(places[corners], 1, 0)
        edges = np.stack([second - first, third - first], axis=-1)  # [A, 2, 2]
        cells = np.stack([columns, rows], axis=1)
        is_flat = np.abs(np.linalg.det(edges)) < 1e-3
        edges[is_flat] = np.eye(2)
        shares = np.linalg.solve(edges, (cells - first)[..., None])[..., 0]
        shares[is_flat] = 0.0
        weights = np.column_stack([1.0 - shares.sum(axis=1), shares]).clip(0.0, None)
        weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
        return cls(corners.astype(np.int64), weights, cells.astype(np.int64))

    def __len__(self) -> int:
        return len(self.cells)

    def on(self, points: Float32) -> Float32:
        """Return the positions [A, 2] of the anchors among landmarks [478, 2]."""
        return np.asarray(np.einsum("ak,akc->ac", self.weights, points[self.corners, :2]))


@dataclass(frozen=True)
class ColorMatch:
    """Gains from a rendering to footage, at anchors on the face mesh.

    Attributes:
        gains: [A, 3].
        anchors: Where they apply.
        teeth: [3], the gains between the lips.
    """

    gains: Float32
    anchors: Anchors
    teeth: Float32

    def field(self, points: Float32, size: tuple[int, int]) -> Float32:
        """Interpolate the gains over an image: a mean weighted by the distance to the anchors.

        Between the lips, where there are none, teeth have a gain of their own.

        Args:
            points: Landmarks [478, 2] in pixels of the image.
            size: Height and width H, W of the image.

        Returns:
            Gains [H, W, 3].
        """
        width = max(float(np.ptp(points[:N_SURFACE, 0])), 1.0)
        # Landmarks have pixel centers at +0.5.
        field = _interpolated(self.gains, self.anchors.on(points) - 0.5, width, size)
        inside = _between_lips(points, size).astype(np.float32)
        share = cv2.GaussianBlur(inside, (0, 0), max(SMOOTH * width, 0.5))[..., None]
        return np.asarray(field + share * (self.teeth - field))


def _interpolated(values: Float32, places: Float32, width: float, size: tuple[int, int]) -> Float32:
    """Interpolate values [n, 3] at places [n, 2], pixels, over an image of a face: [H, W, 3]."""
    # Add each value to the nearest pixel, in an image with a margin.
    margin = COARSE * (1 + int(3.0 * FAR * width / COARSE))
    height, breadth = (COARSE * -(-(n + 2 * margin) // COARSE) for n in size)
    x, y = np.rint(places + np.float32(margin)).astype(np.int64).T
    inside = (x >= 0) & (y >= 0) & (x < breadth) & (y < height)
    pixels, kept = (breadth * y + x)[inside], values[inside]
    total = np.empty((height, breadth, 4), np.float32)  # sums of the values, and their number
    for channel, weights in enumerate((*kept.T, None)):
        sums = np.bincount(pixels, weights, minlength=height * breadth)
        total[..., channel] = sums.reshape(height, breadth)
    # Blur them, far less where there are anchors than elsewhere. A floor holds in parts without any.
    small = (breadth // COARSE, height // COARSE)
    far = cv2.resize(total, small, interpolation=cv2.INTER_AREA)
    far = FAR_WEIGHT * cv2.GaussianBlur(far, (0, 0), max(FAR * width / COARSE, 0.5))
    far += np.float32(1e-7) * np.append(values.mean(axis=0, dtype=np.float64), 1.0).astype(
        np.float32
    )
    far = cv2.resize(far, (breadth, height), interpolation=cv2.INTER_LINEAR)
    near = cv2.GaussianBlur(total, (0, 0), max(SMOOTH * width, 0.5))
    mixed = cv2.add(near, far)[margin : margin + size[0], margin : margin + size[1]]
    return np.asarray(mixed[..., :3] / mixed[..., 3:])


def fit_color_match(
    renderer: Renderer, dataset: IdentityDataset, n_frames: int = N_FRAMES
) -> ColorMatch:
    """Compare the face in footage with its rendering in the same pose, both slightly blurred.

    Args:
        renderer: The person's renderer.
        dataset: Footage with its motion.
        n_frames: Maximum number of frames that are compared.

    Returns:
        The match: medians over frames, smooth over the face. It changes nothing if the face is never
        visible.
    """
    anchors = Anchors.of(dataset.face)
    frames = spread_frames(dataset.tracks.usable & dataset.tracks.has_image, n_frames)
    ratios = np.full((len(frames), len(anchors), 3), np.nan, np.float32)
    teeth: list[float] = []
    for row, frame in zip(ratios, frames.tolist(), strict=True):
        teeth += _compare(renderer, dataset, frame, anchors, row)
    seen = (
        np.isfinite(ratios[..., 0]).mean(axis=0) > MIN_SHARE if len(frames) else np.zeros(0, bool)
    )
    if not seen.any():
        return ColorMatch(np.ones((len(anchors), 3), np.float32), anchors, np.ones(3, np.float32))
    usual = np.exp(np.nanmedian(ratios[:, seen], axis=0))
    # Smooth over the face; anchors that were never seen take the gains of those around them.
    cells = anchors.cells
    size = (int(cells[:, 1].max()) + 1, int(cells[:, 0].max()) + 1)
    smooth = _interpolated(usual, cells[seen].astype(np.float32), 1.0 / SPACING, size)
    gains = np.clip(smooth[cells[:, 1], cells[:, 0]], *GAINS).astype(np.float32)
    # Between the lips, colors are too different for gains of their own: teeth are as bright there as they
    # are filmed, in the tint of the face, and brighter or darker as the face if the mouth is never open.
    tint = np.exp(np.log(gains).mean(axis=0, dtype=np.float64))
    if teeth:
        tint *= np.exp(np.median(teeth)) / tint.mean()
    return ColorMatch(gains, anchors, np.clip(tint, *GAINS).astype(np.float32))


def _compare(
    renderer: Renderer,
    dataset: IdentityDataset,
    frame: int,
    anchors: Anchors,
    logarithms: Float32,
) -> list[float]:
    """Write the logarithms of filmed over rendered colors at the anchors, [A, 3], where the face is
    visible; return that of the brightness between the lips if the mouth is open."""
    tracks, size = dataset.tracks, dataset.info.crop_size
    (points,) = crop_landmarks(
        tracks.landmarks[[frame]], tracks.origins[[frame]], dataset.info.scale
    )
    rgb, alpha = _rendered(renderer, dataset, frame)
    inside = _face(points, size) & (alpha > OPAQUE) & (dataset.masks[frame] > 250)
    inside &= ~dataset.occluded_area(frame)
    shown = dataset.frames[frame].astype(np.float32) / np.float32(255.0)
    sigma = max(BLUR * float(np.ptp(points[list(FACE_OVAL), 0])), 0.5)
    weight = inside.astype(np.float32)[..., None]
    blurred = [
        cv2.GaussianBlur(part, (0, 0), sigma)
        for part in (weight * rgb, weight * shown, inside.astype(np.float32))
    ]
    # At the mesh that is rendered, of which the landmarks differ a little.
    mesh = _mesh(dataset, frame)
    places = anchors.on(mesh) - 0.5
    rendered, filmed, share = (
        cv2.remap(part, places[:, None], None, cv2.INTER_LINEAR, borderValue=0)[:, 0]
        for part in blurred
    )
    is_seen = share > MIN_SHARE
    rendered, filmed = (part[is_seen] / share[is_seen, None] + DARK for part in (rendered, filmed))
    logarithms[is_seen] = np.log(filmed / rendered)
    between = _between_lips(mesh, size) & inside
    if between.sum() < np.square(OPEN * float(np.ptp(points[list(FACE_OVAL), 0]))):
        return []
    return [float(np.log(shown[between].mean() / max(float(rgb[between].mean()), 1e-3)))]


def _between_lips(points: Float32, size: tuple[int, int]) -> Bool:
    """Return the area between the lips of landmarks [478, 2], [H, W]."""
    area = np.zeros(size, np.uint8)
    cv2.fillPoly(area, [points[list(INNER_LIPS), :2].round().astype(np.int32)], 1)
    return area > 0


def _mesh(dataset: IdentityDataset, frame: int) -> Float32:
    """Return the vertices [478, 2] of the mesh of a frame, crop pixels."""
    chosen, tracks = [frame], dataset.tracks
    vertices = dataset.face.vertices(tracks.codes[chosen]).astype(np.float64)
    views, ks = (a[chosen].astype(np.float64) for a in (tracks.viewmats, dataset.crop_ks))
    return project(vertices, views, ks)[0].astype(np.float32)


def _rendered(renderer: Renderer, dataset: IdentityDataset, frame: int) -> tuple[Float32, Float32]:
    """Render the colors [H, W, 3] and the opacity [H, W] of a frame's crop."""
    tracks, device = dataset.tracks, device_of(renderer)
    motion = (tracks.codes, tracks.viewmats, dataset.crop_ks)
    with torch.no_grad():
        code, view, k = (torch.from_numpy(a[frame : frame + 1].copy()).to(device) for a in motion)
        rendering = renderer.render(code, view, k, *dataset.info.crop_size)
    return rendering.rgb[0].cpu().numpy(), rendering.alpha[0, ..., 0].cpu().numpy()


def _face(points: Float32, size: tuple[int, int]) -> Bool:
    """Return the area of a face, [H, W], without its rim."""
    area = np.zeros(size, np.uint8)
    oval = points[list(FACE_OVAL)]
    cv2.fillPoly(area, [oval.round().astype(np.int32)], 1)
    margin = max(1, round(0.02 * float(np.ptp(oval[:, 0]))))
    return np.asarray(cv2.erode(area, np.ones((2 * margin + 1,) * 2, np.uint8)) > 0)
