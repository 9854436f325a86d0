"""Marks of tests that need what some systems lack."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

needs_posix = pytest.mark.skipif(
    os.name != "posix", reason="POSIX signals and scripts of a shell are needed"
)
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="processes are observed in /proc, as on Linux"
)
