"""Which phone is heard when: forced alignment where the text is known, recognition where it isn't.

English only; pocketsphinx (an optional dependency) brings the acoustic model, dictionary and
language models. docs/phonemes.md: how well it works, and where the limits here come from.
"""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.ndimage

from talkhead.audio import Loudness, as_int16, check_waveform, measure_loudness, silent_frames
from talkhead.encoder.phones import PHONES, SILENCE, VISEME_OF, Phone, Word
from talkhead.errors import TalkheadError
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32, Int16

MAX_PIECE_S = 15.0
"""Sound is heard in pieces of half this length or more, cut where it is quietest."""
MIN_SCORE = -31.0
"""Acoustic score per frame of speech below which a text is not what is said. In pieces of 7 s and more
right texts score -10 to -25 (with noise at 10 dB to -31, accents below that), wrong ones -31 at
best and -48 in the middle.
"""
MIN_HEARD_SCORE = -22.0
"""The same for recognised words, which are fitted to the sound and hence score higher when wrong:
clear English -12 to -21, most speech in other languages -22 to -29."""
MIN_FRACTION = 0.5
"""Share of the speech that has to fit the text."""
MAX_STOP_S = 0.15
"""The closure of a stop that begins an utterance can't be told from the silence before it."""
CENTER_S = 0.0078
"""A vector of pocketsphinx hears 25.6 ms from i / 100 s on, so the boundary between two of them lies
half a window less half a step later.
"""

_STEP_S = 0.01
_STOPS = {"P", "B", "T", "D", "K", "G"}
_SMOOTH_FRAMES = 5


@dataclass(frozen=True)
class Alignment:
    """Phones and words of a piece, and their acoustic score per frame of speech (0 is the best)."""

    phones: list[Phone]
    score: float
    words: tuple[Word, ...] = ()


def phones_unavailable_reason() -> str:
    """Empty when phones can be had, else what is missing and what to do."""
    try:
        importlib.import_module("pocketsphinx")
    except (ImportError, OSError) as error:
        cause = "is not installed" if isinstance(error, ModuleNotFoundError) else f"fails: {error}"
        return f'phones need pocketsphinx, which {cause}. Run: pip install "talkhead[evaluate]"'
    return ""


def align_phones(waveform: Float32, text: str) -> list[Phone]:
    """The phones of a known English text, in order, with silences.

    waveform: [n_samples] at 16 kHz in [-1, 1]. text: all that is said in it; punctuation and case
    don't count, words that the dictionary lacks are spelled out by rule. Stretches of some seconds
    that are not what the text says are left out, a gap in the list. Raises TalkheadError without
    pocketsphinx, for a text that can't be read aloud, and for one that is not what is said.
    """
    fits = [_later(fit.phones, start) for start, _, fit in _fit_pieces(waveform, text) if fit]
    return _tidied([phone for phones in fits for phone in phones])


def align_words(waveform: Float32 | Int16, text: str) -> list[Word | None]:
    """When each of `words_of(text)` is said; None for those in stretches that don't fit.

    waveform and text as align_phones takes them, which raises the same; the waveform also in
    samples of 16 bits, which take half the memory.
    """
    found: list[Word | None] = []
    for start, part, fit in _fit_pieces(waveform, text):
        fits = fit is not None and len(fit.words) == len(part)
        found += _words_later(fit.words, start) if fit and fits else [None] * len(part)
    return found


def _fit_pieces(
    waveform: Float32 | Int16, text: str
) -> Iterator[tuple[int, list[str], Alignment | None]]:
    """First sample, words and fit of each piece; None where the words are not what is said.

    Raises what align_phones does.
    """
    check_waveform(waveform, "the sound")
    decoder = _decoder(lm=None)
    words = _known_words(text, decoder)
    pieces, spoken_s, fitting_s = [], 0.0, 0.0
    for start, end, part in _word_pieces(waveform, words, decoder):
        fit = _align(decoder, waveform[start:end], part)
        length_s = (end - start) / SAMPLE_RATE if part else 0.0
        good = fit is not None and fit.score >= MIN_SCORE
        spoken_s += length_s
        fitting_s += length_s if good else 0.0
        pieces.append((start, part, fit if good else None))
    if fitting_s <= MIN_FRACTION * spoken_s:
        raise _misfit(text)
    yield from pieces


def decode_phones(waveform: Float32) -> list[Phone]:
    """The phones that are heard, with silences, when no text is known.

    waveform: [n_samples] at 16 kHz in [-1, 1], speech, English if possible. Each piece of it is
    recognised as words, which are then aligned; where no English words fit (MIN_HEARD_SCORE) it is
    decoded phone by phone, which is far less reliable. Raises TalkheadError without pocketsphinx.
    """
    check_waveform(waveform, "the sound")
    aligner, listener, speller = _decoder(lm=None), _listener(), _speller()
    phones: list[Phone] = []
    for start, end, silent in _quiet_pieces(waveform):
        piece = waveform[start:end]
        if silent:
            heard = [Phone(SILENCE, 0.0, (end - start) / SAMPLE_RATE)]
        else:
            fit = _align(aligner, piece, _hear(listener, piece))
            fits = fit is not None and fit.score >= MIN_HEARD_SCORE
            heard = fit.phones if fit is not None and fits else _spell(speller, piece)
        phones += _later(heard, start)
    return _tidied(phones)


def recognize_words(chunks: Callable[[], Iterable[Float32]]) -> list[Word]:
    """The English words that are heard; on anything but clear, plain speech many are wrong.

    chunks: gives the waveform, at 16 kHz in [-1, 1], from its beginning, twice, in pieces [n]: it
    is never held whole. Raises TalkheadError without pocketsphinx.
    """
    listener = _listener()
    spans = list(_quiet_spans(measure_loudness(chunks())))
    pieces = _cut(chunks(), [end for _, end, _ in spans])
    words: list[Word] = []
    for (start, _, silent), piece in zip(spans, pieces, strict=True):
        if not silent:
            _run(listener, piece)
            words += _words_later(_segments(listener), start)
    return words


class ForcedAligner:
    """Fits known words into many short waveforms, [n_samples] at 16 kHz in [-1, 1] each.

    Memory grows with the square of a waveform's length: give at most MAX_PIECE_S or little more.
    Nothing is rejected: the score tells how well words fit, None that they can't be fitted in at
    all. Raises TalkheadError without pocketsphinx.
    """

    def __init__(self) -> None:
        self._decoder = _decoder(lm=None)

    def fit_text(self, waveform: Float32, text: str) -> Alignment | None:
        """Words as the dictionary has them. Raises TalkheadError as align_phones does."""
        return self._fit(waveform, _known_words(text, self._decoder))

    def fit_pronounced(self, waveform: Float32, words: Iterable[str]) -> Alignment | None:
        """Words given by their phones, "K AO L"; stress digits don't count.

        Raises TalkheadError naming a word that has other phones than PHONES.
        """
        names = []
        for word in words:
            phones = re.sub(r"\d", "", word).split()
            if not phones or not set(phones) < set(PHONES):
                raise TalkheadError(f'"{word}" is no pronunciation. Write it as "K AO L"')
            names.append("_" + "_".join(phones).lower())
            if self._decoder.lookup_word(names[-1]) is None:
                self._decoder.add_word(names[-1], " ".join(phones), update=False)
        return self._fit(waveform, names)

    def _fit(self, waveform: Float32, words: list[str]) -> Alignment | None:
        fit = _align(self._decoder, waveform, words)
        return None if fit is None else Alignment(_tidied(fit.phones), fit.score)


def spell_phones(
    waveforms: Iterable[Float32], language_weight: float = 1.0
) -> Iterator[list[Phone]]:
    """The phones that are heard in each waveform one by one, with silences: no words are sought.

    waveforms: each [n_samples] at 16 kHz in [-1, 1]. language_weight: how much it counts which
    phones follow each other in English. Less reliable on English than `decode_phones`. Raises
    TalkheadError without pocketsphinx.
    """
    speller = _speller(language_weight)
    for waveform in waveforms:
        check_waveform(waveform, "the sound")
        speller.reinit_feat()  # else it remembers the noise of the last one
        phones: list[Phone] = []
        for start, end, silent in _quiet_pieces(waveform):
            whole = Phone(SILENCE, 0.0, (end - start) / SAMPLE_RATE)
            phones += _later([whole] if silent else _spell(speller, waveform[start:end]), start)
        yield _tidied(phones)


# ------------------------------------------------------------------------------- decoders


def _decoder(**settings: Any) -> Any:
    """A pocketsphinx decoder. Raises TalkheadError when there is none."""
    missing = phones_unavailable_reason()
    if missing:
        raise TalkheadError(missing)
    sphinx = importlib.import_module("pocketsphinx")
    # The best path through the lattice gives phones fewer frames than they have states.
    return sphinx.Decoder(bestpath=False, loglevel="FATAL", **settings)


def _listener() -> Any:
    """Recognises words; beams as narrow as cost nothing in what phones come out."""
    beams = {"beam": 1e-40, "pbeam": 1e-40, "wbeam": 1e-22}
    return _decoder(fwdflat=False, maxhmmpf=3000, topn=2, **beams)


def _speller(language_weight: float = 1.0) -> Any:
    """Recognises phones. The weight of the phone model is low: it is English."""
    model = importlib.import_module("pocketsphinx").get_model_path("en-us/en-us-phone.lm.bin")
    return _decoder(lm=None, allphone=model, lw=language_weight)


def _run(decoder: Any, waveform: Float32 | Int16) -> None:
    decoder.start_utt()
    # Seen as bytes, not copied.
    decoder.process_raw(as_int16(waveform).data.cast("B"), full_utt=True)
    decoder.end_utt()


def _hear(listener: Any, waveform: Float32) -> list[str]:
    _run(listener, waveform)
    return [word.text for word in _segments(listener)]


def _segments(listener: Any) -> list[Word]:
    """The words of what was recognised last."""
    if listener.hyp() is None:
        return []
    return [
        Word(_spelling(s.word), s.start_frame * _STEP_S, (s.end_frame + 1) * _STEP_S)
        for s in listener.seg()
        if _is_word(s.word)
    ]


def _spell(speller: Any, waveform: Float32) -> list[Phone]:
    _run(speller, waveform)
    if speller.hyp() is None:
        return []
    return [
        _phone(segment.word, segment.start_frame, segment.end_frame + 1 - segment.start_frame)
        for segment in speller.seg()
    ]


def _align(decoder: Any, waveform: Float32 | Int16, words: list[str]) -> Alignment | None:
    """The words' phones in a short waveform; None when they can't be fitted in at all."""
    if not words:
        return None
    decoder.set_align_text(" ".join(words))
    try:
        _run(decoder, waveform)
        if decoder.hyp() is None:
            return None
        decoder.set_alignment()
        _run(decoder, waveform)
    except RuntimeError:  # no path reached the end
        return None
    phones: list[Phone] = []
    said: list[Word] = []
    n_frames, score = 0, 0.0
    for word in decoder.get_alignment():  # each is good only until the next one
        for part in word:
            phones.append(_phone(part.name, part.start, part.duration))
            if phones[-1].label != SILENCE:
                n_frames, score = n_frames + part.duration, score + part.score
        if _is_word(word.name):
            first, last = _boundary_s(word.start), _boundary_s(word.start + word.duration)
            said.append(Word(_spelling(word.name), first, last))
    return Alignment(phones, score / n_frames if n_frames else -np.inf, tuple(said))


def _phone(name: str, start: int, duration: int) -> Phone:
    label = name if name in VISEME_OF else SILENCE  # fillers: noise, breath, unknown speech
    return Phone(label, _boundary_s(start), _boundary_s(start + duration))


def _boundary_s(step: int) -> float:
    return step * _STEP_S + (CENTER_S if step else 0.0)


def _is_word(name: str) -> bool:
    return name[0] not in "<[+"


def _spelling(name: str) -> str:
    """The word without the number of its pronunciation, "to" of "to(3)"."""
    return re.sub(r"\(\d+\)$", "", name)


# --------------------------------------------------------------------------------- pieces


def _quiet_pieces(waveform: Float32) -> Iterator[tuple[int, int, bool]]:
    """Start, end and silence of pieces of at most MAX_PIECE_S, cut where it is quietest."""
    return _quiet_spans(measure_loudness([waveform]))


def _quiet_spans(loudness: Loudness) -> Iterator[tuple[int, int, bool]]:
    """The same of a waveform of that loudness."""
    energy = loudness.energy_db
    silent = silent_frames(energy)
    smooth = scipy.ndimage.uniform_filter1d(energy, _SMOOTH_FRAMES)
    most, per_frame = int(MAX_PIECE_S * FRAME_RATE), SAMPLE_RATE // FRAME_RATE
    start = 0
    while start < len(energy):
        end = len(energy)
        if end - start > most:
            end = start + most // 2 + int(np.argmin(smooth[start + most // 2 : start + most]))
        last = loudness.n_samples if end == len(energy) else end * per_frame
        yield start * per_frame, last, bool(silent[start:end].all())
        start = end


def _cut(chunks: Iterable[Float32], ends: Iterable[int]) -> Iterator[Float32]:
    """A waveform that comes in chunks, in pieces of which each ends before one of these samples."""
    source, held, start = iter(chunks), np.zeros(0, np.float32), 0
    for end in ends:
        while len(held) < end - start:
            held = np.concatenate([held, next(source)])
        yield held[: end - start]
        held, start = held[end - start :], end


def _word_pieces(
    waveform: Float32 | Int16, words: list[str], decoder: Any
) -> Iterator[tuple[int, int, list[str]]]:
    """Start, end and words of pieces of about MAX_PIECE_S at most, cut between words.

    The memory of phone alignment grows with the square of the length, that of word alignment, which
    finds the cuts, by some 10 MB a minute. Raises TalkheadError when the words can't be fitted.
    """
    decoder.set_align_text(" ".join(words))
    _run(decoder, waveform)
    if decoder.hyp() is None:
        raise _misfit(" ".join(words))
    segments = [(s.word, s.start_frame, s.end_frame + 1) for s in decoder.seg()]
    step = int(_STEP_S * SAMPLE_RATE)
    start, part = 0, list[str]()
    pauses = _pauses(segments)
    for index, (name, _, end) in enumerate(segments):
        if _is_word(name):
            part.append(_spelling(name))
        cut = pauses.get(index, end)
        length_s = (cut - start) * _STEP_S
        far = length_s >= MAX_PIECE_S or (index in pauses and length_s >= MAX_PIECE_S / 2)
        if part and far and index + 1 < len(segments):
            yield start * step, cut * step, part
            start, part = cut, []
    yield start * step, len(waveform), part


def _pauses(segments: list[tuple[str, int, int]]) -> dict[int, int]:
    """Silences between words by their index, and the frames of their middles."""
    return {
        index: (start + end) // 2
        for index, (name, start, end) in enumerate(segments)
        if not _is_word(name) and (end - start) * _STEP_S >= 0.1
    }


def _later(phones: Iterable[Phone], n_samples: int) -> list[Phone]:
    by = n_samples / SAMPLE_RATE
    return [Phone(p.label, p.start_s + by, p.end_s + by) for p in phones]


def _words_later(words: Iterable[Word], n_samples: int) -> list[Word]:
    by = n_samples / SAMPLE_RATE
    return [Word(w.text, w.start_s + by, w.end_s + by) for w in words]


def _tidied(phones: list[Phone]) -> list[Phone]:
    """Adjacent silences as one; stops that begin an utterance no longer than MAX_STOP_S."""
    tidy: list[Phone] = []
    for phone in phones:
        follows = bool(tidy) and phone.start_s - tidy[-1].end_s < 2 * _STEP_S
        after_silence = not follows or tidy[-1].label == SILENCE
        parts = [phone]
        if phone.label in _STOPS and after_silence and phone.end_s - phone.start_s > MAX_STOP_S:
            onset = phone.end_s - MAX_STOP_S
            parts = [
                Phone(SILENCE, phone.start_s, onset),
                Phone(phone.label, onset, phone.end_s),
            ]
        if follows and tidy[-1].label == parts[0].label == SILENCE:
            parts[0] = Phone(SILENCE, tidy.pop().start_s, parts[0].end_s)
        tidy += parts
    return tidy


# ---------------------------------------------------------------------------------- words


def _misfit(text: str) -> TalkheadError:
    beginning = " ".join(text.split()[:6])
    return TalkheadError(
        f'the text "{beginning} ..." does not fit what is said in the sound. '
        "Give all the words that are said, in order, or no text"
    )


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation and accents."""
    plain = unicodedata.normalize("NFKD", text.replace("\u2019", "'").lower())
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    words = [word.strip("'") for word in re.split(r"[^\w']+|_", plain)]
    return [word for word in words if word]


def _known_words(text: str, decoder: Any) -> list[str]:
    """The text's words in lower case; those the dictionary lacks are added to the decoder.

    Raises TalkheadError for an empty text, numbers in digits, and other scripts than Latin.
    """
    words = words_of(text)
    if not words:
        raise TalkheadError("the text has no words. Give what is said, or no text")
    for word in dict.fromkeys(words):
        if decoder.lookup_word(word) is None:
            if re.search(r"\d", word):
                raise TalkheadError(f'the text has "{word}". Write numbers as they are spoken')
            decoder.add_word(word, " ".join(guess_phones(word)), update=True)
    return words


def guess_phones(word: str) -> list[str]:
    """The likely phones of an English word in lower case, letter by letter.

    A rough guess that keeps an alignment going through a name that the dictionary lacks. Raises
    TalkheadError naming the word if it has other letters than a to z.
    """
    stem = re.sub(r"(?<=[^aeiouy])e(?=s?$)", "", word.replace("'", ""))  # a last e is silent
    phones: list[str] = []
    at = 0
    while at < len(stem):
        size = next((n for n in (4, 3, 2, 1) if stem[at : at + n] in _SOUNDS), 0)
        if size == 0:
            raise TalkheadError(f'"{word}" can\'t be read as English. Write it in English letters')
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
"""Letters to phones, the longest first."""
