"""What the figures say in plain words, by fixed rules: each verdict names its measure and limits.

The limits are the project's own: small predictors of motion from speech go 0.25 to 0.6 of the way
from the mean mouth to the re-encoded original, a head under tracked motion about 0.7; good begins
where a viewer stops to notice. A measure that was not taken gives no verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from talkhead.app.evaluation.cross_validation import MIN_FRAMES
from talkhead.app.evaluation.measures.registry import MEASURES
from talkhead.app.evaluation.results import (
    MADE,
    MEAN,
    PASTED,
    SPOKEN,
    TRACKED,
    Report,
    Variant,
    VariantKind,
)
from talkhead.types import FRAME_RATE

Level = Literal["good", "middling", "bad"]
LEVELS: tuple[Level, ...] = ("good", "middling", "bad")
FRAME_MS = 1000 / FRAME_RATE
CUTOUT_LIMITS = {"cutout.see_through.mean": (0.04, 0.08), "cutout.scraps.mean": (0.01, 0.025)}
"""Shares of the strips at the outline up to which a cut-out is good, and from which it is bad. Heads
that had lost their hair had 0.11 and 0.027, some with scraps only 0.018 and 0.021; whole ones have
0.02 and 0.002 at most."""
CUTOUT_FAULTS = {
    "cutout.see_through.mean": "over another background parts of the person are missing",
    "cutout.scraps.mean": "parts of the old background come along",
}
_MEASURE = {measure.key: measure for measure in MEASURES}


@dataclass(frozen=True)
class Verdict:
    """One finding. about: what of. rule: the figures and limits that it follows from. measure: key
    of the measure it rests on. look: the part of the report that shows why. advice: what to do about
    it, "" where it is good. doubtful: this very measure does not tell real, right and wrong apart on
    this clip."""

    about: str
    level: Level
    text: str
    rule: str
    measure: str
    look: str
    advice: str = ""
    doubtful: bool = False


@dataclass(frozen=True)
class VerdictInputs:
    """The takes that the rules compare; None where there is none.

    made: what is judged, the take driven by sound or else the last one that was made. picture: what
    the renderer is judged by: under tracked motion where there is such a take.
    """

    made: Variant | None
    picture: Variant | None
    tracked: Variant | None
    real: Variant | None
    floor: Variant | None
    mean_mouth: Variant | None

    @classmethod
    def of(cls, report: Report) -> VerdictInputs:
        """The scene of a report."""

        def find(kind: VariantKind, name: str = "") -> Variant | None:
            fitting = [t for t in report.takes if t.kind == kind and name in ("", t.name)]
            return fitting[-1] if fitting else None

        tracked = find("made", TRACKED)
        made = find("made", SPOKEN) or find("made", PASTED) or find("made")
        mean_mouth = find("baseline", MEAN)
        return cls(made, tracked or made, tracked, find("real"), find("floor"), mean_mouth)


def verdicts(report: Report) -> tuple[Verdict, ...]:
    """What can be said of the judged take, in a fixed order; empty where nothing was measured. On too
    few frames nothing is said of speech, only of the head's outline."""
    scene = VerdictInputs.of(report)
    few = scene.made is not None and 0 < len(scene.made.aperture) < MIN_FRAMES
    rules = (_cutout,) if few else RULES
    found = [verdict for rule in rules if (verdict := rule(scene)) is not None]
    failed = {ranking.measure for ranking in report.rankings if ranking.holds is False}
    return tuple(
        replace(
            v,
            advice=_advice(v, scene),
            doubtful=bool(failed & {v.measure, _MEASURE[v.measure].label}),
        )
        for v in found
    )


def _advice(verdict: Verdict, scene: VerdictInputs) -> str:
    """What to do about a verdict; nothing of one that is good, or of another system's video."""
    if verdict.level == "good" or scene.made is None or scene.made.name == MADE:
        return ""
    return verdict.advice or ADVICE[verdict.about]


def headline(found: Sequence[Verdict]) -> str:
    """The verdicts counted, in one sentence."""
    if not found:
        return "Too little was measured for a verdict."
    counts = {level: sum(v.level == level for v in found) for level in LEVELS}
    return ", ".join(f"{count} {level}" for level, count in counts.items() if count) + "."


def first_look(found: Sequence[Verdict]) -> Verdict | None:
    """The first of the worst verdicts; None when all is good."""
    worst = max(found, key=lambda v: LEVELS.index(v.level), default=None)
    return worst if worst is not None and worst.level != "good" else None


# ------------------------------------------------------------------------------- rules


def _shapes(scene: VerdictInputs) -> Verdict | None:
    key = "lips.lmd_px.mean"
    lmd, floor, mean = (_value(t, key) for t in (scene.made, scene.floor, scene.mean_mouth))
    best, floor = "the real mouth" if floor is None else "the re-encoded original", floor or 0.0
    if lmd is None or mean is None or mean <= floor:
        return None
    share = (mean - lmd) / (mean - floor)
    level = _more(share, 0.6, 0.3)
    text = {
        "good": "near the best that can be had",
        "middling": "they follow the speech, with differences that can be seen",
        "bad": "little better than a mouth that never moves",
    }[level]
    text += f": {100 * share:.0f} % of the way from the mean mouth to {best}."
    text = "worse than a mouth that never moves." if share < 0 else text
    tracked, advice = _value(scene.tracked, key), ""
    rule = f"{_given(scene.made, key)}, {best} {floor:.2f}, mean mouth {mean:.2f}"
    if tracked is not None and scene.made is not scene.tracked and level != "good":
        part = (tracked - floor) / (lmd - floor)
        whose = "mostly the renderer" if part > 0.6 else "mostly the speech"
        text += f" At fault: {whose if abs(part - 0.5) > 0.1 else 'renderer and speech alike'}."
        rule += f", tracked {tracked:.2f}"
        advice = ADVICE["Picture of the head"] if part > 0.6 else ""
    rule += "; good from 60 %, bad below 30 %"
    return Verdict("Mouth shapes", level, text, rule, key, "lmd", advice)


def _timing(scene: VerdictInputs) -> Verdict | None:
    key, lag_key = "lips.aperture_correlation", "lips.aperture_lag_ms"
    r, lag = _value(scene.made, key), _value(scene.made, lag_key)
    if r is None:
        return None
    level = _more(r, 0.7, 0.5)
    text = {
        "good": "the mouth opens when the real one does",
        "middling": "the mouth mostly opens when the real one does",
        "bad": "the mouth often opens when the real one does not",
    }[level]
    rule = f"{_given(scene.made, key)}; good from 0.7, bad below 0.5"
    if lag is not None and level != "bad":  # without likeness the best lag means nothing
        level = _worst(level, _less(abs(lag), FRAME_MS, 2 * FRAME_MS))
        rule += f"; lag {lag:.0f} ms, good to {FRAME_MS:.0f}, bad beyond {2 * FRAME_MS:.0f}"
        if abs(lag) > FRAME_MS:
            text += f", but {abs(lag):.0f} ms too {'late' if lag > 0 else 'early'}"
    return Verdict("Timing of the lips", level, f"{text}.", rule, key, "opening")


def _range(scene: VerdictInputs) -> Verdict | None:
    key = "lips.aperture_spread"
    spread = _value(scene.made, key)
    if spread is None:
        return None
    level = _less(_fold(spread), 1.25, 1.6)
    way = "too little" if spread < 1 else "too much"
    text = "it moves as much as the real one" if level == "good" else f"it moves {way}"
    rule = f"{_given(scene.made, key)}; good from 0.8 to 1.25, bad beyond 0.62 to 1.6"
    return Verdict("Size of the motion", level, f"{text}.", rule, key, "opening")


def _closures(scene: VerdictInputs) -> Verdict | None:
    key = "phonemes.closure_rate"
    rate, real = _value(scene.made, key), _value(scene.real, key)
    if rate is None or not real or scene.made is None or scene.made.phonemes is None:
        return None
    chance = scene.made.phonemes.closure_chance
    level = _more(rate / real, 0.9, 0.7)
    text = {
        "good": "the lips close in p, b, m as the real ones do",
        "middling": "the lips stay open in some p, b, m",
        "bad": "the lips stay open in many p, b, m",
    }[level]
    rule = f"{_given(scene.made, key)}, real {real:.2f}; good from 90 % of it, bad below 70 %"
    if chance is not None:
        rule += f"; by chance {chance:.2f}, bad less than 0.1 above it"
        if rate < chance + 0.1:
            level, text = "bad", "the lips close in p, b, m hardly oftener than anywhere"
    return Verdict("Closed lips", level, f"{text}.", rule, key, "visemes")


def _silence(scene: VerdictInputs) -> Verdict | None:
    key = "lips.silence_leak"
    leak, real = _value(scene.made, key), _value(scene.real, key) or 0.0
    if leak is None:
        return None
    level = _less(leak - real, 0.05, 0.2)
    text = {
        "good": "the mouth rests when nothing is said",
        "middling": "the mouth sometimes moves when nothing is said",
        "bad": "the mouth moves or stays open when nothing is said",
    }[level]
    rule = f"{_given(scene.made, key)}, real {real:.2f}; good to 0.05 above it, bad beyond 0.2"
    return Verdict("Silence", level, f"{text}.", rule, key, "opening")


def _sync(scene: VerdictInputs) -> Verdict | None:
    key = "sync.offset_ms"
    real, made = _value(scene.real, key), _value(scene.made, key)
    if real is None or scene.made is None or scene.made.sync is None:
        return None
    limits = f"good to {FRAME_MS:.0f} ms apart, bad beyond {2 * FRAME_MS:.0f}"
    if made is None:
        text = "the judge finds no offset that stands out, though it does for the real video."
        return Verdict("Lips and sound", "bad", text, f"real {real:.0f} ms; {limits}", key, "judge")
    level = _less(abs(made - real), FRAME_MS, 2 * FRAME_MS)
    text = "in sync" if level == "good" else f"{abs(made - real):.0f} ms apart"
    rule = f"{_given(scene.made, key)}, real {real:.0f}; {limits}"
    return Verdict("Lips and sound", level, f"{text}.", rule, key, "judge")


def _face(scene: VerdictInputs) -> Verdict | None:
    """Of whole frames the mouth alone: the rest may be the real picture, pasted around it."""
    whole = _value(scene.picture, "images.psnr_frame.mean") is not None
    part, good, middling = ("mouth", 30.0, 26.0) if whole else ("head", 32.0, 28.0)
    key = f"images.psnr_{part}.mean"
    psnr = _value(scene.picture, key)
    if psnr is None:
        return None
    level = _more(psnr, good, middling)
    text = {
        "good": "close to the real one",
        "middling": "like the real one, with differences that can be seen",
        "bad": "far from the real one",
    }[level]
    rule = f"{_given(scene.picture, key)}; good from {good:.0f} dB, bad below {middling:.0f}"
    return Verdict(f"Picture of the {part}", level, f"{text}.", rule, key, "sheets")


def _detail(scene: VerdictInputs) -> Verdict | None:
    key, place_key = "images.sharpness.median", "images.gradient_correlation.mean"
    sharp, place = _value(scene.picture, key), _value(scene.picture, place_key)
    if sharp is None:
        return None
    level = _less(_fold(sharp), 1.5, 2.5)
    text = "as sharp as the real one"
    if level != "good":
        text = "softer than the real one" if sharp < 1 else "sharper than real: noise or ringing"
    rule = f"{_given(scene.picture, key)}; good from 0.67 to 1.5, bad beyond 0.4 to 2.5"
    if place is not None:
        level = _worst(level, _more(place, 0.7, 0.5))
        rule += f"; detail in place {place:.2f}, good from 0.7, bad below 0.5"
        text += "" if place >= 0.7 else ", its detail partly in other places"
    return Verdict("Detail of the mouth", level, f"{text}.", rule, key, "sheets")


def _cutout(scene: VerdictInputs) -> Verdict | None:
    """By what is missing and by what comes along, the worse of the two."""
    values = {key: _value(scene.tracked, key) for key in CUTOUT_LIMITS}
    levels = {
        key: _less(value, *CUTOUT_LIMITS[key]) for key, value in values.items() if value is not None
    }
    if len(levels) < len(values):
        return None
    faults = [CUTOUT_FAULTS[key] for key, level in levels.items() if level != "good"]
    text = " and ".join(faults) if faults else "whole, with nothing of the old background around it"
    rule = ", ".join(
        f"{_MEASURE[key].label} {values[key]:.3f} (good to {good:g}, bad beyond {bad:g})"
        for key, (good, bad) in CUTOUT_LIMITS.items()
    )
    level = _worst(*levels.values())
    key = next(key for key, own in levels.items() if own == level)
    return Verdict("Cut-out of the head", level, f"{text}.", f"{TRACKED}: {rule}", key, "sheets")


def _trembling(scene: VerdictInputs) -> Verdict | None:
    key = "lips.jitter_ratio"
    jitter = _value(scene.made, key)
    if jitter is None:
        return None
    level = _less(jitter, 1.3, 2.0)
    text = "the lips are as steady as the real ones" if level == "good" else "the lips tremble"
    rule = f"{_given(scene.made, key)}; good to 1.3, bad beyond 2"
    return Verdict("Steadiness", level, f"{text}.", rule, key, "video")


RULES: tuple[Callable[[VerdictInputs], Verdict | None], ...] = (
    _shapes, _timing, _range, _closures, _silence, _sync, _face, _detail, _cutout, _trembling,
)  # fmt: skip


MORE_SPEECH = "record more speech, a minute or two, clearly spoken"
ADVICE = {
    "Mouth shapes": f"{MORE_SPEECH}, with the mouth in plain view.",
    "Timing of the lips": (
        "see in talkhead evaluate whether the footage's own sound is late (Offset of the clip), and "
        f"{MORE_SPEECH}."
    ),
    "Size of the motion": f"{MORE_SPEECH}: what was seldom seen is learnt timidly.",
    "Closed lips": f"{MORE_SPEECH}, with nothing before the lips, or fit with --preset high.",
    "Silence": "record where it is quiet, with some pauses in which the mouth rests.",
    "Lips and sound": "record picture and sound with one device, and more speech.",
    "Picture of the head": (
        "fit with --preset standard or high; record in even light with a camera that stands still."
    ),
    "Picture of the mouth": (
        "fit with --preset standard or high; record in even light with a camera that stands still."
    ),
    "Detail of the mouth": (
        "fit with --preset standard or high; record in focus, the face at least 200 px high."
    ),
    "Cut-out of the head": (
        "record before a plain background of a color that hair, skin and clothes don't have, or keep "
        "to --mode paste, which needs no outline."
    ),
    "Steadiness": "record in more light, which makes less noise, with a camera that stands still.",
}
"""What to do where a verdict is not good, by what it is of."""


# ----------------------------------------------------------------------------- helpers


def _value(take: Variant | None, key: str) -> float | None:
    return None if take is None else _MEASURE[key].of(take)


def _given(take: Variant | None, key: str) -> str:
    """Whose value of which measure: 'speech: LMD 1.34 px'."""
    measure, value = _MEASURE[key], _value(take, key)
    name = take.name if take else ""
    return f"{name}: {measure.label} {value:.{measure.digits}f} {measure.unit}".rstrip()


def _more(value: float, good: float, middling: float) -> Level:
    return "good" if value >= good else "middling" if value >= middling else "bad"


def _less(value: float, good: float, middling: float) -> Level:
    return _more(-value, -good, -middling)


def _worst(*levels: Level) -> Level:
    return max(levels, key=LEVELS.index)


def _fold(ratio: float) -> float:
    """How many times too large or too small a ratio is."""
    return max(ratio, 1 / ratio) if ratio > 0 else float("inf")
