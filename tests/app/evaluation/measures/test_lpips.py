"""LPIPS with a stand-in for the package, and without it."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from talkhead.app.evaluation.measures.image import Box
from talkhead.app.evaluation.measures.lpips import (
    ALEXNET,
    MIN_SIDE,
    Perceptual,
    alexnet_path,
    lpips_unavailable_reason,
)
from talkhead.errors import TalkheadError

STAND_IN = """
import torch
seen = []
class LPIPS(torch.nn.Module):
    def __init__(self, net, verbose):
        super().__init__()
        assert (net, verbose) == ("alex", False)
        {extra}
    def forward(self, image, reference):
        assert not self.training and not torch.is_grad_enabled()
        seen.append((image, reference))
        return (image - reference).abs().mean().reshape(1, 1, 1, 1)
"""
DOWNLOADS = "torch.hub.load_state_dict_from_url('http://localhost:9/absent.pth')"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that modules are imported from, and an empty folder as torch's hub."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    for name in ("lpips", "torchvision"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


def install(packages: Path, extra: str = "pass", weights: bool = True) -> None:
    (packages / "lpips.py").write_text(STAND_IN.format(extra=extra))
    (packages / "torchvision.py").write_text("")
    if weights:
        alexnet_path().parent.mkdir(parents=True)
        alexnet_path().write_bytes(b"weights")


def loaded() -> Perceptual:
    measure = Perceptual.load()
    assert measure is not None
    return measure


def image(seed: int, height: int = 100, width: int = 120) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.usefixtures("packages")
def test_without_the_package_it_is_left_out_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("talkhead.app.evaluation.measures.lpips.find_spec", lambda name: None)
    assert Perceptual.load() is None
    assert "pip install lpips" in lpips_unavailable_reason()


def test_without_weights_it_is_left_out_and_nothing_is_imported(packages: Path) -> None:
    install(packages, extra="raise AssertionError", weights=False)
    assert Perceptual.load() is None
    assert ALEXNET in lpips_unavailable_reason()
    assert "lpips" not in sys.modules


def test_equal_images_have_distance_0_and_only_the_box_counts(packages: Path) -> None:
    install(packages)
    measure, real = loaded(), image(1)
    assert lpips_unavailable_reason() == ""
    made = real.copy()
    made[:10] ^= 255
    assert measure.distance(made, real, Box(0, 10, 90, 100)) == 0.0
    assert measure.distance(made, real, Box(0, 9, 90, 100)) > 0.0
    assert math.isnan(measure.distance(made, real, Box(200, 0, 300, 10)))


def test_the_network_gets_rgb_from_minus_1_to_1(packages: Path) -> None:
    install(packages)
    real = np.zeros((70, 80, 3), np.uint8)
    real[..., 0] = 255
    loaded().distance(np.full_like(real, 255), real, Box(0, 0, 80, 70))
    white, red = sys.modules["lpips"].seen[-1]
    assert white.shape == red.shape == (1, 3, 70, 80)
    assert white.eq(1).all()
    assert red[0, 0].eq(1).all()
    assert red[0, 1:].eq(-1).all()


def test_small_boxes_are_scaled_up_in_proportion(packages: Path) -> None:
    install(packages)
    loaded().distance(image(1), image(2), Box(-10, 0, 40, 16))
    assert sys.modules["lpips"].seen[-1][0].shape == (1, 3, MIN_SIDE, 4 * 40)


def test_nothing_is_downloaded(packages: Path) -> None:
    install(packages, extra=DOWNLOADS)
    download = torch.hub.download_url_to_file
    with pytest.raises(
        TalkheadError, match=r"download of http://localhost:9/absent\.pth was requested"
    ):
        Perceptual.load()
    assert torch.hub.download_url_to_file is download


def test_damaged_weights_are_a_one_line_error(packages: Path) -> None:
    install(packages, extra="raise RuntimeError('no such tensor\\nfc6')")
    with pytest.raises(TalkheadError, match="no such tensor") as caught:
        Perceptual.load()
    assert str(alexnet_path()) in str(caught.value)
    assert "\n" not in str(caught.value)
