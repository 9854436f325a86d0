"""Motion codes reproduce the landmarks, and held-out frames do not influence them."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_head import make_codes, make_face

from talkhead.face import (
    INNER_LIPS,
    LIPS,
    N_BODY,
    N_CLOTHES,
    N_INNER,
    FaceModel,
    lip_aperture,
)
from talkhead.frame_selection import train_frames
from talkhead.preprocess.motion_codes import (
    N_EYES,
    N_MOUTH,
    encode_motion,
    fit_face_model,
    mouth_weights,
)
from talkhead.types import Bool, Float32

N_FRAMES = 300
TRAIN = train_frames(N_FRAMES)


def make_canonical(noise: float = 0.002, seed: int = 0) -> tuple[Float32, Float32]:
    """Canonical landmarks [F, 478, 3] with tracking noise, and the true codes [F, 9]."""
    face, codes = make_face(), make_codes(N_FRAMES, seed)
    spread = noise * np.array([1.0, 1.0, 3.0])
    random = np.random.default_rng(seed).normal(size=(N_FRAMES, 478, 3)) * spread
    return (face.vertices(codes) + random).astype(np.float32), codes


def quiet_frames() -> Bool:
    """Every tenth second is silent."""
    return np.arange(N_FRAMES) % 100 < 25


@pytest.fixture(scope="module")
def model() -> FaceModel:
    """The face model of make_canonical()'s landmarks."""
    return fit(make_canonical()[0])


def fit(canonical: Float32, silent: Bool | None = None) -> FaceModel:
    face = make_face()
    silent = np.zeros(N_FRAMES, dtype=bool) if silent is None else silent
    return fit_face_model(face.template, canonical, TRAIN, silent, face.triangles)


def distances(model: FaceModel, canonical: Float32, points: tuple[int, ...]) -> Float32:
    """Mean distance [F] in x and y between points of the encoded mesh and the true ones."""
    vertices = model.vertices(encode_motion(model, canonical))
    offsets = (vertices - canonical)[:, list(points), :2]
    return np.asarray(np.linalg.norm(offsets, axis=-1).mean(1))


def test_codes_reproduce_landmarks_and_drop_noise(model: FaceModel) -> None:
    canonical, codes = make_canonical()
    assert model.n_mouth == N_MOUTH + N_INNER
    assert model.basis.shape == (model.n_mouth + N_EYES + N_CLOTHES + N_BODY, 478, 3)
    assert not model.basis[N_MOUTH : model.n_mouth].any()
    assert model.clothes == slice(model.n_codes - N_BODY - N_CLOTHES, model.n_codes - N_BODY)
    clean = make_face().vertices(codes)
    vertices = model.vertices(encode_motion(model, canonical))
    lips, inner = list(LIPS), list(INNER_LIPS)
    moving = np.linalg.norm((clean - clean.mean(0))[:, inner, :2], axis=-1).mean()
    error = np.linalg.norm((vertices - clean)[:, lips, :2], axis=-1).mean()
    noise = np.linalg.norm((canonical - clean)[:, lips, :2], axis=-1).mean()
    assert error < 0.7 * noise and error < 0.1 * moving


def test_held_out_frames_are_reproduced_as_well(model: FaceModel) -> None:
    canonical, _ = make_canonical()
    error = distances(model, canonical, LIPS)
    assert error[~TRAIN].mean() < 1.3 * error[TRAIN].mean() < 0.01


def test_the_test_block_has_no_influence() -> None:
    """With corrupted landmarks and silence of held-out frames, the model is bit-identical."""
    canonical, _ = make_canonical()
    corrupted = canonical.copy()
    corrupted[~TRAIN] = np.nan
    silent = quiet_frames()
    first, second = fit(canonical, silent), fit(corrupted, silent | ~TRAIN)
    for name in ("template", "basis", "triangles", "silence"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    kept = encode_motion(first, canonical[TRAIN])
    assert np.array_equal(encode_motion(second, canonical[TRAIN]), kept)


def test_first_component_of_each_part_has_deviation_one(model: FaceModel) -> None:
    canonical, _ = make_canonical()
    codes = encode_motion(model, canonical[TRAIN])
    deviations = codes.std(0)
    for part in (deviations[:N_MOUTH], deviations[N_MOUTH + N_INNER :]):
        assert part[0] == pytest.approx(1.0, rel=0.15)
        assert part.max() < 1.25


def test_parts_move_their_own_points(model: FaceModel) -> None:
    """Mouth components do not move eyes and forehead, eye components do not move the lips."""
    high = model.template[:, 1] < 0.1
    assert np.abs(model.basis[:N_MOUTH, high]).max() < 1e-6
    low = model.template[:, 1] > 0.55
    low[468:] = False
    assert np.abs(model.basis[N_MOUTH:, low]).max() < 1e-6


def test_blink_and_jaw_are_separated(model: FaceModel) -> None:
    """The true blink affects the code of the eyes only, the true jaw that of the mouth only."""
    canonical, codes = make_canonical()
    found = encode_motion(model, canonical)
    for true, own, other in (
        (codes[:, 0], found[:, :N_MOUTH], found[:, N_MOUTH:]),
        (codes[:, 3], found[:, N_MOUTH:], found[:, :N_MOUTH]),
    ):
        assert explained(true, own) > 0.98
        assert explained(true, other) < explained(true, own) - 0.3


def explained(signal: Float32, codes: Float32) -> float:
    """R^2 of a signal [F] regressed on codes, fitted on one half and evaluated on the other."""
    design = np.concatenate([codes, np.ones((len(codes), 1))], axis=1)
    even, odd = slice(0, None, 2), slice(1, None, 2)
    weights = np.linalg.lstsq(design[even], signal[even], rcond=None)[0]
    rest = signal[odd] - design[odd] @ weights
    return float(1.0 - rest.var() / signal[odd].var())


def test_the_rest_code_is_that_of_silent_frames() -> None:
    silent = quiet_frames()
    face, codes = make_face(), make_codes(N_FRAMES)
    codes[silent, :3] = np.array([-0.5, 0.3, 0.0])
    codes[silent & (np.arange(N_FRAMES) % 7 == 0), 0] = 2.0  # breaths, which a median ignores
    canonical = face.vertices(codes)
    model = fit(canonical, silent)
    assert not model.silence[N_MOUTH:].any(), "the eyes of the rest code are as open as on average"
    at_rest = model.vertices(model.silence[None])
    wanted = face.vertices(np.array([[-0.5, 0.3] + [0.0] * (face.n_codes - 2)], np.float32))
    assert lip_aperture(at_rest)[0] == pytest.approx(lip_aperture(wanted)[0], abs=0.01)
    speaking = lip_aperture(canonical[~silent]).mean()
    assert lip_aperture(at_rest)[0] < speaking - 0.01


def test_without_silent_frames_the_rest_code_is_a_nearly_closed_mouth(model: FaceModel) -> None:
    canonical, _ = make_canonical()
    mouths = encode_motion(model, canonical[TRAIN])
    mouths[:, N_MOUTH:] = 0.0
    apertures = lip_aperture(model.vertices(mouths))
    assert not model.silence[N_MOUTH:].any()
    assert lip_aperture(model.vertices(model.silence[None]))[0] < np.percentile(apertures, 40)


def test_triangles_face_outward_whatever_their_order() -> None:
    face = make_face()
    canonical, _ = make_canonical()
    wrong = face.triangles.copy()
    wrong[::2] = wrong[::2][:, ::-1]
    silent = np.zeros(N_FRAMES, dtype=bool)
    model = fit_face_model(face.template, canonical, TRAIN, silent, wrong)
    corners = model.template[model.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (normals[:, 2] < 0).mean() > 0.97
    assert np.array_equal(np.sort(model.triangles, axis=1), np.sort(wrong, axis=1))


def test_mouth_weights_increase_from_nose_to_lips() -> None:
    template = make_face().template
    weights = mouth_weights(template)
    assert weights.min() >= 0.0 and weights.max() <= 1.0
    assert (weights[list(LIPS)] == 1.0).all() and not weights[468:].any()
    assert not weights[:468][template[:468, 1] < 0.1].any()
