"""Comparison of two videos: alignment, errors, and a known difference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from paths import PERSON

from talkhead import media
from talkhead.app.evaluate import EvaluateResult, evaluate_pair
from talkhead.app.evaluation.evaluate_pair import align
from talkhead.app.evaluation.options import EvaluateOptions
from talkhead.app.evaluation.results import (
    MADE_VIDEO,
    MEAN_MOUTH,
    MISMATCHED_SPEECH,
    REAL_VIDEO,
    REENCODED,
    Variant,
)
from talkhead.errors import FootageError, MediaError, TalkheadError
from talkhead.types import UInt8

SECONDS = 5
LATE = 3  # frames


def person(first: int = 0, size: int | None = None) -> Iterator[UInt8]:
    """The sample person's frames from `first` on, optionally scaled."""
    with closing(media.read_frames(PERSON)) as frames:
        for frame in islice(frames, first, first + SECONDS * 25):
            if size is not None:
                frame = np.asarray(cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA))
            yield frame


def late() -> Iterator[UInt8]:
    """The same frames, each LATE frames later."""
    frames = list(person())
    yield from frames[:1] * LATE + frames[:-LATE]


def gray(n_frames: int, size: tuple[int, int] = (64, 64)) -> Iterator[UInt8]:
    for i in range(n_frames):
        yield np.full((*size, 3), 40 + i % 3, np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pair")


@pytest.fixture(scope="module")
def real(folder: Path) -> Path:
    if not PERSON.exists():
        pytest.skip(f"{PERSON} does not exist")
    path = folder / "real.mp4"
    media.write_video(path, person(), audio_path=PERSON)
    return path


@pytest.fixture(scope="module")
def evaluated(folder: Path, real: Path) -> EvaluateResult:
    """The late video, evaluated without phonemes."""
    path = folder / "late.mp4"
    media.write_video(path, late(), audio_path=real)
    options = EvaluateOptions(language="xx")
    return evaluate_pair(real, path, report=folder / "report", options=options)


def variant(result: EvaluateResult, name: str) -> Variant:
    return next(one for one in result.report.variants if one.name == name)


def test_only_the_delay_is_found(evaluated: EvaluateResult) -> None:
    made = variant(evaluated, MADE_VIDEO).lips
    assert made is not None and made.n_lost == 0
    assert made.aperture_lag_ms == pytest.approx(LATE * 40, abs=8)
    assert made.aperture_spread == pytest.approx(1.0, abs=0.1)
    assert made.jitter_ratio == pytest.approx(1.0, abs=0.35)


def test_codec_floor_made_video_and_mismatched_speech_are_in_order(
    evaluated: EvaluateResult,
) -> None:
    def distance(name: str) -> float:
        lips = variant(evaluated, name).lips
        assert lips is not None
        return lips.lmd_px.mean

    assert distance(REAL_VIDEO) == 0.0
    assert distance(REENCODED) < 0.5 * distance(MADE_VIDEO)
    assert distance(MADE_VIDEO) < distance(MISMATCHED_SPEECH)
    assert 0 < distance(MEAN_MOUTH) < 2 * distance(MADE_VIDEO)
    by_measure = {one.measure: one.holds for one in evaluated.report.validity}
    assert by_measure["LMD"] is True


def test_missing_measures_are_reported(evaluated: EvaluateResult) -> None:
    left_out = " ".join(evaluated.report.left_out)
    assert "LPIPS" in left_out and "English" in left_out
    found = variant(evaluated, MADE_VIDEO).phonemes  # by PASE, and too few to count
    assert found is None or found.closure_rate is None


def test_the_report_is_one_file_with_a_video(evaluated: EvaluateResult) -> None:
    page = evaluated.report_path.read_text()
    assert "data:video/mp4;base64," in page and "late.mp4" in page
    assert evaluated.report_path.with_name("report.json").is_file()


def test_size_length_and_frame_rate_are_aligned_and_reported(folder: Path, real: Path) -> None:
    small = folder / "small.mp4"
    media.write_video(small, islice(person(size=192), 80))
    pair = align(real, small, 1000)
    assert pair.n_frames == 80
    words = " ".join(pair.warnings)
    assert "3.20 s" in words and "192x192" in words
    assert align(real, real, 60).n_frames == 60 and align(real, real, 60).warnings == ()


def test_videos_that_do_not_match_are_refused(folder: Path, real: Path) -> None:
    wide, brief = folder / "wide.mp4", folder / "brief.mp4"
    media.write_video(wide, gray(80, (64, 128)))
    media.write_video(brief, islice(person(), 20))
    with pytest.raises(MediaError, match=r"wide\.mp4: 128x64 .* don't show the same picture"):
        align(real, wide, 1000)
    with pytest.raises(FootageError, match=r"brief\.mp4: 0\.8 s"):
        align(real, brief, 1000)
    with pytest.raises(MediaError, match="no picture"):
        align(real, PERSON.with_name("line.wav"), 1000)


def test_a_video_without_a_face_is_refused(folder: Path, real: Path) -> None:
    empty = folder / "gray.mp4"
    media.write_video(empty, gray(75, (384, 384)))
    for pair in ((real, empty), (empty, real)):
        with pytest.raises(FootageError, match=r"gray\.mp4: a face was found in 0 of 75"):
            evaluate_pair(*pair, report=folder / "never")
    assert not (folder / "never").exists()


def test_folds_are_refused(folder: Path) -> None:
    with pytest.raises(TalkheadError, match="folds: videos cannot be cross-validated"):
        evaluate_pair(folder / "a.mp4", folder / "b.mp4", options=EvaluateOptions(folds=3))


def test_measures_of_speech_are_left_out_without_audio(folder: Path, real: Path) -> None:
    mute = folder / "mute.mp4"
    media.write_video(mute, islice(person(), 60))
    options = EvaluateOptions(seconds=2.4)
    result = evaluate_pair(mute, mute, report=folder / "mute-report", options=options)
    made = variant(result, MADE_VIDEO)
    assert made.sync is None and made.phonemes is None and result.report.offset is None
    assert made.lips is not None and made.lips.silence_leak is None
    assert any("no sound" in line for line in result.report.left_out)


def test_a_beginning_without_a_face_does_not_shift_the_audio(folder: Path, real: Path) -> None:
    """Both begin with a second of gray; the lips are still compared with their own audio."""
    from scipy.io import wavfile

    waveform = media.read_audio(real)
    silence = np.zeros(16_000, np.float32)
    wavfile.write(folder / "later.wav", 16_000, np.concatenate([silence, waveform]))
    path = folder / "later.mp4"
    media.write_video(path, [*gray(25, (384, 384)), *person()], audio_path=folder / "later.wav")
    options = EvaluateOptions(language="xx")
    plain, later = (
        variant(evaluate_pair(one, one, report=folder / "r", options=options), REAL_VIDEO)
        for one in (real, path)
    )
    assert plain.lips is not None and later.lips is not None
    assert later.lips.n_silent == pytest.approx(plain.lips.n_silent, abs=2)
    assert plain.sync is not None and later.sync is not None
    assert later.sync.confidence == pytest.approx(plain.sync.confidence, rel=0.25)


def test_a_made_video_without_audio_is_not_in_sync(folder: Path, real: Path) -> None:
    path = folder / "soundless.mp4"
    media.write_video(path, person())
    options = EvaluateOptions(language="xx", seconds=3)
    result = evaluate_pair(real, path, report=folder / "soundless", options=options)
    sync = variant(result, MADE_VIDEO).sync
    assert sync is None or (sync.offset_ms is None and np.isnan(sync.confidence))
    assert any(line.startswith("soundless.mp4: ") for line in result.report.left_out)


def test_audio_longer_than_the_picture(folder: Path, real: Path) -> None:
    path = folder / "short.mp4"
    media.write_video(path, islice(person(), 75), audio_path=real)
    assert align(real, path, 1000).n_frames == 75
