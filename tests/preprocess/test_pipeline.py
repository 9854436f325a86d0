"""The whole of preprocessing on a few seconds of the sample person."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from talkhead import media
from talkhead.encoder.silence import silence_of_video
from talkhead.errors import FootageError
from talkhead.preprocess.landmarks import FaceTracker
from talkhead.preprocess.occlusion import AROUND_FRAMES
from talkhead.preprocess.pipeline import PreprocessConfig, preprocess
from talkhead.progress import SilentProgress
from talkhead.storage import read_json
from talkhead.types import Float32, UInt8

PERSON = Path(__file__).parents[2] / "samples" / "person.mp4"
N_FRAMES = 130
GAP = range(40, 43)
HELD = range(60, 68)


def test_a_short_gap_is_bridged_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames in which the tracker lost the face, as a blink of the detector would do."""
    clip = tmp_path / "clip.mp4"
    frames = list(media.read_frames(PERSON, n_frames=N_FRAMES))
    media.write_video(clip, frames, audio_path=PERSON, crf=12)
    lost = [frame.mean(dtype=np.float64) for frame in media.read_frames(clip)]
    blind = {lost[i] for i in GAP}
    track = FaceTracker.track

    def blinking(self: FaceTracker, frame: UInt8) -> Float32 | None:
        seen = track(self, frame)
        return None if frame.mean(dtype=np.float64) in blind else seen

    monkeypatch.setattr(FaceTracker, "track", blinking)
    dataset = preprocess(
        clip, tmp_path / "work", PreprocessConfig(), SilentProgress(), silence_of_video
    )
    tracks = dataset.tracks
    assert not tracks.found[list(GAP)].any() and tracks.found.sum() == N_FRAMES - len(GAP)
    assert tracks.usable[list(GAP)].all()
    steps = np.linalg.norm(np.diff(tracks.landmarks[..., :2], axis=0), axis=-1).max()
    assert steps < 20, "no landmark jumps to a corner of the image"
    assert np.abs(np.diff(tracks.origins, axis=0)).max() <= 3
    assert read_json(dataset.path / "quality.json")["no_face"] == []
    assert len(dataset.frames) == len(dataset.masks) == N_FRAMES


def test_a_cup_before_the_mouth_is_never_learnt(tmp_path: Path) -> None:
    """What hides the mouth takes the frames out; it is told in the report."""
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
        clip, tmp_path / "work", PreprocessConfig(), SilentProgress(), silence_of_video
    )
    tracks = dataset.tracks
    assert not tracks.usable[list(HELD)].any() and not tracks.clear[list(HELD)].any()
    assert tracks.clear.sum() >= N_FRAMES - len(HELD) - 2 * AROUND_FRAMES - 2
    assert tracks.hidden.shape == (N_FRAMES, len(dataset.face.triangles))
    report = read_json(dataset.path / "quality.json")
    [[first, last]] = report["hidden"]
    assert first <= HELD[0] and last >= HELD[-1]
    assert any("before the face" in warning for warning in report["warnings"])


def test_footage_without_speech_is_refused(tmp_path: Path) -> None:
    clip, silence = tmp_path / "clip.mp4", tmp_path / "silence.wav"
    wavfile.write(silence, 16_000, np.zeros(6 * 16_000, np.int16))
    frames = media.read_frames(PERSON, n_frames=N_FRAMES)
    media.write_video(clip, frames, audio_path=silence, crf=12)
    with pytest.raises(FootageError, match="no speech"):
        preprocess(clip, tmp_path / "work", PreprocessConfig(), SilentProgress(), silence_of_video)
