"""The model of PASE: receptive fields, anchors, writing and reading weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from talkhead.audio import power_spectrogram
from talkhead.encoder.pase import model
from talkhead.encoder.pase.corpus import LIPS_HEIGHT, LIPS_WIDTH
from talkhead.encoder.pase.losses import Contrast
from talkhead.encoder.pase.model import (
    AcousticFeatures,
    Pase,
    PaseConfig,
    PhonemeAttention,
    log_spectra,
    vector_spectra,
)
from talkhead.encoder.pase.weights import read_pase, write_pase
from talkhead.encoder.phones import PHONES
from talkhead.errors import PackageError, TalkheadError

SMALL = PaseConfig(width=12, hidden=16, layers=2, dim=8)


@pytest.fixture
def pase() -> Pase:
    torch.manual_seed(0)
    return Pase(SMALL).eval()


def _noise(n_samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(1, n_samples, generator=torch.Generator().manual_seed(seed))


def test_spectra_are_those_of_the_project() -> None:
    waveform = _noise(16_000)
    ours = vector_spectra(waveform)[0].numpy()
    theirs = power_spectrogram(waveform[0].numpy(), model.N_FFT, model.HOP_LENGTH)[:: model.STRIDE]
    np.testing.assert_allclose(ours, np.log(theirs + model.POWER_FLOOR), rtol=0, atol=2e-4)


def test_a_vector_depends_on_audio_up_to_its_lookahead(pase: Pase) -> None:
    """The gradient of one vector reaches exactly LOOKAHEAD_S past its moment."""
    waveform = _noise(16_000).requires_grad_()
    number = 20
    pase.encode_audio(waveform).features[0, number].sum().backward()
    assert waveform.grad is not None
    heard = torch.nonzero(waveform.grad[0]).flatten()
    last_s = (int(heard.max()) + 1) / 16_000 - number / model.RATE
    assert model.LOOKAHEAD_S - 0.001 < last_s <= model.LOOKAHEAD_S == pytest.approx(0.096)


def test_vectors_and_frames_are_counted_as_in_the_corpus(pase: Pase) -> None:
    with torch.no_grad():
        heard = pase.encode_audio(_noise(640 * 7))
        seen = pase.encode_lips(torch.rand(1, 7, LIPS_HEIGHT, LIPS_WIDTH))
    assert heard.features.shape == (1, 14, SMALL.dim)
    assert heard.logits.shape == (1, 14, len(PHONES))
    assert seen.features.shape == (1, 7, SMALL.dim)


def test_the_visual_branch_uses_a_stack_of_frames(pase: Pase) -> None:
    lips = torch.rand(1, 15, LIPS_HEIGHT, LIPS_WIDTH)
    other = lips.clone()
    other[0, 7] = other[0, 7].flip(0)  # the mean over time is unchanged
    with torch.no_grad():
        difference = pase.encode_lips(lips).features - pase.encode_lips(other).features
    changed = difference[0].abs().amax(1) > 1e-6
    assert torch.nonzero(changed).flatten().tolist() == [5, 6, 7, 8, 9]


def test_a_mask_replaces_inputs(pase: Pase) -> None:
    n_vectors = 50
    hidden = torch.ones(1, n_vectors + model.DELAY, dtype=torch.bool)
    with torch.no_grad():
        one = pase.encode_audio(_noise(16_000, 1), hidden).features
        two = pase.encode_audio(_noise(16_000, 2), hidden).features
    torch.testing.assert_close(one, two)


def test_attention_to_one_anchor_gives_its_value() -> None:
    """A query that is a multiple of one of several orthogonal anchors attends only to that anchor."""
    torch.manual_seed(0)
    config = PaseConfig(width=4, hidden=64, layers=1, dim=64)
    aligner = PhonemeAttention(config, 64)
    anchors = torch.linalg.qr(torch.randn(64, 64))[0][: len(PHONES)]
    with torch.no_grad():
        aligner.query.weight.copy_(torch.eye(64))
        aligner.query.bias.zero_()
        aligner.gate.weight.zero_()
        aligner.gate.bias.fill_(50.0)  # the output is the anchor's value only, without the vector
        aligned = aligner(1e4 * anchors[None, 3:4], anchors)
        torch.testing.assert_close(aligned.features[0, 0], aligner.values(anchors[3]))
    assert int(aligned.logits[0, 0].argmax()) == 3


def test_without_anchors_phones_come_from_a_linear_layer() -> None:
    aligner = PhonemeAttention(PaseConfig(dim=8, has_anchors=False), 16)
    hidden, anchors = torch.randn(1, 5, 16), torch.randn(len(PHONES), 8)
    first, second = aligner(hidden, anchors), aligner(hidden, anchors + 1.0)
    torch.testing.assert_close(first.features, second.features)
    torch.testing.assert_close(first.logits, second.logits)


def test_spectra_of_a_tone_peak_at_its_bin() -> None:
    times = torch.arange(4096) / 16_000
    spectra = log_spectra(torch.sin(2 * torch.pi * 1000.0 * times)[None])
    assert (spectra[0].argmax(1) == round(1000 * model.N_FFT / 16_000)).all()


def test_weights_round_trip(tmp_path: Path, pase: Pase) -> None:
    contrast = Contrast(SMALL.dim)
    path = tmp_path / "pase.safetensors"
    write_pase(path, pase, contrast)
    back, meeting = read_pase(path)
    assert back.config == SMALL
    with torch.no_grad():
        read, written = (p.encode_audio(_noise(3200)).features for p in (back, pase))
    torch.testing.assert_close(read, written, rtol=0, atol=0)
    torch.testing.assert_close(meeting.seen.weight, contrast.seen.weight)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    with pytest.raises(TalkheadError, match=r"other\.safetensors"):
        read_pase(path)
    path.write_bytes(b"nothing")
    with pytest.raises(PackageError, match="damaged"):
        read_pase(path)


@pytest.mark.parametrize(("logit", "trusted"), [(50.0, True), (-50.0, False)])
def test_denoising_mixes_actual_and_expected_inputs(logit: float, trusted: bool) -> None:
    detail = AcousticFeatures(PaseConfig())
    assert detail.gate is not None and detail.expected is not None
    torch.nn.init.zeros_(detail.gate.weight)
    torch.nn.init.constant_(detail.gate.bias, logit)
    inputs, hidden = torch.randn(2, 5, 192), torch.randn(2, 5, 256)
    wanted = inputs if trusted else detail.expected(hidden)
    torch.testing.assert_close(detail.denoise(inputs, hidden), wanted)


def test_denoising_is_optional() -> None:
    detail = AcousticFeatures(PaseConfig(clears=False))
    inputs = torch.randn(2, 5, 192)
    assert detail.denoise(inputs, torch.randn(2, 5, 256)) is inputs
    assert not list(detail.parameters())


def test_the_audio_branch_returns_unmasked_inputs(pase: Pase) -> None:
    spectra = torch.randn(1, 60, model.N_BINS)
    inputs, hidden = pase.ear(spectra)
    spans = torch.zeros(1, inputs.shape[1] + model.DELAY, dtype=torch.bool)
    spans[:, 4:8] = True
    with torch.no_grad():
        masked_inputs, masked = pase.ear(spectra, spans)
    torch.testing.assert_close(masked_inputs, inputs)
    assert not torch.allclose(masked, hidden)
