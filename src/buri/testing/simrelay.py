"""A simulated relay: DERP's behaviour (who is where, who left) and a STUN server on the same address.

A connection is a reliable stream: packets arrive in order, later when the network loses some. It breaks when either end
goes offline and is noticed after `NOTICE_S`, as by a keep-alive.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from buri.core.addresses import AddrPort, IPAddress
from buri.core.errors import WireError
from buri.core.keys import NodePublic
from buri.engine.fake import RelayFace
from buri.testing.simnet import Network, SimHost
from buri.testing.timeline import Timeline
from buri.wire import disco, stun
from buri.wire.tailcfg.derpmap import DERPNode, DERPRegion

NOTICE_S = 2.0
CONNECT_ROUND_TRIPS = 3
CONNECT_TIMEOUT_S = 10.0


class RelayClient:
    """One host's connection; `face` is the engine behind it."""

    def __init__(self, relay: SimRelay, host: SimHost, key: NodePublic, face: RelayFace, region: int) -> None:
        self.relay = relay
        self.host = host
        self.key = key
        self.face = face
        self.region = region
        self.open = False
        self.closed = False
        self.preferred = False
        self._arrives_at = 0.0

    def delay_s(self) -> float:
        """One way; a host behind gateways adds its own distance only."""
        return self.relay.distance_s + 0.010

    def deliver(self, call: Callable[[], None]) -> None:
        """In order, after the way's time."""
        timeline = self.relay.timeline
        self._arrives_at = max(self._arrives_at, timeline.now + self.delay_s())
        timeline.call_at(self._arrives_at, lambda: None if self.closed else call())

    def send(self, key: NodePublic, data: bytes) -> None:
        self.deliver(lambda: self.relay.forward(self, key, data))

    def prefer(self, preferred: bool) -> None:
        self.preferred = preferred

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.relay.left(self)

    def broke(self, reason: str) -> None:
        """The connection ended from outside."""
        if not self.closed:
            self.close()
            self.face.relay_down(self.region, reason)


class SimRelay:
    """One region's relay on the public network."""

    def __init__(
        self, timeline: Timeline, network: Network, region: int, address: IPAddress, key: NodePublic, distance_s: float
    ) -> None:
        self.timeline = timeline
        self.region = region
        self.address = address
        self.key = key
        self.distance_s = distance_s
        self.up = True
        self.forwarded = 0
        self.host = SimHost(f"relay{region}")
        self.host.plug(network, address, distance_s)
        self._socket = self.host.bind(stun.DEFAULT_PORT, self._answer_stun)
        self._clients: dict[NodePublic, RelayClient] = {}
        self._talked: dict[NodePublic, dict[NodePublic, None]] = {}

    def derp_region(self) -> DERPRegion:
        node = DERPNode(
            name=f"{self.region}a",
            region_id=self.region,
            host_name=f"relay{self.region}.example",
            ipv4=str(self.address),
            ipv6="none",
        )
        return DERPRegion(
            region_id=self.region, region_code=f"r{self.region}", region_name=f"Region {self.region}", nodes=[node]
        )

    def connect(self, host: SimHost, key: NodePublic, face: RelayFace, region: int) -> RelayClient:
        """Open a connection; the engine hears of its success or failure later."""
        client = RelayClient(self, host, key, face, region)
        if not self.up or not host.online or not host.interfaces:
            wait_s = CONNECT_TIMEOUT_S if host.online else 0.05
            self.timeline.call_later(wait_s, lambda: client.broke("the relay does not answer"))
            return client
        self.timeline.call_later(CONNECT_ROUND_TRIPS * 2 * client.delay_s(), lambda: self._accept(client))
        return client

    def forward(self, sender: RelayClient, key: NodePublic, data: bytes) -> None:
        target = self._clients.get(key)
        if not self._alive(sender):
            return
        if target is None:
            if disco.looks_like_disco(data):
                sender.deliver(lambda: sender.face.relay_peer_gone(self.region, key, False))
            return
        self._talked.setdefault(sender.key, {})[key] = None
        self._talked.setdefault(key, {})[sender.key] = None
        self.forwarded += 1
        if self._alive(target):
            target.deliver(lambda: target.face.relay_packet(self.region, sender.key, data))

    def left(self, client: RelayClient) -> None:
        """A client is gone: those who talked with it are told."""
        if self._clients.get(client.key) is not client:
            return
        del self._clients[client.key]
        for other in self._talked.pop(client.key, {}):
            self._talked.get(other, {}).pop(client.key, None)
            peer = self._clients.get(other)
            if peer is not None:
                self._tell_gone(peer, client.key)

    def stop(self) -> None:
        """The relay's machine fails; clients notice after a while."""
        self.up = False
        self.host.online = False
        for client in list(self._clients.values()):
            self.timeline.call_later(NOTICE_S, partial(client.broke, "the connection was lost"))

    def start(self) -> None:
        self.up = True
        self.host.online = True

    def cut(self, key: NodePublic) -> None:
        """Break one client's connection."""
        client = self._clients.get(key)
        if client is not None:
            client.broke("the connection was lost")

    def _tell_gone(self, peer: RelayClient, key: NodePublic) -> None:
        peer.deliver(lambda: peer.face.relay_peer_gone(self.region, key, True))

    def _alive(self, client: RelayClient) -> bool:
        return self.up and not client.closed and client.host.online

    def _accept(self, client: RelayClient) -> None:
        if client.closed:
            return
        if not self._alive(client):
            client.broke("the relay does not answer")
            return
        client.open = True
        self._clients[client.key] = client
        client.face.relay_up(client.region, self.key)

    def _answer_stun(self, source: AddrPort, data: bytes) -> None:
        try:
            txid = stun.parse_request(data, strict=True)
        except WireError:
            return
        self._socket.send(source, stun.build_response(txid, source))
