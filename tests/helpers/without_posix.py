"""Import and use talkhead after removing the modules and functions that Windows lacks.

    python tests/helpers/without_posix.py SOUND FOLDER

Other libraries are loaded first. `os.name` and SIGKILL are kept, because pathlib and subprocess
need them on this system.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import imageio_ffmpeg

STAGES = ("preprocess", "encoder", "renderers", "app", "weights")
PACKAGES = ("talkhead", *(f"talkhead.{stage}" for stage in STAGES))
MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"}
EXTRAS = {f"talkhead.app.live.{name}" for name in ("pipecat", "livekit", "webrtc")}
"""Modules that need packages that are installed in separate environments."""
OF_OS = """
    O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK WNOHANG chown fchmod fchown fork forkpty getegid geteuid
    getgid getloadavg getpgid getuid killpg lchown mkfifo nice openpty posix_fadvise posix_fallocate
    sched_getaffinity sched_setaffinity setpgid setsid statvfs sync sysconf sysconf_names
    uname wait3 wait4
"""
OF_SIGNAL = """
    SIGALRM SIGCHLD SIGCONT SIGHUP SIGPIPE SIGQUIT SIGSTOP SIGUSR1 SIGUSR2 SIGXCPU SIGXFSZ alarm
    pause pthread_kill pthread_sigmask setitimer siginterrupt sigwait
"""


class Refusal:
    """Import hook that reports MODULES as missing."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def import_all() -> list[str]:
    """Import all modules of talkhead. Returns their names."""
    names = []
    for name in PACKAGES:
        package = importlib.import_module(name)
        walked = pkgutil.walk_packages(package.__path__, f"{name}.")
        names += [module.name for module in walked]
    names = [name for name in names if name not in EXTRAS]
    for name in names:
        importlib.import_module(name)
    return names


def remove_posix() -> None:
    """Make the next import of talkhead find only what Windows has."""
    for name in list(sys.modules):
        if name.split(".")[0] == "talkhead" or name in MODULES:
            del sys.modules[name]
    for module, names in ((os, OF_OS), (signal, OF_SIGNAL)):
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    locking: Any = ModuleType("msvcrt")
    locking.LK_NBLCK, locking.locking = 2, lambda descriptor, mode, n_bytes: None
    sys.modules["msvcrt"] = locking
    sys.meta_path.insert(0, Refusal())
    sys.platform = "win32"
    # From Python 3.12 on, shutil.which calls Windows functions.
    shutil.which = lambda name, *_: name if os.path.isfile(name) else None


def use(sound: Path, folder: Path) -> None:
    """Call functions that use the operating system. Raises AssertionError if one fails."""
    from talkhead import media, storage
    from talkhead.app.doctor.installation import check_memory, library_remedy
    from talkhead.app.dubbing.job_store import JobStore
    from talkhead.locks import FileLock
    from talkhead.processors import n_cores
    from talkhead.stage_timer import peak_mib

    assert n_cores() == os.cpu_count() and peak_mib() == 0.0
    assert check_memory().ok and library_remedy("libGL.so: cannot open shared object file")
    assert len(media.read_audio(sound, 16_000)) > 16_000
    storage.write_json(folder / "a.json", {"a": 1})
    lock = FileLock.take(folder / "lock")
    assert lock is not None
    lock.release()
    assert not JobStore(folder / "jobs").jobs()


if __name__ == "__main__":
    import_all()
    os.environ["TALKHEAD_FFMPEG"] = (
        imageio_ffmpeg.get_ffmpeg_exe()
    )  # so that imageio_ffmpeg is not called again
    remove_posix()
    print(len(import_all()), "modules")
    use(Path(sys.argv[1]), Path(sys.argv[2]))
