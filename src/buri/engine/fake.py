"""The engine in pure Python, over a simulated internet: same orders, same events, inner packets in clear.

It stands in for the binary wherever time has to jump. WireGuard is reduced to what paths can feel: a handshake of two
messages before the first data, staged packets until then, tries every 5 s for 90 s. Messages are WireGuard's type byte,
three zeros, the sender's node key, and the inner packet. `send_inner` and `take_inner` are its TUN device.

What it may not do, the binary may not either: it moves no path by itself, and the same conformance suite runs on both.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, assert_never

from buri.core.addresses import AddrPort, IPAddress
from buri.core.errors import StateError
from buri.core.keys import KEY_BYTES, NodePublic
from buri.engine.fakefilter import FakeFilter, read_header
from buri.engine.port import (
    Bound,
    CloseRelay,
    ConnectRelay,
    DiscoIn,
    EngineConfig,
    EngineStats,
    Event,
    HandshakeDone,
    HandshakeFailed,
    Order,
    PathFault,
    Peer,
    PeerActive,
    PeerStats,
    PreferRelay,
    Rebind,
    RelayDown,
    RelayPeerGone,
    RelayPeerSeen,
    RelayUp,
    RemovePeer,
    SendRelay,
    SendUDP,
    SetFilter,
    SetPath,
    SetPeers,
    SetPrivateKey,
    STUNIn,
    UpsertPeer,
)
from buri.wire import disco, stun

HANDSHAKE_RETRY_S = 5.0
HANDSHAKE_GIVE_UP_S = 90.0
ACTIVE_EVERY_S = 1.0
MAX_STAGED = 16

_INIT, _RESPONSE, _DATA = 1, 2, 4
_HEADER_BYTES = 4 + KEY_BYTES


class UnderlaySocket(Protocol):
    """A bound UDP port of the simulated host."""

    port: int

    def send(self, address: AddrPort, data: bytes, *, whole: bool = False) -> int:
        """Send one datagram (`whole`: with DF); 0 or an errno."""

    def close(self) -> None: ...


class RelayConnection(Protocol):
    """A connection to a simulated relay."""

    def send(self, key: NodePublic, data: bytes) -> None:
        """One packet to that node."""

    def prefer(self, preferred: bool) -> None: ...

    def close(self) -> None: ...


class RelayFace(Protocol):
    """What a relay connection calls back; the engine implements it."""

    def relay_up(self, region: int, server_key: NodePublic) -> None: ...

    def relay_down(self, region: int, reason: str) -> None: ...

    def relay_packet(self, region: int, sender: NodePublic, data: bytes) -> None: ...

    def relay_peer_gone(self, region: int, key: NodePublic, was_here: bool) -> None: ...


class Underlay(Protocol):
    """The host the engine runs on."""

    @property
    def now(self) -> float: ...

    def call_later(self, delay_s: float, call: Callable[[], None]) -> object:
        """Call once that much time has passed."""

    def bind(self, port: int, receive: Callable[[AddrPort, bytes], None]) -> UnderlaySocket: ...

    def has_family(self, version: int) -> bool:
        """Whether the host has addresses of that IP version."""

    def open_relay(self, order: ConnectRelay, key: NodePublic, face: RelayFace) -> RelayConnection: ...


class _FakePeer:
    def __init__(self, peer: Peer) -> None:
        self.key = peer.key
        self.allowed_ips = peer.allowed_ips
        self.path = SetPath(peer.key)
        self.session = False
        self.handshake_since: float | None = None
        self.handshake_at: float | None = None
        self.staged: deque[bytes] = deque(maxlen=MAX_STAGED)
        self.active_said_at: float | None = None
        self.seen_in: list[int] = []
        self.rx_bytes = self.tx_bytes = 0
        self.rx_at: float | None = None
        self.tx_at: float | None = None


class FakeEngine:
    """Implements `port.Engine`; `take_inner` and `send_inner` stand for the TUN device."""

    def __init__(self, config: EngineConfig, underlay: Underlay, *, wake: Callable[[], None] | None = None) -> None:
        """`wake` is called when events or inner packets begin to wait (in the simulator, instead of descriptors)."""
        self._config = config
        self._underlay = underlay
        self._wake = wake
        self._key = config.private_key.public()
        self._peers: dict[NodePublic, _FakePeer] = {}
        self._filter = FakeFilter()
        self._relays: dict[int, RelayConnection] = {}
        self._relays_up: set[int] = set()
        self._events: deque[Event] = deque()
        self._inner: deque[bytes] = deque()
        self._counters: dict[str, int] = {}
        self._closed = False
        self._pipe: tuple[int, int] | None = None
        self._socket = underlay.bind(config.udp_port, self._receive_udp)
        self._say_bound()

    # ---- port.Engine ----

    def apply(self, orders: Sequence[Order]) -> None:
        if self._closed:
            raise StateError("the engine is closed.")
        for order in orders:
            self._apply(order)

    def poll_events(self, limit: int = 256) -> list[Event]:
        taken = [self._events.popleft() for _ in range(min(limit, len(self._events)))]
        if not self._events and self._pipe is not None and taken:
            os.read(self._pipe[0], 1)
        return taken

    def fileno(self) -> int:
        if self._pipe is None:
            self._pipe = os.pipe()
            if self._events:
                os.write(self._pipe[1], b"!")
        return self._pipe[0]

    def stats(self) -> EngineStats:
        now = self._underlay.now
        return EngineStats(
            peers=tuple(
                PeerStats(
                    key=peer.key,
                    rx_bytes=peer.rx_bytes,
                    tx_bytes=peer.tx_bytes,
                    handshake_age_s=_age(peer.handshake_at, now),
                    rx_age_s=_age(peer.rx_at, now),
                    tx_age_s=_age(peer.tx_at, now),
                )
                for peer in self._peers.values()
            ),
            counters=dict(self._counters),
        )

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for connection in self._relays.values():
            connection.close()
        self._relays.clear()
        self._socket.close()
        if self._pipe is not None:
            for descriptor in self._pipe:
                os.close(descriptor)
            self._pipe = None

    # ---- the TUN device ----

    def send_inner(self, packet: bytes) -> None:
        """The host sends an IP packet into the tailnet."""
        header = read_header(packet)
        peer = self._route(header.destination) if header is not None else None
        if header is None or peer is None:
            self._count("drop_out_no_peer")
            return
        self._filter.note_sent(header)
        now = self._underlay.now
        if peer.active_said_at is None or now - peer.active_said_at >= ACTIVE_EVERY_S:
            peer.active_said_at = now
            self._say(PeerActive(peer.key))
        if peer.session:
            if peer.path.udp is None and peer.path.relay_region is None:
                self._count("drop_out_no_path")
            else:
                self._send_message(peer, _DATA, packet)
            return
        peer.staged.append(packet)
        if peer.handshake_since is None:
            peer.handshake_since = now
            self._try_handshake(peer, now)

    def take_inner(self) -> bytes | None:
        """The next IP packet for the host, None when there is none."""
        return self._inner.popleft() if self._inner else None

    # ---- what a relay connection calls ----

    def relay_up(self, region: int, server_key: NodePublic) -> None:
        if region in self._relays:
            self._relays_up.add(region)
            self._say(RelayUp(region, server_key))

    def relay_down(self, region: int, reason: str) -> None:
        if self._relays.pop(region, None) is not None:
            self._forget_seen(region)
            self._say(RelayDown(region, reason))

    def relay_packet(self, region: int, sender: NodePublic, data: bytes) -> None:
        if region not in self._relays:
            return
        if disco.looks_like_disco(data):
            self._say(DiscoIn(data, region=region, relay_key=sender))
            return
        peer = self._peers.get(sender)
        if peer is not None and region not in peer.seen_in:
            peer.seen_in.append(region)
            self._say(RelayPeerSeen(region, sender))
        self._receive_message(data, region)

    def relay_peer_gone(self, region: int, key: NodePublic, was_here: bool) -> None:
        peer = self._peers.get(key)
        if peer is not None and region in peer.seen_in:
            peer.seen_in.remove(region)
        self._say(RelayPeerGone(region, key, was_here))

    # ---- orders ----

    def _apply(self, order: Order) -> None:
        match order:
            case SetPrivateKey():
                self._key = order.key.public()
                for peer in self._peers.values():
                    peer.session, peer.handshake_since = False, None
            case SetPeers():
                wanted = {peer.key: peer for peer in order.peers}
                self._peers = {key: peer for key, peer in self._peers.items() if key in wanted}
                for spec in order.peers:
                    self._upsert(spec)
            case UpsertPeer():
                self._upsert(order.peer)
            case RemovePeer():
                self._peers.pop(order.key, None)
            case SetPath():
                self._set_path(order)
            case SetFilter():
                self._filter.set(order)
            case ConnectRelay():
                self._connect_relay(order)
            case PreferRelay():
                if order.region in self._relays:
                    self._relays[order.region].prefer(order.preferred)
            case CloseRelay():
                self._close_relay(order.region)
            case SendUDP():
                self._send_udp(order.address, order.data, whole=order.whole)
            case SendRelay():
                self._send_relay(order.region, order.key, order.data)
            case Rebind():
                port = self._socket.port
                self._socket.close()
                self._socket = self._underlay.bind(port, self._receive_udp)
                self._say_bound()
            case _:
                assert_never(order)

    def _upsert(self, spec: Peer) -> None:
        peer = self._peers.get(spec.key)
        if peer is None:
            self._peers[spec.key] = _FakePeer(spec)
        else:
            peer.allowed_ips = spec.allowed_ips

    def _set_path(self, path: SetPath) -> None:
        peer = self._peers.get(path.key)
        if peer is None:
            return
        before, peer.path = peer.path, path
        if peer.handshake_since is not None and _opens_a_way(before, path):
            self._send_message(peer, _INIT, b"")

    def _connect_relay(self, order: ConnectRelay) -> None:
        old = self._relays.pop(order.region, None)
        if old is not None:
            self._relays_up.discard(order.region)
            old.close()
        self._relays[order.region] = self._underlay.open_relay(order, self._key, self)

    def _close_relay(self, region: int) -> None:
        connection = self._relays.pop(region, None)
        if connection is not None:
            self._forget_seen(region)
            connection.close()

    def _forget_seen(self, region: int) -> None:
        self._relays_up.discard(region)
        for peer in self._peers.values():
            if region in peer.seen_in:
                peer.seen_in.remove(region)

    # ---- out ----

    def _route(self, destination: IPAddress) -> _FakePeer | None:
        best: tuple[int, _FakePeer] | None = None
        for peer in self._peers.values():
            for prefix in peer.allowed_ips:
                if destination in prefix and (best is None or prefix.prefixlen > best[0]):
                    best = (prefix.prefixlen, peer)
        return best[1] if best is not None else None

    def _try_handshake(self, peer: _FakePeer, started_at: float) -> None:
        if peer.handshake_since != started_at or peer.session or self._closed or self._peers.get(peer.key) is not peer:
            return
        if self._underlay.now - started_at >= HANDSHAKE_GIVE_UP_S:
            peer.handshake_since = None
            peer.staged.clear()
            self._say(HandshakeFailed(peer.key))
            return
        self._send_message(peer, _INIT, b"")
        self._underlay.call_later(HANDSHAKE_RETRY_S, lambda: self._try_handshake(peer, started_at))

    def _send_message(self, peer: _FakePeer, kind: int, packet: bytes) -> None:
        message = bytes((kind, 0, 0, 0)) + self._key.raw + packet
        path = peer.path
        if path.udp is None and path.relay_region is None:
            self._count("drop_out_no_path")
            return
        peer.tx_bytes += len(packet)
        peer.tx_at = self._underlay.now
        if path.udp is not None:
            error_number = self._send_udp(path.udp, message, whole=path.gso)
            if error_number:
                self._say(PathFault(peer.key, path.udp, error_number))
        if path.relay_region is not None:
            self._send_relay(path.relay_region, peer.key, message)

    def _send_udp(self, address: AddrPort, data: bytes, *, whole: bool = True) -> int:
        error_number = self._socket.send(address, data, whole=whole)
        if error_number:
            self._count("drop_out_refused")
        return error_number

    def _send_relay(self, region: int, key: NodePublic, data: bytes) -> None:
        if region in self._relays_up:
            self._relays[region].send(key, data)
        else:
            self._count("drop_out_no_relay")

    # ---- in ----

    def _receive_udp(self, source: AddrPort, data: bytes) -> None:
        if self._closed:
            return
        if stun.looks_like_stun(data):
            self._say(STUNIn(source, data))
        elif disco.looks_like_disco(data):
            self._say(DiscoIn(data, source=source))
        else:
            self._receive_message(data, source)

    def _receive_message(self, data: bytes, source: AddrPort | int) -> None:
        if len(data) < _HEADER_BYTES or data[1:4] != bytes(3):
            self._count("drop_in_unknown")
            return
        peer = self._peers.get(NodePublic(data[4:_HEADER_BYTES]))
        if peer is None:
            self._count("drop_in_unauthentic")
            return
        peer.rx_at = self._underlay.now
        match data[0]:
            case 1:
                self._open_session(peer)
                self._answer(peer, source)
            case 2:
                self._open_session(peer)
            case 4 if peer.session:
                self._receive_inner(peer, data[_HEADER_BYTES:])
            case _:
                self._count("drop_in_unauthentic")

    def _answer(self, peer: _FakePeer, source: AddrPort | int) -> None:
        """By the peer's path; without one, to where the question came from."""
        if peer.path.udp is not None or peer.path.relay_region is not None:
            self._send_message(peer, _RESPONSE, b"")
            return
        message = bytes((_RESPONSE, 0, 0, 0)) + self._key.raw
        if isinstance(source, int):
            self._send_relay(source, peer.key, message)
        else:
            self._send_udp(source, message)

    def _open_session(self, peer: _FakePeer) -> None:
        if not peer.session:
            peer.session = True
            peer.handshake_since = None
            peer.handshake_at = self._underlay.now
            self._say(HandshakeDone(peer.key))
        while peer.staged:
            self._send_message(peer, _DATA, peer.staged.popleft())

    def _receive_inner(self, peer: _FakePeer, packet: bytes) -> None:
        header = read_header(packet)
        if header is None or self._route(header.source) is not peer:
            self._count("drop_in_wrong_source")
            return
        peer.rx_bytes += len(packet)
        refusal = self._filter.refusal(header)
        if refusal is not None:
            self._count(refusal)
            return
        self._inner.append(packet)
        if self._wake is not None:
            self._wake()

    # ---- events ----

    def _say_bound(self) -> None:
        port = self._socket.port
        self._say(
            Bound(
                port if self._underlay.has_family(4) else None,
                port if self._underlay.has_family(6) else None,
            )
        )

    def _say(self, event: Event) -> None:
        if len(self._events) >= self._config.event_capacity:
            self._drop_datagram_event()
        was_empty = not self._events
        self._events.append(event)
        if was_empty and self._pipe is not None:
            os.write(self._pipe[1], b"!")
        if was_empty and self._wake is not None:
            self._wake()

    def _drop_datagram_event(self) -> None:
        for index, event in enumerate(self._events):
            if isinstance(event, DiscoIn | STUNIn):
                del self._events[index]
                self._count("drop_events")
                return

    def _count(self, name: str) -> None:
        self._counters[name] = self._counters.get(name, 0) + 1


def _opens_a_way(before: SetPath, after: SetPath) -> bool:
    """Whether what was lost so far may arrive now."""
    if before.relay_region is not None:
        return False
    return after.relay_region is not None or (before.udp is None and after.udp is not None)


def _age(at: float | None, now: float) -> float | None:
    return None if at is None else now - at
