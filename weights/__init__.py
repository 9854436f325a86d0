"""Shipped weights, each verified against its checksum before use.

manifest.json gives for each file a description, its training data with licenses, the command that
made it and the results that it achieved.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from talkhead.errors import PackageError, TalkheadError
from talkhead.storage import read_json, sha256_of

FOLDER = Path(__file__).parent
MANIFEST = "manifest.json"
ADVICE = "Reinstall talkhead"


def resolve(name: str, folder: Path = FOLDER) -> Path:
    """Find a shipped weight file and verify its content.

    Args:
        name: Name of the file.
        folder: Folder of the weights.

    Returns:
        Its path.

    Raises:
        PackageError: If the file or the manifest is missing or damaged.
        KeyError: If no such file is shipped.
    """
    expected = manifest(folder)[name]["sha256"]
    path = folder / name
    if not path.is_file():
        raise PackageError(f"{path}: these weights are missing. {ADVICE}")
    stamp = path.stat()
    if _fingerprint(path, stamp.st_size, stamp.st_mtime_ns) != expected:
        raise PackageError(f"{path}: these weights are damaged. {ADVICE}")
    return path


def manifest(folder: Path = FOLDER) -> Mapping[str, Mapping[str, Any]]:
    """Read the manifest.

    Args:
        folder: Folder of the weights.

    Returns:
        For each file: sha256, bytes, about, and, for weights trained here, trained_on, command,
        figures.

    Raises:
        PackageError: If the manifest is missing or damaged.
    """
    path = folder / MANIFEST
    try:
        entries = read_json(path)
    except TalkheadError as error:
        raise PackageError(f"{error}. {ADVICE}") from error
    if not isinstance(entries, dict) or not all(
        isinstance(entry, dict) and "sha256" in entry for entry in entries.values()
    ):
        raise PackageError(f"{path}: damaged, not a list of weights. {ADVICE}")
    return entries


@lru_cache(maxsize=64)
def _fingerprint(path: Path, n_bytes: int, modified_ns: int) -> str:
    """SHA-256 of a file, computed again only when its size or time has changed."""
    return sha256_of(path)
