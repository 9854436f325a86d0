"""Signed manifests of live sessions."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from talkhead import __version__
from talkhead.app.cli.main import app
from talkhead.app.output import signing_keys
from talkhead.app.output.live_manifest import LiveStatement, sign_live
from talkhead.app.output.signing_keys import Credentials, credentials
from talkhead.app.output.verification import describe, verify

x509 = pytest.importorskip("cryptography.x509")
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: E402

SAID = LiveStatement("Anna", "head", "Anna B., in writing", "2026-05-03T10:00:00+00:00", True, "s1")
PEM = serialization.Encoding.PEM
KEYS: dict[str, Callable[[], Any]] = {
    "es256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "es384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "es512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ps256": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def own(home: Path) -> Credentials:
    return credentials(home, None, None)


def written(folder: Path, manifest: dict[str, Any], name: str = "session.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(manifest))
    return path


def decoded(part: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def encoded(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def issued(
    algorithm: str,
    *,
    is_ca: bool = True,
    days: int = 10,
    purpose: x509.ObjectIdentifier = x509.ExtendedKeyUsageOID.EMAIL_PROTECTION,
) -> tuple[Credentials, bytes]:
    """Credentials of a root of one's own, and the root's certificate."""
    root_key, key = KEYS["es256"](), KEYS[algorithm]()
    now = datetime.datetime.now(datetime.timezone.utc)

    def certificate(name: str, public: Any) -> Any:
        def named(text: str) -> Any:
            return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

        return (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named("root"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=20))
            .not_valid_after(now + datetime.timedelta(days=days if name == "signer" else 30))
        )

    root = certificate("root", root_key.public_key())
    root = root.add_extension(x509.BasicConstraints(is_ca, None), critical=True)
    usage = signing_keys._usage(signs_certificates=True)
    root = root.add_extension(usage, critical=True).sign(root_key, hashes.SHA256())
    signer = (
        certificate("signer", key.public_key())
        .add_extension(signing_keys._usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    secret = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, plain)
    return Credentials(signer.public_bytes(PEM), secret, algorithm), root.public_bytes(PEM)


def test_a_manifest_states_what_files_state(own: Credentials, home: Path, tmp_path: Path) -> None:
    manifest = sign_live(SAID, own)
    header = decoded(manifest["protected"])
    assert (header["alg"], header["typ"]) == ("ES256", "talkhead-live+jws")
    leaf = x509.load_pem_x509_certificates(own.chain)[0]
    mark = base64.urlsafe_b64encode(leaf.fingerprint(hashes.SHA256())).rstrip(b"=").decode()
    assert header["x5t#S256"] == mark
    verdict = verify(written(tmp_path, manifest), home=home)
    assert verdict.ok and verdict.local and not verdict.trusted
    assert verdict.source_type == "trainedAlgorithmicMedia"
    assert (verdict.tool, verdict.created) == (f"talkhead {__version__}", SAID.started)
    assert verdict.claims["synthetic"] is True and verdict.claims["badge"] is True
    assert verdict.claims["identity"] == "Anna" and verdict.claims["consent"] == SAID.consent
    text = describe(verdict)
    for words in ("own key", "session: s1", "each is marked", "Anna B., in writing", "synthetic"):
        assert words in text


def test_the_command_verifies_it(own: Credentials, home: Path, tmp_path: Path) -> None:
    path = written(tmp_path, sign_live(SAID, own))
    done = CliRunner().invoke(app, ["verify", str(path), "--home", str(home), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.output)["claims"]["session"] == "s1"
    changed = {**sign_live(SAID, own), "payload": encoded({"synthetic": False})}
    done = CliRunner().invoke(app, ["verify", str(written(tmp_path, changed)), "--home", str(home)])
    assert done.exit_code == 1 and "CHANGED since it was signed" in done.output


@pytest.mark.parametrize("algorithm", list(KEYS))
def test_trust_in_a_root(algorithm: str, home: Path, tmp_path: Path) -> None:
    signer, root = issued(algorithm)
    _, other = issued("es256")
    path = written(tmp_path, sign_live(SAID, signer))
    (tmp_path / "root.pem").write_bytes(root)
    (tmp_path / "other.pem").write_bytes(other)
    assert verify(path, home=home).state == "valid"
    assert verify(path, tmp_path / "root.pem", home).trusted
    untrusted = verify(path, tmp_path / "other.pem", home)
    assert (untrusted.state, untrusted.trusted, untrusted.local) == ("untrusted", False, False)
    assert untrusted.signer == "signer"


@pytest.mark.parametrize("part", ["payload", "protected", "signature", "chain", "algorithm"])
def test_changes_are_noticed(own: Credentials, home: Path, tmp_path: Path, part: str) -> None:
    manifest = sign_live(SAID, own)
    other = sign_live(SAID, issued("es256")[0])
    header = decoded(manifest["protected"])
    if part == "chain":  # certificates of someone else, with an unchanged signature
        manifest["protected"] = encoded({**header, "x5c": decoded(other["protected"])["x5c"]})
    elif part == "algorithm":
        manifest["protected"] = encoded({**header, "alg": "none"})
    else:
        manifest[part] = {**other, "payload": encoded({"identity": "Berta"})}[part]
    verdict = verify(written(tmp_path, manifest), home=home)
    assert verdict.state == "tampered" and verdict.problems


def test_certificates_that_are_not_valid(home: Path, tmp_path: Path) -> None:
    expired, _ = issued("es256", days=-1)
    verdict = verify(written(tmp_path, sign_live(SAID, expired)), home=home)
    assert (verdict.state, verdict.ok) == ("refused", False)
    signer, root = issued("es256", is_ca=False)  # its root may not issue certificates
    (tmp_path / "root.pem").write_bytes(root)
    path = written(tmp_path, sign_live(SAID, signer))
    assert verify(path, tmp_path / "root.pem", home).state == "untrusted"
    chained = Credentials(signer.chain + root, signer.key, signer.algorithm)
    assert verify(written(tmp_path, sign_live(SAID, chained)), home=home).state == "refused"


def test_certificates_for_other_purposes_are_refused(home: Path, tmp_path: Path) -> None:
    """Otherwise the certificate of any web server under the same root could sign."""
    signer, root = issued("es256", purpose=x509.ExtendedKeyUsageOID.SERVER_AUTH)
    (tmp_path / "root.pem").write_bytes(root)
    verdict = verify(written(tmp_path, sign_live(SAID, signer)), tmp_path / "root.pem", home)
    assert (verdict.state, verdict.trusted) == ("refused", False)


@pytest.mark.parametrize("damage", ["header", "certificate", "base64", "list", "type", "critical"])
def test_damaged_manifests(own: Credentials, home: Path, tmp_path: Path, damage: str) -> None:
    manifest = sign_live(SAID, own)
    manifest["protected"] = {
        "header": encoded({"alg": "ES256"}),
        "certificate": encoded({"alg": "ES256", "x5c": ["AAAA"]}),
        "base64": "***",
        "list": encoded([1]),
        "type": encoded({**decoded(manifest["protected"]), "typ": "JWT"}),
        "critical": encoded({**decoded(manifest["protected"]), "crit": ["exp"], "exp": 0}),
    }[damage]
    verdict = verify(written(tmp_path, manifest), home=home)
    assert verdict.state == "damaged" and verdict.problems


def test_other_json_is_not_taken_for_one(tmp_path: Path, home: Path) -> None:
    path = written(tmp_path, {"payload": 1, "protected": "x", "signature": "y"})
    assert verify(path, home=home).state == "unsupported"
