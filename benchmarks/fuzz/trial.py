"""Parts of a case: its setting, what is run, and its possible outcomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.fuzz.mutations.raw import Mutated
from benchmarks.fuzz.traps import Traps
from talkhead.errors import TalkheadError

DONE, REFUSED, USAGE = "done", "refused", "usage"
"""Outcomes without a fault: it worked; it ended with a message; the arguments were wrong."""
FAULTS = (
    "traceback", "hang", "signal", "memory", "half-written", "terminal", "network", "trap",
    "program", "accepted", "valid refused", "broken case",
)  # fmt: skip
"""Outcomes with a fault. trap: a file outside the command's inputs and outputs was read or written.
accepted: an input that must be refused was accepted. broken case: the suite's own code failed.
"""


class EnoughError(TalkheadError):
    """The command has run far enough for a case: a long run is not a fault."""


@dataclass(frozen=True)
class Trial:
    """A case that is ready to run.

    do: the command or function. expected: outcomes of an undamaged case. must_fail: whether success
    is a fault. changes: patterns, relative to the case's folder, of files that may be new or
    changed afterwards, whatever the outcome; products: those that may exist only after a success.
    check: checks the products of a success; its exceptions are faults.
    """

    do: Callable[[], object]
    expected: tuple[str, ...] = (DONE,)
    must_fail: bool = False
    changes: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    check: Callable[[], None] | None = None


@dataclass
class Setting:
    """Environment of a case. bases: folder of the valid files. folder: the case's own folder.
    plain: True to damage nothing. said: descriptions of the damage.
    """

    rng: Random
    folder: Path
    bases: Path
    traps: Traps
    plain: bool = False
    said: list[str] = field(default_factory=list)

    def damage(self, data: bytes, mutate: Callable[..., Mutated], *more: Any) -> bytes:
        """Bytes after a mutation, whose description is recorded; unchanged in a plain case."""
        if self.plain:
            return data
        changed, what = mutate(data, self.rng, *more)
        self.said.append(what)
        return changed

    def note(self, what: str) -> None:
        """Record another description."""
        self.said.append(what)

    def base(self, name: str) -> bytes:
        """Content of a base file."""
        return (self.bases / name).read_bytes()

    def place(self, name: str, data: bytes) -> Path:
        """Write a file of the case."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def chance(self, share: float) -> bool:
        """True in a share of the cases, never in a plain one."""
        return not self.plain and self.rng.random() < share


@dataclass(frozen=True)
class Kind:
    """A kind of input. make: draws a case of it. weight: frequency relative to the others."""

    name: str
    make: Callable[[Setting], Trial]
    weight: float = 1.0


@dataclass(frozen=True)
class Suite:
    """The kinds that a worker runs. build: makes the base files in a folder, once. patch: prepares the
    process. begin: called before each case.
    """

    kinds: tuple[Kind, ...]
    build: Callable[[Path, Traps], None]
    patch: Callable[[], None] = lambda: None
    begin: Callable[[], None] = lambda: None
