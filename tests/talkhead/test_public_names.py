"""What `import talkhead` offers: all of it seen by editors, none of it imported before it is used."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import talkhead

COMMANDS = ("dub", "evaluate", "evaluate_pair", "fit", "speak", "speak_frames")


def test_every_name_is_listed_and_is_there() -> None:
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


def test_importing_it_is_light_and_wrong_names_are_told() -> None:
    code = (
        "import sys, talkhead\n"
        "print(sorted({'torch', 'numpy', 'cv2', 'typer'} & set(sys.modules)))\n"
        "print(hasattr(talkhead, 'fitt'), talkhead.TalkheadError.__name__, 'fit' in dir(talkhead))\n"
        "print(talkhead.OutputOptions(height=720).height)\n"
        "print(sorted({'torch', 'numpy', 'cv2', 'typer'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "False TalkheadError True", "720", "[]"]
