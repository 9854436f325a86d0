"""LSE-C and LSE-D, the field's sync scores, if SyncNet's weights are available.

Network and protocol are those of Chung and Zisserman 2016 ("Out of time: automated lip sync in the
wild", ACCV workshops) and of its public checkpoint: five frames of a face crop against 20 steps of 13
MFCC, at lags of up to 15 frames. The best lag is searched, so a constant delay costs nothing: report
the offset with the scores. Face crops come from landmarks here, not from a face detector.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from math import ceil
from pathlib import Path

import cv2
import numpy as np
import scipy.fft
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import median_filter
from torch import Tensor, nn

from talkhead.app.evaluation.measures.image import Points
from talkhead.app.evaluation.measures.registry import ClipMeasures
from talkhead.app.evaluation.results import Results
from talkhead.errors import TalkheadError
from talkhead.face import N_SURFACE
from talkhead.types import FRAME_RATE, SAMPLE_RATE, Bool, Float32, Float64, UInt8

VARIABLE = "TALKHEAD_SYNCNET"
"""Environment variable with the path of the weights."""
WINDOW = 5
"""Frames of audio and video per feature vector."""
STEPS = 4
"""MFCC vectors per video frame."""
MAX_LAG = 15
CROP = 224
MARGIN = 0.4
"""Share of half the face box that is added on both sides, and twice below."""
SMOOTHING = 13
"""Length in frames of the running median over boxes."""
GRAY = 110
"""Pixel value outside the image."""
BATCH = 8
MIN_WINDOWS = 2 * MAX_LAG + 1
MIN_FRAMES = MIN_WINDOWS + WINDOW

SYNCNET_MEASURES: ClipMeasures[LagDistances] = ClipMeasures(
    "syncnet", "Sync", needs_reference=False
)
"""Measures of SyncNet's distances by lag."""


def syncnet_path() -> Path | None:
    """Read the path of the weights from the environment.

    Returns:
        The path; None if the variable is not set.
    """
    name = os.environ.get(VARIABLE)
    return Path(name) if name else None


def syncnet_unavailable_reason() -> str:
    """Explain what is missing for the scores and how to get it.

    Returns:
        One line; "" if nothing is missing.
    """
    if syncnet_path() is not None:
        return ""
    return f"LSE-C, LSE-D: no weights of SyncNet. Set {VARIABLE} to the path of syncnet_v2.model"


# ------------------------------------------------------------------------------ network


class SyncNet(nn.Module):
    """Features of face crops and of audio, close to each other if they are in sync.

    Names and shapes of the parameters are those of the public checkpoint.
    """

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_audio_layer(1, 64, (3, 3), 1),
            nn.MaxPool2d(1, 1),
            *_audio_layer(64, 192, (3, 3), 1),
            nn.MaxPool2d(3, (1, 2)),
            *_audio_layer(192, 384, (3, 3), 1),
            *_audio_layer(384, 256, (3, 3), 1),
            *_audio_layer(256, 256, (3, 3), 1),
            nn.MaxPool2d(3, (2, 2)),
            *_audio_layer(256, 512, (5, 4), 0),
        )
        self.netcnnlip = nn.Sequential(
            *_lip_layer(3, 96, (5, 7, 7), 2, 0),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_lip_layer(96, 256, (1, 5, 5), 2, 1),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_lip_layer(256, 256, (1, 3, 3), 1, 1),
            *_lip_layer(256, 256, (1, 3, 3), 1, 1),
            *_lip_layer(256, 256, (1, 3, 3), 1, 1),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_lip_layer(256, 512, (1, 6, 6), 1, 0),
        )
        self.netfcaud, self.netfclip = _head(), _head()

    @classmethod
    def load(cls, path: Path) -> SyncNet:
        """Load the network.

        Args:
            path: SyncNet's syncnet_v2.model.

        Returns:
            The network in evaluation mode.

        Raises:
            TalkheadError: The file is missing, cannot be read or has other contents.
        """
        advice = f"Set {VARIABLE} to the path of syncnet_v2.model, or unset it"
        if not path.is_file():
            raise TalkheadError(f"{path}: there is no such file. {advice}")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
            raise TalkheadError(f"{path}: cannot be read as weights. {advice}") from error
        net = cls()
        if not isinstance(state, Mapping) or _shapes(state) != _shapes(net.state_dict()):
            raise TalkheadError(f"{path}: does not contain SyncNet's weights. {advice}")
        net.load_state_dict(state, strict=False)
        return net.eval()

    def lips(self, images: Tensor) -> Tensor:
        """Compute features of every five consecutive face crops.

        Only the first layer extends over time, so that neighbors share the rest.

        Args:
            images: Face crops [T, 3, CROP, CROP], BGR from 0 to 255.

        Returns:
            Features [T - 4, 1024].
        """
        maps = self.netcnnlip(images.transpose(0, 1)[None])
        features: Tensor = self.netfclip(maps[0, :, :, 0, 0].T)
        return features

    def sound(self, cepstra: Tensor) -> Tensor:
        """Compute features of audio.

        Args:
            cepstra: MFCC [B, 20, 13].

        Returns:
            Features [B, 1024].
        """
        features: Tensor = self.netfcaud(
            self.netcnnaud(cepstra.transpose(1, 2)[:, None]).flatten(1)
        )
        return features


def load_syncnet() -> SyncNet | None:
    """Load SyncNet from the path in the environment.

    Returns:
        The network; None if `syncnet_unavailable_reason` gives a reason.

    Raises:
        TalkheadError: The file is missing, cannot be read or has other contents.
    """
    path = syncnet_path()
    return None if path is None else SyncNet.load(path)


def _audio_layer(n_in: int, n_out: int, kernel: tuple[int, int], padding: int) -> list[nn.Module]:
    layer = nn.Conv2d(n_in, n_out, kernel, padding=padding)
    return [layer, nn.BatchNorm2d(n_out), nn.ReLU()]


def _lip_layer(
    n_in: int, n_out: int, kernel: tuple[int, int, int], stride: int, padding: int
) -> list[nn.Module]:
    layer = nn.Conv3d(n_in, n_out, kernel, (1, stride, stride), (0, padding, padding))
    return [layer, nn.BatchNorm3d(n_out), nn.ReLU()]


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """List the shape of each tensor [...] by name, without the counters that old checkpoints lack."""
    return {
        name: tuple(getattr(value, "shape", ()))
        for name, value in state.items()
        if not str(name).endswith("num_batches_tracked")
    }


# ------------------------------------------------------------------------------ protocol


@dataclass(frozen=True)
class LagDistances:
    """SyncNet's mean feature distance at each lag: the input of SyncNet's measures.

    Attributes:
        means: Mean distance of each lag from -MAX_LAG to MAX_LAG, [MIN_WINDOWS].
    """

    means: Float64


@SYNCNET_MEASURES.measure("lse_c", label="LSE-C", better="more")
def _lse_c(distances: LagDistances) -> float:
    """Confidence of SyncNet; ignores silence: never use it alone."""
    return float(np.median(distances.means)) - float(distances.means.min())


@SYNCNET_MEASURES.measure("lse_d", label="LSE-D", better="less")
def _lse_d(distances: LagDistances) -> float:
    """Distance of SyncNet."""
    return float(distances.means.min())


@SYNCNET_MEASURES.measure("offset_frames", label="SyncNet offset", unit="frames", digits=0)
def _offset_frames(distances: LagDistances) -> int:
    """Delay of the audio as estimated by SyncNet."""
    return int(distances.means.argmin()) - MAX_LAG


def syncnet_results(
    net: SyncNet, frames: Iterable[UInt8], landmarks: Points, tracked: Bool, waveform: Float32
) -> Results:
    """Compute LSE-D, LSE-C and the offset of a video at 25 frames per second.

    LSE-D is the smallest, over lags, mean distance of features; LSE-C is the median lag's distance
    minus that. The offset is given as how late the audio is (the public script prints the opposite
    sign). Memory does not grow with the length.

    Args:
        net: The network.
        frames: Images [H, W, 3], RGB.
        landmarks: Landmarks [F, 478, 2 or 3], pixels.
        tracked: Mask [F] of the frames with a face; boxes of the others are interpolated.
        waveform: Samples [n_samples], 16 kHz.

    Returns:
        Value by name.

    Raises:
        TalkheadError: There is no face, or the video is too short.
        ValueError: There are fewer frames than landmarks.
    """
    n = min(len(landmarks), len(waveform) * FRAME_RATE // SAMPLE_RATE) - WINDOW
    if n < MIN_WINDOWS or not tracked.any():
        raise TalkheadError(
            f"SyncNet scores need {MIN_FRAMES} frames with sound and a face; here are "
            f"{max(0, n + WINDOW)}, {tracked.sum()} of them with a face. Use a longer video"
        )
    squares = face_squares(landmarks, tracked)
    crops = (face_crop(image, square) for image, square in zip(frames, squares, strict=False))
    cepstra = torch.from_numpy(mfcc(waveform))
    total = torch.zeros(MIN_WINDOWS, dtype=torch.float64)
    with torch.no_grad():
        sound = _sound_features(net, cepstra, range(-MAX_LAG, MAX_LAG), n)
        done = 0
        for lips in _lip_features(net, crops, n):
            last = done + MAX_LAG
            fresh = _sound_features(net, cepstra, range(last, last + len(lips)), n)
            sound = torch.cat([sound[-2 * MAX_LAG :], fresh])
            near = sound.unfold(0, MIN_WINDOWS, 1).transpose(1, 2)
            total += F.pairwise_distance(lips[:, None], near).sum(0)
            done += len(lips)
    return SYNCNET_MEASURES.compute(LagDistances((total / n).numpy()))


def _lip_features(net: SyncNet, crops: Iterator[UInt8], n: int) -> Iterator[Tensor]:
    """Yield features [m, 1024] of n windows, a few at a time."""
    held, done = list(islice(crops, WINDOW - 1)), 0
    while done < n:
        held += islice(crops, min(BATCH, n - done))
        if len(held) < WINDOW:
            raise ValueError(f"the frames end after {done + len(held)}")
        yield net.lips(torch.from_numpy(np.stack(held)).permute(0, 3, 1, 2).float())
        done += len(held) - WINDOW + 1
        held = held[1 - WINDOW :]


def _sound_features(net: SyncNet, cepstra: Tensor, windows: range, n: int) -> Tensor:
    """Compute audio features [len(windows), 1024].

    They are zeros outside the n windows, as in the public script.
    """
    known = range(max(0, windows.start), min(n, windows.stop))
    if not len(known):
        return torch.zeros(len(windows), 1024)
    inputs = torch.stack([cepstra[STEPS * i : STEPS * (i + WINDOW)] for i in known])
    before, after = known.start - windows.start, windows.stop - known.stop
    return F.pad(net.sound(inputs), (0, 0, before, after))


def face_squares(landmarks: Points, tracked: Bool) -> Float64:
    """Compute a square around the face in each frame, instead of a detector's box.

    It is the bounding box of the 468 surface points, which also reaches from hairline to chin and
    from ear to ear, made square by its longer side. Frames without a face are interpolated; then a
    running median is taken over SMOOTHING frames.

    Args:
        landmarks: Landmarks [F, 478, 2 or 3], pixels.
        tracked: Mask [F] of the frames with a face.

    Returns:
        Center x, y and half side, [F, 3] pixels.
    """
    surface = landmarks[:, :N_SURFACE, :2].astype(np.float64)
    low, high = surface.min(1), surface.max(1)
    raw = np.column_stack([(low + high) / 2, (high - low).max(1) / 2])
    known, frames = np.flatnonzero(tracked), np.arange(len(tracked))
    whole = np.column_stack([np.interp(frames, known, column[known]) for column in raw.T])
    return np.asarray(median_filter(whole, size=(SMOOTHING, 1), mode="nearest"))


def face_crop(image: UInt8, square: Float64) -> UInt8:
    """Crop SyncNet's input from a frame: the square with its margins, gray outside the image.

    Args:
        image: Image [H, W, 3], RGB.
        square: Center x, y and half side, [3], from `face_squares`.

    Returns:
        Crop [CROP, CROP, 3], BGR.
    """
    x, y, half = square
    reach = half * (1 + MARGIN)
    left, top = round(x - reach), round(y - half)
    size = max(1, round(2 * reach))
    inside = image[max(0, top) : max(0, top + size), max(0, left) : max(0, left + size)]
    crop = np.full((size, size, 3), GRAY, np.uint8)
    row, column = max(0, -top), max(0, -left)
    crop[row : row + inside.shape[0], column : column + inside.shape[1]] = inside
    return np.ascontiguousarray(cv2.resize(crop, (CROP, CROP))[..., ::-1])


# ---------------------------------------------------------------------------------- MFCC

N_MFCC, N_FILTERS, N_FFT = 13, 26, 512
_LENGTH, _STEP = 400, SAMPLE_RATE // FRAME_RATE // STEPS
_PREEMPHASIS, _LIFTER = 0.97, 22


def mfcc(waveform: Float32) -> Float32:
    """Compute mel-frequency cepstra in the convention that SyncNet was trained with.

    The defaults of python_speech_features 0.6, on 16-bit samples: pre-emphasis of 0.97, windows of
    25 ms without a taper that begin at i * 10 ms, 26 triangles on HTK's mel scale whose corners are
    whole bins, logarithm, DCT-II, lifter of 22; value 0 is the log energy. The last windows are padded
    with zeros.

    Args:
        waveform: Samples [n_samples] in [-1, 1], 16 kHz.

    Returns:
        Cepstra [n, 13], 100 per second.
    """
    samples = np.clip(np.rint(waveform.astype(np.float64) * 32768), -32768, 32767)
    samples[1:] -= _PREEMPHASIS * samples[:-1].copy()
    n = 1 + max(0, ceil((len(samples) - _LENGTH) / _STEP))
    padded = np.pad(samples, (0, (n - 1) * _STEP + _LENGTH - len(samples)))
    lifter = 1 + _LIFTER / 2 * np.sin(np.pi * np.arange(N_MFCC) / _LIFTER)
    cepstra = np.empty((n, N_MFCC), np.float32)
    pieces = sliding_window_view(padded, _LENGTH)[::_STEP]
    for start in range(0, n, 1000):
        powers = np.abs(scipy.fft.rfft(pieces[start : start + 1000], N_FFT)) ** 2 / N_FFT
        bands = np.log(_positive(powers @ _triangles().T))
        part = scipy.fft.dct(bands, norm="ortho")[:, :N_MFCC] * lifter
        part[:, 0] = np.log(_positive(powers.sum(1)))
        cepstra[start : start + 1000] = part
    return cepstra


def _positive(powers: Float64) -> Float64:
    """Replace zeros in an array of any shape by the smallest step above 1."""
    return np.where(powers == 0, np.finfo(np.float64).eps, powers)


@lru_cache(maxsize=1)
def _triangles() -> Float64:
    """Compute the mel filters [26, 257] from 0 Hz to 8 kHz."""
    mels = np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700), N_FILTERS + 2)
    hertz = 700 * (10 ** (mels / 2595) - 1)
    corners = np.floor((N_FFT + 1) * hertz / SAMPLE_RATE)
    low, center, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    bins = np.arange(N_FFT // 2 + 1)
    sides = np.minimum((bins - low) / (center - low), (high - bins) / (high - center))
    return np.asarray(sides.clip(0))
