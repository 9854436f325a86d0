"""View of the head in mode head: turn, zoom and motion, limited to what the footage shows.

Positive yaw looks to the right of the picture, positive pitch up. The head turns about the center
between the ear landmarks; the body, whose position is part of the motion code, does not turn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from scipy.spatial.transform import Rotation

from talkhead.app.composer.expression_track import HEAD_MOTION, TURNS, ExpressionTrack
from talkhead.app.composer.idle_clip import IdleClip
from talkhead.cameras import crop_intrinsics, project
from talkhead.face import JAW_LINE
from talkhead.types import Float32, Float64

if TYPE_CHECKING:
    from talkhead.app.options import PictureOptions

Array = TypeVar("Array", Float32, Float64)

SEEN_PERCENT = (1.0, 99.0)
"""Percentiles of the range; single frames beyond them may be tracking errors."""
TOLERANCE_DEG = 2.0
"""Degrees beyond the range at which a head still looks right."""
SHARPNESS = 4
"""Exponent of the smooth minimum: how abruptly a turn stops at the end of the range."""
EAR_LANDMARKS = (JAW_LINE[0], JAW_LINE[-1])
"""Landmarks on the left and right of the head."""
AXES = "YXZ"
"""Yaw, pitch, roll. The camera's y axis points down and z forward, so the first two are negated."""


@dataclass(frozen=True)
class View:
    """Requested view of the head.

    Attributes:
        yaw: Degrees to turn to the right of the picture, from the clip's own pose.
        pitch: Degrees to turn up, from the clip's own pose.
        zoom: Factor of the focal length.
        motion: Factor of the distance of head and body from their usual pose, 0 to 1.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    zoom: float = 1.0
    motion: float = 1.0

    @classmethod
    def from_options(cls, options: PictureOptions) -> View:
        """Return the view that options request.

        Args:
            options: The options.

        Returns:
            The view.
        """
        return cls(options.yaw, options.pitch, options.zoom, options.head_motion)


AS_FILMED = View()


@dataclass(frozen=True)
class Span:
    """Range of an angle in footage, in degrees.

    Attributes:
        low: Lowest angle.
        usual: Median angle.
        high: Highest angle.
    """

    low: float
    usual: float
    high: float

    @classmethod
    def of(cls, angles: Float64) -> Span:
        """Measure the range of angles.

        Args:
            angles: Angles [F] of a clip's frames, degrees.

        Returns:
            The range.
        """
        low, high = np.percentile(angles, SEEN_PERCENT)
        return cls(float(low), float(np.median(angles)), float(high))

    def holds(self, turn: float) -> bool:
        """Check if the head can turn that far from the usual angle.

        Args:
            turn: Degrees.

        Returns:
            True if it can.
        """
        return self.low - TOLERANCE_DEG <= self.usual + turn <= self.high + TOLERANCE_DEG

    def turned(self, angles: Float64, turn: float | Float64) -> Float64:
        """Turn angles. The closer they are to the end of the range, the less they are turned.

        They never pass the end, and keep their order: motion near the end becomes small, but does
        not stop abruptly.

        Args:
            angles: Angles [F], degrees.
            turn: Degrees to turn, for all frames or for each [F].

        Returns:
            Angles [F].
        """
        above = np.maximum(self.high + TOLERANCE_DEG - angles, 0.0)
        below = np.maximum(angles - (self.low - TOLERANCE_DEG), 0.0)
        return angles + np.sign(turn) * _least(np.abs(turn), np.where(turn > 0.0, above, below))


def _least(turn: float | Float64, room: Float64) -> Float64:
    """Smooth minimum of non-negative numbers, a scalar or [F] and [F]; zero where either is zero."""
    low, high = np.minimum(turn, room), np.maximum(np.maximum(turn, room), 1e-9)
    return np.asarray(low / (1.0 + (low / high) ** SHARPNESS) ** (1.0 / SHARPNESS))


def yaw_and_pitch(viewmats: Float32) -> Float64:
    """Return yaw and pitch of head poses.

    Args:
        viewmats: Poses [F, 4, 4].

    Returns:
        Degrees [2, F].
    """
    return -head_angles(viewmats)[:, :2].T


def head_angles(viewmats: Float32) -> Float64:
    """Return the angles of head poses about the camera's axes.

    Args:
        viewmats: Poses [F, 4, 4].

    Returns:
        Angles [F, 3] about AXES, degrees; yaw and pitch have the opposite sign.
    """
    turns = Rotation.from_matrix(viewmats[:, :3, :3].astype(np.float64))
    return np.asarray(turns.as_euler(AXES, degrees=True))


def turned_clip(clip: IdleClip, view: View, seen: IdleClip | None = None) -> IdleClip:
    """Turn the head in a clip, as far as footage shows the head turned, and scale its motion.

    Args:
        clip: The clip.
        view: Requested view.
        seen: The footage that limits the turn. None: the clip.

    Returns:
        The clip with changed viewmats and codes; the same clip if the view has neither turn nor
        changed motion.
    """
    if view.yaw == view.pitch == 0.0 and view.motion == 1.0:
        return clip
    turns, motion = np.array([[view.yaw], [view.pitch]]), np.full(len(clip), view.motion)
    return _moved_clip(clip, turns, motion, seen or clip)


def moved_by_track(clip: IdleClip, track: ExpressionTrack, rate: float, seen: IdleClip) -> IdleClip:
    """Move the head in a clip as an expression track says.

    Args:
        clip: The clip, from the start of the track on.
        track: The track; expressions of the face in it have no effect.
        rate: Frames per second of the clip.
        seen: The footage that limits the turns.

    Returns:
        The clip with changed viewmats and codes.
    """
    times = np.arange(len(clip)) / rate

    def level(name: str, otherwise: float) -> Float64:
        if name not in track.curves:
            return np.full(len(times), otherwise)
        values, weights = track.at(name, times)
        return np.asarray(otherwise + weights * (values - otherwise))

    spans = map(Span.of, yaw_and_pitch(seen.viewmats))
    turns = [
        (span.high - span.usual) * level(more, 0.0) + (span.low - span.usual) * level(less, 0.0)
        for span, (less, more) in zip(spans, TURNS, strict=True)
    ]
    return _moved_clip(clip, np.stack(turns), level(HEAD_MOTION, 1.0), seen)


def _moved_clip(clip: IdleClip, turns: Float64, motion: Float64, seen: IdleClip) -> IdleClip:
    """Turn the head in a clip by yaw and pitch, degrees [2, F] or [2, 1], within the range of `seen`,
    and scale its motion by factors [F]."""
    codes, body = clip.codes.copy(), slice(clip.face.clothes.start, None)  # with the clothes
    codes[:, body] = _calmed(codes[:, body], motion)
    angles = _calmed(head_angles(clip.viewmats), motion)
    filmed = head_angles(seen.viewmats)
    for axis, turn in enumerate(turns):
        angles[:, axis] = -Span.of(-filmed[:, axis]).turned(-angles[:, axis], turn)
    middle, views = head_middle(clip), clip.viewmats.astype(np.float64)
    places = _calmed(views[:, :3, :3] @ middle + views[:, :3, 3], motion)
    views[:, :3, :3] = Rotation.from_euler(AXES, angles, degrees=True).as_matrix()
    views[:, :3, 3] = places - views[:, :3, :3] @ middle
    return replace(clip, viewmats=views.astype(np.float32), codes=codes)


def _calmed(values: Array, motion: Float64) -> Array:
    """Scale the distances of values [F, n] from their medians by factors [F], [F, n]."""
    usual = np.median(values, axis=0)
    return (usual + motion[:, None] * (values - usual)).astype(values.dtype)


def head_origin(clip: IdleClip) -> Float32:
    """Return the position of the crop that mode head shows.

    Args:
        clip: The clip.

    Returns:
        Left and top [2] in source pixels.
    """
    return np.asarray(np.median(clip.origins, axis=0).round(), np.float32)


def head_camera(clip: IdleClip, zoom: float = 1.0) -> Float32:
    """Return the camera of mode head, zoomed about the head, but not below `min_zoom`.

    Zooming out keeps the lower edge in place, since there is no body below it.

    Args:
        clip: The clip.
        zoom: Factor.

    Returns:
        Intrinsics [1, 3, 3].
    """
    ks = crop_intrinsics(clip.intrinsics, head_origin(clip)[None], clip.scale)
    zoom = max(zoom, min_zoom(clip))
    x, y = _head_place(clip)
    fixed = np.array([x, y if zoom > 1.0 else clip.crop_height], np.float32)
    ks[:, :2, 2] -= fixed
    ks[:, :2] *= np.float32(zoom)
    ks[:, :2, 2] += fixed
    return ks


def min_zoom(clip: IdleClip) -> float:
    """Return the zoom below which a side of the picture would show parts that no crop contains.

    Args:
        clip: The clip.

    Returns:
        Factor.
    """
    x, _ = _head_place(clip)
    seen = np.percentile(clip.origins[:, 0], SEEN_PERCENT) - head_origin(clip)[0]
    left, right = np.abs(seen) * clip.scale
    return float(max(x / (x + left), (clip.crop_width - x) / (clip.crop_width - x + right)))


def _head_place(clip: IdleClip) -> Float64:
    """Return the usual position of the head's center in mode head: x, y [2] in pixels."""
    ks = crop_intrinsics(clip.intrinsics, head_origin(clip)[None], clip.scale)
    views = clip.viewmats.astype(np.float64)
    places = project(head_middle(clip)[None], views, ks[0].astype(np.float64))
    return np.asarray(np.median(places[:, 0], axis=0))


def head_middle(clip: IdleClip) -> Float64:
    """Return the point between the ear landmarks, about which heads turn.

    Args:
        clip: The clip.

    Returns:
        Point [3] in head space.
    """
    return np.asarray(clip.face.template[list(EAR_LANDMARKS)].mean(0), np.float64)


def out_of_range_message(clip: IdleClip, view: View) -> str:
    """Describe the parts of a view that the clip does not show, and the range that it shows.

    Args:
        clip: The clip.
        view: Requested view.

    Returns:
        A sentence; "" if it shows everything.
    """
    requested = {"yaw": view.yaw, "pitch": view.pitch}
    spans = dict(zip(requested, map(Span.of, yaw_and_pitch(clip.viewmats)), strict=True))
    parts = [
        f"{name} {span.low - span.usual:+.0f} to {span.high - span.usual:+.0f} degrees "
        f"({requested[name]:g} was requested)"
        for name, span in spans.items()
        if not span.holds(requested[name])
    ]
    if view.zoom < (least := min_zoom(clip)):
        parts.append(f"zoom {least:.2f} or more ({view.zoom:g} was requested)")
    return (
        f"the footage shows {', '.join(parts)}: the head stays within that range" if parts else ""
    )
