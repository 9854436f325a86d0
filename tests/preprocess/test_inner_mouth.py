"""Inner-mouth codes distinguish bright from dark, and depend on open mouths only."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from synthetic_head import make_codes, make_face, make_landmarks, make_poses

from talkhead.cameras import default_intrinsics
from talkhead.face import INNER_LIPS, N_INNER, lip_aperture
from talkhead.preprocess.inner_mouth import SHUT, inner_mouth_codes, mouth_brightness
from talkhead.types import Bool, Float32, Float64, UInt8

N = 120
SIZE = (256, 192)
USABLE = np.ones(N, dtype=bool)
TRAIN = np.arange(N) < 100


def make_mouths(scale: int = 1) -> tuple[list[UInt8], Float32, Float64]:
    """Crops with mouths of random brightness at top and bottom, landmarks and brightness [N]."""
    height, width = (scale * n for n in SIZE)
    vertices = make_face().vertices(1.5 * make_codes(N)).astype(np.float64)
    intrinsics = default_intrinsics(width, height)
    points = make_landmarks(vertices, make_poses(N), intrinsics)[..., :2]
    rng = np.random.default_rng(0)
    teeth = rng.uniform(20, 230, N)
    images = []
    for place, bright in zip(points, teeth, strict=True):
        image = np.full((height, width, 3), 150, np.uint8)
        inner = np.round(place[list(INNER_LIPS)] * 16).astype(np.int32)
        cv2.fillPoly(image, [inner], (bright, bright, bright), cv2.LINE_AA, shift=4)
        images.append(image)
    return images, points.astype(np.float32), teeth


def codes_of(images: list[UInt8], points: Float32, train: Bool = TRAIN) -> Float32:
    seen = [mouth_brightness(image, place) for image, place in zip(images, points, strict=True)]
    return inner_mouth_codes(np.stack(seen), points, USABLE, train)


def test_bright_and_dark_mouths_are_distinguished() -> None:
    images, points, teeth = make_mouths()
    codes = codes_of(images, points)
    assert codes.shape == (N, N_INNER) and codes.dtype == np.float32
    wide = lip_aperture(points) > 0.07
    assert wide.sum() > 30
    assert abs(np.corrcoef(codes[wide, 0], teeth[wide])[0, 1]) > 0.97
    assert codes[TRAIN, 0].std() == pytest.approx(1.0, rel=1e-3)


def test_closed_mouths_have_no_inner_mouth() -> None:
    images, points, _ = make_mouths()
    shut = lip_aperture(points) <= SHUT
    assert shut.sum() > 10
    assert not codes_of(images, points)[shut].any()


def test_held_out_frames_have_no_influence() -> None:
    images, points, _ = make_mouths()
    other = [image if train else 255 - image for image, train in zip(images, TRAIN, strict=True)]
    assert np.array_equal(codes_of(images, points)[TRAIN], codes_of(other, points)[TRAIN])


def test_the_size_of_the_picture_hardly_matters() -> None:
    small, large = (codes_of(*make_mouths(scale)[:2])[:, 0] for scale in (1, 2))
    assert abs(np.corrcoef(small, large)[0, 1]) > 0.98


def test_a_mouth_outside_the_picture_or_never_open_is_not_an_error() -> None:
    images, points, _ = make_mouths()
    gone = points.copy()
    gone[7] -= 500.0
    gone[8] += 500.0
    gone[9] = (-40.0, -25.0)  # no face was found: the image's corner in coordinates of the crop
    codes = codes_of(images, gone)
    assert np.isfinite(codes).all() and not codes[9].any()
    closed = points.copy()
    closed[:, list(INNER_LIPS)] = points[:, [78]]
    assert not codes_of(images, closed).any()
