"""Damage to texts: lines, numbers, words, encodings, control characters, nesting."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

from benchmarks.fuzz.mutations import hostile, raw
from benchmarks.fuzz.mutations.raw import Mutated

_Damage = Callable[[str, Random], tuple[str, str]]
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_WORD = re.compile(r"[^\W\d_]{2,}")
LONGEST = 400_000
"""Number of characters above which a text is not repeated any more."""


def mutate(data: bytes, rng: Random, snippets: Sequence[str] = ()) -> Mutated:
    """Damage a UTF-8 text in one to four ways, then encode it.

    snippets: known difficult pieces of the format, which are inserted as lines.
    """
    text, said = data.decode(), []
    for _ in range(rng.choice((1, 1, 2, 4))):
        if snippets and rng.random() < 0.2:
            text, what = _put_line(text, rng.choice(snippets), rng), "a difficult line"
        else:
            text, what = rng.choice(_DAMAGES)(text, rng)
        said.append(what)
    if rng.random() < 0.15:
        changed, what = raw.mutate(text.encode("utf-8", "surrogatepass"), rng)
        return changed, "; ".join([*said, what])
    changed, how = _encoded(text, rng)
    return changed, "; ".join([*said, *how])


def _encoded(text: str, rng: Random) -> tuple[bytes, list[str]]:
    """Encode in UTF-8 with lone surrogates, sometimes in another encoding."""
    if rng.random() < 0.93:
        return text.encode("utf-8", "surrogatepass"), []
    name = rng.choice(("utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig", "utf-7", "cp037"))
    errors = "surrogatepass" if name.startswith("utf") and name != "utf-7" else "replace"
    return text.encode(name, errors), [f"in {name}"]


def _put_line(text: str, line: str, rng: Random) -> str:
    lines = text.split("\n")
    lines.insert(rng.randint(0, len(lines)), line)
    return "\n".join(lines)


def _put_number(text: str, rng: Random) -> tuple[str, str]:
    found = list(_NUMBER.finditer(text))
    if not found:
        return text + hostile.number_text(rng), "a number behind"
    chosen, value = rng.choice(found), hostile.number_text(rng)
    changed = text[: chosen.start()] + value + text[chosen.end() :]
    return changed, f"{chosen[0]} is {value[:40]}"


def _put_word(text: str, rng: Random) -> tuple[str, str]:
    found = list(_WORD.finditer(text))
    value = hostile.text(rng) if rng.random() < 0.8 else rng.choice(hostile.PATHS)
    if not found:
        return text + value, f"{value[:30]!r} behind"
    chosen = rng.choice(found)
    return text[: chosen.start()] + value + text[chosen.end() :], f"{chosen[0]} is {value[:30]!r}"


def _insert(text: str, rng: Random) -> tuple[str, str]:
    at, value = rng.randint(0, len(text)), hostile.text(rng)
    return text[:at] + value + text[at:], f"{value[:30]!r} inserted"


def _remove(text: str, rng: Random) -> tuple[str, str]:
    at, size = rng.randint(0, len(text)), rng.choice((1, 1, 3, 30))
    return text[:at] + text[at + size :], f"{size} characters removed"


def _cut(text: str, rng: Random) -> tuple[str, str]:
    size = rng.randint(0, len(text))
    return text[:size], f"cut to {size} characters"


def _lines(text: str, rng: Random) -> tuple[str, str]:
    lines = text.split("\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    how = rng.choice(("drop", "twice", "swap", "many"))
    if how == "drop":
        del lines[at]
    elif how == "swap":
        lines[at], lines[other] = lines[other], lines[at]
    else:
        times = 1 if how == "twice" else max(1, min(2000, LONGEST // (len(lines[at]) + 1)))
        lines[at:at] = [lines[at]] * times
    return "\n".join(lines), f"line {at}: {how}"


def _repeat(text: str, rng: Random) -> tuple[str, str]:
    """Repeat a piece many times, to reveal quadratic time."""
    at, size = rng.randint(0, len(text)), rng.choice((1, 2, 8))
    piece = text[at : at + size] or rng.choice("(<{[&*\\\n0: -")
    times = rng.choice((50, 3000, LONGEST // len(piece)))
    return text[:at] + piece * times + text[at:], f"{piece!r} {times} times"


def _nest(text: str, rng: Random) -> tuple[str, str]:
    at, times = rng.randint(0, len(text)), rng.choice((60, 2000, 100_000))
    opening = rng.choice(("[", "{", '{"a":', "- ", "<b>", "(", "{\\", "[[", "&a [", "? "))
    return text[:at] + opening * times + text[at:], f"{opening!r} {times} deep"


def _ends(text: str, rng: Random) -> tuple[str, str]:
    end = rng.choice(("\r\n", "\r", "\n\n", "\u2028", "\x0b", "\x00", ""))
    return text.replace("\n", end), f"lines end with {end!r}"


_DAMAGES: tuple[_Damage, ...] = (
    _put_number, _put_number, _put_number, _put_word, _put_word, _put_word, _insert, _insert,
    _remove, _cut, _lines, _lines, _repeat, _nest, _ends,
)  # fmt: skip
