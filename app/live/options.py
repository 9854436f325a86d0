"""Options of a live session; none of it imports PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

from talkhead.app.choices import ALPHA, DEFAULT_MODE, MODES, check_choice
from talkhead.app.options import PictureOptions, combine_options
from talkhead.encoder.extract import RATES
from talkhead.errors import TalkheadError
from talkhead.types import FRAME_RATE

Pace = Literal["playback", "arrival"]
LEAD_S = 3 / FRAME_RATE
"""How far ahead of their time frames are given out: what is out can't be interrupted."""

MAX_LIVE_HEIGHT = 2160
MAX_LIVE_WIDTH = 3840
"""Limits of pictures that are scaled to a height: each is 25 MB in memory, and several wait."""


@dataclass(frozen=True)
class LiveOptions(PictureOptions):
    """Options of a live session.

    Attributes:
        height: Height of the pictures in pixels, 16 to 2160, and no more than gives a width of 3840.
            None: the source's.
        background: Background in mode "head": "own", "alpha", a color, an image or a video. With
            "alpha", pictures have four channels, RGBA. None: the person's own.
        yaw: Turn of the head to the right of the picture in mode "head", in degrees, limited to
            what the footage shows.
        pitch: Upward turn of the head in mode "head", in degrees, with the same limit.
        zoom: Scale of the head in mode "head", 0.5 to 2.
        head_motion: Factor on the motion of head and body in mode "head", 0 (still) to 1.
        intensity: Factor on the motion of the mouth, 0 to 2. 1 is the person's own; closed lips stay
            closed.
        sample_rate: Samples per second of the sound that frames carry; a multiple of 25.
        pace: "playback" gives frames out as they are played, for sound that comes faster than that,
            such as synthetic speech; "arrival" as soon as they are ready, for a microphone.
        lead_s: With "playback", how many seconds ahead of their time frames are given out.
            Infinity: as fast as they are ready, for players with a queue of their own.
        ahead: Frames that a prediction waits for. None: as the predictor was trained; with "arrival",
            0.
        mode: "paste": the mouth is pasted into the person's own footage; "head": the head alone.
        badge: Mark every picture as made by a machine. If False, say it elsewhere; the manifest of
            the session states it in any case.
        rendered: Render pictures. If False, frames have only the motion codes of the mouth, for web
            pages that draw the head themselves, which needs the mode "paste".

    Raises:
        TalkheadError: A value is out of range, options do not fit the mode, or the background cannot
            be used.
    """

    sample_rate: int = 24_000
    pace: Pace = "playback"
    lead_s: float = LEAD_S
    ahead: int | None = None
    mode: str = DEFAULT_MODE
    badge: bool = True
    rendered: bool = True

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            TalkheadError: See the class.
        """
        super().__post_init__()
        rate = self.sample_rate
        if not RATES[0] <= rate <= RATES[1] or rate % FRAME_RATE:
            raise TalkheadError(
                f"a sample rate of {rate} Hz: a multiple of {FRAME_RATE} from {RATES[0]} to "
                f"{RATES[1]} is needed, such as 16000, 24000 or 48000"
            )
        if self.height is not None and self.height > MAX_LIVE_HEIGHT:
            raise TalkheadError(
                f"a height of {self.height} pixels is too large for a live session. Choose at most "
                f"{MAX_LIVE_HEIGHT}"
            )
        check_choice("mode", self.mode, MODES)
        self.check_mode(self.mode)
        if self.cuts_out and self.mode != "head":
            raise TalkheadError(
                "a background of a live session needs the mode head: the person is cut out of "
                "footage only in files"
            )
        if not self.rendered and (self.mode != DEFAULT_MODE or self.height is not None):
            raise TalkheadError(
                "a session that does not render has the mode paste and the size of the footage. Leave "
                "out mode and height"
            )

    @property
    def has_alpha(self) -> bool:
        """True if pictures are transparent outside the head."""
        return self.background == ALPHA


DEFAULTS = LiveOptions()


class LiveKeywords(TypedDict, total=False):
    """Keywords of `LiveSession` besides its parameters: the fields of `LiveOptions`.

    Attributes:
        height: See LiveOptions, which describes all of these keywords.
    """

    height: int | None
    background: str | None
    yaw: float
    pitch: float
    zoom: float
    head_motion: float
    intensity: float
    sample_rate: int
    pace: Pace
    lead_s: float
    ahead: int | None
    mode: str
    badge: bool
    rendered: bool


def live_options(options: LiveOptions | None, keywords: LiveKeywords) -> LiveOptions:
    """Combine the options and the keywords of a live session.

    Args:
        options: Options of the session. None: the defaults.
        keywords: Fields of `LiveOptions`, which replace those of `options`.

    Returns:
        The options.

    Raises:
        TypeError: A keyword is unknown.
        TalkheadError: The value of an option is not allowed.
    """
    return combine_options("LiveSession", options or DEFAULTS, keywords)
