"""The sample person's first seconds, fitted once for all tests of the commands."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest
from media_counts import MediaCounts
from tiny import PERSON, SECONDS, make_tiny

from talkhead import media
from talkhead.app.fit import FitResult, fit
from talkhead.progress import SilentProgress, Step


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample person's first seconds."""
    if not PERSON.exists():
        pytest.skip(f"{PERSON} does not exist: make it with samples/making/make_person.py")
    path = tmp_path_factory.mktemp("footage") / "Anna B.mp4"
    with closing(media.read_frames(PERSON, n_frames=SECONDS * 25)) as frames:
        media.write_video(path, frames, audio_path=PERSON)
    return path


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("people")


class Steps(SilentProgress):
    """Keeps the names of steps."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def step(
        self, name: str, total: int | None = None, done: int = 0
    ) -> AbstractContextManager[Step]:
        self.names.append(name)
        return super().step(name, total, done)


@pytest.fixture(scope="session")
def fit_steps() -> Steps:
    """Names of the steps that the fit of `fitted` has shown."""
    return Steps()


@pytest.fixture(scope="session")
def fit_counts(footage: Path) -> MediaCounts:
    """How often the fit of `fitted` has accessed the footage."""
    return MediaCounts(footage)


@pytest.fixture(scope="session")
def fitted(footage: Path, home: Path, fit_steps: Steps, fit_counts: MediaCounts) -> FitResult:
    """The person, fitted with seed 0."""
    with pytest.MonkeyPatch.context() as patch:
        make_tiny(patch)
        fit_counts.patch(patch)
        return fit(
            footage,
            preset="preview",
            home=home,
            consent="Yes.",
            device="cpu",
            progress=fit_steps,
        )
