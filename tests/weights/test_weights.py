"""The shipped weights are complete, small and documented; damaged ones are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from talkhead import weights
from talkhead.errors import PackageError
from talkhead.storage import sha256_of

NAMES = sorted(weights.manifest())
MAX_BYTES = 30_000_000
"""Maximum size of all files together, in bytes."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that contains one shipped file."""
    (tmp_path / "a.safetensors").write_bytes(b"weights")
    digest = sha256_of(tmp_path / "a.safetensors")
    (tmp_path / "manifest.json").write_text(json.dumps({"a.safetensors": {"sha256": digest}}))
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_shipped_files_are_complete(name: str) -> None:
    path = weights.resolve(name)
    assert path.stat().st_size == weights.manifest()[name]["bytes"]


def test_the_total_size_is_small() -> None:
    assert sum(entry["bytes"] for entry in weights.manifest().values()) <= MAX_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_shipped_files_are_documented(name: str) -> None:
    entry = weights.manifest()[name]
    assert entry["about"]
    if "author" in entry:  # a third-party model, shipped unchanged
        assert entry["licence"] and entry["source"]
        return
    assert entry["command"] and entry["figures"]
    for source in entry["trained_on"]:
        wanted = {"what", "licence", "attribution", "sha256"}
        assert set(source) == wanted and all(source.values())


def test_every_weight_file_is_in_the_manifest() -> None:
    suffixes = (".safetensors", ".task", ".tflite", ".ogg")
    shipped = [path.name for path in weights.FOLDER.iterdir() if path.suffix in suffixes]
    assert sorted(shipped) == NAMES


def test_resolve(folder: Path) -> None:
    assert weights.resolve("a.safetensors", folder) == folder / "a.safetensors"
    with pytest.raises(KeyError):
        weights.resolve("b.safetensors", folder)


def test_a_changed_byte_is_detected_even_after_a_verification(folder: Path) -> None:
    weights.resolve("a.safetensors", folder)
    (folder / "a.safetensors").write_bytes(b"weighty!")
    with pytest.raises(
        PackageError, match=r"a\.safetensors: these weights are damaged\. Reinstall"
    ):
        weights.resolve("a.safetensors", folder)


def test_a_missing_file(folder: Path) -> None:
    (folder / "a.safetensors").unlink()
    with pytest.raises(PackageError, match=r"a\.safetensors: these weights are missing\. Reinst"):
        weights.resolve("a.safetensors", folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"a.safetensors": {}}', '{"a.safetensors": 3}'])
def test_a_damaged_manifest(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(PackageError, match=r"manifest\.json: damaged.*Reinstall"):
        weights.resolve("a.safetensors", folder)


def test_a_missing_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    with pytest.raises(PackageError, match=r"manifest\.json: there is no such file.*Reinstall"):
        weights.manifest(folder)
    shutil.rmtree(folder)
