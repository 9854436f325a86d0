"""Text from files cannot control the terminal or forge lines of output."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import time
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from talkhead.app.cli import main as cli
from talkhead.app.cli.console import LineHandler, print_json, print_line, print_lines, show
from talkhead.app.dub import DubResult, Problem
from talkhead.app.dubbing.events import JobFinished, JobProgressed, JobStarted
from talkhead.app.dubbing.job import DONE, FAILED, QUEUED, Job, Task
from talkhead.app.dubbing.job_store import JobStore
from talkhead.app.dubbing.progress_view import (
    NOTES,
    JsonProgressView,
    LiveProgressView,
    ProgressStats,
    ProgressView,
)
from talkhead.app.home.identities import Home, IdentitySummary
from talkhead.app.output import verification
from talkhead.app.output.verification import VALID, Verdict, describe
from talkhead.errors import TalkheadError
from talkhead.progress import BarProgress, JsonProgress

EVIL = "x\x1b[2J\x9b1m\rtalkhead: all is well\nsigned by: BBC\u2028News\u202e\udc80\x07"
SHOWN = r"x\x1b[2J\x9b1m\rtalkhead: all is well\nsigned by: BBC\u2028News\u202e\udc80\x07"
AS_JSON = json.dumps(EVIL)


def check(text: str, n_lines: int | None = None, said: str = SHOWN) -> None:
    """Check that text has no control characters, no forged lines and, if given, n_lines lines."""
    assert said in text
    rest = text.replace("\n", "")
    assert not [c for c in rest if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp", "Cf")]
    assert not any(line.startswith("signed by") for line in text.split("\n"))
    assert n_lines is None or len(text.splitlines()) == n_lines


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(cli.signal, "signal", lambda signum, handler: None)
    monkeypatch.setattr(sys, "argv", ["talkhead", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_errors(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "verify", f"{EVIL}.mp4") == 1
    # An error's line ends are spaces.
    check(capsys.readouterr().err, 1, SHOWN[:10])


def test_usage_errors(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """File names that a shell expands can contain control characters."""
    assert run(monkeypatch, "verify", "a.mp4", EVIL.replace("\n", "")) == 2
    text = capsys.readouterr().err
    assert r"\x1b[2J" in text and "\x1b[2J" not in text and "\x9b" not in text


def test_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    """Warnings can contain messages of ffmpeg about a damaged video."""
    logger = logging.getLogger("talkhead")
    before = list(logger.handlers)
    try:
        LineHandler.install()
        LineHandler.install()
        logging.getLogger("talkhead.media.reader").warning("%s: ffmpeg says: %s", EVIL, EVIL)
    finally:
        logger.handlers[:] = before
    check(capsys.readouterr().err, 1)


def test_tracebacks(tmp_path: Path) -> None:
    """Tracebacks of --debug are escaped, too."""
    code = "import sys; from talkhead.app.cli import main as cli; "
    code += "sys.argv = ['x', '--debug', 'verify', sys.argv[1]]"
    name = "no\x1b[2Jthing\u202e\x07"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; cli.main()", name], capture_output=True, check=False
    )
    text = done.stderr.decode()
    assert done.returncode == 1 and r"TalkheadError: no\x1b[2Jthing\u202e\x07: there is no" in text
    assert "\x1b" not in text and "\x07" not in text


def test_letters_that_the_terminal_cannot_show() -> None:
    code = "from talkhead.app.cli import main as cli; import sys; sys.argv = ['x', '--version']; "
    more = "cli.__version__ = '日本'; cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", code + more],
        capture_output=True,
        check=False,
        env={"PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0 and done.stdout.split() == [b"talkhead", rb"\u65e5\u672c"]


@dataclass(frozen=True)
class Result:
    """The result of a command."""

    name: str = EVIL
    names: tuple[str, ...] = (EVIL, "b")
    output_path: Path = Path(EVIL)
    figures: Any = None
    nested: Any = None


def test_results(capsys: pytest.CaptureFixture[str]) -> None:
    show(Result(nested={EVIL: EVIL, "more": {"a": EVIL}}), as_json=False)
    check(capsys.readouterr().out, 7)
    show(Result(nested={EVIL: EVIL}), as_json=True)
    text = capsys.readouterr().out
    check(text, said=AS_JSON[1:-1])
    assert json.loads(text)["name"] == EVIL
    print_line(EVIL)
    check(capsys.readouterr().out, 1)
    print_lines("a\x1bb\nc")
    assert capsys.readouterr().out == "a\\x1bb\nc\n"
    print_json(EVIL)
    check(capsys.readouterr().out, 1, AS_JSON)


def test_claims_of_files_are_escaped() -> None:
    claims = {"identity": EVIL, "mode": EVIL, "consent": EVIL * 1000}
    verdict = Verdict(
        Path(EVIL), VALID, True, EVIL, EVIL, EVIL, EVIL, EVIL, claims, unsigned=(EVIL,)
    )
    text = describe(verdict)
    check(text, 10)
    assert len(text) < 10 * verification.SHOWN_CHARS
    for state in verification._WORST_FIRST:
        problem = Verdict(Path(EVIL), state, False, "", EVIL, "", "", "", {}, (EVIL,))
        check(describe(problem), 1 + (1 if problem.signer else 0))


def test_the_summary_of_a_table() -> None:
    problem = Problem(EVIL, EVIL, FAILED, EVIL)
    check(DubResult(2, 1, 0, 0, 0, 1.0, Path(EVIL), (problem,)).summary, 4)


def test_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = JobStore(tmp_path / "jobs")
    store.add([Task("line", "anna", output=f"/out/{EVIL}.mp4")])
    (job,) = store.jobs()
    store.write(Job(job.id, QUEUED, job.task, 1, "", reason=EVIL))
    assert run(monkeypatch, "jobs", "list", "--home", str(tmp_path)) == 0
    check(capsys.readouterr().out, 1)
    assert run(monkeypatch, "jobs", "show", job.id, "--home", str(tmp_path)) == 0
    check(capsys.readouterr().out)
    one = IdentitySummary("anna", tmp_path, EVIL, EVIL, (EVIL,), 3, True, "")
    monkeypatch.setattr(Home, "summaries", lambda self: [one])
    assert run(monkeypatch, "identities", "list", "--home", str(tmp_path)) == 0
    check(capsys.readouterr().out, 1)
    assert run(monkeypatch, "identities", "list", "--json") == 0
    check(capsys.readouterr().out, said=AS_JSON[1:-1])


def test_progress() -> None:
    """Markup in names is not interpreted by progress bars either."""
    stream, name = io.StringIO(), "[red]\x1b[2J\u202e[/nothing]"
    progress = BarProgress(Console(file=stream, width=200, _environ={}))
    with progress.step(name, total=1) as step:
        step.detail(name)
    with progress.step("skipped", total=1) as step:
        step.skip(name)
    progress.message(EVIL)
    text = stream.getvalue()
    assert text.count(r"[red]\x1b[2J\u202e[/nothing]") == 3
    check(text)
    stream = io.StringIO()
    as_json = JsonProgress(stream)
    as_json.message(EVIL)
    check(stream.getvalue(), 1, AS_JSON)


def test_the_display_of_many_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=300, _environ={})
    job = Job(f"id{EVIL}", QUEUED, Task("line", "anna", output=f"/out/{EVIL}"), 0, "")

    def play(view: ProgressView) -> None:
        view.handle(JobStarted(job.id))
        view.handle(JobProgressed(job.id, EVIL, 1, 2))
        view.job_finished(job, JobFinished(job.id, DONE, result={NOTES: [EVIL]}))
        view.job_delayed(job, JobFinished(job.id, QUEUED, EVIL, time.time() + 4.0))
        view.job_finished(job, JobFinished(job.id, FAILED, EVIL))

    live = LiveProgressView(ProgressStats(3, 0, 3), console)
    play(live)
    console.print(live._table())
    live.close()
    play(JsonProgressView(ProgressStats(3, 0, 3)))
    text = stream.getvalue()
    assert text.count(SHOWN) >= 7 and "\x1b[2J\x9b" not in text and "\x07" not in text
    check(capsys.readouterr().err, 3, AS_JSON[1:-1])


def test_an_error_is_one_line_whatever_it_contains() -> None:
    from talkhead.errors import one_line

    assert one_line(TalkheadError("a\r\nb\u2028c")) == "a b c"
