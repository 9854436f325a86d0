"""The common first step of all commands: a dataset whose motion is refined once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import make_tiny

from talkhead.app import workspace as module
from talkhead.app.fit import _key
from talkhead.app.home.identities import DATASET
from talkhead.app.workspace import prepare
from talkhead.app.workspace import prepared as read_prepared
from talkhead.dataset import IdentityDataset
from talkhead.errors import TalkheadError
from talkhead.footage import Footage
from talkhead.preprocess.pipeline import PreprocessConfig
from talkhead.progress import SilentProgress


@pytest.fixture(scope="module")
def work(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def prepared(footage: Path, work: Path) -> IdentityDataset:
    with pytest.MonkeyPatch.context() as patch:
        make_tiny(patch)
        return prepare(Footage.open(footage), work, PreprocessConfig(), SilentProgress())


def test_motion_is_refined_and_everything_else_is_as_tracked(
    prepared: IdentityDataset, work: Path
) -> None:
    tracked = IdentityDataset.load(work / DATASET).tracks
    for name, values in vars(tracked).items():
        same = np.array_equal(values, getattr(prepared.tracks, name))
        assert same == (name not in module.MOTION), name
    moved = np.abs(prepared.tracks.codes - tracked.codes)[tracked.usable]
    assert 0.0 < moved.mean() < 0.3 * tracked.codes[tracked.usable].std()


def test_it_is_done_once(
    prepared: IdentityDataset, footage: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.fitting, "fit_renderer", None)
    for again in (
        prepare(Footage.open(footage), work, PreprocessConfig(), SilentProgress()),
        read_prepared(work),
    ):
        for name in module.MOTION:
            assert np.array_equal(getattr(again.tracks, name), getattr(prepared.tracks, name))
    assert not list(work.glob("head-of-*"))


def test_other_versions_are_refined_and_fitted_again(
    prepared: IdentityDataset, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _key(module.QUICK)
    for place, name in ((module, "MOTION_VERSION"), (module.fitting, "RENDERER_FIT_VERSION")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, getattr(place, name) + 1)
            assert _key(module.QUICK) != before
            with pytest.raises(TalkheadError, match="no such file"):
                read_prepared(work)
    assert _key(module.QUICK) == before
