"""Arrays as input audio and output pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import LINE

from talkhead import media
from talkhead.app.evaluate import evaluate, evaluate_pair
from talkhead.app.fit import FitResult, fit
from talkhead.app.request import audio_path
from talkhead.app.speak import speak, speak_frames
from talkhead.errors import TalkheadError
from talkhead.types import SAMPLE_RATE

WAVEFORM = np.sin(np.arange(4_000) / 9).astype(np.float32) * 0.3


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", ["float32", "float64", "int16"])
def test_a_waveform_becomes_a_file(tmp_path: Path, kind: str, channels: int) -> None:
    scale = 32767 if kind == "int16" else 1
    waveform = (scale * WAVEFORM).astype(kind)
    if channels == 2:
        waveform = np.stack([waveform, waveform], axis=1)
    path = audio_path((waveform, SAMPLE_RATE), tmp_path)
    assert path.parent == tmp_path and media.probe(path).audio_channels == channels
    assert np.abs(media.read_audio(path) - WAVEFORM).max() < 1e-3
    assert audio_path("a.wav", tmp_path) == Path("a.wav")


@pytest.mark.parametrize(
    ("sound", "words"),
    [
        (WAVEFORM, r"give the path of a file, not ndarray.*\(waveform, sample_rate\)"),
        ((WAVEFORM,), "give a pair"),
        ((WAVEFORM, 0), "a sample rate of 0 is"),
        ((WAVEFORM, "16k"), "a sample rate of '16k' is"),
        ((SAMPLE_RATE, WAVEFORM), "a sample rate of array"),
        ((np.zeros((0,), np.float32), SAMPLE_RATE), r"shape \(0,\) is not a waveform"),
        ((np.zeros((2, 3, 4)), SAMPLE_RATE), r"shape \(2, 3, 4\) is not a waveform"),
        ((np.zeros(9, np.int32), SAMPLE_RATE), "type int32 are not supported"),
        ((np.array(["a"]), SAMPLE_RATE), "are not supported"),
        ((np.array([np.nan]), SAMPLE_RATE), "not finite"),
        (3, "not int"),
    ],
)
def test_arrays_that_are_not_audio_are_refused(tmp_path: Path, sound: Any, words: str) -> None:
    with pytest.raises(TalkheadError, match=rf"(?s)audio: .*{words}"):
        audio_path(sound, tmp_path)
    assert not list(tmp_path.iterdir())


def test_arrays_where_files_are_expected(tmp_path: Path) -> None:
    frames: Any = np.zeros((9, 64, 64, 3), np.uint8)
    with pytest.raises(
        TalkheadError, match=r"video: give the path .* talkhead\.media\.write_video"
    ):
        fit(frames, home=tmp_path)
    with pytest.raises(TalkheadError, match="real: give the path"):
        evaluate_pair(frames, frames)
    with pytest.raises(TalkheadError):
        evaluate("anna", audio=frames, home=tmp_path)


def test_speaking_a_waveform(fitted: FitResult, home: Path, tmp_path: Path) -> None:
    sound = media.read_audio(LINE)[:8_000], SAMPLE_RATE
    with pytest.raises(TalkheadError, match="output: a waveform has no file name"):
        speak(sound, home=home)
    result = speak(sound, output=tmp_path / "a.mp4", home=home, device="cpu")
    assert result.n_frames == 12 and result.output_path == tmp_path / "a.mp4"


@pytest.mark.parametrize("mode", ["paste", "head"])
def test_pictures_as_arrays_are_those_of_the_video(
    fitted: FitResult, home: Path, tmp_path: Path, mode: str
) -> None:
    sound = media.read_audio(LINE)[:4_800], SAMPLE_RATE
    frames = list(speak_frames(sound, home=home, device="cpu", mode=mode))
    result = speak(sound, output=tmp_path / "a.mp4", home=home, device="cpu", mode=mode)
    assert len(frames) == result.n_frames == 8
    for frame, shown in zip(frames, media.read_frames(tmp_path / "a.mp4"), strict=True):
        assert frame.dtype == np.uint8 and frame.shape[2] == 3
        height, width = frame.shape[:2]
        assert np.abs(frame.astype(int) - shown[:height, :width]).mean() < 4.0  # encoded once more
    with pytest.raises(TalkheadError, match="there is no mode 'whole'"):
        speak_frames(sound, home=home, mode="whole")
