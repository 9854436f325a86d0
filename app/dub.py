"""Batch dubbing: render the videos of a table with several workers. Interrupted runs can be resumed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from talkhead.app.dubbing.job import CANCELLED, DONE, FAILED, QUEUED, RUNNING, Job
from talkhead.app.dubbing.job_store import JobStore
from talkhead.app.dubbing.local_pool import LocalPool, WorkerConfig
from talkhead.app.dubbing.planner import identity_finder, package_finder, plan
from talkhead.app.dubbing.progress_view import ProgressStats, clock, make_progress_view
from talkhead.app.dubbing.row_checks import SHOWN_ERRORS, BadRow
from talkhead.app.dubbing.scheduler import Scheduler, WorkerPool
from talkhead.app.dubbing.table import Table, read_table
from talkhead.app.home.identities import Home
from talkhead.app.home.scratch import open_home
from talkhead.errors import TalkheadError
from talkhead.processors import check_device, may_have_gpu, n_cores
from talkhead.progress import Style, make_progress
from talkhead.storage import make_folder, write_bytes
from talkhead.terminal import printable, printable_json

if TYPE_CHECKING:
    from typing_extensions import Unpack

AUTO = "auto"
WORKER_BYTES = 1.2e9
"""Memory of a worker on the CPU, for `--workers auto`."""
MANY = 1_000_000
"""Number of jobs of a run without a limit; it is never reached."""
MEMORY = Path("/proc/meminfo")


@dataclass(frozen=True)
class DubOptions:
    """Options of `dub`.

    Attributes:
        workers: Number of processes on this machine; "auto" is one per GPU, or one per core on the CPU.
        cluster: Address of a Ray cluster that runs the jobs instead, or "auto".
        device: "auto", "cpu", "cuda" or "cuda:0"; "auto" uses all GPUs.
        skip_bad: Skip invalid rows instead of raising an error.
        tries: Number of failures after which a job is marked as failed.
    """

    workers: int | str = AUTO
    cluster: str | None = None
    device: str = AUTO
    skip_bad: bool = False
    tries: int = 3


class DubKeywords(TypedDict, total=False):
    """The fields of DubOptions as keyword arguments.

    Attributes:
        workers: See DubOptions.
        cluster: See DubOptions.
        device: See DubOptions.
        skip_bad: See DubOptions.
        tries: See DubOptions.
    """

    workers: int | str
    cluster: str | None
    device: str
    skip_bad: bool
    tries: int


@dataclass(frozen=True)
class Problem:
    """A job that is not done.

    Attributes:
        id: ID of the job.
        output: The video that it should have written; "" for a fit.
        status: "failed" or "cancelled".
        reason: Reason of the last failure.
    """

    id: str
    output: str
    status: str
    reason: str


@dataclass(frozen=True)
class DubResult:
    """Result of `dub`.

    Attributes:
        n_jobs: Number of jobs: videos and fits.
        n_done: Number of jobs that are done.
        n_earlier: Number of jobs that an earlier run had done.
        n_bad_rows: Number of rows that were skipped.
        n_frames: Number of frames rendered by this run.
        seconds: Duration of this run.
        results_path: File with a JSON line for each job and each skipped row.
        problems: Jobs that failed or were cancelled.
        bad_rows: The skipped rows with reasons.
    """

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
    def is_complete(self) -> bool:
        """True if every row of the table is done."""
        return not self.problems and not self.n_bad_rows

    @property
    def summary(self) -> str:
        """Summary for the terminal, in several lines."""
        rate = self.n_frames / max(self.seconds, 1e-6)
        skipped = f", {self.n_bad_rows} skipped" if self.n_bad_rows else ""
        lines = [
            f"{self.n_done} of {self.n_jobs + self.n_bad_rows} done ({self.n_earlier} earlier), "
            f"{len(self.problems)} not done{skipped}; {self.n_frames} frames in "
            f"{clock(self.seconds)}, {rate:.1f} frames/s",
            *(f"  {p.status}: {p.output or p.id}: {p.reason}" for p in self.problems),
            *(f"  skipped: row on line {b.line}: {b.reason}" for b in self.bad_rows[:SHOWN_ERRORS]),
        ]
        if (more := len(self.bad_rows) - SHOWN_ERRORS) > 0:
            lines.append(f"  skipped: {more} more rows, listed in the results")
        if any(problem.status == FAILED for problem in self.problems):
            lines.append(
                "To retry failed jobs: talkhead jobs retry, then run the same command again"
            )
        if any(problem.status == CANCELLED for problem in self.problems):
            lines.append(
                "To retry a cancelled job: talkhead jobs retry ID, then run the same command again"
            )
        lines.append(f"results: {self.results_path}")
        return "\n".join(map(printable, lines))


def dub(
    table: Path | str | None = None,
    *,
    home: Path | str | None = None,
    results: Path | None = None,
    style: Style = "silent",
    options: DubOptions | None = None,
    **keywords: Unpack[DubKeywords],
) -> DubResult:
    """Dub the videos of a table. The same call resumes an interrupted run.

        talkhead.dub("lines.csv", workers=2, skip_bad=True)
        talkhead.dub("movie.yaml")  # a whole video, with its lines, speakers and bed

    Args:
        table: Path of the table; see `talkhead.app.dubbing.table`. Without a table, the queued jobs of
            the home folder are run.
        home: The home folder.
        results: File for the results. By default it is written next to the table.
        style: Progress on stderr: "bars", "json" or "silent".
        options: Options of the run.
        **keywords: Fields of DubOptions, which replace those of `options`.

    Returns:
        The outcome. Failed jobs are listed in it.

    Raises:
        TalkheadError: If the table cannot be read, if it has invalid rows and `skip_bad` is False,
            or if no more jobs can run.
    """
    options = replace(options or DubOptions(), **keywords)
    check_device(options.device)
    opened = open_home(home)
    store = JobStore(opened.path / "jobs")
    store.prepare()
    store.recover()
    store.tidy()
    read = None
    if table is not None:
        read = read_table(Path(table), identity_finder(opened), opened.is_own, reads_files=True)
    if read is not None and read.bad and not options.skip_bad:
        raise read.refuse()
    target = results or results_path(opened, read)
    if read is not None:
        _check_results_path(read, target)
    ids = None
    if read is not None:
        tasks = plan(read.rows, opened, store.open_fits(), make_progress(style).message)
        store.add(tasks, package_finder(opened))
        ids = [task.id for task in tasks]
    jobs = _select_jobs(store, ids)
    stats = _run(store, jobs, opened, options, style)
    return report(_select_jobs(store, [job.id for job in jobs]), stats, read, target)


def _run(
    store: JobStore, jobs: list[Job], home: Home, options: DubOptions, style: Style
) -> ProgressStats:
    """Run jobs until all have finished."""
    pool = make_pool(jobs, home, options)
    n_open = sum(job.status in (QUEUED, RUNNING) for job in jobs)
    stats = ProgressStats(len(jobs), sum(job.status == DONE for job in jobs), n_open)
    view = make_progress_view(style, stats)
    try:
        Scheduler(store, pool, view).run(jobs)
    finally:
        view.close()
    return stats


def _check_results_path(table: Table, results: Path) -> None:
    """Raise TalkheadError if the results would overwrite the table or a file that it names."""
    files = [path for row in table.rows for path in (*row.inputs, *row.outputs)]
    if os.path.realpath(results) in {os.path.realpath(path) for path in (table.path, *files)}:
        raise TalkheadError(
            f"{results}: would be overwritten by the results. Pass another path with --results"
        )


def _select_jobs(store: JobStore, ids: Sequence[str] | None) -> list[Job]:
    """Return the jobs with the given IDs, or all queued and running jobs."""
    if ids is None:
        return store.jobs((QUEUED, RUNNING))
    wanted = set(ids)
    return [job for job in store.jobs() if job.id in wanted]


def make_pool(jobs: Iterable[Job] | None, home: Home, options: DubOptions) -> WorkerPool:
    """Make the workers of a run.

    Args:
        jobs: The jobs. No more workers are made than there are jobs to do. None: any number of them.
        home: The home folder.
        options: Options of the run.

    Returns:
        Processes on this machine, or a Ray cluster.

    Raises:
        TalkheadError: If the cluster cannot be used, or the device does not exist.
    """
    config = WorkerConfig(home.path / "jobs", home.path, options.tries)
    if options.cluster is not None:
        from talkhead.app.dubbing.ray_pool import RayPool

        return RayPool(config, options.cluster)
    n_open = MANY if jobs is None else sum(job.status in (QUEUED, RUNNING) for job in jobs)
    devices = _devices(options.device) if n_open else ["cpu"]
    return LocalPool(config, _assign_devices(devices, options.workers, n_open))


def _devices(device: str) -> list[str]:
    """List all GPUs, or the device that was named."""
    if device == "cpu" or (device == AUTO and not may_have_gpu()):
        return ["cpu"]
    from talkhead.device import resolve_device

    resolved = resolve_device(device)
    if device != AUTO or resolved.type == "cpu":
        return [str(resolved)]
    import torch

    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]


def _assign_devices(devices: Sequence[str], workers: int | str, n_jobs: int) -> list[str]:
    """Assign a device to each worker."""
    if workers == AUTO:
        n_workers = len(devices) if devices[0] != "cpu" else _cpu_workers()
    else:
        n_workers = int(workers)
    n_workers = max(1, min(n_workers, n_jobs))
    return [devices[i % len(devices)] for i in range(n_workers)]


def _cpu_workers() -> int:
    """Return the number of workers on the CPU: one per core, limited by the available memory."""
    available = _available_bytes(MEMORY)
    if available is None:
        return n_cores()
    return max(1, min(n_cores(), int(available / WORKER_BYTES)))


def _available_bytes(path: Path) -> int | None:
    """Read the memory available to programs, including caches; None if it is unknown."""
    try:
        found = re.search(r"^MemAvailable:\s*(\d+) kB$", path.read_text(), re.MULTILINE)
    except OSError:  # not Linux
        return None
    return int(found[1]) * 1024 if found else None


def results_path(home: Home, table: Table | None = None) -> Path:
    """Return the default path of the results.

    Args:
        home: The home folder.
        table: The table; None for the queued jobs of the home folder.

    Returns:
        A path next to the table or in the home folder.
    """
    if table is None:
        return home.path / "jobs" / "results.jsonl"
    return table.path.with_suffix(".results.jsonl")


def report(jobs: Sequence[Job], stats: ProgressStats, table: Table | None, path: Path) -> DubResult:
    """Write the results of a run to a file.

    Args:
        jobs: The jobs after the run.
        stats: Counters of the run.
        table: The table, if there was one.
        path: The file.

    Returns:
        The result.

    Raises:
        TalkheadError: If the file cannot be written.
    """
    bad = () if table is None else table.bad
    records = [_record(job) for job in jobs]
    records += [{"status": "bad row", "line": row.line, "reason": row.reason} for row in bad]
    text = "".join(
        f"{printable_json(json.dumps(record, ensure_ascii=False))}\n" for record in records
    )
    make_folder(path.absolute().parent)
    write_bytes(path, text.encode())
    ended = [job for job in jobs if job.status in (FAILED, CANCELLED)]
    return DubResult(
        n_jobs=len(jobs),
        n_done=sum(job.status == DONE for job in jobs),
        n_earlier=stats.n_earlier,
        n_bad_rows=len(bad),
        n_frames=stats.n_frames,
        seconds=round(stats.elapsed_s, 2),
        results_path=path,
        problems=tuple(Problem(j.id, j.task.output, j.status, j.reason) for j in ended),
        bad_rows=tuple(bad),
    )


def _record(job: Job) -> Mapping[str, Any]:
    """Make the record of a job in the results file."""
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
