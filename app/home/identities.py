"""The fitted people of one user: where their packages and half-done work are, which is newest.

HOME/
  identities/NAME/        packages
  work/NAME-<hash>/       datasets and checkpoints of `fit`, from which it resumes
  reports/NAME/           what `fit` and `evaluate` wrote to be read
  locks/NAME.lock         held by the process that fits or removes NAME, gone with it
  scratch/                folders of commands that are at work (`talkhead.app.home.scratch`)
  latest.json             who was fitted or imported last
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
from talkhead.locks import Holder, held, holder_of, is_locked

HOME_VARIABLE = "TALKHEAD_HOME"
OWN_FOLDERS = ("identities", "jobs", "locks", "reports", "scratch", "signing", "work")
"""Of a home folder, where only talkhead writes."""
DATASET, SOURCE = "dataset", "source.json"
"""In a folder of work: the prepared footage, and where the video is."""
USES_ALL = "use_all_frames"
"""Key of a package's details: whether no frames were held out."""
SHEET, QUALITY = "sheet.png", "quality.json"
"""Files of a package that are there to be looked at."""
MAX_NAME_LENGTH = 64

_NAME = re.compile(rf"\w[\w.-]{{0,{MAX_NAME_LENGTH - 1}}}")
_WORK = re.compile(rf"({_NAME.pattern})-[0-9a-f]{{12}}")


@dataclass(frozen=True)
class IdentitySummary:
    """One line of the list. `problem` says why the package can't be used; empty when it can.

    is_finished: whether there is a package; else path and size_bytes are of the work of its fit.
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
    """A user's data folder. Nothing is created before something is written."""

    path: Path

    @classmethod
    def locate(cls, path: Path | str | None = None) -> Home:
        """The home at path, else at $TALKHEAD_HOME, else in the user's data folder."""
        chosen = path or os.environ.get(HOME_VARIABLE)
        if chosen:
            return cls(storage.expanded(chosen).absolute())
        from platformdirs import user_data_path

        return cls(user_data_path("talkhead", appauthor=False))

    def is_own(self, path: Path) -> bool:
        """Whether a path lies where only talkhead writes: no output goes there."""
        real = Path(os.path.realpath(path))
        own = {Path(os.path.realpath(self.path / name)) for name in OWN_FOLDERS}
        return not own.isdisjoint({real, *real.parents})

    @property
    def identities_dir(self) -> Path:
        return self.path / "identities"

    @property
    def latest_path(self) -> Path:
        return self.path / "latest.json"

    def identity_dir(self, name: str) -> Path:
        """Where the package of that name is or goes. Raises TalkheadError for a bad name."""
        return self.identities_dir / check_name(name)

    def work_path(self, name: str, key: str) -> Path:
        """The folder of the work on name under key: one key, one folder, which need not be there.

        key holds whatever makes work reusable: the video's checksum and the settings.
        """
        digest = storage.fingerprint_of_text(key)[:12]
        return self.path / "work" / f"{check_name(name)}-{digest}"

    @contextmanager
    def lock(self, name: str, busy: Callable[[Holder], None]) -> Iterator[None]:
        """A block in which this process alone changes what there is of name.

        busy: see `talkhead.locks.held`.
        """
        path = self._lock_path(name)
        storage.make_folder(path.parent)
        with held(path, busy):
            yield

    def _lock_path(self, name: str) -> Path:
        return self.path / "locks" / f"{check_name(name)}.lock"

    def report_path(self, name: str) -> Path:
        """The folder of the report on an identity, which need not be there."""
        return self.path / "reports" / check_name(name)

    def names(self) -> list[str]:
        """The names of all identities, sorted."""
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
        """The names that there is only work of, sorted: their fit goes on or was interrupted."""
        found = {match[1] for folder in self._works() if (match := _WORK.fullmatch(folder.name))}
        return sorted(found - set(self.names()))

    def summaries(self) -> list[IdentitySummary]:
        """A line for each identity, sorted by name; damaged and unfinished ones say so."""
        latest = self.latest()
        whole = [self._summary(name, is_latest=name == latest) for name in self.names()]
        parts = [self._unfinished_summary(name) for name in self.unfinished()]
        return sorted([*whole, *parts], key=lambda summary: summary.name)

    def _unfinished_summary(self, name: str) -> IdentitySummary:
        works = self._work_dirs(name)
        size = sum(_size_of(folder) for folder in works)
        lock = self._lock_path(name)
        holder = holder_of(lock) if is_locked(lock) else None
        problem = f"{holder} works on it" if holder else f"not finished; {self._go_on(name)}"
        return IdentitySummary(name, works[0], "", "", (), size, False, problem, is_finished=False)

    def _go_on(self, name: str) -> str:
        """What to type to finish a fit, or to be rid of it."""
        videos = [path for path, _ in self.sources(name) if path]
        video = shlex.quote(videos[0]) if videos else "VIDEO"
        return (
            f"to go on: talkhead fit --video {video} --name {name}, to drop it: talkhead identities "
            f"remove {name}"
        )

    def sources(self, name: str) -> list[tuple[str, str]]:
        """Path and SHA-256 of each video that there is work on under a name; "" where unknown."""
        found = []
        for folder in self._work_dirs(name):
            try:
                said = storage.read_json(folder / SOURCE)
            except TalkheadError:  # none yet, or damaged
                continue
            if isinstance(said, dict):
                found.append((str(said.get("path", "")), str(said.get("sha256", ""))))
        return found

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
        """The identity fitted or imported last; the only one when that one is gone; else None."""
        names = self.names()
        if self.latest_path.is_file():
            try:
                said = storage.read_json(self.latest_path)
            except PackageError:  # damaged: it says nobody, until somebody is fitted or imported
                said = None
            if isinstance(said, dict) and said.get("name") in names:
                return str(said["name"])
        return names[0] if len(names) == 1 else None

    def remember(self, name: str) -> None:
        """Make name the identity that `speak` takes by default. Raises TalkheadError."""
        storage.make_folder(self.path)
        storage.write_json(self.latest_path, {"name": check_name(name)})

    def resolve(self, identity: str | Path | None = None) -> Path:
        """The package folder of an identity: a name, a path, or None for the latest one.

        A name goes before a path. Raises PackageError, listing those that exist.
        """
        if identity is None:
            return self._resolve_latest()
        if str(identity) in self.names():
            return self.identities_dir / str(identity)
        path = storage.expanded(identity)
        if (path / MANIFEST_NAME).is_file():
            return path
        if path.is_file() and path.suffix == EXPORT_SUFFIX:
            raise PackageError(f"{path}: import it first: talkhead identities import {path}")
        if str(identity) in self.unfinished():
            name = str(identity)
            raise PackageError(f"identity {name}: its fit has not finished; {self._go_on(name)}")
        raise PackageError(f"identity {identity}: there is none of this name. {self._choices()}")

    def _resolve_latest(self) -> Path:
        name = self.latest()
        if name is None and self.names():
            raise PackageError(f"which identity? {self._choices()}")
        if name is None:
            raise PackageError(self._choices())
        return self.identities_dir / name

    def _choices(self) -> str:
        """What there is to choose from, as a sentence."""
        names = self.names()
        if not names:
            return f"There are none in {self.path} yet: talkhead fit --video person.mp4"
        return f"There are: {', '.join(names)}"

    def load(self, identity: str | Path | None = None) -> IdentityPackage:
        """The verified package of resolve(identity). Raises PackageError."""
        return IdentityPackage.load(self.resolve(identity))

    def remove(self, name: str) -> list[Path]:
        """The folders that are now gone: the package, the work, finished or not, and the report.

        Raises PackageError when there is none, TalkheadError without permission or while a process
        works on the identity.
        """
        if not self.has(name):
            raise PackageError(f"identity {name}: there is none of this name. {self._choices()}")
        with self.lock(name, refuse_busy(name)):
            was_latest = self.latest() == name
            folders = self._folders(name)
            for folder in folders:
                doomed = folder.with_name(f".{folder.name}.old-{secrets.token_hex(4)}")
                with storage.translate_os_errors(folder):
                    os.replace(folder, doomed)  # it is there or not, never half
                _remove_whole(doomed)
            for left in self._leftovers(name):
                _remove_whole(left)
            if was_latest:
                self.latest_path.unlink(missing_ok=True)
        return folders

    def has(self, name: str) -> bool:
        """Whether there is anything of that name: a package, work or a report."""
        return _NAME.fullmatch(name) is not None and bool(self._folders(name))

    def _folders(self, name: str) -> list[Path]:
        """What there is of a name. A package may be damaged beyond being listed."""
        whole = [self.identities_dir / name, *self._work_dirs(name), self.report_path(name)]
        return [folder for folder in whole if folder.is_dir()]

    def _leftovers(self, name: str) -> list[Path]:
        """What killed processes left of a name's folders."""
        pattern = re.compile(rf"\.{re.escape(name)}(-[0-9a-f]{{12}})?\.(tmp|old)-[0-9a-f]+")
        places = (self.identities_dir, self.path / "work", self.path / "reports")
        entries = [entry for place in places if place.is_dir() for entry in place.iterdir()]
        return [entry for entry in entries if pattern.fullmatch(entry.name)]

    def is_under_way(self, name: str) -> bool:
        """Whether somebody of that name is being fitted, or their fit was interrupted."""
        return _NAME.fullmatch(name) is not None and bool(self._work_dirs(name))

    def _work_dirs(self, name: str) -> list[Path]:
        matches = ((folder, _WORK.fullmatch(folder.name)) for folder in self._works())
        return [folder for folder, match in matches if match and match[1] == name]

    def _works(self) -> list[Path]:
        work = self.path / "work"
        return sorted(work.iterdir()) if work.is_dir() else []

    def export(self, identity: str | Path | None, path: Path | None = None) -> Path:
        """The one file, by default NAME.talkhead here, that now holds the identity.

        Raises PackageError when the package is damaged, TalkheadError when path can't be written.
        """
        package = self.load(identity)
        return export_package(package, path or Path(package.manifest.name + EXPORT_SUFFIX))

    def import_(self, path: Path, name: str | None = None, *, replace: bool = False) -> Path:
        """The package folder made from an exported file; it is the latest now.

        The name is the exported one unless given. Raises PackageError when the file is damaged
        or, without replace, when the name is taken.
        """
        name = check_name(name or read_export_manifest(path).name)
        if name in self.names() and not replace:
            raise PackageError(
                f"identity {name}: there is one already. Pass --name OTHER, or --replace"
            )
        with self.lock(name, refuse_busy(name)):
            package = import_package(path, self.identity_dir(name))
        self.remember(name)
        return package.path


def refuse_busy(name: str) -> Callable[[Holder], None]:
    """What `Home.lock` calls so as not to wait: it raises TalkheadError saying who has name."""

    def refuse(holder: Holder) -> None:
        raise TalkheadError(
            f"{name}: {holder} works on this identity. Wait until it has ended, or end it"
        )

    return refuse


def _size_of(folder: Path) -> int:
    """Bytes of all files below a folder, which may be written to meanwhile."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total


def _remove_whole(folder: Path) -> None:
    """Remove a folder. Raises TalkheadError where something of it stays."""
    storage.remove(folder)
    if folder.exists():
        raise TalkheadError(
            f"{folder}: can't be removed whole. Remove it yourself: it holds pictures of the person"
        )


def package_fingerprint(manifest: Manifest, renderer: str = "") -> str:
    """16 hex digits of all that a line takes from a package: others for a person who was fitted anew.

    renderer: the line's, "": the package's own. A second head, which the line doesn't show, changes
    nothing.
    """
    used = renderer or manifest.default_renderer
    others = {part.file for name, part in manifest.renderers.items() if name != used}
    unused = {*others, SHEET, QUALITY}
    files = {name: digest for name, digest in manifest.files.items() if name not in unused}
    return storage.fingerprint([used, manifest.consent, files])[:16]


def check_name(name: str) -> str:
    """name, if it can be an identity's. Raises TalkheadError saying what is allowed."""
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise TalkheadError(
            f"name {name!r}: not possible. Use up to {MAX_NAME_LENGTH} letters, digits, '-', '_' "
            "and '.', beginning with a letter or digit"
        )
    return name


def name_from_video(path: Path) -> str:
    """An identity's name made from a video's: "Anna B (1).mp4" gives "Anna-B-1"."""
    stem = unicodedata.normalize("NFC", path.stem)
    slug = re.sub(r"[^\w.]+", "-", stem).strip("-._")[:MAX_NAME_LENGTH].rstrip("-.")
    return slug or "person"
