"""Further footage of a fitted person, to be re-lipped.

It is tracked with their face model and aligned with their renderer, whose colors are matched to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from talkhead.app.avatar import Avatar, load_renderer
from talkhead.app.composer.head_view import Span, yaw_and_pitch
from talkhead.app.composer.idle_clip import IdleClip, load_idle
from talkhead.app.home.identities import DATASET, Home
from talkhead.app.home.locking import lock_identity
from talkhead.app.workspace import motion_version
from talkhead.dataset import ADVICE, ALL_FRAMES, TENSORS, IdentityDataset, Tracks
from talkhead.device import resolve_device
from talkhead.encoder.vad import silent_video_frames, vad_version
from talkhead.errors import FootageError, TalkheadError
from talkhead.face import CODES
from talkhead.footage import Footage
from talkhead.frame_selection import spread_frames
from talkhead.identity import MANIFEST_NAME, IdentityPackage
from talkhead.preprocess.clip_agreement import OTHER_PERSON
from talkhead.preprocess.head_pose import shape_difference, track_head
from talkhead.preprocess.pipeline import PreprocessConfig, dataset_key, preprocess
from talkhead.preprocess.pipeline_run import KnownPerson
from talkhead.preprocess.small_masks import has_small_masks, write_small_masks
from talkhead.progress import Progress
from talkhead.renderers.base import Renderer, device_of
from talkhead.renderers.color_match import (
    GAINS,
    MAX_ANCHORS,
    N_QUICK,
    Anchors,
    ColorMatch,
    fit_color_match,
)
from talkhead.renderers.gaussian.model import GaussianRenderer, without_body
from talkhead.renderers.gaussian.motion_refinement import refine_motion
from talkhead.storage import fingerprint, sha256_of, write_tensors
from talkhead.tensors import Size, TensorSpec, read_checked
from talkhead.types import Bool, Float32

FOLLOW_VERSION = 6
"""Increase it when the same footage would get other motion or colors."""
FOLLOWED = "followed.safetensors"
GAUSSIAN = "gaussian"
MAX_BEYOND_DEG = 12.0
"""Degrees beyond the range of the idle clip up to which a turned head is re-lipped."""
N_SHAPING = 60
"""Number of frames from which the shape of a face is estimated."""
MIN_SHARE = 0.02
"""Least fraction of the frames that must show the face."""
CONFIG = PreprocessConfig(min_face=MIN_SHARE, use_all_frames=True)
ANCHORS = Size("A", 1, MAX_ANCHORS)
FOLLOWED_TENSORS = {
    **{name: TENSORS[name] for name in ("codes", "viewmats", "usable")},
    "gains": TensorSpec((ANCHORS, 3), minimum=GAINS[0], maximum=GAINS[1]),
    "teeth": TensorSpec((3,), minimum=GAINS[0], maximum=GAINS[1]),
}


@dataclass(frozen=True)
class FollowedFootage:
    """Further footage of a person.

    Attributes:
        dataset: The footage, with motion in the person's face model.
        colors: How the renderer's colors appear in it.
    """

    dataset: IdentityDataset
    colors: ColorMatch


def follow(
    package: IdentityPackage, footage: Footage, home: Home, progress: Progress
) -> FollowedFootage:
    """Track footage that a person was not fitted on, or read what an earlier call has stored.

    Args:
        package: The person.
        footage: The footage.
        home: Folder of the identities, with the work folders.
        progress: Receives the progress.

    Returns:
        The footage with its motion.

    Raises:
        FootageError: The footage does not show the person's face well enough.
        TalkheadError: The package is of a version that cannot be used.
    """
    name = package.manifest.name
    state = [
        dataset_key(footage.sha256, CONFIG, vad_version()),
        sha256_of(package.path / MANIFEST_NAME),
        motion_version(),
        FOLLOW_VERSION,
    ]
    work = home.work_path(name, fingerprint(state)[:16])
    with lock_identity(home, name, progress):
        return follow_in(work, package, footage, progress)


def follow_in(
    work: Path,
    package: IdentityPackage,
    footage: Footage,
    progress: Progress,
    face: Float32 | None = None,
    avatar: Avatar | None = None,
) -> FollowedFootage:
    """Track footage with the work in a given folder, or read what an earlier call has stored there.

    Args:
        work: Folder for this footage and this version of the package only.
        package: The person.
        footage: The footage.
        progress: Receives the progress.
        face: Landmarks [478, 3] of the person's face at the start, in pixels. None: it is the largest,
            most central one, whose shape is compared with the person's.
        avatar: The person, if loaded. None: what is needed of the package is loaded.

    Returns:
        The footage with its motion.

    Raises:
        FootageError: The footage does not show the person's face well enough.
        TalkheadError: The package is of a version that cannot be used.
    """
    idle = load_idle(package) if avatar is None else avatar.idle
    if idle.face.clothes.start == idle.face.clothes.stop:
        raise TalkheadError(
            f"{package.manifest.name}: was fitted by a version whose identities can only be pasted into "
            "the footage that they were fitted on. Run the same talkhead fit again"
        )
    known = KnownPerson(idle.face, np.median(idle.codes, axis=0), face)
    dataset = preprocess(footage, work / DATASET, CONFIG, progress, silent_video_frames, known)
    renderer = None if avatar is None else avatar.head
    person = _Person(package, idle, renderer, face is not None)
    return _matched(person, dataset, work / FOLLOWED, footage.path, progress)


@dataclass(frozen=True)
class _Person:
    """A fitted person.

    Attributes:
        package: The package.
        idle: Its idle clip.
        renderer: A renderer, if one is loaded.
        is_recognized: The face in the footage is known to be the person's.
    """

    package: IdentityPackage
    idle: IdleClip
    renderer: Renderer | None
    is_recognized: bool


def _matched(
    person: _Person, dataset: IdentityDataset, stored: Path, video: Path, progress: Progress
) -> FollowedFootage:
    """Align a dataset with the person's renderer, unless this is stored in a file."""
    idle = person.idle
    if not stored.exists():
        if not person.is_recognized:
            _check_person(dataset, person.package.manifest.name, video)
        tracks = _limited(dataset.tracks, idle, video, progress)
        dataset, colors = _aligned(person, replace(dataset, tracks=tracks), progress)
        tensors = {
            "codes": dataset.tracks.codes,
            "viewmats": dataset.tracks.viewmats,
            "usable": dataset.tracks.usable,
            "gains": colors.gains,
            "teeth": colors.teeth,
        }
        write_tensors(stored, {k: torch.from_numpy(v) for k, v in tensors.items()})
    if not has_small_masks(dataset, len(dataset)):
        write_small_masks(dataset, video, len(dataset), progress)
    dataset.discard_images()
    anchors = Anchors.of(idle.face)
    sizes = {
        ALL_FRAMES.name: len(dataset),
        CODES.name: idle.face.n_codes,
        ANCHORS.name: len(anchors),
    }
    kept = read_checked(stored, FOLLOWED_TENSORS, ADVICE, sizes)
    colors = ColorMatch(kept.pop("gains").numpy(), anchors, kept.pop("teeth").numpy())
    tracks = replace(dataset.tracks, **{k: tensor.numpy() for k, tensor in kept.items()})
    return FollowedFootage(replace(dataset, tracks=tracks), colors)


def _aligned(
    person: _Person, dataset: IdentityDataset, progress: Progress
) -> tuple[IdentityDataset, ColorMatch]:
    """Align the motion with the images in roughly matched colors, then match colors."""
    renderer, package = person.renderer, person.package
    if not isinstance(renderer, GaussianRenderer) and GAUSSIAN in package.manifest.renderers:
        device = resolve_device("auto") if renderer is None else device_of(renderer)
        renderer = load_renderer(package, GAUSSIAN, device)
    if renderer is None:
        name = package.manifest.default_renderer
        renderer = load_renderer(package, name, resolve_device("auto"))
    renderer = without_body(renderer)
    if isinstance(renderer, GaussianRenderer):
        rough = fit_color_match(renderer, dataset, N_QUICK)
        dataset = refine_motion(renderer, dataset, progress, rough)
    return dataset, fit_color_match(renderer, dataset)


def _check_person(dataset: IdentityDataset, name: str, video: Path) -> None:
    """Raise FootageError if the face is certainly not the person's."""
    tracks = dataset.tracks
    landmarks = tracks.landmarks[spread_frames(tracks.usable, N_SHAPING)]
    every = np.ones(len(landmarks), dtype=bool)
    own = track_head(landmarks, every, every, dataset.intrinsics).template
    difference = shape_difference(dataset.face.template, own)
    if difference > OTHER_PERSON:
        raise FootageError(
            f"{video}: shows another person than {name}, or is stretched: the faces differ by "
            f"{difference:.3f} eye distances (at most {OTHER_PERSON} in footage of one person). Pass "
            "footage of this person"
        )


def _limited(tracks: Tracks, idle: IdleClip, video: Path, progress: Progress) -> Tracks:
    """Leave out frames in which the head is turned much farther than in the idle clip; report them."""
    beyond: Bool = np.zeros(len(tracks.usable), dtype=bool)
    spans = []
    for angle, own in zip(
        yaw_and_pitch(tracks.viewmats), yaw_and_pitch(idle.viewmats), strict=True
    ):
        span = Span.of(own)
        spans.append(span)
        beyond |= (angle < span.low - MAX_BEYOND_DEG) | (angle > span.high + MAX_BEYOND_DEG)
    beyond &= tracks.usable
    if beyond.any():
        yaw, pitch = spans
        progress.message(
            f"{video.name}: in {int(beyond.sum())} of {len(beyond)} frames the head is turned more than "
            f"{MAX_BEYOND_DEG:.0f} degrees beyond what {idle.path.parent.name} was fitted on (yaw "
            f"{yaw.low:.0f} to {yaw.high:.0f}, pitch {pitch.low:.0f} to {pitch.high:.0f}): they stay as "
            "filmed"
        )
    limited = replace(tracks, usable=tracks.usable & ~beyond)
    if not limited.unoccluded.any():
        raise FootageError(
            f"{video}: the head is turned too far, or covered, in all frames. Pass footage in which the "
            "person looks about as in that which they were fitted on"
        )
    return limited
