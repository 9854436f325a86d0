"""Requests that speak refuses before any work: no existing file may be lost."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from talkhead.app.checks import check_speak
from talkhead.app.request import OutputOptions
from talkhead.app.speak import speak
from talkhead.errors import TalkheadError

PLAIN = OutputOptions()


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """A file that is not audio; this is checked last."""
    path = tmp_path / "line.wav"
    path.write_bytes(b"sound")
    return path


def refusal(audio: Path, output: Path, options: OutputOptions = PLAIN, mode: str = "paste") -> str:
    """Return the error of speak for an output and audio."""
    with pytest.raises(TalkheadError) as caught:
        check_speak(audio, output, mode=mode, options=options)
    return str(caught.value)


def test_no_input_is_overwritten(tmp_path: Path, audio: Path) -> None:
    """Neither the output nor the files next to it may overwrite inputs of any kind."""
    picture, output = tmp_path / "beach.png", tmp_path / "line.mp4"
    cv2.imwrite(str(picture), np.zeros((8, 8, 3), np.uint8))
    secret = tmp_path / "line.c2pa"
    secret.write_bytes(b"key")
    assert "line.wav: this is the input" in refusal(audio, audio)
    behind = OutputOptions(background=str(picture), codec="h264")
    assert "beach.png: this is the input" in refusal(audio, picture, behind, "head")
    own = OutputOptions(certificate=audio, key=secret)
    assert "line.c2pa: this is the input" in refusal(audio, tmp_path / "line.webm", own)
    os.link(audio, output)
    assert "line.mp4: this is the input" in refusal(audio, output)
    output.unlink()
    assert "line.wav: is not a video or audio file" in refusal(audio, output)


@pytest.mark.parametrize("name", ["identities/anna/idle.mp4", "jobs/a.mp4", "signing/a.mp4"])
def test_nothing_is_written_into_managed_folders(
    tmp_path: Path, audio: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    home = tmp_path / "home"
    output = home / name
    output.parent.mkdir(parents=True)
    monkeypatch.setenv("TALKHEAD_HOME", str(home))
    assert "is in a folder that talkhead manages" in refusal(audio, output)
    (tmp_path / "link").symlink_to(output.parent)
    assert "is in a folder that talkhead manages" in refusal(audio, tmp_path / "link" / "b.mp4")
    assert "is not a video or audio file" in refusal(audio, home / "line.mp4")


def test_a_folder_of_images_is_not_replaced_with_the_sound_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "sound.wav").write_bytes(b"sound")
    options = OutputOptions(codec="png")
    words = "images: the input sound.wav is in it"
    assert words in refusal(folder / "sound.wav", folder, options)


def test_outputs_that_cannot_be_written_are_refused_before_the_work(
    tmp_path: Path, audio: Path
) -> None:
    srt = tmp_path / "line.srt"
    srt.write_text("by hand")
    with pytest.raises(TalkheadError, match=r"line.srt: already exists"):
        speak(audio, output=tmp_path / "line.mp4", options=OutputOptions(subtitles="srt"))
    assert srt.read_text() == "by hand"
    assert "the path is not UTF-8" in refusal(audio, tmp_path / os.fsdecode(b"caf\xe9.mp4"))
