"""The port's structs to and from the binary's plain tuples; see port.py for what they mean.

A key is 32 bytes, an address its 4 or 16 packed bytes, an address with a port the pair of both, a prefix the pair of
packed address and length. The first item of an order or event names its kind.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from buri.core.addresses import AddrPort, IPNetwork
from buri.core.keys import NodePublic
from buri.engine import load, port

if TYPE_CHECKING:
    from buri.engine import _engine

_Plain = tuple[object, ...]


def _prefix(prefix: IPNetwork) -> _Plain:
    return (prefix.network_address.packed, prefix.prefixlen)


def _addr_port(address: AddrPort) -> _Plain:
    return (address.address.packed, address.port)


def _peer(peer: port.Peer) -> _Plain:
    return (peer.key.raw, [_prefix(prefix) for prefix in peer.allowed_ips])


def _rules(rules: Iterable[port.FilterRule]) -> list[_Plain]:
    """Thousands of rules share their addresses, as the very objects: each is written once."""
    written: dict[int, _Plain] = {}

    def plain(prefix: IPNetwork) -> _Plain:
        found = written.get(id(prefix))
        if found is None:
            found = written[id(prefix)] = _prefix(prefix)
        return found

    return [_rule(rule, plain) for rule in rules]


def _rule(rule: port.FilterRule, plain: Callable[[IPNetwork], _Plain]) -> _Plain:
    return (
        [plain(prefix) for prefix in rule.sources],
        [plain(prefix) for prefix in rule.destinations],
        [(ports.first, ports.last) for ports in rule.ports],
        list(rule.protocols),
    )


def _order(order: port.Order) -> _Plain:
    match order:
        case port.SetPrivateKey(key=key):
            return ("set_private_key", key.raw)
        case port.SetPeers(peers=peers):
            return ("set_peers", [_peer(peer) for peer in peers])
        case port.UpsertPeer(peer=peer):
            return ("upsert_peer", _peer(peer))
        case port.RemovePeer(key=key):
            return ("remove_peer", key.raw)
        case port.SetPath():
            udp = None if order.udp is None else _addr_port(order.udp)
            return ("set_path", order.key.raw, udp, order.relay_region, order.gso)
        case port.SetFilter():
            return (
                "set_filter",
                [_prefix(prefix) for prefix in order.local],
                _rules(order.rules),
                order.shields_up,
            )
        case port.ConnectRelay():
            return (
                "connect_relay",
                order.region,
                [address.packed for address in order.addresses],
                order.port,
                order.server_name,
                order.certificate,
                order.insecure,
                order.plain,
                order.preferred,
            )
        case port.PreferRelay():
            return ("prefer_relay", order.region, order.preferred)
        case port.CloseRelay():
            return ("close_relay", order.region)
        case port.SendUDP():
            return ("send_udp", _addr_port(order.address), order.data, order.whole)
        case port.SendRelay():
            return ("send_relay", order.region, order.key.raw, order.data)
        case port.Rebind():
            return ("rebind",)


def _named(plain: tuple[bytes, int]) -> AddrPort:
    return AddrPort(ip_address(plain[0]), plain[1])


# The binary's tuples are as the rows below say; a kind without a row is a bug that a KeyError shows.
_EVENTS: dict[str, Callable[..., port.Event]] = {
    "bound": lambda ipv4, ipv6: port.Bound(ipv4, ipv6),
    "disco_udp": lambda source, data: port.DiscoIn(data, source=_named(source)),
    "disco_relay": lambda region, key, data: port.DiscoIn(data, region=region, relay_key=NodePublic(key)),
    "stun": lambda source, data: port.STUNIn(_named(source), data),
    "peer_active": lambda key: port.PeerActive(NodePublic(key)),
    "handshake_done": lambda key: port.HandshakeDone(NodePublic(key)),
    "handshake_failed": lambda key: port.HandshakeFailed(NodePublic(key)),
    "path_fault": lambda key, address, errno: port.PathFault(NodePublic(key), _named(address), errno),
    "relay_up": lambda region, key: port.RelayUp(region, NodePublic(key)),
    "relay_down": lambda region, reason: port.RelayDown(region, reason),
    "relay_peer_gone": lambda region, key, was_here: port.RelayPeerGone(region, NodePublic(key), was_here),
    "relay_peer_seen": lambda region, key: port.RelayPeerSeen(region, NodePublic(key)),
    "relay_health": lambda region, problem: port.RelayHealth(region, problem),
    "fatal": lambda reason: port.Fatal(reason),
}


def _event(plain: tuple[Any, ...]) -> port.Event:
    return _EVENTS[plain[0]](*plain[1:])


class NativeEngine:
    """The binary engine behind `port.Engine`.

    Raises NotPermittedError (no right to a TUN device or to SO_MARK), InUseError (interface name or UDP ports taken),
    ConfigError (an impossible interface name) and SystemFault (no TUN driver, any other refusal).
    """

    def __init__(self, config: port.EngineConfig) -> None:
        offloads = config.offloads
        self._engine: _engine.Engine = load().Engine(
            config.private_key.raw,
            config.tun_name,
            config.mtu,
            config.udp_port,
            config.mark,
            (offloads.tun_tso, offloads.tun_uso, offloads.tun_gro, offloads.udp_gso, offloads.udp_gro),
            config.spin_us,
            config.event_capacity,
        )
        # A forgotten engine must not outlive its owner or the interpreter: weakref.finalize also runs at exit.
        self._finalizer = weakref.finalize(self, self._engine.close)

    def apply(self, orders: Sequence[port.Order]) -> None:
        """Hand over a batch; returns once it is queued. Raises StateError after `close` or `Fatal`."""
        self._engine.apply([_order(order) for order in orders])

    def poll_events(self, limit: int = 256) -> list[port.Event]:
        """Take up to `limit` waiting events, oldest first."""
        return [_event(plain) for plain in self._engine.poll_events(limit)]

    def fileno(self) -> int:
        """A descriptor that is readable while events wait."""
        return self._engine.fileno()

    def stats(self) -> port.EngineStats:
        """A consistent copy of the counters (waits at most one batch). Raises StateError after `close` or `Fatal`."""
        peers, counters = self._engine.stats()
        return port.EngineStats(
            tuple(
                port.PeerStats(NodePublic(key), rx_bytes, tx_bytes, handshake_age_s, rx_age_s, tx_age_s)
                for key, rx_bytes, tx_bytes, handshake_age_s, rx_age_s, tx_age_s in peers
            ),
            dict(counters),
        )

    def close(self) -> None:
        """Flush, close relays, drop the TUN device last. Safe to call twice."""
        self._finalizer()
