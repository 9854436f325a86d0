"""One identity with two renderers, fitted one after the other and chosen when speaking."""

from __future__ import annotations

import shutil
import wave
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import LINE, make_tiny

from talkhead import media
from talkhead.app.avatar import load_renderer
from talkhead.app.composer.idle_clip import FACE
from talkhead.app.fit import FitResult, fit
from talkhead.app.speak import speak
from talkhead.errors import PackageError
from talkhead.identity import IdentityPackage, PackageWriter
from talkhead.renderers.nerf import config
from talkhead.storage import read_tensors

TINY_NERF = config.NerfConfig(
    fine_unit=0.06, blend_unit=0.08, pose_unit=0.2, n_steps=30, n_patches=24
)


@pytest.fixture(scope="module")
def both(
    fitted: FitResult, footage: Path, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A home in which the person has a Gaussian and then a NeRF head."""
    place = tmp_path_factory.mktemp("two") / "home"
    shutil.copytree(home, place)
    with pytest.MonkeyPatch.context() as patch:
        make_tiny(patch)
        patch.setitem(config.PRESETS, "preview", TINY_NERF)
        fit(footage, preset="preview", renderer="nerf", home=place, device="cpu")
    return place


def test_the_other_head_is_kept(both: Path, fitted: FitResult) -> None:
    package = IdentityPackage.load(both / "identities" / fitted.name)
    assert sorted(package.manifest.renderers) == ["gaussian", "nerf"]
    assert package.manifest.default_renderer == "gaussian", "the one fitted first"
    assert package.manifest.consent == "Yes.", "it isn't asked for twice"
    before = read_tensors(fitted.package_path / "gaussian.safetensors")
    after = package.tensors("gaussian.safetensors")
    assert all((after[name] == tensor).all() for name, tensor in before.items())


def test_a_head_of_another_version_is_reported(both: Path, fitted: FitResult) -> None:
    """The other version lacks a tensor that this version stores."""
    package = IdentityPackage.load(both / "identities" / fitted.name)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(PackageError, match="Fit again"):
        patch.setattr(IdentityPackage, "tensors", lambda *_: {"base": torch.zeros(1, 7)})
        load_renderer(package, "gaussian", torch.device("cpu"))


def test_speaking_with_each_renderer(both: Path, tmp_path: Path) -> None:
    line = tmp_path / "line.wav"
    with wave.open(str(LINE)) as whole, wave.open(str(line), "w") as part:
        part.setparams(whole.getparams())
        part.writeframes(whole.readframes(whole.getframerate() // 2))
    shown = {}
    for renderer in ("nerf", "gaussian", None):
        output = tmp_path / f"{renderer}.mp4"
        result = speak(line, renderer=renderer, output=output, home=both, device="cpu")
        assert result.renderer == (renderer or "gaussian")
        with closing(media.read_frames(output)) as frames:
            shown[renderer] = np.stack(list(frames))
    assert np.array_equal(shown[None], shown["gaussian"])
    assert not np.array_equal(shown["gaussian"], shown["nerf"])


def test_a_head_of_another_face_model_is_not_kept(
    both: Path, fitted: FitResult, footage: Path, tmp_path: Path
) -> None:
    """Its codes have another meaning, as when the footage was prepared again."""
    place = tmp_path / "home"
    shutil.copytree(both, place)
    destination = place / "identities" / fitted.name
    changed = IdentityPackage.load(destination)
    with PackageWriter(destination) as writer:
        for name in changed.manifest.files:
            writer.add_file(name, changed.file(name))
        face = read_tensors(writer.path(FACE))
        writer.add_tensors(FACE, {**face, "template": face["template"] + 0.01})
        writer.finish(changed.manifest)
    with pytest.MonkeyPatch.context() as patch:
        make_tiny(patch)
        fit(footage, preset="preview", home=place, device="cpu")
    assert list(IdentityPackage.load(destination).manifest.renderers) == ["gaussian"]
