from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

from talkhead import storage
from talkhead.errors import PackageError, TalkheadError


def listing(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_files_are_written_completely_and_no_others_are_left(tmp_path: Path) -> None:
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


def test_a_full_disk_is_reported_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "line.mp4"
    message = r"line\.mp4: the disk is full\. Free"
    with pytest.raises(TalkheadError, match=message) as caught, storage.atomic_path(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "\n" not in str(caught.value)
    assert listing(tmp_path) == []


def test_a_missing_folder_and_a_wrong_path_are_named(tmp_path: Path) -> None:
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
    with pytest.raises(PackageError, match=r"x: damaged, not valid JSON"):
        storage.read_json(path)
    with pytest.raises(PackageError, match=r"x: damaged, not a safetensors file"):
        storage.read_tensors(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "nested deeper than 64"),
        (b"[" * 65 + b"]" * 65, "nested deeper than 64"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "nested deeper than 64"),
        (b"[" * 100_000, "nested deeper|Expecting value"),
        (b"\xff\xfe", "Expecting value"),
        (b'"\xc3("', "can't decode"),
        (b"NaN", "NaN is not JSON"),
        (b"[-Infinity]", "Infinity is not JSON"),
        (b"1" * 5000, "5000 digits|digit"),
        (b"", "Expecting value"),
    ],
)
def test_invalid_json_is_reported_in_one_line(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(
        PackageError, match=rf"a\.json: damaged, not valid JSON \(.*({message})"
    ) as found:
        storage.read_json(path)
    assert "\n" not in str(found.value)
    with pytest.raises(ValueError, match=message):
        storage.decode_json(text)


def test_json_may_be_nested_up_to_the_limit(tmp_path: Path) -> None:
    text = "[" * 64 + "]" * 64
    assert storage.decode_json(text) == storage.decode_json(text.encode())


def test_large_files_are_refused_before_they_are_read(tmp_path: Path) -> None:
    """The file is a sparse one of a terabyte."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(PackageError, match="large: has more than 32 MiB, the limit for such files"):
        storage.read_json(path)
    with pytest.raises(PackageError, match="large: has more than 8192 MiB"):
        storage.read_tensors(path)
    with pytest.raises(PackageError, match="large: has more than 1 MiB"):
        storage.read_tensors(path, 1 << 20)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in (storage.read_json, storage.read_tensors, storage.read_text):
        with pytest.raises(TalkheadError, match="pipe: is not a regular file"):
            read(tmp_path / "pipe")


def header(text: str, data: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text.encode("utf-8", "surrogatepass") + data


@pytest.mark.parametrize(
    "content",
    [
        header(
            '{"a": {"dtype": "F32", "shape": [1000000, 1000000], "data_offsets": [0, 4]}}', b"0000"
        ),
        header(
            '{"a": {"dtype": "F32", "shape": [9223372036854775807], "data_offsets": [0, 4]}}',
            b"0000",
        ),
        header(
            '{"a": {"dtype": "F32", "shape": [0, 9223372036854775808], "data_offsets": [0, 0]}}'
        ),
        header('{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}}', b"0000"),
        header('{"a": {"dtype": "\x1b[2J", "shape": [1], "data_offsets": [0, 4]}}', b"0000"),
        header('{"a": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}}', b"0000"),
        header('{"a": ' + "[" * 10_000),
        (2**63).to_bytes(8, "little"),
        (2**30).to_bytes(8, "little") + b"{" * 1000,
        b"\0\0",
    ],
)
def test_errors_of_damaged_tensor_headers_are_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(PackageError, match=r"a\.safetensors: damaged, not a safetensors") as found:
        storage.read_tensors(path)
    assert str(found.value).isprintable() and len(str(found.value)) < 500


def test_inflate_stops_at_the_expected_size() -> None:
    data = bytes(range(256)) * 40
    packed = zlib.compress(data)
    assert storage.inflate(packed, len(data)) == data
    assert storage.inflate(zlib.compress(b""), 0) == b""
    bomb = zlib.compress(bytes(50_000_000))
    assert len(bomb) < 60_000
    cases = [
        (packed, 100),
        (packed, len(data) + 1),
        (packed, 0),
        (packed[:-1], len(data)),
        (packed[:-1] + b"x", len(data)),
        (packed + b"x", len(data)),
        (bomb, 9),
        (b"", 0),
        (b"nothing", 7),
    ]
    for given, n_bytes in cases:
        with pytest.raises(ValueError, match=r"compressed data that is not|not zlib data"):
            storage.inflate(given, n_bytes)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_tensors_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The library has no error class for full disks; the error number is in the message."""

    def fail(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        words = f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})"
        raise SafetensorError(words)

    path = tmp_path / "a.safetensors"
    storage.write_tensors(path, {"a": torch.ones(3)})
    before = path.read_bytes()
    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    reason = storage.explain_os_error(OSError(number, os.strerror(number)), path)
    with pytest.raises(TalkheadError, match=rf"a\.safetensors: {re.escape(reason)}") as found:
        storage.write_tensors(path, {"a": torch.zeros(3)})
    assert isinstance(found.value.__cause__, OSError) and found.value.__cause__.errno == number
    assert path.read_bytes() == before and listing(tmp_path) == ["a.safetensors"]


LIMITED = """
import resource, signal, sys
import torch
from pathlib import Path
from talkhead import storage
from talkhead.errors import TalkheadError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
path = Path(sys.argv[1])
try:
    if path.suffix == ".json":
        storage.write_json(path, "x" * 1_000_000)
    else:
        storage.write_tensors(path, {"a": torch.ones(1_000_000)})
except TalkheadError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="this system has no limit of file sizes")
@pytest.mark.parametrize("name", ["a.json", "a.safetensors"])
def test_nothing_is_left_of_a_file_that_could_not_be_written(tmp_path: Path, name: str) -> None:
    """The error is a real one of the system: the size of the process's files is limited to 100 kB."""
    (tmp_path / name).write_bytes(b"of before")
    command = [sys.executable, "-c", LIMITED, str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wanted = "the file is larger than the disk or your limit allows. Choose another place"
    assert done.stdout == f"{tmp_path / name}: {wanted}\n", done.stderr
    assert (tmp_path / name).read_bytes() == b"of before" and listing(tmp_path) == [name]


def test_leftovers_of_killed_runs_are_removed_but_not_those_of_running_ones(tmp_path: Path) -> None:
    stale, running = tmp_path / ".a.tmp-01.json", tmp_path / ".a.tmp-02.json"
    for path in (stale, running):
        path.touch()
    os.utime(stale, (0, 0))
    storage.write_json(tmp_path / "a.json", 1)
    assert listing(tmp_path) == [running.name, "a.json"]


def test_a_folder_that_was_set_aside_is_restored_if_the_block_fails(tmp_path: Path) -> None:
    path, aside = tmp_path / "it", tmp_path / ".it.old"
    path.mkdir()
    (path / "old").touch()
    aside.mkdir()  # left behind by a killed call
    with pytest.raises(KeyboardInterrupt), storage.replace_directory(path, aside):
        assert listing(tmp_path) == [".it.old"]
        raise KeyboardInterrupt
    assert listing(path) == ["old"] and listing(tmp_path) == ["it"]
    with storage.replace_directory(path, aside):
        path.mkdir()
    assert listing(path) == [] and listing(tmp_path) == ["it"]


def test_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert storage.sha256_of(path).startswith("ba7816bf8f01cfea")


def test_texts_have_no_byte_order_mark_and_one_kind_of_newline(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffÄ\r\nb\rc\n".encode())
    assert storage.read_text(path) == "Ä\nb\nc\n"
    path.write_bytes("Ä".encode("latin-1"))
    with pytest.raises(TalkheadError, match=r"a\.txt: is not UTF-8 text"):
        storage.read_text(path)
    with pytest.raises(TalkheadError, match=r"b\.txt: there is no such file"):
        storage.read_text(tmp_path / "b.txt")


def test_texts_that_are_not_files(tmp_path: Path) -> None:
    """A text may be longer than any file name, in characters or only in bytes."""
    (tmp_path / "line.txt").write_text("Good morning.")
    assert storage.existing_file(str(tmp_path / "line.txt")) == tmp_path / "line.txt"
    for text in (None, "", "好" * 100, "a\0b", "word " * 5000, str(tmp_path)):
        assert storage.existing_file(text) is None


def test_files_that_cannot_be_created_are_not_reported_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No files can be created in folders such as those below /proc."""

    def refuse(self: Path, *given: object, **named: object) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(Path, "touch", refuse)
    for make in (storage.make_folder, lambda path: storage.write_bytes(path, b"")):
        with pytest.raises(
            TalkheadError, match=r"new: cannot be created here\. Choose another place"
        ):
            make(tmp_path / "new")
    with pytest.raises(TalkheadError, match="there is no such file"):
        storage.read_json(tmp_path / "new")
