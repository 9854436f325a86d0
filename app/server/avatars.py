"""The people that the server has loaded last, for stills and lines."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkhead.app.home.identities import Home
from talkhead.errors import MediaError
from talkhead.identity import MANIFEST_NAME

if TYPE_CHECKING:
    from talkhead.app.avatar import Avatar

MAX_AVATARS = 2


class Avatars:
    """Loads identities of a home folder, and keeps those that were used last.

    Args:
        home: The home folder.
        device: "auto", "cpu", "cuda" or "cuda:N".
    """

    def __init__(self, home: Home, device: str) -> None:
        self._home, self._device = home, device
        self._lock = threading.Lock()
        self._loaded: OrderedDict[tuple[Any, ...], Avatar] = OrderedDict()

    def load(self, name: str, renderer: str | None = None) -> Avatar:
        """Return a person as they are fitted now.

        Args:
            name: Name of a fitted identity.
            renderer: Name of a renderer. None: the identity's own.

        Returns:
            The person.

        Raises:
            TalkheadError: The package is missing or damaged.
        """
        from talkhead.app.avatar import load_avatar  # imports PyTorch, which takes seconds
        from talkhead.device import resolve_device

        with self._lock:
            key = (*package_state(self._home.identity_dir(name)), renderer)
            if key not in self._loaded:
                device = resolve_device(self._device)
                self._loaded[key] = load_avatar(self._home.load(name), renderer, device)
                shrink(self._loaded, MAX_AVATARS)
            self._loaded.move_to_end(key)
            return self._loaded[key]

    def forget(self, name: str) -> None:
        """Keep a person no longer.

        Args:
            name: Name of the identity.
        """
        path = self._home.identity_dir(name)
        with self._lock:
            for key in [one for one in self._loaded if one[0] == path]:
                del self._loaded[key]


def package_state(path: Path) -> tuple[Any, ...]:
    """Return what changes when a package is replaced.

    Args:
        path: Folder of the package.

    Returns:
        The folder, and values that change.

    Raises:
        MediaError: There is no package.
    """
    try:
        state = (path / MANIFEST_NAME).stat()
    except OSError:
        raise MediaError(f"{path.name}: is not fitted") from None
    return path, state.st_mtime_ns, state.st_ino


def shrink(cache: OrderedDict[tuple[Any, ...], Any], size: int) -> None:
    """Remove the first entries of a cache.

    Args:
        cache: The cache, its oldest entry first.
        size: Number of entries that may remain.
    """
    while len(cache) > size:
        cache.popitem(last=False)
