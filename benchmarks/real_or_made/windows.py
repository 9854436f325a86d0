"""Windows of trajectories, and the figures that describe each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from benchmarks.real_or_made.trajectories import MEASURES, N_BANDS, Trajectories
from talkhead.app.evaluation.measures.lips import CLOSED
from talkhead.types import FRAME_RATE, Float64, Int

LENGTH, HOP = 2 * FRAME_RATE, FRAME_RATE
"""Frames of a window, and from one to the next."""
LAGS = (1, 2, 3, 5, 8)
"""Lags of the autocorrelation, frames."""
SOUND_LAGS = range(-4, 5)
"""Lags of the lips behind the sound, frames."""
BANDS_HZ = (0.5, 2.0, 4.0, 6.0, 9.0, 12.5)
"""Borders of the bands of the lips' motion."""
STILL = 0.02
"""Largest speed of a mouth that is still, in the person's own standard deviations per frame."""
_SMALL = 1e-4
"""Added before logarithms and divisions: about the motion of a mouth that is still."""
N_MEASURES = len(MEASURES)


@dataclass(frozen=True)
class Windows:
    """N windows of the lips of several people, in the order of time for each.

    Attributes:
        lips: Measures, [N, LENGTH, 3], minus the real person's mean and over the real person's
            spread, so that too small a range counts.
        closed: Frames in which the lips are closed, [N, LENGTH].
        sound: Loudness and bands, [N, LENGTH, 1 + N_BANDS], normalized for each person.
        silent: Share of frames without speech, [N].
        person: Number of the person, [N].
        block: Number of the person's test block, [N].
    """

    lips: Float64
    closed: Float64
    sound: Float64
    silent: Float64
    person: Int
    block: Int

    def __len__(self) -> int:
        return len(self.lips)

    def part(self, index: Int) -> Windows:
        """Select windows by number, [n]."""
        return Windows(**{name: value[index] for name, value in vars(self).items()})


def cut(
    people: Sequence[Trajectories],
    lips_of: Callable[[Trajectories], Float64],
    late: Callable[[Trajectories], int] = lambda _: 0,
) -> Windows:
    """Cut trajectories into windows, each within one test block and its usable frames.

    Args:
        people: The people.
        lips_of: Selects the measures [F, 3] of a person.
        late: By how many frames a person's sound is shifted, around the end of the clip.

    Returns:
        The windows; with the same people, those of all systems belong to the same frames.
    """
    parts: dict[str, list[Float64]] = {}
    for number, one in enumerate(people):
        used = one.block >= 0
        mean, spread = one.real[used].mean(0), one.real[used].std(0)
        lips = lips_of(one)
        sound = np.roll((one.sound - one.sound.mean(0)) / (one.sound.std(0) + _SMALL), late(one), 0)
        for start in window_starts(one.block):
            frames = slice(start, start + LENGTH)
            row = {
                "lips": (lips[frames] - mean) / spread,
                "closed": lips[frames, 0] < CLOSED,
                "sound": sound[frames],
                "silent": one.silent[frames].mean(),
                "person": number,
                "block": one.block[start],
            }
            for name, value in row.items():
                parts.setdefault(name, []).append(np.asarray(value))
    return Windows(**{name: np.stack(values) for name, values in parts.items()})


def window_starts(block: Int) -> Iterator[int]:
    """Find the windows' first frames; block [F] as in Trajectories."""
    borders = np.flatnonzero(np.diff(block)) + 1
    for run in np.split(np.arange(len(block)), borders):
        if block[run[0]] >= 0:
            yield from range(int(run[0]), int(run[-1]) + 2 - LENGTH, HOP)


def statistics(windows: Windows) -> dict[str, Float64]:
    """Describe windows by figures, [N] each, with names that say what they measure."""
    figures: dict[str, Float64] = {}
    for index, name in enumerate(MEASURES):
        values = windows.lips[:, :, index]
        own = {**_sizes(values), **_speeds(values), **_rhythm(values)}
        figures |= {f"{name}: {key}": value for key, value in own.items()}
    figures["closed share"] = windows.closed.mean(1)
    figures["closings"] = (np.diff(windows.closed.astype(float)) > 0).sum(1).astype(float)
    return figures | _together(windows.lips) | _with_sound(windows)


def _sizes(values: Float64) -> dict[str, Float64]:
    """Position and size of values [N, T]."""
    low, quarter, median, three, high = np.percentile(values, (5, 25, 50, 75, 95), axis=1)
    return {
        "mean": values.mean(1),
        "median": median,
        "lowest 5 %": low,
        "highest 5 %": high,
        "range": high - low,
        "middle half": three - quarter,
        "spread": _log(values.std(1)),
    }


def _speeds(values: Float64) -> dict[str, Float64]:
    """Speed, acceleration and jitter of values [N, T]."""
    speed, change = np.diff(values), np.diff(values, 2)
    fast = np.percentile(np.abs(speed), (50, 90, 100), axis=1)
    spread = values.std(1) + _SMALL
    rising, falling = np.maximum(speed, 0.0).max(1), np.maximum(-speed, 0.0).max(1)
    return {
        "mean speed": _log(np.abs(speed).mean(1)),
        "median speed": _log(fast[0]),
        "fast speed": _log(fast[1]),
        "peak speed": _log(fast[2]),
        "speed over spread": _log(np.abs(speed).mean(1) / spread),
        "peak over mean speed": _log(fast[2] / (np.abs(speed).mean(1) + _SMALL)),
        "acceleration": _log(np.abs(change).mean(1)),
        "acceleration over speed": _log(np.abs(change).mean(1) / (np.abs(speed).mean(1) + _SMALL)),
        "jitter": _log(np.square(np.diff(values, 4) / 16.0).mean(1)) / 2.0,
        "still share": (np.abs(speed) < STILL).mean(1),
        "reversals": (speed[:, 1:] * speed[:, :-1] < 0.0).mean(1),
        "rise over fall": _log(rising) - _log(falling),
    }


def _rhythm(values: Float64) -> dict[str, Float64]:
    """Autocorrelation and power spectrum of values [N, T]."""
    centered = values - values.mean(1, keepdims=True)
    power = np.square(centered).sum(1) + _SMALL
    figures = {
        f"autocorrelation {lag / FRAME_RATE:.2f} s": (centered[:, lag:] * centered[:, :-lag]).sum(1)
        / power
        for lag in LAGS
    }
    spectrum = np.abs(np.fft.rfft(centered * np.hanning(values.shape[1]))) ** 2
    hertz = np.fft.rfftfreq(values.shape[1], 1.0 / FRAME_RATE)
    for low, high in pairwise(BANDS_HZ):
        inside = (hertz >= low) & (hertz < high) | (hertz == high) & (high == BANDS_HZ[-1])
        band = spectrum[:, inside].sum(1)
        figures[f"power {low:g}-{high:g} Hz"] = _log(band) / 2.0
        figures[f"share {low:g}-{high:g} Hz"] = _log(band / (spectrum[:, 1:].sum(1) + _SMALL))
    return figures


def _together(lips: Float64) -> dict[str, Float64]:
    """How measures [N, T, 3] depend on each other."""
    figures = {}
    for a, b in combinations(range(N_MEASURES), 2):
        names = f"{MEASURES[a]} and {MEASURES[b]}"
        figures[f"{names}: r"] = _correlation(lips[:, :, a], lips[:, :, b])
        speeds = np.diff(lips[:, :, a]), np.diff(lips[:, :, b])
        figures[f"{names}: r of speeds"] = _correlation(*speeds)
    for index, name in enumerate(MEASURES):
        others = np.delete(lips, index, axis=2)
        figures[f"{name}: unexplained by the others"] = _unexplained(lips[:, :, index], others)
    return figures


def _with_sound(windows: Windows) -> dict[str, Float64]:
    """How the lips depend on the sound."""
    figures = {}
    loud, n = windows.sound[:, :, 0], windows.lips.shape[1]
    for index, name in enumerate(MEASURES):
        values = windows.lips[:, :, index]
        lagged = []
        for lag in SOUND_LAGS:
            first, last = max(0, lag), n + min(0, lag)
            lagged.append(_correlation(values[:, first:last], loud[:, first - lag : last - lag]))
        best = np.stack(lagged).argmax(0)
        figures |= {f"{name}: r with loudness {lagged_s(k)}": r for k, r in enumerate(lagged)}
        figures[f"{name}: best r with loudness"] = np.max(lagged, axis=0)
        figures[f"{name}: lag behind loudness"] = np.asarray(SOUND_LAGS)[best].astype(float)
        speed, rise = np.abs(np.diff(values)), np.abs(np.diff(loud))
        figures[f"{name}: r of speed with change of loudness"] = _correlation(speed, rise)
        figures[f"{name}: unexplained by the sound"] = _unexplained(values, windows.sound)
    for band in range(N_BANDS):
        r = _correlation(windows.lips[:, :, 0], windows.sound[:, :, 1 + band])
        figures[f"opening: r with band {band + 1}"] = r
    return figures


def lagged_s(index: int) -> str:
    """Name a lag of SOUND_LAGS."""
    return f"{SOUND_LAGS[index] / FRAME_RATE:+.2f} s"


def _log(values: Float64) -> Float64:
    return np.asarray(np.log(values + _SMALL))


def _correlation(a: Float64, b: Float64) -> Float64:
    """Pearson's r of each row of [N, T] with that of another; about 0 where one does not vary."""
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    scale = np.sqrt(np.square(a).sum(1) * np.square(b).sum(1))
    return np.asarray((a * b).sum(1) / (scale + _SMALL))


def _unexplained(values: Float64, by: Float64) -> Float64:
    """Logarithm of the share of the variance of values [N, T] that is not linear in by [N, T, D]."""
    inputs = by - by.mean(1, keepdims=True)
    centered = (values - values.mean(1, keepdims=True))[:, :, None]
    gram = inputs.transpose(0, 2, 1) @ inputs + 0.1 * np.eye(inputs.shape[2])
    rest = centered - inputs @ np.linalg.solve(gram, inputs.transpose(0, 2, 1) @ centered)
    variance = np.square(centered).sum((1, 2)) + _SMALL
    return _log(np.square(rest).sum((1, 2)) / variance)
