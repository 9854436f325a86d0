"""Tables: problems are reported before any work starts."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from talkhead import media
from talkhead.app.dubbing import table_formats as formats
from talkhead.app.dubbing.table import Table, read_table
from talkhead.errors import TalkheadError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Audio files, a video, a folder."""
    for name in ("a.wav", "b b.wav", "who.mp4", "ünï.wav", "said.srt", "key.pem"):
        (tmp_path / name).write_bytes(b"sound")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "empty.wav").touch()
    return tmp_path


def read(path: Path, text: str, encoding: str = "utf-8") -> Table:
    path.write_text(text, encoding=encoding)

    def find(identity: str, place: Path) -> str:
        if identity == "anna":
            return identity
        if place.name == "package":
            return str(place)
        raise TalkheadError(f"identity {identity}: not found")

    return read_table(path, find)


def test_three_formats_have_the_same_content(folder: Path) -> None:
    cells = [
        {"identity": "anna", "audio": "a.wav", "output": "out/1.mp4", "height": 360},
        {"video": "who.mp4", "audio": "b b.wav", "output": "2.mp4", "timeline": "source"},
        {"identity": "anna", "audio": "ünï.wav", "output": "ö 3.mp4", "provenance": False},
    ]
    csv = (
        "\ufeffIdentity,video,audio,output,timeline,height,provenance\r\n"
        "anna,,a.wav,out/1.mp4,,360,\r\n\r\n"
        ',who.mp4,"b b.wav",2.mp4,source,,\r\n'
        "anna,,ünï.wav,ö 3.mp4,,,no\r\n"
    )
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in cells)
    yaml = "\n".join(
        "- " + "\n  ".join(f"{k}: {json.dumps(v)}" for k, v in row.items()) for row in cells
    )
    tables = [
        read(folder / "t.csv", csv),
        read(folder / "t.jsonl", lines),
        read(folder / "t.yaml", yaml),
    ]
    rows = [[replace(row, line=0) for row in table.rows] for table in tables]
    assert rows[0] == rows[1] == rows[2] and not any(table.bad for table in tables)
    first, second, third = rows[0]
    assert first.output == folder / "out" / "1.mp4" and first.options == {"height": 360}
    assert second.video == folder / "who.mp4" and second.options == {"timeline": "source"}
    assert third.audio == folder / "ünï.wav" and third.options == {"provenance": False}
    assert [row.line for row in tables[0].rows] == [2, 4, 5]
    assert [row.line for row in tables[1].rows] == [1, 2, 3]
    assert [row.line for row in tables[2].rows] == [1, 5, 9]


BAD_ROWS = {
    "anna,,a.wav,": "output is missing",
    "anna,,,1.mp4": "audio is missing",
    ",,a.wav,1.mp4": "identity or video is missing",
    "anna,who.mp4,a.wav,1.mp4": "both given",
    "unknown,,a.wav,1.mp4": "not found",
    "anna,,c.wav,1.mp4": "c.wav: no such file",
    "anna,,empty.wav,1.mp4": "is empty",
    "anna,,.,1.mp4": "is a folder",
    "anna,,a.wav,1.avi": "unsupported file extension",
    "anna,,a.wav,a.wav": "unsupported file extension",
    "anna,,a.wav,who.mp4,,,,": "is an input of line",
    "anna,,a.wav,1.mp4,best": "mode 'best': unknown",
    "anna,,a.wav,1.mp4,,film": "codec 'film'",
    "anna,,a.wav,1.mp4,,,tall": "height 'tall': expected an integer",
    "anna,,a.wav,1.mp4,,,3": "a height of 3 pixels is not allowed",
    "anna,,a.wav,1.mp4,,,,source": "timeline source needs a video",
    "anna,,a.wav,1.mp4,,,,film": "there is no timeline 'film'. Choose one of: idle, source",
    "anna,who.mp4,a.wav,1.mp4,head,,,source": "timeline source needs --mode paste, not head",
    "anna,,a.wav,.h.mp4": "is hidden",
    "anna,,a.wav,folder.mp4": "folder.mp4: is a folder",
    f"anna,,{'a' * 300},1.mp4": "aaa...: file name too long",
    f"anna,{'v' * 300},a.wav,1.mp4,,,,source": "vvv...: file name too long",
    f"anna,,a.wav,{'o' * 300}.mp4": "ooo...: file name too long",
    "anna,,a.wav,t.csv,,png": "t.csv: is a file",
    "anna,,a.wav,1.mp4,,,,,x": "9 cells, but the header has 8",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_bad_rows(folder: Path, row: str) -> None:
    text = "identity,video,audio,output,mode,codec,height,timeline\n"
    table = read(folder / "t.csv", f"{text},who.mp4,a.wav,other.mp4,,,,\n{row}\n")
    assert len(table.rows) == 1 and [bad.line for bad in table.bad] == [3]
    assert BAD_ROWS[row] in table.bad[0].reason


def test_all_bad_rows_are_named_in_one_line(folder: Path) -> None:
    text = "identity,audio,output\nanna,c.wav,1.mp4\nanna,a.wav,2.mp4\nanna,a.wav,./2.mp4\n,a.wav,3.mp4\n"
    message = str(read(folder / "t.csv", text).refuse())
    assert "3 of 4 rows" in message and "--skip-bad" in message and "\n" not in message
    assert "line 2: " in message and "line 4: " in message and "line 5: " in message
    assert "is also written by line 3" in message
    many = "".join(f"anna,c.wav,{n}.mp4\n" for n in range(1000))
    message = str(read(folder / "t.csv", f"identity,audio,output\n{many}").refuse())
    assert "and 980 more" in message


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.csv", "identity,sound,output\n", "line 1: unknown column 'sound'"),
        ("t.csv", "audio,audio\n", "a column appears twice"),
        ("t.csv", "", "contains no rows"),
        ("t.csv", 'audio,output\n"a.wav,1.mp4\n', "line 2"),
        ("t.yaml", "a: [", "invalid YAML"),
        ("t.yaml", "a", "expected a list of rows"),
        ("t.txt", "", "unsupported file extension"),
    ],
)
def test_tables_that_cannot_be_read(folder: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(TalkheadError) as caught:
        read(folder / name, text)
    assert words in str(caught.value) and str(folder / name) in str(caught.value)


def test_json_lines_name_their_bad_lines(folder: Path) -> None:
    good = json.dumps({"identity": "anna", "audio": "a.wav", "output": "1.mp4"})
    table = read(folder / "t.jsonl", f'{good}\n\n{{"a"\n[1]\n{{"audio": ["a.wav"]}}\n')
    assert [bad.line for bad in table.bad] == [3, 4, 5] and len(table.rows) == 1
    with pytest.raises(TalkheadError, match="not UTF-8 text"):
        read(folder / "t.csv", "audio,ä", encoding="latin-1")


YAML = """- &first
  identity: anna
  audio: a.wav
  output: 1.mp4
- {<<: *first, output: 2.mp4}
"""
BAD_YAML = {
    "- {<<: *first, output: 3.mp4, height: !!int abc}": "height 'abc': expected an integer",
    "- {<<: *first, output: 3.mp4, height: 2026-11-29}": "height '2026-11-29': expected an integer",
    "- {<<: *first, output: 3.mp4, height: 2026-99-99}": "height '2026-99-99': expected an integer",
    "- {<<: *first, output: !!timestamp abc}": "abc: unsupported file extension",
    '- {<<: *first, output: "3\\0.mp4"}': "output: contains an invalid character",
    '- {<<: *first, output: "3\\ud800.mp4"}': "output: contains an invalid character",
    "- {<<: *first, output: 3\0.mp4}": "output: contains an invalid character",
    "- {<<: *first, output: 3\x1b.mp4}": "output: contains an invalid character",
    "- {<<: *first, output: !!python/object:os.system x}": "os.system is not a supported type",
    "- {<<: *first, output: !x 3.mp4}": "output: !x is not a supported type",
    "- {<<: *first, output: [3.mp4]}": "output: must be text or a number",
    f"- {{<<: *first, output: {'[' * 99}{']' * 99}}}": "output: must be text or a number",
    "- {<<: *first, output: *nothing}": "*nothing refers to no earlier cell",
    "- {<<: *first, output: *first}": "*first refers to no earlier cell",
    "- &self {<<: *self, output: 3.mp4}": "'<<' needs an alias of an earlier row",
    "- {<<: [*first, x], output: 3.mp4}": "'<<' needs an alias of an earlier row",
    "- {<<: {audio: a.wav}, output: 3.mp4}": "'<<' needs an alias of an earlier row",
    "- {[a, b]: c}": "a column name is not text",
    "- {? {a: b} : c}": "a column name is not text",
    "- [a, b]": "not a mapping",
    "- 3": "not a mapping",
    "- {" + "".join(f"a{n}: b, " for n in range(101)) + "}": "has more than 100 cells",
    f"- {{{'a' * 1000}: b}}": "...",
}


@pytest.mark.parametrize("row", BAD_YAML)
def test_an_invalid_row_of_yaml_affects_only_itself(folder: Path, row: str) -> None:
    table = read(folder / "t.yaml", f"{YAML}{row}\n- {{<<: *first, output: 4.mp4}}\n")
    assert [row.output.name for row in table.rows] == ["1.mp4", "2.mp4", "4.mp4"]
    assert [bad.line for bad in table.bad] == [6]
    reason = table.bad[0].reason
    assert BAD_YAML[row] in reason and "\n" not in reason and len(reason) < 700


def test_yaml_cells_are_text_as_written(folder: Path) -> None:
    row = "- {<<: *first, output: 2026-11-29.mp4, transcript: 12:30, language: no, height: ~, %s}\n"
    table = read(
        folder / "t.yaml", YAML + row % "provenance: off" + "- {<<: [*first], output: b.mp4}"
    )
    assert not table.bad and table.rows[2].output.name == "2026-11-29.mp4"
    options = {"transcript": "12:30", "language": "no", "provenance": False}
    assert table.rows[2].options == options


def test_yaml_needs_linear_time_and_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Aliases of aliases would expand to 10^9 cells; they are not expanded."""
    laughs = "- &a0 [lol]\n" + "".join(
        f"- &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
    )
    laughs += "- {audio: *a9, output: [*a9]}\n"
    assert len(laughs) < 640
    table = read(folder / "t.yaml", YAML + laughs)
    assert len(table.rows) == 2 and len(table.bad) == 11
    merged = "- &b0 {a: b}\n" + "".join(
        f"- &b{n} {{<<: [{', '.join([f'*b{n - 1}'] * 9)}]}}\n" for n in range(1, 10)
    )
    assert {bad.reason.partition(".")[0] for bad in read(folder / "t.yaml", YAML + merged).bad} == {
        "unknown column 'a'"
    }
    for text, words in {
        f"- {'[' * 200}": "brackets are nested more than 100 deep",
        YAML + "--- a\n": "several documents",
        "a b": "expected a list of rows",
    }.items():
        with pytest.raises(TalkheadError, match=words):
            read(folder / "t.yaml", text)
    assert len(read(folder / "t.yaml", "- " * 3000).bad) == 1
    monkeypatch.setattr(formats, "MAX_INNER", 50)
    with pytest.raises(TalkheadError, match=r"line 1: cells cannot contain lists"):
        read(folder / "t.yaml", "- [" + "a, " * 60 + "]")


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.yaml"])
def test_size_limits(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"identity": "anna", "audio": "a.wav", "output": "1.mp4"}
    text = {
        "t.csv": "identity,audio,output\n" + "anna,a.wav,1.mp4\n" * 4,
        "t.jsonl": f"{json.dumps(row)}\n" * 4,
        "t.yaml": "- {identity: anna, audio: a.wav, output: 1.mp4}\n" * 4,
    }[name]
    assert read(folder / name, text).rows
    with monkeypatch.context() as patch, pytest.raises(TalkheadError, match="more than 3 rows"):
        patch.setattr(formats, "MAX_ROWS", 3)
        read(folder / name, text)
    monkeypatch.setattr(formats, "MAX_BYTES", {f".{name[2:]}": len(text) - 1})
    with pytest.raises(TalkheadError, match="MiB, the limit for such files"):
        read(folder / name, text)


def test_a_named_pipe_is_refused(folder: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    os.mkfifo(folder / "pipe.csv")
    with pytest.raises(TalkheadError, match="is not a regular file"):
        read_table(folder / "pipe.csv", lambda text, place: text)


BAD_JSON = {
    f'{{"a": {"[" * 100000}': "nested deeper than",
    '{"audio": "a.wav", "output": "1\\u0000.mp4"}': "output: contains an invalid character",
    '{"audio": "a.wav", "output": "1\\udcff.mp4"}': "output: contains an invalid character",
    '{"audio": {"a": "b"}, "output": "1.mp4"}': "audio: must be text or a number",
    f'{{"audio": {"9" * 5000}}}': "invalid JSON",
    f'{{"{"a" * 100000}": 1}}': "unknown column 'aaa",
}


@pytest.mark.parametrize("row", BAD_JSON)
def test_an_invalid_row_of_json_affects_only_itself(folder: Path, row: str) -> None:
    good = '{"identity": "anna", "audio": "a.wav", "output": "%s.mp4"}\n'
    table = read(folder / "t.jsonl", f"{good % 1}{row}\n{good % 2}")
    assert len(table.rows) == 2 and [bad.line for bad in table.bad] == [2]
    assert BAD_JSON[row] in table.bad[0].reason and len(table.bad[0].reason) < 700


BAD_CSV = {
    'anna,a.wav,"1".mp4': "invalid CSV",
    "anna,a.wav,1\0.mp4": "output: contains an invalid character",
    f"anna,a.wav,{'1' * 200_000}.mp4": "invalid CSV",
}


@pytest.mark.parametrize("row", BAD_CSV)
def test_an_invalid_row_of_csv_affects_only_itself(folder: Path, row: str) -> None:
    text = f"identity,audio,output\nanna,a.wav,1.mp4\n{row}\nanna,a.wav,2.mp4\n"
    table = read(folder / "t.csv", text)
    assert len(table.rows) == 2 and [bad.line for bad in table.bad] == [3]
    assert BAD_CSV[row] in table.bad[0].reason
    with pytest.raises(TalkheadError, match="line 3: unexpected end of data"):
        read(folder / "t.csv", 'identity,audio,output\nanna,a.wav,1.mp4\nanna,a.wav,"2.mp4\n,,\n')


CLASHES = {
    ("1.mp4", "srt", "said.srt", "said.mp4", "srt", ""): "said.srt: is an input of line 2",
    ("1.mp4", "srt", "", "1.mov", "srt", ""): "1.srt: is also written by line 2",
    ("1.mp4", "srt", "", "1.mov", "none", ""): "",
    ("1.webm", "none", "", "1.mp4", "none", ""): "",
    ("1.mp4", "track", "", "1.webm", "burn", ""): "1.srt: is also written by line 2",
}


@pytest.mark.parametrize("row", CLASHES)
def test_no_file_is_overwritten(folder: Path, row: tuple[str, ...]) -> None:
    """Neither inputs of other rows, whatever their kind, nor files next to their outputs are
    overwritten.
    """
    columns = "identity,audio,output,subtitles,transcript\n"
    first, second = ",".join(row[:3]), ",".join(row[3:])
    table = read(folder / "t.csv", f"{columns}anna,a.wav,{first}\nanna,a.wav,{second}\n")
    assert [bad.line for bad in table.bad] == ([3] if CLASHES[row] else [])
    assert all(CLASHES[row] in bad.reason for bad in table.bad)


def test_a_folder_of_images_replaces_no_input_in_it(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "sound.wav").write_bytes(b"sound")
    columns = "identity,audio,output,codec\n"
    table = read(folder / "t.csv", f"{columns}anna,a.wav,out,png\nanna,out/sound.wav,2.mp4,\n")
    assert [bad.line for bad in table.bad] == [2] and "contains an input of line 3" in table.bad[
        0
    ].reason


def test_inputs_of_every_kind_are_protected(folder: Path) -> None:
    """Backgrounds, certificates and keys are inputs; a missing key is reported."""
    cells = {"identity": "anna", "audio": "a.wav"}
    rows = [
        {**cells, "output": "1.mp4", "mode": "head", "background": "behind.mp4"},
        {**cells, "output": "behind.mp4"},
        {**cells, "output": "2.mp4", "certificate": "key.pem", "key": "lost.pem"},
    ]
    media.write_video(folder / "behind.mp4", iter(np.zeros((2, 16, 16, 3), np.uint8)))
    table = read(folder / "t.jsonl", "\n".join(map(json.dumps, rows)))
    assert [bad.line for bad in table.bad] == [2, 3] and len(table.rows) == 1
    assert "is an input of line 1" in table.bad[0].reason
    assert "lost.pem: no such file" in table.bad[1].reason
    assert [path.name for path in table.rows[0].inputs] == ["a.wav", "behind.mp4"]


def test_intensity(folder: Path) -> None:
    rows = "anna,a.wav,1.mp4,1.4\nanna,a.wav,2.mp4,\nanna,a.wav,3.mp4,3\n"
    table = read(folder / "t.csv", "identity,audio,output,intensity\n" + rows)
    assert [row.options for row in table.rows] == [{"intensity": 1.4}, {}]
    assert "an intensity of 3 is not allowed" in table.bad[0].reason


def test_view_options(folder: Path) -> None:
    columns = "identity,audio,output,mode,yaw,zoom\n"
    rows = (
        "anna,a.wav,1.mp4,head,-4.5,1.2\nanna,a.wav,2.mp4,paste,3,\nanna,a.wav,3.mp4,head,left,\n"
    )
    table = read(folder / "t.csv", columns + rows)
    assert table.rows[0].options == {"yaw": -4.5, "zoom": 1.2}
    assert "need --mode head" in table.bad[0].reason and "yaw 'left'" in table.bad[1].reason


def test_a_missing_transcript_is_reported(folder: Path) -> None:
    cells = "anna,a.wav,1.mp4,srt"
    text = f"identity,audio,output,subtitles,transcript\n{cells},said.srt\n{cells},lost.txt\n"
    table = read(folder / "t.csv", f"{text}{cells},It is all said in lost.txt\n")
    assert [bad.line for bad in table.bad] == [3, 4]
    assert "lost.txt: there is no such file" in table.bad[0].reason
    assert "is also written by line" in table.bad[1].reason, "a text is not looked up as a file"


def test_package_folders_are_relative_to_the_table(folder: Path) -> None:
    table = read(folder / "t.csv", "identity,audio,output\nsub/../package,a.wav,1.mp4\n")
    assert table.rows[0].identity == str(folder / "package")
