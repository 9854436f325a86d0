"""Fit a person on several clips."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile
from tiny import LINE, PERSON, make_tiny

from talkhead import media
from talkhead.app import clips as module
from talkhead.app.clips import JOINED, join_clips
from talkhead.app.composer.idle_clip import choose_frames
from talkhead.app.evaluate import evaluate
from talkhead.app.fit import FitResult, fit
from talkhead.app.home.identities import CLIPS, SOURCE, Home
from talkhead.app.speak import speak
from talkhead.app.workspace import find_footage, is_prepared
from talkhead.dataset import IdentityDataset
from talkhead.encoder.base import normalize_level
from talkhead.errors import FootageError, MediaError, TalkheadError
from talkhead.footage import Footage, clips_record
from talkhead.identity import IdentityPackage
from talkhead.preprocess import clip_agreement
from talkhead.progress import SilentProgress
from talkhead.storage import read_json, sha256_of
from talkhead.types import UInt8

N_FIRST, N_SECOND = 130, 104
NAME = "anna"


class Messages(SilentProgress):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture(autouse=True)
def _few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_agreement, "N_SAMPLES", 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


def cut(
    path: Path,
    first: int,
    n_frames: int,
    change: Callable[[UInt8], UInt8] = lambda frame: frame,
    size: tuple[int, int] | None = None,
    rate: float = 25.0,
) -> Path:
    """Cut a clip out of the sample, change its pictures, and scale it or sample it at another rate."""
    sound = path.with_suffix(".wav")
    waveform = media.read_audio(PERSON)[first * 640 : (first + n_frames) * 640]
    wavfile.write(sound, 16_000, waveform)
    n_read = round(n_frames * rate / 25)
    source = media.read_frames(
        PERSON, start_s=first / 25, n_frames=n_read, size=size, frame_rate=rate
    )
    with closing(source) as frames:
        pictures = (change(frame) for frame in frames)
        media.write_video(path, pictures, audio_path=sound, crf=10, frame_rate=rate)
    return path


def darker(frame: UInt8) -> UInt8:
    return (frame * 0.7).astype(np.uint8)


@pytest.fixture(scope="module")
def first(folder: Path) -> Path:
    return cut(folder / "anna.mp4", 0, N_FIRST)


@pytest.fixture(scope="module")
def second(folder: Path) -> Path:
    return cut(folder / "anna again.mp4", N_FIRST, N_SECOND)


@pytest.fixture(scope="module")
def dark(folder: Path) -> Path:
    return cut(folder / "dark.mp4", N_FIRST, N_SECOND, darker)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def joined(store: Home, first: Path, second: Path) -> Footage:
    progress = Messages()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip_agreement, "N_SAMPLES", 8)
        footage = join_clips(store, NAME, [first, second], 0.8, progress)
    assert progress.texts == []
    return footage


def test_pictures_and_sound_are_one_after_the_other(
    joined: Footage, first: Path, second: Path
) -> None:
    assert [clip.n_frames for clip in joined.clips] == [N_FIRST, N_SECOND]
    assert all(clip.has_images for clip in joined.clips)
    assert joined.name == "anna.mp4 (+1 more)" == joined.title
    frames = list(media.read_frames(joined.path))
    assert len(frames) == N_FIRST + N_SECOND
    for clip, start in ((first, 0), (second, N_FIRST)):
        for i, frame in enumerate(media.read_frames(clip)):
            if i % 25 == 0:
                assert np.abs(frames[start + i].astype(int) - frame).mean() < 2.0, (clip, i)
    whole = media.read_audio(joined.path)
    assert len(whole) == pytest.approx(640 * (N_FIRST + N_SECOND), abs=1024)
    for clip, start, n in ((first, 0, N_FIRST), (second, N_FIRST, N_SECOND)):
        own = normalize_level(media.read_audio(clip))[: 640 * n]
        heard = whole[640 * start : 640 * start + len(own)]
        assert np.corrcoef(own[: len(heard)], heard)[0, 1] > 0.98


def test_it_is_joined_once(
    joined: Footage, store: Home, first: Path, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "look_at", None)
    assert join_clips(store, NAME, [first, second], 0.8, SilentProgress()) == joined
    assert sorted(file.name for file in joined.path.parent.iterdir()) == sorted(
        [JOINED, clips_record(joined.path).name, SOURCE]
    )


@pytest.mark.parametrize("damage", ["video", "record"])
def test_a_damaged_one_is_made_again_and_is_the_same(
    joined: Footage, store: Home, first: Path, second: Path, damage: str
) -> None:
    record = clips_record(joined.path)
    if damage == "video":
        joined.path.write_bytes(joined.path.read_bytes()[:-1000])
    else:
        record.write_text("{}")
        assert Footage.open(joined.path).clips == ()
    assert join_clips(store, NAME, [first, second], 0.8, SilentProgress()) == joined
    assert sha256_of(joined.path) == joined.sha256


def test_an_unfinished_fit_names_its_clips(
    joined: Footage, store: Home, first: Path, second: Path
) -> None:
    [summary] = store.summaries()
    assert f"talkhead fit --video {first} --video '{second}' --name {NAME}" in summary.problem


def test_clips_of_other_size_and_rate_are_used_as_far_as_they_agree(
    first: Path, folder: Path, dark: Path, tmp_path: Path
) -> None:
    small = cut(folder / "small.mp4", N_FIRST, N_SECOND, size=(320, 320), rate=30.0)
    tiny = cut(folder / "tiny.mp4", N_FIRST, N_SECOND, size=(192, 192))
    progress = Messages()
    made = join_clips(Home(tmp_path), NAME, [first, dark, small, tiny], 0.8, progress)
    assert [clip.has_images for clip in made.clips] == [True, False, True, False]
    assert [clip.n_frames for clip in made.clips] == [N_FIRST, N_SECOND, N_SECOND, N_SECOND]
    assert (made.info.width, made.info.height) == (384, 384)
    light, coarse = progress.texts
    assert light.startswith("dark.mp4: the light differs (skin ")
    assert "the background differs" in light and light.endswith(": used for the lips only")
    assert coarse.startswith("tiny.mp4: the picture is coarser (the eyes are ")


def test_another_shape_is_padded_by_its_edge(folder: Path) -> None:
    low = cut(folder / "low.mp4", 0, 5, lambda frame: frame[:192], rate=25.0)
    [frame, *_] = clip_agreement.read_fitted(low, (384, 384))
    assert frame.shape == (384, 384, 3)
    assert (frame[:96] == frame[96]).all() and (frame[288:] == frame[287]).all()


def test_clips_that_cannot_be_used_are_refused(
    first: Path, second: Path, folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(first.read_bytes())
    wall = cut(folder / "wall.mp4", 0, 110, lambda frame: np.full_like(frame, 90))
    short = cut(folder / "short.mp4", 0, 60)
    # A face of other proportions.
    other = cut(folder / "other.mp4", N_FIRST, N_SECOND, size=(384, 288))
    home = Home(tmp_path / "home")
    for given, words in (
        (
            [first, second, copy],
            r"copy\.mp4: is the same video as .*anna\.mp4. Pass each clip once",
        ),
        ([first, wall], r"wall\.mp4: no face was found in any of . frames"),
        ([first, short], r"short\.mp4: lasts 2\.4 s, at least 4 s are needed. Leave this clip out"),
        ([first, other], r"other\.mp4: shows another person, or is stretched: its face differs"),
        ([first] * 40, "40 clips are too many: at most 32"),
    ):
        with pytest.raises(FootageError, match=words):
            join_clips(home, NAME, given, 0.8, SilentProgress())
    assert not list(home.path.rglob(JOINED))
    with pytest.raises(MediaError, match="no such file"):
        fit([first, tmp_path / "none.mp4"], home=home.path)
    with pytest.raises(TalkheadError, match="no video was given"):
        fit([], home=home.path)


# --------------------------------------------------------------------------- fit


@pytest.fixture(scope="module")
def fitted(store: Home, first: Path, second: Path, dark: Path) -> FitResult:
    with pytest.MonkeyPatch.context() as patch:
        make_tiny(patch)
        patch.setattr(clip_agreement, "N_SAMPLES", 8)
        return fit(
            [first, second, str(dark)], name=NAME, preset="preview", home=store.path, device="cpu"
        )


@pytest.fixture(scope="module")
def dataset(fitted: FitResult, store: Home) -> IdentityDataset:
    [path] = store.path.rglob("dataset.json")
    return IdentityDataset.load(path.parent)


def test_only_images_of_clips_that_agree_are_used(dataset: IdentityDataset) -> None:
    tracks, joins = dataset.tracks, (N_FIRST, N_FIRST + N_SECOND)
    assert dataset.info.joins == joins and len(dataset) == N_FIRST + 2 * N_SECOND
    assert tracks.has_image[: joins[1]].all() and not tracks.has_image[joins[1] :].any()
    assert tracks.usable[joins[1] :].mean() > 0.9, "the lips are used"
    assert not tracks.train[N_FIRST - 12 : N_FIRST].any()
    assert tracks.train.sum() == len(dataset) - 12
    first, after = choose_frames(dataset)
    assert after - first > 100 and after <= N_FIRST
    names = sorted(file.name for file in dataset.path.glob("sync*.json"))
    assert names == ["sync-1.json", "sync-2.json", "sync.json"]
    assert len(dataset.waveform) == pytest.approx(640 * len(dataset), abs=1024)
    # The same sentences in the dark and in the light have the same motion.
    light, dark = (tracks.codes[start : start + N_SECOND, :20] for start in joins)
    assert np.median(np.abs(light - dark)) < 0.25 * light.std()


def test_the_package_names_the_clips(fitted: FitResult, first: Path, dark: Path) -> None:
    manifest = IdentityPackage.load(fitted.package_path).manifest
    assert manifest.source.name == "anna.mp4 (+2 more)"
    clips = manifest.details[CLIPS]
    assert [clip["name"] for clip in clips] == ["anna.mp4", "anna again.mp4", "dark.mp4"]
    assert [clip["has_images"] for clip in clips] == [True, True, False]
    assert [clip["sha256"] for clip in clips[::2]] == [sha256_of(first), sha256_of(dark)]
    assert clips[0]["duration_s"] == N_FIRST / 25


def test_it_is_evaluated_and_re_lipped(
    fitted: FitResult, store: Home, first: Path, tmp_path: Path
) -> None:
    assert fitted.figures and fitted.report_path is not None
    found, work = find_footage(store, IdentityPackage.load(fitted.package_path), None)
    assert found.path.name == JOINED and len(found.clips) == 3 and is_prepared(work)
    with pytest.raises(TalkheadError, match=r"is not the footage that anna was fitted on"):
        evaluate(NAME, home=store.path, video=first)
    made = speak(
        first, output=tmp_path / "a.mp4", identity=NAME, home=store.path, timeline="source"
    )
    assert made.n_frames == N_FIRST
    with pytest.raises(TalkheadError, match=r"whose timeline is kept lasts 5\.20 s"):
        speak(LINE, output=tmp_path / "b.mp4", identity=NAME, home=store.path, timeline="source")


def test_a_removed_joined_video_is_explained(
    fitted: FitResult, store: Home, tmp_path: Path
) -> None:
    [record] = [
        p
        for p in store.path.rglob(SOURCE)
        if read_json(p)["path"] and (p.parent / "dataset").exists()
    ]
    video = Path(read_json(record)["path"])
    aside = video.rename(tmp_path / "aside.mp4")
    try:
        with pytest.raises(
            TalkheadError, match=r"joined from anna\.mp4, anna again\.mp4, dark\.mp4"
        ):
            evaluate(NAME, home=store.path)
    finally:
        aside.rename(video)


def test_another_set_of_clips_needs_another_name(
    fitted: FitResult, store: Home, first: Path
) -> None:
    with pytest.raises(TalkheadError, match=r"fitted from another video, anna\.mp4 \(\+2 more\)"):
        fit(first, name=NAME, preset="preview", home=store.path, device="cpu")
