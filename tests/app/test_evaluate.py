"""Evaluation of a fitted identity: contents of the report, and the footage it needs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from talkhead import media
from talkhead.app.evaluate import evaluate
from talkhead.app.evaluation.evaluate_identity import EvaluationTarget
from talkhead.app.evaluation.options import EvaluateOptions
from talkhead.app.evaluation.variant import AudioContext
from talkhead.app.fit import FitResult
from talkhead.app.home.identities import Home
from talkhead.app.workspace import find_footage
from talkhead.errors import TalkheadError
from talkhead.identity import IdentityPackage


def test_fit_ends_with_a_report(fitted: FitResult) -> None:
    assert fitted.report_path is not None
    report = json.loads(fitted.report_path.with_name("report.json").read_text())
    assert [variant["name"] for variant in report["variants"]] == list(fitted.figures)
    assert report["stages"][0]["name"] == "preparing the footage"
    assert "talkhead evaluate" in " ".join(report["left_out"])


def test_the_full_report(fitted: FitResult, home: Path, tmp_path: Path) -> None:
    """The report has every section, and tracked motion is better than the mean mouth."""
    options = EvaluateOptions(text=None)
    result = evaluate(home=home, report=tmp_path / "report", device="cpu", options=options)
    variants = {variant.name: variant for variant in result.report.variants}
    assert len(variants) == 8 and {one.kind for one in variants.values()} >= {
        "real",
        "floor",
        "made",
    }
    tracked, mean = variants["tracked codes"], variants["mean mouth"]
    assert tracked.images is not None and mean.images is not None
    assert tracked.images.psnr_mouth.mean > mean.images.psnr_mouth.mean
    assert tracked.lips is not None and mean.lips is not None
    assert tracked.lips.lmd_px.mean < mean.lips.lmd_px.mean
    assert [variant.name for variant in result.report.cross] == [
        "real",
        "pasted, speech-driven",
        "unchanged footage",
    ]
    assert result.report.offset is not None and result.report.validity
    names = [stage.name for stage in result.report.stages]
    assert {"rendering heads", "pasting into the footage", "packing"} <= set(names)
    assert any("test frames" in warning for warning in result.report.warnings)
    assert tracked.cutout is not None and tracked.cutout.n_frames > 0
    assert tracked.cutout.see_through.mean < 0.5 and tracked.cutout.scraps.mean < 0.5
    page = result.report_path.read_text()
    assert "data:video/mp4;base64," in page and fitted.name in page
    assert "The head alone" in page and "Cut-out of the head" in page
    assert result.report.cross_validation is None and "Cross-validated lips" not in page


def test_only_the_first_seconds_of_the_held_out_end(
    fitted: FitResult, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = None

    def stop(given: EvaluationTarget, sound: AudioContext, *rest: object) -> None:
        nonlocal subject
        subject = given
        assert len(sound.silent) == given.frames[-1] - given.frames[0] + 1
        raise TalkheadError("enough")

    monkeypatch.setattr("talkhead.app.evaluate.measure_identity", stop)
    options = EvaluateOptions(seconds=0.4, language="xx")
    with pytest.raises(TalkheadError, match="enough"):
        evaluate(fitted.name, home=home, report=tmp_path / "r", options=options)
    assert subject is not None and len(subject.frames) == 10
    tracks = subject.dataset.tracks
    assert not tracks.train[subject.frames].any()
    assert tracks.train[subject.mismatched_frames()].all()


def test_wrong_arguments_are_refused_first(
    fitted: FitResult, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("talkhead.app.evaluate.measure_identity", None)
    (tmp_path / "file").touch()
    with pytest.raises(TalkheadError, match=r"too short for 5 folds.*Record a longer video"):
        evaluate(fitted.name, home=home, folds=5)
    with pytest.raises(TalkheadError, match="2 folds: choose 3 to 20"):
        evaluate(fitted.name, home=home, folds=2)
    for given, words in (
        ({"audio": tmp_path / "none.wav"}, "no such file"),
        ({"report": tmp_path / "file"}, "Pass a folder"),
    ):
        with pytest.raises(TalkheadError, match=words):
            evaluate(fitted.name, home=home, **given)


def test_missing_or_different_footage_is_refused(
    fitted: FitResult, home: Path, tmp_path: Path, footage: Path
) -> None:
    moved = tmp_path / "moved.mp4"
    footage.rename(moved)
    other = tmp_path / "other.mp4"
    media.write_video(other, [np.full((64, 64, 3), 90, np.uint8)] * 10)
    try:
        with pytest.raises(TalkheadError, match=r"was moved or removed.*--video FILE"):
            evaluate(fitted.name, home=home)
        with pytest.raises(TalkheadError, match=r"other\.mp4: is not the footage"):
            evaluate(fitted.name, home=home, video=other)
        package = IdentityPackage.load(fitted.package_path)
        assert find_footage(Home.locate(home), package, moved)[0].path == moved
    finally:
        moved.rename(footage)


def test_an_identity_fitted_on_all_frames_is_refused(fitted: FitResult, home: Path) -> None:
    package = IdentityPackage.load(fitted.package_path)
    seen_all = replace(
        package, manifest=replace(package.manifest, details={"use_all_frames": True})
    )
    with pytest.raises(TalkheadError, match=r"fitted on all frames.*--pair"):
        find_footage(Home.locate(home), seen_all, None)
