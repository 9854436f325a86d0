"""The idle clip: played forward and backward without a cut, read as written, packed, unpacked."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from damage import accepted
from synthetic_head import make_background
from torch import Tensor

from talkhead import media
from talkhead.app.composer import idle_clip as idle_module
from talkhead.app.composer.idle_clip import (
    FACE,
    KEYFRAME_EVERY,
    REVERSE_BYTES,
    TRACKS,
    choose_frames,
    idle_frames,
    load_idle,
    make_clip,
    ping_pong,
    save_idle,
)
from talkhead.crops import small_size
from talkhead.dataset import IdentityDataset
from talkhead.errors import MediaError, PackageError
from talkhead.identity import (
    EncoderPart,
    FittedPart,
    IdentityPackage,
    Manifest,
    PackageWriter,
    SourceVideo,
)
from talkhead.progress import SilentProgress
from talkhead.types import UInt8

N_CLIP = 2 * KEYFRAME_EVERY + 7


@pytest.mark.parametrize("n_clip", [2, 3, 7, 25, 26, 100])
@pytest.mark.parametrize("n_frames", [0, 1, 2, 24, 199])
def test_ping_pong_never_stalls_or_jumps(n_clip: int, n_frames: int) -> None:
    numbers = ping_pong(n_clip, n_frames)
    assert len(numbers) == n_frames and ((numbers >= 0) & (numbers < n_clip)).all()
    assert (np.abs(np.diff(numbers)) == 1).all()
    assert numbers[:n_clip].tolist() == list(range(min(n_clip, n_frames)))


def test_ping_pong_returns_in_reverse_order() -> None:
    assert ping_pong(4, 14).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
    assert ping_pong(1, 4).tolist() == [0, 0, 0, 0]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of N_CLIP frames that all differ."""
    path = tmp_path_factory.mktemp("idle") / "idle.mp4"
    frames = (np.roll(make_background(48, 64), 3 * i, axis=1) // 2 + i for i in range(N_CLIP))
    media.write_video(path, (f.astype(np.uint8) for f in frames), keyframe_every=KEYFRAME_EVERY)
    return path


@pytest.fixture(scope="module")
def forward(clip: Path) -> list[UInt8]:
    frames = list(media.read_frames(clip))
    assert len(frames) == N_CLIP
    return frames


@pytest.mark.parametrize("held_bytes", [0, REVERSE_BYTES])
@pytest.mark.parametrize(
    ("n_clip", "n_frames"),
    [(N_CLIP, 3 * N_CLIP), (26, 80), (27, 60), (2, 5), (1, 3), (N_CLIP, 10), (5, 0)],
)
def test_idle_frames_are_those_of_the_clip_in_that_order(
    clip: Path,
    forward: list[UInt8],
    n_clip: int,
    n_frames: int,
    held_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(idle_module, "REVERSE_BYTES", held_bytes)
    numbers = ping_pong(n_clip, n_frames)
    found = list(idle_frames(clip, n_clip, 0, n_frames))
    assert len(found) == n_frames
    for track_index, frame in zip(numbers, found, strict=True):
        assert np.array_equal(frame, forward[track_index])


@pytest.mark.parametrize("held_bytes", [0, REVERSE_BYTES])
@pytest.mark.parametrize(
    ("first", "after", "n_read"),
    [
        (0, 10, 10),
        (50, 70, 20),  # over the turn
        (N_CLIP + 2, N_CLIP + 9, 7),  # backward
        (2 * N_CLIP - 8, 2 * N_CLIP + 1, 9),  # and forward again
    ],
)
def test_only_shown_frames_are_read(
    clip: Path,
    forward: list[UInt8],
    first: int,
    after: int,
    n_read: int,
    held_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(idle_module, "REVERSE_BYTES", held_bytes)
    asked: list[int] = []

    def noted(path: Path, *, start_s: float, n_frames: int) -> Generator[UInt8, None, None]:
        asked.append(n_frames)
        return media.read_frames(path, start_s=start_s, n_frames=n_frames)

    monkeypatch.setattr(idle_module, "media", SimpleNamespace(read_frames=noted, probe=media.probe))
    found = list(idle_frames(clip, N_CLIP, first, after))
    numbers = ping_pong(N_CLIP, after - first, first)
    assert sum(asked) == n_read == len(found)
    assert all(np.array_equal(forward[n], f) for n, f in zip(numbers, found, strict=True))


# ---------------------------------------------------------------------------- from a dataset


def with_usable(dataset: IdentityDataset, unusable: list[int]) -> IdentityDataset:
    usable = np.ones(len(dataset), dtype=bool)
    usable[unusable] = False
    return replace(dataset, tracks=replace(dataset.tracks, usable=usable))


@pytest.mark.parametrize("n_held", [1, 4])
def test_large_pictures_play_backwards_a_few_at_a_time(
    clip: Path, forward: list[UInt8], n_held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle_module, "REVERSE_BYTES", 0)
    monkeypatch.setattr(idle_module, "MAX_REVERSE_BYTES", n_held * forward[0].nbytes)
    asked: list[int] = []

    def noted(path: Path, *, start_s: float, n_frames: int) -> Generator[UInt8, None, None]:
        asked.append(n_frames)
        return media.read_frames(path, start_s=start_s, n_frames=n_frames)

    monkeypatch.setattr(idle_module, "media", SimpleNamespace(read_frames=noted, probe=media.probe))
    found = list(idle_frames(clip, N_CLIP, N_CLIP, N_CLIP + 9))
    assert max(asked) <= n_held and len(found) == 9
    for track_index, frame in zip(ping_pong(N_CLIP, 9, N_CLIP), found, strict=True):
        assert np.array_equal(frame, forward[track_index])


def test_the_longest_run_of_training_frames_is_kept(head_dataset: IdentityDataset) -> None:
    n_train = int(head_dataset.tracks.train.sum())
    assert choose_frames(head_dataset) == (0, n_train)
    for gap, run in (((5, 14), (14, n_train)), ((24, 31), (0, 24)), ((0, 4), (4, n_train))):
        assert choose_frames(with_usable(head_dataset, list(range(*gap)))) == run


@pytest.mark.parametrize("frames", [[10], [9, 10, 11]])
def test_occluded_frames_are_not_kept(head_dataset: IdentityDataset, frames: list[int]) -> None:
    """Occlusions of any length are excluded, while short gaps of the tracker are bridged."""
    occluded = head_dataset.tracks.occluded.copy()
    occluded[frames, 0] = True
    spoilt = replace(head_dataset, tracks=replace(head_dataset.tracks, occluded=occluded))
    run = frames[-1] + 1, int(head_dataset.tracks.train.sum())
    assert choose_frames(spoilt) == run
    assert choose_frames(with_usable(spoilt, [frames[0] - 1, frames[-1] + 1])) == run


def test_a_cut_ends_a_run_unless_all_runs_would_be_short(
    head_dataset: IdentityDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    landmarks = head_dataset.tracks.landmarks.copy()
    landmarks[15:, :, 0] += 0.15 * np.linalg.norm(landmarks[0, 33, :2] - landmarks[0, 263, :2])
    edited = replace(head_dataset, tracks=replace(head_dataset.tracks, landmarks=landmarks))
    n_train = int(edited.tracks.train.sum())
    assert choose_frames(edited) == (0, n_train)
    monkeypatch.setattr(idle_module, "MIN_UNCUT", 12)
    assert choose_frames(edited) == (16, n_train)


def test_a_short_gap_does_not_end_a_run(head_dataset: IdentityDataset) -> None:
    n_train = int(head_dataset.tracks.train.sum())
    assert choose_frames(with_usable(head_dataset, [5, 6, 20, 21, 22])) == (0, n_train)


def test_clip_of_a_dataset(head_dataset: IdentityDataset) -> None:
    """The clip has the tracks of the run, and the mesh of its codes matches its landmarks."""
    idle = make_clip(head_dataset, Path("person.mp4"), slice(8, 20))
    assert len(idle) == 12
    assert np.array_equal(idle.codes, head_dataset.tracks.codes[8:20])
    assert np.allclose(idle.crop_ks, head_dataset.crop_ks[8:20])
    for i in (0, 11):
        points = idle.landmarks(i, idle.codes[i : i + 1])[0]
        assert np.abs(points - head_dataset.crop_landmarks()[8 + i]).max() < 0.01
        mask = idle.mask(i)
        assert mask.shape == (128, 96)
        true = head_dataset.masks[8 + i].astype(np.float32) / 255
        far = cv2.blur(true, (13, 13))  # 0 or 1 where no border is near
        assert np.allclose(mask[far == 0], 0, atol=0.01)
        assert np.allclose(mask[far == 1], 1, atol=0.01)


@pytest.fixture(scope="module")
def saved(
    head_dataset: IdentityDataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[IdentityPackage, Path]:
    """A package with an idle clip, and the video that it was cut from."""
    folder = tmp_path_factory.mktemp("saved")
    video, info = folder / "person.mp4", head_dataset.info
    background = make_background(info.height, info.width)
    frames = (np.roll(background, 2 * i, axis=0) for i in range(info.n_frames))
    media.write_video(video, frames, crf=10)
    with PackageWriter(folder / "anna") as writer:
        n_idle = save_idle(video, with_usable(head_dataset, [0, 1, 2]), writer, SilentProgress())
        writer.add_tensors("warp.safetensors", head_dataset.face.tensors())
        part = FittedPart("warp.safetensors")
        manifest = Manifest(
            name="anna",
            seed=0,
            preset="preview",
            source=SourceVideo("person.mp4", "0" * 64, 1.6, info.width, info.height, 25.0),
            encoder=EncoderPart("mel"),
            predictor=part,
            renderers={"warp": part},
            default_renderer="warp",
            frame_width=info.width,
            frame_height=info.height,
            n_frames=n_idle,
        )
        return writer.finish(manifest), video


def test_saved_and_loaded(
    saved: tuple[IdentityPackage, Path], head_dataset: IdentityDataset
) -> None:
    package, video = saved
    n_train = int(head_dataset.tracks.train.sum())
    kept, idle = make_clip(head_dataset, video, slice(3, n_train)), load_idle(package)
    assert len(idle) == n_train - 3 == package.manifest.n_frames
    for name in ("codes", "viewmats", "origins", "masks", "background"):
        assert np.array_equal(getattr(idle, name), getattr(kept, name)), name
    assert (idle.crop_height, idle.crop_width, idle.scale) == (128, 96, 1.0)
    assert idle.masks.shape[1:] == small_size((128, 96))
    assert np.array_equal(idle.face.basis, kept.face.basis)


@pytest.mark.parametrize("file", [TRACKS, FACE])
def test_damaged_parts_are_refused(
    saved: tuple[IdentityPackage, Path], monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    package, _ = saved
    stored = {name: package.tensors(name) for name in (TRACKS, FACE)}

    def load(damaged: Mapping[str, Tensor]) -> object:
        held = {**stored, file: damaged}
        monkeypatch.setattr(IdentityPackage, "tensors", lambda _, name: held[name])
        return load_idle(package)

    free = {  # any number of triangles, any coefficients
        FACE: {("triangles", "longer 0"), ("triangles", "shorter 0")},
        TRACKS: {("blendshapes", "other byte"), ("blendshapes", "missing")},
    }
    assert accepted(stored[file], load) == free[file]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("size", [128, 96, 33, 1024, 1024], "which do not match the crops"),
        ("size", [112, 96, 33, 28, 24], "is not the 22,176 bytes it should be"),
        ("scale", [0.02], "do not fit the images"),
        ("origins", [[-4000.0, 3.0]] * 33, "crops outside of the images"),
        ("viewmats", [[[0.0] * 4] * 4] * 33, "holds a matrix that is not a head pose"),
    ],
)
def test_tracks_that_contradict_each_other_are_refused(
    saved: tuple[IdentityPackage, Path],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    values: list[Any],
    message: str,
) -> None:
    package, _ = saved
    stored = {file: package.tensors(file) for file in (TRACKS, FACE)}
    assert len(stored[TRACKS]["codes"]) == 33
    stored[TRACKS][name] = torch.tensor(values, dtype=stored[TRACKS][name].dtype)
    monkeypatch.setattr(IdentityPackage, "tensors", lambda _, name: stored[name])
    with pytest.raises(PackageError, match=f"idle\\.safetensors: .*{message}.*Import or fit"):
        load_idle(package)


def test_a_clip_that_is_shorter_than_its_tracks_is_reported(clip: Path) -> None:
    """The clip is truncated and its checksum is computed again; it is read forward and backward."""
    for first, after in ((N_CLIP - 3, N_CLIP + 9), (N_CLIP + 12, N_CLIP + 20), (0, 2 * N_CLIP)):
        with pytest.raises(MediaError, match=r"idle\.mp4: has only .* frames.*Import or fit"):
            list(idle_frames(clip, N_CLIP + 10, first, after))


@pytest.mark.parametrize("content", [b"", b"<MPD/>", b"#EXTM3U"])
def test_a_file_that_is_not_a_clip_is_reported(
    saved: tuple[IdentityPackage, Path], tmp_path: Path, content: bytes
) -> None:
    package = replace(saved[0], path=shutil.copytree(saved[0].path, tmp_path / "anna"))
    package.file("idle.mp4").write_bytes(content)
    with pytest.raises(PackageError, match=r"idle\.mp4: .*Import or fit this identity again"):
        load_idle(package)


def test_a_clip_of_another_size_is_reported(
    saved: tuple[IdentityPackage, Path], clip: Path, tmp_path: Path
) -> None:
    package = replace(saved[0], path=shutil.copytree(saved[0].path, tmp_path / "anna"))
    shutil.copyfile(clip, package.file("idle.mp4"))
    with pytest.raises(PackageError, match=r"idle\.mp4: has frames of 64x48, not 160x160"):
        load_idle(package)


def test_landmarks_stay_near_for_any_codes(saved: tuple[IdentityPackage, Path]) -> None:
    """Landmarks far away would take very long to draw, or would not be finite."""
    idle = load_idle(saved[0])
    codes = np.full((3, idle.face.n_codes), 1e4, np.float32)
    codes[1] *= -1.0
    codes[2] = np.float32(3e38)
    points = idle.landmarks(0, codes)
    assert np.isfinite(points).all() and np.abs(points).max() <= 4 * 128
    usual = idle.landmarks(0, idle.codes[:1])
    assert (np.abs(usual) < 300).all() and np.ptp(usual) > 30


def test_masks_that_unpack_to_more_than_allowed_are_refused(
    saved: tuple[IdentityPackage, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle_module, "MAX_MASK_BYTES", 33 * 32 * 24 - 1)
    monkeypatch.setattr(idle_module, "inflate", lambda *_: pytest.fail("unpacked anyway"))
    with pytest.raises(PackageError, match="masks of 25,344 bytes, where 25,343 are allowed"):
        load_idle(saved[0])


def test_the_pictures_of_the_clip_are_those_of_the_video(
    saved: tuple[IdentityPackage, Path], head_dataset: IdentityDataset
) -> None:
    """They begin with the first frame of the run, and differ slightly because they are encoded
    again.
    """
    package, video = saved
    source = list(media.read_frames(video))
    idle = list(media.read_frames(package.file("idle.mp4")))
    assert len(idle) == package.manifest.n_frames
    for i in (0, 10, len(idle) - 1):
        errors = [np.abs(idle[i].astype(int) - frame).mean() for frame in source]
        assert int(np.argmin(errors)) == 3 + i and min(errors) < 3
