"""Dataclasses from JSON: every key known, every value of its field's type and within its bounds.

A component declares what its config may hold beside the default,

    n_hidden: int = bounded(64, 1, 1024)

and `from_json` holds to it, so that nothing is ever made as large as a file asks for.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from talkhead.storage import ContentError, content_errors, read_json, shown

Config = TypeVar("Config")
Value = TypeVar("Value")

_BOUNDS = "bounds"


@dataclass(frozen=True)
class Bounds:
    """Least and most of a number, or of the numbers in a tuple; most_items: of the tuple itself."""

    least: float
    most: float
    most_items: int | None = None

    def allow(self, value: Any) -> bool:
        """Whether a number, or each one in nested tuples, lies within."""
        if isinstance(value, tuple):
            few = self.most_items is None or len(value) <= self.most_items
            return few and all(self.allow(one) for one in value)
        return self.least <= value <= self.most


def bounded(default: Value, least: float, most: float, most_items: int | None = None) -> Value:
    """A field of a config with a default and the bounds that from_json holds its value to."""
    metadata = {_BOUNDS: Bounds(least, most, most_items)}
    made: Value = field(default=default, metadata=metadata)
    return made


def limits(least: float, most: float, most_items: int | None = None) -> Mapping[str, Any]:
    """The same as metadata of a field that has no default: `field(metadata=limits(1, 9))`."""
    return {_BOUNDS: Bounds(least, most, most_items)}


def one_of(default: str, *words: str) -> str:
    """A field of a config that is one of some words."""
    made: str = field(default=default, metadata=choices(*words))
    return made


def choices(*words: str) -> Mapping[str, Any]:
    """The same as metadata of a field that has no default."""
    return {_BOUNDS: words}


def from_json(kind: type[Config], data: Any) -> Config:
    """The dataclass that parsed JSON holds.

    Raises ContentError, naming the key, for one that is unknown or missing and for a value of another
    type or out of bounds.
    """
    if not isinstance(data, Mapping):
        raise ContentError(f"{kind.__name__} is {shown(data)}, where an object is needed")
    known = _fields(kind)  # type: ignore[arg-type]
    for name in data:
        if name not in known:
            raise ContentError(f"{kind.__name__} has no {shown(name)}")
    for name, (one, _) in known.items():
        if name not in data and one.default is MISSING and one.default_factory is MISSING:
            raise ContentError(f"{name} is missing")
    return kind(**{name: _value(name, value, *known[name]) for name, value in data.items()})


def read_object(path: Path, kind: type[Config], advice: str) -> Config:
    """The dataclass that a JSON file holds.

    Raises TalkheadError where it can't be read, PackageError naming the file, what is wrong in it and
    what to do (advice) where it holds another object or none.
    """
    with content_errors(path, advice):
        return from_json(kind, read_json(path))


def to_json(config: Any) -> dict[str, Any]:
    """A config dataclass as JSON holds it."""
    return asdict(config)


@lru_cache(maxsize=64)
def _fields(kind: Any) -> dict[str, tuple[Field[Any], Any]]:
    """Each field of a dataclass with its type."""
    hints = get_type_hints(kind)
    return {one.name: (one, hints[one.name]) for one in fields(kind)}


def _value(name: str, value: Any, one: Field[Any], hint: Any) -> Any:
    """A value as its field has it. Raises ContentError."""
    try:
        made = _typed(value, hint)
    except _WrongTypeError as error:
        raise ContentError(
            f"{name} is {shown(error.value)}, where {error.wanted} is needed"
        ) from None
    bounds = one.metadata.get(_BOUNDS)
    if isinstance(bounds, Bounds) and not bounds.allow(made):
        limits = f"{bounds.least:g} to {bounds.most:g}"
        items = "" if bounds.most_items is None else f", at most {bounds.most_items} of them"
        raise ContentError(f"{name} is {shown(value)}, where {limits} is allowed{items}")
    if isinstance(bounds, tuple) and made not in bounds:
        raise ContentError(f"{name} is {shown(value)}, where one of {', '.join(bounds)} is allowed")
    return made


class _WrongTypeError(Exception):
    def __init__(self, value: Any, wanted: str) -> None:
        super().__init__(wanted)
        self.value, self.wanted = value, wanted


_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _typed(value: Any, hint: Any) -> Any:
    """A JSON value as its type hint has it. Raises _WrongTypeError, ContentError."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if hint in _WORDS:
        return _scalar(value, hint)
    if origin in (Union, types.UnionType):
        (only,) = (one for one in inner if one is not type(None))
        return None if value is None else _typed(value, only)
    if is_dataclass(hint):
        return from_json(hint, value)  # type: ignore[arg-type]
    if origin is tuple:
        return _tuple(value, inner)
    if not isinstance(value, Mapping):
        raise _WrongTypeError(value, "an object")
    return {key: _typed(one, inner[1]) for key, one in value.items()}


def _scalar(value: Any, kind: type[Any]) -> Any:
    """JSON has one kind of number: a whole one is fine where any is, and a truth value is none."""
    if kind is float and type(value) is int and abs(value) < 2**53:
        return value
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise _WrongTypeError(value, _WORDS[kind])
    return value


def _tuple(value: Any, inner: tuple[Any, ...]) -> tuple[Any, ...]:
    """JSON knows no tuples: a list, of as many values as the hint says."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise _WrongTypeError(value, "a list")
    if inner[1:] == (...,):
        return tuple(_typed(one, inner[0]) for one in value)
    if len(value) != len(inner):
        raise _WrongTypeError(value, f"a list of {len(inner)}")
    return tuple(_typed(one, hint) for one, hint in zip(value, inner, strict=True))
