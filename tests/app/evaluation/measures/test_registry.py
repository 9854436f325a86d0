"""A measure is one decorated function; tables, JSON and documentation follow the registry."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT

from talkhead.app.evaluation.measures.image import IMAGE_MEASURES, FramePair
from talkhead.app.evaluation.measures.lips import lip_results
from talkhead.app.evaluation.measures.registry import (
    KINDS,
    find_measure,
    quality_measures,
    registered,
)
from talkhead.app.evaluation.report.html import Pictures, write_report
from talkhead.app.evaluation.results import Report, Variant
from talkhead.face import INNER_LIPS, N_LANDMARKS, OUTER_EYE_CORNERS, OUTER_LIPS
from talkhead.types import Float32, UInt8

DOCS = ROOT / "docs"
REGISTERED = {name: tuple(kind.measures) for name, kind in KINDS.items()}


def examples() -> list[str]:
    """The modules of the recipe, as the documentation has them."""
    text = (DOCS / "extending" / "measure.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block for block in blocks if block.startswith('"""')]


@pytest.fixture
def added() -> Iterator[None]:
    """Add the measures of the recipe."""
    before = {kind.name: list(kind.measures) for kind in KINDS.values()}
    for source in examples():
        (name,) = re.findall(r'\.measure\("(\w+)"', source)
        if not any(name in names for names in before.values()):  # unless someone has added it
            exec(compile(source, "measure.md", "exec", dont_inherit=True), {})
    yield
    for kind in KINDS.values():
        for name in [name for name in kind.measures if name not in before[kind.name]]:
            kind.remove(name)


def face(aperture: float) -> Float32:
    """Landmarks [478, 2] of a face in an image of 64 by 64."""
    points = np.zeros((N_LANDMARKS, 2), np.float32) + 32
    points[:, 0] += np.linspace(-16, 16, N_LANDMARKS, dtype=np.float32)
    points[:, 1] += np.linspace(-18, 18, N_LANDMARKS, dtype=np.float32)
    left, right = OUTER_EYE_CORNERS
    points[left], points[right] = (20, 24), (44, 24)
    points[list(OUTER_LIPS)] = [(32 + 6 * np.cos(t), 42 + 3 * np.sin(t)) for t in np.arange(20)]
    points[list(INNER_LIPS)] = 42
    half = len(INNER_LIPS) // 2
    points[list(INNER_LIPS)[half:], 1] += 24 * aperture
    return points


def frame(brightness: int) -> UInt8:
    return np.full((64, 64, 3), brightness, np.uint8)


@pytest.mark.usefixtures("added")
def test_a_measure_added_by_the_recipe_is_in_table_and_json(tmp_path: Path) -> None:
    pairs = [FramePair(frame(60), frame(40), face(0.1)) for _ in range(5)]
    images = IMAGE_MEASURES.summarize([IMAGE_MEASURES.compute(pair) for pair in pairs])
    openings = np.linspace(0.0, 0.2, 50)
    real = np.stack([face(opening) for opening in openings])
    made = np.stack([face(opening / 2) for opening in openings])
    lips = lip_results(np.arange(50), made, real)
    assert images.mouth_brightness.mean == 1.5
    assert lips["peak_ratio"] == pytest.approx(0.5, abs=1e-3)
    variants = (Variant("speech-driven", "made", "a test", images, lips),)
    page = write_report(Report("a", {}, variants, (), None, (), (), (), ()), Pictures(), tmp_path)
    html, stored = page.read_text(), json.loads((tmp_path / "report.json").read_text())
    for label, value in (("brightness", "1.50"), ("peak opening", "0.50")):
        assert f"<span>{label}</span>" in html and re.search(rf"<td[^>]*>{value}<", html)
    assert "Mean brightness of the mouth over that of the real one: 1 is real" in html
    (variant,) = stored["variants"]
    assert variant["images"]["mouth_brightness"] == {"mean": 1.5, "median": 1.5, "tail": 1.5}
    assert variant["lips"]["peak_ratio"] == pytest.approx(0.5, abs=1e-3)
    keys = [measure.key for measure in quality_measures()]
    assert "images.mouth_brightness.mean" in keys and "lips.peak_ratio" in keys


def test_the_recipe_leaves_nothing_behind() -> None:
    assert {name: tuple(kind.measures) for name, kind in KINDS.items()} == REGISTERED


def test_a_name_can_be_used_once_and_not_be_a_method_of_results() -> None:
    for name in ("psnr_face", "items"):
        with pytest.raises(ValueError, match=f"images: the name '{name}' of a measure is taken"):
            IMAGE_MEASURES.measure(name, label="a")(lambda pair: 0.0)


def test_measures_are_found_by_their_keys() -> None:
    for measure in registered():
        assert find_measure(measure.key) is measure
        assert measure.about and measure.label
    with pytest.raises(KeyError):
        find_measure("images.psnr_nose.mean")


def test_the_documentation_has_every_measure_in_the_order_of_the_registry() -> None:
    text = (DOCS / "measures.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)`", text, re.MULTILINE)
    for kind in KINDS.values():
        names = [m.name for m in kind.measures.values() if m.better is not None]
        assert [row for row in rows if row in names] == names, kind.name
