"""The prior: projection on a person's codes, use with little footage, its encoder."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from talkhead.encoder.mel import MelEncoder
from talkhead.encoder.pase.corpus import SAMPLES_PER_FRAME, CorpusShard, Utterance, make_shard
from talkhead.encoder.predictor.model import MotionPredictor, PredictorTrainingData, fit_predictor
from talkhead.encoder.predictor.network import PredictorConfig, ReceptiveField, TemporalNets
from talkhead.encoder.predictor.prior import Prior, project_basis, read_prior, train_prior
from talkhead.encoder.predictor.training import (
    MOUTH_POINTS,
    Task,
    _Sampler,
    make_training_tensors,
)
from talkhead.errors import TalkheadError
from talkhead.face import N_LANDMARKS, FaceModel
from talkhead.progress import SilentProgress
from talkhead.storage import write_tensors
from talkhead.types import Float32, SpeechFeatures

N_MOUTH = 3
SMALL = PredictorConfig(
    width=16, layers=((3, 1),), n_members=2, n_steps=60, batch_size=4, n_frames=20, dropout=0.0,
    noise_std=0.05, gain_std=0.0, n_masks=0,
)  # fmt: skip
MODES = np.random.default_rng(7).normal(size=(2, len(MOUTH_POINTS), 2)).astype(np.float32)
"""Mouth motion in these tests, which follows the loudness of low and of high frequencies."""


def _speech(n_frames: int, seed: int) -> tuple[Float32, Float32]:
    """Audio [n_samples] of two bands with changing loudness, and their loudness, [F, 2] in [0, 1]."""
    random = np.random.default_rng(seed)
    knots = random.uniform(size=(n_frames // 3 + 2, 2))
    frames = np.arange(n_frames)
    levels = np.stack([np.interp(frames / 3, np.arange(len(k)), k) for k in knots.T], 1)
    moments = np.arange(n_frames * SAMPLES_PER_FRAME) / SAMPLES_PER_FRAME
    tones = [np.sin(2 * np.pi * hertz / 25 * moments) for hertz in (300, 2500)]
    bands = [np.interp(moments, frames, level) for level in levels.T]
    noise = random.normal(size=len(moments)) * 1e-3
    sound = sum((0.2 * tone * band**2 for tone, band in zip(tones, bands, strict=True)), noise)
    return sound.astype(np.float32), levels.astype(np.float32)


def _shard(mouths: bool = True) -> CorpusShard:
    utterances = []
    for index in range(12):
        sound, levels = _speech(75, index)
        mouth = np.tensordot(levels - 0.5, MODES, 1).astype(np.float32) if mouths else None
        lips = np.zeros((75, 32, 48), np.uint8) if mouths else None
        split = "validation" if index == 11 else "train"
        utterances.append(Utterance(sound, (), "anna", split, lips, mouth))
    return make_shard(utterances, source="s", licence="l", attribution="a", shippable=True)


def _person() -> tuple[FaceModel, Float32]:
    """A face with another basis of mouth motion, and the codes [2, N_MOUTH] of the two MODES."""
    random = np.random.default_rng(3)
    mixed = np.array([[1.0, 0.3], [-0.4, 0.8], [0.0, 0.0]], np.float32)
    moves = np.tensordot(mixed, MODES, 1).astype(np.float32)
    moves[2] = 1e-3 * random.normal(size=moves[2].shape)
    basis = np.zeros((N_MOUTH + 1, N_LANDMARKS, 3), np.float32)
    basis[:N_MOUTH, list(MOUTH_POINTS), :2] = moves
    codes = project_basis(MODES, moves)
    face = FaceModel(
        template=random.normal(size=(N_LANDMARKS, 3)).astype(np.float32),
        basis=basis,
        n_mouth=N_MOUTH,
        triangles=np.zeros((0, 3), np.int64),
        silence=np.zeros(N_MOUTH + 1, np.float32),
    )
    return face, codes


@pytest.fixture(scope="module")
def prior() -> Prior:
    return train_prior([_shard()], MelEncoder(), SMALL, 0, SilentProgress())


def test_codes_are_projected_on_another_basis() -> None:
    random = np.random.default_rng(0)
    basis = random.normal(size=(5, 61, 2)).astype(np.float32)
    codes = random.normal(size=(4, 5)).astype(np.float32)
    found = project_basis(np.tensordot(codes, basis, 1).astype(np.float32), basis)
    np.testing.assert_allclose(found, codes, rtol=0.01, atol=0.02)


def test_a_code_that_hardly_moves_anything_stays_small() -> None:
    basis = np.zeros((2, 61, 2), np.float32)
    basis[0, :, 0], basis[1, :, 1] = 1.0, 1e-4
    found = project_basis(np.ones((1, 61, 2), np.float32), basis)
    np.testing.assert_allclose(found, [[1.0, 0.0]], atol=0.2)


def test_a_network_starts_with_the_motion_of_the_prior(prior: Prior) -> None:
    face, _ = _person()
    moves = face.basis[:N_MOUTH, list(MOUTH_POINTS), :2]
    nets = TemporalNets(SMALL, 160, N_MOUTH, prior.ahead, 4).eval()
    prior.initialize(nets, [moves[::-1].copy(), moves])
    inputs = torch.randn(1, 1, 30, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own = nets(inputs.expand(4, -1, -1, -1))[3, 0].numpy()
        general = prior.nets(inputs.expand(2, -1, -1, -1))[1, 0].numpy()
    shown, wanted = (
        np.linalg.lstsq(MODES.reshape(2, -1).T, points.reshape(len(points), -1).T, rcond=None)[0]
        for points in (np.tensordot(own, moves, 1), np.tensordot(general, prior.basis, 1))
    )
    assert np.abs(shown - wanted).mean() < 0.05 * np.abs(wanted).mean()


def test_the_same_seed_gives_the_same_prior(prior: Prior) -> None:
    again = train_prior([_shard()], MelEncoder(), SMALL, 0, SilentProgress()).tensors()
    ours = prior.tensors()
    assert ours.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in ours.items())


def test_a_prior_is_read_back(prior: Prior, tmp_path: Path) -> None:
    write_tensors(tmp_path / "prior.safetensors", prior.tensors())
    again = read_prior(tmp_path / "prior.safetensors")
    for field in fields(prior):  # not ==: since Python 3.13 it compares the arrays, too
        if field.name not in ("basis", "nets"):
            assert getattr(again, field.name) == getattr(prior, field.name)
    ours, theirs = prior.tensors(), again.tensors()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert prior.sources == ("s (l)",)


def test_a_prior_belongs_to_one_encoder(prior: Prior) -> None:
    assert prior.belongs_to(MelEncoder())
    assert not prior.belongs_to(MelEncoder(version="of another day"))
    assert not prior.belongs_to(MelEncoder(name="pase"))


@pytest.mark.parametrize("lost", ["facts", "basis", "nets.first.weight"])
def test_damaged_files_are_refused(prior: Prior, tmp_path: Path, lost: str) -> None:
    tensors = prior.tensors()
    del tensors[lost]
    write_tensors(tmp_path / "prior.safetensors", tensors)
    with pytest.raises(TalkheadError, match="not a prior of a predictor"):
        read_prior(tmp_path / "prior.safetensors")


def test_the_prior_helps_with_little_footage(prior: Prior) -> None:
    """The footage is little more than 4 s of another person with the same mouth motion, and
    training is short.
    """
    face, codes = _person()
    sound, levels = _speech(400, 99)
    targets = np.pad((levels - 0.5) @ codes, ((0, 0), (0, 1))).astype(np.float32)
    train, silent = np.arange(400) < 110, np.zeros(400, dtype=bool)
    brief = replace(SMALL, n_steps=10, learning_rate=2e-3)

    def error(predictor: MotionPredictor) -> float:
        found = predictor.predict(features, silent, 400)
        return float(np.abs(found - targets)[~train, :N_MOUTH].mean())

    features = MelEncoder().encode(sound)
    footage = PredictorTrainingData(features, targets, train, silent, face)
    fits = [fit_predictor(footage, brief, 0, SilentProgress(), begun) for begun in (None, prior)]
    assert error(fits[1]) < 0.6 * error(fits[0])


def test_other_features_are_refused(prior: Prior) -> None:
    face, _ = _person()
    train, silent = np.ones(120, dtype=bool), np.zeros(120, dtype=bool)
    codes = np.random.default_rng(0).normal(size=(120, N_MOUTH + 1)).astype(np.float32)
    for features in (
        SpeechFeatures(np.ones((240, 12), np.float32), 50.0),
        SpeechFeatures(np.ones((240, 80), np.float32), 50.0, lookahead_s=0.2),
    ):
        with pytest.raises(TalkheadError, match="prior was trained for the encoder mel"):
            footage = PredictorTrainingData(features, codes, train, silent, face)
            fit_predictor(footage, SMALL, 0, SilentProgress(), prior)


def test_shards_without_mouths_are_refused() -> None:
    with pytest.raises(TalkheadError, match="no shard has mouths"):
        train_prior([_shard(mouths=False)], MelEncoder(), SMALL, 0, SilentProgress())
    odd = replace(_shard(), mouth=np.zeros((900, 40, 2), np.float32))
    with pytest.raises(TalkheadError, match="mouths of 40 points"):
        train_prior([odd], MelEncoder(), SMALL, 0, SilentProgress())


def test_only_the_training_part_is_used(prior: Prior) -> None:
    shard = _shard()
    mouth, waveform = shard.mouth.copy(), shard.waveform.copy()
    mouth[-75:], waveform[-75 * SAMPLES_PER_FRAME :] = np.nan, 0
    spoilt = replace(shard, mouth=mouth, waveform=waveform)
    again = train_prior([spoilt], MelEncoder(), SMALL, 0, SilentProgress()).tensors()
    assert all(torch.equal(value, again[name]) for name, value in prior.tensors().items())


def test_frames_are_drawn_by_their_shares() -> None:
    """Frames are drawn in proportion to their shares, and equal shares change nothing."""
    n_frames, shares = 400, np.ones(400, np.float32)
    shares[200:] = 4.0
    basis = np.random.default_rng(0).standard_normal((3, len(MOUTH_POINTS), 2)).astype(np.float32)
    targets = np.zeros((n_frames, 3), np.float32)
    targets[:, 0] = np.arange(n_frames)
    view = ReceptiveField(0, 0)
    vectors = torch.zeros(1, n_frames, 2)

    def drawn(given: np.ndarray | None) -> torch.Tensor:  # type: ignore[type-arg]
        data = make_training_tensors(
            vectors,
            targets,
            np.ones(n_frames, np.float32),
            basis,
            np.ones(2, np.float32),
            view,
            given,
        )
        task = Task(data, torch.zeros(n_frames, dtype=torch.bool), 0)
        sampler = _Sampler(task, PredictorConfig(batch_size=4000, n_frames=1))
        return sampler.draw()[1][:, 0, 0]

    assert float((drawn(shares) >= 200).float().mean()) == pytest.approx(0.8, abs=0.03)
    torch.testing.assert_close(drawn(np.full(n_frames, 0.5, np.float32)), drawn(None))
