"""Jobs that dub whole videos: planning, storage, execution and publication."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from talkhead.app.dub import report
from talkhead.app.dubbing.dub_report import DubReport, LineReport
from talkhead.app.dubbing.events import JobFinished
from talkhead.app.dubbing.job import DONE, FAILED, FIT, PACKAGE, Job, Task
from talkhead.app.dubbing.job_runner import run_job
from talkhead.app.dubbing.job_store import JobStore
from talkhead.app.dubbing.line_planner import PlacementLimits
from talkhead.app.dubbing.planner import package_finder, plan
from talkhead.app.dubbing.progress_view import NOTES, ProgressStats, ProgressView
from talkhead.app.dubbing.scheduler import Scheduler
from talkhead.app.dubbing.table import Row
from talkhead.app.dubbing.task_runner import TaskRunner
from talkhead.app.dubbing.timed_lines import read_lines
from talkhead.app.dubbing.video_dub import LineSettings, VideoDub, report_path
from talkhead.app.home.identities import Home
from talkhead.app.home.removal import remove_identity
from talkhead.app.request import OutputOptions, srt_path
from talkhead.config import from_json
from talkhead.errors import TalkheadError
from talkhead.progress import Progress

LINES = [
    {"start": 0, "end": 1, "speaker": "Anna", "audio": "a.wav"},
    {"start": 1, "end": 2, "speaker": "Ben", "text": "Hello"},
]


@pytest.fixture
def home(tmp_path: Path, add: Any) -> Home:
    """A home folder with two people."""
    made = Home(tmp_path / "home")
    for name in ("anna", "ben"):
        add(made.identities_dir / name)
    JobStore(made.path / "jobs").prepare()
    return made


@pytest.fixture
def settings(tmp_path: Path) -> LineSettings:
    (tmp_path / "en.json").write_text(json.dumps(LINES, indent=1))
    for name in ("a.wav", "music.wav", "movie.mp4"):
        (tmp_path / name).write_bytes(b"content")
    return LineSettings(
        str(tmp_path / "en.json"),
        {"Anna": "anna", "Ben": "ben"},
        str(tmp_path / "music.wav"),
        PlacementLimits(max_speed=1.3, overlaps=True),
    )


def row_of(settings: LineSettings, **cells: Any) -> Row:
    folder = Path(settings.lines).parent
    options = {"timeline": "source", "subtitles": "srt"}
    return Row(1, None, folder / "out.mp4", video=folder / "movie.mp4", options=options,
               dub=settings, **cells)  # fmt: skip


def task_of(settings: LineSettings, home: Home) -> Task:
    (task,) = plan([row_of(settings)], home)
    return task


# --------------------------------------------------------------------------- planning


def test_a_video_with_several_speakers_needs_no_fit(settings: LineSettings, home: Home) -> None:
    task = task_of(settings, home)
    assert (task.kind, task.identity, task.identities) == ("dub", "anna", ("anna", "ben"))
    assert (task.audio, Path(task.video).name, task.needs) == ("", "movie.mp4", "")
    assert task.dub == settings and task.options["timeline"] == "source"


def test_a_video_without_people_is_fitted(settings: LineSettings, home: Home) -> None:
    fit, task = plan([row_of(replace(settings, speakers={}))], home)
    assert (fit.kind, fit.identity, fit.video) == (FIT, "movie", task.video)
    assert (task.identity, task.identities, task.needs) == ("movie", ("movie",), fit.id)


def test_every_speaker_waits_for_fits_of_other_tables(settings: LineSettings, home: Home) -> None:
    other = Task(FIT, "ben", video="/v.mp4", digest="1" * 64, renderer="nerf")
    assert plan([row_of(settings)], home, [other])[0] == other


def test_one_output_has_one_job(settings: LineSettings, home: Home) -> None:
    task = task_of(settings, home)
    assert Task("line", "anna", audio="/a.wav", output=task.output).id == task.id


def test_the_package_is_that_of_all_speakers(settings: LineSettings, home: Home) -> None:
    find, task = package_finder(home), task_of(settings, home)
    single = [find(Task("line", name)) for name in ("anna", "ben")]
    assert find(task) == "-".join(single) and all(single)
    assert find(task.with_identities({"ben": "carl"})) == ""


# ---------------------------------------------------------------------------- storage


def test_a_task_is_stored_completely(settings: LineSettings, home: Home) -> None:
    store, task = JobStore(home.path / "jobs"), task_of(settings, home)
    store.add([task])
    (job,) = store.jobs()
    assert job.task == task and job.made_of == task.fingerprint()


def test_jobs_of_earlier_versions_remain_valid(tmp_path: Path) -> None:
    """A task without lines is read, and its fingerprint is what it was before there were any."""
    values = {"kind": "line", "identity": "anna", "audio": "/nowhere/a.wav",
              "output": "/nowhere/1.mp4", "options": {"height": 360}}  # fmt: skip
    task = from_json(Task, values)
    assert task.dub is None
    assert (task.id, task.fingerprint()) == ("1-19a898be23", "6e75232e90c77681")


@pytest.mark.parametrize("name", ["movie.mp4", "en.json", "music.wav", "a.wav"])
def test_a_changed_file_changes_the_fingerprint(
    settings: LineSettings, home: Home, name: str
) -> None:
    task = task_of(settings, home)
    before, path = task.fingerprint(), Path(settings.lines).parent / name
    assert task.fingerprint() == before
    os.utime(path, ns=(1, 1))
    assert task.fingerprint() != before


def test_changed_settings_change_the_fingerprint(settings: LineSettings, home: Home) -> None:
    task = task_of(settings, home)
    changed = [
        replace(settings, speakers={"Anna": "ben", "Ben": "anna"}),
        replace(settings, bed="none"),
        replace(settings, limits=PlacementLimits()),
    ]
    found = {replace(task, dub=one).fingerprint() for one in (settings, *changed)}
    assert len(found) == 4


def test_a_removed_speaker_removes_the_job(settings: LineSettings, home: Home) -> None:
    store, task = JobStore(home.path / "jobs"), task_of(settings, home)
    store.add([task])
    assert remove_identity(home, "ben").jobs == (task.id,)
    assert store.find(task.id) is None


@pytest.mark.parametrize("name", ["lost.json", "damaged.json", "number.json", "a.srt"])
def test_lines_that_cannot_be_read_name_no_files(tmp_path: Path, name: str) -> None:
    (tmp_path / "damaged.json").write_text('[{"audio": "a.wav"}, ')
    (tmp_path / "number.json").write_text("3")
    (tmp_path / "a.srt").write_text('[{"audio": "a.wav"}]')
    lines = tmp_path / name
    assert LineSettings(str(lines)).files == [lines]


def test_settings_on_another_machine(settings: LineSettings, tmp_path: Path) -> None:
    """Lines name the copies relative to their own folder, on the same lines of the file."""
    node = tmp_path / "node"
    files = {}
    for number, path in enumerate(settings.files):
        copy = node / str(number) / path.name
        copy.parent.mkdir(parents=True)
        copy.write_bytes(path.read_bytes())
        files[str(path)] = str(copy)
        path.unlink()
    moved = settings.moved(files, node)
    assert moved.bed == files[settings.bed] and moved.speakers == settings.speakers
    first, second = read_lines(Path(moved.lines), 2.0, ["Anna", "Ben"]).lines
    assert first.audio == Path(files[str(tmp_path / "a.wav")]) and second.text == "Hello"
    assert (first.source, second.source) == (2, 8)
    assert str(tmp_path) not in Path(moved.lines).read_text()


def test_settings_that_are_read_in_place(settings: LineSettings, tmp_path: Path) -> None:
    assert settings.moved({str(path): str(path) for path in settings.files}, tmp_path / "node") == (
        settings
    )


# -------------------------------------------------------------------------- execution


def fake_report() -> DubReport:
    """A report with three lines."""
    lines = tuple(
        LineReport(number, "", float(number), number + 0.5, 1.0, status, 1.0, 0.0, 0.0, None)
        for number, status in enumerate(("fits", "moved", "fits"), 1)
    )
    return DubReport(50, 2.0, 1, 30, -23.0, lines, (), ())


@dataclass
class FakeDub:
    """Writes a video with subtitles, and records what it was given."""

    calls: list[VideoDub] = field(default_factory=list)
    loaded: list[Any] = field(default_factory=list)
    error: Exception | None = None

    def __call__(
        self,
        dub: VideoDub,
        avatars: Callable[[str], Any],
        work: Path,
        home: Path,
        progress: Progress,
    ) -> DubReport:
        self.calls.append(dub)
        self.loaded += [avatars(identity) for identity in dub.speakers.values()]
        if self.error is not None:
            raise self.error
        work.mkdir(parents=True)
        progress.message("line 3: its speaker is not seen")
        dub.output.write_text("video")
        srt_path(dub.output).write_text("subtitles")
        return fake_report()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeDub:
    made = FakeDub()
    monkeypatch.setattr("talkhead.app.dubbing.dub_video.dub_video", made)
    monkeypatch.setattr("talkhead.device.set_threads", lambda: None)
    monkeypatch.setattr(
        TaskRunner, "_avatar", lambda self, identity, renderer: (identity, renderer)
    )
    return made


def run(home: Home, task: Task) -> JobFinished:
    store = JobStore(home.path / "jobs")
    store.add([task], package_finder(home))
    return run_job(store, task.id, TaskRunner(home.path, "cpu"), 1, lambda event: None)


def test_a_dubbed_video_is_published(settings: LineSettings, home: Home, fake: FakeDub) -> None:
    task = replace(task_of(settings, home), renderer="warp")
    event = run(home, task)
    assert (event.status, event.reason) == (DONE, "")
    (dub,) = fake.calls
    assert dub.output.name == "out.mp4" and dub.output != Path(task.output)
    assert replace(dub, output=Path(task.output)) == VideoDub(
        Path(task.video),
        Path(settings.lines),
        Path(task.output),
        settings.speakers,
        settings.bed,
        settings.limits,
        OutputOptions(timeline="source", subtitles="srt"),
    )
    assert fake.loaded == [("anna", "warp"), ("ben", "warp")]
    output = Path(task.output)
    assert output.read_text() == "video" and srt_path(output).read_text() == "subtitles"
    content = json.loads(report_path(output).read_text())
    assert content["n_frames"] == 50 and len(content["lines"]) == 3
    assert srt_path(output).stat().st_mtime_ns == output.stat().st_mtime_ns
    result = dict(event.result)
    assert result.pop("seconds") >= 0.0
    assert result == {
        "identity": "anna, ben",
        PACKAGE: package_finder(home)(task),
        "n_frames": 50,
        "duration_s": 2.0,
        "lines": {"fits": 2, "moved": 1},
        "report": str(report_path(output)),
        NOTES: ["line 3: its speaker is not seen"],
    }
    store = JobStore(home.path / "jobs")
    store.add([task], package_finder(home))
    assert [job.status for job in store.jobs()] == [DONE], "it is not done again"
    assert report(store.jobs(), ProgressStats(1, 0, 1), None, output.parent / "r.jsonl").n_done == 1
    record = json.loads((output.parent / "r.jsonl").read_text())
    assert (record["kind"], record["lines"]) == ("dub", {"fits": 2, "moved": 1})
    assert record["report"] == str(report_path(output))


def test_one_speaker_without_a_name(settings: LineSettings, home: Home, fake: FakeDub) -> None:
    (task,) = plan([row_of(replace(settings, speakers={}), identity="ben")], home)
    assert run(home, task).result["identity"] == "ben"
    assert fake.calls[0].speakers == {"": "ben"} and fake.loaded == [("ben", None)]


def test_nothing_is_published_after_an_error(
    settings: LineSettings, home: Home, fake: FakeDub
) -> None:
    fake.error = TalkheadError("1 of 2 lines do not fit. line 8: lasts 3.00 s")
    task = task_of(settings, home)
    event = run(home, task)
    assert (event.status, event.reason) == (FAILED, str(fake.error))
    names = ["a.wav", "en.json", "home", "movie.mp4", "music.wav"]
    assert sorted(path.name for path in Path(task.output).parent.iterdir()) == names


def test_subtitles_of_others_are_not_replaced(
    settings: LineSettings, home: Home, fake: FakeDub
) -> None:
    task = task_of(settings, home)
    srt_path(Path(task.output)).write_text("mine")
    event = run(home, task)
    assert event.status == FAILED and "was not made with this output" in event.reason
    assert not fake.calls and srt_path(Path(task.output)).read_text() == "mine"


# ---------------------------------------------------------------------- order of jobs


class Recording:
    """A pool for one job at a time, which succeeds."""

    size = 1

    def __init__(self, store: JobStore) -> None:
        self.store, self.started = store, list[str]()
        self.job: Job | None = None

    def room(self) -> int:
        return int(self.job is None)

    def start(self, job: Job, n_threads: int) -> None:
        self.started.append(job.task.kind + job.task.renderer)
        self.job = job

    def wait(self, timeout_s: float) -> list[JobFinished]:
        job, self.job = self.job, None
        if job is None:
            return []
        with self.store.claim(job.id) as claim:
            assert claim is not None
            claim.complete({"n_frames": 1})
        return [JobFinished(job.id, DONE)]

    def close(self) -> None:
        pass


def test_fits_of_all_speakers_come_first(settings: LineSettings, home: Home) -> None:
    store = JobStore(home.path / "jobs")
    fits = [
        Task(FIT, name, digest=name, renderer=renderer)
        for name, renderer in (("ben", "nerf"), ("ben", "warp"), ("anna", "gaussian"))
    ]
    store.add([task_of(settings, home), *fits])
    pool: Any = Recording(store)
    Scheduler(store, pool, ProgressView(ProgressStats(0, 0, 0))).run(store.jobs())
    assert pool.started[-1] == "dub" and len(pool.started) == 4
