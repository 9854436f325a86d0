"""The encoder of a package, including packages that were fitted before the encoder changed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from talkhead.app.avatar import ENCODER_VERSION_KEY, load_encoder_for
from talkhead.encoder.registry import load_encoder
from talkhead.errors import TalkheadError
from talkhead.identity import EncoderPart, IdentityPackage


def _package(name: str, version: str) -> IdentityPackage:
    part = EncoderPart(name, {ENCODER_VERSION_KEY: version})
    return cast(
        IdentityPackage, SimpleNamespace(manifest=SimpleNamespace(name="anna", encoder=part))
    )


def test_packages_of_the_first_encoder_still_speak() -> None:
    """They name the encoder "pase"; the version selects the GRU."""
    gru = load_encoder("pase-gru")
    assert load_encoder_for(_package("pase", gru.version)).version == gru.version


def test_packages_of_the_current_encoder_use_it() -> None:
    pase = load_encoder("pase")
    assert load_encoder_for(_package("pase", pase.version)).dim == pase.dim == 208


def test_packages_of_other_weights_are_refused() -> None:
    """The message says that only the predictor has to be fitted again."""
    with pytest.raises(TalkheadError, match="an existing renderer is not fitted again"):
        load_encoder_for(_package("pase", "0" * 16))
