"""Jobs on a real Ray cluster of several nodes on this machine, one of which is lost."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from paths import HELPERS

from talkhead.app.dubbing import ray_pool as cluster
from talkhead.app.dubbing.events import JobFinished
from talkhead.app.dubbing.job import DONE, FAILED, FIT, Job, Task
from talkhead.app.dubbing.job_store import JobStore
from talkhead.app.dubbing.local_pool import WorkerConfig
from talkhead.app.dubbing.progress_view import ProgressStats, ProgressView
from talkhead.app.dubbing.ray_pool import RayPool
from talkhead.app.dubbing.scheduler import Scheduler
from talkhead.app.dubbing.video_dub import LineSettings
from talkhead.errors import TalkheadError
from talkhead.identity import EXPORT_SUFFIX, IdentityPackage, export_package

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # before Ray is imported: loopback only
ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'talkhead[cluster]'")

N_JOBS = 5


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster whose head runs no jobs, with two nodes of one core each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HELPERS), *_paths()]))
        small = {"node_ip_address": "127.0.0.1", "object_store_memory": 80 * 2**20}
        head = {"num_cpus": 0, "include_dashboard": False, **small}
        made = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(2):
                made.add_node(num_cpus=1, **small)
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


def _paths() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


@pytest.fixture
def store(tmp_path: Path, add: Any) -> JobStore:
    add(tmp_path / "identities" / "anna")
    store = JobStore(tmp_path / "jobs")
    tasks = []
    for number in range(N_JOBS):
        audio = tmp_path / f"{number}.wav"
        audio.write_bytes(b"sound %d" % number)
        tasks.append(
            Task("line", "anna", audio=str(audio), output=str(tmp_path / f"out/{number}.mp4"))
        )
    store.add(tasks)
    return store


def test_packages_of_all_speakers_are_installed(
    tmp_path: Path, add: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = {}
    for name in ("anna", "ben"):
        export = tmp_path / f"{name}{EXPORT_SUFFIX}"
        export_package(add(tmp_path / name), export)
        state = export.stat()
        payload = cluster.FilePayload(str(export), state.st_size, int(state.st_mtime), [])
        packages[name] = (payload, name * 8)
    dub = LineSettings("/nowhere/en.srt", {"Anna": "anna", "Ben": "ben"})
    task = Task("dub", "anna", dub=dub)
    sent = cluster.RemoteTask("", "", task, "", "", "", "", packages, {})
    monkeypatch.setattr(cluster, "_run_task", lambda sent, home, task, work, products: task)
    found: Any = cluster._run_speak(sent, task, tmp_path / "node", tmp_path, tmp_path)
    assert found.identity == found.dub.speakers["Anna"] and len(found.identities) == 2
    names = [IdentityPackage.load(Path(path)).manifest.name for path in found.identities]
    assert names == ["anna", "ben"]


def make_workers(nodes: Any, store: JobStore) -> RayPool:
    config = WorkerConfig(store.path, store.path.parent, 3, "fakes:SlowTaskRunner")
    return RayPool(config, nodes.address)


class Watching(ProgressView):
    """Calls a function when a job has finished."""

    def __init__(self, n_jobs: int, then: Any) -> None:
        super().__init__(ProgressStats(n_jobs, 0, n_jobs))
        self._then = then

    def job_finished(self, job: Job, event: JobFinished) -> None:
        super().job_finished(job, event)
        self._then(sum(self.stats.ended.values()))


def check_outputs(store: JobStore) -> None:
    for job in store.jobs():
        assert job.status == DONE, job
        assert Path(job.task.output).read_bytes() == b"audio: " + Path(job.task.audio).read_bytes()


def test_without_a_shared_disk(nodes: Any, store: JobStore) -> None:
    """Audio and package are sent, videos are returned; a job that raises is marked as failed."""
    bad = store.jobs()[0]
    task = Task(**{**vars(bad.task), "mode": "fail", "output": bad.task.output + ".mp4"})
    store.add([task])
    workers = make_workers(nodes, store)
    workers._runner._token = "of another disk"
    Scheduler(store, workers, ProgressView(ProgressStats(0, 0, 0))).run(store.jobs())
    failed = [job for job in store.jobs() if job.status == FAILED]
    assert [job.id for job in failed] == [task.id]
    assert "this job fails (on " in failed[0].reason and failed[0].tries == 3
    store.cancel([task.id])
    (store.path / "cancelled" / f"{task.id}.json").unlink()
    check_outputs(store)
    homes = {job.result["home"] for job in store.jobs()}
    assert str(store.path.parent) not in homes, "the jobs ran in another home"


def test_a_second_renderer_joins_the_first(nodes: Any, store: JobStore) -> None:
    """Without a shared disk: the package of an existing identity is sent to the fit and returned."""
    for job in store.jobs():
        (store.path / job.status / f"{job.id}.json").unlink()
    video = store.path.parent / "anna.mp4"
    video.write_bytes(b"footage")
    store.add([Task(FIT, "anna", video=str(video), digest="0" * 64, renderer="nerf")])
    workers = make_workers(nodes, store)
    workers._runner._token = "of another disk"
    Scheduler(store, workers, ProgressView(ProgressStats(0, 0, 0))).run(store.jobs())
    assert [(job.status, job.reason) for job in store.jobs()] == [(DONE, "")]
    package = IdentityPackage.load(store.path.parent / "identities" / "anna")
    assert sorted(package.manifest.renderers) == ["nerf", "warp"]


def test_a_lost_node_loses_no_job(nodes: Any, store: JobStore) -> None:
    """With a shared disk; one of two nodes is removed while it runs a job."""
    lost: list[Any] = []

    def lose(n_ended: int) -> None:
        if not lost:
            lost.append(nodes.worker_nodes)
            nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)

    workers = make_workers(nodes, store)
    Scheduler(store, workers, Watching(N_JOBS, lose)).run(store.jobs())
    assert lost
    check_outputs(store)
    assert {job.result["home"] for job in store.jobs()} == {str(store.path.parent)}
    assert [p for p in (store.path / "work").iterdir()] == []


def test_another_version(nodes: Any, store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "__version__", "99.0")
    with pytest.raises(TalkheadError, match=r"need talkhead 99.0, as on this one: .* has 0"):
        make_workers(nodes, store)
    task = cluster.RemoteTask("98.0", "", store.jobs()[0].task, "", "", "", "", {}, {})
    result = cluster.run_remote_task(task)
    assert result.is_fatal and "\n" not in result.error


@dataclass(frozen=True)
class LocalPayload(cluster.FilePayload):
    """A payload that needs no Ray."""

    def unpack(self, folder: Path) -> Path:
        folder.mkdir(parents=True)
        (folder / Path(self.path).name).write_bytes(self.contents[0])
        return folder / Path(self.path).name


def remote_task_of(
    tmp_path: Path, task: Task, files: Mapping[str, cluster.FilePayload]
) -> cluster.RemoteTask:
    """A task for which the driver's home folder is on a shared disk."""
    (tmp_path / "products").mkdir()
    (tmp_path / "jobs").mkdir(exist_ok=True)
    (tmp_path / "jobs" / cluster.TOKEN).write_text("word")
    paths = (str(tmp_path), str(tmp_path / "work"), str(tmp_path / "products"))
    runner = "fakes:SlowTaskRunner"
    return cluster.RemoteTask(cluster.__version__, runner, task, "word", *paths, {}, files)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_shared_home_with_audio_elsewhere(tmp_path: Path, own_cache: None) -> None:
    """The audio is sent through the object store."""
    task = Task("line", "anna", audio="/nowhere/a.wav", output="/out/1.mp4")
    sound = LocalPayload(task.audio, 5, 0, [b"sound"])
    result = cluster.run_remote_task(remote_task_of(tmp_path, task, {task.audio: sound}))
    assert result.error == "" and result.files == ()
    assert (tmp_path / "products" / "1.mp4").read_bytes() == b"audio: sound"


def test_private_keys_are_not_sent(
    tmp_path: Path, own_cache: None, add: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node without the key reports that; certificate and audio are sent once."""
    add(tmp_path / "identities" / "anna")
    files = [tmp_path / name for name in ("a.wav", "cert.pem", "key.pem")]
    for path in files:
        path.write_bytes(b"content")
    sound, certificate, key = map(str, files)
    options = {"certificate": certificate, "key": key, "height": 64}
    task = Task("line", "anna", audio=sound, output="/out/1.mp4", options=options)
    put: list[str] = []

    def of(path: Path) -> cluster.FilePayload:
        put.append(path.name)
        return LocalPayload(str(path), 7, 0, [b"content"])

    monkeypatch.setattr(cluster.FilePayload, "of", of)
    (tmp_path / "jobs").mkdir()
    runner = cluster._RayRunner(WorkerConfig(tmp_path / "jobs", tmp_path), threading.Event())
    for _ in range(2):
        remote = runner._make_remote_task(task, tmp_path, tmp_path)
        assert sorted(remote.files) == sorted([sound, certificate])
    assert put == ["anna.talkhead", "a.wav", "cert.pem"]
    Path(sound).write_bytes(b"another content")
    runner._make_remote_task(task, tmp_path, tmp_path)
    assert put[3:] == ["a.wav"]
    Path(key).unlink()
    result = cluster.run_remote_task(remote_task_of(tmp_path, task, remote.files))
    assert "key.pem: is not on this machine, and private keys are not sent" in result.error


def test_a_node_keeps_the_newest_and_recently_used_folders(tmp_path: Path) -> None:
    long_ago = time.time() - 2 * cluster.MAX_JOB_S
    for number in range(6):
        path = tmp_path / f"old {number}"
        path.mkdir()
        os.utime(path, (long_ago + number, long_ago + number))
    (tmp_path / "in use").mkdir()
    cluster._touch_cached(tmp_path / "old 0", 4)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["in use", "old 0", "old 4", "old 5"]
    cluster._touch_cached(tmp_path / "new", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in use", "new", "old 0"]


def test_no_cluster_at_the_address() -> None:
    with pytest.raises(TalkheadError, match=r"cluster 127.0.0.1:1: does not respond"):
        cluster.connect("127.0.0.1:1")
    with pytest.raises(TalkheadError, match=r"cluster nowhere: give HOST:PORT"):
        cluster.connect("nowhere")
