"""The steps of preprocessing, and the state of a run that they share.

A step reads what it needs from the artifacts of earlier ones, through `PipelineRun`, and writes its own.
`talkhead.preprocess.pipeline` lists them in order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from talkhead import media
from talkhead.cameras import default_intrinsics
from talkhead.config import read_object
from talkhead.crops import crop_landmarks
from talkhead.dataset import (
    ADVICE,
    ALL_FRAMES,
    TENSORS,
    WAVEFORM,
    WAVEFORM_TENSORS,
    DatasetInfo,
    IdentityDataset,
    Tracks,
)
from talkhead.errors import FootageError
from talkhead.face import N_BODY, N_CLOTHES, N_INNER, N_LANDMARKS, TEMPLATE_SPEC, FaceModel
from talkhead.footage import Footage, first_frames
from talkhead.frame_selection import clip_slices, spread_frames, train_frames
from talkhead.preprocess.av_sync import AvOffset, lip_measures, measure_offset, shift_waveform
from talkhead.preprocess.background import (
    BACKGROUND_FACTS,
    MAX_SAMPLES,
    disk_bytes,
    read_background_facts,
    write_background,
)
from talkhead.preprocess.body_motion import body_codes
from talkhead.preprocess.clothes import clothes_codes
from talkhead.preprocess.head_crops import (
    SAMPLES,
    CropJob,
    check_space,
    read_features,
    write_head_crops,
)
from talkhead.preprocess.head_pose import MAX_SHAPING, track_head
from talkhead.preprocess.image_selection import MAX_FRAMES, choose_stored_frames, frame_places
from talkhead.preprocess.inner_mouth import inner_mouth_codes
from talkhead.preprocess.landmarks import bridge_gaps, mesh_triangles
from talkhead.preprocess.motion_codes import encode_motion, fit_face_model
from talkhead.preprocess.occlusion import head_posture, mouth_occluded, occluded_triangles
from talkhead.preprocess.person_mask import CropPlan, plan_crops
from talkhead.preprocess.quality import (
    MIN_SECONDS,
    check_footage,
    check_trainable,
    report_quality,
    well_tracked,
)
from talkhead.preprocess.tracking import TRACKING, TRACKING_TENSORS, track_video
from talkhead.progress import Progress
from talkhead.storage import (
    content_errors,
    read_tensors,
    write_json,
    write_tensors,
)
from talkhead.tensors import TensorSpec, read_checked
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Bool, Float32, HeadPoses, Tracking, UInt8

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
        start: Landmarks [478, 3] of their face at the start of this footage, in pixels. None: the
            largest, most central face is theirs.
    """

    face: FaceModel
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
        """How late the audio of each clip is."""
        names = map(_offset_file, range(len(self.parts)))
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

    @cached_property
    def has_image(self) -> Bool:
        """Frames [F] whose images are stored. For short footage these are all that are depicted."""
        n_frames = len(self.train)
        if n_frames <= MAX_FRAMES:
            return self.depicted
        specs = {"kept": TensorSpec((n_frames,), torch.bool)}
        return np.asarray(
            read_checked(self.folder / FRAME_SELECTION, specs, ADVICE)["kept"].numpy()
        )

    @cached_property
    def crop_job(self) -> CropJob:
        """The input of `write_head_crops`."""
        info, trainable = self.footage.info, self.unoccluded_training
        sampled = np.zeros(len(trainable), dtype=bool)
        if not (self.folder / BACKGROUND_FACTS).exists():
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
        )


# --------------------------------------------------------------------------------- steps


def read_sound(run: PipelineRun) -> None:
    """Decode the audio. This is the first step, so that damaged audio is reported before tracking.

    Args:
        run: The run.

    Raises:
        MediaError: The audio cannot be decoded.
    """
    if run.known is None:
        waveform = media.read_audio(run.footage.path, SAMPLE_RATE)
    else:  # nothing is learned from the sound of further footage, which may have none
        waveform = np.zeros(0, np.float32)
    write_tensors(run.folder / SOUND, {"waveform": torch.from_numpy(waveform)})


def track_face(run: PipelineRun) -> None:
    """Track the landmarks of one face, and the colors of its triangles.

    Args:
        run: The run.

    Raises:
        MediaError: The picture cannot be decoded.
    """
    start = None if run.known is None else run.known.start
    track_video(run.footage, run.folder, run.progress, start)


def estimate_head_pose(run: PipelineRun) -> None:
    """Fit the face template and the rigid pose of every frame; remove the pose from the landmarks.

    Args:
        run: The run.

    Raises:
        FootageError: Too few frames show the face.
    """
    with run.progress.step("Estimating head poses", total=1) as step:
        train, covered, info = run.train & run.depicted, run.covered, run.footage.info
        template = None if run.known is None else run.known.face.template
        if template is None:
            check_trainable(covered & train, run.footage.name)
        intrinsics = default_intrinsics(info.width, info.height)
        landmarks = run.tracking.landmarks
        head = track_head(landmarks, covered, train & covered, intrinsics, run.joins, template)
        for part in run.parts:
            # Another camera gives the same face another shape; speech moves it from its own mean.
            known = covered[part]
            if known.any() and not run.depicted[part].any():
                mean = np.median(head.canonical[part][known], axis=0)
                head.canonical[part] += head.template - mean
        canonical = {"canonical": torch.from_numpy(head.canonical)}
        write_tensors(run.folder / CANONICAL, canonical)
        poses = {
            "viewmats": torch.from_numpy(head.poses.viewmats),
            "residual_px": torch.from_numpy(head.poses.residual_px),
            "lips": torch.from_numpy(lip_measures(head.canonical)),
            "template": torch.from_numpy(head.template),
        }
        write_tensors(run.folder / HEAD_POSE, poses)
        step.advance()


def synchronize_audio(run: PipelineRun) -> None:
    """Measure how late the audio of each clip is, and shift it.

    Args:
        run: The run.
    """
    with run.progress.step("Measuring the audio offset", total=1) as step:
        stored = read_checked(run.folder / SOUND, WAVEFORM_TENSORS, ADVICE)
        starts = [join * SAMPLE_RATE // FRAME_RATE for join in run.joins]
        shifted = []
        for i, sound in enumerate(np.split(stored["waveform"].numpy(), starts)):
            # The held-out frames, which are the last ones of the first clip, do not affect the offset.
            part = run.parts[i]
            frames = slice(part.start, part.start + int(run.train[part].sum()))
            offset = AvOffset(None, 0.0, (), 0.0)
            if run.known is None:
                offset = measure_offset(sound, run.lips[frames], run.covered[frames])
            write_json(run.folder / _offset_file(i), asdict(offset))
            shifted.append(shift_waveform(sound, offset.corrected_ms))
        write_tensors(
            run.folder / WAVEFORM, {"waveform": torch.from_numpy(np.concatenate(shifted))}
        )
        step.advance()


def _offset_file(number: int) -> str:
    """Return the name of the file with the audio offset of a clip."""
    return OFFSET if number == 0 else f"sync-{number}.json"


def detect_occlusion(run: PipelineRun) -> None:
    """Find the triangles of the face that something covers.

    Args:
        run: The run.
    """
    found, train, triangles = run.tracking.detected, run.train, mesh_triangles()
    posture = head_posture(run.poses.viewmats, run.lips, found & train)
    colors = run.take_colors()
    occluded = np.concatenate(  # the colors of a face depend on the light, which clips do not share
        [
            occluded_triangles(colors[p], posture[p], found[p], train[p], run.template, triangles)
            for p in run.parts
        ]
    )
    write_tensors(run.folder / OCCLUSION, {"hidden": torch.from_numpy(occluded)})


def encode_face_motion(run: PipelineRun) -> None:
    """Detect silence, fit the face model and encode the motion of every frame.

    Args:
        run: The run.

    Raises:
        FootageError: Too few frames can be used for training, or there is no speech.
    """
    stored = read_checked(run.folder / CANONICAL, CANONICAL_TENSORS, ADVICE)
    canonical = np.asarray(stored["canonical"].numpy())
    if run.known is None:
        face, silent = _fitted_face(run, canonical)
    else:
        face, silent = run.known.face, np.zeros(len(canonical), dtype=bool)
    write_tensors(run.folder / FACE, face.tensors())
    codes = {"codes": encode_motion(face, canonical), "silent": np.asarray(silent)}
    write_tensors(run.folder / CODES, {k: torch.from_numpy(v) for k, v in codes.items()})


def _fitted_face(run: PipelineRun, canonical: Float32) -> tuple[FaceModel, Bool]:
    """Fit the face model to canonical landmarks [F, 478, 3]; also return the silent frames [F]."""
    video, trainable = run.footage.title, run.unoccluded_training
    check_trainable(trainable & run.depicted, video)
    stored = read_checked(run.folder / WAVEFORM, WAVEFORM_TENSORS, ADVICE)
    silent = run.detect_silence(np.asarray(stored["waveform"].numpy()), len(trainable))
    if silent[run.train].all():
        raise FootageError(
            f"{video}: no speech was detected. Lips are learned from speech: record a person speaking"
        )
    shaping = np.isin(np.arange(len(trainable)), spread_frames(trainable, MAX_SHAPING))
    return fit_face_model(run.template, canonical, shaping, silent, mesh_triangles()), silent


def select_frames(run: PipelineRun) -> None:
    """Choose the frames of long footage whose images are stored.

    Args:
        run: The run.
    """
    if len(run.train) <= MAX_FRAMES:
        return
    with run.progress.step("Choosing frames", total=1) as step:
        places = frame_places(run.codes, run.poses.viewmats, run.unoccluded_training)
        never = run.occluded.any(1) | ~run.depicted
        unoccluded = run.unoccluded & run.depicted
        kept = choose_stored_frames(places, unoccluded, run.train, never, MAX_FRAMES, run.joins)
        write_tensors(run.folder / FRAME_SELECTION, {"kept": torch.from_numpy(kept)})
        step.advance()


def cut_heads(run: PipelineRun) -> None:
    """Write head crops, person masks and per-frame features; resumes where it stopped.

    Args:
        run: The run.

    Raises:
        MediaError: The picture cannot be decoded.
        TalkheadError: Too little space is free on the disk.
    """
    info, has_image = run.footage.info, run.has_image
    if len(has_image) > MAX_FRAMES:
        n_trained = int((has_image & run.train & run.usable).sum())
        run.progress.message(
            f"Long footage: the renderer is trained on {n_trained:,} of {len(has_image):,} frames, "
            "chosen for new mouths and poses; the motion predictor is trained on all"
        )
    check_space(run.folder, run.crop_job, disk_bytes(info.height, info.width))
    write_head_crops(run.folder, run.crop_job, run.progress)


def estimate_background(run: PipelineRun) -> None:
    """Estimate the background.

    Args:
        run: The run.
    """
    with run.progress.step("Background behind the person", total=1) as step:
        write_background(run.folder, run.crop_job)
        step.advance()


def assess_quality(run: PipelineRun) -> None:
    """Report which frames are unusable and why.

    Args:
        run: The run.
    """
    warnings = []
    if read_background_facts(run.folder).moving:
        warnings.append("the camera moves: the background behind the head is approximate")
    for i, offset in enumerate(run.offsets):
        clip = f"{Path(run.footage.clips[i].path).name}: " if run.footage.clips else ""
        if offset.offset_ms is None:
            warnings.append(
                f"{clip}the audio-video offset could not be measured and was not corrected"
            )
        elif offset.corrected_ms:
            warnings.append(f"{clip}the audio was {offset.corrected_ms:.0f} ms late; corrected")
    report = report_quality(
        run.tracking,
        run.covered,
        run.poses,
        run.usable,
        np.asarray(run.occluded.any(1)),
        run.n_faces,
        warnings,
        run.parts,
    )
    write_json(run.folder / QUALITY, report.to_json())
    if run.known is None:  # the warnings are about learning from the footage
        for warning in report.warnings:
            run.progress.message(warning)


def write_dataset(run: PipelineRun) -> None:
    """Add the codes of inner mouth, clothes and body, and write the dataset.

    Args:
        run: The run.
    """
    face, tracking, plan, info = run.face, run.tracking, run.plan, run.footage.info
    features, codes = read_features(run.folder), run.codes.copy()
    # Neither body nor clothes of clips that look different can be compared with those of the others.
    body, known = features.body * run.depicted[:, None], run.usable & run.depicted
    points = crop_landmarks(tracking.landmarks, plan.origins, plan.scale)
    inner = slice(face.n_mouth - N_INNER, face.n_mouth)
    codes[:, inner] = inner_mouth_codes(features.mouth, points, run.usable, run.train, run.parts)
    codes[:, -N_BODY:] = body_codes(body, run.parts)
    posture = head_posture(run.poses.viewmats, codes[:, -N_BODY:], known & run.train)
    codes[:, -N_BODY - N_CLOTHES : -N_BODY] = clothes_codes(
        features.clothes, body, posture, known, run.train, run.parts
    )
    tracks = Tracks(
        landmarks=tracking.landmarks,
        blendshapes=tracking.blendshapes,
        detected=tracking.detected,
        usable=run.usable,
        train=run.train,
        silent=run.silent,
        has_image=run.has_image,
        occluded=run.occluded,
        viewmats=run.poses.viewmats,
        residual_px=run.poses.residual_px,
        codes=codes,
        origins=plan.origins,
    )
    facts = DatasetInfo(
        video=run.footage.name,
        n_frames=len(run.has_image),
        width=info.width,
        height=info.height,
        crop_width=plan.width,
        crop_height=plan.height,
        scale=plan.scale,
        av_offset_ms=run.offsets[0].corrected_ms,
        n_faces=run.n_faces,
        moving_camera=read_background_facts(run.folder).moving,
        uses_all_frames=run.config.use_all_frames,
        joins=run.joins,
    )
    IdentityDataset.save(run.folder, facts, face, tracks)
