"""Rows of a table -> tasks: which identity each needs, and which must be fitted first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from talkhead.app.choices import DEFAULT_PRESET
from talkhead.app.dubbing.job import FIT, Task
from talkhead.app.dubbing.table import FindIdentity, Row
from talkhead.app.home.identities import (
    DEFAULT_RENDERER,
    Home,
    name_from_video,
    package_fingerprint,
)
from talkhead.errors import PackageError, TalkheadError
from talkhead.identity import MANIFEST_NAME, read_manifest
from talkhead.storage import read_json, sha256_of, translate_os_errors, write_json


def identity_finder(home: Home) -> FindIdentity:
    """A function that gives the name of an identity of home, or the folder of one that lies elsewhere.

    It raises TalkheadError for one that can't be used now.
    """

    def find(text: str, path: Path) -> str:
        if text in home.names():
            return text
        if home.is_under_way(text):
            raise TalkheadError(
                f"identity {text}: is still being fitted, or its fit was interrupted. Wait for it, or "
                "run the same talkhead fit again"
            )
        found = home.resolve(path)
        return found.name if found.parent == home.identities_dir else str(found)

    return find


def package_finder(home: Home) -> Callable[[Task], str]:
    """A function from a task to the `package_fingerprint` of the package it would use now; "" where no
    package can be read."""

    @cache
    def state(identity: str, renderer: str) -> str:
        try:
            path = home.resolve(identity)
            return package_fingerprint(
                read_manifest(read_json(path / MANIFEST_NAME), path), renderer
            )
        except PackageError:
            return ""

    return lambda task: state(task.identity, task.renderer)


def plan(
    rows: Iterable[Row],
    home: Home,
    open_fits: Sequence[Task] = (),
    tell: Callable[[str], None] = lambda note: None,
) -> list[Task]:
    """The tasks of rows: a fit for each video whose person isn't known yet, and a line for each row.

    open_fits: asked for by other tables, and not made yet; those of whoever speaks here are among the
    tasks, as lines have to wait for them. tell: is told of what is not done as a row says.
    """
    casting = IdentityPlanner(home, open_fits, tell)
    try:
        lines = [casting.line(row) for row in rows]
    finally:
        casting.sums.save()  # also of a call that breaks off: large videos are not read in vain
    speaking = {line.identity for line in lines}
    others = {fit.id: fit for fit in open_fits if fit.identity in speaking}
    return [*{**others, **casting.fits}.values(), *lines]


class IdentityPlanner:
    """Who speaks: the person of each video, by its content, fitted or to be fitted."""

    def __init__(self, home: Home, open_fits: Sequence[Task], tell: Callable[[str], None]) -> None:
        self._home, self._tell = home, tell
        people = list(_people(home))
        self._presets = {p.name: fit.preset for _, p in people for fit in p.fits.values()}
        self._known = dict(people)
        for task in open_fits:
            person = self._known.setdefault(task.digest, KnownIdentity(task.identity, {}))
            person.fits.setdefault(task.renderer, task)
        self._open = {task.id for task in open_fits}
        self._noted: set[str] = set()
        self.sums = Checksums.of_home(home)
        self.fits: dict[str, Task] = {}

    def line(self, row: Row) -> Task:
        """The task of a row."""
        fit = None if row.identity or row.video is None else self._fit(row, row.video)
        name = row.identity or (fit.identity if fit else "")
        self._note_preset(row, name, fit.preset if fit else self._presets.get(name, ""))
        return Task(
            "line",
            name,
            audio=str(row.audio),
            output=str(row.output),
            video=str(row.video) if row.video is not None and row.timeline == "source" else "",
            renderer=row.renderer or (fit.renderer if fit else ""),
            mode=row.mode,
            options=row.options,
            needs=fit.id if fit is not None and fit.id in self.fits else "",
        )

    def _fit(self, row: Row, video: Path) -> Task:
        """The fit of a video's person and renderer; it is among `fits` if it must still be made."""
        digest = self.sums.of(video)
        person = self._known.get(digest)
        if person is None:
            person = self._known[digest] = KnownIdentity(self._free_name(video, digest), {})
        renderer = row.renderer or next(iter(person.fits), DEFAULT_RENDERER)
        known = person.fits.get(renderer)
        if known is not None and known.id not in self._open:
            return known
        task = Task(
            FIT,
            person.name,
            video=str(video),
            digest=digest,
            renderer=renderer,
            preset=row.preset or (known.preset if known else DEFAULT_PRESET),
        )
        self._open.discard(task.id)  # what the first row says of it holds
        person.fits[renderer] = self.fits[task.id] = task
        return task

    def _free_name(self, video: Path, digest: str) -> str:
        name = name_from_video(video)
        taken = {*self._home.names(), *(person.name for person in self._known.values())}
        return name if name not in taken else f"{name[:50]}-{digest[:8]}"

    def _note_preset(self, row: Row, name: str, preset: str) -> None:
        """Tell, once of each person, that they are fitted otherwise than a row says."""
        if row.preset in ("", preset) or name in self._noted:
            return
        self._noted.add(name)
        self._tell(
            f"line {row.line}: preset {row.preset} is not used: {name} is fitted "
            f"{f'with {preset}' if preset else 'already'}. To fit them anew: talkhead fit "
            f"--preset {row.preset}"
        )


@dataclass(frozen=True)
class KnownIdentity:
    """Who is in a video, and the fits of their renderers, done or to be done; first the default one."""

    name: str
    fits: dict[str, Task]


def _people(home: Home) -> Iterator[tuple[str, KnownIdentity]]:
    """The checksum of the footage of each identity, and who it is."""
    for name in home.names():
        path = home.identity_dir(name)
        try:
            manifest = read_manifest(read_json(path / MANIFEST_NAME), path)
        except PackageError:  # damaged or of another version: fitted again
            continue
        digest, preset = manifest.source.sha256, manifest.preset
        renderers = dict.fromkeys([manifest.default_renderer, *manifest.renderers])
        made = Task(FIT, name, digest=digest, preset=preset)
        yield digest, KnownIdentity(name, {one: replace(made, renderer=one) for one in renderers})


class Checksums:
    """SHA-256 of files, kept in a file once saved: large videos are read once."""

    def __init__(self, path: Path) -> None:
        self._path, self._is_saved = path, True
        try:
            held = read_json(path) if path.exists() else {}
        except PackageError:
            held = {}
        items = held.items() if isinstance(held, dict) else ()
        self._kept: dict[str, list[Any]] = {
            name: kept
            for name, kept in items
            if isinstance(kept, list) and [type(value) for value in kept] == [int, int, str]
        }

    @classmethod
    def of_home(cls, home: Home) -> Checksums:
        """Those that are kept in a home folder."""
        return cls(home.path / "jobs" / "checksums.json")

    def forget(self, digests: Collection[str]) -> list[str]:
        """The paths of the files with those checksums, which are now kept no more."""
        paths = [path for path, kept in self._kept.items() if kept[-1] in digests]
        for path in paths:
            del self._kept[path]
        self._is_saved = self._is_saved and not paths
        self.save()
        return paths

    def of(self, path: Path) -> str:
        """The file's checksum. Raises TalkheadError."""
        with translate_os_errors(path):
            state = path.stat()
        known = self._kept.get(str(path))
        now = [state.st_size, state.st_mtime_ns]
        if not (isinstance(known, list) and len(known) == 3 and known[:2] == now):
            known = [*now, sha256_of(path)]
            self._kept[str(path)], self._is_saved = known, False
        return str(known[2])

    def save(self) -> None:
        """Write the file if there is something new. Raises TalkheadError."""
        if not self._is_saved:
            write_json(self._path, self._kept)
            self._is_saved = True
