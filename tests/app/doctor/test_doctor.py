from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from talkhead.app.doctor import installation as doctor
from talkhead.app.doctor import speed_test as pace
from talkhead.app.fit import FitResult
from talkhead.app.home.identities import Home
from talkhead.device import Backend

GOOD = doctor.Check("Python", True, "3.11.7")
BAD = doctor.Check("OpenCV", False, "ImportError: libGL.so.1", "Run: bring it")
BACKENDS = (Backend("gsplat CUDA rasterizer", False, "no CUDA", "1.5.3"),)


def report(*checks: doctor.Check) -> doctor.Report:
    versions = {"talkhead": "1", "torch": "", "tinycudann": ""}
    pace = doctor.Pace("anna", "gaussian", 58.2, 2.34)
    return doctor.Report(versions, checks, BACKENDS, doctor.Speed(10.0, 30.0), pace)


def test_a_report_names_missing_parts_and_how_to_get_them() -> None:
    text = doctor.describe(report(GOOD, BAD))
    assert "ok  Python" in text
    assert "NO  OpenCV" in text
    assert "Run: bring it" in text
    assert "not usable: no CUDA" in text
    assert "10.0 ms per frame (100 frames per second), 30.0 ms with gradients" in text
    assert "anna (gaussian): renders 58 frames per second, " in text
    assert "speak runs at about 2.3 times real time" in text
    assert "Something is missing" in text
    assert "Everything needed is installed" in doctor.describe(report(GOOD))


def test_a_report_is_json() -> None:
    data = json.loads(json.dumps(report(GOOD, BAD).as_json()))
    assert data["ok"] is False
    assert data["checks"][1]["remedy"] == "Run: bring it"
    assert data["pace"]["real_time"] == 2.34
    assert data["backends"][0]["reason"] == "no CUDA"


def test_modules_that_work_and_that_do_not() -> None:
    assert doctor.check_import("JSON", "json").ok
    missing = doctor.check_import("Nothing", "no_such_module_at_all")
    assert not missing.ok
    assert "no_such_module_at_all" in missing.found
    assert missing.remedy


def test_ffmpeg_is_found_and_a_wrong_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_ffmpeg().ok
    monkeypatch.setenv("TALKHEAD_FFMPEG", "/nowhere/ffmpeg")
    check = doctor.check_ffmpeg()
    assert not check.ok
    assert "/nowhere/ffmpeg" in check.found


def test_the_home_need_not_exist_but_must_be_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home.locate(tmp_path / "a" / "b")
    assert str(home.path) in doctor.check_home(home).found
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    check = doctor.check_home(home)
    assert not check.ok
    assert "--home" in check.remedy


def test_the_pace_of_a_fitted_person(
    fitted: FitResult, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for identity in (None, fitted.name):
        made = doctor.pace_of(Home(home), identity)
        assert (made.identity, made.renderer, made.missing) == (fitted.name, "gaussian", "")
        assert made.frames_per_s > 1.0 and made.real_time > 0.01
        monkeypatch.setattr(pace, "MAX_S", 0.0)  # one frame must suffice
    monkeypatch.setattr(pace, "predict_motion", None)
    broken = doctor.pace_of(Home(home), None)
    assert broken.missing.startswith("TypeError") and broken.frames_per_s == 0.0


def test_a_missing_pace_is_explained(fitted: FitResult, tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert "There are no identities" in doctor.pace_of(home, None).missing
    assert "identity berta: not found" in doctor.pace_of(home, "berta").missing
    shutil.copytree(fitted.package_path, home.identities_dir / "anna")
    with (home.identities_dir / "anna" / "gaussian.safetensors").open("r+b") as file:
        file.truncate(1000)
    damaged = doctor.pace_of(home, "anna")
    assert "gaussian.safetensors" in damaged.missing
    assert doctor.describe(replace(report(GOOD), pace=damaged)).count("not measured") == 1


@pytest.mark.parametrize(
    ("program", "euid", "words"),
    [
        ("apt-get", 0, "Run: apt-get install -y libgl1 libglib2.0-0"),
        ("apt-get", 1000, "Run: sudo apt-get install -y libgl1 libglib2.0-0"),
        ("dnf", 0, "Run: dnf install"),
        ("none", 0, "Install your system's libGL"),
    ],
)
def test_the_command_that_installs_libgl(
    monkeypatch: pytest.MonkeyPatch, program: str, euid: int, words: str
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name if name == program else None)
    monkeypatch.setattr(doctor.os, "geteuid", lambda: euid)
    error = ImportError("libGL.so.1: cannot open shared object file: No such file or directory")
    assert words in str(doctor.library_error(error))
    assert doctor.library_error(ImportError("No module named x")) is None


def test_one_identity_is_singular(tmp_path: Path, write_package: Callable[..., object]) -> None:
    home = Home(tmp_path)
    assert doctor.check_home(home).found.endswith("0 identities")
    write_package(home.identity_dir("anna"))
    assert doctor.check_home(home).found.endswith("1 identity")
