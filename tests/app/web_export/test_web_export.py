"""Web exports: files, checksums, lines, one file, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import LINE

from talkhead import media
from talkhead.app.avatar import load_predictor, speech_codes
from talkhead.app.composer.idle_clip import load_face
from talkhead.app.fit import FitResult
from talkhead.app.home.identities import Home
from talkhead.app.output.verification import VALID, verify
from talkhead.app.web_export import export
from talkhead.app.web_export.export import LIVE_SOURCES, SOURCES, SPEECH, WebExportResult
from talkhead.app.web_export.line_file import quantize
from talkhead.app.web_export.request import check_web, line_name
from talkhead.app.web_export.single_page import ELEMENT, LISTENER, WORKER, bundle
from talkhead.errors import MediaError, TalkheadError
from talkhead.identity import IdentityPackage

MANIFEST = "manifest.json"
Export = Callable[..., WebExportResult]


def manifest_of(site: Path) -> dict[str, Any]:
    return dict(json.loads((site / MANIFEST).read_text("utf-8")))


def contents(site: Path) -> dict[str, bytes]:
    return {
        path.relative_to(site).as_posix(): path.read_bytes()
        for path in sorted(site.rglob("*"))
        if path.is_file()
    }


def test_the_manifest_describes_every_file(site: Path, fitted: FitResult) -> None:
    manifest, files = manifest_of(site), contents(site)
    assert set(manifest["files"]) == set(files) - {MANIFEST, "statement.json"}
    for name, about in manifest["files"].items():
        assert about == {
            "sha256": hashlib.sha256(files[name]).hexdigest(),
            "bytes": len(files[name]),
        }
    assert manifest["identity"] == fitted.name
    assert (manifest["synthetic"], manifest["consent"]) == (True, "Yes.")
    assert (manifest["live"], manifest["live_consent"]) == (False, None)
    assert {path.name for path in SOURCES.iterdir()} - LIVE_SOURCES <= set(files)
    assert not {*files} & {*LIVE_SOURCES, SPEECH}


def test_live_speech_is_exported_with_its_own_consent(
    make_export: Export, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def write_speech(path: Path, _: object) -> None:
        path.write_bytes(b"speech")

    monkeypatch.setattr(export, "write_speech", write_speech)
    for number, consent in enumerate(("Live, too.", None)):
        site = make_export(tmp_path / str(number), live=True, consent=consent).output_path
        manifest = manifest_of(site)
        assert manifest["live"] is True
        assert manifest["consent"] == (consent or "Yes.")
        assert manifest["live_consent"] == consent  # that of the identity is no consent to this
        assert {*LIVE_SOURCES, SPEECH} <= set(manifest["files"])
    html = make_export(tmp_path / "live.html", live=True, single_file=True).output_path.read_text()
    for name in ("capture.js", "listener.js", "talkhead-speech.wasm", SPEECH):
        assert f'"{name}":"' in html


def test_the_statement_is_signed_and_names_the_manifest(site: Path, home: Path) -> None:
    verdict = verify(site / "statement.json", None, home)
    assert verdict.state == VALID and verdict.local
    digest = hashlib.sha256((site / MANIFEST).read_bytes()).hexdigest()
    assert verdict.claims["session"] == f"manifest.json {digest}"
    assert (verdict.claims["synthetic"], verdict.claims["consent"]) == (True, "Yes.")


def test_the_footage_goes_there_and_back(site: Path, fitted: FitResult) -> None:
    n_clip = IdentityPackage.load(fitted.package_path).manifest.n_frames
    frames = np.stack(list(media.read_frames(site / "idle.mp4"))).astype(np.float32)
    assert len(frames) == manifest_of(site)["n_frames"] == 2 * n_clip - 2
    clip = media.read_frames(fitted.package_path / "idle.mp4")
    for i, frame in enumerate(clip):
        for shown in {i, (len(frames) - i) % len(frames)}:
            error = float(np.square(frames[shown] - frame).mean())
            assert 10 * np.log10(255**2 / error) > 34


def test_codes_are_those_of_speak(site: Path, fitted: FitResult) -> None:
    package = IdentityPackage.load(fitted.package_path)
    n_mouth = load_face(package).n_mouth
    (line,) = manifest_of(site)["lines"]
    levels = np.frombuffer((site / line["codes"]).read_bytes(), np.int8)
    codes = levels.reshape(line["n_frames"], n_mouth) * np.float32(line["scale"])
    wanted = speech_codes(LINE, package)[:, :n_mouth]
    assert codes.shape == wanted.shape
    assert (np.abs(codes - wanted) <= 0.501 * np.float32(line["scale"])).all()
    rest = load_predictor(package).scaling.rest[:n_mouth]
    assert np.allclose(manifest_of(site)["rest"], rest, atol=1e-6)


def test_the_sound_is_sample_exact(site: Path) -> None:
    (line,) = manifest_of(site)["lines"]
    rate, n_samples = line["sample_rate"], line["n_samples"]
    sound, source = (media.read_audio(path, rate) for path in (site / line["sound"], LINE))
    assert len(sound) == n_samples == round(line["n_frames"] * rate / 25)
    n_both = min(n_samples, len(source))
    assert np.abs(sound[:n_both] - source[:n_both]).max() <= 1 / 32768
    assert not sound[n_both:].any()


def test_the_same_export_has_the_same_files(
    site: Path, make_export: Export, tmp_path: Path
) -> None:
    again = contents(make_export(tmp_path / "again").output_path)
    first = contents(site)
    assert set(first) == set(again)
    assert {name for name in first if first[name] != again[name]} == {"statement.json"}


def test_one_file_contains_everything(site: Path, make_export: Export, tmp_path: Path) -> None:
    made = make_export(tmp_path / "anna.html", single_file=True)
    html = made.output_path.read_text("utf-8")
    assert made.size_bytes == made.output_path.stat().st_size
    assert not re.search(r"<(?:link|script)[^>]*(?:src|href)=\"(?!data:,)", html)
    found = re.search(r'type="application/json" id="files">(.*?)</script>', html)
    assert found
    packed = {name: base64.b64decode(text) for name, text in json.loads(found[1]).items()}
    expected = contents(site)
    for name in ("head.bin", "idle.mp4", MANIFEST, "talkhead.wasm", "lines/line.codes"):
        assert packed[name] == expected[name]
    make_export(tmp_path / "anna.html", single_file=True)  # replaces an earlier export
    (tmp_path / "mine.html").write_text("<p>Mine")
    with pytest.raises(TalkheadError, match="no earlier export"):
        make_export(tmp_path / "mine.html", single_file=True)
    with pytest.raises(TalkheadError, match="part of an export in a folder"):
        make_export(site / "index.html", single_file=True)


@pytest.mark.parametrize("names", [ELEMENT, WORKER, LISTENER])
def test_bundles_have_no_imports_and_each_name_once(names: tuple[str, ...]) -> None:
    text = bundle(SOURCES, names)
    assert not re.search(r"^\s*(?:import|export)\b", text, re.MULTILINE)
    found = re.findall(r"^(?:const|let|class|(?:async )?function) (\w+)", text, re.MULTILINE)
    assert len(found) == len(set(found))
    imported = {
        name
        for one in names
        for name in re.findall(r'from "\./([\w.-]+)"', (SOURCES / one).read_text("utf-8"))
    }
    assert imported <= set(names)


@pytest.mark.parametrize("path", sorted(SOURCES.glob("*.*s")), ids=lambda path: path.name)
def test_pages_load_nothing_from_elsewhere_and_make_no_markup(path: Path) -> None:
    text = path.read_text("utf-8")
    assert not re.search(r"https?://", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text)


def test_an_earlier_export_is_replaced_and_other_files_are_kept(
    make_export: Export, site: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "site"
    shutil.copytree(site, folder)
    (folder / "page.css").write_text("changed")
    make_export(folder)
    assert (folder / "page.css").read_bytes() == (site / "page.css").read_bytes()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(TalkheadError, match=r"contains notes\.txt"):
        make_export(folder)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_failure_leaves_nothing(
    make_export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise TalkheadError("no space")

    monkeypatch.setattr(export, "write_line", fail)
    with pytest.raises(TalkheadError, match="no space"):
        make_export(tmp_path / "site")
    assert list(tmp_path.iterdir()) == []


def test_other_renderers_are_refused(add: Callable[[Path], object], tmp_path: Path) -> None:
    add(Home(tmp_path).identity_dir("anna"))
    with pytest.raises(TalkheadError, match="fitted with warp; a web page shows gaussian only"):
        check_web(tmp_path / "site", [], identity="anna", home=tmp_path)


def test_unusable_arguments_are_refused(fitted: FitResult, home: Path, tmp_path: Path) -> None:
    def check(output: Path, *lines: Path, single: bool = False) -> None:
        check_web(output, lines, identity=fitted.name, single_file=single, home=home)

    twin = tmp_path / "LINE.wav"
    shutil.copyfile(LINE, twin)
    (tmp_path / "no.wav").write_bytes(b"no sound")
    with pytest.raises(TalkheadError, match="both lines would be called line"):
        check(tmp_path / "site", LINE, twin)
    with pytest.raises(MediaError, match=r"no\.wav"):
        check(tmp_path / "site", tmp_path / "no.wav")
    with pytest.raises(TalkheadError, match="does not exist"):
        check(tmp_path / "missing" / "site")
    with pytest.raises(TalkheadError, match=r"with \.html"):
        check(tmp_path / "site", single=True)
    with pytest.raises(TalkheadError, match="this is a file"):
        check(twin)
    (tmp_path / "page.html").mkdir()
    with pytest.raises(TalkheadError, match="this is a folder"):
        check(tmp_path / "page.html", single=True)
    with pytest.raises(TalkheadError, match="talkhead manages"):
        check(home / "identities" / "site")
    with pytest.raises(TalkheadError, match="not part of an earlier export"):
        check(tmp_path)
    with pytest.raises(TalkheadError, match="bruno"):
        check_web(tmp_path / "site", [], identity="bruno", home=home)


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("Good morning!", "good-morning"),
        ("Café_Grüße 2", "cafe-grue-2"),
        ("../..", "line"),
        ("你好", "line"),
        ("a" * 99, "a" * 60),
    ],
)
def test_names_of_lines_are_safe_in_addresses(stem: str, name: str) -> None:
    assert line_name(stem) == name


def test_quantized_codes_are_within_half_a_step() -> None:
    codes = np.random.default_rng(0).normal(0, [0.0, 1e-9, 1.0, 300.0], (50, 4)).astype(np.float32)
    levels, scale = quantize(codes)
    assert levels.dtype == np.int8 and np.abs(levels).max() == 127
    assert (np.abs(levels * scale - codes) <= 0.5001 * scale).all()
