"""What a report shows besides figures: contact sheets, the worst frames, a video side by side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
from scipy.io import wavfile

from talkhead import media
from talkhead.app.evaluation.evaluate_identity import (
    EvaluationTarget,
    IdentityEvaluation,
    pasted_frames,
)
from talkhead.app.evaluation.evaluate_pair import Pair, PairEvaluation, fitted_frames
from talkhead.app.evaluation.measures.cutout import cutout_rows
from talkhead.app.evaluation.measures.image import Box, face_box, mouth_box
from talkhead.app.evaluation.reference import frames_of, rendered_crops
from talkhead.app.evaluation.report.contact_sheets import contact_sheet, spread
from talkhead.app.evaluation.report.html import Pictures, Sheet, WorstFrame
from talkhead.crops import cut_crop
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Bool, Float32, Int, UInt8

N_COLUMNS, N_WORST, SHEET_COLUMNS = 6, 4, 8
VIDEO_S = 8
VIDEO_HEIGHT, VIDEO_CRF = 320, 26


def identity_pictures(
    subject: EvaluationTarget, judged: IdentityEvaluation, folder: Path
) -> Pictures:
    """Pictures of an identity's held-out frames. folder: where the video may lie."""
    spoken = subject.spoken_codes
    chosen = np.array(spread(len(subject.numbers), N_COLUMNS))
    video = folder / "side_by_side.mp4"
    _write_pairs(video, _crop_pairs(subject), _sound_of(subject, folder))
    return Pictures(
        video=video,
        video_about="left: the footage, right: the mouth driven by its sound, pasted in",
        sheets=_identity_sheets(subject, chosen),
        worst=(
            *_worst(subject, subject.tracked, judged.worst_tracked, "the renderer, true motion"),
            *_worst(subject, spoken, judged.worst_spoken, "driven by the sound"),
        ),
        silent=tuple(_between(subject.numbers, subject.dataset.tracks.silent)),
    )


def _between(numbers: Int, flags: Bool) -> list[bool]:
    return [bool(flag) for flag in flags[numbers[0] : numbers[-1] + 1]]


def _identity_sheets(subject: EvaluationTarget, places: Int) -> tuple[Sheet, ...]:
    numbers = subject.numbers[places]
    rows = head_rows(subject, places)
    landmarks = subject.dataset.crop_landmarks()
    boxes = [mouth_box(landmarks[number]) for number in numbers]
    captions = [f"frame {number}" for number in numbers]
    mouths = [
        (label, [_cut(image, box) for image, box in zip(images, boxes, strict=True)])
        for label, images in rows
    ]
    tracked = subject.part(places).tracked
    alone = cutout_rows(subject.head, subject.dataset, numbers, tracked)
    return (
        Sheet("Heads", rows, captions),
        Sheet("The head alone, over a color of its own", alone, captions),
        Sheet("Mouths", mouths, captions),
    )


def head_rows(subject: EvaluationTarget, places: Int) -> list[tuple[str, list[UInt8]]]:
    """Rows of head crops of some of the frames: real, rendered, pasted."""
    dataset, part = subject.dataset, subject.part(places)
    tracked = rendered_crops(subject.head, dataset, part.numbers, part.tracked)
    return [
        ("real", [dataset.frames[number] for number in part.numbers]),
        ("rendered, tracked motion", list(tracked)),
        ("pasted, driven by the sound", list(pasted_crops(part, part.spoken_codes))),
    ]


def write_sheet(subject: EvaluationTarget, path: Path) -> Path:
    """Write a PNG of some held-out frames, real, rendered and pasted; its path."""
    places = np.array(spread(len(subject.numbers), SHEET_COLUMNS))
    rows = head_rows(subject, places)
    contact_sheet(rows, path, f"{subject.dataset.info.video}: held-out frames")
    return path


def pasted_crops(subject: EvaluationTarget, codes: Float32) -> Iterator[UInt8]:
    """Head crops of the frames, re-lipped by codes [N, K] and pasted."""
    info, origins = subject.dataset.info, subject.dataset.tracks.origins
    size = (info.crop_height, info.crop_width)
    frames = pasted_frames(subject, codes)
    for number, frame in zip(subject.numbers, frames, strict=True):
        yield cut_crop(frame, origins[number], size, info.scale)


def _cut(image: UInt8, box: Box) -> UInt8:
    return np.ascontiguousarray(box.clipped(*image.shape[:2]).cut(image))


def _worst(
    subject: EvaluationTarget, codes: Float32, order: Int, about: str
) -> Iterator[WorstFrame]:
    """The worst frames' faces, not two of the same moment."""
    dataset = subject.dataset
    for place in apart(order, N_WORST):
        number = subject.numbers[place : place + 1]
        made = next(rendered_crops(subject.head, dataset, number, codes[place : place + 1]))
        box = face_box(dataset.crop_landmarks()[number[0]])
        real = dataset.frames[number[0]]
        yield WorstFrame(int(number[0]), about, _cut(real, box), _cut(made, box))


def apart(order: Int, count: int, least: int = 10) -> list[int]:
    """The first places of an order that lie at least so many frames from each other."""
    chosen: list[int] = []
    for place in order:
        if len(chosen) < count and all(abs(int(place) - other) >= least for other in chosen):
            chosen.append(int(place))
    return chosen


def _crop_pairs(subject: EvaluationTarget) -> Iterator[tuple[UInt8, UInt8]]:
    """Heads of the first seconds, real and pasted; over frames that are not judged the last stands."""
    places = np.flatnonzero(subject.numbers - subject.numbers[0] < VIDEO_S * FRAME_RATE)
    part = subject.part(places)
    following = [*part.numbers[1:], part.numbers[-1] + 1]
    crops = pasted_crops(part, part.spoken_codes)
    for number, after, made in zip(part.numbers, following, crops, strict=True):
        for _ in range(number, after):
            yield subject.dataset.frames[number], made


def _sound_of(subject: EvaluationTarget, folder: Path) -> Path:
    return _write_sound(folder / "sound.wav", subject.dataset.waveform, int(subject.numbers[0]))


def _write_sound(path: Path, waveform: Float32, first: int) -> Path:
    start = first * SAMPLE_RATE // FRAME_RATE
    return write_wav(path, waveform[start : start + VIDEO_S * SAMPLE_RATE])


def write_wav(path: Path, waveform: Float32) -> Path:
    """Write a waveform [n], 16 kHz in [-1, 1], as 16 bits a sample."""
    samples = np.round(waveform * 32767).clip(-32768, 32767).astype(np.int16)
    wavfile.write(path, SAMPLE_RATE, samples)
    return path


def _write_pairs(path: Path, pairs: Iterator[tuple[UInt8, UInt8]], sound: Path | None) -> None:
    """A small video with the images of a pair beside each other."""
    shown = (np.hstack([_small(image) for image in pair]) for pair in pairs)
    media.write_video(path, shown, audio_path=sound, crf=VIDEO_CRF)


def _small(image: UInt8) -> UInt8:
    """The image at the video's height, both sides even."""
    scale = min(1.0, VIDEO_HEIGHT / image.shape[0])
    size = tuple(int(n * scale) // 2 * 2 for n in (image.shape[1], image.shape[0]))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


# ------------------------------------------------------------------------------- pairs


def pair_pictures(
    pair: Pair, judged: PairEvaluation, waveform: Float32 | None, folder: Path
) -> Pictures:
    """Pictures of two videos. waveform: the made video's sound, 16 kHz. folder: for the video."""
    scene, size = judged.scene, (pair.real.width, pair.real.height)
    video = folder / "side_by_side.mp4"
    first = int(scene.numbers[0])
    part = np.arange(first, min(first + VIDEO_S * FRAME_RATE, int(scene.numbers[-1]) + 1))
    sound = None
    if waveform is not None:
        sound = _write_sound(folder / "sound.wav", waveform, int(part[0]))
    _write_pairs(video, _frame_pairs(pair, part), sound)
    chosen = np.array(spread(len(scene.numbers), N_COLUMNS))
    worst = np.array(sorted(apart(judged.worst, 2 * N_WORST)))
    rows = {
        title: _both(pair, scene.numbers[places], [scene.landmarks(i) for i in places], size)
        for title, places in (("Faces", chosen), ("worst", worst))
    }
    real, made = rows["Faces"]
    captions = [f"frame {n}" for n in scene.numbers[chosen]]
    return Pictures(
        video=video,
        video_about="left: the real video, right: the made one",
        sheets=(Sheet("Faces", [("real", real), ("made", made)], captions),),
        worst=tuple(
            WorstFrame(int(number), "lips farthest from real", true, own)
            for number, true, own in zip(scene.numbers[worst], *rows["worst"], strict=True)
        ),
    )


def _frame_pairs(pair: Pair, numbers: Int) -> Iterator[tuple[UInt8, UInt8]]:
    size = (pair.real.width, pair.real.height)
    with (
        closing(frames_of(pair.real.path, numbers)) as real,
        closing(fitted_frames(pair.made.path, numbers, size)) as made,
    ):
        yield from zip(real, made, strict=True)


def _both(
    pair: Pair, numbers: Int, landmarks: list[Float32], size: tuple[int, int]
) -> tuple[list[UInt8], list[UInt8]]:
    """The faces of frames, real and made."""
    boxes = [face_box(points) for points in landmarks]
    pairs = [
        (_cut(real, box), _cut(made, box))
        for (real, made), box in zip(_frame_pairs(pair, numbers), boxes, strict=True)
    ]
    return [real for real, _ in pairs], [made for _, made in pairs]
