"""Phones: the inventory, and alignment and recognition of the sample voice, whose phones are known."""

from __future__ import annotations

import itertools
import json
import sys
import tracemalloc
from difflib import SequenceMatcher
from itertools import pairwise

import numpy as np
import pytest
from paths import SAMPLES

from talkhead.audio import as_int16, is_silence
from talkhead.encoder import forced_alignment as phonemes
from talkhead.encoder import pronunciation
from talkhead.encoder.forced_alignment import (
    MAX_PIECE_S,
    align_phones,
    align_words,
    decode_phones,
    phones_unavailable_reason,
    recognize_words,
    spell_phones,
)
from talkhead.encoder.phones import PHONES, SILENCE, VISEME_OF, VISEMES, Phone
from talkhead.encoder.pronunciation import guess_phones
from talkhead.errors import TalkheadError
from talkhead.media import read_audio
from talkhead.types import SAMPLE_RATE, Float32

TRUTH = json.loads((SAMPLES / "truth.json").read_text())
needs_sphinx = pytest.mark.skipif(
    bool(phones_unavailable_reason()), reason=phones_unavailable_reason() or "usable"
)


@pytest.fixture(scope="module")
def line() -> Float32:
    """samples/line.wav, 6 s."""
    return read_audio(SAMPLES / "line.wav")


@pytest.fixture(scope="module")
def aligned(line: Float32) -> list[Phone]:
    return align_phones(line, TRUTH["line_text"])


def true_phones() -> list[Phone]:
    """Phones of the synthesized voice, as labels of PHONES."""
    labels = {"pau": SILENCE, "ax": "AH"}
    return [
        Phone(labels.get(p["phone"], p["phone"].upper()), p["start_s"], p["end_s"])
        for p in TRUTH["line_phones"]
    ]


def spoken(phones: list[Phone]) -> list[Phone]:
    return [phone for phone in phones if phone.label != SILENCE]


def start_errors_s(found: list[Phone], true: list[Phone]) -> list[float]:
    """Delays of the starts of phones, for those found in the right order."""
    labels = [[p.label for p in phones] for phones in (true, found)]
    blocks = SequenceMatcher(None, *labels, autojunk=False).get_matching_blocks()
    return [
        found[b + k].start_s - true[a + k].start_s for a, b, size in blocks for k in range(size)
    ]


# ----------------------------------------------------------------------------- inventory


def test_every_phone_has_one_viseme() -> None:
    cmu = (
        "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW "
        "V W Y Z ZH SIL"
    )
    assert sorted(PHONES) == sorted(cmu.split())
    assert sum(len(phones) for phones in VISEMES.values()) == len(VISEME_OF) == 40
    assert {p for p in PHONES if VISEME_OF[p] == VISEME_OF["P"]} == {"P", "B", "M"}
    assert VISEME_OF["AA"] != VISEME_OF["IY"]


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("bim", "B IH M"),
        ("shong", "SH AA NG"),
        ("zake", "Z AE K"),
        ("phoebus", "F AA EH B AH S"),
        ("quill", "K W IH L"),
        ("o'grady", "AA G R AE D IY"),
    ],
)
def test_unknown_words_are_spelled_out(word: str, phones: str) -> None:
    assert guess_phones(word) == phones.split()


def test_guesses_use_the_inventory() -> None:
    sounds = {phone for phones in pronunciation._SOUNDS.values() for phone in phones.split()}
    assert sounds <= set(PHONES)
    assert set("abcdefghijklmnopqrstuvwxyz") <= set(pronunciation._SOUNDS)


def test_words_in_other_letters_are_named() -> None:
    with pytest.raises(TalkheadError, match="привет"):
        guess_phones("привет")


# ------------------------------------------------------------------- without pocketsphinx


def test_a_missing_pocketsphinx_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    waveform = np.zeros(SAMPLE_RATE, np.float32)
    assert 'pip install "talkhead[evaluate]"' in phones_unavailable_reason()
    with pytest.raises(TalkheadError, match=r"pip install .talkhead\[evaluate\]"):
        align_phones(waveform, "hello")
    with pytest.raises(TalkheadError, match="pocketsphinx, which is not installed"):
        decode_phones(waveform)


def test_a_broken_pocketsphinx_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise ImportError("libgomp is missing")

    monkeypatch.setattr(phonemes.importlib, "import_module", fail)
    assert "fails: libgomp is missing" in phones_unavailable_reason()


# ------------------------------------------------------------------------------ alignment


@needs_sphinx
def test_boundaries_match_those_of_the_voice(aligned: list[Phone]) -> None:
    true = spoken(true_phones())
    errors = np.array(start_errors_s(spoken(aligned), true))
    assert len(errors) == len(true) == len(spoken(aligned))
    assert np.abs(errors).mean() < 0.015
    assert abs(errors.mean()) < 0.004  # neither early nor late


@needs_sphinx
def test_phones_fill_the_sound(aligned: list[Phone], line: Float32) -> None:
    assert aligned[0].start_s == 0.0
    assert abs(aligned[-1].end_s - len(line) / SAMPLE_RATE) < 0.04
    for before, after in pairwise(aligned):
        assert before.start_s < before.end_s == pytest.approx(after.start_s, abs=1e-6)
    assert aligned[0].label == aligned[-1].label == SILENCE
    assert 0.05 < aligned[0].end_s < 0.25  # part of it belongs to the second P; 0.14 is correct


@needs_sphinx
@pytest.mark.parametrize("text", [TRUTH["texts"][0], TRUTH["texts"][2], " ".join(TRUTH["texts"])])
def test_a_wrong_text_is_refused(line: Float32, text: str) -> None:
    with pytest.raises(TalkheadError, match="does not fit"):
        align_phones(line, text)


@needs_sphinx
def test_the_score_rejects_aligned_wrong_texts(
    line: Float32, monkeypatch: pytest.MonkeyPatch
) -> None:
    backwards = " ".join(TRUTH["line_text"].strip(".").split()[::-1])
    with pytest.raises(TalkheadError, match="does not fit"):
        align_phones(line, backwards)
    monkeypatch.setattr(phonemes, "MIN_SCORE", -1000.0)
    assert len(spoken(align_phones(line, backwards))) > 50


@needs_sphinx
def test_a_name_that_is_not_in_the_dictionary(line: Float32, aligned: list[Phone]) -> None:
    found = align_phones(
        line, TRUTH["line_text"].replace(TRUTH["line_text"].split()[9], "Sumboddi")
    )
    errors = start_errors_s(found, aligned)
    assert len(errors) > 0.9 * len(aligned)
    assert np.median(np.abs(errors)) < 0.011


@needs_sphinx
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("in 1971 he came", '"1971". Write numbers as they are spoken'),
        (" ... ", "has no words"),
        ("hello мир", '"мир" is not readable as English'),
    ],
)
def test_texts_that_cannot_be_read(line: Float32, text: str, problem: str) -> None:
    with pytest.raises(TalkheadError) as error:
        align_phones(line, text)
    assert problem in str(error.value)


@needs_sphinx
def test_pieces_of_long_sound_fit_together(line: Float32, aligned: list[Phone]) -> None:
    found = align_phones(np.tile(line, 4), " ".join([TRUTH["line_text"]] * 4))
    once, seconds = spoken(aligned), len(line) / SAMPLE_RATE
    expected = [
        Phone(p.label, p.start_s + n * seconds, p.end_s + n * seconds)
        for n in range(4)
        for p in once
    ]
    assert [p.label for p in spoken(found)] == [p.label for p in expected]
    errors = np.array([p.start_s - e.start_s for p, e in zip(spoken(found), expected, strict=True)])
    assert np.abs(errors).mean() < 0.01


# ---------------------------------------------------------------------------- recognition


@needs_sphinx
def test_phones_without_a_text(line: Float32) -> None:
    found, true = decode_phones(line), spoken(true_phones())
    errors = start_errors_s(spoken(found), true)
    assert len(errors) >= 0.85 * len(true)
    assert np.median(np.abs(errors)) < 0.02
    assert decode_phones(line) == found


@needs_sphinx
def test_phone_by_phone_where_no_words_fit(line: Float32, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phonemes, "MIN_RECOGNIZED_SCORE", 0.0)
    true = spoken(true_phones())
    errors = start_errors_s(spoken(decode_phones(line)), true)
    assert 0.6 * len(true) <= len(errors) < 0.9 * len(true)


@needs_sphinx
def test_phones_spelled_one_by_one(line: Float32) -> None:
    quiet = np.zeros(SAMPLE_RATE, np.float32)
    first, silence, again = spell_phones([line, quiet, line])
    true = spoken(true_phones())
    assert 0.6 * len(true) <= len(start_errors_s(spoken(first), true)) < 0.9 * len(true)
    assert again == first
    assert silence == [Phone(SILENCE, 0.0, 1.0)]
    (english,) = spell_phones([line], language_weight=20.0)
    assert len(spoken(english)) < len(spoken(first))


@needs_sphinx
def test_words_are_recognized_in_chunks_as_in_one_piece(line: Float32) -> None:
    whole = recognize_words(lambda: [line])
    assert {"people", "often", "believe", "move"} <= {word.text for word in whole}
    assert recognize_words(lambda: np.array_split(line, 7)) == whole
    assert recognize_words(lambda: [np.zeros(SAMPLE_RATE, np.float32)]) == []


@needs_sphinx
def test_words_are_aligned_in_16_bits_as_in_32(line: Float32) -> None:
    assert align_words(as_int16(line), TRUTH["line_text"]) == align_words(line, TRUTH["line_text"])


def test_memory_of_recognition_does_not_grow_with_the_length(
    line: Float32, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_word_recognizer", "_run", "_segments"):  # pocketsphinx is not measured
        monkeypatch.setattr(phonemes, name, lambda *given: [])
    peaks = []
    for minutes in (1, 4):
        tracemalloc.start()
        recognize_words(lambda n=10 * minutes: itertools.repeat(line, n))  # type: ignore[misc]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] + 1e6


@needs_sphinx
@pytest.mark.parametrize("n_samples", [160, 400, 3 * SAMPLE_RATE])
def test_silence_is_decoded_as_silence(n_samples: int) -> None:
    found = decode_phones(np.zeros(n_samples, np.float32))
    assert found == [Phone(SILENCE, 0.0, n_samples / SAMPLE_RATE)]


@needs_sphinx
def test_damaged_sound_is_refused() -> None:
    with pytest.raises(TalkheadError, match="is empty"):
        decode_phones(np.zeros(0, np.float32))
    with pytest.raises(TalkheadError, match="not a number"):
        align_phones(np.full(1000, np.nan, np.float32), "hello")


# --------------------------------------------------------------------------------- pieces


def test_pieces_cover_the_sound_and_are_cut_in_pauses() -> None:
    rng = np.random.default_rng(0)
    waveform = rng.normal(0.0, 0.1, 70 * SAMPLE_RATE + 123).astype(np.float32)
    for pause_s in (9, 21, 31, 43, 52, 62):
        waveform[pause_s * SAMPLE_RATE :][: SAMPLE_RATE // 2] *= 0.001
    pieces = list(phonemes._quiet_pieces(waveform))
    assert [start for start, *_ in pieces] == [0, *(end for _, end, _ in pieces[:-1])]
    assert pieces[-1][1] == len(waveform)
    assert all(end - start <= MAX_PIECE_S * SAMPLE_RATE for start, end, _ in pieces)
    silent = is_silence(waveform)
    assert all(silent[end // 640] for _, end, _ in pieces[:-1])


def test_a_stop_does_not_include_the_silence_before_it() -> None:
    found = phonemes._merged(
        [
            Phone(SILENCE, 0.0, 0.2),
            Phone("P", 0.2, 0.6),
            Phone("AA", 0.6, 0.9),
            Phone("P", 0.9, 1.3),  # within a word it may be long
            Phone(SILENCE, 1.3, 1.4),
            Phone(SILENCE, 1.4, 1.5),
        ]
    )
    assert [p.label for p in found] == [SILENCE, "P", "AA", "P", SILENCE]
    assert [round(p.start_s, 3) for p in found] == [0.0, 0.45, 0.6, 0.9, 1.3]
    assert found[-1].end_s == 1.5
