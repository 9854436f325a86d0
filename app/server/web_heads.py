"""Web exports of the people of a home folder, written when they are first needed.

HOME/web/NAME/<hash>/   the export of NAME's package as it is now, without lines and live speech
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from talkhead import __version__
from talkhead.app.dubbing.events import JobProgressed
from talkhead.app.home.identities import Home, refuse_busy
from talkhead.app.home.scratch import scratch_folder
from talkhead.app.output.publish import publish
from talkhead.app.server.logs import log_error
from talkhead.app.server.models import Status
from talkhead.app.server.runner import Advance, advance_after
from talkhead.app.web_export.request import (
    RENDERER,
    SOURCES,
    VERSION,
    WebRequest,
    check_renderer,
)
from talkhead.errors import TalkheadError, one_line
from talkhead.identity import MANIFEST_NAME, read_manifest
from talkhead.progress import NumberedProgress, SilentProgress, Step
from talkhead.storage import fingerprint, make_folder, read_json, remove, sha256_of

STEPS = ("Writing the head", "Writing the footage")
"""Steps that take long."""


@dataclass
class Build:
    """An export that is being written, or could not be written.

    Attributes:
        folder: Where it is written.
        status: "queued" while another one is written, "in_progress" or "failed".
        advance: Its progress.
        error: Why it could not be written; "" otherwise.
        thread: The thread that writes it.
        is_cancelled: True if it is no longer wanted.
    """

    folder: Path
    status: Status = "queued"
    advance: Advance = field(default_factory=Advance)
    error: str = ""
    thread: threading.Thread = field(init=False)
    is_cancelled: bool = False

    def check_wanted(self) -> None:
        """Check that it is still wanted.

        Raises:
            TalkheadError: It is cancelled.
        """
        if self.is_cancelled:
            raise TalkheadError(
                "the web export was cancelled: the person was deleted or fitted again, or the server "
                "is stopping. Try again"
            )


class WebHeads:
    """Writes exports, one at a time, and finds those that are written.

    Args:
        home: The home folder.
        device: "auto", "cpu", "cuda" or "cuda:N".
    """

    def __init__(self, home: Home, device: str) -> None:
        self._home, self._device = home, device
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._builds: dict[str, Build] = {}

    def folder(self, name: str) -> Path:
        """Write the export of a person, unless it is there already. This may take a minute.

        Args:
            name: Name of a fitted identity.

        Returns:
            The folder.

        Raises:
            TalkheadError: The person cannot be exported, or the export was cancelled.
        """
        build = self.start(name)
        if build is None:
            return self._folder(name)
        build.thread.join()
        if build.error:
            raise TalkheadError(build.error)
        return build.folder

    def find(self, name: str) -> Path | None:
        """Find the export of a person, without writing it.

        Args:
            name: Name of a fitted identity.

        Returns:
            The folder; None if there is no export of the package as it is now.

        Raises:
            TalkheadError: The package is missing or damaged.
        """
        folder = self._folder(name)
        return folder if folder.is_dir() else None

    def start(self, name: str) -> Build | None:
        """Begin to write the export of a person, unless it is written or being written.

        Args:
            name: Name of a fitted identity.

        Returns:
            The export that is being written; None if it is written.

        Raises:
            TalkheadError: The person cannot be exported.
        """
        folder = self._check(name)
        with self._lock:
            if folder.is_dir():
                return None
            known = self._builds.get(name)
            if known is not None and known.folder == folder and known.status != "failed":
                return known
            if known is not None:
                known.is_cancelled = True  # the person was fitted again
            build = self._builds[name] = Build(folder)
            build.thread = threading.Thread(target=self._run, args=(name, build), daemon=True)
            build.thread.start()
            return build

    def build(self, name: str) -> Build | None:
        """Return the state of an export that is being written, or could not be written.

        Args:
            name: Name of a fitted identity.

        Returns:
            The state; None if there is none of the package as it is now.

        Raises:
            TalkheadError: The package is missing or damaged.
        """
        build = self._builds.get(name)
        return build if build is not None and build.folder == self._folder(name) else None

    def forget(self, name: str) -> None:
        """Stop writing the export of a person.

        Args:
            name: Name of the identity.
        """
        with self._lock:
            build = self._builds.pop(name, None)
        if build is None:
            return
        build.is_cancelled = True
        if build.status == "in_progress":
            build.thread.join()  # one that is queued will not begin

    def stop(self) -> None:
        """Stop writing exports."""
        for name in list(self._builds):
            self.forget(name)

    def _run(self, name: str, build: Build) -> None:
        try:
            self._write(name, build)
        except Exception as error:
            is_known = isinstance(error, TalkheadError)
            build.error = one_line(error) if is_known else "internal error, see the server's log"
            build.status = "failed"
            if not build.is_cancelled:
                log_error("web export failed", error, identity=name)
        else:
            with self._lock:
                if self._builds.get(name) is build:
                    del self._builds[name]

    def _write(self, name: str, build: Build) -> None:
        with self._writing:
            from talkhead.app.avatar import load_identity  # imports PyTorch, which takes seconds
            from talkhead.app.web_export.export import write_site

            build.status, build.advance = "in_progress", Advance(0, "Starting")
            build.check_wanted()
            progress = NumberedProgress(_BuildProgress(build), STEPS)
            home = self._home
            avatar = load_identity(name, renderer=RENDERER, device=self._device, home=home.path)
            request = WebRequest(build.folder, (), False, avatar.package.manifest.consent)
            with scratch_folder(home) as scratch:
                site = make_folder(scratch / "site")
                write_site(avatar, request, site, home.path, progress)
                with home.lock(name, refuse_busy(name)):  # nobody removes or replaces the person
                    if self._folder(name) != build.folder:
                        raise TalkheadError(f"{name}: was fitted again meanwhile. Try again")
                    remove(home.web_path(name))
                    publish(site, build.folder)

    def _check(self, name: str) -> Path:
        """Return where the export of a person belongs. Raises TalkheadError if none may be made."""
        folder, path = self._folder(name), self._home.identity_dir(name)
        manifest = read_manifest(read_json(path / MANIFEST_NAME), path)
        check_renderer(manifest)
        if not manifest.consent:
            raise TalkheadError(
                f"{name}: there is no statement of consent, and a web export shows the person to "
                "everybody who has it. Fit them again with --consent"
            )
        return folder

    def _folder(self, name: str) -> Path:
        package = sha256_of(self._home.identity_dir(name) / MANIFEST_NAME)
        digest = fingerprint([package, __version__, VERSION, _scripts(SOURCES)])
        return self._home.web_path(name) / digest[:16]


class _BuildProgress(SilentProgress):
    """Keeps the progress of a build, and ends one that is no longer wanted."""

    def __init__(self, build: Build) -> None:
        self._build = build

    @contextmanager
    def step(self, name: str, total: int | None = None, done: int = 0) -> Iterator[Step]:
        """See Progress."""
        yield _BuildStep(self._build, name, total or 0, done)


class _BuildStep:
    def __init__(self, build: Build, name: str, total: int, done: int) -> None:
        self._build, self._name, self._total, self._done = build, name, total, done
        self.advance(0)

    def advance(self, n: int = 1) -> None:
        self._done += n
        self._build.check_wanted()
        event = JobProgressed("", self._name, self._done, self._total)
        self._build.advance = advance_after(self._build.advance, event)

    def detail(self, text: str) -> None:
        pass

    def skip(self, reason: str) -> None:
        pass


@cache
def _scripts(folder: Path) -> str:
    """Hash the files of the page."""
    return fingerprint([[path.name, sha256_of(path)] for path in sorted(folder.iterdir())])
