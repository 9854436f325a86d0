"""A table of lines -> videos, many at once, however often it is interrupted."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from talkhead.app.choices import DEFAULT_PRESET
from talkhead.app.dubbing.board import Tally, clock, make_board
from talkhead.app.dubbing.coordinator import Coordinator, Workforce
from talkhead.app.dubbing.table import SHOWN_ERRORS, BadRow, FindIdentity, Row, Table, read_table
from talkhead.app.dubbing.workers import LocalWorkers, Workplace
from talkhead.app.identities import DEFAULT_RENDERER, Home, name_from_video, state_of
from talkhead.app.jobs import CANCELLED, DONE, FAILED, FIT, QUEUED, RUNNING, Job, JobStore, Task
from talkhead.app.scratch import open_home
from talkhead.errors import PackageError, TalkheadError
from talkhead.identity import MANIFEST_NAME, read_manifest
from talkhead.processors import check_device, may_have_gpu, n_cores
from talkhead.progress import Style, make_progress
from talkhead.storage import file_errors, make_folder, read_json, sha256_of, write_bytes, write_json
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
    force = hire(jobs, store_home, workers, cluster, device, tries)
    n_open = sum(job.status in (QUEUED, RUNNING) for job in jobs)
    tally = Tally(len(jobs), sum(job.status == DONE for job in jobs), n_open)
    board = make_board(style, tally)
    try:
        Coordinator(store, force, board).run(jobs)
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


def hire(
    jobs: Iterable[Job],
    home: Home,
    workers: int | str,
    cluster: str | None,
    device: str,
    tries: int,
) -> Workforce:
    """Whoever does the jobs. Raises TalkheadError for a cluster that isn't there."""
    place = Workplace(home.path / "jobs", home.path, tries)
    if cluster is not None:
        from talkhead.app.dubbing.cluster import RayWorkers

        return RayWorkers(place, cluster)
    n_open = sum(job.status in (QUEUED, RUNNING) for job in jobs)
    devices = _devices(device) if n_open else ["cpu"]
    return LocalWorkers(place, _shared_out(devices, workers, n_open))


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


def identity_finder(home: Home) -> FindIdentity:
    """A function that gives the name of an identity of home, or the folder of one that lies elsewhere.

    It raises TalkheadError for one that can't be used now.
    """

    def find(text: str, path: Path) -> str:
        if text in home.names():
            return text
        if home.is_under_way(text):
            raise TalkheadError(
                f"identity {text}: is still being fitted, or its fit was interrupted. Wait for it, or "
                "run the same talkhead fit again"
            )
        found = home.resolve(path)
        return found.name if found.parent == home.identities_dir else str(found)

    return find


def package_finder(home: Home) -> Callable[[Task], str]:
    """A function that gives the state of the package that a line would be made with now (`state_of`);
    "" where there is none that can be read."""

    @cache
    def state(identity: str, renderer: str) -> str:
        try:
            path = home.resolve(identity)
            return state_of(read_manifest(read_json(path / MANIFEST_NAME), path), renderer)
        except PackageError:
            return ""

    return lambda task: state(task.identity, task.renderer)


def plan(
    rows: Iterable[Row],
    home: Home,
    open_fits: Sequence[Task] = (),
    tell: Callable[[str], None] = lambda note: None,
) -> list[Task]:
    """The tasks of rows: a fit for each video whose person isn't known yet, and a line for each row.

    open_fits: asked for by other tables, and not made yet; those of whoever speaks here are among the
    tasks, as lines have to wait for them. tell: is told of what is not done as a row says.
    """
    casting = Casting(home, open_fits, tell)
    try:
        lines = [casting.line(row) for row in rows]
    finally:
        casting.sums.save()  # also of a call that breaks off: large videos are not read in vain
    speaking = {line.identity for line in lines}
    others = {fit.id: fit for fit in open_fits if fit.identity in speaking}
    return [*{**others, **casting.fits}.values(), *lines]


class Casting:
    """Who speaks: the person of each video, by its content, fitted or to be fitted."""

    def __init__(self, home: Home, open_fits: Sequence[Task], tell: Callable[[str], None]) -> None:
        self._home, self._tell = home, tell
        people = list(_people(home))
        self._presets = {p.name: fit.preset for _, p in people for fit in p.fits.values()}
        self._known = dict(people)
        for task in open_fits:
            person = self._known.setdefault(task.digest, Person(task.identity, {}))
            person.fits.setdefault(task.renderer, task)
        self._open = {task.id for task in open_fits}
        self._noted: set[str] = set()
        self.sums = Checksums.of_home(home)
        self.fits: dict[str, Task] = {}

    def line(self, row: Row) -> Task:
        """The task of a row."""
        fit = None if row.identity or row.video is None else self._fit(row, row.video)
        name = row.identity or (fit.identity if fit else "")
        self._note_preset(row, name, fit.preset if fit else self._presets.get(name, ""))
        return Task(
            "line",
            name,
            audio=str(row.audio),
            output=str(row.output),
            video=str(row.video) if row.video is not None and row.timeline == "source" else "",
            renderer=row.renderer or (fit.renderer if fit else ""),
            mode=row.mode,
            options=row.options,
            needs=fit.id if fit is not None and fit.id in self.fits else "",
        )

    def _fit(self, row: Row, video: Path) -> Task:
        """The fit of a video's person and renderer; it is among `fits` if it must still be made."""
        digest = self.sums.of(video)
        person = self._known.get(digest)
        if person is None:
            person = self._known[digest] = Person(self._free_name(video, digest), {})
        renderer = row.renderer or next(iter(person.fits), DEFAULT_RENDERER)
        known = person.fits.get(renderer)
        if known is not None and known.id not in self._open:
            return known
        task = Task(
            FIT,
            person.name,
            video=str(video),
            digest=digest,
            renderer=renderer,
            preset=row.preset or (known.preset if known else DEFAULT_PRESET),
        )
        self._open.discard(task.id)  # what the first row says of it holds
        person.fits[renderer] = self.fits[task.id] = task
        return task

    def _free_name(self, video: Path, digest: str) -> str:
        name = name_from_video(video)
        taken = {*self._home.names(), *(person.name for person in self._known.values())}
        return name if name not in taken else f"{name[:50]}-{digest[:8]}"

    def _note_preset(self, row: Row, name: str, preset: str) -> None:
        """Tell, once of each person, that they are fitted otherwise than a row says."""
        if row.preset in ("", preset) or name in self._noted:
            return
        self._noted.add(name)
        self._tell(
            f"line {row.line}: preset {row.preset} is not used: {name} is fitted "
            f"{f'with {preset}' if preset else 'already'}. To fit them anew: talkhead fit "
            f"--preset {row.preset}"
        )


@dataclass(frozen=True)
class Person:
    """Who is in a video, and the fits of their renderers, done or to be done; first the default one."""

    name: str
    fits: dict[str, Task]


def _people(home: Home) -> Iterator[tuple[str, Person]]:
    """The checksum of the footage of each identity, and who it is."""
    for name in home.names():
        path = home.identity_dir(name)
        try:
            manifest = read_manifest(read_json(path / MANIFEST_NAME), path)
        except PackageError:  # damaged or of another version: fitted again
            continue
        digest, preset = manifest.source.sha256, manifest.preset
        renderers = dict.fromkeys([manifest.default_renderer, *manifest.renderers])
        made = Task(FIT, name, digest=digest, preset=preset)
        yield digest, Person(name, {one: replace(made, renderer=one) for one in renderers})


class Checksums:
    """SHA-256 of files, kept in a file once saved: large videos are read once."""

    def __init__(self, path: Path) -> None:
        self._path, self._is_saved = path, True
        try:
            held = read_json(path) if path.exists() else {}
        except PackageError:
            held = {}
        items = held.items() if isinstance(held, dict) else ()
        self._kept: dict[str, list[Any]] = {
            name: kept
            for name, kept in items
            if isinstance(kept, list) and [type(value) for value in kept] == [int, int, str]
        }

    @classmethod
    def of_home(cls, home: Home) -> Checksums:
        """Those that are kept in a home folder."""
        return cls(home.path / "jobs" / "checksums.json")

    def forget(self, digests: Collection[str]) -> list[str]:
        """The paths of the files with those checksums, which are now kept no more."""
        paths = [path for path, kept in self._kept.items() if kept[-1] in digests]
        for path in paths:
            del self._kept[path]
        self._is_saved = self._is_saved and not paths
        self.save()
        return paths

    def of(self, path: Path) -> str:
        """The file's checksum. Raises TalkheadError."""
        with file_errors(path):
            state = path.stat()
        known = self._kept.get(str(path))
        now = [state.st_size, state.st_mtime_ns]
        if not (isinstance(known, list) and len(known) == 3 and known[:2] == now):
            known = [*now, sha256_of(path)]
            self._kept[str(path)], self._is_saved = known, False
        return str(known[2])

    def save(self) -> None:
        """Write the file if there is something new. Raises TalkheadError."""
        if not self._is_saved:
            write_json(self._path, self._kept)
            self._is_saved = True


# ---------------------------------------------------------------------------- reporting


def results_path(home: Home, table: Table | None = None) -> Path:
    """Where the results of a table are told, or of what was queued in a home."""
    if table is None:
        return home.path / "jobs" / "results.jsonl"
    return table.path.with_suffix(".results.jsonl")


def report(jobs: Sequence[Job], tally: Tally, table: Table | None, path: Path) -> DubResult:
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
