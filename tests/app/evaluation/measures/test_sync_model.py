"""The sync model: its inputs against slow direct computations, and the sample person."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from paths import PERSON

from talkhead.app.evaluation.measures import sync_model as module
from talkhead.app.evaluation.measures.sync_model import MAX_LAG, N_MELS, VECTORS, WINDOW, SyncModel
from talkhead.audio import log_mel
from talkhead.errors import PackageError
from talkhead.media import read_audio, read_frames
from talkhead.preprocess.av_sync import shift_waveform
from talkhead.preprocess.landmarks import FaceTracker, track_frames
from talkhead.storage import write_tensors
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Bool, Float32

N_FRAMES = 500


class Clip(NamedTuple):
    waveform: Float32
    landmarks: Float32
    seen: Bool


@pytest.fixture(scope="module")
def model() -> SyncModel:
    return SyncModel.load()


@pytest.fixture(scope="module")
def person() -> Clip:
    """20 s of the sample person, in sync and not in the training data of the sync model."""
    tracker = FaceTracker()
    tracking = track_frames(tracker, read_frames(PERSON, n_frames=N_FRAMES))
    tracker.close()
    waveform = read_audio(PERSON)[: N_FRAMES * SAMPLE_RATE // FRAME_RATE]
    return Clip(waveform, tracking.landmarks, tracking.detected)


def part(clip: Clip, start: int, stop: int) -> Clip:
    """Frames start to stop and their audio."""
    hop = SAMPLE_RATE // FRAME_RATE
    return Clip(
        clip.waveform[start * hop : stop * hop], clip.landmarks[start:stop], clip.seen[start:stop]
    )


# --------------------------------------------------------------------------- measuring


def test_the_sample_person_is_in_sync(model: SyncModel, person: Clip) -> None:
    found = model.measure(*person)
    assert found.offset_ms == pytest.approx(0, abs=40)
    assert found.confidence > module.MIN_CONFIDENCE + 2
    assert found.n_frames == N_FRAMES - 2 * MAX_LAG
    assert found.lags_ms == [40.0 * lag for lag in range(-15, 16)]
    assert len(found.scores) == 31 and max(found.scores) == found.scores[15]
    assert all(-1 <= score <= 1 for score in found.scores)


@pytest.mark.parametrize("late_ms", [-400, -200, 200, 330])
def test_a_shift_of_the_audio_is_found(model: SyncModel, person: Clip, late_ms: int) -> None:
    """Positive values are late; the error is below a quarter of a frame."""
    own = model.measure(*person).offset_ms
    shifted = model.measure(shift_waveform(person.waveform, -late_ms), *person[1:]).offset_ms
    assert own is not None and shifted is not None
    assert shifted - own == pytest.approx(late_ms, abs=10)


@pytest.mark.parametrize("seconds", [4, 7, 10, 13])
def test_mismatched_audio_has_no_offset(model: SyncModel, person: Clip, seconds: int) -> None:
    wrong = np.roll(person.waveform, seconds * SAMPLE_RATE)
    found = model.measure(wrong, *person[1:])
    assert found.offset_ms is None
    assert found.confidence < module.MIN_CONFIDENCE


def test_audio_without_speech_has_no_offset(model: SyncModel, person: Clip) -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, len(person.waveform)).astype(np.float32)
    for waveform in (np.zeros_like(person.waveform), noise):
        found = model.measure(waveform, *person[1:])
        assert found.offset_ms is None and np.isfinite(found.scores).all()


def test_a_still_face_has_no_offset(model: SyncModel, person: Clip) -> None:
    still = np.repeat(person.landmarks[:1], N_FRAMES, 0)
    assert model.measure(person.waveform, still, person.seen).offset_ms is None


def test_an_offset_beyond_the_range_is_not_found(model: SyncModel, person: Clip) -> None:
    found = model.measure(shift_waveform(person.waveform, 1000), *person[1:])
    assert found.offset_ms is None


def test_measuring_again_gives_the_same(model: SyncModel, person: Clip) -> None:
    assert model.measure(*person) == SyncModel.load().measure(*person)


def test_depth_place_size_and_turn_hardly_matter(model: SyncModel, person: Clip) -> None:
    """Another camera: turned by 30 degrees, 3 times as large, shifted; without depths."""
    own = model.measure(*person)
    turn = 3 * np.array([[math.cos(0.5), math.sin(0.5)], [-math.sin(0.5), math.cos(0.5)]])
    moved = (person.landmarks[..., :2] @ turn + [400, -90]).astype(np.float32)
    found = model.measure(person.waveform, moved, person.seen)
    assert found.scores == pytest.approx(own.scores, abs=1e-3)


def test_loudness_hardly_matters(model: SyncModel, person: Clip) -> None:
    own, loud = model.measure(*person), model.measure(3 * person.waveform, *person[1:])
    assert loud.confidence == pytest.approx(own.confidence, rel=0.1)
    assert loud.offset_ms == pytest.approx(own.offset_ms, abs=5)


def test_frames_without_a_face_are_left_out(model: SyncModel, person: Clip) -> None:
    seen = person.seen.copy()
    seen[200:260] = seen[300] = seen[305] = False
    spoilt = np.where(seen[:, None, None], person.landmarks, 1e4).astype(np.float32)
    found = model.measure(person.waveform, spoilt, seen)
    assert found == model.measure(person.waveform, person.landmarks, seen)
    assert found.n_frames == N_FRAMES - 2 * MAX_LAG - 60 - 6  # 4 frames between two are too few
    assert found.offset_ms == pytest.approx(0, abs=40)


@pytest.mark.parametrize("n_frames", [0, 10, 40, 69])
def test_too_few_frames(model: SyncModel, person: Clip, n_frames: int) -> None:
    found = model.measure(*part(person, 100, 100 + n_frames))
    assert found.offset_ms is None and found.n_frames < module.MIN_FRAMES
    assert np.isfinite(found.scores).all()
    assert np.isnan(found.confidence) == (found.n_frames == 0)


def test_audio_shorter_and_longer_than_the_picture(model: SyncModel, person: Clip) -> None:
    """Only frames with audio at every lag are used."""
    short = person.waveform[: 10 * SAMPLE_RATE]
    found = model.measure(short, *person[1:])
    assert found.n_frames == 250 - 2 * MAX_LAG
    assert found.offset_ms == pytest.approx(0, abs=40)
    some = part(person, 0, 250)
    longer = model.measure(person.waveform, *some[1:])
    assert longer.n_frames == 250 - MAX_LAG


def test_arrays_that_don_t_fit(model: SyncModel, person: Clip) -> None:
    waveform, landmarks, seen = person
    for wrong in (
        (waveform[None], landmarks, seen),
        (waveform, landmarks[:, :468], seen),
        (waveform, landmarks, seen[1:]),
    ):
        with pytest.raises(ValueError):
            model.measure(*wrong)


def test_evidence_and_its_control(model: SyncModel, person: Clip) -> None:
    found = model.evidence(*person)
    assert found.offset_ms == model.measure(*person).offset_ms
    assert found.score == max(found.scores) > 1.3 * found.control > 0
    wrong = np.roll(person.waveform, 9 * SAMPLE_RATE)
    assert model.evidence(wrong, *person[1:]).offset_ms is None


def test_evidence_of_a_short_clip_has_no_control(model: SyncModel, person: Clip) -> None:
    assert math.isnan(model.evidence(*part(person, 0, 200)).control)


def test_an_offset_that_the_control_reaches_is_discarded(
    model: SyncModel, person: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SyncModel, "_control", lambda *_: 1.0)
    assert model.evidence(*person).offset_ms is None


# ------------------------------------------------------------------------------ weights


def test_weights_of_another_version(tmp_path: Path, model: SyncModel) -> None:
    tensors = model.net.state_dict()
    tensors.pop("noise")
    write_tensors(tmp_path / "j.safetensors", tensors)
    with pytest.raises(PackageError, match="another version"):
        SyncModel.load(tmp_path / "j.safetensors")


def test_damaged_weights(tmp_path: Path) -> None:
    (tmp_path / "j.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(PackageError, match="damaged"):
        SyncModel.load(tmp_path / "j.safetensors")


def test_the_accuracy_of_the_sync_model() -> None:
    accuracy = module.sync_model_accuracy()
    assert accuracy["grid_45"] >= 0.9
    assert all(3 / 31 < value <= 1 for value in accuracy.values())


# ------------------------------------------------------------------------------- inputs


def test_steady_points_undo_any_affine_motion() -> None:
    random = np.random.default_rng(0)
    face = random.normal(size=(478, 2))
    template = face[list(module.ANCHORS)].astype(np.float32)
    motions = np.eye(2) + 0.3 * random.normal(size=(5, 2, 2))
    shots = 50 * face @ motions + random.normal(0, 100, (5, 1, 2))
    steady = module.steady_points(shots.astype(np.float32), template)
    expected = face[list(module.POINTS)] - template.mean(0)
    assert steady.dtype == np.float32
    assert steady == pytest.approx(np.broadcast_to(expected, steady.shape), abs=1e-3)
    assert np.isfinite(module.steady_points(np.zeros((1, 478, 2), np.float32), template)).all()


@pytest.mark.parametrize(("first", "n_frames"), [(0, 60), (-3, 12), (20, 9), (50, 30)])
def test_frame_mel_is_a_piece_of_the_whole(first: int, n_frames: int) -> None:
    """Vector 2 of frame k is centered at k / 25 s; beyond the ends is silence."""
    waveform = np.random.default_rng(0).normal(0, 0.1, 60 * 640).astype(np.float32)
    around = np.pad(waveform, 10 * 640)
    whole = np.maximum(log_mel(around, n_mels=N_MELS), module.MIN_LOG_ENERGY)
    start = VECTORS * (first + 10) - VECTORS // 2
    expected = whole[start : start + VECTORS * n_frames]
    mel = module.frame_mel(waveform, first, n_frames)
    assert mel.shape == (n_frames, VECTORS, N_MELS)
    assert mel.reshape(-1, N_MELS)[: len(expected)] == pytest.approx(expected, abs=1e-4)


def test_a_click_is_in_its_frame() -> None:
    waveform = np.zeros(SAMPLE_RATE, np.float32)
    waveform[10 * 640] = 1.0
    loud = module.frame_mel(waveform, 0, 25).mean(2)
    assert np.unravel_index(loud.argmax(), loud.shape) == (10, VECTORS // 2)


def test_lag_scores_are_mean_products() -> None:
    lips, sound = torch.randn(2, 5, 3), torch.randn(2, 9, 3)
    scores = module.lag_scores(lips, sound)
    assert scores.shape == (2, 5)
    for lag in range(5):
        slow = [sum(lips[b, t] @ sound[b, t + lag] for t in range(5)) / 5 for b in range(2)]
        assert scores[:, lag] == pytest.approx([float(value) for value in slow], abs=1e-5)


def test_inputs_do_not_depend_on_person_and_room() -> None:
    points, mel = torch.randn(2, 20, 45, 2), torch.randn(2, 20, VECTORS, N_MELS)
    face, room = torch.randn(2, 1, 45, 2), torch.randn(2, 1, 1, N_MELS)
    visual, audio = module.lip_inputs(points), module.sound_inputs(mel)
    assert visual.shape == (2, 20, 180) and audio.shape == (2, 20, VECTORS * N_MELS)
    assert torch.allclose(module.lip_inputs(2 * points + face), visual, atol=2e-2)
    assert torch.allclose(module.sound_inputs(mel + room), audio, atol=1e-5)
    assert not module.lip_inputs(torch.ones(1, 20, 45, 2)).any()


def test_windows_cover_every_usable_frame_once() -> None:
    seen = np.ones(1000, bool)
    seen[[300, 310, 600]] = False
    spans = list(module.windows(seen, 990))
    covered = np.zeros(1000, int)
    for start, stop in spans:
        assert module.MIN_RUN <= stop - start <= WINDOW
        covered[start:stop] += 1
    expected = np.zeros(1000, int)
    for start, stop in ((MAX_LAG, 300), (311, 600), (601, 990 - MAX_LAG)):
        expected[start:stop] = 1
    assert np.array_equal(covered, expected)
    assert list(module.windows(seen, 20)) == [] == list(module.windows(~seen, 990))


def test_windows_are_independent() -> None:
    """A window's vectors are the same alone and in a batch."""
    net = module.SyncModelNet(width=8, n_outputs=4, dilations=(1, 2)).eval()
    points, mel = torch.randn(3, 20, 45, 2), torch.randn(3, 50, VECTORS, N_MELS)
    lips, sound = net(points, mel)
    assert lips.shape == (3, 20, 4) and sound.shape == (3, 50, 4)
    assert torch.allclose(lips.norm(dim=-1), torch.ones(3, 20), atol=1e-5)
    alone, audio = net(points[1:2], mel[1:2])
    assert torch.allclose(alone[0], lips[1], atol=1e-5)
    assert torch.allclose(audio[0], sound[1], atol=1e-5)
