"""Motion of the sample person: mouth shapes with coarticulation, blinks, gaze, brows, head.

Mouth shapes are blended by dominance (Cohen and Massaro 1993, "Modeling coarticulation in synthetic
visual speech"): every phone pulls the mouth towards its target, before its time more than after it.
Contacts (of the lips in m b p, of lip and teeth in f v) are then enforced at the phone's middle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from head import SIDES, Pose, smoothstep
from numpy.typing import NDArray
from speech import SAMPLE_RATE, SILENCE, Phone, Speech, loudness

Curve = NDArray[np.float64]

FPS = 25.0
GRID_HZ = 200.0  # curves are made on this grid, then read at the frames' times
ANTICIPATION_S = 0.075
RELEASE_S = 0.045
JAW_SMOOTHING_S = 0.022
LIP_SMOOTHING_S = 0.010

JAW = "mouth-open"
SHORT = {
    "open": JAW,
    "press": "mouth-compression",
    "lower": "mouth-depression-retraction",
    "lift": "mouth-elevation",
    "protrude": "mouth-protusion",
    "purse": "mouth-pursing",
    "spread": "mouth-retraction",
    "upper": "mouth-upward-retraction",
    "tongue": "tongue-up",
}
CHANNELS = tuple(SHORT.values())


@dataclass(frozen=True)
class Viseme:
    """A mouth shape, and its dominance."""

    shape: Mapping[str, float]  # SHORT name -> weight; what is not named is 0
    lips: float = 1.0
    jaw: float = 1.0
    vowel: bool = False


def _vowel(lips: float = 1.0, jaw: float = 1.6, **shape: float) -> Viseme:
    return Viseme(shape, lips, jaw, vowel=True)


def _consonant(lips: float = 0.6, jaw: float = 0.8, **shape: float) -> Viseme:
    return Viseme(shape, lips, jaw)


REST = Viseme({}, lips=0.9, jaw=0.9)
LIPS_TOUCH = _consonant(lips=1.4, jaw=1.0, press=0.6)
LIP_ON_TEETH = _consonant(lips=1.4, jaw=1.0, lift=0.62, press=0.22, open=0.02)
TEETH_TOGETHER = _consonant(lips=0.8, jaw=1.6, spread=0.22, upper=0.14, lower=0.2, open=0.04)
TONGUE_TIP = _consonant(lips=0.4, jaw=0.8, open=0.16, tongue=0.45, upper=0.12, lower=0.06)
TONGUE_AT_TEETH = _consonant(lips=0.6, jaw=1.0, open=0.17, tongue=0.35, lower=0.08, upper=0.06)
LIPS_FORWARD = _consonant(lips=1.2, jaw=1.5, protrude=0.42, purse=0.3, open=0.03)
THROAT = _consonant(lips=0.25, jaw=0.5, open=0.24, upper=0.1)

VISEMES: dict[str, Viseme] = {
    SILENCE: REST,
    **dict.fromkeys(("m", "b", "p"), LIPS_TOUCH),
    **dict.fromkeys(("f", "v"), LIP_ON_TEETH),
    **dict.fromkeys(("s", "z"), TEETH_TOGETHER),
    **dict.fromkeys(("t", "d", "n"), TONGUE_TIP),
    "l": _consonant(lips=0.4, jaw=0.8, open=0.24, tongue=0.6, upper=0.12),
    **dict.fromkeys(("th", "dh"), TONGUE_AT_TEETH),
    **dict.fromkeys(("k", "g", "ng"), THROAT),
    "hh": Viseme({"open": 0.25, "upper": 0.08}, lips=0.1, jaw=0.3),
    **dict.fromkeys(("sh", "zh", "ch", "jh"), LIPS_FORWARD),
    "r": _consonant(lips=0.9, jaw=0.8, purse=0.38, protrude=0.14, open=0.13),
    "w": _consonant(lips=1.5, jaw=1.0, purse=0.9, protrude=0.04, open=0.07),
    "y": _consonant(lips=0.7, jaw=0.9, spread=0.4, lower=0.12, open=0.12, upper=0.12),
    "iy": _vowel(open=0.13, spread=0.55, upper=0.2, lower=0.14),
    "ih": _vowel(lips=0.8, open=0.22, spread=0.32, upper=0.16, lower=0.06),
    "ey": _vowel(open=0.28, spread=0.42, upper=0.18),
    "eh": _vowel(open=0.38, spread=0.28, upper=0.16),
    "ae": _vowel(open=0.5, spread=0.32, upper=0.16),
    "aa": _vowel(open=0.6, upper=0.12),
    "ay": _vowel(open=0.52, upper=0.15, spread=0.12),
    "aw": _vowel(open=0.52, upper=0.08, purse=0.15),
    "ah": _vowel(open=0.42, upper=0.12),
    "ax": _vowel(lips=0.5, jaw=0.8, open=0.24, upper=0.1),
    "er": _vowel(open=0.2, purse=0.35, protrude=0.16),
    "ao": _vowel(lips=1.2, open=0.46, purse=0.42),
    "ow": _vowel(lips=1.2, open=0.32, purse=0.62),
    "oy": _vowel(lips=1.2, open=0.38, purse=0.5),
    "uh": _vowel(lips=1.0, open=0.2, purse=0.5, protrude=0.06),
    "uw": _vowel(lips=1.3, open=0.14, purse=0.8, protrude=0.06),
}


def target(viseme: Viseme) -> Curve:
    """The viseme's weights in the order of CHANNELS."""
    weights = {SHORT[name]: weight for name, weight in viseme.shape.items()}
    return np.array([weights.get(channel, 0.0) for channel in CHANNELS])


def _pull(times_s: Curve, phone: Phone) -> Curve:
    """Nearness of each time to the phone's core: 1 within, decreasing more slowly before it."""
    core = 0.25 * phone.duration_s
    before = np.maximum(phone.start_s + core - times_s, 0.0) / ANTICIPATION_S
    after = np.maximum(times_s - (phone.end_s - core), 0.0) / RELEASE_S
    return np.asarray(np.exp(-((before + after) ** 1.4)))


def _touch(times_s: Curve, phone: Phone) -> Curve:
    """1 about the phone's middle, for a frame's length at least; 0 outside its surroundings."""
    plateau = max(0.024, 0.3 * phone.duration_s)
    ramp = 0.055 + 0.1 * phone.duration_s
    return 1.0 - smoothstep((np.abs(times_s - phone.middle_s) - plateau) / ramp)


def mouth_curves(speech: Speech, times_s: Curve) -> Curve:
    """The weights [T, C] of CHANNELS at evenly spaced times."""
    targets = np.array([target(VISEMES[phone.name]) for phone in speech.phones])
    loud = loudness(speech.waveform, np.array([phone.middle_s for phone in speech.phones]))
    jaw = CHANNELS.index(JAW)
    for row, phone in enumerate(speech.phones):
        if VISEMES[phone.name].vowel:
            targets[row, jaw] *= np.clip(0.62 + 0.42 * loud[row], 0.65, 1.12)
    pulls = np.array([_pull(times_s, phone) for phone in speech.phones]) + 1e-9
    strength = np.array([[VISEMES[p.name].lips, VISEMES[p.name].jaw] for p in speech.phones])
    curves = _blend(pulls * strength[:, :1], targets)
    curves[:, jaw] = _blend(pulls * strength[:, 1:], targets[:, jaw : jaw + 1])[:, 0]
    step_s = float(times_s[1] - times_s[0])
    smoothed = smooth(curves, LIP_SMOOTHING_S / step_s)
    smoothed[:, jaw] = smooth(curves[:, jaw], JAW_SMOOTHING_S / step_s)
    for names, viseme in ((("f", "v"), LIP_ON_TEETH), (("m", "b", "p"), LIPS_TOUCH)):
        for phone in speech.phones:
            if phone.name in names:
                gate = _touch(times_s, phone)[:, None]
                smoothed = (1.0 - gate) * smoothed + gate * target(viseme)
    return smoothed


def _blend(strengths: Curve, targets: Curve) -> Curve:
    """The mean [T, C] of the targets [P, C], weighted by strengths [P, T]."""
    return np.asarray((strengths.T @ targets) / strengths.sum(axis=0)[:, None])


def smooth(values: Curve, sigma: float) -> Curve:
    """Values [T, ...] smoothed along time by a Gaussian of sigma samples, ends held."""
    radius = int(np.ceil(3.0 * sigma))
    if radius == 0:
        return values
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(values, [(radius, radius)] + [(0, 0)] * (values.ndim - 1), mode="edge")
    return np.asarray(
        np.apply_along_axis(lambda column: np.convolve(column, kernel, "valid"), 0, padded)
    )


def drift(n: int, sigma: float, limit: float, rng: np.random.Generator) -> Curve:
    """Slow wandering [n] within +-limit."""
    slow = smooth(rng.normal(size=n), sigma)
    quick = smooth(rng.normal(size=n), sigma / 3.0)
    path = slow / slow.std() + 0.35 * quick / quick.std()
    return np.asarray(limit * np.tanh(path / 1.8))


def bumps(times_s: Curve, centres_s: Sequence[float], width_s: float) -> Curve:
    """The largest of Gaussian bumps about the centres, at each time."""
    if not centres_s:
        return np.zeros_like(times_s)
    gaps = (times_s[:, None] - np.array(centres_s)) / width_s
    return np.asarray(np.exp(-0.5 * gaps**2).max(axis=1))


def stressed_vowels(speech: Speech, apart_s: float) -> list[float]:
    """The middles of the loudest, longest vowels, at least a time apart."""
    vowels = [phone for phone in speech.phones if VISEMES[phone.name].vowel]
    loud = loudness(speech.waveform, np.array([phone.middle_s for phone in vowels]))
    ranked = sorted(zip(vowels, loud, strict=True), key=lambda pair: -pair[0].duration_s * pair[1])
    chosen: list[float] = []
    for phone, _ in ranked[: len(ranked) // 2]:
        if all(abs(phone.middle_s - other) >= apart_s for other in chosen):
            chosen.append(phone.middle_s)
    return sorted(chosen)


def blink_frames(speech: Speech, n_frames: int, rng: np.random.Generator) -> list[int]:
    """Frames at which the eyes are shut: one every 2 to 5 s, at pauses where there is one near."""
    pauses = [phone.middle_s for phone in speech.phones if phone.name == SILENCE]
    frames: list[int] = []
    at_s = 1.3
    while at_s < n_frames / FPS - 0.5:
        near = [
            pause for pause in pauses if abs(pause - at_s) < 0.6 and pause < n_frames / FPS - 0.5
        ]
        frames.append(round((near[0] if near else at_s) * FPS))
        at_s = frames[-1] / FPS + rng.uniform(2.0, 4.4)
    return frames


def blink_curve(n_frames: int, blinks: Sequence[int]) -> Curve:
    """Closure of the eyes [T], 0 to 1: two frames to close, three to open."""
    course = {-2: 0.3, -1: 0.85, 0: 1.0, 1: 0.8, 2: 0.35, 3: 0.1}
    curve = np.zeros(n_frames)
    for blink in blinks:
        for offset, weight in course.items():
            if 0 <= blink + offset < n_frames:
                curve[blink + offset] = max(curve[blink + offset], weight)
    return curve


def glances(n_frames: int, rng: np.random.Generator) -> Curve:
    """Small jumps of the gaze [T, 2], in degrees: mostly at the camera, sometimes next to it."""
    gaze = np.zeros((n_frames, 2))
    at = 0
    while at < n_frames:
        until = at + int(rng.uniform(0.5, 2.2) * FPS)
        size = 1.0 if rng.random() < 0.65 else 3.0
        gaze[at:until] = rng.normal(0.0, size, 2) * (1.0, 0.6)
        at = until
    return np.clip(gaze, -7.0, 7.0)


def perform(speech: Speech, seed: int) -> list[Pose]:
    """The poses, one per frame; frame k shows the time k / FPS."""
    rng = np.random.default_rng(seed)
    n_frames = round(len(speech.waveform) / SAMPLE_RATE * FPS)
    frame_s = np.arange(n_frames) / FPS
    grid_s = np.arange(int(np.ceil(n_frames / FPS * GRID_HZ)) + 1) / GRID_HZ
    mouth = mouth_curves(speech, grid_s)
    mouth = np.stack([np.interp(frame_s, grid_s, column) for column in mouth.T], axis=1)
    stressed = stressed_vowels(speech, 0.55)
    nods = bumps(frame_s, [s - 0.02 for s in stressed], 0.13)
    raised = bumps(frame_s, stressed_vowels(speech, 2.2), 0.22)
    yaw = drift(n_frames, 0.75 * FPS, 5.0, rng)
    pitch = drift(n_frames, 0.65 * FPS, 2.0, rng) + 1.3 * nods
    roll = drift(n_frames, 0.8 * FPS, 2.0, rng)
    sway = np.stack(
        [drift(n_frames, 1.2 * FPS, limit, rng) for limit in (0.035, 0.015, 0.02)], axis=1
    )
    gaze = glances(n_frames, rng) - 0.85 * np.stack([yaw, pitch], axis=1)
    smile = 0.13 + drift(n_frames, 1.5 * FPS, 0.05, rng)
    blinks = blink_curve(n_frames, blink_frames(speech, n_frames, rng))
    return [
        Pose(
            expression(dict(zip(CHANNELS, mouth[k], strict=True)), blinks[k], raised[k], smile[k]),
            float(yaw[k]),
            float(pitch[k]),
            float(roll[k]),
            (float(gaze[k, 0]), float(gaze[k, 1])),
            (float(sway[k, 0]), float(sway[k, 1]), float(sway[k, 2])),
        )
        for k in range(n_frames)
    ]


def expression(
    mouth: Mapping[str, float], blink: float, raised: float, smile: float
) -> dict[str, float]:
    """The weights of every target: the mouth's, and those of eyes, brows and mood."""
    weights = {name: float(weight) for name, weight in mouth.items()}
    weights["mouth-corner-puller"] = float(smile)
    for side in SIDES:
        weights[f"eye-{side}-closure"] = float(blink)
        weights[f"eyebrows-{side}-inner-up"] = 0.3 + 0.3 * float(raised)
        weights[f"eyebrows-{side}-up"] = 0.15 + 0.5 * float(raised) - 0.08 * float(blink)
    return weights
