"""The benchmark of cut-outs: figures of heads with known faults, and runs on stored mattes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import pytest
import torch

from benchmarks import cutout
from benchmarks.cutout import (
    COLORS,
    EDGE_PX,
    SAMPLES,
    Head,
    Known,
    Mattes,
    Outline,
    Worst,
    from_linear,
    held_out,
    known_row,
    largest_spot,
    outline_row,
    to_linear,
)
from talkhead.app.evaluation.reference import held_out_frames, read_frames
from talkhead.dataset import IdentityDataset
from talkhead.images import read_image
from talkhead.types import Bool, Float32, Rendering, UInt8

SIZE = (200, 160)
EVERYWHERE = np.ones(SIZE, bool)
PERSON, BACKDROP = (150, 100, 80), (60, 90, 120)


def figure(radius: float = 60.0, softness: float = 1.0) -> Float32:
    """Matte [H, W] of a disk."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    distance = np.hypot(rows - 100, columns - 80) - radius
    return np.clip(0.5 - distance / softness, 0.0, 1.0).astype(np.float32)


def flat(color: tuple[int, int, int]) -> UInt8:
    return np.full((*SIZE, 3), color, np.uint8)


def known(alpha: Float32, shown: Bool = EVERYWHERE) -> Known:
    """A frame that was mixed in linear light."""
    a = alpha[..., None]
    light = a * to_linear(flat(PERSON)) + (1 - a) * to_linear(flat(BACKDROP))
    frame = np.rint(255 * from_linear(light)).astype(np.uint8)
    return Known(frame, alpha, shown)


def head(alpha: Float32) -> Head:
    return Head.cut_out(flat(PERSON), alpha)


def test_srgb_is_decoded_and_encoded() -> None:
    values = np.arange(256, dtype=np.uint8)
    light = to_linear(values)
    assert light[[0, 10, 128, 255]] == pytest.approx([0, 0.0030353, 0.2158605, 1], abs=1e-6)
    assert np.array_equal(np.rint(255 * from_linear(light)), values)


def test_the_true_composite_is_that_of_linear_light() -> None:
    """The person's color is that of opaque pixels, not that of the mixed edge."""
    truth = known(figure(softness=40.0))
    assert (truth.person == PERSON).all()
    for color in COLORS.values():
        a = truth.alpha[..., None]
        light = a * to_linear(flat(PERSON)) + (1 - a) * to_linear(flat(color))
        assert truth.over(color) == pytest.approx(255 * from_linear(light), abs=1e-3)


def test_the_nearest_opaque_pixel_gives_the_color() -> None:
    frame = flat(PERSON)
    frame[:, 80:] = (10, 20, 30)
    truth = Known(frame, figure(softness=30.0), EVERYWHERE)
    assert (truth.person[:, :70] == PERSON).all() and (truth.person[:, 90:] == (10, 20, 30)).all()


def test_a_true_head_has_no_error() -> None:
    alpha = (figure() > 0.5).astype(np.float32)
    figures = known(alpha).figures(head(alpha))
    assert figures.pop("alpha") == figures.pop("edge") == 0.0
    assert figures.pop("holes") == figures.pop("scraps") == 0.0
    assert list(figures) == list(COLORS) and max(figures.values()) < 0.01


def test_errors_of_alpha() -> None:
    truth = known((figure() > 0.5).astype(np.float32))
    everywhere = truth.figures(head(0.9 * truth.alpha))
    assert everywhere["alpha"] == pytest.approx(0.1 * float(truth.alpha.mean()), rel=1e-4)
    assert everywhere["edge"] == pytest.approx(0.05, rel=0.1)
    assert everywhere["holes"] == everywhere["scraps"] == 0


def test_holes_and_scraps_are_counted_in_pixels() -> None:
    truth, alpha = known(figure()), figure()
    alpha[95:105, 75:81] = 0.7
    alpha[110, 80] = 0.85
    alpha[2:5, 2:9] = 0.3
    alpha[8, 8] = 0.15
    figures = truth.figures(head(alpha))
    assert figures["holes"] == 60 and figures["scraps"] == 21
    assert figures["edge"] == 0.0
    assert figures["alpha"] == pytest.approx((60 * 0.3 + 0.15 + 21 * 0.3 + 0.15) / alpha.size)


def test_pixels_outside_the_picture_do_not_count() -> None:
    shown = EVERYWHERE.copy()
    shown[:6] = False
    alpha = figure()
    alpha[2:5, 2:9] = 1.0
    figures = known(figure(), shown).figures(head(alpha))
    assert figures["scraps"] == figures["alpha"] == 0


def test_a_shifted_outline_is_an_error_at_the_edge() -> None:
    """A disk that is 2 px too large: 2 of 2 * EDGE_PX pixels are wrong, in every composite."""
    truth = known(figure())
    figures = truth.figures(head(figure(62.0)))
    assert figures["edge"] == pytest.approx(2 / (2 * EDGE_PX), rel=0.06)
    for name, color in COLORS.items():
        gap = np.abs(np.array(PERSON) - np.array(color)).mean()
        assert figures[name] == pytest.approx(figures["edge"] * gap, rel=0.1)


def test_the_largest_spot_is_connected_diagonally() -> None:
    faults = np.zeros(SIZE, bool)
    assert largest_spot(faults) == 0
    faults[10, 10:15] = faults[11, 15] = True
    faults[20:22, 20:22] = True
    assert largest_spot(faults) == 6


def test_an_outline_without_faults() -> None:
    person = figure(softness=4.0)
    figures = Outline(person, EVERYWHERE).figures(head(person))
    assert figures["hole"] == figures["scrap"] == 0 and figures["residue"] < 0.01
    near = Outline(person, EVERYWHERE).figures(head(figure(61.0, softness=4.0)))
    assert near["scrap"] == 0 and near["residue"] < 0.1  # masks are not that exact
    assert near["rim"] > 1.3 * figures["rim"] > 0


def test_faults_of_an_outline() -> None:
    alpha = figure()
    alpha[95:105, 75:81] = 0.5
    alpha[100 - 68 : 100 - 65, 76:84] = 0.5  # from 5 to 8 px outside
    figures = Outline(figure(), EVERYWHERE).figures(head(alpha))
    assert figures["hole"] == 60 and figures["scrap"] == 24
    strip = np.pi * (70**2 - 63**2)
    gaps = [np.abs(np.array(PERSON) - np.array(color)).mean() for color in COLORS.values()]
    assert figures["residue"] == pytest.approx(24 * 0.5 * np.mean(gaps) / strip, rel=0.1)


def test_the_border_of_the_picture_is_no_outline() -> None:
    """A torso goes on below the picture, whatever the mask of the padding says."""
    shown = EVERYWHERE.copy()
    shown[150:] = False
    person = np.zeros(SIZE, np.float32)
    person[80:150] = 1.0
    alpha = person.copy()
    alpha[148:150, 40:60] = 0.0
    assert Outline(person, shown).figures(head(alpha))["hole"] == 40


def test_without_an_outline_there_is_no_residue() -> None:
    figures = Outline(np.ones(SIZE, np.float32), EVERYWHERE).figures(head(figure()))
    assert np.isnan(figures["residue"]) and np.isnan(figures["rim"]) and figures["hole"] > 0
    row = outline_row([figures, {"rim": 5.0, "residue": 2.0, "hole": 12.0, "scrap": 13.0}])
    assert (row["rim"], row["residue"]) == (5.0, 2.0) and (row["hole"], row["scrap"]) == (0.5, 0.5)
    assert row["largest_scrap"] == 13


def test_rows_have_means_and_the_most() -> None:
    first = {"alpha": 0.1, "edge": 0.2, **dict.fromkeys(COLORS, 3.0), "holes": 0.0, "scraps": 8.0}
    row = known_row([first, {name: 3 * value for name, value in first.items()}])
    assert row["frames"] == 2 and row["alpha"] == pytest.approx(0.2) and row["green"] == 6.0
    assert (row["scraps"], row["most_scraps"], row["most_holes"]) == (16.0, 24.0, 0.0)


def test_the_worst_frames_are_written(tmp_path: Path) -> None:
    worst, none = Worst([]), np.zeros(SIZE, bool)
    for number in range(12):
        holes = none.copy()
        holes[: 5 * number % 12] = True
        worst.add(number, head(figure()), holes, none)
    assert sorted(5 * number % 12 for _, number, _ in worst.columns) == [6, 7, 8, 9, 10, 11]
    worst.write(tmp_path / "anna.png")
    sheet = read_image(tmp_path / "anna.png")
    assert (sheet == (255, 0, 0)).all(-1).any()


class _Heads:
    """A renderer of gray heads with given opacities, one after the other."""

    def __init__(self, alphas: list[Float32]) -> None:
        self.alphas = iter(alphas)

    def tensors(self) -> dict[str, torch.Tensor]:
        return {}

    def render(self, motion: torch.Tensor, *rest: object) -> Rendering:
        alpha = torch.from_numpy(np.stack([next(self.alphas) for _ in motion])[..., None])
        return Rendering(0.5 * alpha.expand(*alpha.shape[:3], 3), alpha)


def rows_of(
    dataset: IdentityDataset, alphas: list[Float32], mattes: Mattes | None = None
) -> dict[str, dict[str, Any]]:
    rows = held_out(_Heads(alphas), dataset, mattes, Worst([]))  # type: ignore[arg-type]
    return {row["row"]: row for row in rows}


def test_held_out_frames_of_a_dataset(head_dataset: IdentityDataset) -> None:
    masks = [head_dataset.person(n) for n in held_out_frames(head_dataset)]
    whole = rows_of(head_dataset, masks)["held-out frames"]
    assert whole["frames"] == len(masks) and whole["hole"] == whole["scrap"] == 0
    masks[0] = masks[0].copy()
    masks[0][60:70, 40:50] = 0.0
    holed = rows_of(head_dataset, masks)["held-out frames"]
    assert holed["hole"] == 1 / len(masks) and 50 < holed["largest_hole"] <= 100


def test_held_out_frames_with_mattes(head_dataset: IdentityDataset, tmp_path: Path) -> None:
    """Mattes are stored for whole pictures, and only frames that have one are measured."""
    info, numbers = head_dataset.info, held_out_frames(head_dataset)[1:3]
    alphas = np.zeros((2, info.height, info.width), np.uint8)
    for alpha, n in zip(alphas, numbers, strict=True):
        left, top = (int(x) for x in head_dataset.tracks.origins[n])
        mask = head_dataset.masks[n]
        part = alpha[max(top, 0) : top + len(mask), max(left, 0) : left + mask.shape[1]]
        part[:] = mask[max(-top, 0) :, max(-left, 0) :][: len(part), : part.shape[1]]
    np.savez(tmp_path / "mattes.npz", frames=numbers, alphas=alphas)
    with patch.object(cutout, "SAMPLES", tmp_path):
        mattes = Mattes()
    heads = [np.clip(head_dataset.person(n) - 0.3, 0, 1) for n in numbers]
    rows = rows_of(head_dataset, heads, mattes)
    assert rows["person mask"]["alpha"] == rows["true matte"]["alpha"] == 0.0
    made = rows["rendered head"]
    assert made["frames"] == rows["held-out frames"]["frames"] == 2
    assert made["holes"] > 500 and made["alpha"] > 0.05 and made["scraps"] == 0


def test_the_stored_mattes_are_those_of_the_sample() -> None:
    """Edges of a matte are those of its frame, and not those of the frame moved by two pixels."""
    mattes = Mattes()
    assert (mattes.frames[0], mattes.frames[-1], len(mattes.frames)) == (568, 624, 24)
    frame = next(read_frames(SAMPLES / "person.mp4", mattes.frames[:1]))
    of_matte, of_frame = edges(mattes.alphas[0]), edges(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))
    outline = cv2.dilate(of_matte, np.ones((9, 9))) > 20
    moves = [(0, 0), (2, 0), (-2, 0), (0, 2), (0, -2)]
    moved = [np.roll(of_matte, move, (0, 1))[outline] for move in moves]
    agreement = [float(np.corrcoef(one, of_frame[outline])[0, 1]) for one in moved]
    assert agreement[0] > 0.6 and agreement[0] > 1.1 * max(agreement[1:])


def edges(image: UInt8) -> Float32:
    """Magnitude of the gradient [H, W]."""
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.0)
    x, y = (cv2.Sobel(smooth, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    return np.asarray(np.hypot(x, y), np.float32)


@pytest.mark.parametrize("as_json", [False, True])
def test_rows_are_printed(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    truth, mask = known(figure()), Outline(figure(), EVERYWHERE)
    shared = {"identity": "anna", "renderer": "gaussian"}
    rows = [
        {
            **shared,
            "against": "true matte",
            "row": "rendered head",
            **known_row([truth.figures(head(figure(50.0)))]),
        },
        {
            **shared,
            "against": "person mask",
            "row": "held-out frames",
            **outline_row([mask.figures(head(figure(50.0)))]),
        },
    ]
    with patch.object(cutout, "measure", lambda identity, options: iter(rows)):
        assert cutout.main(["anna", *(["--json"] if as_json else [])]) == 0
    printed = capsys.readouterr().out
    if as_json:
        first, second = map(json.loads, printed.splitlines())
        assert first["holes"] == first["most_holes"] > 0 and second["hole"] == 1.0
    else:
        assert "Against the true matte" in printed and "100.0 %" in printed
