"""Letter-to-sound rules for English words that the dictionary lacks."""

from __future__ import annotations

import re

from talkhead.errors import TalkheadError


def guess_phones(word: str) -> list[str]:
    """Guess the phones of an English word, letter by letter.

    A rough guess, which keeps an alignment intact at a name that the dictionary lacks.

    Args:
        word: The word, in lower case.

    Returns:
        Phones of PHONES.

    Raises:
        TalkheadError: For letters other than a to z; the word is named.
    """
    stem = re.sub(r"(?<=[^aeiouy])e(?=s?$)", "", word.replace("'", ""))  # a final e is silent
    phones: list[str] = []
    at = 0
    while at < len(stem):
        size = next((n for n in (4, 3, 2, 1) if stem[at : at + n] in _SOUNDS), 0)
        if size == 0:
            raise TalkheadError(f'"{word}" is not readable as English. Write it in English letters')
        phones += _SOUNDS[stem[at : at + size]].split()
        at += size
    return phones or ["AH"]


_SOUNDS = {
    **{"tion": "SH AH N", "sion": "ZH AH N", "ough": "AO", "augh": "AO", "eigh": "EY"},
    **{"igh": "AY", "tch": "CH", "sch": "SH", "dge": "JH", "eau": "OW", "ing": "IH NG"},
    **{"ch": "CH", "sh": "SH", "th": "TH", "ph": "F", "gh": "G", "wh": "W", "ck": "K", "ng": "NG"},
    **{"qu": "K W", "kn": "N", "wr": "R", "bb": "B", "cc": "K", "dd": "D", "ff": "F", "gg": "G"},
    **{"ll": "L", "mm": "M", "nn": "N", "pp": "P", "rr": "R", "ss": "S", "tt": "T", "zz": "Z"},
    **{"ce": "S EH", "ci": "S IH", "cy": "S IY", "ge": "JH EH", "gi": "JH IH"},
    **{"ee": "IY", "ea": "IY", "ie": "IY", "ei": "AY", "ey": "IY", "ai": "EY", "ay": "EY"},
    **{"oo": "UW", "ou": "AW", "ow": "OW", "oa": "OW", "oi": "OY", "oy": "OY", "au": "AO"},
    **{"aw": "AO", "ew": "UW", "eu": "UW", "ue": "UW", "ar": "AA R", "er": "ER", "ir": "ER"},
    **{"or": "AO R", "ur": "ER", "a": "AE", "b": "B", "c": "K", "d": "D", "e": "EH", "f": "F"},
    **{"g": "G", "h": "HH", "i": "IH", "j": "JH", "k": "K", "l": "L", "m": "M", "n": "N"},
    **{"o": "AA", "p": "P", "q": "K", "r": "R", "s": "S", "t": "T", "u": "AH", "v": "V"},
    **{"w": "W", "x": "K S", "y": "IY", "z": "Z"},
}
"""Phones of letters and groups of letters; longer groups take precedence."""
