"""What a finished file says of itself: a signed C2PA manifest that it is synthetic, by what and when.

Embedded where the container allows it (mp4, mov, png, wav), else in a file NAME.c2pa beside it.
"""

from __future__ import annotations

import datetime
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkhead import __version__
from talkhead.errors import TalkheadError
from talkhead.storage import file_errors

if TYPE_CHECKING:
    from talkhead.app.signing import Credentials

EMBEDS = {
    ".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".png": "image/png",
    ".wav": "audio/wav",
}  # fmt: skip
OTHER = "application/octet-stream"
SIDECAR_SUFFIX = ".c2pa"
SYNTHESIS = "org.talkhead.synthesis"
"""Label of the statement in a manifest that is talkhead's own."""
SOURCE_TYPES = {
    "head": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
    "paste": "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia",
}
"""What a file is, by mode; a mode that is not here is a composite as paste is."""
APART_BYTES = 32_000_000
"""Larger files are signed in a process of their own."""
_OFFLINE = {"remote_manifest_fetch": False, "ocsp_fetch": False}
"""Whoever made a file must not see, by a manifest on the net, that and where it is looked at."""
_SETTINGS = {
    "verify": _OFFLINE,
    "builder": {"thumbnail": {"enabled": False}},
    "core": {"backing_store_memory_threshold_in_mb": 4},  # larger ones go through a file
}
UNTRUSTED = "signingCredential.untrusted"
_OF_THE_SIGNER = ("signingCredential.", "claimSignature.outsideValidity")
"""How C2PA's codes begin that are about the signer's certificate, not the file."""

VALID, REFUSED, TAMPERED = "valid", "refused", "tampered"
NONE, UNSUPPORTED, DAMAGED, REMOTE = "none", "unsupported", "damaged", "remote"


@dataclass(frozen=True)
class Statement:
    """What is said of a file. identity: who is seen; mode: how it was made; consent: what that person
    agreed to, None where nothing was stored."""

    identity: str
    mode: str
    consent: str | None


@dataclass(frozen=True)
class Verdict:
    """What a file's manifest says and whether it holds.

    state: VALID; REFUSED, the file is unchanged, but the signer's certificate doesn't hold, as when
    it has expired; TAMPERED, file or manifest was changed; NONE, there is no manifest; UNSUPPORTED,
    C2PA knows none in such files, nor is one beside it; DAMAGED, file or manifest can't be read;
    REMOTE, the manifest lies on the net, whence none is fetched: problems has its address.
    trusted: whether the signer is one that others know. where: "embedded", "sidecar" or "". claims:
    what is said, by name. problems: C2PA's codes, or its words.
    """

    path: Path
    state: str
    trusted: bool
    where: str
    signer: str
    tool: str
    created: str
    source_type: str
    claims: Mapping[str, Any]
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.state == VALID


def why_no_provenance() -> str:
    """Empty where manifests can be signed, else what is missing and what to do."""
    try:
        importlib.import_module("cryptography")
        importlib.import_module("c2pa")
    except (ImportError, OSError, RuntimeError) as error:
        words = " ".join(str(error).split())
        return (
            f"files can't be signed: c2pa-python fails ({words}). Run: pip install c2pa-python, "
            "or pass --no-provenance"
        )
    return ""


def sidecar_of(path: Path) -> Path:
    """Where the manifest of a file that can't hold one lies."""
    return path.with_suffix(SIDECAR_SUFFIX)


def embeds(path: Path) -> bool:
    """Whether a file of that name holds its manifest itself."""
    return path.suffix.lower() in EMBEDS


def forget_sidecar(path: Path) -> None:
    """Remove the manifest beside a file that has none, which is of another that was there before."""
    if not path.is_dir() and not embeds(path):
        sidecar_of(path).unlink(missing_ok=True)


def sign(source: Path, signed: Path, title: str, said: Statement, by: Credentials) -> None:
    """Write source with its manifest to signed; where source can't hold one, the manifest alone.

    title: the finished file's name. Raises TalkheadError when that can't be done.
    """
    if source.stat().st_size > APART_BYTES and sys.executable:
        _sign_apart(source, signed, title, said, by)
    else:
        _sign_here(source, signed, title, said, by)


def _sign_here(source: Path, signed: Path, title: str, said: Statement, by: Credentials) -> None:
    c2pa = _c2pa()
    kind = EMBEDS.get(source.suffix.lower(), OTHER)
    try:
        info = c2pa.C2paSignerInfo(by.algorithm.encode(), by.chain, by.key, None)
        settings = c2pa.Context.from_dict(_SETTINGS)
        with c2pa.Signer.from_info(info) as signer:
            builder = c2pa.Builder.from_json(json.dumps(manifest_of(title, said)), settings)
            if kind == OTHER:
                builder.set_no_embed()
            with source.open("rb") as whole, signed.open("w+b") as target:
                manifest = builder.sign(signer, kind, whole, target)
        if kind == OTHER:
            signed.write_bytes(manifest)  # in place of a copy of source
    except c2pa.C2paError as error:
        words = " ".join(str(error).split())
        raise TalkheadError(
            f"{title}: could not be signed. Check certificate and key, or pass --no-provenance. "
            f"C2PA says: {words}"
        ) from error


def _sign_apart(source: Path, signed: Path, title: str, said: Statement, by: Credentials) -> None:
    """Sign in a process of its own: C2PA takes up to 300 MB to look at a file, and keeps them."""
    task = [str(source), str(signed), title, asdict(said), by.chain.decode(), by.key.decode()]
    # Nothing that lies in the current folder may be imported: this process is given the key.
    code = f"import sys; sys.path.remove(''); from {__name__} import sign_task; sign_task()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([*task, by.algorithm]).encode(),  # a pipe: others can read arguments
        capture_output=True,
        check=False,
    )
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip() or f"status {done.returncode}"
        raise TalkheadError(words.splitlines()[-1])


def sign_task() -> None:
    """Sign what standard input says; end with status 1 and one line where that can't be done."""
    from talkhead.app.signing import Credentials

    source, signed, title, said, chain, key, algorithm = json.load(sys.stdin)
    by = Credentials(chain.encode(), key.encode(), algorithm)
    try:
        _sign_here(Path(source), Path(signed), title, Statement(**said), by)
    except (TalkheadError, OSError) as error:
        raise SystemExit(str(error)) from None


def manifest_of(title: str, said: Statement) -> dict[str, Any]:
    """The manifest before it is signed, as c2pa takes it."""
    tool = {"name": "talkhead", "version": __version__}
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    action = {
        "action": "c2pa.created",
        "digitalSourceType": SOURCE_TYPES.get(said.mode, SOURCE_TYPES["paste"]),
        "softwareAgent": tool,
        "when": now,
    }
    own = {
        "synthetic": True,
        "tool": f"talkhead {__version__}",
        "when": now,
        "identity": said.identity,
        "mode": said.mode,
        "consent": said.consent or "no statement was stored",
    }
    return {
        "claim_generator_info": [tool],
        "title": title,
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [action]}, "created": True},
            {"label": SYNTHESIS, "data": own, "created": True},
        ],
    }


def verify(path: Path, anchors: Path | None = None) -> Verdict:
    """What the manifest in a file, or beside it, says, and whether file and manifest are unchanged.

    path: a file, or a folder of images: the verdict is then that on the first one that fails, if any.
    anchors: PEM certificates of the roots to trust. Raises TalkheadError when the file is not there,
    the folder holds none, anchors can't be used, or c2pa is missing.
    """
    if path.is_dir():
        return _verify_folder(path, anchors)
    c2pa = _c2pa()
    if not path.is_file():
        raise TalkheadError(f"{path}: there is no such file. Check the path")
    suffix, beside = path.suffix.lower().removeprefix("."), sidecar_of(path)
    kind = suffix if suffix in c2pa.Reader.get_supported_mime_types() else OTHER
    aside = kind == OTHER and beside.is_file()
    context = _context(c2pa, anchors)
    try:
        with file_errors(path), path.open("rb") as file:
            manifest = beside.read_bytes() if aside else None
            with c2pa.Reader(kind, file, manifest, context) as reader:
                return _verdict(path, "sidecar" if aside else "embedded", json.loads(reader.json()))
    except c2pa.C2paError.ManifestNotFound:
        return _unsaid(path, NONE)
    except c2pa.C2paError.NotSupported:
        return _unsaid(path, UNSUPPORTED)
    except c2pa.C2paError as error:
        words = " ".join(str(error).split())
        remote = _REMOTE.search(words)
        return _unsaid(path, REMOTE, remote[1]) if remote else _unsaid(path, DAMAGED, words)


_REMOTE = re.compile(r"must fetch remote manifests from url (\S+)")
"""How C2PA says that it would fetch one: it has no error of its own for that."""


def _context(c2pa: Any, anchors: Path | None) -> Any:
    """The context of a reader that stays off the net, and trusts these roots if there are any."""
    if anchors is None:
        return c2pa.Context.from_dict({"verify": _OFFLINE})
    with file_errors(anchors):
        roots = anchors.read_text(encoding="utf-8", errors="replace")
    try:
        return c2pa.Context.from_dict(
            {"trust": {"trust_anchors": roots}, "verify": {**_OFFLINE, "verify_trust": True}}
        )
    except c2pa.C2paError as error:
        raise TalkheadError(f"{anchors}: holds no certificates. Give a PEM file") from error


def _verify_folder(folder: Path, anchors: Path | None) -> Verdict:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".png", ".wav"))
    if not files:
        raise TalkheadError(f"{folder}: holds no images. Give a file, or a folder that speak made")
    verdicts = [verify(file, anchors) for file in files]
    worst = next((verdict for verdict in verdicts if not verdict.ok), None)
    return worst or replace(verdicts[0], path=folder, where=f"embedded in all {len(files)} files")


def _unsaid(path: Path, state: str, *problems: str) -> Verdict:
    return Verdict(path, state, False, "", "", "", "", "", {}, problems)


def _verdict(path: Path, where: str, store: Mapping[str, Any]) -> Verdict:
    manifest = store["manifests"][store["active_manifest"]]
    said = {a["label"]: a["data"] for a in manifest.get("assertions", [])}
    actions = [
        action
        for label, data in said.items()
        if label.startswith("c2pa.actions")
        for action in data.get("actions", [])
    ]
    created: Mapping[str, Any] = next((a for a in actions if a.get("action") == "c2pa.created"), {})
    signature = manifest.get("signature_info", {})
    tools = manifest.get("claim_generator_info") or [{}]
    results = store.get("validation_results", {}).get("activeManifest", {})
    codes = [failure["code"] for failure in results.get("failure", [])]
    problems = tuple(code for code in codes if code != UNTRUSTED)
    state = store.get("validation_state")
    return Verdict(
        path=path,
        state=VALID if state in ("Valid", "Trusted") else _state_of(problems),
        trusted=state == "Trusted",
        where=where,
        signer=", ".join(
            str(signature[key]) for key in ("common_name", "issuer") if signature.get(key)
        ),
        tool=" ".join(str(tools[0].get(key, "")) for key in ("name", "version")).strip(),
        created=str(created.get("when", signature.get("time", ""))),
        source_type=str(created.get("digitalSourceType", "")).rpartition("/")[2],
        claims=dict(said.get(SYNTHESIS, {})),
        problems=problems,
    )


def _state_of(problems: tuple[str, ...]) -> str:
    """What these make of a manifest that C2PA finds invalid."""
    of_signer = [code.startswith(_OF_THE_SIGNER) for code in problems]
    return REFUSED if of_signer and all(of_signer) else TAMPERED


def describe(verdict: Verdict) -> str:
    """A verdict in words, a line each."""
    why = f" ({', '.join(verdict.problems)})" if verdict.problems else ""
    beside, trust = sidecar_of(verdict.path).name, "" if verdict.trusted else "not "
    head = {
        VALID: f"valid, signer {trust}trusted: unchanged since it was signed. It says:",
        REFUSED: f"unchanged since it was signed, but the signer's certificate doesn't hold{why}. "
        "It says:",
        TAMPERED: f"CHANGED since it was signed{why}. Don't rely on what it says:",
        NONE: "carries no provenance: it says nothing of where it comes from.",
        UNSUPPORTED: f"such files can't hold a C2PA manifest, and there is no {beside} beside it: "
        "it says nothing of where it comes from.",
        REMOTE: f"its manifest lies on the net{why}, and nothing is fetched from there: what it says "
        "isn't known.",
        DAMAGED: f"can't be read: the file or its manifest is damaged{why}.",
    }[verdict.state]
    lines = {
        "what": _WORDS.get(verdict.source_type, verdict.source_type),
        "made by": verdict.tool,
        "when": verdict.created,
        "who is seen": verdict.claims.get("identity", ""),
        "mode": verdict.claims.get("mode", ""),
        "consent": verdict.claims.get("consent", ""),
        "signed by": verdict.signer,
        "manifest": verdict.where,
    }
    said = [f"  {name}: {text}" for name, text in lines.items() if text]
    return "\n".join([f"{verdict.path}: {head}", *said])


_WORDS = {
    "trainedAlgorithmicMedia": "synthetic, made by a trained model",
    "compositeWithTrainedAlgorithmicMedia": "real footage with parts made by a trained model",
}


def _c2pa() -> Any:
    if missing := why_no_provenance():
        raise TalkheadError(missing)
    return importlib.import_module("c2pa")
