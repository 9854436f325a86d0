"""The live engine on a virtual clock, with a fake person: clocks, lines, interruptions, bad sound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from live_fakes import RATE, REST, SIZE, FakeSpeech, make_engine

from talkhead.app.live import frames as module
from talkhead.app.live.engine import BLEND_FRAMES, CLOSING_FRAMES, STALE_S, LiveEngine
from talkhead.app.live.frames import FRAME_S, LiveFrame
from talkhead.app.live.options import LEAD_S
from talkhead.errors import TalkheadError
from talkhead.types import Float32


def loud(n_frames: float, level: float = 0.5) -> Float32:
    return np.full(round(n_frames * SIZE), level, np.float32)


def run(engine: LiveEngine, start_s: float, stop_s: float, step_s: float = 0.002) -> list[Any]:
    """Frames with the time at which they were returned."""
    frames = []
    for tick in range(round((stop_s - start_s) / step_s)):
        now_s = start_s + tick * step_s
        while (frame := engine.step(now_s)) is not None:
            frames.append((now_s, frame))
    return frames


def audio_of(frames: list[tuple[float, LiveFrame]]) -> Float32:
    return np.concatenate([frame.audio for _, frame in frames]).astype(np.float32) / 32767.0


def test_idle_frames_are_25_a_second_with_silence() -> None:
    engine, pictures = make_engine()
    frames = run(engine, 100.0, 102.0)
    assert len(frames) == 50
    assert [frame.index for _, frame in frames] == list(range(50))
    assert not any(frame.is_speech or frame.audio.any() for _, frame in frames)
    assert all(len(frame.audio) == SIZE for _, frame in frames)
    assert all(np.array_equal(code, REST) for code in pictures.codes)
    times = np.array([now for now, _ in frames])
    assert np.abs(times - (100.0 + np.arange(50) * FRAME_S)).max() < 0.0021


def test_a_burst_is_spoken_whole_and_in_time() -> None:
    engine, pictures = make_engine()
    run(engine, 0.0, 1.0)
    sound = np.random.default_rng(0).uniform(-0.9, 0.9, 20 * SIZE - 100).astype(np.float32)
    engine.push(sound, RATE, 1.0)
    engine.flush()
    frames = run(engine, 1.0, 3.0)
    spoken = [one for one in frames if one[1].is_speech]
    assert len(spoken) == 20
    assert [frame.end_of_speech for _, frame in spoken] == [False] * 19 + [True]
    np.testing.assert_allclose(audio_of(spoken)[: len(sound)], sound, atol=1e-4)
    assert not audio_of(spoken)[len(sound) :].any()
    # Nothing is given out more than LEAD_S before its time.
    for now_s, frame in frames:
        assert now_s >= frame.time_s - LEAD_S - 1e-6
    # The picture of a frame is that of its own sound.
    for index, (_, frame) in enumerate(spoken):
        expected = np.abs(sound[index * SIZE : (index + 1) * SIZE]).max()
        if index >= BLEND_FRAMES:
            assert pictures.codes[frame.index][0] == pytest.approx(expected, abs=1e-6)


def test_sound_in_real_time_is_shown_after_the_lookahead() -> None:
    engine, _ = make_engine(pace="arrival")
    frames: list[tuple[float, LiveFrame]] = []
    for tick in range(200):  # 10 ms of sound every 10 ms
        now_s = tick * 0.01
        engine.push(loud(0.25, 0.001 * (tick // 4 + 1)), RATE, now_s)
        while (frame := engine.step(now_s)) is not None:
            frames.append((now_s, frame))
    spoken = [(now, frame) for now, frame in frames if frame.is_speech]
    assert len(spoken) == 48  # of 50: two are waited for
    levels = [round(1000 * int(frame.audio.max()) / 32767) for _, frame in spoken]
    assert levels == list(range(1, 49))  # nothing is lost or repeated
    latencies = [now - (index + 1) * FRAME_S for index, (now, _) in enumerate(spoken)]
    assert max(latencies) <= FakeSpeech.ahead * FRAME_S + 0.011


def test_interruption_drops_sound_and_closes_the_mouth() -> None:
    engine, pictures = make_engine()
    engine.push(loud(100), RATE, 0.0)
    before = run(engine, 0.0, 1.0)
    assert engine.interrupt() == 1
    after = run(engine, 1.0, 2.0)
    assert before[-1][1].epoch == 0
    assert {frame.epoch for _, frame in after} == {1}
    assert not audio_of(after).any()
    codes = np.array(pictures.codes[len(before) :])[:, 0]
    assert (codes[CLOSING_FRAMES:] == 0.0).all()
    # At once, although frames were given out ahead: the player drops those.
    assert after[CLOSING_FRAMES][0] - 1.0 <= CLOSING_FRAMES * FRAME_S + 0.003
    steps = np.diff(np.concatenate([[0.5], codes[: CLOSING_FRAMES + 1]]))
    assert (steps <= 0).all()
    assert np.abs(steps).max() < 0.2  # it does not jump


def test_a_line_after_an_interruption_is_whole() -> None:
    engine, _ = make_engine()
    engine.push(loud(50), RATE, 0.0)
    run(engine, 0.0, 0.5)
    engine.interrupt()
    engine.push(loud(10, 0.25), RATE, 0.5)
    engine.flush()
    spoken = [one for one in run(engine, 0.5, 2.0) if one[1].is_speech]
    assert len(spoken) == 10
    np.testing.assert_allclose(audio_of(spoken), 0.25, atol=1e-4)


def test_motion_is_continuous_where_a_line_begins_and_ends() -> None:
    engine, pictures = make_engine()
    run(engine, 0.0, 0.5)
    engine.push(loud(20, 0.9), RATE, 0.5)
    engine.flush()
    run(engine, 0.5, 2.5)
    codes = np.array(pictures.codes)[:, 0]
    assert codes.max() == pytest.approx(0.9)
    assert np.abs(np.diff(codes)).max() <= 0.9 / (BLEND_FRAMES + 1) + 1e-6


def test_a_gap_in_a_line_is_silence_and_nothing_is_lost() -> None:
    engine, _ = make_engine()
    engine.push(loud(10, 0.3), RATE, 0.0)
    first = run(engine, 0.0, 2.0)
    engine.push(loud(10, 0.3), RATE, 2.0)
    engine.flush()
    frames = first + run(engine, 2.0, 4.0)
    spoken = [frame for _, frame in frames if frame.is_speech]
    assert len(spoken) == 20
    assert abs(len(frames) - 100) <= LEAD_S / FRAME_S + 1


def test_two_lines_are_spoken_one_after_the_other() -> None:
    engine, _ = make_engine()
    for level in (0.2, 0.4):
        engine.push(loud(5, level), RATE, 0.0)
        engine.flush()
    frames = [frame for _, frame in run(engine, 0.0, 1.0) if frame.is_speech]
    assert [frame.end_of_speech for frame in frames] == ([False] * 4 + [True]) * 2
    levels = [round(float(frame.audio.max()) / 32767, 2) for frame in frames]
    assert levels == [0.2] * 5 + [0.4] * 5


@pytest.mark.parametrize("size", [1, 37, 441, 100_000])
def test_pieces_of_any_size_and_rate_give_the_same_sound(size: int) -> None:
    engine, _ = make_engine()
    sound = np.sin(np.arange(22_050) * 0.05).astype(np.float32) * 0.5
    for at in range(0, min(len(sound), 3000 if size == 1 else len(sound)), size):
        engine.push(sound[at : at + size], 22_050, 0.0)
    engine.flush()
    n = 3000 if size == 1 else 22_050
    spoken = [one for one in run(engine, 0.0, 2.0) if one[1].is_speech]
    found = audio_of(spoken)
    times = np.arange(round(n * RATE / 22_050) - 300) / RATE
    expected = 0.5 * np.sin(times * 22_050 * 0.05)
    np.testing.assert_allclose(found[150 : len(times)], expected[150:], atol=0.01)


def test_pictures_repeat_when_rendering_is_too_slow_but_sound_does_not() -> None:
    engine, pictures = make_engine()
    engine.push(loud(50), RATE, 0.0)
    engine.flush()
    frames = []
    now_s = 0.0
    while len(frames) < 50:
        n_rendered = len(pictures.codes)
        frame = engine.step(now_s)
        if frame is not None:
            frames.append(frame)
            now_s += 0.15 if len(pictures.codes) > n_rendered else 0.0  # a slow renderer
        else:
            now_s += 0.005
    assert engine.statistics.n_repeated > 10
    sound = np.concatenate([frame.audio for frame in frames])
    assert (sound != 0).all()
    assert len(sound) == 50 * SIZE


class SlowSpeech(FakeSpeech):
    """Takes time on a virtual clock for each frame of sound that it encodes."""

    def __init__(self, clock: list[float], cost_s: float) -> None:
        super().__init__()
        self.clock, self.cost_s = clock, cost_s

    def push(self, samples: Float32) -> Float32:
        self.clock[0] += self.cost_s * len(samples) / SIZE
        return super().push(samples)


def talk(
    pace: str, cost_s: float, encoding_s: float = 0.0, seconds: float = 8.0
) -> tuple[list[float], LiveEngine]:
    """Speak in real time to an engine that takes time for every frame, repeated or not, and to encode.

    Returns how long after the beginning of its sound each frame of speech was returned, and the engine.
    """
    clock, ages, n_pushed = [0.0], [], 0
    engine, _ = make_engine(speech=lambda pace: SlowSpeech(clock, encoding_s), pace=pace)
    while clock[0] < seconds:
        while n_pushed * FRAME_S <= clock[0]:
            engine.push(loud(1, 0.002 * (n_pushed + 1)), RATE, n_pushed * FRAME_S)
            n_pushed += 1
        frame = engine.step(clock[0])
        clock[0] += 0.005 if frame is None else cost_s
        if frame is not None and frame.is_speech:
            number = round(float(frame.audio.max()) / 32767 / 0.002) - 1
            ages.append(clock[0] - number * FRAME_S)
    return ages, engine


def test_a_microphone_does_not_fall_behind_on_an_overloaded_machine() -> None:
    ages, engine = talk("arrival", 0.1)  # 10 frames a second
    assert max(ages) < STALE_S + 2 * 0.1 + 2 * FRAME_S  # its own limit, and the frame being made
    assert engine.statistics.n_dropped == pytest.approx(8.0 * (25 - 10), rel=0.2)
    # Pictures are repeated before sound is left out, but the face moves.
    assert 0.7 * len(ages) < engine.statistics.n_repeated < 0.9 * len(ages)


def test_sound_is_left_out_before_it_is_encoded() -> None:
    """Encoding alone takes longer than the sound: 16 frames a second of 25 can be said."""
    ages, _ = talk("arrival", 0.002, encoding_s=0.06)
    assert max(ages) < 1.5 and np.median(ages) < 0.8
    assert len(ages) > 0.7 * 8.0 / 0.062  # little is encoded in vain


def test_sound_that_is_left_out_does_not_shift_the_rest() -> None:
    """The picture of a frame is that of its own sound, also after frames were left out."""
    clock = [0.0]
    engine, pictures = make_engine(
        speech=lambda pace: SlowSpeech(clock, 0.06), pace="arrival", sample_rate=2 * RATE
    )
    shown = []
    for number in range(200):
        engine.push(loud(1, 0.002 * (number + 1)), RATE, number * FRAME_S)
        while clock[0] <= number * FRAME_S:
            n_rendered = len(pictures.codes)
            frame = engine.step(clock[0])
            clock[0] += 0.002
            if frame is not None and frame.is_speech and len(pictures.codes) > n_rendered:
                shown.append((pictures.codes[-1][0], float(np.median(frame.audio)) / 32767))
    assert engine.statistics.n_dropped > 20 and len(shown) > 10
    assert np.abs(np.diff(np.array(shown), axis=1)).max() < 0.07  # blends; all sound spans 0.4
    assert np.median(np.abs(np.diff(np.array(shown), axis=1))) < 0.01


class FarSpeech(FakeSpeech):
    ahead = 6


def test_the_mouth_comes_to_rest_when_a_microphone_is_silent_with_sound_held_back() -> None:
    """What the look-ahead holds back is old then, but nothing is left to be left out."""
    engine, pictures = make_engine(speech=lambda pace: FarSpeech(), pace="arrival")
    engine.push(loud(20), RATE, 0.0)
    frames = [engine.step(0.1 * number) for number in range(30)]  # a slow player
    n_idle = sum(frame is not None and not frame.is_speech for frame in frames)
    assert engine.statistics.n_dropped > 5 and n_idle > 10
    idle = np.array(pictures.codes[-n_idle:])[:, 0]
    assert idle[0] > 0.2
    assert not idle[BLEND_FRAMES:].any()


def test_sound_is_complete_while_the_machine_is_fast_enough() -> None:
    ages, engine = talk("arrival", 0.036)
    assert max(ages) < 0.25 and engine.statistics.n_dropped == 0


def test_a_pause_of_the_network_loses_no_sound() -> None:
    """Two seconds arrive at once, late: they have not waited here."""
    engine, _ = make_engine(pace="arrival")
    engine.push(loud(25), RATE, 0.0)
    run(engine, 0.0, 3.0)
    engine.push(loud(50), RATE, 3.0)
    engine.flush()
    run(engine, 3.0, 5.5)
    assert (engine.statistics.n_speech, engine.statistics.n_dropped) == (75, 0)


def test_synthetic_speech_is_never_left_out() -> None:
    ages, engine = talk("playback", 0.1)
    assert engine.statistics.n_dropped == 0
    assert max(ages) > 3.0  # it is late instead


def test_sound_and_pictures_stay_together_for_half_an_hour() -> None:
    engine, _ = make_engine()
    random = np.random.default_rng(3)
    n_pushed = n_spoken = 0
    now_s, end_s, next_push = 0.0, 1800.0, 0.0
    n_frames = 0
    while now_s < end_s:
        if now_s >= next_push:
            n = int(random.integers(1, 120))
            engine.push(loud(n), RATE, now_s)
            n_pushed += n
            if random.random() < 0.8:
                engine.flush()
            next_push = now_s + n * FRAME_S + random.uniform(0.0, 3.0)
        frame = engine.step(now_s)
        if frame is None:
            now_s += max(engine.wait_s(now_s), 0.001)
            continue
        n_frames += 1
        n_spoken += frame.is_speech
        assert abs(now_s - frame.time_s) <= LEAD_S + 0.02
    assert n_frames == pytest.approx(1800 * 25, abs=LEAD_S / FRAME_S + 2)
    assert n_pushed - 240 <= n_spoken <= n_pushed
    assert engine.statistics.n_repeated == 0


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.array([0.1, np.nan], np.float32), RATE, "not numbers"),
        (loud(1), 100, "sample rate of 100"),
        (loud(1), 1_000_000, "sample rate of 1000000"),
    ],
)
def test_bad_sound_is_refused(samples: Float32, rate: int, message: str) -> None:
    engine, _ = make_engine()
    with pytest.raises(TalkheadError, match=message):
        engine.push(samples, rate, 0.0)
    assert not any(frame.is_speech for _, frame in run(engine, 0.0, 0.5))


@pytest.mark.parametrize("in_lines", [False, True])
@pytest.mark.parametrize("n_frames", [0.1, 1, 10])
def test_endless_sound_without_playback_is_refused_and_not_kept(
    monkeypatch: pytest.MonkeyPatch, in_lines: bool, n_frames: float
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING_S", 1.0)
    engine, _ = make_engine()
    n_accepted = 0
    for _ in range(300):
        try:
            engine.push(loud(n_frames), RATE, 0.0)
            n_accepted += 1
        except TalkheadError as error:
            assert "wait to be spoken" in str(error)
        if in_lines:
            engine.flush()
    # A line takes a frame at least.
    n_expected = int(25 / max(n_frames, 1)) if in_lines else int(RATE / round(n_frames * SIZE))
    assert n_accepted == n_expected
    assert engine.statistics.waiting_s <= 1.0
    assert len(engine._lines) == (n_expected if in_lines else 1)
    engine.flush()
    spoken = [frame for _, frame in run(engine, 0.0, 3.0) if frame.is_speech]
    assert len(spoken) == (
        n_expected * max(n_frames, 1) if in_lines else int(n_expected * n_frames)
    )
    engine.push(loud(10), RATE, 3.0)  # there is room again


@pytest.mark.parametrize(("pace", "n_most"), [("playback", 0), ("arrival", 10)])
def test_times_of_arrival_do_not_accumulate(pace: str, n_most: int) -> None:
    engine, _ = make_engine(pace=pace)
    for number in range(500):
        engine.push(loud(1), RATE, number * FRAME_S)
        run(engine, number * FRAME_S, (number + 1) * FRAME_S)
        assert len(engine._lines[0].arrivals) <= n_most


@pytest.mark.parametrize("rate", [7000, 16_001, 300_000])
def test_impossible_rates_of_the_output_are_refused(rate: int) -> None:
    with pytest.raises(TalkheadError, match="multiple of 25"):
        make_engine(sample_rate=rate)


@pytest.mark.parametrize("intensity", [1.0, 0.5])
def test_without_pictures_the_codes_are_those_that_would_be_rendered(intensity: float) -> None:
    rendering, pictures = make_engine(intensity=intensity)
    plain, _ = make_engine(intensity=intensity, rendered=False)
    found = []
    for engine in (rendering, plain):
        engine.push(loud(8), RATE, 0.0)
        frames = run(engine, 0.0, 0.6)
        engine.interrupt()
        engine.push(loud(3, 0.2), RATE, 0.6)
        engine.flush()
        found.append([frame for _, frame in frames + run(engine, 0.6, 1.2)])
    codes, wanted = (np.stack([frame.code for frame in one]) for one in (found[1], found[0]))
    np.testing.assert_array_equal(codes, wanted)
    np.testing.assert_array_equal(codes, pictures.codes)
    assert codes[:, 0].max() == 0.5 and len({*codes[:, 0].tolist()}) > 3
    assert all(frame.image.shape == (0, 0, 3) for frame in found[1])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one.audio, other.audio)
        assert (one.index, one.epoch, one.is_speech) == (other.index, other.epoch, other.is_speech)
    assert plain.size == (0, 0)


def test_no_picture_is_repeated_where_none_is_rendered() -> None:
    engine, _ = make_engine(rendered=False)
    engine.push(loud(20), RATE, 0.0)
    engine.flush()
    now_s = 0.0
    codes = []
    while len(codes) < 12:  # far behind from the second frame on
        frame = engine.step(now_s)
        if frame is not None and frame.is_speech:
            codes.append(frame.code[1])
        now_s += 0.3
    assert engine.statistics.n_repeated == 0 and codes[-1] == 1.0


@pytest.mark.parametrize(("options"), [{"mode": "head"}, {"height": 120}])
def test_options_of_pictures_are_refused_where_none_is_rendered(options: dict[str, Any]) -> None:
    with pytest.raises(TalkheadError, match="does not render"):
        make_engine(rendered=False, **options)
