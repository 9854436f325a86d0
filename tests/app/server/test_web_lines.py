"""POST /v1/identities/NAME/lines: sound and motion codes of a line for a web page."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from serving import LINE, Serve, detail
from web_browser import readable_person

from talkhead import media
from talkhead.app.server import voice
from talkhead.app.server.avatars import Avatars
from talkhead.app.server.settings import Limits

LINES = "/v1/identities/anna/lines"
CODES = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
FILES = {"audio": ("my line.wav", LINE.read_bytes())}


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Names of the people who were loaded; anna's mouth has two codes, of three."""
    person = readable_person(monkeypatch, tmp_path, np.zeros(2, np.float32), CODES)
    names: list[str] = []

    def load(_: Avatars, name: str) -> Any:
        names.append(name)
        return person

    monkeypatch.setattr(Avatars, "load", load)
    return names


def test_a_line(client: TestClient, people: Path, loaded: list[str], tmp_path: Path) -> None:
    answer = client.post(LINES, files=FILES)
    assert answer.status_code == 200, answer.text
    line = answer.json()
    assert (line["name"], line["identity"], loaded) == ("my line.wav", "anna", ["anna"])
    assert (line["n_frames"], line["duration_s"]) == (50, 2.0)
    levels = np.frombuffer(base64.b64decode(line["codes"]), np.int8).reshape(50, 2)
    scale = np.array(line["scale"])
    assert np.all(np.abs(levels * scale - CODES[:, :2]) <= 0.5001 * scale)
    (tmp_path / "line.flac").write_bytes(base64.b64decode(line["sound"]))
    rate = media.probe(LINE).audio_rate
    heard = media.read_audio(tmp_path / "line.flac", rate)
    np.testing.assert_allclose(heard, media.read_audio(LINE, rate)[: 2 * rate], atol=1e-4)
    assert list((people / "server" / "incoming").iterdir()) == []


def test_a_text(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken = []

    def synthesize(text: str, folder: Path, url: str | None) -> Path:
        spoken.append(text)
        return Path(shutil.copy(LINE, folder / "text.wav"))

    monkeypatch.setattr(voice, "synthesize", synthesize)
    line = client.post(LINES, data={"text": "Good\nmorning."}).json()
    assert (line["name"], spoken) == ("Good morning.", ["Good\nmorning."])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "audio or text is needed"),
        ({"files": FILES, "data": {"text": "Hello."}}, "audio or text is needed"),
        ({"files": FILES, "data": {"identity": "anna"}}, "unknown field"),
        ({"files": {"audio": ("a.wav", b"")}}, "is empty"),
        ({"files": {"audio": ("../a.wav", b"no sound")}}, "a.wav: is not a video"),
        ({"files": {"audio": ("a.wav", LINE.read_bytes()[:40])}}, "a.wav"),
    ],
)
def test_lines_that_are_refused(
    client: TestClient, people: Path, given: dict[str, Any], words: str, loaded: list[str]
) -> None:
    text = detail(client.post(LINES, **given), 422)
    assert words in text and str(people) not in text and "../" not in text
    assert loaded == [] and list((people / "server" / "incoming").iterdir()) == []


def test_a_line_that_is_too_long_or_too_large(serve: Serve, loaded: list[str]) -> None:
    seconds = media.probe(LINE).duration_s
    with serve(Limits(line_s=seconds - 0.1)) as client:
        assert "Split it" in detail(client.post(LINES, files=FILES), 422)
    with serve(Limits(line_bytes=1 << 10)) as client:
        assert "too large" in detail(client.post(LINES, files=FILES), 413)
    assert loaded == []


def test_who_may_have_a_line(client: TestClient) -> None:
    bare = TestClient(client.app, "http://127.0.0.1:8730")
    assert bare.post(LINES, files=FILES).status_code == 401
    other = client.post(LINES, files=FILES, headers={"Origin": "https://evil.example"})
    assert other.status_code == 403
    text = detail(client.post("/v1/identities/berta/lines", files=FILES), 404)
    assert "berta is not fitted" in text


def test_lines_are_prepared_one_at_a_time(serve: Serve) -> None:
    with serve(Limits(preview_s=0.01)) as client:
        lines = client.app.state.service.web_lines  # type: ignore[attr-defined]
        with lines._lock:
            answer = client.post(LINES, files=FILES)
        assert "other lines" in detail(answer, 503) and int(answer.headers["retry-after"]) > 0
        assert client.post(LINES, files=FILES).status_code == 200
