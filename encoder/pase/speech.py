"""Recorded speech whose words are known, aligned: where each phone of a corpus is.

Alignment is slow (a tenth of the sound's length) and kept: a line of JSON per utterance, appended as
it goes, so that a run that is stopped continues where it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from talkhead.encoder.forced_alignment import Alignment, ForcedAligner
from talkhead.encoder.pase.corpus import Utterance
from talkhead.encoder.phones import Phone
from talkhead.errors import TalkheadError
from talkhead.media import read_audio
from talkhead.progress import Progress
from talkhead.storage import decode_json, make_folder, translate_os_errors

INDEX = "index.jsonl"
MAX_UTTERANCE_S = 20.0
"""Longer ones are left out: the memory of an alignment grows with the square of the length."""
MIN_SPEECHOCEAN_SCORE = -28.0
"""Acoustic score per frame of speech below which an utterance is left out. docs/corpus.md."""
VALIDATION_EVERY = 10
"""One in so many of the speakers given for training is for validation."""


@dataclass(frozen=True)
class Spoken:
    """An utterance before it is aligned. name: unique in its source. words: each word's phones,
    "K AO L"."""

    name: str
    path: Path
    words: tuple[str, ...]
    speaker: str
    split: str
    seconds: float

    @property
    def text(self) -> str:
        """The words in one line."""
        return "|".join(self.words)


def read_speechocean(folder: Path) -> list[Spoken]:
    """The utterances of speechocean762 (Zhang et al. 2021, Interspeech) with reference phones.

    folder: index.jsonl, one utterance a line: {"file", "speaker", "split": "train" or "test",
    "seconds", "phones": a list of ARPAbet phones for each word}. Every VALIDATION_EVERY-th speaker
    of "train" becomes "validation". Raises TalkheadError naming the line that can't be read.
    """
    path = folder / INDEX
    with translate_os_errors(path):
        lines = path.read_text(encoding="utf-8").splitlines()
    spoken = []
    for number, line in enumerate(lines, 1):
        try:
            entry = decode_json(line)
            words = tuple(" ".join(word) for word in entry["phones"])
            spoken.append(
                Spoken(
                    str(entry["file"]),
                    folder / entry["file"],
                    words,
                    str(entry["speaker"]),
                    str(entry["split"]),
                    float(entry["seconds"]),
                )
            )
        except (ValueError, KeyError, TypeError) as error:
            raise TalkheadError(
                f"{path}: line {number} is no utterance of speechocean762 ({error}). "
                "Get the corpus again"
            ) from error
    return _with_validation(spoken)


def _with_validation(spoken: Sequence[Spoken]) -> list[Spoken]:
    speakers = sorted({one.speaker for one in spoken if one.split == "train"})
    held = set(speakers[VALIDATION_EVERY - 1 :: VALIDATION_EVERY])
    return [
        Spoken(**{**vars(one), "split": "validation"}) if one.speaker in held else one
        for one in spoken
    ]


def align_spoken(
    spoken: Sequence[Spoken], store: AlignmentStore, progress: Progress, limit: int | None = None
) -> dict[str, Alignment | None]:
    """The phones of each utterance by its name; None where the words can't be fitted in.

    limit: how many to have at most, of an order that mixes the speakers. Raises TalkheadError.
    """
    mixed = [spoken[i] for i in np.random.default_rng(0).permutation(len(spoken))]
    mixed = [one for one in mixed if one.seconds <= MAX_UTTERANCE_S][:limit]
    left = [one for one in mixed if (one.name, one.text) not in store]
    with progress.step("Aligning speech", len(mixed), done=len(mixed) - len(left)) as step:
        if not left:
            step.skip("up to date")
        aligner = ForcedAligner() if left else None
        for one in left:
            assert aligner is not None
            fit = aligner.fit_pronounced(read_audio(one.path), one.words)
            store.add(one.name, one.text, fit)
            step.advance()
    return {one.name: store[one.name, one.text] for one in mixed}


class AlignmentStore:
    """Alignments by the utterance's name and its words, in a file of JSON lines that grows.

    A changed text is another one. A last line that was cut off is left out. Raises TalkheadError
    naming the file when it can't be read or written or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fits: dict[tuple[str, str], Alignment | None] = {}
        make_folder(path.parent)
        with translate_os_errors(path):
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            whole = text[: text.rfind("\n") + 1]
            if len(whole) < len(text):
                path.write_text(whole, encoding="utf-8")
        try:
            for line in whole.splitlines():
                entry = decode_json(line)
                fit = None if entry["score"] is None else _read_fit(entry)
                self._fits[entry["name"], entry["words"]] = fit
        except (ValueError, KeyError, TypeError) as error:
            raise TalkheadError(f"{path}: damaged ({error}). Remove it and run again") from error

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._fits

    def __getitem__(self, key: tuple[str, str]) -> Alignment | None:
        return self._fits[key]

    def add(self, name: str, words: str, fit: Alignment | None) -> None:
        """Keep a fit, or that there is none."""
        phones = (
            []
            if fit is None
            else [[p.label, round(p.start_s, 4), round(p.end_s, 4)] for p in fit.phones]
        )
        score = None if fit is None else round(fit.score, 3)
        entry = {"name": name, "words": words, "phones": phones, "score": score}
        self._fits[name, words] = fit
        with translate_os_errors(self._path), self._path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(entry, separators=(",", ":")) + "\n")


def _read_fit(entry: Mapping[str, Any]) -> Alignment:
    return Alignment([Phone(*phone) for phone in entry["phones"]], float(entry["score"]))


def fitting_utterances(
    spoken: Iterable[Spoken], fits: Mapping[str, Alignment | None], least_score: float
) -> Iterator[Utterance]:
    """Those whose words fit what is heard, with their sound."""
    for one in spoken:
        fit = fits.get(one.name)
        if fit is not None and fit.score >= least_score:
            yield Utterance(read_audio(one.path), tuple(fit.phones), one.speaker, one.split)
