"""Sheets can be read back, have the given size, and contain the images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from talkhead.app.evaluation.measures.image import Box
from talkhead.app.evaluation.report.contact_sheets import (
    GAP,
    LABEL_WIDTH,
    MOUTH_ZOOM,
    TITLE_HEIGHT,
    contact_sheet,
    difference,
    mouth_sheet,
    scaled_down,
    sheet_size,
    spread,
)
from talkhead.errors import TalkheadError
from talkhead.types import UInt8


def flat(height: int, width: int, color: tuple[int, int, int]) -> UInt8:
    return np.full((height, width, 3), color, np.uint8)


def read(path: Path) -> UInt8:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image[..., ::-1])


def test_contact_sheet_has_the_images_in_their_cells(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    red, small, blue = flat(40, 30, (255, 0, 0)), flat(20, 10, (0, 255, 0)), flat(40, 30, (0, 0, 9))
    contact_sheet([("real", [red, small]), ("rendered", [blue])], path, "Élodie: test")
    sheet = read(path)
    assert sheet.shape[:2] == sheet_size(2, 2, 40, 30)
    second = LABEL_WIDTH + 30 + GAP
    np.testing.assert_array_equal(sheet[TITLE_HEIGHT:][:40, LABEL_WIDTH:][:, :30], red)
    np.testing.assert_array_equal(sheet[TITLE_HEIGHT:][:20, second : second + 10], small)
    np.testing.assert_array_equal(sheet[TITLE_HEIGHT + 40 + GAP :][:40, LABEL_WIDTH:][:, :30], blue)
    assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]


def test_contact_sheet_scales_down_only(tmp_path: Path) -> None:
    images = [flat(40, 30, (1, 2, 3)), flat(10, 10, (4, 5, 6))]
    contact_sheet([("a", images)], tmp_path / "sheet.png", "", cell_height=20)
    assert read(tmp_path / "sheet.png").shape[:2] == sheet_size(1, 2, 20, 15)


def test_a_sheet_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([("a", [])], tmp_path / "sheet.png", "")


def test_a_sheet_in_a_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(TalkheadError, match="does not exist"):
        contact_sheet([("a", [flat(4, 4, (0, 0, 0))])], tmp_path / "no" / "sheet.png", "")


def test_mouth_sheet_enlarges_and_shows_differences(tmp_path: Path) -> None:
    real, ours = flat(60, 60, (100, 100, 100)), flat(60, 60, (110, 100, 0))
    mouth_sheet([real], [ours], [Box(20, 30, 80, 50)], tmp_path / "mouths.png", "mouths")
    sheet = read(tmp_path / "mouths.png")
    height, width = 20 * MOUTH_ZOOM, 40 * MOUTH_ZOOM  # the box, clipped to the image
    assert sheet.shape[:2] == sheet_size(3, 1, height, width)
    rows = [sheet[TITLE_HEIGHT + i * (height + GAP) + 5, LABEL_WIDTH + 5] for i in range(3)]
    np.testing.assert_array_equal(rows, [[100, 100, 100], [110, 100, 0], [40, 0, 255]])


def test_spread() -> None:
    assert spread(100, 4) == [12, 37, 62, 87]
    assert spread(2, 8) == [0, 1]
    assert spread(0, 8) == []


def test_difference_is_enlarged_capped_and_the_same_both_ways() -> None:
    real, made = flat(2, 2, (10, 200, 0)), flat(2, 2, (13, 190, 255))
    gap = difference(real, made)
    assert gap.dtype == np.uint8
    np.testing.assert_array_equal(gap[0, 0], (12, 40, 255))
    np.testing.assert_array_equal(gap, difference(made, real))


def test_scaled_down_keeps_the_shape_and_never_enlarges() -> None:
    image = flat(40, 30, (1, 2, 3))
    assert scaled_down(image, 20).shape == (20, 15, 3)
    assert scaled_down(image, 40) is scaled_down(image, None) is image
