"""Module attributes that are imported on first use (PEP 562)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def lazy_attributes(module: str, homes: Mapping[str, Iterable[str]]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a module that re-exports names of other modules.

    Args:
        module: The module's `__name__`.
        homes: Modules, and the names that are imported from each.

    Returns:
        A function that imports a name's module and returns the attribute. It raises AttributeError for
        other names.
    """
    sources = {name: home for home, names in homes.items() for name in names}

    def getattribute(name: str) -> Any:
        if name not in sources:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(import_module(sources[name]), name)

    return getattribute
