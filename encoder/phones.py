"""The phone inventory (ARPAbet), its visemes, and phones and words with their times."""

from __future__ import annotations

from dataclasses import dataclass

SILENCE = "SIL"
"""The label of silence."""


VISEMES: dict[str, tuple[str, ...]] = {
    "P": ("P", "B", "M"),
    "F": ("F", "V"),
    "T": ("T", "D", "S", "Z", "TH", "DH"),
    "CH": ("CH", "JH", "SH", "ZH"),
    "K": ("K", "G", "N", "NG", "L", "Y", "HH"),
    "W": ("W", "R"),
    "IY": ("IY", "IH"),
    "EH": ("EH", "EY", "AE"),
    "AA": ("AA", "AW", "AY"),
    "AH": ("AH",),
    "AO": ("AO", "OY", "OW"),
    "UH": ("UH", "UW"),
    "ER": ("ER",),
    SILENCE: (SILENCE,),
}
"""Phones that look alike on the lips. The map of Lee and Yook (2002, PRICAI, Audio-to-Visual
Conversion Using Hidden Markov Models) as listed by Cappelletta and Harte (2012, ICPRAM,
Phoneme-to-Viseme Mapping for Visual Speech Recognition). The map of Jeffers and Barley (1971) puts
AA and IY, the most open and the most spread vowel, into one class.
"""


VISEME_OF = {phone: viseme for viseme, phones in VISEMES.items() for phone in phones}
"""The viseme of each phone."""


PHONES = tuple(VISEME_OF)
"""ARPAbet without stress digits, as in the CMU dictionary: 39 phones and silence."""


@dataclass(frozen=True)
class Phone:
    """A phone with its time.

    Attributes:
        label: One of PHONES.
        start_s: Where it begins, in seconds of the waveform.
        end_s: Where it ends.
    """

    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Word:
    """A word with its time.

    Attributes:
        text: The word, in lower case.
        start_s: Where it begins, in seconds of the waveform.
        end_s: Where it ends.
    """

    text: str
    start_s: float
    end_s: float
