"""Live frames of a fitted person: as `speak` renders them, rest rendered once, every picture marked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import LINE

from talkhead import media
from talkhead.app.avatar import Avatar, load_identity, predict_motion
from talkhead.app.composer.frames import Compositor, pasted_line
from talkhead.app.fit import FitResult
from talkhead.app.live import pictures as module
from talkhead.app.live.engine import begin_speech
from talkhead.app.live.pictures import LivePictures
from talkhead.errors import MediaError, TalkheadError
from talkhead.types import SAMPLE_RATE, Float32


@pytest.fixture(scope="module")
def avatar(fitted: FitResult, home: Path) -> Avatar:
    return load_identity(fitted.name, home=home)


def pictures_of(avatar: Avatar, badge: bool = False) -> LivePictures:
    return LivePictures(avatar.renderer, avatar.idle, avatar.predictor.scaling.rest, badge)


def moving(avatar: Avatar, n: int) -> Float32:
    codes = np.repeat(avatar.predictor.scaling.rest[None], n, axis=0)
    codes[:, 0] += np.linspace(0.1, 1.0, n, dtype=np.float32)
    return codes


def test_pictures_are_those_of_speak(avatar: Avatar) -> None:
    codes = moving(avatar, 6)
    made = pictures_of(avatar)
    try:
        live = [made.next(code) for code in codes]
    finally:
        made.close()
    expected = list(pasted_line(avatar.renderer, avatar.idle, codes))
    np.testing.assert_array_equal(live, expected)
    assert made.size == (expected[0].shape[1], expected[0].shape[0])


def test_rest_is_rendered_once(avatar: Avatar, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = []
    render = Compositor.__call__

    def counting(self: Compositor, *given: object) -> object:
        rendered.append(given[1])
        return render(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Compositor, "__call__", counting)
    n = len(avatar.idle)
    turn = 2 * n - 2  # forward and backward
    made = pictures_of(avatar)
    try:
        first = [made.next(avatar.predictor.scaling.rest) for _ in range(turn)]
        assert len(rendered) == n
        again = [made.next(avatar.predictor.scaling.rest) for _ in range(turn)]
    finally:
        made.close()
    assert len(rendered) == n
    assert sorted(rendered) == list(range(n))
    # Forward frames are shown as they were; backward ones were first shown from the cache.
    np.testing.assert_array_equal(first[:n], again[:n])


def test_the_cache_is_bounded(avatar: Avatar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CACHE_BYTES", 1)
    made = pictures_of(avatar)
    try:
        for _ in range(2 * len(avatar.idle)):
            made.next(avatar.predictor.scaling.rest)
        assert len(made._cache) == 1
    finally:
        made.close()


def test_every_picture_carries_a_badge(avatar: Avatar) -> None:
    codes = [*moving(avatar, 2), *[avatar.predictor.scaling.rest] * 2]
    plain, marked = pictures_of(avatar), pictures_of(avatar, badge=True)
    try:
        for code in codes:
            one, two = plain.next(code), marked.next(code)
            changed = (one != two).any(2)
            rows, columns = np.nonzero(changed)
            assert changed.sum() > 20
            assert rows.min() > 0.8 * len(one)
            assert columns.min() <= 2
    finally:
        plain.close()
        marked.close()


def test_missing_footage_is_named(avatar: Avatar, tmp_path: Path) -> None:
    clip = replace(avatar.idle, path=tmp_path / "gone.mp4")
    made = LivePictures(avatar.renderer, clip, avatar.predictor.scaling.rest)
    try:
        with pytest.raises((MediaError, TalkheadError), match=r"gone\.mp4"):
            made.next(avatar.predictor.scaling.rest)
    finally:
        made.close()


@pytest.fixture
def line() -> Iterator[Float32]:
    yield np.concatenate(list(media.read_audio_chunks(LINE, SAMPLE_RATE, 20.0)))


def test_live_speech_is_that_of_speak_but_for_level_and_rest(avatar: Avatar, line: Float32) -> None:
    whole = predict_motion(LINE, avatar.encoder, avatar.predictor)
    speech = begin_speech(avatar, "playback", None, 1.0)
    live = np.concatenate([speech.push(line), speech.finish()])
    n = min(len(live), len(whole))
    assert abs(len(live) - len(whole)) <= 1
    n_mouth = avatar.idle.face.n_mouth
    error = np.abs(live[:n, :n_mouth] - whole[:n, :n_mouth]).mean()
    assert error < 0.15 * whole[:, :n_mouth].std()


@pytest.mark.parametrize("pace", ["playback", "arrival"])
def test_live_codes_do_not_depend_on_the_pieces(
    avatar: Avatar,
    line: Float32,
    pace: str,
) -> None:
    found = []
    for size in (480, 4000, len(line)):
        speech = begin_speech(avatar, pace, None, 1.0)  # type: ignore[arg-type]
        parts = [speech.push(line[at : at + size]) for at in range(0, len(line), size)]
        found.append(np.concatenate([*parts, speech.finish()]))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=2e-3)


def test_arrival_answers_earlier(avatar: Avatar) -> None:
    first = begin_speech(avatar, "playback", None, 1.0)
    second = begin_speech(avatar, "arrival", None, 1.0)
    assert second.lookahead_s == pytest.approx(0.1125)
    assert first.lookahead_s == pytest.approx(0.2325)


@pytest.mark.parametrize("pace", ["playback", "arrival"])
def test_a_frame_waits_for_its_lookahead_and_no_more(
    avatar: Avatar, line: Float32, pace: str
) -> None:
    speech = begin_speech(avatar, pace, None, 1.0)  # type: ignore[arg-type]
    step, arrived = 40, []
    for at in range(0, SAMPLE_RATE, step):
        arrived += [at + step] * len(speech.push(line[at : at + step]))
    waits = np.array(arrived) - np.arange(len(arrived)) * SAMPLE_RATE // 25
    assert len(waits) >= 10
    np.testing.assert_allclose(waits / SAMPLE_RATE, speech.lookahead_s, atol=step / SAMPLE_RATE)


@pytest.mark.parametrize("n", [0, 1, 119, 640, 641, 3000])
def test_a_short_line_has_a_code_for_every_frame(avatar: Avatar, line: Float32, n: int) -> None:
    speech = begin_speech(avatar, "arrival", None, 1.0)
    codes = np.concatenate([speech.push(line[:n]), speech.finish()])
    assert len(codes) == -(-n * 25 // SAMPLE_RATE)


@pytest.mark.parametrize("pace", ["playback", "arrival"])
@pytest.mark.parametrize("kind", ["silence", "noise", "tones"])
def test_the_mouth_rests_without_speech(avatar: Avatar, pace: str, kind: str) -> None:
    random = np.random.default_rng(0)
    n = 6 * SAMPLE_RATE
    times = np.arange(n) / SAMPLE_RATE
    sound = {
        "silence": np.zeros(n),
        "noise": 0.05 * random.standard_normal(n),
        "tones": 0.1 * sum(np.sin(2 * np.pi * f * times) for f in (220.0, 277.2, 329.6)),
    }[kind].astype(np.float32)
    speech = begin_speech(avatar, pace, None, 1.0)  # type: ignore[arg-type]
    codes = np.concatenate([speech.push(sound), speech.finish()])
    moved = np.abs(codes - avatar.predictor.scaling.rest).max(1) > 1e-3
    # The sudden beginning of tones is taken for speech; then the mouth settles.
    assert moved[35 if kind == "tones" else 0 :].mean() < 0.05
