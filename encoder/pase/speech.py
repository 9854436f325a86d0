"""Forced alignment of a corpus of recorded speech with known words: the time of each phone.

Alignment is slow (a tenth of the audio's length), so results are kept: each utterance is appended
to a file as one line of JSON, from which an interrupted run resumes.
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
"""Longer utterances are left out: the memory of an alignment grows with the square of the length."""
MIN_SPEECHOCEAN_SCORE = -28.0
"""Acoustic score per frame of speech below which an utterance is left out; see docs/corpus.md."""
VALIDATION_EVERY = 10
"""One in this number of training speakers is used for validation."""


@dataclass(frozen=True)
class Spoken:
    """An utterance before it is aligned.

    Attributes:
        name: Unique name in its source.
        path: The audio file.
        words: Phones of each word, "K AO L".
        speaker: Name of the speaker.
        split: One of SPLITS.
        seconds: Its length.
    """

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
    """List the utterances of speechocean762 (Zhang et al. 2021, Interspeech) with reference phones.

    Args:
        folder: Has index.jsonl with one utterance per line: {"file", "speaker", "split": "train" or
            "test", "seconds", "phones": a list of ARPAbet phones for each word}.

    Returns:
        The utterances. Every VALIDATION_EVERY-th speaker of "train" becomes "validation".

    Raises:
        TalkheadError: For a line that cannot be read; the message names it.
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
                f"{path}: line {number} is not an utterance of speechocean762 ({error}). "
                "Download the corpus again"
            ) from error
    return _with_validation(spoken)


def _with_validation(spoken: Sequence[Spoken]) -> list[Spoken]:
    """Return the utterances, with some of the training speakers moved to validation."""
    speakers = sorted({one.speaker for one in spoken if one.split == "train"})
    held = set(speakers[VALIDATION_EVERY - 1 :: VALIDATION_EVERY])
    return [
        Spoken(**{**vars(one), "split": "validation"}) if one.speaker in held else one
        for one in spoken
    ]


def align_spoken(
    spoken: Sequence[Spoken], store: AlignmentStore, progress: Progress, limit: int | None = None
) -> dict[str, Alignment | None]:
    """Align utterances with their words, using stored results.

    Args:
        spoken: The utterances.
        store: Results so far; new ones are added.
        progress: Shows the utterances.
        limit: Largest number of utterances, taken from a shuffled list; None for all.

    Returns:
        The alignment of each utterance by its name; None where the words do not fit at all.

    Raises:
        TalkheadError: If pocketsphinx is missing or a file cannot be read or written.
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
    """Alignments by an utterance's name and words, in a growing file of JSON lines.

    A changed text has a different key. An incomplete last line is dropped.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file.

        Args:
            path: The file.

        Raises:
            TalkheadError: If it cannot be read or written, or is damaged.
        """
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
        """Store a result.

        Args:
            name: Name of the utterance.
            words: Its text.
            fit: The alignment; None if the words do not fit.

        Raises:
            TalkheadError: If the file cannot be written.
        """
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
    spoken: Iterable[Spoken], fits: Mapping[str, Alignment | None], min_score: float
) -> Iterator[Utterance]:
    """Select the utterances whose words fit the audio.

    Args:
        spoken: The utterances.
        fits: Their alignments by name.
        min_score: Smallest acoustic score per frame of speech.

    Yields:
        The utterances with waveform and phones.

    Raises:
        TalkheadError: If an audio file cannot be read.
    """
    for one in spoken:
        fit = fits.get(one.name)
        if fit is not None and fit.score >= min_score:
            yield Utterance(read_audio(one.path), tuple(fit.phones), one.speaker, one.split)
