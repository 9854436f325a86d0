"""Damage to the structure of JSON: values, keys, types, depth, and extensions that only some parsers
accept.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

from benchmarks.fuzz.mutations import hostile, texts
from benchmarks.fuzz.mutations.raw import Mutated

DEEP = 100_000


def mutate(data: bytes, rng: Random) -> Mutated:
    """Change a JSON text, which usually remains valid."""
    if rng.random() < 0.2:
        return texts.mutate(data, rng)
    tree, said = json.loads(data), []
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        tree, what = mutate_tree(tree, rng)
        said.append(what)
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.06:
        text, what = _rewritten(text, rng)
        said.append(what)
    return text.encode("utf-8", "surrogatepass"), "; ".join(said)


def mutate_tree(tree: Any, rng: Random) -> tuple[Any, str]:
    """Change something in a JSON value; returns a description."""
    places = list(_places(tree, ()))
    path = rng.choice(places)
    if not path:
        return value(rng), "all of it replaced"
    holder = tree
    for key in path[:-1]:
        holder = holder[key]
    last, name = path[-1], "/".join(map(str, path))[:80]
    how = rng.choice(("value", "value", "value", "near", "near", "drop", "rename", "wrap", "more"))
    if how == "near":
        holder[last] = _near(holder[last], rng)
    elif how == "drop":
        del holder[last]
    elif how == "rename" and isinstance(holder, dict):
        holder[hostile.within(str(last), rng)] = holder.pop(last)
    elif how == "wrap":
        holder[last] = rng.choice(([holder[last]], {"a": holder[last]}, str(holder[last])))
    elif how == "more" and isinstance(holder, dict):
        holder[rng.choice(("more", hostile.text(rng)))] = value(rng)
    else:
        holder[last] = value(rng)
        return tree, f"{name} is {str(holder[last])[:40]!r}"
    return tree, f"{name}: {how}"


def _places(tree: Any, path: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Paths to all values of a tree."""
    found = [path]
    if isinstance(tree, dict):
        for key, child in tree.items():
            found += _places(child, (*path, key))
    elif isinstance(tree, list):
        for index, child in enumerate(tree[:20]):
            found += _places(child, (*path, index))
    return found


def value(rng: Random) -> Any:
    """Draw any JSON value."""
    made: tuple[Callable[[], Any], ...] = (
        lambda: rng.choice(hostile.WHOLE),
        lambda: rng.choice(hostile.WHOLE),
        lambda: rng.choice(hostile.REAL),
        lambda: hostile.text(rng),
        lambda: hostile.text(rng),
        lambda: rng.choice(hostile.PATHS),
        lambda: rng.choice((None, True, False)),
        lambda: rng.choice(([], {}, [[]], [None], {"": {}}, [1, "a", None], {"a": [{}]})),
    )
    return rng.choice(made)()


def _near(old: Any, rng: Random) -> Any:
    """Draw a value of the same type."""
    if isinstance(old, bool) or old is None:
        return not old
    if isinstance(old, int):
        return rng.choice((old + 1, old - 1, -old, old * 1000, rng.choice(hostile.WHOLE)))
    if isinstance(old, float):
        return rng.choice((old * 1e6, -old, 0.0, rng.choice(hostile.REAL)))
    if isinstance(old, str):
        return hostile.within(old, rng)
    if isinstance(old, list):
        return rng.choice((old * 2, old[:-1], old * 2000 if len(old) < 20 else [], [*old, None]))
    return {**old, "more": 1}


def _rewritten(text: str, rng: Random) -> tuple[str, str]:
    """Write the text of another JSON value, or invalid JSON."""
    return rng.choice(
        (
            ("[" * DEEP, f"'[' {DEEP} deep"),
            ('{"a":' * DEEP, f"objects {DEEP} deep"),
            ("[" * 900 + "]" * 900, "lists 900 deep"),
            ("\ufeff" + text, "after a byte order mark"),
            (text[:-1] + "," + text[1:], "every key twice"),
            (text + text, "twice"),
            (text.replace('"', "'"), "single quotes"),
            ("9" * 5000, "a number of 5000 digits"),
            ("", "empty"),
        )
    )
