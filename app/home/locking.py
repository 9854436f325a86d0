"""Locking: one process at a time works on an identity; others wait or are refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from talkhead.app.home.identities import Home, refuse_busy
from talkhead.locks import Holder
from talkhead.progress import Progress, Step


@contextmanager
def lock_identity(
    home: Home, name: str, progress: Progress, *, wait: bool = True
) -> Iterator[None]:
    """Hold the lock of an identity, so that no other process fits, prepares or removes it.

    Args:
        home: Folder of the identities.
        name: Name of the identity.
        progress: Receives a message while another process holds the lock.
        wait: Wait for that process; if False, refuse.

    Yields:
        Once, when the lock is held.

    Raises:
        TalkheadError: Another process holds the lock and wait is False.
    """
    steps: list[Step] = []
    with ExitStack() as waiting:

        def busy(holder: Holder) -> None:
            if not wait:
                refuse_busy(name)(holder)
            if not steps:
                progress.message(
                    f"{name}: {holder} is working on this identity; waiting for it to end"
                )
                steps.append(waiting.enter_context(progress.step("Waiting for another process")))
            steps[0].advance(0)

        with home.lock(name, busy):
            waiting.close()
            yield
