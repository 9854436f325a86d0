"""Settings of the whole run: no busy waiting, no network, nobody's real home folder."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

import pytest


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the home folder of the person who runs it."""
    monkeypatch.setenv("TALKHEAD_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def repository() -> Path:
    """The repository's root."""
    return Path(__file__).parents[1]
