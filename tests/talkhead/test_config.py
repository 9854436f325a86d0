"""Dataclasses from JSON: unknown keys, wrong types and values out of bounds are refused by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from talkhead.config import bounded, from_json, limits, one_of, to_json
from talkhead.errors import PackageError


@dataclass(frozen=True)
class Inner:
    n: int
    rates: tuple[float, ...] = ()


@dataclass(frozen=True)
class Outer:
    name: str
    size: int = field(metadata=limits(1, 10))
    inner: Inner
    share: float = bounded(0.5, 0.0, 1.0)
    kind: str = one_of("planes", "planes", "hash")
    pair: tuple[int, str] = (1, "a")
    is_open: bool = False
    note: str | None = None
    parts: Mapping[str, Inner] = field(default_factory=dict)
    rest: Mapping[str, Any] = field(default_factory=dict)


GOOD: dict[str, Any] = {"name": "Ä", "size": 3, "inner": {"n": 1, "rates": [1, 2.5]}}


def test_round_trip() -> None:
    made = from_json(Outer, GOOD)
    assert made == Outer("Ä", 3, Inner(1, (1, 2.5)))
    full = Outer("a", 1, Inner(0), 1.0, "hash", (2, "b"), True, "no", {"p": Inner(7)}, {"q": [1]})
    assert from_json(Outer, json.loads(json.dumps(to_json(full)))) == full


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mood": 1}, "Outer has no 'mood'"),
        ({"name": 1}, "name is 1, where text is needed"),
        ({"size": 2.0}, "size is 2.0, where a whole number is needed"),
        ({"size": True}, "size is True, where a whole number is needed"),
        ({"size": 11}, "size is 11, where 1 to 10 is allowed"),
        ({"share": 1.5}, "share is 1.5, where 0 to 1 is allowed"),
        ({"share": float("nan")}, "share is nan, where a number is needed"),
        ({"share": 10**400}, "share is 1000000000.*, where a number is needed"),
        ({"kind": "cubes"}, "kind is 'cubes', where one of planes, hash is allowed"),
        ({"pair": [1]}, r"pair is \[1\], where a list of 2 is needed"),
        ({"pair": "1a"}, "pair is '1a', where a list is needed"),
        ({"is_open": 1}, "is_open is 1, where true or false is needed"),
        ({"note": 5}, "note is 5, where text is needed"),
        ({"inner": 5}, "Inner is 5, where an object is needed"),
        ({"inner": {}}, "n is missing"),
        ({"inner": {"n": 1, "rates": ["x"]}}, "rates is 'x', where a number is needed"),
        ({"parts": []}, r"parts is \[\], where an object is needed"),
        ({"parts": {"p": {"m": 1}}}, "Inner has no 'm'"),
        ({"\x1b[2J": 1}, r"Outer has no '\\x1b\[2J'"),
        ({"kind": "\n" * 500}, "kind is "),
    ],
)
def test_wrong_values_are_reported(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PackageError, match=message) as caught:
        from_json(Outer, {**GOOD, **change})
    assert str(caught.value).isprintable() and len(str(caught.value)) < 150


@pytest.mark.parametrize("data", [None, [], "x", 3])
def test_values_that_are_not_objects(data: Any) -> None:
    with pytest.raises(PackageError, match="where an object is needed"):
        from_json(Outer, data)
