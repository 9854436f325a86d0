"""Phones and words with times: forced alignment of a known text, recognition without one.

English only; pocketsphinx (an optional dependency) provides the acoustic model, dictionary and
language models. docs/phonemes.md gives the accuracy, and explains the limits here.
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
from talkhead.encoder.pronunciation import guess_phones
from talkhead.errors import TalkheadError
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32, Int16

MAX_PIECE_S = 15.0
"""Audio is processed in pieces of this length at most and half of it at least, cut where it is
quietest.
"""
MIN_SCORE = -31.0
"""Acoustic score per frame of speech below which a text does not match the audio. In pieces of 7 s
or more, correct texts score -10 to -25 (down to -31 with noise at 10 dB, and lower with accents),
wrong ones -31 at best and -48 at the median.
"""
MIN_RECOGNIZED_SCORE = -22.0
"""Limit of this score for recognized words. They are fitted to the audio, so wrong ones score higher:
clear English scores -12 to -21, most speech in other languages -22 to -29.
"""
MIN_FRACTION = 0.5
"""Share of the speech that has to match the text."""
MAX_STOP_S = 0.15
"""Longest plosive at the beginning of an utterance, whose closure cannot be distinguished from the
silence before it.
"""
CENTER_S = 0.0078
"""pocketsphinx computes vector i from the 25.6 ms that begin at i / 100 s, so the boundary between
two vectors is half a window minus half a step later.
"""

_STEP_S = 0.01
_STOPS = {"P", "B", "T", "D", "K", "G"}
_SMOOTH_FRAMES = 5


@dataclass(frozen=True)
class Alignment:
    """Phones and words of a piece of audio.

    Attributes:
        phones: The phones, with silences.
        score: Acoustic score per frame of speech, 0 at best.
        words: The words.
    """

    phones: list[Phone]
    score: float
    words: tuple[Word, ...] = ()


def phones_unavailable_reason() -> str:
    """Check whether phones can be aligned and recognized.

    Returns:
        An empty string if so, otherwise the problem and its solution.
    """
    try:
        importlib.import_module("pocketsphinx")
    except (ImportError, OSError) as error:
        cause = "is not installed" if isinstance(error, ModuleNotFoundError) else f"fails: {error}"
        return f'phones need pocketsphinx, which {cause}. Run: pip install "talkhead[evaluate]"'
    return ""


def align_phones(waveform: Float32, text: str) -> list[Phone]:
    """Align the phones of a known English text.

    Args:
        waveform: [n_samples] in [-1, 1] at 16 kHz.
        text: Everything that is said in it. Punctuation and case do not matter; words that the
            dictionary lacks are pronounced by rule.

    Returns:
        The phones in order, with silences. Stretches of a few seconds that do not match the text
        are left out, as gaps in the list.

    Raises:
        TalkheadError: pocketsphinx is not installed, or the text cannot be read aloud or does not
            match the audio.
    """
    fits = [_later(fit.phones, start) for start, _, fit in _fit_pieces(waveform, text) if fit]
    return _merged([phone for phones in fits for phone in phones])


def align_words(waveform: Float32 | Int16, text: str) -> list[Word | None]:
    """Align the words of a known English text.

    Args:
        waveform: [n_samples] in [-1, 1] at 16 kHz, or 16-bit samples, which take half the memory.
        text: Everything that is said in it.

    Returns:
        An entry for each of `words_of(text)`: its time, or None in a stretch that does not match.

    Raises:
        TalkheadError: As for `align_phones`.
    """
    found: list[Word | None] = []
    for start, part, fit in _fit_pieces(waveform, text):
        fits = fit is not None and len(fit.words) == len(part)
        found += _words_later(fit.words, start) if fit and fits else [None] * len(part)
    return found


def _fit_pieces(
    waveform: Float32 | Int16, text: str
) -> Iterator[tuple[int, list[str], Alignment | None]]:
    """Return first sample, words and alignment of each piece of a waveform [n_samples].

    The alignment is None where the words do not match the audio.

    Raises:
        TalkheadError: As for `align_phones`.
    """
    check_waveform(waveform, "the audio")
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
        raise _mismatch(text)
    yield from pieces


def decode_phones(waveform: Float32) -> list[Phone]:
    """Recognize phones without a text.

    Each piece of the audio is recognized as words, which are then aligned. Where no English words
    match (MIN_RECOGNIZED_SCORE), it is decoded phone by phone, which is far less reliable.

    Args:
        waveform: Speech, English if possible, [n_samples] in [-1, 1] at 16 kHz.

    Returns:
        The phones in order, with silences.

    Raises:
        TalkheadError: pocketsphinx is not installed.
    """
    check_waveform(waveform, "the audio")
    aligner, recognizer, phone_recognizer = (
        _decoder(lm=None),
        _word_recognizer(),
        _phone_recognizer(),
    )
    phones: list[Phone] = []
    for start, end, silent in _quiet_pieces(waveform):
        piece = waveform[start:end]
        if silent:
            found = [Phone(SILENCE, 0.0, (end - start) / SAMPLE_RATE)]
        else:
            fit = _align(aligner, piece, _recognize(recognizer, piece))
            if fit is not None and fit.score >= MIN_RECOGNIZED_SCORE:
                found = fit.phones
            else:
                found = _decode_phones_of(phone_recognizer, piece)
        phones += _later(found, start)
    return _merged(phones)


def recognize_words(chunks: Callable[[], Iterable[Float32]]) -> list[Word]:
    """Recognize English words. In anything but clear speech, many of them are wrong.

    Args:
        chunks: Returns the waveform from its beginning, in chunks [n] in [-1, 1] at 16 kHz. Called
            twice; the waveform is never in memory as a whole.

    Returns:
        The words in order.

    Raises:
        TalkheadError: pocketsphinx is not installed.
    """
    recognizer = _word_recognizer()
    spans = list(_quiet_spans(measure_loudness(chunks())))
    pieces = _cut(chunks(), [end for _, end, _ in spans])
    words: list[Word] = []
    for (start, _, silent), piece in zip(spans, pieces, strict=True):
        if not silent:
            _run(recognizer, piece)
            words += _words_later(_segments(recognizer), start)
    return words


class ForcedAligner:
    """Aligns known words with many short waveforms, [n_samples] in [-1, 1] at 16 kHz each.

    Memory grows with the square of a waveform's length: pass MAX_PIECE_S or little more. Nothing is
    rejected: the score indicates how well the words match, and None means that they do not match at
    all.
    """

    def __init__(self) -> None:
        """Load the models.

        Raises:
            TalkheadError: pocketsphinx is not installed.
        """
        self._decoder = _decoder(lm=None)

    def fit_text(self, waveform: Float32, text: str) -> Alignment | None:
        """Align a text.

        Args:
            waveform: [n_samples] in [-1, 1] at 16 kHz.
            text: Everything that is said in it.

        Returns:
            The alignment, or None.

        Raises:
            TalkheadError: For a text that cannot be read aloud.
        """
        return self._fit(waveform, _known_words(text, self._decoder))

    def fit_pronounced(self, waveform: Float32, words: Iterable[str]) -> Alignment | None:
        """Align words given by their phones.

        Args:
            waveform: [n_samples] in [-1, 1] at 16 kHz.
            words: Phones of each word, "K AO L"; stress digits are ignored.

        Returns:
            The alignment, or None.

        Raises:
            TalkheadError: A word has a phone that is not one of PHONES; the message names the word.
        """
        names = []
        for word in words:
            phones = re.sub(r"\d", "", word).split()
            if not phones or not set(phones) < set(PHONES):
                raise TalkheadError(f'"{word}" is not a pronunciation. Write it as "K AO L"')
            names.append("_" + "_".join(phones).lower())
            if self._decoder.lookup_word(names[-1]) is None:
                self._decoder.add_word(names[-1], " ".join(phones), update=False)
        return self._fit(waveform, names)

    def _fit(self, waveform: Float32, words: list[str]) -> Alignment | None:
        """Align words of the decoder's dictionary with a waveform [n_samples]."""
        fit = _align(self._decoder, waveform, words)
        return None if fit is None else Alignment(_merged(fit.phones), fit.score)


def spell_phones(
    waveforms: Iterable[Float32], language_weight: float = 1.0
) -> Iterator[list[Phone]]:
    """Recognize phones one by one, without words.

    For English, this is less reliable than `decode_phones`.

    Args:
        waveforms: Each [n_samples] in [-1, 1] at 16 kHz.
        language_weight: Weight of the English phone model, which rates sequences of phones.

    Yields:
        The phones of each waveform, with silences.

    Raises:
        TalkheadError: pocketsphinx is not installed.
    """
    recognizer = _phone_recognizer(language_weight)
    for waveform in waveforms:
        check_waveform(waveform, "the audio")
        recognizer.reinit_feat()  # otherwise the noise estimate of the last waveform is used
        phones: list[Phone] = []
        for start, end, silent in _quiet_pieces(waveform):
            whole = Phone(SILENCE, 0.0, (end - start) / SAMPLE_RATE)
            piece = waveform[start:end]
            phones += _later([whole] if silent else _decode_phones_of(recognizer, piece), start)
        yield _merged(phones)


# ------------------------------------------------------------------------------- decoders


def _decoder(**settings: Any) -> Any:
    """Make a pocketsphinx decoder.

    Raises:
        TalkheadError: pocketsphinx is not installed.
    """
    missing = phones_unavailable_reason()
    if missing:
        raise TalkheadError(missing)
    sphinx = importlib.import_module("pocketsphinx")
    # The best path through the lattice gives phones fewer frames than they have states.
    return sphinx.Decoder(bestpath=False, loglevel="FATAL", **settings)


def _word_recognizer() -> Any:
    """Make a decoder of words, with beams as narrow as possible without losing accuracy in phones."""
    beams = {"beam": 1e-40, "pbeam": 1e-40, "wbeam": 1e-22}
    return _decoder(fwdflat=False, maxhmmpf=3000, topn=2, **beams)


def _phone_recognizer(language_weight: float = 1.0) -> Any:
    """Make a decoder of phones. Its phone model has a low weight because it is a model of English."""
    model = importlib.import_module("pocketsphinx").get_model_path("en-us/en-us-phone.lm.bin")
    return _decoder(lm=None, allphone=model, lw=language_weight)


def _run(decoder: Any, waveform: Float32 | Int16) -> None:
    """Decode a waveform [n_samples] in [-1, 1] or 16-bit samples."""
    decoder.start_utt()
    # A view as bytes, without a copy.
    decoder.process_raw(as_int16(waveform).data.cast("B"), full_utt=True)
    decoder.end_utt()


def _recognize(recognizer: Any, waveform: Float32) -> list[str]:
    """Recognize the words of a waveform [n_samples]."""
    _run(recognizer, waveform)
    return [word.text for word in _segments(recognizer)]


def _segments(recognizer: Any) -> list[Word]:
    """Return the words of the last recognition, with times."""
    if recognizer.hyp() is None:
        return []
    return [
        Word(_spelling(s.word), s.start_frame * _STEP_S, (s.end_frame + 1) * _STEP_S)
        for s in recognizer.seg()
        if _is_word(s.word)
    ]


def _decode_phones_of(recognizer: Any, waveform: Float32) -> list[Phone]:
    """Recognize the phones of a waveform [n_samples] with a decoder of phones."""
    _run(recognizer, waveform)
    if recognizer.hyp() is None:
        return []
    return [
        _phone(segment.word, segment.start_frame, segment.end_frame + 1 - segment.start_frame)
        for segment in recognizer.seg()
    ]


def _align(decoder: Any, waveform: Float32 | Int16, words: list[str]) -> Alignment | None:
    """Align words with a short waveform [n_samples]; None if they do not match at all."""
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
    found: list[Word] = []
    n_frames, score = 0, 0.0
    for word in decoder.get_alignment():  # each object is only valid until the next one
        for part in word:
            phones.append(_phone(part.name, part.start, part.duration))
            if phones[-1].label != SILENCE:
                n_frames, score = n_frames + part.duration, score + part.score
        if _is_word(word.name):
            first, last = _boundary_s(word.start), _boundary_s(word.start + word.duration)
            found.append(Word(_spelling(word.name), first, last))
    return Alignment(phones, score / n_frames if n_frames else -np.inf, tuple(found))


def _phone(name: str, start: int, duration: int) -> Phone:
    """Make a phone from pocketsphinx's name, first step and duration; fillers become silence."""
    label = name if name in VISEME_OF else SILENCE  # fillers: noise, breath, unknown speech
    return Phone(label, _boundary_s(start), _boundary_s(start + duration))


def _boundary_s(step: int) -> float:
    """Return the time of the boundary before a step, in seconds."""
    return step * _STEP_S + (CENTER_S if step else 0.0)


def _is_word(name: str) -> bool:
    """Return False for pocketsphinx's silences and fillers."""
    return name[0] not in "<[+"


def _spelling(name: str) -> str:
    """Strip the number of the pronunciation from a word: "to(3)" becomes "to"."""
    return re.sub(r"\(\d+\)$", "", name)


# --------------------------------------------------------------------------------- pieces


def _quiet_pieces(waveform: Float32) -> Iterator[tuple[int, int, bool]]:
    """Yield start and end of pieces of a waveform [n_samples], and whether they are silent.

    Pieces are at most MAX_PIECE_S long and cut where it is quietest.
    """
    return _quiet_spans(measure_loudness([waveform]))


def _quiet_spans(loudness: Loudness) -> Iterator[tuple[int, int, bool]]:
    """Yield the pieces of `_quiet_pieces`, given the waveform's loudness."""
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
    """Divide a waveform that arrives in chunks [n] into pieces that end at the given samples."""
    source, buffer, start = iter(chunks), np.zeros(0, np.float32), 0
    for end in ends:
        while len(buffer) < end - start:
            buffer = np.concatenate([buffer, next(source)])
        yield buffer[: end - start]
        buffer, start = buffer[end - start :], end


def _word_pieces(
    waveform: Float32 | Int16, words: list[str], decoder: Any
) -> Iterator[tuple[int, int, list[str]]]:
    """Yield first sample, stop and words of pieces of at most about MAX_PIECE_S, cut between words.
    Phone alignment takes memory in proportion to the square of the length; word alignment, which
    finds the cuts, takes about 10 MB per minute.

    Args:
        waveform: [n_samples].
        words: All words.
        decoder: The decoder that aligns.

    Raises:
        TalkheadError: If the words do not match at all.
    """
    decoder.set_align_text(" ".join(words))
    _run(decoder, waveform)
    if decoder.hyp() is None:
        raise _mismatch(" ".join(words))
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
    """Return the middle frames of the silences between words, by the indices of the silences."""
    return {
        index: (start + end) // 2
        for index, (name, start, end) in enumerate(segments)
        if not _is_word(name) and (end - start) * _STEP_S >= 0.1
    }


def _later(phones: Iterable[Phone], n_samples: int) -> list[Phone]:
    """Delay phones by a number of samples."""
    by = n_samples / SAMPLE_RATE
    return [Phone(p.label, p.start_s + by, p.end_s + by) for p in phones]


def _words_later(words: Iterable[Word], n_samples: int) -> list[Word]:
    """Delay words by a number of samples."""
    by = n_samples / SAMPLE_RATE
    return [Word(w.text, w.start_s + by, w.end_s + by) for w in words]


def _merged(phones: list[Phone]) -> list[Phone]:
    """Join adjacent silences, and shorten stops at the beginning of an utterance to MAX_STOP_S."""
    merged: list[Phone] = []
    for phone in phones:
        follows = bool(merged) and phone.start_s - merged[-1].end_s < 2 * _STEP_S
        after_silence = not follows or merged[-1].label == SILENCE
        parts = [phone]
        if phone.label in _STOPS and after_silence and phone.end_s - phone.start_s > MAX_STOP_S:
            onset = phone.end_s - MAX_STOP_S
            parts = [
                Phone(SILENCE, phone.start_s, onset),
                Phone(phone.label, onset, phone.end_s),
            ]
        if follows and merged[-1].label == parts[0].label == SILENCE:
            parts[0] = Phone(SILENCE, merged.pop().start_s, parts[0].end_s)
        merged += parts
    return merged


# ---------------------------------------------------------------------------------- words


def _mismatch(text: str) -> TalkheadError:
    """Make the error for a text that does not match the audio."""
    beginning = " ".join(text.split()[:6])
    return TalkheadError(
        f'the text "{beginning} ..." does not fit the speech in the audio. '
        "Pass all spoken words in order, or no text"
    )


def words_of(text: str) -> list[str]:
    """Split a text into words.

    Args:
        text: The text.

    Returns:
        Words in lower case, without punctuation and accents.
    """
    plain = unicodedata.normalize("NFKD", text.replace("\u2019", "'").lower())
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    words = [word.strip("'") for word in re.split(r"[^\w']+|_", plain)]
    return [word for word in words if word]


def _known_words(text: str, decoder: Any) -> list[str]:
    """Return the words of a text; those that the dictionary lacks are added to the decoder.

    Raises:
        TalkheadError: For an empty text, numbers in digits, and scripts other than Latin.
    """
    words = words_of(text)
    if not words:
        raise TalkheadError("the text has no words. Pass all spoken words, or no text")
    for word in dict.fromkeys(words):
        if decoder.lookup_word(word) is None:
            if re.search(r"\d", word):
                raise TalkheadError(f'the text has "{word}". Write numbers as they are spoken')
            decoder.add_word(word, " ".join(guess_phones(word)), update=True)
    return words
