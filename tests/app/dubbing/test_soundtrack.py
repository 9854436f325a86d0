"""The sound of a dubbed video: samples, levels and damaged inputs, with tones as lines."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.io.wavfile

from talkhead import media
from talkhead.app.dubbing import soundtrack
from talkhead.app.dubbing.line_planner import PlacementLimits, plan_lines
from talkhead.app.dubbing.soundtrack import (
    MAX_TRUE_PEAK_DB,
    SOUND_RATE,
    SPEECH_LUFS,
    SoundMix,
    ducking,
    mix_over_bed,
    mix_over_original,
    speech_duration,
    write_soundtrack,
)
from talkhead.app.dubbing.timeline import Line, Timeline
from talkhead.errors import MediaError, TalkheadError
from talkhead.media.codecs import CODECS
from talkhead.media.loudness import measure_program
from talkhead.media.mux import mux, sound_source
from talkhead.types import Float32

LENGTH_S = 12.25
FADE = round(soundtrack.FADE_S * SOUND_RATE)


def tone(frequency: float, duration_s: float, level: float, rate: int = SOUND_RATE) -> Float32:
    moments = np.arange(round(duration_s * rate)) / rate
    return np.asarray(level * np.cos(2 * np.pi * frequency * moments), np.float32)


def wav(path: Path, samples: Float32, rate: int = SOUND_RATE) -> Path:
    scipy.io.wavfile.write(path, rate, samples)
    return path


def noise(duration_s: float, level: float, channels: int = 2) -> Float32:
    shape = (round(duration_s * SOUND_RATE), channels)
    return np.random.default_rng(0).uniform(-level, level, shape).astype(np.float32).squeeze()


def timeline(
    *lines: tuple[Path, float, float], length_s: float = LENGTH_S, **limits: object
) -> Timeline:
    """Files with the start and end of their places."""
    made = [Line(i, start, end, audio=path) for i, (path, start, end) in enumerate(lines, 1)]
    durations = [speech_duration(path) for path, _, _ in lines]
    return plan_lines(made, durations, length_s, PlacementLimits(**limits))  # type: ignore[arg-type]


def mixed(folder: Path, plan: Timeline, mix: SoundMix) -> Float32:
    """Write a sound track and read it, [n] or [n, 2]."""
    path = folder / "out.flac"
    write_soundtrack(path, plan, mix)
    stereo = media.probe(path).audio_channels == 2
    return np.concatenate(list(media.read_audio_chunks(path, SOUND_RATE, stereo=stereo)))


def test_lines_are_where_they_are_planned_to_the_sample(tmp_path: Path) -> None:
    """Also across blocks of 5 s, at times between samples, and at another sample rate."""
    a = wav(tmp_path / "a.wav", tone(1000, 1.0, 0.2))
    b = wav(tmp_path / "b.wav", tone(300, 2.5, 0.05, 16_000), 16_000)
    plan = timeline((a, 1.234567, 3.0), (b, 3.9, 7.0))
    sound = mixed(tmp_path, plan, SoundMix())
    assert len(sound) == round(LENGTH_S * SOUND_RATE)
    first, second = (
        slice(round(p.start_s * SOUND_RATE), round(p.end_s * SOUND_RATE)) for p in plan.placements
    )
    assert (first.start, second.start) == (round(1.234567 * SOUND_RATE), round(3.9 * SOUND_RATE))
    assert (first.stop - first.start, second.stop - second.start) == (48_000, 120_000)
    outside = np.ones(len(sound), bool)
    outside[first] = outside[second] = False
    assert not sound[outside].any()
    # Between the fades, the samples are those of the file, times one gain.
    given, heard = media.read_audio(a, SOUND_RATE)[FADE:-FADE], sound[first][FADE:-FADE]
    gain = float(given.astype(float) @ heard / (given.astype(float) @ given))
    assert np.abs(heard - gain * given).max() < 1e-6
    for part in (sound[first], sound[second]):  # faded in and out
        assert abs(part[0]) == 0.0 and abs(part[-1]) < 1e-3
        assert 0.4 < np.abs(part[:FADE]).max() / np.abs(part).max() <= 1.0


def test_there_are_no_clicks(tmp_path: Path) -> None:
    """No step from sample to sample is larger than those of the tone itself."""
    a = wav(tmp_path / "a.wav", tone(200, 1.0, 0.5))
    sound = mixed(tmp_path, timeline((a, 1.0, 2.0), (a, 2.0, 3.0), (a, 4.8, 5.8)), SoundMix())
    steps = np.abs(np.diff(sound))
    assert steps.max() <= 1.1 * np.abs(sound).max() * 2 * np.pi * 200 / SOUND_RATE


@pytest.mark.parametrize("channels", [1, 2])
def test_lines_have_one_loudness(tmp_path: Path, channels: int) -> None:
    """Soft, loud and sped up, over a bed of one or two channels that is silent."""
    paths = [
        wav(tmp_path / f"{i}.wav", tone(1000, 3.0, level)) for i, level in enumerate([0.9, 0.01])
    ]
    bed = wav(tmp_path / "bed.wav", 0 * noise(1.0, 0.1, channels))
    lines = (paths[0], 0.0, 3.0), (paths[1], 3.5, 6.0), (paths[1], 6.3, 9.3)
    plan = timeline(*lines, max_early_s=0.0)
    assert [one.speed > 1.0 for one in plan.placements] == [False, True, False]
    sound = mixed(tmp_path, plan, SoundMix(bed))
    assert sound.ndim == channels
    for one in plan.placements:
        part = sound[round(one.start_s * SOUND_RATE) : round(one.end_s * SOUND_RATE)]
        measured = measure_program(wav(tmp_path / "part.wav", part))
        assert measured.integrated_lufs == pytest.approx(SPEECH_LUFS, abs=0.3)


def test_a_stretched_line_has_its_planned_length_and_pitch(tmp_path: Path) -> None:
    a = wav(tmp_path / "a.wav", tone(220, 3.0, 0.2))
    plan = timeline((a, 0.0, 2.7), (a, 2.7, 6.0))
    one = plan.placements[0]
    assert one.speed == pytest.approx(3.0 / 2.7)
    sound = mixed(tmp_path, replace(plan, placements=(one,)), SoundMix())
    n_planned = round(2.7 * SOUND_RATE)
    assert not sound[n_planned:].any() and sound[n_planned - 50 : n_planned].any()
    middle = sound[SOUND_RATE // 2 : 2 * SOUND_RATE]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 1 << 19))
    assert spectrum.argmax() * SOUND_RATE / (1 << 19) == pytest.approx(220, rel=0.01)


def test_lines_of_two_speakers_can_be_heard_together(tmp_path: Path) -> None:
    a, b = (wav(tmp_path / f"{f}.wav", tone(f, 2.0, 0.2)) for f in (400, 900))
    lines = [Line(1, 1.0, 3.0, "Anna", a), Line(2, 2.0, 4.0, "Ben", b)]
    plan = plan_lines(lines, [2.0, 2.0], LENGTH_S, PlacementLimits(overlaps=True))
    both = mixed(tmp_path, plan, SoundMix())
    alone = [
        mixed(tmp_path, replace(plan, placements=(one,)), SoundMix()) for one in plan.placements
    ]
    assert np.abs(both - sum(alone)).max() < 1e-6


# ---------------------------------------------------------------------------- the bed


def test_the_bed_is_unchanged_away_from_lines_and_ducked_under_them(tmp_path: Path) -> None:
    bed = wav(tmp_path / "bed.wav", noise(LENGTH_S, 0.1))
    a = wav(tmp_path / "a.wav", tone(1000, 2.0, 0.2))
    mix = SoundMix(bed, 12.0, speech_lufs=-60.0)
    plan = timeline((a, 4.0, 6.0))
    sound = mixed(tmp_path, plan, mix)
    given = media.read_audio(bed, SOUND_RATE)  # the mean of its channels
    before, after = round((4.0 - 0.08) * SOUND_RATE), round((6.0 + 0.4) * SOUND_RATE)
    stereo = np.concatenate(list(media.read_audio_chunks(bed, SOUND_RATE, stereo=True)))
    assert np.abs(sound[:before] - stereo[:before]).max() <= 2**-23
    assert np.abs(sound[after:-FADE] - stereo[after:-FADE]).max() <= 2**-23
    during = slice(4 * SOUND_RATE, 6 * SOUND_RATE)
    ratio = float(sound[during].mean(1) @ given[during] / (given[during] @ given[during]))
    assert ratio == pytest.approx(10 ** (-12 / 20), rel=0.02)


def test_ducking_is_complete_when_a_line_begins(tmp_path: Path) -> None:
    a = wav(tmp_path / "a.wav", tone(1000, 1.0, 0.2))
    placements = timeline((a, 2.0, 3.0), (a, 3.2, 4.2)).placements
    mix = SoundMix(duck_db=12.0)
    gains = ducking(placements, mix, 0, 6 * SOUND_RATE)

    def level_db(time_s: float) -> float:
        return float(20 * np.log10(gains[round(time_s * SOUND_RATE)]))

    assert level_db(1.91) == 0.0 and level_db(2.0) == pytest.approx(-12.0)
    assert level_db(1.96) == pytest.approx(-6.0, abs=0.01)  # halfway, linear in dB
    assert level_db(2.99) == level_db(4.19) == pytest.approx(-12.0)
    assert level_db(3.1) == pytest.approx(-9.0, abs=0.01)  # the pause is too short to recover
    assert level_db(4.4) == pytest.approx(-6.0, abs=0.01) and level_db(4.61) == 0.0
    assert np.abs(np.diff(20 * np.log10(gains))).max() < 12.1 / (0.08 * SOUND_RATE)
    # Blocks do not matter, and neither do ramps without length.
    edges = [0, 100_001, 100_002, 200_000, 6 * SOUND_RATE]
    parts = [ducking(placements, mix, a, b) for a, b in pairwise(edges)]
    assert np.array_equal(np.concatenate(parts), gains)
    hard = ducking(placements, replace(mix, attack_s=0.0, release_s=0.0), 0, 6 * SOUND_RATE)
    assert hard[round(1.99 * SOUND_RATE)] == 1.0 and hard[2 * SOUND_RATE] < 0.26


@pytest.mark.parametrize("duration_s", [5.0, 7.5, 10.0, 30.0])
def test_a_bed_that_ends_fades_out(tmp_path: Path, duration_s: float) -> None:
    """A bed may end between blocks or within one; silence follows. A longer one ends with the video."""
    bed = wav(tmp_path / "bed.wav", tone(200, duration_s, 0.3))
    sound = mixed(tmp_path, Timeline(LENGTH_S, ()), SoundMix(bed))
    end = min(len(sound), round(duration_s * SOUND_RATE))
    assert len(sound) == round(LENGTH_S * SOUND_RATE) and not sound[end:].any()
    kept = slice(0, end - FADE)
    assert np.abs(sound[kept] - media.read_audio(bed, SOUND_RATE)[kept]).max() <= 2**-23
    assert abs(sound[end - 1]) < 1e-4


def test_levels_of_the_two_kinds_of_bed(tmp_path: Path) -> None:
    loud, soft = (wav(tmp_path / f"{level}.wav", tone(1000, 2.0, level)) for level in (0.5, 0.005))
    loud_lufs, soft_lufs = (measure_program(path, 1).integrated_lufs for path in (loud, soft))
    assert soft_lufs < SPEECH_LUFS < loud_lufs
    # Speech replaces the original at its level, and is never softer than music.
    assert mix_over_original(soft) == SoundMix(soft, 12.0, speech_lufs=soft_lufs)
    assert mix_over_bed(soft) == SoundMix(soft, 4.0, speech_lufs=SPEECH_LUFS)
    assert mix_over_bed(loud) == SoundMix(loud, 4.0, speech_lufs=loud_lufs)
    silent = wav(tmp_path / "silent.wav", np.zeros(SOUND_RATE, np.float32))
    assert mix_over_original(silent).speech_lufs == SPEECH_LUFS
    video = tmp_path / "mute.mp4"
    media.write_video(video, [np.zeros((16, 16, 3), np.uint8)] * 5)
    assert mix_over_original(video) == SoundMix()
    with pytest.raises(MediaError, match=r"mute\.mp4: has no sound"):
        mix_over_bed(video)


def test_the_true_peak_is_limited_and_the_balance_kept(tmp_path: Path) -> None:
    bed = wav(tmp_path / "bed.wav", tone(12_000, LENGTH_S, 0.98))
    a = wav(tmp_path / "a.wav", tone(1000, 2.0, 0.2))
    told = write_soundtrack(
        tmp_path / "a.wav.flac", timeline((a, 4.0, 6.0)), SoundMix(bed, 4.0, speech_lufs=-8.0)
    )
    measured = measure_program(tmp_path / "a.wav.flac")
    assert MAX_TRUE_PEAK_DB - 0.2 <= measured.true_peak_db <= MAX_TRUE_PEAK_DB
    assert told.integrated_lufs == pytest.approx(measured.integrated_lufs, abs=0.1)


# ---------------------------------------------------------------------------- the file


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    bed, a = (wav(tmp_path / f"{n}.wav", noise(n, 0.2)) for n in (8, 2))
    plan = timeline((a, 1.0, 2.8), (a, 2.9, 5.0), max_early_s=0.0)
    assert plan.placements[0].speed > 1.0
    for name in ("1.flac", "2.flac"):
        write_soundtrack(tmp_path / name, plan, mix_over_original(bed))
    assert (tmp_path / "1.flac").read_bytes() == (tmp_path / "2.flac").read_bytes()


def test_memory_does_not_grow_with_the_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines are read when they are due, and blocks are written one after the other."""
    a = wav(tmp_path / "a.wav", tone(1000, 1.0, 0.2))
    plan = timeline((a, 1.0, 2.0), (a, 30.0, 31.0), (a, 55.0, 56.0), length_s=60.0)
    read: list[float] = []
    speech = soundtrack._speech
    monkeypatch.setattr(
        soundtrack, "_speech", lambda p, level: (read.append(p.start_s), speech(p, level))[1]
    )
    with closing(soundtrack._blocks(plan, SoundMix(), 1)) as blocks:
        assert [[*read] for _ in blocks] == [[1.0]] * 6 + [[1.0, 30.0]] * 5 + [[1.0, 30.0, 55.0]]


def test_the_muxer_takes_the_sound(tmp_path: Path) -> None:
    a = wav(tmp_path / "a.wav", tone(1000, 1.0, 0.2))
    write_soundtrack(tmp_path / "a.flac", timeline((a, 0.5, 1.5), length_s=2.0), SoundMix())
    picture = tmp_path / "picture.mp4"
    media.write_video(picture, [np.zeros((16, 16, 3), np.uint8)] * 50)
    sound = sound_source(tmp_path / "a.flac")
    assert (sound.duration_s, sound.audio_rate) == (2.0, SOUND_RATE)
    mux(picture, tmp_path / "a.mp4", CODECS["h264"], 2.0, sound=sound)
    heard = np.abs(media.read_audio(tmp_path / "a.mp4", SOUND_RATE))
    assert heard[int(0.6 * SOUND_RATE) : int(1.4 * SOUND_RATE)].max() > 0.05
    assert heard[: int(0.49 * SOUND_RATE)].max() < 0.005


def test_inputs_that_are_refused(tmp_path: Path) -> None:
    silent = wav(tmp_path / "silent.wav", np.zeros(SOUND_RATE, np.float32))
    with pytest.raises(MediaError, match=r"silent\.wav: is silent\. Pass a recording"):
        speech_duration(silent)
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(MediaError, match=r"text\.wav: is not a video or audio file"):
        speech_duration(tmp_path / "text.wav")
    a = wav(tmp_path / "a.wav", tone(1000, 3.0, 0.2))
    plan = timeline((a, 0.0, 1.0), (a, 1.0, 4.0))
    with pytest.raises(TalkheadError, match="1 of 2 lines do not fit"):
        write_soundtrack(tmp_path / "a.flac", plan, SoundMix())
    with pytest.raises(ValueError, match="line 7 has no audio"):
        text = plan_lines([Line(7, 0.0, 1.0, text="Hi")], [1.0], LENGTH_S)
        write_soundtrack(tmp_path / "a.flac", text, SoundMix())
    plan = timeline((a, 0.0, 3.0))
    a.write_bytes(a.read_bytes()[:20])  # damaged after it was measured
    with pytest.raises(MediaError, match=r"a\.wav"):
        write_soundtrack(tmp_path / "a.flac", plan, SoundMix())
    assert not (tmp_path / "a.flac").exists()
