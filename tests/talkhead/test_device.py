from __future__ import annotations

import importlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import pytest
import torch
from threads import using_threads

from talkhead import device
from talkhead.errors import TalkheadError


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def one_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.mark.usefixtures("no_cuda")
def test_without_cuda() -> None:
    assert device.resolve_device("auto") == torch.device("cpu")
    assert device.resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(TalkheadError, match=r"CUDA.*Pass --device cpu"):
        device.resolve_device("cuda")


@pytest.mark.usefixtures("one_cuda")
def test_with_cuda() -> None:
    assert device.resolve_device("auto") == torch.device("cuda")
    assert device.resolve_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(TalkheadError, match="device cuda:1: this machine has 1 CUDA"):
        device.resolve_device("cuda:1")


@pytest.mark.parametrize("word", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:", "mps"])
def test_unknown_devices_are_refused(word: str) -> None:
    with pytest.raises(TalkheadError, match=r"unknown\. Pass auto, cpu"):
        device.resolve_device(word)


@pytest.mark.usefixtures("no_cuda")
def test_cuda_backends_are_not_even_imported_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[str] = []

    def note(module: str) -> None:
        imported.append(module)

    monkeypatch.setattr(importlib, "import_module", note)
    states = {backend.name: backend for backend in device.backends()}
    assert imported == ["numba"]
    assert states["numba CPU rasterizer"].usable
    assert not states["gsplat CUDA rasterizer"].usable
    assert "CUDA" in states["gsplat CUDA rasterizer"].reason
    assert states["tiny-cuda-nn encodings"].version == ""


@pytest.mark.usefixtures("one_cuda")
def test_broken_cuda_libraries_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(module: str) -> None:
        if module == "gsplat.csrc":
            raise ImportError(module)
        raise OSError("libcudart.so.12: cannot open\nmore")

    monkeypatch.setattr(importlib, "import_module", fail)
    monkeypatch.setattr(device, "installed_version", lambda distribution: "1.0")
    monkeypatch.setattr(device, "_has_nvcc", lambda: False)
    reasons = {backend.name: backend.reason for backend in device.backends()}
    assert "no nvcc" in reasons["gsplat CUDA rasterizer"]
    assert reasons["tiny-cuda-nn encodings"] == "OSError: libcudart.so.12: cannot open"


@pytest.mark.usefixtures("one_cuda")
def test_kernels_that_can_be_built_count_as_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(module: str) -> None:
        raise ImportError(module)

    monkeypatch.setattr(importlib, "import_module", fail)
    monkeypatch.setattr(device, "_has_nvcc", lambda: True)
    usable = {backend.name: backend.usable for backend in device.backends()}
    assert usable["gsplat CUDA rasterizer"]
    assert not usable["numba CPU rasterizer"]


def test_a_seed_repeats_every_generator() -> None:
    def draw() -> list[Any]:
        generator = device.seed_everything(3)
        own = torch.rand(2, generator=generator).tolist()
        return [random.random(), np.random.rand(), torch.rand(2).tolist(), own]

    assert draw() == draw()


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        assert device.set_threads(1) == 1
        assert torch.get_num_threads() == 1
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert device.set_threads() == torch.get_num_threads() == 3
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert device.set_threads() == device.n_cores() >= 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("n", [1, 3])
def test_items_are_mapped_in_order_each_by_one_thread(n: int) -> None:
    barrier = threading.Barrier(n, timeout=30.0)

    def square(item: int) -> tuple[int, int]:
        barrier.wait()  # n are computed at the same time
        return item * item, torch.get_num_threads()

    with using_threads(2):
        found = list(device.map_concurrently(square, range(9), n))
        assert found == [(item * item, 2 if n == 1 else 1) for item in range(9)]
        assert torch.get_num_threads() == 2
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 2


def test_items_are_read_shortly_before_they_are_needed() -> None:
    items = iter(range(1_000))
    found = device.map_concurrently(str, items, 3)
    assert next(found) == "0"
    found.close()
    assert next(items) < 10


def test_an_error_ends_the_map() -> None:
    def fail(item: int) -> int:
        raise ValueError(item)

    items = iter(range(1_000))
    with pytest.raises(ValueError, match="0"):
        list(device.map_concurrently(fail, items, 2))
    assert next(items) < 10


def test_kernels_run_at_the_same_time_only_where_numba_allows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    with using_threads(3):
        for layer in ("omp", "tbb", "workqueue"):
            monkeypatch.setattr(numba, "threading_layer", lambda layer=layer: layer)
            found.append(device.kernel_concurrency(torch.device("cpu")))
        assert found == [3, 3, 1]
        monkeypatch.setattr(numba, "threading_layer", lambda: "omp")
        assert device.kernel_concurrency(torch.device("cuda")) == 1
