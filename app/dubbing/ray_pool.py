"""Jobs on a Ray cluster: Ray says where, moves what is not on a shared disk, and sees nodes die.

Each job is one task. Its claim stays with the driver, so that no lost node can lose or double it; what
a node has made comes back through the object store, or lies in the shared home folder, where a task that
Ray starts again elsewhere goes on from the last finished segment. Files are read where they are if a node
sees them there, and taken from the object store if not; but private keys are not sent.

A node without that home folder keeps in its user's cache

  packages/DIGEST/NAME    the people who speak, by their packages' content
  fits/NAME-DIGEST/       a home for each person who is fitted, by their footage
"""

from __future__ import annotations

import os
import queue
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from talkhead import __version__
from talkhead.app.dubbing.events import Event, JobFinished
from talkhead.app.dubbing.job_runner import HaltError, JobCancelledError, RunTask, run_job
from talkhead.app.dubbing.job_store import FIT, Job, JobStore, Task
from talkhead.app.dubbing.local_pool import WorkerConfig, make_task_runner
from talkhead.app.dubbing.progress_view import ON_CLUSTER
from talkhead.app.home.identities import Home
from talkhead.app.request import secret_files
from talkhead.errors import TalkheadError, one_line
from talkhead.identity import (
    EXPORT_SUFFIX,
    MANIFEST_NAME,
    IdentityPackage,
    export_package,
    import_package,
)
from talkhead.progress import Progress, SilentProgress
from talkhead.storage import make_folder, remove, sha256_of, write_bytes

TOKEN = "shared-token"
CONNECT_S = 5.0
MAX_LOST = 4
"""How often Ray starts a task again whose node was lost, before the job counts as failed."""
LOOK_S = 2.0
CLOSE_S = 20.0
KEPT_PARCELS = 64
"""Files that stay in the object store for the next job that reads them."""
KEPT_PACKAGES, KEPT_FITS = 32, 4
"""What a node keeps: so many, and whatever was used not long ago."""
LONGEST_JOB_S = 6 * 3600.0
"""What was used since may still be in use."""


@dataclass(frozen=True)
class FilePayload:
    """A file for a node: where it is, and its bytes in the object store for nodes that don't see it.

    contents: a list with one reference, so that Ray moves the bytes only when somebody asks.
    """

    path: str
    size: int
    mtime_s: int
    contents: list[Any]

    @classmethod
    def of(cls, path: Path) -> FilePayload:
        """The file of that path, put into the object store."""
        import ray

        state = path.stat()
        return cls(str(path), state.st_size, int(state.st_mtime), [ray.put(path.read_bytes())])

    def unpack(self, folder: Path) -> Path:
        """The file: in its place if it is seen there, else in a folder."""
        import ray

        path = Path(self.path)
        with suppress(OSError):
            state = path.stat()
            if (state.st_size, int(state.st_mtime)) == (self.size, self.mtime_s):
                return path
        target = make_folder(folder) / path.name
        write_bytes(target, ray.get(self.contents[0]))
        return target


@dataclass(frozen=True)
class RemoteTask:
    """A task for a node. package: the identity's export, None for one who is fitted anew. digest: of
    the package. files: those that the task reads, by path. home, work, products: used where the node
    sees the token."""

    version: str
    studio: str
    task: Task
    token: str
    home: str
    work: str
    products: str
    package: FilePayload | None
    digest: str
    files: Mapping[str, FilePayload]


@dataclass(frozen=True)
class RemoteResult:
    """What a node has made. files: relative names and contents, empty where the disk is shared."""

    result: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[tuple[str, bytes], ...] = ()
    error: str = ""
    is_fatal: bool = False


# ------------------------------------------------------------------------------ the driver


class RayPool:
    """A Ray cluster as a workforce. Raises TalkheadError when it isn't there or has another talkhead."""

    def __init__(self, place: WorkerConfig, address: str) -> None:
        self._ray = connect(address)
        self._place, self._store = place, JobStore(place.store)
        self._events: queue.Queue[Event] = queue.Queue()
        self._threads: dict[str, threading.Thread] = {}
        self._closing = threading.Event()
        self._size, self._looked = 1, 0.0
        self._sender = _RayRunner(place, self._closing)
        check_versions()

    @property
    def size(self) -> int:
        """As many as Ray has GPUs, or else cores, and some to wait for them."""
        if time.monotonic() - self._looked > LOOK_S:
            self._looked = time.monotonic()
            resources = self._ray.cluster_resources()
            self._sender.on_gpu = resources.get("GPU", 0) >= 1
            slots = int(resources.get("GPU" if self._sender.on_gpu else "CPU", 1))
            self._size = slots + slots // 4 + 1
        return self._size

    def room(self) -> int:
        """See Workforce."""
        return max(0, self.size - len(self._threads))

    def start(self, job: Job, n_threads: int) -> None:
        """See Workforce; how many threads a task has is Ray's business."""
        thread = threading.Thread(target=self._run_job, args=(job.id,), daemon=True)
        self._threads[job.id] = thread
        thread.start()

    def _run_job(self, job_id: str) -> None:
        place, tell = self._place, self._events.put
        try:
            tell(run_job(self._store, job_id, self._sender, place.most_tries, tell))
        except TalkheadError as error:  # the job's own file can't be written
            tell(JobFinished(job_id, halt=str(error)))

    def wait(self, timeout_s: float) -> list[Event]:
        """See Workforce."""
        events: list[Event] = []
        with suppress(queue.Empty):
            events.append(self._events.get(timeout=timeout_s))
            while True:
                events.append(self._events.get_nowait())
        for event in events:
            if isinstance(event, JobFinished):
                self._threads.pop(event.job_id, None)
        return events

    def close(self) -> None:
        """See Workforce."""
        self._closing.set()
        deadline = time.monotonic() + CLOSE_S
        for thread in self._threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        self._ray.shutdown()


class _RayRunner:
    """A Perform that has tasks done by Ray."""

    def __init__(self, place: WorkerConfig, closing: threading.Event) -> None:
        self._place, self._closing = place, closing
        self.on_gpu = False
        self._packages: dict[tuple[Path, int], tuple[FilePayload, str]] = {}
        self._parcels = lru_cache(maxsize=KEPT_PARCELS)(_parcel_in_state)
        self._lock = threading.Lock()
        self._token = _token(place.home)

    def __call__(
        self, task: Task, work: Path, products: Path, progress: Progress
    ) -> Mapping[str, Any]:
        """See Perform."""
        import ray

        needs = {"num_gpus": 1} if self.on_gpu else {"num_cpus": 1}
        remote = ray.remote(run_remote_task).options(max_retries=MAX_LOST, **needs)
        delivery = self._awaited(remote.remote(self._order(task, work, products)), progress)
        if delivery.error:
            raise (HaltError if delivery.is_fatal else TalkheadError)(delivery.error)
        for name, data in delivery.files:
            make_folder((products / name).parent)
            write_bytes(products / name, data)
        if task.kind == FIT:
            self._take_in(task, products)
        return delivery.result

    def _awaited(self, ref: Any, progress: Progress) -> RemoteResult:
        import ray

        try:
            with progress.step(ON_CLUSTER, total=1) as step:
                while not ray.wait([ref], timeout=0.5)[0]:
                    if self._closing.is_set():
                        raise HaltError("stopped")
                    step.advance(0)
            delivery: RemoteResult = ray.get(ref)
        except ray.exceptions.RayError as error:
            if self._closing.is_set():
                raise HaltError("stopped") from error
            raise TalkheadError(f"the cluster could not do it: {one_line(error)}") from error
        except (HaltError, JobCancelledError):
            ray.cancel(ref, force=True)
            raise
        return delivery

    def _order(self, task: Task, work: Path, products: Path) -> RemoteTask:
        place, secret = self._place, secret_files(task.options)
        is_known = task.kind != FIT or task.identity in Home(place.home).names()
        package, digest = self._package(task.identity) if is_known else (None, "")
        files = {
            str(path): self._parcel(path)
            for path in task.files
            if path not in secret and path.is_file()
        }
        return RemoteTask(
            __version__, place.studio, task, self._token, str(place.home), str(work), str(products),
            package, digest, files,
        )  # fmt: skip

    def _parcel(self, path: Path) -> FilePayload:
        """A file in the object store, put there once for many jobs."""
        state = path.stat()
        return self._parcels(path, state.st_size, state.st_mtime_ns)

    def _package(self, identity: str) -> tuple[FilePayload, str]:
        """An identity's export in the object store, put there once."""
        path = Home(self._place.home).resolve(identity)
        with self._lock:
            key = (path, (path / MANIFEST_NAME).stat().st_mtime_ns)
            if key not in self._packages:
                with tempfile.TemporaryDirectory(prefix="talkhead-") as folder:
                    export = Path(folder) / f"{path.name}{EXPORT_SUFFIX}"
                    export_package(IdentityPackage.load(path), export)
                    self._packages[key] = FilePayload.of(export), sha256_of(path / MANIFEST_NAME)
            return self._packages[key]

    def _take_in(self, task: Task, products: Path) -> None:
        """Have a package that a node has fitted among the home's."""
        for export in products.glob(f"*{EXPORT_SUFFIX}"):
            import_package(export, Home(self._place.home).identity_dir(task.identity))
            remove(export)


def _parcel_in_state(path: Path, size: int, mtime_ns: int) -> FilePayload:
    """Parcel.of(path), to be remembered until the file has another size or time."""
    return FilePayload.of(path)


def _token(home: Path) -> str:
    """A random word in the home folder: a node that reads it there sees the same disk."""
    path = home / "jobs" / TOKEN
    if not path.exists():
        write_bytes(path, secrets.token_hex(16).encode())
    return path.read_text()


def connect(address: str) -> Any:
    """Ray, connected to a cluster. Raises TalkheadError with what to do."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise TalkheadError(
            "Ray is not installed. Install it here and on every machine of the cluster: "
            "pip install 'talkhead[cluster]'"
        ) from error
    _check_reachable(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # Ray raises many kinds: connection, version, value, runtime
        raise TalkheadError(
            f"cluster {address}: can't be joined ({one_line(error)}). Start Ray on this machine, "
            "too: ray start --address=HEAD:6379"
        ) from error
    return ray


def _check_reachable(address: str) -> None:
    """Raises TalkheadError where nobody answers; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address in ("auto", "local"):
        return
    if not host or not port.isdecimal():
        raise TalkheadError(f"cluster {address}: give HOST:PORT, as `ray start` prints it, or auto")
    try:
        socket.create_connection((host, int(port)), CONNECT_S).close()
    except OSError as error:
        raise TalkheadError(
            f"cluster {address}: nobody answers there ({error.strerror or error}). Start it: "
            "ray start --head"
        ) from error


def check_versions() -> None:
    """Raises TalkheadError naming the nodes that have another talkhead, or none."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def installed() -> str:  # a nested function travels with its code: it must run without talkhead
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("talkhead")
        except PackageNotFoundError:
            return "none"

    asked = []
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(installed).options(num_cpus=0, scheduling_strategy=there)
            asked.append((node["NodeManagerHostname"], task.remote()))
    wrong = {}
    for host, answer in asked:
        try:
            version_there = ray.get(answer)
        except (
            ray.exceptions.RayError
        ):  # a node that has gone since it was listed does no jobs either
            continue
        if version_there != __version__:
            wrong[host] = version_there
    if wrong:
        named = ", ".join(f"{host} has {version}" for host, version in wrong.items())
        raise TalkheadError(_other_version(named))


def _other_version(who: str) -> str:
    return (
        f"the cluster's machines need the same talkhead as this one, {__version__}: {who}. "
        "Install it there"
    )


# ------------------------------------------------------------------------------ on a node


@lru_cache(maxsize=2)
def _studio(name: str, home: Path) -> RunTask:
    return make_task_runner(name, home, "auto")


def run_remote_task(order: RemoteTask) -> RemoteResult:
    """What Ray runs on a node. Errors come back as words: their classes may not exist elsewhere."""
    if order.version != __version__:
        who = f"{socket.gethostname()} has {__version__}"
        return RemoteResult(error=f"{_other_version(who)} (this: {order.version})", is_fatal=True)
    try:
        return _delivered(order)
    except Exception as error:  # whatever is wrong with one job, the others go on
        return RemoteResult(error=f"{one_line(error)} (on {socket.gethostname()})")


def _delivered(order: RemoteTask) -> RemoteResult:
    base = make_folder(user_cache_path("talkhead", appauthor=False) / "node")
    _tidy(base, "job-*", 0)  # of processes that were killed
    with tempfile.TemporaryDirectory(prefix="job-", dir=base) as folder:
        task = _with_files(order, Path(folder) / "files")
        if _sees(order):
            return _at(order, Path(order.home), task, Path(order.work), Path(order.products))
        work, products = make_folder(Path(folder) / "work"), make_folder(Path(folder) / "products")
        made = (_fitted if task.kind == FIT else _said)(order, task, base, work, products)
        files = [path for path in sorted(products.rglob("*")) if path.is_file()]
        named = tuple((str(path.relative_to(products)), path.read_bytes()) for path in files)
        return replace(made, files=named)


def _said(order: RemoteTask, task: Task, base: Path, work: Path, products: Path) -> RemoteResult:
    """A line of a person whose package was sent."""
    assert order.package is not None
    folder = _kept(base / "packages" / order.digest[:16], KEPT_PACKAGES)
    path = folder / Path(order.package.path).stem
    if not (path / MANIFEST_NAME).is_file():
        _install(order.package, path)
    return _at(order, base, replace(task, identity=str(path)), work, products)


def _fitted(order: RemoteTask, task: Task, base: Path, work: Path, products: Path) -> RemoteResult:
    """A fit in a home of its own, which stays for whoever goes on with it, and the package's export.

    The other renderers of a person who is known were sent, and are in the export, too.
    """
    home = _kept(base / "fits" / f"{task.identity}-{task.digest[:16]}", KEPT_FITS)
    path = Home(home).identity_dir(task.identity)
    remove(path)
    if order.package is not None:
        _install(order.package, path)
    made = _at(order, home, task, work, products)
    export_package(IdentityPackage.load(path), products / f"{task.identity}{EXPORT_SUFFIX}")
    return made


def _install(package: FilePayload, path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="talkhead-") as folder:
        import_package(package.unpack(Path(folder)), path)


def _kept(path: Path, n_kept: int) -> Path:
    """A folder that is there now and is the newest of those beside it, of which n_kept stay."""
    make_folder(path)
    os.utime(path)
    _tidy(path.parent, "*", n_kept)
    return path


def _tidy(folder: Path, pattern: str, n_kept: int) -> None:
    """Remove what nobody can be using any more, but for the n_kept newest."""
    found = []
    for path in folder.glob(pattern):
        with suppress(FileNotFoundError):  # others tidy up, too
            found.append((time.time() - path.stat().st_mtime, path))
    for age_s, path in sorted(found)[n_kept:]:
        if age_s > LONGEST_JOB_S:
            remove(path)


def _at(order: RemoteTask, home: Path, task: Task, work: Path, products: Path) -> RemoteResult:
    """The task done by a studio of that home, which stays for the next task of this process."""
    return RemoteResult(dict(_studio(order.studio, home)(task, work, products, SilentProgress())))


def _sees(order: RemoteTask) -> bool:
    """Whether the driver's home folder is here, too, to read and to write."""
    path = Path(order.home) / "jobs" / TOKEN
    try:
        return path.read_text() == order.token and os.access(order.products, os.W_OK)
    except OSError:
        return False


def _with_files(order: RemoteTask, folder: Path) -> Task:
    """The task with files that are on this machine, put into a folder where they aren't."""
    task = order.task
    for secret in secret_files(task.options):
        if not secret.is_file():
            raise TalkheadError(
                f"{secret}: is not on this machine, and private keys are not sent through Ray. Put it "
                "in the same place on every node, or leave out certificate and key"
            )
    here = {
        path: str(parcel.unpack(folder / str(number)))
        for number, (path, parcel) in enumerate(order.files.items())
    }
    return replace(
        task,
        audio=here.get(task.audio, task.audio),
        video=here.get(task.video, task.video),
        options={name: here.get(str(value), value) for name, value in task.options.items()},
    )
