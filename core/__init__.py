"""talkhead: from a minute of footage of a person, a head that says anything in sync."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from talkhead.errors import FootageError, MediaError, PackageError, TalkheadError

__version__ = "0.1.0"
__all__ = [
    "DubResult",
    "EvaluateOptions",
    "EvaluateResult",
    "FitResult",
    "FootageError",
    "MediaError",
    "OutputOptions",
    "PackageError",
    "SpeakResult",
    "TalkheadError",
    "dub",
    "evaluate",
    "evaluate_pair",
    "fit",
    "speak",
    "speak_frames",
]

if TYPE_CHECKING:  # for editors and type checkers; when run, see __getattr__
    from talkhead.app.dub import DubResult, dub
    from talkhead.app.evaluate import EvaluateOptions, EvaluateResult, evaluate, evaluate_pair
    from talkhead.app.fit import FitResult, fit
    from talkhead.app.output import OutputOptions
    from talkhead.app.speak import SpeakResult, speak, speak_frames
else:
    _HOMES = {
        "talkhead.app.dub": ("DubResult", "dub"),
        "talkhead.app.evaluate": (
            "EvaluateOptions",
            "EvaluateResult",
            "evaluate",
            "evaluate_pair",
        ),
        "talkhead.app.fit": ("FitResult", "fit"),
        "talkhead.app.output": ("OutputOptions",),
        "talkhead.app.speak": ("SpeakResult", "speak", "speak_frames"),
    }
    _MODULES = {name: module for module, names in _HOMES.items() for name in names}

    def __getattr__(name: str) -> Any:
        """The commands and what they take and give, imported on first use: the core itself imports no
        stage, and nothing that takes seconds."""
        if name not in _MODULES:
            raise AttributeError(f"module 'talkhead' has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """What there is, imported or not."""
    return sorted({*globals(), *__all__})
