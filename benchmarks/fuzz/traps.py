"""Traps: a network address and files that no command may access because of an input.

The listener records all connections to an address on loopback. The canaries are files to which
hostile inputs refer; reading one changes its access time.
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
    """Accepts connections on loopback and records the first line of each."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._requests: list[str] = []
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
            self._requests.append(
                said.split(b"\r\n")[0].decode("utf-8", "replace") or "a connection"
            )

    def take(self) -> list[str]:
        """Connections since the last call."""
        with self._lock:
            requests, self._requests = self._requests, []
        return requests

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


@dataclass(frozen=True)
class Traps:
    """Targets of hostile inputs. port: the listener's port. folder: the folder of the canaries."""

    port: int
    folder: Path

    @property
    def url(self) -> str:
        """An address of the listener."""
        return f"http://127.0.0.1:{self.port}/trap"

    @property
    def text(self) -> Path:
        """A canary that is text."""
        return self.folder / "canary.txt"

    @property
    def media(self) -> Path:
        """A canary that ffmpeg can play."""
        return self.folder / "canary.wav"

    def place(self, sound: bytes) -> None:
        """Write the canaries; sound: content of an audio file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.text.write_text(CANARY_WORDS + "\n")
        self.media.write_bytes(sound)

    def arm(self) -> None:
        """Prepare to detect the next access to a canary."""
        for path in (self.text, self.media):
            os.utime(path, ns=(_LONG_AGO_NS, path.stat().st_mtime_ns))

    def read(self) -> list[str]:
        """Canaries that were read since `arm`; none on file systems without access times."""
        return [p.name for p in (self.text, self.media) if p.stat().st_atime_ns != _LONG_AGO_NS]
