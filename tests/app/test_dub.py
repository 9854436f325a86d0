"""Batch dubbing: each row is rendered once, even if the run is interrupted."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import InlineWorkers
from tiny import LINE, make_tiny

from talkhead import media
from talkhead.app import dub as dub_module
from talkhead.app.cli import main as cli
from talkhead.app.dub import DubKeywords, DubOptions, DubResult, dub
from talkhead.app.dubbing import job_runner, job_store
from talkhead.app.dubbing.job import DONE, FAILED, QUEUED, Task
from talkhead.app.dubbing.job_runner import run_job
from talkhead.app.dubbing.job_store import JobStore
from talkhead.app.dubbing.local_pool import LocalPool, WorkerConfig, make_task_runner
from talkhead.app.dubbing.planner import Checksums
from talkhead.app.dubbing.task_runner import TaskRunner
from talkhead.app.fit import FitResult
from talkhead.app.home.identities import SHEET
from talkhead.app.output.publish import publish
from talkhead.errors import TalkheadError
from talkhead.identity import IdentityPackage, PackageWriter
from talkhead.progress import Progress

# ------------------------------------------------------------------------------- dubbing

Dub = Callable[..., DubResult]


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> list[InlineWorkers]:
    """Make dub run its jobs in this process. Returns the pools that it creates."""
    pools: list[InlineWorkers] = []
    monkeypatch.setattr(job_store, "INITIAL_BACKOFF_S", 0.01)

    def make_pool(todo: Any, home: Any, options: DubOptions) -> Any:
        store = JobStore(home.path / "jobs")
        pools.append(InlineWorkers(store, TaskRunner(home.path, "cpu"), options.tries))
        return pools[-1]

    monkeypatch.setattr(dub_module, "make_pool", make_pool)
    return pools


def cut_line(path: Path, start_s: float, seconds: float) -> Path:
    samples = media.read_audio(LINE)[round(start_s * 16_000) :][: round(seconds * 16_000)]
    from scipy.io import wavfile

    wavfile.write(path, 16_000, (samples * 32767).astype("<i2"))
    return path


def test_the_keywords_are_the_options() -> None:
    fields = {field.name: field.type for field in dataclasses.fields(DubOptions)}
    assert {
        name: kind.__forward_arg__ for name, kind in DubKeywords.__annotations__.items()
    } == fields
    with pytest.raises(TypeError, match="worker"):
        dub(worker=2)  # type: ignore[call-arg]


def test_the_default_task_runner(tmp_path: Path) -> None:
    config = WorkerConfig(tmp_path / "jobs", tmp_path)
    assert isinstance(make_task_runner(config.task_runner, tmp_path, "cpu"), TaskRunner)


def test_a_batch(
    fitted: FitResult,
    footage: Path,
    home: Path,
    tmp_path: Path,
    inline: list[InlineWorkers],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two rows name the identity, one names footage with the same content, one has unreadable
    audio; then dub runs again.
    """
    monkeypatch.setattr("talkhead.app.fit.fit", None)  # the identity exists
    for number in range(2):
        cut_line(tmp_path / f"line {number}.wav", number, 0.4)
    shutil.copy(footage, tmp_path / "same content.mp4")
    (tmp_path / "torn.wav").write_bytes(b"RIFF and nothing else")
    table = tmp_path / "jobs.csv"
    table.write_text(
        "identity,video,audio,output\n"
        f"{fitted.name},,line 0.wav,out/0.mp4\n"
        ",same content.mp4,line 1.wav,out/ünï 1.mp4\n"
        f"{fitted.name},,torn.wav,out/2.mp4\n"
    )
    result = dub(table, home=home, tries=2)
    assert (result.n_jobs, result.n_done, result.n_earlier) == (3, 2, 0)
    assert [(p.status, p.output) for p in result.problems] == [
        (FAILED, str(tmp_path / "out/2.mp4"))
    ]
    assert "torn.wav" in result.problems[0].reason and "1 not done" in result.summary
    assert sum(1 for _ in media.read_frames(tmp_path / "out" / "ünï 1.mp4")) == 10
    held = [json.loads(line) for line in result.results_path.read_text().splitlines()]
    assert [line["status"] for line in held] == ["done", "done", "failed"]
    assert held[0]["n_frames"] == 10 and held[1]["identity"] == fitted.name
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0.mp4", "ünï 1.mp4"]
    again = dub(table, home=home)
    assert (again.n_done, again.n_earlier, len(again.problems)) == (2, 2, 1)
    assert inline[-1].n_started == 0
    cut_line(tmp_path / "torn.wav", 2.0, 0.4)  # repaired: retried without a command
    repaired = dub(table, home=home)
    assert (repaired.n_done, repaired.problems) == (3, ()) and inline[-1].n_started == 1
    shutil.rmtree(home / "jobs")


def test_a_video_is_fitted_once(
    fitted: FitResult,
    footage: Path,
    tmp_path: Path,
    inline: list[InlineWorkers],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All rows and file names of the video share one fit, for which the rows wait."""
    make_tiny(monkeypatch)
    home, fits = tmp_path / "home", []

    def fit(video: str, **options: Any) -> FitResult:
        fits.append(options["name"])
        shutil.copytree(fitted.package_path, home / "identities" / options["name"])
        return fitted

    monkeypatch.setattr("talkhead.app.fit.fit", fit)
    cut_line(tmp_path / "a.wav", 0.0, 0.2)
    shutil.copy(footage, tmp_path / "copy.mp4")
    table = tmp_path / "jobs.jsonl"
    rows = [
        {"video": str(footage), "audio": "a.wav", "output": "1.mp4", "preset": "preview"},
        {"video": "copy.mp4", "audio": "a.wav", "output": "2.mp4"},
    ]
    table.write_text("\n".join(map(json.dumps, rows)))
    result = dub(table, home=home)
    assert (result.n_jobs, result.n_done, fits) == (3, 3, ["Anna-B"])
    assert (tmp_path / "1.mp4").exists() and (tmp_path / "2.mp4").exists()
    assert dub(table, home=home).n_earlier == 2


def test_a_failed_fit_fails_its_rows(tmp_path: Path, inline: list[InlineWorkers]) -> None:
    cut_line(tmp_path / "a.wav", 0.0, 0.2)
    shutil.copy(tmp_path / "a.wav", tmp_path / "no video.mp4")
    (tmp_path / "t.csv").write_text(
        "video,audio,output\nno video.mp4,a.wav,1.mp4\nno video.mp4,a.wav,2.mp4\n"
    )
    result = dub(tmp_path / "t.csv", home=tmp_path / "home", tries=1)
    assert len(result.problems) == 3 and result.n_done == 0
    assert all("has no picture" in problem.reason for problem in result.problems)
    with (tmp_path / "t.csv").open("a") as table:
        table.write("no video.mp4,a.wav,3.mp4\n")
    result = dub(tmp_path / "t.csv", home=tmp_path / "home", tries=1)
    assert len(result.problems) == 4 and inline[-1].n_started == 0
    assert "has no picture" in result.problems[-1].reason


def test_rows_are_refused_before_anything_starts(
    tmp_path: Path,
    add: Any,
    inline: list[InlineWorkers],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = tmp_path / "home"
    add(home / "identities" / "anna")
    (home / "work" / "berta-0123456789ab").mkdir(parents=True)
    cut_line(tmp_path / "a.wav", 0.0, 0.2)
    table = tmp_path / "t.csv"
    table.write_text("identity,audio,output\nberta,a.wav,1.mp4\nclara,a.wav,2.mp4\n")
    with pytest.raises(TalkheadError) as caught:
        dub(table, home=home)
    message = str(caught.value)
    assert "berta: is still being fitted" in message and "clara: not found" in message
    assert not inline and not list((home / "jobs" / "queued").iterdir())
    result = dub(table, home=home, skip_bad=True)
    assert (result.n_bad_rows, result.n_jobs) == (2, 0)
    assert "bad row" in result.results_path.read_text()
    assert [row.line for row in result.bad_rows] == [2, 3] and not result.is_complete
    first, second, third, *_ = result.summary.split("\n")
    assert first.startswith("0 of 2 done (0 earlier), 0 not done, 2 skipped; ")
    assert second.startswith("  skipped: row on line 2: identity berta: is still being fitted")
    assert third.startswith("  skipped: row on line 3: identity ") and "not found" in third
    many = replace(result, n_bad_rows=30, bad_rows=result.bad_rows * 15)
    assert "skipped: 10 more rows, listed in the results" in many.summary
    assert run(monkeypatch, "dub", str(table), "--home", str(home)) == 1
    assert capsys.readouterr().out == "", "nothing has started"
    assert run(monkeypatch, "dub", str(table), "--home", str(home), "--skip-bad") == 1
    assert "0 not done, 2 skipped" in capsys.readouterr().out


def test_results_overwrite_no_file_of_the_table(
    tmp_path: Path, add: Any, inline: list[InlineWorkers]
) -> None:
    home, sound, table = tmp_path / "home", tmp_path / "a.wav", tmp_path / "t.csv"
    add(home / "identities" / "anna")
    cut_line(sound, 0.0, 0.2)
    table.write_text("identity,audio,output\nanna,a.wav,1.mp4\n")
    for results in (table, sound, tmp_path / "1.mp4"):
        with pytest.raises(TalkheadError, match="would be overwritten by the results"):
            dub(table, home=home, results=results)
    assert not inline and not list((home / "jobs" / "queued").iterdir())
    table.write_text("identity,audio,output\nanna,a.wav,home/identities/anna/idle.mp4\n")
    with pytest.raises(
        TalkheadError, match=r"line 2: .*idle.mp4: is inside a folder that talkhead manages"
    ):
        dub(table, home=home)


@pytest.mark.parametrize("text", ["[1]", '{"a": 1, "b": [], "c": [1, 2, null]}', "no JSON"])
def test_damaged_checksums_are_computed_again(tmp_path: Path, text: str) -> None:
    (tmp_path / "kept.json").write_text(text)
    sums = Checksums(tmp_path / "kept.json")
    assert sums.forget([""]) == []
    assert len(sums.of(tmp_path / "kept.json")) == 64


def test_changed_rows_are_dubbed_again(
    fitted: FitResult, tmp_path: Path, inline: list[InlineWorkers]
) -> None:
    """Only rows whose package or transcript has changed are dubbed again."""
    home = tmp_path / "home"
    shutil.copytree(fitted.package_path, home / "identities" / "anna")
    cut_line(tmp_path / "a.wav", 0.0, 0.2)
    (tmp_path / "words.txt").write_text("There.")
    table = tmp_path / "t.csv"
    table.write_text(
        "identity,audio,output,subtitles,transcript,language\n"
        "anna,a.wav,1.mp4,,,\nanna,a.wav,2.mp4,srt,words.txt,de\n"
    )
    assert dub(table, home=home).n_done == 2
    assert (dub(table, home=home).n_earlier, inline[-1].n_started) == (2, 0)
    (tmp_path / "words.txt").write_text("There again.")
    assert (dub(table, home=home).n_earlier, inline[-1].n_started) == (1, 1)
    refit(home / "identities" / "anna", SHEET)  # not used for rendering
    assert dub(table, home=home).n_earlier == 2
    refit(home / "identities" / "anna", "gaussian.safetensors")
    result = dub(table, home=home)
    assert (result.n_earlier, result.n_done, inline[-1].n_started) == (0, 2, 2)


def test_messages_about_a_row_are_in_the_results(
    fitted: FitResult, home: Path, tmp_path: Path, inline: list[InlineWorkers]
) -> None:
    cut_line(tmp_path / "a.wav", 0.0, 0.2)
    row = {"identity": fitted.name, "audio": "a.wav", "output": "1.mp4", "mode": "head", "yaw": 40}
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    result = dub(tmp_path / "t.jsonl", home=home)
    (message,) = json.loads(result.results_path.read_text())["notes"]
    assert result.n_done == 1 and "the footage shows yaw" in message


def refit(path: Path, changed: str) -> None:
    """Replace a package by one that differs in one file, as a new fit does."""
    old = IdentityPackage.load(path)
    with PackageWriter(path) as writer:
        for name in old.manifest.files:
            writer.add_file(name, old.file(name))
        if changed.endswith(".png"):
            writer.path(changed).write_bytes(b"another sheet")
        else:
            tensors = old.tensors(changed)
            floats = {name: 0.9 * t for name, t in tensors.items() if t.is_floating_point()}
            writer.add_tensors(changed, {**tensors, **floats})
        writer.finish(replace(old.manifest, created=""))


def test_cancelled_jobs_come_with_a_hint(tmp_path: Path, inline: list[InlineWorkers]) -> None:
    (tmp_path / "a.wav").write_bytes(b"sound")
    task = Task("line", "anna", audio=str(tmp_path / "a.wav"), output=str(tmp_path / "1.mp4"))
    store = JobStore(tmp_path / "jobs")
    store.add([task])
    store.cancel([task.id])
    stats = dub_module.ProgressStats(1, 0, 0)
    summary = dub_module.report(store.jobs(), stats, None, tmp_path / "r.jsonl").summary
    assert "talkhead jobs retry ID" in summary and "failed jobs" not in summary


def test_workers_fit_into_the_available_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's caches count as available."""
    meminfo = tmp_path / "meminfo"
    monkeypatch.setattr(dub_module, "MEMORY", meminfo)
    monkeypatch.setattr(dub_module, "n_cores", lambda: 8)
    meminfo.write_text("MemFree:  100 kB\nMemAvailable:    3800000 kB\n")
    assert dub_module._cpu_workers() == 3
    meminfo.write_text("MemAvailable: 12 kB\n")
    assert dub_module._cpu_workers() == 1
    meminfo.unlink()
    assert dub_module._cpu_workers() == 8


# ------------------------------------------------------------------------------- one job


class FakeTaskRunner:
    """Writes two files, or raises an error."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error, self.calls = error, 0

    def __call__(
        self, task: Task, work: Path, products: Path, progress: Progress
    ) -> Mapping[str, Any]:
        self.calls += 1
        if self.error is not None:
            raise self.error
        (products / Path(task.output).name).write_text("video")
        (products / Path(task.output).with_suffix(".srt").name).write_text("words")
        return {"n_frames": 1}


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    store = JobStore(tmp_path / "jobs")
    (tmp_path / "a.wav").write_bytes(b"sound")
    task = Task("line", "anna", audio=str(tmp_path / "a.wav"), output=str(tmp_path / "out/1.mp4"))
    store.add([task])
    return store


def test_killed_between_finishing_and_recording(
    store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task is not executed again: the remaining files are moved and the job is marked as done."""
    job_id, runner = store.jobs()[0].id, FakeTaskRunner()

    class Killed(BaseException):
        pass

    moved = []

    def move(source: Path, target: Path) -> None:
        if moved:
            raise Killed
        moved.append(target.name)
        publish(source, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(job_runner, "publish", move)
        run_job(store, job_id, runner, 3, lambda event: None)
    assert moved == ["1.srt"], "the output itself comes last"
    state = (tmp_path / "out" / "1.srt").stat()
    assert store.recover() == [job_id]
    event = run_job(store, job_id, runner, 3, lambda event: None)
    assert (event.status, runner.calls) == (DONE, 1)
    assert (tmp_path / "out" / "1.srt").stat() == state
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["1.mp4", "1.srt"]


def test_a_full_disk_stops_the_run_without_failures(store: JobStore, tmp_path: Path) -> None:
    job_id = store.jobs()[0].id
    full = TalkheadError("1.mp4: the disk is full. Free some space and run the same command again")
    full.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    view = dub_module.make_progress_view("silent", dub_module.ProgressStats(1, 0, 1))
    with pytest.raises(TalkheadError, match=r"disk is full.*run the same command again$"):
        dub_module.Scheduler(store, InlineWorkers(store, FakeTaskRunner(full)), view).run(
            store.jobs()
        )
    job = store.find(job_id)
    assert job is not None and (job.status, job.tries) == (QUEUED, 0)


def test_an_unexpected_error_fails_one_job(store: JobStore) -> None:
    event = run_job(store, store.jobs()[0].id, FakeTaskRunner(KeyError("x")), 1, lambda event: None)
    assert (event.status, event.reason) == (FAILED, "KeyError: 'x'")


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("is_other_disk", [False, True])
def test_publishing(
    kind: str, is_other_disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "new", tmp_path / "out" / "it"
    for path, text in ((source, "new"), (target, "old")):
        path.parent.mkdir(exist_ok=True)
        if kind == "folder":
            path.mkdir()
            (path / f"{text}.png").write_text(text)
        else:
            path.write_text(text)
    if is_other_disk:
        rename = Path.replace

        def refuse(self: Path, other: Path) -> Path:
            if self.parent != other.parent:
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            return rename(self, other)

        monkeypatch.setattr(Path, "replace", refuse)
    publish(source, target)
    publish(source, target)  # already moved: no error
    assert [p.name for p in target.parent.iterdir()] == ["it"] and not source.exists()
    held = (target / "new.png" if kind == "folder" else target).read_text()
    assert held == "new"


# ------------------------------------------------------------------------------- workers


def test_spawned_workers(tmp_path: Path) -> None:
    """Two workers run at a time. One is killed while it runs a job, which is still completed."""
    store = JobStore(tmp_path / "jobs")
    tasks = []
    for number in range(3):
        audio = tmp_path / f"{number}.wav"
        audio.write_bytes(b"%d" % number)
        tasks.append(Task("line", "anna", audio=str(audio), output=str(tmp_path / f"{number}.mp4")))
    store.add(tasks)
    workers = LocalPool(
        WorkerConfig(store.path, tmp_path, 3, "fakes:SlowTaskRunner"), ["cpu", "cpu"]
    )
    killed: list[int] = []

    class Killing(dub_module.LocalPool):
        def wait(self, timeout_s: float) -> list[job_runner.Event]:
            events = super().wait(timeout_s)
            started = {event.job_id for event in events if isinstance(event, job_runner.JobStarted)}
            for worker in self._workers:
                if not killed and worker.job_id in started:
                    killed.append(worker.process.pid or 0)
                    worker.process.kill()
            return events

    workers = Killing(workers.config, workers.devices)
    view = dub_module.make_progress_view("silent", dub_module.ProgressStats(3, 0, 3))
    dub_module.Scheduler(store, workers, view).run(store.jobs())
    assert killed and [job.status for job in store.jobs()] == [DONE] * 3
    assert sum(job.tries for job in store.jobs()) <= 1  # none if the job was done just before
    assert [Path(task.output).read_bytes() for task in tasks] == [
        b"audio: 0",
        b"audio: 1",
        b"audio: 2",
    ]
    assert len({job.result["process"] for job in store.jobs()}) >= 2


def test_workers_that_cannot_start(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = JobStore(tmp_path / "jobs")
    (tmp_path / "a.wav").write_bytes(b"sound")
    store.add([Task("line", "anna", audio=str(tmp_path / "a.wav"), output=str(tmp_path / "1.mp4"))])
    workers = LocalPool(WorkerConfig(store.path, tmp_path, 9, "fakes:MissingName"), ["cpu"])
    view = dub_module.make_progress_view("silent", dub_module.ProgressStats(1, 0, 1))
    with pytest.raises(TalkheadError, match="3 workers died on startup"):
        dub_module.Scheduler(store, workers, view).run(store.jobs())
    assert store.jobs()[0].status == QUEUED


def test_cancelling_a_running_job(store: JobStore) -> None:
    job_id = store.jobs()[0].id

    def run_task(task: Task, work: Path, products: Path, progress: Progress) -> Mapping[str, Any]:
        store.cancel([job_id])
        with progress.step("Rendering", total=9) as step:
            time.sleep(0.6)
            step.advance()
        raise AssertionError("not stopped")

    assert run_job(store, job_id, run_task, 3, lambda event: None).status == "cancelled"
    assert not store.work_path(job_id).exists()


# ------------------------------------------------------------------------------ commands


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["talkhead", *words])
    monkeypatch.setattr("signal.signal", lambda signum, handler: None)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_the_jobs_commands(
    store: JobStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id, home = store.jobs()[0].id, str(store.path.parent)
    run_job(store, job_id, FakeTaskRunner(TalkheadError("no luck")), 1, lambda event: None)
    assert run(monkeypatch, "jobs", "list", "--home", home) == 0
    out, err = capsys.readouterr()
    assert "failed" in out and "no luck" in out and "1 failed" in err
    assert run(monkeypatch, "jobs", "retry", "--home", home) == 0
    assert f"queued {job_id}" in capsys.readouterr().out
    assert run(monkeypatch, "jobs", "show", job_id[:4], "--home", home, "--json") == 0
    assert json.loads(capsys.readouterr().out)["status"] == "queued"
    assert run(monkeypatch, "jobs", "cancel", job_id, "--home", home) == 0
    assert run(monkeypatch, "jobs", "list", "--status", "cancelled", "--home", home, "--json") == 0
    assert json.loads(capsys.readouterr().out.partition("\n")[2])[0]["id"] == job_id
    assert run(monkeypatch, "jobs", "list", "--status", "late", "--home", home) == 2
    assert run(monkeypatch, "jobs", "show", "unknown", "--home", home) == 1
    assert run(monkeypatch, "dub", "t.csv", "--workers", "none", "--home", home) == 2


def test_an_empty_store(tmp_path: Path, inline: list[InlineWorkers]) -> None:
    """Without a table, dub runs the queued jobs; here there are none."""
    result = dub(home=tmp_path / "home")
    assert (result.n_jobs, result.n_done) == (0, 0)


def test_a_file_does_not_replace_a_folder(tmp_path: Path) -> None:
    made, folder = tmp_path / "made.mp4", tmp_path / "line.mp4"
    made.write_bytes(b"video")
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"dear")
    with pytest.raises(TalkheadError, match="this is a folder"):
        publish(made, folder)
    assert (folder / "holiday.jpg").read_bytes() == b"dear" and made.exists()
