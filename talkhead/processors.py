"""Processor queries without torch, whose import takes seconds."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from talkhead.errors import TalkheadError


def n_cores() -> int:
    """Return how many cores this process may use.

    Returns:
        At least 1.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def may_have_gpu() -> bool:
    """Return True if there is an NVIDIA driver, so that torch should be asked for details."""
    return Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None


def check_device(device: str) -> None:
    """Check the name of a device.

    Args:
        device: The name.

    Raises:
        TalkheadError: It is not auto, cpu, cuda or a numbered device such as cuda:1.
    """
    if not re.fullmatch(r"auto|cpu(:\d+)?|cuda(:\d+)?", device, re.ASCII):
        raise TalkheadError(f"device {device}: unknown. Pass auto, cpu, cuda or cuda:0")
