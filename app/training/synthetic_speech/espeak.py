"""Speech by espeak-ng in many languages, with the time of every phone.

The library tells when each phoneme's own sound begins. The silent closure of a stop it counts to the
phone before, so it is given back here.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from talkhead.app.training.synthetic_speech.flite import normalized
from talkhead.app.training.synthetic_speech.phone_map import from_ipa
from talkhead.audio import resample
from talkhead.encoder.pase.corpus import Utterance
from talkhead.encoder.phones import SILENCE, Phone
from talkhead.errors import TalkheadError
from talkhead.types import SAMPLE_RATE, Float32

VARIANTS = tuple(f"m{i}" for i in range(1, 9)) + tuple(f"f{i}" for i in range(1, 6))
VARIANTS += ("klatt", "klatt2", "klatt3", "klatt4", "klatt5", "klatt6", "Alex", "Alicia", "Andrea")
VARIANTS += ("Andy", "Annie", "Denis", "Diogo", "Gene", "Henrique", "Hugo", "Jacky", "Lee", "Marco")
VARIANTS += ("Mario", "Michael", "Mike", "Nguyen", "Reed", "adam", "anika", "antonio", "belinda")
VARIANTS += ("benjamin", "boris", "caleb", "david", "ed", "edward", "grandma", "grandpa", "gustave")
VARIANTS += (
    "ian",
    "iven",
    "iven2",
    "john",
    "linda",
    "marcelo",
    "max",
    "michel",
    "miguel",
    "norbert",
)
VARIANTS += ("pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro", "shelby", "steph")
VARIANTS += ("steph2", "travis", "victor", "zac")
"""Its voices but those that whisper, croak or are machines."""

STOPS = {"P", "B", "T", "D", "K", "G", "CH", "JH"}
CLOSED_DB = 20.0
"""By how much a closure is quieter than the loudest 5 ms of the phone before."""
MAX_CLOSURE_S = 0.12
AFTER_PAUSE_S = 0.05
"""Of a pause before a stop, what the stop's closure gets."""
SHORT_PAUSE_S = 0.04
"""Nameless phonemes that are shorter, glottal stops above all, are gaps and no silence."""

_SYNCHRONOUS, _PHONEME_EVENTS_IPA, _UTF8 = 2, 3, 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_END, _PHONEME = 0, 7


@dataclass(frozen=True)
class Manner:
    """How to speak: words a minute, pitch and its range in espeak's 0 to 100."""

    rate: int = 175
    pitch: int = 50
    range: int = 50


class _Name(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("text", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int) for name in ("type", "unique", "text_position", "length")),
        *((name, ctypes.c_int) for name in ("audio_position", "sample")),
        ("user_data", ctypes.c_void_p),
        ("id", _Name),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class Espeak:
    """The library; only one at a time. Raises TalkheadError without espeakng-loader."""

    def __init__(self) -> None:
        try:
            loader = importlib.import_module("espeakng_loader")
        except ImportError as error:
            raise TalkheadError("espeak-ng is missing. Run: pip install espeakng-loader") from error
        self._library = ctypes.CDLL(str(loader.get_library_path()))
        folder = str(loader.get_data_path()).encode()
        self._rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, folder, _PHONEME_EVENTS_IPA)
        self._callback = _Callback(self._receive)  # kept: the library holds its address alone
        self._library.espeak_SetSynthCallback(self._callback)
        self._pieces: list[Float32] = []
        self._events: list[tuple[int, str]] = []

    def say(self, voice: str, text: str, manner: Manner) -> tuple[Float32, list[tuple[float, str]]]:
        """The waveform [n] at 16 kHz, and the start in seconds and IPA name of each phoneme.

        Raises TalkheadError for a voice that there isn't.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise TalkheadError(f"espeak-ng has no voice {voice}. Use one of its own")
        for parameter, value in zip((_RATE, _PITCH, _RANGE), vars(manner).values(), strict=True):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._pieces, self._events = [], []
        encoded = text.encode() + b"\0"
        size = ctypes.c_size_t(len(encoded))
        self._library.espeak_Synth(encoded, size, 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        waveform = np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.float32)
        starts = [(at / self._rate, name) for at, name in self._events]
        return resample(waveform, self._rate, SAMPLE_RATE), starts

    def _receive(self, samples: object, n: int, events: Sequence[_Event]) -> int:
        if samples and n > 0:
            block = np.ctypeslib.as_array(samples, (n,))  # type: ignore[arg-type,call-overload]
            self._pieces.append(block.astype(np.float32) / 32768.0)
        i = 0
        while events[i].type != _END:
            if events[i].type == _PHONEME:
                name = bytes(events[i].id.text).decode("utf-8", "ignore")
                self._events.append((events[i].sample, name))
            i += 1
        return 0


def timed_phones(starts: Sequence[tuple[float, str]], length_s: float) -> list[Phone]:
    """The phones of phonemes that begin at starts, in order, the last one at length_s.

    Several phones of one phoneme share its time evenly; nameless phonemes are silence, where they
    last, and phonemes that tell nothing of the lips are left out: gaps.
    """
    merged: list[tuple[float, str]] = []
    for start, name in starts:
        if name or not merged or merged[-1][1]:
            merged.append((start, name))
    if not merged:
        return []
    ends = [start for start, _ in merged[1:]] + [length_s]
    phones = [Phone(SILENCE, 0.0, merged[0][0])] if merged[0][0] > 0.0 else []
    for (start, name), end in zip(merged, ends, strict=True):
        last = end == length_s
        pause = not name and (last or end - start >= SHORT_PAUSE_S)
        labels = (SILENCE,) if pause else from_ipa(name)
        edges = np.linspace(start, end, len(labels) + 1)
        for label, first, after in zip(labels, edges[:-1], edges[1:], strict=True):
            if after > first:
                phones.append(Phone(label, float(first), float(after)))
    return phones


def with_closures(phones: Sequence[Phone], waveform: Float32) -> list[Phone]:
    """The phones with each stop's closure, the quiet end of the phone before it, its own."""
    size = SAMPLE_RATE // 200
    n = len(waveform) // size
    powers = np.square(waveform[: n * size].astype(np.float64)).reshape(n, size).mean(axis=1)
    levels = 10.0 * np.log10(powers + 1e-9)
    given: list[Phone] = []
    for phone in phones:
        before = given[-1] if given else None
        if phone.label in STOPS and before and before.end_s == phone.start_s:
            closed = _closure_start(before, levels)
            given[-1] = replace(before, end_s=closed)
            phone = replace(phone, start_s=closed)
        given.append(phone)
    return given


def _closure_start(before: Phone, levels: np.ndarray) -> float:  # type: ignore[type-arg]
    """Where the closure begins that ends with the phone before; levels: dB of each 5 ms."""
    length_s = before.end_s - before.start_s
    if before.label == SILENCE:
        return before.end_s - min(AFTER_PAUSE_S, length_s / 2)
    first, last = round(before.start_s * 200), min(round(before.end_s * 200), len(levels))
    if last - first < 2:
        return before.end_s
    threshold = levels[first:last].max() - CLOSED_DB
    earliest = max(before.end_s - MAX_CLOSURE_S, before.start_s + 0.3 * length_s)
    at = last
    while at - 1 > first and levels[at - 1] < threshold and (at - 1) / 200 >= earliest:
        at -= 1
    return before.end_s if at == last else max(earliest, at / 200)


def say(
    engine: Espeak, voice: str, text: str, manner: Manner, pauses_s: tuple[float, float] = (0, 0)
) -> Utterance:
    """A text by one of espeak-ng's voices such as "fr+m3", with silence before and after it."""
    waveform, starts = engine.say(voice, text, manner)
    length_s = len(waveform) / SAMPLE_RATE
    phones = with_closures(timed_phones(starts, length_s), waveform)
    before, after = (round(pause * SAMPLE_RATE) for pause in pauses_s)
    shift = before / SAMPLE_RATE
    moved = [Phone(p.label, p.start_s + shift, p.end_s + shift) for p in phones]
    end = length_s + shift
    edges = [(0.0, shift), (end, end + after / SAMPLE_RATE)]
    silences = [Phone(SILENCE, *edge) for edge in edges if edge[1] > edge[0]]
    ordered = sorted([*moved, *silences], key=lambda phone: phone.start_s)
    return Utterance(normalized(np.pad(waveform, (before, after))), tuple(ordered), voice)
