"""Training of PASE: it learns, is deterministic, and resumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tone_corpus import tone_shard

from talkhead.encoder.pase import train, training_loop
from talkhead.encoder.pase.augment import AugmentConfig
from talkhead.encoder.pase.batches import BatchConfig, Batches, sample_spans
from talkhead.encoder.pase.corpus import (
    UNKNOWN,
    CorpusShard,
    write_shard,
)
from talkhead.encoder.pase.encoder import PaseEncoder
from talkhead.encoder.pase.model import TRUNK, PaseConfig
from talkhead.encoder.phones import PHONES
from talkhead.errors import TalkheadError
from talkhead.progress import SilentProgress

TINY = train.TrainConfig(
    n_steps=6,
    model=PaseConfig(width=16, hidden=24, layers=1, dim=16),
    batches=BatchConfig(n_rows=6, n_seen=2, n_frames=25),
)


@pytest.fixture(scope="module")
def shards() -> list[CorpusShard]:
    return [tone_shard(20, sees=True), tone_shard(20, sees=False, seed=1)]


def _state(objective: train.PaseObjective) -> dict[str, torch.Tensor]:
    return objective.state_dict()


def test_it_learns_the_phones_of_tones(tmp_path: Path, shards: list[CorpusShard]) -> None:
    """Audio is clean, so that accuracy has stopped rising at the last step and rounding does not
    matter: it was 0.98 or more with every seed and kernel that was tried.
    """
    clean = replace(TINY.augment, clean_share=1.0)
    config = replace(TINY, n_steps=160, learning_rate=1e-2, averaging=0.95, augment=clean)
    objective = train.train_pase(shards, config, tmp_path / "s.state", 0, SilentProgress())
    unseen = [tone_shard(6, sees=False, seed=9, split="validation")]
    batches = Batches(unseen, config.batches, config.augment, 0, "validation")
    assert train.phone_accuracy(objective.pase, batches, 3) > 0.9  # chance is about 0.3


def test_the_same_seed_gives_the_same_weights(tmp_path: Path, shards: list[CorpusShard]) -> None:
    first, second, other = (
        train.train_pase(shards, TINY, tmp_path / f"{n}.state", seed, SilentProgress())
        for n, seed in enumerate((0, 0, 1))
    )
    for name, value in _state(first).items():
        assert torch.equal(value, _state(second)[name]), name
    assert not torch.equal(first.pase.anchors, other.pase.anchors)


def test_an_interrupted_training_ends_in_the_same_weights(
    tmp_path: Path, shards: list[CorpusShard], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train.train_pase(shards, TINY, tmp_path / "a.state", 0, SilentProgress())
    monkeypatch.setattr(training_loop, "CHECKPOINT_S", 0.0)
    save, saved = training_loop._save, []

    def stop(*given: object) -> None:
        save(*given)  # type: ignore[arg-type]
        saved.append(given[-1])
        if given[-1] == 3:
            raise KeyboardInterrupt

    state = tmp_path / "b.state"
    monkeypatch.setattr(training_loop, "_save", stop)
    with pytest.raises(KeyboardInterrupt):
        train.train_pase(shards, TINY, state, 0, SilentProgress())
    monkeypatch.setattr(training_loop, "_save", save)
    resumed = train.train_pase(shards, TINY, state, 0, SilentProgress())
    assert saved == [1, 2, 3]
    for name, value in _state(whole).items():
        assert torch.equal(value, _state(resumed)[name]), name
    with pytest.raises(TalkheadError, match=r"another training.*Remove"):
        train.train_pase(shards, TINY, state, 1, SilentProgress())


@pytest.mark.parametrize("part", train.PARTS)
def test_each_part_can_be_left_out(tmp_path: Path, shards: list[CorpusShard], part: str) -> None:
    config = replace(train.without(TINY, [part]), n_steps=1)
    objective = train.train_pase(shards, config, tmp_path / "s.state", 0, SilentProgress())
    batch = Batches(shards, config.batches, config.augment, 0).draw(0)
    losses = objective.losses(batch, np.random.default_rng(0))
    missing = {
        "phones": {"phones", "visemes"}, "contrast": {"contrast"}, "anchors": set[str](),
        "reconstruction": {"reconstruction"}, "vision": {"contrast"}, "clearing": {"clearing"},
        "distillation": set[str](),
    }[part]  # fmt: skip
    every = {"phones", "visemes", "contrast", "reconstruction", "clearing"}
    assert set(losses) == every - missing
    assert all(torch.isfinite(value) for value in losses.values())


def test_a_model_on_whisper_learns_its_vectors(tmp_path: Path, shards: list[CorpusShard]) -> None:
    """With a trunk, there is a distillation loss, and a few steps reduce it."""
    config = replace(TINY, model=replace(TRUNK, rank=2, dim=16), n_steps=1)
    batch = Batches(shards, config.batches, config.augment, 0).draw(0)
    found = []
    for n_steps in (1, 30):
        state = tmp_path / f"{n_steps}.state"
        run = replace(config, n_steps=n_steps, learning_rate=3e-3)
        objective = train.train_pase(shards, run, state, 0, SilentProgress())
        losses = objective.losses(batch, np.random.default_rng(0))
        found.append(float(losses["distillation"].detach()))
    assert found[1] < found[0]
    left_out = replace(train.without(config, ["distillation"]), n_steps=1)
    other = train.train_pase(shards, left_out, tmp_path / "o.state", 0, SilentProgress())
    assert "distillation" not in other.losses(batch, np.random.default_rng(0))


def test_unknown_parts_are_refused() -> None:
    with pytest.raises(TalkheadError, match="'parrot'"):
        train.without(TINY, ["parrot"])


def test_a_corpus_without_pictures_is_enough(tmp_path: Path, shards: list[CorpusShard]) -> None:
    config = replace(TINY, n_steps=2)
    objective = train.train_pase(shards[1:], config, tmp_path / "s.state", 0, SilentProgress())
    assert objective.restorer.mouth is None


def test_a_corpus_of_test_utterances_only_is_refused() -> None:
    with pytest.raises(TalkheadError, match="no training utterances"):
        Batches([tone_shard(20, sees=False, split="test")], TINY.batches, TINY.augment, 0)


# ------------------------------------------------------------------------------- batches


def test_labels_and_lips_follow_the_sound_at_every_speed(shards: list[CorpusShard]) -> None:
    """Where the audio has the tone of the open vowel, the label is that vowel, and the mouth is
    open."""
    config = replace(TINY.batches, speed=1.3)
    batches = Batches(shards, config, replace(AugmentConfig()), 0)
    n_right = n_known = 0
    for number in range(4):
        batch = batches.draw(number)
        clean = batch.clean[: len(batch.lips)].unfold(1, 320, 320)
        loud = clean.square().mean(-1) > 1e-5
        spoken = (batch.labels[: len(clean)] != PHONES.index("SIL")) & (
            batch.labels[: len(clean)] != UNKNOWN
        )
        n_right += int((loud == spoken).sum())
        n_known += loud.numel()
        open_lips = batch.lips[:, :, 16, 24] < batch.lips[:, :, 4, 4] - 0.15
        open_mouth = batch.mouth[..., 1] > 0
        assert torch.equal(open_lips, open_mouth)
    assert n_right / n_known > 0.9  # at the borders, half a label may be wrong


def test_batches_depend_on_seed_and_number_alone(shards: list[CorpusShard]) -> None:
    one, two = (Batches(shards, TINY.batches, TINY.augment, 3) for _ in range(2))
    one.draw(0)
    torch.testing.assert_close(one.draw(5).noisy, two.draw(5).noisy, rtol=0, atol=0)
    assert not torch.equal(one.draw(5).clean, one.draw(6).clean)


def test_spans_cover_about_their_share() -> None:
    hidden = sample_spans((200, 100), 0.2, 8, np.random.default_rng(0))
    assert 0.1 < float(hidden.float().mean()) < 0.25


# --------------------------------------------------------------------------- command line


def test_the_command_writes_weights_that_an_encoder_reads(
    tmp_path: Path,
    shards: list[CorpusShard],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_shard(tmp_path / "tones.safetensors", shards[0])
    write_shard(
        tmp_path / "held.safetensors", tone_shard(20, sees=False, seed=5, split="validation")
    )
    monkeypatch.setattr(train, "TrainConfig", lambda: TINY)
    output = tmp_path / "out" / "pase.safetensors"
    output.parent.mkdir()
    train.main([str(tmp_path), "--output", str(output), "--steps", "2"])
    assert '"validation_phone_accuracy"' in capsys.readouterr().out
    features = PaseEncoder.from_file(output).encode(np.zeros(3200, np.float32))
    assert features.values.shape == (10, TINY.model.dim + TINY.model.width)
    assert not output.with_suffix(".state").exists()
