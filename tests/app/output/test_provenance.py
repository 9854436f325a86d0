"""Manifests of files, and their verification."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import stat
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from talkhead import __version__, media
from talkhead.app.cli import main as cli
from talkhead.app.output import provenance, verification
from talkhead.app.output import signing_keys as signing
from talkhead.app.output.provenance import Statement, sidecar_of, sign
from talkhead.app.output.signing_keys import Credentials, credentials
from talkhead.app.output.verification import describe, verify
from talkhead.errors import TalkheadError

x509 = pytest.importorskip("cryptography.x509")

SAID = Statement("Anna", "paste", "Anna B., in writing, 3 May 2025")
NAMES = ("line.mp4", "it's ünder a [line] 100%.mov", "line.webm")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return credentials(tmp_path_factory.mktemp("home"), None, None)


def video(path: Path) -> Path:
    media.write_video(path, [np.full((32, 32, 3), level, np.uint8) for level in range(0, 200, 20)])
    return path


def signed(folder: Path, name: str, by: Credentials, said: Statement = SAID) -> Path:
    """A signed video of that name."""
    (folder / "raw").mkdir(exist_ok=True)
    raw, path = video(folder / "raw" / name), folder / name
    if provenance.embeds(path):
        sign(raw, path, name, said, by)
    else:
        path.write_bytes(raw.read_bytes())
        sign(raw, sidecar_of(path), name, said, by)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_signed_statements_are_read_back(tmp_path: Path, own: Credentials, name: str) -> None:
    path = signed(tmp_path, name, own)
    verdict = verify(path)
    assert verdict.ok and not verdict.trusted and not verdict.problems
    assert verdict.where == ("sidecar" if name.endswith("webm") else "embedded")
    assert verdict.tool == f"talkhead {__version__}"
    assert verdict.source_type == "compositeWithTrainedAlgorithmicMedia"
    assert verdict.claims["identity"] == "Anna" and verdict.claims["synthetic"] is True
    assert verdict.claims["consent"] == SAID.consent
    made = datetime.datetime.fromisoformat(verdict.created)
    age = datetime.datetime.now(datetime.timezone.utc) - made
    assert datetime.timedelta(seconds=-2) < age < datetime.timedelta(minutes=5)
    text = describe(verdict)
    assert "valid, signer not trusted" in text and "Anna B., in writing" in text
    assert len(list(media.read_frames(path))) == 10  # it can still be played


def test_names_that_are_not_utf_8_can_be_signed(tmp_path: Path, own: Credentials) -> None:
    raw, title = video(tmp_path / "raw.mp4"), os.fsdecode(b"caf\xe9.mp4")
    sign(raw, tmp_path / "a.mp4", title, Statement("Anna", "paste", "Yes\udcff."), own)
    verdict = verify(tmp_path / "a.mp4")
    assert verdict.ok and verdict.claims["consent"] == r"Yes\udcff."
    assert verdict.title == r"caf\udce9.mp4" or sys.platform != "linux"


def test_a_head_alone_is_entirely_synthetic(tmp_path: Path, own: Credentials) -> None:
    verdict = verify(signed(tmp_path, "a.mp4", own, Statement("Anna", "head", None)))
    assert verdict.source_type == "trainedAlgorithmicMedia"
    assert verdict.claims["consent"] == "no statement was stored"


@pytest.mark.parametrize("name", NAMES)
def test_one_changed_byte_is_noticed(tmp_path: Path, own: Credentials, name: str) -> None:
    path = signed(tmp_path, name, own)
    content = bytearray(path.read_bytes())
    marker = b"mdat" if b"mdat" in content else b"webm"
    content[content.index(marker) + 40] ^= 1
    path.write_bytes(content)
    verdict = verify(path)
    assert verdict.state == "tampered" and not verdict.ok and verdict.problems
    assert "CHANGED since it was signed" in describe(verdict)


def test_a_damaged_manifest_is_noticed(tmp_path: Path, own: Credentials) -> None:
    path = signed(tmp_path, "a.mp4", own)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"Anna B.", b"Anna C."))
    assert verify(path).state == "tampered"
    path.write_bytes(content.replace(b"Anna B.", b"Anna \xff\xff"))  # C2PA then gives no manifest
    verdict = verify(path)
    assert verdict.state == "tampered" and not verdict.claims and verdict.problems
    beside = sidecar_of(signed(tmp_path, "a.webm", own))
    beside.write_bytes(beside.read_bytes()[:-100])
    verdict = verify(tmp_path / "a.webm")
    assert verdict.state == "damaged" and "\n" not in verdict.problems[0]
    beside.write_bytes(b"")
    assert verify(tmp_path / "a.webm").state == "damaged"


@pytest.mark.parametrize("n_bytes", [0, 300, -20])
def test_a_truncated_video_is_not_reported_as_changed(
    tmp_path: Path, own: Credentials, n_bytes: int
) -> None:
    """Its manifest cannot be read any more, so it is unknown whether it had one."""
    path = signed(tmp_path, "a.mp4", own)
    path.write_bytes(path.read_bytes()[:n_bytes])
    verdict = verify(path)
    assert verdict.state == ("tampered" if n_bytes < 0 else "damaged") and verdict.problems
    assert ("cannot be read: the file or its manifest is damaged" in describe(verdict)) == (
        n_bytes >= 0
    )


def test_a_manifest_of_another_file_is_not_valid(tmp_path: Path, own: Credentials) -> None:
    path = signed(tmp_path, "a.webm", own)
    media.write_video(path, [np.zeros((32, 32, 3), np.uint8)] * 3)
    assert verify(path).state == "tampered"


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "webp", "png", "tif"])
def test_images_of_others(
    tmp_path: Path, own: Credentials, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """Unsigned images have no manifest; manifests of other tools are read."""
    plain, path = tmp_path / f"plain.{suffix}", tmp_path / f"a.{suffix}"
    cv2.imwrite(str(plain), np.full((32, 32, 3), 90, np.uint8))
    assert verify(plain).state == "none" and "has no provenance" in describe(verify(plain))
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "EMBEDS", {plain.suffix.lower(): suffix.lower()})
        sign(plain, path, path.name, SAID, own)
    assert verify(path).ok and verify(path).where == "embedded"
    path.write_bytes(path.read_bytes().replace(b"Anna B.", b"Anna C."))
    assert verify(path).state == "tampered"


@pytest.mark.parametrize(
    ("codes", "state"),
    [
        (["signingCredential.untrusted", "signingCredential.expired"], "refused"),
        (["signingCredential.expired", "assertion.bmffHash.mismatch"], "tampered"),
        (["signingCredential.untrusted"], "tampered"),  # for reasons that C2PA does not state
    ],
)
def test_an_expired_certificate_is_not_a_change(
    tmp_path: Path,
    own: Credentials,
    monkeypatch: pytest.MonkeyPatch,
    codes: list[str],
    state: str,
) -> None:
    c2pa = pytest.importorskip("c2pa")
    path, read = signed(tmp_path, "a.mp4", own), c2pa.Reader.json

    def later(reader: Any) -> str:
        """C2PA's result for the file at a later date."""
        store = json.loads(read(reader))
        store["validation_state"] = "Invalid"
        failures = store["validation_results"]["activeManifest"]["failure"]
        failures[:] = [{"code": code} for code in codes]
        return json.dumps(store)

    monkeypatch.setattr(c2pa.Reader, "json", later)
    verdict = verify(path)
    assert verdict.state == state and not verdict.ok
    assert verdict.claims["identity"] == "Anna"
    words = "certificate is not valid (signingCredential.expired)"
    assert (words in describe(verdict)) == (state == "refused")


def test_nothing_is_fetched_from_the_network(tmp_path: Path, own: Credentials) -> None:
    """A file may refer to a manifest on a server, which could then log who verifies the file."""
    asked: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/manifest"
        path = signed_afar(video(tmp_path / "raw.mp4"), tmp_path / "a.mp4", address, own)
        (tmp_path / "root.pem").write_bytes(own.chain)
        for anchors in (None, tmp_path / "root.pem"):
            verdict = verify(path, anchors)
            assert verdict.state == "remote" and verdict.problems == (address,)
        server.shutdown()
    assert not asked
    assert f"hosted remotely ({address})" in describe(verdict)


def signed_afar(raw: Path, path: Path, address: str, by: Credentials) -> Path:
    """A video that states the URL of its manifest on a server."""
    c2pa = pytest.importorskip("c2pa")
    settings = c2pa.Context.from_dict({})
    builder = c2pa.Builder.from_json(json.dumps(provenance.manifest_of("a", SAID)), settings)
    builder.set_no_embed()
    builder.set_remote_url(address)
    info = c2pa.C2paSignerInfo(by.algorithm.encode(), by.chain, by.key, None)
    with (
        c2pa.Signer.from_info(info) as signer,
        raw.open("rb") as source,
        path.open("w+b") as target,
    ):
        builder.sign(signer, "video/mp4", source, target)
    return path


def test_files_without_provenance_have_no_claims(tmp_path: Path) -> None:
    verdict = verify(video(tmp_path / "a.mp4"))
    assert verdict.state == "none" and not verdict.ok
    assert "has no provenance" in describe(verdict)
    for path in (video(tmp_path / "a.webm"), tmp_path / "a.txt", tmp_path / "nothing"):
        path.touch()
        verdict = verify(path)
        assert verdict.state == "unsupported" and not verdict.ok
        assert f"no {path.stem}.c2pa next to it" in describe(verdict)
    with pytest.raises(TalkheadError, match="there is no such file"):
        verify(tmp_path / "gone.mp4")
    with pytest.raises(TalkheadError, match="contains no images"):
        verify(tmp_path)


def test_the_local_key_is_private_and_made_once(tmp_path: Path) -> None:
    home = tmp_path / "a home"
    first = credentials(home, None, None)
    assert credentials(home, None, None) == first
    folder = home / signing.SIGNING
    assert sorted(path.name for path in folder.iterdir()) == ["chain.pem", "key.pem", "root.pem"]
    assert [p.name for p in home.iterdir()] == [signing.SIGNING]
    if os.name != "nt":
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    signer, root = x509.load_pem_x509_certificates(first.chain)
    signer.verify_directly_issued_by(root)
    assert signer.subject != root.subject and first.algorithm == "es256"


def test_a_custom_certificate_and_trusted_roots(tmp_path: Path) -> None:
    files = signing._new_files()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    by = credentials(tmp_path / "home", tmp_path / signing.CHAIN, tmp_path / signing.KEY)
    assert not (tmp_path / "home").exists()
    path = signed(tmp_path, "a.mp4", by)
    trusted = verify(path, tmp_path / signing.ROOT)
    assert trusted.ok and trusted.trusted and "valid, signer trusted" in describe(trusted)
    other = tmp_path / "other.pem"
    other.write_bytes(signing._new_files()[signing.ROOT])
    assert not verify(path, other).trusted


def test_a_signer_that_is_not_trusted_fails_where_roots_are_given(
    tmp_path: Path, own: Credentials
) -> None:
    path, other = signed(tmp_path, "a.mp4", own), tmp_path / "other.pem"
    other.write_bytes(signing._new_files()[signing.ROOT])
    verdict = verify(path, other)
    assert verdict.state == "untrusted" and not verdict.ok and not verdict.trusted
    assert "the signer is not one that you trust" in describe(verdict)
    path.write_bytes(path.read_bytes().replace(b"Anna B.", b"Anna C."))
    assert verify(path, other).state == "tampered"


def test_the_local_key_is_distinguished_from_those_of_other_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys are distinguished by their root, not by their name, which is the same for all local
    keys.
    """
    here, there = tmp_path / "here", tmp_path / "there"
    path = signed(tmp_path, "a.mp4", credentials(here, None, None))
    monkeypatch.setattr(signing, "ORGANIZATION", signing.OLD_ORGANIZATION)  # an older version's
    other = signed(tmp_path, "b.mp4", credentials(there, None, None))
    monkeypatch.undo()
    for file, home, local in ((path, here, True), (other, here, False), (other, there, True)):
        verdict = verify(file, home=home)
        assert verdict.ok and verdict.local == local and not verdict.trusted
        text = describe(verdict)
        assert ("valid, signed with this machine's own key" in text) == local
        assert ("which no trusted root confirms" in text) != local
        assert ("this machine" in text) == local and "this machine" not in verdict.signer
        strict = verify(file, there / signing.SIGNING / signing.ROOT, home)
        assert strict.trusted == (file == other) and strict.ok == strict.trusted
        assert strict.local == (file == path)


def images(folder: Path, by: Credentials, n: int = 4, said: Statement = SAID) -> Path:
    """A folder of n signed images, as speak makes it."""
    (folder / "raw").mkdir(parents=True)
    each = said.in_folder(n)
    for number in range(1, n + 1):
        name = f"{number:06d}.png"
        cv2.imwrite(str(folder / "raw" / name), np.full((8, 8, 3), number, np.uint8))
        sign(folder / "raw" / name, folder / name, name, each, by)
    shutil.rmtree(folder / "raw")
    return folder


def test_a_whole_folder(tmp_path: Path, own: Credentials) -> None:
    folder = images(tmp_path / "a", own)
    (folder / "subtitles.srt").write_text("1")
    (folder / "b.png").mkdir()
    verdict = verify(folder)
    assert verdict.ok and verdict.path == folder and verdict.where == "embedded in all 4 files"
    assert verdict.unsigned == ("b.png", "subtitles.srt")
    assert "not signed: b.png, subtitles.srt" in describe(verdict)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("remove the first", "missing: 000001.png; 4 files were signed, 3 were found"),
        ("remove the last", "4 files were signed, 3 were found"),
        ("swap two", "signed under another name: 000002.png, 000003.png"),
        ("add a copy", "signed under another name: 000005.png; 4 files were signed, 5 were found"),
        ("add another's", "of another folder: 000005.png; 4 files were signed, 5 were found"),
        ("replace one", "signed by another signer: 000001.png; of another folder: 000001.png"),
    ],
)
def test_a_folder_in_which_files_were_moved(
    tmp_path: Path, own: Credentials, change: str, words: str
) -> None:
    """Each file is unchanged since it was signed, but the folder is not."""
    folder, others = images(tmp_path / "a", own), images(tmp_path / "b", own, 5)
    first, second, third, last = sorted(folder.iterdir())
    if change == "remove the first":
        first.unlink()
    elif change == "remove the last":
        last.unlink()
    elif change == "swap two":
        second.rename(folder / "x")
        third.rename(second)
        (folder / "x").rename(third)
    elif change == "add a copy":
        shutil.copy(second, folder / "000005.png")
    elif change == "add another's":
        shutil.copy(others / "000005.png", folder)
    else:
        stranger = images(tmp_path / "c", credentials(tmp_path / "home", None, None))
        shutil.copy(stranger / first.name, folder)
    verdict = verify(folder)
    assert verdict.state == "rearranged" and not verdict.ok
    assert "; ".join(verdict.problems) == words
    assert (
        "CHANGED since it was signed: its files are unchanged, but the folder is not"
        in describe(verdict)
    )


def test_in_a_folder_the_least_trusted_signer_decides(tmp_path: Path, own: Credentials) -> None:
    folder, stranger = images(tmp_path / "a", own), credentials(tmp_path / "home", None, None)
    root, other = tmp_path / "root.pem", tmp_path / "home" / signing.SIGNING / signing.ROOT
    root.write_bytes(own.chain)
    assert verify(folder, root).trusted
    shutil.copy(images(tmp_path / "b", stranger) / "000003.png", folder)
    verdict = verify(folder, root)
    assert verdict.state == "untrusted" and verdict.path.name == "000003.png" and not verdict.ok
    both = tmp_path / "both.pem"
    both.write_bytes(root.read_bytes() + other.read_bytes())
    assert verify(folder, both).state == "rearranged"
    assert not verify(folder, home=tmp_path / "home").local


def test_a_folder_that_an_older_version_signed(tmp_path: Path, own: Credentials) -> None:
    """Its files do not state their number: gaps are detected, the rest is reported as unknown."""
    folder = images(tmp_path / "a", own)
    for path in sorted(folder.iterdir()):
        raw = tmp_path / path.name
        cv2.imwrite(str(raw), np.zeros((8, 8, 3), np.uint8))
        sign(raw, path, path.name, SAID, own)
    verdict = verify(folder)
    assert verdict.ok and "the last ones may be missing" in verdict.where
    (folder / "000002.png").unlink()
    assert verify(folder).problems == ("missing: 000002.png",)


def test_images_of_others_need_not_belong_together(tmp_path: Path, own: Credentials) -> None:
    folder = images(tmp_path / "a", own)
    for number, path in enumerate(sorted(folder.iterdir())):
        by = own if number else credentials(tmp_path / "home", None, None)
        resigned(path, {"title": "Holiday"}, by)
    verdict = verify(folder)
    assert verdict.ok and not verdict.claims and verdict.signer.count("local key") == 1


def resigned(path: Path, manifest: dict[str, Any], by: Credentials) -> None:
    """Write an image that contains only this manifest."""
    c2pa = pytest.importorskip("c2pa")
    raw, source_type = path.with_name("raw"), provenance.SOURCE_TYPES["head"]
    action = {"action": "c2pa.created", "digitalSourceType": source_type}
    made = {"label": "c2pa.actions.v2", "data": {"actions": [action]}}
    manifest = {**manifest, "assertions": [made, *manifest.get("assertions", [])]}
    cv2.imwrite(f"{raw}.png", np.zeros((8, 8, 3), np.uint8))
    info = c2pa.C2paSignerInfo(by.algorithm.encode(), by.chain, by.key, None)
    builder = c2pa.Builder.from_json(json.dumps(manifest), c2pa.Context.from_dict({}))
    with (
        c2pa.Signer.from_info(info) as signer,
        raw.with_suffix(".png").open("rb") as source,
        path.open("w+b") as target,
    ):
        builder.sign(signer, "image/png", source, target)
    raw.with_suffix(".png").unlink()


@pytest.mark.parametrize("data", [["a"], "text", {"identity": ["a"] * 9, "files": {"a": "b"}}])
def test_statements_of_other_shapes_are_left_out(
    tmp_path: Path, own: Credentials, data: Any
) -> None:
    """The content of assertions is untrusted."""
    path = tmp_path / "a.png"
    resigned(path, {"assertions": [{"label": provenance.SYNTHESIS, "data": data}]}, own)
    verdict = verify(path)
    assert verdict.ok and verdict.claims == {} and describe(verdict)


def test_keys_that_cannot_sign(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        credentials(tmp_path / folder, None, None)
    a, b = tmp_path / "a" / signing.SIGNING, tmp_path / "b" / signing.SIGNING
    (tmp_path / "text.pem").write_text("hello")
    cases = [
        (a / "chain.pem", b / "key.pem", "is not the key of"),
        (tmp_path / "text.pem", a / "key.pem", "contains no certificate"),
        (a / "chain.pem", tmp_path / "text.pem", "contains no usable private key"),
        (tmp_path / "gone.pem", a / "key.pem", "gone.pem: there is no such file"),
    ]
    for certificate, key, words in cases:
        with pytest.raises(TalkheadError) as error:
            credentials(tmp_path, certificate, key)
        assert words in str(error.value) and "\n" not in str(error.value)


def test_endless_files_are_not_read(
    tmp_path: Path, own: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    pipe, path = tmp_path / "pipe", signed(tmp_path, "a.webm", own)
    os.mkfifo(pipe)
    for certificate, key in ((pipe, sidecar_of(path)), (sidecar_of(path), pipe)):
        with pytest.raises(TalkheadError, match="pipe: is not a regular file"):
            credentials(tmp_path, certificate, key)
    with pytest.raises(TalkheadError, match="pipe: is not a regular file"):
        verify(path, pipe)
    assert verify(path).ok
    monkeypatch.setattr(verification, "MAX_MANIFEST_BYTES", 100)
    with pytest.raises(TalkheadError, match=r"a.c2pa: has more than"):
        verify(path)


def test_a_manifest_nested_too_deeply_is_damaged(
    tmp_path: Path, own: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    c2pa = pytest.importorskip("c2pa")
    path = signed(tmp_path, "a.mp4", own)
    monkeypatch.setattr(c2pa.Reader, "json", lambda reader: "[" * 100_000)
    assert verify(path).state == "damaged" and "nested deeper" in describe(verify(path))


def test_a_certificate_that_c2pa_refuses_is_one_line(tmp_path: Path, own: Credentials) -> None:
    root = x509.load_pem_x509_certificates(own.chain)[1]
    from cryptography.hazmat.primitives import serialization

    alone = Credentials(root.public_bytes(serialization.Encoding.PEM), own.key, own.algorithm)
    with pytest.raises(TalkheadError, match="could not be signed") as error:
        signed(tmp_path, "a.mp4", alone)
    assert "\n" not in str(error.value) and "--no-provenance" in str(error.value)


@pytest.mark.parametrize("safe_path", ["", "1"])
def test_large_files_are_signed_in_a_separate_process(
    tmp_path: Path, own: Credentials, monkeypatch: pytest.MonkeyPatch, safe_path: str
) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", safe_path)  # then the current folder is already left out
    monkeypatch.setattr(provenance, "SUBPROCESS_SIGNING_BYTES", 100)
    monkeypatch.setattr(provenance, "_sign_here", None)  # not in this one
    for name in NAMES:
        assert verify(signed(tmp_path, name, own)).claims["identity"] == "Anna"
    wrong = Credentials(own.chain, own.key, "es512")
    with pytest.raises(TalkheadError, match="could not be signed") as error:
        signed(tmp_path, "b.mp4", wrong)
    assert "\n" not in str(error.value)


def test_without_c2pa_the_error_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ImportError("libc2pa is missing")

    monkeypatch.setattr(provenance.importlib, "import_module", missing)
    with pytest.raises(TalkheadError, match=r"pip install c2pa-python, or pass --no-provenance"):
        verify(tmp_path / "a.mp4")


def test_the_command(
    tmp_path: Path,
    own: Credentials,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli.signal, "signal", lambda signum, handler: None)

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["talkhead", "verify", *words])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0), capsys.readouterr().out

    path = signed(tmp_path, "a.mp4", own)
    status, text = run(str(path))
    assert status == 0 and "valid, signer not trusted" in text
    status, text = run(str(path), "--json")
    assert status == 0 and '"state": "valid"' in text and '"identity": "Anna"' in text
    path.write_bytes(path.read_bytes().replace(b"Anna B.", b"Anna C."))
    assert run(str(path))[0] == 1
    status, text = run(str(tmp_path / "raw" / "a.mp4"), "--json")
    assert status == 1 and '"state": "none"' in text
