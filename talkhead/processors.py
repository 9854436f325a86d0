"""Which processors there are, as far as that is known without torch, which takes seconds to import."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from talkhead.errors import TalkheadError


def n_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def may_have_gpu() -> bool:
    """Whether there is an NVIDIA driver, so that torch is worth asking."""
    return Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None


def check_device(device: str) -> None:
    """Raises TalkheadError for what is no device: neither auto nor cpu, cuda or cuda:1."""
    if not re.fullmatch(r"auto|cpu(:\d+)?|cuda(:\d+)?", device, re.ASCII):
        raise TalkheadError(f"device {device}: unknown. Give auto, cpu, cuda or cuda:0")
