"""Settings of the whole run: no busy waiting, and a temporary home folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

import pytest
import torch
from synthetic_head import make_dataset

from talkhead.dataset import IdentityDataset
from talkhead.identity import (
    EncoderPart,
    FittedPart,
    IdentityPackage,
    Manifest,
    PackageWriter,
    SourceVideo,
)


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests from reading and writing the home folder of the user who runs them."""
    monkeypatch.setenv("TALKHEAD_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="session")
def head_dataset(tmp_path_factory: pytest.TempPathFactory) -> IdentityDataset:
    """40 frames of the synthetic head, 96x128. Read-only: all tests share it."""
    return make_dataset(tmp_path_factory.mktemp("head") / "dataset")


@pytest.fixture(scope="session")
def write_package() -> Callable[[Path], IdentityPackage]:
    """The same function as `add`, for fixtures with a wider scope."""
    return write_small_package


@pytest.fixture
def add() -> Callable[[Path], IdentityPackage]:
    """A function that writes a small identity package into a folder and names it after the folder."""
    return write_small_package


def write_small_package(path: Path) -> IdentityPackage:
    """Write a small identity package into a folder."""
    manifest = Manifest(
        name=path.name,
        seed=7,
        preset="preview",
        source=SourceVideo("a.mp4", "0" * 64, 12.5, 640, 480, 29.97),
        encoder=EncoderPart("mel", {"n_mels": 80}),
        predictor=FittedPart("predictor.safetensors", {"hidden": 32}),
        renderers={"warp": FittedPart("warp.safetensors", {"n": 3})},
        default_renderer="warp",
        frame_width=640,
        frame_height=480,
        n_frames=312,
        consent="Yes.",
        figures={"psnr_db": 33.1},
    )
    with PackageWriter(path) as writer:
        for part in ("predictor.safetensors", "warp.safetensors"):
            writer.add_tensors(part, {"codes": torch.arange(4.0)})
        writer.path("idle.mp4").write_bytes(b"a clip")
        return writer.finish(manifest)
