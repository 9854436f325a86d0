"""A predictor with random networks and corrections, whose codes change with speech."""

from __future__ import annotations

import numpy as np
import torch

from talkhead.app.web_export.speech_file import rounded_predictor
from talkhead.encoder.predictor.lip_motion import LipMotion
from talkhead.encoder.predictor.lip_range import MEASURES, N_LEVELS, LipRange
from talkhead.encoder.predictor.model import MotionPredictor, Scaling
from talkhead.encoder.predictor.network import PredictorConfig, TemporalNets
from talkhead.types import Float32

N_MOUTH, N_CODES, AHEAD = 5, 9, 3
# Neither channels nor codes are multiples of 4, to which the module fills up rows.
CONFIG = PredictorConfig(width=10, layers=((5, 1), (3, 2)), n_members=3)


def make_lips(random: np.random.Generator) -> LipRange:
    quantiles = np.sort(random.normal(size=(2, MEASURES, N_LEVELS)), axis=2) * 0.3
    slope = random.normal(size=(MEASURES, N_MOUTH))
    direction = np.linalg.pinv(slope).T
    matrices = np.eye(N_MOUTH) + 0.1 * random.normal(size=(2, N_MOUTH, N_MOUTH))
    motion = LipMotion(np.full(N_MOUTH, 0.1, np.float32), *matrices.astype(np.float32))
    offset = np.array([0.05, 1.2], np.float32)
    quantiles[:, 1] += offset[1]
    arrays = (offset, slope, direction, *quantiles)
    return LipRange(*(array.astype(np.float32) for array in arrays), motion=motion)


def make_predictor(features: Float32, config: PredictorConfig = CONFIG) -> MotionPredictor:
    """Make a predictor for features [n, D], whose weights are rounded as web exports round them."""
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    rest = random.normal(size=N_CODES).astype(np.float32) * 0.3
    limits = np.full(N_MOUTH, 0.7, np.float32)
    scaling = Scaling(
        50.0, AHEAD, features.mean(0), features.std(0) + 0.1, rest[:N_MOUTH] / 2.0, -limits, limits,
        rest, 4.0, 0.5,
    )  # fmt: skip
    nets = TemporalNets(config, scaling.n_inputs, N_MOUTH, AHEAD, config.n_members).eval()
    return rounded_predictor(MotionPredictor(config, scaling, nets, make_lips(random)))
