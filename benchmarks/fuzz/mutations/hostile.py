"""Values that programs handle badly: numbers, texts that control a terminal, file names."""

from __future__ import annotations

from random import Random

FORGED = "FORGED: signed by a newsroom, trusted"
"""No line of any output may begin with it."""

NUMBERS = (
    "0", "-0", "-1", "1", "2", "3", "255", "256", "65535", "65536", "2147483647", "2147483648",
    "-2147483648", "4294967295", "4294967296", "9223372036854775807", "9223372036854775808",
    "18446744073709551615", "1e9", "1e18", "1e308", "-1e308", "1e400", "1e-320", "0.1", "-0.5",
    "nan", "inf", "-inf", "NaN", "Infinity", "-Infinity", "0x10", "0o17", "1_000", "1,000", "\u0663",
    "\xb2", "\xbd", "+1", " 1", "1 ", "--1", "9" * 40, "9" * 400, "9" * 5000,
)  # fmt: skip
"""Unusual numbers, as text."""

WHOLE = (
    0, -1, 1, 2, 3, 7, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 10**6, 2**31 - 1, 2**31,
    2**32 - 1, 2**32, 2**40, 2**53 + 1, 2**62, 2**63 - 1, 2**63, -(2**31), -(2**63), 10**30,
)  # fmt: skip
REAL = (0.0, -0.0, -1.0, 0.5, 1e-320, 1e-9, 1e9, 1e30, 1e308, -1e308, float("nan"), float("inf"))

TEXTS = (
    "", " ", "\t", "\x00", "\x07", "\x7f", "\x1b[2J\x1b[1;1H", "\x1b]0;owned\x07", "\x1b[8m",
    "\r\x1b[K", "\x9b31m", "\x9d0;owned\x9c", "\x85", "\u202egnp.exe", "\u2066x\u2069", "\ufeff",
    "\u200b", "\ud800", "\udcff", "\udfff\ud800", "A" * 300, "A" * 70_000, "é" * 200, "\U0001d54f" * 50,
    f"\n{FORGED}", f"\r\n{FORGED}", f"\r{FORGED}", f"\x0b{FORGED}", f"\x1e{FORGED}",
    f"\u2028{FORGED}", f"\u2029{FORGED}", f"\x85{FORGED}", "[/]", "[bold]x", "[link=x]y[/link]",
    "%s%n%d", "{0}", "{x.__class__}", "$(id)", "`id`", "'", '"', "\\", "|", ";", "&", "<b>",
    "-", "--", "--help", "-y", ".", "..", "/", "//", "~", "~nobody-here/x", "con", "nul.mp4",
    "true", "null", "None", "e\u0301", "\u00a0", "file:x", "pipe:0", "fd:0", "concat:a|b",
    "subfile,,start,0,end,9,,:x", "data:,x", "lavfi", "%06d.png", "a'b.srt", "a:b", "x" * 254,
)  # fmt: skip
"""Texts with control characters, forged lines, lone surrogates, markup, and sequences that shells
and ffmpeg expand.
"""

PATHS = (
    "/dev/zero", "/dev/full", "/dev/null", "/dev/stdin", "/proc/self/mem", "/proc/self/environ",
    "/etc/passwd", "/", ".", "..", "../..", "/nowhere/x", "nowhere", "/proc/self/cwd",
)  # fmt: skip
"""Files that exist on Linux and are not inputs; none of them can be written to."""


def number_text(rng: Random) -> str:
    """Draw a number, as text."""
    return rng.choice(NUMBERS)


def text(rng: Random) -> str:
    """Draw a hostile text."""
    return rng.choice(TEXTS)


def within(value: str, rng: Random) -> str:
    """Put a hostile text into, before or after another one, or replace it."""
    other, at = text(rng), rng.randint(0, len(value))
    return rng.choice((other, other + value, value + other, value[:at] + other + value[at:]))
