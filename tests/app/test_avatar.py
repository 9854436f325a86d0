"""Packages whose parts do not match are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from talkhead.app import avatar as person
from talkhead.errors import PackageError
from talkhead.identity import IdentityPackage


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ((11, 11, 11), ""),
        ((12, 11, 11), "12 in the renderer, 11 in the face, 11 in the predictor"),
        ((11, 11, 9), "11 in the renderer, 11 in the face, 9 in the predictor"),
    ],
)
def test_parts_of_one_person_have_codes_of_one_length(
    add: Callable[[Path], IdentityPackage],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    codes: tuple[int, int, int],
    message: str,
) -> None:
    package = add(tmp_path / "anna")
    head, face, predictor = codes
    parts = {
        "load_renderer": SimpleNamespace(n_codes=head),
        "load_idle": SimpleNamespace(face=SimpleNamespace(n_codes=face)),
        "load_encoder_for": None,
        "load_predictor": SimpleNamespace(scaling=SimpleNamespace(rest=range(predictor))),
    }
    for name, part in parts.items():
        monkeypatch.setattr(person, name, lambda *_, part=part: part)
    if not message:
        assert person.load_avatar(package, None, torch.device("cpu")).name == "anna"
        return
    with pytest.raises(PackageError, match=f"anna: motion codes of {message}. Import or fit"):
        person.load_avatar(package, None, torch.device("cpu"))


def test_a_config_out_of_bounds_names_the_manifest(
    add: Callable[[Path], IdentityPackage], tmp_path: Path
) -> None:
    """The small package's predictor has a config of another component."""
    with pytest.raises(
        PackageError, match=r"identity\.json: PredictorConfig has no 'hidden'\. Imp"
    ):
        person.load_predictor(add(tmp_path / "anna"))
