"""Stored formats: files of older or newer versions are loaded, or refused in one line with a
remedy.

docs/formats.md lists the formats. Datasets, manifests and jobs are tested elsewhere.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from talkhead.app.avatar import load_encoder_for, load_predictor, load_renderer
from talkhead.app.evaluation.measures.sync_model import SyncModel
from talkhead.config import to_json
from talkhead.dataset import IdentityDataset
from talkhead.encoder.pase.weights import CONFIG, read_pase
from talkhead.encoder.predictor.model import MotionPredictor, Scaling
from talkhead.encoder.predictor.network import PredictorConfig, TemporalNets
from talkhead.encoder.predictor.prior import FACTS, read_prior
from talkhead.errors import TalkheadError
from talkhead.identity import (
    EncoderPart,
    FittedPart,
    IdentityPackage,
    PackageWriter,
    export_package,
    import_package,
)
from talkhead.renderers.registry import get_renderer
from talkhead.storage import read_tensors, write_tensors
from talkhead.tensors import json_tensor, read_json_tensor
from talkhead.weights import resolve

Add = Callable[[Path], IdentityPackage]
Change = Callable[[dict[str, Tensor]], None]


def refusal(load: Callable[[], Any]) -> str:
    """Return the message with which a file is refused, which must be one line."""
    with pytest.raises(TalkheadError) as caught:
        load()
    message = str(caught.value)
    assert "\n" not in message
    return message


# ------------------------------------------------------------------------------- weights

WEIGHTS: Mapping[str, tuple[Callable[[Path], Any], str]] = {
    "pase.safetensors": (read_pase, "rain them again"),
    "prior.safetensors": (read_prior, "rain it again"),
    "judge.safetensors": (SyncModel.load, "einstall talkhead"),
}
"""Shipped weights, their readers, and the remedy that an error names."""


def keep(tensors: dict[str, Tensor]) -> None:
    pass


def remove_last(tensors: dict[str, Tensor]) -> None:
    del tensors[max(tensors)]


def add_unknown(tensors: dict[str, Tensor]) -> None:
    tensors["unknown"] = torch.zeros(1)


def enlarge_last(tensors: dict[str, Tensor]) -> None:
    name = max(tensors)
    tensors[name] = torch.cat([tensors[name][None], tensors[name][None]])


def changed_json(name: str, change: Callable[[dict[str, Any]], Any]) -> Change:
    """Make a function that changes the JSON stored under a name."""

    def apply(tensors: dict[str, Tensor]) -> None:
        value = read_json_tensor(tensors, name)
        change(value)
        tensors[name] = json_tensor(value)

    return apply


def another_version(name: str, path: Path, change: Change) -> Path:
    """Write a copy of shipped weights as another version would store them."""
    tensors = dict(read_tensors(resolve(name)))
    change(tensors)
    write_tensors(path / name, tensors)
    return path / name


@pytest.mark.parametrize("change", [remove_last, add_unknown, enlarge_last])
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_of_another_version_are_refused(name: str, change: Change, tmp_path: Path) -> None:
    """One tensor is missing, one is added, or one has another size."""
    read, remedy = WEIGHTS[name]
    message = refusal(lambda: read(another_version(name, tmp_path, change)))
    assert message.startswith(str(tmp_path / name)) and remedy in message


def add_setting(data: dict[str, Any]) -> None:
    data["unknown"] = 1


@pytest.mark.parametrize(
    ("name", "key"), [("pase.safetensors", CONFIG), ("prior.safetensors", FACTS)]
)
def test_weights_with_an_unknown_setting_are_refused(name: str, key: str, tmp_path: Path) -> None:
    read, remedy = WEIGHTS[name]
    path = another_version(name, tmp_path, changed_json(key, add_setting))
    message = refusal(lambda: read(path))
    assert message.startswith(str(path)) and "unknown" in message and remedy in message


def test_weights_without_a_setting_get_its_default(tmp_path: Path) -> None:
    """A setting that was added later has a default that describes older weights."""
    path = another_version(
        "pase.safetensors", tmp_path, changed_json(CONFIG, lambda data: data.pop("dropout"))
    )
    assert read_pase(path)[0].config == read_pase(resolve(path.name))[0].config


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_shipped_weights_load(name: str) -> None:
    read, _ = WEIGHTS[name]
    assert read(resolve(name))


# ---------------------------------------------------------------------- exported identities


def with_manifest(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Rewrite an exported identity with a changed manifest."""
    with zipfile.ZipFile(path) as archive:
        members = {info: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for info, data in members.items():
            if info.filename == "identity.json":
                manifest = json.loads(data)
                change(manifest)
                data = json.dumps(manifest).encode()
            archive.writestr(info, data)
    return path


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (lambda data: data.update(format_version=2), "Fit this identity again"),
        (lambda data: data.update(format_version=4), "Upgrade talkhead"),
        (lambda data: data.pop("format_version"), "Fit this identity again"),
        (add_setting, "Import or fit this identity again"),
    ],
)
def test_exported_identities_of_another_version_are_refused(
    add: Add, tmp_path: Path, change: Callable[[dict[str, Any]], Any], remedy: str
) -> None:
    export = export_package(add(tmp_path / "anna"), tmp_path / "anna.talkhead")
    with_manifest(export, change)
    message = refusal(lambda: import_package(export, tmp_path / "berta"))
    assert message.startswith(str(export)) and message.endswith(remedy)
    assert not (tmp_path / "berta").exists()


def test_an_exported_identity_of_this_version_loads(add: Add, tmp_path: Path) -> None:
    export = export_package(add(tmp_path / "anna"), tmp_path / "anna.talkhead")
    with_manifest(export, lambda data: None)
    assert import_package(export, tmp_path / "berta").manifest.name == "berta"


# ---------------------------------------------------------------------- parts of a package


def with_part(
    package: IdentityPackage, name: str, tensors: Mapping[str, Tensor], **changes: Any
) -> IdentityPackage:
    """Rewrite a package with another file of tensors and a changed manifest."""
    with PackageWriter(package.path) as writer:
        for other in package.manifest.files:
            if other != name:
                writer.add_file(other, package.file(other))
        writer.add_tensors(name, tensors)
        return writer.finish(replace(package.manifest, **changes))


def small_predictor() -> MotionPredictor:
    config = PredictorConfig(width=16, layers=((3, 1),), n_members=2)
    zeros = np.zeros(3, np.float32)
    scaling = Scaling(50.0, 1, zeros, zeros + 1, zeros, zeros - 1, zeros + 1, zeros, 1.0, 0.5)
    nets = TemporalNets(config, scaling.n_inputs, 3, scaling.ahead, config.n_members)
    return MotionPredictor(config, scaling, nets)


@pytest.fixture
def package(add: Add, tmp_path: Path) -> IdentityPackage:
    return add(tmp_path / "anna")


def with_predictor(package: IdentityPackage, change: Change, **settings: Any) -> IdentityPackage:
    """Rewrite a package with a small predictor of another version."""
    predictor = small_predictor()
    tensors = dict(predictor.tensors())
    change(tensors)
    name = "predictor.safetensors"
    part = FittedPart(name, {**to_json(predictor.config), **settings})
    return with_part(package, name, tensors, predictor=part)


@pytest.mark.parametrize("change", [remove_last, add_unknown, enlarge_last])
def test_predictors_of_another_version_are_refused(
    package: IdentityPackage, change: Change
) -> None:
    message = refusal(lambda: load_predictor(with_predictor(package, change)))
    assert message.startswith(str(package.path / "predictor.safetensors"))
    assert message.endswith("fit this identity again")


def test_predictors_with_other_settings_are_refused(package: IdentityPackage) -> None:
    message = refusal(lambda: load_predictor(with_predictor(package, keep, unknown=1)))
    assert message.startswith(str(package.path / "identity.json"))
    assert message.endswith("fit this identity again")


def test_a_predictor_of_this_version_loads(package: IdentityPackage) -> None:
    loaded = load_predictor(with_predictor(package, keep))
    assert loaded.config == small_predictor().config


def test_other_weights_of_the_encoder_are_refused(package: IdentityPackage) -> None:
    """A predictor only fits the features that it was trained on."""
    encoder = EncoderPart("mel", {"version": "0"})
    old = with_part(package, "more.safetensors", {"a": torch.zeros(1)}, encoder=encoder)
    message = refusal(lambda: load_encoder_for(old))
    assert message.startswith("anna") and "Run talkhead fit" in message


@pytest.mark.parametrize("change", [remove_last, add_unknown])
def test_renderers_of_another_version_are_refused(
    package: IdentityPackage, head_dataset: IdentityDataset, change: Change
) -> None:
    warp = get_renderer("warp")
    config = warp.presets["preview"]
    tensors = dict(warp.from_dataset(head_dataset, config, 0).tensors())
    cpu = torch.device("cpu")
    part = {"warp": FittedPart("warp.safetensors", to_json(config))}
    same = with_part(package, "warp.safetensors", tensors, renderers=part)
    assert load_renderer(same, "warp", cpu).n_codes == load_renderer(same, None, cpu).n_codes
    change(tensors)
    message = refusal(
        lambda: load_renderer(
            with_part(same, "warp.safetensors", tensors, renderers=part), "warp", cpu
        )
    )
    assert message.startswith(str(package.path / "warp.safetensors"))
    assert message.endswith("it again")
