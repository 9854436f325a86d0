"""Which processors there are, as far as that is known without torch, which takes seconds to import."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def n_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def may_have_gpu() -> bool:
    """Whether there is an NVIDIA driver, so that torch is worth asking."""
    return Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None
