"""MotionStream: live prediction is continuous, and equals that of a file where the future is
known."""

# ruff: noqa: F811 (fixtures of another file are arguments)

from __future__ import annotations

import numpy as np
import pytest

from talkhead.encoder.predictor.model import MotionPredictor
from talkhead.encoder.predictor.rest import CLOSING_FRAMES, SETTLING_FRAMES
from talkhead.encoder.predictor.stream import MotionStream
from talkhead.types import Bool, Float32, SpeechFeatures
from tests.encoder.predictor.test_predictor import (  # noqa: F401 (fixtures)
    Clip,
    clip,
    corrected,
)


def streamed(
    predictor: MotionPredictor, values: Float32, silent: Bool, size: int, **given: int
) -> Float32:
    stream = MotionStream(predictor, **given)
    parts = []
    for at in range(0, len(values), 2 * size):
        part = silent[at // 2 : at // 2 + size]
        parts.append(stream.push(values[at : at + 2 * size], [bool(flag) for flag in part]))
    return np.concatenate([*parts, stream.finish()])


@pytest.mark.parametrize("size", [1, 3, 40])
def test_speech_is_predicted_as_in_a_file(
    corrected: MotionPredictor,
    clip: Clip,
    size: int,
) -> None:
    values, n = clip.features.values, len(clip.codes)
    silent = np.zeros(n, dtype=bool)
    whole = corrected.predict(SpeechFeatures(values, 50.0), silent, n)
    live = streamed(corrected, values, silent, size)
    assert live.shape == whole.shape
    np.testing.assert_allclose(live[CLOSING_FRAMES:], whole[CLOSING_FRAMES:], atol=1e-4)


def test_silence_is_as_in_a_file_where_enough_is_known(
    corrected: MotionPredictor,
    clip: Clip,
) -> None:
    values, n = clip.features.values, len(clip.codes)
    silent = np.arange(n) % 120 > 60
    whole = corrected.predict(SpeechFeatures(values, 50.0), silent, n)
    live = streamed(corrected, values, silent, 7, horizon=8)
    np.testing.assert_allclose(live[CLOSING_FRAMES:], whole[CLOSING_FRAMES:], atol=1e-4)


@pytest.mark.parametrize("horizon", [0, 1, 3])
def test_the_mouth_rests_in_silence_and_never_jumps(
    corrected: MotionPredictor,
    clip: Clip,
    horizon: int,
) -> None:
    values, n = np.repeat(clip.features.values[:1], 400, axis=0), 200
    silent = np.zeros(n, dtype=bool)
    silent[50:150] = True
    live = streamed(corrected, values, silent, 1, horizon=horizon)
    rest = corrected.scaling.rest
    np.testing.assert_allclose(
        live[50 + SETTLING_FRAMES + CLOSING_FRAMES : 140], [rest] * 68, atol=1e-5
    )
    reach = np.abs(live[20] - rest).max()
    assert reach > 0.1
    assert np.abs(np.diff(live, axis=0)).max() < 0.75 * reach


def test_fewer_frames_ahead_reduce_the_delay(
    corrected: MotionPredictor,
    clip: Clip,
) -> None:
    values = clip.features.values
    full, short = MotionStream(corrected), MotionStream(corrected, ahead=0)
    flags = [False] * 50
    assert len(full.push(values[:100], flags)) == 50 - corrected.view.ahead
    assert len(short.push(values[:100], flags)) == 50
    assert corrected.view.ahead > 0


def test_later_features_have_no_effect(corrected: MotionPredictor, clip: Clip) -> None:
    values, n = clip.features.values[:200], 100
    other = values.copy()
    other[120:] *= -2.0
    silent = np.zeros(n, dtype=bool)
    for ahead in (0, 1, corrected.view.ahead):
        one = streamed(corrected, values, silent, 5, ahead=ahead)
        two = streamed(corrected, other, silent, 5, ahead=ahead)
        same = 60 - ahead
        np.testing.assert_array_equal(one[:same], two[:same])
        assert not np.array_equal(one[same], two[same])


def test_approximations_stand_for_features_that_are_missing(
    corrected: MotionPredictor, clip: Clip
) -> None:
    values, n_ahead = clip.features.values[:200], 2 * corrected.view.ahead
    silent = np.zeros(100, dtype=bool)
    expected = streamed(corrected, values, silent, 1)
    stream, parts = MotionStream(corrected, ahead=0), []
    for at in range(0, 200, 2):
        following = values[at + 2 : at + 2 + n_ahead]
        parts.append(stream.push(values[at : at + 2], [False], following))
        assert len(parts[-1]) == 1
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-5)
    held = streamed(corrected, values, silent, 1, ahead=0)
    assert not np.allclose(held, expected, atol=1e-2)


def test_an_empty_line_has_no_frames(corrected: MotionPredictor) -> None:
    stream = MotionStream(corrected)
    assert stream.push(np.zeros((0, len(corrected.scaling.mean)), np.float32), []).shape[0] == 0
    assert stream.finish().shape == (0, len(corrected.scaling.rest))


def test_an_odd_number_of_vectors_gives_a_last_frame(
    corrected: MotionPredictor,
    clip: Clip,
) -> None:
    values = clip.features.values[:51]
    live = streamed(corrected, values, np.zeros(26, dtype=bool), 4)
    assert len(live) == 26
