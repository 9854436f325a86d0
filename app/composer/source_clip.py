"""A person's own footage with its timeline: re-lipped frame by frame, at its own frame rate.

Tracks are those of the footage's dataset, which has 25 frames a second. A frame that is among them has
its own track; one in between has its neighbours', interpolated.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from talkhead import media
from talkhead.app.composer.idle_clip import IdleClip, load_face
from talkhead.app.home.identities import USES_ALL, Home
from talkhead.app.workspace import prepare_locked
from talkhead.dataset import IdentityDataset
from talkhead.encoder.vad import silence_version
from talkhead.errors import TalkheadError
from talkhead.face import FaceModel
from talkhead.footage import Footage
from talkhead.frame_selection import MAX_GAP
from talkhead.identity import IdentityPackage
from talkhead.media.probing import frame_times, own_rate
from talkhead.preprocess.pipeline import PreprocessConfig, dataset_key
from talkhead.progress import Progress
from talkhead.types import FRAME_RATE, Bool, Float32, Float64, Int, UInt8

LONGER_S = 0.2
"""By how much a sound may outlast the footage; so much is cut."""


@dataclass(frozen=True)
class SourceClip(IdleClip):
    """Footage with tracks at its own frame rate. nearest: [F] frames of the dataset; its masks are
    read one by one, as footage may be long."""

    dataset: IdentityDataset
    nearest: Int

    def mask(self, frame: int) -> Float32:
        """See IdleClip."""
        return self.dataset.person(self.nearest[frame])


@dataclass(frozen=True)
class SourceFootage:
    """See shots.Footage. known: [F] frames whose face is known; the others stay as they are."""

    clip: SourceClip
    frame_rate: Fraction
    known: Bool

    def __len__(self) -> int:
        return len(self.known)

    def track_index(self, frame: int) -> int | None:
        """See Footage."""
        return frame if self.known[frame] else None

    def frames(self, first: int, after: int) -> Generator[UInt8, None, None]:
        """See Footage. The last picture stands where the container promised more."""
        n_left = after - first
        start_s = float(first / self.frame_rate)
        source = media.read_frames(
            self.clip.path, start_s=start_s, n_frames=n_left, frame_rate=self.frame_rate
        )
        frame: UInt8 | None = None
        with closing(source):
            for frame in islice(source, n_left):
                n_left -= 1
                yield frame
        while n_left > 0 and frame is not None:
            n_left -= 1
            yield frame

    def codes(self, spoken: Float32) -> Float32:
        """Motion codes [F, K] at the footage's frames, of those at 25 a second."""
        at = np.arange(len(self), dtype=np.float64) * float(FRAME_RATE / self.frame_rate)
        return interpolated(spoken, np.arange(len(spoken), dtype=np.float64), at)


def source_footage(
    package: IdentityPackage, video: Path, home: Path, progress: Progress
) -> SourceFootage:
    """The footage that a package was fitted on, tracked; what `fit` has prepared of it is used.

    Raises TalkheadError when the person was fitted on another video.
    """
    manifest, footage = package.manifest, Footage.open(video)
    if footage.sha256 != manifest.source.sha256:
        raise TalkheadError(
            f"{video}: {manifest.name} was fitted on another video, {manifest.source.name}. The "
            "timeline can be kept of the video that a person was fitted on: leave out the identity "
            "to have this one fitted"
        )
    config = PreprocessConfig(use_all_frames=bool(manifest.details.get(USES_ALL)))
    key = dataset_key(footage.sha256, config, silence_version())
    store = Home(home)
    work = store.work_path(manifest.name, key)
    dataset = prepare_locked(store, manifest.name, footage, work, config, progress)
    return footage_of(dataset, video, load_face(package))


def footage_of(dataset: IdentityDataset, video: Path, face: FaceModel) -> SourceFootage:
    """A video with the tracks of its dataset, brought to its own frame rate."""
    rate, times = own_rate(video), frame_times(video)
    n_frames = 1 + _slot(times[-1], rate)
    tracks, info = dataset.tracks, dataset.info
    shown = shown_pictures(times, Fraction(FRAME_RATE), len(dataset))
    first = np.unique(shown, return_index=True)[1]  # of tracks of the same picture
    tracked = first[tracks.clear[first]]  # nothing is pasted over a hand
    at = shown[tracked].astype(np.float64)
    own = shown_pictures(times, rate, n_frames).astype(np.float64)
    near = _nearest(at, own)
    clip = SourceClip(
        path=video,
        face=face,
        codes=interpolated(tracks.codes[tracked], at, own),
        viewmats=interpolated_poses(tracks.viewmats[tracked], at, own),
        origins=tracks.origins[tracked[near]],
        masks=np.zeros((0, 0, 0), np.uint8),
        plate=dataset.plate,
        crop_height=info.crop_height,
        crop_width=info.crop_width,
        scale=info.scale,
        dataset=dataset,
        nearest=tracked[near],
    )
    return SourceFootage(clip, rate, _surrounded(at, own, MAX_GAP * float(rate / FRAME_RATE)))


def shown_pictures(times: Sequence[Fraction], rate: Fraction, n_frames: int) -> Int:
    """Which of a video's pictures is shown at each of n_frames at a rate, rising, as
    `media.read_frames` chooses: the last one whose time, in frames and rounded, is not later.

    times: of the pictures, seconds.
    """
    slots = np.array([_slot(time, rate) for time in times], dtype=np.int64)
    shown = np.searchsorted(slots, np.arange(n_frames), side="right") - 1
    return np.clip(shown, 0, len(times) - 1).astype(np.int64)


def _slot(time: Fraction, rate: Fraction) -> int:
    return int(time * rate + Fraction(1, 2))


def interpolated(values: Float32, at: Float64, wanted: Float64) -> Float32:
    """Values [N, K] known at rising moments at [N], linearly at wanted [M]; held beyond the ends."""
    after = np.clip(np.searchsorted(at, wanted), 1, max(1, len(at) - 1))
    before = after - 1
    after = np.minimum(after, len(at) - 1)
    span = np.maximum(at[after] - at[before], 1e-9)
    share = np.clip((wanted - at[before]) / span, 0.0, 1.0)[:, None].astype(np.float32)
    return np.asarray(values[before] * (1.0 - share) + values[after] * share, np.float32)


def interpolated_poses(viewmats: Float32, at: Float64, wanted: Float64) -> Float32:
    """Poses [N, 4, 4] known at rising moments at [N], at wanted [M]: turned evenly, moved linearly."""
    held = np.clip(wanted, at[0], at[-1])
    poses = np.repeat(np.eye(4, dtype=np.float32)[None], len(wanted), axis=0)
    poses[:, :3, 3] = interpolated(viewmats[:, :3, 3], at, wanted)
    turns = Rotation.from_matrix(viewmats[:, :3, :3].astype(np.float64))
    if len(at) > 1:
        poses[:, :3, :3] = Slerp(at, turns)(held).as_matrix()
    else:
        poses[:, :3, :3] = turns.as_matrix()
    return poses


def _nearest(at: Float64, wanted: Float64) -> Int:
    """The place in at [N] of what is nearest to each of wanted [M]."""
    after = np.clip(np.searchsorted(at, wanted), 0, len(at) - 1)
    before = np.maximum(after - 1, 0)
    is_before = np.abs(wanted - at[before]) <= np.abs(at[after] - wanted)
    return np.where(is_before, before, after).astype(np.int64)


def _surrounded(at: Float64, wanted: Float64, most: float) -> Bool:
    """Whether there is something in at [N] on both sides of each of wanted [M], no more than most apart.

    The ends may be a frame of the dataset away.
    """
    after = np.searchsorted(at, wanted, side="left")
    before = np.searchsorted(at, wanted, side="right") - 1
    gap = at[np.minimum(after, len(at) - 1)] - at[np.maximum(before, 0)]
    is_inside = (wanted >= at[0] - most / MAX_GAP) & (wanted <= at[-1] + most / MAX_GAP)
    return np.asarray(is_inside & (gap <= most + 1.0))
