"""The steps of preprocessing, and the state of a run that they share.

A step reads what it needs from the artifacts of earlier ones, through `PipelineRun`, and writes its own.
`talkhead.preprocess.pipeline` lists them in order.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from talkhead import media
from talkhead.cameras import default_intrinsics
from talkhead.crops import crop_landmarks
from talkhead.dataset import (
    ADVICE,
    WAVEFORM,
    WAVEFORM_TENSORS,
    DatasetInfo,
    IdentityDataset,
    Tracks,
)
from talkhead.errors import FootageError
from talkhead.face import N_BODY, N_CLOTHES, N_INNER, FaceModel
from talkhead.frame_selection import spread_frames
from talkhead.preprocess.av_sync import lip_measures, measure_offset, shift_waveform
from talkhead.preprocess.background import (
    disk_bytes,
    write_background,
)
from talkhead.preprocess.body_motion import body_codes
from talkhead.preprocess.clothes import clothes_codes
from talkhead.preprocess.head_crops import (
    check_space,
    read_features,
    write_head_crops,
)
from talkhead.preprocess.head_pose import MAX_SHAPING, track_head
from talkhead.preprocess.image_selection import choose_stored_frames, frame_places
from talkhead.preprocess.inner_mouth import inner_mouth_codes
from talkhead.preprocess.landmarks import mesh_triangles
from talkhead.preprocess.motion_codes import encode_motion, fit_face_model
from talkhead.preprocess.occlusion import head_posture, occluded_triangles
from talkhead.preprocess.pipeline_run import (
    CANONICAL,
    CANONICAL_TENSORS,
    CODES,
    FACE,
    FRAME_SELECTION,
    HEAD_POSE,
    OCCLUSION,
    QUALITY,
    SOUND,
    PipelineRun,
    offset_file,
)
from talkhead.preprocess.quality import (
    check_trainable,
    report_quality,
)
from talkhead.preprocess.tracking import track_video
from talkhead.storage import (
    write_json,
    write_tensors,
)
from talkhead.tensors import read_checked
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Bool, Float32

# --------------------------------------------------------------------------------- steps


def read_sound(run: PipelineRun) -> None:
    """Decode the audio. This is the first step, so that damaged audio is reported before tracking.

    Args:
        run: The run.

    Raises:
        MediaError: The audio cannot be decoded.
    """
    waveform = media.read_audio(run.footage.path, SAMPLE_RATE)
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
            offset = measure_offset(sound, run.lips[frames], run.covered[frames])
            write_json(run.folder / offset_file(i), asdict(offset))
            shifted.append(shift_waveform(sound, offset.corrected_ms))
        write_tensors(
            run.folder / WAVEFORM, {"waveform": torch.from_numpy(np.concatenate(shifted))}
        )
        step.advance()


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
        if not run.unoccluded_training.any():
            raise FootageError(
                f"{run.footage.title}: the face is turned away or covered in all frames. Pass footage "
                "that shows it"
            )
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
    if not run.is_long:
        return
    with run.progress.step("Choosing frames", total=1) as step:
        places = frame_places(run.codes, run.poses.viewmats, run.unoccluded_training)
        never = run.occluded.any(1) | ~run.depicted
        unoccluded = run.unoccluded & run.depicted
        kept = choose_stored_frames(places, unoccluded, run.train, never, run.max_images, run.joins)
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
    if run.is_long and run.known is None:
        n_trained = int((has_image & run.train & run.usable).sum())
        run.progress.message(
            f"Long footage: the renderer is trained on {n_trained:,} of {len(has_image):,} frames, "
            "chosen for new mouths and poses; the motion predictor is trained on all"
        )
    extra_bytes = disk_bytes(info.height, info.width) if run.crop_job.sampled.any() else 0
    check_space(run.folder, run.crop_job, extra_bytes)
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
    if run.moving_camera:
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
    for warning in report.warnings:
        run.progress.message(warning)


def write_dataset(run: PipelineRun) -> None:
    """Add the codes of inner mouth, clothes and body, and write the dataset.

    Args:
        run: The run.
    """
    tracking, plan, info = run.tracking, run.plan, run.footage.info
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
        codes=_complete_codes(run),
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
        av_offset_ms=run.offsets[0].corrected_ms if run.offsets else 0.0,
        n_faces=run.n_faces,
        moving_camera=run.moving_camera,
        uses_all_frames=run.config.use_all_frames,
        joins=run.joins,
    )
    IdentityDataset.save(run.folder, facts, run.face, tracks)


def _complete_codes(run: PipelineRun) -> Float32:
    """Return the motion codes [F, K] with those of inner mouth, clothes and body."""
    face, codes = run.face, run.codes.copy()
    inner = slice(face.n_mouth - N_INNER, face.n_mouth)
    if run.known is not None:
        for part in (inner, slice(face.clothes.start, None)):
            codes[:, part] = run.known.usual[part]
        return codes
    features, plan = read_features(run.folder), run.plan
    # Neither body nor clothes of clips that look different can be compared with those of the others.
    body, known = features.body * run.depicted[:, None], run.usable & run.depicted
    points = crop_landmarks(run.tracking.landmarks, plan.origins, plan.scale)
    codes[:, inner] = inner_mouth_codes(features.mouth, points, run.usable, run.train, run.parts)
    codes[:, -N_BODY:] = body_codes(body, run.parts)
    posture = head_posture(run.poses.viewmats, codes[:, -N_BODY:], known & run.train)
    codes[:, -N_BODY - N_CLOTHES : -N_BODY] = clothes_codes(
        features.clothes, body, posture, known, run.train, run.parts
    )
    return codes
