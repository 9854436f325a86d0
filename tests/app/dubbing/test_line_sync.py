"""Offsets of lines in a finished video: known ones are found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import LINE

from talkhead import media
from talkhead.app.composer.source_clip import SourceFootage, source_footage
from talkhead.app.dubbing.dubbed_frames import Piece, SpokenLine
from talkhead.app.dubbing.line_sync import measure_sync
from talkhead.app.dubbing.timeline import FITS, Line, Placement, Timeline
from talkhead.app.fit import FitResult
from talkhead.identity import IdentityPackage
from talkhead.media.loudness import write_audio
from talkhead.progress import SilentProgress
from talkhead.types import SAMPLE_RATE, Float32

START_S, END_S = 0.8, 5.2


@pytest.fixture(scope="module")
def source(fitted: FitResult, footage: Path, home: Path) -> SourceFootage:
    package = IdentityPackage.load(fitted.package_path)
    return source_footage(package, footage, home, SilentProgress())


def placed(audio: Path, start_s: float, end_s: float, number: int = 1) -> Placement:
    return Placement(Line(number, start_s, end_s, audio=audio), start_s, end_s, 1.0, FITS, 9.0)


def write(path: Path, samples: Float32) -> Path:
    write_audio(path, [samples], SAMPLE_RATE, 1, 0.0)
    return path


def piece_of(source: SourceFootage, placement: Placement, late_frames: int = 0) -> Piece:
    """The person's own motion, as that of a line, in frames that show it late."""
    own = source.clip.codes[round(START_S * 25) :]
    line = SpokenLine(placement, own)
    piece = Piece(0, source, None, (line,))  # type: ignore[arg-type]
    codes, opacity = piece.motion
    shown = np.roll(codes, late_frames, axis=0)
    piece.__dict__["motion"] = (shown, opacity)
    return piece


@pytest.mark.parametrize(("sound_late_ms", "late_frames"), [(0, 0), (120, 0), (-80, 3), (40, -2)])
def test_known_offsets_are_found(
    source: SourceFootage, footage: Path, tmp_path: Path, sound_late_ms: int, late_frames: int
) -> None:
    """The sample person speaks as filmed, and sound and motion are moved."""
    filmed = media.read_audio(footage, SAMPLE_RATE)
    first, after = round(START_S * SAMPLE_RATE), round(END_S * SAMPLE_RATE)
    placement = placed(write(tmp_path / "line.wav", filmed[first:after]), START_S, END_S)
    moved = np.roll(filmed, sound_late_ms * SAMPLE_RATE // 1000)
    sound = write(tmp_path / "sound.wav", moved)
    pieces = [piece_of(source, placement, late_frames)]
    found = measure_sync(Timeline(6.0, (placement,)), pieces, sound)[1]
    assert found.sound_offset_ms == pytest.approx(sound_late_ms, abs=0.1)
    assert found.motion_offset_ms == pytest.approx(40.0 * late_frames, abs=5.0)
    assert found.sync_offset_ms is not None
    assert found.sync_offset_ms == pytest.approx(sound_late_ms - 40.0 * late_frames, abs=30.0)


def test_lines_that_are_only_heard(tmp_path: Path) -> None:
    """Far apart, at both ends of the sound and over another sound; nobody is seen."""
    speech = media.read_audio(LINE, SAMPLE_RATE)[8000:24000]
    audio = write(tmp_path / "line.wav", speech)
    starts = (0.0, 40.003, 99.0)
    sound = 0.02 * np.random.default_rng(0).standard_normal(100 * SAMPLE_RATE).astype(np.float32)
    for start in starts:
        at = round(start * SAMPLE_RATE) + 32
        part = sound[at : at + len(speech)]
        part += speech[: len(part)]
    placements = tuple(placed(audio, s, s + 1.0, n) for n, s in enumerate(starts, 1))
    found = measure_sync(Timeline(100.0, placements), [], write(tmp_path / "sound.wav", sound))
    assert [one.sound_offset_ms for one in found.values()] == [2.0, 2.0, 2.0]
    assert all(one.motion_offset_ms is one.sync_offset_ms is None for one in found.values())


def test_frames_without_a_face_do_not_count(
    source: SourceFootage, footage: Path, tmp_path: Path
) -> None:
    filmed = media.read_audio(footage, SAMPLE_RATE)
    first, after = round(START_S * SAMPLE_RATE), round(END_S * SAMPLE_RATE)
    placement = placed(write(tmp_path / "line.wav", filmed[first:after]), START_S, END_S)
    hidden = replace(source, known=np.zeros(len(source), dtype=bool))
    sound = write(tmp_path / "sound.wav", filmed)
    found = measure_sync(Timeline(6.0, (placement,)), [piece_of(hidden, placement)], sound)[1]
    assert found.motion_offset_ms is None and found.sync_offset_ms is None
