"""Speech by espeak-ng in many languages, with the time of every phone.

The library reports when each phoneme's own sound begins. It assigns the silent closure of a stop to
the preceding phone, which is corrected here.
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
"""Its voices, without those that whisper, creak or sound like machines."""
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
"""Its voices except those that whisper, croak or sound like machines."""

STOPS = {"P", "B", "T", "D", "K", "G", "CH", "JH"}
"""Phones with a closure."""
CLOSED_DB = 20.0
"""Level of a closure below the loudest 5 ms of the preceding phone."""
MAX_CLOSURE_S = 0.12
"""Longest closure."""
AFTER_PAUSE_S = 0.05
"""Length of a closure at the end of a pause."""
SHORT_PAUSE_S = 0.04
"""Unnamed phonemes that are shorter, mostly glottal stops, become gaps and not silence."""

_SYNCHRONOUS, _PHONEME_EVENTS_IPA, _UTF8 = 2, 3, 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_END, _PHONEME = 0, 7


@dataclass(frozen=True)
class Manner:
    """Manner of speaking.

    Attributes:
        rate: Words per minute.
        pitch: In espeak-ng's units, 0 to 100.
        range: Range of the pitch, 0 to 100.
    """

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
    """The library; there can be one instance at a time."""

    def __init__(self) -> None:
        """Load the library.

        Raises:
            TalkheadError: If the package espeakng-loader is missing.
        """
        try:
            loader = importlib.import_module("espeakng_loader")
        except ImportError as error:
            raise TalkheadError("espeak-ng is missing. Run: pip install espeakng-loader") from error
        self._library = ctypes.CDLL(str(loader.get_library_path()))
        folder = str(loader.get_data_path()).encode()
        self._rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, folder, _PHONEME_EVENTS_IPA)
        self._callback = _Callback(self._receive)  # kept: the library stores only its address
        self._library.espeak_SetSynthCallback(self._callback)
        self._pieces: list[Float32] = []
        self._events: list[tuple[int, str]] = []

    def say(self, voice: str, text: str, manner: Manner) -> tuple[Float32, list[tuple[float, str]]]:
        """Synthesize a text.

        Args:
            voice: Name of a voice.
            text: The text.
            manner: Manner of speaking.

        Returns:
            The waveform, [n] in [-1, 1] at 16 kHz, and start in seconds and IPA name of each
            phoneme.

        Raises:
            TalkheadError: For an unknown voice.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise TalkheadError(f"espeak-ng has no voice {voice}. Pass one that it has")
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
        """Collect samples and events: the library's callback."""
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
    """Convert phonemes to phones with times.

    Several phones of one phoneme share its time evenly. Unnamed phonemes become silence if they are
    long. Phonemes without a visible mouth shape are left out, which leaves gaps.

    Args:
        starts: Start in seconds and IPA name of each phoneme.
        length_s: End of the last one.

    Returns:
        The phones in order.
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
    """Assign each stop its closure, the quiet end of the preceding phone.

    Args:
        phones: Phones with times.
        waveform: [n] in [-1, 1] at 16 kHz.

    Returns:
        The phones with corrected times.
    """
    size = SAMPLE_RATE // 200  # 5 ms
    n = len(waveform) // size
    powers = np.square(waveform[: n * size].astype(np.float64)).reshape(n, size).mean(axis=1)
    levels = 10.0 * np.log10(powers + 1e-9)
    result: list[Phone] = []
    for phone in phones:
        before = result[-1] if result else None
        if phone.label in STOPS and before and before.end_s == phone.start_s:
            closed = _closure_start(before, levels)
            result[-1] = replace(before, end_s=closed)
            phone = replace(phone, start_s=closed)
        result.append(phone)
    return result


def _closure_start(before: Phone, levels: np.ndarray) -> float:  # type: ignore[type-arg]
    """Start of the closure at the end of a phone, by the levels [n] of each 5 ms in dB."""
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
    """Synthesize a text with its phones.

    Args:
        engine: The library.
        voice: A voice such as "fr+m3".
        text: The text.
        manner: Manner of speaking.
        pauses_s: Seconds of silence before and after it.

    Returns:
        The utterance.

    Raises:
        TalkheadError: For an unknown voice.
    """
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
