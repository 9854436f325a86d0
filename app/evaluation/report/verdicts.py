"""Verdicts: results in plain words, by fixed rules. Each verdict names its measure and limits.

The limits are the project's own: small predictors of motion from speech cover 0.25 to 0.6 of the way
from the mean mouth to the re-encoded original, a head under tracked motion about 0.7; results are
good if a viewer no longer notices a difference. A measure without a value gives no verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from talkhead.app.evaluation.cross_validation import MIN_FRAMES
from talkhead.app.evaluation.measures.registry import find_measure
from talkhead.app.evaluation.results import (
    MADE_VIDEO,
    MEAN_MOUTH,
    PASTED_SPEECH_DRIVEN,
    SPEECH_DRIVEN,
    TRACKED_CODES,
    Report,
    Variant,
    VariantKind,
)
from talkhead.types import FRAME_RATE

Rating = Literal["good", "fair", "bad"]
RATINGS: tuple[Rating, ...] = ("good", "fair", "bad")
FRAME_MS = 1000 / FRAME_RATE
CUTOUT_LIMITS = {"cutout.see_through.mean": (0.04, 0.08), "cutout.scraps.mean": (0.01, 0.025)}
"""Shares of the strips at the outline up to which a cut-out is good, and above which it is bad. Heads
that had lost their hair had 0.11 and 0.027, some with scraps only 0.018 and 0.021; whole ones have
0.02 and 0.002 at most."""
CUTOUT_FAULTS = {
    "cutout.see_through.mean": "over another background parts of the person are missing",
    "cutout.scraps.mean": "parts of the old background remain",
}


@dataclass(frozen=True)
class Verdict:
    """One finding.

    Attributes:
        about: Its subject.
        level: "good", "fair" or "bad".
        text: The finding as a sentence.
        rule: The values and limits that it follows from.
        measure: Key of the measure that it is based on.
        section: The section of the report that shows why.
        advice: What to do about it; "" for a good one.
        doubtful: True if this measure fails the ranking test on this clip.
    """

    about: str
    level: Rating
    text: str
    rule: str
    measure: str
    section: str
    advice: str = ""
    doubtful: bool = False


@dataclass(frozen=True)
class VerdictInputs:
    """The variants that the rules compare; None if a report has none.

    Attributes:
        made: The evaluated variant: the speech-driven one, or else the last that was made.
        picture: The variant by which the renderer is rated: under tracked motion if there is one.
        tracked: The rendering of tracked motion.
        real: The real video.
        floor: The real video re-encoded.
        mean_mouth: The baseline with the mean mouth.
    """

    made: Variant | None
    picture: Variant | None
    tracked: Variant | None
    real: Variant | None
    floor: Variant | None
    mean_mouth: Variant | None

    @classmethod
    def of(cls, report: Report) -> VerdictInputs:
        """Select the variants of a report.

        Args:
            report: The results.

        Returns:
            The variants.
        """

        def find(kind: VariantKind, name: str = "") -> Variant | None:
            fitting = [v for v in report.variants if v.kind == kind and name in ("", v.name)]
            return fitting[-1] if fitting else None

        tracked = find("made", TRACKED_CODES)
        made = find("made", SPEECH_DRIVEN) or find("made", PASTED_SPEECH_DRIVEN) or find("made")
        mean_mouth = find("baseline", MEAN_MOUTH)
        return cls(made, tracked or made, tracked, find("real"), find("floor"), mean_mouth)


def verdicts(report: Report) -> tuple[Verdict, ...]:
    """Apply all rules to a report.

    Args:
        report: The results.

    Returns:
        Verdicts in a fixed order, empty if nothing was measured. With too few frames speech gets no
        verdict, only the head's outline does.
    """
    inputs = VerdictInputs.of(report)
    is_short = inputs.made is not None and 0 < len(inputs.made.aperture) < MIN_FRAMES
    rules = (_cutout,) if is_short else RULES
    found = [verdict for rule in rules if (verdict := rule(inputs)) is not None]
    failed = {one.measure for one in report.validity if one.holds is False}
    return tuple(
        replace(
            v,
            advice=_advice(v, inputs),
            doubtful=bool(failed & {v.measure, find_measure(v.measure).label}),
        )
        for v in found
    )


def _advice(verdict: Verdict, inputs: VerdictInputs) -> str:
    """Choose the advice for a verdict; none for a good one, or for another system's video."""
    if verdict.level == "good" or inputs.made is None or inputs.made.name == MADE_VIDEO:
        return ""
    return verdict.advice or ADVICE[verdict.about]


def headline(found: Sequence[Verdict]) -> str:
    """Count the verdicts of each level.

    Args:
        found: The verdicts.

    Returns:
        One sentence.
    """
    if not found:
        return "Too little was measured for a verdict."
    counts = {level: sum(v.level == level for v in found) for level in RATINGS}
    return ", ".join(f"{count} {level}" for level, count in counts.items() if count) + "."


def weakest_verdict(found: Sequence[Verdict]) -> Verdict | None:
    """Find the first of the worst verdicts.

    Args:
        found: The verdicts.

    Returns:
        The verdict; None if all are good.
    """
    worst = max(found, key=lambda v: RATINGS.index(v.level), default=None)
    return worst if worst is not None and worst.level != "good" else None


# ------------------------------------------------------------------------------- rules


def _shapes(inputs: VerdictInputs) -> Verdict | None:
    key = "lips.lmd_px.mean"
    lmd, floor, mean = (_value(v, key) for v in (inputs.made, inputs.floor, inputs.mean_mouth))
    best, floor = "the real mouth" if floor is None else "the re-encoded original", floor or 0.0
    if lmd is None or mean is None or mean <= floor:
        return None
    share = (mean - lmd) / (mean - floor)
    level = _rate_high(share, 0.6, 0.3)
    text = {
        "good": "close to the best possible",
        "fair": "they follow the speech, with visible differences",
        "bad": "little better than a mouth that never moves",
    }[level]
    text += f": {100 * share:.0f} % of the way from the mean mouth to {best}."
    text = "worse than a mouth that never moves." if share < 0 else text
    tracked, advice = _value(inputs.tracked, key), ""
    rule = f"{_quote(inputs.made, key)}, {best} {floor:.2f}, mean mouth {mean:.2f}"
    if tracked is not None and inputs.made is not inputs.tracked and level != "good":
        part = (tracked - floor) / (lmd - floor)
        cause = "mostly the renderer" if part > 0.6 else "mostly the speech"
        text += f" Cause: {cause if abs(part - 0.5) > 0.1 else 'renderer and speech alike'}."
        rule += f", tracked {tracked:.2f}"
        advice = ADVICE["Picture of the head"] if part > 0.6 else ""
    rule += "; good from 60 %, bad below 30 %"
    return Verdict("Mouth shapes", level, text, rule, key, "lmd", advice)


def _timing(inputs: VerdictInputs) -> Verdict | None:
    key, lag_key = "lips.aperture_correlation", "lips.aperture_lag_ms"
    r, lag = _value(inputs.made, key), _value(inputs.made, lag_key)
    if r is None:
        return None
    level = _rate_high(r, 0.7, 0.5)
    text = {
        "good": "the mouth opens when the real one does",
        "fair": "the mouth mostly opens when the real one does",
        "bad": "the mouth often opens when the real one does not",
    }[level]
    rule = f"{_quote(inputs.made, key)}; good from 0.7, bad below 0.5"
    if lag is not None and level != "bad":  # the best lag means nothing without a correlation
        level = _worst(level, _rate_low(abs(lag), FRAME_MS, 2 * FRAME_MS))
        rule += f"; lag {lag:.0f} ms, good up to {FRAME_MS:.0f}, bad beyond {2 * FRAME_MS:.0f}"
        if abs(lag) > FRAME_MS:
            text += f", but {abs(lag):.0f} ms too {'late' if lag > 0 else 'early'}"
    return Verdict("Timing of the lips", level, f"{text}.", rule, key, "opening")


def _range(inputs: VerdictInputs) -> Verdict | None:
    key = "lips.aperture_spread"
    spread = _value(inputs.made, key)
    if spread is None:
        return None
    level = _rate_low(_fold(spread), 1.25, 1.6)
    way = "too little" if spread < 1 else "too much"
    text = "it moves as much as the real one" if level == "good" else f"it moves {way}"
    rule = f"{_quote(inputs.made, key)}; good from 0.8 to 1.25, bad outside 0.62 to 1.6"
    return Verdict("Size of the motion", level, f"{text}.", rule, key, "opening")


def _closures(inputs: VerdictInputs) -> Verdict | None:
    key = "phonemes.closure_rate"
    rate, real = _value(inputs.made, key), _value(inputs.real, key)
    if rate is None or not real:
        return None
    chance = _value(inputs.made, "phonemes.closure_chance")
    level = _rate_high(rate / real, 0.9, 0.7)
    text = {
        "good": "the lips close in p, b, m as the real ones do",
        "fair": "the lips stay open in some p, b, m",
        "bad": "the lips stay open in many p, b, m",
    }[level]
    rule = f"{_quote(inputs.made, key)}, real {real:.2f}; good from 90 % of it, bad below 70 %"
    if chance is not None:
        rule += f"; by chance {chance:.2f}, bad less than 0.1 above it"
        if rate < chance + 0.1:
            level, text = "bad", "the lips close in p, b, m hardly more often than anywhere else"
    return Verdict("Closed lips", level, f"{text}.", rule, key, "visemes")


def _silence(inputs: VerdictInputs) -> Verdict | None:
    key = "lips.silence_leak"
    share, real = _value(inputs.made, key), _value(inputs.real, key) or 0.0
    if share is None:
        return None
    level = _rate_low(share - real, 0.05, 0.2)
    text = {
        "good": "the mouth rests in silence",
        "fair": "the mouth sometimes moves in silence",
        "bad": "the mouth moves or stays open in silence",
    }[level]
    rule = f"{_quote(inputs.made, key)}, real {real:.2f}; good up to 0.05 above it, bad beyond 0.2"
    return Verdict("Silence", level, f"{text}.", rule, key, "opening")


def _sync(inputs: VerdictInputs) -> Verdict | None:
    key = "sync.offset_ms"
    real, made = _value(inputs.real, key), _value(inputs.made, key)
    if real is None or inputs.made is None or inputs.made.sync is None:
        return None
    about, limits = (
        "Lips and audio",
        f"good up to {FRAME_MS:.0f} ms apart, bad beyond {2 * FRAME_MS:.0f}",
    )
    if made is None:
        text = "the sync model finds no clear offset, unlike for the real video."
        return Verdict(about, "bad", text, f"real {real:.0f} ms; {limits}", key, "sync_model")
    level = _rate_low(abs(made - real), FRAME_MS, 2 * FRAME_MS)
    text = "in sync" if level == "good" else f"{abs(made - real):.0f} ms apart"
    rule = f"{_quote(inputs.made, key)}, real {real:.0f}; {limits}"
    return Verdict(about, level, f"{text}.", rule, key, "sync_model")


def _face(inputs: VerdictInputs) -> Verdict | None:
    """Rate the picture; of whole frames only the mouth, since the rest may be the real picture."""
    is_full_frame = _value(inputs.picture, "images.psnr_frame.mean") is not None
    part, good, fair = ("mouth", 30.0, 26.0) if is_full_frame else ("head", 32.0, 28.0)
    key = f"images.psnr_{part}.mean"
    psnr = _value(inputs.picture, key)
    if psnr is None:
        return None
    level = _rate_high(psnr, good, fair)
    text = {
        "good": "close to the real one",
        "fair": "like the real one, with visible differences",
        "bad": "far from the real one",
    }[level]
    rule = f"{_quote(inputs.picture, key)}; good from {good:.0f} dB, bad below {fair:.0f}"
    return Verdict(f"Picture of the {part}", level, f"{text}.", rule, key, "sheets")


def _detail(inputs: VerdictInputs) -> Verdict | None:
    key, place_key = "images.sharpness.median", "images.gradient_correlation.mean"
    sharp, place = _value(inputs.picture, key), _value(inputs.picture, place_key)
    if sharp is None:
        return None
    level = _rate_low(_fold(sharp), 1.5, 2.5)
    text = "as sharp as the real one"
    if level != "good":
        text = "softer than the real one" if sharp < 1 else "sharper than real: noise or ringing"
    rule = f"{_quote(inputs.picture, key)}; good from 0.67 to 1.5, bad outside 0.4 to 2.5"
    if place is not None:
        level = _worst(level, _rate_high(place, 0.7, 0.5))
        rule += f"; detail in place {place:.2f}, good from 0.7, bad below 0.5"
        text += "" if place >= 0.7 else ", with some detail in the wrong places"
    return Verdict("Detail of the mouth", level, f"{text}.", rule, key, "sheets")


def _cutout(inputs: VerdictInputs) -> Verdict | None:
    """Rate the outline by what is missing and by what remains of the background, whichever is worse."""
    values = {key: _value(inputs.tracked, key) for key in CUTOUT_LIMITS}
    levels = {
        key: _rate_low(value, *CUTOUT_LIMITS[key])
        for key, value in values.items()
        if value is not None
    }
    if len(levels) < len(values):
        return None
    faults = [CUTOUT_FAULTS[key] for key, level in levels.items() if level != "good"]
    text = " and ".join(faults) if faults else "whole, with nothing of the old background around it"
    rule = ", ".join(
        f"{find_measure(key).label} {values[key]:.3f} (good up to {good:g}, bad beyond {bad:g})"
        for key, (good, bad) in CUTOUT_LIMITS.items()
    )
    level = _worst(*levels.values())
    key = next(key for key, own in levels.items() if own == level)
    return Verdict(
        "Cut-out of the head", level, f"{text}.", f"{TRACKED_CODES}: {rule}", key, "sheets"
    )


def _trembling(inputs: VerdictInputs) -> Verdict | None:
    key = "lips.jitter_ratio"
    jitter = _value(inputs.made, key)
    if jitter is None:
        return None
    level = _rate_low(jitter, 1.3, 2.0)
    text = "the lips are as steady as the real ones" if level == "good" else "the lips tremble"
    rule = f"{_quote(inputs.made, key)}; good up to 1.3, bad beyond 2"
    return Verdict("Steadiness", level, f"{text}.", rule, key, "video")


RULES: tuple[Callable[[VerdictInputs], Verdict | None], ...] = (
    _shapes, _timing, _range, _closures, _silence, _sync, _face, _detail, _cutout, _trembling,
)  # fmt: skip


MORE_SPEECH = "record more speech, a minute or two, clearly spoken"
BETTER_PICTURE = (
    "fit with --preset standard or high; record in even light with a camera that does not move."
)
ADVICE = {
    "Mouth shapes": f"{MORE_SPEECH}, with the mouth in plain view.",
    "Timing of the lips": (
        "check with talkhead evaluate whether the footage's own audio is late (A/V offset of the "
        f"clip), and {MORE_SPEECH}."
    ),
    "Size of the motion": f"{MORE_SPEECH}: motion that is rare in the footage is predicted too small.",
    "Closed lips": f"{MORE_SPEECH}, with nothing in front of the lips, or fit with --preset high.",
    "Silence": "record in a quiet place, with some pauses in which the mouth rests.",
    "Lips and audio": "record picture and audio with one device, and more speech.",
    "Picture of the head": BETTER_PICTURE,
    "Picture of the mouth": BETTER_PICTURE,
    "Detail of the mouth": (
        "fit with --preset standard or high; record in focus, the face at least 200 px high."
    ),
    "Cut-out of the head": (
        "record in front of a plain background of a color that hair, skin and clothes don't have, or "
        "keep to --mode paste, which needs no outline."
    ),
    "Steadiness": "record in more light, which makes less noise, with a camera that does not move.",
}
"""Advice for verdicts that are not good, by their subject."""


# ----------------------------------------------------------------------------- helpers


def _value(variant: Variant | None, key: str) -> float | None:
    return None if variant is None else find_measure(key).of(variant)


def _quote(variant: Variant | None, key: str) -> str:
    """Format a variant's value of a measure: "speech-driven: LMD 1.34 px"."""
    measure, value = find_measure(key), _value(variant, key)
    name = variant.name if variant else ""
    return f"{name}: {measure.label} {value:.{measure.digits}f} {measure.unit}".rstrip()


def _rate_high(value: float, good: float, fair: float) -> Rating:
    """Rate a value of which more is better, by the least good and the least fair value."""
    return "good" if value >= good else "fair" if value >= fair else "bad"


def _rate_low(value: float, good: float, fair: float) -> Rating:
    """Rate a value of which less is better, by the greatest good and the greatest fair value."""
    return _rate_high(-value, -good, -fair)


def _worst(*levels: Rating) -> Rating:
    return max(levels, key=RATINGS.index)


def _fold(ratio: float) -> float:
    """Compute how many times too large or too small a ratio is."""
    return max(ratio, 1 / ratio) if ratio > 0 else float("inf")
