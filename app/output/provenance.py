"""Provenance: signed C2PA manifests that state that a file is synthetic, which tool made it, and when.

A manifest is embedded if the container allows it (mp4, mov, png, wav), otherwise it is a file NAME.c2pa
next to the output. `talkhead.app.output.verification` reads it.
"""

from __future__ import annotations

import datetime
import importlib
import json
import secrets
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkhead import __version__
from talkhead.errors import TalkheadError

if TYPE_CHECKING:
    from talkhead.app.output.signing_keys import Credentials

EMBEDS = {
    ".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".png": "image/png",
    ".wav": "audio/wav",
}  # fmt: skip
OTHER = "application/octet-stream"
SIDECAR_SUFFIX = ".c2pa"
SYNTHESIS = "org.talkhead.synthesis"
"""Label of talkhead's own assertion."""
SOURCE_TYPES = {
    "head": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
    "paste": "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia",
}
"""IPTC digital source type by mode; other modes count as paste."""
SUBPROCESS_SIGNING_BYTES = 32_000_000
"""Larger files are signed in a subprocess."""
OFFLINE = {"remote_manifest_fetch": False, "ocsp_fetch": False}
"""Settings without network access: the author of a file must not learn when and where it is verified."""
_SETTINGS = {
    "verify": OFFLINE,
    "builder": {"thumbnail": {"enabled": False}},
    "core": {"backing_store_memory_threshold_in_mb": 4},  # larger ones go through a file
}


@dataclass(frozen=True)
class Statement:
    """What a manifest states about a file.

    Attributes:
        identity: Name of the identity.
        mode: Mode that the file was made with.
        consent: The person's statement of consent. None: none was stored.
        folder: For a file in a folder of images, an ID that all signed files of the folder share.
        n_files: Number of these files.
    """

    identity: str
    mode: str
    consent: str | None
    folder: str = ""
    n_files: int = 0

    def in_folder(self, n_files: int) -> Statement:
        """Return the statement for files that belong together.

        Args:
            n_files: Number of signed files.

        Returns:
            The statement for each of them.
        """
        return replace(self, folder=secrets.token_hex(8), n_files=n_files)


def provenance_unavailable_reason() -> str:
    """Return why manifests cannot be signed or read here.

    Returns:
        What is missing and what to do; "" if nothing is missing.
    """
    try:
        importlib.import_module("cryptography")
        importlib.import_module("c2pa")
    except (ImportError, OSError, RuntimeError) as error:
        words = " ".join(str(error).split())
        return (
            f"files cannot be signed: c2pa-python fails ({words}). Run: pip install c2pa-python, "
            "or pass --no-provenance"
        )
    return ""


def sidecar_of(path: Path) -> Path:
    """Return the path of the manifest next to a file.

    Args:
        path: The file.

    Returns:
        Path of its manifest.
    """
    return path.with_suffix(SIDECAR_SUFFIX)


def embeds(path: Path) -> bool:
    """Check if a file can contain its manifest.

    Args:
        path: The file.

    Returns:
        True if its format embeds manifests.
    """
    return path.suffix.lower() in EMBEDS


def forget_sidecar(path: Path) -> None:
    """Remove the manifest of an older file next to a file that has none.

    Args:
        path: The file.
    """
    if not path.is_dir() and not embeds(path):
        sidecar_of(path).unlink(missing_ok=True)


def sign(source: Path, signed: Path, title: str, statement: Statement, signer: Credentials) -> None:
    """Write a file with its manifest.

    Args:
        source: The file to sign.
        signed: Where to write it. If the format embeds no manifest, only the manifest is
            written.
        title: Name of the finished file.
        statement: What the manifest states.
        signer: Credentials of the signer.

    Raises:
        TalkheadError: The file cannot be signed.
    """
    if source.stat().st_size > SUBPROCESS_SIGNING_BYTES and sys.executable:
        _sign_apart(source, signed, title, statement, signer)
    else:
        _sign_here(source, signed, title, statement, signer)


def _sign_here(
    source: Path, signed: Path, title: str, statement: Statement, signer: Credentials
) -> None:
    c2pa = load_c2pa()
    kind = EMBEDS.get(source.suffix.lower(), OTHER)
    try:
        info = c2pa.C2paSignerInfo(signer.algorithm.encode(), signer.chain, signer.key, None)
        settings = c2pa.Context.from_dict(_SETTINGS)
        with c2pa.Signer.from_info(info) as c2pa_signer:
            builder = c2pa.Builder.from_json(json.dumps(manifest_of(title, statement)), settings)
            if kind == OTHER:
                builder.set_no_embed()
            with source.open("rb") as whole, signed.open("w+b") as target:
                manifest = builder.sign(c2pa_signer, kind, whole, target)
        if kind == OTHER:
            signed.write_bytes(manifest)  # instead of a copy of source
    except c2pa.C2paError as error:
        words = " ".join(str(error).split())
        raise TalkheadError(
            f"{title}: could not be signed. Check certificate and key, or pass --no-provenance. "
            f"C2PA reports: {words}"
        ) from error


def _sign_apart(
    source: Path, signed: Path, title: str, statement: Statement, signer: Credentials
) -> None:
    """Sign in a subprocess: C2PA allocates up to 300 MB for a large file and does not release
    it."""
    task = [
        str(source),
        str(signed),
        title,
        asdict(statement),
        signer.chain.decode(),
        signer.key.decode(),
    ]
    # Nothing may be imported from the current folder: the subprocess receives the key.
    code = f"import sys; sys.path = [p for p in sys.path if p]; from {__name__} import sign_task"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; sign_task()"],
        input=json.dumps([*task, signer.algorithm]).encode(),  # a pipe, since arguments are public
        capture_output=True,
        check=False,
    )
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip() or f"status {done.returncode}"
        raise TalkheadError(words.splitlines()[-1])


def sign_task() -> None:
    """Sign what standard input describes; exit with status 1 and one line if that fails."""
    from talkhead.app.output.signing_keys import Credentials

    source, signed, title, statement, chain, key, algorithm = json.load(sys.stdin)
    signer = Credentials(chain.encode(), key.encode(), algorithm)
    try:
        _sign_here(Path(source), Path(signed), title, Statement(**statement), signer)
    except (TalkheadError, OSError) as error:
        raise SystemExit(str(error)) from None


def encodable(text: str) -> str:
    """Escape characters that UTF-8 cannot encode: C2PA does not accept them.

    Args:
        text: Any text, such as a name of a file.

    Returns:
        Text that can be encoded.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


FOLDER, N_FILES = "folder", "files"
"""Keys of talkhead's assertion on a file in a folder."""


def manifest_of(title: str, statement: Statement) -> dict[str, Any]:
    """Make a manifest before it is signed.

    Args:
        title: Name of the finished file.
        statement: What it states.

    Returns:
        The manifest as c2pa expects it.
    """
    tool = {"name": "talkhead", "version": __version__}
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    action = {
        "action": "c2pa.created",
        "digitalSourceType": SOURCE_TYPES.get(statement.mode, SOURCE_TYPES["paste"]),
        "softwareAgent": tool,
        "when": now,
    }
    own = {
        "synthetic": True,
        "tool": f"talkhead {__version__}",
        "when": now,
        "identity": encodable(statement.identity),
        "mode": statement.mode,
        "consent": encodable(statement.consent or "no statement was stored"),
    }
    if statement.folder:
        own |= {FOLDER: statement.folder, N_FILES: statement.n_files}
    return {
        "claim_generator_info": [tool],
        "title": encodable(title),
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [action]}, "created": True},
            {"label": SYNTHESIS, "data": own, "created": True},
        ],
    }


def load_c2pa() -> Any:
    """Import the c2pa module.

    Returns:
        The module.

    Raises:
        TalkheadError: It is not installed, or cannot be imported.
    """
    if missing := provenance_unavailable_reason():
        raise TalkheadError(missing)
    return importlib.import_module("c2pa")
