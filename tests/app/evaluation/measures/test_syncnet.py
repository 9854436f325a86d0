"""SyncNet's protocol with matching features, its network with random weights, its MFCC by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from talkhead.app.evaluation.measures import syncnet
from talkhead.app.evaluation.measures.syncnet import (
    CROP,
    GRAY,
    MAX_LAG,
    MIN_WINDOWS,
    VARIABLE,
    WINDOW,
    SyncNet,
    face_crop,
    face_squares,
    load_syncnet,
    mfcc,
    syncnet_results,
    syncnet_unavailable_reason,
)
from talkhead.errors import TalkheadError
from talkhead.types import Float32, UInt8

HEIGHT, WIDTH = 60, 80
SAMPLES = 640  # a frame
TYPICAL = 95.0


def faces(n_frames: int) -> Float32:
    """Landmarks [F, 478, 2] of a still face, 40 px wide and 30 high."""
    points = np.random.default_rng(0).uniform(0, 1, (478, 2)) * [40, 30] + [20, 15]
    points[:2] = [[20, 15], [60, 45]]
    return np.tile(points, (n_frames, 1, 1)).astype(np.float32)


def tracked(n_frames: int) -> np.ndarray:
    return np.ones(n_frames, dtype=bool)


# ------------------------------------------------------------------------------ protocol


class Matching(SyncNet):
    """Features of brightness and loudness: 5 times the log energy matches.

    Typical values are 0, which is what the protocol has beyond the ends.
    """

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.max_images = 0

    def lips(self, images: Tensor) -> Tensor:
        assert images.shape[1:] == (3, CROP, CROP)
        self.max_images = max(self.max_images, len(images))
        bright = images[:, :, CROP // 2 - 20 : CROP // 2, CROP // 2].mean((1, 2))
        return bright.unfold(0, WINDOW, 1).mean(-1)[:, None].expand(-1, 1024) - TYPICAL

    def sound(self, cepstra: Tensor) -> Tensor:
        assert cepstra.shape[1:] == (20, 13)
        return (5 * cepstra[:, :, 0]).mean(1)[:, None].expand(-1, 1024) - TYPICAL


def matching_video(n_frames: int, late: int) -> tuple[list[UInt8], Float32]:
    """Frames whose brightness follows the loudness of audio that is late by some frames."""
    rng = np.random.default_rng(1)
    level = np.convolve(rng.normal(size=n_frames + 80), np.hanning(7), "same")
    noise = rng.normal(size=(n_frames, SAMPLES))
    loud = 0.02 * np.exp(0.5 * level)
    delayed = loud[40 - late : 40 - late + n_frames]
    waveform = (delayed[:, None] * noise).astype(np.float32).ravel()
    shown = loud[40 : 40 + n_frames]
    energy = np.log((400 * (1 + 0.97**2) / 2) * (shown * 32768) ** 2)
    return [np.full((HEIGHT, WIDTH, 3), round(5 * e), np.uint8) for e in energy], waveform


@pytest.mark.parametrize("late", [-9, 0, 1, 6])
def test_the_offset_is_how_late_the_audio_is(late: int) -> None:
    frames, waveform = matching_video(200, late)
    results = syncnet_results(Matching(), frames, faces(200), tracked(200), waveform)
    assert results.offset_frames == late
    assert results.lse_c > results.lse_d > 0


def test_scores_agree_with_the_definition() -> None:
    frames, waveform = matching_video(70, 2)
    net, n = Matching(), 70 - WINDOW
    bright = np.array([image[0, 0, 0] for image in frames]) - TYPICAL
    lips = [bright[i : i + 5].mean() for i in range(n)]
    loudness = 5 * mfcc(waveform)[:, 0].astype(np.float64) - TYPICAL
    sound = np.zeros(n + 2 * MAX_LAG)
    sound[MAX_LAG:-MAX_LAG] = [loudness[4 * i : 4 * i + 20].mean() for i in range(n)]
    distances = [
        np.mean([abs(lips[i] - sound[i + lag]) * math.sqrt(1024) for i in range(n)])
        for lag in range(2 * MAX_LAG + 1)
    ]
    results = syncnet_results(net, frames, faces(70), tracked(70), waveform)
    assert results.lse_d == pytest.approx(min(distances), rel=1e-3)
    assert results.lse_c == pytest.approx(np.median(distances) - min(distances), rel=1e-3)
    assert results.offset_frames == int(np.argmin(distances)) - MAX_LAG == 2


def test_frames_are_read_a_few_at_a_time() -> None:
    frames, waveform = matching_video(300, 0)
    alive, most = 0, 0

    class Tracked(np.ndarray):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def stream() -> Iterator[UInt8]:
        nonlocal alive, most
        for frame in frames:
            alive += 1
            most = max(most, alive)
            yield frame.copy().view(Tracked)

    net = Matching()
    results = syncnet_results(net, stream(), faces(300), tracked(300), waveform)
    assert results == syncnet_results(Matching(), frames, faces(300), tracked(300), waveform)
    assert net.max_images <= syncnet.BATCH + WINDOW - 1
    assert most <= 20


def test_videos_that_cannot_be_scored() -> None:
    n_frames = MIN_WINDOWS + WINDOW
    frames, waveform = matching_video(n_frames, 0)
    assert syncnet_results(Matching(), frames, faces(n_frames), tracked(n_frames), waveform)
    with pytest.raises(TalkheadError, match=f"here are {n_frames - 1}"):
        syncnet_results(Matching(), frames, faces(n_frames), tracked(n_frames), waveform[:-SAMPLES])
    with pytest.raises(TalkheadError, match="0 of them with a face"):
        syncnet_results(Matching(), frames, faces(n_frames), ~tracked(n_frames), waveform)
    with pytest.raises(ValueError, match="frames end after 20"):
        syncnet_results(Matching(), frames[:20], faces(n_frames), tracked(n_frames), waveform)


# --------------------------------------------------------------------------------- crops


def test_squares_are_the_longer_side_and_are_interpolated() -> None:
    points = faces(60)
    points[30:] += [30, 0]
    here = tracked(60)
    here[25:35] = False
    points[25:35] = 1e6
    squares = face_squares(points, here)
    assert squares[0] == pytest.approx([40, 30, 20])
    assert squares[-1] == pytest.approx([70, 30, 20])
    assert (np.diff(squares[:, 0]) >= 0).all()
    assert 50 < squares[30, 0] < 60


def test_one_frame_that_jumps_moves_no_square() -> None:
    points = faces(40)
    points[20] += 15
    assert face_squares(points, tracked(40)) == pytest.approx(np.tile([40, 30, 20], (40, 1)))


def test_crop_has_margins_at_the_sides_and_below_and_is_bgr() -> None:
    image = np.zeros((300, 300, 3), np.uint8)
    image[80:260, 60:240, 0] = 200  # red: 140 * 1.4 px wide about x = 150, from y = 80 on
    crop = face_crop(image, np.array([150.0, 144.0, 64.0]))  # covers 60.4..239.6, 80..259.2
    assert crop.shape == (CROP, CROP, 3)
    assert (crop[..., 2] == 200).mean() > 0.98
    assert not crop[..., :2].any()


def test_crop_is_gray_outside_the_image() -> None:
    white = np.full((50, 50, 3), 255, np.uint8)
    crop = face_crop(white, np.array([0.0, 25.0, 25.0]))
    assert (crop[:, :100] == GRAY).all()
    assert (crop[: CROP // 2, 130:] == 255).all()
    assert (face_crop(white, np.array([-500.0, 900.0, 20.0])) == GRAY).all()


# --------------------------------------------------------------------------------- net


@pytest.fixture(scope="module")
def random_net() -> SyncNet:
    torch.manual_seed(0)
    return SyncNet().eval()


def test_names_and_shapes_of_the_public_checkpoint(random_net: SyncNet) -> None:
    shapes = {name: tuple(p.shape) for name, p in random_net.named_parameters()}
    expected = {
        "netcnnaud.0.weight": (64, 1, 3, 3),
        "netcnnaud.4.weight": (192, 64, 3, 3),
        "netcnnaud.8.weight": (384, 192, 3, 3),
        "netcnnaud.11.weight": (256, 384, 3, 3),
        "netcnnaud.14.weight": (256, 256, 3, 3),
        "netcnnaud.18.weight": (512, 256, 5, 4),
        "netcnnaud.19.bias": (512,),
        "netcnnlip.0.weight": (96, 3, 5, 7, 7),
        "netcnnlip.4.weight": (256, 96, 1, 5, 5),
        "netcnnlip.8.weight": (256, 256, 1, 3, 3),
        "netcnnlip.11.weight": (256, 256, 1, 3, 3),
        "netcnnlip.14.weight": (256, 256, 1, 3, 3),
        "netcnnlip.18.weight": (512, 256, 1, 6, 6),
        "netfcaud.0.weight": (512, 512),
        "netfcaud.3.weight": (1024, 512),
        "netfclip.1.weight": (512,),
        "netfclip.3.bias": (1024,),
    }
    assert expected.items() <= shapes.items()
    assert len(shapes) == 2 * (2 * 6 + 3) + 2 * (2 * 6 + 3)


def test_windows_that_share_layers_equal_windows_by_themselves(random_net: SyncNet) -> None:
    images = 255 * torch.rand(7, 3, CROP, CROP, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        together = random_net.lips(images)
        apart = torch.cat([random_net.lips(images[i : i + WINDOW]) for i in range(3)])
        assert random_net.sound(torch.rand(2, 20, 13)).shape == (2, 1024)
    assert together.shape == (3, 1024)
    assert torch.allclose(together, apart, atol=1e-5)


def test_end_to_end_with_random_weights(random_net: SyncNet) -> None:
    n_frames = MIN_WINDOWS + WINDOW
    frames, waveform = matching_video(n_frames, 0)
    results = syncnet_results(random_net, frames, faces(n_frames), tracked(n_frames), waveform)
    assert results.lse_d > 0
    assert results.lse_c >= 0
    assert abs(results.offset_frames) <= MAX_LAG


# ------------------------------------------------------------------------------- weights


def test_without_weights_it_is_left_out_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert load_syncnet() is None
    assert VARIABLE in syncnet_unavailable_reason()


def test_weights_come_from_the_named_file(
    random_net: SyncNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "syncnet_v2.model"
    old = {k: v for k, v in random_net.state_dict().items() if "num_batches" not in k}
    torch.save(old, path)  # as checkpoints were before batches were counted
    monkeypatch.setenv(VARIABLE, str(path))
    assert syncnet_unavailable_reason() == ""
    net = load_syncnet()
    assert net is not None
    assert not net.training
    pairs = zip(net.parameters(), random_net.parameters(), strict=True)
    assert all(torch.equal(own, saved) for own, saved in pairs)


def test_wrong_files_are_a_one_line_error(random_net: SyncNet, tmp_path: Path) -> None:
    path = tmp_path / "syncnet_v2.model"
    with pytest.raises(TalkheadError, match="there is no such file"):
        SyncNet.load(path)
    for content in (b"", b"no weights at all", b"PK\x03\x04 nor these"):
        path.write_bytes(content)
        with pytest.raises(TalkheadError, match="cannot be read as weights"):
            SyncNet.load(path)
    torch.save(random_net, path)  # a whole object: reading it would run code
    with pytest.raises(TalkheadError, match="cannot be read as weights"):
        SyncNet.load(path)
    lacking = dict(random_net.state_dict())
    del lacking["netfclip.3.bias"]
    misshapen = random_net.state_dict() | {"netfclip.3.bias": torch.zeros(256)}
    for state in (lacking, misshapen, {"a": 1}, [1, 2]):
        torch.save(state, path)
        with pytest.raises(TalkheadError, match="does not contain SyncNet's weights") as caught:
            SyncNet.load(path)
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------- MFCC


def slow_mfcc(samples: np.ndarray, start: int) -> list[float]:
    """MFCC of the window that begins at a sample, term by term."""
    emphasised = [samples[i] - (0.97 * samples[i - 1] if i else 0) for i in range(len(samples))]
    window = emphasised[start : start + 400]
    spectrum = np.fft.rfft(window, 512)
    powers = [abs(value) ** 2 / 512 for value in spectrum]
    mels = [k / 27 * 2595 * math.log10(1 + 8000 / 700) for k in range(28)]
    corner = [math.floor(513 * 700 * (10 ** (mel / 2595) - 1) / 16000) for mel in mels]
    logs = []
    for low, center, high in zip(corner, corner[1:], corner[2:], strict=False):
        rising = sum(powers[b] * (b - low) / (center - low) for b in range(low, center))
        falling = sum(powers[b] * (high - b) / (high - center) for b in range(center, high))
        logs.append(math.log(rising + falling))
    cepstra = [math.log(sum(powers))]
    for k in range(1, 13):
        cosines = [math.cos(math.pi * k * (2 * j + 1) / 52) for j in range(26)]
        total = sum(v * c for v, c in zip(logs, cosines, strict=True))
        cepstra.append(math.sqrt(2 / 26) * total * (1 + 11 * math.sin(math.pi * k / 22)))
    return cepstra


def test_mfcc_agree_with_the_definition() -> None:
    waveform = np.random.default_rng(3).normal(0, 0.1, 1040).astype(np.float32)
    samples = np.rint(waveform.astype(np.float64) * 32768)
    found = mfcc(waveform)
    assert found.shape == (5, 13)
    for index in (0, 3, 4):
        assert found[index] == pytest.approx(slow_mfcc(samples, 160 * index), abs=1e-3)


def test_mfcc_of_a_tone_are_those_of_python_speech_features() -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(1040) / 16000)
    expected = [20.495, 18.806, 1.7124, -14.1803, -27.1916, -33.5372, -29.6668]
    assert mfcc(tone.astype(np.float32))[0, :7] == pytest.approx(expected, abs=1e-3)


def test_mfcc_of_silence_are_finite_and_the_end_is_padded() -> None:
    assert np.isfinite(mfcc(np.zeros(1000, np.float32))).all()
    assert [len(mfcc(np.zeros(n, np.float32))) for n in (100, 400, 401, 560, 561)] == [
        1,
        1,
        2,
        2,
        3,
    ]
