"""Execute dubbing tasks in a worker process. Loaded identities are cached between tasks."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkhead.app.choices import DEFAULT_PRESET, DEFAULT_RENDERER
from talkhead.app.dubbing.job import FIT, PACKAGE, Task
from talkhead.app.dubbing.planner import package_finder
from talkhead.app.dubbing.progress_view import NOTES
from talkhead.app.dubbing.table import build_options
from talkhead.app.dubbing.video_dub import LineSettings, VideoDub, report_path
from talkhead.app.home.identities import Home, package_fingerprint
from talkhead.identity import MANIFEST_NAME
from talkhead.progress import Progress, Step
from talkhead.storage import write_json

if TYPE_CHECKING:
    from talkhead.app.avatar import Avatar

MAX_AVATARS = 4
"""Number of identities kept in memory: 0.1 to 0.2 GB each."""


class TaskRunner:
    """Executes tasks with the identities of a home folder; see RunTask.

    Args:
        home: The home folder.
        device: Device for rendering and fitting.
    """

    def __init__(self, home: Path, device: str) -> None:
        self._home, self._device = Home(home), device
        self._avatars: OrderedDict[tuple[object, ...], Avatar] = OrderedDict()

    def __call__(
        self, task: Task, work: Path, products: Path, progress: Progress
    ) -> Mapping[str, Any]:
        """Execute a task; see RunTask.

        Args:
            task: The task.
            work: Folder for intermediate files.
            products: Folder for the finished files.
            progress: Receiver of the task's progress.

        Returns:
            Values to record for the job.
        """
        if task.kind == FIT:
            return self._fit(task, progress)
        if task.dub is not None:
            return self._dub(task, task.dub, work, products, progress)
        return self._speak(task, work, products, progress)

    def _fit(self, task: Task, progress: Progress) -> Mapping[str, Any]:
        from talkhead.app.fit import fit
        from talkhead.app.options import FitOptions

        options = FitOptions(
            **{
                **task.options,
                "preset": task.preset or DEFAULT_PRESET,
                "renderer": task.renderer or DEFAULT_RENDERER,
            }
        )
        fitted = fit(
            task.video,
            name=task.identity,
            options=options,
            device=self._device,
            home=self._home.path,
            progress=progress,
        )
        return {"identity": fitted.name}

    def _speak(
        self, task: Task, work: Path, products: Path, progress: Progress
    ) -> Mapping[str, Any]:
        from talkhead.app.request import RenderRequest
        from talkhead.app.speak import render_video
        from talkhead.device import set_threads

        set_threads()
        avatar = self._avatar(task.identity, task.renderer or None)
        request = RenderRequest(
            audio=Path(task.audio),
            output=products / Path(task.output).name,
            mode=task.mode,
            source=Path(task.video) if task.video else None,
            options=build_options(task.options),
        )
        recorder = _MessageRecorder(progress)
        n_frames, duration_s = render_video(
            avatar, request, work / "line", self._home.path, recorder
        )
        return {
            "identity": avatar.name,
            "renderer": avatar.renderer_name,
            PACKAGE: package_fingerprint(avatar.package.manifest, avatar.renderer_name),
            "n_frames": n_frames,
            "duration_s": round(duration_s, 3),
            **({NOTES: recorder.messages} if recorder.messages else {}),
        }

    def _dub(
        self, task: Task, settings: LineSettings, work: Path, products: Path, progress: Progress
    ) -> Mapping[str, Any]:
        from talkhead.app.dubbing.dub_video import dub_video
        from talkhead.device import set_threads

        set_threads()
        packages = package_finder(self._home)(task)
        dub = VideoDub(
            video=Path(task.video),
            lines=Path(settings.lines),
            output=products / Path(task.output).name,
            speakers=settings.speakers or {"": task.identity},
            bed=settings.bed,
            limits=settings.limits,
            options=build_options(task.options),
        )
        recorder = _MessageRecorder(progress)

        def avatars(identity: str) -> Avatar:
            return self._avatar(identity, task.renderer or None)

        report = dub_video(dub, avatars, work / "dub", self._home.path, recorder)
        content = report.to_json()
        write_json(report_path(dub.output), content)
        return {
            "identity": ", ".join(Path(identity).name for identity in task.identities),
            PACKAGE: packages,
            "n_frames": report.n_frames,
            "duration_s": round(report.duration_s, 3),
            "lines": dict(Counter(line["status"] for line in content.get("lines", ()))),
            "report": str(report_path(Path(task.output))),
            **({NOTES: recorder.messages} if recorder.messages else {}),
        }

    def _avatar(self, identity: str, renderer: str | None) -> Avatar:
        """Load and verify an identity, or return it from the cache unless its package was replaced."""
        from talkhead.app.avatar import load_avatar
        from talkhead.device import resolve_device

        path = self._home.resolve(identity)
        state = (path / MANIFEST_NAME).stat()
        key = (path, renderer, state.st_mtime_ns, state.st_ino)
        if key not in self._avatars:
            device = resolve_device(self._device)
            self._avatars[key] = load_avatar(self._home.load(identity), renderer, device)
            while len(self._avatars) > MAX_AVATARS:
                self._avatars.popitem(last=False)
        self._avatars.move_to_end(key)
        return self._avatars[key]


class _MessageRecorder:
    """Progress that records its messages, so that they appear in the results."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.messages: list[str] = []

    def step(
        self, name: str, total: int | None = None, done: int = 0
    ) -> AbstractContextManager[Step]:
        """See Progress."""
        return self._progress.step(name, total, done)

    def message(self, text: str) -> None:
        """See Progress."""
        self.messages.append(text)
        self._progress.message(text)
