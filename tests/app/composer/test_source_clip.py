"""Speaking in the timeline of the footage: its frames, its frame rate, and the tracks of each
frame.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from tiny import LINE, PERSON

from talkhead import media
from talkhead.app.avatar import load_avatar
from talkhead.app.composer.source_clip import (
    footage_of,
    interpolated,
    interpolated_poses,
    shown_pictures,
    source_footage,
)
from talkhead.app.fit import FitResult
from talkhead.app.request import RenderRequest
from talkhead.app.speak import render_video
from talkhead.errors import TalkheadError
from talkhead.identity import IdentityPackage
from talkhead.media.probing import frame_times
from talkhead.progress import SilentProgress


@pytest.mark.parametrize("rate", [24, 25, 30, 50, 60, Fraction(30000, 1001), Fraction(24000, 1001)])
def test_which_frames_a_dataset_shows(rate: Fraction | int, tmp_path: Path) -> None:
    """A dataset has the frames that the reader picks: pictures show their number and are read at 25
    fps."""
    n_frames, path = 40, tmp_path / "numbers.mov"
    frames = [np.full((16, 16, 3), 5 * track_index, np.uint8) for track_index in range(n_frames)]
    media.write_video(path, frames, codec="png", frame_rate=rate)
    check_shown(path, Fraction(rate), 5)


def check_shown(path: Path, rate: Fraction, step: int) -> None:
    """The times of a video determine which pictures are read, at two rates."""
    times = frame_times(path)
    for wanted in (Fraction(25), rate):
        frames = media.read_frames(path, frame_rate=wanted)
        read = [round(float(frame.mean()) / step) for frame in frames]
        assert shown_pictures(times, wanted, len(read)).tolist() == read


def test_a_late_start_and_changing_rates(tmp_path: Path) -> None:
    """Pictures from 0.08 s on at 30 fps, every seventh missing, with audio from 0 s on."""
    path = tmp_path / "late.mov"
    frames = [np.full((16, 16, 3), 5 * track_index, np.uint8) for track_index in range(40)]
    media.write_video(tmp_path / "numbers.mov", frames, codec="png", frame_rate=30)
    ffmpeg = [media.ffmpeg_path(), "-v", "error", "-i", tmp_path / "numbers.mov", "-i", LINE]
    drop = "select=mod(n\\,7),setpts=PTS+0.08/TB"
    options = ["-vf", drop, "-fps_mode", "passthrough", "-c:v", "png", "-c:a", "pcm_s16le"]
    subprocess.run([*map(str, ffmpeg), *options, "-t", "1.4", str(path)], check=True)
    times = frame_times(path)
    assert abs(float(times[0]) - (0.08 + 1 / 30)) < 1e-3 and len(times) == 34
    for rate in (Fraction(25), Fraction(30)):
        pictures = media.read_frames(path, frame_rate=rate)
        read = [round(float(frame.mean()) / 5) for frame in pictures]
        kept = [track_index for track_index in range(40) if track_index % 7]
        shown = shown_pictures(times, rate, len(read))
        assert [kept[place] for place in shown] == read


def test_interpolation() -> None:
    """Exact at frames with values, linear in between, constant beyond the ends."""
    at = np.array([0.0, 2.0, 4.0])
    values = np.array([[0.0, 1.0], [2.0, 1.0], [6.0, 1.0]], np.float32)
    found = interpolated(values, at, np.array([-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 9.0]))
    assert found[:, 0].tolist() == [0.0, 0.0, 1.0, 2.0, 4.0, 6.0, 6.0]
    assert (found[:, 1] == 1.0).all()
    poses = np.repeat(np.eye(4, dtype=np.float32)[None], 3, axis=0)
    poses[:, :3, :3] = Rotation.from_euler("y", [[0.0], [20.0], [30.0]], degrees=True).as_matrix()
    poses[:, 2, 3] = [4.0, 5.0, 6.0]
    made = interpolated_poses(poses, at, np.array([1.0, 2.0, 9.0]))
    angles = Rotation.from_matrix(made[:, :3, :3]).as_euler("yxz", degrees=True)[:, 0]
    assert np.allclose(angles, [10.0, 20.0, 30.0], atol=1e-4)
    assert np.allclose(made[:, 2, 3], [4.5, 5.0, 6.0]) and np.allclose(made[:, 3], [0, 0, 0, 1])
    one = interpolated_poses(poses[1:2], at[:1], np.array([0.0, 5.0]))
    assert np.allclose(one, poses[[1, 1]], atol=1e-6)


def test_footage_is_lip_synced_to_another_line(
    fitted: FitResult, footage: Path, home: Path, tmp_path: Path
) -> None:
    """The output has the same frames and rate, with the audio cut or padded; only the mouth
    differs."""
    person = load_avatar(IdentityPackage.load(fitted.package_path), None, torch.device("cpu"))
    line = RenderRequest(PERSON, tmp_path / "out.mp4", source=footage)
    with pytest.raises(TalkheadError, match=r"person.mp4: lasts .* Shorten the audio"):
        render_video(person, line, tmp_path / "work", home, SilentProgress())
    line = RenderRequest(footage, tmp_path / "out.mp4", source=footage)
    n_frames, _ = render_video(person, line, tmp_path / "work", home, SilentProgress())
    own, made = (list(media.read_frames(path)) for path in (footage, line.output))
    assert n_frames == len(own) == len(made)
    changes = [np.abs(a.astype(int) - b) for a, b in zip(own, made, strict=True)]
    points = source_footage(person.package, footage, home, SilentProgress()).clip
    middle = len(own) // 2
    top = int(points.landmarks(middle, points.codes[middle : middle + 1])[0, 10, 1] / points.scale)
    top += int(points.origins[middle, 1])
    assert changes[middle][:top].mean() < 4.0, "encoded once more"
    assert max(change.max() for change in changes) > 60, "the mouth is not the footage's"


def test_short_gaps_are_bridged_but_not_over_an_occluder(
    fitted: FitResult, footage: Path, home: Path
) -> None:
    package = IdentityPackage.load(fitted.package_path)
    clip = source_footage(package, footage, home, SilentProgress()).clip
    tracks = clip.dataset.tracks
    usable, occluded = tracks.usable.copy(), tracks.occluded.copy()
    usable[5:8] = False
    occluded[12:15, 0] = True
    dataset = replace(clip.dataset, tracks=replace(tracks, usable=usable, occluded=occluded))
    known = footage_of(dataset, footage, clip.face).known
    assert known[3:12].all() and not known[12:15].any() and known[15:18].all()


@pytest.mark.parametrize("rate", [25, Fraction(30000, 1001)])
def test_footage_that_goes_on(
    fitted: FitResult, footage: Path, home: Path, tmp_path: Path, rate: int | Fraction
) -> None:
    """It covers a duration by as few frames as possible, with no frame twice in a row."""
    package = IdentityPackage.load(fitted.package_path)
    source = source_footage(package, footage, home, SilentProgress())
    video = tmp_path / "other.mp4"
    kept = media.read_frames(footage, n_frames=30, frame_rate=rate)
    media.write_video(video, kept, frame_rate=rate)
    source = footage_of(source.clip.dataset, video, source.clip.face)
    source = replace(source, known=source.known & (np.arange(30) != 27))
    assert source.lasting(0.5) == source, "it is never shorter"
    assert len(source.lasting(float(31 / Fraction(rate)))) == 31
    longer = source.lasting(float(70.2 / Fraction(rate)))
    assert len(longer) == 71
    shown = [*range(30), *range(28, -1, -1), *range(1, 13)]
    assert [longer.track_index(i) for i in range(71)] == [None if i == 27 else i for i in shown]
    own = list(media.read_frames(video, frame_rate=rate))
    for first, after in ((0, 71), (25, 40), (40, 62), (70, 71)):
        found = list(longer.frames(first, after))
        assert len(found) == after - first
        for i, frame in zip(shown[first:after], found, strict=True):
            np.testing.assert_array_equal(frame, own[i])
    assert longer.codes(np.zeros((80, 3), np.float32)).shape == (71, 3)


def test_another_frame_rate(fitted: FitResult, footage: Path, home: Path, tmp_path: Path) -> None:
    """At 30 fps five of six frames have the dataset's own tracks, one has those of its
    neighbors."""
    package = IdentityPackage.load(fitted.package_path)
    at_25 = source_footage(package, footage, home, SilentProgress())
    faster = tmp_path / "30.mp4"
    frames = media.read_frames(footage, frame_rate=30)
    media.write_video(faster, frames, frame_rate=30)
    at_30 = footage_of(at_25.clip.dataset, faster, at_25.clip.face)
    assert at_30.frame_rate == 30 and abs(len(at_30) - len(at_25) * 30 / 25) <= 1
    assert at_30.known.mean() > 0.9
    tracks = at_25.clip.dataset.tracks
    shown = shown_pictures(frame_times(faster), Fraction(25), len(tracks.usable))
    usable = np.flatnonzero(tracks.usable)
    assert np.allclose(at_30.clip.codes[shown[usable]], tracks.codes[usable], atol=1e-6)
    assert np.allclose(at_30.clip.viewmats[shown[usable]], tracks.viewmats[usable], atol=1e-4)
    spoken = np.arange(len(at_25), dtype=np.float32)[:, None]
    assert np.allclose(at_30.codes(spoken)[:-1, 0], np.arange(len(at_30) - 1) * 25 / 30, atol=1e-3)
    assert sum(1 for _ in at_30.frames(3, len(at_30))) == len(at_30) - 3
