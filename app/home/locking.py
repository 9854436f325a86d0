"""One process at a time works on an identity: the second one waits, or is refused."""

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
    """A block in which no other process fits, prepares or removes the identity of that name.

    wait: for the process that does so now, saying which one it is. Raises TalkheadError where there
    is one and wait is false.
    """
    steps: list[Step] = []
    with ExitStack() as waiting:

        def busy(holder: Holder) -> None:
            if not wait:
                refuse_busy(name)(holder)
            if not steps:
                progress.message(f"{name}: {holder} works on this identity; waiting for it to end")
                steps.append(waiting.enter_context(progress.step("Waiting for another process")))
            steps[0].advance(0)

        with home.lock(name, busy):
            waiting.close()
            yield
