"""Texts of the synthetic speech: English sentences from templates, and sentences of other languages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

TEXTS = json.loads((Path(__file__).parent / "texts.json").read_text(encoding="utf-8"))
"""Templates, words and sentences."""
LANGUAGES: dict[str, list[str]] = TEXTS["languages"]
"""Everyday sentences that cover many of each language's sounds."""

OWN_FRACTION, PLAIN_FRACTION = 0.1, 0.3
"""Share of the texts that are whole stored sentences: in English, in other languages."""


def english(n: int, random: np.random.Generator) -> list[str]:
    """Make different English sentences: filled templates and some stored sentences, each once.

    Args:
        n: Number of sentences.
        random: Draws them.

    Returns:
        The sentences.
    """
    own = list(TEXTS["english"])
    random.shuffle(own)
    made: dict[str, None] = {}
    while len(made) < n:
        text = own.pop() if own and random.random() < OWN_FRACTION else _filled(random)
        made[text[0].upper() + text[1:]] = None
    return list(made)


def _filled(random: np.random.Generator) -> str:
    """A random template with random words."""

    def pick(words: list[str], count: int) -> list[str]:
        return [words[int(i)] for i in random.choice(len(words), count, replace=False)]

    words = {kind: TEXTS[kind].split() for kind in ("names", "nouns", "adjectives", "verbs")}
    name, name2 = pick(words["names"], 2)
    noun, noun2, noun3 = pick(words["nouns"], 3)
    adj, adj2, adj3 = pick(words["adjectives"], 3)
    template: str = pick(TEXTS["templates"], 1)[0]
    return template.format(
        **{"name": name, "name2": name2, "noun": noun, "noun2": noun2, "noun3": noun3},
        **{"adj": adj, "adj2": adj2, "adj3": adj3, "verb": pick(words["verbs"], 1)[0]},
        place=pick(TEXTS["places"], 1)[0],
        time=pick(TEXTS["times"], 1)[0],
        number=int(random.integers(2, 10_000)),
    )


def foreign(language: str, random: np.random.Generator) -> str:
    """Make a text of another language: a stored sentence, or random words of all of them and a number.

    Chinese, which has no spaces, is shuffled by its parts between commas. Engines spell out
    numbers.

    Args:
        language: One of LANGUAGES.
        random: Draws the text.

    Returns:
        The text.
    """
    stock = LANGUAGES[language]
    if random.random() < PLAIN_FRACTION:
        return stock[int(random.integers(len(stock)))]
    spaced = language != "cmn"
    parts = " ".join(stock).split() if spaced else ",".join(stock).replace("。", "").split(",")
    words = ["".join(c for c in part if c not in ",.?!;:¿»«،؟।") for part in parts]
    chosen = [words[int(i)] for i in random.integers(0, len(words), 7 if spaced else 2)]
    chosen.insert(int(random.integers(len(chosen))), str(int(random.integers(1, 10_000))))
    return (" " if spaced else ",").join(chosen) + "."


def random_words(words: list[str], random: np.random.Generator) -> str:
    """Make a text of random words, which has sequences of phones that sentences lack.

    Args:
        words: The words to choose from.
        random: Draws 4 to 9 of them.

    Returns:
        The text, with a comma in the middle of longer ones.
    """
    chosen = [words[int(i)] for i in random.integers(0, len(words), int(random.integers(4, 10)))]
    if len(chosen) > 6:
        chosen[len(chosen) // 2] += ","
    return (" ".join(chosen)).capitalize() + "."
