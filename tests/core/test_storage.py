from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from talkhead import storage
from talkhead.errors import PackageError, TalkheadError


def listing(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_writes_whole_files_and_leaves_no_others(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    storage.write_json(path, {"ä": [1, 2.5, None]})
    assert storage.read_json(path) == {"ä": [1, 2.5, None]}
    storage.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert listing(tmp_path) == ["a.json"]


def test_tensors_round_trip_and_give_the_same_bytes(tmp_path: Path) -> None:
    values = torch.arange(6.0).reshape(2, 3)
    tensors = {"b": values.T, "a": torch.tensor([1, 2]), "c": values.to(torch.float16)}
    storage.write_tensors(tmp_path / "1.safetensors", tensors)
    storage.write_tensors(tmp_path / "2.safetensors", dict(reversed(tensors.items())))
    read = storage.read_tensors(tmp_path / "1.safetensors")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    first = (tmp_path / "1.safetensors").read_bytes()
    assert first == (tmp_path / "2.safetensors").read_bytes()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "line.mp4"
    path.write_bytes(b"old")
    with pytest.raises(error), storage.atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".mp4"
        raise error
    assert path.read_bytes() == b"old"
    assert listing(tmp_path) == ["line.mp4"]


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "line.mp4"
    message = r"line\.mp4: the disk is full\. Free"
    with pytest.raises(TalkheadError, match=message) as caught, storage.atomic_path(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "\n" not in str(caught.value)
    assert listing(tmp_path) == []


def test_a_missing_folder_and_a_folder_in_the_way_are_named(tmp_path: Path) -> None:
    with pytest.raises(TalkheadError, match=r"the folder .*nowhere does not exist"):
        storage.write_bytes(tmp_path / "nowhere" / "a.json", b"")
    with pytest.raises(TalkheadError, match="this is a folder"):
        storage.write_bytes(tmp_path, b"")
    (tmp_path / "file").touch()
    with pytest.raises(TalkheadError, match="file is a file, not a folder"):
        storage.write_bytes(tmp_path / "file" / "a.json", b"")
    with pytest.raises(TalkheadError, match="there is no such file"):
        storage.read_json(tmp_path / "b.json")


def test_a_missing_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "touch", refuse)  # root may write everywhere
    with pytest.raises(TalkheadError, match="no permission"):
        storage.write_bytes(tmp_path / "a.json", b"")


def test_errors_name_the_file_that_failed(tmp_path: Path) -> None:
    other = tmp_path / "other" / "source.wav"
    message = r"source\.wav: the folder .*other does not exist"
    target = storage.atomic_path(tmp_path / "a.bin")
    with pytest.raises(TalkheadError, match=message), target as temporary:
        temporary.write_bytes(other.read_bytes())


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"{")
    with pytest.raises(PackageError, match=r"x: damaged, this is no JSON"):
        storage.read_json(path)
    with pytest.raises(PackageError, match=r"x: damaged, this is no safetensors file"):
        storage.read_tensors(path)


def test_leftovers_of_killed_runs_are_removed_but_not_those_of_running_ones(tmp_path: Path) -> None:
    stale, running = tmp_path / ".a.tmp-01.json", tmp_path / ".a.tmp-02.json"
    for path in (stale, running):
        path.touch()
    os.utime(stale, (0, 0))
    storage.write_json(tmp_path / "a.json", 1)
    assert listing(tmp_path) == [running.name, "a.json"]


def test_a_folder_set_aside_is_back_where_the_block_fails(tmp_path: Path) -> None:
    path, aside = tmp_path / "it", tmp_path / ".it.old"
    path.mkdir()
    (path / "old").touch()
    aside.mkdir()  # what a killed call left
    with pytest.raises(KeyboardInterrupt), storage.set_aside(path, aside):
        assert listing(tmp_path) == [".it.old"]
        raise KeyboardInterrupt
    assert listing(path) == ["old"] and listing(tmp_path) == ["it"]
    with storage.set_aside(path, aside):
        path.mkdir()
    assert listing(path) == [] and listing(tmp_path) == ["it"]


def test_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert storage.sha256_of(path).startswith("ba7816bf8f01cfea")


def test_texts_have_no_mark_and_one_kind_of_newline(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffÄ\r\nb\rc\n".encode())
    assert storage.read_text(path) == "Ä\nb\nc\n"
    path.write_bytes("Ä".encode("latin-1"))
    with pytest.raises(TalkheadError, match=r"a\.txt: is no text in UTF-8"):
        storage.read_text(path)
    with pytest.raises(TalkheadError, match=r"b\.txt: there is no such file"):
        storage.read_text(tmp_path / "b.txt")


def test_texts_that_are_no_files(tmp_path: Path) -> None:
    """What is said may be longer than any name, in bytes if not in characters."""
    (tmp_path / "line.txt").write_text("Good morning.")
    assert storage.named_file(str(tmp_path / "line.txt")) == tmp_path / "line.txt"
    for text in (None, "", "好" * 100, "a\0b", "word " * 5000, str(tmp_path)):
        assert storage.named_file(text) is None


def test_what_cannot_be_made_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As below /proc, whose folders are there and take nothing."""

    def refuse(self: Path, *given: object, **named: object) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(Path, "touch", refuse)
    for make in (storage.make_folder, lambda path: storage.write_bytes(path, b"")):
        with pytest.raises(TalkheadError, match=r"new: can't be made here\. Choose another place"):
            make(tmp_path / "new")
    with pytest.raises(TalkheadError, match="there is no such file"):
        storage.read_json(tmp_path / "new")
