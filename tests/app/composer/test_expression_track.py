"""Expression tracks: reading them from texts and files, and their values over time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkhead.app.composer.expression_track import (
    COEFFICIENTS,
    EASE_S,
    NAMED_EXPRESSIONS,
    ExpressionTrack,
    check_track,
    read_track,
    write_track,
)
from talkhead.blendshapes import BLENDSHAPES
from talkhead.errors import TalkheadError


def values(track: ExpressionTrack, name: str, *times: float) -> list[float]:
    return track.at(name, np.array(times))[0].tolist()


def weights(track: ExpressionTrack, name: str, *times: float) -> list[float]:
    return track.at(name, np.array(times))[1].tolist()


def test_a_value_without_a_time_holds_throughout() -> None:
    track = read_track("smile=0.6")
    assert track.curves == {"smile": ((0.0, 0.6),)}
    assert values(track, "smile", 0.0, 5.0, 1e4) == [0.6] * 3
    assert weights(track, "smile", 0.0, 5.0, 1e4) == [1.0] * 3


def test_values_are_interpolated_without_overshoot() -> None:
    track = read_track("1: smile=0; 2s: smile=1; 3: smile=1; 4: smile=0.5")
    times = np.linspace(0.0, 6.0, 301)
    found, share = track.at("smile", times)
    assert found.min() >= 0.0 and found.max() <= 1.0
    assert values(track, "smile", 1.0, 2.0, 3.0, 4.0, 9.0) == [0.0, 1.0, 1.0, 0.5, 0.5]
    assert values(track, "smile", 1.5) == [0.5]
    assert np.all(np.diff(found[(times > 1.0) & (times < 2.0)]) > 0.0)
    assert np.all(share[times < 1.0 - EASE_S] == 0.0) and np.all(share[times >= 1.0] == 1.0)


def test_a_released_expression_ends_smoothly_and_can_begin_again() -> None:
    track = read_track("0: blink=1; 2: blink=-; 5: blink=0.5")
    assert weights(track, "blink", 0.0, 2.0, 2.0 + EASE_S, 3.0, 5.0 - EASE_S, 5.0) == pytest.approx(
        [1.0, 1.0, 0.0, 0.0, 0.0, 1.0], abs=1e-9
    )
    share = track.at("blink", np.linspace(2.0, 2.0 + EASE_S, 20))[1]
    assert np.all(np.diff(share) < 0.0)
    assert values(track, "blink", 1.0, 6.0) == [1.0, 0.5]


def test_files_and_texts_mean_the_same(tmp_path: Path) -> None:
    table = tmp_path / "track.csv"
    table.write_text("\ufeffTime, SMILE,browinnerup\n0,0.1,\n1.5,,0.5\n2,-,0.25\n", "utf-8")
    entries = tmp_path / "track.json"
    entries.write_text(
        '[{"time": 0, "smile": 0.1}, {"time": 1.5, "browInnerUp": 0.5}, '
        '{"time": 2, "smile": null, "browInnerUp": 0.25}]'
    )
    inline = read_track("0:smile=.1; 1.5:browInnerUp=.5; 2:smile=-,browInnerUp=.25;")
    assert read_track(str(table)) == read_track(str(entries)) == inline
    assert inline.curves == {
        "smile": ((0.0, 0.1), (2.0, None)),
        "browInnerUp": ((1.5, 0.5), (2.0, 0.25)),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text is empty"),
        ("smile", "'smile' is not an expression"),
        ("smil=0.5", "no expression 'smil'. Did you mean smile"),
        ("dance=1", "Named ones are smile, frown"),
        ("smile=2", "smile is 2. Choose 0 to 1"),
        ("smile=-0.1", "smile is -0.1. Choose 0 to 1"),
        ("smile=nan", "smile is 'nan', which is not a number"),
        ("soon: smile=1", "time is 'soon', which is not a number"),
        ("-1: smile=1", "the time -1 is not between 0 and"),
        ("1e17: smile=1", "Times are in seconds"),
        ("smile=1,Smile=0.2", "smile is given twice"),
        ("smile=1; smile=0", "smile is given twice"),
        ("2: smile=1; 1: smile=0", "'1: smile=0': the time 1 is not after 2. Sort by time"),
        ("smile=-", "sets no expression"),
        ("track.csv", "there is no such file"),
    ],
)
def test_wrong_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(TalkheadError) as error:
        read_track(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "smile\n1\n", "has no column 'time'"),
        ("a.csv", "", "has no column 'time'"),
        ("a.csv", "time,smile\n0,1\n1\n", "line 3: has 1 values, not 2"),
        ("a.csv", "time,smile\n0,1,2\n", "line 2: has 3 values, not 2"),
        ("a.csv", "time,smile,Smile\n0,1,2\n", "has two columns 'smile'"),
        ("a.csv", "time,smile\n0,5e-324\n5e-324,1\n", "is not after 0"),
        ("a.csv", 'time,smile\n0,"' + "1" * 200_000 + '"\n', "cannot be read"),
        ("a.csv", "timecode,smile\n1:2,1\n", "not hours:minutes:seconds:frames"),
        ("a.json", '[{"time": 0, "smile": ' + "9" * 401 + "}]", "which is not a number"),
        ("a.md", "smile=1", "is not a file of expressions"),
        ("a.csv", "time,smile\n0,1\n0,1\n", "line 3: the time 0 is not after 0"),
        ("a.csv", "time,smirk\n0,1\n", "line 2: there is no expression 'smirk'"),
        ("a.csv", "time,smile\n,1\n", "line 2: time is '', which is not a number"),
        ("a.json", "{}", "is not a list of objects with a time"),
        ("a.json", '[{"smile": 1}]', "is not a list of objects with a time"),
        ("a.json", '[{"time": 0, "smile": true}]', "entry 1: smile is True"),
        ("a.json", '[{"time": 0, "smile": [1]}]', "entry 1: smile is [1]"),
        ("a.json", "[{", "is not JSON"),
        ("a.json", "[" * 100_000, "is not JSON"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(TalkheadError) as error:
        read_track(str(path))
    assert message in str(error.value) and str(path) in str(error.value)


def test_files_that_are_not_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TalkheadError, match="cannot be read as UTF-8 text"):
        read_track(str(path))


def test_tables_of_spreadsheets_and_of_live_link_face(tmp_path: Path) -> None:
    table = tmp_path / "sheet.csv"
    table.write_text("time;smile;blink\n0;0,5;\n1,5;1;0,25\n;;\n")
    assert read_track(str(table)) == read_track("0:smile=0.5; 1.5:smile=1,blink=0.25")
    table.write_text(
        "Timecode,BlendShapeCount,EyeBlinkLeft,TongueOut,HeadYaw\n"
        "11:22:33:30.5,61,0.25,0.1,0.2\n11:22:34:00.5,61,1.004,0.1,-0.2\n"
    )
    assert read_track(str(table)).curves == {"eyeBlinkLeft": ((0.0, 0.25), (0.5, 1.0))}


def test_texts_of_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "track.txt"
    path.write_text("smile=0.5\nblink=0\n\n2: smile=-\n")
    assert read_track(str(path)) == read_track("smile=0.5,blink=0; 2:smile=-")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("smile=1", "expression.txt"),
        ("smile,time\n1,0\n", "expression.csv"),
        ('[{"time": 0, "smile": 1}]', "expression.json"),
    ],
)
def test_texts_that_cannot_name_files_are_written(tmp_path: Path, text: str, name: str) -> None:
    path = write_track(text, tmp_path)
    assert path == tmp_path / name and read_track(str(path)) == read_track("smile=1")


def test_the_path_of_a_file_is_not_a_track(tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("time,smile\n0,1\n")
    (tmp_path / "job").mkdir()
    with pytest.raises(TalkheadError, match="is not an expression") as error:
        write_track(str(secret), tmp_path / "job")
    assert str(tmp_path / "job") not in str(error.value)


def test_a_short_release_does_not_jump() -> None:
    track = read_track("0:smile=1; 4:smile=-; 4.1:smile=0.2")
    values, share = track.at("smile", np.linspace(3.5, 5.0, 1501))
    assert np.abs(np.diff(values)).max() < 0.02 and np.abs(np.diff(share)).max() < 0.02
    assert share.min() > 0.3, "it is not released entirely"


def test_named_expressions_are_made_of_coefficients() -> None:
    assert len(COEFFICIENTS) == len(BLENDSHAPES) - 1
    for parts in NAMED_EXPRESSIONS.values():
        assert set(parts) <= set(COEFFICIENTS)
        assert set(parts.values()) <= {1, -1} and 1 in parts.values()


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        track = read_track(text)
    except TalkheadError:
        return
    for name in track.curves:
        found, share = track.at(name, np.linspace(0.0, 3.0, 7))
        assert np.all((found >= 0.0) & (found <= 1.0) & (share >= 0.0) & (share <= 1.0))


def test_tracks_that_move_the_head_need_mode_head() -> None:
    track = read_track("smile=0.3; 1: turn_left=1")
    assert track.moves_the_head and track.moves_the_face
    assert not read_track("head_motion=0").moves_the_face
    assert not read_track("smile=0.3").moves_the_head
    check_track("turn_left=1", "head")
    check_track("smile=1", "paste")
    with pytest.raises(TalkheadError, match="turn_left needs --mode head: paste keeps"):
        check_track("smile=0.3; 1: turn_left=1", "paste")
