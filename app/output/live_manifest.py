"""Signed manifests of live sessions, which state that the pictures of a session are synthetic.

Pictures that are sent one by one cannot carry a C2PA manifest. A live session has a manifest of its own
instead, a JSON Web Signature (RFC 7515, flattened JSON) with the statements of a file's manifest. It is
signed with the same key, whose certificates it contains (`x5c`).
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from talkhead import __version__
from talkhead.app.output.provenance import SOURCE_TYPES, encodable
from talkhead.app.output.signing_keys import MAX_PEM_BYTES, Credentials, name_of_signer
from talkhead.app.output.verification import DAMAGED, REFUSED, TAMPERED, UNTRUSTED, VALID, Verdict
from talkhead.errors import TalkheadError
from talkhead.storage import decode_json, read_bytes

MEDIA_TYPE = "application/jose+json"
TYPE = "talkhead-live+jws"
"""Value of `typ` in the header."""
WHERE = "live session"
"""`where` of a verdict."""
PARTS = ("payload", "protected", "signature")
MAX_BYTES = 1 << 20
"""Limit for a manifest that is read; talkhead's take 3 kB."""
MAX_CERTIFICATES = 16
_ALGORITHMS: Mapping[str, tuple[str, hashes.HashAlgorithm]] = {
    "es256": ("ES256", hashes.SHA256()),
    "es384": ("ES384", hashes.SHA384()),
    "es512": ("ES512", hashes.SHA512()),
    "ps256": ("PS256", hashes.SHA256()),
    "ed25519": ("EdDSA", hashes.SHA512()),
}
"""C2PA's name of an algorithm -> JWS's name, and its hash."""
_HASHES = dict(_ALGORITHMS.values())
_PURPOSES = (
    ExtendedKeyUsageOID.EMAIL_PROTECTION,
    x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36"),  # signing of documents, RFC 9336
    x509.ObjectIdentifier("1.3.6.1.4.1.62558.2.1"),  # C2PA's own
)
"""Purposes of certificates that sign content: one is needed."""


@dataclass(frozen=True)
class LiveStatement:
    """What the manifest of a live session states.

    Attributes:
        identity: Name of the identity.
        mode: "paste" or "head".
        consent: The person's statement of consent. None: none was stored.
        started: When the session began, ISO 8601.
        badge: True if every picture is marked as made by a machine.
        session: ID of the session. "": it has none.
    """

    identity: str
    mode: str
    consent: str | None
    started: str
    badge: bool
    session: str = ""


def sign_live(statement: LiveStatement, signer: Credentials) -> dict[str, str]:
    """Sign the manifest of a live session.

    Args:
        statement: What it states.
        signer: Credentials of the signer.

    Returns:
        The manifest: payload, protected header and signature.
    """
    claims = {
        "synthetic": True,
        "tool": f"talkhead {__version__}",
        "when": statement.started,
        "identity": encodable(statement.identity),
        "mode": statement.mode,
        "consent": encodable(statement.consent or "no statement was stored"),
        "digitalSourceType": SOURCE_TYPES.get(statement.mode, SOURCE_TYPES["paste"]),
        "badge": statement.badge,
        "session": statement.session,
    }
    chain = [
        one.public_bytes(serialization.Encoding.DER)
        for one in x509.load_pem_x509_certificates(signer.chain)
    ]
    header = {
        "alg": _ALGORITHMS[signer.algorithm][0],
        "typ": TYPE,
        "x5c": [base64.b64encode(one).decode() for one in chain],
        "x5t#S256": _encode(hashlib.sha256(chain[0]).digest()),
    }
    payload, protected = (_encode(json.dumps(part).encode()) for part in (claims, header))
    signature = _sign(f"{protected}.{payload}".encode(), signer)
    return {"payload": payload, "protected": protected, "signature": _encode(signature)}


def _sign(content: bytes, signer: Credentials) -> bytes:
    key: Any = serialization.load_pem_private_key(signer.key, password=None)
    hashed = _ALGORITHMS[signer.algorithm][1]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        size = (key.curve.key_size + 7) // 8
        numbers = utils.decode_dss_signature(key.sign(content, ec.ECDSA(hashed)))
        return b"".join(number.to_bytes(size, "big") for number in numbers)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(content, _pss(hashed), hashed)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    return key.sign(content)


def _pss(hashed: hashes.HashAlgorithm) -> padding.PSS:
    return padding.PSS(padding.MGF1(hashed), hashed.digest_size)


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


# --------------------------------------------------------------------------- verification


def read_live_manifest(path: Path) -> Mapping[str, Any] | None:
    """Read a file that may be the manifest of a live session.

    Args:
        path: The file.

    Returns:
        The manifest, not verified yet. None: the file is something else.

    Raises:
        TalkheadError: The file cannot be read.
    """
    if path.stat().st_size > MAX_BYTES:
        return None
    content = read_bytes(path, MAX_BYTES)
    try:
        found = decode_json(content.decode("utf-8"))
    except ValueError:
        return None
    if isinstance(found, Mapping) and all(isinstance(found.get(part), str) for part in PARTS):
        return found
    return None


@dataclass(frozen=True)
class _Signed:
    """The content of a manifest.

    Attributes:
        claims: What it states.
        chain: The signer's certificates, the own one first.
        is_intact: True if the signature is that of the first certificate's key.
    """

    claims: Mapping[str, Any]
    chain: Sequence[x509.Certificate]
    is_intact: bool

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> _Signed:
        """Decode a manifest and check its signature. Raises ValueError if it is damaged."""
        header = _object(manifest["protected"])
        claims = _object(manifest["payload"])
        if header.get("typ") != TYPE or "crit" in header:
            raise ValueError("it is not the manifest of a live session")
        encoded = header.get("x5c")
        if not isinstance(encoded, list) or not 0 < len(encoded) <= MAX_CERTIFICATES:
            raise ValueError("it has no certificates")
        chain = [x509.load_der_x509_certificate(base64.b64decode(str(one))) for one in encoded]
        content = f"{manifest['protected']}.{manifest['payload']}".encode()
        signature = _decode(manifest["signature"])
        is_intact = _is_signed(content, signature, str(header.get("alg")), chain[0])
        return cls(claims, chain, is_intact)


def _object(text: str) -> Mapping[str, Any]:
    found = decode_json(_decode(text).decode("utf-8"))
    if not isinstance(found, Mapping):
        raise ValueError("a part of it is not a JSON object")
    return found


def verify_live(
    path: Path, manifest: Mapping[str, Any], anchors: Path | None, root: Path | None
) -> Verdict:
    """Verify the manifest of a live session.

    Args:
        path: The file that it was read from.
        manifest: The manifest.
        anchors: PEM certificates of trusted roots. A signer with another root is then UNTRUSTED.
        root: The home's own root. None: there is none.

    Returns:
        The verdict.

    Raises:
        TalkheadError: The anchors are not usable.
    """
    trusted_roots = [] if anchors is None else _roots(anchors)
    own_roots = [] if root is None else _roots(root)
    try:
        signed = _Signed.of(manifest)
        return _verdict(path, signed, anchors is not None, trusted_roots, own_roots)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        return Verdict(path, DAMAGED, False, WHERE, "", "", "", "", {}, (words,))


def _verdict(
    path: Path,
    signed: _Signed,
    needs_trust: bool,
    trusted_roots: Sequence[x509.Certificate],
    own_roots: Sequence[x509.Certificate],
) -> Verdict:
    """Judge a decoded manifest; needs_trust: a signer with none of the trusted roots is UNTRUSTED."""
    problem = _chain_problem(signed.chain)
    trusted = not problem and _ends_in(signed.chain, trusted_roots)
    state = VALID if trusted or not needs_trust else UNTRUSTED
    if problem:
        state = REFUSED
    if not signed.is_intact:
        state, problem = TAMPERED, "the signature does not match"
    leaf = signed.chain[0]
    claims = {
        name: value
        for name, value in signed.claims.items()
        if value is None or isinstance(value, str | int | float)
    }
    return Verdict(
        path,
        state,
        trusted,
        WHERE,
        name_of_signer(_name(leaf, NameOID.COMMON_NAME), _name(leaf, NameOID.ORGANIZATION_NAME)),
        str(claims.get("tool", "")),
        str(claims.get("when", "")),
        str(claims.get("digitalSourceType", "")).rpartition("/")[2],
        claims,
        (problem,) if problem else (),
        local=not problem and _ends_in(signed.chain, own_roots),
        certificate=str(leaf.serial_number),
    )


def _is_signed(content: bytes, signature: bytes, name: str, signer: x509.Certificate) -> bool:
    """Check a signature with an algorithm of that name."""
    key, hashed = signer.public_key(), _HASHES.get(name)
    try:
        if hashed is None:
            return False
        if isinstance(key, ec.EllipticCurvePublicKey) and name.startswith("ES"):
            size = (key.curve.key_size + 7) // 8
            if len(signature) != 2 * size:
                return False
            numbers = (int.from_bytes(part, "big") for part in (signature[:size], signature[size:]))
            key.verify(utils.encode_dss_signature(*numbers), content, ec.ECDSA(hashed))
        elif isinstance(key, rsa.RSAPublicKey) and name == "PS256":
            key.verify(signature, content, _pss(hashed), hashed)
        elif isinstance(key, ed25519.Ed25519PublicKey) and name == "EdDSA":
            key.verify(signature, content)
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _chain_problem(chain: Sequence[x509.Certificate]) -> str:
    """Describe why a chain of certificates is not valid now; "" if it is."""
    if not all(_is_current(one) for one in chain):
        return "a certificate is not valid at this time"
    for depth, (one, issuer) in enumerate(pairwise(chain)):
        if not _has_issued(issuer, one, depth):
            return "the certificates do not belong together"
    return "" if _may_sign(chain[0]) else "the certificate is not one for signing content"


def _is_current(one: x509.Certificate) -> bool:
    now = datetime.datetime.now(datetime.timezone.utc)
    return one.not_valid_before_utc <= now <= one.not_valid_after_utc


def _may_sign(one: x509.Certificate) -> bool:
    """Check the purposes of a signer's certificate, as for the manifests of files."""
    try:
        usage = one.extensions.get_extension_for_class(x509.KeyUsage).value
        purposes = one.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return usage.digital_signature and any(purpose in purposes for purpose in _PURPOSES)


def _has_issued(issuer: x509.Certificate, one: x509.Certificate, depth: int) -> bool:
    """Check that a certificate was issued by another one, which may do so.

    Depth is the number of certificates between the issuer and the first of the chain.
    """
    try:
        limits = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
        one.verify_directly_issued_by(issuer)
    except (x509.ExtensionNotFound, InvalidSignature, ValueError, TypeError):
        return False
    is_long = limits.path_length is not None and depth > limits.path_length
    return limits.ca and usage.key_cert_sign and not is_long


def _ends_in(chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]) -> bool:
    """Check that one of the roots is in a valid chain, or has issued its last certificate."""
    if any(one in roots for one in chain[1:]):
        return True
    depth = len(chain) - 1
    return any(_has_issued(root, chain[-1], depth) and _is_current(root) for root in roots)


def _roots(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(read_bytes(path, MAX_PEM_BYTES))
    except ValueError as error:
        raise TalkheadError(f"{path}: contains no certificates. Pass a PEM file") from error


def _name(certificate: x509.Certificate, kind: x509.ObjectIdentifier) -> str | None:
    found = certificate.subject.get_attributes_for_oid(kind)
    return str(found[0].value) if found else None
