"""The path manager: all peers' paths, our disco identity, and what they need from the layers around.

How a shell drives it (contract in `buri.machine.contract`):

    set_self, set_peers                from the netmap; a peer's relay path is said at once
    handle_disco_udp/relay, …          each event of the engine, as it came
    poll_transmit until None           SendUDP and SendRelay: the engine's orders of the same names
    poll_event until None              PathChosen -> SetPath; NeedEndpoints -> netcheck, then set_local_endpoints;
                                       RelayInUse -> RelayManager.use; PingDone -> whoever asked
    next_timeout, handle_timeout       one timer

Bad input (unknown keys, garbage, late answers) is dropped and counted in `counters`; nothing here raises on it.
The randomness must be the operating system's in production: transaction ids and box nonces come from it.
"""

from __future__ import annotations

from collections.abc import Sequence

from buri.core.addresses import AddrPort
from buri.core.errors import StateError, WireError
from buri.core.keys import DiscoPrivate, DiscoPublic, NodePublic
from buri.machine.contract import Randomness
from buri.machine.paths import limits
from buri.machine.paths.link import DiscoLink
from buri.machine.paths.peer import PeerPaths
from buri.machine.paths.reasons import OwnNetwork
from buri.machine.paths.values import (
    LocalEndpoint,
    NeedEndpoints,
    PathEvent,
    PathInfo,
    PeerPathInfo,
    PingDone,
    Transmit,
)
from buri.wire import disco


class PathManager:
    """Finds and keeps the way to every peer."""

    def __init__(self, rng: Randomness) -> None:
        self._link = DiscoLink(rng)
        self._peers: dict[NodePublic, PeerPaths] = {}
        self._by_disco: dict[DiscoPublic, list[PeerPaths]] = {}
        self._endpoints: tuple[LocalEndpoint, ...] = ()
        self._endpoints_at: float | None = None
        self._endpoints_asked_at: float | None = None
        self._endpoints_late_at: float | None = None  # when those who wait for them are told the old ones
        self._next_stun_at: float | None = None
        self._own = OwnNetwork()
        self._request = 0
        self._open_requests: dict[int, NodePublic] = {}
        self._awake: dict[NodePublic, PeerPaths] = {}  # those with a timer; the others cost nothing

    # ---- verbs ----

    def set_self(self, node_key: NodePublic, disco_private: DiscoPrivate, now: float) -> None:
        """Set or change our identity (at start, and when the node key is rotated)."""
        self._link.set_identity(node_key, disco_private)
        self._settle(now)

    def set_peers(self, peers: Sequence[PeerPathInfo], now: float) -> None:
        """Take the whole list of peers: new ones get their relay path at once, known ones keep theirs."""
        known, self._peers = self._peers, {}
        for info in peers:
            paths = known.pop(info.key, None)
            if paths is None:
                paths = PeerPaths(info, self._link, now)
            elif paths.info != info:
                paths.set_info(info, now)
            self._peers[info.key] = paths
            self._watch(paths)
        self._by_disco = {}
        for paths in self._peers.values():
            if paths.info.disco_key:
                self._by_disco.setdefault(paths.info.disco_key, []).append(paths)
        for paths in known.values():
            self._awake.pop(paths.info.key, None)
            self._finish_all(paths.info.key, "the peer is gone from the tailnet")
            if paths.info.disco_key not in self._by_disco:
                self._link.forget(paths.info.disco_key)
        self._settle(now)

    def set_local_endpoints(self, endpoints: Sequence[LocalEndpoint], now: float) -> None:
        """Our own addresses, best first (`localendpoints.OwnEndpoints`); answers NeedEndpoints even when unchanged."""
        changed = tuple(endpoints) != self._endpoints
        self._endpoints = tuple(endpoints)
        self._endpoints_at = now
        self._endpoints_asked_at = None
        self._next_stun_at = None
        if changed:
            for paths in self._awake.values():
                if paths.is_active(now) and not paths.is_trusted(now):
                    paths.call_me_maybe.reset()
                    paths.call_me_maybe.want(now)
        self._settle(now)

    def set_own_network(self, own: OwnNetwork) -> None:
        """Netcheck's word on our network; only words `PathInfo.why_relayed`."""
        self._own = own

    def peer_active(self, key: NodePublic, now: float) -> None:
        """The engine's PeerActive: the tailnet sends to this peer."""
        paths = self._peers.get(key)
        if paths is not None:
            paths.activate(now)
            self._watch(paths)
            self._settle(now)

    def ping(self, key: NodePublic, size_bytes: int, now: float, patience_s: float = limits.PING_TIMEOUT_S) -> int:
        """Ping a peer for a person; the answer is PingDone with this request id, within `patience_s`.

        `size_bytes` is the UDP payload's (0: the smallest). Until then it waits for a way to the peer, if there is none
        yet. Raises StateError for a node that is no peer.
        """
        paths = self._peers.get(key)
        if paths is None:
            raise StateError(f"{key.short()} is not a peer of this node.")
        self._request += 1
        self._open_requests[self._request] = key
        paths.ping(self._request, size_bytes, patience_s, now)
        self._watch(paths)
        self._settle(now)
        return self._request

    def link_changed(self, now: float) -> None:
        """Our network changed, or the machine woke: doubt every address, look again at once."""
        self._endpoints_at = None
        self._endpoints_asked_at = None
        for paths in self._peers.values():
            paths.reset(now, "the network changed")
            self._watch(paths)
        self._settle(now)

    # ---- input from the engine ----

    def handle_disco_udp(self, data: bytes, source: AddrPort, now: float) -> None:
        """A disco datagram that came by UDP."""
        opened = self._open(data)
        if opened is None:
            return
        peers, message = opened
        match message:
            case disco.Ping():
                paths = self._pinger(peers, message)
                if paths is not None:
                    paths.handle_ping(message, source, 0, now)
                    self._watch(paths)
            case disco.Pong():
                self._handle_pong(peers, message, now)
            case disco.CallMeMaybe():
                self._link.count("call_me_maybe_by_udp")  # it opens nothing there, and upstream drops it as well
            case disco.UnknownMessage():
                self._link.count("disco_unknown_type")
        self._settle(now)

    def handle_disco_relay(self, data: bytes, region: int, sender: NodePublic, now: float) -> None:
        """A disco datagram that came by a relay, from the node the relay names."""
        opened = self._open(data)
        if opened is None:
            return
        peers, message = opened
        paths = self._peers.get(sender)
        if paths is None or paths not in peers:
            self._link.count("disco_sender_mismatch")
            return
        paths.handle_relay_seen(region, now)
        match message:
            case disco.Ping():
                paths.handle_ping(message, None, region, now)
            case disco.Pong():
                self._handle_pong([paths], message, now)
            case disco.CallMeMaybe():
                paths.handle_call_me_maybe(message, now)
            case disco.UnknownMessage():
                self._link.count("disco_unknown_type")
        self._watch(paths)
        self._settle(now)

    def handle_path_fault(self, key: NodePublic, address: AddrPort, error_number: int, now: float) -> None:
        """The engine's PathFault."""
        paths = self._peers.get(key)
        if paths is not None:
            paths.handle_path_fault(address, error_number, now)
            self._watch(paths)
            self._settle(now)

    def handle_relay_up(self, region: int, now: float) -> None:
        """The engine's RelayUp: paths by it are said, and call-me-maybes that waited for it go out."""
        self._link.relays_up.add(region)
        for paths in self._peers.values():
            paths.handle_relay_up(region, now)
        self._settle(now)

    def handle_relay_down(self, region: int, now: float) -> None:
        """The engine's RelayDown, or our own CloseRelay: ways back through it are forgotten."""
        self._link.relays_up.discard(region)
        for paths in self._peers.values():
            paths.handle_relay_lost(region, now)
        self._settle(now)

    def handle_relay_peer_seen(self, region: int, key: NodePublic, now: float) -> None:
        """The engine's RelayPeerSeen."""
        paths = self._peers.get(key)
        if paths is not None:
            paths.handle_relay_seen(region, now)
            self._settle(now)

    def handle_relay_peer_gone(self, region: int, key: NodePublic, now: float) -> None:
        """The engine's RelayPeerGone, for either of its reasons."""
        paths = self._peers.get(key)
        if paths is not None:
            paths.handle_relay_gone(region, now)
            self._settle(now)

    # ---- output ----

    def poll_transmit(self) -> Transmit | None:
        """The next datagram to send, None when drained."""
        return self._link.transmits.popleft() if self._link.transmits else None

    def poll_event(self) -> PathEvent | None:
        """The next fact for the layer above, None when drained."""
        return self._link.events.popleft() if self._link.events else None

    def next_timeout(self) -> float | None:
        """When `handle_timeout` wants to be called; None for never."""
        times = [at for paths in self._awake.values() if (at := paths.next_timeout()) is not None]
        if self._next_stun_at is not None:
            times.append(self._next_stun_at)
        if self._endpoints_late_at is not None:
            times.append(self._endpoints_late_at)
        return min(times, default=None)

    def handle_timeout(self, now: float) -> None:
        """Do what is due. A timer that comes 10 s late means that the machine slept: the same as `link_changed`."""
        due_at = self.next_timeout()
        if due_at is not None and now - due_at > limits.CLOCK_JUMP_S:
            self.link_changed(now)
        for paths in list(self._awake.values()):
            at = paths.next_timeout()
            if at is not None and at <= now:
                for done in paths.handle_timeout(now):
                    self._finish(done)
        self._settle(now)

    @property
    def counters(self) -> dict[str, int]:
        """Input dropped, by reason."""
        return dict(self._link.counters)

    def path_info(self, key: NodePublic, now: float) -> PathInfo | None:
        """A peer's path for `status`; None for a node that is no peer."""
        paths = self._peers.get(key)
        return paths.path_info(now, self._own) if paths is not None else None

    # ---- helpers ----

    def _open(self, data: bytes) -> tuple[list[PeerPaths], disco.Message] | None:
        try:
            sender = disco.parse_sender(data)
        except WireError:
            self._link.count("disco_bad")
            return None
        peers = self._by_disco.get(sender)
        if peers is None:
            self._link.count("disco_unknown_key")
            return None
        message = self._link.open(data, sender)
        return None if message is None else (peers, message)

    def _pinger(self, peers: list[PeerPaths], ping: disco.Ping) -> PeerPaths | None:
        """Whose ping this is: nodes may share a disco key, and the ping names the node."""
        for paths in peers:
            if ping.node_key == paths.info.key or (ping.node_key is None and len(peers) == 1):
                return paths
        self._link.count("disco_sender_mismatch")
        return None

    def _handle_pong(self, peers: list[PeerPaths], pong: disco.Pong, now: float) -> None:
        for paths in peers:
            done = paths.handle_pong(pong, now)
            self._watch(paths)
            if done is not None:
                self._finish(done)

    def _finish(self, done: PingDone) -> None:
        if done.request in self._open_requests:  # the first answer counts, and silence only when nothing answered
            del self._open_requests[done.request]
            self._link.events.append(done)

    def _finish_all(self, key: NodePublic, error: str) -> None:
        for request in [request for request, of in self._open_requests.items() if of == key]:
            self._finish(PingDone(request, key, error=error))

    def _watch(self, paths: PeerPaths) -> None:
        """Keep an eye on a peer as long as it has a timer."""
        if paths.next_timeout() is not None:
            self._awake[paths.info.key] = paths

    def _settle(self, now: float) -> None:
        """Send pings and call-me-maybes that can go, ask for endpoints if that is what they wait for, plan the next STUN."""
        active = False
        self._endpoints_late_at = None
        for paths in list(self._awake.values()):
            paths.send_asked(now)
            if paths.next_timeout() is None:
                del self._awake[paths.info.key]
            if not paths.is_active(now):
                paths.call_me_maybe.drop_wish()
                continue
            active = True
            if paths.call_me_maybe.wanted_since is None:
                continue
            region = paths.relay_region()
            if region is None or self._link.node_key is None:
                continue  # the netmap, or our login, is still to tell
            if region not in self._link.relays_up:
                self._link.use_relay(region, now)
            elif self._endpoints_ready(now):
                paths.send_call_me_maybe(self._endpoints, now)
        self._plan_stun(active, now)

    def _endpoints_ready(self, now: float) -> bool:
        if self._endpoints_at is not None and now - self._endpoints_at < limits.ENDPOINTS_FRESH_S:
            return True
        asked_at = self._ask_for_endpoints(now)
        if now >= asked_at + limits.ENDPOINTS_WAIT_S:
            return True
        self._endpoints_late_at = asked_at + limits.ENDPOINTS_WAIT_S
        return False

    def _ask_for_endpoints(self, now: float) -> float:
        """Ask, once until answered; returns when that was."""
        if self._endpoints_asked_at is None:
            self._endpoints_asked_at = now
            self._link.events.append(NeedEndpoints())
        return self._endpoints_asked_at

    def _plan_stun(self, active: bool, now: float) -> None:
        if not active:
            self._next_stun_at = None
        elif self._next_stun_at is None:
            base = self._endpoints_at if self._endpoints_at is not None else now
            wait_s = self._link.rng.uniform(limits.STUN_PERIOD_MIN_S, limits.STUN_PERIOD_MAX_S)
            self._next_stun_at = max(now, base + wait_s)
        elif now >= self._next_stun_at:
            self._next_stun_at = None
            self._endpoints_asked_at = None
            self._ask_for_endpoints(now)
            self._next_stun_at = now + self._link.rng.uniform(limits.STUN_PERIOD_MIN_S, limits.STUN_PERIOD_MAX_S)
