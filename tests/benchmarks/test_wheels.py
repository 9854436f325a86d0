"""Missing wheels by system and Python."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

pytest.importorskip("tomllib")  # Python 3.11

from benchmarks.wheels import requirements, survey


def test_requirements_without_a_wheel_are_named() -> None:
    def resolves(wanted: Sequence[str], platform: str, python: str) -> bool:
        assert (platform, python) == ("x86_64-apple-darwin", "3.13")
        return "b" not in wanted

    row = survey(["a", "b", "c"], "3.13", "macOS x86-64", resolves)
    assert row["resolves"] is False and row["lacking"] == ["b"]
    assert survey(["a"], "3.13", "macOS x86-64", resolves)["lacking"] == []


def test_extras_are_included() -> None:
    project = {"dependencies": ["a"], "optional-dependencies": {"more": ["b"], "other": ["c"]}}
    assert requirements(project, ["more"]) == ["a", "b"]
