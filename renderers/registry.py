"""The registry of renderers. Importing it imports neither a renderer nor torch."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from talkhead.errors import TalkheadError

if TYPE_CHECKING:
    from talkhead.renderers.base import Renderer

RENDERERS = {
    "gaussian": "talkhead.renderers.gaussian.model:GaussianRenderer",
    "nerf": "talkhead.renderers.nerf.model:NerfRenderer",
    "warp": "talkhead.renderers.warp.model:WarpRenderer",
}
"""The built-in renderers: name, module and class."""
ENTRY_POINTS = "talkhead.renderers"
"""The group of entry points with which other packages add renderers. Each names a class."""


def renderer_names() -> list[str]:
    """Return the names of all renderers, those of other packages included, sorted."""
    return sorted({*RENDERERS, *_plugins()})


def get_renderer(name: str) -> type[Renderer]:
    """Import a renderer.

    Args:
        name: One of renderer_names().

    Returns:
        The renderer's class.

    Raises:
        TalkheadError: If no renderer has that name. The message lists those that exist.
    """
    if name in RENDERERS:
        module, _, class_name = RENDERERS[name].partition(":")
        renderer: type[Renderer] = getattr(import_module(module), class_name)
    elif name in _plugins():
        renderer = _plugins()[name].load()
    else:
        raise TalkheadError(
            f"there is no renderer {name!r}. Choose one of: {', '.join(renderer_names())}"
        )
    return renderer


@cache
def _plugins() -> dict[str, EntryPoint]:
    """Return the entry points of other packages by name."""
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
