"""Estimating the background: a known one behind a moving disc."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from talkhead.preprocess import background
from talkhead.preprocess.background import SEEN_AT_LEAST, estimate_background
from talkhead.types import UInt8

HEIGHT, WIDTH = 72, 96


def make_scene(
    n_frames: int, sweep: float, noise: float = 2.0, drift: float = 0.0
) -> tuple[list[UInt8], list[UInt8], UInt8]:
    """Frames with a red disc that moves by `sweep` px, masks, background. drift: of the camera, px."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, : WIDTH + 200].astype(np.float64)
    world = 120 + 60 * np.sin(x / 5) * np.cos(y / 7)
    world = np.stack([world, 255 - world, 0.5 * world + 40], axis=-1)
    frames, masks = [], []
    for i in range(n_frames):
        left = round(drift * i)
        image = world[:, left : left + WIDTH] + rng.normal(size=(HEIGHT, WIDTH, 3)) * noise
        frame, mask = np.clip(image, 0, 255).astype(np.uint8), np.zeros((HEIGHT, WIDTH), np.uint8)
        middle = (round(WIDTH / 2 + sweep * (i / max(1, n_frames - 1) - 0.5)), HEIGHT // 2)
        cv2.circle(frame, middle, 14, (220, 20, 20), -1)
        cv2.circle(mask, middle, 16, 255, -1)
        frames.append(frame)
        masks.append(mask)
    return frames, masks, world[:, :WIDTH].astype(np.uint8)


def test_background_behind_a_moving_disc() -> None:
    """Every pixel is visible in some frames, so it is recovered, and the median removes the noise."""
    frames, masks, world = make_scene(30, sweep=60)
    estimated = estimate_background(frames, masks)
    error = estimated.image.astype(int) - world
    assert estimated.seen.all() and not estimated.moving
    assert np.abs(error).mean() < 0.7 and np.abs(error).max() <= 4


def test_few_samples_where_the_disc_rests() -> None:
    """A pixel that is visible in only a tenth of the frames is recovered from these."""
    frames, masks, world = make_scene(40, sweep=0, noise=0.0)
    for i in (3, 12, 25, 31):
        frames[i], masks[i] = world.copy(), np.zeros_like(masks[i])
    estimated = estimate_background(frames, masks)
    assert estimated.seen.all() and np.abs(estimated.image.astype(int) - world).max() <= 1


def test_pixels_never_seen_are_marked_and_filled() -> None:
    frames, masks, world = make_scene(30, sweep=4)
    estimated = estimate_background(frames, masks)
    free = np.sum([mask < 10 for mask in masks], axis=0)
    assert np.array_equal(estimated.seen, free >= SEEN_AT_LEAST) and not estimated.seen[36, 48]
    hole = estimated.image[~estimated.seen].astype(float)
    assert np.abs(hole - np.array([220, 20, 20])).sum(1).min() > 60, "the disc is gone"
    around = cv2.dilate((~estimated.seen).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    rim = world[around & estimated.seen].astype(float)
    assert np.abs(hole.mean(0) - rim.mean(0)).max() < 25, "filled with the surroundings"
    assert np.abs(estimated.image[estimated.seen].astype(int) - world[estimated.seen]).max() <= 5


def test_faint_mask_values_do_not_hide_the_background() -> None:
    frames, masks, world = make_scene(30, sweep=4)
    hazy = [np.maximum(mask, 30) for mask in masks]
    estimated = estimate_background(frames, hazy)
    assert (
        np.array_equal(estimated.seen, estimate_background(frames, masks).seen)
        and estimated.seen.mean() > 0.7
    )
    assert np.abs(estimated.image[estimated.seen].astype(int) - world[estimated.seen]).max() <= 5


@pytest.mark.parametrize(("drift", "moving"), [(0.0, False), (3.0, True)])
def test_a_moving_camera_is_detected(drift: float, moving: bool) -> None:
    frames, masks, _ = make_scene(30, sweep=40, drift=drift)
    assert estimate_background(frames, masks).moving is moving


def test_flickering_light_is_not_a_moving_camera() -> None:
    frames, masks, _ = make_scene(30, sweep=40)
    for i, frame in enumerate(frames):
        frame[:] = np.clip(frame * (1.0 + 0.06 * (-1) ** i), 0, 255)
    assert not estimate_background(frames, masks).moving


def test_large_images_are_stored_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The background is the same, and memory does not grow with the images."""
    frames, masks, _ = make_scene(30, sweep=60)
    wanted = estimate_background(frames, masks)
    n_copies = 20
    monkeypatch.setattr(background, "HELD_BYTES", 100_000)

    def large(images: list[UInt8]) -> Iterator[UInt8]:
        return (np.concatenate([image] * n_copies) for image in images)

    tracemalloc.start()
    try:
        estimated = estimate_background(large(frames), large(masks), tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.6 * sum(n_copies * frame.nbytes for frame in frames)
    for number in range(n_copies):  # except for filled pixels, which depend on their neighbors
        part = slice(number * HEIGHT, (number + 1) * HEIGHT)
        assert np.array_equal(estimated.seen[part], wanted.seen)
        assert np.array_equal(estimated.image[part][wanted.seen], wanted.image[wanted.seen])
    assert not list(tmp_path.iterdir())


def test_required_disk_space() -> None:
    assert background.disk_bytes(720, 1280) == 0
    assert background.disk_bytes(2160, 3840) == 60 * 2160 * 3840


def test_a_person_who_hides_everything() -> None:
    """The background is never visible: any image is accepted, and all pixels are marked."""
    frames = [np.full((16, 20, 3), 200, np.uint8)] * 8
    estimated = estimate_background(frames, [np.full((16, 20), 255, np.uint8)] * 8)
    assert (
        not estimated.seen.any() and not estimated.moving and estimated.image.shape == (16, 20, 3)
    )
