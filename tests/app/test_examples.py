"""The scripts and packages in examples/ work with the tiny identity."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from paths import ROOT
from scipy.io import wavfile
from tiny import LINE, make_tiny

from talkhead import fit, load_encoder, media, speak
from talkhead.app.fit import FitResult
from talkhead.identity import IdentityPackage
from talkhead.renderers import registry
from talkhead.types import SAMPLE_RATE

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomllib")

EXAMPLES = ROOT / "examples"
PLUGINS = ("custom_encoder", "custom_renderer")


@pytest.fixture(autouse=True)
def _at_home(fitted: FitResult, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fitted.package_path.is_dir()
    monkeypatch.setenv("TALKHEAD_HOME", str(home))


@pytest.fixture
def short_line(tmp_path: Path) -> Path:
    """The first half second of the sample line."""
    path = tmp_path / "hello.wav"
    wavfile.write(path, SAMPLE_RATE, media.read_audio(LINE)[: SAMPLE_RATE // 2])
    return path


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_speaking_an_array(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    result = script("speak_from_array").main(["--output", str(output)])
    assert result.output_path == output
    line_s = media.probe(LINE).duration_s
    assert media.probe(output).duration_s == pytest.approx(line_s + 0.5, abs=0.05)


def test_frames_as_arrays(short_line: Path, capsys: pytest.CaptureFixture[str]) -> None:
    n_frames, shape = script("frames_to_arrays").main(["--audio", str(short_line)])
    assert n_frames == 12 and shape[2] == 3
    assert "12 frames of" in capsys.readouterr().out


def test_one_identity_for_many_lines(tmp_path: Path, short_line: Path) -> None:
    other = short_line.with_name("bye.wav")
    shutil.copy(short_line, other)
    main = script("reuse_identity").main
    results = main(["--folder", str(tmp_path), str(short_line), str(other)])
    assert [r.output_path.name for r in results] == ["hello.mp4", "bye.mp4"]
    assert all(media.probe(r.output_path).height == 360 for r in results)
    first, second = (r.output_path for r in results)
    assert [f.tolist() for f in media.read_frames(first)] == [
        f.tolist() for f in media.read_frames(second)
    ]


@pytest.fixture
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The two packages with their modules and entry points, as pip would install them."""
    for name in PLUGINS:
        settings = tomllib.loads((EXAMPLES / name / "pyproject.toml").read_text("utf-8"))
        project = settings["project"]
        info = (
            tmp_path
            / "site"
            / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        )
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
        lines = []
        for group, entries in project["entry-points"].items():
            lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
        (info / "entry_points.txt").write_text("\n".join(lines))
        for module in settings["tool"]["setuptools"]["py-modules"]:
            shutil.copy(EXAMPLES / name / f"{module}.py", tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    registry._plugins.cache_clear()
    yield
    registry._plugins.cache_clear()


@pytest.mark.usefixtures("_installed")
def test_an_encoder_and_a_renderer_of_other_packages(
    footage: Path, home: Path, tmp_path: Path, short_line: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tiny(monkeypatch)
    own = tmp_path / "home"
    shutil.copytree(home, own)  # its footage is already prepared
    result = fit(
        footage, preset="preview", renderer="nearest", encoder="bands", home=own, device="cpu"
    )
    manifest = IdentityPackage.load(result.package_path).manifest
    assert manifest.encoder.name == "bands" and "nearest" in manifest.renderers
    output = tmp_path / "out.mp4"
    made = speak(short_line, renderer="nearest", output=output, home=own, device="cpu")
    assert (made.renderer, made.n_frames) == ("nearest", 12)
    assert load_encoder("bands").dim == 8
