"""Wrong command lines are refused before anything that takes seconds to import."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import LINE, PERSON

from talkhead.app.choices import MAX_SEED
from talkhead.app.cli import options as cli_options
from talkhead.app.options import fit_options
from talkhead.errors import TalkheadError
from talkhead.identity import IdentityPackage
from talkhead.progress import SilentProgress

HEAVY = ("torch", "numpy", "scipy", "numba", "cv2", "mediapipe")
# Words of the command line, exit code, and a part of the message. The folder contains anna, an
# identity; here.txt, a text; folder/; a.talkhead, which is not an export; and lines.csv, a table
# whose audio is missing.
FIT = ("fit", "--video", str(PERSON))
WEB = ("export-web", "anna", "--home", "home")
SPEAK = ("speak", "--audio", str(LINE), "--home", "home")
WRONG: list[tuple[tuple[str, ...], int, str]] = [
    (("fit", "--video", "missing.mp4"), 1, "missing.mp4: there is no such file"),
    (("fit", "--video", "folder"), 1, "folder: is a folder"),
    (("fit", "--video", "here.txt"), 1, "here.txt: is not a video or audio file"),
    (("fit", "--video", str(LINE)), 1, "line.wav: has no picture"),
    ((*FIT, "--preset", "best"), 2, "'--preset': 'best' is not one of"),
    ((*FIT, "--renderer", "nerv"), 1, "there is no renderer 'nerv'. Choose one of: gaussian"),
    ((*FIT, "--encoder", "ear"), 1, "there is no encoder 'ear'. Choose one of: mel"),
    ((*FIT, "--encoder", "a.safetensors"), 1, "a.safetensors: there is no such file"),
    ((*FIT, "--device", "tpu"), 1, "device tpu: unknown"),
    ((*FIT, "--device", "cuda:x"), 1, "device cuda:x: unknown"),
    ((*FIT, "--name", "../anna"), 1, "name '../anna': not allowed"),
    ((*FIT, "--min-face", "2"), 2, "--min-face"),
    ((*FIT, "--seed", "-1"), 2, "--seed"),
    ((*FIT, "--seed", str(MAX_SEED + 1)), 2, "--seed"),
    ((*FIT, "--seed", "one"), 2, "--seed"),
    ((*FIT, "--colour", "red"), 2, "No such option"),
    (("--ffmpeg", "nothing", *FIT), 1, "nothing"),
    (
        ("speak", "--audio", "missing.wav", "--home", "home"),
        1,
        "missing.wav: there is no such file",
    ),
    (
        ("speak", "--audio", "here.txt", "--home", "home"),
        1,
        "here.txt: is not a video or audio file",
    ),
    ((*WEB, "-o", "site"), 1, "fitted with warp; a web page shows gaussian only"),
    (("export-web", "berta", "--home", "home"), 1, "identity berta: not found"),
    ((*SPEAK, "--identity", "berta"), 1, "identity berta: not found"),
    (("speak", "--audio", str(LINE), "--home", "other"), 1, "talkhead fit --video person.mp4"),
    ((*SPEAK, "--renderer", "gaussian"), 1, "gaussian"),
    ((*SPEAK, "--mode", "whole"), 2, "'--mode': 'whole' is not one of"),
    ((*SPEAK, "--timeline", "film"), 2, "'--timeline': 'film' is not one of"),
    ((*SPEAK, "--timeline", "source", "--mode", "head"), 1, "timeline source needs --mode paste"),
    (
        (*SPEAK, "--timeline", "source", "--yaw", "5"),
        1,
        "yaw, pitch, zoom and head motion need --mode head",
    ),
    ((*SPEAK, "--timeline", "source"), 1, "was moved or removed. Pass it with --video FILE"),
    ((*SPEAK, "--timeline", "source", "--video", "a.mp4"), 1, "a.mp4: there is no such file"),
    ((*SPEAK, "--timeline", "source", "--video", str(LINE)), 1, "line.wav: has no picture"),
    ((*SPEAK, "--video", str(PERSON)), 1, "a video needs --timeline source"),
    ((*SPEAK, "--codec", "mpeg9"), 1, "there is no codec 'mpeg9'"),
    ((*SPEAK, "-o", "line.avi"), 1, "line.avi: unsupported file extension"),
    ((*SPEAK, "-o", "line.mp4", "--codec", "vp9"), 1, "doesn't go into such a file"),
    ((*SPEAK, "-o", "absent/line.mp4"), 1, "the folder absent does not exist"),
    ((*SPEAK, "-o", "folder"), 1, "folder: "),
    ((*SPEAK, "-o", str(LINE)), 1, "line.wav: "),
    ((*SPEAK, "--height", "7"), 1, "a height of 7 pixels is not allowed"),
    ((*SPEAK, "--height", "tall"), 2, "'--height': should be a valid integer"),
    ((*SPEAK, "--intensity", "2.5"), 1, "an intensity of 2.5 is not allowed"),
    ((*SPEAK, "--intensity", "-1"), 1, "an intensity of -1 is not allowed"),
    ((*SPEAK, "--intensity", "nan"), 1, "an intensity of nan is not allowed"),
    ((*SPEAK, "--mode", "head", "--yaw", "90"), 1, "a yaw of 90 degrees is not allowed"),
    ((*SPEAK, "--mode", "head", "--zoom", "9"), 1, "a zoom of 9 is not allowed"),
    ((*SPEAK, "--yaw", "5"), 1, "yaw, pitch, zoom and head motion need --mode head"),
    ((*SPEAK, "--head-motion", "0"), 1, "yaw, pitch, zoom and head motion need --mode head"),
    ((*SPEAK, "--mode", "head", "--head-motion", "2"), 1, "head motion of 2 is not allowed"),
    ((*SPEAK, "--background", "alpha"), 1, "H.264 can't keep alpha"),
    ((*SPEAK, "--mode", "head", "--background", "reddish"), 1, "background 'reddish': neither"),
    ((*SPEAK, "--mode", "head", "--background", "a.png"), 1, "background 'a.png': neither"),
    ((*SPEAK, "--mode", "head", "--background", "alpha"), 1, "H.264 can't keep alpha"),
    ((*SPEAK, "--loudness", "3"), 1, "a loudness of 3 LUFS is not allowed"),
    ((*SPEAK, "--subtitles", "above"), 2, "'--subtitles': 'above' is not one of"),
    ((*SPEAK, "--subtitles", "burn", "--transcript", "a.txt"), 1, "a.txt: there is no such file"),
    ((*SPEAK, "--certificate", "c.pem"), 1, "certificate and key belong together"),
    ((*SPEAK, "--certificate", "c.pem", "--key", "k.pem"), 1, "c.pem: there is no such file"),
    ((*SPEAK, "--device", "gpu"), 1, "device gpu: unknown"),
    (("evaluate", "berta", "--home", "home"), 1, "identity berta: not found"),
    (("evaluate", "anna", "--home", "home", "--audio", "a.wav"), 1, "a.wav: there is no such file"),
    (("evaluate", "anna", "--home", "home", "--video", "a.mp4"), 1, "a.mp4: there is no such file"),
    (("evaluate", "anna", "--home", "home", "--report", "here.txt"), 1, "here.txt: this is a file"),
    (("evaluate", "anna", "--home", "home", "--renderer", "nerv"), 1, "nerv"),
    (("evaluate", "anna", "--home", "home", "--text", "a.txt"), 1, "a.txt: there is no such file"),
    (("evaluate", "anna", "--home", "home", "--device", "gpu"), 1, "device gpu: unknown"),
    (("evaluate", "anna", "--seconds", "1"), 2, "--seconds"),
    (("evaluate", "anna", "--home", "home", "--folds", "2"), 1, "2 folds: choose 3 to 20"),
    (("evaluate", "anna", "--home", "home", "--folds", "21"), 1, "21 folds: choose 3 to 20"),
    (("evaluate", "--pair", "a.mp4", "b.mp4"), 1, "a.mp4: there is no such file"),
    (("evaluate", "--pair", str(LINE), "b.mp4"), 1, "line.wav: has no picture"),
    (("evaluate", "anna", "--pair", "a.mp4", "b.mp4"), 2, "without NAME"),
    (("dub", "missing.csv", "--home", "home"), 1, "missing.csv: there is no such file"),
    (("dub", "lines.csv", "--home", "home"), 1, "a.wav: no such file"),
    (("dub", "lines.csv", "--home", "home", "--device", "gpu"), 1, "device gpu: unknown"),
    (("dub", "lines.csv", "--workers", "none"), 2, "--workers must be auto or an integer"),
    (("dub", "lines.csv", "--tries", "0"), 2, "--tries"),
    (("jobs", "list", "--status", "lost"), 2, "there is no status lost"),
    (("jobs", "show", "x", "--home", "home"), 1, "job x: matches no job"),
    (("identities", "show", "berta", "--home", "home"), 1, "identity berta: not found"),
    (("identities", "remove", "berta", "--home", "home"), 1, "identity berta: not found"),
    (("identities", "export", "berta", "--home", "home"), 1, "identity berta: not found"),
    (("identities", "import", "missing.talkhead"), 1, "missing.talkhead: there is no such file"),
    (("identities", "import", "here.txt"), 1, "here.txt: not an exported identity"),
    (("verify", "missing.mp4"), 1, "missing.mp4: there is no such file"),
    (("sing",), 2, "No such command"),
]

RUN = """
import io, json, os, sys
from contextlib import redirect_stderr, redirect_stdout
from talkhead.app.cli import main as cli
surroundings = dict(os.environ)
for words in json.loads(sys.stdin.read()):
    said, before = io.StringIO(), set(sys.modules)
    sys.argv = ["talkhead", *words]
    with redirect_stderr(said), redirect_stdout(io.StringIO()):
        try:
            cli.main()
            code = None
        except SystemExit as error:
            code = error.code
    os.environ.clear()
    os.environ.update(surroundings)
    print(json.dumps([code, said.getvalue(), sorted({heavy!r} & (set(sys.modules) - before))]))
"""


@pytest.fixture(scope="module")
def answers(
    tmp_path_factory: pytest.TempPathFactory, write_package: Callable[[Path], IdentityPackage]
) -> dict[tuple[str, ...], Any]:
    """Exit code, message and imported heavy modules for each wrong command line."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "folder").mkdir()
    (folder / "here.txt").write_text("no video, no identity\n" * 20)
    (folder / "lines.csv").write_text("audio,output,identity\na.wav,a.mp4,anna\n")
    write_package(folder / "home" / "identities" / "anna")
    code, lines = RUN.replace("{heavy!r}", repr(set(HEAVY))), [list(words) for words, _, _ in WRONG]
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {words: answer for (words, _, _), answer in zip(WRONG, found, strict=True)}


@pytest.mark.parametrize(
    ("words", "status", "said"), WRONG, ids=[" ".join(w[0][-4:]) for w in WRONG]
)
def test_it_is_refused_at_once(
    answers: dict[tuple[str, ...], Any], words: tuple[str, ...], status: int, said: str
) -> None:
    code, message, imported = answers[words]
    assert code == status, message
    plain = " ".join(message.replace("│", " ").split())
    assert said in plain and "Traceback" not in plain
    assert "Value error" not in plain and "Input should" not in plain
    assert imported == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"seed": -1}, "a seed of -1 is not allowed"),
        ({"seed": MAX_SEED + 1}, "is not allowed"),
        ({"min_face": 1.5}, "1.5 is not a valid share"),
        ({"preset": "best"}, "there is no preset 'best'"),
    ],
)
def test_ranges_hold_from_python_too(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(TalkheadError, match=said):
        fit_options(None, wrong)  # type: ignore[arg-type]


def test_a_message_is_shown_while_torch_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    progress, shown = SilentProgress(), list[str]()
    step = progress.step

    def record(name: str, *given: Any, **named: Any) -> Any:
        shown.append(name)
        return step(name, *given, **named)

    monkeypatch.setattr(progress, "step", record)
    with cli_options.loading(progress):
        pass
    assert shown == []  # torch is already loaded
    monkeypatch.delitem(sys.modules, "torch")
    with cli_options.loading(progress):
        assert shown == ["Loading PyTorch"]
