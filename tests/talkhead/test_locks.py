from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from talkhead import locks
from talkhead.errors import TalkheadError
from talkhead.locks import FileLock, Holder, hold_lock, holder_of, is_locked

HOLDS = """
import sys, time
from pathlib import Path
from talkhead.locks import FileLock
lock = FileLock.take(Path(sys.argv[1]))
print("holds", flush=True)
time.sleep(600)
"""


def start_holder(path: Path) -> subprocess.Popen[str]:
    """Start another process that holds the lock."""
    command = [sys.executable, "-c", HOLDS, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "holds\n"
    return process


def test_a_held_lock_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "anna.lock"
    process = start_holder(path)
    try:
        assert is_locked(path) and FileLock.take(path) is None
        holder = holder_of(path)
        assert holder.pid == process.pid and 0 < os.stat(path).st_mtime - holder.since + 1 < 60
        assert f"process {process.pid} since" in str(holder)
    finally:
        process.kill()
        process.communicate()
    assert not is_locked(path), "the lock ends with the process, kill -9 included"
    assert holder_of(path) == Holder() and str(Holder()) == "another process"


def test_a_block_waits_for_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, waited = tmp_path / "anna.lock", list[Holder]()
    first = FileLock.take(path)
    assert first is not None

    def let_go(seconds: float) -> None:
        if len(waited) == 3:
            first.release()

    monkeypatch.setattr(locks.time, "sleep", let_go)
    with hold_lock(path, waited.append):
        assert is_locked(path)
    assert [holder.pid for holder in waited] == [os.getpid()] * 3
    assert not path.exists()


def test_a_caller_that_does_not_wait_gets_an_error(tmp_path: Path) -> None:
    path = tmp_path / "anna.lock"

    def refuse(holder: Holder) -> None:
        raise TalkheadError("no")

    with hold_lock(path, refuse), pytest.raises(TalkheadError, match="no"), hold_lock(path, refuse):
        raise AssertionError("both hold it")
    with hold_lock(path, refuse):
        pass


def test_a_file_system_without_locks_is_not_a_lock_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform == "win32":
        pytest.skip("flock exists on Unix only")

    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks.fcntl, "flock", unsupported)
    with pytest.raises(TalkheadError, match=r"anna\.lock: this file system has no locks.*--home"):
        FileLock.take(tmp_path / "anna.lock")
