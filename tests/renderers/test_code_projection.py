"""Codes far from all training codes are moved toward them, smoothly; others are unchanged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from talkhead.dataset import IdentityDataset
from talkhead.renderers import code_projection as module
from talkhead.renderers.code_projection import CodeProjector


@pytest.fixture(scope="module")
def projector() -> CodeProjector:
    """A ring of mouths with radius 1, spread by 0.05."""
    generator = torch.Generator().manual_seed(0)
    angle = 6.2832 * torch.rand(400, generator=generator)
    ring = torch.stack([angle.cos(), angle.sin()], 1)
    ring += 0.05 * torch.randn(ring.shape, generator=generator)
    return CodeProjector(ring, torch.tensor([0.1, 0.2]))


def with_eyes(mouths: torch.Tensor) -> torch.Tensor:
    return torch.cat([mouths, torch.full((len(mouths), 3), 7.0)], dim=1)


def test_training_codes_are_unchanged(projector: CodeProjector) -> None:
    motion = with_eyes(projector.codes[:50] + 0.01)
    assert torch.equal(projector.project(motion), motion)


def test_far_codes_are_moved_to_training_codes(projector: CodeProjector) -> None:
    far = with_eyes(torch.tensor([[2.0, 0.0], [0.0, -3.0], [1.5, 1.5]]))
    near = projector.project(far)
    assert torch.cdist(near[:, :2], projector.codes).min(1).values.max() < 0.15
    assert (torch.nn.functional.cosine_similarity(near[:, :2], far[:, :2]) > 0.95).all()
    assert torch.equal(near[:, 2:], far[:, 2:])


def test_projection_is_smooth(projector: CodeProjector) -> None:
    """Along an outward path, no step of the result is much longer than that of the path."""
    path = torch.stack([torch.linspace(1.0, 2.0, 400), torch.zeros(400)], 1)
    steps = (projector.project(with_eyes(path))[:, :2].diff(dim=0)).norm(dim=1)
    assert steps.max() < 8 * 1.0 / 399


def test_reach_is_measured_between_different_moments(head_dataset: IdentityDataset) -> None:
    mouths = CodeProjector.from_dataset(head_dataset)
    assert mouths.codes.shape[1] == head_dataset.face.n_mouth
    low, high = mouths.reach
    assert 0 < low < high
    tracks = head_dataset.tracks
    other = tracks.codes.copy()
    other[~tracks.train] = 99.0
    again = CodeProjector.from_dataset(replace(head_dataset, tracks=replace(tracks, codes=other)))
    assert torch.equal(again.codes, mouths.codes) and torch.equal(again.reach, mouths.reach)


def test_components_that_move_no_vertex_are_ignored(head_dataset: IdentityDataset) -> None:
    basis = head_dataset.face.basis.copy()
    basis[head_dataset.face.n_mouth - 1] = 0.0
    dataset = replace(head_dataset, face=replace(head_dataset.face, basis=basis))
    assert CodeProjector.from_dataset(dataset).codes.shape[1] == dataset.face.n_mouth - 1


def test_long_footage_keeps_few_codes_and_short_footage_has_no_reach(
    head_dataset: IdentityDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CODES", 10)
    assert 5 <= len(CodeProjector.from_dataset(head_dataset).codes) <= 10
    tracks = head_dataset.tracks
    brief = replace(tracks, usable=tracks.usable & (np.arange(len(tracks.usable)) < 8))
    mouths = CodeProjector.from_dataset(replace(head_dataset, tracks=brief))
    motion = torch.full((2, head_dataset.face.n_codes), 50.0)
    assert torch.equal(mouths.project(motion), motion)
