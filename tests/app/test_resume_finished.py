"""Finished files of the fitted sample person: segments, captions and backgrounds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io.wavfile
from tiny import LINE

from talkhead import media
from talkhead.app import resume as lines
from talkhead.app.fit import FitResult
from talkhead.app.output.verification import verify
from talkhead.app.request import OutputOptions
from talkhead.app.speak import speak
from talkhead.errors import TalkheadError
from talkhead.types import UInt8

N_FRAMES = 25


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The line's first second."""
    path = tmp_path_factory.mktemp("sound") / "one second.wav"
    rate, samples = scipy.io.wavfile.read(LINE)
    scipy.io.wavfile.write(path, rate, samples[:rate])
    return path


def images(folder: Path) -> UInt8:
    """All images of a folder, [F, H, W, channels]."""
    files = sorted(folder.glob("*.png"))
    return np.stack(
        [cv2.imdecode(np.fromfile(f, np.uint8), cv2.IMREAD_UNCHANGED) for f in files]
    ).astype(np.uint8)


@pytest.mark.parametrize("behind", [None, "video"])
def test_segments_show_the_same_as_one_piece(
    fitted: FitResult,
    home: Path,
    second: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    behind: str | None,
) -> None:
    """Captions cross a segment's border, and a background video loops within a segment."""
    if behind is not None:
        behind = str(tmp_path / "loop.mp4")
        media.write_video(behind, [np.full((40, 40, 3), 8 * i, np.uint8) for i in range(14)])
    options = OutputOptions(
        codec="png",
        height=96,
        background=behind,
        subtitles="burn",
        transcript="People often",
        language="xx",
        provenance=False,
    )
    made = []
    for n_frames in (lines.SEGMENT_FRAMES, 10):
        monkeypatch.setattr(lines, "SEGMENT_FRAMES", n_frames)
        output = tmp_path / f"by {n_frames}"
        speak(second, home=home, output=output, mode="head", options=options, device="cpu")
        made.append(images(output))
        assert "People often" in (output / "subtitles.srt").read_text()
    whole, parts = made
    assert whole.shape[:2] == (N_FRAMES, 96) and whole.shape[3] == (3 if behind else 4)
    np.testing.assert_array_equal(parts, whole)
    if behind is None:
        corner = whole[:, :4, :4, 3]
        assert whole[..., 3].max() == 255 and corner.max() < 30
    else:
        assert len(set(whole[:14, 0, 0, 0].tolist())) > 10
    assert {path.name for path in tmp_path.iterdir()} <= {"loop.mp4", "by 750", "by 10"}


def test_a_line_states_the_consent(
    fitted: FitResult, home: Path, second: Path, tmp_path: Path
) -> None:
    output = tmp_path / "a line's.webm"
    speak(second, home=home, output=output, mode="head", device="cpu")
    verdict = verify(output)
    assert verdict.ok and verdict.claims["consent"] == "Yes."
    assert verdict.claims["identity"] == fitted.name
    assert (home / "signing" / "key.pem").is_file()


def test_impossible_requests_are_refused_before_the_work(
    fitted: FitResult, home: Path, second: Path, tmp_path: Path
) -> None:
    (tmp_path / "c.pem").write_text("no certificate")
    pem = tmp_path / "c.pem"
    cases = [
        ("a.mp4", OutputOptions(codec="prores"), "doesn't go into such a file"),
        ("a.mp4", OutputOptions(yaw=5.0), "need --mode head"),
        ("a.mp4", OutputOptions(certificate=pem, key=pem), "contains no certificate"),
        ("a.mp4", OutputOptions(subtitles="burn", transcript="你好", language="zh"), "has no 你"),
        ("a.mp4", OutputOptions(subtitles="srt", language="fr"), "need the text"),
    ]
    for name, options, words in cases:
        with pytest.raises(TalkheadError, match=words):
            speak(second, home=home, output=tmp_path / name, options=options, device="cpu")
        assert [path.name for path in tmp_path.iterdir()] == ["c.pem"]
