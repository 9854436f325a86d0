"""Pasting: its position and colors, and that all other pixels are unchanged."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from synthetic_head import N_MOUTH, make_background

from talkhead.app.composer.paste import (
    MAX_GAIN,
    CropPaster,
    Window,
    eye_mask,
    mask_window,
    paste_mask,
)
from talkhead.dataset import IdentityDataset
from talkhead.face import (
    CHIN,
    LEFT_BROW,
    LEFT_EYE,
    LIPS,
    OUTER_LIPS,
    RIGHT_BROW,
    RIGHT_EYE,
)
from talkhead.types import Float32, UInt8

SIZE = (128, 96)
HEIGHT, WIDTH = 150, 130
ORIGIN = np.array([12, 9], np.float32)


@pytest.fixture(scope="module")
def mouths(head_dataset: IdentityDataset) -> tuple[Float32, Float32]:
    """Crop landmarks [478, 2] of one pose with the mouth closed and wide open."""
    codes = np.zeros((2, head_dataset.face.n_codes), np.float32)
    codes[:, 0] = (-0.3, 2.5)
    closed, opened = landmarks_of(head_dataset, codes)
    return closed, opened


def landmarks_of(dataset: IdentityDataset, codes: Float32) -> Float32:
    """Crop landmarks [F, 478, 2] of motion codes in one pose."""
    flat = dataset.face.vertices(codes)[..., :2]
    return flat * np.float32(42.0) + np.array([47.0, 52.0], np.float32)


@pytest.fixture
def frame() -> UInt8:
    return make_background(HEIGHT, WIDTH)


def at(mask: Float32, points: Float32) -> Float32:
    columns, rows = points.round().astype(int).T
    return mask[rows, columns]


# ---------------------------------------------------------------------------- the mask


def test_the_mask_contains_both_mouths_and_jaws_but_no_eyes(
    mouths: tuple[Float32, Float32],
) -> None:
    closed, opened = mouths
    for source, target in ((closed, opened), (opened, closed)):
        mask = paste_mask(source, target, SIZE)
        assert mask.shape == SIZE and mask.dtype == np.float32
        assert mask.min() >= 0.0 and mask.max() <= 1.0
        for points in (source, target):
            assert at(mask, points[list(LIPS)]).min() > 0.99
            assert at(mask, points[[CHIN]])[0] > 0.9, "neither chin shows a border"
            upper = points[list(LEFT_EYE + RIGHT_EYE + LEFT_BROW + RIGHT_BROW)]
            assert at(mask, upper).max() < 0.002
    reverse = paste_mask(opened, closed, SIZE)
    assert np.abs(paste_mask(closed, opened, SIZE) - reverse).mean() < 0.01


def test_the_mask_of_both_covers_the_mask_of_each(mouths: tuple[Float32, Float32]) -> None:
    closed, opened = mouths
    both = paste_mask(closed, opened, SIZE)
    for one in mouths:
        solid = cv2.erode(paste_mask(one, one, SIZE), np.ones((3, 3), np.uint8)) > 0.9
        assert both[solid].min() > 0.8
    assert both.sum() > paste_mask(closed, closed, SIZE).sum() + 5, "the open jaw reaches farther"


def test_the_mask_of_the_eyes_covers_eyes_and_brows_alone(head_dataset: IdentityDataset) -> None:
    codes = np.zeros((2, head_dataset.face.n_codes), np.float32)
    codes[1, N_MOUTH : N_MOUTH + 2] = 1.0  # a blink with raised brows
    open_eyes, closed_eyes = landmarks_of(head_dataset, codes)
    mask = eye_mask(open_eyes, closed_eyes, SIZE)
    for points in (open_eyes, closed_eyes):
        assert at(mask, points[list(LEFT_EYE + RIGHT_EYE + LEFT_BROW + RIGHT_BROW)]).min() > 0.9
        assert at(mask, points[[CHIN, *OUTER_LIPS]]).max() < 0.002
    assert ((mask > 0.05) & (mask < 0.95)).sum() > 50, "the border is soft"
    assert not eye_mask(open_eyes + 500, closed_eyes + 500, SIZE).any()


def test_the_mask_is_feathered(mouths: tuple[Float32, Float32]) -> None:
    mask = paste_mask(*mouths, SIZE)
    steps = np.abs(np.diff(mask, axis=0)).max(), np.abs(np.diff(mask, axis=1)).max()
    assert max(steps) < 0.6 and ((mask > 0.05) & (mask < 0.95)).sum() > 100


def test_the_window_contains_the_mask(mouths: tuple[Float32, Float32]) -> None:
    mask = paste_mask(*mouths, SIZE)
    window = mask_window(mask)
    outside = mask.copy()
    outside[window.slices] = 0.0
    assert outside.max() <= 0.002 and mask[window.slices].max() == mask.max()
    assert window.bottom <= SIZE[0] and window.right <= SIZE[1]


def test_a_face_outside_the_crop(mouths: tuple[Float32, Float32]) -> None:
    """A face half outside is cut at the edge; one completely outside has an empty mask."""
    half = paste_mask(mouths[0] + 40, mouths[1] + 40, SIZE)
    window = mask_window(half)
    assert (window.bottom, window.right) == SIZE
    gone = paste_mask(mouths[0] + 500, mouths[1] + 500, SIZE)
    assert not gone.any()
    empty = mask_window(gone)
    assert empty.bottom > empty.top and empty.right > empty.left


# ------------------------------------------------------------------------------ pasting


def paste(
    composer: CropPaster,
    frame: UInt8,
    rgb: Float32,
    alpha: float | Float32 = 1.0,
    mask: Float32 | None = None,
    window: Window | None = None,
    origin: Float32 = ORIGIN,
) -> UInt8:
    """Paste a rendering [h, w, 3] of a window, with a person mask of 1 everywhere."""
    window = window or Window(0, rgb.shape[0], 0, rgb.shape[1])
    cover = np.broadcast_to(np.float32(alpha), rgb.shape[:2])[..., None].astype(np.float32)
    mask = np.ones(rgb.shape[:2], np.float32) if mask is None else mask
    person = np.ones(rgb.shape[:2], np.float32)
    rgba = np.concatenate([rgb * cover, cover], axis=2)
    return composer.paste(frame, origin, window, rgba, mask, person)


def crop_of(frame: UInt8, height: int = 100, width: int = 90) -> Float32:
    left, top = ORIGIN.astype(int)
    return frame[top : top + height, left : left + width].astype(np.float32) / 255.0


def soft_mask(height: int = 100, width: int = 90) -> Float32:
    mask = np.zeros((height, width), np.float32)
    mask[30:70, 20:60] = 1.0
    return cv2.GaussianBlur(mask, (0, 0), 2.0) * (cv2.dilate(mask, np.ones((9, 9))) > 0)


def test_matching_the_colors_of_the_frame_itself_changes_nothing(frame: UInt8) -> None:
    before = frame.copy()
    result = paste(CropPaster(np.zeros_like(frame), 1.0), frame, crop_of(frame), mask=soft_mask())
    assert np.abs(result.astype(int) - frame).max() <= 1
    assert np.array_equal(frame, before), "the frame itself is unchanged"


def test_where_the_mask_is_zero_nothing_changes(frame: UInt8) -> None:
    """Pixels are bit-identical for any rendering."""
    mask = soft_mask()
    wrong = np.random.default_rng(0).random((100, 90, 3), dtype=np.float32)
    result = paste(CropPaster(255 - frame, 1.0), frame, wrong, alpha=0.7, mask=mask)
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[9:109, 12:102] = mask > 0
    assert np.array_equal(result[~inside], frame[~inside])
    assert (result[inside] != frame[inside]).any(-1).mean() > 0.8


def test_blending_by_hand(frame: UInt8) -> None:
    """The result is frame + mask * ((rendering over the background) - frame). The rendering is too
    transparent for color matching.
    """
    mask, background = soft_mask(), 255 - frame
    color = np.full((100, 90, 3), 0.4, np.float32)
    result = paste(CropPaster(background, 1.0), frame, color, alpha=0.75, mask=mask)
    part = (slice(9, 109), slice(12, 102))
    made = 255 * 0.75 * color + 0.25 * background[part]
    expected = frame[part] + mask[..., None] * (made - frame[part])
    assert np.abs(result[part].astype(np.float32) - expected).max() <= 0.51


def test_the_background_shows_where_the_head_was(frame: UInt8) -> None:
    """The jaw was open in the source frame; the rendering is empty there."""
    background = np.full_like(frame, 77)
    alpha = np.ones((100, 90), np.float32)
    alpha[60:] = 0.0
    result = paste(CropPaster(background, 1.0), frame, crop_of(frame), alpha=alpha)
    assert (result[9 + 60 : 109, 12:102] == 77).all()
    assert np.abs(result[9 : 9 + 58, 12:102].astype(int) - frame[9 : 9 + 58, 12:102]).max() <= 1


def test_outside_of_both_persons_nothing_is_pasted(frame: UInt8) -> None:
    """A slightly wrong background must not be visible next to the neck."""
    window = Window(0, 100, 0, 90)
    nothing, person = np.zeros((100, 90, 4), np.float32), np.zeros((100, 90), np.float32)
    person[:, :30] = 1.0
    composer, mask = CropPaster(255 - frame, 1.0), np.ones((100, 90), np.float32)
    result = composer.paste(frame, ORIGIN, window, nothing, mask, person)
    beside = (slice(9, 109), slice(12 + 32, 102))
    assert np.array_equal(result[beside], frame[beside])
    assert np.array_equal(result[9:109, 12:41], (255 - frame)[9:109, 12:41])


@pytest.mark.parametrize("shift", [(-25, 0), (60, 0), (0, -30), (0, 80), (-25, -30), (60, 80)])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_pasting_at_the_edges_equals_pasting_in_a_larger_frame(
    frame: UInt8, shift: tuple[int, int], scale: float
) -> None:
    """Parts beyond the frame are cut off; the rest does not depend on the edge."""
    margin = 128
    spread = ((margin, margin), (margin, margin), (0, 0))
    large, large_background = (np.pad(a, spread, mode="edge") for a in (frame, 255 - frame))
    rgb = np.random.default_rng(0).random((100, 90, 3)).astype(np.float32)
    rgb = cv2.GaussianBlur(rgb, (0, 0), 2.0)
    origin, mask = np.array(shift, np.float32), soft_mask()
    small = paste(CropPaster(255 - frame, scale), frame, rgb, 0.8, mask, origin=origin)
    whole = paste(
        CropPaster(large_background, scale), large, rgb, 0.8, mask, origin=origin + margin
    )
    assert small.shape == frame.shape
    inner = whole[margin : margin + HEIGHT, margin : margin + WIDTH]
    assert np.abs(small.astype(int) - inner).max() <= 1
    assert (small != frame).any()


@pytest.mark.parametrize("scale", [0.5, 0.75])
def test_scaled_crops_are_pasted_where_they_were_cut(scale: float) -> None:
    """A frame that is cropped and pasted back is not shifted, and is bit-identical outside the
    mask."""
    frame = make_background(300, 260)
    origin, size = np.array([24, 16], np.float32), (120, 96)
    source = frame[16 : 16 + round(120 / scale), 24 : 24 + round(96 / scale)]
    rgb = cv2.resize(source, size[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    mask = np.zeros(size, np.float32)
    mask[40:100, 20:70] = 1.0
    mask = cv2.GaussianBlur(mask, (9, 9), 2.0)
    window = mask_window(mask)
    result = paste(
        CropPaster(np.zeros_like(frame), scale),
        frame,
        rgb[window.slices],
        mask=mask[window.slices],
        window=window,
        origin=origin,
    )
    assert np.abs(result.astype(int) - frame).mean() < 0.15
    assert np.abs(result.astype(int) - frame).max() <= 5
    touched = np.zeros((300, 260), np.uint8)
    near = cv2.dilate((mask > 0).astype(np.uint8), np.ones((5, 5), np.uint8))
    enlarged = cv2.resize(near, source.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    touched[16 : 16 + source.shape[0], 24 : 24 + source.shape[1]] = enlarged
    assert np.array_equal(result[touched == 0], frame[touched == 0])


# ------------------------------------------------------------------------------- colors


def flat(value: float) -> UInt8:
    return np.full((HEIGHT, WIDTH, 3), value, np.uint8)


@pytest.mark.parametrize("factor", [0.93, 1.06])
def test_brightness_is_matched(factor: float) -> None:
    frame = flat(150)
    result = paste(CropPaster(flat(0), 1.0), frame, crop_of(frame) * np.float32(factor))
    assert np.abs(result.astype(int) - frame).max() <= 1


def test_matching_has_a_limit() -> None:
    frame = flat(150)
    result = paste(CropPaster(flat(0), 1.0), frame, crop_of(frame) * np.float32(0.5))
    assert result[50, 50].tolist() == pytest.approx([75 * MAX_GAIN] * 3, abs=1)


def test_only_cheeks_are_compared() -> None:
    """A mouth that is open now, dark in the lower part, does not make the rest brighter."""
    frame = flat(150)
    rgb = crop_of(frame)
    rgb[50:] *= np.float32(0.3)
    result = paste(CropPaster(flat(0), 1.0), frame, rgb)
    assert np.abs(result[10:55, 20:80].astype(int) - 150).max() <= 1
    assert result[90, 50, 0] == pytest.approx(45, abs=1)


def test_the_match_is_steady_from_frame_to_frame() -> None:
    """The gain flickers less than the rendering."""
    frame, composer = flat(150), CropPaster(flat(0), 1.0)
    paste(composer, frame, crop_of(frame))
    result = paste(composer, frame, crop_of(frame) * np.float32(0.95))
    change = 150 - float(result[50, 50, 0])
    assert 0.7 * 7.5 < change < 7.6, "most of a sudden change remains"
    for _ in range(60):
        result = paste(composer, frame, crop_of(frame) * np.float32(0.95))
    assert abs(int(result[50, 50, 0]) - 150) <= 1, "a lasting change is matched"
