"""Run jobs on a Ray cluster: scheduling, transfer of files that are not on a shared disk, node failure.

Each job is one Ray task. The driver keeps the claim, so a lost node can neither lose nor duplicate a
job. Results return through the object store, or are written to the shared home folder, where a task
that Ray restarts on another node resumes after the last finished segment. A node reads files in
place if it can access them there, and from the object store otherwise. Private keys are never sent.

A node that does not share the home folder caches, in the user's cache folder:

  packages/DIGEST/NAME    packages of the identities that speak, by the digest of their manifest
  fits/NAME-DIGEST/       a home folder for each identity that is fitted, by the digest of its footage
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
from talkhead.app.dubbing.job import FIT, Job, Task
from talkhead.app.dubbing.job_runner import HaltError, JobCancelledError, RunTask, run_job
from talkhead.app.dubbing.job_store import JobStore
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
CONNECT_TIMEOUT_S = 5.0
MAX_NODE_FAILURES = 4
"""Number of restarts after the loss of a node before the job counts as failed."""
RESOURCE_POLL_S = 2.0
SHUTDOWN_TIMEOUT_S = 20.0
KEPT_PAYLOADS = 64
"""Number of input files kept in the object store for later jobs."""
KEPT_PACKAGES, KEPT_FITS = 32, 4
"""Number of packages and fits in a node's cache; recently used ones are kept in addition."""
MAX_JOB_S = 6 * 3600.0
"""Upper bound for the duration of a job; files used more recently may still be in use."""


@dataclass(frozen=True)
class FilePayload:
    """A file for a node, with a copy in the object store for nodes that cannot access it.

    Attributes:
        path: Path of the file on the driver.
        size: Its size in bytes.
        mtime_s: Its modification time in seconds.
        contents: List of one object reference. In a list, Ray transfers the bytes only on request.
    """

    path: str
    size: int
    mtime_s: int
    contents: list[Any]

    @classmethod
    def of(cls, path: Path) -> FilePayload:
        """Put a file into the object store.

        Args:
            path: The file.

        Returns:
            The payload.
        """
        import ray

        state = path.stat()
        return cls(str(path), state.st_size, int(state.st_mtime), [ray.put(path.read_bytes())])

    def unpack(self, folder: Path) -> Path:
        """Make the file available on this machine.

        Args:
            folder: Folder for the file if it is not accessible at its path.

        Returns:
            Path of the file: its own, or the copy in `folder`.
        """
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
    """A task for a node.

    Attributes:
        version: Version of talkhead on the driver.
        task_runner: See WorkerConfig.
        task: The task.
        token: Content of the token file in the home folder; a node that reads the same
            content shares the disk.
        home: The home folder, used if the disk is shared.
        work: Folder for intermediate files, used if the disk is shared.
        products: Folder for finished files, used if the disk is shared.
        packages: The exported identities, each with the SHA-256 of its manifest, by name or folder; none
            if the fit creates it.
        files: The input files by path.
    """

    version: str
    task_runner: str
    task: Task
    token: str
    home: str
    work: str
    products: str
    packages: Mapping[str, tuple[FilePayload, str]]
    files: Mapping[str, FilePayload]


@dataclass(frozen=True)
class RemoteResult:
    """Outcome of a task on a node.

    Attributes:
        result: The values to record for the job.
        files: Relative names and contents of the finished files; empty if the disk is shared.
        error: Reason of the failure; "" on success.
        is_fatal: True if no other task can succeed either.
    """

    result: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[tuple[str, bytes], ...] = ()
    error: str = ""
    is_fatal: bool = False


# ------------------------------------------------------------------------------ the driver


class RayPool:
    """A worker pool that runs jobs on a Ray cluster; see WorkerPool.

    Args:
        config: Configuration of the workers.
        address: "HOST:PORT" of the cluster, "auto" or "local".

    Raises:
        TalkheadError: If the cluster cannot be reached or runs another version of talkhead.
    """

    def __init__(self, config: WorkerConfig, address: str) -> None:
        self._ray = connect(address)
        self._config, self._store = config, JobStore(config.store)
        self._events: queue.Queue[Event] = queue.Queue()
        self._threads: dict[str, threading.Thread] = {}
        self._closing = threading.Event()
        self._size, self._polled = 1, 0.0
        self._runner = _RayRunner(config, self._closing)
        check_versions()

    @property
    def size(self) -> int:
        """Number of GPUs of the cluster (without one, of cores), plus some jobs that wait in Ray's
        queue."""
        if time.monotonic() - self._polled > RESOURCE_POLL_S:
            self._polled = time.monotonic()
            resources = self._ray.cluster_resources()
            self._runner.on_gpu = resources.get("GPU", 0) >= 1
            slots = int(resources.get("GPU" if self._runner.on_gpu else "CPU", 1))
            self._size = slots + slots // 4 + 1
        return self._size

    def room(self) -> int:
        """Return how many more jobs can be started; see WorkerPool."""
        return max(0, self.size - len(self._threads))

    def start(self, job: Job, n_threads: int) -> None:
        """Start a job; see WorkerPool.

        Args:
            job: The job.
            n_threads: Ignored: Ray limits the threads of a task.
        """
        thread = threading.Thread(target=self._run_job, args=(job.id,), daemon=True)
        self._threads[job.id] = thread
        thread.start()

    def _run_job(self, job_id: str) -> None:
        emit, max_tries = self._events.put, self._config.max_tries
        try:
            emit(run_job(self._store, job_id, self._runner, max_tries, emit))
        except TalkheadError as error:  # the job's own file cannot be written
            emit(JobFinished(job_id, halt=str(error)))

    def wait(self, timeout_s: float) -> list[Event]:
        """Wait for events; see WorkerPool.

        Args:
            timeout_s: Maximum time to wait in seconds.

        Returns:
            The events.
        """
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
        """Stop all jobs and disconnect from Ray; see WorkerPool."""
        self._closing.set()
        deadline = time.monotonic() + SHUTDOWN_TIMEOUT_S
        for thread in self._threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        self._ray.shutdown()


class _RayRunner:
    """A RunTask that runs tasks on Ray."""

    def __init__(self, config: WorkerConfig, closing: threading.Event) -> None:
        self._config, self._closing = config, closing
        self.on_gpu = False
        self._packages: dict[tuple[Path, int], tuple[FilePayload, str]] = {}
        self._payloads = lru_cache(maxsize=KEPT_PAYLOADS)(_make_payload)
        self._lock = threading.Lock()
        self._token = _shared_token(config.home)

    def __call__(
        self, task: Task, work: Path, products: Path, progress: Progress
    ) -> Mapping[str, Any]:
        """Run a task; see RunTask."""
        import ray

        resources = {"num_gpus": 1} if self.on_gpu else {"num_cpus": 1}
        remote = ray.remote(run_remote_task).options(max_retries=MAX_NODE_FAILURES, **resources)
        remote_task = self._make_remote_task(task, work, products)
        remote_result = self._wait_for(remote.remote(remote_task), progress)
        if remote_result.error:
            raise (HaltError if remote_result.is_fatal else TalkheadError)(remote_result.error)
        for name, data in remote_result.files:
            make_folder((products / name).parent)
            write_bytes(products / name, data)
        if task.kind == FIT:
            self._import_fit(task, products)
        return remote_result.result

    def _wait_for(self, ref: Any, progress: Progress) -> RemoteResult:
        import ray

        try:
            with progress.step(ON_CLUSTER, total=1) as step:
                while not ray.wait([ref], timeout=0.5)[0]:
                    if self._closing.is_set():
                        raise HaltError("stopped")
                    step.advance(0)
            remote_result: RemoteResult = ray.get(ref)
        except ray.exceptions.RayError as error:
            if self._closing.is_set():
                raise HaltError("stopped") from error
            raise TalkheadError(f"the cluster could not run it: {one_line(error)}") from error
        except (HaltError, JobCancelledError):
            ray.cancel(ref, force=True)
            raise
        return remote_result

    def _make_remote_task(self, task: Task, work: Path, products: Path) -> RemoteTask:
        config, private_keys = self._config, secret_files(task.options)
        is_known = task.kind != FIT or task.identity in Home(config.home).names()
        packages = {one: self._package(one) for one in task.identities} if is_known else {}
        files = {
            str(path): self._payload(path)
            for path in task.files
            if path not in private_keys and path.is_file()
        }
        return RemoteTask(
            version=__version__,
            task_runner=config.task_runner,
            task=task,
            token=self._token,
            home=str(config.home),
            work=str(work),
            products=str(products),
            packages=packages,
            files=files,
        )

    def _payload(self, path: Path) -> FilePayload:
        """Put a file into the object store, once for all jobs that read it."""
        state = path.stat()
        return self._payloads(path, state.st_size, state.st_mtime_ns)

    def _package(self, identity: str) -> tuple[FilePayload, str]:
        """Put an identity's export into the object store, once. Return it and its digest."""
        path = Home(self._config.home).resolve(identity)
        with self._lock:
            key = (path, (path / MANIFEST_NAME).stat().st_mtime_ns)
            if key not in self._packages:
                with tempfile.TemporaryDirectory(prefix="talkhead-") as folder:
                    export = Path(folder) / f"{path.name}{EXPORT_SUFFIX}"
                    export_package(IdentityPackage.load(path), export)
                    self._packages[key] = FilePayload.of(export), sha256_of(path / MANIFEST_NAME)
            return self._packages[key]

    def _import_fit(self, task: Task, products: Path) -> None:
        """Import a package that a node has fitted into the home folder."""
        for export in products.glob(f"*{EXPORT_SUFFIX}"):
            import_package(export, Home(self._config.home).identity_dir(task.identity))
            remove(export)


def _make_payload(path: Path, size: int, mtime_ns: int) -> FilePayload:
    """Make a payload. Size and time are part of the cache key, so a changed file is read again."""
    return FilePayload.of(path)


def _shared_token(home: Path) -> str:
    """Return the random token in the home folder: a node that reads the same token shares the disk."""
    path = home / "jobs" / TOKEN
    if not path.exists():
        write_bytes(path, secrets.token_hex(16).encode())
    return path.read_text()


def connect(address: str) -> Any:
    """Connect to a Ray cluster.

    Args:
        address: "HOST:PORT" of the cluster, "auto" or "local".

    Returns:
        The ray module, connected.

    Raises:
        TalkheadError: If Ray is not installed or the cluster cannot be joined.
    """
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
    except Exception as error:  # Ray raises various errors: connection, version, value, runtime
        raise TalkheadError(
            f"cluster {address}: cannot be joined ({one_line(error)}). Start Ray on this machine as "
            "well: ray start --address=HEAD:6379"
        ) from error
    return ray


def _check_reachable(address: str) -> None:
    """Raise TalkheadError if nothing listens at the address; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address in ("auto", "local"):
        return
    if not host or not port.isdecimal():
        raise TalkheadError(f"cluster {address}: give HOST:PORT, as `ray start` prints it, or auto")
    try:
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise TalkheadError(
            f"cluster {address}: does not respond ({error.strerror or error}). Start it: "
            "ray start --head"
        ) from error


def check_versions() -> None:
    """Check that all nodes of the connected cluster run this version of talkhead.

    Raises:
        TalkheadError: If a node has a different version or none. The message names the nodes.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def installed() -> str:  # nested, so that it is sent by value and runs without talkhead
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("talkhead")
        except PackageNotFoundError:
            return "none"

    pending = []
    for node in ray.nodes():
        if node["Alive"]:
            strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(installed).options(num_cpus=0, scheduling_strategy=strategy)
            pending.append((node["NodeManagerHostname"], task.remote()))
    wrong = {}
    for host, reference in pending:
        try:
            remote_version = ray.get(reference)
        except ray.exceptions.RayError:  # a node that was lost since it was listed runs no jobs
            continue
        if remote_version != __version__:
            wrong[host] = remote_version
    if wrong:
        named = ", ".join(f"{host} has {version}" for host, version in wrong.items())
        raise TalkheadError(_version_mismatch(named))


def _version_mismatch(found: str) -> str:
    return (
        f"all machines of the cluster need talkhead {__version__}, as on this one: {found}. "
        "Install it there"
    )


# ------------------------------------------------------------------------------ on a node


@lru_cache(maxsize=2)
def _task_runner(name: str, home: Path) -> RunTask:
    return make_task_runner(name, home, "auto")


def run_remote_task(remote_task: RemoteTask) -> RemoteResult:
    """Run a task on a node. Ray calls this function there.

    Args:
        remote_task: The task.

    Returns:
        The outcome. Errors are returned as text, as their classes need not exist on the driver.
    """
    if remote_task.version != __version__:
        found = f"{socket.gethostname()} has {__version__}"
        error = f"{_version_mismatch(found)} (driver: {remote_task.version})"
        return RemoteResult(error=error, is_fatal=True)
    try:
        return _run_in_folder(remote_task)
    except Exception as error:  # an error in one job must not stop the others
        return RemoteResult(error=f"{one_line(error)} (on {socket.gethostname()})")


def _run_in_folder(remote_task: RemoteTask) -> RemoteResult:
    base = make_folder(user_cache_path("talkhead", appauthor=False) / "node")
    _remove_unused(base, "job-*", 0)  # leftovers of killed processes
    with tempfile.TemporaryDirectory(prefix="job-", dir=base) as folder:
        task = _with_files(remote_task, Path(folder) / "files")
        if _shares_home(remote_task):
            return _run_task(
                remote_task,
                Path(remote_task.home),
                task,
                Path(remote_task.work),
                Path(remote_task.products),
            )
        work, products = make_folder(Path(folder) / "work"), make_folder(Path(folder) / "products")
        run = _run_fit if task.kind == FIT else _run_speak
        outcome = run(remote_task, task, base, work, products)
        files = [path for path in sorted(products.rglob("*")) if path.is_file()]
        contents = tuple((str(path.relative_to(products)), path.read_bytes()) for path in files)
        return replace(outcome, files=contents)


def _run_speak(
    remote_task: RemoteTask, task: Task, base: Path, work: Path, products: Path
) -> RemoteResult:
    """Render a video with identities whose packages were sent."""
    places = {}
    for identity, (package, digest) in remote_task.packages.items():
        folder = _touch_cached(base / "packages" / digest[:16], KEPT_PACKAGES)
        path = folder / Path(package.path).stem
        if not (path / MANIFEST_NAME).is_file():
            _install(package, path)
        places[identity] = str(path)
    return _run_task(remote_task, base, task.with_identities(places), work, products)


def _run_fit(
    remote_task: RemoteTask, task: Task, base: Path, work: Path, products: Path
) -> RemoteResult:
    """Fit an identity in a separate home folder and export its package.

    The folder is kept, so that an interrupted fit can be resumed. The other renderers of an
    existing identity were sent and are part of the export.
    """
    home = _touch_cached(base / "fits" / f"{task.identity}-{task.digest[:16]}", KEPT_FITS)
    path = Home(home).identity_dir(task.identity)
    remove(path)
    for package, _ in remote_task.packages.values():
        _install(package, path)
    outcome = _run_task(remote_task, home, task, work, products)
    export_package(IdentityPackage.load(path), products / f"{task.identity}{EXPORT_SUFFIX}")
    return outcome


def _install(package: FilePayload, path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="talkhead-") as folder:
        import_package(package.unpack(Path(folder)), path)


def _touch_cached(path: Path, n_kept: int) -> Path:
    """Create or touch a folder in a cache and remove its unused siblings, except the n_kept newest."""
    make_folder(path)
    os.utime(path)
    _remove_unused(path.parent, "*", n_kept)
    return path


def _remove_unused(folder: Path, pattern: str, n_kept: int) -> None:
    """Remove files that no job can still be using, except the n_kept newest."""
    found = []
    for path in folder.glob(pattern):
        with suppress(FileNotFoundError):  # removed by another process meanwhile
            found.append((time.time() - path.stat().st_mtime, path))
    for age_s, path in sorted(found)[n_kept:]:
        if age_s > MAX_JOB_S:
            remove(path)


def _run_task(
    remote_task: RemoteTask, home: Path, task: Task, work: Path, products: Path
) -> RemoteResult:
    """Run the task with the task runner of a home folder, which is cached for this process."""
    run_task = _task_runner(remote_task.task_runner, home)
    return RemoteResult(dict(run_task(task, work, products, SilentProgress())))


def _shares_home(remote_task: RemoteTask) -> bool:
    """Check whether this machine can read and write the driver's home folder."""
    path = Path(remote_task.home) / "jobs" / TOKEN
    try:
        return path.read_text() == remote_task.token and os.access(remote_task.products, os.W_OK)
    except OSError:
        return False


def _with_files(remote_task: RemoteTask, folder: Path) -> Task:
    """Replace the task's input files by paths on this machine, unpacking missing ones into a folder."""
    task = remote_task.task
    for private_key in secret_files(task.options):
        if not private_key.is_file():
            raise TalkheadError(
                f"{private_key}: is not on this machine, and private keys are not sent through Ray. "
                "Copy it to the same path on every node, or leave out certificate and key"
            )
    local = {
        path: str(payload.unpack(folder / str(number)))
        for number, (path, payload) in enumerate(remote_task.files.items())
    }
    return replace(
        task,
        audio=local.get(task.audio, task.audio),
        video=local.get(task.video, task.video),
        options={name: local.get(str(value), value) for name, value in task.options.items()},
        dub=task.dub.moved(local, folder) if task.dub is not None else None,
    )
