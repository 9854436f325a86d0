"""The contract of renderers, checked for each registered one and the documented example."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import accepted, damages
from paths import ROOT
from threads import using_threads
from torch import Tensor

from talkhead.config import from_json, to_json
from talkhead.dataset import IdentityDataset
from talkhead.device import map_concurrently
from talkhead.errors import TalkheadError
from talkhead.progress import SilentProgress
from talkhead.renderers import registry
from talkhead.renderers.base import Renderer
from talkhead.renderers.batches import make_batch
from talkhead.renderers.quantization import pack, unpack
from talkhead.renderers.registry import RENDERERS, get_renderer, renderer_names
from talkhead.renderers.trainer import fit_renderer
from talkhead.storage import read_tensors, write_tensors
from talkhead.types import Rendering

SIZE = (128, 96)
RECIPE = ROOT / "docs" / "extending" / "renderer.md"


@dataclass(frozen=True)
class Fitted:
    """A renderer fitted on the synthetic head."""

    renderer_class: type[Renderer]
    config: Any
    renderer: Renderer
    dataset: IdentityDataset

    def render(
        self, frames: list[int], size: tuple[int, int] = SIZE, renderer: Renderer | None = None
    ) -> Rendering:
        tracks, renderer = self.dataset.tracks, renderer or self.renderer
        n_more = renderer.n_codes - tracks.codes.shape[1]
        codes = np.pad(tracks.codes, ((0, 0), (0, n_more)))
        cameras = [
            torch.from_numpy(a[frames]) for a in (codes, tracks.viewmats, self.dataset.crop_ks)
        ]
        with torch.no_grad():
            return renderer.render(*cameras, *size)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Add the renderer of the documentation as its page describes."""
    code, line = re.findall(r"```python\n(.*?)```", RECIPE.read_text("utf-8"), re.DOTALL)[:2]
    folder = tmp_path_factory.mktemp("recipe") / "flat"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""The flat head."""\n', "utf-8")
    (folder / "model.py").write_text(code, "utf-8")
    registry: dict[str, Any] = {}
    exec(line, registry)
    added = {name: path for name, path in registry["RENDERERS"].items() if name not in RENDERERS}
    assert added.keys() == {"flat"} and registry["RENDERERS"].items() >= RENDERERS.items()
    with pytest.MonkeyPatch.context() as patch:
        package = importlib.import_module("talkhead.renderers")
        patch.setattr(package, "__path__", [*package.__path__, str(folder.parent)])
        patch.setitem(RENDERERS, "flat", added["flat"])
        yield
        for name in ("talkhead.renderers.flat.model", "talkhead.renderers.flat"):
            del sys.modules[name]


@pytest.fixture(scope="module", params=[*sorted(RENDERERS), "flat"])
def fitted(
    recipe: None,
    request: pytest.FixtureRequest,
    head_dataset: IdentityDataset,
    tmp_path_factory: pytest.TempPathFactory,
) -> Fitted:
    renderer_class = get_renderer(request.param)
    config = renderer_class.test_config or renderer_class.presets["preview"]
    checkpoint = tmp_path_factory.mktemp(request.param) / "state.safetensors"
    renderer = fit_renderer(renderer_class, head_dataset, config, checkpoint, SilentProgress())
    return Fitted(renderer_class, config, renderer, head_dataset)


def test_shapes_and_ranges(fitted: Fitted) -> None:
    rendering = fitted.render([0, 13, 39])
    assert rendering.rgb.shape == (3, *SIZE, 3) and rendering.alpha.shape == (3, *SIZE, 1)
    for image in (rendering.rgb, rendering.alpha):
        assert image.dtype == torch.float32 and image.device.type == "cpu"
        assert torch.isfinite(image).all()
    assert rendering.alpha.min() >= 0.0 and rendering.alpha.max() <= 1.0


def test_it_shows_the_head(fitted: Fitted) -> None:
    """The image is opaque in the face, transparent in the background, and closer to the frame than
    the frame's mean color is.
    """
    frame = 5
    rendering = fitted.render([frame])
    alpha = rendering.alpha[0, ..., 0].numpy()
    landmarks = fitted.dataset.crop_landmarks()[frame].astype(int)
    nose, corner = landmarks[4], (3, 3)
    assert alpha[nose[1], nose[0]] > 0.9 and alpha[corner] < 0.3
    true = fitted.dataset.frames[frame].astype(np.float32) / 255.0
    inside = (fitted.dataset.masks[frame] > 250) & (alpha > 0.9)
    image = rendering.rgb[0].numpy()
    error = np.abs(image[inside] - true[inside]).mean()
    assert error < 0.5 * np.abs(true[inside] - true[inside].mean(0)).mean()


def test_same_input_same_bits(fitted: Fitted) -> None:
    first, second = fitted.render([2, 8]), fitted.render([2, 8])
    assert torch.equal(first.rgb, second.rgb) and torch.equal(first.alpha, second.alpha)


def test_several_threads_may_render(fitted: Fitted) -> None:
    frames = [[i % 5] for i in range(20)]
    expected = [fitted.render(frame) for frame in frames]
    with using_threads(3):
        found = list(map_concurrently(fitted.render, frames, 3))
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one.rgb, other.rgb) and torch.equal(one.alpha, other.alpha)


def test_a_batch_equals_its_images_one_by_one(fitted: Fitted) -> None:
    frames = [1, 20, 30]
    batch = fitted.render(frames)
    for i, frame in enumerate(frames):
        single = fitted.render([frame])
        assert torch.allclose(single.rgb[0], batch.rgb[i], atol=1e-5)
        assert torch.allclose(single.alpha[0], batch.alpha[i], atol=1e-5)


def test_a_window_is_a_part_of_the_image(fitted: Fitted) -> None:
    """With shifted intrinsics and another size, the pixels are the same."""
    frame, top, left = 7, 61, 22
    tracks = fitted.dataset.tracks
    ks = fitted.dataset.crop_ks[[frame]].copy()
    ks[:, 0, 2] -= left
    ks[:, 1, 2] -= top
    with torch.no_grad():
        part = fitted.renderer.render(
            torch.from_numpy(tracks.codes[[frame]]),
            torch.from_numpy(tracks.viewmats[[frame]]),
            torch.from_numpy(ks),
            40,
            50,
        )
    whole = fitted.render([frame])
    window = (slice(None), slice(top, top + 40), slice(left, left + 50))
    difference = (part.rgb - whole.rgb[window]).abs()
    assert difference.mean() < 0.004 and difference.max() < 0.15


def test_the_code_moves_only_the_mouth(fitted: Fitted) -> None:
    """Lowering the jaw changes the pixels of the mouth, and hardly those of forehead and hair."""
    frame = 3
    tracks = fitted.dataset.tracks
    codes = np.repeat(tracks.codes[[frame]], 2, axis=0)
    codes[:, 0] = (-1.5, 1.5)
    with torch.no_grad():
        images = fitted.renderer.render(
            torch.from_numpy(codes),
            torch.from_numpy(np.repeat(tracks.viewmats[[frame]], 2, axis=0)),
            torch.from_numpy(np.repeat(fitted.dataset.crop_ks[[frame]], 2, axis=0)),
            *SIZE,
        ).rgb
    change = (images[1] - images[0]).abs().mean(-1).numpy()
    landmarks = fitted.dataset.crop_landmarks()[frame].astype(int)
    mouth = change[landmarks[0, 1] - 2 : landmarks[17, 1] + 3, landmarks[61, 0] : landmarks[291, 0]]
    assert mouth.mean() > 0.02
    assert change[: landmarks[70, 1] - 8].mean() < 0.5 * mouth.mean()


def test_packing_hardly_changes_the_rendering(fitted: Fitted) -> None:
    """A loss of 0.1 dB at 30 dB corresponds to an error 16 dB below that of the rendering."""
    packed = unpack(pack(fitted.renderer.tensors(), fitted.renderer.quantization_steps()))
    again = fitted.renderer_class.from_tensors(packed, fitted.config)
    first, second = fitted.render([2, 17]), fitted.render([2, 17], renderer=again)
    error = (first.rgb - second.rgb).square().mean()
    assert 10 * torch.log10(1 / (error + 1e-12)) > 46


def test_losses_are_finite_scalars(fitted: Fitted) -> None:
    landmarks = fitted.dataset.crop_landmarks()
    losses = fitted.renderer.losses(make_batch(fitted.dataset, landmarks, np.array([0, 4])), 0)
    for name, value in losses.items():
        assert isinstance(name, str) and value.shape == () and torch.isfinite(value)
    assert bool(losses) == bool(fitted.renderer.param_groups())


def test_tensors_round_trip(fitted: Fitted, tmp_path: Path) -> None:
    """Tensors are stored in a file, as in a package, and the config as JSON: the images are the
    same.
    """
    tensors = fitted.renderer.tensors()
    assert all(isinstance(t, Tensor) and not t.requires_grad for t in tensors.values())
    write_tensors(tmp_path / "head.safetensors", tensors)
    config = from_json(
        fitted.renderer_class.config_class, json.loads(json.dumps(to_json(fitted.config)))
    )
    back = fitted.renderer_class.from_tensors(read_tensors(tmp_path / "head.safetensors"), config)
    first, second = fitted.render([11, 12]), fitted.render([11, 12], renderer=back)
    assert torch.equal(first.rgb, second.rgb) and torch.equal(first.alpha, second.alpha)
    again = back.tensors()
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())


MAY_DIFFER = {
    "gaussian": {
        ("seen_codes", "longer 0"),  # any number of training codes
        ("seen_codes", "shorter 0"),
        ("seen_codes", "longer 1"),
        ("seen_codes", "shorter 1"),  # some components of the mouth move no vertex
        ("seen_reach", "holds inf"),  # from too little footage
        ("seen_reach", "holds nan"),
    },
    "nerf": {("space.basis", "longer 0")},  # clothes, on which no plane depends
    "warp": {
        ("face.triangles", "longer 0"),  # any number of triangles
        ("face.triangles", "shorter 0"),
        ("images", "other byte"),  # a byte of the last image
        ("masks", "other byte"),
    },
}
"""Changes that a renderer accepts; the images stay finite."""


def test_damaged_tensors_are_refused(fitted: Fitted) -> None:
    """Each tensor is missing, has another dtype, rank or size, is not finite or is out of range, or
    there is an extra tensor.
    """
    load = partial(fitted.renderer_class.from_tensors, config=fitted.config)
    tensors = fitted.renderer.tensors()
    assert accepted(tensors, load) == MAY_DIFFER.get(fitted.renderer.name, set())
    for name, kind, damaged in damages(tensors):
        if (name, kind) in MAY_DIFFER.get(fitted.renderer.name, set()):
            assert torch.isfinite(fitted.render([3], renderer=load(damaged)).rgb).all(), kind
    assert load(tensors).n_codes == fitted.dataset.face.n_codes


def test_damaged_packed_tensors_are_refused(fitted: Fitted) -> None:
    """After unpacking, as when packages are loaded, tensors are checked like any others."""

    def load(tensors: Mapping[str, Tensor]) -> Renderer:
        return fitted.renderer_class.from_tensors(unpack(tensors), fitted.config)

    packed = pack(fitted.renderer.tensors(), fitted.renderer.quantization_steps())
    scalars = {
        name for name, step in fitted.renderer.quantization_steps().items() if step.ndim == 0
    }
    assert accepted(packed, load) == {(f"{name}.step", "rank") for name in scalars}


def test_config_round_trip_and_unknown_keys(fitted: Fitted) -> None:
    config_class = fitted.renderer_class.config_class
    assert is_dataclass(config_class) and config_class.__dataclass_params__.frozen  # type: ignore[attr-defined]
    for preset in fitted.renderer_class.presets.values():
        assert from_json(config_class, json.loads(json.dumps(to_json(preset)))) == preset
    known = fields(config_class)[0].name
    with pytest.raises(TalkheadError, match="n_wings"):
        from_json(config_class, {known: 1, "n_wings": 2})


def test_configs_have_bounds(fitted: Fitted) -> None:
    """Every number has bounds, and only numbers are accepted."""
    config_class = fitted.renderer_class.config_class
    for field in fields(config_class):
        if isinstance(field.default, int | float):
            for value in (10**12, -(10**12), float("nan"), "9", None, [1]):
                with pytest.raises(TalkheadError, match=field.name):
                    from_json(config_class, {field.name: value})


def test_presets(fitted: Fitted) -> None:
    assert set(fitted.renderer_class.presets) >= {"preview", "standard", "high"}


def test_renderers_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point that names a class adds a renderer; it cannot replace an included one."""
    value = "talkhead.renderers.warp.model:WarpRenderer"
    found = [EntryPoint(name, value, registry.ENTRY_POINTS) for name in ("other", "gaussian")]
    monkeypatch.setattr(registry, "entry_points", lambda group: found)
    registry._plugins.cache_clear()
    try:
        assert renderer_names() == sorted({*RENDERERS, "other"})
        assert get_renderer("other").name == "warp"
        assert get_renderer("gaussian").name == "gaussian"
    finally:
        registry._plugins.cache_clear()


def test_names() -> None:
    assert set(RENDERERS) <= set(renderer_names())
    for name in RENDERERS:
        assert get_renderer(name).name == name
    with pytest.raises(TalkheadError, match=r"no renderer 'nerv'.*gaussian.*warp"):
        get_renderer("nerv")
