"""The idle clip: the person's own footage that speaking is pasted into, and its tracks."""

from __future__ import annotations

import zlib
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch

from talkhead import media
from talkhead.cameras import crop_intrinsics, default_intrinsics, project
from talkhead.dataset import IdentityDataset, enlarged_mask, longest_run, shrunk_mask
from talkhead.errors import PackageError
from talkhead.face import FaceModel
from talkhead.identity import IDLE_NAME, IdentityPackage, PackageWriter
from talkhead.progress import Progress
from talkhead.storage import write_bytes
from talkhead.types import FRAME_RATE, Float32, Float64, Int, UInt8

MAX_FRAMES = 60 * FRAME_RATE
KEYFRAME_EVERY = 25
"""Frames of the clip from key frame to key frame."""
REVERSE_BYTES = 64 << 20
"""Of pictures held at once while the clip plays backwards, a second's at the least."""
CRF = 14
TRACKS = "idle.safetensors"
FACE = "face.safetensors"
PLATE = "plate.png"


@dataclass(frozen=True)
class IdleClip:
    """Footage with its tracks, F frames.

    codes: [F, K]. viewmats: [F, 4, 4]. origins: [F, 2] of the crops, source pixels. masks: [F, h, w]
    uint8, person, a quarter of the crop's size. plate: [H, W, 3] uint8 background. crop_height,
    crop_width in crop pixels; scale: crop pixels per source pixel.
    """

    path: Path
    face: FaceModel
    codes: Float32
    viewmats: Float32
    origins: Float32
    masks: UInt8
    plate: UInt8
    crop_height: int
    crop_width: int
    scale: float

    def __len__(self) -> int:
        return len(self.codes)

    @cached_property
    def intrinsics(self) -> Float64:
        """K [3, 3] of the source image."""
        return default_intrinsics(self.plate.shape[1], self.plate.shape[0])

    @cached_property
    def crop_ks(self) -> Float32:
        """K [F, 3, 3] of the crops."""
        return crop_intrinsics(self.intrinsics, self.origins, self.scale)

    def mask(self, frame: int) -> Float32:
        """The person mask [H, W] of a crop, in [0, 1]."""
        return enlarged_mask(self.masks[frame], (self.crop_height, self.crop_width))

    def landmarks(self, frame: int, codes: Float32) -> Float32:
        """Mesh vertices [n, 478, 2] in crop pixels of codes [n, K] in the pose of a frame."""
        vertices = self.face.vertices(codes).astype(np.float64)
        views = np.repeat(self.viewmats[frame : frame + 1].astype(np.float64), len(codes), axis=0)
        return project(vertices, views, self.crop_ks[frame].astype(np.float64)).astype(np.float32)


def choose_frames(dataset: IdentityDataset) -> tuple[int, int]:
    """First and after-last frame of the longest clear run of training frames, at most a minute.

    Frames with something before the face end a run: a mouth would be pasted over it. So do frames
    whose mask was not kept.
    """
    tracks = dataset.tracks
    never = tracks.hidden.any(1) | ~tracks.kept
    return longest_run(tracks.clear & tracks.train, never, MAX_FRAMES)


def clip_of(dataset: IdentityDataset, video: Path, part: slice) -> IdleClip:
    """A run of a dataset's frames as a clip; its images are those of `video` from the run's first."""
    info, tracks = dataset.info, dataset.tracks
    return IdleClip(
        path=video,
        face=dataset.face,
        codes=tracks.codes[part],
        viewmats=tracks.viewmats[part],
        origins=tracks.origins[part],
        masks=np.stack([shrunk_mask(dataset.masks[i]) for i in range(len(dataset))[part]]),
        plate=dataset.plate,
        crop_height=info.crop_height,
        crop_width=info.crop_width,
        scale=info.scale,
    )


def save_idle(
    video: Path, dataset: IdentityDataset, writer: PackageWriter, progress: Progress
) -> int:
    """Write idle clip, tracks, face model and plate into a package; the clip's frame count."""
    first, after = choose_frames(dataset)
    with progress.step("Keeping the idle clip", total=after - first) as step:
        frames = media.read_frames(video, start_s=first / FRAME_RATE, n_frames=after - first)
        with (
            closing(frames),
            media.VideoWriter(
                writer.path(IDLE_NAME), crf=CRF, keyframe_every=KEYFRAME_EVERY
            ) as clip,
        ):
            for frame in frames:
                clip.write(frame)
                step.advance()
    kept = clip_of(dataset, video, slice(first, after))
    packed = np.frombuffer(zlib.compress(kept.masks.tobytes(), 6), dtype=np.uint8)
    writer.add_tensors(
        TRACKS,
        {
            "codes": torch.from_numpy(kept.codes.copy()),
            "viewmats": torch.from_numpy(kept.viewmats.copy()),
            "origins": torch.from_numpy(kept.origins.copy()),
            "masks": torch.from_numpy(packed.copy()),
            "size": torch.tensor([kept.crop_height, kept.crop_width, *kept.masks.shape]),
            "scale": torch.tensor([kept.scale], dtype=torch.float64),
        },
    )
    writer.add_tensors(FACE, dataset.face.tensors())
    _, png = cv2.imencode(".png", dataset.plate[..., ::-1])
    write_bytes(writer.path(PLATE), png.tobytes())
    return after - first


def load_idle(package: IdentityPackage) -> IdleClip:
    """The idle clip of a package. Raises PackageError when a part is missing."""
    tracks = package.tensors(TRACKS)
    height, width, *shape = (int(n) for n in tracks["size"])
    masks = np.frombuffer(zlib.decompress(tracks["masks"].numpy().tobytes()), dtype=np.uint8)
    plate = cv2.imread(str(package.file(PLATE)), cv2.IMREAD_COLOR)
    if plate is None:
        raise PackageError(f"{package.path}: {PLATE} is damaged. Fit this identity again")
    return IdleClip(
        path=package.file(IDLE_NAME),
        face=FaceModel.from_tensors(package.tensors(FACE)),
        codes=tracks["codes"].numpy(),
        viewmats=tracks["viewmats"].numpy(),
        origins=tracks["origins"].numpy(),
        masks=masks.reshape(shape),
        plate=np.ascontiguousarray(plate[..., ::-1]),
        crop_height=height,
        crop_width=width,
        scale=float(tracks["scale"][0]),
    )


def ping_pong(n_clip: int, n_frames: int, first: int = 0) -> Int:
    """Which clip frame is shown at each of n_frames from frame first on: forward, back, forward; no
    frame twice in a row.

    A clip of one frame stands still.
    """
    period = max(1, 2 * n_clip - 2)
    place = np.arange(first, first + n_frames) % period
    return np.where(place < n_clip, place, period - place)


def idle_frames(path: Path, n_clip: int, first: int, after: int) -> Generator[UInt8, None, None]:
    """The images that ping_pong shows at frames first to after - 1, read with bounded memory.

    No more are read: of a line of 5 s, those beyond would be a tenth of what reading costs.
    """
    turn = max(1, 2 * n_clip - 2)
    place, left = first % turn, after - first
    while left > 0:
        is_forward = place < n_clip
        n_frames = min(left, (n_clip if is_forward else turn) - place)
        if is_forward:
            yield from _forward(path, place, n_frames)
        else:
            yield from _backward(path, turn - place, n_frames)
        place, left = (place + n_frames) % turn, left - n_frames


def _forward(path: Path, first: int, n_frames: int) -> Generator[UInt8, None, None]:
    with closing(media.read_frames(path, start_s=first / FRAME_RATE, n_frames=n_frames)) as frames:
        yield from frames


def _backward(path: Path, last: int, n_frames: int) -> Generator[UInt8, None, None]:
    """Frames last, last - 1, ..., a chunk at a time: whole runs from key frame to key frame."""
    about = media.probe(path)
    held = REVERSE_BYTES // (3 * about.width * about.height) // KEYFRAME_EVERY * KEYFRAME_EVERY
    chunk = max(KEYFRAME_EVERY, held)
    after, least = last + 1, last + 1 - n_frames
    while after > least:
        first = max(least, (after - 1) // chunk * chunk)
        source = media.read_frames(path, start_s=first / FRAME_RATE, n_frames=after - first)
        with closing(source):
            frames = list(source)
        yield from reversed(frames)
        after = first
