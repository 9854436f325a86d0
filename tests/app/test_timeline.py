"""`speak` with `timeline="source"`: the person's own footage, in which only the mouth is changed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rendering_progress import Counting, Kill
from tiny import LINE, PERSON, SECONDS

from talkhead import media
from talkhead.app import resume
from talkhead.app.composer.source_clip import source_footage
from talkhead.app.dubbing.planner import identity_finder, plan
from talkhead.app.dubbing.table import read_table
from talkhead.app.dubbing.task_runner import TaskRunner
from talkhead.app.fit import FitResult
from talkhead.app.home.identities import Home
from talkhead.app.request import OutputOptions
from talkhead.app.speak import SpeakResult, speak
from talkhead.errors import TalkheadError
from talkhead.identity import IdentityPackage
from talkhead.images import read_image
from talkhead.media.loudness import write_audio
from talkhead.media.probing import own_rate
from talkhead.progress import SilentProgress

NOSE_BRIDGE = 168
"""Landmark between the eyes."""
N_FRAMES = SECONDS * 25


@pytest.fixture(scope="module")
def made(fitted: FitResult, home: Path, tmp_path_factory: pytest.TempPathFactory) -> SpeakResult:
    """The line in the person's footage, as images, which lose nothing."""
    output = tmp_path_factory.mktemp("made") / "images"
    return speak(LINE, output=output, codec="png", timeline="source", home=home, device="cpu")


def test_only_the_mouth_differs_from_the_footage(
    made: SpeakResult, fitted: FitResult, footage: Path, home: Path
) -> None:
    """Every pixel above the nose is that of the footage, and so is most of the picture below."""
    package = IdentityPackage.load(fitted.package_path)
    source = source_footage(package, footage, home, SilentProgress())
    clip = source.clip
    paths = sorted(made.output_path.glob("*.png"))
    own = list(media.read_frames(footage, frame_rate=own_rate(footage)))
    assert made.n_frames == len(own) == len(paths) == N_FRAMES
    assert made.picture.endswith("25 frames per second, as in the footage")
    n_changed = 0
    for number, (path, frame) in enumerate(zip(paths, own, strict=True)):
        changed = (np.asarray(read_image(path)) != frame).any(axis=-1)
        if not source.known[number]:
            assert not changed.any()
            continue
        bridge = clip.landmarks(number, clip.codes[number : number + 1])[0, NOSE_BRIDGE, 1]
        top = int(clip.origins[number, 1] + bridge / clip.scale)
        assert not changed[:top].any() and 0 < changed.mean() < 0.2
        n_changed += 1
    assert n_changed > 0.9 * N_FRAMES


def test_it_equals_what_dub_makes_of_the_same_row(
    fitted: FitResult, footage: Path, home: Path, tmp_path: Path
) -> None:
    """The same frames, whether the footage is found by itself or given."""
    row = {
        "identity": fitted.name,
        "video": str(footage),
        "audio": str(LINE),
        "output": "dubbed.mp4",
        "timeline": "source",
    }
    path = tmp_path / "lines.jsonl"
    path.write_text(json.dumps(row))
    table = read_table(path, identity_finder(Home(home)))
    (task,) = plan(table.rows, Home(home))
    assert task.video == str(footage)
    runner = TaskRunner(home, "cpu")
    work = tmp_path / "work"
    (tmp_path / "products").mkdir()
    runner(task, work, tmp_path / "products", SilentProgress())
    speak(LINE, output=tmp_path / "a.mp4", timeline="source", home=home, device="cpu")
    dubbed = [one.tobytes() for one in media.read_frames(tmp_path / "products" / "dubbed.mp4")]
    assert len(dubbed) == N_FRAMES
    assert [one.tobytes() for one in media.read_frames(tmp_path / "a.mp4")] == dubbed
    # The two are one request: the work of the job is resumed, and nothing is rendered again.
    counting = Counting()
    options = OutputOptions(timeline="source")
    again = tmp_path / "b.mp4"
    line = work / "line"
    speak(
        LINE, output=again, options=options, home=home, device="cpu", work=line, progress=counting
    )
    assert counting.made == 0
    assert [one.tobytes() for one in media.read_frames(again)] == dubbed


def test_a_killed_call_resumes_in_its_own_timeline_only(
    fitted: FitResult, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "SEGMENT_FRAMES", 50)
    work = tmp_path / "work"

    def run(name: str, timeline: str, folder: Path = work, stop_at: int | None = None) -> int:
        counting = Counting(stop_at)
        speak(
            LINE,
            output=tmp_path / name,
            timeline=timeline,
            home=home,
            device="cpu",
            work=folder,
            progress=counting,
        )
        return counting.made

    def frames(name: str) -> list[bytes]:
        return [one.tobytes() for one in media.read_frames(tmp_path / name)]

    assert run("whole.mp4", "source", tmp_path / "other") == N_FRAMES
    with pytest.raises(Kill):
        run("a.mp4", "source", stop_at=70)
    assert not (tmp_path / "a.mp4").exists()
    assert run("a.mp4", "source") == N_FRAMES - 50
    assert frames("a.mp4") == frames("whole.mp4")
    idle = run("idle.mp4", "idle")
    assert idle == len(frames("idle.mp4")) >= 149, "no frame of the other timeline is reused"
    assert frames("idle.mp4") != frames("whole.mp4")[:idle]
    assert run("b.mp4", "source") == N_FRAMES


class Messages(SilentProgress):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def long_line(tmp_path: Path) -> Path:
    """Speech that is 1.01 s longer than the footage."""
    speech = np.resize(media.read_audio(LINE, 16000), 16000 * SECONDS + 16160)
    path = tmp_path / "long.wav"
    write_audio(path, [speech], 16000, 1, 0.0)
    return path


def test_footage_that_is_shorter_than_the_sound(
    fitted: FitResult, footage: Path, home: Path, long_line: Path, tmp_path: Path
) -> None:
    """It goes on backward, with the mouth in motion, or the sound is cut, which is reported."""
    messages = Messages()

    def run(name: str, end: str) -> SpeakResult:
        return speak(long_line, output=tmp_path / name, codec="png", timeline="source", home=home,
                     footage_end=end, blinks="none", device="cpu", progress=messages)  # fmt: skip

    on, stopped = run("on", "bounce"), run("stopped", "stop")
    assert (on.n_frames, stopped.n_frames) == (N_FRAMES + 26, N_FRAMES)
    assert on.duration_s == pytest.approx(SECONDS + 1.04)
    (note,) = [text for text in messages.texts if "long.wav" in text]
    assert note == (
        f"long.wav: the last 1.01 s of {SECONDS + 1.01:.2f} s are cut, because the footage ends"
    )
    sounds = [media.read_audio(one.output_path / "sound.wav", 16000) for one in (on, stopped)]
    assert [len(sound) for sound in sounds] == [16000 * (N_FRAMES + 26) // 25, 16000 * SECONDS]
    np.testing.assert_array_equal(sounds[0][: 16000 * SECONDS], sounds[1])
    own = list(media.read_frames(footage))
    top = own[0].shape[0] // 8
    paths, n_changed = sorted(on.output_path.glob("*.png"))[N_FRAMES:], 0
    for path, frame in zip(paths, own[-2:-28:-1], strict=True):  # no frame is shown twice in a row
        image = np.asarray(read_image(path))
        np.testing.assert_array_equal(image[:top], frame[:top])
        n_changed += bool((image != frame).any())
    assert n_changed > 20


def test_a_footage_end_needs_footage(long_line: Path, tmp_path: Path, home: Path) -> None:
    with pytest.raises(
        TalkheadError, match=r"there is no footage end 'loop'\. Choose one of: refuse"
    ):
        OutputOptions(footage_end="loop")
    with pytest.raises(TalkheadError, match="footage end stop needs --timeline source"):
        speak(long_line, output=tmp_path / "a.mp4", home=home, footage_end="stop")


def test_refusals(fitted: FitResult, footage: Path, home: Path, tmp_path: Path) -> None:
    """Each names the problem, and nothing is written."""
    output = tmp_path / "a.mp4"
    source = OutputOptions(timeline="source")

    def refuse(words: str, audio: Path = LINE, **more: object) -> None:
        given = {"output": output, "options": source, "home": home, "device": "cpu", **more}
        with pytest.raises(TalkheadError, match=words):
            speak(audio, **given)  # type: ignore[arg-type]
        assert not output.exists()

    refuse(r"lost\.mp4: there is no such file", video=tmp_path / "lost.mp4")
    refuse(r"video: give the path of a file", video=np.zeros(3))
    refuse(r"person\.mp4: lasts .* Shorten the audio, choose .* bounce .*; stop cuts", PERSON)
    refuse("timeline source needs --mode paste, not head", mode="head")
    refuse("a video needs --timeline source", video=footage, options=OutputOptions())
    refuse(r"Anna B\.mp4: this is the input", output=footage, video=footage)
    refuse(r"Anna B\.mp4: this is the input", output=footage)
    with pytest.raises(TalkheadError, match=r"there is no timeline 'film'\. Choose one of: idle"):
        OutputOptions(timeline="film")


def test_footage_that_was_moved(
    fitted: FitResult, footage: Path, home: Path, tmp_path: Path
) -> None:
    """It is given by `video`, or the message says so; a file in its place is not used."""
    moved = tmp_path / "moved.mp4"
    given = {"home": home, "device": "cpu", "timeline": "source", "height": 64}
    footage.rename(moved)
    try:
        with pytest.raises(TalkheadError, match=r"Anna B\.mp4, was moved or removed.*--video FILE"):
            speak(LINE, output=tmp_path / "a.mp4", **given)  # type: ignore[arg-type]
        footage.write_bytes(moved.read_bytes() + b" ")
        with pytest.raises(TalkheadError, match=r"Anna B\.mp4: Anna-B was fitted on another"):
            speak(LINE, output=tmp_path / "a.mp4", **given)  # type: ignore[arg-type]
        made = speak(LINE, output=tmp_path / "a.mp4", video=moved, **given)  # type: ignore[arg-type]
        assert made.n_frames == N_FRAMES
    finally:
        moved.rename(footage)
