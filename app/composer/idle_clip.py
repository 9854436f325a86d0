"""The idle clip: the person's own footage that the mouth is pasted into, with its tracks."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from pathlib import Path

import cv2
import numpy as np
import torch

from talkhead import media
from talkhead.blendshapes import N_BLENDSHAPES
from talkhead.cameras import crop_intrinsics, default_intrinsics, project, view_fault
from talkhead.crops import enlarged_mask, shrunk_mask, small_size
from talkhead.dataset import MAX_CROP_PX, MIN_SCALE, IdentityDataset, check_crops
from talkhead.errors import MediaError, PackageError, TalkheadError
from talkhead.face import CODES, MAX_CODE, WORLD, FaceModel
from talkhead.frame_selection import find_cuts, longest_run_of_clips
from talkhead.identity import IDLE_NAME, REMEDY, IdentityPackage, PackageWriter
from talkhead.images import PNG, read_image
from talkhead.progress import Progress
from talkhead.renderers.color_match import ColorMatch
from talkhead.storage import ContentError, inflate, write_bytes
from talkhead.tensors import Size, TensorSpec, check_tensors
from talkhead.types import FRAME_RATE, MAX_SIDE_PX, Float32, Float64, Int, UInt8

MAX_FRAMES = 60 * FRAME_RATE
MIN_UNCUT = 10 * FRAME_RATE
"""Least number of frames between two cuts; a shorter clip would repeat itself too often."""
KEYFRAME_EVERY = 25
"""Number of frames from one key frame to the next."""
REVERSE_BYTES = 64 << 20
"""Memory for frames while the clip plays backward. More is used if a second of frames needs it."""
MAX_REVERSE_BYTES = 1 << 30
"""Upper limit of this memory. At the limit, some frames are decoded repeatedly."""
CRF = 14
FARTHEST = 4
"""Landmarks are clipped to this many times the longer side of the crop, for codes out of range."""
TRACKS = "idle.safetensors"
FACE = "face.safetensors"
BACKGROUND_IMAGE = "plate.png"
MAX_MASK_BYTES = 256 << 20
"""Limit for all masks together, in memory; a minute at a height of 576 takes 30 MB."""
FRAMES = Size("F", 1, MAX_FRAMES)
BLENDSHAPES = "blendshapes"
TENSORS = {
    "codes": TensorSpec((FRAMES, CODES), minimum=-MAX_CODE, maximum=MAX_CODE),
    "viewmats": TensorSpec((FRAMES, 4, 4), minimum=-WORLD, maximum=WORLD, fault=view_fault),
    "origins": TensorSpec((FRAMES, 2), minimum=-MAX_SIDE_PX, maximum=MAX_SIDE_PX),
    "masks": TensorSpec((Size("B", 1, MAX_MASK_BYTES),), torch.uint8),
    "size": TensorSpec((5,), torch.int64, minimum=1, maximum=MAX_CROP_PX),
    "scale": TensorSpec((1,), torch.float64, minimum=MIN_SCALE, maximum=1.0),
    BLENDSHAPES: TensorSpec((FRAMES, N_BLENDSHAPES), torch.uint8),
}
"""Tensors of TRACKS. masks: compressed. size: height, width of crops; number, height, width of masks.
blendshapes: in 1/255; missing in packages of earlier versions."""


@dataclass(frozen=True)
class IdleClip:
    """Footage with its tracks, F frames.

    Attributes:
        path: The video.
        face: Face model.
        codes: Motion codes [F, K].
        viewmats: Head poses [F, 4, 4].
        origins: Left and top of the crops [F, 2], source pixels.
        masks: Person masks [F, h, w], uint8, a quarter of the crops' size.
        background: Background without the person [H, W, 3], uint8.
        crop_height: Height of the crops, crop pixels.
        crop_width: Width of the crops, crop pixels.
        scale: Crop pixels per source pixel.
        blendshapes: Coefficients of the expression [F, 52] in [0, 1], in the order of
            `talkhead.blendshapes.BLENDSHAPES`. None: an earlier version made the package without them.
        colors: How the renderer's colors appear in this footage. None: as rendered.
    """

    path: Path
    face: FaceModel
    codes: Float32
    viewmats: Float32
    origins: Float32
    masks: UInt8
    background: UInt8
    crop_height: int
    crop_width: int
    scale: float
    blendshapes: Float32 | None = None
    colors: ColorMatch | None = None

    def __len__(self) -> int:
        return len(self.codes)

    @cached_property
    def intrinsics(self) -> Float64:
        """Intrinsics [3, 3] of the source image."""
        return default_intrinsics(self.background.shape[1], self.background.shape[0])

    @cached_property
    def crop_ks(self) -> Float32:
        """Intrinsics [F, 3, 3] of the crops."""
        return crop_intrinsics(self.intrinsics, self.origins, self.scale)

    def mask(self, frame: int) -> Float32:
        """Return the person mask of a crop.

        Args:
            frame: Number of the frame.

        Returns:
            Mask [H, W] in [0, 1].
        """
        return enlarged_mask(self.masks[frame], (self.crop_height, self.crop_width))

    def landmarks(self, frame: int, codes: Float32) -> Float32:
        """Project mesh vertices in the pose of a frame.

        Args:
            frame: Number of the frame.
            codes: Motion codes [n, K].

        Returns:
            Vertices [n, 478, 2] in crop pixels.
        """
        vertices = self.face.vertices(codes).astype(np.float64)
        views = np.repeat(self.viewmats[frame : frame + 1].astype(np.float64), len(codes), axis=0)
        with np.errstate(all="ignore"):  # codes may put the face behind the camera
            points = project(vertices, views, self.crop_ks[frame].astype(np.float64))
        reach = FARTHEST * max(self.crop_height, self.crop_width)
        return np.clip(np.nan_to_num(points), -reach, reach).astype(np.float32)


def choose_frames(dataset: IdentityDataset) -> tuple[int, int]:
    """Choose the longest unoccluded run of training frames without a cut, at most a minute.

    Frames with something in front of the face end a run, since a mouth would be pasted over it. So
    do frames without a stored mask. If all runs between cuts are shorter than MIN_UNCUT, cuts are
    ignored, except joins of clips.

    Args:
        dataset: The footage.

    Returns:
        First frame, and the frame after the last one.
    """
    tracks, joins = dataset.tracks, dataset.info.joins
    never = tracks.occluded.any(1) | ~tracks.has_image
    good = tracks.unoccluded & tracks.train
    cuts = find_cuts(tracks.landmarks, tracks.detected)
    first, after = longest_run_of_clips(good, never | cuts, joins, MAX_FRAMES)
    if after - first >= MIN_UNCUT:
        return first, after
    return longest_run_of_clips(good, never, joins, MAX_FRAMES)


def make_clip(dataset: IdentityDataset, video: Path, part: slice) -> IdleClip:
    """Make a clip from consecutive frames of a dataset.

    Args:
        dataset: The footage.
        video: A video that starts at the first of these frames.
        part: The frames.

    Returns:
        The clip.
    """
    info, tracks = dataset.info, dataset.tracks
    return IdleClip(
        path=video,
        face=dataset.face,
        codes=tracks.codes[part],
        viewmats=tracks.viewmats[part],
        origins=tracks.origins[part],
        masks=np.stack([shrunk_mask(dataset.masks[i]) for i in range(len(dataset))[part]]),
        background=dataset.background,
        crop_height=info.crop_height,
        crop_width=info.crop_width,
        scale=info.scale,
        blendshapes=tracks.blendshapes[part],
    )


def save_idle(
    video: Path, dataset: IdentityDataset, writer: PackageWriter, progress: Progress
) -> int:
    """Write the idle clip, its tracks, the face model and the background into a package.

    Args:
        video: The footage.
        dataset: Its dataset.
        writer: Writes the package.
        progress: Receives the progress.

    Returns:
        Number of frames of the clip.
    """
    first, after = choose_frames(dataset)
    with progress.step("Writing the idle clip", total=after - first) as step:
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
    kept = make_clip(dataset, video, slice(first, after))
    assert kept.blendshapes is not None
    blendshapes = np.rint(255.0 * np.clip(kept.blendshapes, 0.0, 1.0)).astype(np.uint8)
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
            BLENDSHAPES: torch.from_numpy(blendshapes),
        },
    )
    writer.add_tensors(FACE, dataset.face.tensors())
    _, png = cv2.imencode(".png", dataset.background[..., ::-1])
    write_bytes(writer.path(BACKGROUND_IMAGE), png.tobytes())
    return after - first


def load_idle(package: IdentityPackage) -> IdleClip:
    """Load the idle clip of a package.

    Args:
        package: A verified package.

    Returns:
        The clip.

    Raises:
        PackageError: A part is missing or damaged. A ContentError in a part is raised as this
            error.
    """
    face = load_face(package)
    background = _background(package)
    _check_video(package)
    with package.content_errors(TRACKS):
        tracks = package.tensors(TRACKS)
        sizes = {CODES.name: face.n_codes, FRAMES.name: package.manifest.n_frames}
        optional = TENSORS if BLENDSHAPES in tracks else _without_blendshapes(TENSORS)
        check_tensors(tracks, optional, sizes)
        height, width, *shape = (int(n) for n in tracks["size"])
        if tuple(shape) != (len(tracks["codes"]), *small_size((height, width))):
            raise ContentError(
                f"the tensor size gives masks of {shape}, which do not match the crops"
            )
        origins, scale = tracks["origins"].numpy(), float(tracks["scale"][0])
        check_crops(origins, (height, width), scale, (background.shape[0], background.shape[1]))
        masks = _unpacked_masks(tracks["masks"].numpy().tobytes(), tuple(shape))
    return IdleClip(
        path=package.file(IDLE_NAME),
        face=face,
        codes=tracks["codes"].numpy(),
        viewmats=tracks["viewmats"].numpy(),
        origins=origins,
        masks=masks,
        background=background,
        crop_height=height,
        crop_width=width,
        scale=scale,
        blendshapes=_coefficients(tracks.get(BLENDSHAPES)),
    )


def _without_blendshapes(specs: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    return {name: spec for name, spec in specs.items() if name != BLENDSHAPES}


def _coefficients(stored: torch.Tensor | None) -> Float32 | None:
    """Convert stored coefficients [F, 52], if any, to [0, 1]."""
    return None if stored is None else stored.numpy().astype(np.float32) / np.float32(255.0)


def load_face(package: IdentityPackage) -> FaceModel:
    """Load the face model of a package.

    Args:
        package: A verified package.

    Returns:
        The face model.

    Raises:
        PackageError: It is missing or damaged.
    """
    with package.content_errors(FACE):
        return FaceModel.from_tensors(package.tensors(FACE))


def _background(package: IdentityPackage) -> UInt8:
    """Read the background [H, W, 3] of a package. Raises PackageError if its size differs from the
    manifest."""
    path, manifest = package.file(BACKGROUND_IMAGE), package.manifest
    try:
        return read_image(path, (PNG,), (manifest.frame_width, manifest.frame_height))
    except TalkheadError as error:
        raise PackageError(
            f"{path}: damaged, or its size is not that of the clip. {REMEDY}"
        ) from error


def _check_video(package: IdentityPackage) -> None:
    """Raise PackageError if a package's clip is not a video, or its size differs from the
    manifest."""
    path, manifest = package.file(IDLE_NAME), package.manifest
    try:
        info = media.probe(path)
    except MediaError as error:
        raise PackageError(f"{error}. {REMEDY}") from error
    if (info.width, info.height) != (manifest.frame_width, manifest.frame_height):
        raise PackageError(
            f"{path}: has frames of {info.width}x{info.height}, not "
            f"{manifest.frame_width}x{manifest.frame_height}. {REMEDY}"
        )


def _unpacked_masks(packed: bytes, shape: tuple[int, ...]) -> UInt8:
    """Decompress masks of a shape. Raises ContentError."""
    n_bytes = prod(shape)
    if n_bytes > MAX_MASK_BYTES:
        raise ContentError(f"masks of {n_bytes:,} bytes, where {MAX_MASK_BYTES:,} are allowed")
    try:
        return np.frombuffer(inflate(packed, n_bytes), dtype=np.uint8).reshape(shape)
    except ValueError as error:
        raise ContentError(f"the tensor masks is damaged: {error}") from error


def period(n_clip: int) -> int:
    """Return the number of frames after which a clip that is played forward and backward repeats.

    Args:
        n_clip: Frames of the clip.

    Returns:
        Number of frames.
    """
    return max(1, 2 * n_clip - 2)


def ping_pong(n_clip: int, n_frames: int, first: int = 0) -> Int:
    """Return which frame of a clip is shown when it is played forward, backward, forward, with no
    frame twice in a row.

    Args:
        n_clip: Frames of the clip. A clip of one frame is repeated.
        n_frames: Number of frames.
        first: Number of the first frame.

    Returns:
        Frames of the clip [n_frames].
    """
    turn = period(n_clip)
    place = np.arange(first, first + n_frames) % turn
    return np.where(place < n_clip, place, turn - place)


def idle_frames(path: Path, n_clip: int, first: int, after: int) -> Generator[UInt8, None, None]:
    """Read the frames that ping_pong shows, with bounded memory.

    Args:
        path: The clip.
        n_clip: Its number of frames.
        first: First frame.
        after: Frame after the last one. No frames beyond it are read: for 5 s of video, they would
            be a tenth of the cost of reading.

    Returns:
        Frames [H, W, 3].
    """
    return bounced_frames(path, partial(_forward, path), n_clip, first, after)


def bounced_frames(
    path: Path,
    read: Callable[[int, int], Generator[UInt8, None, None]],
    n_clip: int,
    first: int,
    after: int,
) -> Generator[UInt8, None, None]:
    """Read the frames of a video that ping_pong shows, with bounded memory.

    Args:
        path: The video.
        read: Reads its frames [H, W, 3], from a first one to the one before another.
        n_clip: Number of frames that are played.
        first: First frame.
        after: Frame after the last one.

    Yields:
        Frames [H, W, 3].
    """
    turn = period(n_clip)
    place, left = first % turn, after - first
    while left > 0:
        is_forward = place < n_clip
        n_frames = min(left, (n_clip if is_forward else turn) - place)
        if is_forward:
            yield from read(place, place + n_frames)
        else:
            yield from _backward(path, read, turn - place, n_frames)
        place, left = (place + n_frames) % turn, left - n_frames


def _forward(path: Path, first: int, after: int) -> Generator[UInt8, None, None]:
    """Read the frames [H, W, 3] first to after - 1. Raises MediaError if there are too few."""
    n_frames, n_found = after - first, 0
    with closing(media.read_frames(path, start_s=first / FRAME_RATE, n_frames=n_frames)) as frames:
        for frame in frames:
            n_found += 1
            yield frame
    if n_found < n_frames:
        raise MediaError(
            f"{path}: has only {first + n_found} frames, at least {after} are needed. {REMEDY}"
        )


def _backward(
    path: Path,
    read: Callable[[int, int], Generator[UInt8, None, None]],
    last: int,
    n_frames: int,
) -> Generator[UInt8, None, None]:
    """Read n_frames [H, W, 3] backward from frame last, in chunks. Those of idle clips start at key
    frames."""
    about = media.probe(path)
    frame_bytes = 3 * about.width * about.height
    held = REVERSE_BYTES // frame_bytes // KEYFRAME_EVERY * KEYFRAME_EVERY
    chunk = max(1, min(KEYFRAME_EVERY, MAX_REVERSE_BYTES // frame_bytes), held)
    after, least = last + 1, last + 1 - n_frames
    while after > least:
        first = max(least, (after - 1) // chunk * chunk)
        yield from reversed(list(read(first, after)))
        after = first
