"""From a relay's settings to its front door and its DERP map."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path

import msgspec
import pytest
import trustme

from buri.core.addresses import AddrPort
from buri.core.errors import ConfigError
from buri.engine.frontport import Certificate
from buri.relay.config import RelayFlags, resolve
from buri.relay.identity import make_self_signed, pin
from buri.relay.station import RelayStation, reachable_address, write_map


def station(state_dir: Path, **flags: str) -> RelayStation:
    return RelayStation.prepare(resolve(RelayFlags(state_dir=str(state_dir), **flags), {}))


def test_the_front_door_gets_relay_stun_and_nothing_behind_it(tmp_path: Path) -> None:
    made = station(tmp_path / "new" / "state", listen="127.0.0.1:8443")
    config = made.front_config()
    assert config.listen == (AddrPort.parse("127.0.0.1:8443"),)
    assert config.stun == (AddrPort.parse("127.0.0.1:3478"), AddrPort.parse("127.0.0.1:3479"))
    assert config.relay_key == made.key.raw
    assert config.handoff is None
    assert (tmp_path / "new" / "state").stat().st_mode & 0o777 == 0o700


def test_an_own_certificate_is_pinned_at_the_port_really_bound(tmp_path: Path) -> None:
    made = station(tmp_path, listen="127.0.0.1:0", stun="127.0.0.1:4000", region="905")
    region = (made.derp_map([AddrPort.parse("127.0.0.1:39211")]).regions or {})[905]
    assert region is not None
    first, second = region.nodes or []
    assert (first.host_name, first.ipv4, first.ipv6, first.derp_port) == ("127.0.0.1", "127.0.0.1", "none", 39211)
    assert first.cert_name == pin(made.certificate.chain_pem)
    assert (first.stun_port, second.stun_port, second.stun_only) == (4000, 4001, True)


def test_a_given_certificate_is_verified_by_roots_under_its_name(tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("relay.example")
    chain = issued.cert_chain_pems[0].bytes()
    (tmp_path / "chain.pem").write_bytes(chain)
    (tmp_path / "key.pem").write_bytes(issued.private_key_pem.bytes())
    files = {"tls_cert": str(tmp_path / "chain.pem"), "tls_key": str(tmp_path / "key.pem")}
    made = station(tmp_path, listen="127.0.0.1:0", hostname="relay.example", stun="none", **files)
    assert made.certificate.chain_pem == chain
    region = (made.derp_map([AddrPort.parse("127.0.0.1:443")]).regions or {})[900]
    assert region is not None
    (only,) = region.nodes or []
    assert (only.host_name, only.cert_name, only.ipv4, only.stun_port) == ("relay.example", "", "", -1)
    (tmp_path / "key.pem").unlink()
    with pytest.raises(ConfigError, match=r"key\.pem: No such file"):
        station(tmp_path, hostname="relay.example", **files)


def test_a_given_certificate_that_nobody_vouches_for_is_pinned(tmp_path: Path) -> None:
    chain, key = make_self_signed(["relay.example"], authority=True)
    (tmp_path / "chain.pem").write_bytes(chain)
    (tmp_path / "key.pem").write_bytes(key)
    files = {"tls_cert": str(tmp_path / "chain.pem"), "tls_key": str(tmp_path / "key.pem")}
    made = station(tmp_path, listen="127.0.0.1:0", hostname="relay.example", stun="none", **files)
    newer = Certificate(*make_self_signed(["relay.example"]))
    for certificate, shown in ((None, chain), (newer, newer.chain_pem)):
        region = (made.derp_map([AddrPort.parse("127.0.0.1:443")], certificate).regions or {})[900]
        assert region is not None
        (only,) = region.nodes or []
        assert only.cert_name == pin(shown)


def test_the_map_is_kept_as_clients_read_it(tmp_path: Path) -> None:
    made = station(tmp_path, listen="127.0.0.1:0")
    kept = json.loads(write_map(tmp_path, made.derp_map([AddrPort.parse("127.0.0.1:443")])).read_text())
    assert kept["Regions"]["900"]["Nodes"][0]["CertName"].startswith("sha256-raw:")
    assert kept["omitDefaultRegions"]
    assert msgspec.json.encode(made.key.raw)[1:-1] not in (tmp_path / "derp-map.json").read_bytes()


def test_a_bound_address_is_its_own_name() -> None:
    assert reachable_address(ip_address("192.0.2.9")) == ip_address("192.0.2.9")
    assert not reachable_address(ip_address("0.0.0.0")).is_unspecified
