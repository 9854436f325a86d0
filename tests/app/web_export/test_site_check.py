"""Verification of web exports: what was changed, is missing or was added."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner
from web_browser import write_readable_site

from talkhead.app.cli.main import app
from talkhead.app.output.verification import DAMAGED, REARRANGED, TAMPERED, VALID, verify
from talkhead.app.web_export.request import MANIFEST, STATEMENT, WebRequest
from talkhead.storage import sha256_of

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export; its parent is the home with the key."""
    folder = tmp_path_factory.mktemp("signed")
    request = WebRequest(folder / "site", (), False, "Yes.")
    return write_readable_site(request, np.zeros(2, np.float32), np.zeros((0, 2), np.float32))


def append(name: str) -> Change:
    def change(site: Path) -> None:
        with (site / name).open("ab") as file:
            file.write(b" ")

    return change


def remove(name: str) -> Change:
    return lambda site: (site / name).unlink()


def change_both(site: Path) -> None:
    """Change a file and its checksum in the manifest."""
    append("page.js")(site)
    manifest = json.loads((site / MANIFEST).read_text())
    manifest["files"]["page.js"]["sha256"] = sha256_of(site / "page.js")
    (site / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "state", "problems"),
    [
        (lambda site: None, VALID, ()),
        (append("page.js"), TAMPERED, ("changed: page.js",)),
        (remove("badge.js"), REARRANGED, ("missing: badge.js",)),
        (append(MANIFEST), TAMPERED, ("changed: manifest.json",)),
        (remove(MANIFEST), REARRANGED, ("missing: manifest.json",)),
        (change_both, TAMPERED, ("changed: manifest.json",)),
    ],
)
def test_files_are_compared(
    made: Path, tmp_path: Path, change: Change, state: str, problems: tuple[str, ...]
) -> None:
    site = tmp_path / "site"
    shutil.copytree(made, site)
    change(site)
    for path in (site, site / STATEMENT):
        verdict = verify(path, None, made.parent)
        assert (verdict.state, verdict.problems, verdict.unsigned) == (state, problems, ())
        assert verdict.local


def test_all_differences_are_listed(made: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(made, site)
    for change in (append("page.js"), append("idle.mp4"), remove("badge.js")):
        change(site)
    (site / "lines").mkdir()
    (site / "lines" / "mine.txt").touch()
    verdict = verify(site, None, made.parent)
    assert verdict.state == TAMPERED
    assert verdict.problems == ("changed: idle.mp4, page.js", "missing: badge.js")
    assert verdict.unsigned == ("lines/mine.txt",)
    done = CliRunner().invoke(app, ["verify", str(site), "--home", str(made.parent)])
    assert done.exit_code == 1
    assert "changed: idle.mp4, page.js; missing: badge.js" in " ".join(done.output.split())
    assert "not signed: lines/mine.txt" in done.output


def test_added_files_are_named(made: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(made, site)
    (site / "notes.txt").touch()
    verdict = verify(site, None, made.parent)
    assert (verdict.state, verdict.unsigned) == (VALID, ("notes.txt",))


def test_a_statement_alone_is_verified_without_its_files(made: Path, tmp_path: Path) -> None:
    statement = shutil.copyfile(made / STATEMENT, tmp_path / "statement.json")
    verdict = verify(statement, None, made.parent)
    assert (verdict.state, verdict.problems) == (VALID, ())
    assert "not next to it" in verdict.where


def test_a_damaged_statement_is_refused_whatever_the_files_are(made: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(made, site)
    statement = json.loads((site / STATEMENT).read_text())
    (site / STATEMENT).write_text(json.dumps(statement | {"protected": "!"}))
    assert verify(site, None, made.parent).state == DAMAGED
