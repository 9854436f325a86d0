"""Subtitles of the sample line, whose word times are known exactly, and their files."""

# ruff: noqa: RUF001
from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import scipy.io.wavfile
from tiny import LINE, SAMPLES

from talkhead import media
from talkhead.app.output import subtitles
from talkhead.app.output.cue_layout import Cue
from talkhead.app.output.subtitle_files import (
    COVERED,
    FONTS_DIR,
    line_chars,
    read_srt,
    write_ass,
    write_srt,
)
from talkhead.app.output.subtitles import prepare_subtitles, subtitle
from talkhead.app.request import OutputOptions
from talkhead.errors import TalkheadError
from talkhead.media import Captions
from talkhead.types import UInt8

TRUTH = json.loads((SAMPLES / "truth.json").read_text())
TEXT: str = TRUTH["line_text"]
BUT_S = next(p["end_s"] for p in TRUTH["line_phones"][1:] if p["phone"] == "pau")
"""Where "but" begins, after the line's one pause."""
CUES = (Cue(0.1, 1.5, "Hello, world"), Cue(61.25, 3661.5, "Zwei\nZeilen – ü"))


def test_aligned_cues_begin_when_their_words_are_said() -> None:
    pytest.importorskip("pocketsphinx")
    made = subtitle(LINE, TEXT, "en")
    assert made.source == subtitles.ALIGNED and not made.note
    first, second = made.cues
    assert first.text == "People often believe\nthat a picture can speak,"
    assert second.text == "but somebody has to show it how to move."
    assert first.start_s <= TRUTH["line_phones"][0]["end_s"] + 0.03
    assert second.start_s == pytest.approx(BUT_S, abs=0.04)
    assert 0 <= second.end_s - TRUTH["line_phones"][-1]["start_s"] < 0.6


def test_numbers_are_timed_by_their_neighbors() -> None:
    pytest.importorskip("pocketsphinx")
    made = subtitle(LINE, TEXT.replace("but", "10"), "en")
    assert made.source == subtitles.ALIGNED
    assert made.cues[1].text.startswith("10 somebody")
    assert made.cues[1].start_s == pytest.approx(BUT_S, abs=0.15)


def test_texts_of_other_languages_are_spread_with_a_note(tmp_path: Path) -> None:
    text = tmp_path / "mein text.txt"
    text.write_text(TEXT, encoding="utf-8-sig")
    made = subtitle(LINE, str(text), "de")
    assert made.source == subtitles.SPREAD and "only English can be aligned" in made.note
    assert made.cues[-1].text.endswith("move.")
    assert made.cues[1].start_s == pytest.approx(BUT_S, abs=0.4)


def test_without_pocketsphinx_words_are_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subtitles, "phones_unavailable_reason", lambda: "phones need pocketsphinx")
    made = subtitle(LINE, TEXT, "en")
    assert made.source == subtitles.SPREAD and "phones need pocketsphinx" in made.note


def test_english_is_recognized_and_its_limits_are_reported() -> None:
    pytest.importorskip("pocketsphinx")
    made = subtitle(LINE, None, "en")
    assert made.source == subtitles.RECOGNIZED and "check them" in made.note
    words = " ".join(cue.text for cue in made.cues).replace("\n", " ").split()
    assert len(set(words) & set(TEXT.lower().rstrip(".").split())) >= 10


@pytest.mark.parametrize(
    ("transcript", "language", "words"),
    [
        (None, "fr", "need the text: only English is recognized. Pass --transcript"),
        ("...", "en", "the transcript has no words"),
        ("gone.txt", "en", "gone.txt: there is no such file"),
    ],
)
def test_refusals(transcript: str | None, language: str, words: str) -> None:
    with pytest.raises(TalkheadError, match=words):
        subtitle(LINE, transcript, language)


def test_srt_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    write_srt(path, CUES)
    assert path.read_text(encoding="utf-8") == (
        "1\n00:00:00,100 --> 00:00:01,500\nHello, world\n\n"
        "2\n00:01:01,250 --> 01:01:01,500\nZwei\nZeilen – ü\n"
    )
    assert read_srt(path) == CUES
    assert subtitle(LINE, str(path), "de") == subtitles.Subtitles(CUES, subtitles.GIVEN)
    web = tmp_path / "a.vtt"
    web.write_text("WEBVTT\n\n00:00.100 --> 00:01.500 align:start\n<i>Hello, world</i>\n")
    assert read_srt(web) == CUES[:1]
    web.write_text("WEBVTT\n\n00:00.100 --> 00:01.500\n<v Ben>a &lt;b&gt; &amp;amp; AT&T &amp\n")
    assert read_srt(web)[0].text == "a <b> &amp; AT&T &amp"
    web.write_text("WEBVTT\n")
    with pytest.raises(TalkheadError, match="has no subtitles"):
        read_srt(web)


@pytest.mark.parametrize("junk", ["1", "<", "{\\", "0:0.0 ", " -->", "<i", "1:", "\n "])
def test_reading_subtitles_takes_linear_time(tmp_path: Path, junk: str) -> None:
    """With a pattern that tries to match at each character, these texts would take hours."""
    path, good = tmp_path / "a.srt", "1\n00:00:01,000 --> 00:00:02,000\nHello\n\n"
    path.write_text(f"{junk * 300_000}\n\n{good}{junk * 300_000}")
    assert read_srt(path)[0] == Cue(1.0, 2.0, "Hello")
    path.write_text(f"1\n00:00:01,000 --> 00:00:02,000\n{junk * 300_000}\n\n{good}")
    if junk == "\n ":  # a blank line, where a subtitle ends
        assert read_srt(path)[-1] == Cue(1.0, 2.0, "Hello")
        return
    with pytest.raises(TalkheadError, match=r"line 2: a subtitle of \d+ characters"):
        read_srt(path)


@pytest.mark.parametrize("time", ["100:00:00,001", f"{'9' * 400}:00:00,000", "0:0:400000.0"])
def test_absurd_times_are_refused(tmp_path: Path, time: str) -> None:
    path = tmp_path / "a.srt"
    path.write_text(f"1\n00:00:01,000 --> {time}\nHello\n")
    with pytest.raises(TalkheadError, match="line 2: times beyond 100 hours are not supported"):
        read_srt(path)
    path.write_text(f"1\n{time} --> 00:00:01,000\nHello\n")
    with pytest.raises(TalkheadError):
        read_srt(path)


def test_late_subtitles_keep_their_hours(tmp_path: Path) -> None:
    late = Cue(36_001.5, 36_002.0, "Hello")
    write_srt(tmp_path / "a.srt", (late,))
    assert read_srt(tmp_path / "a.srt") == (late,)
    write_ass(tmp_path / "a.ass", (late,), (64, 64))
    assert "Dialogue: 0,10:00:01.50,10:00:02.00," in (tmp_path / "a.ass").read_text()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello \udcff", "is not UTF-8 text"),
        ("so " * 5000, "5000 words, more than can be spoken in 6.0 s"),
        ("x" * 1001, "a word of 1001 characters"),
        ("a" + " " * (1 << 20), "the transcript is too long"),
    ],
)
def test_texts_that_cannot_be_spoken(text: str, words: str) -> None:
    for language in ("en", "fr"):
        with pytest.raises(TalkheadError, match=words):
            subtitle(LINE, text, language)


def test_a_transcript_file_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a" * ((1 << 20) + 1))
    with pytest.raises(TalkheadError, match="has more than 1 MiB"):
        subtitle(LINE, str(path), "fr")


def test_control_characters_are_removed_from_subtitles(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("He\x07llo\x1b[2J\twor\x00ld")
    assert subtitle(LINE, str(text), "fr").cues[0].text == "Hello[2J world"
    srt = tmp_path / "a.srt"
    srt.write_text("1\n00:00:01,000 --> 00:00:02,000\nHe\x07llo\x00\nthere\n")
    assert read_srt(srt)[0].text == "Hello\nthere"


def test_a_subtitle_cannot_add_lines_to_the_file_it_is_drawn_from(tmp_path: Path) -> None:
    text = "a\nDialogue: 0,0:00:00.00,0:00:09.00,Default,forged\n\n[Fonts]\n{\\fs99}"
    write_ass(tmp_path / "a.ass", (Cue(0, 1, text),), (64, 64))
    written = (tmp_path / "a.ass").read_text()
    assert sum(line.startswith("Dialogue:") for line in written.splitlines()) == 1
    assert not any(line.startswith("[Fonts]") for line in written.splitlines())
    assert "\\{" in written and "{\\fs99}" not in written
    with pytest.raises(TalkheadError, match="has no"):
        write_ass(tmp_path / "a.ass", (Cue(0, 1, "a\rDialogue: 0"),), (64, 64))


def test_the_number_of_simultaneous_subtitles_is_limited(tmp_path: Path) -> None:
    cues = [Cue(float(n), 20.0, "a") for n in range(9)]
    write_ass(tmp_path / "a.ass", cues[1:], (64, 64))
    with pytest.raises(TalkheadError, match=r"more than 8 are shown at 8\.0 s"):
        write_ass(tmp_path / "a.ass", cues, (64, 64))


def burned(folder: Path, cues: tuple[Cue, ...], start_s: float, channels: int = 3) -> UInt8:
    """Frames [3, 64, 96, channels] of 40 ms from start_s on, with cues burned into gray frames."""
    folder.mkdir(exist_ok=True)
    write_ass(folder / "captions.ass", cues, (96, 64))
    frame = np.full((64, 96, channels), 90, np.uint8)
    frame[..., 3:] = 0
    captions = Captions(folder / "captions.ass", FONTS_DIR, start_s)
    path = folder / f"out{start_s}.mov"
    media.write_video(path, [frame] * 3, codec="png", captions=captions)
    assert media.probe(path).duration_s == pytest.approx(0.12, abs=0.011)
    return np.stack(list(media.read_frames(path)))


ODD_FOLDERS = [
    "plain", "it's a [test], 100% ü: #1; \\o=o", "a\nb", "',drawtext=text=x", "\\'\\", "%{pts};[in]",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_FOLDERS)
def test_burning_in_changes_pixels_while_the_cue_lasts(tmp_path: Path, name: str) -> None:
    cues = (Cue(1.0, 10.06, "Ελλάδα Ж"),)
    before, during = burned(tmp_path / name, cues, 0.9), burned(tmp_path / name, cues, 10.0)
    assert (before[:2] == 90).all()
    changed = (during != 90).any(axis=(2, 3))  # [frames, rows]
    assert changed[0].any() and changed[1].any() and not changed[2].any()
    assert not changed[:, :40].any()  # at the bottom
    assert during[0].max() > 180  # white letters


def test_burned_letters_are_opaque_on_a_transparent_head(tmp_path: Path) -> None:
    folder = tmp_path
    burned(folder, (Cue(0.0, 1.0, "HELLO"),), 0.0, channels=4)
    command = [
        media.ffmpeg_path(),
        "-v",
        "error",
        "-i",
        str(folder / "out0.0.mov"),
        "-f",
        "rawvideo",
    ]
    raw = subprocess.run([*command, "-pix_fmt", "rgba", "-"], capture_output=True, check=True)
    alpha = np.frombuffer(raw.stdout, np.uint8).reshape(3, 64, 96, 4)[0, ..., 3]
    assert alpha.max() > 240 and not alpha[:40].any()


def test_markup_in_a_text_is_text(tmp_path: Path) -> None:
    plain = burned(tmp_path, (Cue(0, 1, "a b"),), 0.0)
    for text in ("{\\b1}a b", "a\\Nb", "{a b}"):
        assert not np.array_equal(burned(tmp_path, (Cue(0, 1, text),), 0.0), plain)


def test_the_font_has_the_documented_letters(tmp_path: Path) -> None:
    tools = pytest.importorskip("fontTools.ttLib")
    held = set(tools.TTFont(FONTS_DIR / "NotoSans-Bold.ttf").getBestCmap())
    for text in (
        "Ærøskøbing, naïve œuvre",
        "Ξεσκεπάζω τὴν ψυχοφθόρα",
        "Съешь же ещё ђ ґ ў",
        "„“”‘’–—…€«»№",
    ):
        assert all(any(a <= ord(c) <= b for a, b in COVERED) for c in text)
        assert {ord(c) for c in text} <= held
    assert (FONTS_DIR / "OFL.txt").read_text().count("SIL OPEN FONT LICENSE") == 1
    with pytest.raises(TalkheadError, match=r"has no 你 好 .* Choose --subtitles track or srt"):
        write_ass(tmp_path / "a.ass", (Cue(0, 1, "你好"),), (64, 64))


def test_lines_are_as_wide_as_the_picture_allows() -> None:
    assert line_chars((1920, 1080)) == line_chars((854, 480)) == 42
    assert 24 <= line_chars((512, 512)) < 42
    assert line_chars((405, 720)) == line_chars((810, 1440))


def test_silence_has_no_subtitles(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx")
    silence = tmp_path / "silence.wav"
    scipy.io.wavfile.write(silence, 16_000, np.zeros(16_000, np.float32))
    made = prepare_subtitles(silence, OutputOptions(subtitles="burn"), tmp_path, (64, 64), 1.0)
    assert made is not None and made.note == subtitles.NOTHING_SAID
    assert made.srt.read_bytes() == b"" and made.captions is not None
    media.write_video(
        tmp_path / "a.mp4", [np.zeros((64, 64, 3), np.uint8)] * 2, captions=made.captions
    )


def test_subtitles_of_a_line_are_made_once(tmp_path: Path) -> None:
    assert prepare_subtitles(LINE, OutputOptions(), tmp_path, (64, 64), 5.96) is None
    options = OutputOptions(subtitles="burn", transcript=TEXT, language="fr")
    made = prepare_subtitles(LINE, options, tmp_path, (64, 64), 5.0)
    assert made is not None and made.captions is not None and made.note
    assert read_srt(made.srt)[-1].end_s <= 5.0
    content = made.srt.read_bytes()
    again = prepare_subtitles(tmp_path / "gone.wav", options, tmp_path, (64, 64), 5.0)
    assert again is not None and again.srt.read_bytes() == content
