"""The ablation: each variant is trained once, then the lips of all are compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import ablation


def test_missing_weights_are_trained_and_all_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[str]] = []

    def train(arguments: list[str]) -> None:
        told.append(arguments)
        Path(arguments[arguments.index("--output") + 1]).touch()

    monkeypatch.setattr("talkhead.encoder.pase.train.main", train)
    compared: list[list[str]] = []
    monkeypatch.setattr("benchmarks.lips.main", compared.append)
    (tmp_path / "gru-7-0.safetensors").touch()
    command = [
        "a.json",
        "--corpus",
        "c",
        "d",
        "--weights",
        str(tmp_path),
        "--steps",
        "7",
        "--folds",
        "11",
    ]
    ablation.main(command)
    ablation.main(command)
    assert len(told) == len(ablation.VARIANTS) - 1
    assert ["--without", "vision"] in [arguments[-2:] for arguments in told]
    assert not any("gru" in arguments[3] for arguments in told)
    assert all(arguments[:2] == ["c", "d"] for arguments in told)
    first, again = compared
    assert first == again
    assert first[:3] == ["a.json", "--encoder", str(tmp_path / "full-7-0.safetensors")]
    assert first[-4:] == ["mel", "mfcc", "--folds", "11"]
    assert str(tmp_path / "no-anchors-7-0.safetensors") in first
