"""Tracked video: takes, the cache, and mouths without head motion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from talkhead.app.evaluation.measures.sync_model import ANCHORS, steady_maps, steady_points
from talkhead.app.training import tracked_video as reading
from talkhead.app.training.tracked_video import (
    CROP_RISE,
    CROP_SCALE,
    MOUTH_POINTS,
    TrackedVideo,
    crop_steadily,
    find_takes,
    read_footage,
    read_joins,
    read_mouths,
    steady_template,
    track_video,
)
from talkhead.encoder.pase.corpus import LIPS_HEIGHT, LIPS_WIDTH
from talkhead.errors import FootageError
from talkhead.face import LIPS
from talkhead.media import write_video
from talkhead.progress import SilentProgress
from talkhead.storage import sha256_of, write_tensors
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32, Float64, UInt8

CENTRE = np.array([0.0, 0.8])


def face(random: np.random.Generator, template: Float32) -> Float64:
    """Landmarks [478, 2] in eye distances whose anchors are those of the template."""
    shape = random.uniform(-0.6, 0.6, (478, 2))
    shape[list(LIPS)] = random.uniform(-0.3, 0.3, (len(LIPS), 2)) + CENTRE
    shape[list(ANCHORS)] = template - template.mean(0)
    return shape


def pose(angle: float, scale: float, shift: tuple[float, float]) -> tuple[Float64, Float64]:
    """A rotation with scale [2, 2] and a shift [2]: pixels = points @ matrix + shift."""
    c, s = np.cos(angle), np.sin(angle)
    return scale * np.array([[c, s], [-s, c]]), np.array(shift)


def picture(matrix: Float64, shift: Float64, size: tuple[int, int] = (240, 260)) -> UInt8:
    """Image of a face whose brightness is a smooth pattern of the position on it."""
    y, x = np.mgrid[: size[0], : size[1]]
    places = (np.stack([x, y], -1) - shift) @ np.linalg.inv(matrix)
    gray = pattern(places)
    return np.repeat(gray[..., None], 3, 2).round().astype(np.uint8)


def pattern(places: Float64) -> Float64:
    return np.asarray(128 + 60 * np.sin(7 * places[..., 0]) + 50 * np.cos(9 * places[..., 1]))


def expected_crop() -> Float64:
    rows, columns = np.mgrid[:LIPS_HEIGHT, :LIPS_WIDTH]
    across = (columns - (LIPS_WIDTH - 1) / 2) * CROP_SCALE + CENTRE[0]
    down = (rows - (LIPS_HEIGHT - 1) / 2) * CROP_SCALE + CENTRE[1]
    return pattern(np.stack([across, down], -1))


def keep_tracking(video: Path, cache: Path, landmarks: Float32, waveform: Float32) -> None:
    """Write tracking results to the cache."""
    tracked = {
        "landmarks": torch.from_numpy(landmarks),
        "seen": torch.ones(len(landmarks), dtype=torch.bool),
        "waveform": torch.from_numpy(waveform),
    }
    write_tensors(cache / f"{video.stem}-{sha256_of(video)[:12]}.safetensors", tracked)


# ---------------------------------------------------------------------------------- takes


def test_takes_end_at_joins_and_gaps() -> None:
    seen = np.ones(400, bool)
    seen[310] = False
    takes = list(find_takes(seen, [0, 100, 180, 200], 75))
    assert takes == [(0, 100), (100, 180), (200, 310), (311, 400)]
    assert (180, 200) in find_takes(seen, [0, 100, 180, 200])


def test_the_last_takes_are_for_validation() -> None:
    blank = np.zeros((0, 478, 2), np.float32)
    takes = tuple((75 * i, 75 * i + 75) for i in range(10))
    one = TrackedVideo("a", "d", blank, np.zeros(0, bool), np.zeros(0, np.float32), takes)
    first, second = reading._with_validation([one, replace(one, name="b", takes=takes[:1])])
    assert (first.takes, first.validation) == (takes, ())
    assert (second.takes, second.validation) == ((), takes[:1])


@pytest.mark.parametrize("text", ["{", '{"file": "a.mp4"}', "3", '{"file": "a", "start": "x"}'])
def test_a_damaged_index(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.jsonl").write_text(text)
    with pytest.raises(FootageError, match=r"index\.jsonl: each line must be"):
        read_joins(tmp_path / "index.jsonl")


def test_folders_without_videos(tmp_path: Path) -> None:
    with pytest.raises(FootageError, match=r"no \.mp4"):
        read_footage(tmp_path, tmp_path, SilentProgress())


def test_late_audio_is_corrected(tmp_path: Path) -> None:
    """Audio that is 80 ms late loses its first two frames; frames beyond the audio are left out."""
    (tmp_path / "a.mp4").write_bytes(b"x")
    waveform = np.arange(5 * SAMPLE_RATE, dtype=np.float32)
    keep_tracking(tmp_path / "a.mp4", tmp_path, np.zeros((130, 478, 2), np.float32), waveform)
    (one,) = read_footage(tmp_path / "a.mp4", tmp_path, SilentProgress(), {"a": 80.0})
    assert one.waveform[0] == 2 * SAMPLE_RATE // FRAME_RATE
    assert one.takes == ((0, 125),) and len(one.landmarks) == len(one.seen) == 125


# --------------------------------------------------------------------------------- mouths


@pytest.mark.parametrize(("angle", "scale"), [(0.0, 50.0), (0.4, 55.0), (-0.5, 110.0)])
def test_a_crop_shows_the_same_skin_in_every_head_pose(angle: float, scale: float) -> None:
    """Each pixel is the brightness of its position on the face, at every angle and size."""
    template = steady_template()
    matrix, shift = pose(angle, scale, (120.0, 90.0))
    landmarks = face(np.random.default_rng(0), template) @ matrix + shift
    origins, maps = steady_maps(landmarks[None].astype(np.float32), template)
    crop = crop_steadily(picture(matrix, shift), origins[0], maps[0], CENTRE)
    assert crop.shape == (LIPS_HEIGHT, LIPS_WIDTH) and crop.dtype == np.uint8
    assert np.abs(crop - expected_crop()).max() < 4


def test_a_crop_of_a_large_picture_averages() -> None:
    """Stripes of single pixels give gray: there is no aliasing."""
    frame = np.zeros((800, 900, 3), np.uint8)
    frame[:, ::2] = 200
    crop = crop_steadily(frame, np.array([[450.0, 200.0]]), np.eye(2) / 400, CENTRE)
    assert np.abs(crop.astype(int) - 100).max() < 20


def test_mouths_do_not_move_with_the_head(tmp_path: Path) -> None:
    """Read from a file, points are the same and crops nearly the same in all poses, and points move
    as much as the jaw.
    """
    template, random = steady_template(), np.random.default_rng(1)
    shape = face(random, template)
    poses = [pose(0.1 * i, 50 + 3 * i, (110.0 + 4 * i, 90.0)) for i in range(5)]
    shapes = [shape.copy() for _ in poses]
    shapes[3][152] += [0.0, 0.2]
    landmarks = np.stack(
        [own @ matrix + shift for own, (matrix, shift) in zip(shapes, poses, strict=True)]
    ).astype(np.float32)
    video = tmp_path / "a.mp4"
    write_video(video, (picture(*one) for one in poses))
    seen = np.array([True, True, True, True, False])
    given = TrackedVideo("a", "a", landmarks, seen, np.zeros(0, np.float32), ((0, 5),))
    mouths = read_mouths(video, given, template, SilentProgress())
    points = mouths.points
    chin = MOUTH_POINTS.index(152)
    moved = points - points[0]
    assert moved[3, chin] == pytest.approx([0.0, 0.2], abs=1e-3)
    moved[3, chin] = 0
    assert np.abs(moved).max() < 1e-3
    crops = mouths.lips.astype(int)
    assert np.abs(crops[1:4] - crops[0]).mean() < 4 and crops[0].std() > 10
    assert not crops[4].any()
    middle = points[0, : len(LIPS)].mean(0) + np.array([0.0, CROP_RISE])
    wanted = pattern(middle[None, None])
    assert np.abs(crops[0, 15:17, 23:25].mean() - wanted).max() < 8
    assert np.allclose(points, steady_points(landmarks, template, MOUTH_POINTS))


def test_a_video_without_a_face_is_named(tmp_path: Path) -> None:
    blank = np.zeros((3, 478, 2), np.float32)
    given = TrackedVideo("a", "a", blank, np.zeros(3, bool), np.zeros(0, np.float32), ())
    with pytest.raises(FootageError, match=r"a\.mp4: no face"):
        read_mouths(tmp_path / "a.mp4", given, steady_template(), SilentProgress())


def test_tracked_videos_are_not_tracked_again(tmp_path: Path) -> None:
    """The cache depends on the file's content, not its date; here it is not a video at all."""
    video = tmp_path / "a.mp4"
    video.write_bytes(b"x")
    keep_tracking(video, tmp_path, np.ones((50, 478, 2), np.float32), np.zeros(32000, np.float32))
    one = track_video(video, tmp_path, SilentProgress())
    assert one.name == "a" and one.landmarks.shape == (50, 478, 2) and one.seen.all()
