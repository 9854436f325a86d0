"""The renderers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import torch

from talkhead.errors import TalkheadError
from talkhead.renderers.base import Renderer

ENTRY_POINTS = "talkhead.renderers"


def _any_device(config: Any, device: torch.device) -> Any:
    return config


@dataclass(frozen=True)
class RendererSpec:
    """How to make a renderer: its class, its config class, its presets by name.

    for_device: a config as it is best fitted on a device; what it makes runs on every one.
    """

    renderer: Callable[[], type[Renderer]]
    config: Callable[[], type[Any]]
    presets: Callable[[], Mapping[str, Any]]
    for_device: Callable[[Any, torch.device], Any] = _any_device


def _warp() -> RendererSpec:
    from talkhead.renderers.warp import model

    return RendererSpec(lambda: model.WarpRenderer, lambda: model.WarpConfig, lambda: model.PRESETS)


def _gaussian() -> RendererSpec:
    from talkhead.renderers.gaussian import model

    return RendererSpec(
        lambda: model.GaussianRenderer, lambda: model.GaussianConfig, lambda: model.PRESETS
    )


def _nerf() -> RendererSpec:
    from talkhead.renderers.nerf import config, model

    return RendererSpec(
        lambda: model.NerfRenderer,
        lambda: config.NerfConfig,
        lambda: config.PRESETS,
        model.for_device,
    )


RENDERERS: dict[str, Callable[[], RendererSpec]] = {
    "gaussian": _gaussian,
    "nerf": _nerf,
    "warp": _warp,
}


def renderer_names() -> list[str]:
    """Every renderer that can be asked for, those of other packages included."""
    return sorted({*RENDERERS, *(entry.name for entry in entry_points(group=ENTRY_POINTS))})


def get_renderer(name: str) -> RendererSpec:
    """The renderer of that name. Raises TalkheadError naming those there are."""
    if name in RENDERERS:
        return RENDERERS[name]()
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == name:
            kind: RendererSpec = entry.load()()
            return kind
    raise TalkheadError(
        f"there is no renderer {name!r}. Choose one of: {', '.join(renderer_names())}"
    )
