"""The page parses, loads nothing, shows every value, escapes every name, and is reproducible."""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from talkhead.app.evaluation.cross_validation import MIN_FRAMES, Interval
from talkhead.app.evaluation.measures.registry import KINDS, quality_measures, registered
from talkhead.app.evaluation.report import html as report_module
from talkhead.app.evaluation.report.html import (
    CELL_HEIGHTS,
    SECTIONS,
    Pictures,
    Sheet,
    WorstFrame,
    describe,
    variant_styles,
    write_report,
)
from talkhead.app.evaluation.report.tables import MAIN, NOTHING, format_value
from talkhead.app.evaluation.report.verdicts import ADVICE
from talkhead.app.evaluation.results import (
    MEAN_MOUTH,
    PASTED_SPEECH_DRIVEN,
    REAL_VIDEO,
    REENCODED,
    SPEECH_DRIVEN,
    TRACKED_CODES,
    CrossValidatedRow,
    CrossValidation,
    MeasureValidity,
    OffsetEvidence,
    OffsetResults,
    Report,
    Results,
    Summary,
    Variant,
    VisemeRow,
)
from talkhead.errors import TalkheadError
from talkhead.stage_timer import Stage
from talkhead.types import UInt8

VOID = {"meta", "br", "img", "link", "input", "hr"}
EVIL = "<script>alert('x')</script> & \"co\""
EMPTY = Report("nothing", {}, (), (), None, (), (), (), ())


class Page(HTMLParser):
    """Texts and attributes of a page; fails where tags don't match."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data.strip())

    def having(self, attribute: str) -> list[str]:
        return [attrs[attribute] for _, attrs in self.tags if attribute in attrs]


_numbers = iter(np.random.default_rng(1).uniform(0.1, 9.9, 2000).round(3).tolist())


def number() -> float:
    """A different number each time, so that none is found by chance."""
    return float(next(_numbers))


def summary() -> Summary:
    return Summary(number(), number(), number())


def lip_shape() -> list[list[float]]:
    return [[math.cos(i), 0.4 * math.sin(i)] for i in range(40)]


COUNTS = {"n_tracked": 60, "n_lost": 3, "n_silent": 5, "n_vowels": 41, "n_bilabials": 22}


def results(kind: str, n_frames: int, **others: object) -> Results:
    """Make results with a value for every registered measure of a kind."""
    values = Results()
    for name, measure in KINDS[kind].measures.items():
        values[name] = summary() if measure.headline else number()
    counts = {name: count for name, count in COUNTS.items() if name in values}
    return Results(
        values | counts | ({"n_frames": n_frames} if "n_frames" in values else {}), **others
    )


def variant(name: str, kind: str, n_frames: int = 60) -> Variant:
    sync = {"lags_ms": [-40.0, 0.0, 40.0], "scores": [number() for _ in range(3)]}
    lips = [number() for _ in range(5)]
    return Variant(
        name,
        kind,  # type: ignore[arg-type]
        f"about {name}",
        results("images", n_frames),
        results("lips", n_frames),
        results("phonemes", n_frames),
        results("sync", n_frames, offset_ms=100 * number(), **sync),
        results("syncnet", n_frames, offset_frames=7),
        (VisemeRow("p b m", 17, *lips, lip_shape(), lip_shape()),),
        tuple(number() / 50 for _ in range(n_frames)),
        tuple(number() for _ in range(n_frames)),
        results("cutout", 19),
    )


NAMES = {
    REAL_VIDEO: "real",
    REENCODED: "floor",
    TRACKED_CODES: "made",
    SPEECH_DRIVEN: "made",
    MEAN_MOUTH: "baseline",
}
OFFSET = OffsetResults(
    (
        OffsetEvidence("the sync model", 40.0, 8.125, 2.25, [-40.0, 0.0, 40.0], [1.0, 2.0, 8.125]),
        OffsetEvidence("the opening ratio", None, 4.375, 4.25, [0.0, 40.0], [4.375, math.nan]),
    ),
    True,
    -230.0,
)


def folded_row(
    name: str, kind: str, low: float = math.nan, high: float = math.nan
) -> CrossValidatedRow:
    intervals = {} if kind == "real" else {"lmd_px": (low, high)}
    return CrossValidatedRow(name, kind, f"folds of {name}", results("lips", 0), intervals)  # type: ignore[arg-type]


FOLDS = CrossValidation(
    7,
    618,
    (
        folded_row(REAL_VIDEO, "real"),
        folded_row(TRACKED_CODES, "floor", 0.412, 0.514),
        folded_row(SPEECH_DRIVEN, "made", 1.317, 1.519),
        folded_row(MEAN_MOUTH, "baseline"),
    ),
    {
        MEAN_MOUTH: Interval(-0.246, -0.343, -0.149),
        TRACKED_CODES: Interval(0.618, -0.1, 1.3),
    },
)
FULL = Report(
    title="a head",
    facts={"footage": "clip.mp4"},
    variants=tuple(variant(name, kind) for name, kind in NAMES.items()),
    cross=(variant(PASTED_SPEECH_DRIVEN, "made"),),
    offset=OFFSET,
    validity=(
        MeasureValidity("LMD", 0.312, 1.234, 2.345, True, "3 of 4"),
        MeasureValidity("jitter", 1.111, None, math.nan, None, ""),
    ),
    stages=(Stage("fitting", 172.4, 1460.0), Stage("speaking", 6.1, 690.0, 81.3)),
    warnings=("few frames",),
    left_out=("LPIPS: no weights",),
    cross_validation=FOLDS,
)


def picture(seed: int, height: int = 60, width: int = 40) -> UInt8:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 3))


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    video = tmp_path / "pair.mp4"
    video.write_bytes(b"no real video")
    images = [picture(i) for i in range(4)]
    return Pictures(
        video,
        "left: real",
        (Sheet("Heads", [("real", images[:2]), ("made", images[2:])], ["frame 3", "frame 9"]),),
        (WorstFrame(1234, "lips far from real", images[0], images[1]),),
        (False,) * 10 + (True,) * 20,
    )


def html_of(report: Report, pictures: Pictures, folder: Path) -> str:
    return write_report(report, pictures, folder).read_text("utf-8")


def test_the_full_page_has_all_sections_in_order(pictures: Pictures, tmp_path: Path) -> None:
    page = Page(html_of(FULL, pictures, tmp_path / "out"))
    ids = page.having("id")
    assert ids == list(SECTIONS)
    links = page.having("href")
    assert {link.removeprefix("#") for link in links} <= set(ids)
    headings = [attrs for tag, attrs in page.tags if tag == "h2"]
    assert len(headings) == len(SECTIONS) + 1  # and the verdict
    for text in ("few frames", "LPIPS: no weights", "clip.mp4", "frame 1234: lips far from real"):
        assert text in page.texts


def test_nothing_is_loaded_from_anywhere(pictures: Pictures, tmp_path: Path) -> None:
    html = html_of(FULL, pictures, tmp_path / "out")
    page = Page(html)
    written = re.sub(r"base64,[\w+/=]*", "", html)
    assert len(written) < len(html)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|@font-face", written, re.IGNORECASE)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "base"})
    assert all(src.startswith("data:") for src in page.having("src"))
    assert all(href.startswith("#") for href in page.having("href"))
    (policy,) = (a["content"] for _, a in page.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_every_value_is_shown(pictures: Pictures, tmp_path: Path) -> None:
    page = Page(html_of(FULL, pictures, tmp_path / "out"))
    shown = set(re.findall(r"-?\d+(?:\.\d+)?", " ".join(page.texts)))
    wanted = []
    for one in (*FULL.variants, *FULL.cross):
        measures = [m for m in registered() if not m.key.endswith("n_lost")]
        values = {m.key: m.of(one) for m in measures}
        assert None not in values.values()
        wanted += [format_value(values[m.key], m.digits) for m in measures]
        assert one.images is not None
        wanted += [format_value(one.images.psnr_mouth.tail, 2)]
    for one in (v for v in FULL.variants if v.kind == "made"):
        (row,) = one.visemes
        numbers = (row.real_aperture, row.made_aperture, row.real_width, row.made_width)
        wanted += [f"{n:.3f}" for n in numbers] + [f"{row.distance:.4f}", "17"]
    wanted += ["0.31", "1.23", "2.35", "1.11", "172.4", "1460", "6.1", "690", "81.3", "3.25"]
    wanted += ["8.125", "2.250", "40", "4.375", "4.250", "-230"]
    assert [text for text in wanted if text not in shown] == []


def test_cross_validated_lips_are_shown_with_their_intervals(tmp_path: Path) -> None:
    page = Page(html_of(replace(EMPTY, cross_validation=FOLDS), Pictures(), tmp_path))
    assert page.having("id") == ["folds"] and "Cross-validated lips" in page.texts
    shown = " ".join(page.texts)
    assert "618 frames in 7 folds" in shown and "folds of mean mouth" in page.texts
    for row in FOLDS.rows:
        measures = [KINDS["lips"].measures[name] for name in ("lmd_px", "aperture_correlation")]
        wanted = [format_value(m.headline_of(row.lips), m.digits) for m in measures]
        assert [text for text in wanted if text not in page.texts] == []
    assert {"0.41 to 0.51", "1.32 to 1.52"} <= set(page.texts)
    assert not re.search(r"\b(nan|inf|None)\b", shown)
    nearer = (
        "are 0.25 px nearer to the real ones than folds of mean mouth (95 % interval 0.15 to 0.34)"
    )
    chance = "are 0.62 px farther from the real ones than folds of tracked codes (may be chance)"
    text = describe(replace(EMPTY, cross_validation=FOLDS))
    assert nearer in shown and nearer in text
    assert chance in shown and chance in text
    assert "Cross-validated lips, 618 frames in 7 folds" in text


def test_cross_validated_lips_are_stored_under_a_key_of_their_own() -> None:
    stored = FULL.to_json()["cross_validation"]
    assert (stored["n_folds"], stored["n_frames"]) == (7, 618)
    rows = {row["name"]: row for row in stored["rows"]}
    assert rows[SPEECH_DRIVEN]["intervals"] == {"lmd_px": [1.317, 1.519]}
    assert rows[MEAN_MOUTH]["intervals"] == {"lmd_px": [None, None]}
    assert "images" not in rows[REAL_VIDEO]
    assert stored["differences"][MEAN_MOUTH] == {"mean": -0.246, "low": -0.343, "high": -0.149}
    without = replace(FULL, cross_validation=None)
    assert without.to_json()["cross_validation"] is None
    assert "Cross-validated" not in describe(without)


def test_the_median_is_in_the_tooltip(tmp_path: Path) -> None:
    page = Page(html_of(FULL, Pictures(), tmp_path))
    images = FULL.variants[0].images
    assert images is not None
    assert any(f"median {images.ssim_face.median:.3f}" in title for title in page.having("title"))


def test_every_column_is_explained(tmp_path: Path) -> None:
    page = Page(html_of(FULL, Pictures(), tmp_path))
    for measure in registered():
        assert measure.about in page.having("title")
        assert measure.about in page.texts


def test_missing_values_are_dashes_and_columns_without_values_are_left_out(tmp_path: Path) -> None:
    first, second = variant(TRACKED_CODES, "made"), variant(SPEECH_DRIVEN, "made")
    assert first.images is not None and second.images is not None and second.lips is not None
    second = replace(
        second,
        lips=Results(second.lips | {"silence_leak": None, "jitter_ratio": math.nan}),
        images=Results(second.images | {"lpips_face": None}),
    )
    first = replace(first, images=Results(first.images | {"lpips_face": None}))
    page = Page(html_of(replace(EMPTY, variants=(first, second)), Pictures(), tmp_path))
    assert page.texts.count(NOTHING) == 2
    assert "silence motion" in page.texts
    assert page.texts.count("LPIPS face") == 0
    assert any("Not measured: LPIPS face." in text for text in page.texts)
    assert not re.search(r"\b(nan|inf|None)\b", " ".join(page.texts))


def test_sections_without_data_do_not_appear(tmp_path: Path) -> None:
    page = Page(html_of(EMPTY, Pictures(), tmp_path))
    assert page.having("id") == page.having("src") == page.having("href") == []
    assert "Too little was measured for a verdict." in page.texts
    one = replace(EMPTY, variants=(Variant("a", "made", "b"),))
    assert Page(html_of(one, Pictures(), tmp_path)).having("id") == []
    timed = replace(EMPTY, stages=(Stage("a", 1.0, 2.0),))
    assert Page(html_of(timed, Pictures(), tmp_path)).having("id") == ["stages"]


def undefined(kind: str, **others: object) -> Results:
    """Make results without a defined value."""
    return Results({name: m.undefined for name, m in KINDS[kind].measures.items()}, **others)


def test_a_page_without_any_defined_value(tmp_path: Path) -> None:
    nan = math.nan
    blank = Variant(
        "a",
        "made",
        "b",
        undefined("images", n_frames=0),
        undefined("lips", n_tracked=0, n_lost=0, n_silent=0, silence_leak=None),
        undefined("phonemes", n_vowels=0, n_bilabials=0, closure_rate=None),
        undefined("sync", offset_ms=None, n_frames=0, lags_ms=[], scores=[]),
        undefined("syncnet", offset_frames=0),
        (VisemeRow("a", 0, nan, nan, nan, nan, nan, [[nan, nan]] * 40, []),),
        (nan,) * 9,
        (nan,) * 9,
    )
    offset = OffsetResults((OffsetEvidence("a", None, nan, nan, [], []),), None, 0.0)
    report = replace(
        EMPTY,
        variants=(blank,),
        offset=offset,
        validity=(MeasureValidity("?", None, nan, None, None, ""),),
        stages=(Stage("s", nan, nan),),
    )
    page = Page(html_of(report, Pictures(), tmp_path))
    assert page.having("id") == ["validity", "visemes", "offset", "stages", "left_out"]
    assert not re.search(r"\b(nan|inf|None)\b", " ".join(page.texts), re.IGNORECASE)
    assert describe(report)


def test_audio_too_short_for_the_sync_model_is_left_out_and_reported(tmp_path: Path) -> None:
    """There are no empty plots and no table without values."""
    short = replace(
        FULL, cross=(), variants=tuple(_too_short(v) for v in FULL.variants), left_out=()
    )
    page = Page(html_of(short, Pictures(), tmp_path))
    assert "sync_model" not in page.having("id") and "Sync" not in page.texts
    assert any("too short to measure the sync" in text for text in page.texts)
    assert "too short to measure the sync" in describe(short)
    whole = Page(html_of(FULL, Pictures(), tmp_path))
    assert "sync_model" in whole.having("id")
    assert not any("too short to measure" in text for text in whole.texts)


def _too_short(variant: Variant) -> Variant:
    lags = [-40.0, 0.0, 40.0]
    sync = undefined("sync", offset_ms=None, n_frames=0, lags_ms=lags, scores=[0.0] * 3)
    return replace(variant, sync=sync, syncnet=None)


def test_internal_names_are_not_shown(pictures: Pictures, tmp_path: Path) -> None:
    """The kind "floor" is the best case, not the worst, so readers see a clearer name."""
    page = Page(html_of(FULL, pictures, tmp_path / "out"))
    shown = " ".join([*page.texts, *page.having("title"), *page.having("alt"), describe(FULL)])
    assert "floor" not in shown
    assert "re-encoded original" in shown and "the best that any method can reach" in shown


def test_verdicts_that_are_not_good_come_with_advice(tmp_path: Path) -> None:
    lips = FULL.variants[3].lips
    assert lips is not None
    enough = (0.1,) * MIN_FRAMES
    trembling = Results(lips | {"jitter_ratio": 1.5})
    made = (replace(FULL.variants[3], lips=trembling, aperture=enough),)
    page = Page(html_of(replace(EMPTY, variants=made), Pictures(), tmp_path))
    advice = ADVICE["Steadiness"]
    assert f"What to do: {advice}" in page.texts
    assert f"To do: {advice}" in describe(replace(EMPTY, variants=made))


def test_names_are_escaped(pictures: Pictures, tmp_path: Path) -> None:
    variants = tuple(
        replace(v, name=EVIL, about=EVIL) if v.kind == "made" else v for v in FULL.variants[:4]
    )
    row = replace(FULL.variants[2].visemes[0], viseme=EVIL)
    evidence = replace(OFFSET.evidence[0], method=EVIL)
    report = Report(
        EVIL,
        {EVIL: EVIL},
        (*variants[:3], replace(variants[3], visemes=(row,))),
        variants[2:3],
        replace(OFFSET, evidence=(evidence,)),
        (MeasureValidity(EVIL, 1.0, 2.0, 3.0, False, EVIL),),
        (Stage(EVIL, 1.0, 2.0),),
        (EVIL,),
        (EVIL,),
    )
    shown = replace(
        pictures,
        video_about=EVIL,
        sheets=(Sheet(EVIL, [(EVIL, [picture(1)])], [EVIL]),),
        worst=(replace(pictures.worst[0], about=EVIL),),
    )
    html = html_of(report, shown, tmp_path / "out")
    assert "<script" not in html and "alert('x')" not in html
    page = Page(html)
    assert page.texts.count(EVIL) > 15
    assert f"{EVIL}, {EVIL}" in page.having("alt") and EVIL in page.having("title")


def test_json_is_the_report(tmp_path: Path) -> None:
    write_report(FULL, Pictures(), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json"]
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored == json.loads(json.dumps(FULL.to_json()))


def test_same_report_same_bytes(pictures: Pictures, tmp_path: Path) -> None:
    first, second = (html_of(FULL, pictures, tmp_path / name) for name in "ab")
    assert first == second


def test_pictures_are_embedded_and_not_enlarged(pictures: Pictures, tmp_path: Path) -> None:
    page = Page(html_of(EMPTY, pictures, tmp_path / "out"))
    (video,) = (a["src"] for tag, a in page.tags if tag == "video")
    assert base64.b64decode(video.removeprefix("data:video/mp4;base64,")) == b"no real video"
    uris = [a["src"] for tag, a in page.tags if tag == "img"]
    assert len(uris) == 4 + 3
    first, *_, difference = (decoded(uri) for uri in uris)
    assert first.shape == (60, 40, 3)
    error = first.astype(float) - picture(0)
    assert np.sqrt(np.mean(np.square(error))) < 6  # RGB in, RGB out, JPEG between
    gap = np.abs(picture(0).astype(int) - picture(1)).mean()
    assert difference.mean() == pytest.approx(min(4 * gap, 255), rel=0.1)
    assert "frame 9" in page.texts


def decoded(uri: str) -> UInt8:
    data = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(image[..., ::-1])


def test_many_large_pictures_are_made_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_module, "PICTURE_BYTES", 25_000)
    images = [picture(i, 480, 320) for i in range(6)]
    rows = Pictures(sheets=(Sheet("a", [("real", images)]), Sheet("none", [("real", [])])))
    html = html_of(EMPTY, rows, tmp_path)
    uris = [a["src"] for tag, a in Page(html).tags if tag == "img"]
    assert len(uris) == 6
    assert sum(map(len, uris)) <= 25_000
    assert decoded(uris[0]).shape[0] in CELL_HEIGHTS[1:]


def test_a_large_video_is_left_out_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = tmp_path / "big.mp4"
    video.write_bytes(bytes(2_100_000))
    monkeypatch.setattr(report_module, "VIDEO_BYTES", 2_000_000)
    page = Page(html_of(EMPTY, Pictures(video), tmp_path / "out"))
    assert page.having("src") == []
    assert any("side-by-side video: 2.1 MB" in text for text in page.texts)


def test_a_missing_video_is_a_clear_error_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(TalkheadError, match=r"gone\.mp4: there is no such file"):
        write_report(EMPTY, Pictures(tmp_path / "gone.mp4"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_best_of_the_made_variants_is_marked(tmp_path: Path) -> None:
    def images(psnr: float, sharp: float) -> Results:
        names = ("psnr_face", "ssim_face", "lpips_face", "lpips_mouth")
        values = dict.fromkeys(names, Summary(psnr, psnr, psnr))
        return Results(values, n_frames=9, sharpness=Summary(sharp, sharp, sharp))

    def best(*rows: tuple[str, Results]) -> list[str]:
        variants = tuple(Variant(f"t{i}", k, "", r) for i, (k, r) in enumerate(rows))  # type: ignore[arg-type]
        html = html_of(replace(EMPTY, variants=variants), Pictures(), tmp_path)
        return re.findall(r'<td class="best"[^>]*>([\d.]+)<', html)

    floor, low, high = images(41.0, 1.0), images(30.0, 0.9), images(33.0, 1.4)
    assert best(("floor", floor), ("made", low), ("baseline", high)) == []
    found = best(("floor", floor), ("made", low), ("made", high))
    assert set(found) == {"33.00", "33.000", "30.000", "0.90"}  # less is better for LPIPS alone
    assert found.count("0.90") == 1 and found.count("30.000") == 2


def test_a_variant_has_one_style_everywhere_and_variants_differ() -> None:
    styles = variant_styles(FULL)
    assert styles[REAL_VIDEO] == "real" and styles[REENCODED] == "floor"
    assert len(set(styles.values())) == len(styles) == 6
    assert styles[MEAN_MOUTH].endswith(" dashed")


def test_format_value() -> None:
    assert format_value(1.005, 1) == "1.0"
    assert format_value(-0.001, 2) == "0.00"
    assert format_value(12, 0) == "12"
    assert (
        format_value(None, 2) == format_value(math.nan, 2) == format_value(math.inf, 0) == NOTHING
    )


def test_describe_is_an_aligned_table_with_verdicts_and_warnings() -> None:
    text = describe(replace(FULL, cross_validation=None))
    lines = text.splitlines()
    assert lines[0] == FULL.title
    rows = [line for line in lines if line.startswith(tuple(NAMES))]
    assert len({len(row) for row in rows}) == 1 and len(rows) == len(NAMES)
    for one, row in zip(FULL.variants, rows, strict=True):
        shown = row.split()
        for key in MAIN:
            measure = next(m for m in quality_measures() if m.key == key)
            assert format_value(measure.of(one), measure.digits) in shown
    assert "Warning: few frames" in lines
    assert "Left out: LPIPS: no weights" in lines
    assert "report.html" in lines[-1]
    assert max(map(len, rows)) <= 130


def test_describe_shortens_names_and_omits_columns_without_values() -> None:
    assert describe(EMPTY) == "nothing"
    sync = Results(offset_ms=None, confidence=3.0, n_frames=9, lags_ms=[], scores=[])
    plain = Variant("a name " * 30, "made", "", sync=sync)
    text = describe(replace(EMPTY, variants=(plain,)))
    assert "PSNR" not in text and "confidence" in text
    assert max(map(len, text.splitlines())) < 60
