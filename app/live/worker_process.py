"""The process of a worker: runs a live engine for the process that has started it.

It ends with that process: at the end of its input, or when another process becomes its parent.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import asdict
from typing import Any, BinaryIO

import numpy as np

from talkhead.app.live.frames import LiveFrame
from talkhead.app.live.messages import read_message, write_message
from talkhead.app.live.options import LiveOptions
from talkhead.app.live.pace import measure
from talkhead.app.live.session import MAX_IDLE_WAIT_S, Engine, Rehearsing
from talkhead.app.live.worker import WorkerConfig
from talkhead.errors import TalkheadError, one_line
from talkhead.types import UInt8

PARENT_CHECK_S = 1.0
"""Time between two checks that the other process is still there."""


def main() -> None:
    """Run a worker."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: waiting threads sleep
    source, target = _take_standard_streams()
    try:
        message = read_message(source)
        if message is None:
            return
        header = message[0]
        threading.Thread(target=_end_with, args=(header["parent"],), daemon=True).start()
        config = WorkerConfig(
            header["identity"],
            header["home"],
            LiveOptions(**header["options"]),
            header["maker"],
            device=header["device"],
        )
        worker = Worker(make_from(config), target)
        facts, cost = asdict(worker.engine.facts), None
        if header["is_measured"] and isinstance(worker.engine, Rehearsing):
            worker.engine.prepare_thread()
            cost = asdict(measure(worker.engine.rehearse, lambda: 0))
        ready = {"type": "ready", "size": worker.engine.size, "facts": facts, "cost": cost}
        write_message(target, ready)
        threading.Thread(target=_run_commands, args=(worker, source), daemon=True).start()
        worker.run()
    except BrokenPipeError:  # the other process is gone
        os._exit(1)
    except Exception as error:
        _report(error, target)


class Worker:
    """An engine, and the pipe that its frames are written to.

    Attributes:
        engine: The engine.
        received_s: Seconds of sound that were received.
    """

    def __init__(self, engine: Engine, target: BinaryIO) -> None:
        """Prepare the worker.

        Args:
            engine: The engine.
            target: Where frames are written to.
        """
        self.engine, self.received_s = engine, 0.0
        self._target = target
        self._changed = threading.Event()
        self._failure: Exception | None = None
        self._last: UInt8 | None = None

    def run(self) -> None:
        """Write frames until the engine fails or the other process is gone.

        Raises:
            Exception: That of the engine.
            OSError: The other process is gone.
        """
        self.engine.prepare_thread()
        while self._failure is None:
            self._changed.clear()
            frame = self.engine.step(time.monotonic())
            if frame is None:
                self._changed.wait(min(self.engine.wait_s(time.monotonic()), MAX_IDLE_WAIT_S))
            else:
                self._write(frame)
        raise self._failure

    def run_command(self, command: dict[str, Any], content: UInt8) -> None:
        """Carry out a command.

        Args:
            command: The command.
            content: Bytes of its sound, [n].

        Raises:
            TalkheadError: It cannot be carried out.
        """
        kind = command["type"]
        if kind == "push":
            samples, rate = content.view(np.float32), command["sample_rate"]
            self.engine.push(samples, rate, time.monotonic())
            self.received_s += len(samples) / rate
        elif kind == "flush":
            self.engine.flush()
        elif kind == "interrupt":
            self.engine.interrupt()
        elif kind == "pace":
            self.engine.pace = command["pace"]
        self._changed.set()

    def fail(self, error: Exception) -> None:
        """End `run` with an error.

        Args:
            error: The error.
        """
        self._failure = error
        self._changed.set()

    def _write(self, frame: LiveFrame) -> None:
        """Write a frame; a picture that is the one before is not repeated."""
        # Read before the statistics: sound that arrives in between is then counted twice, not left out.
        received_s = self.received_s
        header = {
            "type": "frame",
            "frame": {
                "index": frame.index,
                "epoch": frame.epoch,
                "sound_index": frame.sound_index,
                "is_speech": frame.is_speech,
                "end_of_speech": frame.end_of_speech,
            },
            "n_audio": frame.audio.nbytes,
            "code": frame.code.tolist(),  # floats of JSON are exact
            "statistics": asdict(self.engine.statistics),
            "received_s": received_s,
        }
        content = [np.ascontiguousarray(frame.audio).data.cast("B")]
        if frame.image.size and frame.image is not self._last:
            content.append(np.ascontiguousarray(frame.image).data.cast("B"))
            self._last = frame.image
        write_message(self._target, header, *content)


def make_from(config: WorkerConfig) -> Engine:
    """Make the engine of a configuration.

    Args:
        config: The configuration.

    Returns:
        The engine.

    Raises:
        TalkheadError: The person cannot be loaded.
    """
    module, _, name = config.maker.partition(":")
    engine: Engine = getattr(importlib.import_module(module), name)(config)
    return engine


def make_engine(config: WorkerConfig) -> Engine:
    """Load a person.

    Args:
        config: The configuration.

    Returns:
        The person's engine.

    Raises:
        PackageError: There is no such identity, or it is damaged.
        TalkheadError: The device is not usable, or the encoder's weights have changed.
    """
    from talkhead.app.avatar import load_identity
    from talkhead.app.live.engine import LiveEngine

    avatar = load_identity(config.identity, device=config.device, home=config.home)
    return LiveEngine(avatar, config.options)


def _take_standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """Return input and output, and replace them: what libraries print must not get among the frames, and
    programs that are run must not read the commands."""
    source, target = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return source, target


def _run_commands(worker: Worker, source: BinaryIO) -> None:
    """Carry out commands, in a thread, until the other process is gone or closes the session."""
    try:
        while (message := read_message(source)) is not None:
            worker.run_command(*message)
    except Exception as error:
        worker.fail(error)
    else:
        os._exit(0)


def _end_with(parent: int) -> None:
    """End this process, in a thread, as soon as another process is its parent.

    The end of the input does not tell if a process that the other one has forked has the pipe open, too.
    """
    while os.name != "posix" or os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(1)


def _report(error: Exception, target: BinaryIO) -> None:
    """Write an error; its traceback is printed if it is unexpected."""
    if not isinstance(error, TalkheadError):
        traceback.print_exc(file=sys.stderr)
    header = {"type": "error", "kind": type(error).__name__, "message": one_line(error)}
    with suppress(OSError):  # the other process is gone
        write_message(target, header)
    os._exit(1)
