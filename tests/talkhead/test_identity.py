from __future__ import annotations

import dataclasses
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from talkhead import storage
from talkhead.errors import PackageError, TalkheadError
from talkhead.identity import (
    EncoderPart,
    FittedPart,
    IdentityPackage,
    PackageWriter,
    export_package,
    import_package,
    read_export_manifest,
)

Add = Callable[[Path], IdentityPackage]


def listing(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_round_trip(add: Add, tmp_path: Path) -> None:
    written = add(tmp_path / "anna")
    package = IdentityPackage.load(tmp_path / "anna")
    assert package == written
    assert package.manifest.encoder == EncoderPart("mel", {"n_mels": 80})
    assert package.manifest.created
    assert torch.equal(package.tensors("warp.safetensors")["codes"], torch.arange(4.0))
    assert package.file("idle.mp4").read_bytes() == b"a clip"
    assert package.renderer() == ("warp", FittedPart("warp.safetensors", {"n": 3}))
    assert listing(tmp_path) == ["anna"]


def test_missing_files_and_renderers(add: Add, tmp_path: Path) -> None:
    package = add(tmp_path / "anna")
    with pytest.raises(PackageError, match="without the renderer gaussian; it has warp"):
        package.renderer("gaussian")
    with pytest.raises(PackageError, match=r"there is no \.\./\.\./etc/passwd in"):
        package.file("../../etc/passwd")


def test_a_changed_and_a_missing_file_are_named(add: Add, tmp_path: Path) -> None:
    package = add(tmp_path / "anna")
    package.file("idle.mp4").write_bytes(b"b clip")
    with pytest.raises(PackageError, match=r"idle\.mp4 was changed"):
        IdentityPackage.load(package.path)
    package.file("idle.mp4").unlink()
    with pytest.raises(PackageError, match=r"idle\.mp4 is missing"):
        IdentityPackage.load(package.path)


def test_a_folder_that_is_not_a_package(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="not an identity package"):
        IdentityPackage.load(tmp_path)
    with pytest.raises(PackageError, match="not an identity package"):
        IdentityPackage.load(tmp_path / "nowhere")


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit(lambda data: data.update(format_version=99)), "format version 99; this talkhead"),
        (edit(lambda data: data.update(format_version=99)), r"reads version 3\. Upgrade talkhead$"),
        (edit(lambda data: data.update(format_version=2)), r"version 3\. Fit this identity again$"),
        (edit(lambda data: data.pop("format_version")), "format version None"),
        (edit(lambda data: data.update(frame_width=10**6)), "frame_width is 1000000, where 1 to"),
        (edit(lambda data: data.update(n_frames="9")), "n_frames is '9', where a whole number"),
        (edit(lambda data: data.update(consent=["yes"])), "consent is .* where text is needed"),
        (edit(lambda data: data.update(name="\x1b[2J", preset=3)), "preset is 3"),
        (
            edit(lambda data: data["files"].update({f"f{i}": "0" for i in range(99)})),
            "lists 102 files",
        ),
        (edit(lambda data: data.update(mood="good")), "mood"),
        (edit(lambda data: data["source"].update(mood="good")), "mood"),
        (edit(lambda data: data.pop("seed")), "seed"),
        (edit(lambda data: data.update(files=[])), "damaged"),
        (edit(lambda data: data.update(renderers=None)), "damaged"),
        (edit(lambda data: data.update(default_renderer="nerf")), "nerf is not in it"),
        (edit(lambda data: data["files"].pop("idle.mp4")), r"no checksum for idle\.mp4"),
        (
            edit(lambda data: data["files"].update({"../evil": "0"})),
            r"'\.\./evil' is not a valid name",
        ),
    ],
)
def test_a_damaged_manifest_is_refused(
    add: Add, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    package = add(tmp_path / "anna")
    path = package.path / "identity.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(PackageError, match=message):
        IdentityPackage.load(package.path)


def test_an_interrupted_writer_leaves_the_old_package(add: Add, tmp_path: Path) -> None:
    add(tmp_path / "anna")
    with pytest.raises(KeyboardInterrupt), PackageWriter(tmp_path / "anna") as writer:
        writer.path("idle.mp4").write_bytes(b"half")
        raise KeyboardInterrupt
    assert IdentityPackage.load(tmp_path / "anna").file("idle.mp4").read_bytes() == b"a clip"
    assert listing(tmp_path) == ["anna"]


def test_a_failed_move_puts_the_old_package_back(
    add: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(tmp_path / "anna")
    replace = os.replace

    def fail(source: Path, target: Path) -> None:
        if ".tmp-" in Path(source).name and Path(target).name == "anna":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        add(tmp_path / "anna")
    IdentityPackage.load(tmp_path / "anna")
    assert listing(tmp_path) == ["anna"]


def test_a_new_package_replaces_the_old_one(add: Add, tmp_path: Path) -> None:
    add(tmp_path / "anna")
    (tmp_path / "anna" / "extra").touch()
    add(tmp_path / "anna")
    assert "extra" not in listing(tmp_path / "anna")
    assert listing(tmp_path) == ["anna"]


def test_other_folders_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "diary.txt").touch()
    with pytest.raises(PackageError, match="holds something else"):
        PackageWriter(tmp_path)


def test_a_manifest_that_names_absent_files_is_not_written(add: Add, tmp_path: Path) -> None:
    manifest = add(tmp_path / "anna").manifest
    with pytest.raises(ValueError, match="no checksum"), PackageWriter(tmp_path / "a") as writer:
        writer.finish(manifest)
    assert listing(tmp_path) == ["anna"]


def test_export_and_import(add: Add, tmp_path: Path) -> None:
    package = add(tmp_path / "anna")
    (package.path / "notes.txt").touch()
    first = export_package(package, tmp_path / "1.talkhead")
    second = export_package(package, tmp_path / "2.talkhead")
    assert first.read_bytes() == second.read_bytes()
    assert read_export_manifest(first) == package.manifest
    imported = import_package(first, tmp_path / "home" / "berta")
    assert IdentityPackage.load(imported.path) == imported
    assert imported.manifest == dataclasses.replace(package.manifest, name="berta")
    assert "notes.txt" not in listing(imported.path)


def rewrite(source: Path, target: Path, members: dict[str, bytes]) -> Path:
    """A copy of a zip file with members added or replaced."""
    with zipfile.ZipFile(source) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in {**held, **members}.items():
            archive.writestr(name, data)
    return target


def test_import_refuses_manipulated_exports(add: Add, tmp_path: Path) -> None:
    package = add(tmp_path / "anna")
    export = export_package(package, tmp_path / "anna.talkhead")
    manifest = json.loads((package.path / "identity.json").read_text())
    manifest["files"]["../evil"] = storage.sha256_of(export)
    bad_manifest = {"identity.json": json.dumps(manifest).encode(), "../evil": b"x"}
    cases = {
        r"idle\.mp4 is damaged": {"idle.mp4": b"b clip"},
        "its files are not those": {"../evil": b"x"},
        r"'\.\./evil' is not a valid name": bad_manifest,
        r"identity\.json in it is damaged": {"identity.json": b"{"},
    }
    for message, members in cases.items():
        bad = rewrite(export, tmp_path / "bad.talkhead", members)
        with pytest.raises(PackageError, match=message):
            import_package(bad, tmp_path / "home" / "berta")
    assert listing(tmp_path) == ["anna", "anna.talkhead", "bad.talkhead", "home"]
    assert listing(tmp_path / "home") == []


def test_any_byte_of_a_zip_may_be_wrong(add: Add, tmp_path: Path) -> None:
    """Each byte except the contents of the files is changed: offsets, sizes, names and methods."""
    package = add(tmp_path / "anna")
    export = export_package(package, tmp_path / "anna.talkhead").read_bytes()
    lists, bad = export.index(b"PK\1\2"), tmp_path / "bad.talkhead"
    headers = [i for i in range(lists) if export.startswith(b"PK\3\4", i)]
    places = {*range(lists, len(export)), *(i + k for i in headers for k in range(45))}
    n_refused = 0
    for place in sorted(places):
        byte = export[place]
        wrong = bytes([0xFF if place % 2 and byte != 0xFF else byte ^ 0x01])
        bad.write_bytes(export[:place] + wrong + export[place + 1 :])
        try:
            imported = import_package(bad, tmp_path / "home" / "berta")
        except PackageError as error:
            assert str(error).startswith(str(bad)) and str(error).isprintable()
            assert not (tmp_path / "home" / "berta").exists()
            n_refused += 1
        else:  # for example in a date: the imported package is the same
            assert imported.manifest.files == package.manifest.files
            shutil.rmtree(imported.path)
    assert n_refused > len(places) / 3


def zip_of(path: Path, *members: tuple[zipfile.ZipInfo, bytes], comment: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for info, data in members:
            archive.writestr(info, data)
        archive.comment = comment
    return path


def test_files_that_share_their_bytes_are_refused(add: Add, tmp_path: Path) -> None:
    """A zip bomb of overlapping entries: each is listed as large as the whole file."""
    export = export_package(add(tmp_path / "anna"), tmp_path / "anna.talkhead").read_bytes()
    data = bytearray(export)
    first = data.index(b"PK\1\2")
    second = data.index(b"PK\1\2", first + 4)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    (tmp_path / "bad.talkhead").write_bytes(data)
    with pytest.raises(PackageError, match=r"bad\.talkhead: not an exported identity"):
        import_package(tmp_path / "bad.talkhead", tmp_path / "berta")


def test_a_long_list_of_files_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (zipfile.ZipInfo(f"{i:06}") for i in range(2000))
    path = zip_of(tmp_path / "many.talkhead", *((name, b"") for name in names))
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("read anyway"))
    with pytest.raises(PackageError, match="a list of files of 104000 bytes"):
        import_package(path, tmp_path / "berta")


def test_compressed_files_and_bombs_are_refused(tmp_path: Path) -> None:
    """The bomb is 100 MB of zeros in 100 kB."""
    info = zipfile.ZipInfo("identity.json")
    info.compress_type = zipfile.ZIP_DEFLATED
    path = zip_of(tmp_path / "bomb.talkhead", (info, b" " * 100_000_000))
    with pytest.raises(PackageError, match="not an exported identity"):
        read_export_manifest(path)
    path = zip_of(tmp_path / "large.talkhead", (zipfile.ZipInfo("identity.json"), b" " * 5_000_000))
    with pytest.raises(PackageError, match="damaged \\(too large\\)"):
        read_export_manifest(path)


def test_names_that_are_not_text(tmp_path: Path) -> None:
    """One name is marked as UTF-8 but is not UTF-8, one consists of control characters."""
    path = zip_of(tmp_path / "a.talkhead", (zipfile.ZipInfo("ä.json"), b"{}"))
    path.write_bytes(path.read_bytes().replace("ä".encode(), b"\xff\xfe"))
    with pytest.raises(
        PackageError, match=r"a\.talkhead: not an exported identity, or damaged"
    ) as caught:
        read_export_manifest(path)
    assert str(caught.value).isprintable()
    path = zip_of(tmp_path / "b.talkhead", (zipfile.ZipInfo("\x1b[2J"), b""), comment=b"hello")
    with pytest.raises(PackageError, match=r"b\.talkhead: not an exported identity"):
        read_export_manifest(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_an_export(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TalkheadError, match="pipe: is not a regular file"):
        read_export_manifest(tmp_path / "pipe")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a": 1e999}', "\xff", "[1, 2]", "null", '"x"', ""]
)
def test_import_refuses_any_other_json(add: Add, tmp_path: Path, text: str) -> None:
    export = export_package(add(tmp_path / "anna"), tmp_path / "anna.talkhead")
    bad = rewrite(export, tmp_path / "bad.talkhead", {"identity.json": text.encode("latin-1")})
    with pytest.raises(PackageError, match=r"bad\.talkhead: ") as caught:
        import_package(bad, tmp_path / "berta")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("n_bytes", [0, 10, -1, -200])
def test_import_refuses_a_truncated_file(add: Add, tmp_path: Path, n_bytes: int) -> None:
    export = export_package(add(tmp_path / "anna"), tmp_path / "anna.talkhead")
    cut = tmp_path / "cut.talkhead"
    cut.write_bytes(export.read_bytes()[:n_bytes])
    with pytest.raises(PackageError, match=r"cut\.talkhead: not an exported identity, or damaged"):
        import_package(cut, tmp_path / "berta")
    assert not (tmp_path / "berta").exists()


def test_import_refuses_an_ordinary_zip(tmp_path: Path) -> None:
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(PackageError, match="not an exported identity"):
        import_package(other, tmp_path / "berta")
