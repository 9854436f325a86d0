"""The worker of a live session: how either process ends, and what the other one then does."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_fakes import RATE, SIZE, make_session
from marks import needs_posix, needs_proc

from talkhead.app.live import worker as module
from talkhead.app.live.messages import read_message, write_message
from talkhead.app.live.session import LiveSession
from talkhead.errors import PackageError, TalkheadError

LIMIT_S = 120.0
"""A test that waits so long has failed."""


def sound(n_frames: int) -> bytes:
    return np.full(n_frames * SIZE, 1000, "<i2").tobytes()


def process_of(session: LiveSession) -> subprocess.Popen[bytes]:
    process: subprocess.Popen[bytes] = session._engine._process  # type: ignore[attr-defined]
    return process


async def drain(session: LiveSession, act_at: int = -1, act: Any = None) -> int:
    """Run a session to its end, and do something after a number of frames."""
    n = 0
    async for _ in session.run():
        n += 1
        if n == act_at:
            act()
    return n


@needs_posix
def test_a_worker_that_is_killed_ends_the_run_with_an_error() -> None:
    async def test() -> None:
        session = make_session("worker")
        await session.push_audio(sound(100), RATE)
        with pytest.raises(TalkheadError, match=r"died \(signal 9\), possibly out of memory"):
            await drain(session, 5, process_of(session).kill)
        with pytest.raises(TalkheadError, match="signal 9"):
            await session.push_audio(sound(1), RATE)
        with pytest.raises(TalkheadError, match="signal 9"):
            await drain(session)
        assert session.interrupt() == 1
        await session.flush()
        await session.shutdown()

    asyncio.run(asyncio.wait_for(test(), LIMIT_S))


def test_errors_of_loading_are_raised_where_the_session_is_made() -> None:
    with pytest.raises(PackageError, match=r"^identity missing: not found$"):
        make_session("worker", "missing")
    with pytest.raises(TalkheadError, match=r"died \(exit code 3\)"):
        make_session("worker", "dead")


@pytest.mark.parametrize("failure", [None, KeyboardInterrupt(), OSError("the disk is full")])
def test_a_worker_that_does_not_become_ready_is_ended(
    monkeypatch: pytest.MonkeyPatch, failure: BaseException | None
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **keywords: Any) -> None:
            super().__init__(*args, **keywords)
            started.append(self)

    def fail(stream: Any) -> None:
        raise failure or AssertionError

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    if failure is not None:
        monkeypatch.setattr(module, "read_message", fail)
    with pytest.raises(type(failure) if failure is not None else PackageError):
        make_session("worker", "missing" if failure is None else None)
    (process,) = started
    try:
        assert process.returncode is not None  # it was waited for
        assert process.stdin is not None and process.stdin.closed
        assert process.stdout is not None and process.stdout.closed
    finally:
        process.kill()
        process.wait()


def test_ctrl_c_in_a_terminal_does_not_reach_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def start(command: list[str], **keywords: Any) -> None:
        given.update(keywords)
        raise OSError("not started")

    monkeypatch.setattr(module.subprocess, "Popen", start)
    with pytest.raises(OSError, match="not started"):
        make_session("worker")
    assert given["start_new_session"]
    assert given["creationflags"] == getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)


def test_a_worker_reports_that_there_is_no_such_identity(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="There are no identities in"):
        LiveSession(worker=True, home=tmp_path)
    with pytest.raises(TalkheadError, match="Pass its name"):
        LiveSession(object(), worker=True)  # type: ignore[arg-type]


def test_what_libraries_print_does_not_get_among_the_frames() -> None:
    async def test() -> int:
        session = make_session("worker", "printing")
        await session.push_audio(sound(5), RATE, last_chunk=True)
        n = 0
        async for frame in session.run():
            n += frame.is_speech
            if n == 5:
                break
        await session.shutdown()
        return n

    assert asyncio.run(asyncio.wait_for(test(), LIMIT_S)) == 5


@needs_posix
def test_a_worker_that_stands_still_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_S", 0.2)

    async def test() -> None:
        session = make_session("worker")
        process_of(session).send_signal(signal.SIGSTOP)
        for _ in range(20):
            await session.push_audio(sound(100), RATE)  # more than a pipe takes
        running = asyncio.create_task(drain(session))
        session.interrupt()
        await session.shutdown()
        await running
        assert process_of(session).poll() == -signal.SIGKILL

    asyncio.run(asyncio.wait_for(test(), LIMIT_S))


def test_the_worker_ends_with_the_session() -> None:
    async def test() -> int:
        session = make_session("worker")
        await session.shutdown()
        return process_of(session).wait(LIMIT_S)

    assert asyncio.run(test()) == 0


PARENT = """
import os, sys, time
sys.path[:0] = [{helpers!r}]
from live_fakes import make_session
session = make_session("worker")
if {forks!r} and os.fork() == 0:  # holds the pipes open
    time.sleep(60)
    os._exit(0)
print(session._engine._process.pid, flush=True)
time.sleep(60)
"""


@needs_proc
@pytest.mark.parametrize("forks", [False, True])
def test_the_worker_ends_with_the_process_that_started_it(forks: bool) -> None:
    helpers = Path(__file__).parents[2] / "helpers"
    code = PARENT.format(helpers=str(helpers), forks=forks)
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_running(pid)
    parent.kill()
    parent.wait()
    try:
        limit_s = time.monotonic() + LIMIT_S
        while is_running(pid):
            assert time.monotonic() < limit_s, "the worker is still running"
            time.sleep(0.05)
    finally:
        if forks:
            os.killpg(parent.pid, signal.SIGKILL)
        parent.stdout.close()


def is_running(pid: int) -> bool:
    """Whether a process exists that is more than an entry its parent has not read."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_process_with_a_worker_does_not_import_pytorch() -> None:
    code = (
        "import sys\nfrom talkhead import LiveFrame, LiveSession, TalkheadError\n"
        "try: LiveSession(worker=True)\n"
        "except TalkheadError as error: print(type(error).__name__, 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split() == ["PackageError", "False"], result.stderr


def test_messages_are_read_as_they_were_written() -> None:
    stream = io.BytesIO()
    parts = [memoryview(bytes(range(n))) for n in (3, 200)]
    write_message(stream, {"type": "a", "limit": float("inf")}, *parts)
    write_message(stream, {"type": "b"})
    whole = stream.getvalue()
    stream.seek(0)
    first = read_message(stream)
    assert first is not None and first[0] == {"type": "a", "limit": float("inf")}
    assert first[1].tobytes() == bytes(range(3)) + bytes(range(200))
    second = read_message(stream)
    assert second is not None and second[0] == {"type": "b"} and len(second[1]) == 0
    assert read_message(stream) is None
    for n in (3, 20, 100):  # within the sizes, the JSON and the content
        assert read_message(io.BytesIO(whole[:n])) is None


@pytest.mark.parametrize("rendered", [True, False])
def test_codes_reach_the_other_process_unchanged(rendered: bool) -> None:
    async def codes(where: str) -> list[list[float]]:
        session = make_session(where, rendered=rendered)
        assert session.size == ((4, 2) if rendered else (0, 0))
        await session.push_audio(sound(5), RATE, last_chunk=True)
        found = []
        async for frame in session.run():
            assert frame.image.size == (24 if rendered else 0)
            if frame.is_speech:
                found.append(frame.code.tolist())
            if frame.end_of_speech:
                break
        await session.shutdown()
        return found

    local = asyncio.run(asyncio.wait_for(codes("local"), LIMIT_S))
    assert asyncio.run(asyncio.wait_for(codes("worker"), LIMIT_S)) == local
    assert len(local) == 5
