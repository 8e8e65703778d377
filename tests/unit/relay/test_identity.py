"""A relay's key and certificate: made once, kept, and such that real clients accept them (wire reference 1d)."""

from __future__ import annotations

import datetime
import hashlib
import ssl
from pathlib import Path

import trustme
from cryptography import x509

from buri.relay.identity import load_or_make_certificate, load_relay_key, make_self_signed, pin, self_signed_pin


def test_the_key_is_made_once(tmp_path: Path) -> None:
    assert load_relay_key(tmp_path) == load_relay_key(tmp_path)


def test_the_certificate_is_kept_until_the_names_change(tmp_path: Path) -> None:
    chain, _ = load_or_make_certificate(tmp_path, ["relay.example"])
    assert load_or_make_certificate(tmp_path, ["relay.example"])[0] == chain
    assert load_or_make_certificate(tmp_path, ["192.0.2.1"])[0] != chain
    assert (tmp_path / "derp.crt").stat().st_mode & 0o777 == 0o600


def test_clients_that_pin_accept_the_certificate(tmp_path: Path) -> None:
    chain, _ = load_or_make_certificate(tmp_path, ["relay.example", "192.0.2.1"])
    (certificate,) = x509.load_pem_x509_certificates(chain)  # exactly one, or clients refuse the pin
    assert certificate.not_valid_before_utc < datetime.datetime(2021, 1, 1, tzinfo=datetime.UTC)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["relay.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.1"]
    der = ssl.PEM_cert_to_DER_cert(chain.decode())
    assert pin(chain) == f"sha256-raw:{hashlib.sha256(der).hexdigest()}"


def test_only_a_lone_self_signed_certificate_is_to_be_pinned() -> None:
    chain, key = make_self_signed(["relay.example"], authority=True)
    assert self_signed_pin(chain) == pin(chain)
    issued = trustme.CA().issue_cert("relay.example")
    assert self_signed_pin(issued.cert_chain_pems[0].bytes()) == ""
    assert self_signed_pin(chain + chain) == ""
    assert self_signed_pin(key) == self_signed_pin(b"") == ""


def test_a_certificate_file_that_does_not_parse_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "derp.crt").write_bytes(b"-----BEGIN CERTIFICATE-----\n")
    chain, key = load_or_make_certificate(tmp_path, ["relay.example"])
    assert b"PRIVATE KEY" in key
    assert b"PRIVATE KEY" not in chain
