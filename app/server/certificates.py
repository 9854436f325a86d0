"""The certificate of `serve --tls`, made on this machine. Browsers ask once whether to trust it."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from talkhead.storage import make_folder, translate_os_errors

LIFETIME = datetime.timedelta(days=397)
"""Longest validity that browsers accept."""
RENEWAL = datetime.timedelta(days=30)
CERTIFICATE, KEY = "certificate.pem", "key.pem"


@dataclass(frozen=True)
class TlsFiles:
    """A certificate with its key.

    Attributes:
        certificate: PEM file.
        key: PEM file, readable by its owner only.
        fingerprint: SHA-256 of the certificate, as browsers show it.
    """

    certificate: Path
    key: Path
    fingerprint: str


def tls_files(folder: Path, host: str) -> TlsFiles:
    """Return the certificate of this machine. It is made if there is none, or if it expires soon.

    Args:
        folder: Where it is stored.
        host: Address that the server listens on.

    Returns:
        The files.

    Raises:
        TalkheadError: They cannot be written.
    """
    certificate, key = folder / CERTIFICATE, folder / KEY
    names = _names(host)
    with translate_os_errors(folder):
        found = _read(certificate) if key.is_file() else None
        if found is None or not _is_usable(found, names):
            make_folder(folder)
            found = _write(certificate, key, names)
    digest = found.fingerprint(hashes.SHA256()).hex().upper()
    pairs = ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))
    return TlsFiles(certificate, key, pairs)


def _names(host: str) -> list[x509.GeneralName]:
    """List the names of this machine for the certificate."""
    machine = socket.gethostname()
    texts = dict.fromkeys(["localhost", machine, f"{machine}.local", "127.0.0.1", "::1", host])
    names: list[x509.GeneralName] = []
    for text in texts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(text.strip("[]"))))
        except ValueError:
            if text.isascii() and text:
                names.append(x509.DNSName(text))
    return names


def _read(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _is_usable(certificate: x509.Certificate, names: list[x509.GeneralName]) -> bool:
    """Return True if a certificate has the names and does not expire soon."""
    now = datetime.datetime.now(datetime.timezone.utc)
    known = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(names) <= set(known) and now + RENEWAL < certificate.not_valid_after_utc


def _write(certificate: Path, key: Path, names: list[x509.GeneralName]) -> x509.Certificate:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "talkhead serve")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(private, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = private.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key.unlink(missing_ok=True)
    with open(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secret)
    certificate.write_bytes(made.public_bytes(pem))
    return made
