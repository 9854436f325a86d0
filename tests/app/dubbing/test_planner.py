"""Planning of fits, and the order in which jobs run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from talkhead.app.dubbing import planner
from talkhead.app.dubbing.events import Event, JobFinished
from talkhead.app.dubbing.job import DONE, FAILED, FIT, Job, Task
from talkhead.app.dubbing.job_store import JobStore
from talkhead.app.dubbing.planner import identity_finder, package_finder, plan
from talkhead.app.dubbing.progress_view import ProgressStats, ProgressView
from talkhead.app.dubbing.scheduler import Scheduler
from talkhead.app.dubbing.table import Row
from talkhead.app.fit import FitResult
from talkhead.app.home.identities import Home
from talkhead.errors import PackageError, TalkheadError
from talkhead.storage import write_json

PERSON_DIGEST = "0" * 64
"""SHA-256 of the footage of the small package."""


@pytest.fixture
def place(tmp_path: Path) -> Home:
    JobStore(tmp_path / "home" / "jobs").prepare()
    return Home(tmp_path / "home")


def row_of(tmp_path: Path, number: int, **cells: Any) -> Row:
    output = tmp_path / f"{number}.mp4"
    return Row(line=number, audio=tmp_path / "a.wav", output=output, **cells)


def footage_of(folder: Path, content: bytes) -> Path:
    folder.mkdir()
    (folder / "Anna.mp4").write_bytes(content)
    return folder / "Anna.mp4"


def test_renderers_of_one_person(place: Home, tmp_path: Path) -> None:
    """One fit per renderer with the same name; each row needs the fit of its renderer."""
    video = footage_of(tmp_path / "a", b"anna")
    renderers = ("", "gaussian", "nerf", "nerf")
    rows = [row_of(tmp_path, i, video=video, renderer=r) for i, r in enumerate(renderers)]
    first, second, *lines = plan(rows, place)
    assert [(fit.identity, fit.renderer) for fit in (first, second)] == [
        ("Anna", "gaussian"),
        ("Anna", "nerf"),
    ]
    assert (first.needs, second.needs) == ("", "") and first.id != second.id
    assert [line.renderer for line in lines] == ["gaussian", "gaussian", "nerf", "nerf"]
    assert [line.needs for line in lines] == [first.id] * 2 + [second.id] * 2


def test_a_second_renderer_of_an_existing_identity(
    fitted: FitResult, footage: Path, place: Home, tmp_path: Path
) -> None:
    shutil.copytree(fitted.package_path, place.identities_dir / fitted.name)
    rows = [row_of(tmp_path, i, video=footage, renderer=r) for i, r in enumerate(("", "nerf"))]
    fit, *lines = plan(rows, place)
    assert (fit.kind, fit.identity, fit.renderer) == (FIT, fitted.name, "nerf")
    assert [(line.renderer, line.needs) for line in lines] == [("gaussian", ""), ("nerf", fit.id)]


def test_footage_is_read_once_and_checksums_are_saved_once(
    place: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This also holds after an error."""
    written: list[Path] = []

    def record(path: Path, value: Any) -> None:
        written.append(path)
        write_json(path, value)

    monkeypatch.setattr(planner, "write_json", record)
    videos = [footage_of(tmp_path / name, name.encode()) for name in "abc"]
    rows = [row_of(tmp_path, i, video=video) for i, video in enumerate(videos)]
    with pytest.raises(TalkheadError, match="no such file"):
        plan([*rows, row_of(tmp_path, 9, video=tmp_path / "lost.mp4")], place)
    assert len(written) == 1
    monkeypatch.setattr(planner, "sha256_of", None)  # all of them are known
    assert len(plan(rows, place)) == 6
    assert len(written) == 1


def test_videos_of_one_name_make_two_identities(place: Home, tmp_path: Path) -> None:
    """The videos may be in one table, or in two tables of which the first is not finished."""
    anna, other = footage_of(tmp_path / "a", b"anna"), footage_of(tmp_path / "b", b"another")
    first, _ = plan([row_of(tmp_path, 1, video=anna)], place)
    second, _ = plan([row_of(tmp_path, 2, video=other)], place)
    assert first.identity == second.identity == "Anna" and first.id != second.id
    store = JobStore(place.path / "jobs")
    store.add([first])
    second, line = plan([row_of(tmp_path, 2, video=other)], place, store.open_fits())
    assert second.identity == line.identity != "Anna" and line.needs == second.id
    again, line = plan([row_of(tmp_path, 3, video=anna)], place, store.open_fits())
    assert (again.id, line.identity, line.needs) == (first.id, "Anna", first.id)


def test_rows_wait_for_fits_of_other_tables(place: Home, tmp_path: Path, add: Any) -> None:
    """Rows wait for the fits of their identity, because a fit replaces the package."""
    add(place.identities_dir / "anna")
    mine = Task(FIT, "anna", video="/v.mp4", digest=PERSON_DIGEST, renderer="nerf")
    foreign = Task(FIT, "berta", video="/w.mp4", digest="1" * 64, renderer="nerf")
    rows = [row_of(tmp_path, 1, identity="anna")]
    tasks = plan(rows, place, [mine, foreign])
    assert tasks[0] == mine and [task.kind for task in tasks] == [FIT, "line"]


def test_unused_presets_are_reported(place: Home, tmp_path: Path, add: Any) -> None:
    """They are reported once per identity with another preset."""
    add(place.identities_dir / "anna")
    video = footage_of(tmp_path / "a", b"anna")
    rows = [
        row_of(tmp_path, 1, identity="anna", preset="preview"),
        row_of(tmp_path, 2, identity="anna", preset="high"),
        row_of(tmp_path, 3, identity="anna", preset="high"),
        row_of(tmp_path, 4, video=video, preset="preview"),
        row_of(tmp_path, 5, video=video, preset="standard"),
    ]
    notes: list[str] = []
    tasks = plan(rows, place, notify=notes.append)
    assert tasks[0].preset == "preview"
    assert [note.partition(":")[0] for note in notes] == ["line 2", "line 5"]
    assert "preset high is not used: anna is fitted with preview" in notes[0]


def test_resolution_of_identities(place: Home, tmp_path: Path, add: Any) -> None:
    """Names take precedence over folders; a folder of the home is a name."""
    add(place.identities_dir / "anna")
    add(tmp_path / "anna")
    add(tmp_path / "berta")
    find = identity_finder(place)
    assert find("anna", tmp_path / "anna") == "anna"
    assert find("berta", tmp_path / "berta") == str(tmp_path / "berta")
    assert find("home/identities/anna", place.identities_dir / "anna") == "anna"
    with pytest.raises(PackageError, match="clara: not found"):
        find("clara", tmp_path / "clara")


def test_the_fingerprint_of_a_package(place: Home, add: Any) -> None:
    add(place.identities_dir / "anna")
    find = package_finder(place)
    assert find(Task("line", "anna")) == find(Task("line", "anna", renderer="warp")) != ""
    assert find(Task("line", "unknown")) == ""


# ---------------------------------------------------------------------- order of jobs


@dataclass
class Workers:
    """A pool of five; each call of wait() finishes one job, in the order of their starts."""

    store: JobStore
    failing: tuple[str, ...] = ()
    size: int = 5
    running: list[Job] = field(default_factory=list)
    started_with: dict[str, list[str]] = field(default_factory=dict)

    def room(self) -> int:
        return self.size - len(self.running)

    def start(self, job: Job, n_threads: int) -> None:
        self.started_with[job.id] = [other.id for other in self.running]
        self.running.append(job)

    def wait(self, timeout_s: float) -> list[Event]:
        if not self.running:
            return []
        job = self.running.pop(0)
        with self.store.claim(job.id) as claim:
            assert claim is not None
            if job.id in self.failing:
                claim.fail("no luck", 1)
            else:
                claim.complete({"n_frames": 1})
            return [JobFinished(job.id, claim.job.status, claim.job.reason)]

    def close(self) -> None:
        pass


def run(store: JobStore, failing: tuple[str, ...] = ()) -> Mapping[str, list[str]]:
    """Run the jobs. Returns the started jobs, each with those that were running then."""
    workers = Workers(store, failing)
    Scheduler(store, workers, ProgressView(ProgressStats(0, 0, 0))).run(store.jobs())
    return workers.started_with


def tasks_of(name: str) -> list[Task]:
    """Two fits, and a rendering with each renderer and with the default one."""
    fits = [Task(FIT, name, digest=name, renderer=renderer) for renderer in ("gaussian", "nerf")]
    needs = {"gaussian": fits[0].id, "nerf": fits[1].id, "": ""}
    lines = [
        Task("line", name, output=f"/{name}/{renderer}.mp4", renderer=renderer, needs=needed)
        for renderer, needed in needs.items()
    ]
    return [*lines, *fits]


def test_a_fit_blocks_all_other_jobs_of_its_identity(store: JobStore) -> None:
    anna, berta = tasks_of("anna"), tasks_of("berta")
    store.add([*anna, *berta])
    started = run(store)
    order = [*started]
    assert len(order) == 10 and all(job.status == DONE for job in store.jobs())
    for tasks in (anna, berta):
        own = {task.id for task in tasks}
        *lines, first, second = (task.id for task in tasks)
        assert not own & {*started[first], *started[second]}
        assert order.index(first) < order.index(second) < min(map(order.index, lines))
    assert started[order[1]] == [order[0]], "two identities are fitted at once"


def test_a_failed_fit_fails_only_its_own_renderings(store: JobStore) -> None:
    """Renderings with another renderer, and with the default one, are done."""
    gaussian, nerf, default, first, second = tasks_of("anna")
    store.add([gaussian, nerf, default, first, second])
    started = run(store, failing=(first.id,))
    status = {job.id: job.status for job in store.jobs()}
    assert (status[first.id], status[gaussian.id]) == (FAILED, FAILED)
    assert {status[task.id] for task in (second, nerf, default)} == {DONE}
    assert gaussian.id not in started
    store.add([replace(gaussian, output="/anna/later.mp4")])
    assert run(store) == {}, "jobs that need a fit that failed earlier are not started"


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "jobs")
