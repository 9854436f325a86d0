"""Options: how an option is declared, the options of pictures, and those of `fit`.

The other options of an output are declared in app/request.py. The command line, the columns of `dub`, the
files that a job reads and the resume key are derived from the declarations.
docs/extending/option.md describes how to add an option.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, get_args, get_type_hints

from talkhead.app.choices import (
    DEFAULT_PRESET,
    DEFAULT_RENDERER,
    FILMED,
    MAX_SEED,
    OWN,
    PRESETS,
    background_file,
    check_choice,
    check_encoder,
    check_renderer,
    parse_blinks,
)
from talkhead.encoder.registry import DEFAULT_ENCODER
from talkhead.errors import TalkheadError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

AnyOptions = TypeVar("AnyOptions", bound="DataclassInstance")


@dataclass(frozen=True)
class Option:
    """The declaration of one option, as it is used outside of `OutputOptions`.

    Attributes:
        flag: Flag on the command line; for a switch, "--on/--off".
        help: Help text.
        panel: Panel of the help in which it is listed.
        choices: The values that are accepted; empty: any of its type.
        names_file: True if a value may be the path of a file that is read.
        in_frames: True if the frames depend on the content of the file that it names.
        secret: True if the file that it names must not leave the machine.
        show_default: True if the help shows the default value.
        name: Name of the field; a column of `dub`.
        kind: bool, int, float, str or Path.
        annotation: The field's own annotation, such as `str | None`.
        default: Default value.
    """

    flag: str
    help: str
    panel: str
    choices: tuple[str, ...] = ()
    names_file: bool = False
    in_frames: bool = False
    secret: bool = False
    show_default: bool = True
    name: str = ""
    kind: type = str
    annotation: Any = str
    default: Any = None


_DECLARATION = "option"
"""Key of an Option in the metadata of a field."""


def option(flag: str, help: str, panel: str, **more: Any) -> Mapping[str, Option]:
    """Declare an option: the metadata of a field of `OutputOptions`.

    Args:
        flag: See Option.
        help: See Option.
        panel: See Option.
        **more: Further attributes of Option: choices, names_file, in_frames, secret, show_default.

    Returns:
        Metadata for `dataclasses.field`.
    """
    return {_DECLARATION: Option(flag, help, panel, **more)}


@cache
def read_declarations(cls: type) -> Mapping[str, Option]:
    """List the options that are declared as fields of a dataclass.

    Args:
        cls: A dataclass whose fields all have the metadata of `option`.

    Returns:
        The options by name, in the order of the fields.
    """
    hints, found = get_type_hints(cls), {}
    for one in dataclasses.fields(cls):
        hint = hints[one.name]
        kinds = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]
        found[one.name] = dataclasses.replace(
            one.metadata[_DECLARATION],
            name=one.name,
            kind=kinds[0],
            annotation=hint,
            default=one.default,
        )
    return found


def check_keywords(function: str, given: Iterable[str], known: Collection[str]) -> None:
    """Check the keywords of a call.

    Args:
        function: Name of the function that was called.
        given: Keywords of the call.
        known: Keywords that the function has.

    Raises:
        TypeError: A keyword is unknown; the message is Python's own.
    """
    for name in given:
        if name not in known:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")


def combine_options(function: str, options: AnyOptions, keywords: Mapping[str, Any]) -> AnyOptions:
    """Combine the options and the keywords of a call.

    Args:
        function: Name of the function that was called.
        options: The options, a dataclass.
        keywords: Keywords of the call, which replace fields of the options.

    Returns:
        The options.

    Raises:
        TypeError: A keyword is unknown; the message is Python's own.
    """
    check_keywords(function, keywords, [one.name for one in dataclasses.fields(options)])
    return dataclasses.replace(options, **keywords)


PICTURE_PANEL, FACE_PANEL = "Picture", "Eyes and expression"
"""Panels of `talkhead speak --help`."""
MIN_HEIGHT, MAX_HEIGHT = 16, 8192
MAX_TURN_DEG = 45.0
MIN_ZOOM, MAX_ZOOM = 0.5, 2.0
MAX_INTENSITY = 2.0


@dataclass(frozen=True)
class PictureOptions:
    """Options of pictures, for files and for live speech; `OutputOptions` describes them.

    Attributes:
        height: Height in pixels.
        background: Background behind the head, or the person.
        yaw: Turn of the head to the right of the picture in mode "head", in degrees.
        pitch: Upward turn of the head in mode "head", in degrees.
        zoom: Scale of the head in mode "head".
        head_motion: Factor on the motion of head and body in mode "head".
        intensity: Factor on the motion of the mouth.

    Raises:
        TalkheadError: A value is out of range.
    """

    height: int | None = field(
        default=None,
        metadata=option("--height", "Height in pixels. (default: the source's)", PICTURE_PANEL),
    )
    background: str | None = field(
        default=None,
        metadata=option(
            "--background",
            "A color, an image, a video that loops, own, or alpha. In mode paste the person is cut out "
            "of the footage. (default: own; in mode head alpha if the codec supports it)",
            PICTURE_PANEL,
            names_file=True,
            in_frames=True,
        ),
    )
    yaw: float = field(
        default=0.0,
        metadata=option(
            "--yaw",
            "Mode head: degrees to turn the head to the right of the picture, as far as the footage "
            "shows it. (default: as in the footage)",
            PICTURE_PANEL,
            show_default=False,
        ),
    )
    pitch: float = field(
        default=0.0,
        metadata=option(
            "--pitch",
            "Mode head: degrees to turn the head up, as far as the footage shows it.",
            PICTURE_PANEL,
            show_default=False,
        ),
    )
    zoom: float = field(
        default=1.0,
        metadata=option(
            "--zoom",
            "Mode head: 1.2 shows the head larger, 0.9 smaller, if the footage shows enough of the body.",
            PICTURE_PANEL,
            show_default=False,
        ),
    )
    head_motion: float = field(
        default=1.0,
        metadata=option(
            "--head-motion",
            "Mode head: how much of the head's motion in the footage is kept: 1 all, 0.5 half, 0 none. "
            "Eyes and brows move in any case.",
            PICTURE_PANEL,
        ),
    )
    intensity: float = field(
        default=1.0,
        metadata=option(
            "--intensity",
            "Factor on the motion of the mouth: 1 is the person's own, 0.7 calmer, 1.3 livelier. "
            "Closed lips stay closed.",
            PICTURE_PANEL,
        ),
    )

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            TalkheadError: A value is out of range.
        """
        if self.height is not None and not MIN_HEIGHT <= self.height <= MAX_HEIGHT:
            raise TalkheadError(
                f"a height of {self.height} pixels is not allowed. "
                f"Choose {MIN_HEIGHT} to {MAX_HEIGHT}"
            )
        for name, turn in (("yaw", self.yaw), ("pitch", self.pitch)):
            if not abs(turn) <= MAX_TURN_DEG:
                raise TalkheadError(
                    f"a {name} of {turn:g} degrees is not allowed. "
                    f"Choose {-MAX_TURN_DEG:g} to {MAX_TURN_DEG:g}"
                )
        if not MIN_ZOOM <= self.zoom <= MAX_ZOOM:
            raise TalkheadError(
                f"a zoom of {self.zoom:g} is not allowed. Choose {MIN_ZOOM:g} to {MAX_ZOOM:g}"
            )
        if not 0.0 <= self.head_motion <= 1.0:
            raise TalkheadError(
                f"a head motion of {self.head_motion:g} is not allowed. Choose 0 (still) to 1 (as in "
                "the footage)"
            )
        if not 0.0 <= self.intensity <= MAX_INTENSITY:
            raise TalkheadError(
                f"an intensity of {self.intensity:g} is not allowed. Choose 0 to {MAX_INTENSITY:g}"
            )

    @property
    def cuts_out(self) -> bool:
        """True if a background other than the person's own is requested."""
        return self.background not in (None, OWN)

    @property
    def moves_the_head(self) -> bool:
        """True if the head is turned or scaled, or moves less than in the footage."""
        return (self.yaw, self.pitch, self.zoom, self.head_motion) != (0.0, 0.0, 1.0, 1.0)

    def check_mode(self, mode: str) -> None:
        """Check that the options fit a mode, and that the background can be used.

        Args:
            mode: "paste" or "head".

        Raises:
            TalkheadError: They do not, or the background is neither a color nor an image or video.
            MediaError: The background cannot be read or has no picture.
        """
        if mode != "head" and self.moves_the_head:
            raise TalkheadError(
                f"yaw, pitch, zoom and head motion need --mode head: {mode} keeps the head of the "
                "person's own footage"
            )
        if self.background is not None and background_file(self.background) is not None:
            from talkhead.app.composer.backgrounds import (
                check_background,  # needs OpenCV, which is slow to import
            )

            check_background(self.background)


@dataclass(frozen=True)
class FaceOptions:
    """Options of the face in files; `OutputOptions` describes them.

    Attributes:
        expression: Expressions by time.
        blinks: "filmed", "none", or a number per minute.
        drive: Video of anybody whose expressions and head motion the head takes.

    Raises:
        TalkheadError: A value is out of range.
    """

    expression: str | None = field(
        default=None,
        metadata=option(
            "--expression",
            "Expressions by time in seconds: 'smile=0.6' throughout, or '0:smile=0; 2:smile=0.8; "
            "4:smile=-', where - ends one; or a .csv, .json or .txt file. Relative to the person, where "
            "1 is the strongest in their footage: smile, frown, brows_up, brows_down, wide_eyes, squint, "
            "blink, look_left, look_right, look_up, look_down. Absolute: the coefficients of ARKit.",
            FACE_PANEL,
            names_file=True,
            in_frames=True,
        ),
    )
    blinks: str = field(
        default=FILMED,
        metadata=option(
            "--blinks",
            "filmed: as in the footage; none; or a number per minute, 0 to 60, of the person's own.",
            FACE_PANEL,
        ),
    )

    drive: Path | None = field(
        default=None,
        metadata=option(
            "--drive",
            "Mode head: a video of anybody, whose expressions and head motion the head takes, within "
            "the range of its own footage. Without --audio, it also takes that video's sound and mouth.",
            FACE_PANEL,
            names_file=True,
            in_frames=True,
        ),
    )

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            TalkheadError: A value is out of range.
        """
        parse_blinks(self.blinks)
        if self.drive is not None:  # may be given as a string
            object.__setattr__(self, "drive", Path(self.drive))
        super().__post_init__()  # type: ignore[misc]

    @property
    def controls_face(self) -> bool:
        """True if eyes, brows or mouth are not only those of the footage and the speech."""
        return (self.expression, self.blinks, self.drive) != (None, FILMED, None)


@dataclass(frozen=True)
class FitOptions:
    """Options of a fit.

    Attributes:
        preset: "preview", "standard" or "high": how long to train.
        renderer: Name of a renderer: "gaussian", "nerf", "warp" or a plugin's.
        encoder: Name of a speech encoder, or a .safetensors file with weights of PASE.
        seed: Seed of all random numbers, 0 to 2**32 - 1. On one machine, the same seed gives the
            same identity.
        consent: Statement of the person's consent. It is stored with the identity, and stated in
            its videos.
        use_all_frames: Train on the held-out last 1/11 of the footage, too. Nothing is then left to
            evaluate on.
        min_face: Share of the frames in which a face must be found, 0 to 1.
        check_speech: Refuse footage with hardly any speech.
        wait: Wait while another process fits an identity of the same name; if False, refuse.

    Raises:
        TalkheadError: A value is out of range, or a name is unknown.
    """

    preset: str = DEFAULT_PRESET
    renderer: str = DEFAULT_RENDERER
    encoder: str = DEFAULT_ENCODER
    seed: int = 0
    consent: str | None = None
    use_all_frames: bool = False
    min_face: float = 0.8
    check_speech: bool = True
    wait: bool = True

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            TalkheadError: A value is out of range, or a name is unknown.
        """
        check_choice("preset", self.preset, PRESETS)
        check_renderer(self.renderer)
        check_encoder(self.encoder)
        if not 0 <= self.seed <= MAX_SEED:
            raise TalkheadError(f"a seed of {self.seed} is not allowed. Choose 0 to {MAX_SEED}")
        if not 0.0 <= self.min_face <= 1.0:
            raise TalkheadError(
                f"{self.min_face:g} is not a valid share of frames with a face. Choose 0 to 1"
            )


class FitKeywords(TypedDict, total=False):
    """Keywords of `talkhead.fit` besides its parameters: the fields of `FitOptions`.

    Attributes:
        preset: See FitOptions, which describes all of these keywords.
    """

    preset: str
    renderer: str
    encoder: str
    seed: int
    consent: str | None
    use_all_frames: bool
    min_face: float
    check_speech: bool
    wait: bool


def fit_options(options: FitOptions | None, keywords: FitKeywords) -> FitOptions:
    """Combine the options and the keywords of a call of `fit`.

    Args:
        options: Options of the fit. None: the defaults.
        keywords: Fields of `FitOptions`, which replace those of `options`.

    Returns:
        The options.

    Raises:
        TypeError: A keyword is unknown.
        TalkheadError: The value of an option is not allowed.
    """
    return combine_options("fit", options or FitOptions(), keywords)
