"""person.mp4 -> IdentityDataset: an ordered list of steps, each skipped if its artefact is there.

The folder belongs to one video (by content) and one PreprocessConfig; whoever calls keys it by
`dataset_key`. Long steps write what they have every few seconds and go on from there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch

from talkhead import media
from talkhead.cameras import default_intrinsics
from talkhead.config import read_object
from talkhead.crops import crop_landmarks
from talkhead.dataset import (
    ADVICE,
    ALL_FRAMES,
    MASKS,
    TENSORS,
    WAVEFORM,
    DatasetInfo,
    IdentityDataset,
    ImageFile,
    Tracks,
)
from talkhead.errors import FootageError
from talkhead.face import N_BODY, N_INNER, OUTER_EYE_CORNERS, FaceModel, lip_aperture
from talkhead.frame_selection import spread_frames, train_frames
from talkhead.media.probing import probe_footage
from talkhead.preprocess.av_sync import AvOffset, measure_offset, shift_waveform
from talkhead.preprocess.background import MAX_SAMPLES, clean_plate, disk_bytes
from talkhead.preprocess.body_motion import body_codes
from talkhead.preprocess.frame_selection import MAX_FRAMES, choose_kept, frame_places
from talkhead.preprocess.head_crops import CropJob, FrameFeatures, check_space, write_head_crops
from talkhead.preprocess.head_pose import MAX_SHAPING, HeadTrack, track_head
from talkhead.preprocess.inner_mouth import inner_mouth_codes
from talkhead.preprocess.landmarks import (
    FaceTracker,
    as_tracking,
    bridge_gaps,
    mesh_triangles,
)
from talkhead.preprocess.motion_codes import encode_motion, fit_face_model
from talkhead.preprocess.occlusion import (
    face_colors,
    head_posture,
    hidden_triangles,
    mouth_hidden,
)
from talkhead.preprocess.person_mask import CropPlan, plan_crops
from talkhead.preprocess.quality import (
    check_footage,
    check_learnt,
    report_quality,
    well_tracked,
)
from talkhead.progress import Progress
from talkhead.storage import (
    make_folder,
    translate_os_errors,
    write_bytes,
    write_json,
    write_tensors,
)
from talkhead.tensors import Size, TensorSpec, read_checked
from talkhead.types import (
    FRAME_RATE,
    SAMPLE_RATE,
    Bool,
    Float32,
    HeadPoses,
    MediaInfo,
    Tracking,
    UInt8,
)

VERSION = 13
"""Raise it when the same video would give another dataset."""
TRACK_CHUNK = 200
"""Frames between checkpoints of the tracker: seconds."""
TRACKING_TENSORS = {
    **{name: TENSORS[name] for name in ("landmarks", "blendshapes", "found")},
    "colours": TensorSpec((ALL_FRAMES, Size("triangles"), 3), torch.uint8),
    "n_faces": TensorSpec((), torch.int64, least=0),
}
"""What the tracker keeps of a video, and of each chunk of it."""


@dataclass(frozen=True)
class PreprocessConfig:
    """max_crop_height: taller head crops are scaled down to this, pixels. min_face: the share of
    frames that must show a face. use_all_frames: let the held-out end shape the model, too."""

    max_crop_height: int = 576
    min_face: float = 0.8
    use_all_frames: bool = False


def dataset_key(video_sha256: str, config: PreprocessConfig, silence: str) -> str:
    """What a prepared dataset depends on, as 16 hex digits: the video's content, settings, version,
    and the version of what tells silence.

    min_face decides only whether there is a dataset.
    """
    settings = asdict(replace(config, min_face=0.0))
    text = json.dumps([VERSION, video_sha256, settings, silence], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def preprocess(
    video: Path,
    folder: Path,
    config: PreprocessConfig,
    progress: Progress,
    silence: Callable[[Float32, int], Bool],
) -> IdentityDataset:
    """The dataset of a video, made in `folder` or, as far as it is there already, read from it.

    silence: tells of a waveform [n_samples] at 16 kHz in which of n_frames nobody speaks. Raises
    MediaError for a video that can't be read, FootageError for one that can't work.
    """
    if not (folder / "dataset.json").exists():
        _prepare(video, folder, config, progress, silence)
    return IdentityDataset.load(folder)


def _prepare(
    video: Path,
    folder: Path,
    config: PreprocessConfig,
    progress: Progress,
    silence: Callable[[Float32, int], Bool],
) -> None:
    """Make what the dataset lacks, and write it down."""
    info = probe_footage(video)
    make_folder(folder)
    motion = _motion(video, info, folder, config, progress, silence)
    learnt = motion.clear & motion.train
    kept = _kept(motion, folder, progress)
    cut = CropJob(
        video,
        motion.plan,
        motion.tracking.landmarks,
        kept,
        _middle(learnt),
        default_intrinsics(info.width, info.height),
    )
    check_space(folder, cut, disk_bytes(info.height, info.width))
    looks = write_head_crops(folder, cut, progress)
    moving = _background(cut, learnt, folder, info, progress)
    _report(motion, moving, folder, progress)
    facts = DatasetInfo(
        video=video.name,
        n_frames=len(kept),
        width=info.width,
        height=info.height,
        crop_width=motion.plan.width,
        crop_height=motion.plan.height,
        scale=motion.plan.scale,
        av_offset_ms=motion.offset.corrected_ms,
        n_faces=motion.n_faces,
        moving_camera=moving,
        uses_all_frames=config.use_all_frames,
    )
    IdentityDataset.save(folder, facts, motion.face, _tracks(motion, kept, looks))


@dataclass(frozen=True)
class _Motion:
    """What landmarks, their colours and the sound tell of a clip, before images are looked at again.

    covered, usable, train, silent: [F]. hidden: [F, T]. codes: [F, K] without inner mouth and body.
    """

    tracking: Tracking
    covered: Bool
    poses: HeadPoses
    hidden: Bool
    usable: Bool
    train: Bool
    silent: Bool
    face: FaceModel
    codes: Float32
    plan: CropPlan
    offset: AvOffset
    n_faces: int

    @property
    def clear(self) -> Bool:
        return self.usable & ~self.hidden.any(1)


# ------------------------------------------------------------------------------- steps


def _motion(
    video: Path,
    info: MediaInfo,
    folder: Path,
    config: PreprocessConfig,
    progress: Progress,
    silence: Callable[[Float32, int], Bool],
) -> _Motion:
    """The clip's motion; writes its sound, in sync, too."""
    waveform = media.read_audio(video, SAMPLE_RATE)
    tracking, colors, n_faces = _track(video, info, folder, config, progress)
    tracking, covered = bridge_gaps(tracking)
    offset, head = _align(tracking, covered, waveform, folder, info, config, progress)
    waveform = shift_waveform(waveform, offset.corrected_ms)
    train = train_frames(len(tracking), config.use_all_frames)
    hidden = _hidden(colors, tracking, head, train)
    usable = well_tracked(tracking, covered, head.poses)
    usable &= ~mouth_hidden(hidden, head.template, mesh_triangles())
    learnt = usable & ~hidden.any(1) & train
    check_learnt(learnt, str(video))
    plan = plan_crops(
        tracking.landmarks, covered, (info.height, info.width), config.max_crop_height
    )
    silent = silence(waveform, len(tracking))
    if silent[train].all():
        raise FootageError(
            f"{video}: no speech is heard. Lips are learned from speech: record a person speaking"
        )
    write_tensors(folder / WAVEFORM, {"waveform": torch.from_numpy(waveform)})
    shaping = np.isin(np.arange(len(learnt)), spread_frames(learnt, MAX_SHAPING))
    face = fit_face_model(head.template, head.canonical, shaping, silent, mesh_triangles())
    codes = encode_motion(face, head.canonical)
    return _Motion(
        tracking,
        covered,
        head.poses,
        hidden,
        usable,
        train,
        silent,
        face,
        codes,
        plan,
        offset,
        n_faces,
    )


def _kept(motion: _Motion, folder: Path, progress: Progress) -> Bool:
    """Which frames [F] are kept as images; of long footage written down, for a run that goes on."""
    n_frames, stored = len(motion.train), folder / "kept.safetensors"
    if n_frames <= MAX_FRAMES:
        return np.ones(n_frames, dtype=bool)
    if not stored.exists():
        learnt = motion.clear & motion.train
        with progress.step("Choosing frames", total=1) as step:
            places = frame_places(motion.codes, motion.poses.viewmats, learnt)
            hidden = np.asarray(motion.hidden.any(1))
            kept = choose_kept(places, motion.clear, motion.train, hidden, MAX_FRAMES)
            write_tensors(stored, {"kept": torch.from_numpy(kept)})
            step.advance()
    flags = {"kept": TensorSpec((n_frames,), torch.bool)}
    kept = read_checked(stored, flags, ADVICE)["kept"].numpy()
    n_learnt = int((kept & motion.train & motion.usable).sum())
    progress.message(
        f"Long footage: {n_learnt:,} of {n_frames:,} frames teach the picture, chosen for new "
        "mouths and poses; all teach the speech"
    )
    return kept


def _tracks(motion: _Motion, kept: Bool, looks: FrameFeatures) -> Tracks:
    """The tracks, with codes of inner mouth and body."""
    face, tracking, plan = motion.face, motion.tracking, motion.plan
    codes = motion.codes.copy()
    inner = slice(face.n_mouth - N_INNER, face.n_mouth)
    points = crop_landmarks(tracking.landmarks, plan.origins, plan.scale)
    codes[:, inner] = inner_mouth_codes(looks.mouth, points, motion.usable, motion.train)
    codes[:, -N_BODY:] = body_codes(looks.body)
    return Tracks(
        landmarks=tracking.landmarks,
        blendshapes=tracking.blendshapes,
        found=tracking.found,
        usable=motion.usable,
        train=motion.train,
        silent=motion.silent,
        kept=kept,
        hidden=motion.hidden,
        viewmats=motion.poses.viewmats,
        residual_px=motion.poses.residual_px,
        codes=codes,
        origins=plan.origins,
    )


def _middle(flags: Bool) -> int:
    frames = np.flatnonzero(flags)
    return int(frames[len(frames) // 2])


def _track(
    video: Path, info: MediaInfo, folder: Path, config: PreprocessConfig, progress: Progress
) -> tuple[Tracking, UInt8, int]:
    """Landmarks and colours of every face and the most faces at once; chunk by chunk, resumable."""
    done = folder / "tracking.safetensors"
    total = max(1, round(info.duration_s * FRAME_RATE))
    if not done.exists():
        parts = _tracked_chunks(video, folder, total, progress)
        most = torch.stack([part["n_faces"] for part in parts]).max()
        # Popped, so that long footage's tracks are in memory once.
        tracks = {
            name: torch.cat([part.pop(name) for part in parts])
            for name in ("landmarks", "blendshapes", "found", "colours")
        }
        write_tensors(done, {**tracks, "n_faces": most})
        del tracks
        for leftover in folder.glob("tracking.part*.safetensors"):
            leftover.unlink()
    stored = read_checked(done, TRACKING_TENSORS, ADVICE)
    tracking = Tracking(
        stored["landmarks"].numpy(), stored["blendshapes"].numpy(), stored["found"].numpy()
    )
    check_footage(tracking, config.min_face, str(video))
    return tracking, stored["colours"].numpy(), int(stored["n_faces"])


def _tracked_chunks(
    video: Path, folder: Path, total: int, progress: Progress
) -> list[dict[str, torch.Tensor]]:
    parts: list[dict[str, torch.Tensor]] = []
    while (path := folder / f"tracking.part{len(parts):05d}.safetensors").exists():
        parts.append(read_checked(path, TRACKING_TENSORS, ADVICE))
    done = sum(len(part["found"]) for part in parts)
    if parts and len(parts[-1]["found"]) < TRACK_CHUNK:
        return parts
    with progress.step("Tracking the face", total=total, done=done) as step:
        frames = media.read_frames(video, start_s=done / FRAME_RATE)
        with closing(frames):
            while len((part := _track_chunk(frames, parts))["found"]):
                parts.append(part)
                name = f"tracking.part{len(parts) - 1:05d}.safetensors"
                write_tensors(folder / name, part)
                step.advance(len(part["found"]))
    return parts


def _track_chunk(
    frames: Iterator[UInt8], parts: list[dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """Tracks of the next TRACK_CHUNK frames, of the face that the parts before followed."""
    tracker = FaceTracker(_last_face(parts))
    triangles = mesh_triangles()
    faces, colors = [], np.zeros((TRACK_CHUNK, len(triangles), 3), np.uint8)
    for i, frame in enumerate(islice(frames, TRACK_CHUNK)):
        faces.append(face := tracker.follow(frame))
        if face is not None:
            colors[i] = face_colors(frame, face.landmarks, triangles)
    tracking = as_tracking(faces)
    tracker.close()
    return {
        "landmarks": torch.from_numpy(tracking.landmarks),
        "blendshapes": torch.from_numpy(tracking.blendshapes),
        "found": torch.from_numpy(tracking.found),
        "colours": torch.from_numpy(colors[: len(faces)]),
        "n_faces": torch.tensor(tracker.most_faces),
    }


def _last_face(parts: list[dict[str, torch.Tensor]]) -> Float32 | None:
    """The last landmarks [478, 3] that were found in the parts, None without any."""
    for part in reversed(parts):
        found = part["found"].numpy()
        if found.any():
            return np.asarray(part["landmarks"][int(np.flatnonzero(found)[-1])].numpy())
    return None


def _align(
    tracking: Tracking,
    covered: Bool,
    waveform: Float32,
    folder: Path,
    info: MediaInfo,
    config: PreprocessConfig,
    progress: Progress,
) -> tuple[AvOffset, HeadTrack]:
    """The sound's offset, and head poses with canonical landmarks of the covered frames [F]."""
    with progress.step("Head poses and sound offset", total=2) as step:
        train = train_frames(len(tracking), config.use_all_frames)
        check_learnt(covered & train, info.path.name)
        intrinsics = default_intrinsics(info.width, info.height)
        head = track_head(tracking.landmarks, covered, train & covered, intrinsics)
        step.advance()
        # The held-out end stays out of the offset, too.
        n_train = int(train.sum())
        lips = lip_measures(head.canonical[:n_train])
        offset = measure_offset(waveform, lips, covered[:n_train])
        write_json(folder / "sync.json", asdict(offset))
        step.advance()
    return offset, head


def _hidden(colors: UInt8, tracking: Tracking, head: HeadTrack, train: Bool) -> Bool:
    """Triangles of the face that something stands before, [F, T]."""
    learnt = tracking.found & train
    posture = head_posture(head.poses.viewmats, lip_measures(head.canonical), learnt)
    return hidden_triangles(colors, posture, tracking.found, train, head.template, mesh_triangles())


def lip_measures(points: Float32) -> Float32:
    """Aperture, width and lower-lip height of lips [F, 3], points [F, 478, 2 or 3]."""
    left, right = OUTER_EYE_CORNERS
    size = np.linalg.norm(points[:, left, :2] - points[:, right, :2], axis=-1)
    width = np.linalg.norm(points[:, 61, :2] - points[:, 291, :2], axis=-1) / size
    lower = (points[:, 17, 1] - points[:, 4, 1]) / size
    return np.stack([lip_aperture(points), width, lower], axis=1).astype(np.float32)


def _background(
    cut: CropJob, usable: Bool, folder: Path, info: MediaInfo, progress: Progress
) -> bool:
    """plate.png, and whether the camera moved."""
    target, facts = folder / "plate.png", folder / "plate.json"
    if not facts.exists():
        with progress.step("Background behind the person", total=1) as step:
            size = (cut.plan.height, cut.plan.width)
            masks = ImageFile(folder / MASKS, size, np.flatnonzero(cut.kept))
            chosen = spread_frames(usable & cut.kept, MAX_SAMPLES)
            images = _pick(cut.video, set(chosen.tolist()))
            spread = (_spread_mask(masks[i], cut.plan, i, info) for i in chosen)
            with translate_os_errors(target):
                plate = clean_plate(images, spread, folder)
            _, png = cv2.imencode(".png", plate.image[..., ::-1])
            write_bytes(target, png.tobytes())
            write_json(facts, {"moving": plate.moving, "seen": float(plate.seen.mean())})
            step.advance()
    return read_object(facts, _PlateFacts, ADVICE).moving


@dataclass(frozen=True)
class _PlateFacts:
    """What is kept of a plate beside its image: whether the camera moved, the share that was seen."""

    moving: bool
    seen: float


def _pick(video: Path, wanted: set[int]) -> Iterator[UInt8]:
    with closing(media.read_frames(video, n_frames=max(wanted) + 1)) as frames:
        yield from (frame for index, frame in enumerate(frames) if index in wanted)


def _spread_mask(mask: UInt8, plan: CropPlan, frame: int, info: MediaInfo) -> UInt8:
    """A crop's mask, dilated, laid into the whole image; outside of the crop unknown (255)."""
    whole = np.full((info.height, info.width), 255, dtype=np.uint8)
    height, width = (round(n / plan.scale) for n in (plan.height, plan.width))
    large = cv2.dilate(mask, np.ones((7, 7), np.uint8))
    if large.shape != (height, width):
        large = cv2.resize(large, (width, height), interpolation=cv2.INTER_LINEAR)
    left, top = (int(n) for n in plan.origins[frame])
    rows = slice(max(0, top), min(info.height, top + height))
    columns = slice(max(0, left), min(info.width, left + width))
    whole[rows, columns] = large[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]
    return whole


def _report(motion: _Motion, moving: bool, folder: Path, progress: Progress) -> None:
    """quality.json, its warnings told."""
    report = report_quality(
        motion.tracking,
        motion.covered,
        motion.poses,
        motion.usable,
        np.asarray(motion.hidden.any(1)),
        motion.n_faces,
        _notes(moving, motion.offset),
    )
    write_json(folder / "quality.json", report.to_json())
    for warning in report.warnings:
        progress.message(warning)


def _notes(moving: bool, offset: AvOffset) -> list[str]:
    """What is to be told of background and sound."""
    warnings = []
    if moving:
        warnings.append("the camera moves: the background behind the head is approximate")
    if offset.offset_ms is None:
        warnings.append("the audio-video offset could not be established and was left alone")
    elif offset.corrected_ms:
        warnings.append(f"the sound was {offset.corrected_ms:.0f} ms late; corrected")
    return warnings
