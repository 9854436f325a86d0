from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from talkhead.app.home.identities import Home, check_name, name_from_video
from talkhead.errors import PackageError, TalkheadError
from talkhead.identity import IdentityPackage

Add = Callable[[Path], IdentityPackage]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.locate(tmp_path / "home")


def test_the_location_of_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKHEAD_HOME", str(tmp_path / "of-variable"))
    assert Home.locate().path == tmp_path / "of-variable"
    assert Home.locate(tmp_path / "given").path == tmp_path / "given"
    monkeypatch.delenv("TALKHEAD_HOME")
    assert Home.locate().path.name == "talkhead"
    monkeypatch.chdir(tmp_path)
    assert Home.locate("relative").path == tmp_path / "relative"
    assert list(tmp_path.iterdir()) == []  # looking creates nothing


def test_a_missing_user_is_reported(home: Home) -> None:
    with pytest.raises(TalkheadError, match="there is no such user"):
        home.resolve("~nobody-at-all/anna")
    with pytest.raises(TalkheadError, match="there is no such user"):
        Home.locate("~nobody-at-all")


def test_an_empty_home_explains_how_to_begin(home: Home) -> None:
    assert home.names() == []
    assert home.summaries() == []
    with pytest.raises(PackageError, match=r"no identities in .* yet: talkhead fit --video"):
        home.resolve()


def test_names_and_paths_are_resolved(home: Home, add: Add, tmp_path: Path) -> None:
    package = add(home.identity_dir("anna"))
    add(home.identity_dir("berta"))
    assert home.names() == ["anna", "berta"]
    assert home.resolve("anna") == package.path
    assert Home.locate(tmp_path / "other").resolve(package.path) == package.path
    assert home.load("anna") == package
    with pytest.raises(PackageError, match=r"identity clara: .*Choose one of: anna, berta"):
        home.resolve("clara")


def test_an_exported_file_is_not_an_identity(home: Home, add: Add, tmp_path: Path) -> None:
    add(home.identity_dir("anna"))
    path = home.export("anna", tmp_path / "anna.talkhead")
    with pytest.raises(PackageError, match=r"import it first: talkhead identities import"):
        home.resolve(path)


def test_the_default_is_the_latest_identity(home: Home, add: Add) -> None:
    add(home.identity_dir("anna"))
    assert home.resolve() == home.identity_dir("anna")  # the only one
    add(home.identity_dir("berta"))
    with pytest.raises(PackageError, match=r"which identity\? Choose one of: anna, berta"):
        home.resolve()
    home.remember("berta")
    assert home.resolve() == home.identity_dir("berta")
    assert [s.is_latest for s in home.summaries()] == [False, True]


@pytest.mark.parametrize(
    "content", [b"", b"[" * 100_000, b"\xff\xfe", b'{"name": ["anna"]}', b"[3]"]
)
def test_a_damaged_file_of_the_latest_is_ignored(home: Home, add: Add, content: bytes) -> None:
    for name in ("anna", "berta"):
        add(home.identities_dir / name)
    home.latest_path.write_bytes(content)
    assert home.latest() is None
    assert [one.name for one in home.summaries()] == ["anna", "berta"]
    with pytest.raises(PackageError, match=r"which identity\? Choose one of: anna, berta"):
        home.resolve()
    home.remember("anna")
    assert home.latest() == "anna"


@pytest.mark.parametrize(
    "content", [b"", b"[" * 100_000, b"\xff\xfe", b"[3]", b'{"format_version": 3}']
)
def test_a_damaged_manifest_is_shown_in_the_list(home: Home, add: Add, content: bytes) -> None:
    (add(home.identities_dir / "anna").path / "identity.json").write_bytes(content)
    (summary,) = home.summaries()
    assert "anna" in summary.problem and summary.problem.isprintable()


def test_removal_deletes_only_the_work_of_the_identity(home: Home, add: Add) -> None:
    add(home.identity_dir("anna"))
    add(home.identity_dir("anna-b"))
    home.remember("anna")
    work, other = home.work_path("anna", "key"), home.work_path("anna-b", "key")
    kept = [home.report_path("anna-b"), home.web_path("anna-b")]
    for folder in (work, other, home.report_path("anna"), home.web_path("anna"), *kept):
        folder.mkdir(parents=True)
    (work / "checkpoint").touch()
    gone = [home.identities_dir / "anna", home.report_path("anna"), home.web_path("anna"), work]
    assert home.remove("anna") == gone
    assert not any(folder.exists() for folder in gone)
    assert all(folder.exists() for folder in (other, *kept))
    assert home.names() == ["anna-b"]
    assert home.latest() == "anna-b"
    assert not home.latest_path.exists()
    with pytest.raises(PackageError, match=r"identity anna: .*Choose one of: anna-b"):
        home.remove("anna")


def test_work_folders_differ_by_key(home: Home) -> None:
    first = home.work_path("anna", "video 1")
    assert home.work_path("anna", "video 1") == first
    assert home.work_path("anna", "video 2") != first


def test_export_and_import(
    home: Home, add: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(home.identity_dir("anna"))
    monkeypatch.chdir(tmp_path)
    path = home.export(None)
    assert path == Path("anna.talkhead")
    other = Home.locate(tmp_path / "other")
    assert other.import_(path) == other.identity_dir("anna")
    with pytest.raises(PackageError, match="anna: already exists"):
        other.import_(path)
    other.import_(path, replace=True)
    other.import_(path, "berta")
    assert other.latest() == "berta"
    assert other.load("berta").manifest.name == "berta"


def test_a_damaged_identity_is_listed_with_its_fault(home: Home, add: Add) -> None:
    (add(home.identity_dir("anna")).path / "identity.json").write_text("{}")
    add(home.identity_dir("berta"))
    problems = {summary.name: summary.problem for summary in home.summaries()}
    assert "format version None" in problems["anna"]
    assert problems["berta"] == ""


@pytest.mark.parametrize("name", ["anna", "Anna_2.b-c", "张三", "é", "a" * 64])
def test_possible_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "-a", "a/b", "a\\b", "a b", "a.", "a" * 65])
def test_impossible_names(name: str, home: Home) -> None:
    with pytest.raises(TalkheadError, match=r"not allowed\. Use up to 64 letters"):
        home.identity_dir(name)


@pytest.mark.parametrize(
    ("video", "name"),
    [
        ("person.mp4", "person"),
        ("clips/Anna B (1).final.mov", "Anna-B-1-.final"),
        ("../..mp4", "person"),
        ("张三.mp4", "张三"),
        ("---.mp4", "person"),
        ("x" * 80 + ".mp4", "x" * 64),
    ],
)
def test_names_from_videos(video: str, name: str) -> None:
    assert name_from_video(Path(video)) == check_name(name)
