"""Real frames that variants are compared with: head crops of a dataset, or whole frames of a video.

Heads are rendered over the background, never over real pixels, rounded to 8 bits as a viewer
gets them, and compared with the crop at the size at which the dataset stores it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from talkhead import media
from talkhead.app.evaluation.measures.image import Box, mouth_box
from talkhead.crops import cut_crop
from talkhead.dataset import IdentityDataset
from talkhead.errors import TalkheadError
from talkhead.renderers.base import Renderer, device_of
from talkhead.types import FRAME_RATE, Float32, Int, UInt8

BATCH = 4
"""Frames rendered at a time."""
FLOOR_CRF, FLOOR_PRESET = 23, "medium"
"""Defaults of x264, which give the codec floor."""


class ReferenceFrames(Protocol):
    """Real frames in one image space. Index i counts the reference frames, from 0."""

    @property
    def frames(self) -> Int:
        """Frame indices [N] at 25 per second, ascending."""

    def real(self) -> Iterator[UInt8]:
        """Yield the real images [H, W, 3] in order."""

    def landmarks(self, i: int) -> Float32:
        """Return the real landmarks, which give the face and mouth boxes.

        Args:
            i: Index of the frame.

        Returns:
            Landmarks [478, 2] in pixels of the image.
        """

    def to_canvas(self, i: int, image: UInt8) -> UInt8:
        """Prepare an image for the face tracker.

        Args:
            i: Index of the frame.
            image: Image [H, W, 3].

        Returns:
            The canvas that the tracker and the codec get, [h, w, 3].
        """

    def from_canvas(self, i: int, canvas: UInt8) -> UInt8:
        """Undo `to_canvas`.

        Args:
            i: Index of the frame.
            canvas: Canvas [h, w, 3].

        Returns:
            Image [H, W, 3].
        """

    def to_source(self, i: int, points: Float32) -> Float32:
        """Convert points from the canvas to the source video.

        Args:
            i: Index of the frame.
            points: Points [P, 2] in pixels of the canvas.

        Returns:
            Points [P, 2] in pixels of the source video.
        """


@dataclass(frozen=True)
class CropReference:
    """Head crops of a dataset's frames.

    Attributes:
        dataset: The dataset.
        frames: Frame indices [N], ascending.
    """

    dataset: IdentityDataset
    frames: Int

    def real(self) -> Iterator[UInt8]:
        """Return an iterator over the real crops [H, W, 3]."""
        return (self.dataset.frames[frame] for frame in self.frames)

    def landmarks(self, i: int) -> Float32:
        """Return the real landmarks.

        Args:
            i: Index of the frame.

        Returns:
            Landmarks [478, 2] in pixels of the crop.
        """
        return np.asarray(self._landmarks[i])

    @cached_property
    def _landmarks(self) -> Float32:
        """Landmarks [N, 478, 2] in pixels of the crops."""
        return self.dataset.crop_landmarks()[self.frames]

    def to_canvas(self, i: int, image: UInt8) -> UInt8:
        """Paste the crop in its place on the background at source size, as the clip was tracked.

        Args:
            i: Index of the frame.
            image: Crop [H, W, 3].

        Returns:
            The background with the crop, [h, w, 3]; a scaled crop as it is.
        """
        if not self._has_source_size:
            return image
        canvas = self.dataset.background.copy()
        left, top = (int(n) for n in self._origin(i))
        box = Box(left, top, left + image.shape[1], top + image.shape[0])
        inside = box.clipped(*canvas.shape[:2])
        part = image[inside.top - top : inside.bottom - top, inside.left - left :]
        inside.cut(canvas)[:] = part[:, : inside.right - inside.left]
        return canvas

    def from_canvas(self, i: int, canvas: UInt8) -> UInt8:
        """Crop the head from the canvas.

        Args:
            i: Index of the frame.
            canvas: Canvas [h, w, 3].

        Returns:
            Crop [H, W, 3].
        """
        info = self.dataset.info
        size = (info.crop_height, info.crop_width)
        if self._has_source_size:
            canvas = cut_crop(canvas, self._origin(i), size, 1.0)
        return canvas[: size[0], : size[1]]

    def to_source(self, i: int, points: Float32) -> Float32:
        """Convert points from the canvas to the source video.

        Args:
            i: Index of the frame.
            points: Points [P, 2] in pixels of the canvas.

        Returns:
            Points [P, 2] in pixels of the source video.
        """
        if not self._has_source_size:
            points = points / self.dataset.info.scale + self._origin(i)
        return np.asarray(points, np.float32)

    @property
    def _has_source_size(self) -> bool:
        """True if crops are not scaled."""
        return self.dataset.info.scale == 1.0

    def _origin(self, i: int) -> Float32:
        """Return the upper left corner [2] of a crop in the source video, pixels."""
        return np.asarray(self.dataset.tracks.origins[self.frames[i]])


@dataclass(frozen=True)
class FrameReference:
    """Whole frames of a video.

    Attributes:
        video: The file.
        frames: Frame indices [N], ascending.
        points: Real landmarks [N, 478, 2] in pixels of the video.
    """

    video: Path
    frames: Int
    points: Float32

    def real(self) -> Iterator[UInt8]:
        """Return an iterator over the real frames [H, W, 3]."""
        return read_frames(self.video, self.frames)

    def landmarks(self, i: int) -> Float32:
        """Return the real landmarks.

        Args:
            i: Index of the frame.

        Returns:
            Landmarks [478, 2] in pixels.
        """
        return np.asarray(self.points[i])

    def to_canvas(self, i: int, image: UInt8) -> UInt8:
        """Return the image as it is.

        Args:
            i: Index of the frame.
            image: Image [H, W, 3].

        Returns:
            The image [H, W, 3].
        """
        return image

    def from_canvas(self, i: int, canvas: UInt8) -> UInt8:
        """Return the canvas as it is.

        Args:
            i: Index of the frame.
            canvas: Image [H, W, 3].

        Returns:
            The image [H, W, 3].
        """
        return canvas

    def to_source(self, i: int, points: Float32) -> Float32:
        """Return the points as they are.

        Args:
            i: Index of the frame.
            points: Points [P, 2] in pixels.

        Returns:
            The points [P, 2].
        """
        return points


def read_frames(video: Path, frames: Int) -> Generator[UInt8, None, None]:
    """Decode some frames of a video.

    Args:
        video: The file.
        frames: Frame indices [N] at 25 per second, ascending.

    Yields:
        Images [H, W, 3], RGB.
    """
    first, after = int(frames[0]), int(frames[-1]) + 1
    wanted = set(frames.tolist())
    decoded = media.read_frames(video, start_s=first / FRAME_RATE, n_frames=after - first)
    with closing(decoded):
        for index, frame in enumerate(decoded, start=first):
            if index in wanted:
                yield frame


def held_out_frames(dataset: IdentityDataset) -> Int:
    """Find the test frames that can be evaluated.

    Those have an image and well tracked landmarks, nothing covers the face, and the mouth is inside
    the crop.

    Args:
        dataset: The dataset.

    Returns:
        Frame indices [N], ascending.

    Raises:
        TalkheadError: No frame was held out, or none can be evaluated.
    """
    tracks, info = dataset.tracks, dataset.info
    if tracks.train.all():
        raise TalkheadError(f"{info.video}: no frames were held out. Fit without --use-all-frames")
    tested = ~tracks.train & tracks.has_image & tracks.unoccluded
    frames = np.flatnonzero(tested & tracks.landmarks.any((1, 2)))
    size = (info.crop_height, info.crop_width)
    points = dataset.crop_landmarks()
    kept = [f for f in frames if mouth_box(points[f]).clipped(*size).area]
    if not kept:
        raise TalkheadError(
            f"{info.video}: no face was tracked in the held-out end. Record a longer video"
        )
    return np.array(kept, dtype=np.int64)


def rendered_heads(
    renderer: Renderer, dataset: IdentityDataset, frames: Int, motion: Float32
) -> Iterator[tuple[Float32, Float32]]:
    """Render the heads of frames alone, under the real head pose.

    Args:
        renderer: The renderer.
        dataset: Its dataset.
        frames: Frame indices [N].
        motion: Motion codes [N, K].

    Returns:
        An iterator over color [H, W, 3], premultiplied, and opacity [H, W, 1], both in [0, 1].
    """
    tracks, size = dataset.tracks, dataset.info.crop_size
    return posed_heads(renderer, motion, tracks.viewmats[frames], dataset.crop_ks[frames], size)


def posed_heads(
    renderer: Renderer, motion: Float32, viewmats: Float32, ks: Float32, size: tuple[int, int]
) -> Iterator[tuple[Float32, Float32]]:
    """Render heads alone.

    Args:
        renderer: The renderer.
        motion: Motion codes [N, K].
        viewmats: Head poses [N, 4, 4].
        ks: Intrinsics [N, 3, 3] of the images.
        size: Height and width H, W of the images.

    Yields:
        Color [H, W, 3], premultiplied, and opacity [H, W, 1], both in [0, 1].
    """
    device = device_of(renderer)
    for start in range(0, len(motion), BATCH):
        batch = (array[start : start + BATCH] for array in (motion, viewmats, ks))
        codes, poses, cameras = (torch.from_numpy(array).float().to(device) for array in batch)
        with torch.no_grad():
            rendering = renderer.render(codes, poses, cameras, *size)
        yield from zip(rendering.rgb.cpu().numpy(), rendering.alpha.cpu().numpy(), strict=True)


def rendered_crops(
    renderer: Renderer, dataset: IdentityDataset, frames: Int, motion: Float32
) -> Iterator[UInt8]:
    """Render frames over the background, with the real head pose.

    Args:
        renderer: The renderer.
        dataset: Its dataset.
        frames: Frame indices [N].
        motion: Motion codes [N, K].

    Yields:
        Head crops [H, W, 3].
    """
    heads = rendered_heads(renderer, dataset, frames, motion)
    for frame, (rgb, alpha) in zip(frames, heads, strict=True):
        yield composite(rgb, alpha, dataset.background_crop(frame))


def composite(rgb: Float32, alpha: Float32, background: UInt8) -> UInt8:
    """Composite an image over a background.

    Args:
        rgb: Image [H, W, 3] in [0, 1], premultiplied by alpha.
        alpha: Opacity [H, W, 1] in [0, 1].
        background: Background [H, W, 3].

    Returns:
        Image [H, W, 3].
    """
    image = rgb * np.float32(255) + (1 - alpha) * background
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def encoded(reference: ReferenceFrames, folder: Path) -> Iterator[UInt8]:
    """Encode the real images with x264 and decode them again: the codec floor.

    Args:
        reference: The reference frames.
        folder: Folder for the temporary video.

    Yields:
        Images [H, W, 3].
    """
    path = folder / "floor.mp4"
    canvases = (reference.to_canvas(i, image) for i, image in enumerate(reference.real()))
    media.write_video(path, canvases, crf=FLOOR_CRF, preset=FLOOR_PRESET)
    with closing(media.read_frames(path)) as decoded:
        for i, image in zip(range(len(reference.frames)), decoded, strict=True):
            yield reference.from_canvas(i, image)
