"""The job store: a job is in one place, whatever is done to it and whoever is killed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from killing import run_with_kills

from talkhead.app.jobs import (
    CANCELLED,
    DONE,
    FAILED,
    QUEUED,
    RUNNING,
    STATUSES,
    Claim,
    JobStore,
    Task,
    choose_jobs,
    release_dead,
)
from talkhead.errors import PackageError
from talkhead.locks import FileLock, is_locked


def make_task(folder: Path, number: int = 0, **changes: str) -> Task:
    audio = folder / f"{number}.wav"
    if not audio.exists():
        audio.write_bytes(b"sound")
    return Task(
        "line", "anna", audio=str(audio), output=str(folder / f"out {number}.mp4"), **changes
    )


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    store = JobStore(tmp_path / "jobs")
    store.prepare()
    return store


def test_a_job_goes_from_the_queue_to_done(store: JobStore, tmp_path: Path) -> None:
    task = make_task(tmp_path)
    assert store.add([task]).new == 1
    with store.claim(task.id) as claim:
        assert claim is not None and store.counts()[RUNNING] == 1
        with store.claim(task.id) as second:
            assert second is None
        store.work_path(task.id).mkdir()
        claim.complete({"n_frames": 3})
    job = store.find(task.id)
    assert job is not None and job.status == DONE and job.result == {"n_frames": 3}
    assert not store.work_path(task.id).exists() and not list((store.path / "locks").iterdir())


def test_adding_again_changes_only_what_changed(store: JobStore, tmp_path: Path) -> None:
    tasks = [make_task(tmp_path, number) for number in range(4)]
    store.add(tasks)
    for task in tasks[:3]:
        with store.claim(task.id) as claim:
            assert claim is not None
            claim.complete({"n_frames": 1})
        Path(task.output).write_bytes(b"video")
    added = store.add(tasks)
    assert (added.new, added.changed, added.kept) == (0, 0, 4)
    Path(tasks[0].output).unlink()  # the output is gone: dub it again
    Path(tasks[1].audio).write_bytes(b"another sound")  # the audio was replaced
    other = make_task(tmp_path, 3, mode="head")  # the row was edited
    added = store.add([*tasks[:3], other])
    assert (added.new, added.changed, added.kept) == (0, 3, 1)
    assert store.counts()[QUEUED] == 3 and store.counts()[DONE] == 1
    held = store.find(other.id)
    assert held is not None and held.task.mode == "head"


def test_a_failed_job_waits_longer_each_time_and_is_set_aside(
    store: JobStore, tmp_path: Path
) -> None:
    task = make_task(tmp_path)
    store.add([task])
    waits = []
    for _ in range(3):
        with store.claim(task.id) as claim:
            assert claim is not None
            claim.fail("no luck", most_tries=3)
            waits.append(claim.job.retry_at - time.time())
    job = store.find(task.id)
    assert job is not None and (job.status, job.reason, job.tries) == (FAILED, "no luck", 3)
    assert 1.5 * waits[0] < waits[1] < waits[2]
    assert store.retry([task.id]) == [task.id]
    job = store.find(task.id)
    assert job is not None and (job.status, job.tries, job.retry_at) == (QUEUED, 0, 0.0)


def test_what_dead_processes_leave(store: JobStore, tmp_path: Path) -> None:
    """Running without a lock: queued again, or done when the file says so already."""
    first, second, alive = (make_task(tmp_path, number) for number in range(3))
    store.add([first, second, alive])
    for task in (first, second, alive):
        assert store.rename(task.id, QUEUED, RUNNING)
    job = store.find(second.id)
    assert job is not None
    store.write(type(job)(**{**vars(job), "result": {"n_frames": 1}}))
    lock = FileLock.take(store.path / "locks" / alive.id)
    assert lock is not None and is_locked(store.path / "locks" / alive.id)
    assert sorted(store.recover()) == sorted([first.id, second.id])
    lock.release()
    found = {job.id: job.status for job in store.jobs()}
    assert found == {first.id: QUEUED, second.id: DONE, alive.id: RUNNING}
    dead = release_dead(store, alive.id, "killed", most_tries=1)
    assert dead is not None and dead.status == FAILED and dead.reason == "killed"


def test_cancelling(store: JobStore, tmp_path: Path) -> None:
    queued, running = make_task(tmp_path, 0), make_task(tmp_path, 1)
    store.add([queued, running])
    with store.claim(running.id) as claim:
        assert claim is not None
        assert store.cancel([queued.id, running.id]) == [queued.id, running.id]
        assert store.is_cancelling(running.id) and not store.is_cancelling(queued.id)
        claim.cancel()
    assert store.counts()[CANCELLED] == 2 and not store.is_cancelling(running.id)


def test_a_torn_file_is_written_anew(store: JobStore, tmp_path: Path) -> None:
    task = make_task(tmp_path)
    store.add([task])
    (store.path / QUEUED / f"{task.id}.json").write_bytes(b"")
    assert store.jobs() == []
    assert store.add([task]).new == 1 and store.find(task.id) is not None


def test_choosing_by_the_beginning_of_an_id(store: JobStore, tmp_path: Path) -> None:
    tasks = [make_task(tmp_path, number) for number in range(3)]
    store.add(tasks)
    assert [job.id for job in choose_jobs(store, [tasks[1].id[:7]], ())] == [tasks[1].id]
    with pytest.raises(PackageError, match="there are 3 whose ids begin so"):
        choose_jobs(store, ["out"], ())
    with pytest.raises(PackageError, match="there is none"):
        choose_jobs(store, ["nobody"], ())


def test_unusual_names(store: JobStore, tmp_path: Path) -> None:
    """Spaces, unicode, quotes, a name of 200 letters: ids are file names, and differ."""
    names = ["a b.mp4", "ünï çödé.mp4", 'it\'s "it".mp4', f"{'x' * 200}.mp4", "…mp4", "A b.mp4"]
    tasks = [Task("line", "anna", output=str(tmp_path / name)) for name in names]
    assert store.add(tasks).new == len(names)
    assert [job.task for job in store.jobs()] == tasks


class StoreMachine(RuleBasedStateMachine):
    """Any order of calls and of deaths between the two writes of a move."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = JobStore(self.folder / "jobs")
        self.tasks = [make_task(self.folder, number) for number in range(3)]
        self.store.add(self.tasks)
        self.held: dict[str, tuple[ExitStack, Claim]] = {}

    def teardown(self) -> None:
        for stack, _ in self.held.values():
            stack.close()
        shutil.rmtree(self.folder)

    number = st.integers(0, 2)

    @rule(number=number)
    def claim(self, number: int) -> None:
        task, stack = self.tasks[number], ExitStack()
        claim = stack.enter_context(self.store.claim(task.id))
        if claim is None:
            stack.close()
        else:
            assert task.id not in self.held, "a job was claimed twice"
            self.held[task.id] = (stack, claim)

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(),
        how=st.sampled_from(["complete", "fail", "put back", "cancel", "die", "torn"]),
    )
    def end(self, data: st.DataObject, how: str) -> None:
        stack, claim = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        if how == "complete":
            Path(claim.job.task.output).write_bytes(b"video")
            claim.complete({"n_frames": 1})
        elif how == "fail":
            claim.fail("no luck", most_tries=2)
        elif how == "put back":
            claim.put_back()
        elif how == "cancel":
            claim.cancel()
        elif how == "torn":  # dies between writing that it is done and moving
            self.store.write(type(claim.job)(**{**vars(claim.job), "result": {"n_frames": 1}}))
        stack.close()

    @rule()
    def recover(self) -> None:
        self.store.recover()
        running = {job.id for job in self.store.jobs((RUNNING,))}
        assert running == set(self.held), "what runs is what somebody holds"

    @rule()
    def add(self) -> None:
        self.store.add(self.tasks)

    @rule(number=number)
    def retry(self, number: int) -> None:
        self.store.retry([self.tasks[number].id])

    @invariant()
    def each_job_is_in_one_place(self) -> None:
        places = [p.stem for name in STATUSES for p in (self.store.path / name).iterdir()]
        assert sorted(places) == sorted(task.id for task in self.tasks)
        assert {path.suffix for path in (self.store.path / "temporary").iterdir()} == set()


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="finds workers by /proc")
def test_kills(tmp_path: Path) -> None:
    """Workers and coordinator killed from outside and around their writes: all is done, once."""
    outcome = run_with_kills(tmp_path / "home", n_jobs=12, n_kills=14, seed=7, chance=0.02)
    assert outcome.n_done == 12 and outcome.n_kills >= 3, outcome


def test_a_job_file_is_plain_json(store: JobStore, tmp_path: Path) -> None:
    task = make_task(tmp_path)
    store.add([task])
    held = json.loads((store.path / QUEUED / f"{task.id}.json").read_text())
    assert held["format"] == 1 and held["task"]["audio"] == task.audio
