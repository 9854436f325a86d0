"""Run jobs while workers and coordinator are killed at random, for the kill test and its benchmark.

There are two kinds of kills: from outside at any time, and by the process itself right before or
after a call that changes files. Run as a program, this module is a coordinator with a fake
renderer.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from talkhead.app.dubbing import job_store
from talkhead.app.dubbing.job import STATUSES, Task
from talkhead.app.dubbing.job_store import JobStore
from talkhead.app.dubbing.local_pool import LocalPool, WorkerConfig
from talkhead.app.dubbing.progress_view import ProgressStats, ProgressView
from talkhead.app.dubbing.scheduler import Scheduler
from talkhead.progress import Progress

N_PARTS, PART_BYTES = 4, 20_000
KILLS = "kills"
MAX_TRIES = 10**6


@dataclass(frozen=True)
class Outcome:
    """Outcome of a run with kills. runs: number of coordinators started. by: kills by kind."""

    n_done: int
    n_kills: int
    runs: int
    by: Mapping[str, int]
    seconds: float


def expected(audio: Path) -> bytes:
    """The output of the fake renderer."""
    part = hashlib.sha256(audio.read_bytes()).digest()
    return b"".join(part * (PART_BYTES // len(part)) for _ in range(N_PARTS))


class FakeTaskRunner:
    """Writes an output in parts, with a checkpoint after each, and sometimes kills itself."""

    part_s = 0.002

    def __init__(self, home: Path, device: str) -> None:
        enable_kills(home, "worker")

    def __call__(
        self, task: Task, work: Path, products: Path, progress: Progress
    ) -> Mapping[str, Any]:
        """See RunTask."""
        whole, parts = expected(Path(task.audio)), work / "parts"
        parts.mkdir(exist_ok=True)
        size = len(whole) // N_PARTS
        with progress.step("Rendering", total=N_PARTS) as step:
            for number in range(N_PARTS):
                target = parts / str(number)
                if not target.exists():
                    half = parts / f".{number}"
                    half.write_bytes(whole[number * size : (number + 1) * size])
                    os.replace(half, target)
                time.sleep(self.part_s)
                step.advance()
        data = b"".join((parts / str(number)).read_bytes() for number in range(N_PARTS))
        (products / Path(task.output).name).write_bytes(data)
        return {"n_frames": N_PARTS}


class SlowFakeTaskRunner(FakeTaskRunner):
    """Takes longer, so that kills from outside meet it at work."""

    part_s = 0.08


def enable_kills(home: Path, kind: str) -> None:
    """Make this process kill itself around its writes with the probability in home/chance."""
    chance = float((home / "chance").read_text())
    dice = random.Random(f"{(home / 'seed').read_text()}-{kind}-{os.getpid()}-{time.time_ns()}")
    job_store.INITIAL_BACKOFF_S, job_store.MAX_BACKOFF_S = 0.01, 0.05

    def with_kills(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any, **named: Any) -> Any:
            if dice.random() < chance:
                kill(os.getpid(), home, f"{kind} before {call.__name__}")
            result = call(*given, **named)
            if dice.random() < chance:
                kill(os.getpid(), home, f"{kind} after {call.__name__}")
            return result

        return wrapped

    for name in ("replace", "rename", "fsync", "unlink", "open"):
        setattr(os, name, with_kills(getattr(os, name)))


def kill(pid: int, home: Path, how: str) -> None:
    """Kill a process unless the maximum number is reached. The kill is recorded first."""
    path = home / KILLS
    if path.stat().st_size >= 64 * int((home / "most").read_text()):
        return
    descriptor = OPEN(path, os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, how.ljust(63).encode()[:63] + b"\n")
    os.close(descriptor)
    os.kill(pid, signal.SIGKILL)


OPEN = os.open


def prepare(home: Path, n_jobs: int, n_kills: int, seed: int, chance: float) -> JobStore:
    """Make a store of jobs whose audio files are random bytes."""
    (home / "out").mkdir(parents=True)
    values = {"chance": chance, "seed": seed, "most": n_kills}
    for name, value in values.items():
        (home / name).write_text(str(value))
    (home / KILLS).touch()
    dice = random.Random(seed)
    tasks = []
    for number in range(n_jobs):
        audio = home / f"{number}.wav"
        audio.write_bytes(dice.randbytes(100))
        output = home / "out" / f"line {number}.mp4"
        tasks.append(Task("line", "anna", audio=str(audio), output=str(output)))
    store = JobStore(home / "jobs")
    store.add(tasks)
    return store


def run_with_kills(home: Path, n_jobs: int, n_kills: int, seed: int, chance: float) -> Outcome:
    """Run jobs while n_kills processes are killed. Raises AssertionError if an output is wrong."""
    store = prepare(home, n_jobs, n_kills, seed, chance)
    dice = random.Random(seed)
    seen: dict[str, tuple[int, int]] = {}
    start, runs = time.perf_counter(), 0
    while True:
        runs += 1
        coordinator = subprocess.Popen([sys.executable, __file__, str(home)])
        while coordinator.poll() is None:
            time.sleep(dice.uniform(0.02, 0.5))
            watch(home, seen)
            workers = children(coordinator.pid)  # a coordinator without workers is rarely killed
            if not workers and dice.random() < 0.9:
                continue
            victim = dice.choice([coordinator.pid, *workers])
            kind = "coordinator" if victim == coordinator.pid else "worker"
            if dice.random() < 0.5 and coordinator.poll() is None:
                kill_other(victim, home, f"{kind} from outside")
        if coordinator.returncode == 0:
            break
    watch(home, seen)
    check(store, home, n_jobs)
    lines = (home / KILLS).read_text().splitlines()
    by = dict(Counter(" ".join(line.split()[:2]) for line in lines))
    return Outcome(n_jobs, len(lines), runs, by, time.perf_counter() - start)


def kill_other(pid: int, home: Path, how: str) -> None:
    with suppress(ProcessLookupError):
        kill(pid, home, how)


def children(pid: int) -> list[int]:
    """The running workers of a coordinator."""
    try:
        found = [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [n for n in found if b"spawn_main" in Path(f"/proc/{n}/cmdline").read_bytes()]
    except OSError:
        return []


def watch(home: Path, seen: dict[str, tuple[int, int]]) -> None:
    """Check that every output is complete and is never written again."""
    for path in (home / "out").iterdir():
        if path.name.startswith("."):
            continue
        number = path.stem.split()[1]
        state = path.stat()
        assert path.read_bytes() == expected(home / f"{number}.wav"), f"{path} is half-written"
        assert seen.setdefault(path.name, (state.st_ino, state.st_mtime_ns)) == (
            state.st_ino,
            state.st_mtime_ns,
        ), f"{path} was written twice"


def check(store: JobStore, home: Path, n_jobs: int) -> None:
    """Check that every job was done exactly once, and that no other files are left."""
    folders = {name: {p.name for p in (store.path / name).iterdir()} for name in STATUSES}
    assert len(folders.pop("done")) == n_jobs and not any(folders.values()), folders
    assert len(list((home / "out").iterdir())) == n_jobs
    for job in store.jobs():
        assert job.result["n_frames"] == N_PARTS and job.reason == ""
    store.tidy()
    for name in ("work", "locks", "cancelling"):
        assert not list((store.path / name).iterdir()), name


def coordinate(home: Path) -> None:
    """Run the jobs of a home folder, two at a time."""
    enable_kills(home, "coordinator")
    store = JobStore(home / "jobs")
    store.prepare()
    store.recover()
    store.tidy()
    config = WorkerConfig(store.path, home, MAX_TRIES, "killing:FakeTaskRunner")
    unfinished = store.jobs()
    view = ProgressView(ProgressStats(len(unfinished), 0, len(unfinished)))
    Scheduler(store, LocalPool(config, ["cpu"] * 2), view).run(unfinished)


if __name__ == "__main__":
    coordinate(Path(sys.argv[1]))
