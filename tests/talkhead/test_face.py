"""The face model: linear in its code, restored from its tensors; the lip aperture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import accepted
from synthetic_head import make_codes, make_face

from talkhead import face as names
from talkhead.errors import PackageError
from talkhead.face import FaceModel, lip_aperture
from talkhead.storage import read_tensors, write_tensors


def test_vertices_are_linear_in_the_code() -> None:
    face, codes = make_face(), make_codes(6)
    assert face.n_codes == codes.shape[1]
    vertices = face.vertices(codes)
    assert vertices.dtype == np.float32 and vertices.shape == (6, names.N_LANDMARKS, 3)
    by_hand = face.template + sum(
        codes[:, k, None, None] * face.basis[k] for k in range(face.n_codes)
    )
    assert np.allclose(vertices, by_hand, atol=1e-6)
    rest = face.vertices(np.zeros((1, face.n_codes), np.float32))[0]
    assert np.array_equal(rest, face.template)


def test_round_trip_through_a_file(tmp_path: Path) -> None:
    face = make_face()
    write_tensors(tmp_path / "face.safetensors", face.tensors())
    back = FaceModel.from_tensors(read_tensors(tmp_path / "face.safetensors"))
    assert back.n_mouth == face.n_mouth
    for name in ("template", "basis", "triangles", "silence"):
        given, kept = getattr(face, name), getattr(back, name)
        assert kept.dtype == given.dtype and np.array_equal(kept, given)


def test_missing_tensor() -> None:
    tensors = make_face().tensors()
    del tensors["basis"]
    with pytest.raises(PackageError, match="basis"):
        FaceModel.from_tensors(tensors)


def test_damaged_tensors_are_refused() -> None:
    assert accepted(make_face().tensors(), FaceModel.from_tensors) == {
        ("triangles", "longer 0"),  # any number of triangles
        ("triangles", "shorter 0"),
    }


def test_lip_aperture_by_hand() -> None:
    points = np.zeros((2, names.N_LANDMARKS, 3), np.float32)
    points[:, 263, 0] = 20.0  # outer eye corners 20 apart
    for low, gap in ((14, 2.0), (87, 4.0), (317, 6.0)):
        points[0, low, 1] = gap
    points[1, :, 2] = 100.0  # depth doesn't count
    assert lip_aperture(points).tolist() == pytest.approx([4.0 / 20.0, 0.0])


def test_lip_aperture_has_no_unit_and_follows_the_jaw() -> None:
    face = make_face()
    codes = np.zeros((5, face.n_codes), np.float32)
    codes[:, 0] = np.linspace(0.0, 2.0, 5)
    points = face.vertices(codes)
    gaps = lip_aperture(points)
    assert (np.diff(gaps) > 0.01).all()
    assert np.allclose(lip_aperture(100.0 * points + 7.0), gaps, atol=1e-4)


def test_body_components_move_no_vertex_but_the_body() -> None:
    """The last components are an affine map of the image, which is the identity at zero and the
    same at any depth.
    """
    face = make_face()
    assert not face.basis[-names.N_BODY :].any()
    codes = torch.zeros(2, face.n_codes, dtype=torch.float64)
    codes[1, -names.N_BODY :] = torch.linspace(-0.1, 0.1, names.N_BODY, dtype=torch.float64)
    still, moved = names.body_matrix(codes)
    assert torch.equal(still, torch.eye(3, dtype=torch.float64))
    assert not torch.allclose(moved, still, atol=0.01)
    point = torch.tensor([0.3, 0.4, 1.0], dtype=torch.float64)
    near, far = moved @ point, moved @ (5 * point)
    assert torch.allclose(near[:2] / near[2], far[:2] / far[2])


def test_clothes_are_the_components_before_the_body_that_move_no_vertex() -> None:
    face = make_face()
    n_eyes = face.n_codes - face.n_mouth - names.N_BODY
    assert face.clothes == slice(face.n_codes - names.N_BODY, face.n_codes - names.N_BODY)  # none
    assert face.eyes == slice(face.n_mouth, face.n_mouth + n_eyes)
    basis = np.insert(face.basis, [face.eyes.stop] * 3, 0.0, axis=0)
    dressed = replace(face, basis=basis)
    assert dressed.eyes == face.eyes
    assert dressed.clothes == slice(face.eyes.stop, face.eyes.stop + 3)
    still = replace(face, basis=np.zeros_like(face.basis))
    assert still.clothes.start == still.clothes.stop


def test_named_points_are_distinct_vertices() -> None:
    for name in ("LIPS", "FACE_OVAL", "LEFT_EYE", "RIGHT_EYE", "LEFT_BROW", "RIGHT_BROW"):
        points = getattr(names, name)
        assert len(set(points)) == len(points) and max(points) < names.N_SURFACE
    groups = [set(names.LIPS), set(names.FACE_OVAL), set(names.LEFT_EYE), set(names.RIGHT_EYE)]
    assert sum(map(len, groups)) == len(set().union(*groups))
    assert names.CHIN in names.JAW_LINE and names.FOREHEAD not in names.JAW_LINE
