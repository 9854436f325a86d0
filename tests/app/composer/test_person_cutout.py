"""Footage over another background: the person is kept, everything else is replaced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny import LINE

from talkhead import media
from talkhead.app.composer import cutout
from talkhead.app.composer.cutout import PersonCutout
from talkhead.app.composer.frames import IdleFootage
from talkhead.app.composer.idle_clip import IdleClip, load_idle
from talkhead.app.fit import FitResult
from talkhead.app.options import PictureOptions
from talkhead.app.request import OutputOptions, keeps_alpha
from talkhead.app.speak import speak
from talkhead.errors import TalkheadError
from talkhead.identity import IdentityPackage
from talkhead.images import read_image
from talkhead.media.codecs import CODECS
from talkhead.types import UInt8

RED = (255, 0, 0)
SIZE = (240, 320)


class KnownMasks:
    """A segmenter that finds the gray disk of `scene`, and a bright scrap beside it."""

    def __init__(self, scrap: bool = False) -> None:
        self.scrap, self.seen = scrap, list[tuple[int, ...]]()

    def smooth_mask(self, image: UInt8) -> UInt8:
        self.seen.append(image.shape)
        mask = (cv2.GaussianBlur(image[..., 0], (0, 0), 1.0) > 100).astype(np.uint8) * 255
        if self.scrap:
            mask[20:40, 20:40] = 255
        return np.asarray(mask, np.uint8)

    def close(self) -> None:
        pass


def scene() -> UInt8:
    """A gray disk in front of blue."""
    image = np.full((*SIZE, 3), (0, 0, 200), np.uint8)
    return np.asarray(cv2.circle(image, (160, 120), 60, (180, 180, 180), -1, cv2.LINE_AA))


@pytest.fixture
def idle(fitted: FitResult) -> IdleClip:
    """The idle clip of the sample, whose crop is nearly as large as the frames of `scene`."""
    clip = load_idle(IdentityPackage.load(fitted.package_path))
    return replace(clip, crop_height=200, crop_width=200, scale=1.0)


def cut(idle: IdleClip, background: UInt8 | None, scrap: bool = False) -> UInt8:
    """Cut the disk out of the scene."""
    made = PersonCutout(IdleFootage(idle))
    made.close()
    made._segmenter = KnownMasks(scrap)  # type: ignore[assignment]
    return made(scene(), 0, background)


def test_the_background_is_replaced_and_the_person_kept(idle: IdleClip) -> None:
    """Neither is mixed with the other away from the rim, and the rim has nothing of the old one."""
    behind = np.full((*SIZE, 3), RED, np.uint8)
    picture = cut(idle, behind).astype(int)
    from_center = np.hypot(*np.mgrid[-120:120, -160:160])
    assert (picture[from_center > 66] == RED).all()
    assert (picture[from_center < 54] == 180).all()
    # Without the old background's color, a mixture of gray and red has as much green as blue.
    assert np.abs(picture[..., 1] - picture[..., 2]).max() <= 12


def test_without_a_background_the_picture_has_alpha(idle: IdleClip) -> None:
    picture = cut(idle, None)
    from_center = np.hypot(*np.mgrid[-120:120, -160:160])
    assert picture.shape == (*SIZE, 4)
    assert not picture[from_center > 66, 3].any() and (picture[from_center < 54, 3] == 255).all()


def test_parts_away_from_the_person_are_removed(idle: IdleClip) -> None:
    behind = np.full((*SIZE, 3), RED, np.uint8)
    np.testing.assert_array_equal(cut(idle, behind, scrap=True), cut(idle, behind))


@pytest.mark.parametrize(("height", "count"), [(200, 1), (120, 2)])
def test_the_head_is_segmented_separately_where_it_is_small(
    idle: IdleClip, height: int, count: int
) -> None:
    """A second mask is made of a crop much smaller than the frame, and the result is the same."""
    clip = replace(idle, crop_height=height, crop_width=height)
    clip = replace(clip, origins=np.full_like(clip.origins, (150.0, 60.0)))
    made, segmenter = PersonCutout(IdleFootage(clip)), KnownMasks()
    made.close()
    made._segmenter = segmenter  # type: ignore[assignment]
    behind = np.full((*SIZE, 3), RED, np.uint8)
    picture = made(scene(), 0, behind)
    assert segmenter.seen == [(*SIZE, 3), (height, height, 3)][:count]
    assert np.abs(picture.astype(int) - cut(idle, behind)).max() <= 2


def test_an_empty_mask_shows_the_background(idle: IdleClip) -> None:
    made = PersonCutout(IdleFootage(idle))
    made.close()
    made._segmenter = KnownMasks()  # type: ignore[assignment]
    behind = np.full((*SIZE, 3), RED, np.uint8)
    np.testing.assert_array_equal(made(np.zeros((*SIZE, 3), np.uint8), 0, behind), behind)


def test_the_feather_rises_from_the_edges() -> None:
    weights = cutout._feather((40, 60), 10.0)
    assert weights.shape == (40, 60) and weights[0].max() == weights[:, -1].max() == 0.0
    assert (weights[10:30, 10:50] == 1.0).all() and (np.diff(weights[20, :11]) > 0).all()


def test_a_line_over_a_color_has_the_size_of_the_footage(
    fitted: FitResult, home: Path, tmp_path: Path
) -> None:
    """The face is that of the ordinary output; the corners are the color."""
    options = {"home": home, "device": "cpu", "codec": "png", "provenance": False}
    for name, background in (("kept", None), ("cut", "#ff0000"), ("clear", "alpha")):
        speak(LINE, output=tmp_path / name, background=background, **options)  # type: ignore[arg-type]
    names = sorted(path.name for path in (tmp_path / "kept").glob("*.png"))
    assert names == sorted(path.name for path in (tmp_path / "cut").glob("*.png"))
    idle = load_idle(IdentityPackage.load(fitted.package_path))
    for name in names[:: len(names) // 3]:
        kept, made, clear = (
            np.asarray(read_image(tmp_path / folder / name)) for folder in ("kept", "cut", "clear")
        )
        assert made.shape == kept.shape == idle.background.shape
        assert (made[:5, :5] == RED).all() and (made[:5, -5:] == RED).all()
        same = (made == kept).all(axis=-1)
        assert same.mean() > 0.2 and clear.shape[:2] == kept.shape[:2]
        left, top = (int(n) for n in idle.origins[0])
        middle = (
            top + round(idle.crop_height / idle.scale / 2),
            left + round(idle.crop_width / idle.scale / 2),
        )
        assert same[middle]


def test_alpha_in_mode_paste_is_only_made_on_request() -> None:
    codec = CODECS["png"]
    assert keeps_alpha(OutputOptions(background="alpha"), codec, "paste")
    assert not keeps_alpha(OutputOptions(), codec, "paste")
    assert keeps_alpha(OutputOptions(), codec, "head")


@pytest.mark.parametrize(
    ("background", "expected"),
    [(None, False), ("own", False), ("red", True), ("alpha", True)],
)
def test_which_backgrounds_cut_the_person_out(background: str | None, expected: bool) -> None:
    assert PictureOptions(background=background).cuts_out is expected


def test_a_codec_without_alpha_is_refused(fitted: FitResult, home: Path, tmp_path: Path) -> None:
    with pytest.raises(TalkheadError, match="can't keep alpha"):
        speak(LINE, output=tmp_path / "a.mp4", background="alpha", home=home, device="cpu")


def test_every_range_of_frames_is_the_same(fitted: FitResult, home: Path, tmp_path: Path) -> None:
    """A video of the background moves on with the frames, and segments fit together."""
    from talkhead.app.avatar import load_avatar
    from talkhead.app.composer.backgrounds import backgrounds_of
    from talkhead.app.composer.cutout import CutoutFrameRenderer
    from talkhead.app.composer.frames import PasteFrameRenderer

    avatar = load_avatar(IdentityPackage.load(fitted.package_path), None, "cpu")
    clip = avatar.idle
    height, width = clip.background.shape[:2]
    pictures = [np.full((height, width, 3), 20 * i, np.uint8) for i in range(10)]
    media.write_video(tmp_path / "behind.mov", pictures, codec="png")
    codes = clip.codes[:6]

    def made(first: int, after: int, state: list[float]) -> tuple[list[bytes], list[float]]:
        footage = IdleFootage(clip)
        behind = backgrounds_of(str(tmp_path / "behind.mov"), clip.background, 6)
        renderer = CutoutFrameRenderer(
            PasteFrameRenderer(avatar.renderer, footage, codes), footage, behind
        )
        renderer.state = state
        return [frame.tobytes() for frame in renderer.frames(first, after)], renderer.state

    whole, _ = made(0, 6, [])
    start, state = made(0, 2, [])
    assert start + made(2, 6, state)[0] == whole
