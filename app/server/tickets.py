"""Tickets: addresses of files that work for some hours without the token.

A browser cannot send a header for `<video src>`. A ticket in the address allows one path to be read, and
nothing else. That of a folder is a part of the path, so that scripts in it find those that they import.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from urllib.parse import quote

LIFETIME_S = 6 * 3600
PARAMETER = "ticket"
_IN_PATH = re.compile(r"/[0-9]{1,15}-[0-9a-f]{64}(?=/)")


class Tickets:
    """Makes and checks tickets. They become invalid when the process that made them ends.

    Args:
        clock: Function that returns Unix time.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._key, self._clock = secrets.token_bytes(32), clock

    def link(self, path: str) -> str:
        """Make an address with a ticket. It stays the same for an hour, so that browsers can cache
        the file.

        Args:
            path: Path of a file of the API, not quoted.

        Returns:
            The quoted path with its ticket.
        """
        return f"{quote(path)}?{PARAMETER}={self._make(path)}"

    def folder_link(self, path: str) -> str:
        """Make an address with a ticket for all files of a folder, which stays the same for an hour.

        Args:
            path: Path of the folder, not quoted.

        Returns:
            The quoted path, with its ticket and a slash; names of files follow.
        """
        return f"{quote(path)}/{self._make(path)}/"

    def is_valid(self, path: str, ticket: str) -> bool:
        """Check a ticket.

        Args:
            path: The path that is requested, not quoted.
            ticket: The text from the address.

        Returns:
            True if it was made for this path and is not too old.
        """
        until, _, signature = ticket.partition("-")
        if not (until.isdecimal() and until.isascii() and len(until) < 16):
            return False
        expected = self._sign(path, int(until))
        return hmac.compare_digest(signature.encode(), expected.encode()) and (
            int(until) >= self._clock()
        )

    def _make(self, path: str) -> str:
        until = (int(self._clock()) // 3600 + 1) * 3600 + LIFETIME_S
        return f"{until}-{self._sign(path, until)}"

    def _sign(self, path: str, until: int) -> str:
        message = f"{until} {path}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()


def without_ticket(path: str) -> str:
    """Leave out the ticket of a folder.

    Args:
        path: Path of a file in it.

    Returns:
        The path for the log.
    """
    return _IN_PATH.sub("", path)
