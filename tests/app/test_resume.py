"""Videos in segments: frames are bitwise equal to those of one piece, and a killed call resumes."""

from __future__ import annotations

import json
import subprocess
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rendering_progress import Counting, Kill
from tiny import LINE

from talkhead import media
from talkhead.app import avatar as person_module
from talkhead.app import resume as lines
from talkhead.app import speak as speak_module
from talkhead.app.avatar import Avatar, load_avatar, predict_motion
from talkhead.app.composer.frames import (
    FrameRenderer,
    HeadFrameRenderer,
    IdleFootage,
    PasteFrameRenderer,
    own_background,
)
from talkhead.app.fit import FitResult
from talkhead.app.request import OutputOptions, RenderRequest
from talkhead.app.speak import render_video
from talkhead.errors import MediaError, TalkheadError
from talkhead.identity import IdentityPackage
from talkhead.media.codecs import CODECS
from talkhead.media.mux import join_segments
from talkhead.media.probing import frame_times
from talkhead.progress import SilentProgress
from talkhead.storage import read_tensors

N_FRAMES, N_CLIP = 23, 9


@pytest.fixture(scope="module")
def person(fitted: FitResult) -> Avatar:
    package = IdentityPackage.load(fitted.package_path)
    return load_avatar(package, None, torch.device("cpu"))


def make_shot(person: Avatar, mode: str) -> FrameRenderer:
    """A line of random motion over a clip so short that it is played backward and then repeated."""
    clip = person.idle
    short = replace(clip, codes=clip.codes[:N_CLIP])
    dice = np.random.default_rng(3)
    codes = clip.codes[dice.integers(0, len(clip), N_FRAMES)]
    if mode == "paste":
        return PasteFrameRenderer(person.renderer, IdleFootage(short), codes)
    background = own_background(clip)
    return HeadFrameRenderer(
        person.renderer, short, codes, lambda a, b: iter([background] * (b - a))
    )


@pytest.mark.parametrize("mode", ["paste", "head"])
def test_segments_equal_the_whole_bitwise(person: Avatar, mode: str) -> None:
    whole = list(make_shot(person, mode).frames(0, N_FRAMES))
    pieces: list[np.ndarray] = []
    state = "[]"
    for first, after in ((0, 5), (5, 6), (6, 17), (17, N_FRAMES)):
        shot = make_shot(person, mode)  # as another process would
        shot.state = json.loads(state)
        pieces += shot.frames(first, after)
        state = json.dumps(shot.state)
    assert len(whole) == len(pieces) == N_FRAMES
    assert all(np.array_equal(a, b) for a, b in zip(whole, pieces, strict=True))
    if mode == "paste":
        fresh = list(make_shot(person, mode).frames(6, 17))
        assert not np.array_equal(fresh[0], whole[6]), "the state matters"


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    path = tmp_path / "line.wav"
    samples = media.read_audio(LINE)[16_000 : 16_000 + 18_900]  # 29.5 frames
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def test_a_killed_line_resumes_from_its_last_segment(
    person: Avatar, audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "SEGMENT_FRAMES", 10)
    line = RenderRequest(audio, tmp_path / "whole.mp4")
    n_frames, seconds = render_video(person, line, tmp_path / "a", tmp_path, Counting())
    assert (n_frames, seconds) == (30, 1.2)
    again = replace(line, output=tmp_path / "resumed.mp4")
    with pytest.raises(Kill):
        render_video(person, again, tmp_path / "b", tmp_path, Counting(stop_at=24))
    (tmp_path / "b" / ".segment-00002.tmp-1234.mp4").write_bytes(b"what a kill leaves")
    monkeypatch.setattr(speak_module, "predict_motion", None)  # predicted motion is kept
    counting = Counting()
    render_video(person, again, tmp_path / "b", tmp_path, counting)
    assert counting.made == 10, "two of three segments already existed"
    first, second = (list(media.read_frames(p)) for p in (line.output, again.output))
    assert len(first) == 30
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes], int]] = {
    "a byte": ("segment-00001.mp4", lambda content: content[:-9] + b"x" + content[-8:], 20),
    "the first": ("segment-00000.mp4", lambda content: content[:-9] + b"x" + content[-8:], 20),
    "cut short": ("segment-00001.mp4", lambda content: content[:-900], 20),
    "empty": ("segment-00001.mp4", lambda content: b"", 20),
    "no record": ("segment-00001.json", lambda content: content[:20], 20),
    "of an older version": ("segment-00001.json", lambda content: b'{"state": [1, 2]}', 20),
    "too deep": ("segment-00001.json", lambda content: b'{"state": ' + b"[" * 9000, 20),
    "no numbers": ("segment-00001.json", lambda content: content.replace(b"[", b'["x", '), 20),
    "no record of the line": ("line.json", lambda content: b"", 30),
    "a record too deep": ("line.json", lambda content: b"[" * 100_000, 30),
    "a record that is no text": ("line.json", lambda content: b"\xff\xfe", 30),
    "another record": ("line.json", lambda content: b'"talkhead"', 30),
    "predicted motion": ("codes.safetensors", lambda content: content[:-5], 10),
    "one value": ("codes.safetensors", lambda content: content[:-4] + bytes(4), 10),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_recreated(
    person: Avatar, audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """Only damaged files are recreated."""
    monkeypatch.setattr(lines, "SEGMENT_FRAMES", 10)
    line, work = RenderRequest(audio, tmp_path / "out.mp4"), tmp_path / "work"
    render_video(person, line, tmp_path / "whole", tmp_path, SilentProgress())
    whole = [frame.tobytes() for frame in media.read_frames(line.output)]
    with pytest.raises(Kill):
        render_video(person, line, work, tmp_path, Counting(stop_at=24))
    name, change, n_made = DAMAGES[damage]
    (work / name).write_bytes(change((work / name).read_bytes()))
    counting = Counting()
    render_video(person, line, work, tmp_path, counting)
    assert counting.made == n_made
    assert [frame.tobytes() for frame in media.read_frames(line.output)] == whole


def test_a_damaged_record_in_a_foreign_folder_is_not_changed(
    person: Avatar, audio: Path, tmp_path: Path
) -> None:
    work = tmp_path / "theirs"
    work.mkdir()
    (work / "line.json").write_bytes(b"[" * 100_000)
    (work / "diary.txt").write_text("dear diary")
    with pytest.raises(TalkheadError, match="theirs: contains other files"):
        render_video(
            person, RenderRequest(audio, tmp_path / "out.mp4"), work, tmp_path, SilentProgress()
        )
    assert sorted(path.name for path in work.iterdir()) == ["diary.txt", "line.json"]


def test_pictures_that_are_missing_after_joining_are_reported(
    person: Avatar, audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "SEGMENT_FRAMES", 10)
    monkeypatch.setattr(lines, "join_segments", lambda paths, out: join_segments(paths[1:], out))
    output = tmp_path / "out.mp4"
    with pytest.raises(MediaError, match="has 20 of 30 frames"):
        render_video(
            person, RenderRequest(audio, output), tmp_path / "work", tmp_path, SilentProgress()
        )
    assert not output.exists()


def test_a_line_starts_few_programs(
    person: Avatar, audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Starting a program costs at least as much as rendering half a picture."""
    media.probe(person.idle.path)  # known from the previous line
    started: list[str] = []
    start = subprocess.Popen.__init__

    def noted(self: subprocess.Popen[bytes], command: list[str], **options: Any) -> None:
        started.append(" ".join(command))
        start(self, command, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", noted)
    line = RenderRequest(audio, tmp_path / "line.mp4")
    render_video(person, line, tmp_path / "work", tmp_path, SilentProgress())
    wanted = ["-i file:", "f32le", f"file:{person.idle.path}", "segment-00000", ".line.tmp-"]
    assert len(started) == len(wanted), started
    for part, command in zip(wanted, started, strict=True):
        assert part in command


def test_long_audio_is_decoded_each_time_with_the_same_result(
    person: Avatar, audio: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = predict_motion(audio, person.encoder, person.predictor)
    monkeypatch.setattr(person_module, "MAX_BUFFERED_S", 0.0)
    assert np.array_equal(predict_motion(audio, person.encoder, person.predictor), kept)


def test_picture_and_sound_end_together(
    person: Avatar, audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "SEGMENT_FRAMES", 7)
    line = RenderRequest(audio, tmp_path / "it's a line.mp4")
    work = tmp_path / "it's its work"
    n_frames, _ = render_video(person, line, work, tmp_path, SilentProgress())
    n_pictures = sum(1 for _ in media.read_frames(line.output))
    n_samples = len(media.read_audio(line.output))
    assert n_pictures == n_frames
    assert abs(n_samples / 16_000 - n_pictures / 25) <= 1 / 25
    assert abs(media.probe(line.output).duration_s - n_pictures / 25) <= 1 / 25


def test_older_subtitles_are_reported_and_kept(person: Avatar, audio: Path, tmp_path: Path) -> None:
    """They may have been written by the user."""
    messages: list[str] = []

    class Listening(SilentProgress):
        def message(self, text: str) -> None:
            messages.append(text)

    line, old = RenderRequest(audio, tmp_path / "out.mp4"), tmp_path / "out.srt"
    render_video(person, line, tmp_path / "work", tmp_path, Listening())
    assert not messages
    old.write_text("of before")
    render_video(person, line, tmp_path / "work", tmp_path, Listening())
    assert old.read_text() == "of before"
    assert messages == [
        f"{old}: already existed, and players will show it. Remove it if it is out of date"
    ]


def test_work_on_another_request_is_removed(
    person: Avatar, audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "SEGMENT_FRAMES", 10)
    line, work = RenderRequest(audio, tmp_path / "out.mp4"), tmp_path / "work"
    with pytest.raises(Kill):
        render_video(person, line, work, tmp_path, Counting(stop_at=24))
    counting = Counting()
    render_video(person, replace(line, mode="head"), work, tmp_path, counting)
    assert counting.made == 30


def test_another_intensity_is_another_line(person: Avatar, audio: Path, tmp_path: Path) -> None:
    work, line = tmp_path / "work", RenderRequest(audio, tmp_path / "out.mp4")
    person = replace(person, predictor=replace(person.predictor, lip_range=None))
    rest = person.predictor.scaling.rest[: len(person.predictor.scaling.low)]
    motions = []
    for intensity in (1.0, 2.0, 0.0):
        other = replace(line, options=OutputOptions(intensity=intensity))
        counting = Counting()
        render_video(person, other, work, tmp_path, counting)
        assert counting.made == 30, "neither the earlier pictures nor the earlier motion are reused"
        codes = read_tensors(work / lines.CODES)["codes"].numpy()
        motions.append(codes[:, : len(rest)] - rest)
    assert np.abs(motions[0]).max() > 0.01
    np.testing.assert_allclose(motions[1], 2.0 * motions[0], atol=1e-4)
    np.testing.assert_allclose(motions[2], 0.0, atol=1e-5)


def test_turning_the_head_renders_again_and_unseen_angles_are_reported(
    person: Avatar, audio: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    line = RenderRequest(audio, tmp_path / "out.mp4", mode="head")
    render_video(person, line, work, tmp_path, SilentProgress())
    before = list(media.read_frames(line.output))
    messages: list[str] = []

    class Listening(Counting):
        def message(self, text: str) -> None:
            messages.append(text)

    turned = replace(line, options=OutputOptions(yaw=40.0, zoom=1.2))
    listening = Listening()
    render_video(person, turned, work, tmp_path, listening)
    assert listening.made == 30, "the earlier pictures are not reused"
    assert not np.array_equal(before[3], list(media.read_frames(line.output))[3])
    assert (
        len(messages) == 1
        and "the footage shows yaw" in messages[0]
        and "40 was requested" in messages[0]
    )


def test_unseen_mouth_shapes_are_reported(
    person: Avatar, audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []

    class Listening(SilentProgress):
        def message(self, text: str) -> None:
            messages.append(text)

    far = np.full((30, person.idle.face.n_codes), 50.0, np.float32)
    monkeypatch.setattr(speak_module, "predict_motion", lambda *given: far)
    render_video(
        person, RenderRequest(audio, tmp_path / "out.mp4"), tmp_path / "w", tmp_path, Listening()
    )
    assert messages == [
        "100 % of the frames need mouth shapes far from any in the idle clip (first at 0.0 s): "
        "they may look wrong"
    ]


def test_killed_while_removing_files_of_another_request(
    person: Avatar, audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left in the folder is not used, neither for the new request nor for the old one."""
    monkeypatch.setattr(lines, "SEGMENT_FRAMES", 10)
    line, work = RenderRequest(audio, tmp_path / "out.mp4"), tmp_path / "work"
    render_video(person, line, work, tmp_path, SilentProgress())

    def die(path: Path) -> None:
        path.unlink()
        raise Kill

    with monkeypatch.context() as patch, pytest.raises(Kill):
        patch.setattr(lines, "remove", die)
        render_video(person, replace(line, mode="head"), work, tmp_path, SilentProgress())
    assert (work / lines.REQUEST).exists()
    for again in (line, replace(line, mode="head")):
        counting = Counting()
        render_video(person, again, work, tmp_path, counting)
        assert counting.made == 30


@pytest.mark.parametrize("content", ['{"scene": 3}', "[1]", "no JSON", None])
def test_folders_with_other_files_are_refused(
    person: Avatar, audio: Path, tmp_path: Path, content: str | None
) -> None:
    others, line = tmp_path / "photos", RenderRequest(audio, tmp_path / "out.mp4")
    others.mkdir()
    (others / "picture.jpg").write_bytes(b"a photo")
    if content is not None:
        (others / "line.json").write_text(content)
    before = sorted(path.name for path in others.iterdir())
    with pytest.raises(TalkheadError, match="contains other files"):
        render_video(person, line, others, tmp_path, SilentProgress())
    assert sorted(path.name for path in others.iterdir()) == before


def test_other_files_in_the_work_folder_are_kept(
    person: Avatar, audio: Path, tmp_path: Path
) -> None:
    line, work = RenderRequest(audio, tmp_path / "out.mp4"), tmp_path / "work"
    render_video(person, line, work, tmp_path, SilentProgress())
    (work / "notes.txt").write_text("dear diary")
    (work / ".codes.tmp-12.safetensors").touch()
    render_video(person, replace(line, mode="head"), work, tmp_path, SilentProgress())
    assert (work / "notes.txt").exists()
    assert not (work / ".codes.tmp-12.safetensors").exists()


@pytest.mark.parametrize("name", CODECS)
def test_joining(name: str, tmp_path: Path) -> None:
    """The joined file has the pictures of the parts, in order, as they were encoded."""
    codec, parts, tmp_path = CODECS[name], [], tmp_path / "it's a\nfile 'x' \\"
    tmp_path.mkdir()
    levels = (40, 120, 200)
    for track_index, level in enumerate(levels):
        path = tmp_path / f"part {track_index}'{codec.picture_suffix}"
        frames = [np.full((64, 96, 3), level + i, np.uint8) for i in range(4)]
        media.write_video(path, frames, codec=name, frame_rate=30)
        parts.append(path)
    joined = tmp_path / f"joined{codec.picture_suffix}"
    join_segments(parts, joined)
    found = [frame.mean() for frame in media.read_frames(joined, frame_rate=30)]
    wanted = [level + i for level in levels for i in range(4)]
    assert np.allclose(found, wanted, atol=6.0)
    assert len(frame_times(joined)) == len(wanted)
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in [*parts, joined]}
