"""Fit, evaluate and speak with a person fitted on footage of which only some images are stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import LINE, make_tiny

from talkhead import media
from talkhead.app.avatar import load_avatar
from talkhead.app.composer.idle_clip import choose_frames, load_idle
from talkhead.app.composer.source_clip import source_footage
from talkhead.app.evaluate import evaluate
from talkhead.app.fit import FitResult, fit
from talkhead.app.request import RenderRequest
from talkhead.app.speak import render_video, speak
from talkhead.dataset import IdentityDataset
from talkhead.identity import IdentityPackage
from talkhead.preprocess import pipeline_run
from talkhead.preprocess.image_selection import IDLE_FRACTION
from talkhead.progress import SilentProgress
from talkhead.renderers.warp.model import WarpConfig, WarpRenderer

MOST = 100


@pytest.fixture(scope="module")
def long_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("long")


@pytest.fixture(scope="module")
def long_fit(footage: Path, long_home: Path) -> FitResult:
    with pytest.MonkeyPatch.context() as patch:
        make_tiny(patch)
        patch.setattr(pipeline_run, "MAX_FRAMES", MOST)
        return fit(footage, preset="preview", home=long_home, consent="Yes.", device="cpu")


@pytest.fixture(scope="module")
def dataset(long_fit: FitResult, long_home: Path) -> IdentityDataset:
    [path] = long_home.rglob("dataset.json")
    return IdentityDataset.load(path.parent)


def test_the_idle_clip_is_kept_whole(long_fit: FitResult, dataset: IdentityDataset) -> None:
    first, after = choose_frames(dataset)
    assert after - first >= MOST // IDLE_FRACTION
    assert dataset.tracks.has_image[first:after].all() and dataset.tracks.has_image.sum() == MOST
    assert len(load_idle(IdentityPackage.load(long_fit.package_path))) == after - first


def test_it_is_evaluated(long_fit: FitResult, long_home: Path, tmp_path: Path) -> None:
    result = evaluate(home=long_home, report=tmp_path / "report", device="cpu")
    assert {variant.name for variant in result.report.variants} >= set(long_fit.figures)
    assert result.report_path.exists()


def test_it_speaks(
    long_fit: FitResult,
    dataset: IdentityDataset,
    footage: Path,
    long_home: Path,
    tmp_path: Path,
) -> None:
    """This also works in the timeline of its footage, most of whose images were not kept."""
    made = speak(LINE, output=tmp_path / "line.mp4", home=long_home, device="cpu")
    assert made.n_frames == sum(1 for _ in media.read_frames(made.output_path))
    person = load_avatar(IdentityPackage.load(long_fit.package_path), None, torch.device("cpu"))
    line = RenderRequest(footage, tmp_path / "again.mp4", source=footage)
    with pytest.MonkeyPatch.context() as patch:
        # The tracking results of fit are used.
        patch.setattr("talkhead.preprocess.tracking.FaceTracker", None)
        render_video(person, line, tmp_path / "work", long_home, SilentProgress())
        known = source_footage(person.package, footage, long_home, SilentProgress()).known
    gone = np.flatnonzero(known & ~dataset.tracks.has_image)
    frames = (list(media.read_frames(path)) for path in (footage, line.output))
    changes = [int(np.abs(a.astype(int) - b).max()) for a, b in zip(*frames, strict=True)]
    assert len(gone) > 20 and max(changes[i] for i in gone) > 60, "a mouth is pasted there, too"


def test_the_warp_renderer_uses_only_kept_frames(dataset: IdentityDataset) -> None:
    renderer = WarpRenderer.from_dataset(dataset, WarpConfig(n_exemplars=1000), seed=0)
    tracks = dataset.tracks
    assert len(renderer.tensors()["codes"]) == (tracks.unoccluded & tracks.trainable).sum()
