"""Holes in a head and scraps around it are measured; a slightly shifted outline is neither."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from talkhead.app.evaluation.cutout import (
    COLORS,
    MAX_FRAMES,
    contrasting_color,
    cutout_results,
    cutout_rows,
)
from talkhead.app.evaluation.measures.cutout import strip_shares
from talkhead.dataset import IdentityDataset
from talkhead.types import Float32, Rendering

SIZE = (540, 384)


def figure(radius: float = 150.0, softness: float = 4.0) -> Float32:
    """Mask [H, W] in [0, 1] of a head with shoulders that extend out of the picture."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    head = np.hypot(rows - 220, columns - 192) - radius
    shoulders = 450 - rows + 0 * columns
    distance = np.minimum(head, shoulders)
    return np.clip(0.5 - distance / softness, 0.0, 1.0).astype(np.float32)


def test_a_head_equal_to_the_mask_is_whole() -> None:
    person = figure()
    missing, scraps = strip_shares(person, person)
    assert missing < 0.002 and scraps < 0.002


@pytest.mark.parametrize("radius", [146.0, 154.0])
def test_an_outline_shifted_by_a_few_pixels_is_no_fault(radius: float) -> None:
    missing, scraps = strip_shares(figure(radius, softness=8.0), figure())
    assert missing < 0.02 and scraps < 0.02


def test_hair_that_is_cut_away_is_measured() -> None:
    """A quarter of the head's outline, 30 px deep, as in a real case with dark books as
    background."""
    person, alpha = figure(), figure()
    rows = np.arange(SIZE[0])
    inner = figure(120.0)
    top = (rows < 150)[:, None]
    alpha = np.where(top, inner, alpha).astype(np.float32)
    missing, scraps = strip_shares(alpha, person)
    assert missing > 0.1 and scraps < 0.002


def test_scraps_around_the_head_are_measured() -> None:
    alpha = figure()
    for angle in np.linspace(np.pi, 2 * np.pi, 12):
        place = (192 + 168 * np.cos(angle), 220 + 168 * np.sin(angle))
        cv2.circle(alpha, tuple(round(float(n)) for n in place), 9, 1.0, -1)
    missing, scraps = strip_shares(alpha, figure())
    assert missing < 0.002 and scraps > 0.1


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_without_an_outline_the_measures_are_undefined(value: float) -> None:
    missing, scraps = strip_shares(figure(), np.full(SIZE, value, np.float32))
    assert math.isnan(missing) and math.isnan(scraps)


def test_the_color_is_not_one_of_the_person() -> None:
    for color in COLORS:
        person = np.random.default_rng(0).normal(color, 15, (500, 3)).clip(0, 255)
        chosen = contrasting_color(person.astype(np.uint8))
        assert tuple(chosen) != color and tuple(chosen) in COLORS
    assert tuple(contrasting_color(np.empty((0, 3), np.uint8))) in COLORS


class _Flat:
    """A renderer of gray heads with given opacities."""

    def __init__(self, alphas: list[Float32]) -> None:
        self.alphas = iter(alphas)

    def tensors(self) -> dict[str, torch.Tensor]:
        return {}

    def render(self, motion: torch.Tensor, *rest: object) -> Rendering:
        alpha = torch.from_numpy(np.stack([next(self.alphas) for _ in motion])[..., None])
        return Rendering(0.5 * alpha.expand(*alpha.shape[:3], 3), alpha)


def test_measures_and_pictures_of_a_dataset(head_dataset: IdentityDataset) -> None:
    numbers = np.arange(8, 38)
    codes = head_dataset.tracks.codes[numbers]
    masks = [head_dataset.person(n) for n in numbers]
    chosen = [masks[int((i + 0.5) * 30 / MAX_FRAMES)] for i in range(MAX_FRAMES)]
    whole = cutout_results(_Flat(chosen), head_dataset, numbers, codes)  # type: ignore[arg-type]
    assert whole.n_frames == MAX_FRAMES
    assert whole.see_through.mean < 0.05 and whole.scraps.mean < 0.05
    gone = [m * (np.arange(len(m)) > len(m) // 3)[:, None] for m in chosen]
    holed = cutout_results(_Flat(gone), head_dataset, numbers, codes)  # type: ignore[arg-type]
    assert holed.see_through.mean > 0.2 and holed.see_through.tail >= holed.see_through.mean
    rows = cutout_rows(_Flat(masks[:3]), head_dataset, numbers[:3], codes[:3])  # type: ignore[arg-type]
    (_, real), (_, made) = rows
    assert len(real) == len(made) == 3
    corner = tuple(made[0][0, 0])
    assert corner in COLORS and tuple(real[0][0, 0]) == corner
