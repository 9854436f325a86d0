"""Faults in what a case left behind: on the terminal, in its folder, in its traps."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path

from benchmarks.fuzz.mutations.hostile import FORGED

State = tuple[int, int, int]
"""Kind, size and modification time of a file."""
LEFTOVERS = re.compile(r"\..+\.(tmp-.*|old(-.*)?|new)|.*/temporary/.*", re.DOTALL)
"""Names of files that only a killed process may leave behind."""
_BIDIRECTIONAL = {chr(c) for c in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_ALLOWED = "\n\t"


def terminal_faults(said: bytes) -> list[str]:
    """List harmful output that an input caused on the terminal: control characters, forged lines."""
    try:
        text = said.decode()
    except UnicodeDecodeError as error:
        return [f"output that is not UTF-8: {said[error.start : error.start + 20]!r}"]
    bad = sorted({c for c in text if _moves_a_terminal(c)})
    faults = [f"control characters on the terminal: {bad[:8]}"] if bad else []
    if any(line.startswith(FORGED) for line in text.splitlines()):
        faults.append("a line that the input forged")
    return faults


def _moves_a_terminal(character: str) -> bool:
    if character in _ALLOWED:
        return False
    category = unicodedata.category(character)
    return category in ("Cc", "Cs", "Zl", "Zp") or character in _BIDIRECTIONAL


def snapshot(folder: Path) -> dict[str, State]:
    """State of all files below a folder."""
    found = {}
    for path in folder.rglob("*"):
        state = path.lstat()
        if not path.is_dir() or path.is_symlink():
            found[str(path.relative_to(folder))] = (state.st_mode, state.st_size, state.st_mtime_ns)
    return found


def leftovers(folder: Path, before: Mapping[str, State]) -> list[str]:
    """List temporary files and folders that were not there before."""
    found = []
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        is_left = LEFTOVERS.fullmatch(path.name) or LEFTOVERS.fullmatch(name)
        if name not in before and is_left:
            found.append(f"{name} was left")
    return found


def changed(
    before: Mapping[str, State], after: Mapping[str, State], allowed: Iterable[str]
) -> list[str]:
    """List files that were written, changed or removed although no pattern allows it."""
    patterns = tuple(allowed)
    names = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    bad = [n for n in sorted(names) if not any(fnmatch(n, pattern) for pattern in patterns)]
    return [f"{name} was {_what_happened(name, before, after)}" for name in bad]


def _what_happened(name: str, before: Mapping[str, State], after: Mapping[str, State]) -> str:
    if name not in before:
        return "written"
    return "changed" if name in after else "removed"
