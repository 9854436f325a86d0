"""PASE's losses: known values and the signs of gradients."""

from __future__ import annotations

import math

import pytest
import torch

from talkhead.encoder.pase.corpus import UNKNOWN
from talkhead.encoder.pase.losses import (
    N_MELS,
    Contrast,
    Restorer,
    clean_mel,
    denoising_loss,
    phone_loss,
    phone_means,
    viseme_classes,
    viseme_loss,
)
from talkhead.encoder.pase.model import N_BINS
from talkhead.encoder.phones import PHONES, VISEMES


def test_phone_loss_of_uniform_logits_is_the_logarithm_of_their_number() -> None:
    logits = torch.zeros(1, 4, len(PHONES))
    labels = torch.tensor([[0, 3, UNKNOWN, 39]])
    assert math.isclose(float(phone_loss(logits, labels)), math.log(len(PHONES)), rel_tol=1e-5)


def test_unknown_phones_have_no_gradient() -> None:
    logits = torch.randn(1, 3, len(PHONES), requires_grad=True)
    (phone_loss(logits, torch.tensor([[1, UNKNOWN, 2]]))).backward()
    assert logits.grad is not None
    assert float(logits.grad[0, 1].abs().max()) == 0.0 < float(logits.grad[0, 0].abs().max())
    nothing = torch.full((1, 3), UNKNOWN)
    assert float(phone_loss(logits.detach(), nothing)) == 0.0
    assert float(viseme_loss(logits.detach(), nothing)) == 0.0


def test_viseme_loss_ignores_confusions_within_a_viseme() -> None:
    logits = torch.full((1, 1, len(PHONES)), -20.0)
    logits[0, 0, PHONES.index("B")] = 20.0
    alike = float(viseme_loss(logits, torch.tensor([[PHONES.index("M")]])))
    other = float(viseme_loss(logits, torch.tensor([[PHONES.index("AA")]])))
    assert alike < 1e-3 < 5.0 < other
    assert sorted(set(viseme_classes().tolist())) == list(range(len(VISEMES)))


def test_phone_means() -> None:
    values = torch.tensor([[[1.0], [3.0], [5.0], [7.0]], [[2.0], [4.0], [6.0], [9.0]]])
    labels = torch.tensor([[8, 8, UNKNOWN, 8], [8, 5, 5, 5]])
    phones, means = phone_means(values, labels)
    assert phones.tolist() == [8, 8, 8, 5]
    torch.testing.assert_close(means.flatten(), torch.tensor([2.0, 7.0, 2.0, (4 + 6 + 9) / 3]))


def test_contrast_prefers_matching_pairs() -> None:
    torch.manual_seed(0)
    contrast = Contrast(16, 16)
    with torch.no_grad():
        contrast.seen.weight.copy_(contrast.heard.weight)
        contrast.seen.bias.copy_(contrast.heard.bias)
    phones = torch.randn(6, 16)
    labels = torch.arange(6).repeat(2, 1)
    heard = phones[labels]
    together = float(contrast(heard, heard.clone(), labels).detach())
    apart = float(contrast(heard, heard.roll(1, 1), labels).detach())
    assert together < apart


def test_contrast_gradient_by_finite_differences() -> None:
    torch.manual_seed(0)
    contrast = Contrast(5, 4).double()
    heard = torch.randn(2, 6, 5, dtype=torch.float64, requires_grad=True)
    seen = torch.randn(2, 6, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[0, 0, 1, 1, 2, UNKNOWN], [2, 1, 1, 0, 0, 0]])
    assert torch.autograd.gradcheck(lambda a, v: contrast(a, v, labels), (heard, seen))


def test_the_restorer_does_not_depend_on_masked_features() -> None:
    torch.manual_seed(0)
    restorer = Restorer(8, n_points=3)
    heard, seen = torch.randn(1, 20, 8), torch.randn(1, 10, 8)
    whole, none = torch.ones(1, 10, dtype=torch.bool), torch.zeros(1, 10, dtype=torch.bool)
    mel, mouth = restorer(heard, seen, (whole, none))
    assert mel.shape == (1, 20, N_MELS) and mouth is not None and mouth.shape == (1, 10, 6)
    again, _ = restorer(torch.randn(1, 20, 8), seen, (whole, none))
    torch.testing.assert_close(mel, again)
    blind, _ = restorer(heard, seen, (none, whole))
    absent, _ = restorer(heard, None, (none, none))
    torch.testing.assert_close(blind, absent)


def test_clean_mel_of_white_noise_is_flat() -> None:
    mel = clean_mel(torch.full((1, 2, N_BINS), -3.0))
    torch.testing.assert_close(
        mel, torch.full((1, 2, N_MELS), (-3.0 + 5.0) / 4.0), atol=1e-3, rtol=0
    )


def test_denoising_loss_is_relative_to_the_spread_of_clean_inputs() -> None:
    clean = torch.randn(2, 50, 8)
    assert denoising_loss(clean, clean) == 0.0
    noisy = clean + 0.5
    torch.testing.assert_close(denoising_loss(7 * noisy, 7 * clean), denoising_loss(noisy, clean))
    assert denoising_loss(noisy, clean) == pytest.approx(0.5 / clean.flatten(0, 1).std(0).mean())
