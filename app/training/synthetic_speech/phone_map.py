"""Map phones of other inventories to ARPAbet: by the shape of the lips first, then by the sound."""

# ruff: noqa: RUF001 (phonetic symbols look like Latin letters)

from __future__ import annotations

import re
import unicodedata

from talkhead.encoder.phones import PHONES, SILENCE

FLITE = {
    **{phone.lower(): phone for phone in PHONES if phone != SILENCE},
    **{"ax": "AH", "ix": "IH", "axr": "ER", "dx": "D", "pau": SILENCE},
}
"""flite's phones: those of the CMU dictionary, and reduced vowels."""

IPA = {
    # Plain.
    **{"p": "P", "b": "B", "m": "M", "f": "F", "v": "V", "θ": "TH", "ð": "DH", "t": "T", "d": "D"},
    **{"s": "S", "z": "Z", "ʃ": "SH", "ʒ": "ZH", "k": "K", "ɡ": "G", "g": "G", "n": "N", "ŋ": "NG"},
    **{"l": "L", "j": "Y", "h": "HH", "w": "W", "ɹ": "R"},
    **{"i": "IY", "ɪ": "IH", "ɛ": "EH", "æ": "AE", "ɑ": "AA", "ʌ": "AH", "ə": "AH", "ɔ": "AO"},
    **{"ʊ": "UH", "u": "UW", "ɜ": "ER", "ɚ": "ER", "ɝ": "ER"},
    # Rounded front vowels: the round lips are visible, the tongue is not.
    **{"y": "UW", "ʏ": "UH", "ø": "UH", "œ": "AO", "ɶ": "AO", "ʉ": "UW", "ɵ": "UH", "ɞ": "ER"},
    # Unrounded back and central vowels: lips as at IH or AH, however far back the tongue.
    **{"ɯ": "IH", "ɨ": "IH", "ɤ": "AH", "ɘ": "AH", "ɐ": "AH", "ᵻ": "IH"},
    # The open a of most languages opens as wide as AA; ɒ is rounded. Short e and o are laxer than
    # English EY and OW and not diphthongs. With a length mark, see LONG.
    **{"a": "AA", "ɒ": "AO", "e": "EH", "o": "AO"},
    # Lips near each other or at the teeth.
    **{"ɸ": "F", "β": "V", "ʋ": "V", "ɱ": "V", "ʍ": "W", "ɥ": "W"},
    # Rounded lips or not: ʂ ʐ and ɕ ʑ are protruded as SH is, the ç of ich is the h of hue.
    **{"ɕ": "SH", "ʑ": "ZH", "ʂ": "SH", "ʐ": "ZH", "ç": "HH", "ʝ": "Y"},
    # English R is rounded, other r's are not: taps sound like D, trills are continuous like L.
    **{"ɻ": "R", "ɾ": "D", "ɽ": "D", "r": "L", "ʀ": "G", "ʁ": "G"},
    # Same shape of the lips, different place of the tongue.
    **{"ʈ": "T", "ɖ": "D", "c": "K", "ɟ": "G", "q": "K", "ɢ": "G", "ɲ": "N", "ɳ": "N", "ɴ": "NG"},
    **{"ɫ": "L", "ɭ": "L", "ʎ": "L", "ɬ": "L", "x": "HH", "χ": "HH", "ħ": "HH", "ɦ": "HH"},
    **{"ɣ": "G", "ɰ": "G"},
}
"""Symbols of the International Phonetic Alphabet. Missing ones, such as ʔ and ʕ, do not determine the
lips and become a gap.
"""

LONG = {"e": "EY", "o": "OW", "ɑ": "AA", "ɔ": "AO"}
"""Vowels that correspond to a different phone when long."""

PAIRS = {
    **{"tʃ": "CH", "dʒ": "JH", "tɕ": "CH", "dʑ": "JH", "tʂ": "CH", "dʐ": "JH"},
    **{first + second: "AY" for first in "aɑæɐʌ" for second in "ɪij"},
    **{first + second: "AW" for first in "aɑæɐʌ" for second in "ʊuoʉ"},
    **{first + second: "EY" for first in "eɛ" for second in "ɪij"},
    **{first + second: "OW" for first in "oəɔ" for second in "ʊu"},
    **{first + second: "OY" for first in "oɔ" for second in "ɪijyʏø"},
    **{"ər": "ER", "əɹ": "ER", "nɡ": "NG"},
}
"""Two symbols that are one phone of English."""

KOKORO = {
    **{symbol: IPA[symbol] for symbol in "pbmfvθðtdszʃʒkɡnŋljhwɹiɪɛæɑʌəɔʊuɜɒɐᵻɾ"},
    **{"A": "EY", "I": "AY", "O": "OW", "Q": "OW", "W": "AW", "Y": "OY", "ʤ": "JH", "ʧ": "CH"},
    **{"ᵊ": "AH", "T": "D", "o": "AO", "e": "EH", "ɚ": "ER", "a": "AE"},
}
"""Symbols of Kokoro's alphabet: IPA, with capitals for diphthongs, T for the tap of American
English and a for the vowel of "trap" in British English.
"""
KOKORO_PAIRS = {"əɹ": "ER", "ɜɹ": "ER"}
"""Two of its symbols that are one phone."""

_SPELLINGS = {
    **{"s.": "ʂ", "z.": "ʐ", "r.": "ɻ", "i.": "ɨ", "sx": "ʂ"},
    **{"r\N{COMBINING UP TACK BELOW}": "ʒ", "c\N{COMBINING CEDILLA}": "ç"},
}
"""How espeak-ng writes retroflex sounds, the sj of Swedish and the ř of Czech; ç in two symbols."""
_SYMBOLS = {**PAIRS, **{f"{vowel}ː": phone for vowel, phone in LONG.items()}, **IPA}


def from_ipa(name: str) -> tuple[str, ...]:
    """Convert a phoneme to phones.

    Stress, tone, nasality (a nasal vowel has its vowel's lips), aspiration and other small marks
    are ignored. A length mark is ignored except in LONG.

    Args:
        name: IPA symbols of the phoneme.

    Returns:
        Phones of PHONES in order; empty for a phoneme without a visible mouth shape.
    """
    if name == "ʲ":  # the release of a palatalized sound, as a separate phoneme
        return ("Y",)
    letters = unicodedata.normalize("NFD", name)
    for spelling, symbol in _SPELLINGS.items():
        letters = letters.replace(spelling, symbol)
    letters = "".join(letter for letter in letters if letter in IPA or letter == "ː")
    if len(letters) > 1:
        letters = letters.removesuffix("h")
    return tuple(_SYMBOLS[symbol] for symbol in re.findall("|".join(_SYMBOLS), letters))
