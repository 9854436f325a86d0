"""`speak` with expressions, blinks and other frame rates, on the sample person."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import LINE, PERSON, SECONDS

from talkhead.app.avatar import Avatar, load_avatar
from talkhead.app.composer.frames import Compositor, IdleFootage, PasteFrameRenderer
from talkhead.app.composer.idle_clip import load_idle
from talkhead.app.fit import FitResult
from talkhead.app.request import OutputOptions
from talkhead.app.speak import SpeakResult, speak
from talkhead.errors import TalkheadError
from talkhead.face import LEFT_EYE, RIGHT_EYE
from talkhead.identity import IdentityPackage
from talkhead.images import read_image
from talkhead.media import probe


@pytest.fixture(scope="module")
def person(fitted: FitResult) -> Avatar:
    return load_avatar(IdentityPackage.load(fitted.package_path), None, torch.device("cpu"))


def pictures(made: SpeakResult) -> list[np.ndarray]:
    return [np.asarray(read_image(path)) for path in sorted(made.output_path.glob("*.png"))]


def test_coefficients_are_kept_with_the_idle_clip(fitted: FitResult) -> None:
    clip = load_idle(IdentityPackage.load(fitted.package_path))
    assert clip.blendshapes is not None and clip.blendshapes.shape == (len(clip), 52)
    assert 0.0 <= clip.blendshapes.min() < 0.1 and 0.1 < clip.blendshapes.max() <= 1.0


def test_an_expression_changes_eyes_and_nothing_between_them_and_the_mouth(
    fitted: FitResult, home: Path, tmp_path: Path
) -> None:
    track = tmp_path / "track.csv"
    track.write_text("time,look_up,blink\n0,1,\n0.8,1,1\n1.2,1,-\n")
    plain = speak(LINE, output=tmp_path / "plain", codec="png", home=home, device="cpu")
    made = speak(
        LINE, output=tmp_path / "made", codec="png", home=home, device="cpu", expression=str(track)
    )
    clip = load_idle(IdentityPackage.load(fitted.package_path))
    eyes = clip.landmarks(0, clip.codes[:1])[0, list(LEFT_EYE + RIGHT_EYE)] / clip.scale
    low = int(clip.origins[0, 1] + eyes[:, 1].max())
    margin = int(0.1 * len(clip.background))
    differs = [(a != b).any(2) for a, b in zip(pictures(plain), pictures(made), strict=True)]
    assert all(one.any() for one in differs)
    for one in differs:
        assert not one[low + margin :].any(), "the mouth is the same"
    assert differs[22].sum() > differs[0].sum(), "the lids close"


def test_eyes_that_are_not_changed_are_those_of_the_footage(person: Avatar) -> None:
    clip, codes = person.idle, person.idle.codes[::-1].copy()
    codes[:, clip.face.eyes] = clip.codes[:, clip.face.eyes]
    footage = IdleFootage(clip)
    kept, moved = (
        list(PasteFrameRenderer(person.renderer, footage, codes, moves).frames(0, 4))
        for moves in (False, True)
    )
    np.testing.assert_array_equal(kept, moved)
    codes[:, clip.face.eyes] += 1e-4  # almost the same eyes: almost the same pictures
    slight = list(PasteFrameRenderer(person.renderer, footage, codes, True).frames(0, 4))
    assert np.abs(np.subtract(kept, slight, dtype=np.int16)).max() <= 1


def test_segments_with_moving_eyes_equal_the_whole(person: Avatar) -> None:
    clip = person.idle
    codes = clip.codes[::-1].copy()
    whole = list(PasteFrameRenderer(person.renderer, IdleFootage(clip), codes, True).frames(0, 6))
    state: list[float] = []
    pieces = []
    for first, after in ((0, 2), (2, 6)):
        part = PasteFrameRenderer(person.renderer, IdleFootage(clip), codes, True)
        part.state = state
        pieces += part.frames(first, after)
        state = part.state
    np.testing.assert_array_equal(whole, pieces)


def test_a_face_without_tracks_of_eyes_is_refused(person: Avatar) -> None:
    old = replace(person, idle=replace(person.idle, blendshapes=None))
    with pytest.raises(TalkheadError, match="a version that did not keep expressions"):
        speak(LINE, identity=old, output="x.mp4", blinks="none")
    assert not Path("x.mp4").exists()


@pytest.mark.parametrize("fps", ["30", "source", "29.97"])
def test_heads_at_other_rates(home: Path, tmp_path: Path, fps: str) -> None:
    output = tmp_path / "line.mp4"
    made = speak(LINE, output=output, mode="head", fps=fps, home=home, device="cpu")
    rate = {"30": 30.0, "source": 25.0, "29.97": 30000 / 1001}[fps]
    info = probe(output)
    assert info.frame_rate == pytest.approx(rate, abs=0.01)
    assert made.n_frames == pytest.approx(made.duration_s * rate, abs=1)
    assert made.picture.endswith(f"{rate:.4g} frames per second, as requested")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": "many", "mode": "head"}, "'many' frames per second are not allowed"),
        ({"fps": "5", "mode": "head"}, "'5' frames per second are not allowed. Choose 10 to 120"),
        ({"fps": "1/0", "mode": "head"}, "frames per second are not allowed"),
        ({"fps": "1e999999999", "mode": "head"}, "frames per second are not allowed"),
        ({"fps": "30"}, "a frame rate needs --mode head"),
        ({"expression": "dance=1"}, "there is no expression 'dance'"),
        ({"expression": "none.csv"}, "there is no such file"),
        ({"blinks": "often"}, "Choose filmed, none, or a number per minute"),
        ({"drive": "none.mp4", "mode": "head"}, "none.mp4: there is no such file"),
        ({"drive": str(LINE), "mode": "head"}, "has no picture. Pass a video of a face"),
        ({"drive": str(PERSON)}, "a driving video needs --mode head"),
    ],
)
def test_wrong_options_are_refused(
    home: Path, tmp_path: Path, fitted: FitResult, options: dict[str, str], message: str
) -> None:
    with pytest.raises(TalkheadError) as error:
        speak(LINE, output=tmp_path / "a.mp4", home=home, device="cpu", **options)  # type: ignore[arg-type]
    assert message in str(error.value)


def test_compositors_of_one_person_agree(person: Avatar) -> None:
    """A compositor that moves the eyes shows the same mouth as one that does not."""
    clip = person.idle
    frame = next(IdleFootage(clip).frames(0, 1))
    code = clip.codes[-1]
    low = int(0.6 * len(frame))
    plain = Compositor(person.renderer, clip)(frame, 0, code)
    moved = Compositor(person.renderer, clip, moves_eyes=True)(frame, 0, code)
    np.testing.assert_array_equal(plain[low:], moved[low:])
    assert (plain != moved).any() or np.array_equal(
        code[clip.face.eyes], clip.codes[0, clip.face.eyes]
    )


def test_options_have_defaults_that_change_nothing() -> None:
    options = OutputOptions()
    assert (options.expression, options.blinks, options.fps) == (None, "filmed", None)


def test_a_driven_head(footage: Path, home: Path, tmp_path: Path) -> None:
    """With its own sound, the mouth follows the face in the video; with another one, the sound."""
    work = tmp_path / "work"
    own, other = (
        speak(
            audio,
            output=tmp_path / name,
            codec="png",
            mode="head",
            background="green",
            drive=footage,
            home=home,
            device="cpu",
            work=work / name,
        )
        for name, audio in (("own", footage), ("other", LINE))
    )
    assert own.n_frames == SECONDS * 25
    assert (work / "own" / "driver.safetensors").exists() and not (work / "own" / "driver").exists()
    a, b = (pictures(made)[10] for made in (own, other))
    change = np.abs(np.subtract(a, b, dtype=np.int16)).mean(axis=(1, 2))
    n_upper = len(change) // 3
    assert change.max() > 4 * change[:n_upper].max(), "the same eyes and pose, another mouth"
