"""The worker process: runs cases one after the other and judges each."""

from __future__ import annotations

import gc
import importlib
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.fuzz import judging
from benchmarks.fuzz.guard import Guard
from benchmarks.fuzz.traps import Traps
from benchmarks.fuzz.trial import (
    DONE,
    REFUSED,
    USAGE,
    EnoughError,
    Kind,
    Setting,
    Suite,
    Trial,
)

BASES, CASE, CANARIES, TEMPORARY = "bases", "case", "canaries", "temporary"
OUT, ERR = "said.out", "said.err"
PLAIN_FRACTION = 0.02
"""Share of the cases in which nothing is damaged: valid files must be accepted."""
SHOWN_CHARS = 400
MAX_READ = 1 << 22
TIDY_MIB = 1200
"""After a case that used more memory, reference cycles are freed immediately."""
_NO_MEMORY = "not enough memory"
_STATUS = {None: DONE, 0: DONE, 1: REFUSED, 2: USAGE}


@dataclass(frozen=True)
class Place:
    """Location of a run. root: its folder. port: the listener's port. suite: "module:name"."""

    root: Path
    port: int
    suite: str

    @property
    def traps(self) -> Traps:
        return Traps(self.port, self.root / CANARIES)

    def load(self) -> Suite:
        """Import the suite."""
        module, _, name = self.suite.partition(":")
        suite: Suite = getattr(importlib.import_module(module), name)
        return suite


@dataclass(frozen=True)
class Case:
    """A case, identified by its numbers. plain: a kind whose valid files are tried."""

    seed: int
    number: int
    plain: str = ""

    def rng(self) -> Random:
        return Random(f"{self.seed}:{self.number}:{self.plain}")


@dataclass(frozen=True)
class JobFinished:
    """Result of a case. processor_s: of the worker and its children, including the creation of the
    case. peak_mib: the largest memory that one of them used.
    """

    kind: str
    mutation: str
    outcome: str
    seconds: float
    processor_s: float
    peak_mib: float
    message: str


@dataclass(frozen=True)
class JobStarted:
    """A case begins to run."""

    kind: str
    mutation: str


def draw_kind(suite: Suite, rng: Random) -> Kind:
    """Draw the kind of a case: the first draw of its generator."""
    return rng.choices(suite.kinds, [kind.weight for kind in suite.kinds])[0]


def work(pipe: Connection, place: Place) -> None:
    """Run the cases that come through the pipe until it closes."""
    _settle(place.root)
    suite = place.load()
    suite.patch()
    bases, unfinished = place.root / BASES, place.root / f"{BASES}.unfinished"
    if not bases.exists():
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        suite.build(unfinished, place.traps)
        unfinished.rename(bases)
    runner = Runner(place, suite)
    pipe.send("ready")
    while True:
        try:
            case = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(runner.run(case, pipe))


def _settle(root: Path) -> None:
    """Set up the environment: an empty home folder, no proxies, no input, strict encoding of output."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("TALKHEAD_"):
            del os.environ[name]
    (root / TEMPORARY).mkdir(exist_ok=True)
    os.environ |= {"TMPDIR": str(root / TEMPORARY), "COLUMNS": "100", "TERM": "dumb"}
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):
            errors = "strict" if stream is sys.stdout else "backslashreplace"
            stream.reconfigure(encoding="utf-8", errors=errors)  # type: ignore[union-attr]


class Runner:
    """Runs cases in this process."""

    def __init__(self, place: Place, suite: Suite) -> None:
        self._place, self._suite = place, suite
        self._guard = Guard(place.root)

    def run(self, case: Case, pipe: Connection) -> JobFinished:
        """Make a case, run it, judge it."""
        rng, spent = case.rng(), processor_s()
        kind = draw_kind(self._suite, rng)
        if case.plain:
            kind = next(k for k in self._suite.kinds if k.name == case.plain)
        folder = self._place.root / CASE
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        plain = bool(case.plain) or rng.random() < PLAIN_FRACTION
        setting = Setting(rng, folder, self._place.root / BASES, self._place.traps, plain)
        try:
            trial = kind.make(setting)
        except Exception:
            words = traceback.format_exc()[-1500:]
            return JobFinished(
                kind.name, "; ".join(setting.said), "broken case", 0.0, 0.0, 0.0, words
            )
        mutation = "; ".join(setting.said) or "nothing"
        pipe.send(JobStarted(kind.name, mutation))
        ended = self._judged(kind.name, mutation, trial, setting)
        return replace(ended, processor_s=round(processor_s() - spent, 3))

    def _judged(self, kind: str, mutation: str, trial: Trial, setting: Setting) -> JobFinished:
        before, outside = judging.snapshot(setting.folder), self._outside()
        setting.traps.arm()
        self._suite.begin()
        reset_peak()
        start = time.perf_counter()
        with self._captured(), _restored(setting.folder), self._guard.holding():
            outcome, message = perform(trial)
        seconds = time.perf_counter() - start
        peak = peak_mib()
        said = self._said()
        if outcome in (DONE, REFUSED, USAGE):
            faults = [
                *self._incidents(said, setting),
                *self._traces(trial, outcome, before, setting),
                *([f"trap: {p}" for p in judging.changed(outside, self._outside(), ())]),
                *_verdict(trial, outcome, said, setting.plain),
            ]
            message = message or said[-SHOWN_CHARS:].decode("utf-8", "replace").strip()
            if faults:
                outcome = faults[0].partition(":")[0]
                message = "; ".join(faults)[:1500] + f" | {message}"
        if peak > TIDY_MIB:  # otherwise it takes as long as the case
            gc.collect()
        return JobFinished(kind, mutation, outcome, round(seconds, 3), 0.0, peak, message)

    def _incidents(self, said: bytes, setting: Setting) -> list[str]:
        faults = [f"terminal: {fault}" for fault in judging.terminal_faults(said)]
        faults += [f"trap: {name} was read" for name in setting.traps.read()]
        if b"Traceback (most recent call last)" in said:
            faults.append("traceback: in the output")
        if _NO_MEMORY.encode() in said:
            faults.append("memory: more was requested than is available")
        return faults + self._guard.incidents

    def _traces(
        self, trial: Trial, outcome: str, before: dict[str, judging.State], setting: Setting
    ) -> list[str]:
        """Faults in the files that a case left behind."""
        allowed = trial.changes + (trial.products if outcome == DONE else ())
        after = judging.snapshot(setting.folder)
        found = judging.leftovers(setting.folder, before)
        found = found or judging.changed(before, after, allowed)
        return [f"half-written: {one}" for one in found[:5]]

    def _outside(self) -> dict[str, judging.State]:
        """State of the files in the run's folder, except those of the case."""
        found = {}
        for name in (BASES, CANARIES):
            for path, state in judging.snapshot(self._place.root / name).items():
                found[f"{name}/{path}"] = state
        return found

    @contextmanager
    def _captured(self) -> Iterator[None]:
        """A block whose output goes to files, including that of C libraries and other programs."""
        kept = [os.dup(1), os.dup(2)]
        for number, name in ((1, OUT), (2, ERR)):
            target = os.open(self._place.root / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(target, number)
            os.close(target)
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            for number, saved in zip((1, 2), kept, strict=True):
                os.dup2(saved, number)
                os.close(saved)

    def _said(self) -> bytes:
        parts = []
        for name in (OUT, ERR):
            with (self._place.root / name).open("rb") as file:
                parts.append(file.read(MAX_READ))
        return b"".join(parts)


def _verdict(trial: Trial, outcome: str, said: bytes, plain: bool) -> list[str]:
    """Faults in the way a case ended."""
    if outcome == DONE and trial.must_fail:
        return ["accepted: this must be refused"]
    if plain and outcome not in trial.expected:
        return [f"valid refused: {outcome}"]
    if outcome == REFUSED and not said.strip():
        return ["traceback: it failed without a message"]
    return []


def perform(trial: Trial) -> tuple[str, str]:
    """Run a trial; returns its outcome and a message."""
    from talkhead.errors import TalkheadError, one_line

    try:
        try:
            trial.do()
        except SystemExit as ended:
            if ended.code not in _STATUS:
                return "traceback", f"exit status {ended.code}"
            return _checked(trial, _STATUS[ended.code])  # type: ignore[index]
        except EnoughError:
            return DONE, "far enough"
        except TalkheadError as error:
            print(f"talkhead: {one_line(error)}", file=sys.stderr)
            return REFUSED, ""
        return _checked(trial, DONE)
    except MemoryError:
        return "memory", _where()
    except BaseException:
        return "traceback", _where()


def _checked(trial: Trial, outcome: str) -> tuple[str, str]:
    if outcome == DONE and trial.check is not None:
        trial.check()
    return outcome, ""


def _where() -> str:
    """Describe the current exception and the last lines of talkhead's code that it passed through."""
    kind, error, trace = sys.exc_info()
    frames = traceback.extract_tb(trace)
    ours = [f for f in frames if "site-packages" not in f.filename and "/fuzz/" not in f.filename]
    places = [f"{Path(f.filename).name}:{f.lineno}" for f in (ours or frames)[-4:]]
    try:
        words = str(error)[:SHOWN_CHARS]
    except Exception as other:
        words = f"(without a message: {other!r})"
    return f"{kind.__name__ if kind else ''}: {words} at {' > '.join(places)}"


@contextmanager
def _restored(folder: Path) -> Iterator[None]:
    """A block with its own working directory, after which the environment is restored."""
    current = folder / "here"
    current.mkdir(exist_ok=True)
    environment, before = dict(os.environ), os.getcwd()
    os.environ["TALKHEAD_HOME"] = str(folder / "home")
    os.chdir(current)
    try:
        yield
    finally:
        os.chdir(before)
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)


def processor_s() -> float:
    """Processor seconds of this process and of its finished children."""
    return sum(os.times()[:4])


def reset_peak() -> None:
    """Reset the system's measurement of this process's peak memory."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """Peak memory of this process since the last reset, in MiB; 0 where the system does not report
    it.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0.0
    return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024, 1)


def as_json(case: Case, ended: JobFinished) -> dict[str, Any]:
    """A case as a line of the report."""
    return {"seed": case.seed, "case": case.number, **vars(ended)}
