"""The fake engine: the suite of all engines, and what the simulator needs besides."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

import pytest

from buri.core.addresses import AddrPort
from buri.core.keys import NodePrivate
from buri.engine import port
from buri.engine.fake import HANDSHAKE_GIVE_UP_S, FakeEngine
from buri.testing.simnet import SimHost
from buri.testing.simnode import HostUnderlay
from buri.testing.simworld import World
from unit.engine.conformance import DISCO, EngineConformance, Pair, Side, connect, hello, of, payloads


class FakeSide:
    def __init__(self, world: World, number: int, event_capacity: int = 1024) -> None:
        private = NodePrivate.from_entropy(bytes([number]) * 32)
        self.host = SimHost(f"side{number}")
        address = world.public_address()
        self.host.plug(world.internet, address)
        config = port.EngineConfig(private, tun_name=None, event_capacity=event_capacity)
        self.fake = FakeEngine(config, HostUnderlay(world, self.host))
        self.engine: port.Engine = self.fake
        self.key = private.public()
        self.address = AddrPort(address, 41641)
        self.events: list[port.Event] = []
        self._received: list[bytes] = []

    def send(self, packet: bytes) -> None:
        self.fake.send_inner(packet)

    def received(self) -> list[bytes]:
        while (packet := self.fake.take_inner()) is not None:
            self._received.append(packet)
        return self._received


class FakePair:
    def __init__(self) -> None:
        self.world = World(1)
        self.fakes = (FakeSide(self.world, 1), FakeSide(self.world, 2))
        self.here: Side = self.fakes[0]
        self.there: Side = self.fakes[1]

    def wait(self, condition: Callable[[], bool]) -> None:
        def polled() -> bool:
            for side in self.fakes:
                side.events += side.fake.poll_events()
            return condition()

        for _ in range(1000):
            if polled():
                return
            self.world.timeline.run(0.01)
        raise AssertionError("it did not happen within ten simulated seconds")


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = FakePair()
    for side in made.fakes:
        side.host.unreachable.append(IPv4Address("203.0.113.77"))
    yield made
    for side in made.fakes:
        side.engine.close()


class TestFakeEngine(EngineConformance):
    """The suite."""


def test_an_unanswered_handshake_is_given_up_after_90_seconds_and_its_packets_dropped() -> None:
    pair = FakePair()
    connect(pair)
    pair.fakes[1].host.online = False
    pair.here.send(hello(1))
    pair.world.timeline.run(HANDSHAKE_GIVE_UP_S + 6)
    pair.here.events += pair.here.engine.poll_events()

    assert of(pair.here, port.HandshakeFailed) == [port.HandshakeFailed(pair.there.key)]
    pair.fakes[1].host.online = True
    pair.here.send(hello(2))
    pair.wait(lambda: payloads(pair.there) == [2])


def test_both_legs_of_an_untrusted_path_carry_packets_and_the_relay_tells_who_it_was() -> None:
    pair = FakePair()
    connect(pair)
    relay = pair.world.add_relay(1)
    for side, other in ((pair.here, pair.there), (pair.there, pair.here)):
        side.engine.apply(
            [
                port.ConnectRelay(1, (relay.address,), 443, "relay1.example"),
                port.SetPath(other.key, udp=AddrPort.parse("198.19.0.1:1"), relay_region=1),
            ]
        )
    pair.wait(lambda: bool(of(pair.here, port.RelayUp)) and bool(of(pair.there, port.RelayUp)))
    pair.here.send(hello(1))
    pair.wait(lambda: payloads(pair.there) == [1])

    assert of(pair.there, port.RelayPeerSeen) == [port.RelayPeerSeen(1, pair.here.key)]


def test_without_a_path_a_first_handshake_is_answered_where_it_came_from() -> None:
    pair = FakePair()
    connect(pair)
    relay = pair.world.add_relay(1)
    pair.there.engine.apply([port.SetPath(pair.here.key)])
    for side in (pair.here, pair.there):
        side.engine.apply([port.ConnectRelay(1, (relay.address,), 443, "relay1.example")])
    pair.wait(lambda: bool(of(pair.here, port.RelayUp)) and bool(of(pair.there, port.RelayUp)))
    pair.here.engine.apply([port.SetPath(pair.there.key, relay_region=1)])
    pair.here.send(hello(1))
    pair.wait(lambda: payloads(pair.there) == [1])


def test_a_full_event_queue_drops_the_oldest_datagram_and_keeps_the_rest() -> None:
    world = World(1)
    here, there = FakeSide(world, 1), FakeSide(world, 2, event_capacity=3)
    for number in range(5):
        here.engine.apply([port.SendUDP(there.address, DISCO + bytes([number]))])
    world.timeline.run(1)
    events = there.engine.poll_events()

    assert isinstance(events[0], port.Bound)
    assert [event.data[-1] for event in events if isinstance(event, port.DiscoIn)] == [3, 4]
    assert there.engine.stats().counters["drop_events"] == 3


def test_the_descriptor_is_readable_only_while_events_wait() -> None:
    side = FakeSide(World(1), 1)
    descriptor = side.engine.fileno()
    assert select.select([descriptor], [], [], 0)[0] == [descriptor]
    side.engine.poll_events()
    assert select.select([descriptor], [], [], 0)[0] == []
    side.engine.apply([port.Rebind()])
    assert select.select([descriptor], [], [], 0)[0] == [descriptor]
    side.engine.close()
