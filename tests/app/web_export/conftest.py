"""Exports of the fitted person, with a head that tells in its colors what it was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import LINE
from web_pages import write_fake_head, write_fake_pages

from talkhead.app.avatar import Avatar
from talkhead.app.composer.idle_clip import period
from talkhead.app.fit import FitResult
from talkhead.app.web_export import export
from talkhead.app.web_export.export import WebExportResult, export_web

Export = Callable[..., WebExportResult]


def write_head(path: Path, avatar: Avatar, _: object) -> None:
    height, width = avatar.idle.background.shape[:2]
    box = {"x": width // 3, "y": height // 2, "width": width // 3, "height": height // 4}
    write_fake_head(path, period(len(avatar.idle)), avatar.idle.face.n_mouth, box)


@pytest.fixture(scope="session")
def make_export(
    fitted: FitResult, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Export]:
    """A function that exports the fitted person with the fake head."""
    pages = tmp_path_factory.mktemp("pages") / "page"
    write_fake_pages(pages)

    def exported(output: Path, **more: Any) -> WebExportResult:
        return export_web(fitted.name, output=output, lines=[LINE], home=home, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "SOURCES", pages)
        patch.setattr(export, "write_head", write_head)
        yield exported


@pytest.fixture(scope="session")
def site(make_export: Export, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported folder. Read-only: all tests share it."""
    return make_export(tmp_path_factory.mktemp("web") / "site").output_path
