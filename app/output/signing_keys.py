"""Key and certificates that outputs are signed with: the user's, or local ones.

Local ones are made once, in the user's data folder: a root and a signing certificate that it issues
(C2PA refuses self-signed certificates). The root is known on this machine only, so the result is
"valid, signer not trusted": it shows that a file is unchanged, not who made it.
"""

from __future__ import annotations

import datetime
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from talkhead.errors import TalkheadError
from talkhead.storage import make_folder, read_bytes, translate_os_errors

SIGNING = "signing"
"""Folder of the local key in a home."""
KEY, CHAIN, ROOT = "key.pem", "chain.pem", "root.pem"
VALID_DAYS = 3650
MAX_PEM_BYTES = 4 << 20
"""Limit for a file of certificates or a key; all root certificates of a browser take 0.2 MiB."""
ORGANIZATION = "talkhead, a local key"
OLD_ORGANIZATION = "talkhead on this machine"
"""Organization in older keys, which is misleading on any other machine."""


@dataclass(frozen=True)
class Credentials:
    """Credentials that sign files.

    Attributes:
        chain: Certificates in PEM, the signer's first.
        key: Private key in PEM.
        algorithm: C2PA's name of the signature algorithm.
    """

    chain: bytes
    key: bytes
    algorithm: str


def credentials(home: Path, certificate: Path | None, key: Path | None) -> Credentials:
    """Load credentials.

    Args:
        home: Folder of the identities, with the local key, which is made on first use.
        certificate: The user's certificates in PEM. None: the local ones.
        key: Private key of that certificate in PEM.

    Returns:
        The credentials.

    Raises:
        TalkheadError: A file cannot be read, is not PEM, or key and certificate do not belong
            together.
    """
    if certificate is not None and key is not None:
        return _read(certificate, key)
    folder = home / SIGNING
    if not folder.is_dir():
        _make(folder)
    return _read(folder / CHAIN, folder / KEY)


def own_root(home: Path) -> Path | None:
    """Return the certificate of a home's local root.

    Args:
        home: Folder of the identities.

    Returns:
        Path; None if none was made yet.
    """
    root = home / SIGNING / ROOT
    return root if root.is_file() else None


def name_of_signer(common_name: str | None, organization: str | None) -> str:
    """Format the name of a certificate's owner.

    Args:
        common_name: Common name.
        organization: Organization.

    Returns:
        Both names, separated by a comma.
    """
    names = (common_name, ORGANIZATION if organization == OLD_ORGANIZATION else organization)
    return ", ".join(name for name in names if name)


def _read(certificate: Path, key: Path) -> Credentials:
    chain, secret = (read_bytes(path, MAX_PEM_BYTES) for path in (certificate, key))
    try:
        signer = x509.load_pem_x509_certificates(chain)[0]
    except ValueError as error:
        raise TalkheadError(
            f"{certificate}: contains no certificate. Pass a PEM file, the signer's first"
        ) from error
    try:
        private = serialization.load_pem_private_key(secret, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise TalkheadError(
            f"{key}: contains no usable private key. Pass a PEM file without a password"
        ) from error
    if _public(private.public_key()) != _public(signer.public_key()):
        raise TalkheadError(
            f"{key}: is not the key of {certificate}. Pass the two that belong together"
        )
    plain = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,  # the one format that C2PA reads
        serialization.NoEncryption(),
    )
    return Credentials(chain, plain, _algorithm(private, key))


def _public(key: object) -> bytes:
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_bytes(encoding, form))  # type: ignore[attr-defined]


def _algorithm(key: object, path: Path) -> str:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        name = {256: "es256", 384: "es384", 521: "es512"}.get(key.curve.key_size)
        if name is not None:
            return name
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    raise TalkheadError(
        f"{path}: C2PA does not support this key. Pass an elliptic curve, RSA or Ed25519 one"
    )


def _make(folder: Path) -> None:
    """Make root and signer in a new folder that only the user may read: all of it, or nothing.

    The root's key is discarded, so nothing else can be signed in its name.
    """
    make_folder(folder.parent)
    with translate_os_errors(folder):
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.tmp-", dir=folder.parent))  # mode 700
        try:
            for name, content in _new_files().items():
                descriptor = os.open(part / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            try:
                os.rename(part, folder)
            except OSError:
                if not folder.is_dir():  # otherwise another process was first, and its key is used
                    raise
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _new_files() -> dict[str, bytes]:
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name, name = _name("talkhead local root"), _name("talkhead local signer")
    root = (
        _certificate(root_name, root_name, root_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
    signer = (
        _certificate(name, root_name, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
        )
        .add_extension(issuer, critical=False)
        .sign(root_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    chain = signer.public_bytes(pem) + root.public_bytes(pem)
    return {KEY: secret, CHAIN: chain, ROOT: root.public_bytes(pem)}


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
        ]
    )


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
