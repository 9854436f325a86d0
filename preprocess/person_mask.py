"""Plan head crops that follow the face, and segment the person in them.

mediapipe distinguishes only person and background; the parts of the person follow from the landmarks
(docs/preprocessing.md): the head is the person above the lower line of the jaw hull, the neck a strip of
the person below it, the mouth interior is inside the inner lips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from talkhead.face import FACE_OVAL
from talkhead.preprocess.landmarks import ThreadModels, as_image
from talkhead.types import Bool, Float32, UInt8
from talkhead.weights import resolve

MODEL = "selfie_segmentation.tflite"
MARGIN_SIDE, MARGIN_TOP, MARGIN_BOTTOM = 0.30, 0.58, 0.26
"""Margin around the face oval, as fractions of its width (side) and height (top, bottom)."""
HAZE = (0.1, 0.9)
"""Confidences below the first count as background, above the second as person, for a cut-out."""
FOLLOW_FRAMES = 8.0
"""Smoothing of the crop's path (standard deviation), which moves by whole pixels."""


@dataclass(frozen=True)
class CropPlan:
    """Crops of constant size.

    Attributes:
        origins: [F, 2] left and top in source pixels.
        height: Height of the crops, crop pixels.
        width: Width of the crops, crop pixels.
        scale: Crop pixels per source pixel, at most 1.
    """

    origins: Float32
    height: int
    width: int
    scale: float


def plan_crops(
    landmarks: Float32,
    usable: Bool,
    frame_size: tuple[int, int],
    max_height: int,
    parts: Sequence[slice] = (slice(None),),
    depicted: Bool | None = None,
) -> CropPlan:
    """Plan crops that contain hair, head and neck of the tracked face, inside the frame.

    Args:
        landmarks: [F, 478, 3] in source pixels.
        usable: [F] frames with landmarks.
        frame_size: Height and width of the source.
        max_height: Taller crops are scaled down to this height, pixels.
        parts: Frames of each clip of a joined video; the path is not smoothed over a join.
        depicted: [F] frames whose faces determine the size. None: all.

    Returns:
        The plan for all F frames.
    """
    depicted = np.ones(len(usable), bool) if depicted is None else depicted
    oval = landmarks[:, list(FACE_OVAL), :2][usable]
    low, high = oval.min(1), oval.max(1)
    face_width, face_height = np.median((high - low)[depicted[usable]], axis=0)
    middle = _filled((low + high) / 2, usable)
    follow = np.concatenate(
        [gaussian_filter1d(middle[part], FOLLOW_FRAMES, axis=0, mode="nearest") for part in parts]
    )
    stray = np.percentile(np.abs(middle - follow)[usable & depicted], 99.5, axis=0)
    width = face_width * (1 + 2 * MARGIN_SIDE) + 2 * stray[0]
    height = face_height * (1 + MARGIN_TOP + MARGIN_BOTTOM) + 2 * stray[1]
    frame_height, frame_width = frame_size
    height, width = min(height, frame_height), min(width, frame_width)
    # The scale is a multiple of 1/16 and sizes are multiples of 16, so that crops are exactly `scale`
    # of the source.
    scale = max(1, int(16 * min(1.0, max_height / height))) / 16
    step = 2 if scale == 1 else 16
    crop_width, crop_height = (int(int(n) // step * step * scale) for n in (width, height))
    above = face_height * (0.5 + MARGIN_TOP) + stray[1]
    origins = np.round(follow - np.array([crop_width / scale / 2, above]))
    spare = np.array([frame_width - crop_width / scale, frame_height - crop_height / scale])
    origins = np.clip(origins, 0, np.floor(np.maximum(spare, 0)))
    return CropPlan(origins.astype(np.float32), crop_height, crop_width, scale)


def _filled(values: Float32, usable: Bool) -> Float32:
    """Expand values [n usable, D] to all frames [F, D]; frames in between are interpolated."""
    known, frames = np.flatnonzero(usable), np.arange(len(usable))
    columns = [np.interp(frames, known, values[:, i]) for i in range(values.shape[1])]
    return np.stack(columns, axis=1).astype(np.float32)


class PersonSegmenter:
    """Segments the person by mediapipe's selfie model; a guided filter aligns edges with the image.

    Several threads may use it at the same time.
    """

    def __init__(self) -> None:
        """Load the segmenter."""
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.ImageSegmenterOptions(
            base_options=BaseOptions(model_asset_buffer=resolve(MODEL).read_bytes()),
            running_mode=vision.RunningMode.IMAGE,
            output_confidence_masks=True,
            output_category_mask=False,
        )
        self._models = ThreadModels(lambda: vision.ImageSegmenter.create_from_options(options))

    def mask(self, crop: UInt8) -> UInt8:
        """Segment a crop.

        Args:
            crop: [H, W, 3] uint8 RGB.

        Returns:
            [H, W] uint8, 255 = person.
        """
        radius = max(2, round(len(crop) / 80))
        fine = cv2.ximgproc.guidedFilter(crop, self._confidence(crop), radius, 100.0, scale=0.5)
        return np.asarray(np.clip(fine * 255.0 + 0.5, 0, 255).astype(np.uint8))

    def smooth_mask(self, image: UInt8) -> UInt8:
        """Segment an image for a cut-out: with a smooth outline and less haze than `mask`.

        Args:
            image: [H, W, 3] uint8 RGB.

        Returns:
            [H, W] uint8, 255 = person.
        """
        # The segmenter's own grid of 256 pixels would show as steps.
        rough = cv2.GaussianBlur(self._confidence(image), (0, 0), len(image) / 250)
        low, high = HAZE
        rough = np.clip((rough - low) / (high - low), 0.0, 1.0)
        radius = max(2, round(len(image) / 160))
        fine = cv2.ximgproc.guidedFilter(image, rough, radius, 400.0)
        return np.asarray(np.clip(fine * 255.0 + 0.5, 0, 255).astype(np.uint8))

    def _confidence(self, image: UInt8) -> Float32:
        """Return how certainly each pixel of an image [H, W, 3] shows the person, [H, W] in [0, 1]."""
        person = self._models.own().segment(as_image(image)).confidence_masks[0]
        return np.array(person.numpy_view().squeeze(-1))  # copied: it is a view into `person`

    def close(self) -> None:
        """Release the model."""
        self._models.close()
