"""Live frames of a fitted person: as `speak` renders them, rest rendered once, every picture marked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tiny import LINE

from talkhead import media
from talkhead.app.avatar import Avatar, load_identity, predict_motion
from talkhead.app.composer.backgrounds import backgrounds_of
from talkhead.app.composer.frames import (
    Compositor,
    HeadCompositor,
    HeadFrameRenderer,
    own_background,
    pasted_line,
)
from talkhead.app.composer.head_view import View
from talkhead.app.fit import FitResult
from talkhead.app.live import pictures as module
from talkhead.app.live.engine import begin_speech
from talkhead.app.live.options import LiveOptions
from talkhead.app.live.pictures import LivePictures
from talkhead.errors import MediaError, TalkheadError
from talkhead.types import SAMPLE_RATE, Float32, UInt8


@pytest.fixture(scope="module")
def avatar(fitted: FitResult, home: Path) -> Avatar:
    return load_identity(fitted.name, home=home)


def pictures_of(avatar: Avatar, **given: Any) -> LivePictures:
    options = LiveOptions(**{"badge": False, **given})
    return LivePictures(avatar.renderer, avatar.idle, avatar.predictor.scaling.rest, options)


def shown(avatar: Avatar, codes: Iterable[Float32], **given: Any) -> list[UInt8]:
    made = pictures_of(avatar, **given)
    try:
        return [made.next(code) for code in codes]
    finally:
        made.close()


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


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gray image."""
    path = tmp_path_factory.mktemp("still") / "still.png"
    cv2.imwrite(str(path), np.full((90, 120, 3), 128, np.uint8))
    return path


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of two shades."""
    path = tmp_path_factory.mktemp("loop") / "loop.mp4"
    shades = np.array([40, 40, 200, 200], np.uint8)
    media.write_video(path, np.broadcast_to(shades[:, None, None, None], (4, 96, 128, 3)))
    return path


@pytest.mark.parametrize("background", [None, "own", "#205080", "still", "loop", "alpha"])
def test_heads_are_those_of_speak(
    avatar: Avatar, background: str | None, request: pytest.FixtureRequest
) -> None:
    if background in ("still", "loop"):
        background = str(request.getfixturevalue(background))
    codes, own = moving(avatar, 6), own_background(avatar.idle)
    view = {"yaw": 1.0, "pitch": -0.5, "zoom": 1.1}
    found = shown(avatar, codes, mode="head", background=background, **view)
    behind = None if background == "alpha" else backgrounds_of(background, own, len(codes))
    head = HeadFrameRenderer(avatar.renderer, avatar.idle, codes, behind, View(**view))
    np.testing.assert_array_equal(found, list(head.frames(0, len(codes))))


def test_pictures_are_not_too_wide(avatar: Avatar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LIVE_WIDTH", 64)
    with pytest.raises(TalkheadError, match="too wide for a live session") as error:
        pictures_of(avatar, height=200)
    highest = int(str(error.value).rpartition(" ")[2])
    made = pictures_of(avatar, height=highest)
    made.close()
    assert 56 <= made.size[0] <= 64


def test_height_and_note(avatar: Avatar) -> None:
    rest = avatar.predictor.scaling.rest
    made = pictures_of(avatar, mode="head", background="red", height=48, yaw=40.0, badge=True)
    try:
        picture = made.next(rest)
    finally:
        made.close()
    assert picture.shape == (48, made.size[0], 3) and made.size[0] % 2 == 0
    assert "40 was requested" in made.note
    assert (picture == (255, 0, 0)).all(2).any()
    assert shown(avatar, [rest], height=64)[0].shape[0] == 64


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"background": "red"}, "a background of a live session needs the mode head"),
        ({"yaw": 3.0}, "yaw, pitch, zoom and head motion need --mode head"),
        ({"mode": "face"}, "there is no mode 'face'"),
        ({"mode": "head", "background": "reddish"}, "neither a color"),
        ({"intensity": 3.0}, "an intensity of 3"),
        ({"height": 4}, "a height of 4 pixels"),
        ({"height": 2161}, "too large for a live session. Choose at most 2160"),
    ],
)
def test_options_are_checked_as_those_of_speak(given: dict[str, Any], words: str) -> None:
    with pytest.raises(TalkheadError, match=words):
        LiveOptions(**given)


def test_a_moving_background_is_not_kept(avatar: Avatar, loop: Path) -> None:
    made = pictures_of(avatar, mode="head", background=str(loop))
    try:
        found = [made.next(avatar.predictor.scaling.rest) for _ in range(3)]
        assert not made._cache
    finally:
        made.close()
    assert int(found[2][0, 0, 0]) - int(found[0][0, 0, 0]) > 100


@pytest.mark.parametrize(
    ("compositor", "look"),
    [
        (Compositor, {}),
        (HeadCompositor, {"mode": "head", "background": "navy"}),
        (HeadCompositor, {"mode": "head", "background": "alpha"}),
    ],
)
def test_rest_is_rendered_once(
    avatar: Avatar, monkeypatch: pytest.MonkeyPatch, compositor: Any, look: dict[str, Any]
) -> None:
    rendered = []
    render = compositor.__call__

    def counting(self: Any, *given: object) -> object:
        rendered.append(given[1])
        return render(self, *given)

    monkeypatch.setattr(compositor, "__call__", counting)
    n = len(avatar.idle)
    turn = 2 * n - 2  # forward and backward
    made = pictures_of(avatar, **look)
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


@pytest.mark.parametrize(
    "look", [{}, {"mode": "head"}, {"mode": "head", "background": "alpha"}, {"height": 200}]
)
def test_every_picture_carries_a_badge(avatar: Avatar, look: dict[str, Any]) -> None:
    codes = [*moving(avatar, 2), *[avatar.predictor.scaling.rest] * 2]
    plain, marked = shown(avatar, codes, **look), shown(avatar, codes, badge=True, **look)
    for one, two in zip(plain, marked, strict=True):
        changed = (one != two).any(2)
        rows, columns = np.nonzero(changed)
        assert changed.sum() > 20
        assert rows.min() > 0.8 * len(one)
        assert columns.min() <= 2
        assert (two[changed][:, 3:] == 255).all()  # not transparent itself


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
