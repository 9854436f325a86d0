"""Where subtitles break and how long they stay."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from talkhead.app.output import cue_layout as cues_module
from talkhead.app.output.cue_layout import (
    GAP_S,
    MAX_S,
    MIN_S,
    Cue,
    SpokenWord,
    make_cues,
    width_of,
)
from talkhead.app.output.word_timing import spread_over, tokens_of


def spoken(
    text: str, word_s: float = 0.3, pauses: dict[int, float] | None = None
) -> list[SpokenWord]:
    """The words of a text one after the other. pauses: seconds of pause by the number of the word
    before.
    """
    words, at = [], 0.0
    for i, token in enumerate(tokens_of(text)):
        words.append(SpokenWord(token.text, at, at + word_s, token.spaced))
        at += word_s + (pauses or {}).get(i, 0.0)
    return words


def check(cues: tuple[Cue, ...], text: str, max_chars: int) -> None:
    """Check what applies to all cues: no words are lost, lines fit, times are in order and within
    limits."""
    assert " ".join(cue.text.replace("\n", " ") for cue in cues) == text
    for cue in cues:
        lines = cue.text.split("\n")
        assert len(lines) <= 2 and all(width_of(line) <= max_chars for line in lines)
        assert 0 < cue.end_s - cue.start_s <= MAX_S
    for before, after in pairwise(cues):
        assert before.end_s <= after.start_s


@pytest.mark.parametrize("max_chars", [42, 24])
@pytest.mark.parametrize("seed", range(5))
def test_any_text_becomes_readable(seed: int, max_chars: int) -> None:
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("abcdefgh"), rng.integers(1, 12))) for _ in range(60)]
    marks = rng.choice(["", "", "", ",", "."], 60)
    text = " ".join(word + mark for word, mark in zip(words, marks, strict=True))
    pauses = {int(i): 0.9 for i in rng.integers(0, 60, 5)}
    check(make_cues(spoken(text, 0.28, pauses), max_chars), text, max_chars)


def test_without_words_there_are_no_cues() -> None:
    assert make_cues([], 42) == ()


def test_cues_end_with_sentences() -> None:
    text = "This is the first sentence. And here is the second one, which is longer. Short end."
    cues = make_cues(spoken(text, 0.35), 42)
    assert [cue.text.replace("\n", " ") for cue in cues] == [
        "This is the first sentence.",
        "And here is the second one, which is longer.",
        "Short end.",
    ]
    assert cues[1].text == "And here is the second one,\nwhich is longer."


def test_a_long_pause_begins_a_new_cue() -> None:
    cues = make_cues(spoken("one two three four five six", 0.4, {2: 1.5}), 42)
    assert [cue.text for cue in cues] == ["one two three", "four five six"]
    assert cues[0].end_s == pytest.approx(1.6, abs=0.01)  # it stays visible after the last word
    assert cues[1].start_s == pytest.approx(2.7)


def test_a_brief_cue_stays_a_second_where_there_is_time() -> None:
    (cue,) = make_cues(spoken("Yes.", 0.2), 42)
    assert cue == Cue(0.0, MIN_S, "Yes.")
    first, second = make_cues(spoken("Yes. No, I would not say that at all.", 0.35, {0: 0.65}), 42)
    assert first.end_s == pytest.approx(second.start_s - GAP_S)


def test_a_word_longer_than_a_line_stays_whole() -> None:
    text = "a " + "x" * 50 + " b"
    cues = make_cues(spoken(text), 42)
    assert " ".join(cue.text for cue in cues) == text


@pytest.mark.parametrize("text", ["a" + " " * 400_000, " " * 400_000, "a" + " -" * 300_000])
def test_splitting_into_tokens_takes_linear_time(text: str) -> None:
    """With a pattern that tries each space as a beginning, these texts would take hours."""
    tokens = tokens_of(text)
    assert [token.text for token in tokens] == ([text.rstrip()] if "a" in text else [])


def test_no_word_is_measured_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout remains fast even for an hour of single letters."""
    measured: list[str] = []
    monkeypatch.setattr(cues_module, "width_of", lambda text: measured.append(text) or len(text))
    words = [SpokenWord("a", i * 0.1, i * 0.1 + 0.1) for i in range(500)]
    assert sum(cue.text.count("a") for cue in make_cues(words, 42)) == len(measured) == 500


def test_tokens_keep_punctuation_and_split_chinese() -> None:
    assert [t.text for t in tokens_of("Well - it's 5 o'clock, no?")] == [
        "Well -", "it's", "5", "o'clock,", "no?",
    ]  # fmt: skip
    tokens = tokens_of("我们用 GPU 训练。好")
    assert [t.text for t in tokens] == ["我", "们", "用", "GPU", "训", "练。", "好"]
    assert [t.spaced for t in tokens] == [True, False, False, True, True, False, False]
    chinese = make_cues(spoken("我们今天去公园散步。" * 6, 0.2), 42)
    assert all(width_of(line) <= 42 for cue in chinese for line in cue.text.split("\n"))


def test_distributed_words_are_within_speech() -> None:
    silent = np.ones(200, bool)
    silent[25:75] = silent[125:175] = False  # 1 to 3 s, 5 to 7 s
    words = spread_over(tokens_of("aaaa bbbb cccc dddd"), silent)
    assert [(w.start_s, w.end_s) for w in words] == [(1, 2), (2, 3), (5, 6), (6, 7)]
    everywhere = spread_over(tokens_of("aa bb"), np.ones(50, bool))
    assert [(w.start_s, w.end_s) for w in everywhere] == [(0, 1), (1, 2)]


def test_sentences_end_at_pauses_whatever_the_pace() -> None:
    silent = np.ones(300, bool)
    silent[0:60] = silent[75:150] = silent[175:280] = False  # 2.4 s, 3 s, 4.2 s
    text = "Aaaa bbbb cccc dddd eeee. Ffff gggg hhhh iiii jjjj. Kkkk llll mmmm nnnn oooo pppp."
    words = spread_over(tokens_of(text), silent)
    starts = {word.text: word.start_s for word in words}
    assert (starts["Aaaa"], starts["Ffff"], starts["Kkkk"]) == (0.0, 3.0, 7.0)
    assert [word.text for word in words] == text.split()
    assert words[-1].end_s == pytest.approx(11.2)
    many = spread_over(tokens_of("one"), silent)  # fewer words than stretches
    assert len(many) == 1
