"""What no input may make a command touch: an address, neighboring files, the places outside a case.

The listener hears every connection to an address on loopback, whoever makes it. The canaries are files
that hostile inputs name; that one was read shows in its time of access.
"""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

CANARY_WORDS = "canary: nothing may read this file"
_ANSWER = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_LONG_AGO_NS = 10**18


class Listener:
    """Accepts connections on loopback and keeps the first line that each says."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._heard: list[str] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(2.0)
            try:
                said = connection.recv(4096)
                connection.sendall(_ANSWER)
            except OSError:
                said = b""
        with self._lock:
            self._heard.append(said.split(b"\r\n")[0].decode("utf-8", "replace") or "a connection")

    def take(self) -> list[str]:
        """What has been heard since the last call."""
        with self._lock:
            heard, self._heard = self._heard, []
        return heard

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


@dataclass(frozen=True)
class Traps:
    """What hostile inputs point to. port: of the listener. folder: where the canaries are."""

    port: int
    folder: Path

    @property
    def url(self) -> str:
        """An address that the listener hears."""
        return f"http://127.0.0.1:{self.port}/heard"

    @property
    def text(self) -> Path:
        """A canary that is a text."""
        return self.folder / "canary.txt"

    @property
    def media(self) -> Path:
        """A canary that ffmpeg can play."""
        return self.folder / "canary.wav"

    def place(self, sound: bytes) -> None:
        """Write the canaries; sound: a file of sound."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.text.write_text(CANARY_WORDS + "\n")
        self.media.write_bytes(sound)

    def arm(self) -> None:
        """Let the next reader of a canary be seen."""
        for path in (self.text, self.media):
            os.utime(path, ns=(_LONG_AGO_NS, path.stat().st_mtime_ns))

    def read(self) -> list[str]:
        """The canaries that were read since `arm`; none on disks that keep no time of access."""
        return [p.name for p in (self.text, self.media) if p.stat().st_atime_ns != _LONG_AGO_NS]
