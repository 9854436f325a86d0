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
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from talkhead.app.cli.console import print_json
from talkhead.app.evaluation.measures.sync_model import (
    ANCHORS,
    LAGS,
    MAX_LAG,
    SyncModelNet,
    frame_mel,
    lag_scores,
    steady_points,
)
from talkhead.app.training.sync_batches import Batch, Clip, TrainingConfig, Windows
from talkhead.app.training.tracked_video import Span, TrackedVideo, read_footage
from talkhead.device import seed_everything
from talkhead.errors import FootageError
from talkhead.face import OUTER_EYE_CORNERS
from talkhead.progress import Progress, make_progress
from talkhead.storage import sha256_of, write_tensors
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Float32, Float64, Int

TEST_FRAMES = 45
"""Frames of lips in a test window: a take of 3 s without 15 frames at either end."""
TEST_STRIDE = 25
"""Frames from one test window to the next."""
MIN_TAKE = TEST_FRAMES + 2 * MAX_LAG
"""Shorter takes are left out."""
LONGER_TESTS = (125, 250)
"""Numbers of frames of longer windows for which results are given, too."""

ANCHOR_MIRROR = (3, 2, 1, 0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 13, 16, 15, 18, 17)
"""Order of ANCHORS in the mirrored face."""


# ----------------------------------------------------------------------------- footage


def mean_template(footage: Sequence[TrackedVideo]) -> Float32:
    """Average the anchors of all videos.

    Args:
        footage: Tracked videos.

    Returns:
        Positions of ANCHORS on the mean face, [A, 2], symmetric about x = 0, in units of the
        distance between the outer eye corners.

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
        The inputs, up to the end of the picture or the audio, whichever is shorter.
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
        FootageError: If there is no footage to train on.
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


# ------------------------------------------------------------------------------ results


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
        0 to 1; NaN if there are none. Chance is 3 in 31.
    """
    return float((np.abs(missed) <= 1).mean()) if len(missed) else math.nan


def wrong_sound_noise(net: SyncModelNet, clips: Sequence[Clip]) -> float:
    """Measure how much the scores of mismatched audio vary, per frame.

    Each window's lips are compared with the audio of the window half the list away. The validation
    takes of a source are used if it has any; the variances of the sources are averaged. The
    standard deviation of scores of n frames is this value divided by the square root of n.

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
        arguments: Command-line arguments; None for those of the process.
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
