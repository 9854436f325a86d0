"""Backgrounds behind the head."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from talkhead import media
from talkhead.app.composer import backgrounds
from talkhead.app.composer.backgrounds import backgrounds_of, check_background, parse_color
from talkhead.app.composer.frames import over, transparent
from talkhead.errors import TalkheadError
from talkhead.types import UInt8

OWN = np.full((24, 32, 3), 77, np.uint8)


def gray(level: int, height: int = 48, width: int = 64) -> UInt8:
    return np.full((height, width, 3), level, np.uint8)


@pytest.mark.parametrize(
    ("text", "color"),
    [
        ("#0f8", (0, 255, 136)),
        ("#102030", (16, 32, 48)),
        ("Navy", (0, 0, 128)),
        ("chroma-green", (0, 177, 64)),
        ("102030", None),
        ("#12345", None),
        ("navyish", None),
    ],
)
def test_colors(text: str, color: tuple[int, int, int] | None) -> None:
    assert parse_color(text) == color


def test_the_original_background_and_a_color_do_not_change() -> None:
    assert [p.mean() for p in backgrounds_of(None, OWN, 9)(2, 5)] == [77, 77, 77]
    assert len(list(backgrounds_of("own", OWN, 9)(0, 9))) == 9
    (picture,) = backgrounds_of("#102030", OWN, 9)(4, 5)
    assert picture.shape == OWN.shape and picture[3, 3].tolist() == [16, 32, 48]


def test_an_image_covers_and_keeps_its_middle(tmp_path: Path) -> None:
    wide = np.zeros((48, 200, 3), np.uint8)
    wide[:, 90:110] = (0, 0, 255)  # red in the middle; OpenCV's order
    path = tmp_path / "it's ünder.png"
    path.write_bytes(cv2.imencode(".png", wide)[1].tobytes())
    (picture,) = backgrounds_of(str(path), OWN, 1)(0, 1)
    assert picture.shape == OWN.shape
    assert picture[12, 16].tolist() == [255, 0, 0] and not picture[:, :8].any()


def test_an_image_is_recognized_by_its_content(tmp_path: Path) -> None:
    """Images with the suffix of another format, and images of unsupported formats."""
    data = cv2.imencode(".png", gray(90))[1].tobytes()
    for name in ("photo.jpg", "photo", "photo.mp4"):
        (tmp_path / name).write_bytes(data)
        (picture,) = backgrounds_of(str(tmp_path / name), OWN, 1)(0, 1)
        assert picture.mean() == 90
    (tmp_path / "photo.png").write_bytes(cv2.imencode(".jp2", gray(90))[1].tobytes())
    with pytest.raises(
        TalkheadError, match=r"not an image that can be read\. Export it as PNG, JPEG"
    ):
        check_background(str(tmp_path / "photo.png"))


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".jp2"])
def test_other_images_are_refused_as_images(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo{suffix}"
    path.write_bytes(cv2.imencode(suffix, gray(90))[1].tobytes())
    with pytest.raises(TalkheadError, match=r"not an image that can be read\. Export it as PNG"):
        check_background(str(path))


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1)])
def test_an_image_of_one_line_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    """Enlarged to cover the picture, an image one pixel wide or high would need too much memory."""
    (tmp_path / "line.png").write_bytes(cv2.imencode(".png", gray(90, *size))[1].tobytes())
    media.write_video(tmp_path / "line.mkv.mp4", [gray(90, 2 * size[0], 2 * size[1])])
    for name in ("line.png", "line.mkv.mp4"):
        with pytest.raises(TalkheadError, match="is too different in shape from the video, 32x24"):
            backgrounds_of(str(tmp_path / name), OWN, 9)


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_video_loops_and_any_part_equals_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_kept: bool
) -> None:
    """A short one is decoded once."""
    monkeypatch.setattr(backgrounds, "MAX_LOOP_BYTES", 7 * OWN.size - (not is_kept))
    path = tmp_path / "loop.mp4"
    media.write_video(path, [gray(20 + 20 * i) for i in range(7)], keyframe_every=3)
    run = backgrounds_of(str(path), OWN, 40)
    if is_kept:
        path.unlink()
    whole = list(run(0, 20))
    shown = np.rint((np.array([p.mean() for p in whole]) - 20) / 20)
    np.testing.assert_array_equal(shown, np.arange(20) % 7)
    assert all(picture.shape == OWN.shape for picture in whole)
    for first, after in ((5, 6), (6, 15), (13, 20)):
        part = list(run(first, after))
        assert all(np.array_equal(a, b) for a, b in zip(part, whole[first:after], strict=True))


def test_other_files_are_refused_as_backgrounds(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no image")
    (tmp_path / "bad.mp4").write_text("no video")
    cases = {
        "mauve": "neither a color",
        "bad.png": "not an image that can be read",
        "bad.mp4": "bad.mp4",
    }
    for name, words in cases.items():
        text = str(tmp_path / name) if "." in name else name
        with pytest.raises(TalkheadError) as error:
            check_background(text)
        assert words in str(error.value) and "\n" not in str(error.value)


def test_alpha_is_straight_and_colors_extend_outside() -> None:
    y, x = np.mgrid[:48, :48]
    alpha = np.clip(12.5 - np.hypot(x - 24, y - 24), 0, 1).astype(np.float32)[..., None]
    color = np.array([0.8, 0.4, 0.2], np.float32)
    image = transparent(color * alpha, alpha)
    assert np.abs(image[..., 3] - np.rint(255 * alpha[..., 0])).max() <= 1
    near = np.hypot(x - 24, y - 24) < 24  # outside the head too
    assert np.abs(image[near][:, :3] - 255 * color).max() <= 2
    back = np.full((48, 48, 3), 50, np.uint8)
    direct = over(color * alpha, alpha, back).astype(float)
    share = image[..., 3:] / 255.0
    assert np.abs(image[..., :3] * share + back * (1 - share) - direct).max() <= 1.5
