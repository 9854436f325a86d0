"""Verification: read the C2PA manifest of a file or a folder of images, and describe it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from talkhead.app.home.identities import Home
from talkhead.app.output.provenance import (
    FOLDER,
    N_FILES,
    OFFLINE,
    OTHER,
    SYNTHESIS,
    load_c2pa,
    sidecar_of,
)
from talkhead.errors import TalkheadError
from talkhead.storage import decode_json, read_bytes, translate_os_errors
from talkhead.terminal import printable

_UNTRUSTED_CODE = "signingCredential.untrusted"
"""C2PA's code for a signer whose root is unknown."""
_SIGNER_CODES = ("signingCredential.", "claimSignature.outsideValidity")
"""Prefixes of C2PA's codes about the signer's certificate, not the file."""
VALID, UNTRUSTED, REFUSED, TAMPERED = "valid", "untrusted", "refused", "tampered"
REARRANGED = "rearranged"
NONE, UNSUPPORTED, DAMAGED, REMOTE = "none", "unsupported", "damaged", "remote"
SIGNED_SUFFIXES = (".png", ".wav")
"""Suffixes of the signed files in a folder of images."""
SHOWN_CHARS = 2000
MAX_MANIFEST_BYTES = 64 << 20
"""Limit for a manifest next to a file; talkhead's take 20 kB."""
MAX_NAMED = 5
"""Maximum number of files that one problem names; the others are only counted."""


@dataclass(frozen=True)
class Verdict:
    """The result of verifying a file's manifest.

    States: VALID; UNTRUSTED, the file is unchanged, but none of the given roots has issued the
    signer's certificate; REFUSED, it is unchanged, but the signer's certificate is not valid, for
    example expired; TAMPERED, file or manifest was changed; REARRANGED, the files of a folder are
    unchanged, but some were added, removed or renamed; NONE, there is no manifest; UNSUPPORTED, C2PA
    does not support such files, and there is no manifest next to it; DAMAGED, file or manifest cannot
    be read; REMOTE, the manifest is hosted remotely, and is never fetched.

    Attributes:
        path: The file.
        state: See above.
        trusted: True if a given root has issued the signer's certificate; for a folder, that of
            every file.
        where: "embedded", "sidecar", "live session", a sentence about a web export, or "".
        signer: Name of the signer.
        tool: Name and version of the tool that made the file.
        created: When it was made.
        source_type: IPTC digital source type.
        claims: talkhead's statements by name.
        problems: C2PA's codes or messages, the address of a remote manifest, or what is wrong
            with a folder.
        local: True if it was signed with the local key of this home; for a folder, if every file
            was.
        certificate: Serial number of the signer's certificate.
        title: Name of the file when it was signed.
        unsigned: Names of other files in a folder.
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
        """True if the manifest is valid."""
        return self.state == VALID


def verify(path: Path, anchors: Path | None = None, home: Path | None = None) -> Verdict:
    """Verify the manifest in a file, or next to it, or that of a live session or a web export.

    Args:
        path: A file, a folder of images, the manifest of a live session, or a web export or the
            statement in it. For a folder of images, the verdict is that on the first invalid file,
            otherwise that on the folder as a whole.
        anchors: PEM certificates of trusted roots. A signer with another root is then UNTRUSTED.
        home: Folder of the identities, with the local key. None: the user's own.

    Returns:
        The verdict.

    Raises:
        TalkheadError: The file is missing, the folder contains no images, the anchors are not
            usable, or c2pa is not installed.
    """
    c2pa = load_c2pa()
    from talkhead.app.output import live_manifest  # needs cryptography, checked above
    from talkhead.app.output.signing_keys import own_root
    from talkhead.app.web_export.request import STATEMENT
    from talkhead.app.web_export.site_check import compare_site

    root = own_root(Home.locate(home).path)
    reader = _Reader.made(c2pa, anchors, root)
    file = path / STATEMENT if (path / STATEMENT).is_file() else path
    if file.is_dir():
        return _verify_folder(file, reader)
    if not file.is_file():
        raise TalkheadError(f"{path}: there is no such file. Check the path")
    manifest = live_manifest.read_live_manifest(file)
    if manifest is not None:
        return compare_site(live_manifest.verify_live(file, manifest, anchors, root))
    return _verify_folder(path, reader) if path.is_dir() else reader.verify(path)


@dataclass(frozen=True)
class _Reader:
    """Reads manifests without network access.

    Attributes:
        c2pa: The c2pa module.
        trusting: Context with the trusted roots. None: no roots were given.
        own: Context with the home's own root. None: there is none.
    """

    c2pa: Any
    trusting: Any
    own: Any

    @classmethod
    def made(cls, c2pa: Any, anchors: Path | None, root: Path | None) -> _Reader:
        """Make a reader. Raises TalkheadError if the anchors contain no certificates."""
        trusting = None if anchors is None else _context(c2pa, anchors)
        return cls(c2pa, trusting, None if root is None else _context(c2pa, root))

    def verify(self, path: Path) -> Verdict:
        """Verify one file."""
        if self.trusting is None:
            verdict = self._read(path, self.own or self._no_roots())
            return replace(verdict, trusted=False, local=verdict.trusted)
        verdict = self._read(path, self.trusting)
        if verdict.trusted or not verdict.ok:
            return verdict
        local = self.own is not None and self._read(path, self.own).trusted
        return replace(verdict, state=UNTRUSTED, local=local)

    def _no_roots(self) -> Any:
        return self.c2pa.Context.from_dict({"verify": OFFLINE})

    def _read(self, path: Path, context: Any) -> Verdict:
        """Read a manifest with the roots of a context."""
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
        except ValueError as error:  # for example nested too deep
            return _without_claims(path, DAMAGED, str(error))
        except c2pa.C2paError.ManifestNotFound:
            return _without_claims(path, NONE)
        except c2pa.C2paError.NotSupported:
            return _without_claims(path, UNSUPPORTED)
        except c2pa.C2paError as error:
            words = " ".join(str(error).split())
            remote = _REMOTE.search(words)
            return (
                _without_claims(path, REMOTE, remote[1])
                if remote
                else _without_claims(path, DAMAGED, words)
            )


_REMOTE = re.compile(r"must fetch remote manifests from url (\S+)")
"""C2PA's message that it would fetch a manifest, for which it has no error class."""


def _context(c2pa: Any, anchors: Path) -> Any:
    """Make a context without network access that trusts these roots."""
    from talkhead.app.output.signing_keys import MAX_PEM_BYTES

    roots = read_bytes(anchors, MAX_PEM_BYTES).decode("utf-8", "replace")
    try:
        return c2pa.Context.from_dict(
            {"trust": {"trust_anchors": roots}, "verify": {**OFFLINE, "verify_trust": True}}
        )
    except c2pa.C2paError as error:
        raise TalkheadError(f"{anchors}: contains no certificates. Pass a PEM file") from error


def _verify_folder(folder: Path, reader: _Reader) -> Verdict:
    with translate_os_errors(folder):
        entries = sorted(folder.iterdir())
    files = [e for e in entries if e.suffix.lower() in SIGNED_SUFFIXES and e.is_file()]
    if not files:
        raise TalkheadError(
            f"{folder}: contains no images. Pass a file, or a folder that speak made"
        )
    verdicts = [reader.verify(file) for file in files]
    worst = min(verdicts, key=lambda verdict: _WORST_FIRST.index(verdict.state))
    if not worst.ok:
        return worst
    problems = _folder_problems(verdicts)
    counted = all(verdict.claims.get(FOLDER) for verdict in verdicts)
    where = f"embedded in all {len(files)} files"
    if not counted:
        where += ", which do not state their number: the last ones may be missing"
    return replace(
        verdicts[0],
        path=folder,
        state=REARRANGED if problems else VALID,
        where=where,
        trusted=all(verdict.trusted for verdict in verdicts),
        local=all(verdict.local for verdict in verdicts),
        signer="; ".join(_abbreviated(list(dict.fromkeys(verdict.signer for verdict in verdicts)))),
        problems=tuple(problems),
        title="",
        unsigned=tuple(entry.name for entry in entries if entry not in set(files)),
    )


_WORST_FIRST = (TAMPERED, DAMAGED, NONE, REMOTE, UNSUPPORTED, REFUSED, UNTRUSTED, VALID)


def _folder_problems(verdicts: Sequence[Verdict]) -> list[str]:
    """List how a folder of unchanged files differs from the one that speak signed; nothing for folders
    without statements of talkhead."""
    if not any(verdict.claims for verdict in verdicts):
        return []
    renamed = [v.path.name for v in verdicts if v.claims and v.title != v.path.name]
    problems = {
        "signed by another signer": _differing(
            verdicts, lambda v: (v.signer, v.certificate, v.local)
        ),
        "of another folder": _differing(verdicts, _folder_of),
        "signed under another name": renamed,
        "missing": _missing_images([verdict.path.name for verdict in verdicts]),
    }
    found = [f"{what}: {as_list(names)}" for what, names in problems.items() if names]
    n_signed = _n_signed(_typical(verdicts, _folder_of))
    if n_signed not in (0, len(verdicts)):
        found.append(f"{n_signed} files were signed, {len(verdicts)} were found")
    return found


def _differing(verdicts: Sequence[Verdict], key: Callable[[Verdict], Hashable]) -> list[str]:
    """List the files whose key is not the most common one."""
    usual = key(_typical(verdicts, key))
    return [verdict.path.name for verdict in verdicts if key(verdict) != usual]


def _typical(verdicts: Sequence[Verdict], key: Callable[[Verdict], Hashable]) -> Verdict:
    """Return the first file that has the most common key."""
    usual = Counter(map(key, verdicts)).most_common(1)[0][0]
    return next(verdict for verdict in verdicts if key(verdict) == usual)


def _folder_of(verdict: Verdict) -> Hashable:
    return verdict.claims.get(FOLDER), _n_signed(verdict)


def _n_signed(verdict: Verdict) -> int:
    """Return how many files were signed together with this one; 0 if it is not stated."""
    n_signed = verdict.claims.get(N_FILES)
    return n_signed if isinstance(n_signed, int) else 0


def _missing_images(names: Sequence[str]) -> list[str]:
    """List the numbered images that are missing between those that exist."""
    numbers = {int(found[1]) for name in names if (found := _NUMBERED.fullmatch(name))}
    if not numbers:
        return []
    absent = (n for n in range(1, max(numbers)) if n not in numbers)
    return [f"{number:06d}.png" for number in islice(absent, MAX_NUMBERED)]


_NUMBERED = re.compile(r"(\d{6,9})\.png", re.ASCII)
MAX_NUMBERED = 100
"""Maximum number of missing images to list, since a name may contain any number."""


def as_list(names: Sequence[str]) -> str:
    """Format names as a list, of which only the first ones are named.

    Args:
        names: The names.

    Returns:
        The list.
    """
    return ", ".join(_abbreviated(names))


def _abbreviated(names: Sequence[str]) -> list[str]:
    """List the first names, and the number of the others."""
    more = len(names) - MAX_NAMED
    return [*names[:MAX_NAMED], *([f"{more} more"] if more > 0 else [])]


def _without_claims(path: Path, state: str, *problems: str) -> Verdict:
    return Verdict(path, state, False, "", "", "", "", "", {}, problems)


def _verdict(path: Path, where: str, store: Mapping[str, Any]) -> Verdict:
    from talkhead.app.output.signing_keys import name_of_signer

    # Empty if it is so damaged that C2PA omits it.
    manifest = _mapping(_mapping(store.get("manifests")).get(str(store.get("active_manifest"))))
    assertions = {str(a.get("label")): a.get("data") for a in manifest.get("assertions", [])}
    created = _created(assertions)
    signature = _mapping(manifest.get("signature_info"))
    tool = _mapping(next(iter(manifest.get("claim_generator_info") or ()), None))
    results = store.get("validation_results", {}).get("activeManifest", {})
    codes = [failure["code"] for failure in results.get("failure", [])]
    problems = tuple(code for code in codes if code != _UNTRUSTED_CODE)
    state = store.get("validation_state")
    return Verdict(
        path=path,
        state=VALID if manifest and state in ("Valid", "Trusted") else _invalid_state(problems),
        trusted=state == "Trusted",
        where=where,
        signer=name_of_signer(signature.get("common_name"), signature.get("issuer")),
        tool=" ".join(str(tool.get(key, "")) for key in ("name", "version")).strip(),
        created=str(created.get("when", signature.get("time", ""))),
        source_type=str(created.get("digitalSourceType", "")).rpartition("/")[2],
        claims=_plain_claims(assertions.get(SYNTHESIS)),
        problems=problems,
        certificate=str(signature.get("cert_serial_number", "")),
        title=str(manifest.get("title", "")),
    )


def _created(assertions: Mapping[str, Any]) -> Mapping[str, Any]:
    """Find the action by which a file was made among the assertions of its manifest."""
    for label, data in assertions.items():
        if label.startswith("c2pa.actions"):
            actions = _mapping(data).get("actions")
            for action in actions if isinstance(actions, list) else ():
                if _mapping(action).get("action") == "c2pa.created":
                    return _mapping(action)
    return {}


def _plain_claims(data: object) -> dict[str, Any]:
    """Return talkhead's statements, without values of types that it does not write."""
    return {
        name: value
        for name, value in _mapping(data).items()
        if value is None or isinstance(value, str | int | float)
    }


def _mapping(value: object) -> Mapping[str, Any]:
    """Return value if it is a mapping: the content of assertions is untrusted."""
    return value if isinstance(value, Mapping) else {}


def _invalid_state(problems: tuple[str, ...]) -> str:
    """Return the state of a manifest that C2PA finds invalid for these reasons."""
    of_signer = [code.startswith(_SIGNER_CODES) for code in problems]
    return REFUSED if of_signer and all(of_signer) else TAMPERED


def describe(verdict: Verdict) -> str:
    """Format a verdict as text.

    Args:
        verdict: The verdict.

    Returns:
        Lines of text.
    """
    why = f" ({_shortened('; '.join(verdict.problems))})" if verdict.problems else ""
    beside = sidecar_of(verdict.path).name
    head = {
        VALID: f"valid, {_trust_of(verdict)}: unchanged since it was signed. It states:",
        UNTRUSTED: "unchanged since it was signed, but the signer is not one that you trust. It states:",
        REFUSED: f"unchanged since it was signed, but the signer's certificate is not valid{why}. "
        "It states:",
        TAMPERED: f"CHANGED since it was signed{why}. Do not rely on what it states:",
        REARRANGED: f"CHANGED since it was signed: its files are unchanged, but the folder is not "
        f"the one that was signed{why}. Do not rely on what it states:",
        NONE: "has no provenance: its origin is not stated.",
        UNSUPPORTED: f"such files cannot contain a C2PA manifest, and there is no {beside} next to it: "
        "its origin is not stated.",
        REMOTE: f"its manifest is hosted remotely{why} and is not fetched: what it states is not known.",
        DAMAGED: f"cannot be read: the file or its manifest is damaged{why}.",
    }[verdict.state]
    lines = {
        "what": _SOURCE_TYPE_NAMES.get(verdict.source_type, verdict.source_type),
        "made by": verdict.tool,
        "when": verdict.created,
        "who is shown": verdict.claims.get("identity", ""),
        "mode": verdict.claims.get("mode", ""),
        "consent": verdict.claims.get("consent", ""),
        "session": verdict.claims.get("session", ""),
        "pictures": _BADGE_NAMES.get(verdict.claims.get("badge"), ""),
        "signed by": _signed_by(verdict),
        "manifest": verdict.where,
        "not signed": as_list(verdict.unsigned),
    }
    details = [f"  {name}: {_shortened(str(text))}" for name, text in lines.items() if text]
    return "\n".join(printable(line) for line in [f"{verdict.path}: {head}", *details])


def _shortened(text: str) -> str:
    """Shorten a claim for display: it may be megabytes long."""
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]} ..."


def _trust_of(verdict: Verdict) -> str:
    """Describe how far the signer of an unchanged file is trusted."""
    if verdict.trusted:
        return "signer trusted"
    return "signed with this machine's own key" if verdict.local else "signer not trusted"


def _signed_by(verdict: Verdict) -> str:
    if verdict.trusted or not verdict.signer:
        return verdict.signer
    if verdict.local:
        return "this machine's own key"
    return f"{verdict.signer} (according to its certificate, which no trusted root confirms)"


_BADGE_NAMES = {
    None: "",
    True: "each is marked as made by a machine",
    False: "they are not marked as made by a machine",
}
_SOURCE_TYPE_NAMES = {
    "trainedAlgorithmicMedia": "synthetic, made by a trained model",
    "compositeWithTrainedAlgorithmicMedia": "real footage with parts made by a trained model",
}
