"""The frames that a request asks for: footage or head, controlled, driven, at a frame rate."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from talkhead.app.avatar import Avatar
from talkhead.app.choices import parse_rate
from talkhead.app.composer.backgrounds import backgrounds_of
from talkhead.app.composer.controls import Controls, controlled_codes
from talkhead.app.composer.cutout import CutoutFrameRenderer
from talkhead.app.composer.driver import Driver, driven_clip
from talkhead.app.composer.expression_model import ExpressionModel
from talkhead.app.composer.frames import (
    FrameRenderer,
    HeadFrameRenderer,
    IdleFootage,
    PasteFrameRenderer,
    own_background,
)
from talkhead.app.composer.head_view import (
    View,
    moved_by_track,
    out_of_range_message,
    turned_clip,
)
from talkhead.app.composer.idle_clip import ping_pong
from talkhead.app.composer.resampling import picked_clip, resampled_clip, resampled_codes
from talkhead.app.composer.source_clip import SourceFootage
from talkhead.app.output.finalize import ResolvedRequest
from talkhead.app.request import OutputOptions
from talkhead.identity import Manifest
from talkhead.progress import Progress
from talkhead.types import FRAME_RATE, Float32


def make_frames(
    avatar: Avatar,
    resolved: ResolvedRequest,
    codes: Float32,
    footage: SourceFootage | None,
    driver: Driver | None,
    progress: Progress,
) -> FrameRenderer:
    """Make the renderer of a request's frames; no frame is rendered yet.

    Args:
        avatar: The person.
        resolved: The request.
        codes: Motion codes [F, K] of the speech, at 25 per second.
        footage: Footage whose timeline is kept. None: the idle clip is played.
        driver: Motion that the head takes in mode "head". None: that of the idle clip.
        progress: Receives warnings about what cannot be shown as requested.

    Returns:
        Frames of the footage, of the idle clip, or of the head alone.

    Raises:
        TalkheadError: The background cannot be read, or the identity cannot be controlled.
    """
    if resolved.request.mode == "head":
        frames, notes = _head_frames(avatar, resolved, codes, driver)
    else:
        frames, notes = _pasted_frames(avatar, resolved, codes, footage)
    for note in filter(None, notes):
        progress.message(note)
    return frames


def _pasted_frames(
    avatar: Avatar, resolved: ResolvedRequest, codes: Float32, footage: SourceFootage | None
) -> tuple[FrameRenderer, list[str]]:
    """Make the renderer of mode "paste", and messages. See make_frames."""
    source = IdleFootage(avatar.idle) if footage is None else footage
    codes = codes if footage is None else footage.codes(codes)
    controls, notes = Controls.from_options(resolved.request.options), list[str]()
    if controls.is_active:
        indices = ping_pong(len(source.clip), len(codes))
        model, rate = ExpressionModel.from_clip(avatar.idle), float(source.frame_rate)
        codes, notes = controlled_codes(codes, source.clip, indices, rate, model, controls)
    pasted = PasteFrameRenderer(avatar.renderer, source, codes, controls.is_active)
    if not resolved.request.options.cuts_out:
        return pasted, notes
    text, own = resolved.request.options.background, source.clip.background
    backgrounds = (
        None if resolved.keeps_alpha else backgrounds_of(text, own, len(codes), pasted.frame_rate)
    )
    return CutoutFrameRenderer(pasted, source, backgrounds), notes


def _head_frames(
    avatar: Avatar, resolved: ResolvedRequest, codes: Float32, driver: Driver | None
) -> tuple[FrameRenderer, list[str]]:
    """Make the renderer of mode "head", and messages. See make_frames."""
    options, idle = resolved.request.options, avatar.idle
    controls, view = Controls.from_options(options), View.from_options(options)
    model = ExpressionModel.from_clip(idle) if controls.is_active or driver else None
    rate = head_rate(options, avatar.package.manifest)
    shown, notes = idle, [out_of_range_message(idle, view)]
    if driver is not None and model is not None:
        shown, more = driven_clip(idle, model, driver)
        notes += more
    shown = resampled_clip(turned_clip(shown, view, idle), rate)
    codes = resampled_codes(codes, rate)
    indices = ping_pong(len(shown), len(codes))
    if controls.expression is not None and controls.expression.moves_the_head:
        played = picked_clip(shown, indices)
        shown = moved_by_track(played, controls.expression, float(rate), idle)
        indices = np.arange(len(codes))
    if driver is not None and driver.moves_mouth:
        codes = shown.codes[indices]
    if controls.is_active and model is not None:
        codes, more = controlled_codes(codes, shown, indices, float(rate), model, controls)
        notes += more
    backgrounds = None
    if not resolved.keeps_alpha:
        own = own_background(idle)
        backgrounds = backgrounds_of(options.background, own, len(codes), rate)
    still = View(zoom=view.zoom)  # the clip is turned already
    return (
        HeadFrameRenderer(
            avatar.renderer, shown, codes, backgrounds, still, rate, controls.is_active
        ),
        notes,
    )


def head_rate(options: OutputOptions, manifest: Manifest) -> Fraction:
    """Return the frame rate in mode "head".

    Args:
        options: Options of the output.
        manifest: Manifest of the identity.

    Returns:
        Frames per second.
    """
    if options.fps is None:
        return Fraction(FRAME_RATE)
    return parse_rate(options.fps, manifest.source.frame_rate)
