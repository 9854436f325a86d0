"""talkhead: from a minute of footage of a person, a head that says anything in sync."""

from __future__ import annotations

from typing import TYPE_CHECKING

from talkhead.errors import FootageError, MediaError, PackageError, TalkheadError
from talkhead.lazy import lazy_attributes

__version__ = "0.1.0"
__all__ = [
    "DubOptions",
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
    from talkhead.app.dub import DubOptions, DubResult, dub
    from talkhead.app.evaluate import EvaluateResult, evaluate, evaluate_pair
    from talkhead.app.evaluation.evaluate_identity import EvaluateOptions
    from talkhead.app.fit import FitResult, fit
    from talkhead.app.request import OutputOptions
    from talkhead.app.speak import SpeakResult, speak, speak_frames
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "talkhead.app.dub": ("DubOptions", "DubResult", "dub"),
            "talkhead.app.evaluate": ("EvaluateResult", "evaluate", "evaluate_pair"),
            "talkhead.app.evaluation.evaluate_identity": ("EvaluateOptions",),
            "talkhead.app.fit": ("FitResult", "fit"),
            "talkhead.app.request": ("OutputOptions",),
            "talkhead.app.speak": ("SpeakResult", "speak", "speak_frames"),
        },
    )


def __dir__() -> list[str]:
    """What there is, imported or not."""
    return sorted({*globals(), *__all__})
