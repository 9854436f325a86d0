"""The check of a GPU: its comparisons, its rows, and all of its code on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu_check import NOT_RUN, TOLERANCE, agreement, relative_error
from talkhead.dataset import IdentityDataset
from talkhead.renderers.gaussian.model import GaussianRenderer
from talkhead.renderers.nerf.model import NerfRenderer


@pytest.fixture
def rows(capsys: pytest.CaptureFixture[str]) -> Any:
    """A function that runs the check, and returns its exit status and its rows by part."""

    def run(*arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
        status = gpu_check.main([*arguments, "--device", "cpu"])
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return status, {row["part"]: row for row in found if "part" in row}

    return run


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, head_dataset: IdentityDataset) -> None:
    """Small heads of the synthetic footage, fitted in few steps and timed once."""
    monkeypatch.setattr(gpu_check, "prepared", lambda work: head_dataset)
    monkeypatch.setattr(gpu_check, "N_STEPS", 12)
    monkeypatch.setattr(gpu_check, "N_TIMED", 1)
    monkeypatch.setattr(gpu_check, "MIN_PSNR_DB", 3.0)
    monkeypatch.setattr(gpu_check, "GAUSSIAN", {"preview": GaussianRenderer.test_config})
    monkeypatch.setattr(gpu_check, "NERF", {"preview": NerfRenderer.test_config})


def test_agreement_is_the_share_of_pixels_whose_channels_are_all_near() -> None:
    image = torch.full((1, 2, 4, 3), 0.5)
    other = image.clone()
    other[0, 0, 0, 1] += 1.01 * TOLERANCE
    other[0, 1, 1, 2] -= 2.0 * TOLERANCE
    other[0, 1, 2] += 0.99 * TOLERANCE
    assert agreement(image, other) == 0.75
    other[0, 1, 3, 0] = float("nan")
    assert agreement(image, other) == 0.625
    assert agreement(image, image) == 1.0


def test_relative_error_of_a_gradient() -> None:
    true = torch.tensor([3.0, 4.0])
    assert relative_error(torch.tensor([3.0, 4.5]), true) == pytest.approx(0.1)
    assert relative_error(true, true) == 0.0


def test_without_cuda_one_line_says_that_nothing_was_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main([]) == gpu_check.main(["--device", "cuda:1"]) == NOT_RUN
    first, second = capsys.readouterr().out.splitlines()
    assert first == second and first.endswith("nothing was run")


@pytest.mark.parametrize("wrong", [["--parts", "cuda"], ["--device", "tpu"], ["--steps", "3"]])
def test_wrong_arguments(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        gpu_check.main(wrong)
    assert stopped.value.code == 2


def test_a_failed_part_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, rows: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(check: gpu_check.Check) -> dict[str, Any]:
        raise OSError("no kernel image")

    monkeypatch.setitem(gpu_check.PARTS, "splats", broken)
    monkeypatch.setitem(gpu_check.PARTS, "gaussian", lambda check: {"pixels_equal": 1.0})
    status, found = rows("--parts", "splats", "gaussian")
    assert status == 1
    assert found["splats"]["result"] == "failed"
    assert found["splats"]["reason"] == "OSError: no kernel image"
    assert found["gaussian"]["result"] == "passed"


def test_images_that_differ_fail(monkeypatch: pytest.MonkeyPatch, quick: None, rows: Any) -> None:
    monkeypatch.setattr(gpu_check, "agreement", lambda image, other: 0.5)
    status, found = rows("--work", "made", "--parts", "footage", "gaussian")
    assert status == 1 and "differ" in found["gaussian"]["reason"]


def test_without_mediapipe_parts_are_skipped(monkeypatch: pytest.MonkeyPatch, rows: Any) -> None:
    monkeypatch.setattr(gpu_check.importlib.util, "find_spec", lambda name: None)
    status, found = rows("--parts", "footage", "gaussian", "nerf", "commands")
    assert status == 0
    assert {row["result"] for row in found.values()} == {"skipped"}
    assert "mediapipe" in found["footage"]["reason"] and "mediapipe" in found["commands"]["reason"]


def test_on_the_cpu_all_images_are_identical(quick: None, rows: Any) -> None:
    """The whole script but for the commands, the CPU taking the place of the GPU."""
    names = ["splats", "footage", "gaussian", "nerf", "nerf-hash"]
    status, found = rows("--work", "made", "--parts", *names)
    assert status == 0 and [*found] == names
    for name in ("splats", "gaussian", "nerf"):
        assert found[name]["result"] == "passed" and found[name]["pixels_equal"] == 1.0, found[name]
    assert found["splats"]["gradient_error"] == 0.0
    assert found["gaussian"]["frames_per_s_cpu"] > 0.0
    assert found["nerf-hash"]["result"] == "skipped"


def test_the_commands_use_the_device(monkeypatch: pytest.MonkeyPatch, rows: Any) -> None:
    seen: list[dict[str, Any]] = []

    def command(*files: Path, **options: Any) -> SimpleNamespace:
        seen.append(options)
        return SimpleNamespace(name="person")

    for name in ("fit", "load_identity", "speak"):
        monkeypatch.setattr(gpu_check, name, command)
    monkeypatch.setattr(gpu_check, "measure_speed_of_avatar", lambda avatar: (100.0, 3.0))
    status, found = rows("--parts", "commands")
    assert status == 0 and found["commands"]["times_real_time"] == 3.0
    assert [options["device"] for options in seen] == ["cpu"] * 3
    assert len({options["home"] for options in seen}) == 1
