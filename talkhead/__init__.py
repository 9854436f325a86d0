"""Turn one minute of video of a person into a talking head that lip-syncs to any audio.

    from talkhead import fit, load_identity, speak

    fit("anna.mp4")                                        # once per person, minutes on a CPU
    speak("line.wav")                                      # writes line.mp4

    anna = load_identity("anna")                           # loaded once, used for many lines
    speak("line.wav", identity=anna, subtitles="burn", transcript="line.txt")

Functions:
    fit: Fit an identity to a video of a person.
    speak: Render a video in which a fitted person speaks a recording.
    speak_frames: Render the same video as an iterator of arrays.
    synthesize: Speak a text with an installed voice, as audio for speak.
    dub: Render many lines of many people from a table; an interrupted run resumes.
    export_web: Export a person as a web page whose head is rendered in the browser.
    evaluate: Compare an identity with held-out footage, and write a report.
    evaluate_pair: Compare any two videos of a face.
    load_identity: Load an identity once, to use it for many lines.
    load_encoder: Load a speech encoder by name.

Classes:
    LiveSession: Live speech of a person: audio goes in, pictures with their audio come out.

Options: FitOptions, OutputOptions (for speak and dub), DubOptions, EvaluateOptions, LiveOptions.

Results: FitResult, SpeakResult, DubResult, EvaluateResult, WebExportResult, LiveFrame and
LiveStatistics, and Avatar, a loaded identity.

Errors: every function raises TalkheadError, or FootageError, MediaError or PackageError, which derive
from it, with a message that says what to change.

Everything is imported on first use: `import talkhead` does not load PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from talkhead.errors import FootageError, MediaError, PackageError, TalkheadError
from talkhead.lazy import lazy_attributes

__version__ = "0.1.0"
__all__ = [
    "Avatar",
    "DubOptions",
    "DubResult",
    "EvaluateOptions",
    "EvaluateResult",
    "FitOptions",
    "FitResult",
    "FootageError",
    "LiveFrame",
    "LiveOptions",
    "LiveSession",
    "LiveStatistics",
    "MediaError",
    "OutputOptions",
    "PackageError",
    "SpeakResult",
    "TalkheadError",
    "WebExportResult",
    "dub",
    "evaluate",
    "evaluate_pair",
    "export_web",
    "fit",
    "load_encoder",
    "load_identity",
    "speak",
    "speak_frames",
    "synthesize",
]

if TYPE_CHECKING:  # for editors and type checkers; at run time, see __getattr__
    from talkhead.app.avatar import Avatar, load_identity
    from talkhead.app.dub import DubOptions, DubResult, dub
    from talkhead.app.evaluate import EvaluateResult, evaluate, evaluate_pair
    from talkhead.app.evaluation.options import EvaluateOptions
    from talkhead.app.fit import FitResult, fit
    from talkhead.app.live.frames import LiveFrame, LiveStatistics
    from talkhead.app.live.options import LiveOptions
    from talkhead.app.live.session import LiveSession
    from talkhead.app.options import FitOptions
    from talkhead.app.request import OutputOptions
    from talkhead.app.speak import SpeakResult, speak, speak_frames
    from talkhead.app.text_to_speech import synthesize
    from talkhead.app.web_export.export import WebExportResult, export_web
    from talkhead.encoder.registry import load_encoder
else:
    __getattr__ = lazy_attributes(
        __name__,
        {
            "talkhead.app.avatar": ("Avatar", "load_identity"),
            "talkhead.app.dub": ("DubOptions", "DubResult", "dub"),
            "talkhead.app.evaluate": ("EvaluateResult", "evaluate", "evaluate_pair"),
            "talkhead.app.evaluation.options": ("EvaluateOptions",),
            "talkhead.app.fit": ("FitResult", "fit"),
            "talkhead.app.live.frames": ("LiveFrame", "LiveStatistics"),
            "talkhead.app.live.options": ("LiveOptions",),
            "talkhead.app.live.session": ("LiveSession",),
            "talkhead.app.options": ("FitOptions",),
            "talkhead.app.request": ("OutputOptions",),
            "talkhead.app.speak": ("SpeakResult", "speak", "speak_frames"),
            "talkhead.app.text_to_speech": ("synthesize",),
            "talkhead.app.web_export.export": ("WebExportResult", "export_web"),
            "talkhead.encoder.registry": ("load_encoder",),
        },
    )


def __dir__() -> list[str]:
    """List all names, whether they are imported yet or not."""
    return sorted({*globals(), *__all__})
