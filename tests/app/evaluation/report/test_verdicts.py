"""Verdicts follow their rules, name their values and limits, and need values."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from talkhead.app.evaluation.cross_validation import MIN_FRAMES
from talkhead.app.evaluation.report.verdicts import (
    Verdict,
    VerdictInputs,
    headline,
    verdicts,
    weakest_verdict,
)
from talkhead.app.evaluation.results import (
    MADE_VIDEO,
    MEAN_MOUTH,
    PASTED_SPEECH_DRIVEN,
    REAL_VIDEO,
    REENCODED,
    SPEECH_DRIVEN,
    TRACKED_CODES,
    MeasureValidity,
    Report,
    Results,
    Summary,
    Variant,
)


def same(value: float) -> Summary:
    return Summary(value, value, value)


GOOD_LIPS = Results(
    lmd_px=same(0.6),
    aperture_correlation=0.9,
    aperture_lag_ms=0.0,
    aperture_spread=1.0,
    jitter_ratio=1.0,
    silence_leak=0.0,
)
NO_LIPS = Results(dict.fromkeys(GOOD_LIPS, math.nan), lmd_px=same(math.nan), silence_leak=None)


def lips(lmd: float = 0.6, **others: float) -> Results:
    return Results(GOOD_LIPS, lmd_px=same(lmd), **others)


def images(psnr: float = 35.0, sharp: float = 0.9, place: float = 0.9) -> Results:
    return Results(
        psnr_face=same(psnr),
        psnr_head=same(psnr),
        psnr_mouth=same(psnr),
        psnr_frame=None,
        sharpness=same(sharp),
        gradient_correlation=same(place),
    )


def cutout(see_through: float, scraps: float) -> Results:
    return Results(see_through=same(see_through), scraps=same(scraps))


def phonemes(rate: float | None, chance: float | None = 0.4) -> Results:
    return Results(closure_rate=rate, closure_chance=chance)


def sync(offset_ms: float | None) -> Results:
    return Results(offset_ms=offset_ms, confidence=5.0)


def report(*variants: Variant, validity: tuple[MeasureValidity, ...] = ()) -> Report:
    return Report("a", {}, variants, (), None, validity, (), (), ())


REAL_VARIANT = Variant(
    REAL_VIDEO, "real", "", lips=lips(0.0), phonemes=phonemes(1.0), sync=sync(0.0)
)
FLOOR_VARIANT = Variant(REENCODED, "floor", "", lips=lips(0.3))
MEAN_VARIANT = Variant(MEAN_MOUTH, "baseline", "", lips=lips(2.3))


def rated(made: Variant, *others: Variant) -> dict[str, Verdict]:
    found = verdicts(report(REAL_VARIANT, FLOOR_VARIANT, MEAN_VARIANT, *others, made))
    return {verdict.about: verdict for verdict in found}


def spoken(**parts: object) -> Variant:
    return Variant(SPEECH_DRIVEN, "made", "", **parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lmd", "level", "share", "words"),
    [
        (0.4, "good", "95 %", "close to the best"),
        (1.1, "good", "60 %", "close to the best"),
        (1.3, "fair", "50 %", "follow the speech"),
        (2.1, "bad", "10 %", "little better"),
        (2.5, "bad", "never moves.", "worse than"),
    ],
)
def test_mouth_shapes_by_the_place_between_floor_and_mean_mouth(
    lmd: float, level: str, share: str, words: str
) -> None:
    verdict = rated(spoken(lips=lips(lmd)))["Mouth shapes"]
    assert verdict.level == level
    assert share in verdict.text and words in verdict.text
    for figure in (
        f"LMD {lmd:.2f} px",
        "the re-encoded original 0.30",
        "mean mouth 2.30",
        "60 %",
        "30 %",
    ):
        assert figure in verdict.rule


@pytest.mark.parametrize(
    ("tracked", "fault"),
    [(1.3, "mostly the renderer"), (0.8, "renderer and speech alike"), (0.4, "mostly the speech")],
)
def test_tracked_motion_shows_the_cause(tracked: float, fault: str) -> None:
    renderer = Variant(TRACKED_CODES, "made", "", lips=lips(tracked))
    verdict = rated(spoken(lips=lips(1.4)), renderer)["Mouth shapes"]
    assert f"Cause: {fault}." in verdict.text
    assert f"tracked {tracked:.2f}" in verdict.rule
    assert "Cause" not in rated(spoken(lips=lips(1.4)))["Mouth shapes"].text


def test_mouth_shapes_without_codec_floor_or_mean_mouth() -> None:
    made = spoken(lips=lips(1.15))
    (shapes, *_) = verdicts(report(REAL_VARIANT, MEAN_VARIANT, made))
    assert "50 % of the way from the mean mouth to the real mouth" in shapes.text
    assert "Mouth shapes" not in [
        v.about for v in verdicts(report(REAL_VARIANT, FLOOR_VARIANT, made))
    ]
    still = replace(MEAN_VARIANT, lips=lips(0.3))  # a mean mouth as good as the floor: no scale
    found = verdicts(report(FLOOR_VARIANT, still, made))
    assert "Mouth shapes" not in [v.about for v in found]


@pytest.mark.parametrize(
    ("about", "parts", "level", "words"),
    [
        ("Timing of the lips", {"lips": lips(aperture_correlation=0.8)}, "good", "opens when"),
        ("Timing of the lips", {"lips": lips(aperture_correlation=0.6)}, "fair", "mostly"),
        ("Timing of the lips", {"lips": lips(aperture_correlation=0.2)}, "bad", "does not"),
        ("Timing of the lips", {"lips": lips(aperture_lag_ms=80)}, "fair", "80 ms too late"),
        ("Timing of the lips", {"lips": lips(aperture_lag_ms=-120)}, "bad", "120 ms too early"),
        ("Size of the motion", {"lips": lips(aperture_spread=1.0)}, "good", "as much"),
        ("Size of the motion", {"lips": lips(aperture_spread=0.7)}, "fair", "too little"),
        ("Size of the motion", {"lips": lips(aperture_spread=0.0)}, "bad", "too little"),
        ("Size of the motion", {"lips": lips(aperture_spread=1.7)}, "bad", "too much"),
        ("Closed lips", {"phonemes": phonemes(0.95)}, "good", "close"),
        ("Closed lips", {"phonemes": phonemes(0.8)}, "fair", "some"),
        ("Closed lips", {"phonemes": phonemes(0.6)}, "bad", "many"),
        ("Closed lips", {"phonemes": phonemes(0.95, 0.9)}, "bad", "anywhere"),
        ("Silence", {"lips": lips(silence_leak=0.02)}, "good", "rests"),
        ("Silence", {"lips": lips(silence_leak=0.15)}, "fair", "sometimes"),
        ("Silence", {"lips": lips(silence_leak=0.46)}, "bad", "stays open"),
        ("Lips and audio", {"sync": sync(40.0)}, "good", "in sync"),
        ("Lips and audio", {"sync": sync(-80.0)}, "fair", "80 ms apart"),
        ("Lips and audio", {"sync": sync(200.0)}, "bad", "200 ms apart"),
        ("Lips and audio", {"sync": sync(None)}, "bad", "no clear offset"),
        ("Picture of the head", {"images": images(33.0)}, "good", "close"),
        ("Picture of the head", {"images": images(30.0)}, "fair", "differences"),
        ("Picture of the head", {"images": images(20.0)}, "bad", "far"),
        ("Detail of the mouth", {"images": images()}, "good", "as sharp"),
        ("Detail of the mouth", {"images": images(sharp=0.5)}, "fair", "softer"),
        ("Detail of the mouth", {"images": images(sharp=0.3)}, "bad", "softer"),
        ("Detail of the mouth", {"images": images(sharp=3.0)}, "bad", "noise"),
        ("Detail of the mouth", {"images": images(place=0.4)}, "bad", "wrong places"),
        ("Steadiness", {"lips": lips(jitter_ratio=1.1)}, "good", "steady"),
        ("Steadiness", {"lips": lips(jitter_ratio=1.5)}, "fair", "tremble"),
        ("Steadiness", {"lips": lips(jitter_ratio=4.0)}, "bad", "tremble"),
    ],
)
def test_rules(about: str, parts: dict[str, object], level: str, words: str) -> None:
    verdict = rated(spoken(**parts))[about]
    assert verdict.level == level
    assert words in verdict.text
    assert "good" in verdict.rule and "bad" in verdict.rule


@pytest.mark.parametrize(
    ("see_through", "scraps", "level", "words"),
    [
        (0.022, 0.001, "good", "whole"),  # the head of a ten-second clip, hair before books
        (0.007, 0.002, "good", "whole"),
        (0.106, 0.027, "bad", "missing"),  # the same clips as they were when hair was cut away
        (0.018, 0.021, "fair", "background remain"),
        (0.060, 0.005, "fair", "missing"),
        (0.010, 0.200, "bad", "background remain"),
    ],
)
def test_the_head_alone_is_rated_by_its_outline(
    see_through: float, scraps: float, level: str, words: str
) -> None:
    outline = cutout(see_through, scraps)
    tracked = Variant(TRACKED_CODES, "made", "", cutout=outline)
    verdict = rated(spoken(), tracked)["Cut-out of the head"]
    assert verdict.level == level and words in verdict.text
    for text in (f"see-through {see_through:.3f}", f"scraps {scraps:.3f}", "good", "bad"):
        assert text in verdict.rule
    assert ("plain background" in verdict.advice) is (level != "good")


def test_the_outline_is_rated_on_few_frames() -> None:
    """A fault of the outline is visible in any frame."""
    made = replace(spoken(lips=lips()), aperture=(0.1,) * 23)
    outline = cutout(0.106, 0.027)
    found = rated(made, Variant(TRACKED_CODES, "made", "", cutout=outline))
    assert [(v.about, v.level) for v in found.values()] == [("Cut-out of the head", "bad")]


def test_advice_for_everything_that_is_not_good_unless_another_system_made_it() -> None:
    poor = lips(
        2.1, aperture_correlation=0.2, aperture_spread=0.0, silence_leak=0.5, jitter_ratio=4.0
    )
    parts = {"images": images(20.0, 0.3), "phonemes": phonemes(0.6), "sync": sync(200.0)}
    made = spoken(lips=poor, **parts)
    tracked = Variant(TRACKED_CODES, "made", "", images=images(20.0, 0.3), lips=lips(0.5))
    tracked = replace(tracked, cutout=cutout(0.5, 0.5))
    found = rated(made, tracked)
    assert len(found) == 10 and {v.level for v in found.values()} == {"bad"}
    for verdict in found.values():
        assert verdict.advice.endswith(".") and len(verdict.advice) > 20
    assert all(not v.advice for v in rated(spoken(lips=lips())).values() if v.level == "good")
    assert all(not v.advice for v in rated(replace(made, name=MADE_VIDEO)).values())


@pytest.mark.parametrize(("tracked", "words"), [(1.3, "--preset"), (0.4, "speech")])
def test_advice_on_mouth_shapes_follows_the_cause(tracked: float, words: str) -> None:
    renderer = Variant(TRACKED_CODES, "made", "", lips=lips(tracked))
    assert words in rated(spoken(lips=lips(1.4)), renderer)["Mouth shapes"].advice


def test_silence_and_sync_are_compared_with_the_real_video() -> None:
    restless = replace(REAL_VARIANT, lips=lips(silence_leak=0.3), sync=sync(120.0))
    made = spoken(lips=lips(silence_leak=0.3), sync=sync(120.0))
    found = {v.about: v.level for v in verdicts(report(restless, made))}
    assert found["Silence"] == found["Lips and audio"] == "good"


def test_whole_frames_are_rated_by_the_mouth() -> None:
    whole = Results(images(29.0), psnr_frame=same(40.0), psnr_head=same(39.0))
    verdict = rated(spoken(images=whole))["Picture of the mouth"]
    assert verdict.level == "fair" and "PSNR mouth 29.00 dB" in verdict.rule


def test_no_value_gives_no_verdict() -> None:
    assert verdicts(report()) == ()
    assert verdicts(report(REAL_VARIANT, FLOOR_VARIANT, MEAN_VARIANT)) == ()
    nothing = images(math.nan, math.nan, math.nan)
    empty = spoken(lips=NO_LIPS, images=nothing, phonemes=phonemes(None, None))
    assert rated(empty) == {}
    assert headline(()) == "Too little was measured for a verdict."
    assert weakest_verdict(()) is None


def test_the_evaluated_variant() -> None:
    tracked, pasted, own, other = (
        Variant(name, "made", "")
        for name in (TRACKED_CODES, PASTED_SPEECH_DRIVEN, SPEECH_DRIVEN, MADE_VIDEO)
    )
    assert VerdictInputs.of(report(own, tracked, pasted)).made == own
    assert VerdictInputs.of(report(pasted, tracked)).made == pasted
    assert VerdictInputs.of(report(REAL_VARIANT, other)).made == other
    assert VerdictInputs.of(report(own, tracked)).picture == tracked
    assert VerdictInputs.of(report(own)).picture == own


def test_a_measure_that_does_not_rank_is_doubtful() -> None:
    validity = (
        MeasureValidity("jitter", 1.0, 1.0, 1.0, False, ""),
        MeasureValidity("LMD", 0.3, 0.6, 2.0, True, ""),
        MeasureValidity("sharpness", None, None, None, None, ""),
    )
    made = spoken(lips=lips(), images=images())
    found = verdicts(report(FLOOR_VARIANT, MEAN_VARIANT, made, validity=validity))
    assert [v.about for v in found if v.doubtful] == ["Steadiness"]


def test_the_headline_counts_and_names_the_weakest() -> None:
    made = spoken(lips=lips(aperture_correlation=0.6, jitter_ratio=9.0))
    found = list(rated(made).values())
    assert headline(found) == "3 good, 1 fair, 1 bad."
    worst = weakest_verdict(found)
    assert worst is not None and worst.about == "Steadiness"
    assert weakest_verdict([v for v in found if v.level == "good"]) is None


def test_too_few_frames_give_no_verdict() -> None:
    made = Variant(SPEECH_DRIVEN, "made", "", lips=lips(), images=images())
    for n_frames, is_rated in ((MIN_FRAMES - 1, False), (MIN_FRAMES, True)):
        short = replace(made, aperture=(0.1,) * n_frames)
        assert bool(verdicts(report(short))) is is_rated
