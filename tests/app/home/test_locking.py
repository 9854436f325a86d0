"""Two processes that use the same identity at the same time."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from processes import package_files, start, start_fit, wait_for
from tiny import make_tiny

from talkhead.app.fit import FitResult, fit
from talkhead.app.home.identities import DATASET, Home
from talkhead.app.home.locking import lock_identity
from talkhead.app.workspace import prepare
from talkhead.encoder.vad import vad_version
from talkhead.errors import TalkheadError
from talkhead.footage import Footage
from talkhead.locks import Holder
from talkhead.preprocess.pipeline import PreprocessConfig, dataset_key
from talkhead.progress import SilentProgress


def test_the_second_fit_waits_and_a_killed_one_does_not_block(
    fitted: FitResult, footage: Path, tmp_path: Path
) -> None:
    """Without a lock, both would write to the same work folder, and the images would not match the
    frames.
    """
    first = start_fit(footage, tmp_path)
    wait_for(tmp_path, "tracking*.safetensors", first)
    second = start_fit(footage, tmp_path)
    third = start_fit(footage, tmp_path, "--no-wait")
    fourth = start("identities", "remove", fitted.name, "--home", tmp_path, "--yes")
    try:
        for other in (third, fourth):
            _, words = other.communicate()
            assert other.returncode == 1, words
            assert f"{fitted.name}: process {first.pid} since" in words and "Wait until" in words
        assert second.stderr is not None
        messages = second.stderr.readline()
        assert f"process {first.pid} since" in messages and "waiting for it to end" in messages
        assert second.poll() is None and first.poll() is None
        first.kill()
        _, words = second.communicate()
    finally:
        end(first, second)
    assert second.returncode == 0, words
    package = tmp_path / "identities" / fitted.name
    assert package_files(package) == package_files(fitted.package_path)
    assert not list((tmp_path / "locks").iterdir())


def end(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.kill()
        process.communicate()


def fitted_dataset(home: Path, name: str, footage: Path) -> Path:
    """Return the folder of a fit's dataset; other tests prepare other footage of the person."""
    key = dataset_key(Footage.open(footage).sha256, PreprocessConfig(), vad_version())
    return Home(home).work_path(name, key) / DATASET


def test_work_that_two_fits_have_damaged_is_redone(
    fitted: FitResult,
    home: Path,
    footage: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The state that fits without locks leave behind: every frame twice, and no dataset.json yet."""
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    dataset = fitted_dataset(tmp_path, fitted.name, footage)
    (dataset / "dataset.json").unlink()
    for name in ("frames.u8", "masks.u8", "looks.f64"):
        whole = (dataset / name).read_bytes()
        (dataset / name).write_bytes(whole + whole)
    make_tiny(monkeypatch)
    again = fit(footage, preset="preview", home=tmp_path, consent="Yes.", device="cpu")
    assert package_files(again.package_path) == package_files(fitted.package_path)


def test_an_extra_image_or_a_missing_background_is_detected(
    fitted: FitResult,
    home: Path,
    footage: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    dataset = fitted_dataset(tmp_path, fitted.name, footage)
    size = (dataset / "frames.u8").stat().st_size
    with (dataset / "frames.u8").open("ab") as file:
        file.truncate(size // 2)
    (dataset / "plate.png").write_bytes(b"")
    messages: list[str] = []
    progress = SilentProgress()
    monkeypatch.setattr(progress, "message", messages.append)
    make_tiny(monkeypatch)
    prepare(Footage.open(footage), dataset.parent, PreprocessConfig(), progress)
    assert any("frames.u8: is damaged; the footage is prepared again" in line for line in messages)
    assert (dataset / "frames.u8").stat().st_size == size


def test_a_process_cannot_lock_an_identity_twice(tmp_path: Path) -> None:
    home, progress = Home(tmp_path), SilentProgress()
    with lock_identity(home, "anna", progress):
        with (
            pytest.raises(
                TalkheadError, match=r"anna: process \d+ since .* Wait until it has ended"
            ),
            lock_identity(home, "anna", progress, wait=False),
        ):
            raise AssertionError("two at once")
        with lock_identity(home, "berta", progress, wait=False):
            pass
    with lock_identity(home, "anna", progress, wait=False):
        pass


def test_waiting_is_reported_once_and_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A progress step stays open while waiting, so that a worker notices when its job is
    cancelled."""
    home, progress, messages = Home(tmp_path), SilentProgress(), list[str]()
    monkeypatch.setattr(progress, "message", messages.append)
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("talkhead.locks.time.sleep", nap)
    with lock_identity(home, "anna", progress), pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with lock_identity(home, "anna", progress):
            raise AssertionError("two at once")
    assert len(messages) == 1 and "waiting for it to end" in messages[0]


def test_removal_does_not_wait(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.work_path("anna", "key").mkdir(parents=True)

    def fail(holder: Holder) -> None:
        raise AssertionError(holder)

    with home.lock("anna", fail), pytest.raises(TalkheadError, match=r"anna: process \d+ since"):
        home.remove("anna")
