"""Cuts of videos whose cuts are known: hard ones, dissolves, flashes, short shots."""

from __future__ import annotations

import subprocess
import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from talkhead import media
from talkhead.app.composer.source_clip import shown_pictures
from talkhead.app.dubbing.shots import find_cuts, find_shots
from talkhead.errors import MediaError
from talkhead.media.probing import frame_times, own_rate
from talkhead.progress import SilentProgress
from talkhead.types import Float64, UInt8

HEIGHT, WIDTH = 72, 128
RATE = Fraction(25)


def scene(seed: int, n_frames: int) -> Float64:
    """Frames [n, h, w, 3] of a smooth picture before which something sways, with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH] / np.array([HEIGHT, WIDTH])[:, None, None]
    waves = rng.uniform(1, 6, (3, 2))
    base = [128 + 90 * np.sin(a * x + b * y + 6 * seed + i) for i, (a, b) in enumerate(waves)]
    frames = np.repeat(np.stack(base, axis=-1)[None], n_frames, axis=0)
    for i in range(n_frames):
        left = 50 + round(8 * np.sin(i / 4 + seed))
        frames[i, 20:60, left : left + 30] = (
            rng.uniform(60, 200, 3) if i == 0 else frames[0, 40, 60]
        )
    return np.asarray(frames + rng.normal(0, 3, frames.shape))


def pictures(*parts: Float64) -> UInt8:
    return np.clip(np.concatenate(parts), 0, 255).astype(np.uint8)


def dissolve(before: Float64, after: Float64, n: int) -> UInt8:
    """Pass from one scene to the next during n frames of both."""
    share = (np.arange(1, n + 1) / (n + 1))[:, None, None, None]
    return pictures(before[:-n], (1 - share) * before[-n:] + share * after[:n], after[n:])


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(60)])
def test_hard_cuts_are_exact(rate: Fraction) -> None:
    lengths = [40, 61, 33, 90]
    frames = pictures(*(scene(i, n) for i, n in enumerate(lengths)))
    assert find_cuts(frames, rate) == np.cumsum(lengths)[:-1].tolist()


def test_a_scene_and_a_still_picture_have_no_cuts() -> None:
    assert find_cuts(scene(3, 200).clip(0, 255).astype(np.uint8), RATE) == []
    assert find_cuts(np.full((80, HEIGHT, WIDTH, 3), 90, np.uint8), RATE) == []
    assert find_cuts([], RATE) == []


@pytest.mark.parametrize("n", [4, 12, 20, 28])
def test_a_dissolve_is_one_cut(n: int) -> None:
    (cut,) = find_cuts(dissolve(scene(0, 100 + n), scene(1, 110 + n), n), RATE)
    assert abs(cut - (100 + n / 2)) <= max(3, n / 4)


def test_blended_frames_at_a_hard_cut_make_no_second_one() -> None:
    (cut,) = find_cuts(dissolve(scene(0, 61), scene(1, 81), 1), RATE)
    assert cut in (60, 61)


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_flashes_are_no_cuts(n: int) -> None:
    frames = pictures(scene(0, 100), scene(1, 100)).astype(np.float64)
    frames[40 : 40 + n] += 120
    frames[150 : 150 + n] += 120
    assert find_cuts(pictures(frames), RATE) == [100]


def test_short_shots_belong_to_the_one_before() -> None:
    a, short, b = scene(0, 60), scene(1, 9), scene(2, 60)
    assert find_cuts(pictures(a, short, b), RATE) == [69]
    assert find_cuts(pictures(a, scene(1, 10), b), RATE) == [60, 70]
    montage = [scene(i, 5) for i in range(3, 9)]
    assert find_cuts(pictures(a, *montage, b), RATE) == [90]


def test_a_picture_that_is_interrupted_briefly_remains_one_shot() -> None:
    a = scene(0, 120)
    assert find_cuts(pictures(a[:60], scene(1, 4), a[60:]), RATE) == []
    longer = pictures(a[:60], scene(1, 7), scene(2, 7), a[60:])
    assert find_cuts(longer, RATE) == [74], "too long for a flash"


def test_few_frames_are_in_memory() -> None:
    alive = list[weakref.ref[UInt8]]()
    most = 0

    def frames() -> Iterator[UInt8]:
        nonlocal most
        for frame in pictures(scene(0, 60), scene(1, 60), scene(2, 200)):
            own = frame.copy()
            alive.append(weakref.ref(own))
            most = max(most, sum(ref() is not None for ref in alive))
            yield own

    assert find_cuts(frames(), RATE) == [60, 120]
    assert most <= 20


# ------------------------------------------------------------------------------------------- files


def encode(path: Path, frames: UInt8, *options: str) -> Path:
    """Write frames losslessly; options precede the output's name."""
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", "25"]
    encoder = ["-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuv420p", "-preset", "veryfast"]
    command = [media.ffmpeg_path(), "-v", "error", *raw, "-i", "pipe:", *encoder, *options]
    subprocess.run([*command, str(path)], input=frames.tobytes(), check=True)
    return path


def test_shots_cover_a_video(tmp_path: Path) -> None:
    video = encode(tmp_path / "cut.mp4", pictures(scene(0, 40), scene(1, 50), scene(2, 5)))
    shots = find_shots(video, SilentProgress())
    assert [(shot.first, shot.after) for shot in shots] == [(0, 40), (40, 95)]
    still = encode(tmp_path / "still.mp4", np.full((30, HEIGHT, WIDTH, 3), 90, np.uint8))
    assert [(shot.first, shot.after) for shot in find_shots(still, SilentProgress())] == [(0, 30)]


def test_a_cut_is_at_the_frame_at_which_its_picture_is_shown(tmp_path: Path) -> None:
    gaps_ms = np.random.default_rng(2).choice([20, 33, 41, 90], 120)
    stamps = np.concatenate([[0], np.cumsum(gaps_ms)])
    choice = "+".join(f"eq(N,{i})*{stamp}" for i, stamp in enumerate(stamps[:120]))
    video = encode(
        tmp_path / "variable.mp4", pictures(scene(0, 50), scene(1, 70)),
        "-vf", f"settb=1/1000,setpts='{choice}'", "-fps_mode", "passthrough",
        "-enc_time_base", "1/1000", "-video_track_timescale", "1000",
    )  # fmt: skip
    first, second = find_shots(video, SilentProgress())
    shown = shown_pictures(frame_times(video), own_rate(video), second.after)
    assert second.first == int(np.argmax(shown >= 50)) == first.after
    assert first.first == 0 and second.first not in (50, 0), "frame numbers, not those of pictures"


def test_a_file_without_a_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "no.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(MediaError):
        find_shots(path, SilentProgress())
