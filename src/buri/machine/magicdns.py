"""MagicDNS: which name of the tailnet is which address, and who else is asked for the rest. Pure.

Source: `tailcfg.DNSConfig` and `net/dns/resolver` of Tailscale (wire reference 1h). A node is known by its full name
under the tailnet's suffix and by its first label alone; a name under the suffix that no node has does not exist; what a
route claims goes to that route's resolvers, longest suffix first, a route without resolvers is ours to answer; the
rest goes to the default resolvers. PTR questions for the tailnet's addresses are answered here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address

import msgspec

from buri.core.addresses import AddrPort, IPAddress
from buri.core.errors import WireError
from buri.wire.dnsmessage import RecordType, reverse_name
from buri.wire.tailcfg.dns import DNSConfig, Resolver
from buri.wire.tailcfg.node import Node

POSITIVE_TTL_S = 5
NEGATIVE_TTL_S = 10
SERVICE_IPV4 = ip_address("100.100.100.100")
SERVICE_IPV6 = ip_address("fd7a:115c:a1e0::53")
FALLBACK_IPV4 = ip_address("127.100.100.100")
TAILNET_IPV4 = IPv4Network("100.64.0.0/10")
TAILNET_IPV6 = IPv6Network("fd7a:115c:a1e0::/48")
_OWN_SERVERS = frozenset({SERVICE_IPV4, SERVICE_IPV6, FALLBACK_IPV4})
_DNS_PORT = 53
_DOMAIN = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


class Found(msgspec.Struct, frozen=True, tag=True):
    """The answer is here: the records of the type asked, maybe none though the name exists."""

    values: tuple[IPAddress | str, ...]
    zone: str


class Absent(msgspec.Struct, frozen=True, tag=True):
    """The name does not exist, says `zone`."""

    zone: str


class Forward(msgspec.Struct, frozen=True, tag=True):
    """Others know; no upstream at all: nobody we were told of."""

    upstreams: tuple[AddrPort, ...]


Decision = Found | Absent | Forward


class Names:
    """What one netmap and the host's own resolvers make of a question."""

    def __init__(
        self,
        config: DNSConfig = DNSConfig(),  # noqa: B008 - a frozen default: nobody writes to it
        nodes: Iterable[Node] = (),
        *,
        host_upstreams: tuple[AddrPort, ...] = (),
    ) -> None:
        """`nodes`: this one and its peers. `host_upstreams`: asked where the tailnet names no default resolver."""
        # A server's words go into files of this machine: what is no plain domain name is left out.
        self.search = tuple(domain for domain in map(_tidy, config.domains or ()) if is_domain(domain))
        self.suffix = self.search[0] if self.search else ""
        self._hosts: dict[str, list[IPAddress]] = {}
        self._pointers: dict[str, str] = {}
        if config.proxied:
            for node in nodes:
                self._add_node(node)
        for record in config.extra_records or ():
            self._add_record(record.name, record.type, record.value)
        routes: dict[str, tuple[AddrPort, ...] | None] = {
            _tidy(suffix): _addresses(resolvers or ()) if resolvers else None
            for suffix, resolvers in (config.routes or {}).items()
            if is_domain(_tidy(suffix))
        }
        if config.proxied and self.suffix:
            routes.setdefault(self.suffix, None)
        self._routes: Mapping[str, tuple[AddrPort, ...] | None] = routes
        defaults = _addresses(config.resolvers or ()) or host_upstreams or _addresses(config.fallback_resolvers or ())
        self.defaults = tuple(upstream for upstream in defaults if upstream.address not in _OWN_SERVERS)
        self.overrides = bool(_addresses(config.resolvers or ()))
        self.needed = bool(self._hosts or self._routes or self.overrides)

    @property
    def match_domains(self) -> tuple[str, ...]:
        """The suffixes that a resolver which can split sends here, longest first."""
        return tuple(sorted(self._routes, key=lambda suffix: (-suffix.count("."), suffix)))

    def decide(self, name: str, kind: int) -> Decision:
        """What to do with a question: `name` is lower-case and without its final dot."""
        addresses = self._hosts.get(name)
        if addresses is not None:
            return Found(tuple(_of_type(addresses, kind)), self._zone(name) or name)
        if name.endswith((".in-addr.arpa", ".ip6.arpa")):
            pointer = self._pointers.get(name)
            if pointer is not None:
                return Found((pointer,) if kind == RecordType.PTR else (), "arpa")
            if _is_tailnets(name):
                return Absent("arpa")
        zone = self._zone(name)
        if zone is not None:
            upstreams = self._routes[zone]
            if upstreams is not None:
                return Forward(tuple(upstream for upstream in upstreams if upstream.address not in _OWN_SERVERS))
            if name == zone or any(known.endswith(f".{name}") for known in self._hosts):
                return Found((), zone)  # the zone itself, and what lies between it and a name
            return Absent(zone)
        return Forward(self.defaults)

    def _zone(self, name: str) -> str | None:
        """The longest suffix that a route claims."""
        while name:
            if name in self._routes:
                return name
            _, _, name = name.partition(".")
        return None

    def _add_node(self, node: Node) -> None:
        full = _tidy(node.name)
        addresses = [address for address in map(_address, node.addresses or ()) if address is not None]
        if not full or not addresses:
            return
        self._hosts[full] = addresses
        label, _, rest = full.partition(".")
        if rest == self.suffix:
            self._hosts[label] = addresses
        for address in addresses:
            self._pointers[reverse_name(address)] = full

    def _add_record(self, name: str, kind: str, value: str) -> None:
        address = _address(value)
        wanted = {"": (4, 6), "A": (4,), "AAAA": (6,)}.get(kind, ())
        if address is not None and address.version in wanted:
            self._hosts.setdefault(_tidy(name), []).append(address)


def is_domain(name: str) -> bool:
    """Whether this is a domain name of plain letters, digits, hyphens and underscores."""
    return len(name) < 254 and _DOMAIN.fullmatch(name) is not None


def _of_type(addresses: list[IPAddress], kind: int) -> list[IPAddress]:
    version = {int(RecordType.A): 4, int(RecordType.AAAA): 6}.get(kind)
    return [address for address in addresses if address.version == version]


def _tidy(name: str) -> str:
    return name.strip().rstrip(".").lower()


def _address(text: str) -> IPAddress | None:
    try:
        return ip_address(text.partition("/")[0])
    except ValueError:
        return None


def _addresses(resolvers: Iterable[Resolver]) -> tuple[AddrPort, ...]:
    """The resolvers that are plain addresses; DNS over HTTPS is not spoken, and such a resolver is left out."""
    found = []
    for resolver in resolvers:
        address = _address(resolver.addr)
        if address is not None:
            found.append(AddrPort(address, _DNS_PORT))
            continue
        try:
            found.append(AddrPort.parse(resolver.addr))
        except WireError:
            continue
    return tuple(found)


def _is_tailnets(pointer: str) -> bool:
    """Whether a PTR name lies in the tailnet's own ranges."""
    if pointer.endswith(".in-addr.arpa"):
        parts = pointer.removesuffix(".in-addr.arpa").split(".")[::-1]
        try:
            return len(parts) == 4 and ip_address(".".join(parts)) in TAILNET_IPV4
        except ValueError:
            return False
    digits = pointer.removesuffix(".ip6.arpa").split(".")[::-1]
    try:
        return len(digits) == 32 and ip_address(int("".join(digits), 16).to_bytes(16, "big")) in TAILNET_IPV6
    except ValueError:
        return False
