"""Text to speech: the installed voice, a voice server, and their errors."""

from __future__ import annotations

import io
import json
import threading
import wave
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import pytest

from talkhead.app import text_to_speech
from talkhead.app.text_to_speech import file_stem, read_wav, synthesize
from talkhead.audio import resample
from talkhead.encoder.vad import speech_seconds
from talkhead.errors import TalkheadError


def wav(
    samples: np.ndarray[Any, Any], rate: int = 24_000, channels: int = 1, width: int = 2
) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


class Server(HTTPServer):
    reply: bytes = wav(np.arange(2400, dtype=np.int16))
    status: int = 200
    asked: list[tuple[str, dict[str, Any], str | None]]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body, self.headers["Authorization"]))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.reply)

    def log_message(self, *given: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Handler)
    made.asked = []
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def address(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def test_the_installed_voice_speaks_numbers_and_is_deterministic() -> None:
    first, rate = synthesize("It is 9:30 on March 3rd, and 12 people are here.")
    again, _ = synthesize("It is 9:30 on March 3rd, and 12 people are here.")
    np.testing.assert_array_equal(first, again)
    waveform = resample(first.astype(np.float32) / 32768.0, rate, 16_000)
    assert 2.0 < len(waveform) / 16_000 < 8.0
    assert speech_seconds(waveform) > 1.5
    faster, _ = synthesize("It is 9:30 on March 3rd, and 12 people are here.", speed=1.5)
    assert len(faster) < 0.8 * len(first)


def test_a_voice_server_is_asked_for_the_text(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(text_to_speech.KEY_VARIABLE, "secret")
    for url in ("", "/", "/v1", "/v1/audio/speech"):
        sound, rate = synthesize(" Hello. ", voice="echo", url=address(server) + url, speed=1.25)
        assert rate == 24_000
        np.testing.assert_allclose(sound, np.arange(2400), atol=1)
    assert {path for path, _, _ in server.asked} == {"/v1/audio/speech"}
    body = server.asked[0][1]
    assert body["input"] == "Hello."
    assert (body["voice"], body["speed"], body["response_format"]) == ("echo", 1.25, "wav")
    assert server.asked[0][2] == "Bearer secret"


def test_no_key_is_sent_without_one(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(text_to_speech.KEY_VARIABLE, raising=False)
    synthesize("Hello.", url=address(server))
    assert server.asked[0][2] is None


@pytest.mark.parametrize(
    ("reply", "status", "message"),
    [
        (b"no such voice", 404, "answers with 404: no such voice"),
        (b"<html>", 200, "not a .wav file"),
        (b"", 200, "not a .wav file"),
        (wav(np.zeros(0, np.int16)), 200, "no sound"),
        (wav(np.zeros(10, np.uint8), width=1), 200, "8-bit samples"),
    ],
)
def test_bad_responses_are_reported(
    server: Server, reply: bytes, status: int, message: str
) -> None:
    server.reply, server.status = reply, status
    with pytest.raises(TalkheadError, match=message):
        synthesize("Hello.", url=address(server))


def test_a_missing_server_is_reported(server: Server) -> None:
    server.server_close()
    server.shutdown()
    with pytest.raises(TalkheadError, match="no answer"):
        synthesize("Hello.", url=address(server))


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ("", {}, "contains no words"),
        (" ... ", {}, "contains no words"),
        ("word " * 2000, {}, "at most 5000"),
        ("Hello.", {"speed": 9.0}, "between 0.5 and 2"),
        ("Hello.", {"voice": "echo"}, "--voice-url"),
        ("Hello.", {"url": "file:///etc/passwd"}, "not an address"),
        ("Hello.", {"url": "localhost:8880"}, "not an address"),
    ],
)
def test_bad_requests_are_refused(text: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(TalkheadError, match=message):
        synthesize(text, **given)


def test_without_a_voice_the_message_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_to_speech.importlib.util, "find_spec", lambda name: None)
    assert not text_to_speech.is_available()
    with pytest.raises(TalkheadError, match=r"talkhead\[voice\]"):
        synthesize("Hello.")


def test_a_stream_without_its_length_is_read_and_channels_are_mixed() -> None:
    stereo = np.stack([np.full(500, 1000), np.full(500, 3000)], axis=1).astype(np.int16)
    content = bytearray(wav(stereo, channels=2))
    content[40:44] = b"\xff\xff\xff\x7f"  # written by servers that do not have the length
    sound, rate = read_wav(bytes(content), "reply")
    assert rate == 24_000
    np.testing.assert_allclose(sound, np.full(500, 2000), atol=1)


@pytest.mark.parametrize(
    ("text", "stem"),
    [
        ("Good morning! It's 9:30.", "good-morning-its-9-30"),
        ("One two three four five six seven", "one-two-three-four-five-six"),
        ("../../etc/passwd", "etc-passwd"),
        ("你好", "line"),
    ],
)
def test_files_are_named_by_the_first_words(text: str, stem: str) -> None:
    assert file_stem(text) == stem
