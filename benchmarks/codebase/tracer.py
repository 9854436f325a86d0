"""Record the files of a folder in which functions are called.

Python imports this file under the name sitecustomize in each process of a traced command, so it
imports nothing from the checkout.
"""

from __future__ import annotations

import os
import sys
import threading
from inspect import CO_OPTIMIZED
from types import FrameType
from typing import Any


def trace(folder: str, log: str) -> None:
    """Start recording the files, in this thread and in the threads that it starts.

    Args:
        folder: Only files below it are recorded.
        log: A file to which the path of each is appended when its first function is called. Calls
        made during imports are not recorded.
    """
    known: set[str] = set()

    def is_import(frame: FrameType | None) -> bool:
        while frame is not None:
            code = frame.f_code
            if code.co_name == "<module>" and code.co_filename.startswith(folder):
                return True
            frame = frame.f_back
        return False

    def note(frame: FrameType, event: str, argument: Any) -> None:
        path = frame.f_code.co_filename
        if event != "call" or path in known:
            return
        if path.startswith(folder):
            if not frame.f_code.co_flags & CO_OPTIMIZED or is_import(frame):
                return  # the body of a module or class, or what it calls
            with open(log, "a", encoding="utf-8") as file:
                file.write(f"{path}\n")
        known.add(path)

    threading.setprofile(note)
    sys.setprofile(note)


if "CODEBASE_TRACE" in os.environ:
    trace(*os.environ["CODEBASE_TRACE"].split(os.pathsep))
