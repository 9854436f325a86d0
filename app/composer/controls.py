"""Controls of the face: expressions by time, and blinks."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from talkhead.app.choices import parse_blinks
from talkhead.app.composer.blinks import (
    Blink,
    blink_part,
    find_blinks,
    random_blinks,
)
from talkhead.app.composer.expression_model import MOUTH, ExpressionModel, measured
from talkhead.app.composer.expression_track import ExpressionTrack, read_track
from talkhead.app.composer.idle_clip import IdleClip
from talkhead.types import Float32, Float64, Int

if TYPE_CHECKING:
    from talkhead.app.request import OutputOptions

NO_BLINKS = "the footage shows no complete blink: none are added"


@dataclass(frozen=True)
class Controls:
    """What changes a face besides speech.

    Attributes:
        expression: Expressions by time, if any.
        blinks: Blinks per minute. None: as filmed.
    """

    expression: ExpressionTrack | None = None
    blinks: float | None = None

    @classmethod
    def from_options(cls, options: OutputOptions) -> Controls:
        """Return the controls that options request.

        Args:
            options: The options.

        Returns:
            The controls.

        Raises:
            TalkheadError: The expressions cannot be read.
        """
        track = None if options.expression is None else read_track(options.expression)
        return cls(track, parse_blinks(options.blinks))

    @property
    def is_active(self) -> bool:
        """True if the face is changed."""
        moves_face = self.expression is not None and self.expression.moves_the_face
        return moves_face or self.blinks is not None


def controlled_codes(
    spoken: Float32,
    clip: IdleClip,
    indices: Int,
    rate: float,
    model: ExpressionModel,
    controls: Controls,
) -> tuple[Float32, list[str]]:
    """Return motion codes with controlled eyes, brows and mouth.

    Args:
        spoken: Motion codes of speech [F, K].
        clip: Footage with its tracks, of N frames.
        indices: Indices [F] of the frames' tracks in the clip.
        rate: Frames per second of the video and the clip.
        model: The person's expressions.
        controls: The controls.

    Returns:
        Motion codes [F, K], with eyes and brows of the clip where nothing changes them; and messages
        about what is not possible.
    """
    face, notes = clip.face, []
    codes = np.concatenate([spoken[:, : face.n_mouth], clip.codes[indices, face.n_mouth :]], axis=1)
    coefficients = measured(clip)[indices]
    coefficients[:, MOUTH] = model.usual[MOUTH]  # the mouth is that of the speech
    if controls.blinks is not None:
        found = find_blinks(clip, model, rate)
        if found:
            _remove_blinks(codes[:, face.eyes], coefficients, found, indices)
        seed = zlib.crc32(spoken.tobytes())  # other blinks in another line
        placed = random_blinks(found, controls.blinks, len(codes), rate, seed)
        _add_blinks(codes[:, face.eyes], coefficients, placed)
        if controls.blinks > 0.0 and not any(blink.is_complete for blink in found):
            notes.append(NO_BLINKS)
    if controls.expression is not None and controls.expression.moves_the_face:
        times = np.arange(len(codes)) / rate
        changes, more = model.changes(controls.expression, times, coefficients)
        codes += model.code_changes(changes)
        notes += more
    return codes, [note for note in notes if note]


def _remove_blinks(eyes: Float32, coefficients: Float64, blinks: list[Blink], indices: Int) -> None:
    """Remove the blinks of a clip, in place.

    eyes: codes of eyes and brows [F, E]. coefficients: [F, 52]. blinks: those of the clip. indices: of
    the frames in the clip [F].
    """
    filmed, filmed_coefficients = blink_part(blinks, int(indices.max()) + 1)
    eyes -= filmed[indices]
    coefficients -= filmed_coefficients[indices]


def _add_blinks(eyes: Float32, coefficients: Float64, blinks: list[Blink]) -> None:
    """Add blinks to codes of eyes and brows [F, E] and coefficients [F, 52], in place."""
    if blinks:
        more, more_coefficients = blink_part(blinks, len(eyes))
        eyes += more
        coefficients += more_coefficients
