"""The options of `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from talkhead.app.choices import check_folds
from talkhead.app.options import combine_options
from talkhead.types import FRAME_RATE


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of an evaluation.

    Attributes:
        text: Transcript of everything that is said in the footage; None if unknown.
        language: Language of the speech: "en" or another code.
        seconds: Longest part that is evaluated, and that the clip's own A/V offset is measured on.
        renderer: Name of the renderer to evaluate; None for the identity's default. A pair of videos
            has none.
        folds: Number of folds, 3 to 20, in which the lips are cross-validated over the whole clip;
            0: they are not. A pair of videos has none.
        device: "auto", "cpu", "cuda" or "cuda:N", on which the renderer runs.
    """

    text: str | None = None
    language: str = "en"
    seconds: float = 120.0
    renderer: str | None = None
    folds: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        check_folds(self.folds)

    @property
    def n_frames(self) -> int:
        """Largest number of evaluated frames."""
        return int(self.seconds * FRAME_RATE)


class EvaluateKeywords(TypedDict, total=False):
    """Keywords of `talkhead.evaluate` besides its parameters: the fields of `EvaluateOptions`.

    Attributes:
        text: See EvaluateOptions, as for all keywords.
    """

    text: str | None
    language: str
    seconds: float
    renderer: str | None
    folds: int
    device: str


def evaluate_options(
    options: EvaluateOptions | None, keywords: EvaluateKeywords
) -> EvaluateOptions:
    """Combine the options and the keywords of a call of `evaluate`.

    Args:
        options: Options of the evaluation. None: the defaults.
        keywords: Fields of `EvaluateOptions`, which replace those of `options`.

    Returns:
        The options.

    Raises:
        TypeError: A keyword is unknown.
        TalkheadError: The value of an option is not allowed.
    """
    return combine_options("evaluate", options or EvaluateOptions(), keywords)
