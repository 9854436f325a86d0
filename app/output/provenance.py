"""What a finished file says of itself: a signed C2PA manifest that it is synthetic, by what and when.

Embedded where the container allows it (mp4, mov, png, wav), else in a file NAME.c2pa beside it.
"""

from __future__ import annotations

import datetime
import importlib
import json
import re
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkhead import __version__
from talkhead.app.home.identities import Home
from talkhead.errors import TalkheadError
from talkhead.storage import decode_json, read_bytes, translate_os_errors
from talkhead.terminal import printable

if TYPE_CHECKING:
    from talkhead.app.output.signing_keys import Credentials

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
SUBPROCESS_SIGNING_BYTES = 32_000_000
"""Larger files are signed in a process of their own."""
_OFFLINE = {"remote_manifest_fetch": False, "ocsp_fetch": False}
"""Whoever made a file must not see, by a manifest on the net, that and where it is looked at."""
_SETTINGS = {
    "verify": _OFFLINE,
    "builder": {"thumbnail": {"enabled": False}},
    "core": {"backing_store_memory_threshold_in_mb": 4},  # larger ones go through a file
}
_NOT_TRUSTED = "signingCredential.untrusted"
"""C2PA's code for a signer whose root is none of those given."""
_OF_THE_SIGNER = ("signingCredential.", "claimSignature.outsideValidity")
"""How C2PA's codes begin that are about the signer's certificate, not the file."""

VALID, UNTRUSTED, REFUSED, TAMPERED = "valid", "untrusted", "refused", "tampered"
REARRANGED = "rearranged"
NONE, UNSUPPORTED, DAMAGED, REMOTE = "none", "unsupported", "damaged", "remote"
SIGNED_SUFFIXES = (".png", ".wav")
"""Of the files in a folder of images that are signed."""
SHOWN_CHARS = 2000
MAX_MANIFEST_BYTES = 64 << 20
"""Of a manifest beside a file; talkhead's have 20 kB."""
MAX_NAMED = 5
"""So many files are named in one problem; of the others, the number."""


@dataclass(frozen=True)
class Statement:
    """What is said of a file.

    identity: who is seen. mode: how it was made. consent: what that person agreed to, None where
    nothing was stored. folder, n_files: of a file in a folder of images: an id that all of its signed
    files share, and how many they are.
    """

    identity: str
    mode: str
    consent: str | None
    folder: str = ""
    n_files: int = 0

    def in_folder(self, n_files: int) -> Statement:
        """The same of each of n_files signed files that belong together."""
        return replace(self, folder=secrets.token_hex(8), n_files=n_files)


@dataclass(frozen=True)
class Verdict:
    """What a file's manifest says and whether it holds.

    state: VALID; UNTRUSTED, the file is unchanged, but roots to trust were given and none of them
    stands behind the signer; REFUSED, it is unchanged, but the signer's certificate doesn't hold, as
    when it has expired; TAMPERED, file or manifest was changed; REARRANGED, of a folder: its files are
    unchanged, but some were added, removed or renamed; NONE, there is no manifest; UNSUPPORTED, C2PA
    knows none in such files, nor is one beside it; DAMAGED, file or manifest can't be read; REMOTE,
    the manifest lies on the net, whence none is fetched: problems has its address.
    trusted: whether a root that was given stands behind the signer; local: whether it is the key of
    this home; of a folder, whether that is so of every file. where: "embedded", "sidecar" or "".
    claims: what is said, by name. problems: C2PA's codes, its words, or what is wrong with a folder.
    certificate: the serial number of the signer's. title: the file's name when it was signed.
    unsigned: what else lies in a folder.
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
    local: bool = False
    certificate: str = ""
    title: str = ""
    unsigned: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.state == VALID


def provenance_unavailable_reason() -> str:
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
    if source.stat().st_size > SUBPROCESS_SIGNING_BYTES and sys.executable:
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
    code = f"import sys; sys.path = [p for p in sys.path if p]; from {__name__} import sign_task"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; sign_task()"],
        input=json.dumps([*task, by.algorithm]).encode(),  # a pipe: others can read arguments
        capture_output=True,
        check=False,
    )
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip() or f"status {done.returncode}"
        raise TalkheadError(words.splitlines()[-1])


def sign_task() -> None:
    """Sign what standard input says; end with status 1 and one line where that can't be done."""
    from talkhead.app.output.signing_keys import Credentials

    source, signed, title, said, chain, key, algorithm = json.load(sys.stdin)
    by = Credentials(chain.encode(), key.encode(), algorithm)
    try:
        _sign_here(Path(source), Path(signed), title, Statement(**said), by)
    except (TalkheadError, OSError) as error:
        raise SystemExit(str(error)) from None


def _encodable(text: str) -> str:
    """Text for C2PA, which takes no names of files that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


_FOLDER, _N_FILES = "folder", "files"
"""Keys of talkhead's statement on a file that is one of a folder."""


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
        "identity": _encodable(said.identity),
        "mode": said.mode,
        "consent": _encodable(said.consent or "no statement was stored"),
    }
    if said.folder:
        own |= {_FOLDER: said.folder, _N_FILES: said.n_files}
    return {
        "claim_generator_info": [tool],
        "title": _encodable(title),
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [action]}, "created": True},
            {"label": SYNTHESIS, "data": own, "created": True},
        ],
    }


def verify(path: Path, anchors: Path | None = None, home: Path | None = None) -> Verdict:
    """What the manifest in a file, or beside it, says, and whether file and manifest are unchanged.

    path: a file, or a folder of images: the verdict is then that on the first one that fails, if any,
    else on the folder as a whole. anchors: PEM certificates of the roots to trust; a signer whom none
    of them stands behind is then UNTRUSTED. home: whose own key is told apart; None: the user's.
    Raises TalkheadError when the file is not there, the folder holds none, anchors can't be used, or
    c2pa is missing.
    """
    c2pa = _c2pa()
    from talkhead.app.output.signing_keys import own_root  # needs what `_c2pa` looks for

    reader = _Reader.made(c2pa, anchors, own_root(Home.locate(home).path))
    if path.is_dir():
        return _verify_folder(path, reader)
    if not path.is_file():
        raise TalkheadError(f"{path}: there is no such file. Check the path")
    return reader.verify(path)


@dataclass(frozen=True)
class _Reader:
    """Reads manifests off the net. trusting: c2pa's settings with the roots to trust; None: no roots
    were given. own: those with the home's own root; None: there is none."""

    c2pa: Any
    trusting: Any
    own: Any

    @classmethod
    def made(cls, c2pa: Any, anchors: Path | None, root: Path | None) -> _Reader:
        """Raises TalkheadError where anchors hold no certificates."""
        trusting = None if anchors is None else _context(c2pa, anchors)
        return cls(c2pa, trusting, None if root is None else _context(c2pa, root))

    def verify(self, path: Path) -> Verdict:
        """The verdict on one file."""
        if self.trusting is None:
            verdict = self._read(path, self.own or self._no_roots())
            return replace(verdict, trusted=False, local=verdict.trusted)
        verdict = self._read(path, self.trusting)
        if verdict.trusted or not verdict.ok:
            return verdict
        local = self.own is not None and self._read(path, self.own).trusted
        return replace(verdict, state=UNTRUSTED, local=local)

    def _no_roots(self) -> Any:
        return self.c2pa.Context.from_dict({"verify": _OFFLINE})

    def _read(self, path: Path, context: Any) -> Verdict:
        """What is said by the roots of a context."""
        c2pa = self.c2pa
        suffix, beside = path.suffix.lower().removeprefix("."), sidecar_of(path)
        kind = suffix if suffix in c2pa.Reader.get_supported_mime_types() else OTHER
        aside = kind == OTHER and beside.is_file()
        try:
            with translate_os_errors(path), path.open("rb") as file:
                manifest = read_bytes(beside, MAX_MANIFEST_BYTES) if aside else None
                with c2pa.Reader(kind, file, manifest, context) as reader:
                    store = decode_json(reader.json())
                return _verdict(path, "sidecar" if aside else "embedded", store)
        except ValueError as error:  # nested too deep, say
            return _unsaid(path, DAMAGED, str(error))
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


def _context(c2pa: Any, anchors: Path) -> Any:
    """The context of a reader that stays off the net, and trusts these roots."""
    from talkhead.app.output.signing_keys import MAX_PEM_BYTES

    roots = read_bytes(anchors, MAX_PEM_BYTES).decode("utf-8", "replace")
    try:
        return c2pa.Context.from_dict(
            {"trust": {"trust_anchors": roots}, "verify": {**_OFFLINE, "verify_trust": True}}
        )
    except c2pa.C2paError as error:
        raise TalkheadError(f"{anchors}: holds no certificates. Give a PEM file") from error


# ------------------------------------------------------------------------------- folders


def _verify_folder(folder: Path, reader: _Reader) -> Verdict:
    with translate_os_errors(folder):
        entries = sorted(folder.iterdir())
    files = [e for e in entries if e.suffix.lower() in SIGNED_SUFFIXES and e.is_file()]
    if not files:
        raise TalkheadError(f"{folder}: holds no images. Give a file, or a folder that speak made")
    verdicts = [reader.verify(file) for file in files]
    worst = min(verdicts, key=lambda verdict: _WORST_FIRST.index(verdict.state))
    if not worst.ok:
        return worst
    problems = _folder_problems(verdicts)
    counted = all(verdict.claims.get(_FOLDER) for verdict in verdicts)
    where = f"embedded in all {len(files)} files"
    if not counted:
        where += ", which don't say how many there were: whether the last are missing isn't known"
    return replace(
        verdicts[0],
        path=folder,
        state=REARRANGED if problems else VALID,
        where=where,
        trusted=all(verdict.trusted for verdict in verdicts),
        local=all(verdict.local for verdict in verdicts),
        signer="; ".join(_some(list(dict.fromkeys(verdict.signer for verdict in verdicts)))),
        problems=tuple(problems),
        title="",
        unsigned=tuple(entry.name for entry in entries if entry not in set(files)),
    )


_WORST_FIRST = (TAMPERED, DAMAGED, NONE, REMOTE, UNSUPPORTED, REFUSED, UNTRUSTED, VALID)


def _folder_problems(verdicts: Sequence[Verdict]) -> list[str]:
    """Why files that are each unchanged don't make the folder that speak signed; nothing of folders
    that hold nothing of talkhead's."""
    if not any(verdict.claims for verdict in verdicts):
        return []
    renamed = [v.path.name for v in verdicts if v.claims and v.title != v.path.name]
    problems = {
        "signed by somebody else": _odd(verdicts, lambda v: (v.signer, v.certificate, v.local)),
        "of another folder": _odd(verdicts, _folder_of),
        "signed under another name": renamed,
        "missing": _missing([verdict.path.name for verdict in verdicts]),
    }
    found = [f"{what}: {_listed(names)}" for what, names in problems.items() if names]
    n_signed = _n_signed(_usual(verdicts, _folder_of))
    if n_signed not in (0, len(verdicts)):
        found.append(f"{n_signed} files were signed, {len(verdicts)} are there")
    return found


def _odd(verdicts: Sequence[Verdict], key: Callable[[Verdict], Hashable]) -> list[str]:
    """The names of the files that differ from what most files have."""
    usual = key(_usual(verdicts, key))
    return [verdict.path.name for verdict in verdicts if key(verdict) != usual]


def _usual(verdicts: Sequence[Verdict], key: Callable[[Verdict], Hashable]) -> Verdict:
    """The first file with what most files have."""
    usual = Counter(map(key, verdicts)).most_common(1)[0][0]
    return next(verdict for verdict in verdicts if key(verdict) == usual)


def _folder_of(verdict: Verdict) -> Hashable:
    return verdict.claims.get(_FOLDER), _n_signed(verdict)


def _n_signed(verdict: Verdict) -> int:
    """How many files were signed together with this one; 0 where it doesn't say."""
    n_signed = verdict.claims.get(_N_FILES)
    return n_signed if isinstance(n_signed, int) else 0


def _missing(names: Sequence[str]) -> list[str]:
    """The names of numbered images that are not there between those that are."""
    numbers = {int(found[1]) for name in names if (found := _NUMBERED.fullmatch(name))}
    if not numbers:
        return []
    absent = (n for n in range(1, max(numbers)) if n not in numbers)
    return [f"{number:06d}.png" for number in islice(absent, MAX_NUMBERED)]


_NUMBERED = re.compile(r"(\d{6,9})\.png", re.ASCII)
MAX_NUMBERED = 100
"""So many missing images are counted: a name may have any number."""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(_some(names))


def _some(names: Sequence[str]) -> list[str]:
    """The first names; of the others, the number."""
    more = len(names) - MAX_NAMED
    return [*names[:MAX_NAMED], *([f"{more} more"] if more > 0 else [])]


# ----------------------------------------------------------------------- what a store says


def _unsaid(path: Path, state: str, *problems: str) -> Verdict:
    return Verdict(path, state, False, "", "", "", "", "", {}, problems)


def _verdict(path: Path, where: str, store: Mapping[str, Any]) -> Verdict:
    from talkhead.app.output.signing_keys import name_of_signer

    # Nothing where it is so damaged that C2PA leaves it out.
    manifest = _mapping(_mapping(store.get("manifests")).get(str(store.get("active_manifest"))))
    said = {str(a.get("label")): a.get("data") for a in manifest.get("assertions", [])}
    created = _created(said)
    signature = _mapping(manifest.get("signature_info"))
    tool = _mapping(next(iter(manifest.get("claim_generator_info") or ()), None))
    results = store.get("validation_results", {}).get("activeManifest", {})
    codes = [failure["code"] for failure in results.get("failure", [])]
    problems = tuple(code for code in codes if code != _NOT_TRUSTED)
    state = store.get("validation_state")
    return Verdict(
        path=path,
        state=VALID if manifest and state in ("Valid", "Trusted") else _state_of(problems),
        trusted=state == "Trusted",
        where=where,
        signer=name_of_signer(signature.get("common_name"), signature.get("issuer")),
        tool=" ".join(str(tool.get(key, "")) for key in ("name", "version")).strip(),
        created=str(created.get("when", signature.get("time", ""))),
        source_type=str(created.get("digitalSourceType", "")).rpartition("/")[2],
        claims=_plain_claims(said.get(SYNTHESIS)),
        problems=problems,
        certificate=str(signature.get("cert_serial_number", "")),
        title=str(manifest.get("title", "")),
    )


def _created(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """The action by which a file was made, among the assertions of its manifest."""
    for label, data in said.items():
        if label.startswith("c2pa.actions"):
            actions = _mapping(data).get("actions")
            for action in actions if isinstance(actions, list) else ():
                if _mapping(action).get("action") == "c2pa.created":
                    return _mapping(action)
    return {}


def _plain_claims(data: object) -> dict[str, Any]:
    """talkhead's statement; values of other kinds than it writes are left out."""
    return {
        name: value
        for name, value in _mapping(data).items()
        if value is None or isinstance(value, str | int | float)
    }


def _mapping(value: object) -> Mapping[str, Any]:
    """value where it is a mapping: whoever made a file decides what its assertions hold."""
    return value if isinstance(value, Mapping) else {}


def _state_of(problems: tuple[str, ...]) -> str:
    """What these make of a manifest that C2PA finds invalid."""
    of_signer = [code.startswith(_OF_THE_SIGNER) for code in problems]
    return REFUSED if of_signer and all(of_signer) else TAMPERED


def describe(verdict: Verdict) -> str:
    """A verdict in words, a line each."""
    why = f" ({_shortened('; '.join(verdict.problems))})" if verdict.problems else ""
    beside = sidecar_of(verdict.path).name
    head = {
        VALID: f"valid, {_standing(verdict)}: unchanged since it was signed. It says:",
        UNTRUSTED: "unchanged since it was signed, but the signer is none that you trust. It says:",
        REFUSED: f"unchanged since it was signed, but the signer's certificate doesn't hold{why}. "
        "It says:",
        TAMPERED: f"CHANGED since it was signed{why}. Don't rely on what it says:",
        REARRANGED: f"CHANGED since it was signed: its files are as they were signed, but they are "
        f"not the folder that was{why}. Don't rely on what it says:",
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
        "signed by": _signed_by(verdict),
        "manifest": verdict.where,
        "not signed": _listed(verdict.unsigned),
    }
    said = [f"  {name}: {_shortened(str(text))}" for name, text in lines.items() if text]
    return "\n".join(printable(line) for line in [f"{verdict.path}: {head}", *said])


def _shortened(text: str) -> str:
    """What is shown of a claim: there may be megabytes of it."""
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]} ..."


def _standing(verdict: Verdict) -> str:
    """Who stands behind the signer of an unchanged file."""
    if verdict.trusted:
        return "signer trusted"
    return "signed with this machine's own key" if verdict.local else "signer not trusted"


def _signed_by(verdict: Verdict) -> str:
    if verdict.trusted or not verdict.signer:
        return verdict.signer
    if verdict.local:
        return "this machine's own key"
    return f"{verdict.signer} (so its certificate says, and nobody vouches for it)"


_WORDS = {
    "trainedAlgorithmicMedia": "synthetic, made by a trained model",
    "compositeWithTrainedAlgorithmicMedia": "real footage with parts made by a trained model",
}


def _c2pa() -> Any:
    if missing := provenance_unavailable_reason():
        raise TalkheadError(missing)
    return importlib.import_module("c2pa")
