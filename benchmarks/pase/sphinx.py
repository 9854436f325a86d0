"""Results of pocketsphinx, stored on disk: it takes longer than everything else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np

from talkhead.encoder.forced_alignment import decode_phones, spell_phones
from talkhead.encoder.phones import Phone
from talkhead.types import Float32

WAYS = ("allphone", "words")
"""Phone by phone, or as words that are then aligned wherever English words match."""

LANGUAGE_WEIGHT = 6.5
"""In phone-by-phone recognition, pocketsphinx makes the fewest errors with its own default: phone
error rates on 50 utterances of speechocean762's validation speakers with 1, 2, 4, 6.5 and 10 are
0.94, 0.85, 0.78, 0.77 and 0.78.
"""


def sphinx_phones(
    waveforms: Sequence[Float32], way: str = "allphone", cache: Path | None = None
) -> list[list[Phone]]:
    """Phones that pocketsphinx recognizes in each waveform [n_samples] at 16 kHz, by one of WAYS.

    cache: a folder for results, from which an interrupted call resumes. Raises TalkheadError
    without pocketsphinx.
    """
    path = None if cache is None else cache / f"sphinx-{way}.jsonl"
    known = _read(path)
    keys = [sound_key(waveform) for waveform in waveforms]
    missing = {key: w for key, w in zip(keys, waveforms, strict=True) if key not in known}
    recognized = _spelled(missing.values()) if way == "allphone" else _words(missing.values())
    for key, phones in zip(missing, recognized, strict=True):
        known[key] = phones
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, [astuple(phone) for phone in phones]]) + "\n")
    return [known[key] for key in keys]


def _spelled(waveforms: Iterable[Float32]) -> Iterable[list[Phone]]:
    return spell_phones(waveforms, LANGUAGE_WEIGHT)


def _words(waveforms: Iterable[Float32]) -> Iterable[list[Phone]]:
    return (decode_phones(waveform) for waveform in waveforms)


def sound_key(waveform: Float32) -> str:
    """Fingerprint of a waveform that does not depend on its level: of its samples' signs."""
    return hashlib.sha256(np.packbits(waveform > 0).tobytes()).hexdigest()[:32]


def _read(path: Path | None) -> dict[str, list[Phone]]:
    if path is None or not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {key: [Phone(*values) for values in phones] for key, phones in rows}
