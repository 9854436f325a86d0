"""Crops and masks of the kept frames onto the disk, and of every frame what no later step could see.

Frames go by once. What codes need of their images, the brightness between the lips and how the body
stands, is taken then, so that images which teach nothing new need not be kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from talkhead import media
from talkhead.crops import crop_landmarks, cut_crop, shrunk_mask, small_size
from talkhead.dataset import FRAMES, MASKS, SMALL_MASKS, ImageFile
from talkhead.errors import TalkheadError
from talkhead.preprocess.body_motion import ROW, BodyTracker
from talkhead.preprocess.inner_mouth import N_PLACES, mouth_brightness
from talkhead.preprocess.person_mask import CropPlan, PersonSegmenter
from talkhead.progress import Progress, Step
from talkhead.types import FRAME_RATE, Bool, Float32, Float64, UInt8

LOOKS = "looks.f64"
CHUNK = 50
"""Frames between checkpoints, whose crops are held: seconds."""


@dataclass(frozen=True)
class FrameFeatures:
    """What the crops tell of every frame. mouth: [F, N_PLACES], see mouth_brightness. body: [F, ROW],
    see BodyTracker."""

    mouth: Float64
    body: Float64


@dataclass(frozen=True)
class CropJob:
    """What is to be cut of a video, F frames.

    landmarks: [F, 478, 3] source pixels. kept: [F] frames whose images are. reference: the frame that
    the body is followed from. intrinsics: [3, 3] of the source.
    """

    video: Path
    plan: CropPlan
    landmarks: Float32
    kept: Bool
    reference: int
    intrinsics: Float64

    def crop(self, image: UInt8, frame: int) -> UInt8:
        """The crop of a frame's image."""
        plan = self.plan
        return cut_crop(image, plan.origins[frame], (plan.height, plan.width), plan.scale)

    def points(self, frame: int) -> Float32:
        """Landmarks [478, 2] in a frame's crop."""
        part = slice(frame, frame + 1)
        return crop_landmarks(self.landmarks[part], self.plan.origins[part], self.plan.scale)[0]


class _Files:
    """The files that cutting appends to, frame by frame."""

    def __init__(self, folder: Path, cut: CropJob) -> None:
        size = (cut.plan.height, cut.plan.width)
        self._kept = cut.kept
        self._images = (ImageFile(folder / FRAMES, (*size, 3)), ImageFile(folder / MASKS, size))
        self._small = ImageFile(folder / SMALL_MASKS, small_size(size))
        self._looks = ImageFile(folder / LOOKS, (8 * (N_PLACES + ROW),))
        self._every = (self._looks,) if cut.kept.all() else (self._looks, self._small)

    def missing_bytes(self) -> int:
        """What is still to be written."""
        whole = sum(file.image_bytes * int(self._kept.sum()) for file in self._images)
        whole += sum(file.image_bytes * len(self._kept) for file in self._every)
        return whole - sum(len(file) * file.image_bytes for file in (*self._images, *self._every))

    def n_done(self) -> int:
        """How many frames are done: all, or whole chunks; none where there are more than can be."""
        if self._is_overlong():
            return 0
        n_images = min(len(file) for file in self._images)
        ends = np.append(np.flatnonzero(self._kept), len(self._kept))
        done = min(int(ends[min(n_images, len(ends) - 1)]), *(len(file) for file in self._every))
        return done if done == len(self._kept) else done // CHUNK * CHUNK

    def _is_overlong(self) -> bool:
        """Whether files hold more than all frames, as where two processes have written to them."""
        most = [int(self._kept.sum())] * len(self._images) + [len(self._kept)] * len(self._every)
        files = (*self._images, *self._every)
        return any(len(file) > n for file, n in zip(files, most, strict=True))

    def truncate(self, n_frames: int) -> None:
        """Keep what is of the first n_frames."""
        for file in self._images:
            file.truncate(int(self._kept[:n_frames].sum()))
        for file in self._every:
            file.truncate(n_frames)

    def append(
        self, crops: Sequence[UInt8], masks: Sequence[UInt8], small: Sequence[UInt8], looks: Float64
    ) -> None:
        """Write a chunk: crops and masks of the kept frames, small masks and looks of all."""
        for file, images in zip(self._images, (crops, masks), strict=True):
            file.append(images)
        for file, rows in zip(self._every, (looks.view(np.uint8), small), strict=False):
            file.append(rows)

    def looks(self) -> Float64:
        """Rows [n, N_PLACES + ROW] of the frames that are done."""
        return np.fromfile(self._looks.path, np.float64).reshape(-1, N_PLACES + ROW)


def check_space(folder: Path, cut: CropJob, besides: int = 0) -> None:
    """Raises TalkheadError before the work when crops and masks won't fit on the disk.

    besides: bytes that are needed for a while, and not for them.
    """
    missing = _Files(folder, cut).missing_bytes() + besides
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise TalkheadError(
            f"{folder}: the footage takes {missing / 2**30:.1f} GiB of work space and "
            f"{free / 2**30:.1f} are free. Free some, or pass --home DIR on another disk"
        )


def write_head_crops(folder: Path, cut: CropJob, progress: Progress) -> FrameFeatures:
    """What is seen in the frames; their files, chunk by chunk, resumable."""
    files = _Files(folder, cut)
    done, n_frames = files.n_done(), len(cut.kept)
    if done < n_frames:
        files.truncate(done)
        with progress.step("Cutting out the head", total=n_frames, done=done) as step:
            _cut_rest(cut, files, done, step)
    looks = files.looks()
    return FrameFeatures(looks[:, :N_PLACES], looks[:, N_PLACES:])


def _cut_rest(cut: CropJob, files: _Files, done: int, step: Step) -> None:
    """Cut the frames from number `done` on."""
    segmenter = PersonSegmenter()
    body = _body_tracker(cut, segmenter)
    if done:
        body.go_on(files.looks()[-1])
    keeps_all = bool(cut.kept.all())
    source = media.read_frames(cut.video, start_s=done / FRAME_RATE, n_frames=len(cut.kept) - done)
    with closing(source):
        numbered = enumerate(source, start=done)
        while done < len(cut.kept):
            crops, masks, small, looks = [], [], [], []
            for frame, image in islice(numbered, CHUNK):
                crop = cut.crop(image, frame)
                mask = segmenter.mask(crop)
                seen = mouth_brightness(crop, cut.points(frame)), body.follow(crop, frame)
                looks.append(np.concatenate(seen))
                if not keeps_all:
                    small.append(shrunk_mask(mask))
                if cut.kept[frame]:
                    crops.append(crop)
                    masks.append(mask)
                step.advance()
            if not looks:
                break
            files.append(crops, masks, small, np.array(looks))
            done += len(looks)
    segmenter.close()


def _body_tracker(cut: CropJob, segmenter: PersonSegmenter) -> BodyTracker:
    frame = cut.reference
    source = media.read_frames(cut.video, start_s=frame / FRAME_RATE, n_frames=1)
    with closing(source):
        crop = cut.crop(next(source), frame)
    mask = segmenter.mask(crop)
    return BodyTracker(crop, mask, cut.landmarks[frame], frame, cut.plan, cut.intrinsics)
