"""What a case is made of: where it takes place, what is done, and what may come of it."""

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
"""Outcomes that are no faults: it worked; one line said why not; the arguments were wrong."""
FAULTS = (
    "traceback", "hang", "signal", "memory", "half-written", "terminal", "network", "trap",
    "program", "accepted", "valid refused", "broken case",
)  # fmt: skip
"""Outcomes that are. trap: a file was read or written that is none of the command's business.
accepted: what must be refused was not. broken case: the suite's own code failed."""


class EnoughError(TalkheadError):
    """The command went as far as a case is meant to go: what is long is not a fault."""


@dataclass(frozen=True)
class Trial:
    """A case that is ready to run.

    do: the command or function. expected: outcomes where nothing was damaged. must_fail: whether a
    success is a fault. changes: patterns, relative to the case's folder, of files that may be new or
    changed afterwards, whatever the outcome; products: those that may be only when it succeeds.
    check: looks at the products of a success; what it raises is a fault.
    """

    do: Callable[[], object]
    expected: tuple[str, ...] = (DONE,)
    must_fail: bool = False
    changes: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    check: Callable[[], None] | None = None


@dataclass
class Setting:
    """Where a case takes place. bases: files in order, by name. folder: the case's own. plain: nothing
    is damaged. said: what was, in words."""

    rng: Random
    folder: Path
    bases: Path
    traps: Traps
    plain: bool = False
    said: list[str] = field(default_factory=list)

    def damage(self, data: bytes, mutate: Callable[..., Mutated], *more: Any) -> bytes:
        """The bytes after a mutation, which is noted; as they are in a plain case."""
        if self.plain:
            return data
        changed, what = mutate(data, self.rng, *more)
        self.said.append(what)
        return changed

    def note(self, what: str) -> None:
        """Say what else was done."""
        self.said.append(what)

    def base(self, name: str) -> bytes:
        """The content of a base file."""
        return (self.bases / name).read_bytes()

    def place(self, name: str, data: bytes) -> Path:
        """A new file of the case."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def chance(self, share: float) -> bool:
        """Whether something is done, in a share of the cases, never in a plain one."""
        return not self.plain and self.rng.random() < share


@dataclass(frozen=True)
class Kind:
    """A kind of input. make: draws a case of it. weight: how often, beside the others."""

    name: str
    make: Callable[[Setting], Trial]
    weight: float = 1.0


@dataclass(frozen=True)
class Suite:
    """What a worker runs. build: makes the base files in a folder, once. patch: readies the process.
    begin: is called before each case."""

    kinds: tuple[Kind, ...]
    build: Callable[[Path, Traps], None]
    patch: Callable[[], None] = lambda: None
    begin: Callable[[], None] = lambda: None
