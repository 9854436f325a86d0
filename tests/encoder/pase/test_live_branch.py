"""The small model: its look-ahead, streams, int8 weights, and that distillation reduces its
loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tone_corpus import tone_shard

from talkhead.encoder.pase import distill
from talkhead.encoder.pase.batches import BatchConfig
from talkhead.encoder.pase.encoder import PaseEncoder, PaseStream
from talkhead.encoder.pase.live import LOOKAHEAD_S
from talkhead.encoder.pase.losses import Contrast
from talkhead.encoder.pase.model import LIVE, AudioModel, Pase, PaseConfig
from talkhead.encoder.pase.weights import dequantize, quantize, read_encoder, write_live, write_pase
from talkhead.errors import PackageError
from talkhead.progress import SilentProgress
from talkhead.storage import read_tensors, write_tensors
from talkhead.types import SAMPLE_RATE, Float32

SMALL = replace(LIVE, hidden=24, dim=16)


@pytest.fixture(scope="module")
def model() -> AudioModel:
    torch.manual_seed(0)
    return AudioModel(SMALL).eval()


def noise(n: int, seed: int = 0) -> Float32:
    return 0.1 * np.random.default_rng(seed).standard_normal(n).astype(np.float32)


def streamed(model: AudioModel, waveform: Float32, size: int) -> Float32:
    stream = PaseStream(model)
    parts = [stream.push(waveform[at : at + size]) for at in range(0, len(waveform), size)]
    return np.concatenate([*parts, stream.finish()])


@pytest.mark.parametrize("size", [97, 640, 5000])
def test_streamed_features_equal_those_of_the_whole(model: AudioModel, size: int) -> None:
    waveform = noise(320 * 60)
    with torch.no_grad():
        spectra = model.ear.spectra(torch.from_numpy(waveform)[None])
        whole = model.vectors(*model.ear(spectra)).features[0].numpy()
    np.testing.assert_allclose(streamed(model, waveform, size), whole, atol=1e-5)


def test_no_vector_depends_on_samples_beyond_the_lookahead(model: AudioModel) -> None:
    waveform = noise(320 * 60)
    vector, other = 30, waveform.copy()
    other[vector * 320 + round(LOOKAHEAD_S * SAMPLE_RATE) :] *= -3.0
    first, second = streamed(model, waveform, 640), streamed(model, other, 640)
    np.testing.assert_array_equal(first[: vector + 1], second[: vector + 1])
    assert not np.allclose(first[vector + 1], second[vector + 1])


def test_lookahead_is_short_enough_for_a_microphone() -> None:
    assert LOOKAHEAD_S <= 0.06


def test_int8_weights_are_within_half_a_step(model: AudioModel) -> None:
    state = model.state_dict()
    stored = quantize(state)
    restored = dequantize(stored)
    assert restored.keys() == state.keys()
    for name, value in state.items():
        step = value.flatten(1).abs().amax(1) / 127.0 if value.ndim > 1 else torch.zeros(1)
        error = (restored[name] - value).abs()
        limit = step.view(-1, *[1] * (value.ndim - 1)) if value.ndim > 1 else step
        assert bool((error <= 0.5001 * limit + 1e-9).all()), name
    matrices = [v for k, v in stored.items() if v.dtype == torch.int8]
    assert len(matrices) >= 8


def test_weights_are_read_as_they_were_written(model: AudioModel, tmp_path: Path) -> None:
    path = tmp_path / "live.safetensors"
    write_live(path, model, "abc")
    read, contrast, teacher = read_encoder(path)
    assert teacher == "abc"
    assert contrast is None
    assert read.config == SMALL
    waveform = noise(320 * 40)
    near = streamed(read, waveform, 640)
    np.testing.assert_allclose(near, streamed(model, waveform, 640), atol=0.1)
    encoder = PaseEncoder.from_file(path)
    np.testing.assert_allclose(encoder.encode(waveform).values, near, atol=1e-5)
    with pytest.raises(ValueError, match="no visual branch"):
        encoder.lip_embedding(np.zeros((3, 32, 48), np.float32))


def test_a_missing_scale_is_refused(model: AudioModel, tmp_path: Path) -> None:
    path = tmp_path / "live.safetensors"
    write_live(path, model, "abc")
    tensors = dict(read_tensors(path))
    del tensors["ear.gru.weight_ih_l0.scale"]
    write_tensors(path, tensors)
    with pytest.raises(PackageError, match="train them again"):
        read_encoder(path)


def test_distillation_approaches_the_teacher(tmp_path: Path) -> None:
    torch.manual_seed(1)
    shards = [tone_shard(20, sees=False)]
    teacher = AudioModel(replace(LIVE, hidden=32, dim=16)).eval()
    teacher.detail.spread.fill_(0.05)  # so that its features vary like those of a trained model
    batches = BatchConfig(n_rows=2, n_seen=0, n_frames=20)
    config = distill.DistillConfig(n_steps=60, model=replace(LIVE, hidden=64), batches=batches)

    def train(n_steps: int) -> distill.DistillObjective:
        own = replace(config, n_steps=n_steps)
        state = tmp_path / f"{n_steps}.state"
        return distill.distill(shards, teacher, own, state, 0, SilentProgress())

    def error(objective: distill.DistillObjective) -> float:
        waveform = torch.from_numpy(shards[0].waveform[: 320 * 50] / np.float32(32768.0))[None]
        with torch.no_grad():
            pair = [
                net.vectors(*net.ear(net.ear.spectra(waveform))).features
                for net in (objective.pase, teacher)
            ]
        return float((pair[0] - pair[1]).square().mean())

    assert error(train(60)) < 0.5 * error(train(1))


def test_the_command_writes_weights_and_their_entry(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    teacher = Pase(PaseConfig(width=80, hidden=16, layers=1, dim=16))
    write_pase(tmp_path / "teacher.safetensors", teacher, Contrast(16))
    monkeypatch.setattr(distill, "shard_files", lambda paths: [tmp_path / "teacher.safetensors"])
    monkeypatch.setattr(distill, "read_shard", lambda path: tone_shard(20, sees=False))
    output = tmp_path / "live.safetensors"
    given = [str(tmp_path), "--output", str(output), "--steps", "1", "--teacher"]
    distill.main([*given, str(tmp_path / "teacher.safetensors")])
    assert '"command"' in capsys.readouterr().out
    encoder = PaseEncoder.from_file(output)
    assert encoder.dim == 16 + 80
    assert encoder.imitates == PaseEncoder.from_file(tmp_path / "teacher.safetensors").version
