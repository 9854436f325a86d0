"""How a head is shown: turned and zoomed as somebody wishes, as far as the footage shows it.

Yaw is positive where the head looks to the picture's right, pitch where it looks up. The head turns
about the middle between its ears; the body, which stands in the image as the motion code says, stays
where it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from talkhead.app.composer.idle_clip import IdleClip
from talkhead.cameras import crop_intrinsics, project
from talkhead.face import JAW_LINE
from talkhead.types import Float32, Float64

SEEN_PERCENT = (1.0, 99.0)
"""What single frames show beyond is as likely an error of tracking."""
TOLERANCE_DEG = 2.0
"""So much farther a head still looks right."""
SHARPNESS = 4
"""How late, and how suddenly, a turn stops at the end of the range."""
EARS = (JAW_LINE[0], JAW_LINE[-1])
AXES = "YXZ"
"""Yaw, pitch, roll. The camera's y points down and its z forward: the first two count backwards."""


@dataclass(frozen=True)
class View:
    """What is wished. yaw, pitch: degrees from the clip's own pose; zoom: factor of the focal length."""

    yaw: float = 0.0
    pitch: float = 0.0
    zoom: float = 1.0


AS_FILMED = View()


@dataclass(frozen=True)
class Span:
    """From the lowest to the highest angle that footage shows, and the usual one; degrees."""

    low: float
    usual: float
    high: float

    @classmethod
    def of(cls, angles: Float64) -> Span:
        """What the angles [F] of a clip's frames show."""
        low, high = np.percentile(angles, SEEN_PERCENT)
        return cls(float(low), float(np.median(angles)), float(high))

    def holds(self, turn: float) -> bool:
        """Whether the head can turn so far from the usual angle."""
        return self.low - TOLERANCE_DEG <= self.usual + turn <= self.high + TOLERANCE_DEG

    def turned(self, angles: Float64, turn: float) -> Float64:
        """Angles [F] turned by so much, the less the nearer the end of the range is.

        Never past it, and in the order that they had: motion near the end becomes small, and does
        not stop dead.
        """
        if turn < 0:
            return -Span(-self.high, -self.usual, -self.low).turned(-angles, -turn)
        return angles + _least(turn, np.maximum(self.high + TOLERANCE_DEG - angles, 0.0))


def _least(turn: float, room: Float64) -> Float64:
    """A smooth minimum of numbers >= 0, zero where one is."""
    low, high = np.minimum(turn, room), np.maximum(np.maximum(turn, room), 1e-9)
    return np.asarray(low / (1.0 + (low / high) ** SHARPNESS) ** (1.0 / SHARPNESS))


def yaw_and_pitch(viewmats: Float32) -> Float64:
    """Degrees [2, F] of head poses [F, 4, 4]."""
    return -_angles(viewmats)[:, :2].T


def _angles(viewmats: Float32) -> Float64:
    turns = Rotation.from_matrix(viewmats[:, :3, :3].astype(np.float64))
    return np.asarray(turns.as_euler(AXES, degrees=True))


def turned_clip(clip: IdleClip, view: View) -> IdleClip:
    """The clip with other viewmats: the head turned by the view's angles, as far as the clip shows it.

    Without a turn they are the clip's own, bit for bit.
    """
    if view.yaw == view.pitch == 0.0:
        return clip
    angles = _angles(clip.viewmats)
    for axis, turn in enumerate((view.yaw, view.pitch)):
        angles[:, axis] = -Span.of(-angles[:, axis]).turned(-angles[:, axis], turn)
    middle, views = _head_middle(clip), clip.viewmats.astype(np.float64)
    places = views[:, :3, :3] @ middle + views[:, :3, 3]
    views[:, :3, :3] = Rotation.from_euler(AXES, angles, degrees=True).as_matrix()
    views[:, :3, 3] = places - views[:, :3, :3] @ middle
    return replace(clip, viewmats=views.astype(np.float32))


def head_origin(clip: IdleClip) -> Float32:
    """Left, top [2] in source pixels of the crop that head shots show."""
    return np.asarray(np.median(clip.origins, axis=0).round(), np.float32)


def head_camera(clip: IdleClip, zoom: float = 1.0) -> Float32:
    """K [1, 3, 3] of head shots, zoomed about the head, yet not farther out than `least_zoom`.

    Zooming out leaves the lower edge where it is, for below it there is no body.
    """
    ks = crop_intrinsics(clip.intrinsics, head_origin(clip)[None], clip.scale)
    zoom = max(zoom, least_zoom(clip))
    x, y = _head_place(clip)
    fixed = np.array([x, y if zoom > 1.0 else clip.crop_height], np.float32)
    ks[:, :2, 2] -= fixed
    ks[:, :2] *= np.float32(zoom)
    ks[:, :2, 2] += fixed
    return ks


def least_zoom(clip: IdleClip) -> float:
    """The zoom at which a side of the picture shows the last of the body that crops have seen."""
    x, _ = _head_place(clip)
    seen = np.percentile(clip.origins[:, 0], SEEN_PERCENT) - head_origin(clip)[0]
    left, right = np.abs(seen) * clip.scale
    return float(max(x / (x + left), (clip.crop_width - x) / (clip.crop_width - x + right)))


def _head_place(clip: IdleClip) -> Float64:
    """Where the head's middle usually is in head shots: x, y [2] in pixels."""
    ks = crop_intrinsics(clip.intrinsics, head_origin(clip)[None], clip.scale)
    views = clip.viewmats.astype(np.float64)
    places = project(_head_middle(clip)[None], views, ks[0].astype(np.float64))
    return np.asarray(np.median(places[:, 0], axis=0))


def _head_middle(clip: IdleClip) -> Float64:
    """The point [3] between the ears, in head space: what heads turn about."""
    return np.asarray(clip.face.template[list(EARS)].mean(0), np.float64)


def out_of_range_message(clip: IdleClip, view: View) -> str:
    """What of a view the clip doesn't show, in a line with its range; empty where it shows all."""
    asked = {"yaw": view.yaw, "pitch": view.pitch}
    spans = dict(zip(asked, map(Span.of, yaw_and_pitch(clip.viewmats)), strict=True))
    parts = [
        f"{name} {span.low - span.usual:+.0f} to {span.high - span.usual:+.0f} degrees "
        f"({asked[name]:g} was asked)"
        for name, span in spans.items()
        if not span.holds(asked[name])
    ]
    if view.zoom < (least := least_zoom(clip)):
        parts.append(f"zoom {least:.2f} or more ({view.zoom:g} was asked)")
    return f"the footage shows {', '.join(parts)}: the head stays within it" if parts else ""
