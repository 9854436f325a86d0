"""Verification of web exports: files against the manifest, and the manifest against the statement."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from talkhead.app.output.verification import (
    DAMAGED,
    REARRANGED,
    TAMPERED,
    Verdict,
    as_list,
)
from talkhead.app.web_export.request import MANIFEST, MAX_MANIFEST_BYTES, PAGE, STATEMENT, files_in
from talkhead.storage import decode_json, read_bytes, sha256_of, translate_os_errors

SESSION = re.compile(rf"{re.escape(MANIFEST)} ([0-9a-f]{{64}})")
"""`session` of the statement of an export."""


def session_of(digest: str) -> str:
    """Return the session that the statement of an export names.

    Args:
        digest: SHA-256 of its manifest.

    Returns:
        The session.
    """
    return f"{MANIFEST} {digest}"


def compare_site(verdict: Verdict) -> Verdict:
    """Compare the files of a web export with what was signed.

    Args:
        verdict: The verdict on its statement, which is among the files; or on a live session, which has
            no files.

    Returns:
        The verdict on the export: TAMPERED if the manifest or other files were changed, REARRANGED if
        files are missing. Files that were added are unsigned. Without the files next to it, it is the
        verdict on the statement alone.

    Raises:
        TalkheadError: A file cannot be read.
    """
    found = SESSION.fullmatch(str(verdict.claims.get("session")))
    if found is None or verdict.state in (TAMPERED, DAMAGED):
        return verdict
    folder = verdict.path.parent
    if not (folder / MANIFEST).is_file():
        if not (folder / PAGE).is_file():
            return replace(verdict, where="web export, whose files are not next to it")
        return replace(verdict, state=REARRANGED, problems=(f"missing: {MANIFEST}",))
    content = read_bytes(folder / MANIFEST, MAX_MANIFEST_BYTES)
    if hashlib.sha256(content).hexdigest() != found[1]:
        return replace(verdict, state=TAMPERED, problems=(f"changed: {MANIFEST}",))
    try:
        signed = {str(name): str(about["sha256"]) for name, about in _files(content).items()}
    except (ValueError, TypeError, KeyError):
        return replace(verdict, state=DAMAGED, problems=(f"{MANIFEST} is of another version",))
    return _compare_files(verdict, folder, signed)


def _files(content: bytes) -> Mapping[str, Mapping[str, object]]:
    return dict(decode_json(content)["files"])


def _compare_files(verdict: Verdict, folder: Path, signed: Mapping[str, str]) -> Verdict:
    """Compare the files of a folder with signed checksums. Only files in the folder are read."""
    with translate_os_errors(folder):
        present = files_in(folder)
    changed = [
        name for name in sorted({*signed} & present) if sha256_of(folder / name) != signed[name]
    ]
    problems = {"changed": changed, "missing": sorted({*signed} - present)}
    listed = tuple(f"{what}: {as_list(names)}" for what, names in problems.items() if names)
    state = TAMPERED if changed else REARRANGED if listed else verdict.state
    return replace(
        verdict,
        state=state,
        where=f"web export, {len(signed)} files",
        problems=(*verdict.problems, *listed),
        unsigned=tuple(sorted(present - {*signed, MANIFEST, STATEMENT})),
    )
