"""What is heard of a stretch, and parts of it."""

from __future__ import annotations

import numpy as np
import pytest

from talkhead.app.evaluation import sound
from talkhead.app.evaluation.judge import MAX_LAG
from talkhead.app.evaluation.sound import excerpt, hear
from talkhead.app.evaluation.takes import Sound
from talkhead.audio import silence_of_video
from talkhead.encoder.phonemes import Phone
from talkhead.types import Float32

N = 100  # frames
HOP = 640


def speech(n_frames: int = N) -> Float32:
    """Noise in the frames 30 to 60, next to nothing elsewhere."""
    rng = np.random.default_rng(0)
    level = np.full(n_frames, 1e-4)
    level[30:60] = 0.3
    return (rng.standard_normal(n_frames * HOP) * np.repeat(level, HOP)).astype(np.float32)


@pytest.fixture
def no_recogniser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound, "why_no_phones", lambda: "not installed")


def test_silence_of_a_video_s_frames() -> None:
    silent = silence_of_video(speech(), N + 10)
    assert not silent[32:58].any() and silent[:25].all() and silent[65:].all()
    assert len(silent) == N + 10
    assert silence_of_video(speech()[:0], 5).all()


def test_nobody_speaks() -> None:
    heard = hear(np.zeros(N * HOP, np.float32), N, name="mute.mp4")
    assert heard.sound is None and heard.left_out == (
        "mute.mp4: phonemes and sync: no speech is heard",
    )
    assert hear(np.zeros(0, np.float32), N).sound is None


@pytest.mark.usefixtures("no_recogniser")
def test_without_a_recogniser_pase_hears_the_phones() -> None:
    heard = hear(speech(), N)
    assert heard.sound is not None and heard.sound.phones
    assert heard.sound.phones[0].start_s == 0.0
    assert heard.sound.phones[-1].end_s == pytest.approx(N / 25)
    assert heard.left_out[0].startswith("phonemes: not installed. They are those that PASE hears")
    assert len(heard.sound.silent) == N and len(heard.sound.waveform) == N * HOP


def test_so_it_does_in_other_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound, "why_no_phones", lambda: "")
    heard = hear(speech(), N, language="fr")
    assert heard.sound is not None and heard.sound.phones
    assert "'fr'" in heard.left_out[0] and "PASE" in heard.left_out[0]
    quick = hear(speech(), N, phones=False)
    assert quick.sound is not None and quick.left_out == ()


def test_phones_are_decoded_or_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound, "why_no_phones", lambda: "")
    monkeypatch.setattr(sound, "decode_phones", lambda waveform: [Phone("P", 0, 1)])
    monkeypatch.setattr(sound, "align_phones", lambda waveform, text: [Phone(text, 0, 1)])
    plain, said = hear(speech(), N).sound, hear(speech(), N, text="B").sound
    assert plain is not None and plain.phones == [Phone("P", 0, 1)]
    assert said is not None and said.phones == [Phone("B", 0, 1)]


def test_a_part_has_its_own_times_and_sound_around_it() -> None:
    waveform = np.repeat(np.arange(N, dtype=np.float32), HOP)
    phones = [Phone("P", 0.9, 1.1), Phone("AA", 1.2, 1.36), Phone("B", 2.3, 2.5)]
    whole = Sound(waveform, np.arange(N) % 2 == 0, phones)
    part = excerpt(whole, 28, 32)
    assert part.lead == MAX_LAG and part.waveform[0] == 28 - MAX_LAG
    assert part.waveform[-1] == 28 + 32 + MAX_LAG - 1
    assert part.silent[0] and len(part.silent) == 32
    assert part.phones is not None and [phone.label for phone in part.phones] == ["AA"]
    assert part.phones[0].start_s == pytest.approx(1.2 - 28 / 25)
    beginning = excerpt(whole, 3, 10)
    assert beginning.lead == 3 and beginning.waveform[0] == 0
    for first, n_frames in ((-1, 10), (95, 10)):
        with pytest.raises(ValueError, match="of 100"):
            excerpt(whole, first, n_frames)
