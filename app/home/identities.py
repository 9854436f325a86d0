"""The home folder: identities, their unfinished work and reports.

HOME/
  identities/NAME/        packages
  work/NAME-<hash>/       datasets and checkpoints from which `fit` resumes
  reports/NAME/           reports of `fit` and `evaluate`
  web/NAME/               web export that `serve` shows
  locks/NAME.lock         locked by the process that fits or removes NAME
  server/                 uploads and videos of `serve` (`talkhead.app.server`)
  scratch/                folders of running commands (`talkhead.app.home.scratch`)
  latest.json             the identity fitted or imported last
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from talkhead import storage
from talkhead.errors import PackageError, TalkheadError
from talkhead.identity import (
    EXPORT_SUFFIX,
    MANIFEST_NAME,
    IdentityPackage,
    Manifest,
    export_package,
    import_package,
    read_export_manifest,
    read_manifest,
)
from talkhead.locks import Holder, hold_lock, holder_of, is_locked

HOME_VARIABLE = "TALKHEAD_HOME"
PERSONAL_FOLDERS = ("identities", "reports", "web", "work")
"""Folders of a home folder with folders of single people."""
OWN_FOLDERS = (*PERSONAL_FOLDERS, "jobs", "locks", "scratch", "server", "signing")
"""Folders of a home folder in which only talkhead writes."""
DATASET, SOURCE = "dataset", "source.json"
"""Names in a work folder: the dataset, and the record of the video."""
USES_ALL = "use_all_frames"
"""Key in a package's details; true if no frames were held out."""
CLIPS = "clips"
"""Key in a package's details and in SOURCE: the clips that the footage was joined from."""
SHEET, QUALITY = "sheet.png", "quality.json"
"""Files of a package for people to look at."""
MAX_NAME_LENGTH = 64

_NAME = re.compile(rf"\w[\w.-]{{0,{MAX_NAME_LENGTH - 1}}}")
_WORK = re.compile(rf"({_NAME.pattern})-[0-9a-f]{{12}}")


@dataclass(frozen=True)
class IdentitySummary:
    """One identity in a list.

    Attributes:
        name: Name.
        path: Folder of the package; for an unfinished identity, that of the fit's work.
        created: Time of the fit.
        preset: Preset of the fit.
        renderers: Names of the fitted renderers.
        size_bytes: Size of the folder.
        is_latest: True if `speak` uses this identity by default.
        problem: Why the identity cannot be used; "" if it can.
        is_finished: True if there is a package.
    """

    name: str
    path: Path
    created: str
    preset: str
    renderers: tuple[str, ...]
    size_bytes: int
    is_latest: bool
    problem: str
    is_finished: bool = True


@dataclass(frozen=True)
class Home:
    """The home folder: by default `TALKHEAD_HOME`, otherwise the user's data folder.

    Nothing is created before something is written.

    Attributes:
        path: The folder.
    """

    path: Path

    @classmethod
    def locate(cls, path: Path | str | None = None) -> Home:
        """Find the home folder.

        Args:
            path: The folder. None: `TALKHEAD_HOME`, or the user's data folder.

        Returns:
            The home folder, which need not exist.
        """
        chosen = path or os.environ.get(HOME_VARIABLE)
        if chosen:
            return cls(storage.expand_user(chosen).absolute())
        from platformdirs import user_data_path

        return cls(user_data_path("talkhead", appauthor=False))

    def is_own(self, path: Path) -> bool:
        """Check if a path is in a folder that talkhead manages, where no output may be written.

        Args:
            path: A path.

        Returns:
            True if it is.
        """
        real = Path(os.path.realpath(path))
        own = {Path(os.path.realpath(self.path / name)) for name in OWN_FOLDERS}
        return not own.isdisjoint({real, *real.parents})

    @property
    def identities_dir(self) -> Path:
        """Folder of the packages."""
        return self.path / "identities"

    @property
    def latest_path(self) -> Path:
        """File with the name of the identity fitted or imported last."""
        return self.path / "latest.json"

    def identity_dir(self, name: str) -> Path:
        """Return the folder of an identity's package.

        Args:
            name: Name of the identity.

        Returns:
            The folder, which need not exist.

        Raises:
            TalkheadError: The name is not allowed.
        """
        return self.identities_dir / check_name(name)

    def work_path(self, name: str, key: str) -> Path:
        """Return the folder of the work on an identity.

        Args:
            name: Name of the identity.
            key: Identifies reusable work: checksum of the footage, and settings.

        Returns:
            The folder, which need not exist. One key has one folder.

        Raises:
            TalkheadError: The name is not allowed.
        """
        digest = storage.fingerprint_of_text(key)[:12]
        return self.path / "work" / f"{check_name(name)}-{digest}"

    @contextmanager
    def lock(self, name: str, busy: Callable[[Holder], None]) -> Iterator[None]:
        """Hold the lock of an identity: only this process changes anything under that name.

        Args:
            name: Name of the identity.
            busy: Called while another process holds the lock; see `talkhead.locks.hold_lock`.

        Yields:
            Once, when the lock is held.

        Raises:
            TalkheadError: The name is not allowed, or the folder of locks cannot be written.
        """
        path = self._lock_path(name)
        storage.make_folder(path.parent)
        with hold_lock(path, busy):
            yield

    def _lock_path(self, name: str) -> Path:
        return self.path / "locks" / f"{check_name(name)}.lock"

    def report_path(self, name: str) -> Path:
        """Return the folder of the report on an identity.

        Args:
            name: Name of the identity.

        Returns:
            The folder, which need not exist.

        Raises:
            TalkheadError: The name is not allowed.
        """
        return self.path / "reports" / check_name(name)

    def web_path(self, name: str) -> Path:
        """Return the folder of an identity's web export.

        Args:
            name: Name of the identity.

        Returns:
            The folder, which need not exist.

        Raises:
            TalkheadError: The name is not allowed.
        """
        return self.path / "web" / check_name(name)

    def names(self) -> list[str]:
        """List the names of all finished identities.

        Returns:
            Names in alphabetical order.

        Raises:
            TalkheadError: The folder cannot be read.
        """
        if not self.identities_dir.is_dir():
            return []
        with storage.translate_os_errors(self.identities_dir):
            folders = sorted(self.identities_dir.iterdir())
        return [
            folder.name
            for folder in folders
            if not folder.name.startswith(".") and (folder / MANIFEST_NAME).is_file()
        ]

    def unfinished(self) -> list[str]:
        """List the names of identities whose fit is running or was interrupted.

        Returns:
            Names in alphabetical order.
        """
        found = {match[1] for folder in self._works() if (match := _WORK.fullmatch(folder.name))}
        return sorted(found - set(self.names()))

    def summaries(self) -> list[IdentitySummary]:
        """Summarize all identities, damaged and unfinished ones included.

        Returns:
            Summaries, sorted by name.
        """
        latest = self.latest()
        finished = [self._summary(name, is_latest=name == latest) for name in self.names()]
        unfinished = [self._unfinished_summary(name) for name in self.unfinished()]
        return sorted([*finished, *unfinished], key=lambda summary: summary.name)

    def _unfinished_summary(self, name: str) -> IdentitySummary:
        works = self._work_dirs(name)
        size = sum(_size_of(folder) for folder in works)
        lock = self._lock_path(name)
        holder = holder_of(lock) if is_locked(lock) else None
        problem = (
            f"{holder} is working on it" if holder else f"not finished; {self._commands_for(name)}"
        )
        return IdentitySummary(name, works[0], "", "", (), size, False, problem, is_finished=False)

    def _commands_for(self, name: str) -> str:
        """Return the commands that resume an unfinished fit, or remove it."""
        videos = next(filter(None, self._given_videos(name)), ["VIDEO"])
        video = " --video ".join(map(shlex.quote, videos))
        return (
            f"to resume: talkhead fit --video {video} --name {name}, to remove it: talkhead identities "
            f"remove {name}"
        )

    def sources(self, name: str) -> list[tuple[str, str]]:
        """List the videos whose work is stored under a name.

        Args:
            name: Name of an identity.

        Returns:
            Path and SHA-256 of each; "" if unknown.
        """
        return [
            (str(record.get("path", "")), str(record.get("sha256", "")))
            for record in self._source_records(name)
        ]

    def _given_videos(self, name: str) -> Iterator[list[str]]:
        """Yield the paths of the videos that each fit of a name was given; [] if unknown."""
        for record in self._source_records(name):
            clips = record.get(CLIPS)
            paths = clips if isinstance(clips, list) else [record.get("path")]
            yield [str(path) for path in paths if path]

    def _source_records(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the contents of SOURCE in the work folders of a name."""
        for folder in self._work_dirs(name):
            with suppress(TalkheadError):  # none yet, or damaged
                record = storage.read_json(folder / SOURCE)
                if isinstance(record, dict):
                    yield record

    def _summary(self, name: str, *, is_latest: bool) -> IdentitySummary:
        path = self.identities_dir / name
        size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
        try:
            manifest = read_manifest(storage.read_json(path / MANIFEST_NAME), path)
        except TalkheadError as error:
            return IdentitySummary(name, path, "", "", (), size, is_latest, str(error))
        renderers = tuple(sorted(manifest.renderers))
        return IdentitySummary(
            name, path, manifest.created, manifest.preset, renderers, size, is_latest, ""
        )

    def latest(self) -> str | None:
        """Return the identity fitted or imported last.

        Returns:
            Its name. If it was removed and only one identity is left, the name of that one. None
            otherwise.
        """
        names = self.names()
        if self.latest_path.is_file():
            try:
                record = storage.read_json(self.latest_path)
            except PackageError:  # damaged: no identity, until one is fitted or imported
                record = None
            if isinstance(record, dict) and record.get("name") in names:
                return str(record["name"])
        return names[0] if len(names) == 1 else None

    def remember(self, name: str) -> None:
        """Make an identity the one that `speak` uses by default.

        Args:
            name: Name of the identity.

        Raises:
            TalkheadError: The home folder cannot be written.
        """
        storage.make_folder(self.path)
        storage.write_json(self.latest_path, {"name": check_name(name)})

    def resolve(self, identity: str | Path | None = None) -> Path:
        """Find the package of an identity.

        Args:
            identity: Name, or folder of a package; a name takes precedence. None: the latest
                identity.

        Returns:
            Folder of the package.

        Raises:
            PackageError: There is none; the message lists those that exist.
        """
        if identity is None:
            return self._resolve_latest()
        if str(identity) in self.names():
            return self.identities_dir / str(identity)
        path = storage.expand_user(identity)
        if (path / MANIFEST_NAME).is_file():
            return path
        if path.is_file() and path.suffix == EXPORT_SUFFIX:
            raise PackageError(f"{path}: import it first: talkhead identities import {path}")
        if str(identity) in self.unfinished():
            name = str(identity)
            raise PackageError(
                f"identity {name}: its fit is not finished; {self._commands_for(name)}"
            )
        raise PackageError(f"identity {identity}: not found. {self._choices()}")

    def _resolve_latest(self) -> Path:
        name = self.latest()
        if name is None and self.names():
            raise PackageError(f"which identity? {self._choices()}")
        if name is None:
            raise PackageError(self._choices())
        return self.identities_dir / name

    def _choices(self) -> str:
        """Format the identities that exist as a sentence."""
        names = self.names()
        if not names:
            return f"There are no identities in {self.path} yet: talkhead fit --video person.mp4"
        return f"Choose one of: {', '.join(names)}"

    def load(self, identity: str | Path | None = None) -> IdentityPackage:
        """Load and verify the package of an identity.

        Args:
            identity: See `resolve`.

        Returns:
            The package.

        Raises:
            PackageError: There is none, or it is damaged.
        """
        return IdentityPackage.load(self.resolve(identity))

    def remove(self, name: str) -> list[Path]:
        """Remove the package, the work, the report and the web export of an identity.

        Args:
            name: Name of the identity.

        Returns:
            The folders that were removed.

        Raises:
            PackageError: There is no identity with this name.
            TalkheadError: Permission is missing, or another process works on the identity.
        """
        if not self.has(name):
            raise PackageError(f"identity {name}: not found. {self._choices()}")
        with self.lock(name, refuse_busy(name)):
            was_latest = self.latest() == name
            folders = self._folders(name)
            for folder in folders:
                removed = folder.with_name(f".{folder.name}.old-{secrets.token_hex(4)}")
                with storage.translate_os_errors(folder):
                    os.replace(folder, removed)  # atomically
                _remove_completely(removed)
            for left in self._leftovers(name):
                _remove_completely(left)
            if was_latest:
                self.latest_path.unlink(missing_ok=True)
        return folders

    def has(self, name: str) -> bool:
        """Check if there is a package, work, a report or a web export of a name.

        Args:
            name: A name.

        Returns:
            True if there is.
        """
        return _NAME.fullmatch(name) is not None and bool(self._folders(name))

    def _folders(self, name: str) -> list[Path]:
        """List the folders of a name. A package may be too damaged to be listed."""
        named = [self.identities_dir / name, self.report_path(name), self.web_path(name)]
        return [folder for folder in [*named, *self._work_dirs(name)] if folder.is_dir()]

    def _leftovers(self, name: str) -> list[Path]:
        """List the remains of a name's folders that killed processes have left."""
        pattern = re.compile(rf"\.{re.escape(name)}(-[0-9a-f]{{12}})?\.(tmp|old)-[0-9a-f]+")
        entries = [one for place in PERSONAL_FOLDERS for one in (self.path / place).glob(".*")]
        return [entry for entry in entries if pattern.fullmatch(entry.name)]

    def is_under_way(self, name: str) -> bool:
        """Check if an identity is being fitted, or its fit was interrupted.

        Args:
            name: A name.

        Returns:
            True if there is work of that name.
        """
        return _NAME.fullmatch(name) is not None and bool(self._work_dirs(name))

    def _work_dirs(self, name: str) -> list[Path]:
        matches = ((folder, _WORK.fullmatch(folder.name)) for folder in self._works())
        return [folder for folder, match in matches if match and match[1] == name]

    def _works(self) -> list[Path]:
        work = self.path / "work"
        return sorted(work.iterdir()) if work.is_dir() else []

    def export(self, identity: str | Path | None, path: Path | None = None) -> Path:
        """Export an identity to a single file.

        Args:
            identity: See `resolve`.
            path: The file. None: NAME.talkhead in the current folder.

        Returns:
            The file.

        Raises:
            PackageError: The package is damaged.
            TalkheadError: The file cannot be written.
        """
        package = self.load(identity)
        return export_package(package, path or Path(package.manifest.name + EXPORT_SUFFIX))

    def import_(self, path: Path, name: str | None = None, *, replace: bool = False) -> Path:
        """Import an exported identity, which becomes the latest.

        Args:
            path: The file.
            name: Name of the identity; None for the exported one.
            replace: Replace an identity of that name.

        Returns:
            Folder of the package.

        Raises:
            PackageError: The file is damaged, or the name is taken and replace is False.
        """
        name = check_name(name or read_export_manifest(path).name)
        if name in self.names() and not replace:
            raise PackageError(f"identity {name}: already exists. Pass --name OTHER, or --replace")
        with self.lock(name, refuse_busy(name)):
            package = import_package(path, self.identity_dir(name))
        self.remember(name)
        return package.path


def refuse_busy(name: str) -> Callable[[Holder], None]:
    """Make a function for `Home.lock` that refuses instead of waiting.

    Args:
        name: Name of the identity.

    Returns:
        A function that raises TalkheadError, naming the process that holds the lock.
    """

    def refuse(holder: Holder) -> None:
        raise TalkheadError(
            f"{name}: {holder} is working on this identity. Wait until it has ended, or end it"
        )

    return refuse


def _size_of(folder: Path) -> int:
    """Add up the sizes of all files in a folder, to which other processes may be writing."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total


def _remove_completely(folder: Path) -> None:
    """Remove a folder. Raises TalkheadError if any part of it remains."""
    storage.remove(folder)
    if folder.exists():
        raise TalkheadError(
            f"{folder}: cannot be removed completely. Remove it yourself: it contains images of the "
            "person"
        )


def package_fingerprint(manifest: Manifest, renderer: str = "") -> str:
    """Hash everything that a video depends on in a package.

    Args:
        manifest: Manifest of the package.
        renderer: Name of the renderer. "": the package's own. Other renderers are ignored.

    Returns:
        16 hex digits.
    """
    used = renderer or manifest.default_renderer
    others = {part.file for name, part in manifest.renderers.items() if name != used}
    unused = {*others, SHEET, QUALITY}
    files = {name: digest for name, digest in manifest.files.items() if name not in unused}
    return storage.fingerprint([used, manifest.consent, files])[:16]


def check_name(name: str) -> str:
    """Check the name of an identity.

    Args:
        name: The name.

    Returns:
        The name.

    Raises:
        TalkheadError: It is not allowed; the message says which names are.
    """
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise TalkheadError(
            f"name {name!r}: not allowed. Use up to {MAX_NAME_LENGTH} letters, digits, '-', '_' "
            "and '.', beginning with a letter or digit"
        )
    return name


def name_from_video(path: Path) -> str:
    """Make the name of an identity from a video's: "Anna B (1).mp4" gives "Anna-B-1".

    Args:
        path: The video.

    Returns:
        The name.
    """
    stem = unicodedata.normalize("NFC", path.stem)
    slug = re.sub(r"[^\w.]+", "-", stem).strip("-._")[:MAX_NAME_LENGTH].rstrip("-.")
    return slug or "person"
