"""Text from files that would control a terminal is escaped."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkhead.terminal import printable, printable_json

SHOWN = {
    "a\x1b[2Jb": r"a\x1b[2Jb",
    "a\nb\r\tc": r"a\nb\r\tc",
    "\x9b31mred\x7f": r"\x9b31mred\x7f",
    "\u202egnp.exe\u2066": r"\u202egnp.exe\u2066",
    "a\u2028b\u2029c\x85d": r"a\u2028b\u2029c\x85d",
    "a\udc80b": r"a\udc80b",
    "zero\u200bwidth\ufeff": r"zero\u200bwidth\ufeff",
    "\U000e0041": r"\U000e0041",
    "it's ünder C:\\new 日本 👩\u200d🚀\xa0!": "it's ünder C:\\new 日本 👩\u200d🚀\xa0!",
}


@pytest.mark.parametrize("text", SHOWN)
def test_control_characters_are_escaped(text: str) -> None:
    assert printable(text) == SHOWN[text] == printable(SHOWN[text])


@given(st.text(alphabet=st.characters()))
def test_control_characters_are_escaped_and_json_is_unchanged(text: str) -> None:
    line = json.dumps({"a": text}, indent=1, ensure_ascii=False)
    shown = printable_json(line)
    assert json.loads(shown) == {"a": text}
    for safe in (printable(text), shown.replace("\n", "")):
        assert not {unicodedata.category(c) for c in safe} & {"Cc", "Cs", "Zl", "Zp"}
        safe.encode()
