"""Synthetic speech: phone maps, times and texts; neither flite nor espeak-ng runs here."""

# ruff: noqa: RUF001 (phonetic symbols look like Latin letters)

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from talkhead.app.training.synthetic_speech import (
    build,
    espeak,
    flite,
    kokoro,
    phone_map,
    sentences,
)
from talkhead.app.training.synthetic_speech.espeak import timed_phones, with_closures
from talkhead.encoder.pase.corpus import SPLITS, UNKNOWN, Utterance, read_shard
from talkhead.encoder.pase.corpus_store import build_shard, read_manifest
from talkhead.encoder.phones import PHONES, SILENCE, Phone
from talkhead.errors import TalkheadError
from talkhead.progress import SilentProgress
from talkhead.types import SAMPLE_RATE, Float32

FLITE_INVENTORY = """aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t
th uh uw v w y z zh pau"""
SEGMENTS = "pau:0.200 m:0.300 ay:0.500 b:0.580 ax:0.650 pau:0.900 \n"


def labels(phones: list[Phone]) -> list[str]:
    return [phone.label for phone in phones]


# --------------------------------------------------------------------------------------- maps


def test_maps_contain_only_phones() -> None:
    maps = (phone_map.FLITE, phone_map.IPA, phone_map.LONG, phone_map.PAIRS)
    assert {phone for each in maps for phone in each.values()} <= set(PHONES)
    assert set(FLITE_INVENTORY.split()) <= set(phone_map.FLITE)
    assert set(PHONES) <= {*phone_map.FLITE.values()}
    spoken = {*phone_map.IPA.values(), *phone_map.PAIRS.values(), *phone_map.LONG.values()}
    assert spoken == set(PHONES) - {SILENCE}


@pytest.mark.parametrize(
    ("name", "phones"),
    [
        *[("ˈiː", "IY"), ("p", "P"), ("ɑ̃", "AA"), ("œ̃", "AO"), ("y", "UW"), ("ˈyː", "UW")],
        *[("aɪ", "AY"), ("ɐ̃ʊ", "AW"), ("eɪ", "EY"), ("əʊ", "OW"), ("ɔø", "OY"), ("ˌɔ", "AO")],
        *[("tʃ", "CH"), ("dʒ", "JH"), ("ts", "T S"), ("pf", "P F"), ("ts.h", "CH"), ("tɕh", "CH")],
        *[("e", "EH"), ("eː", "EY"), ("o", "AO"), ("oː", "OW"), ("ɔːɹ", "AO R"), ("h", "HH")],
        *[("ç", "HH"), ("r̝̊", "ZH"), ("ɾ", "D"), ("r", "L"), ("tʲ", "T"), ("ʲ", "Y"), ("m̩", "M")],
        *[("kʰ", "K"), ("kh", "K"), ("ʔ", ""), ("ʕ", ""), ("", ""), ("_:", ""), ("onɡ", "AO NG")],
    ],
)
def test_ipa(name: str, phones: str) -> None:
    assert phone_map.from_ipa(name) == tuple(phones.split())


# -------------------------------------------------------------------------------------- flite


def test_segments_of_flite() -> None:
    phones = flite.parse_segments(SEGMENTS)
    assert labels(phones) == [SILENCE, "M", "AY", "B", "AH", SILENCE]
    assert phones[2] == Phone("AY", 0.3, 0.5)
    assert [p.end_s for p in phones[:-1]] == [p.start_s for p in phones[1:]]
    with pytest.raises(ValueError):
        flite.parse_segments("no voice")
    with pytest.raises(KeyError):
        flite.parse_segments("qqq:0.2")


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_phones_follow_the_speed(factor: float) -> None:
    waveform = np.zeros(SAMPLE_RATE, np.float32)
    waveform[8000:8800] = 0.5 * np.sin(np.arange(800))
    said = Utterance(waveform, (Phone(SILENCE, 0.0, 0.5), Phone("S", 0.5, 0.55)), "x")
    faster = flite.at_speed(said, factor)
    loud = np.flatnonzero(np.abs(faster.waveform) > 0.1) / SAMPLE_RATE
    assert faster.phones[1].start_s == pytest.approx(loud[0], abs=1e-3)
    assert faster.phones[1].end_s == pytest.approx(loud[-1], abs=1e-3)
    assert faster.phones[1].end_s - faster.phones[1].start_s == pytest.approx(0.05 / factor)


def test_loudest_sample() -> None:
    loud = flite.normalized(np.array([0.1, -0.2], np.float32))
    np.testing.assert_allclose(loud, [flite.PEAK / 2, -flite.PEAK])
    assert not flite.normalized(np.zeros(4, np.float32)).any()


# ------------------------------------------------------------------------------------- espeak


def test_times_of_espeak() -> None:
    starts = [
        (0.02, "k"),
        (0.1, "ˈaɪ"),
        (0.3, "ts"),
        (0.5, ""),
        (0.52, ""),
        (0.8, "ʔ"),
        (0.85, "ə"),
    ]
    phones = timed_phones([*starts, (0.9, ""), (0.91, "m"), (1.0, "")], 1.01)
    assert phones == [
        Phone(SILENCE, 0.0, 0.02),
        *[Phone("K", 0.02, 0.1), Phone("AY", 0.1, 0.3), Phone("T", 0.3, 0.4), Phone("S", 0.4, 0.5)],
        *[Phone(SILENCE, 0.5, 0.8), Phone("AH", 0.85, 0.9)],  # a gap for the glottal stop
        *[Phone("M", 0.91, 1.0), Phone(SILENCE, 1.0, 1.01)],  # and 10 ms that belong to no phone
    ]
    assert timed_phones([], 1.0) == []


def loudness(*levels: tuple[float, float]) -> Float32:
    """Noise with each amplitude for a number of seconds."""
    random = np.random.default_rng(0)
    pieces = [a * random.uniform(-1, 1, round(s * SAMPLE_RATE)) for a, s in levels]
    return np.concatenate(pieces).astype(np.float32)


def test_closures_belong_to_stops() -> None:
    waveform = loudness((0.5, 0.1), (0.001, 0.06), (0.1, 0.04))
    vowel, stop = with_closures([Phone("AA", 0.0, 0.16), Phone("P", 0.16, 0.2)], waveform)
    assert vowel.end_s == stop.start_s == pytest.approx(0.1, abs=0.006)
    assert (vowel.start_s, stop.end_s) == (0.0, 0.2)


@pytest.mark.parametrize(
    ("before", "label", "waveform", "start_s"),
    [
        ("AA", "S", loudness((0.5, 0.1), (0.001, 0.1)), 0.2),  # no stop
        ("AA", "T", loudness((0.5, 0.2)), 0.2),  # no closure
        ("AA", "T", loudness((0.5, 0.02), (0.001, 0.18)), 0.08),  # not more than MAX_CLOSURE_S
        (SILENCE, "T", loudness((0.0, 0.2)), 0.15),  # after a pause
    ],
)
def test_short_or_loud_ends_are_not_closures(
    before: str, label: str, waveform: Float32, start_s: float
) -> None:
    phones = with_closures([Phone(before, 0.0, 0.2), Phone(label, 0.2, 0.3)], waveform)
    assert phones[0].end_s == phones[1].start_s == pytest.approx(start_s, abs=0.0051)


def test_a_stop_after_a_gap_is_unchanged() -> None:
    phones = [Phone("AA", 0.0, 0.1), Phone("T", 0.15, 0.2)]
    assert with_closures(phones, loudness((0.0, 0.2))) == phones


class FakeEspeak:
    texts: set[str]

    def __init__(self) -> None:
        FakeEspeak.texts = set()

    def say(
        self, voice: str, text: str, manner: espeak.Manner
    ) -> tuple[Float32, list[tuple[float, str]]]:
        self.texts.add(text)
        length_s = 0.3 + 0.02 * len(text)
        return loudness((0.3, length_s)), [(0.0, "m"), (0.1, "ˈaː"), (length_s - 0.1, "")]


def test_an_utterance_of_espeak() -> None:
    said = espeak.say(FakeEspeak(), "fr+m3", "oui", espeak.Manner(), (0.2, 0.1))
    assert labels(list(said.phones)) == [SILENCE, "M", "AA", SILENCE, SILENCE]
    assert said.phones[1].start_s == pytest.approx(0.2)
    assert said.phones[-1].end_s == pytest.approx(len(said.waveform) / SAMPLE_RATE)
    assert not said.waveform[:3200].any() and np.abs(said.waveform[3200:4000]).max() > 0.1


# -------------------------------------------------------------------------------------- texts


def test_english_texts() -> None:
    texts = sentences.english(300, np.random.default_rng(1))
    assert texts == sentences.english(300, np.random.default_rng(1))
    assert len(set(texts)) == 300 and set(texts) & set(sentences.TEXTS["english"])
    assert not any(c in text for text in texts for c in "{}")
    assert all(text[0].isupper() and text[-1] in ".?!" for text in texts)


@pytest.mark.parametrize("language", sentences.LANGUAGES)
def test_foreign_texts(language: str) -> None:
    random = np.random.default_rng(2)
    texts = [sentences.foreign(language, random) for _ in range(30)]
    assert len(set(texts)) > 15 and min(map(len, texts)) > 5
    assert any(c.isdigit() for text in texts for c in text)
    stock = {c for text in sentences.LANGUAGES[language] for c in text}
    assert {c for text in texts for c in text} <= stock | set("0123456789 .,")


# ------------------------------------------------------------------------------------ shards


def fake_say(voice: str, text: str, *_: object) -> Utterance:
    phones = (Phone(SILENCE, 0.0, 0.5), Phone("AA", 0.5, 1.0))
    return Utterance(np.full(SAMPLE_RATE, 0.25, np.float32), phones, f"{voice}: {text}")


def test_test_voices_say_the_same_held_out_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flite, "say", fake_say)
    monkeypatch.setattr(flite, "say_varied", fake_say)
    said = list(build.flite_speech_of(minutes=4, test_minutes=1, seed=3))
    texts: dict[str, list[str]] = {}
    for utterance in said:
        voice, text = utterance.speaker.split(": ", 1)
        texts.setdefault(voice, []).append(text)
        assert (utterance.split == "test") == (voice in flite.TEST_VOICES)
    assert set(texts) == {*flite.TRAINING_VOICES, *flite.TEST_VOICES}
    assert texts["slt"] == texts["rms"] and len(texts["slt"]) == 17
    heard = {t for voice in flite.TRAINING_VOICES for t in texts[voice]}
    assert len(heard) > 200 and not heard & set(texts["slt"])
    assert {u.split for u in said} == set(SPLITS)


def test_shard_of_espeak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(espeak, "Espeak", FakeEspeak)
    given = argparse.Namespace(minutes=2.0, test_minutes=1.0, seed=5)
    source = build.source_of("own", "a program", given, build.espeak_speech_of)
    one, other = (build_shard(tmp_path / name, source, SilentProgress()) for name in ("a", "b"))
    assert one.read_bytes() == other.read_bytes()
    assert read_manifest(tmp_path / "a")["own"]["splits"]["train"]["utterances"] > 0
    shard = read_shard(one)
    assert shard.shippable and "a program" in shard.attribution
    assert 2.0 <= shard.starts[-1] / 1500 < 2.2
    languages = {name.split("+")[0].removeprefix("espeak ") for name in shard.names}
    assert len(languages & set(sentences.LANGUAGES)) > 10 and languages & set(build.ENGLISH)
    assert shard.labels[0] == PHONES.index(SILENCE)
    assert {PHONES.index("M"), PHONES.index("AA")} <= set(shard.labels) - {UNKNOWN}


def test_no_training_speech_has_a_test_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espeak, "Espeak", FakeEspeak)
    monkeypatch.setattr(build, "ENGLISH_FRACTION", 1.0)
    list(build.espeak_speech_of(10.0, 8.0, seed=1))
    held_out = set(build.test_texts(8.0))
    stock = set(sentences.TEXTS["english"])
    assert FakeEspeak.texts & stock and held_out & stock and not FakeEspeak.texts & held_out


def test_errors_of_boundaries() -> None:
    given = [Phone(SILENCE, 0.0, 0.1), Phone("M", 0.1, 0.2), Phone("AY", 0.2, 0.3)]
    heard = [Phone("M", 0.11, 0.18), Phone("AH", 0.18, 0.19), Phone("AY", 0.19, 0.3)]
    assert build.boundary_errors(given, heard) == pytest.approx([0.01, -0.01])


# ------------------------------------------------------------------------------------- Kokoro


def timed(text: str, step_s: float = 0.1) -> list[kokoro.Timed]:
    return [kokoro.Timed(c, i * step_s, (i + 1) * step_s) for i, c in enumerate(text)]


def tone(seconds: float, quiet: tuple[float, float]) -> Float32:
    waveform = 0.3 * np.sin(np.arange(round(seconds * SAMPLE_RATE)) * 0.5).astype(np.float32)
    first, after = (round(edge * SAMPLE_RATE) for edge in quiet)
    waveform[first:after] = 0.0
    return waveform


def test_kokoros_symbols_are_phones() -> None:
    assert set(kokoro.KOKORO.values()) <= set(PHONES) - {SILENCE}
    assert set(kokoro.KOKORO.values()) == set(PHONES) - {SILENCE}


def test_a_vowel_of_kokoro_begins_with_its_stress() -> None:
    found = kokoro.phones_of(timed("bˈAt"), tone(0.4, (0, 0)))
    assert labels(found) == ["B", "EY", "T"]
    assert (found[1].start_s, found[1].end_s) == pytest.approx((0.1, 0.3))


def test_a_vowel_and_r_are_one_phone() -> None:
    found = kokoro.phones_of(timed("bˈɜɹdəɹ"), tone(0.7, (0, 0)))
    assert labels(found) == ["B", "ER", "D", "ER"]
    assert found[1].end_s == pytest.approx(0.4)


def test_a_space_is_silence_only_where_it_is_quiet() -> None:
    spoken = kokoro.phones_of(timed("m m"), tone(0.3, (0, 0)))
    assert labels(spoken) == ["M", "M"]
    assert spoken[0].end_s == spoken[1].start_s == pytest.approx(0.15)
    paused = kokoro.phones_of(timed("m m"), tone(0.3, (0.1, 0.2)))
    assert labels(paused) == ["M", SILENCE, "M"]
    assert (paused[1].start_s, paused[1].end_s) == pytest.approx((0.1, 0.2))


def test_random_words_come_from_the_list() -> None:
    words = ["alpha", "beta", "gamma"]
    text = sentences.random_words(words, np.random.default_rng(0))
    spoken = text.lower().replace(",", "").rstrip(".").split()
    assert 4 <= len(spoken) <= 9
    assert set(spoken) <= set(words)


def test_missing_parts_of_kokoro_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(TalkheadError, match="pip install onnx"):
        kokoro.Kokoro(Path())
