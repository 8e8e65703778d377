"""A relay of its own: from its settings to what the front door is opened with and what clients are told of it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Self

import msgspec

from buri.core.addresses import AddrPort, IPAddress
from buri.core.errors import ConfigError, SystemFault
from buri.core.keys import NodePrivate
from buri.engine.frontport import Certificate, FrontConfig
from buri.netio.secretfile import write_public
from buri.relay.config import RelayConfig
from buri.relay.identity import load_or_make_certificate, load_relay_key, self_signed_pin
from buri.wire.tailcfg.derpmap import DERPMap
from buri.wire.tailcfg.relayregion import OwnRelay, build_region

MAP_FILE = "derp-map.json"
# Asking the routing table needs a destination; nothing is sent (documentation addresses, RFC 5737 and RFC 3849).
_OUTSIDE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


class RelayStation(msgspec.Struct, frozen=True):
    """Settings with the relay's key and certificate; a self-signed one, such as its own, clients are told to pin."""

    config: RelayConfig
    hostname: str
    key: NodePrivate
    certificate: Certificate

    @classmethod
    def prepare(cls, config: RelayConfig) -> Self:
        """Read or make what `config.state_dir` keeps. Raises ConfigError or SystemFault."""
        try:
            config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SystemFault(
                f"The state directory {config.state_dir} cannot be made: {error.strerror}.",
                remedy="Give another --state-dir.",
            ) from error
        hostname = config.hostname or str(reachable_address(config.listen.address))
        key = load_relay_key(config.state_dir)
        if config.tls_files is not None:
            return cls(config, hostname, key, read_certificate(*config.tls_files))
        chain, chain_key = load_or_make_certificate(config.state_dir, [hostname])
        return cls(config, hostname, key, Certificate(chain, chain_key))

    def front_config(self) -> FrontConfig:
        """What the front door is opened with: relay and STUN, and nothing behind it."""
        stun = self.config.stun
        return FrontConfig(
            listen=(self.config.listen,),
            stun=() if stun is None else (stun, AddrPort(stun.address, stun.port + 1)),
            certificate=self.certificate,
            relay_key=self.key.raw,
        )

    def derp_map(self, listening: Sequence[AddrPort], certificate: Certificate | None = None) -> DERPMap:
        """The relay's region as `buri server --derp-map` and every Tailscale client read it; with a newer certificate."""
        relay = OwnRelay(
            host=self.hostname,
            addresses=_addresses(self.hostname),
            port=listening[0].port,
            stun_port=None if self.config.stun is None else self.config.stun.port,
            certificate=self_signed_pin((certificate or self.certificate).chain_pem),
            name=f"Buri relay {self.hostname}",
        )
        number = self.config.region
        return DERPMap(regions={number: build_region(relay, number, f"buri-{number}")}, omit_default_regions=True)


def write_map(state_dir: Path, derp_map: DERPMap) -> Path:
    """Keep the map beside the relay, readable for all (it holds no secret). Raises SystemFault."""
    path = state_dir / MAP_FILE
    write_public(path, msgspec.json.format(msgspec.json.encode(derp_map), indent=2) + b"\n")
    return path


def read_certificate(chain: Path, key: Path) -> Certificate:
    """A chain and key as they are on disk now. Raises ConfigError."""
    try:
        return Certificate(chain.read_bytes(), key.read_bytes())
    except OSError as error:
        raise ConfigError(f"The certificate cannot be read: {error.filename}: {error.strerror}.") from error


def reachable_address(bound: IPAddress) -> IPAddress:
    """The address by which others reach a socket bound to `bound`: itself, or the one this host speaks from."""
    if not bound.is_unspecified:
        return bound
    for family, outside in _OUTSIDE:
        if bound.version == 4 and family != socket.AF_INET:
            continue
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((outside, 9))
            return ip_address(probe.getsockname()[0])
    return ip_address("127.0.0.1")


def _addresses(hostname: str) -> tuple[IPAddress, ...]:
    with contextlib.suppress(ValueError):
        return (ip_address(hostname),)
    return ()
