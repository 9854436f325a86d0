"""talkhead: from a minute of footage of a person, a head that says anything in sync."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["dub", "evaluate", "evaluate_pair", "fit", "speak"]


def __getattr__(name: str) -> Any:
    """The commands' functions, imported on first use: the core itself imports no stage."""
    if name == "fit":
        from talkhead.app.fit import fit

        return fit
    if name == "speak":
        from talkhead.app.speak import speak

        return speak
    if name == "dub":
        from talkhead.app.dub import dub

        return dub
    if name in ("evaluate", "evaluate_pair"):
        from talkhead.app import evaluate

        return getattr(evaluate, name)
    raise AttributeError(f"module 'talkhead' has no attribute {name!r}")
