"""Tables of dubbing jobs, subtitles, transcripts."""

from __future__ import annotations

from pathlib import Path

from benchmarks.fuzz.bases import TABLES, TEXTS
from benchmarks.fuzz.kinds.common import (
    check_video,
    command,
    home,
    output,
    placed_or_odd,
    sound,
    speak_arguments,
)
from benchmarks.fuzz.mutations import hostile, texts, trees
from benchmarks.fuzz.trial import Kind, Setting, Trial

YAML_LINES = (
    "- &a [*a]", "- !!int abc", "- !!python/object/apply:os.system ['id']", "- !!binary =x=",
    "- audio: 2024-01-01", "- audio: !!timestamp x", "- {<<: *x}", "- ? [a]\n  : b", "--- !!map",
    "- {[a]: b}", "- !!set {a, b}", "- audio: 1:20:30", "- *a", "%YAML 9.9", "...", "- &a a: *a",
    "- audio: 0b101", "- audio: .nan", "- audio: !!float x", "- audio: |\n    a\n   b", "\t- a",
    "- audio: 9999-99-99", "- !!omap [a: b, c]", "- ? a\n? b", "- '\\x00'", '- audio: "\\ud800"',
)  # fmt: skip
ALIASES = "".join(
    f"- &a{n + 1} [{', '.join([f'*a{n}'] * 9) if n else 'x, x, x, x, x, x, x, x, x'}]\n"
    for n in range(9)
)
"""Nine nested lists, each with nine copies of the previous one: 640 bytes that expand to a third of
a billion items.
"""
CSV_LINES = (
    '"', '""""', 'a,"b\nc",d', "," * 200, "audio,audio", "line.wav,../out/1.mp4", '"' + "a" * 200_000,
    "line.wav,/dev/null,anna", "line.wav,../out,anna", "line.wav,../in/line.wav,anna", "\x00",
    "line.wav,.hidden.mp4,anna", "line.wav,~nobody/x.mp4,anna", "/dev/zero,../out/9.mp4,anna",
)  # fmt: skip
JSON_LINES = (
    "{}", "[]", "null", "1", '{"audio": {}}', '{"": 1}', "[" * 50_000, '{"a":' * 50_000, "NaN",
    '{"audio": "\\ud800", "output": "x.mp4", "identity": "anna"}', '{"audio": 1e400}',
    '{"audio": "line.wav", "output": "../out/8.mp4", "identity": ["anna"]}',
)  # fmt: skip
SUBTITLE_LINES = (
    "00:00:00,000 --> 99999999:00:00,000", "1 --> 2", "00:00:01,000 --> 00:00:00,000", "-->",
    "00:00:00,000 --> 00:00:00,100 X1:0", f"{'9' * 400}:00:00,000 --> {'9' * 401}:00:00,000",
    "00:61:99,999 --> 00:62:00,000", "9" * 40_000, "<" * 5000, "{\\" * 5000, "00:00:00.000 -->",
    "{\\p1}m 0 0 l 9999999 0 9999999 9999999{\\p0}", "{\\fs99999}x", "{\\t(\\fscx9999999)}x",
    "0" * 30_000 + ":" * 10, "<b><i><u>", "&lt;&#x1b;[2J", "\u202ex",
    "\u0660\u0660:00:00,000 --> 00:00:0\u0661,000",
)  # fmt: skip
LANGUAGES = ("en", "de", "en", "xx", "zh")


def table(setting: Setting) -> Trial:
    """Damage a table for dub, whose jobs are done immediately by a fake."""
    where = home(setting)
    sound(setting)
    setting.place("in/words.txt", setting.base("words.txt"))
    (setting.folder / "out").mkdir()
    name = setting.rng.choice(sorted(TABLES))
    setting.note(name)
    path = placed_or_odd(setting, name, _table(setting, name))
    more = setting.rng.choice(([], [], ["--skip-bad"], ["--json"], ["--skip-bad", "--json"]))
    arguments = ["dub", path, "--home", where, "--device", "cpu", "--workers", "1", "--quiet"]
    return Trial(lambda: command(*arguments, *more), changes=("*",))


def _table(setting: Setting, name: str) -> bytes:
    data = setting.base(name)
    if name.endswith("csv"):
        return setting.damage(data, texts.mutate, CSV_LINES)
    if name.endswith("yaml"):
        if setting.chance(0.05):
            setting.note("aliases of aliases")
            return (ALIASES + setting.base(name).decode()).encode()
        return setting.damage(data, texts.mutate, YAML_LINES)
    if setting.rng.random() < 0.4:
        return setting.damage(data, texts.mutate, JSON_LINES)
    lines = data.splitlines()
    number = setting.rng.randrange(len(lines))
    lines[number] = setting.damage(lines[number], trees.mutate)
    return b"\n".join(lines)


def subtitles(setting: Setting) -> Trial:
    """Damage a transcript with or without times, used for cues, an .srt file or burned-in
    subtitles.
    """
    name = setting.rng.choice(sorted(TEXTS))
    setting.note(name)
    data = setting.damage(setting.base(name), texts.mutate, SUBTITLE_LINES)
    called = setting.rng.choice(sorted(TEXTS)) if setting.chance(0.1) else name
    path, line = placed_or_odd(setting, called, data), sound(setting)
    language = setting.rng.choice(LANGUAGES)
    how = setting.rng.choice(("srt", "burn", "burn", "track"))
    if setting.rng.random() < 0.25:
        target = output(setting)
        arguments = speak_arguments(setting, line, target, "--renderer", "warp", "--subtitles", how,
                                    "--transcript", path, "--language", language)  # fmt: skip
        return Trial(
            lambda: command(*arguments),
            products=("out/line.mp4", "out/line.srt"),
            check=lambda: check_video(target),
        )
    return Trial(lambda: _subtitled(line, path, how, language, output(setting)), changes=("out/*",))


def _subtitled(line: Path, transcript: Path, how: str, language: str, target: Path) -> None:
    """Prepare subtitles, and write three frames with them."""
    import numpy as np

    from talkhead import media
    from talkhead.app.output.subtitles import prepare_subtitles
    from talkhead.app.request import OutputOptions

    options = OutputOptions(subtitles=how, transcript=str(transcript), language=language)
    made = prepare_subtitles(line, options, target.parent, (96, 64), 2.0)
    assert made is not None, "no subtitles"
    if made.captions is not None:
        pictures = [np.zeros((64, 96, 3), np.uint8)] * 3
        with media.VideoWriter(target, captions=made.captions) as video:
            for picture in pictures:
                video.write(picture)


def transcript(setting: Setting) -> Trial:
    """Damage a transcript given as text, whose words are aligned or distributed evenly."""
    line = sound(setting)
    words = "People often say, in 2 words: it's fine."
    if not setting.plain:
        data = setting.damage(words.encode(), texts.mutate)
        words = data.decode("utf-8", "surrogateescape")
    if setting.chance(0.2):
        words = hostile.within(words, setting.rng)
    language = setting.rng.choice(LANGUAGES)
    return Trial(lambda: _cues(line, words, language))


def _cues(line: Path, words: str, language: str) -> None:
    from talkhead.app.output.subtitles import subtitle

    made = subtitle(line, words, language)
    assert all(cue.end_s >= cue.start_s >= 0 for cue in made.cues), (
        "cues that end before they begin"
    )


KINDS = (
    Kind("table", table, 1.5),
    Kind("subtitles", subtitles, 1.5),
    Kind("transcript", transcript, 0.5),
)
