"""Where tasks are done: people stay loaded between their lines."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkhead.app.choices import DEFAULT_PRESET
from talkhead.app.dubbing.job import FIT, PACKAGE, Task
from talkhead.app.dubbing.progress_view import NOTES
from talkhead.app.dubbing.table import build_options
from talkhead.app.home.identities import DEFAULT_RENDERER, Home, package_fingerprint
from talkhead.identity import MANIFEST_NAME
from talkhead.progress import Progress, Step

if TYPE_CHECKING:
    from talkhead.app.avatar import Avatar

MAX_PEOPLE = 4
"""People kept loaded: 0.1 to 0.2 GB each."""


class TaskRunner:
    """Does tasks with the identities of a home folder, on a device."""

    def __init__(self, home: Path, device: str) -> None:
        self._home, self._device = Home(home), device
        self._people: OrderedDict[tuple[object, ...], Avatar] = OrderedDict()

    def __call__(
        self, task: Task, work: Path, products: Path, progress: Progress
    ) -> Mapping[str, Any]:
        """See Perform."""
        return (
            self._fit(task, progress)
            if task.kind == FIT
            else self._say(task, work, products, progress)
        )

    def _fit(self, task: Task, progress: Progress) -> Mapping[str, Any]:
        from talkhead.app.fit import fit

        made = fit(
            task.video,
            name=task.identity,
            preset=task.preset or DEFAULT_PRESET,
            renderer=task.renderer or DEFAULT_RENDERER,
            device=self._device,
            home=self._home.path,
            progress=progress,
        )
        return {"identity": made.name}

    def _say(self, task: Task, work: Path, products: Path, progress: Progress) -> Mapping[str, Any]:
        from talkhead.app.request import RenderRequest
        from talkhead.app.speak import render_video
        from talkhead.device import set_threads

        set_threads()
        person = self._person(task.identity, task.renderer or None)
        line = RenderRequest(
            audio=Path(task.audio),
            output=products / Path(task.output).name,
            mode=task.mode,
            source=Path(task.video) if task.video else None,
            options=build_options(task.options),
        )
        noted = _Noted(progress)
        n_frames, duration_s = render_video(person, line, work / "line", self._home.path, noted)
        return {
            "identity": person.name,
            "renderer": person.renderer_name,
            PACKAGE: package_fingerprint(person.package.manifest, person.renderer_name),
            "n_frames": n_frames,
            "duration_s": round(duration_s, 3),
            **({NOTES: noted.notes} if noted.notes else {}),
        }

    def _person(self, identity: str, renderer: str | None) -> Avatar:
        """The person, loaded and verified once and again only when the package was replaced."""
        from talkhead.app.avatar import load_avatar
        from talkhead.device import resolve_device

        path = self._home.resolve(identity)
        state = (path / MANIFEST_NAME).stat()
        key = (path, renderer, state.st_mtime_ns, state.st_ino)
        if key not in self._people:
            device = resolve_device(self._device)
            self._people[key] = load_avatar(self._home.load(identity), renderer, device)
            while len(self._people) > MAX_PEOPLE:
                self._people.popitem(last=False)
        self._people.move_to_end(key)
        return self._people[key]


class _Noted:
    """A progress that keeps its messages: who reads the results was not there to see them."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.notes: list[str] = []

    def step(
        self, name: str, total: int | None = None, done: int = 0
    ) -> AbstractContextManager[Step]:
        """See Progress."""
        return self._progress.step(name, total, done)

    def message(self, text: str) -> None:
        """See Progress."""
        self.notes.append(text)
        self._progress.message(text)
