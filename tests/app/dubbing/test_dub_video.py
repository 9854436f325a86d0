"""Dubbing a whole video: lines at their places, everything else as filmed, and resumption."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rendering_progress import Counting, Kill
from tiny import LINE

from talkhead import media
from talkhead.app import resume
from talkhead.app.avatar import Avatar, load_avatar
from talkhead.app.composer.source_clip import source_footage
from talkhead.app.dubbing import dub_video as module
from talkhead.app.dubbing.dub_report import DubReport
from talkhead.app.dubbing.dub_video import _spans, dub_video
from talkhead.app.dubbing.dubbed_frames import EASE_S, DubbedFrames, Piece, SpokenLine
from talkhead.app.dubbing.line_planner import PlacementLimits
from talkhead.app.dubbing.soundtrack import SOUND_RATE
from talkhead.app.dubbing.timeline import FITS, Line, Placement, Shot
from talkhead.app.dubbing.video_dub import VideoDub
from talkhead.app.fit import FitResult
from talkhead.app.request import OutputOptions
from talkhead.device import resolve_device
from talkhead.errors import TalkheadError
from talkhead.identity import IdentityPackage
from talkhead.images import read_image
from talkhead.progress import SilentProgress
from talkhead.types import UInt8

STARTS, LASTS = (1.0, 3.5), 1.2
PNG = OutputOptions(codec="png", provenance=False)


@pytest.fixture(scope="module")
def avatar(fitted: FitResult) -> Avatar:
    package = IdentityPackage.load(fitted.package_path)
    return load_avatar(package, None, resolve_device("cpu"))


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two lines of 1.2 s."""
    folder = tmp_path_factory.mktemp("lines")
    speech = media.read_audio(LINE, 16000)
    entries = []
    for number, start in enumerate(STARTS):
        part = speech[8000 + 24000 * number :][: round(LASTS * 16000)]
        media.loudness.write_audio(folder / f"{number}.wav", [part], 16000, 1, 0.0)
        entries.append(
            {
                "start": start,
                "end": start + 1.5,
                "audio": f"{number}.wav",
                "text": f"Line {number}.",
            }
        )
    (folder / "lines.json").write_text(json.dumps(entries, indent=1))
    return folder / "lines.json"


@pytest.fixture(scope="module")
def run(avatar: Avatar, footage: Path, lines: Path, home: Path) -> Callable[..., DubReport]:
    """Dub the sample's footage."""

    def dub(
        output: Path, work: Path, progress: SilentProgress | None = None, **change: object
    ) -> DubReport:
        options = replace(PNG, **change.pop("options", {}))  # type: ignore[arg-type]
        job = replace(VideoDub(footage, lines, output, {"": "a"}, options=options), **change)
        return dub_video(job, lambda name: avatar, work, home, progress or SilentProgress())

    return dub


@pytest.fixture(scope="module")
def made(
    run: Callable[..., DubReport], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, DubReport]:
    folder = tmp_path_factory.mktemp("made")
    report = run(folder / "images", folder / "work", options={"subtitles": "srt"})
    return folder / "images", report


def images(folder: Path) -> list[UInt8]:
    return [np.asarray(read_image(path)) for path in sorted(folder.glob("*.png"))]


def test_only_frames_of_lines_differ_and_only_in_the_face(
    made: tuple[Path, DubReport], footage: Path
) -> None:
    own, dubbed = list(media.read_frames(footage)), images(made[0])
    assert len(own) == len(dubbed) == made[1].n_frames
    for number, (frame, image) in enumerate(zip(own, dubbed, strict=True)):
        time = number / 25
        changed = (frame != image).any(axis=2)
        if not any(start - EASE_S < time < start + LASTS + EASE_S for start in STARTS):
            assert not changed.any(), number
        if any(start <= time <= start + LASTS for start in STARTS):
            assert changed.any(), number
        assert changed.mean() < 0.25
    spoken = [n for n in range(len(own)) if any(s < n / 25 < s + LASTS for s in STARTS)]
    assert np.mean([np.abs(own[n].astype(int) - dubbed[n]).max() > 40 for n in spoken]) > 0.5


def test_the_report_and_the_sound(made: tuple[Path, DubReport], footage: Path) -> None:
    report = made[1]
    assert [one.start_s for one in report.lines] == list(STARTS)
    assert [one.end_s for one in report.lines] == pytest.approx([s + LASTS for s in STARTS])
    assert {one.status for one in report.lines} == {FITS}
    assert all(one.on_screen == 1.0 for one in report.lines)
    assert all(abs(one.sound_offset_ms) < 1.0 for one in report.lines)
    assert all(one.motion_offset_ms == 0.0 for one in report.lines)
    assert all(one.sync_offset_ms is None for one in report.lines), "they are too short"
    assert [one.followed for one in report.followed] == [1.0]
    assert 120.0 < report.followed[0].face_px < 200.0 and 0.0 < report.followed[0].residual_px < 2.0
    assert 60 < report.n_relipped < 80 and not report.notes
    json.dumps(report.to_json())
    sound = media.read_audio(made[0] / "sound.wav", SOUND_RATE)
    assert len(sound) == pytest.approx(report.duration_s * SOUND_RATE, abs=SOUND_RATE / 25)
    assert (made[0] / "subtitles.srt").read_text().count("-->") == 2


def test_an_interrupted_job_resumes_with_the_same_frames(
    made: tuple[Path, DubReport],
    run: Callable[..., DubReport],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resume, "SEGMENT_FRAMES", 40)
    with pytest.raises(Kill):
        run(tmp_path / "images", tmp_path / "work", Counting(stop_at=90))
    assert not (tmp_path / "images").exists()
    monkeypatch.setattr(module, "follow_in", _stored_only(module.follow_in))
    counting = Counting()
    run(tmp_path / "images", tmp_path / "work", counting)
    assert counting.made < 80
    for one, other in zip(images(tmp_path / "images"), images(made[0]), strict=True):
        np.testing.assert_array_equal(one, other)


def _stored_only(follow: Callable[..., object]) -> Callable[..., object]:
    def follow_stored(work: Path, *more: object) -> object:
        assert (work / "followed.safetensors").exists()
        return follow(work, *more)

    return follow_stored


def test_the_work_on_other_lines_is_discarded(
    run: Callable[..., DubReport], lines: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "dub.json").write_text('{"key": "of another job"}')
    (work / "pieces").mkdir()
    (work / "pieces" / "old").write_text("")
    (one,) = json.loads(lines.read_text())[:1]
    short = lines.with_name("one.json")
    short.write_text(json.dumps([one]))
    report = run(tmp_path / "images", work, lines=short, bed="none")
    assert len(report.lines) == 1 and not (work / "pieces" / "old").exists()
    sound = media.read_audio(tmp_path / "images" / "sound.wav", SOUND_RATE)
    assert not sound[: round(0.9 * SOUND_RATE)].any(), "without a bed there is silence"


def test_lines_that_do_not_fit_are_named_before_anything_is_rendered(
    run: Callable[..., DubReport], lines: Path, tmp_path: Path
) -> None:
    entries = json.loads(lines.read_text())
    entries[1]["start"], entries[1]["end"] = 2.0, 2.4
    entries[0]["end"] = 2.0
    tight = lines.with_name("tight.json")
    tight.write_text(json.dumps([*entries, {**entries[1], "start": 2.5, "end": 2.6}]))
    limits = PlacementLimits(max_early_s=0.0)
    with pytest.raises(TalkheadError, match=r"lines do not fit, even at 1.15 times their speed"):
        run(tmp_path / "images", tmp_path / "work", lines=tight, limits=limits)
    assert not (tmp_path / "work" / "pieces").exists()


def test_a_speaker_who_is_not_seen_is_only_heard(
    run: Callable[..., DubReport], footage: Path, tmp_path: Path
) -> None:
    """Frames stay as they are, and the report says so."""
    gray = [np.full((96, 128, 3), 90, np.uint8)] * 150
    media.write_video(tmp_path / "gray.mp4", gray, frame_rate=25)
    report = run(tmp_path / "images", tmp_path / "work", video=tmp_path / "gray.mp4")
    assert not report.followed and all(one.motion_offset_ms is None for one in report.lines)
    assert all(abs(one.sound_offset_ms) < 1.0 for one in report.lines)
    assert report.n_relipped == 0 and all(one.on_screen == 0.0 for one in report.lines)
    assert any("is not recognized. These frames stay as they are" in note for note in report.notes)
    assert sum("its speaker's face is not seen, only heard" in note for note in report.notes) == 2
    own = list(media.read_frames(tmp_path / "gray.mp4"))
    for frame, image in zip(own, images(tmp_path / "images"), strict=True):
        np.testing.assert_array_equal(frame, image)


def test_every_range_of_frames_is_the_same(
    avatar: Avatar, fitted: FitResult, footage: Path, home: Path
) -> None:
    package = IdentityPackage.load(fitted.package_path)
    source = source_footage(package, footage, home, SilentProgress())
    placement = Placement(Line(1, 0.4, 1.0), 0.4, 1.0, 1.0, FITS, 1.0)
    line = SpokenLine(placement, avatar.idle.codes[20:40])

    def frames() -> DubbedFrames:
        piece = Piece(0, source, avatar.renderer, (line,))
        return DubbedFrames(footage, len(source), source.frame_rate, [piece])

    whole = [one.tobytes() for one in frames().frames(0, 40)]
    first, second = frames(), frames()
    start = [one.tobytes() for one in first.frames(0, 17)]
    second.state = first.state
    assert start + [one.tobytes() for one in second.frames(17, 40)] == whole
    assert len(first.state) == 4


def test_motion_eases_into_a_line_and_back(
    avatar: Avatar, fitted: FitResult, footage: Path, home: Path
) -> None:
    package = IdentityPackage.load(fitted.package_path)
    source = source_footage(package, footage, home, SilentProgress())
    placement = Placement(Line(1, 1.0, 2.0), 1.0, 2.0, 1.0, FITS, 1.0)
    spoken = np.full((40, avatar.idle.codes.shape[1]), 5.0, np.float32)
    codes, opacity = Piece(10, source, avatar.renderer, (SpokenLine(placement, spoken),)).motion
    times = (10 + np.arange(len(codes))) / 25
    away = (times <= 1.0 - EASE_S) | (times >= 2.0 + EASE_S)
    np.testing.assert_array_equal(codes[away], source.clip.codes[away])
    assert not opacity[away].any()
    inside = (times >= 1.0) & (times <= 2.0)
    np.testing.assert_allclose(codes[inside], 5.0, atol=1e-5)
    assert (opacity[inside] == 1.0).all() and (np.diff(opacity[times < 1.5]) >= 0.0).all()


def test_which_frames_are_followed() -> None:
    def placed(start_s: float, end_s: float) -> Placement:
        return Placement(Line(1, start_s, end_s), start_s, end_s, 1.0, FITS, 9.0)

    shot = Shot(50, 5000)
    near = [placed(10.0, 12.0), placed(13.0, 14.0)]
    ((first, after),) = _spans(near, shot, 25)  # type: ignore[arg-type]
    assert 230 < first < 240 and 360 < after < 370
    far = list(_spans([placed(0.5, 3.0), placed(100.0, 103.0)], shot, 25))  # type: ignore[arg-type]
    assert len(far) == 2 and far[0][0] == 50
    long = list(_spans([placed(10.0, 150.0)], shot, 25))  # type: ignore[arg-type]
    assert len(long) == 3 and all(b - a <= 1500 for a, b in long)
    pauses = [placed(10.0, 60.0), placed(61.0, 100.0), placed(101.5, 140.0)]
    split = [b for _, b in _spans(pauses, shot, 25)]  # type: ignore[arg-type]
    assert split[:2] == [round(60.5 * 25), round(100.75 * 25)], "in pauses"
    assert [a for a, _ in long[1:]] == [b for _, b in long[:-1]]
    assert not list(_spans([placed(0.5, 1.5)], shot, 25))  # type: ignore[arg-type]
