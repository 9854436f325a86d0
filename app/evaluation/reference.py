"""Real frames that takes are compared with: head crops of a dataset, or whole frames of a video.

Heads are rendered over the background plate, never over true pixels, rounded to 8 bits as a viewer
sees them, and compared with the crop at the size at which the dataset keeps it.
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
from talkhead.renderers.base import Renderer
from talkhead.types import FRAME_RATE, Float32, Int, UInt8

BATCH = 4
"""Frames rendered at a time."""
FLOOR_CRF, FLOOR_PRESET = 23, "medium"
"""x264's own defaults."""


class ReferenceFrames(Protocol):
    """Real frames in one image space; i counts the scene's frames, from 0."""

    @property
    def numbers(self) -> Int:
        """Frame numbers [N] at 25 a second, rising."""

    def real(self) -> Iterator[UInt8]:
        """The real images [H, W, 3], from the first on."""

    def landmarks(self, i: int) -> Float32:
        """True landmarks [478, 2] in the image's pixels: where face and mouth boxes are."""

    def shown(self, i: int, image: UInt8) -> UInt8:
        """What the tracker is shown of an image."""

    def cut(self, i: int, shown: UInt8) -> UInt8:
        """The image back from what is shown."""

    def located(self, i: int, points: Float32) -> Float32:
        """Landmarks [478, 2] found in what is shown, in pixels of the source video."""


@dataclass(frozen=True)
class CropReference:
    """Head crops of a dataset's frames."""

    dataset: IdentityDataset
    numbers: Int

    def real(self) -> Iterator[UInt8]:
        return (self.dataset.frames[number] for number in self.numbers)

    def landmarks(self, i: int) -> Float32:
        return np.asarray(self._landmarks[i])

    @cached_property
    def _landmarks(self) -> Float32:
        return self.dataset.crop_landmarks()[self.numbers]

    def shown(self, i: int, image: UInt8) -> UInt8:
        """The crop in its place on the plate at source size, as it was when the clip was tracked;
        a scaled crop as it is."""
        if not self._is_staged:
            return image
        stage = self.dataset.plate.copy()
        left, top = (int(n) for n in self._origin(i))
        box = Box(left, top, left + image.shape[1], top + image.shape[0])
        inside = box.clipped(*stage.shape[:2])
        part = image[inside.top - top : inside.bottom - top, inside.left - left :]
        inside.cut(stage)[:] = part[:, : inside.right - inside.left]
        return stage

    def cut(self, i: int, shown: UInt8) -> UInt8:
        info = self.dataset.info
        size = (info.crop_height, info.crop_width)
        if self._is_staged:
            shown = cut_crop(shown, self._origin(i), size, 1.0)
        return shown[: size[0], : size[1]]

    def located(self, i: int, points: Float32) -> Float32:
        if not self._is_staged:
            points = points / self.dataset.info.scale + self._origin(i)
        return np.asarray(points, np.float32)

    @property
    def _is_staged(self) -> bool:
        return self.dataset.info.scale == 1.0

    def _origin(self, i: int) -> Float32:
        return np.asarray(self.dataset.tracks.origins[self.numbers[i]])


@dataclass(frozen=True)
class FrameReference:
    """Whole frames of a video. points: [N, 478, 2] true landmarks in its pixels."""

    video: Path
    numbers: Int
    points: Float32

    def real(self) -> Iterator[UInt8]:
        return frames_of(self.video, self.numbers)

    def landmarks(self, i: int) -> Float32:
        return np.asarray(self.points[i])

    def shown(self, i: int, image: UInt8) -> UInt8:
        return image

    def cut(self, i: int, shown: UInt8) -> UInt8:
        return shown

    def located(self, i: int, points: Float32) -> Float32:
        return points


def frames_of(video: Path, numbers: Int) -> Generator[UInt8, None, None]:
    """The frames of a video with those numbers, rising, one after the other."""
    first, after = int(numbers[0]), int(numbers[-1]) + 1
    wanted = set(numbers.tolist())
    frames = media.read_frames(video, start_s=first / FRAME_RATE, n_frames=after - first)
    with closing(frames):
        for number, frame in enumerate(frames, start=first):
            if number in wanted:
                yield frame


def held_out_frames(dataset: IdentityDataset) -> Int:
    """The numbers of the test frames that can be judged: kept, well tracked, the face clear, the
    mouth inside the crop.

    Raises TalkheadError when all frames were for training, or none can be judged.
    """
    tracks, info = dataset.tracks, dataset.info
    if tracks.train.all():
        raise TalkheadError(f"{info.video}: no frames were held out. Fit without --use-all-frames")
    tested = ~tracks.train & tracks.kept & tracks.clear
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
    """The heads of frames alone under the true head pose: color [H, W, 3], premultiplied, and opacity
    [H, W, 1].

    motion: [N, K] codes, one for each of the frames.
    """
    tracks, info = dataset.tracks, dataset.info
    device = next((t.device for t in renderer.tensors().values()), torch.device("cpu"))
    for start in range(0, len(frames), BATCH):
        batch = frames[start : start + BATCH]
        arrays = (motion[start : start + BATCH], tracks.viewmats[batch], dataset.crop_ks[batch])
        codes, viewmats, ks = (torch.from_numpy(array).float().to(device) for array in arrays)
        with torch.no_grad():
            rendering = renderer.render(codes, viewmats, ks, info.crop_height, info.crop_width)
        yield from zip(rendering.rgb.cpu().numpy(), rendering.alpha.cpu().numpy(), strict=True)


def rendered_crops(
    renderer: Renderer, dataset: IdentityDataset, frames: Int, motion: Float32
) -> Iterator[UInt8]:
    """Renderings of frames over the background plate under the true head pose, [H, W, 3] uint8.

    motion: [N, K] codes, one for each of the frames.
    """
    heads = rendered_heads(renderer, dataset, frames, motion)
    for frame, (rgb, alpha) in zip(frames, heads, strict=True):
        yield composite(rgb, alpha, dataset.plate_crop(frame))


def composite(rgb: Float32, alpha: Float32, background: UInt8) -> UInt8:
    """An image over a background, [H, W, 3] uint8.

    rgb: [H, W, 3] in [0, 1], premultiplied by alpha [H, W, 1].
    """
    image = rgb * np.float32(255) + (1 - alpha) * background
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def encoded(scene: ReferenceFrames, folder: Path) -> Iterator[UInt8]:
    """The real images after one pass through x264, by way of a file in the folder: what no system
    can be nearer to."""
    path = folder / "floor.mp4"
    shown = (scene.shown(i, image) for i, image in enumerate(scene.real()))
    media.write_video(path, shown, crf=FLOOR_CRF, preset=FLOOR_PRESET)
    with closing(media.read_frames(path)) as decoded:
        for i, image in zip(range(len(scene.numbers)), decoded, strict=True):
            yield scene.cut(i, image)
