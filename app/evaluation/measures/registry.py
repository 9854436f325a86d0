"""The measures: name, unit, direction and label of each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from talkhead.app.evaluation.results import Variant


@dataclass(frozen=True)
class Measure:
    """A column of the report's tables. key: where a Take holds it, "lips.lmd_px.mean". better: what
    is good: "more", "less", or "real": near the real video's own value, which is `real` by definition
    or else measured. alone: the real video has a value of its own, without being compared."""

    key: str
    label: str
    unit: str
    better: Literal["more", "less", "real"]
    digits: int
    about: str
    real: float | None = None
    alone: bool = False

    def of(self, take: Variant) -> float | None:
        """The measure's value of a take; None where it was not taken or is undefined."""
        value: Any = take
        for name in self.key.split("."):
            value = getattr(value, name, None)
            if value is None:
                return None
        return float(value) if math.isfinite(value) else None


MEASURES: tuple[Measure, ...] = (
    Measure("images.psnr_face.mean", "PSNR face", "dB", "more", 2, "error in the face box"),
    Measure(
        "images.psnr_head.mean", "PSNR head", "dB", "more", 2, "the same without neck and clothes"
    ),
    Measure("images.psnr_mouth.mean", "PSNR mouth", "dB", "more", 2, "error in the mouth box"),
    Measure(
        "images.psnr_frame.mean",
        "PSNR frame",
        "dB",
        "more",
        2,
        "error of whole pasted frames: flatters",
    ),
    Measure("images.ssim_face.mean", "SSIM face", "", "more", 3, "structural similarity, face box"),
    Measure(
        "images.ssim_head.mean", "SSIM head", "", "more", 3, "the same without neck and clothes"
    ),
    Measure(
        "images.ssim_mouth.mean", "SSIM mouth", "", "more", 3, "structural similarity, mouth box"
    ),
    Measure(
        "images.ssim_frame.mean", "SSIM frame", "", "more", 3, "of whole pasted frames: flatters"
    ),
    Measure(
        "images.lpips_face.mean",
        "LPIPS face",
        "",
        "less",
        3,
        "distance of AlexNet features, face box",
    ),
    Measure(
        "images.lpips_mouth.mean",
        "LPIPS mouth",
        "",
        "less",
        3,
        "distance of AlexNet features, mouth box",
    ),
    Measure(
        "images.sharpness.median",
        "sharpness",
        "",
        "real",
        2,
        "detail of the mouth over the real one's: 1 is real",
        1.0,
    ),
    Measure(
        "images.gradient_correlation.mean",
        "detail in place",
        "",
        "more",
        2,
        "is the mouth's detail where the real one has it",
    ),
    Measure(
        "cutout.see_through.mean",
        "see-through",
        "",
        "less",
        3,
        "share of the person just inside the outline that a new background shows through",
    ),
    Measure(
        "cutout.scraps.mean",
        "scraps",
        "",
        "less",
        3,
        "share of the surroundings just outside the outline that come along",
    ),
    Measure(
        "lips.lmd_px.mean",
        "LMD",
        "px",
        "less",
        2,
        "mean distance of the lip points from the real ones",
    ),
    Measure(
        "lips.lmd_eyes",
        "LMD / eyes",
        "",
        "less",
        4,
        "the same over the distance of the outer eye corners",
    ),
    Measure(
        "lips.aperture_correlation",
        "opening r",
        "",
        "more",
        2,
        "does the mouth open when the real one does",
    ),
    Measure(
        "lips.aperture_lag_ms",
        "opening lag",
        "ms",
        "real",
        0,
        "how late it opens; 0 is in time",
        0.0,
    ),
    Measure(
        "lips.aperture_spread",
        "opening range",
        "",
        "real",
        2,
        "how much it opens over the real one's: 1 is real",
        1.0,
    ),
    Measure(
        "lips.closure_f1",
        "closures F1",
        "",
        "more",
        2,
        "are closed lips closed, at a fixed threshold",
    ),
    Measure(
        "lips.closure_f1_at_rate",
        "closures F1, same rate",
        "",
        "more",
        2,
        "the same, closing as often as the real lips",
    ),
    Measure(
        "lips.jitter_ratio",
        "jitter",
        "",
        "real",
        2,
        "trembling over the real one's: 1 is real",
        1.0,
    ),
    Measure(
        "lips.silence_leak",
        "silence leak",
        "",
        "real",
        2,
        "share of silent frames in which the mouth moves or stands open",
        alone=True,
    ),
    Measure(
        "phonemes.opening_ratio",
        "vowels / p b m",
        "",
        "real",
        1,
        "lip opening in open vowels over that in p, b, m",
        alone=True,
    ),
    Measure(
        "phonemes.closure_rate",
        "p b m closed",
        "",
        "more",
        2,
        "share of p, b, m in which the lips close",
        alone=True,
    ),
    Measure(
        "sync.offset_ms",
        "sound is late by",
        "ms",
        "real",
        0,
        "by the audio-visual judge; 0 is in sync",
        alone=True,
    ),
    Measure(
        "sync.confidence",
        "sync confidence",
        "",
        "real",
        1,
        "how clearly the judge finds an offset; real video has no more",
        alone=True,
    ),
    Measure(
        "syncnet.lse_c",
        "LSE-C",
        "",
        "more",
        2,
        "SyncNet's confidence: blind to silence, never alone",
        alone=True,
    ),
    Measure(
        "syncnet.lse_d",
        "LSE-D",
        "",
        "less",
        2,
        "SyncNet's distance",
        alone=True,
    ),
)
