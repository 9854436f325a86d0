"""Shipped weights, each checked against its fingerprint before it is used.

manifest.json says of each file what it is, what it was trained on and under which licences, the
command that made it and the figures it reached.
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
    """The path of a shipped weight file, whose content is what the manifest says.

    Raises PackageError when the file or the manifest is missing or damaged, KeyError when no such
    file is shipped.
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
    """What is known of each shipped file, by its name: sha256, bytes, about, trained_on, command,
    figures. Raises PackageError when the manifest is missing or damaged."""
    path = folder / MANIFEST
    try:
        entries = read_json(path)
    except TalkheadError as error:
        raise PackageError(f"{error}. {ADVICE}") from error
    if not isinstance(entries, dict) or not all(
        isinstance(entry, dict) and "sha256" in entry for entry in entries.values()
    ):
        raise PackageError(f"{path}: damaged, this is no list of weights. {ADVICE}")
    return entries


@lru_cache(maxsize=64)
def _fingerprint(path: Path, n_bytes: int, modified_ns: int) -> str:
    """The file's SHA-256, computed again only when its size or time has changed."""
    return sha256_of(path)
