"""Choose the compute device; list accelerated backends; set seeds and threads."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import random
import shutil
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from talkhead.errors import TalkheadError
from talkhead.processors import check_device, n_cores

MAX_THREADS = 8
"""Maximum number of items that are computed at the same time: each may take a model and a few whole
frames of memory."""
_changing = threading.Lock()
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Backend:
    """An accelerated backend.

    Attributes:
        name: Its name.
        usable: It works on this machine.
        reason: Why it does not; empty if it does.
        version: Installed version; empty if it is not installed.
    """

    name: str
    usable: bool
    reason: str  # empty when usable
    version: str  # empty when not installed


def resolve_device(device: str) -> torch.device:
    """Resolve the name of a device.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:1"; auto is CUDA if gsplat can rasterize on it, else the
            CPU.

    Returns:
        The torch device.

    Raises:
        TalkheadError: The name is unknown or there is no such CUDA device.
    """
    check_device(device)
    if device == "auto":
        usable = torch.cuda.is_available() and not gsplat_unavailable_reason()
        return torch.device("cuda" if usable else "cpu")
    kind, _, index = device.partition(":")
    if kind == "cuda":
        _check_cuda(device, int(index or 0))
    return torch.device(device)


def _check_cuda(device: str, index: int) -> None:
    """Raise TalkheadError if there is no CUDA device of that number."""
    if not torch.cuda.is_available():
        raise TalkheadError(f"device {device}: {no_cuda_reason()}. Pass --device cpu")
    count = torch.cuda.device_count()
    if index >= count:
        raise TalkheadError(f"device {device}: this machine has {count} CUDA device(s), from 0")


def no_cuda_reason() -> str:
    """Return why torch finds no CUDA device.

    Returns:
        A clause without a full stop.
    """
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    return "torch finds no CUDA device"


def backends() -> list[Backend]:
    """List all accelerated backends, usable or not. Never raises and never starts a long build.

    Returns:
        Their states.
    """
    return [
        _probe("numba CPU rasterizer", "numba", _import_numba, needs_cuda=False),
        _gsplat(),
        _probe("nerfacc CUDA marching", "nerfacc", _find_nerfacc_kernels),
        _tinycudann(),
    ]


def _probe(
    name: str, distribution: str, check: Callable[[], str], *, needs_cuda: bool = True
) -> Backend:
    """Return the state of a backend.

    CUDA is checked first: imports of CUDA libraries fail in many ways.
    """
    version = installed_version(distribution)
    if not version:
        return Backend(name, False, "not installed", "")
    if needs_cuda and not torch.cuda.is_available():
        return Backend(name, False, no_cuda_reason(), version)
    try:
        reason = check()
    except Exception as error:  # a broken CUDA library raises OSError, RuntimeError, ...
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return Backend(name, not reason, reason, version)


def _import_numba() -> str:
    importlib.import_module("numba")
    return ""


def _find_gsplat_kernels() -> str:
    return _find_kernels("gsplat.csrc")


def _find_nerfacc_kernels() -> str:
    return _find_kernels("nerfacc.csrc")


def _find_kernels(module: str) -> str:
    """Return why a library's CUDA kernels are missing and cannot be built; otherwise an empty string."""
    try:
        importlib.import_module(module)
    except ImportError:
        if not _has_nvcc():
            return "its kernels are not built, and there is no nvcc to build them at first use"
    return ""


def _has_nvcc() -> bool:
    """Check whether torch's extension builder would find the CUDA compiler."""
    homes = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda")
    found = any(home and (Path(home) / "bin" / "nvcc").is_file() for home in homes)
    return found or shutil.which("nvcc") is not None


def _import_tinycudann() -> str:
    importlib.import_module("tinycudann")
    return ""


def gsplat_unavailable_reason() -> str:
    """Return why gsplat cannot rasterize here; empty if it can."""
    return _gsplat().reason


def _gsplat() -> Backend:
    return _probe("gsplat CUDA rasterizer", "gsplat", _find_gsplat_kernels)


def tinycudann_unavailable_reason() -> str:
    """Return why tiny-cuda-nn cannot be used; empty if it can."""
    return _tinycudann().reason


def _tinycudann() -> Backend:
    return _probe("tiny-cuda-nn encodings", "tinycudann", _import_tinycudann)


def installed_version(distribution: str) -> str:
    """Return the installed version of a distribution.

    Args:
        distribution: Name on the package index.

    Returns:
        The version, empty if it is not installed.
    """
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def seed_everything(seed: int) -> torch.Generator:
    """Seed the generators of Python, numpy and torch.

    Args:
        seed: Any integer that torch accepts.

    Returns:
        A new CPU generator with this seed.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def aligned_copy(array: Any) -> torch.Tensor:
    """Copy an array or tensor to memory that torch allocates, aligned to 64 bytes.

    The last bit of a matrix product can depend on the alignment of its factors (MKL's "conditional
    numerical reproducibility"), so fitted values must not remain in memory of numpy or a file.

    Args:
        array: An array or tensor of any shape.

    Returns:
        A tensor of the same shape and values.
    """
    return torch.as_tensor(array).clone(memory_format=torch.contiguous_format)


def has_concurrent_kernels() -> bool:
    """Return True if several threads may call parallel numba kernels at the same time.

    Numba's fallback threading layer ("workqueue") aborts the process if they do.

    Returns:
        False until `set_threads` or a parallel kernel has started numba's threads.
    """
    import numba

    try:
        return numba.threading_layer() != "workqueue"
    except ValueError:  # they have not been started yet
        return False


def kernel_concurrency(device: torch.device) -> int:
    """Return how many threads may call parallel numba kernels and torch at the same time.

    Args:
        device: Where torch computes.

    Returns:
        The number of torch's threads, or 1 if one thread is to be used: on other devices than the
        CPU, and if numba's threading layer does not allow more.
    """
    alone = device.type != "cpu" or not has_concurrent_kernels()
    return 1 if alone else torch.get_num_threads()


def map_concurrently(
    function: Callable[[Item], Result], items: Iterable[Item], n: int
) -> Generator[Result, None, None]:
    """Apply a function to several items at a time, each in one thread.

    Where an item is computed by many short operations, a thread for each item is faster than all
    threads for one: operations need not wait for the slowest thread. Results are the same, except
    where torch splits an operation between threads, which may round differently.

    Args:
        function: The function. Threads call it at the same time, without the caller's `no_grad`.
        items: Its arguments, of which no more are read than are computed soon.
        n: Number of threads; no more than MAX_THREADS are used. With 1, the caller's computes.

    Yields:
        The results, in the order of the items.
    """
    if n == 1:
        yield from map(function, items)
        return
    n = min(n, MAX_THREADS)
    pool = ThreadPoolExecutor(n, initializer=compute_alone)
    upcoming: deque[Future[Result]] = deque()
    try:
        for item in items:
            upcoming.append(pool.submit(function, item))
            if len(upcoming) > n + 1:
                yield upcoming.popleft().result()
        while upcoming:
            yield upcoming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def compute_alone() -> None:
    """Let the calling thread compute without the help of others, whose numbers of threads remain."""
    with _changing:
        # Torch gives a thread the number that was set last, in any thread, when it is first needed
        # there: here before the number changes, and in threads to come after it was set back.
        torch.get_num_threads()
        n = _in_new_thread(torch.get_num_threads)
        set_threads(1)
        _in_new_thread(torch.set_num_threads, n)


def _in_new_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """Return the result of a function in a thread that has just started."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def set_threads(n_threads: int | None = None) -> int:
    """Set the number of threads of torch and numba.

    Args:
        n_threads: The number; by default $OMP_NUM_THREADS, otherwise one per usable core.

    Returns:
        The number of threads.
    """
    import numba

    wanted = os.environ.get("OMP_NUM_THREADS", "")
    count = n_threads or (int(wanted) if wanted.isdecimal() else 0) or n_cores()
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    torch.set_num_threads(count)  # after numba, which sets OpenMP's threads when it starts
    return count
