"""A table of lines -> videos, many at once, however often it is interrupted."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from talkhead.app.dubbing.job import CANCELLED, DONE, FAILED, QUEUED, RUNNING, Job
from talkhead.app.dubbing.job_store import JobStore
from talkhead.app.dubbing.local_pool import LocalPool, WorkerConfig
from talkhead.app.dubbing.planner import identity_finder, package_finder, plan
from talkhead.app.dubbing.progress_view import ProgressStats, clock, make_progress_view
from talkhead.app.dubbing.scheduler import Scheduler, WorkerPool
from talkhead.app.dubbing.table import SHOWN_ERRORS, BadRow, Table, read_table
from talkhead.app.home.identities import Home
from talkhead.app.home.scratch import open_home
from talkhead.errors import TalkheadError
from talkhead.processors import check_device, may_have_gpu, n_cores
from talkhead.progress import Style, make_progress
from talkhead.storage import make_folder, write_bytes
from talkhead.terminal import printable, printable_json

AUTO = "auto"
WORKER_BYTES = 1.2e9
"""Memory that a worker takes on the CPU, for `--workers auto`."""
MEMORY = Path("/proc/meminfo")


@dataclass(frozen=True)
class Problem:
    """A line that was not dubbed."""

    id: str
    output: str
    status: str
    reason: str


@dataclass(frozen=True)
class DubResult:
    """What became of a table. n_jobs: lines and fits. n_earlier: done by an earlier run. n_bad_rows:
    left out of the table. problems: those set aside or cancelled. results_path: a JSON line for each
    job and each row left out. bad_rows: why rows were."""

    n_jobs: int
    n_done: int
    n_earlier: int
    n_bad_rows: int
    n_frames: int
    seconds: float
    results_path: Path
    problems: tuple[Problem, ...]
    bad_rows: tuple[BadRow, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether everything that was asked for is done."""
        return not self.problems and not self.n_bad_rows

    @property
    def summary(self) -> str:
        """The same, to be read."""
        rate = self.n_frames / max(self.seconds, 1e-6)
        skipped = f", {self.n_bad_rows} skipped" if self.n_bad_rows else ""
        lines = [
            f"{self.n_done} of {self.n_jobs + self.n_bad_rows} done ({self.n_earlier} of them before), "
            f"{len(self.problems)} not{skipped}; {self.n_frames} frames in {clock(self.seconds)}, "
            f"{rate:.1f} a second",
            *(f"  {p.status}: {p.output or p.id}: {p.reason}" for p in self.problems),
            *(f"  skipped: row on line {b.line}: {b.reason}" for b in self.bad_rows[:SHOWN_ERRORS]),
        ]
        if (more := len(self.bad_rows) - SHOWN_ERRORS) > 0:
            lines.append(f"  skipped: {more} more rows, which the results name")
        if any(problem.status == FAILED for problem in self.problems):
            lines.append("To try those set aside again: talkhead jobs retry, then the same command")
        if any(problem.status == CANCELLED for problem in self.problems):
            lines.append(
                "To dub one that was cancelled: talkhead jobs retry ID, then the same command"
            )
        lines.append(f"results: {self.results_path}")
        return "\n".join(map(printable, lines))


def dub(
    table: Path | str | None = None,
    *,
    workers: int | str = AUTO,
    cluster: str | None = None,
    home: Path | str | None = None,
    device: str = AUTO,
    skip_bad: bool = False,
    tries: int = 3,
    results: Path | None = None,
    style: Style = "silent",
) -> DubResult:
    """Dub the lines of a table (see `read_table`), or without one, whatever is queued in the home.

    workers: processes on this machine, "auto": one a GPU, or one a core. cluster: the address of a Ray
    cluster that does the work instead, or "auto". tries: after so many failures a job is set aside.
    results: by default beside the table. The same call goes on where an interrupted one stopped.
    Raises TalkheadError for a table with wrong rows (unless skip_bad), and when nothing can go on.
    """
    check_device(device)
    store_home = open_home(home)
    store = JobStore(store_home.path / "jobs")
    store.prepare()
    store.recover()
    store.tidy()
    read = None
    if table is not None:
        read = read_table(Path(table), identity_finder(store_home), store_home.is_own)
    if read is not None and read.bad and not skip_bad:
        raise read.refuse()
    target = results or results_path(store_home, read)
    if read is not None:
        _check_kept(read, target)
    ids = None
    if read is not None:
        tasks = plan(read.rows, store_home, store.open_fits(), make_progress(style).message)
        store.add(tasks, package_finder(store_home))
        ids = [task.id for task in tasks]
    jobs = _chosen(store, ids)
    force = make_pool(jobs, store_home, workers, cluster, device, tries)
    n_open = sum(job.status in (QUEUED, RUNNING) for job in jobs)
    tally = ProgressStats(len(jobs), sum(job.status == DONE for job in jobs), n_open)
    board = make_progress_view(style, tally)
    try:
        Scheduler(store, force, board).run(jobs)
    finally:
        board.close()
    return report(_chosen(store, [job.id for job in jobs]), tally, read, target)


def _check_kept(table: Table, results: Path) -> None:
    """Raises TalkheadError where the results would be written over the table, or over what it names."""
    files = [path for row in table.rows for path in (*row.inputs, *row.outputs)]
    if os.path.realpath(results) in {os.path.realpath(path) for path in (table.path, *files)}:
        raise TalkheadError(f"{results}: the results would replace it. Give --results another name")


def _chosen(store: JobStore, ids: Sequence[str] | None) -> list[Job]:
    """The jobs of those ids; without any, those that are still to be done."""
    if ids is None:
        return store.jobs((QUEUED, RUNNING))
    wanted = set(ids)
    return [job for job in store.jobs() if job.id in wanted]


def make_pool(
    jobs: Iterable[Job],
    home: Home,
    workers: int | str,
    cluster: str | None,
    device: str,
    tries: int,
) -> WorkerPool:
    """Whoever does the jobs. Raises TalkheadError for a cluster that isn't there."""
    place = WorkerConfig(home.path / "jobs", home.path, tries)
    if cluster is not None:
        from talkhead.app.dubbing.ray_pool import RayPool

        return RayPool(place, cluster)
    n_open = sum(job.status in (QUEUED, RUNNING) for job in jobs)
    devices = _devices(device) if n_open else ["cpu"]
    return LocalPool(place, _shared_out(devices, workers, n_open))


def _devices(device: str) -> list[str]:
    """Every GPU there is, or the device that was named."""
    if device == "cpu" or (device == AUTO and not may_have_gpu()):
        return ["cpu"]
    from talkhead.device import resolve_device

    chosen = resolve_device(device)
    if device != AUTO or chosen.type == "cpu":
        return [str(chosen)]
    import torch

    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]


def _shared_out(devices: Sequence[str], workers: int | str, n_jobs: int) -> list[str]:
    """The device of each worker."""
    if workers == AUTO:
        n_workers = len(devices) if devices[0] != "cpu" else _cpu_workers()
    else:
        n_workers = int(workers)
    n_workers = max(1, min(n_workers, n_jobs))
    return [devices[i % len(devices)] for i in range(n_workers)]


def _cpu_workers() -> int:
    """One a core, as far as the memory goes."""
    available = _available_bytes(MEMORY)
    if available is None:
        return n_cores()
    return max(1, min(n_cores(), int(available / WORKER_BYTES)))


def _available_bytes(path: Path) -> int | None:
    """Memory that programs can still have, that of the system's caches too; None if it isn't told."""
    try:
        found = re.search(r"^MemAvailable:\s*(\d+) kB$", path.read_text(), re.MULTILINE)
    except OSError:  # not Linux
        return None
    return int(found[1]) * 1024 if found else None


# ----------------------------------------------------------------------------- planning


# ---------------------------------------------------------------------------- reporting


def results_path(home: Home, table: Table | None = None) -> Path:
    """Where the results of a table are told, or of what was queued in a home."""
    if table is None:
        return home.path / "jobs" / "results.jsonl"
    return table.path.with_suffix(".results.jsonl")


def report(jobs: Sequence[Job], tally: ProgressStats, table: Table | None, path: Path) -> DubResult:
    """The result of a run, which is now also in a file."""
    bad = () if table is None else table.bad
    lines = [_line(job) for job in jobs]
    lines += [{"status": "bad row", "line": one.line, "reason": one.reason} for one in bad]
    text = "".join(f"{printable_json(json.dumps(line, ensure_ascii=False))}\n" for line in lines)
    make_folder(path.absolute().parent)
    write_bytes(path, text.encode())
    ended = [job for job in jobs if job.status in (FAILED, CANCELLED)]
    return DubResult(
        n_jobs=len(jobs),
        n_done=sum(job.status == DONE for job in jobs),
        n_earlier=tally.n_earlier,
        n_bad_rows=len(bad),
        n_frames=tally.n_frames,
        seconds=round(tally.elapsed_s, 2),
        results_path=path,
        problems=tuple(Problem(j.id, j.task.output, j.status, j.reason) for j in ended),
        bad_rows=tuple(bad),
    )


def _line(job: Job) -> Mapping[str, Any]:
    """A job in the results file."""
    return {
        "id": job.id,
        "status": job.status,
        "kind": job.task.kind,
        "identity": job.task.identity,
        "audio": job.task.audio,
        "output": job.task.output,
        "tries": job.tries,
        "reason": job.reason,
        **job.result,
    }
