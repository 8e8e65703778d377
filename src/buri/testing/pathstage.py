"""A path manager on a stage: one peer that says what it is told, and everything sent and said on record."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from buri.core.addresses import AddrPort
from buri.core.keys import DiscoPrivate, NodePrivate
from buri.machine.paths.manager import PathManager
from buri.machine.paths.values import (
    EndpointType,
    LocalEndpoint,
    PathChosen,
    PathEvent,
    SendRelay,
    SendUDP,
    Transmit,
)
from buri.testing.farpeer import FarPeer
from buri.testing.playbook import Playbook
from buri.wire import disco

OURS = AddrPort.parse("198.51.100.1:41641")
NEAR = AddrPort.parse("203.0.113.1:41641")
FAR = AddrPort.parse("203.0.113.2:41641")
LAN = AddrPort.parse("192.168.1.7:41641")


class Stage:
    """A manager that is up, with one peer and fresh endpoints."""

    def __init__(self, *endpoints: AddrPort, relay_up: bool = True, fresh: bool = True) -> None:
        self.rng = Random(1)
        self.node = NodePrivate.from_entropy(self.rng.randbytes(32))
        self.disco = DiscoPrivate.from_entropy(self.rng.randbytes(32))
        self.peer = FarPeer(self.rng, self.disco.public())
        self.paths = PathManager(self.rng)
        self.book: Playbook[Transmit, PathEvent] = Playbook(self.paths)
        self.paths.set_self(self.node.public(), self.disco, self.now)
        self.paths.set_peers([self.peer.info(*endpoints)], self.now)
        if relay_up:
            self.paths.handle_relay_up(1, self.now)
        if fresh:
            self.tell_endpoints()
        self.book.drain()
        self.first_path = next(event for event in self.book.said if isinstance(event, PathChosen))

    @property
    def now(self) -> float:
        return self.book.now

    def tell_endpoints(self) -> None:
        self.paths.set_local_endpoints([LocalEndpoint(OURS, EndpointType.STUN)], self.now)

    def active(self) -> None:
        self.paths.peer_active(self.peer.key, self.now)
        self.book.drain()

    def advance(self, seconds: float, *, active: bool = True) -> None:
        """Let time pass; while `active`, packets go to the peer every half second."""
        for _ in range(round(seconds * 2)):
            if active:
                self.active()
            self.book.advance(0.5)

    def answer(self, address: AddrPort, delay_s: float = 0.0) -> None:
        """Answer every ping sent to that address so far, after a delay; forget what was sent."""
        pings = [sent for sent in self.udp() if sent.address == address and is_ping(self.peer.open(sent))]
        self.book.advance(delay_s)
        for sent in pings:
            self.paths.handle_disco_udp(self.peer.pong_to(sent, OURS), address, self.now)
        self.book.sent.clear()
        self.book.drain()

    def play(
        self,
        seconds: float,
        *alive: AddrPort,
        round_trip_s: float = 0.02,
        carries: Callable[[SendUDP], bool] = lambda sent: True,
    ) -> None:
        """Let time pass in use, with a peer that answers at these addresses what the network carries."""
        for step in range(round(seconds / round_trip_s)):
            if step % 25 == 0:
                self.active()
            pings = [sent for sent in self.udp() if sent.address in alive and is_ping(self.peer.open(sent))]
            pings = [sent for sent in pings if carries(sent)]
            self.book.sent.clear()
            self.book.advance(round_trip_s)
            for sent in pings:
                self.paths.handle_disco_udp(self.peer.pong_to(sent, OURS), sent.address, self.now)

    def udp(self) -> list[SendUDP]:
        self.book.drain()
        return [sent for sent in self.book.sent if isinstance(sent, SendUDP)]

    def relayed(self) -> list[disco.Message]:
        self.book.drain()
        return [self.peer.open(sent) for sent in self.book.sent if isinstance(sent, SendRelay)]

    def path(self) -> PathChosen:
        self.book.drain()
        return next((e for e in reversed(self.book.said) if isinstance(e, PathChosen)), self.first_path)

    def said(self, kind: type[PathEvent]) -> list[PathEvent]:
        self.book.drain()
        return [event for event in self.book.said if isinstance(event, kind)]

    def count(self, name: str) -> int:
        return self.paths.counters.get(name, 0)


def is_ping(message: disco.Message) -> bool:
    return isinstance(message, disco.Ping)
