"""Jobs on a real Ray cluster of several nodes on this machine, one of which is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from talkhead.app.dubbing import cluster
from talkhead.app.dubbing.attending import Ended
from talkhead.app.dubbing.board import Board, Tally
from talkhead.app.dubbing.cluster import RayWorkers
from talkhead.app.dubbing.coordinator import Coordinator
from talkhead.app.dubbing.workers import Workplace
from talkhead.app.jobs import DONE, FAILED, Job, JobStore, Task
from talkhead.errors import TalkheadError

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # before Ray is imported: loopback alone
ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'talkhead[cluster]'")

N_JOBS = 5


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster whose head does no work, with two nodes of a core each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *_paths()]))
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


def make_workers(nodes: Any, store: JobStore) -> RayWorkers:
    place = Workplace(store.path, store.path.parent, 3, "fakes:SlowStudio")
    return RayWorkers(place, nodes.address)


class Watching(Board):
    """Calls a function when a job has ended."""

    def __init__(self, n_jobs: int, then: Any) -> None:
        super().__init__(Tally(n_jobs, 0, n_jobs))
        self._then = then

    def ended(self, job: Job, ended: Ended) -> None:
        super().ended(job, ended)
        self._then(sum(self.tally.ended.values()))


def check_outputs(store: JobStore) -> None:
    for job in store.jobs():
        assert job.status == DONE, job
        assert Path(job.task.output).read_bytes() == b"said: " + Path(job.task.audio).read_bytes()


def test_without_a_shared_disk(nodes: Any, store: JobStore) -> None:
    """Sound and package go out, videos come back; a job that can't be done is set aside."""
    bad = store.jobs()[0]
    task = Task(**{**vars(bad.task), "mode": "fail", "output": bad.task.output + ".mp4"})
    store.add([task])
    workers = make_workers(nodes, store)
    workers._sender._token = "of another disk"
    Coordinator(store, workers, Board(Tally(0, 0, 0))).run(store.jobs())
    failed = [job for job in store.jobs() if job.status == FAILED]
    assert [job.id for job in failed] == [task.id]
    assert "this line can't be said (on " in failed[0].reason and failed[0].tries == 3
    store.cancel([task.id])
    (store.path / "cancelled" / f"{task.id}.json").unlink()
    check_outputs(store)
    homes = {job.result["home"] for job in store.jobs()}
    assert str(store.path.parent) not in homes, "it was done elsewhere"


def test_a_lost_node_loses_no_job(nodes: Any, store: JobStore) -> None:
    """On a shared disk; one of two nodes goes while it works."""
    lost: list[Any] = []

    def lose(n_ended: int) -> None:
        if not lost:
            lost.append(nodes.worker_nodes)
            nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)

    workers = make_workers(nodes, store)
    Coordinator(store, workers, Watching(N_JOBS, lose)).run(store.jobs())
    assert lost
    check_outputs(store)
    assert {job.result["home"] for job in store.jobs()} == {str(store.path.parent)}
    assert [p for p in (store.path / "work").iterdir()] == []


def test_another_version(nodes: Any, store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "__version__", "99.0")
    with pytest.raises(TalkheadError, match=r"need the same talkhead as this one, 99.0: .* has 0"):
        make_workers(nodes, store)
    order = cluster.Order("98.0", "", store.jobs()[0].task, "", "", "", "", None, "", {})
    delivery = cluster.do_order(order)
    assert delivery.is_fatal and "\n" not in delivery.error


def test_nobody_there() -> None:
    with pytest.raises(TalkheadError, match=r"cluster 127.0.0.1:1: nobody answers there"):
        cluster.connect("127.0.0.1:1")
    with pytest.raises(TalkheadError, match=r"cluster nowhere: give HOST:PORT"):
        cluster.connect("nowhere")
