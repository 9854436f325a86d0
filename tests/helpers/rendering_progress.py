"""Progress that counts rendered frames, and stops at one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from talkhead.progress import SilentProgress, Step


class Kill(Exception):
    """Raised in the middle of a line."""


class Counting(SilentProgress):
    """Counts rendered frames, and raises Kill at a given one."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.made, self._stop_at = 0, stop_at

    @contextmanager
    def step(self, name: str, total: int | None = None, done: int = 0) -> Iterator[Step]:
        yield self if name == "Rendering" else super().step(name).__enter__()  # type: ignore[misc]

    def advance(self, n: int = 1) -> None:
        self.made += n
        if self.made == self._stop_at:
            raise Kill

    def skip(self, reason: str) -> None:
        pass

    def detail(self, text: str) -> None:
        pass
