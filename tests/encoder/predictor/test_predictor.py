"""MotionPredictor: learning, determinism, prediction in pieces, the mouth in silence."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from damage import accepted
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import conv1d, gelu

from talkhead.config import from_json, to_json
from talkhead.encoder.predictor.lip_range import LIP_RANGE
from talkhead.encoder.predictor.model import (
    BLOCK,
    MotionPredictor,
    PredictorTrainingData,
    fit_predictor,
    fit_predictors,
)
from talkhead.encoder.predictor.network import (
    LOOKAHEAD_S,
    PRESETS,
    PredictorConfig,
    TemporalNets,
    receptive_field_of,
)
from talkhead.encoder.predictor.rest import (
    CLOSING_FRAMES,
    SETTLING_FRAMES,
    STIRRING_FRAMES,
    rest_share,
)
from talkhead.encoder.predictor.training import vectors_per_frame
from talkhead.encoder.predictor.voices import OtherVoices
from talkhead.encoder.registry import encoder_names, load_encoder
from talkhead.errors import PackageError, TalkheadError
from talkhead.face import N_LANDMARKS, FaceModel, lip_aperture
from talkhead.progress import SilentProgress
from talkhead.types import FRAME_RATE, Bool, Float32, SpeechFeatures

N_MOUTH, N_CODES, DIM = 4, 6, 12
SMALL = PredictorConfig(
    width=16, layers=((3, 1), (3, 2)), n_members=2, n_steps=80, batch_size=6, n_frames=20,
    dropout=0.0, noise_std=0.05, gain_std=0.0, n_masks=0,
)  # fmt: skip


class Clip(NamedTuple):
    features: SpeechFeatures
    codes: Float32
    train: Bool
    silent: Bool
    face: FaceModel


def _face(random: np.random.Generator) -> FaceModel:
    return FaceModel(
        template=random.normal(size=(N_LANDMARKS, 3)).astype(np.float32),
        basis=(0.1 * random.normal(size=(N_CODES, N_LANDMARKS, 3))).astype(np.float32),
        n_mouth=N_MOUTH,
        triangles=np.zeros((0, 3), np.int64),
        silence=np.array([-2.0, 0.3, 0.1, 0.0, 0.0, 0.0], np.float32),
    )


def _clip(n_frames: int = 500, seed: int = 0) -> Clip:
    """Mouth codes follow the features of the current and the previous frame; codes of the eyes do
    not.
    """
    random = np.random.default_rng(seed)
    values = random.normal(size=(2 * n_frames, DIM)).astype(np.float32)
    values[1:] = 0.6 * values[:-1] + 0.8 * values[1:]
    frames = values.reshape(n_frames, 2 * DIM)
    mouth = frames @ random.normal(size=(2 * DIM, N_MOUTH)) / 3.0
    mouth[1:] += 0.5 * np.tanh(mouth[:-1])
    eyes = random.normal(size=(n_frames, N_CODES - N_MOUTH))
    codes = np.concatenate([mouth, eyes], axis=1).astype(np.float32)
    train = np.arange(n_frames) < n_frames * 10 // 11
    silent = np.zeros(n_frames, dtype=bool)
    return Clip(SpeechFeatures(values, 50.0), codes, train, silent, _face(random))


def _fit(clip: Clip, seed: int = 0, config: PredictorConfig = SMALL) -> MotionPredictor:
    return fit_predictor(PredictorTrainingData(*clip), config, seed, SilentProgress())


@pytest.fixture(scope="module")
def clip() -> Clip:
    return _clip()


@pytest.fixture(scope="module")
def predictor(clip: Clip) -> MotionPredictor:
    return _fit(clip)


@pytest.fixture(scope="module")
def corrected(clip: Clip) -> MotionPredictor:
    """A predictor that was fitted with other voices."""
    features = SpeechFeatures(0.4 * _clip(400, seed=7).features.values, 50.0)
    silent = np.arange(400) % 80 > 60
    data = PredictorTrainingData(*clip, voices=OtherVoices(features, silent))
    return fit_predictor(data, SMALL, 0, SilentProgress())


def _same(one: MotionPredictor, other: MotionPredictor) -> bool:
    ours, theirs = one.tensors(), other.tensors()
    return ours.keys() == theirs.keys() and all(torch.equal(v, theirs[k]) for k, v in ours.items())


def test_learns_motion_that_features_determine(clip: Clip, predictor: MotionPredictor) -> None:
    predicted = predictor.predict(clip.features, clip.silent, len(clip.codes))
    test = ~clip.train
    target, mean = clip.codes[test, :N_MOUTH], clip.codes[clip.train, :N_MOUTH].mean(0)
    share = np.square(predicted[test, :N_MOUTH] - target).mean() / np.square(target - mean).mean()
    assert share < 0.4


def test_learns_the_inner_mouth(clip: Clip) -> None:
    """A code that moves no point is learned like the others."""
    basis = clip.face.basis.copy()
    basis[N_MOUTH - 1] = 0.0
    predictor = _fit(clip._replace(face=replace(clip.face, basis=basis)))
    predicted = predictor.predict(clip.features, clip.silent, len(clip.codes))
    target = clip.codes[:, N_MOUTH - 1]
    error = (predicted[:, N_MOUTH - 1] - target)[~clip.train]
    assert np.square(error).mean() < 0.7 * target[~clip.train].var()


def test_eyes_stay_at_zero(clip: Clip, predictor: MotionPredictor) -> None:
    predicted = predictor.predict(clip.features, clip.silent, len(clip.codes))
    assert predicted.shape == clip.codes.shape and predicted.dtype == np.float32
    assert not predicted[:, N_MOUTH:].any()


def test_same_seed_same_predictor(clip: Clip) -> None:
    brief = replace(SMALL, n_steps=10, dropout=0.2)
    state = torch.random.get_rng_state()
    assert _same(_fit(clip, 0, brief), _fit(clip, 0, brief))
    assert torch.equal(state, torch.random.get_rng_state())
    assert not _same(_fit(clip, 0, brief), _fit(clip, 1, brief))


def test_predictors_fitted_together_differ(clip: Clip) -> None:
    clips = [clip, _clip(seed=1)]
    together = fit_predictors(
        [PredictorTrainingData(*c) for c in clips], SMALL, 0, SilentProgress()
    )
    for own, other, predictor in zip(clips, clips[::-1], together, strict=True):
        codes = predictor.predict(own.features, own.silent, len(own.codes))
        train = own.codes[own.train, :N_MOUTH]
        error = np.abs(codes[own.train, :N_MOUTH] - train).mean()
        assert error < 0.8 * np.abs(train - train.mean(0)).mean()
        moved = predictor.predict(other.features, other.silent, len(other.codes))
        assert (
            np.abs(moved[other.train, :N_MOUTH] - other.codes[other.train, :N_MOUTH]).mean() > error
        )


def test_frames_kept_back_are_not_used(clip: Clip) -> None:
    train = clip.train.copy()
    train[100:130] = False  # frames without a face
    spoilt_codes = np.where(train[:, None], clip.codes, np.float32(np.nan))
    used = np.repeat(train, 2)[:, None]
    spoilt_values = np.where(used, clip.features.values, np.float32(np.nan))
    silent = clip.silent | ~train
    brief = replace(SMALL, n_steps=10)
    clean = _fit(clip._replace(train=train), 0, brief)
    spoilt = Clip(SpeechFeatures(spoilt_values, 50.0), spoilt_codes, train, silent, clip.face)
    assert _same(clean, _fit(spoilt, 0, brief))


def test_restored_from_tensors(clip: Clip, corrected: MotionPredictor) -> None:
    tensors = {k: v.clone() for k, v in corrected.tensors().items()}
    again = MotionPredictor.from_tensors(tensors, corrected.config)
    assert _same(corrected, again)
    before, after = (
        p.predict(clip.features, clip.silent, len(clip.codes)) for p in (corrected, again)
    )
    np.testing.assert_array_equal(before, after)


def test_the_same_lips_with_voices_but_another_range(
    clip: Clip, predictor: MotionPredictor, corrected: MotionPredictor
) -> None:
    """Other voices change the range of the lips and nothing else."""
    lips = corrected.lip_range
    assert lips is not None and _same(predictor, replace(corrected, lip_range=None))
    # The motion of this clip is noise, which a held opening would not follow.
    ranged = replace(corrected, lip_range=replace(lips, motion=None))
    timid = SpeechFeatures(0.4 * _clip(1000, seed=8).features.values, 50.0)
    before, after = (
        np.quantile(lips.measured(codes[:, :N_MOUTH].astype(np.float64), 0), (0.1, 0.9))
        for codes in (p.predict(timid, np.zeros(1000, bool), 1000) for p in (predictor, ranged))
    )
    own = np.quantile(lips.own[0], (0.1, 0.9))
    assert 1.3 * np.ptp(before) < np.ptp(after) < np.ptp(own)


def test_predictors_without_a_lip_range_load(clip: Clip, corrected: MotionPredictor) -> None:
    """Packages of older versions have none."""
    tensors = corrected.tensors()
    old = {name: t for name, t in tensors.items() if not name.startswith(LIP_RANGE)}
    assert len(old) < len(tensors)
    again = MotionPredictor.from_tensors(old, corrected.config)
    assert again.lip_range is None
    plain, expected = (
        p.predict(clip.features, clip.silent, len(clip.codes))
        for p in (again, replace(corrected, lip_range=None))
    )
    np.testing.assert_array_equal(plain, expected)
    with pytest.raises(PackageError, match="lip_range"):
        MotionPredictor.from_tensors({**old, f"{LIP_RANGE}own": tensors[f"{LIP_RANGE}own"]}, SMALL)


def test_damaged_tensors_are_refused(corrected: MotionPredictor) -> None:
    load = partial(MotionPredictor.from_tensors, config=corrected.config)
    assert accepted(corrected.tensors(), load) == {
        ("scaling.rest", "longer 0"),  # eyes and brows may have any number of components
        ("scaling.rest", "shorter 0"),
        ("scaling.held_out", "holds nan"),  # only reported: not used in computations
        ("scaling.held_out", "holds inf"),
    }


def test_a_config_from_json_equals_the_config() -> None:
    layers = [list(layer) for layer in SMALL.layers]
    assert replace(SMALL, layers=layers) == SMALL  # type: ignore[arg-type]
    assert from_json(PredictorConfig, json.loads(json.dumps(to_json(SMALL)))) == SMALL


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"width": 100_000}, "width is 100000, where 1 to 256 is allowed"),
        ({"n_members": 10**9}, "n_members is 1000000000"),
        ({"width": True}, "width is True, where a whole number is needed"),
        ({"layers": [[3, 1]] * 9}, "layers is .*at most 8 of them"),
        ({"layers": [[3, 10**6]]}, "layers is .*where 1 to 32 is allowed"),
        ({"layers": [[3, 1, 1]]}, r"layers is \[3, 1, 1\], where a list of 2 is needed"),
        ({"layers": "31"}, "layers is '31', where a list is needed"),
    ],
)
def test_the_size_of_a_config_is_limited(given: dict[str, Any], message: str) -> None:
    with pytest.raises(PackageError, match=message):
        from_json(PredictorConfig, given)


def test_too_large_receptive_fields_are_refused_before_networks_are_built(
    predictor: MotionPredictor,
) -> None:
    far = replace(predictor.config, layers=((32, 32),))
    with pytest.raises(PackageError, match="the networks depend on 992 frames"):
        MotionPredictor.from_tensors(predictor.tensors(), far)


@pytest.mark.parametrize("intensity", [1.0, 1.3])
@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("n_frames", [1, BLOCK - 1, BLOCK, 2 * BLOCK + 3])
def test_pieces_equal_the_whole(
    corrected: MotionPredictor, size: int, n_frames: int, intensity: float
) -> None:
    long = _clip(2 * BLOCK + 3, seed=1)
    values = long.features.values[: 2 * n_frames]
    silent = np.arange(n_frames) % 90 > 60
    whole = corrected.predict(SpeechFeatures(values, 50.0), silent, n_frames, intensity)
    pieces = (values[i : i + size] for i in range(0, len(values), size))
    parts = list(corrected.predict_chunks(pieces, silent, n_frames, intensity))
    assert max(len(part) for part in parts) <= BLOCK
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_features_beyond_the_receptive_field_have_no_effect(predictor: MotionPredictor) -> None:
    long, n_frames = _clip(2 * BLOCK, seed=1), 2 * BLOCK
    speech = np.zeros(n_frames, dtype=bool)
    values = long.features.values.copy()
    whole = predictor.predict(SpeechFeatures(values, 50.0), speech, n_frames)
    values[600:] = 0.0
    cut = predictor.predict(SpeechFeatures(values, 50.0), speech, n_frames)
    reach = 300 - predictor.view.ahead
    np.testing.assert_array_equal(whole[:reach], cut[:reach])
    assert not np.array_equal(whole[reach:300], cut[reach:300])


@pytest.mark.parametrize("lookahead_s, ahead", [(0.0, 5), (0.016, 5), (0.096, 3), (0.22, 0)])
def test_the_lookahead_of_an_encoder_reduces_that_of_the_network(
    lookahead_s: float, ahead: int
) -> None:
    view = receptive_field_of(PRESETS["standard"], 2, 50.0, lookahead_s)
    assert view.ahead == ahead and view.ahead + view.behind == 14
    assert lookahead_s + 0.02 + view.ahead / FRAME_RATE <= LOOKAHEAD_S + 1e-9


@pytest.mark.parametrize("name", encoder_names())
@pytest.mark.parametrize("preset", PRESETS)
def test_encoder_and_predictor_depend_on_at_most_240_ms_ahead(name: str, preset: str) -> None:
    encoder, config = load_encoder(name), PRESETS[preset]
    per_frame = vectors_per_frame(encoder.rate)
    view = receptive_field_of(config, per_frame, encoder.rate, encoder.lookahead_s)
    heard_s = encoder.lookahead_s + (per_frame - 1) / encoder.rate + view.ahead / FRAME_RATE
    assert heard_s <= LOOKAHEAD_S == 0.24


def test_an_encoder_with_too_long_a_lookahead_is_refused(clip: Clip) -> None:
    far = replace(clip.features, lookahead_s=0.25)
    with pytest.raises(TalkheadError, match="look-ahead of 250 ms"):
        _fit(clip._replace(features=far))


def test_later_audio_has_no_effect() -> None:
    encoder, n_frames, changed = load_encoder("mel"), 300, 200
    random = np.random.default_rng(0)
    sound = random.normal(size=n_frames * 640).astype(np.float32) * np.float32(0.1)
    clip = _clip(n_frames)
    config = replace(SMALL, layers=PRESETS["standard"].layers, n_steps=2)
    speech = clip._replace(features=encoder.encode(sound), silent=np.zeros(n_frames, dtype=bool))
    predictor = _fit(speech, 0, config)
    whole = predictor.predict(speech.features, speech.silent, n_frames)
    sound[changed * 640 :] = 0.0
    cut = predictor.predict(encoder.encode(sound), speech.silent, n_frames)
    same = (whole == cut).all(1)
    assert same[: changed - round(LOOKAHEAD_S * FRAME_RATE) + 1].all()
    assert not same[changed]


def test_the_gain_is_calibrated_on_held_out_frames(clip: Clip) -> None:
    """Codes that are independent of the features are memorized, which is visible in held-out
    frames.
    """
    random = np.random.default_rng(5)
    noise = random.normal(size=clip.codes.shape).astype(np.float32)
    told, untold = (
        _fit(clip._replace(codes=codes)).scaling.held_out for codes in (clip.codes, noise)
    )
    assert told < 0.7 < 0.95 < untold


def test_a_single_vector_and_no_frames(predictor: MotionPredictor) -> None:
    one = SpeechFeatures(np.ones((1, DIM), np.float32), 50.0)
    assert predictor.predict(one, np.zeros(1, dtype=bool), 1).shape == (1, N_CODES)
    assert predictor.predict(one, np.zeros(0, dtype=bool), 0).shape == (0, N_CODES)


def test_silent_audio_gives_a_still_mouth_at_rest(clip: Clip, predictor: MotionPredictor) -> None:
    codes = predictor.predict(clip.features, np.ones(300, dtype=bool), 300)
    np.testing.assert_array_equal(codes, np.tile(clip.face.silence, (300, 1)))


def test_rest_is_the_closed_mouth_of_silent_frames(clip: Clip) -> None:
    silent = np.arange(len(clip.codes)) < 60
    fitted = _fit(clip._replace(silent=silent), 0, replace(SMALL, n_steps=2)).scaling.rest
    mouth = clip.codes[:60].copy()
    mouth[:, N_MOUTH:] = 0.0
    aperture = lip_aperture(clip.face.vertices(np.concatenate([mouth, fitted[None]])))
    assert aperture[-1] < np.median(aperture)
    assert not fitted[N_MOUTH:].any()


def test_pauses_come_to_rest_and_speech_is_unchanged(
    clip: Clip, predictor: MotionPredictor
) -> None:
    silent = np.zeros(200, dtype=bool)
    silent[60:140] = True
    spoken = predictor.predict(clip.features, np.zeros(200, dtype=bool), 200)
    paused = predictor.predict(clip.features, silent, 200)
    rest = slice(60 + SETTLING_FRAMES + CLOSING_FRAMES, 140 - STIRRING_FRAMES - CLOSING_FRAMES)
    np.testing.assert_allclose(paused[rest] - clip.face.silence, 0.0, atol=1e-6)
    np.testing.assert_array_equal(paused[:60], spoken[:60])
    np.testing.assert_array_equal(paused[140:], spoken[140:])


def test_rest_share_is_smooth_also_at_its_ends() -> None:
    silent = np.ones(150, dtype=bool)
    silent[50:80] = False
    share = rest_share(silent, 160)
    assert share[0] == 1.0 and share[-1] == 1.0
    assert not share[50:80].any()
    assert max(abs(b - a) for a, b in pairwise(share)) < 0.6
    assert not rest_share(np.arange(60) // 12 % 2 == 1, 60)[:48].any()  # short pauses


def test_rest_depends_on_speech_240_ms_ahead() -> None:
    silent = np.ones(150, dtype=bool)
    heard = silent.copy()
    heard[100:] = False
    reach = 100 - round(LOOKAHEAD_S * FRAME_RATE)
    assert rest_share(heard, 150)[: reach + 1].all() and (rest_share(heard, 150)[:reach] == 1).all()
    assert rest_share(heard, 150)[reach + 1] < 1.0


def test_codes_stay_in_the_range_seen(clip: Clip, predictor: MotionPredictor) -> None:
    loud = SpeechFeatures(clip.features.values * 50.0, 50.0)
    codes = predictor.predict(loud, clip.silent, len(clip.codes))[:, :N_MOUTH]
    seen = clip.codes[clip.train, :N_MOUTH]
    assert (codes >= seen.min(0)).all() and (codes <= seen.max(0)).all()


def test_wrong_features_are_refused(predictor: MotionPredictor) -> None:
    speech = np.zeros(10, dtype=bool)
    with pytest.raises(TalkheadError, match=r"25 vectors per second.*fitted on 50"):
        predictor.predict(SpeechFeatures(np.zeros((10, DIM), np.float32), 25.0), speech, 10)
    with pytest.raises(TalkheadError, match="fitted on"):
        predictor.predict(SpeechFeatures(np.zeros((20, 3), np.float32), 50.0), speech, 10)


def test_too_little_footage_is_refused() -> None:
    with pytest.raises(TalkheadError, match="too few"):
        _fit(_clip(60))


def test_rates_off_the_frame_grid_are_refused(clip: Clip) -> None:
    odd = SpeechFeatures(clip.features.values, 40.0)
    with pytest.raises(TalkheadError, match="multiple of 25"):
        _fit(clip._replace(features=odd))


def test_augmented_copies_help_with_augmented_audio(clip: Clip, predictor: MotionPredictor) -> None:
    """A predictor that was trained on augmented copies is better on augmented audio."""
    offset = np.random.default_rng(1).normal(size=DIM).astype(np.float32)
    changed = SpeechFeatures(clip.features.values + 1.5 * offset, clip.features.rate)
    taught = fit_predictor(PredictorTrainingData(*clip, [changed]), SMALL, 0, SilentProgress())
    test = ~clip.train

    def error(one: MotionPredictor) -> float:
        codes = one.predict(changed, clip.silent, len(clip.codes))
        return float(np.square(codes[test, :N_MOUTH] - clip.codes[test, :N_MOUTH]).mean())

    assert error(taught) < 0.8 * error(predictor)


def test_a_person_s_nets_don_t_depend_on_the_others_footage(clip: Clip) -> None:
    brief = replace(SMALL, n_steps=5)
    mine, one, other = (PredictorTrainingData(*c) for c in (clip, _clip(seed=1), _clip(seed=2)))
    fits = [fit_predictors([mine, there], brief, 0, SilentProgress())[0] for there in (one, other)]
    assert _same(*fits)


def test_nets_are_dilated_convolutions() -> None:
    config = replace(SMALL, layers=((3, 2),), width=5)
    nets = TemporalNets(config, 6, 4, ahead=1, n_nets=2).eval()
    inputs = torch.randn(2, 3, 20, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        codes = nets(inputs)
        for index in range(2):
            own = nets.part(slice(index, index + 1))
            spread, mix = own.get_submodule("blocks.0.spread"), own.get_submodule("blocks.0.mix")
            hidden = gelu(_linear(inputs[index], own.first))
            kernel = _weight(spread).unflatten(0, (3, 5)).permute(2, 1, 0)
            taps = conv1d(hidden.transpose(1, 2), kernel, dilation=2).transpose(1, 2)
            change = _linear(gelu(taps + spread.get_parameter("bias")[0]), mix)
            # Of the block's receptive field of 4 frames, 1 is ahead and 3 are behind.
            torch.testing.assert_close(_linear(hidden[:, 3:19] + change, own.last), codes[index])


def _weight(layer: Module) -> Tensor:
    return layer.get_parameter("weight")[0]


def _linear(values: Tensor, layer: Module) -> Tensor:
    return values @ _weight(layer) + layer.get_parameter("bias")[0]


def test_long_footage_is_predicted_in_parts(
    clip: Clip, predictor: MotionPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the calibration uses parts: the networks and the gain are the same."""
    monkeypatch.setattr("talkhead.encoder.predictor.training.PREDICTION_BLOCK", 64)
    again = _fit(clip)
    assert again.scaling.held_out == pytest.approx(predictor.scaling.held_out, rel=1e-4)
    assert again.scaling.gain == predictor.scaling.gain
    for name, values in predictor.nets.tensors().items():
        assert torch.equal(again.nets.tensors()[name], values), name
