"""Pictures of a report: contact sheets, the worst frames, and a side-by-side video."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
from scipy.io import wavfile

from talkhead import media
from talkhead.app.evaluation.cutout import cutout_rows
from talkhead.app.evaluation.evaluate_identity import (
    EvaluationTarget,
    IdentityEvaluation,
    pasted_frames,
)
from talkhead.app.evaluation.evaluate_pair import Pair, PairEvaluation, fitted_frames
from talkhead.app.evaluation.measures.image import Box, face_box, mouth_box
from talkhead.app.evaluation.reference import read_frames, rendered_crops
from talkhead.app.evaluation.report.contact_sheets import contact_sheet, spread
from talkhead.app.evaluation.report.html import Pictures, Sheet, WorstFrame
from talkhead.crops import cut_crop
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Bool, Float32, Int, UInt8

N_COLUMNS, N_WORST, SHEET_COLUMNS = 6, 4, 8
VIDEO_S = 8
VIDEO_HEIGHT, VIDEO_CRF = 320, 26


def identity_pictures(
    target: EvaluationTarget, measured: IdentityEvaluation, folder: Path
) -> Pictures:
    """Make the pictures of an identity's held-out frames.

    Args:
        target: The identity and the frames.
        measured: The results, for the worst frames.
        folder: Folder for the video.

    Returns:
        The pictures.
    """
    spoken = target.spoken_codes
    chosen = np.array(spread(len(target.frames), N_COLUMNS))
    video = folder / "side_by_side.mp4"
    _write_pairs(video, _crop_pairs(target), _audio_of(target, folder))
    return Pictures(
        video=video,
        video_about="left: the footage, right: the mouth driven by its audio, pasted in",
        sheets=_identity_sheets(target, chosen),
        worst=(
            *_worst(target, target.tracked, measured.worst_tracked, "the renderer, tracked motion"),
            *_worst(target, spoken, measured.worst_spoken, "speech-driven"),
        ),
        silent=tuple(_between(target.frames, target.dataset.tracks.silent)),
    )


def _between(frames: Int, flags: Bool) -> list[bool]:
    """Select flags [F] from the first to the last of frames [N]."""
    return [bool(flag) for flag in flags[frames[0] : frames[-1] + 1]]


def _identity_sheets(target: EvaluationTarget, places: Int) -> tuple[Sheet, ...]:
    """Make the contact sheets of the frames at positions [n]."""
    frames = target.frames[places]
    rows = head_rows(target, places)
    landmarks = target.dataset.crop_landmarks()
    boxes = [mouth_box(landmarks[frame]) for frame in frames]
    captions = [f"frame {frame}" for frame in frames]
    mouths = [
        (label, [_cut(image, box) for image, box in zip(images, boxes, strict=True)])
        for label, images in rows
    ]
    tracked = target.part(places).tracked
    alone = cutout_rows(target.renderer, target.dataset, frames, tracked)
    return (
        Sheet("Heads", rows, captions),
        Sheet("The head alone, over a color of its own", alone, captions),
        Sheet("Mouths", mouths, captions),
    )


def head_rows(target: EvaluationTarget, places: Int) -> list[tuple[str, list[UInt8]]]:
    """Make head crops of some of the frames.

    Args:
        target: The identity and the frames.
        places: Positions [n] among the frames.

    Returns:
        Label and images [H, W, 3] of three rows: real, rendered and pasted.
    """
    dataset, part = target.dataset, target.part(places)
    tracked = rendered_crops(target.renderer, dataset, part.frames, part.tracked)
    return [
        ("real", [dataset.frames[frame] for frame in part.frames]),
        ("rendered, tracked motion", list(tracked)),
        ("pasted, speech-driven", list(pasted_crops(part, part.spoken_codes))),
    ]


def write_sheet(target: EvaluationTarget, path: Path) -> Path:
    """Write a contact sheet of some held-out frames: real, rendered and pasted.

    Args:
        target: The identity and the frames.
        path: The PNG to write.

    Returns:
        The path.
    """
    places = np.array(spread(len(target.frames), SHEET_COLUMNS))
    rows = head_rows(target, places)
    contact_sheet(rows, path, f"{target.dataset.info.video}: held-out frames")
    return path


def pasted_crops(target: EvaluationTarget, codes: Float32) -> Iterator[UInt8]:
    """Re-lip the frames as speak does, and crop the heads.

    Args:
        target: The identity and the frames.
        codes: Motion codes [N, K].

    Yields:
        Head crops [H, W, 3].
    """
    info, origins = target.dataset.info, target.dataset.tracks.origins
    size = (info.crop_height, info.crop_width)
    images = pasted_frames(target, codes)
    for frame, image in zip(target.frames, images, strict=True):
        yield cut_crop(image, origins[frame], size, info.scale)


def _cut(image: UInt8, box: Box) -> UInt8:
    """Crop the part of an image [H, W, 3] inside a box."""
    return np.ascontiguousarray(box.clipped(*image.shape[:2]).cut(image))


def _worst(
    target: EvaluationTarget, codes: Float32, order: Int, about: str
) -> Iterator[WorstFrame]:
    """Yield the faces of the first frames of an order [N], rendered with codes [N, K]."""
    dataset = target.dataset
    for place in apart(order, N_WORST):
        frame = target.frames[place : place + 1]
        made = next(rendered_crops(target.renderer, dataset, frame, codes[place : place + 1]))
        box = face_box(dataset.crop_landmarks()[frame[0]])
        real = dataset.frames[frame[0]]
        yield WorstFrame(int(frame[0]), about, _cut(real, box), _cut(made, box))


def apart(order: Int, count: int, min_distance: int = 10) -> list[int]:
    """Choose the first positions of an order that are not close to each other.

    Args:
        order: Positions [N], the most important first.
        count: Largest number of positions.
        min_distance: Smallest distance of two of them.

    Returns:
        The positions.
    """
    chosen: list[int] = []
    for place in order:
        if len(chosen) < count and all(abs(int(place) - other) >= min_distance for other in chosen):
            chosen.append(int(place))
    return chosen


def _crop_pairs(target: EvaluationTarget) -> Iterator[tuple[UInt8, UInt8]]:
    """Yield heads [H, W, 3] of the first seconds, real and pasted; gaps repeat the preceding frame."""
    places = np.flatnonzero(target.frames - target.frames[0] < VIDEO_S * FRAME_RATE)
    part = target.part(places)
    following = [*part.frames[1:], part.frames[-1] + 1]
    crops = pasted_crops(part, part.spoken_codes)
    for frame, after, made in zip(part.frames, following, crops, strict=True):
        for _ in range(frame, after):
            yield target.dataset.frames[frame], made


def _audio_of(target: EvaluationTarget, folder: Path) -> Path:
    """Write the audio of the first seconds of the target's frames."""
    return _write_audio(folder / "sound.wav", target.dataset.waveform, int(target.frames[0]))


def _write_audio(path: Path, waveform: Float32, first: int) -> Path:
    """Write the first seconds of a waveform [n_samples], beginning at a frame."""
    start = first * SAMPLE_RATE // FRAME_RATE
    return write_wav(path, waveform[start : start + VIDEO_S * SAMPLE_RATE])


def write_wav(path: Path, waveform: Float32) -> Path:
    """Write a WAV file with 16 bits per sample.

    Args:
        path: The file.
        waveform: Samples [n_samples] in [-1, 1], 16 kHz.

    Returns:
        The path.
    """
    samples = np.round(waveform * 32767).clip(-32768, 32767).astype(np.int16)
    wavfile.write(path, SAMPLE_RATE, samples)
    return path


def _write_pairs(path: Path, pairs: Iterator[tuple[UInt8, UInt8]], audio: Path | None) -> None:
    """Write a small video of pairs of images [H, W, 3] side by side."""
    images = (np.hstack([_small(image) for image in pair]) for pair in pairs)
    media.write_video(path, images, audio_path=audio, crf=VIDEO_CRF)


def _small(image: UInt8) -> UInt8:
    """Scale an image [H, W, 3] to the video's height, with even sides."""
    scale = min(1.0, VIDEO_HEIGHT / image.shape[0])
    size = tuple(int(n * scale) // 2 * 2 for n in (image.shape[1], image.shape[0]))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


# ------------------------------------------------------------------------------- pairs


def pair_pictures(
    pair: Pair, measured: PairEvaluation, waveform: Float32 | None, folder: Path
) -> Pictures:
    """Make the pictures of two videos.

    Args:
        pair: The videos.
        measured: The results, for the frames and the worst of them.
        waveform: Samples [n_samples] of the made video, 16 kHz; None without audio.
        folder: Folder for the video.

    Returns:
        The pictures.
    """
    reference = measured.reference
    video = folder / "side_by_side.mp4"
    first = int(reference.frames[0])
    part = np.arange(first, min(first + VIDEO_S * FRAME_RATE, int(reference.frames[-1]) + 1))
    audio = None
    if waveform is not None:
        audio = _write_audio(folder / "sound.wav", waveform, int(part[0]))
    _write_pairs(video, _frame_pairs(pair, part), audio)
    chosen = np.array(spread(len(reference.frames), N_COLUMNS))
    worst = np.array(sorted(apart(measured.worst, 2 * N_WORST)))
    rows = {
        title: _faces(pair, reference.frames[places], [reference.landmarks(i) for i in places])
        for title, places in (("Faces", chosen), ("worst", worst))
    }
    real, made = rows["Faces"]
    captions = [f"frame {n}" for n in reference.frames[chosen]]
    return Pictures(
        video=video,
        video_about="left: the real video, right: the made one",
        sheets=(Sheet("Faces", [("real", real), ("made", made)], captions),),
        worst=tuple(
            WorstFrame(int(frame), "lips farthest from real", true, own)
            for frame, true, own in zip(reference.frames[worst], *rows["worst"], strict=True)
        ),
    )


def _frame_pairs(pair: Pair, frames: Int) -> Iterator[tuple[UInt8, UInt8]]:
    """Yield images [H, W, 3] of frames [N], real and rendered."""
    size = (pair.real.width, pair.real.height)
    with (
        closing(read_frames(pair.real.path, frames)) as real,
        closing(fitted_frames(pair.made.path, frames, size)) as made,
    ):
        yield from zip(real, made, strict=True)


def _faces(pair: Pair, frames: Int, landmarks: list[Float32]) -> tuple[list[UInt8], list[UInt8]]:
    """Crop the faces [h, w, 3] of frames [N] with landmarks [478, 2] each, real and rendered."""
    boxes = [face_box(points) for points in landmarks]
    pairs = [
        (_cut(real, box), _cut(made, box))
        for (real, made), box in zip(_frame_pairs(pair, frames), boxes, strict=True)
    ]
    return [real for real, _ in pairs], [made for _, made in pairs]
