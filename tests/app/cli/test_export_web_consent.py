"""The question of `talkhead export-web`: when it is asked, and what it names."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from talkhead.app.web_export import export, request
from talkhead.app.web_export.request import WebRequest

cli = importlib.import_module("talkhead.app.cli.export_web")  # its function has the same name


@pytest.mark.parametrize(
    ("live", "given", "stored", "yes", "asked", "consent"),
    [
        (False, None, None, False, cli.QUESTION, "Asked."),
        (False, None, "Stored.", False, None, None),  # export_web takes that of the identity
        (True, None, None, False, cli.LIVE_QUESTION, "Asked."),
        (True, None, "Stored.", False, cli.LIVE_QUESTION, "Asked."),
        (True, "Given.", "Stored.", False, None, "Given."),
        (True, None, "Stored.", True, None, None),
    ],
)
def test_live_speech_needs_a_statement_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
    live: bool,
    given: str | None,
    stored: str | None,
    yes: bool,
    asked: str | None,
    consent: str | None,
) -> None:
    questions: list[str] = []
    exported: dict[str, Any] = {}

    def check_web(output: Path, lines: list[Path], **more: Any) -> tuple[WebRequest, object]:
        wanted = WebRequest(output, (), False, given or stored, live, given if live else None)
        return wanted, SimpleNamespace(name="anna")

    def ask(question: str) -> str:
        questions.append(question)
        return "Asked."

    monkeypatch.setattr(request, "check_web", check_web)
    monkeypatch.setattr(export, "export_web", lambda *_, **more: exported.update(more))
    monkeypatch.setattr(cli, "ask_consent", ask)
    monkeypatch.setattr(cli, "show", lambda *_: None)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    cli.export_web("anna", Path("site"), live=live, consent=given, yes=yes, quiet=True)
    assert questions == ([] if asked is None else [asked])
    assert exported["live"] is live
    assert exported["consent"] == consent
