"""Write head crops and person masks; extract per-frame features of mouth, body and clothes on the way.

The video is decoded once. The brightness between the lips and on the clothes and the position of the
body, which the motion codes of every frame need, are measured in this pass, so that frames that add
nothing new need not be stored. The whole frames from which the background is made are also stored in
this pass.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from talkhead import media
from talkhead.crops import crop_landmarks, cut_crop
from talkhead.dataset import FRAMES, MASKS, ImageFile
from talkhead.device import map_concurrently
from talkhead.errors import TalkheadError
from talkhead.footage import Footage
from talkhead.preprocess.body_motion import ROW, BodyTracker
from talkhead.preprocess.clothes import N_POINTS, ClothesGrid
from talkhead.preprocess.inner_mouth import N_PLACES, mouth_brightness
from talkhead.preprocess.person_mask import CropPlan, PersonSegmenter
from talkhead.progress import Progress, Step
from talkhead.types import FRAME_RATE, Bool, Float32, Float64, UInt8

FEATURES = "looks.f64"
SAMPLES = "plate_samples.u8"
"""Whole frames for the background; removed once it is made."""
N_FEATURES = N_PLACES + ROW + N_POINTS
CHUNK = 50
"""Frames between checkpoints, whose crops are in memory; a few seconds of work."""


@dataclass(frozen=True)
class FrameFeatures:
    """Features of every frame.

    Attributes:
        mouth: [F, N_PLACES] brightness between the lips, see `mouth_brightness`.
        body: [F, ROW] position of the body, see `BodyTracker.follow`.
        clothes: [F, N_POINTS] brightness of neck and clothes, see `ClothesGrid.brightness`.
    """

    mouth: Float64
    body: Float64
    clothes: Float64


@dataclass(frozen=True)
class CropJob:
    """Everything that cutting the crops of a video with F frames needs.

    Attributes:
        footage: The video.
        plan: Position and size of the crops.
        landmarks: [F, 478, 3] in source pixels.
        has_image: [F] frames whose crop and mask are stored.
        sampled: [F] frames that are stored whole, for the background.
        reference: Frame from which the body is followed into the others.
        intrinsics: [3, 3] of the source.
        joins: First frame of each clip but the first one, at which the body is searched anew.
        has_features: The features of mouth, body and clothes are measured.
    """

    footage: Footage
    plan: CropPlan
    landmarks: Float32
    has_image: Bool
    sampled: Bool
    reference: int
    intrinsics: Float64
    joins: tuple[int, ...] = ()
    has_features: bool = True

    def crop(self, image: UInt8, frame: int) -> UInt8:
        """Cut the crop out of a whole image.

        Args:
            image: [height, width, 3] uint8, a frame of the source.
            frame: Its number.

        Returns:
            [H, W, 3] uint8.
        """
        plan = self.plan
        return cut_crop(image, plan.origins[frame], (plan.height, plan.width), plan.scale)

    def points(self, frame: int) -> Float32:
        """Return the landmarks of a frame in pixels of its crop.

        Args:
            frame: Number of the frame.

        Returns:
            [478, 2].
        """
        part = slice(frame, frame + 1)
        return crop_landmarks(self.landmarks[part], self.plan.origins[part], self.plan.scale)[0]


@dataclass(frozen=True)
class _Cut:
    """A frame and its crop.

    Attributes:
        frame: Its number.
        image: [height, width, 3] uint8, the whole frame.
        crop: [H, W, 3] uint8.
        mask: [H, W] uint8, 255 = person; None if it is not stored.
    """

    frame: int
    image: UInt8
    crop: UInt8
    mask: UInt8 | None


@dataclass
class _Chunk:
    """Images and features of up to CHUNK frames, before they are written."""

    n_frames: int = 0
    crops: list[UInt8] = field(default_factory=list)
    masks: list[UInt8] = field(default_factory=list)
    features: list[Float64] = field(default_factory=list)


class _CropFiles:
    """The files that grow frame by frame while crops are cut."""

    def __init__(self, folder: Path, job: CropJob) -> None:
        size = (job.plan.height, job.plan.width)
        source = (job.footage.info.height, job.footage.info.width)
        every = np.ones(len(job.has_image), dtype=bool)
        self._features = ImageFile(folder / FEATURES, (8 * N_FEATURES,))
        self._samples = ImageFile(folder / SAMPLES, (*source, 3))
        # Each file with the frames [F] that have an entry in it.
        self._files = {
            "crops": (ImageFile(folder / FRAMES, (*size, 3)), job.has_image),
            "masks": (ImageFile(folder / MASKS, size), job.has_image),
        }
        if job.has_features:
            self._files["features"] = (self._features, every)
        if job.sampled.any():
            self._files["samples"] = (self._samples, job.sampled)
        self._n_frames = len(job.has_image)

    def missing_bytes(self) -> int:
        """Return how many bytes are still to be written."""
        files = self._files.values()
        whole = sum(file.image_bytes * int(frames.sum()) for file, frames in files)
        return whole - sum(len(file) * file.image_bytes for file, _ in files)

    def n_done(self) -> int:
        """Return how many frames are done: all, or whole chunks; 0 where a file is too long."""
        files = self._files.values()
        # This happens after two processes have written to the same files.
        if any(len(file) > frames.sum() for file, frames in files):
            return 0
        done = min(self._n_done(file, frames) for file, frames in files)
        return done if done == self._n_frames else done // CHUNK * CHUNK

    def _n_done(self, file: ImageFile, frames: Bool) -> int:
        """Return the number of frames before the first of [F] whose entry is missing in a file."""
        ends = np.append(np.flatnonzero(frames), self._n_frames)
        return int(ends[min(len(file), len(ends) - 1)])

    def truncate(self, n_frames: int) -> None:
        """Remove the entries of all but the first n_frames."""
        for file, frames in self._files.values():
            file.truncate(int(frames[:n_frames].sum()))

    def append_sample(self, image: UInt8) -> None:
        """Write a whole frame [height, width, 3] at once: a chunk of them could be large."""
        self._samples.append([image])

    def append(self, chunk: _Chunk) -> None:
        """Write a chunk to the disk."""
        images = {"crops": chunk.crops, "masks": chunk.masks}
        for name, (file, _) in self._files.items():
            if name == "features":
                file.append(np.array(chunk.features).view(np.uint8))
            elif name in images:
                file.append(images[name])

    def last_features(self) -> Float64:
        """Read the features [N_FEATURES] of the last frame that is done."""
        return np.asarray(self._features[len(self._features) - 1].view(np.float64))


def check_space(folder: Path, job: CropJob, extra_bytes: int = 0) -> None:
    """Check in advance that crops and masks will fit on the disk.

    Args:
        folder: Folder of the dataset.
        job: What will be cut.
        extra_bytes: Temporary space that is needed in addition.

    Raises:
        TalkheadError: Too little space is free.
    """
    missing = _CropFiles(folder, job).missing_bytes() + extra_bytes
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise TalkheadError(
            f"{folder}: the footage takes {missing / 2**30:.1f} GiB of work space and "
            f"{free / 2**30:.1f} are free. Free some, or pass --home DIR on another disk"
        )


def write_head_crops(folder: Path, job: CropJob, progress: Progress) -> None:
    """Write the files of a job chunk by chunk; resumes after the last whole chunk.

    Args:
        folder: Folder of the dataset.
        job: What to cut.
        progress: Where the step is shown.

    Raises:
        MediaError: The video cannot be decoded.
        TalkheadError: A file cannot be written.
    """
    files = _CropFiles(folder, job)
    done, n_frames = files.n_done(), len(job.has_image)
    if done < n_frames:
        files.truncate(done)
        with progress.step("Cutting out the head", total=n_frames, done=done) as step:
            _cut_rest(job, files, done, step)


def read_features(folder: Path) -> FrameFeatures:
    """Read the features that `write_head_crops` has written.

    Args:
        folder: Folder of the dataset.

    Returns:
        Features of all frames.
    """
    # Mapped: the brightness of the clothes of half an hour takes 300 MB, and is read in parts.
    rows = np.memmap(folder / FEATURES, np.float64, "r").reshape(-1, N_FEATURES)
    mouth, body, clothes = np.split(rows, (N_PLACES, N_PLACES + ROW), axis=1)
    return FrameFeatures(np.array(mouth), np.array(body), clothes)


def _cut_rest(job: CropJob, files: _CropFiles, done: int, step: Step) -> None:
    """Cut the frames, beginning at number `done`."""
    segmenter = PersonSegmenter()
    features = _FeatureTracker(job, segmenter) if job.has_features else None
    if features is not None and done:
        features.resume(files.last_features())
    n_left = len(job.has_image) - done
    source = media.read_frames(job.footage.path, start_s=done / FRAME_RATE, n_frames=n_left)
    cut = map_concurrently(
        partial(_cut, job, segmenter), enumerate(source, start=done), torch.get_num_threads()
    )
    with closing(source), closing(segmenter), closing(cut):
        while done < len(job.has_image):
            chunk = _Chunk()
            for one in islice(cut, CHUNK):
                chunk.n_frames += 1
                if features is not None:
                    chunk.features.append(features.measure(one.crop, one.frame))
                if one.mask is not None:
                    chunk.crops.append(one.crop)
                    chunk.masks.append(one.mask)
                if job.sampled[one.frame]:
                    files.append_sample(one.image)
                step.advance()
            if not chunk.n_frames:
                break
            files.append(chunk)
            done += chunk.n_frames


def _cut(job: CropJob, segmenter: PersonSegmenter, numbered: tuple[int, UInt8]) -> _Cut:
    """Cut the crop out of a frame, given as number and image, and segment it if its mask is stored."""
    frame, image = numbered
    crop = job.crop(image, frame)
    # Segmenting takes three times as long as all else.
    return _Cut(frame, image, crop, segmenter.mask(crop) if job.has_image[frame] else None)


class _FeatureTracker:
    """Measures the features of consecutive frames; the body is followed from the reference frame."""

    def __init__(self, job: CropJob, segmenter: PersonSegmenter) -> None:
        frame = job.reference
        source = media.read_frames(job.footage.path, start_s=frame / FRAME_RATE, n_frames=1)
        with closing(source):
            crop = job.crop(next(source), frame)
        mask, landmarks = segmenter.mask(crop), job.landmarks[frame]
        self._job = job
        self._body = BodyTracker(crop, mask, landmarks, frame, job.plan, job.intrinsics)
        self._clothes = ClothesGrid(mask, landmarks, frame, job.plan, job.intrinsics)

    def resume(self, last: Float64) -> None:
        """Continue after a frame with features [N_FEATURES]."""
        self._body.resume(last[N_PLACES : N_PLACES + ROW])

    def measure(self, crop: UInt8, frame: int) -> Float64:
        """Return the features [N_FEATURES] of the next frame, of which the crop [H, W, 3] is given."""
        job = self._job
        if frame in job.joins and job.landmarks[frame].any():
            moved = job.landmarks[frame] - job.landmarks[job.reference]
            self._body.restart(moved[:, :2].mean(0, dtype=np.float64))
        mouth = mouth_brightness(crop, job.points(frame))
        row = self._body.follow(crop, frame)
        return np.concatenate([mouth, row, self._clothes.brightness(crop, frame, row)])
