"""A fit that takes seconds, for tests of the code path rather than of quality."""

from __future__ import annotations

import pytest
from paths import SAMPLES

from talkhead.app import workspace as prepare
from talkhead.encoder.predictor import network
from talkhead.renderers.gaussian import model

PERSON, LINE = SAMPLES / "person.mp4", SAMPLES / "line.wav"
SECONDS = 6
TINY_HEAD = model.GaussianConfig(
    n_surface=700, n_cap=40, n_teeth=20, n_rest=200, n_steps=60, batch_size=1
)
TINY_PREDICTOR = network.PredictorConfig(width=16, n_members=2, n_steps=40)


def make_tiny(patch: pytest.MonkeyPatch) -> None:
    """Make a fit with the preview preset take seconds."""
    patch.setitem(model.PRESETS, "preview", TINY_HEAD)
    patch.setattr(prepare, "QUICK", TINY_HEAD)
    patch.setitem(network.PRESETS, "preview", TINY_PREDICTOR)
