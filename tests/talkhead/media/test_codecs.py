"""Round trips through every codec, on tiny pictures."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from talkhead import media
from talkhead.errors import MediaError
from talkhead.media.codecs import CODECS, choose_codec, default_name
from talkhead.media.mux import join_segments
from talkhead.media.process import report
from talkhead.types import UInt8

SIZE = 64
WITH_ALPHA = [codec.name for codec in CODECS.values() if codec.alpha]


def pictures(n_frames: int, channels: int = 3) -> list[UInt8]:
    """A soft disc that moves over a gradient; pictures are smooth enough for every codec."""
    y, x = np.mgrid[:SIZE, :SIZE]
    made = []
    for i in range(n_frames):
        disc = np.clip(1.5 - np.hypot(x - 20 - 2 * i, y - 32) / 16, 0, 1)
        color = np.stack([40 + 2 * x, 60 + 150 * disc, 200 - 2 * y], axis=2)
        picture = np.dstack([color, 255 * disc]) if channels == 4 else color
        made.append(np.rint(picture).astype(np.uint8))
    return made


def decoded(path: Path, channels: int = 3) -> UInt8:
    """All pictures of a file, [F, SIZE, SIZE, channels], decoded by ffmpeg alone."""
    alpha_too = ["-c:v", "libvpx-vp9"] if path.suffix == ".webm" else []
    pixels = "rgba" if channels == 4 else "rgb24"
    command = [media.ffmpeg_path(), "-v", "error", *alpha_too, "-i", str(path)]
    command += ["-f", "rawvideo", "-pix_fmt", pixels, "-fps_mode", "passthrough", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, SIZE, SIZE, channels)


@pytest.mark.parametrize("name", CODECS)
def test_round_trip(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"it's a (tēst) #1{CODECS[name].picture_suffix}"
    frames = pictures(6)
    assert media.write_video(path, frames, codec=name) == 6
    info = media.probe(path)
    assert (info.width, info.height, info.frame_rate) == (SIZE, SIZE, 25)
    assert info.duration_s == pytest.approx(0.24, abs=0.011) and not info.has_audio
    back = np.stack(list(media.read_frames(path))).astype(int)
    assert back.shape == (6, SIZE, SIZE, 3)
    distance = np.abs(back - np.stack(frames)).mean()
    assert distance <= (0 if name == "png" else 4)
    if name != "png":
        assert "bt709" in report("-i", str(path))


@pytest.mark.parametrize("name", WITH_ALPHA)
def test_alpha_is_kept(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"head{CODECS[name].picture_suffix}"
    frames = np.stack(pictures(4, channels=4))
    media.write_video(path, frames, codec=name)
    back = decoded(path, 4).astype(int)
    assert np.abs(back[..., 3] - frames[..., 3]).max() <= (0 if name == "png" else 8)
    seen = frames[..., 3] > 128
    assert np.abs(back - frames)[seen].mean() <= 4


def test_other_codecs_refuse_alpha(tmp_path: Path) -> None:
    for name in set(CODECS).difference(WITH_ALPHA):
        with pytest.raises(ValueError, match=r"\[H, W, 3\]"):
            path = tmp_path / f"a{CODECS[name].picture_suffix}"
            media.write_video(path, pictures(1, channels=4), codec=name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("channels", [3, 4])
def test_segments_join_by_stream_copy(tmp_path: Path, name: str, channels: int) -> None:
    codec = CODECS[name]
    if channels == 4 and not codec.alpha:
        return
    frames = pictures(7, channels)
    parts = [tmp_path / f"part {i}{codec.picture_suffix}" for i in range(3)]
    for part, first, after in zip(parts, (0, 3, 6), (3, 6, 7), strict=True):
        media.write_video(part, frames[first:after], codec=name)
    whole = tmp_path / f"whole{codec.picture_suffix}"
    join_segments(parts, whole)
    apart = np.concatenate([decoded(part, channels) for part in parts])
    np.testing.assert_array_equal(decoded(whole, channels), apart)
    assert len(list(media.read_frames(whole))) == 7
    assert media.probe(whole).duration_s == pytest.approx(0.28, abs=0.011)


def test_height_scales_to_even_sizes(tmp_path: Path) -> None:
    frames = [np.full((36, 64, 3), 90, np.uint8)] * 2
    for height, size in ((18, (32, 18)), (17, (28, 16)), (72, (128, 72))):
        media.write_video(tmp_path / "a.mp4", frames, height=height)
        info = media.probe(tmp_path / "a.mp4")
        assert (info.width, info.height) == size


def test_frame_rates(tmp_path: Path) -> None:
    assert media.exact_rate(29.97) == Fraction(30000, 1001)
    assert media.exact_rate(25.0) == 25 and media.exact_rate(23.98) == Fraction(24000, 1001)
    assert media.exact_rate(12.5) == Fraction(25, 2)
    path = tmp_path / "a.mp4"
    media.write_video(path, pictures(6), frame_rate=Fraction(30000, 1001))
    assert media.probe(path).frame_rate == 29.97
    assert len(list(media.read_frames(path, frame_rate=Fraction(30000, 1001)))) == 6


def test_the_suffix_or_the_name_selects_the_codec() -> None:
    chosen = {"a.mp4": "h264", "a.MOV": "prores", "a.webm": "vp9", "a b.m4v": "h264"}
    assert {name: choose_codec(None, Path(name)).name for name in chosen} == chosen
    assert choose_codec("hevc", Path("a.mov")).name == "hevc"
    assert choose_codec("png", Path("frames.v2")).is_folder
    assert choose_codec(None).name == "h264"
    assert default_name("a", CODECS["vp9"]) == Path("a.webm")
    assert default_name("a", CODECS["png"]) == Path("a-frames")


@pytest.mark.parametrize(
    ("codec", "name", "words"),
    [
        ("divx", "a.mp4", "no codec 'divx'. Choose one of: h264, hevc, av1, prores, vp9, png"),
        (None, "a.avi", "a.avi: unsupported file extension"),
        (None, "a", "End the name with .mp4, .m4v, .mov or .webm"),
        ("prores", "a.mp4", "ProRes 4444 doesn't go into such a file. End the name with .mov"),
        ("av1", "a.mov", "End the name with .mp4"),
        ("png", "a.mp4", "go into a folder. Pass the name of one, without .mp4"),
    ],
)
def test_unsuitable_files_are_refused(codec: str | None, name: str, words: str) -> None:
    with pytest.raises(MediaError) as error:
        choose_codec(codec, Path(name))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_settings_that_a_codec_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no crf"):
        media.write_video(tmp_path / "a.mov", pictures(1), crf=20)
    with pytest.raises(ValueError, match="no presets"):
        media.write_video(tmp_path / "a.webm", pictures(1), preset="slow")
    with pytest.raises(MediaError, match="unsupported file extension"):
        media.write_video(tmp_path / "a.avi", pictures(1))
    assert not list(tmp_path.iterdir())
