"""Read dataclasses from JSON; unknown keys, wrong types and values out of bounds are errors.

A component declares the allowed values next to the default,

    n_hidden: int = bounded(64, 1, 1024)

and `from_json` enforces them, so that a file cannot request objects of arbitrary size.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from talkhead.storage import ContentError, content_errors, read_json, short_repr

Config = TypeVar("Config")
Value = TypeVar("Value")

_BOUNDS = "bounds"


@dataclass(frozen=True)
class Bounds:
    """Bounds of a number, or of the numbers in a tuple.

    Attributes:
        minimum: Smallest value.
        maximum: Largest value.
        max_items: Largest length of the tuple, None for any.
    """

    minimum: float
    maximum: float
    max_items: int | None = None

    def allow(self, value: Any) -> bool:
        """Check a value.

        Args:
            value: A number, or numbers in nested tuples.

        Returns:
            True if all are within bounds.
        """
        if isinstance(value, tuple):
            few = self.max_items is None or len(value) <= self.max_items
            return few and all(self.allow(one) for one in value)
        return self.minimum <= value <= self.maximum


def bounded(default: Value, minimum: float, maximum: float, max_items: int | None = None) -> Value:
    """Declare a field with a default and bounds.

    Args:
        default: The default.
        minimum: Smallest value.
        maximum: Largest value.
        max_items: Largest length of a tuple.

    Returns:
        A dataclass field.
    """
    metadata = {_BOUNDS: Bounds(minimum, maximum, max_items)}
    made: Value = field(default=default, metadata=metadata)
    return made


def limits(minimum: float, maximum: float, max_items: int | None = None) -> Mapping[str, Any]:
    """Return bounds as metadata of a field without default: `field(metadata=limits(1, 9))`.

    Args:
        minimum: Smallest value.
        maximum: Largest value.
        max_items: Largest length of a tuple.

    Returns:
        The metadata.
    """
    return {_BOUNDS: Bounds(minimum, maximum, max_items)}


def one_of(default: str, *words: str) -> str:
    """Declare a field that is one of several words.

    Args:
        default: The default.
        *words: All allowed words.

    Returns:
        A dataclass field.
    """
    made: str = field(default=default, metadata=choices(*words))
    return made


def choices(*words: str) -> Mapping[str, Any]:
    """Return allowed words as metadata of a field without default.

    Args:
        *words: The words.

    Returns:
        The metadata.
    """
    return {_BOUNDS: words}


def from_json(kind: type[Config], data: Any) -> Config:
    """Convert parsed JSON to a dataclass.

    Args:
        kind: The dataclass.
        data: The parsed JSON.

    Returns:
        An instance.

    Raises:
        ContentError: A key is unknown or missing, or a value has the wrong type or is out of bounds; the
            message names it.
    """
    if not isinstance(data, Mapping):
        raise ContentError(f"{kind.__name__} is {short_repr(data)}, where an object is needed")
    known = _fields(kind)  # type: ignore[arg-type]
    for name in data:
        if name not in known:
            raise ContentError(f"{kind.__name__} has no {short_repr(name)}")
    for name, (one, _) in known.items():
        if name not in data and one.default is MISSING and one.default_factory is MISSING:
            raise ContentError(f"{name} is missing")
    return kind(**{name: _value(name, value, *known[name]) for name, value in data.items()})


def read_object(path: Path, kind: type[Config], advice: str) -> Config:
    """Read a dataclass from a JSON file.

    Args:
        path: The file.
        kind: The dataclass.
        advice: What to do about a damaged file.

    Returns:
        An instance.

    Raises:
        TalkheadError: The file cannot be read.
        PackageError: Its content is invalid; the message names the file, the problem and the advice.
    """
    with content_errors(path, advice):
        return from_json(kind, read_json(path))


def to_json(config: Any) -> dict[str, Any]:
    """Convert a config dataclass to JSON.

    Args:
        config: The dataclass.

    Returns:
        A JSON object.
    """
    return asdict(config)


@lru_cache(maxsize=64)
def _fields(kind: Any) -> dict[str, tuple[Field[Any], Any]]:
    """Return each field of a dataclass with its type."""
    hints = get_type_hints(kind)
    return {one.name: (one, hints[one.name]) for one in fields(kind)}


def _value(name: str, value: Any, one: Field[Any], hint: Any) -> Any:
    """Convert a value to the type of its field. Raises ContentError."""
    try:
        made = _typed(value, hint)
    except _WrongTypeError as error:
        raise ContentError(
            f"{name} is {short_repr(error.value)}, where {error.wanted} is needed"
        ) from None
    bounds = one.metadata.get(_BOUNDS)
    if isinstance(bounds, Bounds) and not bounds.allow(made):
        limits = f"{bounds.minimum:g} to {bounds.maximum:g}"
        items = "" if bounds.max_items is None else f", at most {bounds.max_items} of them"
        raise ContentError(f"{name} is {short_repr(value)}, where {limits} is allowed{items}")
    if isinstance(bounds, tuple) and made not in bounds:
        raise ContentError(
            f"{name} is {short_repr(value)}, where one of {', '.join(bounds)} is allowed"
        )
    return made


class _WrongTypeError(Exception):
    """A value whose type differs from that of its field."""

    def __init__(self, value: Any, wanted: str) -> None:
        super().__init__(wanted)
        self.value, self.wanted = value, wanted


_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _typed(value: Any, hint: Any) -> Any:
    """Convert a JSON value to a type hint. Raises _WrongTypeError, ContentError."""
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
    """Check a scalar. JSON has one kind of number: integers are accepted as floats, booleans are not."""
    if kind is float and type(value) is int and abs(value) < 2**53:
        return value
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise _WrongTypeError(value, _WORDS[kind])
    return value


def _tuple(value: Any, inner: tuple[Any, ...]) -> tuple[Any, ...]:
    """Convert a JSON list to a tuple; the type hint determines the number of values."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise _WrongTypeError(value, "a list")
    if inner[1:] == (...,):
        return tuple(_typed(one, inner[0]) for one in value)
    if len(value) != len(inner):
        raise _WrongTypeError(value, f"a list of {len(inner)}")
    return tuple(_typed(one, hint) for one, hint in zip(value, inner, strict=True))
