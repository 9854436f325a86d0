"""Names of `import talkhead`: all are visible to editors, and none is imported before it is used."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

import talkhead
from talkhead.app.evaluation.options import EvaluateKeywords, EvaluateOptions
from talkhead.app.live.options import LiveKeywords, LiveOptions
from talkhead.app.options import FitKeywords, FitOptions, fit_options
from talkhead.app.request import OutputOptions, SpeakKeywords, speak_settings

COMMANDS = ("dub", "evaluate", "evaluate_pair", "fit", "speak", "speak_frames")
KEYWORDS = {
    "LiveSession": (LiveKeywords, LiveOptions),
    "evaluate": (EvaluateKeywords, EvaluateOptions),
    "fit": (FitKeywords, FitOptions),
    "speak": (SpeakKeywords, OutputOptions),
}


def test_every_name_is_listed_and_exists() -> None:
    assert set(talkhead.__all__) <= set(dir(talkhead))
    for name in talkhead.__all__:
        assert getattr(talkhead, name).__name__ == name
    for name in COMMANDS:
        assert inspect.getdoc(getattr(talkhead, name)) and name in talkhead.__all__


def test_the_names_for_type_checkers_are_the_same() -> None:
    tree = ast.parse(Path(talkhead.__file__).read_text("utf-8"))
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("talkhead.")
        and node.module != "talkhead.lazy"
        for alias in node.names
    }
    assert names == set(talkhead.__all__)


def test_importing_it_is_light_and_wrong_names_are_reported() -> None:
    code = (
        "import sys, talkhead\n"
        "print(sorted({'torch', 'numpy', 'cv2', 'typer'} & set(sys.modules)))\n"
        "print(hasattr(talkhead, 'fitt'), talkhead.TalkheadError.__name__, 'fit' in dir(talkhead))\n"
        "print(talkhead.OutputOptions(height=720).height)\n"
        "print(sorted({'torch', 'numpy', 'cv2', 'typer'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "False TalkheadError True", "720", "[]"]


def test_keywords_are_the_fields_of_the_options() -> None:
    """Editors offer them, with their types, for `evaluate(...)`, `fit(...)` and so on."""
    for function, (keywords, options) in KEYWORDS.items():
        hints = get_type_hints(keywords)
        own = {"renderer", "device", "work"} if function == "speak" else set()
        fields = {name: hint for name, hint in hints.items() if name not in own}
        assert fields == get_type_hints(options), function
        parameters = inspect.signature(getattr(talkhead, function)).parameters
        assert not set(hints) & set(parameters)
        with pytest.raises(TypeError, match=r"\(\) got an unexpected keyword argument 'colour'"):
            getattr(talkhead, function)("a.mp4", colour="red")


def test_options_and_keywords_are_combined() -> None:
    base = OutputOptions(height=360, subtitles="srt")
    asked = speak_settings(base, {"subtitles": "burn", "device": "cpu"})
    assert asked.options == OutputOptions(height=360, subtitles="burn")
    assert (asked.device, asked.renderer, asked.work) == ("cpu", None, None)
    assert fit_options(FitOptions(seed=3), {"preset": "high"}) == FitOptions(preset="high", seed=3)
    with pytest.raises(talkhead.TalkheadError, match="a height of 4 pixels"):
        talkhead.speak("a.wav", height=4)


def test_the_overview_names_every_public_name() -> None:
    overview = inspect.getdoc(talkhead)
    assert overview is not None
    assert [name for name in talkhead.__all__ if name not in overview] == []
