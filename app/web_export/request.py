"""Requests of `export-web`, checked before PyTorch is imported."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from talkhead.app.checks import check_identity, check_sound
from talkhead.app.home.identities import Home
from talkhead.errors import PackageError, TalkheadError
from talkhead.identity import Manifest
from talkhead.os_errors import translate_os_errors
from talkhead.storage import decode_json, read_bytes

RENDERER = "gaussian"
"""The renderer that pages have."""
FORMAT, VERSION = "talkhead-web", 1
"""Name and version of the files; pages refuse others."""
SOURCES = Path(__file__).parent / "page"
"""The files of the page."""
MANIFEST, STATEMENT = "manifest.json", "statement.json"
PAGE = "index.html"
MAX_NAME_CHARS = 60
MARK = f'<meta name="generator" content="{FORMAT}">'
"""In the page of every export, so that an older one may be replaced."""
MAX_HEAD_BYTES = 4096
"""The mark is among the first bytes of a page."""
MAX_MANIFEST_BYTES = 1 << 20


@dataclass(frozen=True)
class WebLine:
    """A line that the page can say.

    Attributes:
        name: Its name in the page: lower case letters, digits and hyphens.
        audio: File with audio.
    """

    name: str
    audio: Path


@dataclass(frozen=True)
class WebRequest:
    """What to export.

    Attributes:
        output: The folder, or the file.
        lines: Lines that the page can say.
        is_single: True for one file that contains everything.
        consent: Statement of consent: that of the request, or of the identity.
        live: True if the page can follow speech that is not known yet.
        live_consent: Statement of consent to live speech, which that of the identity does not cover.
    """

    output: Path
    lines: tuple[WebLine, ...]
    is_single: bool
    consent: str | None
    live: bool = False
    live_consent: str | None = None


def check_web(
    output: Path,
    lines: Sequence[Path],
    *,
    identity: str | Path | None = None,
    single_file: bool = False,
    live: bool = False,
    consent: str | None = None,
    home: Path | str | None = None,
) -> tuple[WebRequest, Manifest]:
    """Check the arguments of `export_web`.

    Args:
        output: Folder to write, or a file.
        lines: Files with audio.
        identity: Name of an identity, or folder of a package. None: the identity fitted last.
        single_file: The output is one file.
        live: The page can follow speech that is not known yet.
        consent: Statement of consent, which includes live speech if `live` is set.
        home: Folder of the identities.

    Returns:
        The request, and the manifest of the identity.

    Raises:
        TalkheadError: The identity has no renderer that pages can show, audio cannot be read, or the
            output would replace something else than an earlier export.
    """
    manifest = check_identity(identity, None, home)
    check_renderer(manifest)
    for audio in lines:
        check_sound(audio)
    named = tuple(WebLine(line_name(audio.stem), audio) for audio in lines)
    (name, count) = Counter(line.name for line in named).most_common(1)[0] if named else ("", 1)
    if count > 1:
        same = " and ".join(str(line.audio) for line in named if line.name == name)
        raise TalkheadError(f"{same}: both lines would be called {name}. Rename a file")
    _check_output(output, single_file, home)
    agreed, live_consent = consent or manifest.consent, consent if live else None
    return WebRequest(output, named, single_file, agreed, live, live_consent), manifest


def check_renderer(manifest: Manifest) -> None:
    """Check that an identity has the renderer that pages have.

    Args:
        manifest: Manifest of the identity.

    Raises:
        PackageError: It has not.
    """
    if RENDERER not in manifest.renderers:
        raise PackageError(
            f"{manifest.name}: fitted with {', '.join(sorted(manifest.renderers))}; a web page shows "
            f"{RENDERER} only. Fit it again with --renderer {RENDERER}"
        )


def line_name(stem: str) -> str:
    """Make the name of a line, which is part of addresses.

    Args:
        stem: Name of a file without its suffix.

    Returns:
        Lower case letters, digits and hyphens; "line" if nothing is left.
    """
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:MAX_NAME_CHARS].rstrip("-") or "line"


def _check_output(output: Path, is_single: bool, home: Path | str | None) -> None:
    """Raise TalkheadError if the output cannot be written, or is no earlier export."""
    if not output.absolute().parent.is_dir():
        raise TalkheadError(f"{output}: the folder {output.parent} does not exist. Create it first")
    if Home.locate(home).is_own(output):
        raise TalkheadError(
            f"{output}: is in a folder that talkhead manages. Choose another output"
        )
    if is_single:
        if output.suffix.lower() not in (".html", ".htm"):
            raise TalkheadError(f"{output}: a single file is a page. End its name with .html")
        if output.is_dir():
            raise TalkheadError(f"{output}: this is a folder. Pass the name of a file")
        _check_page(output)
        return
    if output.exists() and not output.is_dir():
        raise TalkheadError(f"{output}: this is a file. Pass a folder, or --single-file")
    if output.is_dir() and (others := _foreign_files(output)):
        raise TalkheadError(
            f"{output}: contains {others[0]}, which is not part of an earlier export. Choose an empty "
            "folder, or a new one"
        )


def _check_page(page: Path) -> None:
    """Raise TalkheadError if a page in one file would replace something else."""
    with translate_os_errors(page):
        is_own = not page.exists()
        if page.is_file():
            with page.open("rb") as stream:
                is_own = MARK.encode() in stream.read(MAX_HEAD_BYTES)
    if not is_own:
        raise TalkheadError(f"{page}: is no earlier export. Choose another file")
    if page.name in exported_files(page.parent):
        raise TalkheadError(f"{page}: is part of an export in a folder. Choose another file")


def _foreign_files(folder: Path) -> list[str]:
    """List the files of a folder that the manifest of an export in it does not name."""
    return sorted(files_in(folder) - exported_files(folder))


def files_in(folder: Path) -> set[str]:
    """List the files in a folder and in its folders.

    Args:
        folder: The folder.

    Returns:
        Paths relative to it, with slashes.
    """
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def exported_files(folder: Path) -> set[str]:
    """List the files of an export.

    Args:
        folder: Folder of the export.

    Returns:
        Their paths, relative to the folder; none if there is no export.
    """
    try:
        manifest = decode_json(read_bytes(folder / MANIFEST, MAX_MANIFEST_BYTES))
        files = {*manifest["files"]} if manifest["format"] == FORMAT else set()
    except (TalkheadError, ValueError, TypeError, KeyError):
        return set()
    return {MANIFEST, STATEMENT, *files}
