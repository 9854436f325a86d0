"""All of preprocessing, on a few seconds of the sample person."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from paths import PERSON
from scipy.io import wavfile

from talkhead import media
from talkhead.crops import enlarged_mask, shrunk_mask
from talkhead.dataset import IdentityDataset
from talkhead.encoder.vad import silent_video_frames
from talkhead.errors import FootageError
from talkhead.footage import Footage
from talkhead.media import probing
from talkhead.media.probing import probe_footage
from talkhead.preprocess import pipeline_run, steps
from talkhead.preprocess.head_crops import CHUNK
from talkhead.preprocess.image_selection import HELD_OUT_FRACTION
from talkhead.preprocess.landmarks import FaceDetector, FaceTracker, TrackedFace
from talkhead.preprocess.occlusion import AROUND_FRAMES
from talkhead.preprocess.pipeline import STEPS, PreprocessConfig, preprocess
from talkhead.preprocess.small_masks import has_small_masks, write_small_masks
from talkhead.progress import SilentProgress, Step
from talkhead.storage import read_json
from talkhead.types import UInt8

N_FRAMES = 130
GAP = range(40, 43)
HELD = range(60, 68)


def test_a_short_gap_is_bridged_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracker loses the face for a few frames, as if detection had failed."""
    clip = tmp_path / "clip.mp4"
    frames = list(media.read_frames(PERSON, n_frames=N_FRAMES))
    media.write_video(clip, frames, audio_path=PERSON, crf=12)
    lost = [frame.mean(dtype=np.float64) for frame in media.read_frames(clip)]
    blind = {lost[i] for i in GAP}
    detect = FaceDetector.detect

    def blinking(self: FaceDetector, frame: UInt8) -> list[TrackedFace]:
        seen = detect(self, frame)
        return [] if frame.mean(dtype=np.float64) in blind else seen

    monkeypatch.setattr(FaceDetector, "detect", blinking)
    dataset = preprocess(
        Footage.open(clip),
        tmp_path / "work",
        PreprocessConfig(),
        SilentProgress(),
        silent_video_frames,
    )
    tracks = dataset.tracks
    assert not tracks.detected[list(GAP)].any() and tracks.detected.sum() == N_FRAMES - len(GAP)
    assert tracks.usable[list(GAP)].all()
    steps = np.linalg.norm(np.diff(tracks.landmarks[..., :2], axis=0), axis=-1).max()
    assert steps < 20, "no landmark jumps to a corner of the image"
    assert np.abs(np.diff(tracks.origins, axis=0)).max() <= 3
    assert read_json(dataset.path / "quality.json")["no_face"] == []
    assert len(dataset.frames) == len(dataset.masks) == N_FRAMES


def test_frames_with_a_cup_in_front_of_the_mouth_are_not_used(tmp_path: Path) -> None:
    """Frames with an occluded mouth are excluded and reported."""
    clip = tmp_path / "clip.mp4"
    frames = list(media.read_frames(PERSON, n_frames=N_FRAMES))
    height, width = frames[0].shape[:2]
    mouth = FaceTracker().track(frames[0])
    assert mouth is not None
    x, y = mouth[[13, 14], :2].mean(0)
    for i in HELD:
        frames[i] = frames[i].copy()
        frames[i][round(y - 0.08 * height) :, round(x - 0.08 * width) : round(x + 0.08 * width)] = (
            225
        )
    media.write_video(clip, frames, audio_path=PERSON, crf=12)
    dataset = preprocess(
        Footage.open(clip),
        tmp_path / "work",
        PreprocessConfig(),
        SilentProgress(),
        silent_video_frames,
    )
    tracks = dataset.tracks
    assert not tracks.usable[list(HELD)].any() and not tracks.unoccluded[list(HELD)].any()
    assert tracks.unoccluded.sum() >= N_FRAMES - len(HELD) - 2 * AROUND_FRAMES - 2
    assert tracks.occluded.shape == (N_FRAMES, len(dataset.face.triangles))
    report = read_json(dataset.path / "quality.json")
    [[first, last]] = report["hidden"]
    assert first <= HELD[0] and last >= HELD[-1]
    assert any("covers the face" in warning for warning in report["warnings"])


def test_footage_without_speech_is_refused(tmp_path: Path) -> None:
    clip, silence = tmp_path / "clip.mp4", tmp_path / "silence.wav"
    wavfile.write(silence, 16_000, np.zeros(6 * 16_000, np.int16))
    frames = media.read_frames(PERSON, n_frames=N_FRAMES)
    media.write_video(clip, frames, audio_path=silence, crf=12)
    with pytest.raises(FootageError, match="no speech"):
        preprocess(
            Footage.open(clip),
            tmp_path / "work",
            PreprocessConfig(),
            SilentProgress(),
            silent_video_frames,
        )


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"width": 0}, "has no picture"),
        ({"audio_rate": 0}, "has no sound"),
        ({"duration_s": 7300.0}, "lasts 2.0 hours; at most 2 are used. Cut out a part"),
        ({"frame_rate": 2.0}, "has 2 frames per second; 5 are needed"),
        ({"duration_s": 3700.0, "width": 3840, "height": 2160}, None),
        ({"frame_rate": 0.0}, None),
    ],
)
def test_footage_requirements(
    monkeypatch: pytest.MonkeyPatch, facts: dict[str, float], words: str | None
) -> None:
    info = replace(media.probe(PERSON), **facts)
    monkeypatch.setattr(probing, "probe", lambda video: info)
    if words is None:
        assert probe_footage(PERSON) == info
        return
    with pytest.raises(FootageError) as error:
        probe_footage(PERSON)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_steps_are_in_order_and_leave_their_artifacts(short: IdentityDataset) -> None:
    """Each artifact exists at the end, unless it is temporary or for long footage only."""
    names = [step.artifact for step in STEPS]
    assert len(set(names)) == len(names) and names[-1] == "dataset.json"
    for name in names:
        is_there = (short.path / name).exists()
        assert is_there == (name not in {*pipeline_run.TEMPORARY, pipeline_run.FRAME_SELECTION}), (
            name
        )
    assert not any((short.path / name).exists() for name in pipeline_run.TEMPORARY)


# --------------------------------------------------------------------------- long footage

MOST = 80


class RecordingProgress(SilentProgress):
    """Records the messages; optionally fails while crops are cut."""

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.messages = fails, list[str]()

    def message(self, text: str) -> None:
        self.messages.append(text)

    @contextmanager
    def step(self, name: str, total: int | None = None, done: int = 0) -> Iterator[Step]:
        with super().step(name, total, done) as step:
            yield FailingStep(step) if self.fails and name == "Cutting out the head" else step


class FailingStep:
    """Raises KeyboardInterrupt in its second chunk."""

    def __init__(self, step: Step) -> None:
        self._step, self._left = step, CHUNK + 20

    def advance(self, n: int = 1) -> None:
        self._left -= n
        if self._left < 0:
            raise KeyboardInterrupt

    def detail(self, text: str) -> None:
        self._step.detail(text)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("footage") / "clip.mp4"
    media.write_video(path, media.read_frames(PERSON, n_frames=N_FRAMES), audio_path=PERSON)
    return path


@pytest.fixture(scope="module")
def short(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> IdentityDataset:
    """The dataset of the clip, with images of all frames."""
    work = tmp_path_factory.mktemp("short") / "work"
    return preprocess(
        Footage.open(clip), work, PreprocessConfig(), SilentProgress(), silent_video_frames
    )


def tracked(short: IdentityDataset, folder: Path) -> Path:
    """A folder in which the face is already tracked."""
    folder.mkdir()
    shutil.copy(short.path / "tracking.safetensors", folder)
    return folder


def test_long_footage_keeps_some_images_and_all_tracks(
    clip: Path, short: IdentityDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stored images and all tracks equal those of short footage."""
    monkeypatch.setattr(pipeline_run, "MAX_FRAMES", MOST)
    progress = RecordingProgress()
    work = tracked(short, tmp_path / "work")
    long = preprocess(Footage.open(clip), work, PreprocessConfig(), progress, silent_video_frames)
    kept = long.tracks.has_image
    assert kept.sum() == len(long.frames) == len(long.masks) == MOST < N_FRAMES
    assert kept[~long.tracks.train].sum() == MOST // HELD_OUT_FRACTION
    for frame in np.flatnonzero(kept)[::7]:
        assert np.array_equal(long.frames[frame], short.frames[frame])
        assert np.array_equal(long.masks[frame], short.masks[frame])
    for name, values in vars(short.tracks).items():
        assert name == "has_image" or np.array_equal(getattr(long.tracks, name), values), name
    gone = int(np.flatnonzero(~kept)[0])
    with pytest.raises(IndexError, match=f"frame {gone} was not kept"):
        long.frames[gone]
    assert not has_small_masks(long, N_FRAMES) and has_small_masks(short, N_FRAMES)
    write_small_masks(long, clip, gone + 2, SilentProgress())
    assert has_small_masks(long, gone + 2) and not has_small_masks(long, N_FRAMES)
    write_small_masks(long, clip, N_FRAMES, SilentProgress())
    write_small_masks(long, clip, N_FRAMES, SilentProgress())
    assert has_small_masks(long, N_FRAMES) and len(long.small_masks) == N_FRAMES
    for frame in range(N_FRAMES):
        expected = enlarged_mask(shrunk_mask(short.masks[frame]), short.info.crop_size)
        assert np.array_equal(long.person(frame), expected)
    n_learnt = int(long.tracks.trainable.sum())
    assert any(f"trained on {n_learnt} of {N_FRAMES} frames" in m for m in progress.messages)


def test_cutting_resumes_after_an_interruption(
    clip: Path, short: IdentityDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This also works after a partly written chunk. The files equal those of an uninterrupted run."""
    monkeypatch.setattr(pipeline_run, "MAX_FRAMES", MOST)
    config = PreprocessConfig()
    whole = tracked(short, tmp_path / "whole")
    preprocess(Footage.open(clip), whole, config, SilentProgress(), silent_video_frames)
    stopped = tracked(short, tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        preprocess(
            Footage.open(clip), stopped, config, RecordingProgress(fails=True), silent_video_frames
        )
    with (stopped / "masks.u8").open("ab") as file:
        file.write(b"half an image")
    for function in ("track_video", "track_head", "measure_offset", "fit_face_model"):
        monkeypatch.setattr(steps, function, None)  # steps with an artifact are skipped
    assert (stopped / "looks.f64").stat().st_size < (whole / "looks.f64").stat().st_size
    preprocess(Footage.open(clip), stopped, config, SilentProgress(), silent_video_frames)
    for path in whole.iterdir():
        assert path.read_bytes() == (stopped / path.name).read_bytes(), path.name
