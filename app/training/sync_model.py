"""Train the audio-visual sync model from scratch, on video whose audio is in sync.

    python -m talkhead.app.training.sync_model FOOTAGE... --cache DIR --output FILE

FOOTAGE: videos, or folders of them; a folder's index.jsonl may give the starts of joined takes
({"file": NAME, "start": SECONDS} per line), so that no window crosses a join. Tracking results are
kept in the cache. The last tenth of each folder's takes is for validation and never trained on.
Prints the entry for the manifest of the weights: size, fingerprint, results.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from talkhead.app.cli.console import print_json
from talkhead.app.evaluation.measures.sync_model import (
    ANCHORS,
    CHIN,
    LAGS,
    MAX_LAG,
    N_MELS,
    VECTORS,
    SyncModelNet,
    frame_mel,
    lag_scores,
    steady_points,
)
from talkhead.app.training.tracked_video import Span, TrackedVideo, read_footage
from talkhead.device import seed_everything
from talkhead.errors import FootageError
from talkhead.face import OUTER_EYE_CORNERS
from talkhead.progress import Progress, make_progress
from talkhead.storage import sha256_of, write_tensors
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32, Float64, Int

TEST_FRAMES = 45
"""Frames of lips whose shift is to be found: a take of 3 s without 15 frames at either end."""
TEST_STRIDE = 25
"""Frames from one test window to the next."""
MIN_TAKE = TEST_FRAMES + 2 * MAX_LAG
"""Shorter takes are left out."""
LONGER_TESTS = (125, 250)
"""Frames of longer windows for which results are given, too."""

_LOOP = [(10 - i) % 20 for i in range(20)]
MIRROR = [*_LOOP, *(20 + i for i in _LOOP), *(40 + i for i in reversed(range(len(CHIN))))]
"""Order of POINTS in the mirrored face; both lip lines run once around the mouth from one corner."""
ANCHOR_MIRROR = (3, 2, 1, 0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 13, 16, 15, 18, 17)
"""Order of ANCHORS in the mirrored face."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of the training. Standard deviations refer to augmentation, drawn per window.

    Attributes:
        n_steps: Steps of the optimizer.
        batch_size: Windows in a batch.
        learning_rate: Its largest value.
        weight_decay: Of AdamW.
        averaging: Share of new weights in their running mean.
        frames: Least and most frames of lips in a window, at most TEST_FRAMES.
        tempo: Largest factor by which a window is made faster or slower.
        stretch_std: Of the affine map of the lips.
        gain_std: Of the amplitude of each point's motion.
        jitter: Of the points per frame, in eye distances.
        drift: Of slow motion of all points, in eye distances.
        warp_std: Of the scale of the mel axis, logarithmic.
        snr: Range of noise levels below the largest energy, natural logarithm.
        mask_share: Share of the windows in which mel bands are masked.
        n_wrong: Other windows whose audio is compared with each window's lips.
        wrong_weight: Weight of that loss.
        blur: Target probability of each lag next to the true one.
    """

    n_steps: int = 400
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    averaging: float = 0.01
    frames: tuple[int, int] = (36, 45)
    tempo: float = 1.15
    stretch_std: float = 0.08
    gain_std: float = 0.25
    jitter: float = 0.003
    drift: float = 0.01
    warp_std: float = 0.08
    snr: tuple[float, float] = (4.0, 14.0)
    mask_share: float = 0.7
    n_wrong: int = 8
    wrong_weight: float = 2.0
    blur: float = 0.15


@dataclass(frozen=True)
class Clip:
    """Inputs of the sync model for a video of F frames.

    Attributes:
        name: Name of the video.
        source: Path that it was read from.
        points: Lip and chin points without head motion, [F, P, 2].
        mel: Log-mel energies, [F, VECTORS, N_MELS].
        train: Spans to train on.
        validation: Spans that are not trained on.
    """

    name: str
    source: str
    points: Float32
    mel: Float32
    train: tuple[Span, ...]
    validation: tuple[Span, ...]


# ----------------------------------------------------------------------------- footage


def mean_template(footage: Sequence[TrackedVideo]) -> Float32:
    """Average the anchors of all videos.

    Args:
        footage: Tracked videos.

    Returns:
        Positions of ANCHORS on the mean face, [A, 2], in eye distances, symmetric about x = 0.

    Raises:
        FootageError: If there is no face in any video.
    """
    shapes = [_level(one.landmarks[one.seen]).mean(0) for one in footage if one.seen.any()]
    if not shapes:
        raise FootageError("no face in any of the videos. Pass footage of people who speak")
    shape = np.mean(shapes, axis=0)
    mirrored = shape[list(ANCHOR_MIRROR)] * [-1, 1]
    return np.asarray((shape + mirrored) / 2, np.float32)


def _level(landmarks: Float32) -> Float64:
    """ANCHORS [F, A, 2] relative to the midpoint of the eyes, with the eyes level and 1 apart."""
    eyes = landmarks[:, list(OUTER_EYE_CORNERS)].astype(np.float64)
    across = eyes[:, 1] - eyes[:, 0]
    anchors = landmarks[:, list(ANCHORS)] - eyes.mean(1, keepdims=True)
    down = np.stack([-across[:, 1], across[:, 0]], -1)
    axes = np.stack([across, down], -1) / np.square(across).sum(-1)[:, None, None]
    return np.asarray(anchors @ axes)


def make_clip(footage: TrackedVideo, template: Float32) -> Clip:
    """Compute the inputs of the sync model.

    Args:
        footage: A tracked video.
        template: Positions of ANCHORS on the mean face, [A, 2].

    Returns:
        The inputs, as far as both picture and audio last.
    """
    n_frames = min(len(footage.seen), len(footage.waveform) * FRAME_RATE // SAMPLE_RATE)
    return Clip(
        footage.name,
        footage.source,
        steady_points(footage.landmarks[:n_frames], template),
        frame_mel(footage.waveform, 0, n_frames),
        footage.takes,
        footage.validation,
    )


# ------------------------------------------------------------------------------ batches


@dataclass(frozen=True)
class Batch:
    """A batch of windows.

    Attributes:
        points: [B, T, P, 2].
        mel: [B, T + 2 MAX_LAG, VECTORS, N_MELS].
        lag: Index of the true lag in LAGS, [B].
    """

    points: Tensor
    mel: Tensor
    lag: Tensor


class Windows:
    """Draws windows from clips.

    A source is drawn in proportion to the square root of its length, so that people with little
    footage have some influence.
    """

    def __init__(self, clips: Sequence[Clip], config: TrainingConfig, seed: int) -> None:
        """Set up the draws.

        Args:
            clips: The clips.
            config: Settings of the training.
            seed: Determines all windows.

        Raises:
            FootageError: If no clip has a span to train on.
        """
        self._clips = [clip for clip in clips if clip.train]
        if not self._clips:
            raise FootageError("nothing to train on: no take of 2 s with a face in every frame")
        lengths = np.array([sum(b - a for a, b in clip.train) for clip in self._clips], np.float64)
        sources = np.array([clip.source for clip in self._clips])
        shares = [
            n / np.sqrt(lengths[sources == s].sum()) for n, s in zip(lengths, sources, strict=True)
        ]
        self._shares = np.array(shares) / np.sum(shares)
        self._config = config
        self._random = np.random.default_rng(seed)

    def draw(self) -> Batch:
        """Draw an augmented batch, each window with its true lag anywhere in the range.

        Returns:
            The batch.
        """
        low, high = self._config.frames
        n_frames = int(self._random.integers(low, high + 1))
        chosen = self._random.choice(len(self._clips), self._config.batch_size, p=self._shares)
        pieces = [self._window(self._clips[i], n_frames) for i in chosen]
        points, mel, lags = zip(*pieces, strict=True)
        return Batch(
            change_points(torch.from_numpy(np.stack(points)), self._config, self._random),
            change_mel(torch.from_numpy(np.stack(mel)), self._config, self._random),
            torch.tensor(lags),
        )

    def _window(self, clip: Clip, n_frames: int) -> tuple[Float32, Float32, int]:
        """Lips [T, P, 2], audio [T + 2 MAX_LAG, VECTORS, N_MELS] and lag of a window at a random
        tempo, within a span.
        """
        random, n_sound = self._random, n_frames + 2 * MAX_LAG
        start, stop = clip.train[int(random.choice(len(clip.train), p=_lengths(clip.train)))]
        slack = stop - start - 1
        tempo = min(
            random.uniform(1 / self._config.tempo, self._config.tempo), slack / (n_sound - 1)
        )
        first = start + random.uniform(0, slack - (n_sound - 1) * tempo)
        lag = int(random.integers(len(LAGS)))
        frames = first + np.arange(n_sound, dtype=np.float64) * tempo
        middle = VECTORS // 2
        within = np.arange(VECTORS, dtype=np.float64) - middle
        vectors = VECTORS * frames[:, None] + middle + within * tempo
        lips = _between(clip.points, frames[lag : lag + n_frames])
        return lips, _between(clip.mel.reshape(-1, N_MELS), vectors), lag


def _lengths(spans: Sequence[Span]) -> Float64:
    """Share of all frames in each span, [n]."""
    lengths = np.array([stop - start for start, stop in spans], np.float64)
    return np.asarray(lengths / lengths.sum())


def _between(values: Float32, positions: Float64) -> Float32:
    """Values [N, ...] at fractional positions of any shape, linearly interpolated."""
    inside = np.clip(positions, 0, len(values) - 1.001)
    before = inside.astype(np.int64)
    share = (inside - before).astype(np.float32)
    share = share.reshape(share.shape + (1,) * (values.ndim - 1))
    return np.asarray(values[before] * (1 - share) + values[before + 1] * share, np.float32)


def change_points(points: Tensor, config: TrainingConfig, random: np.random.Generator) -> Tensor:
    """Augment lips like other people and other trackers.

    They are mirrored, stretched, and each point's motion is scaled; jitter and drift are added.

    Args:
        points: [B, T, P, 2].
        config: Settings of the training.
        random: Draws the changes.

    Returns:
        [B, T, P, 2].
    """
    n, n_frames, n_points = points.shape[:3]
    # Another face: mirrored in half of the windows, and stretched.
    mirrored = points[:, :, MIRROR] * torch.tensor([-1.0, 1.0])
    points = torch.where(_uniform(random, (n, 1, 1, 1)) < 0.5, mirrored, points)
    stretch = torch.eye(2) + config.stretch_std * _normal(random, (n, 2, 2))
    points = torch.einsum("btpi,bij->btpj", points, stretch)
    # Another way of speaking: each point moves more or less.
    mean = points.mean(1, keepdim=True)
    gain = 1 + config.gain_std * _normal(random, (n, 1, n_points, 2))
    # Another tracker: jitter, and a slow wave of all points.
    jitter = config.jitter * torch.exp(0.7 * _normal(random, (n, 1, 1, 1)))
    times = torch.linspace(-1, 1, n_frames)[None, :, None, None]
    wave = _uniform(random, (n, 1, 1, 2)) * 12 * times + 2 * math.pi * _uniform(
        random, (n, 1, 1, 2)
    )
    drift = config.drift * _normal(random, (n, 1, 1, 2)) * torch.sin(wave)
    return mean + (points - mean) * gain + jitter * _normal(random, points.shape) + drift


def change_mel(mel: Tensor, config: TrainingConfig, random: np.random.Generator) -> Tensor:
    """Augment audio like other voices and rooms.

    The mel axis is stretched, colored noise is added, contrast is changed, and bands are masked.

    Args:
        mel: [B, T, VECTORS, M].
        config: Settings of the training.
        random: Draws the changes.

    Returns:
        [B, T, VECTORS, M].
    """
    n, _, _, n_mels = mel.shape
    # Another voice: formants elsewhere.
    mel = _warp_mel(mel, torch.exp(config.warp_std * _normal(random, (n, 2))))
    # Another room: noise of a random color, and another contrast.
    low, high = config.snr
    level = mel.amax((1, 2, 3), keepdim=True) - (
        low + (high - low) * _uniform(random, (n, 1, 1, 1))
    )
    waves = torch.cos(math.pi * torch.arange(4)[:, None] * torch.linspace(0, 1, n_mels))
    color = 1.5 * _normal(random, (n, 4)) @ waves
    noise = level + color[:, None, None] + 0.5 * _normal(random, mel.shape)
    mel = torch.logaddexp(mel, noise) * (0.8 + 0.4 * _uniform(random, (n, 1, 1, 1)))
    # Another microphone: a range of bands and the uppermost ones may be missing.
    bands = torch.arange(n_mels)
    first = _uniform(random, (n, 1)) * (n_mels - 4)
    width = 8 * _uniform(random, (n, 1)) * (_uniform(random, (n, 1)) < config.mask_share)
    top = n_mels * (0.55 + 0.4 * _uniform(random, (n, 1)))
    top = torch.where(_uniform(random, (n, 1)) < 0.4 * config.mask_share, top, n_mels)
    lost = ((bands >= first) & (bands < first + width)) | (bands >= top)
    return torch.where(lost[:, None, None], mel.amin((1, 2, 3), keepdim=True), mel)


def _warp_mel(mel: Tensor, scales: Tensor) -> Tensor:
    """Stretch the mel axis of windows [B, T, VECTORS, M] by scales [B, 2] of its lower and its upper
    end.
    """
    n, n_frames, n_vectors, n_mels = mel.shape
    bands = torch.arange(n_mels, dtype=torch.float32)
    share = bands / (n_mels - 1)
    rates = scales[:, :1] * (1 - share) + scales[:, 1:] * share
    places = (bands * rates).clamp(0, n_mels - 1.001)
    below = places.floor().long()
    share = (places - below)[:, None, None]
    shape = (n, n_frames, n_vectors, n_mels)
    lower = mel.gather(3, below[:, None, None].expand(shape))
    upper = mel.gather(3, (below + 1)[:, None, None].expand(shape))
    return lower * (1 - share) + upper * share


def _normal(random: np.random.Generator, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers of a shape."""
    return torch.from_numpy(random.standard_normal(tuple(shape), np.float32))


def _uniform(random: np.random.Generator, shape: Sequence[int]) -> Tensor:
    """Numbers of a shape in [0, 1)."""
    return torch.from_numpy(random.random(tuple(shape), np.float32))


# ----------------------------------------------------------------------------- training


def train(
    clips: Sequence[Clip],
    template: Float32,
    config: TrainingConfig,
    seed: int,
    progress: Progress,
    net: SyncModelNet | None = None,
) -> SyncModelNet:
    """Train a network.

    Args:
        clips: The clips.
        template: Mean face that the network stores, [A, 2].
        config: Settings of the training.
        seed: The same seed gives the same network.
        progress: Shows the steps.
        net: An untrained network (tests pass a smaller one); None for a new one.

    Returns:
        The running mean of its weights, in evaluation mode.

    Raises:
        FootageError: Without footage to train on.
    """
    seed_everything(seed)
    net = SyncModelNet() if net is None else net
    average = {name: value.clone() for name, value in net.state_dict().items()}
    sharpness = torch.nn.Parameter(torch.tensor(math.log(15.0)))
    optimizer = torch.optim.AdamW(
        [*net.parameters(), sharpness], lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, config.n_steps, pct_start=0.1
    )
    draws = Windows(clips, config, seed)
    with progress.step("Training the sync model", config.n_steps) as step:
        for number in range(config.n_steps):
            net.train()
            batch = draws.draw()
            loss = sync_model_loss(net, batch, torch.exp(sharpness), config)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            share = max(config.averaging, 1 / (number + 1))
            for name, value in net.state_dict().items():
                average[name].lerp_(value, share)
            step.detail(f"{loss.item():.3f}")
            step.advance()
    net.load_state_dict(average)
    net.template.copy_(torch.from_numpy(template))
    return net.eval()


def sync_model_loss(
    net: SyncModelNet, batch: Batch, sharpness: Tensor, config: TrainingConfig
) -> Tensor:
    """Compute the contrastive loss: the true lag against others, and against all lags of other audio.

    Cross-entropy of softmax(sharpness * scores) (InfoNCE: van den Oord et al. 2018, arXiv
    1807.03748, eq. 4), over the window's own lags plus, with wrong_weight, over those and the lags
    of n_wrong other windows.

    Args:
        net: The network.
        batch: Windows.
        sharpness: Factor on scores, a scalar.
        config: Settings of the training.

    Returns:
        A scalar.
    """
    lips, sound = net(batch.points, batch.mel)
    own = sharpness * lag_scores(lips, sound)
    shifts = range(1, 1 + min(config.n_wrong, len(lips) - 1))
    wrong = [sharpness * lag_scores(lips, sound.roll(shift, 0)) for shift in shifts]
    target = _blurred(batch.lag, config.blur)
    right = (target * own).sum(1)
    among_lags = torch.logsumexp(own, 1) - right
    among_all = torch.logsumexp(torch.cat([own, *wrong], 1), 1) - right
    return (among_lags + config.wrong_weight * among_all).mean()


def _blurred(lag: Tensor, blur: float) -> Tensor:
    """Targets [B, len(LAGS)]: 1 - 2 blur at the true lag [B], blur at each neighbor in the range."""
    distance = (torch.arange(len(LAGS)) - lag[:, None]).abs()
    target = (1 - 2 * blur) * (distance == 0) + blur * (distance == 1)
    return target / target.sum(1, keepdim=True)


# ----------------------------------------------------------------------------- figures


def shifted_windows(
    clip: Clip, spans: Sequence[Span], n_frames: int, shifts: Sequence[int] = LAGS
) -> Iterator[Batch]:
    """Cut test windows, every TEST_STRIDE frames of each span.

    Both lips and audio are cut from the span: the audio contains all lags, and is placed so that
    the true one is the shift; nothing is padded.

    Args:
        clip: The clip.
        spans: Spans of it.
        n_frames: Frames of lips in a window.
        shifts: Frames by which the audio is shifted, one window for each.

    Yields:
        A batch with all shifts of one window.
    """
    n_sound = n_frames + 2 * MAX_LAG
    # Without shift, the window's lips would be in the middle of its audio.
    starts = [s for a, b in spans for s in range(a, b - n_sound + 1, TEST_STRIDE)]
    for start in starts:
        entries = [shift + MAX_LAG for shift in shifts]
        lips = [clip.points[start + e : start + e + n_frames] for e in entries]
        sound = torch.from_numpy(clip.mel[start : start + n_sound])
        yield Batch(
            torch.from_numpy(np.stack(lips)),
            sound.expand(len(entries), *sound.shape),
            torch.tensor(entries),
        )


def find_shifts(
    net: SyncModelNet,
    clip: Clip,
    spans: Sequence[Span],
    n_frames: int = TEST_FRAMES,
    shifts: Sequence[int] = LAGS,
) -> Int:
    """Find the lag of shifted windows.

    Args:
        net: The network.
        clip: The clip.
        spans: Spans of it.
        n_frames: Frames of lips in a window.
        shifts: Frames by which the audio is shifted.

    Returns:
        Error of each lag in frames, [N].
    """
    missed = [np.zeros(0, np.int64)]
    with torch.no_grad():
        for batch in shifted_windows(clip, spans, n_frames, shifts):
            scores = lag_scores(*net(batch.points, batch.mel))
            missed.append((scores.argmax(1) - batch.lag).numpy())
    return np.concatenate(missed)


def share_found(missed: Int) -> float:
    """Compute the share of shifts that were found within one frame.

    Args:
        missed: Errors in frames, [N].

    Returns:
        0 to 1; NaN without any. Chance is 3 in 31.
    """
    return float((np.abs(missed) <= 1).mean()) if len(missed) else math.nan


def wrong_sound_noise(net: SyncModelNet, clips: Sequence[Clip]) -> float:
    """Measure how much the scores of mismatched audio vary, per frame.

    Each window's lips are compared with the audio of the window half a list away, over a source's
    validation takes where it has any; the sources' variances are averaged. Scores of n frames
    deviate by this over the square root of n.

    Args:
        net: The network.
        clips: The clips.

    Returns:
        Standard deviation of scores about their median over lags, for a single frame.

    Raises:
        FootageError: If no source has two windows.
    """
    variances = []
    for source in sorted({clip.source for clip in clips}):
        own = [clip for clip in clips if clip.source == source]
        spans = [clip.validation for clip in own]
        spans = spans if any(spans) else [clip.train for clip in own]
        windows = [
            window
            for clip, held in zip(own, spans, strict=True)
            for window in shifted_windows(clip, held, TEST_FRAMES, [0])
        ]
        deviations = [torch.zeros(0)]
        for number, window in enumerate(windows):
            other = windows[(number + len(windows) // 2) % len(windows)]
            with torch.no_grad():
                scores = lag_scores(*net(window.points, other.mel))[0]
            deviations.append(scores - scores.median())
        if len(windows) > 1:
            variances.append(float(torch.cat(deviations).square().mean()))
    if not variances:
        raise FootageError("too little footage for a control. Pass more than one take")
    return math.sqrt(TEST_FRAMES * float(np.mean(variances)))


def shares_by_clip(net: SyncModelNet, clips: Sequence[Clip], validation: bool) -> dict[str, float]:
    """Measure the share of shifts found in each clip.

    Args:
        net: The network.
        clips: The clips.
        validation: True for spans of validation, False for those to train on.

    Returns:
        Shares by the clip's name and the frames in a window, where a span is long enough.
    """
    shares = {}
    for clip in clips:
        for n_frames in (TEST_FRAMES, *LONGER_TESTS):
            spans = clip.validation if validation else clip.train
            missed = find_shifts(net, clip, spans, n_frames)
            if len(missed):
                shares[f"{clip.name} {n_frames}"] = round(share_found(missed), 4)
    return shares


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, write the weights and print their entry for the manifest.

    Args:
        arguments: Of the command line; None for those of the process.
    """
    options = _options().parse_args(arguments)
    torch.set_num_threads(1)
    progress = make_progress("bars")
    late = {name: float(ms) for name, _, ms in (text.partition("=") for text in options.late)}
    read = [
        f
        for path in options.footage
        for f in read_footage(path, options.cache, progress, late, MIN_TAKE)
    ]
    template = mean_template(read)
    clips = [make_clip(one, template) for one in read]
    config = replace(TrainingConfig(), n_steps=options.steps)
    net = train(clips, template, config, options.seed, progress)
    net.noise.fill_(wrong_sound_noise(net, clips))
    write_tensors(options.output, net.state_dict())
    tests = [
        f
        for path in options.test
        for f in read_footage(path, options.cache, progress, late, MIN_TAKE)
    ]
    unseen = [replace(make_clip(f, template), train=f.takes + f.validation) for f in tests]
    entry = {
        "sha256": sha256_of(options.output),
        "bytes": options.output.stat().st_size,
        "validation": shares_by_clip(net, clips, validation=True),
        "figures": shares_by_clip(net, unseen, validation=False),
    }
    print_json({options.output.name: entry})


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sync_model", description=__doc__.split("\n")[0])
    parser.add_argument("footage", nargs="+", type=Path, help="videos or folders to train on")
    parser.add_argument("--test", nargs="*", type=Path, default=[], help="videos to test on only")
    parser.add_argument("--cache", type=Path, required=True, help="folder for tracked videos")
    parser.add_argument("--output", type=Path, required=True, help="the weights, .safetensors")
    parser.add_argument(
        "--late", action="append", default=[], metavar="NAME=MS", help="a video whose audio is late"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=TrainingConfig.n_steps)
    return parser


if __name__ == "__main__":
    main()
