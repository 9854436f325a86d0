"""Two small classifiers of windows; each gives a score that is higher for predicted lips."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.real_or_made.windows import Windows, statistics
from talkhead.encoder.predictor.training import single_threaded
from talkhead.types import Bool, Float32, Float64

Classifier = Callable[[Windows, Bool, Windows], Float64]
"""(training windows, which of them are predicted, [n]; test windows) -> scores [m]."""

STRENGTH = 0.1
"""Penalty on the squared weights of the logistic regression, per window, in normalized figures."""
MAX_FIGURE = 4.0
"""Normalized figures are limited to this."""
NEWTON_STEPS = 30

WIDTH, KERNEL, DROPOUT = 24, 5, 0.3
N_NETS, N_STEPS, BATCH = 2, 160, 64
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 0.05
NOISE = 0.1
"""Spread of the noise added to the sound in training, so that single sounds are not remembered."""
CROP = 6
"""Frames by which windows are shorter in training, so that they begin anywhere."""


def logistic(train: Windows, is_made: Bool, test: Windows) -> Float64:
    """Ridge-penalized logistic regression on the figures of windows (`windows.statistics`).

    Args:
        train: Windows to fit on.
        is_made: Which of them are predicted, [n].
        test: Other windows.

    Returns:
        The logarithm of the odds that each is predicted, [m].
    """
    inputs = np.stack(list(statistics(train).values()), 1)
    asked = np.stack(list(statistics(test).values()), 1)
    mean, spread = inputs.mean(0), inputs.std(0) + 1e-6
    inputs, asked = (
        np.pad(
            ((x - mean) / spread).clip(-MAX_FIGURE, MAX_FIGURE),
            ((0, 0), (0, 1)),
            constant_values=1.0,
        )
        for x in (inputs, asked)
    )
    return np.asarray(asked @ logistic_weights(inputs, is_made.astype(np.float64)))


def logistic_weights(inputs: Float64, labels: Float64) -> Float64:
    """Fit a logistic regression by Newton's method.

    Args:
        inputs: [n, D]; the last column is 1, and its weight is not penalized.
        labels: 0 or 1, [n].

    Returns:
        [D].
    """
    weights = np.zeros(inputs.shape[1])
    penalty = np.full(inputs.shape[1], STRENGTH * len(inputs))
    penalty[-1] = 1e-6
    for _ in range(NEWTON_STEPS):
        odds = 1.0 / (1.0 + np.exp(-(inputs @ weights)))
        slope = inputs.T @ (odds - labels) + penalty * weights
        curvature = (inputs * (odds * (1.0 - odds))[:, None]).T @ inputs + np.diag(penalty)
        step = np.linalg.solve(curvature, slope)
        weights = weights - step
        if np.abs(step).max() < 1e-8:
            break
    return weights


class _Net(nn.Module):
    """Three convolutions, then mean and maximum over time; [B, C, T] -> [B]."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(3):
            size = n_channels if index == 0 else WIDTH
            layers += [nn.Conv1d(size, WIDTH, KERNEL, padding=KERNEL // 2), nn.BatchNorm1d(WIDTH)]
            layers += [nn.ReLU(), *([nn.AvgPool1d(2)] if index == 1 else [])]
        self.layers = nn.Sequential(*layers)
        self.out = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(2 * WIDTH, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.layers(inputs)
        return self.out(torch.cat([hidden.mean(2), hidden.amax(2)], 1))[:, 0]


def convolution(train: Windows, is_made: Bool, test: Windows) -> Float64:
    """Mean score of N_NETS small convolutional networks on the windows themselves.

    Args:
        train: Windows to fit on.
        is_made: Which of them are predicted, [n].
        test: Other windows.

    Returns:
        The mean logarithm of the odds that each is predicted, [m]; the same each time.
    """
    known, asked = _channels(train), torch.from_numpy(_channels(test))
    labels = torch.from_numpy(is_made.astype(np.float32))
    scores = np.zeros(len(test))
    with single_threaded():
        for seed in range(N_NETS):
            torch.manual_seed(seed)
            net = _trained(torch.from_numpy(known), labels).eval()
            with torch.no_grad():
                scores += net(asked).double().numpy() / N_NETS
    return scores


def _channels(windows: Windows) -> Float32:
    """What networks see: measures, their differences, four times as large, and sound, [N, C, T]."""
    speed = np.diff(windows.lips, axis=1, prepend=windows.lips[:, :1]) * 4.0
    parts = [windows.lips, speed, windows.sound]
    return np.concatenate(parts, axis=2).transpose(0, 2, 1).astype(np.float32)


def _trained(inputs: Tensor, labels: Tensor) -> _Net:
    """Train a network on inputs [N, C, T] and labels [N]; torch's global generator decides."""
    net = _Net(inputs.shape[1])
    n_sound = inputs.shape[1] - 2 * 3
    optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, N_STEPS)
    for _ in range(N_STEPS):
        rows = torch.randint(len(inputs), (BATCH,))
        batch = _cropped(inputs[rows])
        batch[:, -n_sound:] += NOISE * torch.randn(BATCH, n_sound, 1)
        loss = nn.functional.binary_cross_entropy_with_logits(net(batch), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net


def _cropped(batch: Tensor) -> Tensor:
    """Cut windows [B, C, T], each at another place, to T - CROP frames."""
    n = batch.shape[2] - CROP
    index = torch.randint(CROP + 1, (len(batch), 1, 1)) + torch.arange(n)[None, None]
    return batch.gather(2, index.expand(-1, batch.shape[1], -1)).clone()


CLASSIFIERS: dict[str, Classifier] = {
    "logistic regression on figures": logistic,
    "convolution on windows": convolution,
}
"""The classifiers by name."""
