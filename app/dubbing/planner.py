"""Plan the tasks of a table: the identity that each row needs, and the identities to fit first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from talkhead.app.choices import DEFAULT_PRESET, DEFAULT_RENDERER
from talkhead.app.dubbing.job import DUB, FIT, SPEAK, Task
from talkhead.app.dubbing.table import FindIdentity, Row
from talkhead.app.home.identities import (
    Home,
    name_from_video,
    package_fingerprint,
)
from talkhead.errors import PackageError, TalkheadError
from talkhead.identity import MANIFEST_NAME, read_manifest
from talkhead.storage import read_json, sha256_of, translate_os_errors, write_json


def identity_finder(home: Home) -> FindIdentity:
    """Make a function that resolves the identities of a table; see FindIdentity.

    Args:
        home: The home folder.

    Returns:
        A function that returns the name of an identity in the home folder, or the folder of a package
        elsewhere. It raises TalkheadError if the identity cannot be used now.
    """

    def find(text: str, path: Path) -> str:
        if text in home.names():
            return text
        if home.is_under_way(text):
            raise TalkheadError(
                f"identity {text}: is still being fitted, or its fit was interrupted. Wait until it "
                "ends, or run the same talkhead fit again"
            )
        found = home.resolve(path)
        return found.name if found.parent == home.identities_dir else str(found)

    return find


def package_finder(home: Home) -> Callable[[Task], str]:
    """Make a function that fingerprints the package that a task would use now.

    Args:
        home: The home folder.

    Returns:
        A function that maps a task to its `package_fingerprint`, or to those of several speakers, joined;
        "" if a package cannot be read.
    """

    @cache
    def fingerprint(identity: str, renderer: str) -> str:
        try:
            path = home.resolve(identity)
            return package_fingerprint(
                read_manifest(read_json(path / MANIFEST_NAME), path), renderer
            )
        except PackageError:
            return ""

    def find(task: Task) -> str:
        found = [fingerprint(identity, task.renderer) for identity in task.identities]
        return "-".join(found) if all(found) else ""

    return find


def plan(
    rows: Iterable[Row],
    home: Home,
    open_fits: Sequence[Task] = (),
    notify: Callable[[str], None] = lambda note: None,
) -> list[Task]:
    """Plan the tasks of rows: a fit for each video of an unknown person, and a rendering for each row.

    Args:
        rows: The rows.
        home: The home folder.
        open_fits: Unfinished fits of other tables. Those of identities that the rows need are
            among the returned tasks, because rendering has to wait for them.
        notify: Function that receives a message for each setting of a row that has no effect.

    Returns:
        The tasks, fits first.

    Raises:
        TalkheadError: If a video cannot be read.
    """
    planner = IdentityPlanner(home, open_fits, notify)
    try:
        tasks = [planner.plan_row(row) for row in rows]
    finally:
        planner.checksums.save()  # after an error, too: large videos need not be read again
    speaking = {identity for task in tasks for identity in task.identities}
    others = {fit.id: fit for fit in open_fits if fit.identity in speaking}
    return [*{**others, **planner.fits}.values(), *tasks]


class IdentityPlanner:
    """Finds the identity of each row and the fits that are needed. Videos are recognized by content.

    Args:
        home: The home folder.
        open_fits: Unfinished fits of other tables.
        notify: Function that receives a message for each setting of a row that has no effect.

    Attributes:
        checksums: Checksums of the videos.
        fits: The fits that the rows need, by ID.
    """

    def __init__(
        self, home: Home, open_fits: Sequence[Task], notify: Callable[[str], None]
    ) -> None:
        self._home, self._notify = home, notify
        identities = list(_known_identities(home))
        self._presets = {i.name: fit.preset for _, i in identities for fit in i.fits.values()}
        self._known = dict(identities)
        for task in open_fits:
            known = self._known.setdefault(task.digest, KnownIdentity(task.identity, {}))
            known.fits.setdefault(task.renderer, task)
        self._open = {task.id for task in open_fits}
        self._notified: set[str] = set()
        self.checksums = Checksums.of_home(home)
        self.fits: dict[str, Task] = {}

    def plan_row(self, row: Row) -> Task:
        """Plan the task of a row and add its fit to `fits` if one is needed.

        Args:
            row: The row.

        Returns:
            The task.

        Raises:
            TalkheadError: If the row's video cannot be read.
        """
        speakers = {} if row.dub is None else row.dub.speakers
        name = row.identity or next(iter(speakers.values()), "")
        fit = None if name or row.video is None else self._fit(row, row.video)
        name = name or (fit.identity if fit else "")
        self._note_preset(row, name, fit.preset if fit else self._presets.get(name, ""))
        return Task(
            SPEAK if row.dub is None else DUB,
            name,
            audio="" if row.audio is None else str(row.audio),
            output=str(row.output),
            video=str(row.video) if row.video is not None and row.keeps_footage else "",
            renderer=row.renderer or (fit.renderer if fit else ""),
            mode=row.mode,
            options=row.options,
            needs=fit.id if fit is not None and fit.id in self.fits else "",
            dub=row.dub,
        )

    def _fit(self, row: Row, video: Path) -> Task:
        """Return the fit of a video and renderer. Add it to `fits` if it is not done."""
        digest = self.checksums.of(video)
        identity = self._known.get(digest)
        if identity is None:
            identity = self._known[digest] = KnownIdentity(self._free_name(video, digest), {})
        renderer = row.renderer or next(iter(identity.fits), DEFAULT_RENDERER)
        known = identity.fits.get(renderer)
        if known is not None and known.id not in self._open:
            return known
        task = Task(
            FIT,
            identity.name,
            video=str(video),
            digest=digest,
            renderer=renderer,
            preset=row.preset or (known.preset if known else DEFAULT_PRESET),
        )
        self._open.discard(task.id)  # the first row determines its settings
        identity.fits[renderer] = self.fits[task.id] = task
        return task

    def _free_name(self, video: Path, digest: str) -> str:
        name = name_from_video(video)
        taken = {*self._home.names(), *(identity.name for identity in self._known.values())}
        return name if name not in taken else f"{name[:50]}-{digest[:8]}"

    def _note_preset(self, row: Row, name: str, preset: str) -> None:
        """Notify, once per identity, that a row asks for a preset other than the identity's."""
        if row.preset in ("", preset) or name in self._notified:
            return
        self._notified.add(name)
        self._notify(
            f"line {row.line}: preset {row.preset} is not used: {name} is "
            f"{f'fitted with {preset}' if preset else 'already fitted'}. To fit it again: talkhead fit "
            f"--preset {row.preset}"
        )


@dataclass(frozen=True)
class KnownIdentity:
    """The identity of a video.

    Attributes:
        name: Its name.
        fits: Its fits by renderer, done or not; the default renderer comes first.
    """

    name: str
    fits: dict[str, Task]


def _known_identities(home: Home) -> Iterator[tuple[str, KnownIdentity]]:
    """Yield each identity with the checksum of its footage."""
    for name in home.names():
        path = home.identity_dir(name)
        try:
            manifest = read_manifest(read_json(path / MANIFEST_NAME), path)
        except PackageError:  # damaged or of another version: fitted again
            continue
        digest, preset = manifest.source.sha256, manifest.preset
        renderers = dict.fromkeys([manifest.default_renderer, *manifest.renderers])
        fit = Task(FIT, name, digest=digest, preset=preset)
        yield digest, KnownIdentity(name, {one: replace(fit, renderer=one) for one in renderers})


class Checksums:
    """Cache of SHA-256 checksums, stored in a JSON file, so that large videos are read only once.

    Args:
        path: The JSON file, which need not exist; damaged entries are ignored.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._is_saved = path, True
        try:
            stored = read_json(path) if path.exists() else {}
        except PackageError:
            stored = {}
        items = stored.items() if isinstance(stored, dict) else ()
        self._entries: dict[str, list[Any]] = {
            name: entry
            for name, entry in items
            if isinstance(entry, list) and [type(value) for value in entry] == [int, int, str]
        }

    @classmethod
    def of_home(cls, home: Home) -> Checksums:
        """Open the checksums of a home folder.

        Args:
            home: The home folder.

        Returns:
            The checksums.
        """
        return cls(home.path / "jobs" / "checksums.json")

    def forget(self, digests: Collection[str]) -> list[str]:
        """Remove checksums and save.

        Args:
            digests: The checksums to remove.

        Returns:
            Paths of the files that had them.

        Raises:
            TalkheadError: If the JSON file cannot be written.
        """
        paths = [path for path, entry in self._entries.items() if entry[-1] in digests]
        for path in paths:
            del self._entries[path]
        self._is_saved = self._is_saved and not paths
        self.save()
        return paths

    def of(self, path: Path) -> str:
        """Return the checksum of a file. It is computed only if the file is new or has changed.

        Args:
            path: The file.

        Returns:
            64 hexadecimal digits.

        Raises:
            TalkheadError: If the file cannot be read.
        """
        with translate_os_errors(path):
            state = path.stat()
        known = self._entries.get(str(path))
        now = [state.st_size, state.st_mtime_ns]
        if not (isinstance(known, list) and len(known) == 3 and known[:2] == now):
            known = [*now, sha256_of(path)]
            self._entries[str(path)], self._is_saved = known, False
        return str(known[2])

    def save(self) -> None:
        """Write the JSON file if an entry has changed.

        Raises:
            TalkheadError: If it cannot be written.
        """
        if not self._is_saved:
            write_json(self._path, self._entries)
            self._is_saved = True
