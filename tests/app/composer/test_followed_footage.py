"""Footage that a person was not fitted on: tracked, matched in color, and re-lipped."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny import PERSON

from talkhead import media
from talkhead.app.composer import followed_footage
from talkhead.app.composer.followed_footage import FollowedFootage, _limited, follow
from talkhead.app.composer.idle_clip import load_idle
from talkhead.app.composer.source_clip import source_footage
from talkhead.app.fit import FitResult
from talkhead.app.home.identities import Home
from talkhead.errors import FootageError
from talkhead.face import N_INNER
from talkhead.footage import Footage
from talkhead.identity import IdentityPackage
from talkhead.preprocess.pipeline import STEPS
from talkhead.progress import SilentProgress
from talkhead.types import UInt8

START, N = 10.0, 40
GAIN, OFFSET = 0.75, 20.0


class Messages(SilentProgress):
    """Keeps messages."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


def part(start_s: float, n: int) -> list[UInt8]:
    with closing(media.read_frames(PERSON, start_s=start_s, n_frames=n)) as frames:
        return list(frames)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, footage: Path) -> Path:
    """Later frames of the sample, silent, in darker light, in a wider picture."""
    path = tmp_path_factory.mktemp("other") / "later.mp4"
    frames = [
        cv2.copyMakeBorder(
            (GAIN * frame + OFFSET).astype(np.uint8), 0, 16, 32, 32, cv2.BORDER_REPLICATE
        )
        for frame in part(START, N)
    ]
    media.write_video(path, frames)
    return path


@pytest.fixture(scope="module")
def followed(fitted: FitResult, other: Path, home: Path) -> FollowedFootage:
    package = IdentityPackage.load(fitted.package_path)
    return follow(package, Footage.open(other, needs_sound=False), Home(home), SilentProgress())


def test_motion_is_that_of_the_fitted_face(followed: FollowedFootage, fitted: FitResult) -> None:
    """The face model is the package's, every frame is used, and the sound is not missed.

    What cannot be compared between recordings is as usual, and what only fits need is not made.
    """
    idle = load_idle(IdentityPackage.load(fitted.package_path))
    dataset = followed.dataset
    assert len(dataset) == N and dataset.tracks.usable.all()
    np.testing.assert_array_equal(dataset.face.template, idle.face.template)
    np.testing.assert_array_equal(dataset.face.basis, idle.face.basis)
    usual, codes = np.median(idle.codes, axis=0), dataset.tracks.codes
    inner = slice(idle.face.n_mouth - N_INNER, idle.face.n_mouth)
    for unseen in (inner, slice(idle.face.clothes.start, None)):
        np.testing.assert_array_equal(codes[:, unseen], np.tile(usual[unseen], (N, 1)))
    unused = {step.artifact for step in STEPS if step.learns}
    assert unused and not unused & {path.name for path in dataset.path.iterdir()}
    depth, own = (np.median(v[:, 2, 3]) for v in (dataset.tracks.viewmats, idle.viewmats))
    # The picture is wider, so its assumed focal length is longer: the head is farther away.
    assert depth / own == pytest.approx(dataset.intrinsics[0, 0] / idle.intrinsics[0, 0], rel=0.05)


def test_the_light_is_matched(followed: FollowedFootage) -> None:
    """The darker light is found, and the renderer's own errors change it little."""
    skin = 0.6  # a typical color of the sample's skin, to which the offset is added
    expected = GAIN + OFFSET / 255.0 / skin
    assert np.median(followed.colors.gains) == pytest.approx(expected, abs=0.12)


def test_a_second_call_reads_what_is_stored(
    followed: FollowedFootage,
    fitted: FitResult,
    other: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(followed_footage, "_aligned", None)
    package = IdentityPackage.load(fitted.package_path)
    again = follow(package, Footage.open(other, needs_sound=False), Home(home), SilentProgress())
    np.testing.assert_array_equal(again.dataset.tracks.codes, followed.dataset.tracks.codes)
    np.testing.assert_array_equal(again.colors.gains, followed.colors.gains)


def test_only_the_mouth_is_changed_in_its_own_light(
    followed: FollowedFootage, fitted: FitResult, other: Path, home: Path
) -> None:
    """With its own codes, a frame of the footage stays nearly what it was."""
    from talkhead.app.avatar import load_avatar
    from talkhead.app.composer.frames import PasteFrameRenderer
    from talkhead.device import resolve_device

    package = IdentityPackage.load(fitted.package_path)
    source = source_footage(package, other, home, SilentProgress())
    avatar = load_avatar(package, None, resolve_device("cpu"))
    made = PasteFrameRenderer(avatar.renderer, source, source.clip.codes)
    own = list(source.frames(0, N))
    for number, frame in enumerate(made.frames(0, N)):
        change = np.abs(frame.astype(int) - own[number])
        assert 0.01 < (change.max(axis=2) > 0).mean() < 0.3
        inside = change[change.max(axis=2) > 0]
        assert inside.mean() < 14.0  # of 255: without the match of colors it would be over 25


def test_heads_turned_too_far_stay_as_filmed(followed: FollowedFootage, fitted: FitResult) -> None:
    idle = load_idle(IdentityPackage.load(fitted.package_path))
    tracks, messages = followed.dataset.tracks, Messages()
    turn = np.radians(30.0)
    turned = np.array(
        [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    )
    views = tracks.viewmats.copy()
    views[:5, :3, :3] = turned.astype(np.float32) @ views[:5, :3, :3]
    limited = _limited(replace(tracks, viewmats=views), idle, Path("later.mp4"), messages)
    assert not limited.usable[:5].any() and limited.usable[5:].all()
    (text,) = messages.texts
    assert text.startswith(f"later.mp4: in 5 of {N} frames the head is turned more than 12 degrees")


def test_another_face_is_refused(fitted: FitResult, home: Path, tmp_path: Path) -> None:
    """A face of other proportions is another person."""
    package = IdentityPackage.load(fitted.package_path)
    frames = [cv2.resize(frame, None, fx=1.0, fy=0.8) for frame in part(START, N)]
    media.write_video(tmp_path / "flat.mp4", [frame[: len(frame) // 2 * 2] for frame in frames])
    with pytest.raises(FootageError, match=r"flat.mp4: shows another person than"):
        follow(
            package,
            Footage.open(tmp_path / "flat.mp4", needs_sound=False),
            Home(home),
            SilentProgress(),
        )


def test_footage_without_a_face_is_refused(fitted: FitResult, home: Path, tmp_path: Path) -> None:
    package = IdentityPackage.load(fitted.package_path)
    media.write_video(tmp_path / "gray.mp4", [np.full((240, 320, 3), 90, np.uint8)] * 30)
    with pytest.raises(FootageError, match="no face was found in any of 30 frames"):
        follow(
            package,
            Footage.open(tmp_path / "gray.mp4", needs_sound=False),
            Home(home),
            SilentProgress(),
        )
