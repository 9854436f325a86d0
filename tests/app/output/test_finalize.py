"""Finished files of every kind, made of tiny pictures and a second of audio."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.io.wavfile

from talkhead import media
from talkhead.app.output import finalize as output_module
from talkhead.app.output.cue_layout import Cue
from talkhead.app.output.finalize import (
    OutputFacts,
    ResolvedRequest,
    check_subtitles_free,
    finish_video,
    output_files,
)
from talkhead.app.output.provenance import sidecar_of
from talkhead.app.output.subtitle_files import write_srt
from talkhead.app.output.verification import verify
from talkhead.app.request import OutputOptions, RenderRequest, check_options, keeps_alpha
from talkhead.errors import MediaError, TalkheadError
from talkhead.media.codecs import CODECS
from talkhead.media.process import report

N_FRAMES = 30


@pytest.fixture(scope="module")
def tone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of a soft tone, in stereo."""
    path = tmp_path_factory.mktemp("sound") / "a tone.wav"
    wave = 0.05 * np.sin(2 * np.pi * 440 * np.arange(44100) / 44100)
    scipy.io.wavfile.write(path, 44100, np.stack([wave, wave], 1).astype(np.float32))
    return path


@pytest.fixture(scope="module")
def facts() -> OutputFacts:
    return OutputFacts("Anna", N_FRAMES, consent="Yes.")


@pytest.fixture(autouse=True)
def _one_key(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all tests sign with one key."""
    home = tmp_path_factory.getbasetemp() / "home-of-finalize"
    monkeypatch.setenv("TALKHEAD_HOME", str(home))


def finish(
    picture: Path,
    audio: Path,
    output: Path,
    options: OutputOptions,
    facts: OutputFacts,
    srt: Path | None = None,
) -> None:
    """Finish an output in mode head."""
    request = RenderRequest(audio, output, "head", options=options)
    finish_video(picture, ResolvedRequest.of(request, None), facts, srt)


def picture(folder: Path, codec: str) -> Path:
    path = folder / f"picture{CODECS[codec].picture_suffix}"
    frames = [np.full((32, 48, 3), 3 * i, np.uint8) for i in range(N_FRAMES)]
    media.write_video(path, frames, codec=codec)
    return path


KINDS = [
    ("line.mp4", "h264", "aac"),
    ("it's ünder [a] 100% line.mp4", "hevc", "aac"),
    ("line.mp4", "av1", "aac"),
    ("line.mov", "prores", "pcm_s24le"),
    ("line.webm", "vp9", "opus"),
]


@pytest.mark.parametrize(("name", "codec", "sound"), KINDS)
def test_a_finished_file(
    tmp_path: Path, tone: Path, facts: OutputFacts, name: str, codec: str, sound: str
) -> None:
    (tmp_path / "out").mkdir()
    output, srt = tmp_path / "out" / name, tmp_path / "cues.srt"
    write_srt(srt, [Cue(0.1, 1.1, "Hello, world")])
    options = OutputOptions(codec=codec, subtitles="track", transcript="Hello, world")
    finish(picture(tmp_path, codec), tone, output, options, facts, srt)
    info = media.probe(output)
    assert (info.width, info.height, info.audio_channels) == (48, 32, 2)
    assert info.duration_s == pytest.approx(N_FRAMES / 25, abs=0.02)
    text = report("-i", f"file:{output}")
    assert f"Audio: {sound}" in text and re.search(r"\(eng\): Subtitle: (mov_text|webvtt)", text)
    assert len(list(media.read_frames(output))) == N_FRAMES
    waveform = media.read_audio(output)
    assert np.abs(waveform[1000:15000]).max() == pytest.approx(0.05, abs=0.01)
    tags = {key.lower(): value for key, value in media.read_tags(output).items()}
    assert "Synthetic" in tags["comment"]
    verdict = verify(output)
    assert verdict.ok and verdict.claims["consent"] == "Yes."
    beside = {output.with_suffix(".srt").name}
    beside |= {sidecar_of(output).name} if codec == "vp9" else set()
    assert {p.name for p in output.parent.iterdir()} == {output.name, *beside}
    assert set(output.parent.iterdir()) == set(output_files(output, options))


def test_a_folder_of_images(tmp_path: Path, tone: Path, facts: OutputFacts) -> None:
    (tmp_path / "out").mkdir()
    output, srt = tmp_path / "out" / "100%d it's ü", tmp_path / "cues.srt"
    write_srt(srt, [Cue(0.1, 1.1, "Hello")])
    options = OutputOptions(codec="png", subtitles="srt")
    pictures = picture(tmp_path, "png")
    for _ in range(2):  # the second replaces the first
        finish(pictures, tone, output, options, facts, srt)
        names = sorted(path.name for path in output.iterdir())
        assert names[:2] == ["000001.png", "000002.png"] and len(names) == N_FRAMES + 2
        assert names[-2:] == ["sound.wav", "subtitles.srt"]
        assert list(output.parent.iterdir()) == [output] == output_files(output, options)
    frame = cv2.imdecode(np.fromfile(output / "000010.png", np.uint8), cv2.IMREAD_COLOR)
    assert frame.shape == (32, 48, 3) and (frame == 27).all()
    assert media.probe(output / "sound.wav").duration_s == pytest.approx(1.2, abs=0.01)
    assert verify(output).ok and verify(output).where == "embedded in all 31 files"
    (output / "000003.png").write_bytes((output / "000004.png").read_bytes()[:-30] + bytes(30))
    assert verify(output).path.name == "000003.png" and not verify(output).ok
    (output / "holiday.jpg").touch()
    with pytest.raises(TalkheadError, match=r"holds other files \(holiday.jpg\)"):
        finish(pictures, tone, output, options, facts)
    assert (output / "holiday.jpg").exists()


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "h264"), ("a.webm", "vp9")])
def test_empty_subtitles_make_no_track(
    tmp_path: Path, tone: Path, facts: OutputFacts, name: str, codec: str
) -> None:
    """Audio without speech has empty subtitles."""
    output, srt = tmp_path / name, tmp_path / "cues.srt"
    write_srt(srt, [])
    options = OutputOptions(subtitles="track", provenance=False)
    finish(picture(tmp_path, codec), tone, output, options, facts, srt)
    assert len(list(media.read_frames(output))) == N_FRAMES
    assert "Subtitle" not in report("-i", f"file:{output}")
    assert output.with_suffix(".srt").read_bytes() == b""


def test_without_provenance_an_old_sidecar_is_removed(
    tmp_path: Path, tone: Path, facts: OutputFacts
) -> None:
    output, pictures = tmp_path / "a.webm", picture(tmp_path, "vp9")
    finish(pictures, tone, output, OutputOptions(), facts)
    assert verify(output).ok
    finish(pictures, tone, output, OutputOptions(provenance=False), facts)
    assert verify(output).state == "unsupported" and not sidecar_of(output).exists()
    assert "Synthetic" in str(media.read_tags(output))


def test_images_that_cannot_be_moved_leave_the_old_ones(
    tmp_path: Path, tone: Path, facts: OutputFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, pictures = tmp_path / "out", picture(tmp_path, "png")
    plain = OutputOptions(codec="png", provenance=False)
    finish(pictures, tone, output, plain, facts)
    (output / "000001.png").write_bytes(b"the old one")
    before = sorted(path.name for path in tmp_path.iterdir())

    rename = os.rename

    def refuse(source: Path, target: Path) -> None:
        if target == output:
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(TalkheadError, match="the disk is full"):
        finish(pictures, tone, output, plain, facts)
    assert (output / "000001.png").read_bytes() == b"the old one"
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_loudness_is_kept_or_set(tmp_path: Path, tone: Path, facts: OutputFacts) -> None:
    pictures, plain = picture(tmp_path, "prores"), OutputOptions(provenance=False)
    levels = []
    for loudness in (None, -20.0, -30.0):
        output = tmp_path / "a.mov"
        finish(pictures, tone, output, replace(plain, loudness=loudness), facts)
        levels.append(20 * np.log10(np.std(media.read_audio(output)[2000:14000])))
    before = 20 * np.log10(np.std(media.read_audio(tone)[2000:14000]))
    assert levels[0] == pytest.approx(before, abs=0.05)
    assert levels[1] - levels[2] == pytest.approx(10, abs=0.5)
    silence = tmp_path / "silence.wav"
    scipy.io.wavfile.write(silence, 16000, np.zeros(16000, np.float32))
    with pytest.raises(MediaError, match="is silent, so its loudness can't be set"):
        finish(pictures, silence, tmp_path / "b.mov", replace(plain, loudness=-16), facts)
    assert not (tmp_path / "b.mov").exists()


def test_a_failed_output_keeps_the_old_file(
    tmp_path: Path, tone: Path, facts: OutputFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = picture(tmp_path, "h264")
    output = tmp_path / "line.mp4"
    output.write_text("before")
    names = sorted(path.name for path in tmp_path.iterdir())

    def refuse(*given: Any) -> None:
        raise TalkheadError("no")

    monkeypatch.setattr(output_module, "sign", refuse)
    with pytest.raises(TalkheadError):
        finish(pictures, tone, output, OutputOptions(), facts)
    monkeypatch.setattr(output_module, "provenance_unavailable_reason", lambda: "c2pa is missing")
    with pytest.raises(TalkheadError, match="c2pa is missing"):
        finish(pictures, tone, output, OutputOptions(), facts)
    assert output.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == names


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"subtitles": "above"}, "no subtitle mode 'above'. Choose one of: none, burn, track, srt"),
        ({"height": 4}, "a height of 4 pixels is not allowed"),
        ({"yaw": 50.0}, "a yaw of 50 degrees is not allowed. Choose -45 to 45"),
        ({"pitch": float("nan")}, "a pitch of nan degrees is not allowed"),
        ({"zoom": 0.1}, "a zoom of 0.1 is not allowed. Choose 0.5 to 2"),
        ({"loudness": 3.0}, "a loudness of 3 LUFS is not allowed"),
        ({"certificate": Path("a.pem")}, "certificate and key belong together"),
    ],
)
def test_impossible_options_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(TalkheadError) as error:
        OutputOptions(**wrong)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "name", "mode", "words"),
    [
        (OutputOptions(background="alpha"), "a.mp4", "paste", "H.264 can't keep alpha"),
        (
            OutputOptions(yaw=1.0),
            "a.mp4",
            "paste",
            "yaw, pitch, zoom and head motion need --mode head",
        ),
        (
            OutputOptions(zoom=0.9),
            "a.mp4",
            "paste",
            "yaw, pitch, zoom and head motion need --mode head",
        ),
        (OutputOptions(background="alpha"), "a.mp4", "head", "H.264 can't keep alpha. Choose"),
        (OutputOptions(background="mauve"), "a.mp4", "head", "neither a color"),
        (OutputOptions(codec="png", subtitles="track"), "a", "head", "have no track"),
        (OutputOptions(codec="vp9"), "a.mp4", "paste", "End the name with .webm"),
    ],
)
def test_options_that_do_not_match_are_refused(
    options: OutputOptions, name: str, mode: str, words: str
) -> None:
    with pytest.raises(TalkheadError) as error:
        check_options(options, Path(name), mode)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_alpha_is_kept_in_mode_head_without_a_background() -> None:
    for name in ("prores", "vp9", "png"):
        assert keeps_alpha(OutputOptions(), CODECS[name], "head")
    for codec in CODECS.values():
        assert keeps_alpha(OutputOptions(), codec, "head") == codec.alpha
        assert not keeps_alpha(OutputOptions(), codec, "paste")
        assert not keeps_alpha(OutputOptions(background="own"), codec, "head")


@pytest.mark.parametrize(
    ("language", "code"),
    [("en", "eng"), ("pt-BR", "por"), ("FRA", "fra"), ("e\nn", "und"), ("%%%", "und")],
)
def test_codes_of_languages(language: str, code: str) -> None:
    assert output_module.language_code(language) == code


def test_subtitles_of_others_are_not_replaced(
    tmp_path: Path, tone: Path, facts: OutputFacts
) -> None:
    """Subtitles that were made with the output are replaced; older or corrected ones are not."""
    (tmp_path / "out").mkdir()
    output, cues = tmp_path / "out" / "line.mp4", tmp_path / "cues.srt"
    write_srt(cues, [Cue(0.1, 1.1, "Hello")])
    srt = output.with_suffix(".srt")
    for options in (
        OutputOptions(subtitles="srt"),
        OutputOptions(subtitles="burn", provenance=False),
    ):
        srt.write_text("by hand")
        with pytest.raises(TalkheadError, match=r"line\.srt: already exists.* --overwrite"):
            check_subtitles_free(output, options)
        check_subtitles_free(output, replace(options, overwrite=True))
        check_subtitles_free(output, OutputOptions())
        for _ in range(2):
            finish(picture(tmp_path, "h264"), tone, output, options, facts, cues)
            check_subtitles_free(output, options)
        corrected = output.stat().st_mtime_ns + 1_000_000_000
        os.utime(srt, ns=(corrected, corrected))
        with pytest.raises(TalkheadError, match=r"or has changed since"):
            check_subtitles_free(output, options)
        output.unlink()


ODD_NAMES = [
    "-y.mp4", "a\nb.mp4", "%03d.mp4", "pipe:1.mp4", "http:x.mp4", "'\"\\;|&$(x).mp4", "concat:a|b.mp4",
    "x" * 200 + ".mp4", "\u202egnp.mp4", "[0:v],null;.mp4", " .mp4",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
def test_unusual_names_are_accepted(
    tmp_path: Path, tone: Path, facts: OutputFacts, name: str
) -> None:
    (tmp_path / "out").mkdir()
    output, cues = tmp_path / "out" / name, tmp_path / "cues.srt"
    write_srt(cues, [Cue(0.1, 1.1, "Hello")])
    options = OutputOptions(subtitles="track")
    finish(picture(tmp_path, "h264"), tone, output, options, facts, cues)
    assert set(output.parent.iterdir()) == {output, output.with_suffix(".srt")}
    assert verify(output).ok and len(list(media.read_frames(output))) == N_FRAMES


@pytest.mark.parametrize(
    ("name", "words"),
    [("x" * 250 + ".mp4", "name too long"), (os.fsdecode(b"caf\xe9.mp4"), "the path is not UTF-8")],
)
def test_impossible_names_are_refused(
    tmp_path: Path, tone: Path, facts: OutputFacts, name: str, words: str
) -> None:
    pictures = picture(tmp_path, "h264")
    with pytest.raises(TalkheadError, match=words):
        finish(pictures, tone, tmp_path / name, OutputOptions(), facts)
    assert list(tmp_path.iterdir()) == [pictures]


def test_subtitles_are_not_written_over_the_transcript(tmp_path: Path) -> None:
    """The transcript is a corrected .srt file next to the output, with the same name."""
    transcript = tmp_path / "line.srt"
    transcript.write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n")
    options = OutputOptions(subtitles="srt", transcript=str(transcript))
    with pytest.raises(TalkheadError, match=r"line.srt: .* overwrite it"):
        check_options(options, tmp_path / "line.mp4", "paste")
    check_options(options, tmp_path / "other.mp4", "paste")
