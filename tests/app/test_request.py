"""An option of speak is declared once: docs/extending/option.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from talkhead.app import request, resume
from talkhead.app.cli.options import with_output_options
from talkhead.app.dubbing.job_store import Task
from talkhead.app.dubbing.table import read_table
from talkhead.app.options import PICTURE_PANEL, option
from talkhead.app.request import OutputOptions, RenderRequest


@dataclass(frozen=True)
class WithLogo(OutputOptions):
    """The options of an output and of the recipe."""

    logo: str | None = field(
        default=None,
        metadata=option(
            "--logo",
            "Image for the lower right corner. (default: none)",
            PICTURE_PANEL,
            names_file=True,
            in_frames=True,
        ),
    )
    corner: str = field(
        default="right",
        metadata=option("--corner", "Side of the logo.", PICTURE_PANEL, choices=("left", "right")),
    )
    frame: bool = field(
        default=False, metadata=option("--frame/--no-frame", "Frame the logo.", PICTURE_PANEL)
    )
    margin: int = field(default=8, metadata=option("--margin", "Pixels.", PICTURE_PANEL))
    seal: Path | None = field(
        default=None,
        metadata=option("--seal", "A private file.", PICTURE_PANEL, names_file=True, secret=True),
    )


@pytest.fixture(autouse=True)
def _declare(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(request, "OutputOptions", WithLogo)
    yield


@pytest.fixture
def logo(tmp_path: Path) -> Path:
    path = tmp_path / "logo.png"
    path.write_bytes(b"one")
    return path


def test_the_command_line_has_the_option() -> None:
    given: dict[str, Any] = {}
    app = typer.Typer()

    def say(audio: str, **values: Any) -> None:
        given.update(values)

    app.command()(with_output_options(say))
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"}).output
    assert "--logo" in shown and "Image for the lower right corner." in shown
    words = "a.wav --logo logo.png --corner left --frame --margin 3 --height 360 --seal key.pem"
    assert CliRunner().invoke(app, words.split()).exit_code == 0
    assert WithLogo(**given) == WithLogo(
        logo="logo.png", corner="left", frame=True, margin=3, height=360, seal=Path("key.pem")
    )
    assert type(given["corner"]) is str
    assert CliRunner().invoke(app, ["a.wav"]).exit_code == 0
    assert WithLogo(**given) == WithLogo()
    assert CliRunner().invoke(app, ["a.wav", "--corner", "above"]).exit_code == 2


def test_dub_has_a_column_for_the_option(tmp_path: Path, logo: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"sound")
    table = tmp_path / "lines.csv"
    table.write_text(
        "audio,output,identity,logo,frame,margin\na.wav,a.mp4,anna,logo.png,yes,3\n"
        "a.wav,b.mp4,anna,,no,wide\na.wav,logo.png,anna,,,\n"
    )
    found = read_table(table, lambda name, path: name)
    (row,) = found.rows
    assert row.options == {"logo": str(logo), "frame": True, "margin": 3}
    assert logo in row.inputs
    assert [bad.line for bad in found.bad] == [3, 4]
    assert "margin 'wide'" in found.bad[0].reason


def test_jobs_depend_on_the_file_that_the_option_names(logo: Path) -> None:
    task = Task("line", "anna", options={"logo": str(logo), "seal": "/secret.pem"})
    before = task.fingerprint()
    assert logo in task.files
    assert request.secret_files(task.options) == [Path("/secret.pem")]
    logo.write_bytes(b"another")
    assert task.fingerprint() != before


def test_the_resume_key_depends_on_the_option(tmp_path: Path, logo: Path) -> None:
    (tmp_path / "identity.json").write_bytes(b"{}")
    (tmp_path / "a.wav").write_bytes(b"sound")
    avatar: Any = SimpleNamespace(package=SimpleNamespace(path=tmp_path), renderer_name="warp")

    def key(**values: Any) -> dict[str, str]:
        asked = RenderRequest(tmp_path / "a.wav", tmp_path / "a.mp4", options=WithLogo(**values))
        return resume.resume_key(avatar, asked)

    before, plain = key(logo=str(logo)), key()
    assert before != plain != key(margin=3)
    assert key(logo=str(logo)) == before
    logo.write_bytes(b"another")
    assert key(logo=str(logo)) != before


def test_every_option_is_declared_with_a_type_that_tables_support() -> None:
    for one in request.declared_options().values():
        assert one.flag.startswith(f"--{one.name.replace('_', '-')}") and one.help and one.panel
        assert one.kind in (bool, int, float, str, Path)
