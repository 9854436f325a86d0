"""Who is fitted, and what waits for whom."""

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
"""Of the footage of the small package."""


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
    """A fit for each, of one name; lines need their own renderer's."""
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


def test_a_second_renderer_of_one_who_is_known(
    fitted: FitResult, footage: Path, place: Home, tmp_path: Path
) -> None:
    shutil.copytree(fitted.package_path, place.identities_dir / fitted.name)
    rows = [row_of(tmp_path, i, video=footage, renderer=r) for i, r in enumerate(("", "nerf"))]
    fit, *lines = plan(rows, place)
    assert (fit.kind, fit.identity, fit.renderer) == (FIT, fitted.name, "nerf")
    assert [(line.renderer, line.needs) for line in lines] == [("gaussian", ""), ("nerf", fit.id)]


def test_footage_is_read_once_and_that_is_noted_once(
    place: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by a call that breaks off."""
    written: list[Path] = []

    def noted(path: Path, value: Any) -> None:
        written.append(path)
        write_json(path, value)

    monkeypatch.setattr(planner, "write_json", noted)
    videos = [footage_of(tmp_path / name, name.encode()) for name in "abc"]
    rows = [row_of(tmp_path, i, video=video) for i, video in enumerate(videos)]
    with pytest.raises(TalkheadError, match="no such file"):
        plan([*rows, row_of(tmp_path, 9, video=tmp_path / "lost.mp4")], place)
    assert len(written) == 1
    monkeypatch.setattr(planner, "sha256_of", None)  # all of them are known
    assert len(plan(rows, place)) == 6
    assert len(written) == 1


def test_two_people_of_one_name_are_kept_apart(place: Home, tmp_path: Path) -> None:
    """In one table or in two, of which the first is not done."""
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


def test_fits_of_other_tables_are_waited_for(place: Home, tmp_path: Path, add: Any) -> None:
    """Those of whoever speaks: a fit replaces the package."""
    add(place.identities_dir / "anna")
    mine = Task(FIT, "anna", video="/v.mp4", digest=PERSON_DIGEST, renderer="nerf")
    foreign = Task(FIT, "berta", video="/w.mp4", digest="1" * 64, renderer="nerf")
    rows = [row_of(tmp_path, 1, identity="anna")]
    tasks = plan(rows, place, [mine, foreign])
    assert tasks[0] == mine and [task.kind for task in tasks] == [FIT, "line"]


def test_a_preset_that_is_not_used_is_told(place: Home, tmp_path: Path, add: Any) -> None:
    """Of one who is fitted otherwise; once."""
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
    tasks = plan(rows, place, tell=notes.append)
    assert tasks[0].preset == "preview"
    assert [note.partition(":")[0] for note in notes] == ["line 2", "line 5"]
    assert "preset high is not used: anna is fitted with preview" in notes[0]


def test_where_an_identity_is_looked_for(place: Home, tmp_path: Path, add: Any) -> None:
    """A name goes before a folder; a folder of the home is a name."""
    add(place.identities_dir / "anna")
    add(tmp_path / "anna")
    add(tmp_path / "berta")
    find = identity_finder(place)
    assert find("anna", tmp_path / "anna") == "anna"
    assert find("berta", tmp_path / "berta") == str(tmp_path / "berta")
    assert find("home/identities/anna", place.identities_dir / "anna") == "anna"
    with pytest.raises(PackageError, match="clara: there is none"):
        find("clara", tmp_path / "clara")


def test_the_state_of_a_package(place: Home, add: Any) -> None:
    add(place.identities_dir / "anna")
    state = package_finder(place)
    assert state(Task("line", "anna")) == state(Task("line", "anna", renderer="warp")) != ""
    assert state(Task("line", "nobody")) == ""


# ------------------------------------------------------------------- what waits for whom


@dataclass
class Workers:
    """Five at once; a job ends when somebody waits, one at a time, in the order of their starts."""

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
    """Which jobs were started, and what was running then."""
    workers = Workers(store, failing)
    Scheduler(store, workers, ProgressView(ProgressStats(0, 0, 0))).run(store.jobs())
    return workers.started_with


def tasks_of(name: str) -> list[Task]:
    """Two fits, and a line by each renderer and by the default one."""
    fits = [Task(FIT, name, digest=name, renderer=renderer) for renderer in ("gaussian", "nerf")]
    needs = {"gaussian": fits[0].id, "nerf": fits[1].id, "": ""}
    lines = [
        Task("line", name, output=f"/{name}/{renderer}.mp4", renderer=renderer, needs=needed)
        for renderer, needed in needs.items()
    ]
    return [*lines, *fits]


def test_while_somebody_is_fitted_nothing_else_is_done_with_them(store: JobStore) -> None:
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
    assert started[order[1]] == [order[0]], "two people are fitted at once"


def test_a_fit_that_fails_takes_only_its_own_lines_along(store: JobStore) -> None:
    """Those of another renderer, and of the default one, are done."""
    gaussian, nerf, default, first, second = tasks_of("anna")
    store.add([gaussian, nerf, default, first, second])
    started = run(store, failing=(first.id,))
    status = {job.id: job.status for job in store.jobs()}
    assert (status[first.id], status[gaussian.id]) == (FAILED, FAILED)
    assert {status[task.id] for task in (second, nerf, default)} == {DONE}
    assert gaussian.id not in started
    store.add([replace(gaussian, output="/anna/later.mp4")])
    assert run(store) == {}, "what needs a fit that failed earlier is not begun"


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "jobs")
