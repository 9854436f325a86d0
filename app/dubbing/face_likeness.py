"""How well a fitted person explains a face: it is compared with their rendering in the same pose.

Both are mapped to the person's face mesh, so that neither the shape of the face nor its position counts,
and their fine structure is correlated, which depends little on light and camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from scipy.spatial import Delaunay

from talkhead.app.avatar import Avatar
from talkhead.app.composer.idle_clip import IdleClip
from talkhead.cameras import crop_intrinsics, default_intrinsics, project
from talkhead.crops import crop_landmarks, cut_crop
from talkhead.face import FACE_OVAL, N_SURFACE, OUTER_LIPS
from talkhead.preprocess.head_pose import track_known_head
from talkhead.preprocess.motion_codes import encode_motion
from talkhead.renderers.base import device_of
from talkhead.types import Bool, Float32, Float64, UInt8

CROP_SIZE = (160, 128)
"""Height and width of the compared images."""
FACE_WIDTH = 96
"""Largest width of a face in them, pixels."""
TEXTURE_SIZE = (104, 80)
"""Height and width of the compared textures."""
FINE, COARSE = 0.7, 2.0
"""Standard deviations of the blur that structure is taken between, texture pixels: finer structure is
noise, coarser structure is shading, and common to all faces."""
CONTRAST = 4.0
"""Standard deviation of the area in which contrast is equalized."""
OPAQUE = 0.95
"""Least opacity of the rendering."""
EDGE, LIPS_MARGIN = 2, 2
"""Margins that are left out at the edge and around the lips, texture pixels."""
MIN_COMPARED = 500
"""Least number of texture pixels to compare."""
FLAT = 0.01
"""Least standard deviation of the structure, which is about 1 where there is any."""
DARKEST = 0.05
"""Added to brightness in [0, 1] before its logarithm."""
BEYOND = 0.25
"""How far codes may exceed their usual range, relative to it. The codes of another person's face are
often of expressions that this person has never made, and cannot be rendered."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class FaceCrop:
    """A face in a frame of a video.

    Attributes:
        frame: Number of the frame.
        landmarks: [478, 3] in pixels of the frame.
        image: [H, W, 3] uint8 around the face, of CROP_SIZE.
        points: [478, 2] landmarks in pixels of the crop.
        k: Intrinsics [3, 3] of the crop.
        intrinsics: Intrinsics [3, 3] of the frame.
    """

    frame: int
    landmarks: Float32
    image: UInt8
    points: Float32
    k: Float32
    intrinsics: Float64


def crop_face(number: int, frame: UInt8, landmarks: Float32) -> FaceCrop:
    """Cut a face out of a frame.

    Args:
        number: Number of the frame.
        frame: [height, width, 3] uint8.
        landmarks: [478, 3] in pixels.

    Returns:
        The face.
    """
    oval = landmarks[list(FACE_OVAL), :2]
    low, high = oval.min(0), oval.max(0)
    aspect = CROP_SIZE[0] / CROP_SIZE[1]
    width = max(float(high[0] - low[0]), float(high[1] - low[1]) / aspect, 1.0)
    scale = min(1.0, FACE_WIDTH / width)
    half = np.array(CROP_SIZE[::-1]) / 2 / scale
    middle = np.clip((low + high) / 2, 0, np.array(frame.shape[1::-1]) - 1)
    origins = np.round(middle - half)[None].astype(np.float32)
    intrinsics = default_intrinsics(frame.shape[1], frame.shape[0])
    return FaceCrop(
        frame=number,
        landmarks=landmarks,
        image=cut_crop(frame, origins[0], CROP_SIZE, scale),
        points=crop_landmarks(landmarks[None], origins, scale)[0],
        k=crop_intrinsics(intrinsics, origins, scale)[0],
        intrinsics=intrinsics,
    )


class PersonLikeness:
    """Compares faces with a fitted person."""

    def __init__(self, avatar: Avatar) -> None:
        """Prepare the comparison.

        Args:
            avatar: The person.
        """
        self._renderer, self._idle = avatar.renderer, avatar.idle
        self._layout = _TextureLayout(self._idle.face.template)
        self._low, self._high = _usual_range(self._idle)

    def compare(self, faces: Sequence[FaceCrop]) -> Float64:
        """Compare faces of one video with the person.

        Args:
            faces: n faces, at least 1.

        Returns:
            Correlations [n] of their structure with that of the person, -1 to 1.
        """
        face = self._idle.face
        landmarks = np.stack([one.landmarks for one in faces])
        track = track_known_head(landmarks, face.template, faces[0].intrinsics)
        codes = np.clip(encode_motion(face, track.canonical), self._low, self._high)
        views, ks = track.poses.viewmats, np.stack([one.k for one in faces])
        vertices = face.vertices(codes).astype(np.float64)
        points = project(vertices, views.astype(np.float64), ks.astype(np.float64))
        rgb, alpha = self._render(codes, views, ks)
        pairs = zip(faces, rgb, alpha, points, strict=True)
        return np.array(
            [
                self._layout.correlation(one.image, one.points, *rendering)
                for one, *rendering in pairs
            ]
        )

    def _render(self, codes: Float32, views: Float32, ks: Float32) -> tuple[Float32, Float32]:
        """Render the person: colors [n, H, W, 3], premultiplied, and opacity [n, H, W]."""
        device = device_of(self._renderer)
        motion, at, k = (torch.from_numpy(a.copy()).to(device) for a in (codes, views, ks))
        with torch.no_grad():
            rendering = self._renderer.render(motion, at, k, *CROP_SIZE)
        return rendering.rgb.cpu().numpy(), rendering.alpha[..., 0].cpu().numpy()


def _usual_range(idle: IdleClip) -> tuple[Float32, Float32]:
    """Return the lowest and highest codes [K] to be rendered; clothes and body are at rest."""
    low, high = np.percentile(idle.codes, [1, 99], axis=0)
    reach = BEYOND * (high - low)
    low, high = low - reach, high + reach
    still = slice(idle.face.clothes.start, None)
    low[still] = high[still] = np.median(idle.codes[:, still], axis=0)
    return low.astype(np.float32), high.astype(np.float32)


class _TextureLayout:
    """Maps images of a face to the front view of a person's mesh."""

    def __init__(self, template: Float32) -> None:
        """Compute the places of the texture's pixels on the mesh.

        Args:
            template: [478, 3] mean face.
        """
        front = template[:N_SURFACE, :2].astype(np.float64)
        oval = front[list(FACE_OVAL)]
        self._low, size = oval.min(0), np.ptp(oval, axis=0)
        self._pixel = size / (np.array(TEXTURE_SIZE[::-1]) - 1)
        rows, columns = np.indices(TEXTURE_SIZE)
        places = self._low + np.stack([columns, rows], axis=-1) * self._pixel  # [h, w, 2]
        mesh = Delaunay(front)
        found = mesh.find_simplex(places)  # [h, w]
        self._corners = mesh.simplices[found]  # [h, w, 3]
        to_weights = mesh.transform[found]  # [h, w, 3, 2]
        first = np.einsum("hwij,hwj->hwi", to_weights[..., :2, :], places - to_weights[..., 2, :])
        self._weights = np.concatenate([first, 1.0 - first.sum(-1, keepdims=True)], axis=-1)
        lips = np.round((front[list(OUTER_LIPS)] - self._low) / self._pixel).astype(np.int32)
        area = np.zeros(TEXTURE_SIZE, np.uint8)
        cv2.fillConvexPoly(area, cv2.convexHull(lips), 1)
        self._skin: Bool = (found >= 0) & (_dilated(area, LIPS_MARGIN) == 0)

    def correlation(
        self, image: UInt8, points: Float32, rgb: Float32, alpha: Float32, rendered: Float64
    ) -> float:
        """Correlate the structure of a filmed and a rendered face.

        Args:
            image: [H, W, 3] uint8.
            points: Landmarks [478, 2] in it, pixels.
            rgb: Rendering [H, W, 3].
            alpha: Its opacity [H, W].
            rendered: Vertices [478, 2] in it, pixels.

        Returns:
            -1 to 1; 0 if too little of the face is rendered, or there is no structure.
        """
        gray = np.asarray(image.astype(np.float32) / np.float32(255.0) @ LUMA, np.float32)
        filmed = self._texture(gray, points)
        drawn = self._texture(np.asarray(rgb @ LUMA, np.float32), rendered)
        hidden = ~self._skin | (self._texture(alpha, rendered) < OPAQUE)
        shown = _dilated(hidden.astype(np.uint8), EDGE) == 0
        if shown.sum() < MIN_COMPARED:
            return 0.0
        a, b = (_structure(one, shown.astype(np.float32))[shown] for one in (filmed, drawn))
        return float(np.corrcoef(a, b)[0, 1]) if min(a.std(), b.std()) > FLAT else 0.0

    def _texture(self, image: Float32, points: Float32 | Float64) -> Float32:
        """Map an image [H, W] with the mesh at points [478, 2] to the texture [h, w]."""
        at = (points[self._corners] * self._weights[..., None]).sum(-2).astype(np.float32)
        sampled = cv2.remap(image, at[..., 0].copy(), at[..., 1].copy(), cv2.INTER_LINEAR)
        return np.asarray(sampled, np.float32)


def _structure(texture: Float32, shown: Float32) -> Float32:
    """Return the fine structure of a texture [h, w] with equalized contrast.

    shown: [h, w], 1 where the texture is known.
    """
    weight = {sd: cv2.GaussianBlur(shown, (0, 0), sd) + 1e-6 for sd in (FINE, COARSE, CONTRAST)}

    def blurred(values: Float32, sd: float) -> Float32:
        return np.asarray(cv2.GaussianBlur(values * shown, (0, 0), sd) / weight[sd], np.float32)

    brightness = np.log(np.maximum(texture, 0.0) + np.float32(DARKEST))
    fine = blurred(brightness, FINE) - blurred(brightness, COARSE)
    return np.asarray(fine / np.sqrt(blurred(fine**2, CONTRAST) + 1e-5), np.float32)


def _dilated(area: UInt8, margin: int) -> UInt8:
    """Grow an area [h, w] by a margin."""
    kernel = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
    return np.asarray(cv2.dilate(area, kernel), np.uint8)
