"""The audio branch on Whisper's encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import LINE

from talkhead import media
from talkhead.app.training.whisper import reference_input
from talkhead.encoder.pase import trunk
from talkhead.encoder.pase.encoder import PaseEncoder
from talkhead.encoder.pase.losses import Contrast, distillation_loss
from talkhead.encoder.pase.model import TRUNK, Pase
from talkhead.encoder.pase.trunk import N_POSITIONS, TrunkBranch, load_whisper, whisper_specs
from talkhead.encoder.pase.weights import make_pase, read_pase, write_pase
from talkhead.errors import PackageError
from talkhead.storage import ContentError, read_json
from talkhead.types import SAMPLE_RATE

REFERENCE = Path(__file__).parent / "whisper_reference.json"


@pytest.fixture(scope="module")
def branch() -> TrunkBranch:
    """A branch whose adapters are not zero."""
    torch.manual_seed(3)
    made = TrunkBranch(4)
    load_whisper(made)
    for name, values in made.named_parameters():
        if name.endswith(".up") or name == "mask":
            values.data.normal_(0.0, 0.05)
    return made.eval()


@pytest.fixture(scope="module")
def waveform() -> torch.Tensor:
    """Noise of varying loudness, [1, 96000]."""
    random = np.random.default_rng(5)
    envelope = np.repeat(random.uniform(0.0, 0.2, 60), 1600)
    noise = random.standard_normal(96000) * envelope
    return torch.from_numpy(noise.astype(np.float32))[None]


def test_the_whole_branch_equals_whispers(branch: TrunkBranch) -> None:
    """Without adapters and with full attention, it computes what CTranslate2 computes."""
    expected = read_json(REFERENCE)
    mel = torch.from_numpy(reference_input()).transpose(1, 2)
    with torch.no_grad():
        # Whisper pads the output of the first convolution, too, which makes a small difference at
        # the ends and, by attention, a tiny one everywhere.
        hidden = branch.whole(torch.nn.functional.pad(mel, (0, 0, trunk.REACH, trunk.REACH)))
        ours = torch.nn.functional.layer_norm(hidden[0], (trunk.WIDTH,))[expected["vectors"]]
    theirs = np.array(expected["values"], np.float32)
    assert np.abs(theirs).max() > 2.0
    np.testing.assert_allclose(ours.numpy(), theirs, atol=0.02)


def test_mel_energies_of_a_tone() -> None:
    """A tone appears in the band with the nearest center, with the power of its window."""
    times = torch.arange(1600) / SAMPLE_RATE
    mels = trunk.log_mels(0.1 * torch.sin(2 * torch.pi * 1000.0 * times)[None])
    assert mels.shape == (1, 8, trunk.N_MELS)
    filters = trunk._filters()
    assert int(mels[0, 4].argmax()) == int(filters[:, 25].argmax())  # 1000 Hz is bin 25
    quiet = trunk.log_mels(torch.zeros(1, 400))
    torch.testing.assert_close(quiet, torch.full_like(quiet, (trunk.MIN_LOG_POWER + 4.0) / 4.0))


def test_positions_are_sinusoids() -> None:
    """Position 0 has the values 0 and 1. Rates are from 1 radian to 1 / 10000 per vector."""
    table = trunk.positions()
    half = trunk.WIDTH // 2
    torch.testing.assert_close(table[0], torch.tensor([0.0, 1.0]).repeat_interleave(half))
    assert float(table[7, 0]) == pytest.approx(np.sin(7.0), abs=1e-5)
    assert float(table[700, half - 1]) == pytest.approx(np.sin(0.07), abs=1e-5)


@pytest.mark.parametrize("sizes", [(96000,), (320, 33, 7000, 1, 50000), (16000,) * 6])
def test_streams_equal_the_whole(
    branch: TrunkBranch, waveform: torch.Tensor, sizes: tuple[int, ...]
) -> None:
    """Chunks of any size give the vectors of the whole waveform, up to rounding."""
    pase = make_pase(TRUNK).eval()
    pase.ear = branch
    encoder = PaseEncoder(pase, Contrast(TRUNK.dim), "test")
    whole = encoder.encode(waveform[0].numpy()).values
    with torch.no_grad():
        inputs, hidden = pase.ear(pase.ear.spectra(waveform))
        expected = pase.vectors(inputs, hidden).features[0].numpy()
    assert whole.shape == (300, 128 + 80)
    np.testing.assert_allclose(whole, expected, atol=2e-4)
    stream, at, parts = encoder.stream(), 0, []
    for size in sizes:
        parts.append(stream.push(waveform[0, at : at + size].numpy()))
        at += size
    parts += [stream.push(waveform[0, at:].numpy()), stream.finish()]
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=2e-4)


def test_pending_vectors_are_those_of_a_sequence_that_ends(
    branch: TrunkBranch, waveform: torch.Tensor
) -> None:
    """They attend to what there is, and the stream goes on as if they had not been computed."""
    spectra = branch.spectra(waveform)
    with torch.no_grad():
        expected = branch.convolve(spectra[:, :205]) + branch.positions[:101]
        for block in branch.blocks:
            assert isinstance(block, trunk.Block)
            query, key, value = block._heads(expected)
            distance = torch.arange(101) - torch.arange(101)[:, None]
            mask = (distance >= -trunk.PAST) & (distance <= block.ahead)
            expected = block._transform(expected, query, key, value, mask)
        _, complete, state = branch.step(spectra[:, :205], None)
        energies, pending = branch.pending(state)
        _, following, _ = branch.step(spectra[:, 202:303], state)
        _, whole = branch(spectra)
    assert complete.shape[1] == 98 and pending.shape[1] == energies.shape[1] == branch.n_late == 3
    torch.testing.assert_close(torch.cat([complete, pending], 1), expected, atol=2e-4, rtol=0.0)
    torch.testing.assert_close(energies, trunk.moments(spectra)[:, 98:101])
    torch.testing.assert_close(
        following, whole[:, 98 : 98 + following.shape[1]], atol=2e-4, rtol=0.0
    )


def test_pending_vectors_are_better_than_the_newest_complete_one() -> None:
    samples = np.concatenate(list(media.read_audio_chunks(LINE, SAMPLE_RATE, 20.0)))
    encoder = PaseEncoder.shipped()
    whole = encoder.encode(samples).values
    stream, n, errors, errors_of_newest = encoder.stream(), 0, [], []
    for at in range(0, 5 * SAMPLE_RATE, 640):
        vectors = stream.push(samples[at : at + 640])
        pending, n = stream.pending(), n + len(vectors)
        if len(vectors) and n > 50:
            true = whole[n : n + 3]
            errors.append(np.square(pending - true).mean(1))
            errors_of_newest.append(np.square(vectors[-1] - true).mean(1))
    ratios = np.mean(errors, axis=0) / np.mean(errors_of_newest, axis=0)
    assert len(errors) > 50 and ratios.shape == (3,)
    assert (ratios < 0.6).all(), ratios


def test_a_branch_without_attention_has_no_pending_vectors(waveform: torch.Tensor) -> None:
    encoder = PaseEncoder.live()
    stream = encoder.stream()
    stream.push(waveform[0].numpy())
    assert stream.pending().shape == (0, encoder.dim)


def test_vectors_depend_on_the_declared_lookahead_alone(
    branch: TrunkBranch, waveform: torch.Tensor
) -> None:
    """A change of the audio changes the first vector whose look-ahead reaches it, and no earlier
    one.
    """
    changed = waveform.clone()
    at = 48000
    changed[0, at] += 0.5
    with torch.no_grad():
        before, after = (branch(branch.spectra(w))[1][0] for w in (waveform, changed))
    moved = torch.nonzero((before - after).abs().amax(1) > 0).flatten()
    first = int(moved[0])
    assert first * 320 + trunk.LOOKAHEAD_S * SAMPLE_RATE >= at
    assert (first - 1) * 320 + trunk.LOOKAHEAD_S * SAMPLE_RATE <= at


def test_vectors_do_not_depend_on_old_audio(branch: TrunkBranch) -> None:
    """A vector depends on at most PAST vectors before it in each block."""
    random = torch.Generator().manual_seed(1)
    long = 0.05 * torch.randn(1, 320 * 500, generator=random)
    changed = long.clone()
    changed[0, :320] = 0.0
    with torch.no_grad():
        before, after = (branch(branch.spectra(w))[1][0] for w in (long, changed))
    same = (before == after).all(1)
    assert not bool(same[0])
    assert bool(same[2 * trunk.PAST + 4 :].all())


def test_positions_repeat(branch: TrunkBranch, waveform: torch.Tensor) -> None:
    """Positions begin again after N_POSITIONS."""
    with torch.no_grad():
        spectra = branch.spectra(waveform)
        first, again = branch(spectra)[1], branch(spectra, first=N_POSITIONS)[1]
        other = branch(spectra, first=700)[1]
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert float((first - other).abs().max()) > 1e-3


def test_stored_weights_exclude_those_of_whisper(tmp_path: Path) -> None:
    """A PASE file contains only the adapters, and is read together with Whisper's weights."""
    torch.manual_seed(0)
    pase = make_pase(TRUNK).eval()
    path = tmp_path / "pase.safetensors"
    write_pase(path, pase, Contrast(TRUNK.dim))
    assert path.stat().st_size < 4_000_000
    again, _ = read_pase(path)
    waveform = torch.sin(torch.arange(6400) / 9.0)[None]
    with torch.no_grad():
        torch.testing.assert_close(
            again.encode_audio(waveform).features, pase.encode_audio(waveform).features
        )


def test_damaged_whisper_weights_are_refused() -> None:
    """Errors name tensors with other shapes and missing tensors."""
    given = {k: torch.zeros(s.shape, dtype=s.dtype) for k, s in whisper_specs().items()}  # type: ignore[arg-type]
    del given["blocks.1.up.weight"]
    with pytest.raises(ContentError, match=r"blocks\.1\.up\.weight"):
        load_whisper(TrunkBranch(0), given)


def test_missing_whisper_weights_are_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without the file, the message says what to do."""
    trunk._shipped.cache_clear()

    def absent(name: str) -> Path:
        raise PackageError(f"{tmp_path / name}: these weights are missing. Reinstall talkhead")

    monkeypatch.setattr(trunk, "resolve", absent)
    with pytest.raises(PackageError, match=r"missing\. Reinstall"):
        load_whisper(TrunkBranch(0))
    trunk._shipped.cache_clear()


def test_distillation_loss_is_relative() -> None:
    """It is 0 for equal vectors and about 1 for the mean of all vectors."""
    whole = torch.randn(4, 50, 8, generator=torch.Generator().manual_seed(2))
    assert float(distillation_loss(whole, whole)) == 0.0
    mean = whole.mean((0, 1), keepdim=True).expand_as(whole)
    assert float(distillation_loss(mean, whole)) == pytest.approx(1.0, abs=0.02)


def test_only_adapters_are_trained() -> None:
    """Gradients reach the adapters, and Whisper's weights are not parameters."""
    branch = TrunkBranch(2)
    load_whisper(branch)
    names = {name for name, _ in branch.named_parameters()}
    assert names == {"mask"} | {
        f"blocks.{i}.{layer}.{part}"
        for i in range(trunk.N_BLOCKS)
        for layer in ("qkv", "out", "up", "down")
        for part in ("up", "down")
    }
    _, hidden = branch(branch.spectra(torch.randn(1, 6400)))
    hidden.square().mean().backward()
    assert float(branch.get_parameter("blocks.0.qkv.up").grad.abs().max()) > 0  # type: ignore[union-attr]


def test_gru_model_has_no_trunk() -> None:
    """The GRU model is built without one."""
    assert not any("qkv" in name for name in Pase(TRUNK.__class__()).state_dict())
