"""The job store: a job is in exactly one place after any operation and any kill."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from killing import run_with_kills

from talkhead.app.dubbing.job import (
    CANCELLED,
    DONE,
    FAILED,
    PACKAGE,
    QUEUED,
    RUNNING,
    STATUSES,
    Task,
)
from talkhead.app.dubbing.job_runner import fail_orphan
from talkhead.app.dubbing.job_store import Claim, JobStore, choose_jobs
from talkhead.app.request import declared_options
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


def n_jobs(store: JobStore, status: str) -> int:
    return len(store.jobs((status,)))


def test_a_job_is_claimed_and_completed(store: JobStore, tmp_path: Path) -> None:
    task = make_task(tmp_path)
    store.add([task])
    with store.claim(task.id) as claim:
        assert claim is not None and n_jobs(store, RUNNING) == 1
        with store.claim(task.id) as second:
            assert second is None
        store.work_path(task.id).mkdir()
        claim.complete({"n_frames": 3})
    job = store.find(task.id)
    assert job is not None and job.status == DONE and job.result == {"n_frames": 3}
    assert not store.work_path(task.id).exists() and not list((store.path / "locks").iterdir())


def test_adding_again_updates_only_changed_jobs(store: JobStore, tmp_path: Path) -> None:
    tasks = [make_task(tmp_path, number) for number in range(4)]
    store.add(tasks)
    for task in tasks[:3]:
        with store.claim(task.id) as claim:
            assert claim is not None
            claim.complete({"n_frames": 1})
        Path(task.output).write_bytes(b"video")
    store.add(tasks)
    assert n_jobs(store, DONE) == 3 and n_jobs(store, QUEUED) == 1
    Path(tasks[0].output).unlink()  # a missing output
    Path(tasks[1].audio).write_bytes(b"another sound")  # a changed input
    other = make_task(tmp_path, 3, mode="head")  # a changed row
    store.add([*tasks[:3], other])
    assert n_jobs(store, QUEUED) == 3 and n_jobs(store, DONE) == 1
    held = store.find(other.id)
    assert held is not None and held.task.mode == "head"


@pytest.mark.parametrize("option", [o.name for o in declared_options().values() if o.names_file])
def test_the_fingerprint_covers_files_of_options(
    option: str, store: JobStore, tmp_path: Path
) -> None:
    named = tmp_path / "named"
    named.write_bytes(b"one")
    task = replace(make_task(tmp_path), options={option: str(named)})
    before = task.fingerprint()
    assert task.fingerprint() == before and named in task.files
    named.write_bytes(b"another")
    assert task.fingerprint() != before


def test_a_changed_package_queues_the_job_again(store: JobStore, tmp_path: Path) -> None:
    task = make_task(tmp_path)
    store.add([task])
    with store.claim(task.id) as claim:
        assert claim is not None
        claim.complete({"n_frames": 1, PACKAGE: "as it was"})
    Path(task.output).write_bytes(b"video")
    for state, n_queued in (("as it was", 0), ("", 0), ("fitted again", 1)):
        store.add([task], lambda task, state=state: state)
        assert n_jobs(store, QUEUED) == n_queued, state


def test_two_processes_add_the_same_job(
    store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second waits: otherwise it would queue a job that a worker of the first has started."""
    task, listed = make_task(tmp_path), threading.Event()
    other = JobStore(store.path)
    list_jobs = JobStore.jobs

    def slowly(self: JobStore, *given: Any) -> Any:
        found = list_jobs(self, *given)
        if self is other:
            listed.set()
            time.sleep(0.2)
        return found

    monkeypatch.setattr(JobStore, "jobs", slowly)
    second = threading.Thread(target=other.add, args=([task],))
    second.start()
    assert listed.wait(5)
    store.add([task])
    with store.claim(task.id) as claim:
        assert claim is not None
        second.join()
        assert n_jobs(store, RUNNING) == 1 and n_jobs(store, QUEUED) == 0


@pytest.mark.parametrize("how", ["retry", "add"])
def test_queueing_again_withdraws_a_stop_request(how: str, store: JobStore, tmp_path: Path) -> None:
    """The job failed before it noticed that it was cancelled."""
    task = make_task(tmp_path)
    store.add([task])
    with store.claim(task.id) as claim:
        assert claim is not None
        store.cancel([task.id])
        claim.fail("no luck", max_tries=1)
    assert store.is_cancelling(task.id)
    if how == "retry":
        store.retry([task.id])
    else:
        store.add([replace(task, mode="head")])
    assert n_jobs(store, QUEUED) == 1 and not store.is_cancelling(task.id)


def test_the_delay_doubles_until_the_job_has_failed(store: JobStore, tmp_path: Path) -> None:
    task = make_task(tmp_path)
    store.add([task])
    waits = []
    for _ in range(3):
        with store.claim(task.id) as claim:
            assert claim is not None
            claim.fail("no luck", max_tries=3)
            waits.append(claim.job.retry_at - time.time())
    job = store.find(task.id)
    assert job is not None and (job.status, job.reason, job.tries) == (FAILED, "no luck", 3)
    assert 1.5 * waits[0] < waits[1] < waits[2]
    assert store.retry([task.id]) == [task.id]
    job = store.find(task.id)
    assert job is not None and (job.status, job.tries, job.retry_at) == (QUEUED, 0, 0.0)


def test_jobs_of_dead_processes(store: JobStore, tmp_path: Path) -> None:
    """Running jobs without a lock are queued again, or are done if the result is in the file."""
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
    dead = fail_orphan(store, alive.id, "killed", max_tries=1)
    assert dead is not None and dead.status == FAILED and dead.reason == "killed"


def test_cancelling(store: JobStore, tmp_path: Path) -> None:
    queued, running = make_task(tmp_path, 0), make_task(tmp_path, 1)
    store.add([queued, running])
    with store.claim(running.id) as claim:
        assert claim is not None
        assert store.cancel([queued.id, running.id]) == [queued.id, running.id]
        assert store.is_cancelling(running.id) and not store.is_cancelling(queued.id)
        claim.cancel()
    assert n_jobs(store, CANCELLED) == 2 and not store.is_cancelling(running.id)


def test_a_truncated_file_is_rewritten(store: JobStore, tmp_path: Path) -> None:
    task = make_task(tmp_path)
    store.add([task])
    (store.path / QUEUED / f"{task.id}.json").write_bytes(b"")
    assert store.jobs() == []
    store.add([task])
    assert store.find(task.id) is not None


DAMAGED = [
    b"",
    b"{",
    b"[" * 100_000,
    b"\xff\xfe{}",
    b"null",
    b"[1]",
    b'{"format": "1"}',
    b'{"format": true}',
    b'{"format": 1}',
    b'{"format": NaN}',
]


@pytest.mark.parametrize("content", DAMAGED)
def test_an_invalid_file_is_skipped_and_reported(
    store: JobStore, tmp_path: Path, content: bytes
) -> None:
    good, bad = make_task(tmp_path, 1), make_task(tmp_path, 2)
    store.add([good, bad])
    path = store.path / QUEUED / f"{bad.id}.json"
    path.write_bytes(content)
    assert [job.id for job in store.jobs()] == [good.id]
    assert store.find(bad.id) is None and store.damaged() == [path]
    store.add([bad])
    assert n_jobs(store, QUEUED) == 2 and not store.damaged()


@pytest.mark.parametrize(
    ("name", "value"),
    [("order", "first"), ("tries", -1), ("retry_at", 1e300), ("result", [1]), ("made_of", None),
     ("id", "another"), ("task", {"kind": 1, "identity": "x"}), ("mood", "good")],
)  # fmt: skip
def test_a_job_with_values_of_other_types_is_invalid(
    store: JobStore, tmp_path: Path, name: str, value: Any
) -> None:
    task = make_task(tmp_path)
    store.add([task])
    path = store.path / QUEUED / f"{task.id}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    assert store.jobs() == [] and store.damaged() == [path]


@pytest.mark.parametrize(
    ("version", "advice"), [(2, "Upgrade talkhead"), (0, "Remove it, and run")]
)
def test_a_job_of_another_version_is_refused(
    store: JobStore, tmp_path: Path, version: int, advice: str
) -> None:
    """It is not treated as missing and overwritten."""
    task = make_task(tmp_path)
    store.add([task])
    path = store.path / QUEUED / f"{task.id}.json"
    held = {**json.loads(path.read_text()), "format": version, "of": "another day"}
    path.write_text(json.dumps(held))
    message = rf"\.json: a job of format version {version}; this .* reads version 1\. {advice}"
    for use in (store.jobs, lambda: store.add([task]), lambda: store.find(task.id)):
        with pytest.raises(PackageError, match=message):
            use()
    assert json.loads(path.read_text()) == held


def test_choosing_jobs_by_prefix(store: JobStore, tmp_path: Path) -> None:
    tasks = [make_task(tmp_path, number) for number in range(3)]
    store.add(tasks)
    assert [job.id for job in choose_jobs(store, [tasks[1].id[:7]], ())] == [tasks[1].id]
    with pytest.raises(PackageError, match="job out: matches 3 jobs"):
        choose_jobs(store, ["out"], ())
    with pytest.raises(PackageError, match="job unknown: matches no job"):
        choose_jobs(store, ["unknown"], ())


def test_unusual_names(store: JobStore, tmp_path: Path) -> None:
    """Spaces, Unicode, quotes, a name of 200 letters: IDs are distinct file names."""
    names = ["a b.mp4", "ünï çödé.mp4", 'it\'s "it".mp4', f"{'x' * 200}.mp4", "…mp4", "A b.mp4"]
    tasks = [Task("line", "anna", output=str(tmp_path / name)) for name in names]
    store.add(tasks)
    assert [job.task for job in store.jobs()] == tasks


class StoreMachine(RuleBasedStateMachine):
    """Any order of calls, and of kills between the two writes of a move."""

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
        how=st.sampled_from(["complete", "fail", "requeue", "cancel", "die", "torn"]),
    )
    def end(self, data: st.DataObject, how: str) -> None:
        stack, claim = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        if how == "complete":
            Path(claim.job.task.output).write_bytes(b"video")
            claim.complete({"n_frames": 1})
        elif how == "fail":
            claim.fail("no luck", max_tries=2)
        elif how == "requeue":
            claim.requeue()
        elif how == "cancel":
            claim.cancel()
        elif how == "torn":  # killed between writing the result and moving the file
            self.store.write(type(claim.job)(**{**vars(claim.job), "result": {"n_frames": 1}}))
        stack.close()

    @rule()
    def recover(self) -> None:
        self.store.recover()
        running = {job.id for job in self.store.jobs((RUNNING,))}
        assert running == set(self.held), "running jobs are those whose lock is held"

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


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="finds workers in /proc")
def test_kills(tmp_path: Path) -> None:
    """Workers and coordinator are killed from outside and around their writes: each job is done once."""
    outcome = run_with_kills(tmp_path / "home", n_jobs=12, n_kills=14, seed=7, chance=0.02)
    assert outcome.n_done == 12 and outcome.n_kills >= 3, outcome


def test_a_job_file_is_plain_json(store: JobStore, tmp_path: Path) -> None:
    task = make_task(tmp_path)
    store.add([task])
    held = json.loads((store.path / QUEUED / f"{task.id}.json").read_text())
    assert held["format"] == 1 and held["task"]["audio"] == task.audio
