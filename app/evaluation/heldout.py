"""Figures of a renderer on frames that it has not seen, and of pasted videos.

The head is rendered over the background plate, never over true pixels, rounded to 8 bits as a
viewer sees it, and compared with the crop at the size at which the dataset keeps it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from talkhead import media
from talkhead.app.evaluation import metrics
from talkhead.app.evaluation.metrics import Box
from talkhead.dataset import IdentityDataset, cut_crop
from talkhead.errors import TalkheadError
from talkhead.face import LIPS, lip_aperture
from talkhead.preprocess.landmarks import FaceTracker
from talkhead.progress import Progress, Step
from talkhead.renderers.base import Renderer
from talkhead.types import Float32, Float64, Int, UInt8

BATCH = 4
"""Frames rendered at a time."""
TAIL = 5
"""Percentile of the low tail."""
FLOOR_CRF, FLOOR_PRESET = 23, "medium"
"""x264's own defaults."""


@dataclass(frozen=True)
class Summary:
    """A measure over frames. tail: the worst twentieth begins here: the 5th percentile, of errors
    (where less is better) the 95th. NaN where no frame could be measured."""

    mean: float
    median: float
    tail: float


@dataclass(frozen=True)
class LipFigures:
    """What the tracker sees, in the renderings and in the real frames put before it alike.

    n_lost: frames in which it finds the real face and not the rendered one; they are left out of
    the rest. lmd_px: mouth landmark distance in source pixels. lmd_eyes: its mean over the outer
    eye corners' mean distance. aperture_correlation, jitter_ratio: see metrics.
    """

    n_tracked: int
    n_lost: int
    lmd_px: Summary
    lmd_eyes: float
    aperture_correlation: float
    jitter_ratio: float


@dataclass(frozen=True)
class HeldOutFigures:
    """How near renderings come to real frames. Headlines: the means of PSNR and SSIM over frames.

    n_skipped: frames without a tracked face, which have no boxes. psnr_head: of the face box, above
    the lower line of the jaw: without neck and clothes. psnr: dB of each frame, then
    summarised. sharpness, gradient_correlation: of the mouth box. lips: None without a tracker.
    floor: the same figures of the real frames, encoded once by x264; None unless asked for.
    """

    n_frames: int
    n_skipped: int
    psnr_face: Summary
    psnr_head: Summary
    psnr_mouth: Summary
    ssim_face: Summary
    ssim_mouth: Summary
    sharpness: Summary
    gradient_correlation: Summary
    lips: LipFigures | None
    floor: HeldOutFigures | None = None

    def to_json(self) -> dict[str, Any]:
        """Nested plain values as JSON holds them, rounded to 4 places, None for NaN."""
        return {name: _plain(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class PairFigures:
    """PSNR and SSIM of given pairs of images."""

    n_frames: int
    psnr: Summary
    ssim: Summary

    def to_json(self) -> dict[str, Any]:
        """Nested plain values as JSON holds them, rounded to 4 places, None for NaN."""
        return {name: _plain(value) for name, value in asdict(self).items()}


class LandmarkTracker(Protocol):
    """What evaluation needs of a FaceTracker; it may remember the frames before."""

    def track(self, frame: UInt8) -> Float32 | None:
        """Landmarks [478, 3] in pixels of a frame [H, W, 3], None without a face."""

    def close(self) -> None:
        """Free what it holds."""


TrackerMaker = Callable[[], LandmarkTracker]


def held_out_frames(dataset: IdentityDataset) -> Int:
    """The numbers of the test frames. Raises TalkheadError when all frames were for training."""
    frames = np.flatnonzero(~dataset.tracks.train)
    if not len(frames):
        raise TalkheadError(
            f"{dataset.info.video}: no frames were held out. Fit without --use-all-frames"
        )
    return frames


def evaluate_renderer(
    renderer: Renderer,
    dataset: IdentityDataset,
    frames: Int,
    progress: Progress,
    motion: Float32 | None = None,
    *,
    tracker: TrackerMaker | None = FaceTracker,
    floor: bool = False,
) -> HeldOutFigures:
    """Figures of a renderer on frames of a dataset, under the true head pose.

    frames: [N] numbers of frames, rising. motion: [N, K] codes to render instead of the tracked
    ones. tracker: makes what finds landmarks in the images; None leaves the lips out, which is
    faster. floor: also measure the real frames after x264 at CRF 23.
    Raises ValueError for no frames or codes that don't match them.
    """
    if len(frames) == 0 or (motion is not None and len(motion) != len(frames)):
        raise ValueError("frames must not be empty, and motion must have one row for each")
    seen = frames_with_face(dataset, frames)
    codes = dataset.tracks.codes[seen] if motion is None else motion[np.isin(frames, seen)]
    with progress.step("Measuring held-out frames", total=len(seen) * (2 if floor else 1)) as bar:
        real = _track_crops(dataset, seen, real_crops(dataset, seen), tracker)
        rendered = rendered_crops(renderer, dataset, seen, codes)
        figures = _measure(dataset, seen, rendered, real, tracker, bar)
        if floor:
            with tempfile.TemporaryDirectory(prefix="talkhead-") as folder:
                encoded = encoded_crops(dataset, seen, Path(folder))
                lowest = _measure(dataset, seen, encoded, real, tracker, bar)
            figures = replace(figures, floor=lowest)
    return replace(figures, n_skipped=len(frames) - len(seen))


def evaluate_images(
    dataset: IdentityDataset,
    frames: Int,
    images: Iterable[UInt8],
    progress: Progress,
    *,
    tracker: TrackerMaker | None = FaceTracker,
) -> HeldOutFigures:
    """Figures of crops that came from anywhere: images [H, W, 3], one for each of the frames, all
    of which must have a tracked face (see frames_with_face)."""
    with progress.step("Measuring images", total=len(frames)) as bar:
        real = _track_crops(dataset, frames, real_crops(dataset, frames), tracker)
        return _measure(dataset, frames, images, real, tracker, bar)


def evaluate_pairs(
    pairs: Iterable[tuple[UInt8, UInt8]], boxes: Iterable[Box] | None = None
) -> PairFigures:
    """PSNR and SSIM of (real, made) images, over the full frame or over one box for each pair.

    Of pasted frames they flatter, since most pixels are the true ones: say "pasted" beside them.
    """
    psnr, ssim = [], []
    for (real, made), box in zip(pairs, repeat(None) if boxes is None else boxes, strict=False):
        psnr.append(metrics.psnr(made, real, box))
        ssim.append(metrics.ssim(made, real, box))
    return PairFigures(len(psnr), summarise(psnr), summarise(ssim))


def summarise(values: Sequence[float] | Float64, less_is_better: bool = False) -> Summary:
    """Mean, median and worst tail of a measure's values; NaN values are left out."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return Summary(math.nan, math.nan, math.nan)
    tail = np.percentile(known, 100 - TAIL if less_is_better else TAIL)
    return Summary(float(known.mean()), float(np.median(known)), float(tail))


# ------------------------------------------------------------------------------ images


def frames_with_face(dataset: IdentityDataset, frames: Int) -> Int:
    """Those of the frames whose face and mouth boxes are known and reach into the crop."""
    landmarks = dataset.crop_landmarks()
    tracked = dataset.tracks.landmarks
    kept = [f for f in frames if tracked[f].any() and _boxes(dataset, landmarks[f])[1].area]
    return np.array(kept, dtype=np.int64)


def real_crops(dataset: IdentityDataset, frames: Int) -> Iterator[UInt8]:
    """The true crops of frames, one after the other."""
    return (dataset.frames[f] for f in frames)


def rendered_crops(
    renderer: Renderer, dataset: IdentityDataset, frames: Int, motion: Float32 | None = None
) -> Iterator[UInt8]:
    """Renderings of frames over the background plate, [H, W, 3] uint8, one after the other.

    motion: [N, K] codes, the tracked ones by default.
    """
    tracks, info = dataset.tracks, dataset.info
    motion = tracks.codes[frames] if motion is None else motion
    device = next((t.device for t in renderer.tensors().values()), torch.device("cpu"))
    for start in range(0, len(frames), BATCH):
        batch = frames[start : start + BATCH]
        arrays = (motion[start : start + BATCH], tracks.viewmats[batch], dataset.crop_ks[batch])
        codes, viewmats, ks = (torch.from_numpy(array).float().to(device) for array in arrays)
        with torch.no_grad():
            rendering = renderer.render(codes, viewmats, ks, info.crop_height, info.crop_width)
        rgb, alpha = rendering.rgb.cpu().numpy(), rendering.alpha.cpu().numpy()
        for frame, colour, cover in zip(batch, rgb, alpha, strict=True):
            yield composite(colour, cover, dataset.plate_crop(frame))


def composite(rgb: Float32, alpha: Float32, background: UInt8) -> UInt8:
    """An image over a background, [H, W, 3] uint8.

    rgb: [H, W, 3] in [0, 1], premultiplied by alpha [H, W, 1].
    """
    image = rgb * np.float32(255) + (1 - alpha) * background
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def encoded_crops(dataset: IdentityDataset, frames: Int, folder: Path) -> Iterator[UInt8]:
    """The true crops after one pass through x264, by way of a file in the folder."""
    path = folder / "floor.mp4"
    shown = (
        _stage(dataset, f, crop)
        for f, crop in zip(frames, real_crops(dataset, frames), strict=True)
    )
    media.write_video(path, shown, crf=FLOOR_CRF, preset=FLOOR_PRESET)
    info = dataset.info
    size = (info.crop_height, info.crop_width)
    with closing(media.read_frames(path)) as decoded:
        for frame, image in zip(frames, decoded, strict=True):
            if _is_staged(dataset):
                image = cut_crop(image, dataset.tracks.origins[frame], size, 1.0)
            yield image[: size[0], : size[1]]


def _is_staged(dataset: IdentityDataset) -> bool:
    return dataset.info.scale == 1.0


def _stage(dataset: IdentityDataset, frame: int, crop: UInt8) -> UInt8:
    """What the tracker is shown: the crop in its place on the plate at source size, as it was when
    the clip was tracked; a scaled crop as it is."""
    if not _is_staged(dataset):
        return crop
    image = dataset.plate.copy()
    left, top = (int(n) for n in dataset.tracks.origins[frame])
    box = Box(left, top, left + crop.shape[1], top + crop.shape[0])
    inside = box.clipped(*image.shape[:2])
    part = crop[inside.top - top : inside.bottom - top, inside.left - left : inside.right - left]
    inside.cut(image)[:] = part
    return image


# ---------------------------------------------------------------------------- measuring


def _boxes(dataset: IdentityDataset, landmarks: Float32) -> tuple[Box, Box]:
    """Face and mouth box in the crop of true landmarks [478, 2]."""
    size = (dataset.info.crop_height, dataset.info.crop_width)
    face, mouth = metrics.face_box(landmarks), metrics.mouth_box(landmarks)
    return face.clipped(*size), mouth.clipped(*size)


def _measure(
    dataset: IdentityDataset,
    frames: Int,
    images: Iterable[UInt8],
    real: Sequence[Float32 | None],
    tracker: TrackerMaker | None,
    bar: Step,
) -> HeldOutFigures:
    """Figures of images of frames; real: what the tracker saw in the true ones."""
    landmarks = dataset.crop_landmarks()
    rows: list[tuple[float, ...]] = []

    def scored() -> Iterator[UInt8]:
        for frame, image in zip(frames, images, strict=True):
            boxes = _boxes(dataset, landmarks[frame])
            rows.append(_score(image, dataset.frames[frame], landmarks[frame], *boxes))
            bar.advance()
            yield image

    tracked = _track_crops(dataset, frames, scored(), tracker)
    columns = np.array(rows).reshape(len(rows), -1).T if rows else np.full((7, 0), np.nan)
    psnr_face, psnr_head, psnr_mouth, ssim_face, ssim_mouth, sharpness, gradients = map(
        summarise, columns
    )
    return HeldOutFigures(
        n_frames=len(rows),
        n_skipped=0,
        psnr_face=psnr_face,
        psnr_head=psnr_head,
        psnr_mouth=psnr_mouth,
        ssim_face=ssim_face,
        ssim_mouth=ssim_mouth,
        sharpness=sharpness,
        gradient_correlation=gradients,
        lips=None if tracker is None else _lip_figures(frames, tracked, real),
    )


def _score(
    image: UInt8, real: UInt8, landmarks: Float32, face: Box, mouth: Box
) -> tuple[float, ...]:
    """The image measures of a frame, in the order of HeldOutFigures' fields."""
    head = metrics.head_mask(landmarks, (real.shape[0], real.shape[1]))
    return (
        metrics.psnr(image, real, face),
        metrics.masked_psnr(image, real, head, face),
        metrics.psnr(image, real, mouth),
        metrics.ssim(image, real, face),
        metrics.ssim(image, real, mouth),
        metrics.sharpness_ratio(image, real, mouth),
        metrics.gradient_correlation(image, real, mouth),
    )


def _track_crops(
    dataset: IdentityDataset, frames: Int, crops: Iterable[UInt8], tracker: TrackerMaker | None
) -> list[Float32 | None]:
    """Landmarks [478, 2] of each crop in source pixels, None without a face (or a tracker)."""
    if tracker is None:
        return [None for _ in crops]
    with closing(tracker()) as follower:
        return [_track(dataset, f, c, follower) for f, c in zip(frames, crops, strict=True)]


def _track(
    dataset: IdentityDataset, frame: int, crop: UInt8, tracker: LandmarkTracker
) -> Float32 | None:
    landmarks = tracker.track(_stage(dataset, frame, crop))
    if landmarks is None:
        return None
    points = landmarks[:, :2]
    if not _is_staged(dataset):
        points = points / dataset.info.scale + dataset.tracks.origins[frame]
    return np.asarray(points, dtype=np.float32)


def _lip_figures(
    frames: Int, tracked: Sequence[Float32 | None], real: Sequence[Float32 | None]
) -> LipFigures:
    pairs = [
        (f, own, true)
        for f, own, true in zip(frames, tracked, real, strict=True)
        if own is not None and true is not None
    ]
    n_lost = sum(true is not None for true in real) - len(pairs)
    if not pairs:
        nothing = summarise([])
        return LipFigures(0, n_lost, nothing, math.nan, math.nan, math.nan)
    own, true = (np.stack([pair[i] for pair in pairs]) for i in (1, 2))
    distance = metrics.lmd(own, true)
    return LipFigures(
        n_tracked=len(pairs),
        n_lost=n_lost,
        lmd_px=summarise(distance, less_is_better=True),
        lmd_eyes=float(distance.mean() / metrics.eye_distance(true).mean()),
        aperture_correlation=metrics.correlation(lip_aperture(own), lip_aperture(true)),
        jitter_ratio=metrics.jitter_ratio(
            own[:, list(LIPS)], true[:, list(LIPS)], np.array([pair[0] for pair in pairs])
        ),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value
