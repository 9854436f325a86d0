"""Text to speech: a voice installed with `talkhead[voice]`, or the voice of a server.

The installed voice is hibari-tts (Apache-2.0): one English voice, within the package, 100 times as
fast as real time on one core. A server must have OpenAI's interface, `POST .../v1/audio/speech`, as
many programs that run locally do. Text is sent to it only if its address is given.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import urllib.error
import urllib.request
import wave
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from talkhead.errors import TalkheadError

if TYPE_CHECKING:
    import numpy as np

    from talkhead.types import Int16

URL_VARIABLE = "TALKHEAD_VOICE_URL"
"""Environment variable with the address of a voice server."""
KEY_VARIABLE = "TALKHEAD_VOICE_KEY"
"""Environment variable with the key of a voice server."""
MAX_TEXT = 5000
"""Maximum number of characters of a text."""
MAX_REPLY_BYTES = 64 << 20
TIMEOUT_S = 120.0
MODEL = "tts-1"
"""Model that is requested from a voice server. Most servers with a single model ignore it."""
DEFAULT_VOICE = "alloy"
"""Voice that is requested from a voice server."""
MISSING = (
    "text: no voice is installed. Run: pip install 'talkhead[voice]' (English), or give the address "
    "of a voice server: --voice-url http://localhost:8880"
)


def is_available(url: str | None = None) -> bool:
    """Check whether text can be spoken.

    Args:
        url: Address of a voice server, if one is to be used.

    Returns:
        True if there is one, or a voice is installed.
    """
    return url is not None or importlib.util.find_spec("hibari") is not None


def synthesize(
    text: str, *, voice: str | None = None, url: str | None = None, speed: float = 1.0
) -> tuple[Int16, int]:
    """Speak a text; `speak(synthesize("Hello"))` renders it.

    Args:
        text: The text. The installed voice speaks English.
        voice: Name of a voice of the server. None: the server's "alloy".
        url: Address of a voice server, such as "http://localhost:8880", to which the text is sent; its
            key, if it needs one, is read from the environment variable TALKHEAD_VOICE_KEY. None: the
            installed voice, and nothing is sent.
        speed: Speed relative to normal, 0.5 to 2.

    Returns:
        The audio, int16 [n], and its sample rate in Hz.

    Raises:
        TalkheadError: The text is empty or too long, no voice is installed, or the server does not
            respond with audio.
    """
    text = text.strip()
    if not any(letter.isalnum() for letter in text):
        raise TalkheadError("text: contains no words. Pass at least one word")
    if len(text) > MAX_TEXT:
        raise TalkheadError(
            f"text: {len(text)} characters, at most {MAX_TEXT} are allowed. Split it into several lines"
        )
    if not 0.5 <= speed <= 2.0:
        raise TalkheadError(f"speed: {speed:g} is not between 0.5 and 2")
    if url is not None:
        return _from_server(text, voice or DEFAULT_VOICE, url, speed)
    if voice is not None:
        raise TalkheadError("voice: only a voice server has several voices. Pass --voice-url, too")
    return _from_hibari(text, speed)


def file_stem(text: str) -> str:
    """Make the name of a file from a text.

    Args:
        text: The text.

    Returns:
        Its first words in lower case, joined by "-"; "line" if it has no Latin letters.
    """
    words = re.findall(r"[a-z0-9]+", text.lower().replace("'", ""))
    return "-".join(words[:6])[:60].strip("-") or "line"


def _from_hibari(text: str, speed: float) -> tuple[Int16, int]:
    """Synthesize speech with the installed voice; the same text always gives the same audio.

    Raises:
        TalkheadError: It is not installed, or finds no words in the text.
    """
    import numpy as np

    if not is_available():
        raise TalkheadError(MISSING)
    engine = _hibari()
    sound = np.asarray(engine(text, speed=speed, seed=0), np.float32)
    if len(sound) == 0:
        raise TalkheadError("text: the voice finds no English words in it")
    return _as_int16(sound), int(engine.sample_rate)


@lru_cache(maxsize=1)
def _hibari() -> Any:
    """Return the installed voice, which is loaded once."""
    from hibari import Hibari

    return Hibari()  # its default voice is in the package; others would be downloaded


def _from_server(text: str, voice: str, url: str, speed: float) -> tuple[Int16, int]:
    """Request speech from a voice server.

    Raises:
        TalkheadError: The URL is invalid, or the server does not respond with audio.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise TalkheadError(f"voice-url: {url} is not an address such as http://localhost:8880")
    address = url.rstrip("/")
    if not address.endswith("/audio/speech"):
        address += "/audio/speech" if address.endswith("/v1") else "/v1/audio/speech"
    body = {
        "model": MODEL,
        "input": text,
        "voice": voice,
        "response_format": "wav",
        "speed": speed,
    }
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(KEY_VARIABLE):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(address, json.dumps(body).encode(), headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            content = reply.read(MAX_REPLY_BYTES + 1)
    except urllib.error.HTTPError as error:
        detail = error.read(300).decode("utf-8", "replace")
        raise TalkheadError(f"{address}: answers with {error.code}: {detail}") from error
    except (OSError, ValueError) as error:
        raise TalkheadError(
            f"{address}: no answer ({error}). Start the voice server, or check the address"
        ) from error
    if len(content) > MAX_REPLY_BYTES:
        raise TalkheadError(f"{address}: answers with more than {MAX_REPLY_BYTES >> 20} MB")
    return read_wav(content, address)


def read_wav(content: bytes, name: str) -> tuple[Int16, int]:
    """Read the audio of a .wav file.

    Args:
        content: The file. Its length fields may be wrong if the server streams.
        name: Name of the file for error messages.

    Returns:
        The audio, int16 [n], the mean of its channels, and its sample rate in Hz.

    Raises:
        TalkheadError: It is not a .wav file of 16-bit samples, or has no audio.
    """
    import numpy as np

    try:
        with wave.open(io.BytesIO(content)) as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            data = file.readframes(len(content))
    except (wave.Error, EOFError) as error:
        raise TalkheadError(f"{name}: the answer is not a .wav file ({error})") from error
    if width != 2 or channels < 1:
        raise TalkheadError(f"{name}: the answer has {8 * width}-bit samples, 16-bit are needed")
    samples = np.frombuffer(data[: len(data) // (2 * channels) * 2 * channels], "<i2")
    if len(samples) == 0:
        raise TalkheadError(f"{name}: the answer has no sound")
    mixed = samples.reshape(-1, channels).astype(np.float32).mean(1) / np.float32(32768.0)
    return _as_int16(mixed), rate


def _as_int16(sound: np.ndarray[Any, Any]) -> Int16:
    """Convert audio [n] in [-1, 1] to 16 bits."""
    import numpy as np

    return np.asarray(np.rint(np.clip(sound, -1.0, 1.0) * 32767.0), np.int16)
