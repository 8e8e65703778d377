"""From the netmap and the preferences to the tables below it: engine, paths, router.

The reconciler remembers what the engine was told and gives out only the difference; a peer whose Node is the same as
last time costs one comparison. It touches neither engine nor system: its caller does.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from buri.core.addresses import AddrPort, IPAddress, IPNetwork, host_prefix, is_host_address, parse_prefix
from buri.core.errors import WireError
from buri.core.keys import DiscoPublic, NodePublic
from buri.engine import port
from buri.machine.mapdelta import Netmap
from buri.machine.paths.values import PeerPathInfo
from buri.machine.relayaddresses import MAX_REGION
from buri.node.filterrules import compile_rules
from buri.node.hostinfo import APP
from buri.node.keywatch import own_expiry_s
from buri.node.router import RouterConfig
from buri.wire.tailcfg.base import parse_time
from buri.wire.tailcfg.dns import DNSConfig
from buri.wire.tailcfg.filter import FilterRule
from buri.wire.tailcfg.node import Node

NO_DNS = DNSConfig()


class Choices(msgspec.Struct, frozen=True):
    """The preferences that shape the tables."""

    accept_routes: bool = False
    shields_up: bool = False
    service_addresses: tuple[IPAddress, ...] = ()  # of our resolver, besides the node's own


class PeerTables(msgspec.Struct, frozen=True):
    """One peer in the terms of the engine and of the path machines; `expiry_s` 0: never."""

    peer: port.Peer
    path: PeerPathInfo
    expiry_s: float


class Tables(msgspec.Struct, frozen=True):
    """What one pass found.

    Orders for the engine, peers for the path manager, the router's whole configuration, and when the next peer's key
    expires (wall clock of the control server; None: none does).
    """

    orders: tuple[port.Order, ...]
    paths: tuple[PeerPathInfo, ...]
    router: RouterConfig
    next_expiry_s: float | None


class Reconciler:
    """Keeps what the engine was told; `forget` when there is a new engine or key."""

    def __init__(self) -> None:
        self._parsed: dict[int, tuple[Node, bool, PeerTables | None]] = {}
        self._rules: list[FilterRule] | None = None
        self._compiled: tuple[port.FilterRule, ...] = ()
        self._told_peers: dict[NodePublic, port.Peer] = {}
        self._disco: dict[NodePublic, DiscoPublic] = {}
        self._told_filter: port.SetFilter | None = None

    def forget(self) -> None:
        """The engine knows nothing (any more)."""
        self._told_peers = {}
        self._disco = {}
        self._told_filter = None

    def prepare(self, netmap: Netmap, choices: Choices, limit: int) -> bool:
        """Read up to `limit` peers that are new or changed; False while there are more for another turn of the loop."""
        routes = choices.accept_routes
        for key, node in netmap.peers.items():
            known = self._parsed.get(key)
            if known is None or known[1] != routes or (known[0] is not node and known[0] != node):
                if limit <= 0:
                    return False
                limit -= 1
                self._parsed[key] = (node, routes, peer_tables(node, accept_routes=routes))
        return True

    def reconcile(self, netmap: Netmap | None, choices: Choices, server_wall_s: float) -> Tables:
        """What to change now; `netmap` None, or of an expired node: no peers, no addresses, nothing let in."""
        if netmap is None:
            return self._tables([], (), port.SetFilter((), (), choices.shields_up), None)
        own = addresses_of(netmap.self_node)
        peers, expiries = [], []
        self.prepare(netmap, choices, len(netmap.peers))
        self._parsed = {key: self._parsed[key] for key in netmap.peers}
        for key, node in netmap.peers.items():
            tables = self._parsed[key][2]
            if tables is None or node.expired or 0 < tables.expiry_s <= server_wall_s:
                continue
            peers.append(tables)
            if tables.expiry_s:
                expiries.append(tables.expiry_s)
        own_key = key_of(netmap.self_node)
        if not _is_sound(peers, own_key, own):
            peers = without_strife(peers, own_key, own)
        rules = netmap.filter_rules()
        if rules != self._rules:
            self._rules, self._compiled = rules, compile_rules(rules)
        local = tuple(host_prefix(address) for address in own)
        wanted = port.SetFilter(local, self._compiled, choices.shields_up)
        service = choices.service_addresses if own and netmap.dns != NO_DNS else ()
        return self._tables(peers, own, wanted, min(expiries, default=None), service)

    def _tables(
        self,
        peers: list[PeerTables],
        own: tuple[IPAddress, ...],
        wanted_filter: port.SetFilter,
        next_expiry_s: float | None,
        service: tuple[IPAddress, ...] = (),
    ) -> Tables:
        wanted = {tables.peer.key: tables.peer for tables in peers}
        orders: list[port.Order] = []
        if wanted_filter != self._told_filter:
            orders.append(wanted_filter)
            self._told_filter = wanted_filter
        disco = {tables.path.key: tables.path.disco_key for tables in peers}
        # A peer with another disco key began anew: its old session is nothing to it, nor the time of its last handshake.
        anew = {key for key, known in self._disco.items() if known and disco.get(key) and disco[key] != known}
        orders += [port.RemovePeer(key) for key in self._told_peers if key not in wanted or key in anew]
        orders += [
            port.UpsertPeer(peer) for key, peer in wanted.items() if self._told_peers.get(key) != peer or key in anew
        ]
        self._told_peers, self._disco = wanted, disco
        routes = dict.fromkeys(prefix for peer in wanted.values() for prefix in peer.allowed_ips)
        return Tables(
            orders=tuple(orders),
            paths=tuple(tables.path for tables in peers),
            router=RouterConfig(addresses=own, service_addresses=service, routes=tuple(routes) if own else ()),
            next_expiry_s=next_expiry_s,
        )


def peer_tables(node: Node, *, accept_routes: bool) -> PeerTables | None:
    """A peer's tables; None for a peer that cannot be talked to (WireGuard only, or keys that do not read)."""
    if node.is_wireguard_only:
        return None
    try:
        key = NodePublic.parse(node.key)
        disco = DiscoPublic.parse(node.disco_key) if node.disco_key else DiscoPublic.zero()
        expiry_s = parse_time(node.key_expiry)
    except (WireError, ValueError):
        return None
    own = dict.fromkeys(_own_prefixes(node))
    allowed = list(own)
    if node.allowed_ips != node.addresses:
        allowed = [p for p in _prefixes(node.allowed_ips) if p in own or (accept_routes and p.prefixlen > 0)]
    host = node.hostinfo
    info = host.net_info if host is not None else None
    path = PeerPathInfo(
        key=key,
        disco_key=disco,
        endpoints=tuple(_endpoints(node.endpoints)),
        home_region=node.home_derp if 0 <= node.home_derp <= MAX_REGION else 0,
        hard_nat=None if info is None else info.mapping_varies_by_dest_ip,
        cuts=host is None or host.app == APP,
    )
    return PeerTables(port.Peer(key, tuple(dict.fromkeys(allowed))), path, expiry_s)


def without_strife(peers: list[PeerTables], own_key: NodePublic | None, own: tuple[IPAddress, ...]) -> list[PeerTables]:
    """The peers as no two can quarrel: a key or a prefix that several claim is the first one's (in the netmap's order),
    and what is ours is no peer's."""
    taken = {host_prefix(address) for address in own}
    known = {own_key}
    kept = []
    for tables in peers:
        if tables.peer.key in known:
            continue
        known.add(tables.peer.key)
        left = tuple(prefix for prefix in tables.peer.allowed_ips if prefix not in taken)
        taken.update(left)
        if left != tables.peer.allowed_ips:
            tables = replace(tables, peer=port.Peer(tables.peer.key, left))
        kept.append(tables)
    return kept


def _is_sound(peers: list[PeerTables], own_key: NodePublic | None, own: tuple[IPAddress, ...]) -> bool:
    """Whether every key and prefix is claimed once; one pass, for it is asked of every netmap."""
    keys = {tables.peer.key for tables in peers}
    prefixes = {prefix for tables in peers for prefix in tables.peer.allowed_ips}
    claims = sum(len(tables.peer.allowed_ips) for tables in peers)
    return (
        len(keys) == len(peers)
        and len(prefixes) == claims
        and own_key not in keys
        and prefixes.isdisjoint(host_prefix(address) for address in own)
    )


def key_of(node: Node) -> NodePublic | None:
    """A node's key, None when it does not read: such a node is nobody."""
    try:
        return NodePublic.parse(node.key)
    except WireError:
        return None


def is_expired(node: Node, wall_s: float) -> bool:
    """Whether a node's key has expired at `wall_s`; a time that does not read never comes."""
    return node.expired or 0 < own_expiry_s(node) <= wall_s


def addresses_of(node: Node) -> tuple[IPAddress, ...]:
    """A node's own tailnet addresses: those that read, and that one host can have."""
    return tuple(prefix.network_address for prefix in _own_prefixes(node))


def _own_prefixes(node: Node) -> list[IPNetwork]:
    return [
        prefix
        for prefix in _prefixes(node.addresses)
        if prefix.prefixlen == prefix.max_prefixlen and is_host_address(prefix.network_address)
    ]


def _prefixes(texts: Iterable[str] | None) -> list[IPNetwork]:
    found = []
    for text in texts or ():
        try:
            found.append(parse_prefix(text))
        except WireError:
            continue
    return found


def _endpoints(texts: Iterable[str] | None) -> list[AddrPort]:
    found = []
    for text in texts or ():
        try:
            found.append(AddrPort.parse(text))
        except WireError:
            continue
    return found
