"""Color match: how a fitted person's face appears in other footage, in other light or by another camera.

Light from another side brightens one cheek and darkens the other, so the match varies over the face: a
gain for each channel at each vertex of the face mesh, smooth over the face and constant in time.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from talkhead.crops import crop_landmarks
from talkhead.dataset import IdentityDataset
from talkhead.face import FACE_OVAL, N_SURFACE
from talkhead.frame_selection import spread_frames
from talkhead.renderers.base import Renderer, device_of
from talkhead.types import Bool, Float32, Float64

N_FRAMES = 24
OPAQUE = 0.98
"""Least opacity of the rendering where colors are compared."""
BLUR = 0.02
"""Standard deviation of the blur of images before they are compared, relative to the face's width."""
SMOOTH = 0.03
"""The same of the gains over the face."""
MIN_SHARE = 0.3
"""Least fraction of the blur's weight that must be inside the face."""
DARK = 0.02
"""Added to both colors, so that noise in shadows makes no gain."""
GAINS = (0.2, 5.0)
EVERY = 1
"""Each EVERY-th vertex has a gain: neighbors hardly differ."""
COARSE = 8
"""The gains of an image are computed at this fraction of its size."""
ANCHORS = np.arange(0, N_SURFACE, EVERY)
N_ANCHORS = len(ANCHORS)


@dataclass(frozen=True)
class ColorMatch:
    """Gains from a rendering to footage, at N_ANCHORS vertices of the face mesh.

    Attributes:
        gains: [N_ANCHORS, 3].
    """

    gains: Float32

    def field(self, points: Float32, size: tuple[int, int]) -> Float32:
        """Interpolate the gains over an image: a mean weighted by the distance to the vertices.

        Args:
            points: Landmarks [478, 2] in pixels of the image.
            size: Height and width H, W of the image.

        Returns:
            Gains [H, W, 3].
        """
        anchors = points[ANCHORS]
        sigma = max(SMOOTH * float(np.ptp(anchors[:, 0])), 1.0)
        rows, columns = (
            COARSE * (np.arange(-(-n // COARSE)) + 0.5).astype(np.float32) for n in size
        )
        # The weights of a Gaussian are products of those of rows and columns. A floor far from the face
        # keeps the nearest gains there.
        near = [
            np.exp(-0.5 * np.square((at[:, None] - anchors[None, :, axis]) / sigma)) + 1e-6
            for at, axis in ((rows, 1), (columns, 0))
        ]
        total = np.einsum("hn,wn->hw", *near)
        coarse = np.einsum("hn,wn,nc->hwc", *near, self.gains) / total[..., None]
        whole = (COARSE * coarse.shape[1], COARSE * coarse.shape[0])
        fine = cv2.resize(coarse.astype(np.float32), whole, interpolation=cv2.INTER_LINEAR)
        return np.asarray(fine[: size[0], : size[1]])


def unmatched() -> ColorMatch:
    """Return the match that changes nothing."""
    return ColorMatch(np.ones((N_ANCHORS, 3), np.float32))


def fit_color_match(renderer: Renderer, dataset: IdentityDataset) -> ColorMatch:
    """Compare the face in footage with its rendering in the same pose, both blurred.

    Args:
        renderer: The person's renderer.
        dataset: Footage with its motion.

    Returns:
        The match: medians over frames, smooth over the face. It changes nothing if the face is never
        visible.
    """
    frames = spread_frames(dataset.tracks.usable & dataset.tracks.has_image, N_FRAMES)
    ratios = np.full((len(frames), N_ANCHORS, 3), np.nan)
    for row, frame in zip(ratios, frames.tolist(), strict=True):
        _compare(renderer, dataset, frame, row)
    seen = np.isfinite(ratios[..., 0]).any(axis=0)
    if not seen.any():
        return unmatched()
    usual = np.exp(np.nanmedian(ratios[:, seen], axis=0))
    # Smooth over the face; vertices that were never seen take the gains of those around them.
    places = dataset.face.template[ANCHORS, :2].astype(np.float64)
    sigma = max(SMOOTH * float(np.ptp(places[:, 0])), 1e-6)
    distance = np.linalg.norm(places[:, None] - places[None, seen], axis=-1)
    weights = np.exp(-0.5 * np.square(distance / sigma)) + 1e-9
    gains = weights @ usual / weights.sum(axis=1, keepdims=True)
    return ColorMatch(np.clip(gains, *GAINS).astype(np.float32))


def _compare(renderer: Renderer, dataset: IdentityDataset, frame: int, logarithms: Float64) -> None:
    """Write the logarithms of filmed over rendered colors at the vertices, [N_ANCHORS, 3], where the face
    is visible."""
    tracks, size = dataset.tracks, dataset.info.crop_size
    (points,) = crop_landmarks(
        tracks.landmarks[[frame]], tracks.origins[[frame]], dataset.info.scale
    )
    rgb, alpha = _rendered(renderer, dataset, frame)
    inside = _face(points, size) & (alpha > OPAQUE) & (dataset.masks[frame] > 250)
    inside &= ~dataset.occluded_area(frame)
    shown = dataset.frames[frame].astype(np.float32) / np.float32(255.0)
    sigma = max(BLUR * float(np.ptp(points[list(FACE_OVAL), 0])), 1.0)
    weight = inside.astype(np.float32)[..., None]
    whole = np.concatenate([weight * rgb, weight * shown, weight], axis=2)
    blurred = cv2.GaussianBlur(whole, (0, 0), sigma)
    pixels = points[ANCHORS].astype(int)
    is_in = ((pixels >= 0) & (pixels < np.array(size)[::-1])).all(axis=1)
    found = blurred[pixels[is_in, 1], pixels[is_in, 0]]
    is_seen = found[:, 6] > MIN_SHARE
    rendered, filmed = (
        found[is_seen, first : first + 3] / found[is_seen, 6:] + DARK for first in (0, 3)
    )
    logarithms[np.flatnonzero(is_in)[is_seen]] = np.log(filmed / rendered)


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
