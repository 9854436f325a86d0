"""Form fields of the API that are derived from the options of an output."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Form, Request
from starlette.datastructures import UploadFile

from talkhead.app.choices import ALPHA, OWN, parse_color
from talkhead.app.composer.expression_track import write_track
from talkhead.app.options import Option
from talkhead.app.request import OutputOptions, declared_options
from talkhead.app.server.problems import Problem, in_words_of_the_api
from talkhead.errors import TalkheadError
from talkhead.media.codecs import Codec, choose_codec

NOT_OFFERED = ("certificate", "drive", "key", "overwrite")
"""Options that name files of the server, or files next to an output."""


def with_output_fields(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Give an endpoint a form field for each option of an output.

    Args:
        endpoint: A function with a parameter **values, which gets the options that were given by name.

    Returns:
        The endpoint with a signature that FastAPI reads.
    """
    options = {name: one for name, one in declared_options().items() if name not in NOT_OFFERED}
    own = inspect.signature(endpoint, eval_str=True).parameters.values()
    kept = [one for one in own if one.kind is not inspect.Parameter.VAR_KEYWORD]
    added = [_parameter(one) for one in options.values()]

    @functools.wraps(endpoint)
    def run(**named: Any) -> Any:
        values = {name: named.pop(name) for name in options if name in named}
        given = {name: value for name, value in values.items() if value != options[name].default}
        return endpoint(**named, **given)

    run.__signature__ = inspect.Signature([*kept, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in [*kept, *added]}
    return run


def _parameter(option: Option) -> inspect.Parameter:
    annotation = Literal[option.choices] if option.choices else option.annotation
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=option.default,
        annotation=Annotated[annotation, Form(description=in_words_of_the_api(option.help))],
    )


async def known_fields_only(request: Request) -> None:
    """Refuse a form with unknown fields, which are mostly misspelled. A dependency of routes.

    Args:
        request: The request.

    Raises:
        Problem: A field is unknown or given twice.
    """
    route = request.scope["route"]
    known = {one.alias for one in route.dependant.body_params}
    form = await request.form()
    for name in form:
        if name not in known:
            raise Problem(
                422, f"unknown field {name!r}. The fields are: {', '.join(sorted(known))}"
            )
        values = form.getlist(name)
        if len(values) > 1 and not isinstance(values[0], UploadFile):
            raise Problem(422, f"{name} is given {len(values)} times. Pass it once")


def file_free_options(
    values: Mapping[str, Any], background: Path | None, folder: Path
) -> dict[str, Any]:
    """Make the options of a task from form fields, none of which can name a file of the server.

    Args:
        values: Options by name.
        background: An uploaded image or video; None if there is none.
        folder: Folder for files with the transcript and the expressions, if they are given.

    Returns:
        Fields of OutputOptions as JSON values.

    Raises:
        TalkheadError: A background is not a color, or given twice, or the expressions are wrong.
    """
    options = dict(values)
    chosen = background_value(options.get("background"), background)
    if chosen is not None:
        options["background"] = chosen
    if "transcript" in options:
        transcript = folder / "transcript.txt"
        transcript.write_text(options["transcript"], encoding="utf-8", errors="replace")
        options["transcript"] = str(transcript)
    if "expression" in options:
        options["expression"] = str(write_track(options["expression"], folder))
    return options


def background_value(text: str | None, upload: Path | None) -> str | None:
    """Return the background of a request, which cannot name a file of the server.

    Args:
        text: The background as text; None if none was given.
        upload: An uploaded image or video; None if there is none.

    Returns:
        Value of the option `background`.

    Raises:
        TalkheadError: It is not a color, or given twice.
    """
    if text is not None and upload is not None:
        raise TalkheadError("background and background_file are both given. Pass one of them")
    if text is not None and text not in (OWN, ALPHA) and parse_color(text) is None:
        raise TalkheadError(
            f"background {text!r}: give own, alpha, a color (a name, or #rrggbb), or upload an image or "
            "video as background_file"
        )
    return text if upload is None else str(upload)


def single_file_codec(options: OutputOptions) -> Codec:
    """Choose the codec for a video that is a single file.

    Args:
        options: Options of the output.

    Returns:
        The codec.

    Raises:
        TalkheadError: It is unknown, or writes a folder.
    """
    codec = choose_codec(options.codec)
    if codec.is_folder:
        raise TalkheadError(f"codec {codec.name}: writes a folder of images. Choose another one")
    return codec
