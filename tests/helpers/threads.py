"""The number of threads of torch and numba in tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from talkhead.device import set_threads


@contextmanager
def using_threads(n: int) -> Iterator[None]:
    """Run a block with n threads."""
    before = torch.get_num_threads()
    set_threads(n)
    try:
        yield
    finally:
        set_threads(before)
