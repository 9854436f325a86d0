"""The original footage with its timeline, re-lipped frame by frame at its own frame rate.

Tracks are those of the footage's dataset, which has 25 frames per second; between its frames they are
interpolated.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import islice
from math import ceil
from pathlib import Path

import numpy as np

from talkhead import media
from talkhead.app.composer.followed_footage import follow
from talkhead.app.composer.idle_clip import IdleClip, bounced_frames, load_face, ping_pong
from talkhead.app.composer.resampling import (
    interpolated,
    interpolated_poses,
    nearest_index,
)
from talkhead.app.home.footage import check_joined
from talkhead.app.home.identities import USES_ALL, Home
from talkhead.app.home.locking import lock_identity
from talkhead.app.workspace import prepare_locked
from talkhead.dataset import IdentityDataset
from talkhead.encoder.vad import vad_version
from talkhead.face import FaceModel
from talkhead.footage import Footage
from talkhead.frame_selection import MAX_GAP
from talkhead.identity import IdentityPackage
from talkhead.media.probing import frame_at, frame_times, own_rate
from talkhead.preprocess.pipeline import PreprocessConfig, dataset_key
from talkhead.preprocess.small_masks import has_small_masks, write_small_masks
from talkhead.progress import Progress
from talkhead.renderers.color_match import ColorMatch
from talkhead.types import FRAME_RATE, Bool, Float32, Float64, Int, UInt8


@dataclass(frozen=True, kw_only=True)
class SourceClip(IdleClip):
    """Footage with tracks at its own frame rate.

    Attributes:
        dataset: Dataset of the footage. Its masks are read one by one, since footage may be
            long.
        nearest: Index [F] of the dataset's frame that is nearest to each frame.
    """

    dataset: IdentityDataset
    nearest: Int

    def mask(self, frame: int) -> Float32:
        """Read the person mask of a frame. See IdleClip.

        Args:
            frame: Number of the frame.

        Returns:
            Mask [H, W] in [0, 1].
        """
        return self.dataset.person(self.nearest[frame])

    def released(self) -> SourceClip:
        """Copy the clip without the tracks of its dataset that pasting does not need.

        Returns:
            The copy. A long video has many clips, whose landmarks would take most of its memory.
        """
        tracks = self.dataset.tracks
        empty = {
            name: getattr(tracks, name)[:0].copy()
            for name in ("landmarks", "blendshapes", "occluded")
        }
        return replace(self, dataset=replace(self.dataset, tracks=replace(tracks, **empty)))


@dataclass(frozen=True)
class SourceFootage:
    """Footage that keeps its timeline. See FrameSource.

    Attributes:
        clip: The footage with its tracks.
        frame_rate: Frames per second.
        known: Flags [F] of frames whose face was tracked. The others are not changed.
        n_more: Number of frames for which it goes on after its end: backward, then forward, and so on.
    """

    clip: SourceClip
    frame_rate: Fraction
    known: Bool
    n_more: int = 0

    def __len__(self) -> int:
        return len(self.known) + self.n_more

    def lasting(self, duration_s: float) -> SourceFootage:
        """Let the footage go on, backward and forward, if it is shorter than a duration.

        Args:
            duration_s: Seconds.

        Returns:
            The footage with as few further frames as the duration needs.
        """
        n_frames = ceil(round(duration_s * float(self.frame_rate), 6))
        return replace(self, n_more=max(0, n_frames - len(self.known)))

    def track_index(self, frame: int) -> int | None:
        """Return the index of a frame's tracks. See FrameSource.

        Args:
            frame: Number of the frame.

        Returns:
            Index in the clip; None if no face was tracked.
        """
        index = int(ping_pong(len(self.known), 1, frame)[0])
        return index if self.known[index] else None

    def frames(self, first: int, after: int) -> Generator[UInt8, None, None]:
        """Read frames. See FrameSource.

        Args:
            first: First frame.
            after: Frame after the last one.

        Returns:
            Frames [H, W, 3].
        """
        path = self.clip.path
        read = partial(timeline_frames, path, self.frame_rate)
        return bounced_frames(path, read, len(self.known), first, after)

    def codes(self, spoken: Float32) -> Float32:
        """Interpolate motion codes at the frames of the footage.

        Args:
            spoken: Motion codes [N, K] at 25 per second.

        Returns:
            Motion codes [F + n_more, K].
        """
        at = np.arange(len(self), dtype=np.float64) * float(FRAME_RATE / self.frame_rate)
        return interpolated(spoken, np.arange(len(spoken), dtype=np.float64), at)


def timeline_frames(
    video: Path, frame_rate: Fraction, first: int, after: int
) -> Generator[UInt8, None, None]:
    """Read frames of a video at a constant rate.

    If there are fewer than the container states, the last one is repeated.

    Args:
        video: The video.
        frame_rate: Frames per second.
        first: First frame.
        after: Frame after the last one.

    Yields:
        Frames [H, W, 3].
    """
    n_left = after - first
    source = media.read_frames(
        video, start_s=float(first / frame_rate), n_frames=n_left, frame_rate=frame_rate
    )
    frame: UInt8 | None = None
    with closing(source):
        for frame in islice(source, n_left):
            n_left -= 1
            yield frame
    while n_left > 0 and frame is not None:
        n_left -= 1
        yield frame


def source_footage(
    package: IdentityPackage, video: Path, home: Path, progress: Progress
) -> SourceFootage:
    """Track footage of a person, or read what `fit` or an earlier call has prepared.

    Args:
        package: The package.
        video: The footage that it was fitted on, or other footage of the person.
        home: Folder of the identities.
        progress: Receives the progress.

    Returns:
        The footage with its tracks.

    Raises:
        TalkheadError: The footage is not usable.
    """
    manifest, footage, store = package.manifest, Footage.open(video, needs_sound=False), Home(home)
    if footage.sha256 != manifest.source.sha256:
        followed = follow(package, footage, store, progress)
        return footage_of(followed.dataset, video, followed.dataset.face, followed.colors)
    check_joined(manifest, video, bool(footage.clips))
    config = PreprocessConfig(use_all_frames=bool(manifest.details.get(USES_ALL)))
    work = store.work_path(manifest.name, dataset_key(footage.sha256, config, vad_version()))
    dataset = prepare_locked(store, manifest.name, footage, work, config, progress)
    n_frames = _n_first(dataset)
    if not has_small_masks(dataset, n_frames):
        with lock_identity(store, manifest.name, progress):
            write_small_masks(dataset, video, n_frames, progress)
    return footage_of(dataset, video, load_face(package))


def footage_of(
    dataset: IdentityDataset, video: Path, face: FaceModel, colors: ColorMatch | None = None
) -> SourceFootage:
    """Interpolate the tracks of a dataset at a video's own frame rate.

    Args:
        dataset: Dataset of the video, at 25 frames per second.
        video: The video.
        face: Face model of the package.
        colors: How the renderer's colors appear in the video. None: as rendered.

    Returns:
        The footage with its tracks; of joined clips, only the first one.
    """
    rate, times = own_rate(video), frame_times(video)
    n_frames = 1 + frame_at(times[-1], rate)
    if dataset.info.joins:  # at 25 per second, like the dataset
        n_frames = dataset.info.joins[0]
    dataset = dataset.matched(face)
    tracks, info = dataset.tracks, dataset.info
    shown = shown_pictures(times, Fraction(FRAME_RATE), len(dataset))
    first = np.unique(shown, return_index=True)[1]  # the first of the tracks of one picture
    tracked = first[tracks.unoccluded[first]]  # nothing is pasted over an occluder
    at = shown[tracked].astype(np.float64)
    own = shown_pictures(times, rate, n_frames).astype(np.float64)
    near = nearest_index(at, own)
    clip = SourceClip(
        path=video,
        face=face,
        codes=interpolated(tracks.codes[tracked], at, own),
        viewmats=interpolated_poses(tracks.viewmats[tracked], at, own),
        origins=tracks.origins[tracked[near]],
        masks=np.zeros((0, 0, 0), np.uint8),
        background=_background(dataset, colors),
        crop_height=info.crop_height,
        crop_width=info.crop_width,
        scale=info.scale,
        blendshapes=interpolated(tracks.blendshapes[tracked], at, own),
        colors=colors,
        dataset=dataset,
        nearest=tracked[near],
    )
    known = _surrounded(at, own, MAX_GAP * float(rate / FRAME_RATE))
    # Short gaps in the tracks are bridged, but not over an occluder.
    seen = first[tracks.usable[first]]
    nearest = seen[nearest_index(shown[seen].astype(np.float64), own)]
    return SourceFootage(clip, rate, known & tracks.unoccluded[nearest])


def _n_first(dataset: IdentityDataset) -> int:
    """Return the number of frames of the first clip: later ones may look different."""
    return dataset.info.joins[0] if dataset.info.joins else len(dataset)


def _background(dataset: IdentityDataset, colors: ColorMatch | None) -> UInt8:
    """Return the background [H, W, 3]. With matched colors it is never shown, and takes no memory."""
    if colors is None:
        return dataset.background
    return np.broadcast_to(np.uint8(0), (dataset.info.height, dataset.info.width, 3))


def shown_pictures(times: Sequence[Fraction], rate: Fraction, n_frames: int) -> Int:
    """Return which picture of a video is shown at each frame, as `media.read_frames` chooses.

    Args:
        times: Times of the pictures, seconds.
        rate: Frames per second.
        n_frames: Number of frames.

    Returns:
        Numbers of the pictures [n_frames], ascending. Each is the last picture whose time, rounded
        to a whole frame, is not later than the frame.
    """
    slots = np.array([frame_at(time, rate) for time in times], dtype=np.int64)
    shown = np.searchsorted(slots, np.arange(n_frames), side="right") - 1
    return np.clip(shown, 0, len(times) - 1).astype(np.int64)


def _surrounded(at: Float64, wanted: Float64, most: float) -> Bool:
    """Return flags [M]: true where `wanted` [M] has values of `at` [N] on both sides, at most
    `most` apart.

    At the ends, one value is enough if it is at most a frame of the dataset away.
    """
    after = np.searchsorted(at, wanted, side="left")
    before = np.searchsorted(at, wanted, side="right") - 1
    gap = at[np.minimum(after, len(at) - 1)] - at[np.maximum(before, 0)]
    is_inside = (wanted >= at[0] - most / MAX_GAP) & (wanted <= at[-1] + most / MAX_GAP)
    return np.asarray(is_inside & (gap <= most + 1.0))
