"""`talkhead serve`: its arguments, and what it prints."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from talkhead.app.cli import main as cli
from talkhead.app.server import serving
from talkhead.app.server.certificates import tls_files
from talkhead.app.server.settings import ServerSettings

TOKEN = "a-token-of-the-tests"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServerSettings]:
    """The settings with which servers were started, without starting any."""
    found: list[ServerSettings] = []

    def serve(settings: ServerSettings, announce: Callable[[str, str], None]) -> None:
        found.append(settings)
        announce(serving.page_address(settings, settings.port), "AB:CD" * settings.uses_tls)

    monkeypatch.setattr(serving, "serve", serve)
    return found


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    monkeypatch.setattr("sys.argv", ["talkhead", "serve", *words])
    monkeypatch.setattr("signal.signal", lambda signum, handler: None)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code


def test_the_address_with_its_token(
    served: list[ServerSettings],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert not run(monkeypatch)
    (settings,) = served
    assert (settings.host, settings.port) == ("127.0.0.1", 8730) and len(settings.token) >= 40
    printed = capsys.readouterr()
    assert f"http://127.0.0.1:8730/#token={settings.token}" in printed.out
    assert settings.token not in printed.err
    run(monkeypatch)
    assert served[1].token != settings.token


def test_arguments(
    served: list[ServerSettings],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("TALKHEAD_CALLBACK_SECRET", "a secret of many characters")
    monkeypatch.setenv("TALKHEAD_TOKEN", TOKEN)
    words = ("--host", "0.0.0.0", "--port", "9000", "--tls", "--home", str(tmp_path))
    more = ("--workers", "3", "--max-queue", "5", "--allowed-host", "talk.example")
    assert not run(monkeypatch, *words, *more)
    (settings,) = served
    assert (settings.token, settings.home, settings.workers) == (TOKEN, tmp_path, 3)
    assert settings.allowed_hosts == ("talk.example",) and settings.limits.n_queued == 5
    assert settings.callbacks.secret and not settings.callbacks.allow_private
    out = capsys.readouterr().out
    assert "https://" in out and ":9000/#token=" in out and "AB:CD" in out


def test_a_warning_without_encryption(
    served: list[ServerSettings],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(monkeypatch, "--host", "0.0.0.0")
    assert "without encryption" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--token", "short"), 1, "at least 16"),
        (("--token", "", "--host", "0.0.0.0"), 1, "a token is needed"),
        (("--workers", "many"), 2, "--workers must be auto"),
        (("--port", "99999"), 2, "port"),
        (("--device", "tpu"), 1, "device tpu"),
    ],
)
def test_wrong_arguments(
    served: list[ServerSettings],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    status: int,
    message: str,
) -> None:
    assert run(monkeypatch, *words) == status
    assert message in capsys.readouterr().err and served == []


def test_the_extra_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name)
    )
    assert run(monkeypatch) == 1
    error = capsys.readouterr().err
    assert "needs the package uvicorn" in error and "pip install 'talkhead[serve]'" in error


def test_a_port_that_is_in_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert run(monkeypatch, "--port", port, "--home", str(tmp_path)) == 1
    assert f"127.0.0.1:{port}" in capsys.readouterr().err


def test_the_certificate(tmp_path: Path) -> None:
    made = tls_files(tmp_path / "tls", "192.168.1.20")
    assert made.key.stat().st_mode & 0o077 == 0 and len(made.fingerprint) == 32 * 3 - 1
    assert tls_files(tmp_path / "tls", "127.0.0.1") == made
    assert tls_files(tmp_path / "tls", "10.0.0.1").fingerprint != made.fingerprint  # a new name
    made.certificate.write_text("damaged")
    assert tls_files(tmp_path / "tls", "10.0.0.1").fingerprint != made.fingerprint
