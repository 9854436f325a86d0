"""The state of a preprocessing run: its inputs, and the results of its steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from talkhead.cameras import default_intrinsics
from talkhead.config import read_object
from talkhead.dataset import (
    ADVICE,
    ALL_FRAMES,
    TENSORS,
)
from talkhead.face import N_LANDMARKS, TEMPLATE_SPEC, FaceModel
from talkhead.footage import Footage, first_frames
from talkhead.frame_selection import clip_slices, spread_frames, train_frames
from talkhead.preprocess.av_sync import AvOffset
from talkhead.preprocess.background import (
    BACKGROUND_FACTS,
    MAX_SAMPLES,
    read_background_facts,
)
from talkhead.preprocess.head_crops import (
    SAMPLES,
    CropJob,
)
from talkhead.preprocess.image_selection import MAX_FOLLOWED, MAX_FRAMES
from talkhead.preprocess.landmarks import bridge_gaps, mesh_triangles
from talkhead.preprocess.occlusion import mouth_occluded
from talkhead.preprocess.person_mask import CropPlan, plan_crops
from talkhead.preprocess.quality import (
    MIN_SECONDS,
    check_footage,
    well_tracked,
)
from talkhead.preprocess.tracking import TRACKING, TRACKING_TENSORS
from talkhead.progress import Progress
from talkhead.storage import (
    content_errors,
    read_tensors,
)
from talkhead.tensors import TensorSpec, read_checked
from talkhead.types import Bool, Float32, HeadPoses, Tracking, UInt8

SilenceDetector: TypeAlias = Callable[[Float32, int], Bool]
"""Takes a waveform [n_samples] at 16 kHz and n_frames; returns the frames [n_frames] without speech."""

SOUND = "sound.safetensors"
HEAD_POSE, CANONICAL = "head_pose.safetensors", "canonical.safetensors"
OFFSET = "sync.json"
OCCLUSION = "occlusion.safetensors"
FACE, CODES = "face.safetensors", "motion_codes.safetensors"
FRAME_SELECTION = "kept.safetensors"
QUALITY = "quality.json"
DATASET = "dataset.json"
TEMPORARY = (SOUND, HEAD_POSE, CANONICAL, OCCLUSION, CODES, SAMPLES)
"""Artifacts that only later steps read; removed once there is a dataset."""

MIN_FOLLOWED_S = 0.4
"""Seconds for which further footage of a fitted person must show the face."""
CANONICAL_TENSORS = {"canonical": TensorSpec((ALL_FRAMES, N_LANDMARKS, 3), is_finite=False)}
HEAD_POSE_TENSORS = {
    "viewmats": TENSORS["viewmats"],
    "residual_px": TENSORS["residual_px"],
    "lips": TensorSpec((ALL_FRAMES, 3), is_finite=False),
    "template": TEMPLATE_SPEC,
}


@dataclass(frozen=True)
class PreprocessConfig:
    """Settings of preprocessing.

    Attributes:
        max_crop_height: Taller head crops are scaled down to this height, pixels.
        min_face: Fraction of the frames that must show a face, 0 to 1.
        use_all_frames: Train on the held-out frames, too.
    """

    max_crop_height: int = 576
    min_face: float = 0.8
    use_all_frames: bool = False


@dataclass(frozen=True)
class KnownPerson:
    """A person who was fitted to other footage.

    Attributes:
        face: Their face model.
        usual: Their usual motion code [K]. Inner mouth, clothes and body, whose codes cannot be
            compared between recordings, are set to it.
        start: Landmarks [478, 3] of their face at the start of this footage, in pixels. None: the
            largest, most central face is theirs.
    """

    face: FaceModel
    usual: Float32
    start: Float32 | None = None


@dataclass
class PipelineRun:
    """Inputs of one run, and the results of its steps, read from their artifacts when first needed.

    F frames, T triangles of the face mesh, K components of a motion code.

    Attributes:
        footage: The video.
        folder: Folder of the dataset.
        config: Settings.
        progress: Where steps are shown.
        detect_silence: Finds the frames without speech.
        known: The person, if they were fitted to other footage. None: this footage is learned from.
    """

    footage: Footage
    folder: Path
    config: PreprocessConfig
    progress: Progress
    detect_silence: SilenceDetector
    known: KnownPerson | None = None

    @cached_property
    def _tracked(self) -> tuple[Tracking, Bool, int, UInt8 | None]:
        """Bridged tracking, covered frames [F], number of faces and, for occlusion, colors [F, T, 3]."""
        stored = read_checked(self.folder / TRACKING, TRACKING_TENSORS, ADVICE)
        tracking = Tracking(
            stored["landmarks"].numpy(), stored["blendshapes"].numpy(), stored["found"].numpy()
        )
        # Not checked in the step that tracks: min_face may differ when a run is resumed.
        least_s = MIN_SECONDS if self.known is None else MIN_FOLLOWED_S
        check_footage(tracking, self.config.min_face, self.footage.title, least_s)
        # Colors of long footage are large and needed by one step alone.
        is_needed = not (self.folder / OCCLUSION).exists()
        colors = stored["colours"].numpy() if is_needed else None
        return (*bridge_gaps(tracking, self.joins), int(stored["n_faces"]), colors)

    @property
    def joins(self) -> tuple[int, ...]:
        """First frame of each clip but the first one; none for an ordinary video."""
        return first_frames(self.footage.clips)

    @property
    def moving_camera(self) -> bool:
        """True if the background moves. Not measured if nothing is learned from the footage."""
        return self.known is None and read_background_facts(self.folder).moving

    @property
    def parts(self) -> tuple[slice, ...]:
        """Frames of each clip; all frames of an ordinary video."""
        return clip_slices(len(self.tracking), self.joins)

    @cached_property
    def depicted(self) -> Bool:
        """Frames [F] of clips that look like the first one. Only these show how the person looks."""
        depicted = np.ones(len(self.tracking), dtype=bool)
        for part, clip in zip(self.parts, self.footage.clips, strict=False):
            depicted[part] = clip.has_images
        return depicted

    @property
    def tracking(self) -> Tracking:
        """Landmarks and blendshapes, short gaps interpolated."""
        return self._tracked[0]

    @property
    def covered(self) -> Bool:
        """Frames [F] that have landmarks."""
        return self._tracked[1]

    @property
    def n_faces(self) -> int:
        """The largest number of faces in one frame."""
        return self._tracked[2]

    def take_colors(self) -> UInt8:
        """Return the colors of the mesh triangles, which are then no longer held.

        Returns:
            [F, T, 3] uint8.
        """
        *others, colors = self._tracked
        assert colors is not None
        self.__dict__["_tracked"] = (*others, None)
        return colors

    @cached_property
    def train(self) -> Bool:
        """Frames [F] that are not held out."""
        return train_frames(len(self.tracking), self.config.use_all_frames, self.joins)

    @cached_property
    def _head_pose(self) -> dict[str, torch.Tensor]:
        """Tensors of HEAD_POSE: viewmats [F, 4, 4], residual_px [F], lips [F, 3], template [478, 3]."""
        return read_checked(self.folder / HEAD_POSE, HEAD_POSE_TENSORS, ADVICE)

    @property
    def template(self) -> Float32:
        """Mean face [478, 3] in world units."""
        return np.asarray(self._head_pose["template"].numpy())

    @property
    def poses(self) -> HeadPoses:
        """Rigid head pose of every frame."""
        stored = self._head_pose
        return HeadPoses(stored["viewmats"].numpy(), stored["residual_px"].numpy())

    @property
    def lips(self) -> Float32:
        """`lip_measures` [F, 3] of the canonical landmarks."""
        return np.asarray(self._head_pose["lips"].numpy())

    @cached_property
    def offsets(self) -> tuple[AvOffset, ...]:
        """How late the audio of each clip is. Empty if nothing is learned from the audio."""
        if self.known is not None:
            return ()
        names = map(offset_file, range(len(self.parts)))
        return tuple(read_object(self.folder / name, AvOffset, ADVICE) for name in names)

    @cached_property
    def occluded(self) -> Bool:
        """Triangles [F, T] of the face that something covers."""
        specs = {"hidden": TENSORS["hidden"]}
        return np.asarray(read_checked(self.folder / OCCLUSION, specs, ADVICE)["hidden"].numpy())

    @cached_property
    def usable(self) -> Bool:
        """Frames [F] whose face is well tracked and whose mouth is visible."""
        usable = well_tracked(self.tracking, self.covered, self.poses, self.parts)
        return usable & ~mouth_occluded(self.occluded, self.template, mesh_triangles())

    @property
    def unoccluded(self) -> Bool:
        """Usable frames [F] in which nothing covers the face."""
        return self.usable & ~self.occluded.any(1)

    @property
    def unoccluded_training(self) -> Bool:
        """Unoccluded training frames [F]."""
        return self.unoccluded & self.train

    @cached_property
    def plan(self) -> CropPlan:
        """Position and size of the head crops."""
        info = self.footage.info
        size = (info.height, info.width)
        return plan_crops(
            self.tracking.landmarks,
            self.covered,
            size,
            self.config.max_crop_height,
            self.parts,
            self.depicted,
        )

    @cached_property
    def face(self) -> FaceModel:
        """The person's face model."""
        path = self.folder / FACE
        with content_errors(path, ADVICE):
            return FaceModel.from_tensors(read_tensors(path))

    @cached_property
    def _codes(self) -> dict[str, torch.Tensor]:
        """The tensors of CODES: motion codes [F, K] and silent frames [F]."""
        specs = {name: TENSORS[name] for name in ("codes", "silent")}
        return read_checked(self.folder / CODES, specs, ADVICE)

    @property
    def codes(self) -> Float32:
        """Motion codes [F, K], without inner mouth, clothes and body."""
        return np.asarray(self._codes["codes"].numpy())

    @property
    def silent(self) -> Bool:
        """Frames [F] without speech."""
        return np.asarray(self._codes["silent"].numpy())

    @property
    def max_images(self) -> int:
        """Largest number of frames whose images are stored."""
        return MAX_FRAMES if self.known is None else MAX_FOLLOWED

    @property
    def is_long(self) -> bool:
        """True if the images of some frames are not stored."""
        return len(self.train) > self.max_images

    @cached_property
    def has_image(self) -> Bool:
        """Frames [F] whose images are stored. For short footage these are all that are depicted."""
        if not self.is_long:
            return self.depicted
        specs = {"kept": TensorSpec((len(self.train),), torch.bool)}
        return np.asarray(
            read_checked(self.folder / FRAME_SELECTION, specs, ADVICE)["kept"].numpy()
        )

    @cached_property
    def crop_job(self) -> CropJob:
        """The input of `write_head_crops`."""
        info, trainable = self.footage.info, self.unoccluded_training
        sampled = np.zeros(len(trainable), dtype=bool)
        if self.known is None and not (self.folder / BACKGROUND_FACTS).exists():
            sampled[spread_frames(trainable & self.has_image, MAX_SAMPLES)] = True
        frames = np.flatnonzero(trainable & self.depicted)
        return CropJob(
            footage=self.footage,
            plan=self.plan,
            landmarks=self.tracking.landmarks,
            has_image=self.has_image,
            sampled=sampled,
            reference=int(frames[len(frames) // 2]),
            intrinsics=default_intrinsics(info.width, info.height),
            joins=self.joins,
            has_features=self.known is None,
        )


def offset_file(clip: int) -> str:
    """Return the name of the artifact with the audio offset of a clip.

    Args:
        clip: Number of the clip.

    Returns:
        A file name.
    """
    return OFFSET if clip == 0 else f"sync-{clip}.json"
