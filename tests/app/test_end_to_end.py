"""From footage to a speaking video, and error messages for every kind of bad input.

Uses the first seconds of the sample person, with a renderer and a predictor so small that they are
fitted in seconds: the tests check that the pipeline works, not how good the result looks.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from media_counts import MediaCounts
from processes import package_files, start_fit, wait_for
from tiny import LINE, SECONDS, make_tiny

from talkhead import media
from talkhead.app import fit as fit_module
from talkhead.app.avatar import load_predictor, speech_codes
from talkhead.app.composer.idle_clip import load_idle, ping_pong
from talkhead.app.fit import FitResult, fit
from talkhead.app.speak import SpeakResult, speak
from talkhead.encoder.vad import silent_video_frames
from talkhead.errors import FootageError, MediaError, PackageError, TalkheadError
from talkhead.face import lip_aperture
from talkhead.footage import Footage
from talkhead.identity import IDLE_NAME, MANIFEST_NAME, IdentityPackage
from talkhead.preprocess.pipeline import PreprocessConfig, preprocess
from talkhead.progress import SilentProgress
from talkhead.renderers.gaussian import model
from talkhead.storage import read_tensors, sha256_of


@pytest.fixture
def package(fitted: FitResult) -> IdentityPackage:
    return IdentityPackage.load(fitted.package_path)


def ffmpeg(*arguments: object) -> None:
    command = [media.ffmpeg_path(), "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True)


def write_wav(path: Path, waveform: np.ndarray, rate: int = 16_000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(waveform, -1, 1) * 32767).astype("<i2").tobytes())
    return path


# ------------------------------------------------------------------------------ fitting


def test_results_of_fit(fitted: FitResult, home: Path, footage: Path) -> None:
    """The result is a package named after the video, with figures and a contact sheet, which
    becomes the default identity.
    """
    assert fitted.name == "Anna-B" and fitted.package_path == home / "identities" / "Anna-B"
    assert fitted.sheet_path is not None and fitted.sheet_path.stat().st_size > 10_000
    assert fitted.figures["tracked codes"] and fitted.figures["pasted, speech-driven"]
    assert 0 < fitted.figures["mean mouth"]["lips"]["lmd_px"]["mean"] < 50
    assert "tracked codes" in fitted.summary
    manifest = IdentityPackage.load(fitted.package_path).manifest
    info = media.probe(footage)
    assert manifest.consent == "Yes." and manifest.preset == "preview" and manifest.seed == 0
    assert (manifest.frame_width, manifest.frame_height) == (info.width, info.height)
    assert manifest.source.sha256 == sha256_of(footage)
    assert json.loads((home / "latest.json").read_text()) == {"name": "Anna-B"}
    assert not leftovers(home)


def test_every_stage_shows_its_number(fitted: FitResult, fit_steps: Any) -> None:
    steps = fit_module.STEPS
    assert fit_steps.names == [f"{n} of {len(steps)}: {name}" for n, name in enumerate(steps, 1)]


def test_the_footage_is_read_no_more_than_needed(
    fitted: FitResult, fit_counts: MediaCounts
) -> None:
    """It is hashed and probed once and decoded completely twice: to track the face, and to cut the
    crops. In addition, the report reads the held-out end, and the idle clip reads a run of training
    frames.
    """
    n_frames, held_out = SECONDS * 25, round(SECONDS * 25 * 10 / 11)
    whole = [read for read in fit_counts.decoded if read == (0, n_frames)]
    parts = [(first, n) for first, n in fit_counts.decoded if first >= held_out]
    idle = [(first, n) for first, n in fit_counts.decoded if first < held_out and 1 < n < n_frames]
    single = [(first, n) for first, n in fit_counts.decoded if first < held_out and n == 1]
    assert fit_counts.n_hashed == 1 and fit_counts.n_described <= 1
    assert fit_counts.n_probed <= 3
    assert (len(whole), len(idle), len(single), len(parts)) == (2, 1, 1, 6)
    assert len(fit_counts.decoded) == 10 and fit_counts.n_sound == 2


def test_the_summary_of_a_short_fit_warns_of_its_limits(fitted: FitResult) -> None:
    """Half a second of held-out frames is too short for verdicts, except on the head's outline."""
    assert (
        "too few for reliable results" in fitted.summary
        and "enough for a first try" in fitted.summary
    )
    levels = ("good  ", "fair  ", "bad  ")
    said = [line for line in fitted.summary.splitlines() if line.startswith(levels)]
    assert len(said) == 1 and "Cut-out of the head" in said[0]


def leftovers(folder: Path) -> list[Path]:
    """List temporary and half-written files in a folder."""
    marks = (".tmp-", ".old-")
    return [path for path in folder.rglob("*") if any(mark in path.name for mark in marks)]


def test_the_idle_clip_is_the_training_part(package: IdentityPackage) -> None:
    idle = load_idle(package)
    n_train = round(SECONDS * 25 * 10 / 11)
    assert 0.8 * n_train <= len(idle) <= n_train
    assert sum(1 for _ in media.read_frames(package.file(IDLE_NAME))) == len(idle)


def differences(first: Path, second: Path) -> dict[str, float]:
    """Compute how much the tensors of two packages differ, omitting those that are equal."""
    apart = {}
    for name in ("predictor.safetensors", "gaussian.safetensors"):
        others = read_tensors(second / name)
        for key, tensor in read_tensors(first / name).items():
            if not torch.equal(tensor, others[key]):
                apart[f"{name} {key}"] = float((tensor - others[key]).abs().max())
    return apart


def test_fitting_again_reuses_existing_results(
    fitted: FitResult, home: Path, footage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tracking and training are not repeated, and the damaged package is restored exactly."""
    make_tiny(monkeypatch)
    before = package_files(fitted.package_path)
    monkeypatch.setattr("talkhead.preprocess.tracking.FaceTracker", None)
    monkeypatch.setattr(model.GaussianRenderer, "losses", None)
    monkeypatch.setattr(fit_module, "fit_predictor", None)
    assert fitted.sheet_path is not None
    sheet = fitted.sheet_path.read_bytes()
    fitted.sheet_path.unlink()
    try:
        again = fit(footage, preset="preview", home=home, consent="Yes.", device="cpu")
        assert again.figures == fitted.figures
        assert package_files(again.package_path) == before
    finally:
        fitted.sheet_path.write_bytes(sheet)  # other tests need it


def test_a_name_that_is_taken(fitted: FitResult, home: Path, tmp_path: Path) -> None:
    """The name belongs to a person of another video: no identity is overwritten."""
    video, before = tmp_path / "grey.mp4", package_files(fitted.package_path)
    media.write_video(video, grey_frames(10), audio_path=LINE)
    refusal(
        TalkheadError,
        lambda: fit(video, name=fitted.name, preset="preview", home=home, device="cpu"),
        "Anna-B",
        "another video",
        "--name",
    )
    assert package_files(fitted.package_path) == before


def test_a_killed_and_interrupted_fit_ends_in_the_same_package(
    fitted: FitResult, footage: Path, tmp_path: Path
) -> None:
    """A fit is killed during or after tracking, interrupted with Ctrl-C while training, and completed."""
    first = start_fit(footage, tmp_path, "--quiet")
    wait_for(tmp_path, "tracking*.safetensors", first)  # a chunk's file is removed soon
    first.kill()
    first.communicate()
    assert not list(tmp_path.glob("identities/*"))
    second = start_fit(footage, tmp_path, "--quiet")
    wait_for(tmp_path, "gaussian-*.safetensors", second)
    second.send_signal(signal.SIGINT)
    _, words = second.communicate()
    assert second.returncode == 130, words
    assert "Run the same command again to resume" in words and "Traceback" not in words
    assert not list(tmp_path.glob("identities/*"))
    third = start_fit(footage, tmp_path, "--quiet")
    _, words = third.communicate()
    assert third.returncode == 0, words
    package = tmp_path / "identities" / fitted.name
    assert not differences(package, fitted.package_path)
    assert package_files(package) == package_files(fitted.package_path)
    assert not leftovers(tmp_path / "identities")


# ----------------------------------------------------------------------------- speaking


def say(audio: Path, home: Path, output: Path, mode: str = "paste") -> SpeakResult:
    """Return the result of speak, after checking properties that all its videos have."""
    result = speak(audio, output=output, home=home, device="cpu", mode=mode)
    seconds = len(media.read_audio(audio)) / 16_000
    assert result.output_path == output and result.identity == "Anna-B"
    assert result.n_frames == max(1, round(25 * seconds))
    assert result.duration_s == result.n_frames / 25
    info = media.probe(output)
    assert info.frame_rate == 25
    assert sum(1 for _ in media.read_frames(output)) == result.n_frames
    picture_s, sound_s = track_lengths(output)
    assert picture_s == pytest.approx(result.n_frames / 25, abs=0.001)
    assert abs(sound_s - picture_s) <= 1 / 25
    beyond = media.read_audio(output)[result.n_frames * 640 + 640 :]
    assert not beyond.size or np.abs(beyond).max() < 0.01, "AAC's padding is silent"
    assert "synthetic" in media.read_tags(output)["comment"].lower()
    assert not leftovers(output.parent)
    return result


def track_lengths(path: Path) -> list[float]:
    """Presented duration of each track of an mp4 in seconds, from its header (ISO 14496-12, 8.3.2)."""
    data = path.read_bytes()
    header = data.index(b"mvhd")
    per_second = int.from_bytes(data[header + 16 : header + 20], "big")
    tracks = data.split(b"tkhd")[1:]
    return [int.from_bytes(track[24 - 4 : 24], "big") / per_second for track in tracks]


FORMATS = {
    "wav": [],
    "mp3": ["-b:a", "128k"],
    "m4a": ["-c:a", "aac"],
    "stereo.wav": ["-ar", 48_000, "-ac", 2],
}


@pytest.mark.parametrize("ending", FORMATS)
def test_any_sound(fitted: FitResult, home: Path, tmp_path: Path, ending: str) -> None:
    audio = tmp_path / f"line.{ending}"
    ffmpeg("-i", LINE, "-t", 1.3, *FORMATS[ending], audio)
    say(audio, home, tmp_path / "out.mp4")
    given, made = media.probe(audio), media.probe(tmp_path / "out.mp4")
    assert (made.audio_rate, made.audio_channels) == (given.audio_rate, given.audio_channels)
    before, after = media.read_audio(audio), media.read_audio(tmp_path / "out.mp4")
    n = min(len(before), len(after))
    assert np.corrcoef(before[:n], after[:n])[0, 1] > 0.95, "the given sound, unshifted"


def test_the_video_s_own_soundtrack(
    fitted: FitResult, home: Path, footage: Path, tmp_path: Path
) -> None:
    """It is longer than the idle clip, which is then played backward. Only the mouth differs from
    the footage.
    """
    output = tmp_path / "own.mp4"
    result = say(footage, home, output)
    idle = load_idle(IdentityPackage.load(fitted.package_path))
    numbers = ping_pong(len(idle), result.n_frames)
    assert result.n_frames > len(idle) and numbers[-1] < len(idle) - 1
    own = list(media.read_frames(idle.path))
    top = int(idle.landmarks(0, idle.codes[:1])[0, 10, 1] / idle.scale + idle.origins[0, 1])
    changed = []
    for number, frame in zip(numbers, media.read_frames(output), strict=True):
        difference = np.abs(frame.astype(int) - own[number])
        assert difference[:top].mean() < 4.0  # encoded a second time
        changed.append(difference.mean())
    assert frame.shape == own[0].shape
    assert max(changed) > 0.2, "the mouth is not the footage's"


def test_the_head_alone(package: IdentityPackage, home: Path, tmp_path: Path) -> None:
    audio = write_wav(tmp_path / "a.wav", media.read_audio(LINE)[:8_000])
    result = say(audio, home, tmp_path / "head.mp4", mode="head")
    idle = load_idle(package)
    made, source = media.probe(tmp_path / "head.mp4"), package.manifest.source
    assert result.picture.startswith(f"{made.width}x{made.height} (the head alone, cropped from ")
    assert f"{source.width}x{source.height}), 25 frames per second" in result.picture
    assert made.height - idle.crop_height in (0, 1) and made.width - idle.crop_width in (0, 1)


def test_a_fifth_of_a_second(fitted: FitResult, home: Path, tmp_path: Path) -> None:
    audio = write_wav(tmp_path / "short.wav", media.read_audio(LINE)[8_000:11_200])
    assert say(audio, home, tmp_path / "short.mp4").n_frames == 5


def test_silence_keeps_the_mouth_closed(
    package: IdentityPackage, home: Path, tmp_path: Path
) -> None:
    """Every frame has the predictor's rest code: the mouth is as closed as the person's own mouth
    in pauses.
    """
    audio = write_wav(tmp_path / "silence.wav", np.zeros(16_000))
    idle, codes = load_idle(package), speech_codes(audio, package)
    rest = load_predictor(package).scaling.rest
    assert np.array_equal(codes, np.repeat(rest[None], 25, axis=0))
    assert not rest[idle.face.n_mouth :].any()
    gaps = lip_aperture(idle.face.vertices(idle.codes))
    assert lip_aperture(idle.face.vertices(codes[:1]))[0] <= np.percentile(gaps, 50)
    say(audio, home, tmp_path / "silence.mp4")


def test_the_same_words_give_the_same_video(fitted: FitResult, home: Path, tmp_path: Path) -> None:
    audio = write_wav(tmp_path / "a.wav", media.read_audio(LINE)[:12_000])
    for name in ("one.mp4", "two.mp4"):
        say(audio, home, tmp_path / name)
    first, second = (list(media.read_frames(tmp_path / n)) for n in ("one.mp4", "two.mp4"))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


# ---------------------------------------------------------------------- bad input to fit


def refusal(kind: type[TalkheadError], call: Callable[[], object], *words: str) -> str:
    """Return the one-line error that a call raises, after checking that it contains the words."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and "Traceback" not in message
    for word in words:
        assert word in message, message
    return message


@pytest.fixture
def refuses(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """A function that checks that fit refuses a video in one line, and leaves no identity and no
    partial files.
    """
    store = tmp_path / "empty-home"

    def check(video: Path, kind: type[TalkheadError], *words: str, **options: object) -> None:
        call = {"preset": "preview", "home": store, "device": "cpu", **options}
        refusal(kind, lambda: fit(video, **call), *words)  # type: ignore[arg-type]

    yield check
    assert not list(store.glob("identities/*")) and not (store / "latest.json").exists()
    assert not leftovers(store)


def grey_frames(n_frames: int) -> Iterator[np.ndarray]:
    y, x = np.mgrid[:120, :160].astype(np.uint8)
    return (np.stack([x + i, y, x // 2], axis=-1).astype(np.uint8) for i in range(n_frames))


def test_no_speech(refuses: Callable[..., None], tmp_path: Path) -> None:
    """Footage without speech is refused before any processing."""
    random, video = np.random.default_rng(0), tmp_path / "noise.mp4"
    audio = write_wav(tmp_path / "noise.wav", 0.1 * random.standard_normal(4 * 16_000))
    media.write_video(video, grey_frames(100), audio_path=audio)
    refuses(video, FootageError, "noise.mp4", "hardly any speech", "--no-speech-check")
    refuses(video, FootageError, "no face was found", check_speech=False)


def test_no_face(refuses: Callable[..., None], tmp_path: Path) -> None:
    video = tmp_path / "wall.mp4"
    media.write_video(video, grey_frames(110), audio_path=LINE)
    refuses(video, FootageError, "wall.mp4", "no face was found in any of 110 frames")


def test_a_face_in_too_few_frames(
    refuses: Callable[..., None], footage: Path, tmp_path: Path
) -> None:
    video = tmp_path / "passing.mp4"
    frames = [
        frame if i < 40 else np.full_like(frame, 90)
        for i, frame in enumerate(media.read_frames(footage, n_frames=120))
    ]
    media.write_video(video, frames, audio_path=footage)
    refuses(video, FootageError, "passing.mp4", "of 120 frames (80% needed)", "--min-face")


def test_too_short(refuses: Callable[..., None], footage: Path, tmp_path: Path) -> None:
    video = tmp_path / "short.mp4"
    media.write_video(video, media.read_frames(footage, n_frames=60), audio_path=footage)
    refuses(video, FootageError, "short.mp4", "at least 4 s are needed")


def test_no_sound_or_no_picture(refuses: Callable[..., None], tmp_path: Path) -> None:
    video = tmp_path / "mute.mp4"
    media.write_video(video, grey_frames(30))
    refuses(video, TalkheadError, "mute.mp4", "has no sound")
    refuses(LINE, TalkheadError, "line.wav", "has no picture")


def test_damaged_videos(refuses: Callable[..., None], footage: Path, tmp_path: Path) -> None:
    """The videos are truncated, without an index, partly overwritten, or not videos at all."""
    whole = footage.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) // 2])
    refuses(cut, MediaError, "cut.mp4", "can't be read beyond")
    headless = tmp_path / "headless.mp4"
    headless.write_bytes(whole[len(whole) // 2 :])
    refuses(headless, MediaError, "headless.mp4")
    text = tmp_path / "notes.mp4"
    text.write_text("Remember to record the video.\n" * 40)
    refuses(text, MediaError, "notes.mp4", "is not a video or audio file")


def test_no_file_and_bad_choices(refuses: Callable[..., None], tmp_path: Path) -> None:
    video = tmp_path / "grey.mp4"
    media.write_video(video, grey_frames(10), audio_path=LINE)
    refuses(tmp_path / "missing.mp4", MediaError, "missing.mp4", "no such file")
    refuses(tmp_path, MediaError, "is a folder")
    refuses(video, TalkheadError, "no preset 'best'", "preview, standard, high", preset="best")
    refuses(video, TalkheadError, "no renderer 'nerv'", "gaussian", renderer="nerv")
    refuses(video, TalkheadError, "no encoder 'ear'", "mel", encoder="ear")
    refuses(video, TalkheadError, "../anna", name="../anna")


def test_a_home_that_cannot_be_written(footage: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    refusal(
        TalkheadError,
        lambda: fit(footage, preset="preview", home=tmp_path / "file", device="cpu"),
        str(tmp_path / "file"),
    )
    assert (tmp_path / "file").read_text() == "not a folder"


# -------------------------------------------------------------------- bad input to speak


@pytest.fixture
def check_refused(fitted: FitResult, home: Path, tmp_path: Path) -> Callable[..., None]:
    """A function that checks that speak refuses audio in one line and does not change existing
    files.
    """

    def check(audio: Path, *words: str, kind: type[TalkheadError] = TalkheadError) -> None:
        output = tmp_path / "out.mp4"
        output.write_bytes(b"an older video")
        before = sorted(tmp_path.iterdir())
        refusal(kind, lambda: speak(audio, output=output, home=home, device="cpu"), *words)
        assert sorted(tmp_path.iterdir()) == before
        assert output.read_bytes() == b"an older video"

    return check


def test_files_without_audio_are_refused(
    check_refused: Callable[..., None], tmp_path: Path
) -> None:
    empty = write_wav(tmp_path / "empty.wav", np.zeros(0))
    check_refused(empty, "empty.wav", "empty")
    nothing = tmp_path / "nothing.wav"
    nothing.write_bytes(b"")
    check_refused(nothing, "nothing.wav", "is empty (0 bytes)")
    text = tmp_path / "words.wav"
    text.write_text("Hello, I am a text.\n" * 50)
    check_refused(text, "words.wav", "is not a video or audio file")
    picture = tmp_path / "mute.mp4"
    media.write_video(picture, grey_frames(10))
    check_refused(picture, "mute.mp4", "has no sound")
    check_refused(tmp_path / "missing.wav", "missing.wav", "no such file")


def test_samples_that_are_not_numbers(check_refused: Callable[..., None], tmp_path: Path) -> None:
    samples = np.zeros(16_000, "<f4")
    samples[5_000] = np.nan
    (tmp_path / "raw.f32").write_bytes(samples.tobytes())
    ffmpeg(
        "-f", "f32le", "-ar", 16_000, "-ac", 1, "-i", tmp_path / "raw.f32",
        "-c:a", "pcm_f32le", tmp_path / "nan.wav",
    )  # fmt: skip
    check_refused(tmp_path / "nan.wav", "nan.wav", "sample 5000", "is not a number")


def test_clipped_samples_are_fine(fitted: FitResult, home: Path, tmp_path: Path) -> None:
    loud = np.clip(40 * media.read_audio(LINE)[:8_000], -1, 1)
    say(write_wav(tmp_path / "loud.wav", loud), home, tmp_path / "loud.mp4")


def test_unknown_identity_and_mode(fitted: FitResult, home: Path, tmp_path: Path) -> None:
    refusal(
        PackageError,
        lambda: speak(LINE, identity="berta", home=home),
        "berta",
        "Choose one of: Anna-B",
    )
    refusal(
        PackageError,
        lambda: speak(LINE, home=tmp_path / "new"),
        "no identities",
        "talkhead fit --video",
    )
    refusal(TalkheadError, lambda: speak(LINE, mode="whole", home=home), "paste, head")
    refusal(PackageError, lambda: speak(LINE, renderer="warp", home=home), "warp", "gaussian")
    assert not list(tmp_path.iterdir())


def test_impossible_outputs(fitted: FitResult, home: Path, tmp_path: Path) -> None:
    audio = write_wav(tmp_path / "a.wav", np.zeros(1_600))
    (tmp_path / "folder").mkdir()
    for output, words in (
        (tmp_path / "absent" / "line.mp4", "does not exist"),
        (tmp_path / "folder", "is a folder"),
        (audio, "is the input"),
        (audio / "line.mp4", "does not exist"),
    ):
        refusal(
            TalkheadError,
            lambda output=output: speak(audio, output=output, home=home),  # type: ignore[misc]
            words,
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "folder"]
    assert not list((tmp_path / "folder").iterdir())


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(fitted: FitResult, home: Path, tmp_path: Path) -> None:
    audio = write_wav(tmp_path / "a.wav", np.zeros(1_600))
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    refusal(TalkheadError, lambda: speak(audio, output=folder / "a.mp4", home=home), "a.mp4")
    assert not list(folder.iterdir())


def spoil(path: Path, how: str) -> None:
    """Damage a package folder in the named way."""
    manifest = path / MANIFEST_NAME
    if how == "changed":
        data = bytearray((path / "gaussian.safetensors").read_bytes())
        data[-9] ^= 1
        (path / "gaussian.safetensors").write_bytes(bytes(data))
    elif how == "missing":
        (path / IDLE_NAME).unlink()
    elif how == "version":
        data_ = json.loads(manifest.read_text())
        manifest.write_text(json.dumps({**data_, "format_version": 99}))
    elif how == "damaged":
        manifest.write_text(manifest.read_text()[:-40])


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("changed", "gaussian.safetensors was changed"),
        ("missing", f"{IDLE_NAME} is missing"),
        ("version", "version 99"),
        ("damaged", "damaged"),
    ],
)
def test_packages_that_were_changed(
    fitted: FitResult, tmp_path: Path, how: str, words: str
) -> None:
    path = tmp_path / "anna"
    shutil.copytree(fitted.package_path, path)
    spoil(path, how)
    audio = write_wav(tmp_path / "a.wav", np.zeros(1_600))
    output = tmp_path / "a.mp4"
    refusal(PackageError, lambda: speak(audio, identity=path, output=output), words)
    assert not output.exists() and not leftovers(tmp_path)


def test_a_package_of_a_newer_renderer(fitted: FitResult, tmp_path: Path) -> None:
    """The error names the setting that this version does not have."""
    path = tmp_path / "anna"
    shutil.copytree(fitted.package_path, path)
    manifest = json.loads((path / MANIFEST_NAME).read_text())
    manifest["renderers"]["gaussian"]["config"]["n_wings"] = 2
    (path / MANIFEST_NAME).write_text(json.dumps(manifest))
    refusal(TalkheadError, lambda: speak(LINE, identity=path, output=tmp_path / "a.mp4"), "n_wings")
    assert not (tmp_path / "a.mp4").exists()


def test_several_faces_work_and_are_reported(
    footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a smaller copy next to the person, the larger face is followed, and the report says
    so."""
    video = tmp_path / "two.mp4"
    frames = []
    for frame in media.read_frames(footage, n_frames=110):
        small = cv2.resize(frame, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
        small = np.pad(small, ((frame.shape[0] - small.shape[0], 0), (0, 0), (0, 0)), mode="edge")
        frames.append(np.concatenate([frame, small], axis=1))
    media.write_video(video, frames, audio_path=footage)
    messages: list[str] = []
    progress = SilentProgress()
    monkeypatch.setattr(progress, "message", messages.append)
    dataset = preprocess(
        Footage.open(video), tmp_path / "dataset", PreprocessConfig(), progress, silent_video_frames
    )
    assert dataset.info.n_faces == 2
    middle = dataset.tracks.landmarks[dataset.tracks.detected][..., 0].mean()
    assert middle < frames[0].shape[1] * 0.5
    assert any("2 faces" in line for line in messages)
