"""Names under which work is stored. They must equal those of earlier releases, so that existing
work is found.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from talkhead.app.dubbing.job import Task
from talkhead.app.home.identities import Home, package_fingerprint
from talkhead.identity import EncoderPart, FittedPart, Manifest, SourceVideo
from talkhead.preprocess.pipeline import PreprocessConfig, dataset_key
from talkhead.storage import fingerprint


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (PreprocessConfig(min_face=0.3), "306d2df023ee045a"),
        (PreprocessConfig(288, 0.8, True), "92b3cd0dde28c0b8"),
    ],
)
def test_datasets(config: PreprocessConfig, key: str) -> None:
    assert dataset_key("a" * 64, config, "1.2") == key


def test_work_folders(tmp_path: Path) -> None:
    assert Home(tmp_path).work_path("anna", "video 1").name == "anna-3b857b8441d7"


def test_jobs() -> None:
    options = {"height": 720, "subtitles": "Öl"}
    line = Task("line", "anna", output="/out/Anna und Öl.mp4", options=options, needs="x")
    fit = Task("fit", "/people/anna", digest="b" * 64, renderer="gaussian", preset="high")
    assert (line.id, line.fingerprint()) == ("Anna-und-Öl-891566bf79", "2b2602381010144e")
    assert (fit.id, fit.fingerprint()) == ("fit-anna-cc638737de", "2f837d1d47e15999")


def test_packages() -> None:
    manifest = Manifest(
        name="anna",
        seed=0,
        preset="high",
        source=SourceVideo("a.mp4", "c" * 64, 1.0, 2, 2, 25.0),
        encoder=EncoderPart("pase"),
        predictor=FittedPart("p.safetensors", {}),
        renderers={name: FittedPart(f"{name[0]}.safetensors", {}) for name in ("gaussian", "nerf")},
        default_renderer="gaussian",
        frame_width=2,
        frame_height=2,
        n_frames=1,
        consent="Ja, für alles",
        files={"p.safetensors": "1", "g.safetensors": "2", "n.safetensors": "3"},
    )
    assert package_fingerprint(manifest) == "3afd37e596b3a4d0"
    assert package_fingerprint(manifest, "nerf") == "05e60ac1a0357710"


def test_corpus_shards() -> None:
    value = {"version": 1, "terms": ["Öl"]}
    wanted = "5dc7cac50f50d48c3525c76045e5fa52ff867b7d5a93bcefd32aa8141bdad57e"
    assert fingerprint(value, ensure_ascii=False) == wanted != fingerprint(value)
