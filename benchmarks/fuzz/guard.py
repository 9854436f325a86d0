"""Observes effects of a case outside its folder, and prevents changes there.

An audit hook of the interpreter: connections, name lookups, started programs, written files.
Effects outside of Python (of ffmpeg, of C2PA) are only detected by the traps.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PROGRAMS = ("ffmpeg", "python")
"""Prefixes of the names of programs that may be started."""
_HARMLESS = ("/dev/null", "/dev/fd/", "/proc/self/")
_CACHES = "__pycache__"


class Guard:
    """The hook of a process, active while a case runs. incidents: what it has observed."""

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self._on = False
        self.incidents: list[str] = []
        self._seen: dict[str, Callable[..., None]] = {
            "socket.connect": self._connect,
            "socket.sendto": self._connect,
            "socket.getaddrinfo": self._look_up,
            "socket.gethostbyname": self._look_up,
            "subprocess.Popen": self._start,
            "os.system": self._start,
            "os.exec": self._start,
            "os.posix_spawn": self._start,
            "open": self._open,
            "os.mkdir": self._change,
            "os.rmdir": self._change,
            "os.remove": self._change,
            "os.truncate": self._change,
            "os.chmod": self._change,
            "os.rename": self._rename,
            "os.symlink": self._rename,
            "os.link": self._rename,
        }
        sys.addaudithook(self._audit)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """A block in which the guard is active."""
        self.incidents = []
        self._on = True
        try:
            yield
        finally:
            self._on = False

    def _audit(self, event: str, given: tuple[Any, ...]) -> None:
        if self._on and (see := self._seen.get(event)) is not None:
            see(*given)

    def _connect(self, connection: Any, address: object, *more: object) -> None:
        if getattr(connection, "family", None) != getattr(socket, "AF_UNIX", None):
            self.incidents.append(f"network: a connection to {address}")

    def _look_up(self, host: object, *more: object) -> None:
        self.incidents.append(f"network: the name {host} was looked up")

    def _start(self, program: object, arguments: object = (), *more: object) -> None:
        first = arguments[0] if isinstance(arguments, list | tuple) and arguments else program
        if not os.path.basename(os.fsdecode(str(first))).startswith(_PROGRAMS):
            self.incidents.append(f"program: {first} was started")

    def _open(self, path: object, mode: object, flags: int) -> None:
        if flags & _WRITING and not isinstance(path, int):
            self._change(path)

    def _change(self, path: object, *more: object) -> None:
        """Refuse operations that would change a file outside the root."""
        if isinstance(path, int) or path is None or self._is_ours(path):
            return
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))  # type: ignore[call-overload]

    def _rename(self, source: object, target: object, *more: object) -> None:
        self._change(target)

    def _is_ours(self, path: object) -> bool:
        whole = os.path.realpath(os.fsdecode(path))  # type: ignore[arg-type]
        inside = whole == self._root or whole.startswith(self._root + os.sep)
        return inside or whole.startswith(_HARMLESS) or _CACHES in whole
