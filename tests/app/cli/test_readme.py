"""Every command of README.md, and of the example of docs/dubbing.md, runs as it is written, in order.

The footage is the sample person's first seconds, presets are tiny, and audio is short. `git clone`,
the virtual environment, `pip install` and the make commands are not run here: CI runs them, and the
test of the wheel installs it into a fresh environment.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import ROOT
from scipy.io import wavfile
from tiny import LINE, TINY_HEAD, TINY_PREDICTOR, make_tiny

from talkhead import media
from talkhead.app.cli import main as cli
from talkhead.app.fit import FitResult
from talkhead.encoder.predictor import network
from talkhead.renderers.gaussian import model
from talkhead.samples import LINE_TEXT
from talkhead.types import SAMPLE_RATE

README = (ROOT / "README.md").read_text("utf-8")
NOT_RUN = ("git clone ", "python3 -m venv ", "pip install ")
SAID = " ".join(LINE_TEXT.split()[:3])


def commands(text: str = README) -> Iterator[str]:
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            yield from filter(None, (part.strip() for part in line.partition("#")[0].split("&&")))


def talkhead_commands() -> list[str]:
    return [command for command in commands() if command.startswith("talkhead ")]


def test_other_commands_are_those_of_an_installation() -> None:
    others = [c for c in commands() if not c.startswith(("talkhead ", *NOT_RUN))]
    assert others == ["cd talkhead", ". .venv/bin/activate"]
    assert {c.split()[1] for c in talkhead_commands()} == {
        "fit", "speak", "dub", "evaluate", "verify"
    }  # fmt: skip


@pytest.fixture
def folder(
    fitted: FitResult,
    footage: Path,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The folder in which a reader of README.md works, with the files that it mentions."""
    assert fitted.name
    make_tiny(monkeypatch)
    monkeypatch.setitem(model.PRESETS, "standard", TINY_HEAD)
    monkeypatch.setitem(network.PRESETS, "standard", TINY_PREDICTOR)
    monkeypatch.setattr(signal, "signal", lambda signum, handler: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samples").mkdir()
    for video in ("samples/person.mp4", "anna.mp4"):
        shutil.copy(footage, tmp_path / video)
    speech = media.read_audio(LINE)[: 2 * SAMPLE_RATE]
    for audio in ("samples/line.wav", "line.wav"):
        wavfile.write(tmp_path / audio, SAMPLE_RATE, speech)
    (tmp_path / "line.txt").write_text(SAID)
    (tmp_path / "lines.csv").write_text("audio,output,identity\nline.wav,anna.line.mp4,anna\n")
    own = tmp_path / "home"
    for name in ("person", "anna"):  # the footage is already prepared, under another name
        for work in (home / "work").glob(f"{fitted.name}-*"):
            shutil.copytree(work, own / "work" / work.name.replace(fitted.name, name))
    monkeypatch.setenv("TALKHEAD_HOME", str(own))
    return tmp_path


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit status of a command of talkhead."""
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_the_commands_of_the_readme(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in talkhead_commands():
        assert run(command, monkeypatch) == 0, (command, capsys.readouterr().err)
    for name in ("line.mp4", "line.mov", "line.srt", "anna.line.mp4"):
        assert (folder / name).is_file(), name
    assert media.probe(folder / "line.mov").has_video
    assert SAID in (folder / "line.srt").read_text()
    shown = capsys.readouterr().out
    assert "line.mp4: valid" in shown and "Anna B., in writing, 3 May 2025" in shown
    assert "report.html" in shown


def test_the_example_of_a_whole_video(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "dubbing.md").read_text("utf-8")
    example = page.partition("### An example\n")[2].partition("\n### ")[0]
    files = re.findall(r"`(person\.\w+)`:\n\n```\w+\n(.*?)^```", example, re.DOTALL | re.MULTILINE)
    assert [name for name, _ in files] == ["person.json", "person.yaml"]
    for name, content in files:
        (folder / name).write_text(content)
    for command in commands(example):
        assert run(command, monkeypatch) == 0, (command, capsys.readouterr().err)
    assert media.probe(folder / "person.dubbed.mp4").has_audio
    (line,) = json.loads((folder / "person.dubbed.report.json").read_text())["lines"]
    assert (line["start_s"], line["end_s"], line["status"]) == (0.5, 2.5, "fits")
    assert line["on_screen"] == 1.0 and abs(line["sound_offset_ms"]) < 40.0
    assert SAID in (folder / "person.dubbed.srt").read_text()
