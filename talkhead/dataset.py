"""IdentityDataset on disk: the result of preprocessing, from which the other stages are fitted.

A folder with dataset.json, safetensors of per-frame tracks, and plain files of images that are read one
by one, so that memory does not grow with the clip. For long footage, only some frames have images;
tracks cover all frames.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from talkhead.blendshapes import N_BLENDSHAPES
from talkhead.cameras import MAX_PX, crop_intrinsics, default_intrinsics, view_fault
from talkhead.config import bounded, from_json, limits
from talkhead.crops import (
    crop_landmarks,
    cut_crop,
    enlarged_mask,
    occluded_area,
    shrunk_mask,
    small_size,
)
from talkhead.errors import PackageError, TalkheadError
from talkhead.face import CODES, MAX_CODE, N_LANDMARKS, TRIANGLES, WORLD, FaceModel
from talkhead.footage import MAX_CLIPS
from talkhead.images import PNG, read_image
from talkhead.storage import (
    ContentError,
    check_format,
    content_errors,
    read_json,
    read_tensors,
    translate_os_errors,
    write_json,
    write_tensors,
)
from talkhead.tensors import Size, TensorSpec, check_tensors, read_checked
from talkhead.types import FRAME_RATE, MAX_SIDE_PX, Bool, Float32, Float64, Int, UInt8

FORMAT = 4
FRAMES, MASKS, WAVEFORM = "frames.u8", "masks.u8", "waveform.safetensors"
SMALL_MASKS = "small_masks.u8"
MAX_CROP_PX = 4096
"""Largest side of a crop; preprocessing makes them at most 576 high."""
MIN_SCALE = 1 / 64
"""Smallest number of crop pixels per source pixel."""
MAX_FRAMES = 24 * 60 * 60 * FRAME_RATE
"""Largest number of frames of a dataset."""
ADVICE = "Remove this folder and run the same talkhead fit again"


@dataclass(frozen=True)
class DatasetInfo:
    """Facts about a dataset.

    Attributes:
        video: Name of the video file.
        n_frames: Number of frames F.
        width: Width of the source as displayed, pixels.
        height: Height of the source as displayed, pixels.
        crop_width: Width of the stored frames, pixels.
        crop_height: Height of the stored frames, pixels.
        scale: Crop pixels per source pixel.
        av_offset_ms: By how much late audio was shifted, milliseconds.
        n_faces: The largest number of faces in one frame.
        moving_camera: The background moves.
        uses_all_frames: No frames were held out.
        joins: First frame of each clip but the first one, if the video was joined from clips.
    """

    video: str
    n_frames: int = field(metadata=limits(1, MAX_FRAMES))
    width: int = field(metadata=limits(1, MAX_SIDE_PX))
    height: int = field(metadata=limits(1, MAX_SIDE_PX))
    crop_width: int = field(metadata=limits(1, MAX_CROP_PX))
    crop_height: int = field(metadata=limits(1, MAX_CROP_PX))
    scale: float = field(metadata=limits(MIN_SCALE, 1.0))
    av_offset_ms: float = field(metadata=limits(-1e6, 1e6))
    n_faces: int = field(metadata=limits(0, 1000))
    moving_camera: bool
    uses_all_frames: bool
    joins: tuple[int, ...] = bounded((), 1, MAX_FRAMES, MAX_CLIPS)

    @property
    def crop_size(self) -> tuple[int, int]:
        """Height and width of the stored frames."""
        return self.crop_height, self.crop_width


@dataclass(frozen=True)
class Tracks:
    """Per-frame results, F frames.

    Attributes:
        landmarks: [F, 478, 3] in source pixels.
        blendshapes: [F, 52], see Tracking.
        detected: [F] bool, the face was detected in the frame itself.
        usable: [F] bool, good enough for training.
        train: [F] bool, not held out.
        silent: [F] bool, no speech.
        has_image: [F] bool, images are stored.
        occluded: [F, T] bool, triangles of the face that something covers.
        viewmats: [F, 4, 4] head poses.
        residual_px: [F] residual of the pose, source pixels.
        codes: [F, K] motion codes.
        origins: [F, 2] left and top of the crop in source pixels.
    """

    landmarks: Float32
    blendshapes: Float32
    detected: Bool
    usable: Bool
    train: Bool
    silent: Bool
    has_image: Bool
    occluded: Bool
    viewmats: Float32
    residual_px: Float32
    codes: Float32
    origins: Float32

    @property
    def unoccluded(self) -> Bool:
        """Usable frames [F] in which nothing covers the face."""
        return self.usable & ~self.occluded.any(1)

    @property
    def trainable(self) -> Bool:
        """Usable training frames [F] with images, on which a renderer is trained."""
        return self.usable & self.train & self.has_image


ALL_FRAMES = Size("F", 1, MAX_FRAMES)
FLAGS = TensorSpec((ALL_FRAMES,), torch.bool)
TENSORS = {
    "landmarks": TensorSpec((ALL_FRAMES, N_LANDMARKS, 3), minimum=-MAX_PX, maximum=MAX_PX),
    "blendshapes": TensorSpec((ALL_FRAMES, N_BLENDSHAPES), minimum=-0.01, maximum=1.01),
    "found": FLAGS,
    "usable": FLAGS,
    "train": FLAGS,
    "silent": FLAGS,
    "kept": FLAGS,
    "hidden": TensorSpec((ALL_FRAMES, TRIANGLES), torch.bool),
    "viewmats": TensorSpec((ALL_FRAMES, 4, 4), minimum=-WORLD, maximum=WORLD, fault=view_fault),
    "residual_px": TensorSpec((ALL_FRAMES,), is_finite=False),
    "codes": TensorSpec((ALL_FRAMES, CODES), minimum=-MAX_CODE, maximum=MAX_CODE),
    "origins": TensorSpec((ALL_FRAMES, 2), minimum=-MAX_SIDE_PX, maximum=MAX_SIDE_PX),
}
"""Specifications of the stored tensors of `Tracks`."""
_STORED_NAMES = {"detected": "found", "has_image": "kept", "occluded": "hidden"}
"""Names of tensors in the file, where they differ from the fields of `Tracks`."""
WAVEFORM_TENSORS = {"waveform": TensorSpec((Size("samples", 0),))}


@dataclass(frozen=True)
class ImageFile:
    """Images of the same shape, one after the other, as a plain file of uint8.

    They are read when they are indexed and written when they are appended, so that memory does not grow
    with the clip. An image is indexed by its frame; length and order are those of the file.

    Attributes:
        path: The file.
        shape: Shape of one image.
        numbers: [N] frame numbers of the images, ascending; None for 0, 1, 2 and so on.
    """

    path: Path
    shape: tuple[int, ...]
    numbers: Int | None = None

    @property
    def image_bytes(self) -> int:
        """Size of one image in bytes."""
        return prod(self.shape)

    def __len__(self) -> int:
        return self.path.stat().st_size // self.image_bytes if self.path.exists() else 0

    def __getitem__(self, index: int | np.integer[Any]) -> UInt8:
        """Read the image of a frame, of `shape`.

        Raises:
            IndexError: The file has no image of this frame.
        """
        place = int(index)
        if self.numbers is not None:
            place = int(np.searchsorted(self.numbers, index))
            if place == len(self.numbers) or self.numbers[place] != index:
                raise IndexError(f"{self.path}: the image of frame {index} was not kept")
        if not 0 <= place < len(self):
            raise IndexError(f"{self.path}: image {place} of {len(self)}")
        return self._read(place)

    def _read(self, place: int) -> UInt8:
        """Read the image at a position of the file, with the shape of all images."""
        offset = place * self.image_bytes
        flat = np.fromfile(self.path, np.uint8, self.image_bytes, offset=offset)
        return flat.reshape(self.shape)

    def __iter__(self) -> Iterator[UInt8]:
        """Read all images in order, with the shape of one image each."""
        return (self._read(place) for place in range(len(self)))

    def truncate(self, n: int) -> None:
        """Keep the first n images.

        Args:
            n: Number of images.

        Raises:
            TalkheadError: The file cannot be changed.
        """
        with translate_os_errors(self.path), open(self.path, "ab") as file:
            file.truncate(n * self.image_bytes)

    def append(self, images: Iterable[UInt8]) -> None:
        """Append images and flush them to the disk.

        Args:
            images: uint8 images of `shape`.

        Raises:
            TalkheadError: The file cannot be written.
        """
        with translate_os_errors(self.path), open(self.path, "ab") as file:
            for image in images:
                file.write(np.ascontiguousarray(image).data)
            file.flush()
            os.fsync(file.fileno())


@dataclass(frozen=True)
class IdentityDataset:
    """A preprocessed clip. Images are read from the disk when they are indexed.

    Attributes:
        path: Folder of the dataset.
        info: Facts about it.
        face: The person's face model.
        tracks: Per-frame results.
    """

    path: Path
    info: DatasetInfo
    face: FaceModel
    tracks: Tracks

    @classmethod
    def load(cls, path: Path) -> IdentityDataset:
        """Load a dataset.

        Args:
            path: Its folder.

        Returns:
            The dataset.

        Raises:
            PackageError: It is missing, damaged or of another version.
        """
        stored = read_json(path / "dataset.json")
        version = stored.pop("format", None) if isinstance(stored, dict) else None
        check_format(path, "a dataset", version, FORMAT, ADVICE)
        with content_errors(path / "dataset.json", ADVICE):
            info = from_json(DatasetInfo, stored)
        with content_errors(path / "face.safetensors", ADVICE):
            face = FaceModel.from_tensors(read_tensors(path / "face.safetensors"))
        with content_errors(path / "tracks.safetensors", ADVICE):
            tracks = _checked_tracks(read_tensors(path / "tracks.safetensors"), info, face)
        return cls(path, info, face, tracks)

    @classmethod
    def save(cls, path: Path, info: DatasetInfo, face: FaceModel, tracks: Tracks) -> None:
        """Write everything but image files, waveform and background; dataset.json last.

        Args:
            path: Folder of the dataset.
            info: Facts about it.
            face: The person's face model.
            tracks: Per-frame results.

        Raises:
            TalkheadError: The disk is full or not writable.
        """
        write_tensors(path / "face.safetensors", face.tensors())
        arrays = {
            _STORED_NAMES.get(k, k): torch.from_numpy(np.require(v, None, ["C", "W"]))
            for k, v in vars(tracks).items()
        }
        write_tensors(path / "tracks.safetensors", arrays)
        write_json(path / "dataset.json", {"format": FORMAT, **asdict(info)})

    def __len__(self) -> int:
        return self.info.n_frames

    @cached_property
    def frames(self) -> ImageFile:
        """Head crops [H, W, 3] uint8 RGB of the frames that have images."""
        return self._images(FRAMES, 3)

    @cached_property
    def masks(self) -> ImageFile:
        """Person masks of the crops [H, W] uint8, 255 = person, of the frames that have images."""
        return self._images(MASKS)

    @property
    def small_masks(self) -> ImageFile:
        """Person masks at a quarter of the size, of as many frames as were needed so far."""
        return ImageFile(self.path / SMALL_MASKS, small_size(self.info.crop_size))

    def _images(self, name: str, *channels: int) -> ImageFile:
        shape = (*self.info.crop_size, *channels)
        images = ImageFile(self.path / name, shape, np.flatnonzero(self.tracks.has_image))
        n_kept = int(self.tracks.has_image.sum())
        if len(images) != n_kept:
            raise PackageError(f"{images.path}: holds {len(images)} images, not {n_kept}. {ADVICE}")
        return images

    def discard_images(self) -> None:
        """Remove the images of a dataset from which nothing is learned any more; small masks remain.

        Raises:
            TalkheadError: The files cannot be changed.
        """
        small = self.small_masks
        if len(small) != len(self):
            small.truncate(0)
            small.append(shrunk_mask(mask) for mask in self.masks)
        for name in (FRAMES, MASKS):
            (self.path / name).unlink(missing_ok=True)

    def person(self, frame: int | np.integer[Any]) -> Float32:
        """Return the person mask of a frame's crop.

        It is enlarged from a mask of a quarter of the size if there are such masks, also where a whole
        one is stored: their edges differ.

        Args:
            frame: Number of the frame.

        Returns:
            [H, W] in [0, 1].

        Raises:
            IndexError: Neither its image nor its small mask is stored.
        """
        small = self.small_masks
        if small.path.exists():
            return enlarged_mask(small[frame], self.info.crop_size)
        return self.masks[frame].astype(np.float32) / np.float32(255.0)

    @cached_property
    def background(self) -> UInt8:
        """Background [H, W, 3] uint8 RGB at source size, filled in where it was never seen.

        Accessing it raises PackageError if the file is missing or damaged.
        """
        path = self.path / "plate.png"
        try:
            return read_image(path, (PNG,), (self.info.width, self.info.height))
        except TalkheadError as error:
            raise PackageError(f"{path}: missing or damaged. Run fit again") from error

    @cached_property
    def waveform(self) -> Float32:
        """Audio of the clip [n_samples], 16 kHz, in sync with the frames."""
        stored = read_checked(self.path / WAVEFORM, WAVEFORM_TENSORS, ADVICE)
        return np.asarray(stored["waveform"].numpy())

    @cached_property
    def intrinsics(self) -> Float64:
        """K [3, 3] of the source image."""
        return default_intrinsics(self.info.width, self.info.height)

    @cached_property
    def crop_ks(self) -> Float32:
        """K [F, 3, 3] of each crop."""
        return crop_intrinsics(self.intrinsics, self.tracks.origins, self.info.scale)

    def matched(self, face: FaceModel) -> IdentityDataset:
        """Return the dataset with motion codes of as many components as those of a package.

        Packages of older versions have no components of the clothes; the others are the same.

        Args:
            face: The face model of the package, which was fitted on this footage.

        Returns:
            The dataset itself, or one without the components of the clothes.

        Raises:
            PackageError: The package has another number of components.
        """
        if face.n_codes == self.face.n_codes:
            return self
        own, clothes = self.face, self.face.clothes
        if face.n_codes != own.n_codes - (clothes.stop - clothes.start):
            raise PackageError(
                f"{self.path}: motion codes of {own.n_codes} components, where the identity has "
                f"{face.n_codes}. Fit it again"
            )
        basis, silence = (np.delete(a, clothes, axis=0) for a in (own.basis, own.silence))
        return replace(
            self,
            face=replace(own, basis=basis, silence=silence),
            tracks=replace(self.tracks, codes=np.delete(self.tracks.codes, clothes, axis=1)),
        )

    def crop_landmarks(self) -> Float32:
        """Return the landmarks [F, 478, 2] in crop pixels."""
        return crop_landmarks(self.tracks.landmarks, self.tracks.origins, self.info.scale)

    def occluded_area(self, frame: int) -> Bool:
        """Return the area of a crop in which something may cover the person.

        Args:
            frame: Number of the frame.

        Returns:
            [H, W] bool.
        """
        points = crop_landmarks(
            self.tracks.landmarks[[frame]], self.tracks.origins[[frame]], self.info.scale
        )
        triangles = self.face.triangles[self.tracks.occluded[frame]]
        return occluded_area(points[0], triangles, self.info.crop_size)

    def background_crop(self, frame: int) -> UInt8:
        """Return the background behind a crop.

        Args:
            frame: Number of the frame.

        Returns:
            [H, W, 3] uint8.
        """
        info = self.info
        return cut_crop(
            self.background,
            self.tracks.origins[frame],
            info.crop_size,
            info.scale,
        )


def _checked_tracks(tensors: Mapping[str, Tensor], info: DatasetInfo, face: FaceModel) -> Tracks:
    """Convert tensors, [F, ...] each as in TENSORS, to tracks. Raises ContentError."""
    sizes = {
        ALL_FRAMES.name: info.n_frames,
        CODES.name: face.n_codes,
        TRIANGLES.name: len(face.triangles),
    }
    check_tensors(tensors, TENSORS, sizes)
    names = {one.name: _STORED_NAMES.get(one.name, one.name) for one in fields(Tracks)}
    tracks = Tracks(**{name: tensors[stored].numpy() for name, stored in names.items()})
    check_crops(tracks.origins, info.crop_size, info.scale, (info.height, info.width))
    return tracks


def check_crops(
    origins: Float32, size: tuple[int, int], scale: float, source: tuple[int, int]
) -> None:
    """Check that crops overlap the source and are at most twice as large.

    Args:
        origins: [F, 2] left and top in source pixels.
        size: Height and width of the crops, crop pixels.
        scale: Crop pixels per source pixel.
        source: Height and width of the source, pixels.

    Raises:
        ContentError: The crops are outside the source or too large.
    """
    extent = np.array(size[::-1]) / scale
    limits = np.array(source[::-1])
    if (extent > 2 * limits).any():
        raise ContentError(
            f"crops of {extent.round().tolist()} source pixels do not fit the images"
        )
    if (origins <= -extent).any() or (origins >= limits).any():
        raise ContentError("the tensor origins contains crops outside of the images")
