"""A relay's own identity: its DERP key and certificate, made once and kept beside it (0600)."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from buri.core.keys import NodePrivate
from buri.netio.secretfile import load_or_make_key, write_secret

KEY_FILE = "derp.key"
CERTIFICATE_FILE = "derp.crt"
_FORMAT = "buri-derp-key 1"
# Clients judge NotBefore by clocks that may be far off, and a pin needs no end.
_NOT_BEFORE = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_NOT_AFTER = datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC)


def load_relay_key(state_dir: Path) -> NodePrivate:
    """The relay's private key of `state_dir`, made once. Raises as `load_or_make_key`."""
    return load_or_make_key(state_dir / KEY_FILE, NodePrivate, _FORMAT)


def load_or_make_certificate(state_dir: Path, names: Sequence[str]) -> tuple[bytes, bytes]:
    """Certificate and key (PEM) of `state_dir`, valid for `names` (host names, IP addresses); made anew for other names.

    Raises SystemFault when none can be kept.
    """
    path = state_dir / CERTIFICATE_FILE
    with contextlib.suppress(OSError, ValueError):
        text = path.read_bytes()
        certificate = x509.load_pem_x509_certificate(text)
        if _names(certificate) == set(names):
            end = text.index(b"-----BEGIN PRIVATE KEY-----")
            return text[:end], text[end:]
    chain, key = make_self_signed(names)
    write_secret(path, chain + key)
    return chain, key


def pin(chain_pem: bytes) -> str:
    """The CertName by which clients trust exactly this certificate (wire reference 1d)."""
    der = x509.load_pem_x509_certificate(chain_pem).public_bytes(serialization.Encoding.DER)
    return f"sha256-raw:{hashlib.sha256(der).hexdigest()}"


def self_signed_pin(chain_pem: bytes) -> str:
    """The pin of a chain that is one self-signed certificate, "" for any other.

    No authority vouches for it, so clients can trust it by its pin alone. As made by `openssl req -x509` it even says that
    it is an authority itself, which some clients refuse in a server, trusted or not; a pin is not concerned by that.
    """
    try:
        (certificate,) = x509.load_pem_x509_certificates(chain_pem)
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature):
        return ""
    return pin(chain_pem)


def make_self_signed(names: Sequence[str], *, authority: bool = False) -> tuple[bytes, bytes]:
    """A certificate for host names and IP addresses, and its key (both PEM); as an `authority` it can be a root, too."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Buri relay")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
    )
    if authority:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return (
        builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _names(certificate: x509.Certificate) -> set[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))}


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
