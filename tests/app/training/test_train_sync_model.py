"""Training the sync model: takes, windows, augmentation, learning, determinism."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from talkhead.app.evaluation.measures.sync_model import (
    ANCHORS,
    LAGS,
    MAX_LAG,
    N_MELS,
    POINTS,
    VECTORS,
    SyncModel,
    SyncModelNet,
)
from talkhead.app.training import sync_batches
from talkhead.app.training import sync_model as training
from talkhead.app.training.sync_batches import Clip, TrainingConfig
from talkhead.app.training.tracked_video import TrackedVideo
from talkhead.errors import FootageError, TalkheadError
from talkhead.progress import SilentProgress
from talkhead.storage import sha256_of, write_tensors
from talkhead.types import SAMPLE_RATE

STILL = TrainingConfig(
    n_steps=30, batch_size=8, tempo=1.0, stretch_std=0.0, gain_std=0.0, jitter=0.0, drift=0.0,
    warp_std=0.0, snr=(40.0, 40.0), mask_share=0.0, n_wrong=2,
)  # fmt: skip
TEMPLATE = np.random.default_rng(0).normal(size=(len(ANCHORS), 2)).astype(np.float32)


def talking(n_frames: int = 900, seed: int = 0, name: str = "a") -> Clip:
    """A clip in which the loudness follows the lips' opening, in takes of 3 s."""
    shape = np.random.default_rng(1).normal(size=(len(POINTS), 2))
    random = np.random.default_rng(seed)
    opening = np.convolve(random.normal(size=n_frames + 4), np.ones(5) / 5, "valid")
    points = 0.05 * opening[:, None, None] * shape
    fine = np.interp(np.arange(VECTORS * n_frames) / VECTORS - 0.5, np.arange(n_frames), opening)
    tilt = np.linspace(2.0, 1.0, N_MELS)
    mel = 4 * fine[:, None] * tilt + 0.3 * random.normal(size=(len(fine), N_MELS)) - 6
    takes = tuple((start, start + 75) for start in range(0, n_frames - 74, 75))
    return Clip(
        name,
        name,
        points.astype(np.float32),
        mel.reshape(n_frames, VECTORS, N_MELS).astype(np.float32),
        takes[:-2],
        takes[-2:],
    )


def small_net() -> SyncModelNet:
    return SyncModelNet(width=16, n_outputs=8, dilations=(1,), dropout=0.0)


# ----------------------------------------------------------------------------- footage


def test_mirrors_swap_the_sides() -> None:
    points, anchors = np.array(POINTS), np.array(ANCHORS)
    mirrored = dict(zip(points, points[sync_batches.MIRROR], strict=True))
    assert [mirrored[i] for i in (61, 0, 17, 146, 78, 13, 176, 152)] == [
        291, 0, 17, 375, 308, 13, 400, 152,
    ]  # fmt: skip
    assert all(mirrored[other] == point for point, other in mirrored.items())
    across = dict(zip(anchors, anchors[list(training.ANCHOR_MIRROR)], strict=True))
    assert (across[33], across[133], across[127], across[6]) == (263, 362, 356, 6)


def test_the_template_is_level_and_symmetric() -> None:
    """This holds at every position, size and roll of the face."""
    random = np.random.default_rng(0)
    face = random.normal(size=(478, 2))
    face[33], face[263] = [-0.5, 0.0], [0.5, 0.0]
    turn = np.array([[0.8, 0.6], [-0.6, 0.8]])
    shots = np.stack([face, 90 * face @ turn + 300]).astype(np.float32)
    empty = np.zeros(0, np.float32)
    footage = [TrackedVideo("a", "a", shots[i:][:1], np.ones(1, bool), empty, ()) for i in (0, 1)]
    template = training.mean_template(footage)
    assert template == pytest.approx(training.mean_template(footage[:1]), abs=1e-5)
    assert template[0] == pytest.approx([-0.5, 0]) and template[3] == pytest.approx([0.5, 0])
    assert template[5][0] == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(FootageError, match="no face"):
        training.mean_template([replace(footage[0], seen=np.zeros(1, bool))])


# ----------------------------------------------------------------------------- batches


def numbered(n_frames: int = 300) -> Clip:
    """Points and energies that encode their frame number."""
    number = np.arange(n_frames, dtype=np.float32)
    vectors = number[:, None] + (np.arange(VECTORS, dtype=np.float32) - VECTORS // 2) / VECTORS
    return Clip(
        "n",
        "n",
        np.broadcast_to(number[:, None, None], (n_frames, len(POINTS), 2)),
        np.repeat(vectors[..., None], N_MELS, 2),
        ((0, 150), (150, 300)),
        (),
    )


@pytest.mark.parametrize("tempo", [1.0, 1.2])
def test_windows_have_the_stated_lag(tempo: float) -> None:
    """Lips [t] and audio [t + entry] belong to the same moment, and no window crosses the end of
    its take."""
    windows = sync_batches.Windows([numbered()], replace(STILL, tempo=tempo), seed=0)
    entries = set()
    for _ in range(30):
        lips, mel, entry = windows._window(numbered(), 40)
        middle = mel.reshape(-1, VECTORS, N_MELS)[:, VECTORS // 2, 0]
        assert len(lips) == 40 and len(middle) == 40 + 2 * MAX_LAG
        assert lips[:, 0, 0] == pytest.approx(middle[entry : entry + 40], abs=1e-3)
        assert middle[0] // 150 == middle[-1] // 150
        entries.add(entry)
    assert len(entries) > 12


def test_shifted_windows_are_cut_from_the_continuous_clip() -> None:
    clip = numbered()
    batches = list(training.shifted_windows(clip, clip.train, 45, (-15, 0, 7)))
    assert len(batches) == 2 * 4
    for batch in batches:
        assert batch.lag.tolist() == [0, 15, 22]
        for lips, mel, entry in zip(batch.points, batch.mel, batch.lag, strict=True):
            assert torch.equal(mel[entry : entry + 45, VECTORS // 2, 0], lips[:, 0, 0])


def test_a_source_with_little_footage_is_drawn() -> None:
    short = replace(numbered(), name="s", source="s", train=((0, 75),))
    long = [replace(numbered(), name=str(i), source="l") for i in range(12)]
    windows = sync_batches.Windows([short, *long], STILL, 0)
    assert windows._shares.sum() == pytest.approx(1.0)
    assert windows._shares[0] == pytest.approx(75**0.5 / (75**0.5 + 3600**0.5))


def test_nothing_to_train_on() -> None:
    with pytest.raises(FootageError, match="nothing to train on"):
        sync_batches.Windows([replace(numbered(), train=())], STILL, 0)


def test_disabled_augmentation_changes_almost_nothing() -> None:
    """Mirroring and contrast, which scales the whole audio, are not disabled."""
    random = np.random.default_rng(0)
    points = torch.randn(6, 40, len(POINTS), 2)
    changed = sync_batches.change_points(points, STILL, random)
    mirrored = points[:, :, sync_batches.MIRROR] * torch.tensor([-1.0, 1.0])
    is_same = (changed - points).abs().amax((1, 2, 3)) < 1e-5
    is_mirrored = (changed - mirrored).abs().amax((1, 2, 3)) < 1e-5
    assert (is_same ^ is_mirrored).all() and is_same.any() and is_mirrored.any()
    mel = 8 + torch.randn(6, 70, VECTORS, N_MELS)
    scale = sync_batches.change_mel(mel, STILL, random) / mel
    assert (scale.amax((1, 2, 3)) - scale.amin((1, 2, 3)) < 1e-2).all()
    assert scale.min() > 0.79 and scale.max() < 1.21


def test_a_stretched_mel_axis_moves_the_bands() -> None:
    mel = torch.arange(N_MELS, dtype=torch.float32).expand(2, 3, VECTORS, N_MELS)
    warped = sync_batches._warp_mel(mel, torch.tensor([[1.0, 1.0], [0.5, 0.5]]))
    assert torch.allclose(warped[0], mel[0], atol=2e-3)
    assert torch.allclose(warped[1], 0.5 * mel[1], atol=2e-3)


# ----------------------------------------------------------------------------- learning


def test_targets_stay_in_the_range() -> None:
    target = training._blurred(torch.tensor([0, 15]), 0.2)
    assert target.sum(1) == pytest.approx([1.0, 1.0])
    assert target[1, 14:17] == pytest.approx([0.2, 0.6, 0.2])
    assert target[0, :2] == pytest.approx([0.75, 0.25])


def test_training_learns_and_is_deterministic() -> None:
    """The model finds shifts of a held-out clip, and the same seed gives the same bits."""
    clips, unseen = [talking()], talking(seed=9)
    torch.manual_seed(0)
    fresh = small_net().eval()
    nets = []
    for _ in range(2):
        torch.manual_seed(0)
        nets.append(training.train(clips, TEMPLATE, STILL, 3, SilentProgress(), small_net()))
    first, second = (net.state_dict() for net in nets)
    assert all(torch.equal(first[name], second[name]) for name in first)
    before = training.find_shifts(fresh, unseen, unseen.train)
    after = training.find_shifts(nets[0], unseen, unseen.train)
    assert len(after) == 10 * len(LAGS)
    assert training.share_found(before) < 0.6 and training.share_found(after) > 0.9
    batch = sync_batches.Windows(clips, STILL, 5).draw()
    sharpness = torch.tensor(15.0)
    losses = [training.sync_model_loss(n.eval(), batch, sharpness, STILL) for n in (fresh, nets[0])]
    assert losses[1] < 0.7 * losses[0]


def test_wrong_sound_noise_is_that_of_random_vectors() -> None:
    """For independent unit vectors in n dimensions, it is 1 / sqrt(n) per frame."""

    class RandomVectors(SyncModelNet):
        def forward(self, points: torch.Tensor, mel: torch.Tensor) -> tuple[torch.Tensor, ...]:
            units = (torch.randn(len(x), x.shape[1], 32) for x in (points, mel))
            return tuple(u / u.norm(dim=-1, keepdim=True) for u in units)

    torch.manual_seed(0)
    clip = talking(75 * 40)
    noise = training.wrong_sound_noise(RandomVectors(), [replace(clip, validation=())])
    assert noise == pytest.approx(32**-0.5, rel=0.06)
    with pytest.raises(FootageError, match="too little footage"):
        training.wrong_sound_noise(
            RandomVectors(), [replace(clip, train=clip.train[:1], validation=())]
        )


def test_share_found() -> None:
    assert training.share_found(np.array([0, 1, -1, 2])) == 0.75
    assert np.isnan(training.share_found(np.zeros(0, np.int64)))


# ------------------------------------------------------------------------------ command


def test_the_command_trains_from_a_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Videos in the cache are not read again; the entry describes the written file."""
    random = np.random.default_rng(0)
    folder, cache = tmp_path / "takes", tmp_path / "cache"
    folder.mkdir()
    cache.mkdir()
    (folder / "a.mp4").write_bytes(b"no video")
    starts = range(0, 60, 3)
    index = [json.dumps({"file": "a.mp4", "start": float(s)}) + "\n" for s in starts]
    (folder / "index.jsonl").write_text("".join(index))
    tracked = {
        "landmarks": random.normal(100, 20, (1500, 478, 2)).astype(np.float32),
        "seen": np.ones(1500, bool),
        "waveform": (0.1 * random.normal(size=60 * SAMPLE_RATE)).astype(np.float32),
    }
    stored = cache / f"a-{sha256_of(folder / 'a.mp4')[:12]}.safetensors"
    write_tensors(stored, {name: torch.from_numpy(value) for name, value in tracked.items()})
    output = tmp_path / "sync.safetensors"
    options = ["--cache", str(cache), "--output", str(output), "--steps", "2", "--late", "a=40"]
    threads = torch.get_num_threads()
    try:
        training.main([str(folder), "--test", str(folder), *options])
    finally:
        torch.set_num_threads(threads)
    entry = json.loads(capsys.readouterr().out)["sync.safetensors"]
    assert entry["sha256"] == sha256_of(output) and entry["bytes"] == output.stat().st_size
    assert set(entry["validation"]) == set(entry["figures"]) == {"a 45"}
    assert SyncModel.load(output).net.noise > 0
    with pytest.raises(TalkheadError, match="no such file"):
        training.main([str(tmp_path / "b.mp4"), *options])
