"""Publishing finished files: none is lost or outdated, even after a kill."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from talkhead.app.dubbing import job_store
from talkhead.app.dubbing.job import DONE, FAILED, QUEUED, Task
from talkhead.app.dubbing.job_runner import FINISHED, MARKER, run_job
from talkhead.app.dubbing.job_store import Claim, JobStore
from talkhead.app.output.publish import publish
from talkhead.errors import FootageError, InputError, TalkheadError
from talkhead.progress import Progress


class CountingTaskRunner:
    """Writes the output and counts the calls."""

    calls = 0

    def __call__(
        self, task: Task, work: Path, products: Path, progress: Progress
    ) -> Mapping[str, Any]:
        self.calls += 1
        (products / Path(task.output).name).write_text("video")
        return {"n_frames": 1}


def one_job(folder: Path, name: str) -> JobStore:
    store = JobStore(folder / "jobs")
    store.add([Task("line", "anna", output=str(folder / name))])
    return store


@pytest.mark.parametrize(
    ("error", "n_tries"),
    [
        (TalkheadError("the voice server does not answer"), 3),
        (FootageError("no face was found"), 1),
        (InputError("2 of 9 lines do not fit"), 1),
    ],
)
def test_input_that_is_refused_is_not_tried_again(
    tmp_path: Path, error: TalkheadError, n_tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, n_calls = one_job(tmp_path, "1.mp4"), 0
    monkeypatch.setattr(job_store, "INITIAL_BACKOFF_S", 0.0)

    def fail(task: Task, work: Path, products: Path, progress: Progress) -> Mapping[str, Any]:
        nonlocal n_calls
        n_calls += 1
        raise error

    (job,) = store.jobs()
    while job.status == QUEUED and n_calls < 9:
        event = run_job(store, job.id, fail, 3, lambda event: None)
        (job,) = store.jobs()
    assert (job.status, event.reason, n_calls) == (FAILED, str(error), n_tries)


def test_leftovers_of_a_killed_move_are_removed(tmp_path: Path) -> None:
    (tmp_path / "it").mkdir()
    (tmp_path / ".it.old").mkdir()
    publish(tmp_path / "new", tmp_path / "it")
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(TalkheadError, match=r"it: was finished but is missing"):
        publish(tmp_path / "new", tmp_path / "it")


def test_a_folder_that_cannot_be_moved_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "new", tmp_path / "it"
    for folder in (source, target):
        folder.mkdir()
    (target / "old.png").touch()

    def refuse(self: Path, other: Path) -> Path:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(TalkheadError, match="no permission"):
        publish(source, target)
    assert (target / "old.png").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it", "new"]


def test_a_missing_output_is_produced_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is killed before it records the job as done, then the output is removed."""
    store, runner = one_job(tmp_path, "1.mp4"), CountingTaskRunner()
    job_id = store.jobs()[0].id

    class Killed(BaseException):
        pass

    def die(claim: Claim, result: Mapping[str, Any]) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Claim, "complete", die)
        run_job(store, job_id, runner, 3, lambda event: None)
    (tmp_path / "1.mp4").unlink()
    store.recover()
    assert run_job(store, job_id, runner, 3, lambda event: None).status == DONE
    assert runner.calls == 2 and (tmp_path / "1.mp4").exists()


@pytest.mark.parametrize(
    "marker",
    ["", "[" * 100_000, "[]", '{"files": [1], "result": {}}', '{"files": ["../out.mp4"], "result": {}}',
     '{"files": ["/etc/passwd"], "result": {}}', '{"files": [".."], "result": {}}'],
)  # fmt: skip
def test_a_damaged_marker_is_ignored(tmp_path: Path, marker: str) -> None:
    """No file named in it is moved; the task is executed again."""
    store, runner = one_job(tmp_path, "out.mp4"), CountingTaskRunner()
    (job,) = store.jobs()
    work = store.work_path(job.id)
    (work / FINISHED).mkdir(parents=True)
    (work / MARKER).write_text(marker)
    event = run_job(store, job.id, runner, 3, lambda event: None)
    assert event.status == DONE and runner.calls == 1
    assert (tmp_path / "out.mp4").read_text() == "video"


@pytest.mark.parametrize(("name", "stays"), [("1.webm", False), ("1.mp4", True)])
def test_the_manifest_of_an_earlier_output_is_removed(
    tmp_path: Path, name: str, stays: bool
) -> None:
    """Videos that cannot embed manifests have them in a file next to them; one next to an .mp4
    belongs to another file."""
    (tmp_path / "1.c2pa").write_text("of before")
    store = one_job(tmp_path, name)
    assert (
        run_job(store, store.jobs()[0].id, CountingTaskRunner(), 3, lambda event: None).status
        == DONE
    )
    assert (tmp_path / "1.c2pa").exists() == stays
