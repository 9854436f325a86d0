"""What is removed with an identity, and what is kept."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from talkhead.app.cli import main as cli
from talkhead.app.dub import results_path
from talkhead.app.dubbing.job import FIT, Task
from talkhead.app.dubbing.job_store import JobStore
from talkhead.app.dubbing.planner import Checksums
from talkhead.app.home.identities import SOURCE, Home
from talkhead.app.home.removal import remove_identity
from talkhead.errors import PackageError, TalkheadError
from talkhead.identity import IdentityPackage
from talkhead.storage import sha256_of, write_json

Add = Callable[[Path], IdentityPackage]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def start_work(home: Home, name: str, video: Path) -> Path:
    """The work of a fit that was interrupted, with pictures of the person."""
    video.write_bytes(name.encode())
    work = home.work_path(name, "key")
    (work / "dataset").mkdir(parents=True)
    (work / "dataset" / "frames.u8").write_bytes(b"crops" * 1000)
    write_json(work / SOURCE, {"path": str(video), "sha256": sha256_of(video)})
    return work


def all_text(folder: Path) -> str:
    """Names and contents of everything in a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return "\n".join(f"{path.relative_to(folder)} {path.read_bytes()!r}" for path in files)


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["talkhead", *words])
    monkeypatch.setattr(cli.signal, "signal", lambda signum, handler: None)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_an_unfinished_fit_is_listed_and_removed(
    home: Home,
    add: Add,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    add(home.identity_dir("berta"))
    video = tmp_path / "Anna B.mp4"
    work, words = start_work(home, "anna", video), f"--home={home.path}"
    assert run(monkeypatch, "identities", "list", words) == 0
    anna, berta = capsys.readouterr().out.splitlines()
    assert anna.split()[:2] == ["anna", "0.0"] and "not finished; to resume: talkhead fit" in anna
    assert f"--video '{video}' --name anna" in anna and "talkhead identities remove anna" in anna
    assert berta.split()[:2] == ["*", "berta"], "the default, because anna is not finished"
    assert run(monkeypatch, "identities", "list", words, "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["is_finished"] for one in listed] == [False, True]
    assert run(monkeypatch, "identities", "show", "anna", words) == 1
    assert "anna: its fit is not finished; to resume: talkhead fit" in capsys.readouterr().err
    assert run(monkeypatch, "identities", "remove", "anna", words) == 0
    assert capsys.readouterr().out == f"removed {work}\n"
    assert "anna" not in all_text(home.path) and video.exists()
    assert run(monkeypatch, "identities", "remove", "anna", words) == 1
    assert "identity anna: not found" in capsys.readouterr().err


def test_an_identity_that_is_being_fitted_is_listed_as_such(home: Home, tmp_path: Path) -> None:
    start_work(home, "anna", tmp_path / "a.mp4")
    with home.lock("anna", lambda holder: None):
        (summary,) = home.summaries()
    assert summary.problem.startswith("process ") and summary.problem.endswith("is working on it")


def test_jobs_results_and_checksums_are_removed_too(home: Home, add: Add, tmp_path: Path) -> None:
    """Only those of this person are removed: those of another person in the same table are kept."""
    for name in ("anna", "berta"):
        add(home.identity_dir(name))
        start_work(home, name, tmp_path / f"footage of {name}.mp4")
    store = JobStore(home.path / "jobs")
    tasks = []
    for name in ("anna", "berta"):
        video, said = tmp_path / f"footage of {name}.mp4", tmp_path / f"said by {name}.wav"
        tasks.append(Task(FIT, name, video=str(video), digest=sha256_of(video)))
        tasks.append(Task("line", name, audio=str(said), output=f"{tmp_path}/{name} speaks.mp4"))
    by_folder = Task("line", str(home.identity_dir("anna")), output=f"{tmp_path}/again.mp4")
    store.add([*tasks, by_folder])
    for job in store.jobs():
        store.work_path(job.id).mkdir()
        (store.work_path(job.id) / "segment-00000.mp4").write_bytes(b"pictures of anna or berta")
    sums = Checksums.of_home(home)
    for name in ("anna", "berta"):
        sums.of(tmp_path / f"footage of {name}.mp4")
    sums.save()
    lines = [{"id": job.id, "identity": job.task.identity} for job in store.jobs()]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    results_path(home).write_text(text + "no JSON\n")
    removed = remove_identity(home, "anna")
    assert len(removed.folders) == 2 and len(removed.jobs) == 3 and removed.n_results == 3
    assert removed.videos == (str(tmp_path / "footage of anna.mp4"),)
    messages = "\n".join(removed.lines())
    assert "removed job " in messages and "removed the checksum of" in messages
    left = all_text(home.path).replace("pictures of anna or berta", "")
    assert "anna" not in left and "said by berta.wav" in left and "no JSON" in left
    assert str(tmp_path / "footage of berta.mp4") in left
    assert [job.task.identity for job in store.jobs()] == ["berta", "berta"]


def test_a_running_job_prevents_removal(home: Home, add: Add, tmp_path: Path) -> None:
    add(home.identity_dir("anna"))
    store = JobStore(home.path / "jobs")
    store.add([Task("line", "anna", output=str(tmp_path / "a.mp4"))])
    (job,) = store.jobs()
    with (
        store.claim(job.id),
        pytest.raises(TalkheadError, match=rf"{job.id}: is running.*jobs cancel"),
    ):
        remove_identity(home, "anna")
    assert home.names() == ["anna"] and store.find(job.id) is not None


def test_leftovers_of_an_earlier_removal_can_be_removed(home: Home, tmp_path: Path) -> None:
    """Leftovers are jobs without an identity, a package without a manifest, and a partly removed
    package.
    """
    store = JobStore(home.path / "jobs")
    store.add([Task("line", "anna", output=str(tmp_path / "a.mp4"))])
    assert len(remove_identity(home, "anna").jobs) == 1
    home.identity_dir("anna").mkdir(parents=True)
    (home.identity_dir("anna") / "idle.mp4").write_bytes(b"pictures")
    hidden = home.identities_dir / ".anna.old-0123abcd"
    others = home.identities_dir / ".anna-b.old-0123abcd"
    for folder in (hidden, others):
        folder.mkdir()
    assert remove_identity(home, "anna").folders == (home.identity_dir("anna"),)
    assert not hidden.exists() and others.exists()
    with pytest.raises(PackageError, match="not found"):
        remove_identity(home, "anna")
    with pytest.raises(PackageError, match="not found"):
        remove_identity(home, "../anna")


def test_checksums_of_footage_that_another_identity_uses_are_kept(
    home: Home, tmp_path: Path
) -> None:
    video = tmp_path / "a.mp4"
    start_work(home, "anna", video)
    work = home.work_path("draft", "key")
    work.mkdir()
    write_json(work / SOURCE, {"path": str(video), "sha256": sha256_of(video)})
    JobStore(home.path / "jobs").prepare()
    sums = Checksums.of_home(home)
    sums.of(video)
    sums.save()
    assert remove_identity(home, "anna").videos == ()
    assert remove_identity(home, "draft").videos == (str(video),)
