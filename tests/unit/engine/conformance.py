"""What every engine does: one suite for the fake and for the binary.

A `Pair` is two engines that reach each other by UDP, `here` and `there`, with a device each. Nothing here waits by the
clock: every wait has a condition, and that something was dropped is read from a counter.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from typing import Protocol, TypeVar

import pytest

from buri.core.addresses import AddrPort, IPNetwork, host_prefix
from buri.core.errors import StateError
from buri.core.keys import NodePrivate, NodePublic
from buri.engine import port
from buri.testing.innerpacket import build_udp, parse_udp
from buri.wire import disco, stun

HERE_INNER, THERE_INNER = IPv4Address("100.64.0.1"), IPv4Address("100.64.0.2")
DISCO = disco.MAGIC + bytes(80)
STUN = stun.build_response(bytes(12), AddrPort.parse("192.0.2.1:1"))
EVERYTHING = (IPv4Network("0.0.0.0/0"),)

EventT = TypeVar("EventT", bound=port.Event)


class Side(Protocol):
    """One engine of a pair; `events` grows as they are polled."""

    engine: port.Engine
    key: NodePublic
    address: AddrPort
    events: list[port.Event]

    def send(self, packet: bytes) -> None:
        """The host sends an inner packet through the device."""

    def received(self) -> list[bytes]:
        """All inner packets that came out of the device."""


class Pair(Protocol):
    here: Side
    there: Side

    def wait(self, condition: Callable[[], bool]) -> None:
        """Let things happen until the condition holds; fails in the end."""


class EngineConformance:
    """Inherit, and give a fixture `pair`."""

    def test_bound_is_the_first_event_and_tells_the_port(self, pair: Pair) -> None:
        pair.wait(lambda: bool(pair.here.events))
        bound = pair.here.events[0]
        assert isinstance(bound, port.Bound)
        assert bound.port_ipv4 == pair.here.address.port

    def test_disco_and_stun_cross_as_they_came(self, pair: Pair) -> None:
        order(pair.here, [port.SendUDP(pair.there.address, DISCO), port.SendUDP(pair.there.address, STUN)])
        pair.wait(lambda: bool(of(pair.there, port.STUNIn)))
        assert of(pair.there, port.DiscoIn) == [port.DiscoIn(DISCO, source=pair.here.address)]
        assert of(pair.there, port.STUNIn) == [port.STUNIn(pair.here.address, STUN)]

    def test_the_first_packet_waits_for_a_handshake_and_arrives(self, pair: Pair) -> None:
        connect(pair)
        pair.here.send(hello(1))
        pair.wait(lambda: payloads(pair.there) == [1])
        assert of(pair.here, port.HandshakeDone) == [port.HandshakeDone(pair.there.key)]
        assert of(pair.there, port.HandshakeDone) == [port.HandshakeDone(pair.here.key)]

    def test_packets_keep_their_order_both_ways(self, pair: Pair) -> None:
        connect(pair)
        for number in range(10):
            pair.here.send(hello(number))
        pair.wait(lambda: len(payloads(pair.there)) == 10)
        for number in range(10):
            pair.there.send(hello(number, back=True))
        pair.wait(lambda: len(payloads(pair.here)) == 10)
        assert payloads(pair.there) == payloads(pair.here) == list(range(10))

    def test_activity_is_told_once_for_a_burst(self, pair: Pair) -> None:
        connect(pair)
        for number in range(5):
            pair.here.send(hello(number))
        pair.wait(lambda: len(payloads(pair.there)) == 5)
        assert of(pair.here, port.PeerActive) == [port.PeerActive(pair.there.key)]

    def test_a_packet_for_nobody_is_counted(self, pair: Pair) -> None:
        pair.here.send(hello(1))
        pair.wait(lambda: counter(pair.here, "drop_out_no_peer") == 1)

    def test_without_a_path_the_path_machine_is_woken_and_the_first_packet_waits_for_one(self, pair: Pair) -> None:
        connect(pair)
        order(pair.here, [port.SetPath(pair.there.key)])
        pair.here.send(hello(1))
        pair.wait(lambda: counter(pair.here, "drop_out_no_path") == 1)  # the handshake's first try
        pair.wait(lambda: of(pair.here, port.PeerActive) == [port.PeerActive(pair.there.key)])
        order(pair.here, [port.SetPath(pair.there.key, udp=pair.there.address)])
        pair.wait(lambda: payloads(pair.there) == [1])

    def test_without_a_path_packets_of_a_session_are_counted(self, pair: Pair) -> None:
        connect(pair)
        pair.here.send(hello(1))
        pair.wait(lambda: payloads(pair.there) == [1])
        order(pair.here, [port.SetPath(pair.there.key)])
        pair.here.send(hello(2))
        pair.wait(lambda: counter(pair.here, "drop_out_no_path") == 1)

    def test_a_relay_that_is_not_connected_is_counted(self, pair: Pair) -> None:
        connect(pair)
        order(pair.here, [port.SendRelay(9, pair.there.key, DISCO)])
        pair.wait(lambda: counter(pair.here, "drop_out_no_relay") == 1)

    def test_nothing_new_comes_in_without_a_filter_but_answers_do(self, pair: Pair) -> None:
        connect(pair, filters=False)
        order(pair.here, [port.SetFilter(local=(host_prefix(HERE_INNER),), rules=())])
        allow(pair.there, THERE_INNER)
        pair.here.send(hello(1))
        pair.wait(lambda: payloads(pair.there) == [1])
        pair.there.send(hello(2, back=True))
        pair.wait(lambda: payloads(pair.here) == [2])
        pair.there.send(hello(3, back=True, source_port=99))
        pair.wait(lambda: counter(pair.here, "drop_in_filter_no_rule") == 1)
        assert payloads(pair.here) == [2]

    def test_shields_up_keep_new_flows_out_whatever_the_rules_say(self, pair: Pair) -> None:
        connect(pair)
        allow(pair.there, THERE_INNER, shields_up=True)
        pair.here.send(hello(1))
        pair.wait(lambda: counter(pair.there, "drop_in_filter_no_rule") == 1)

    def test_a_packet_for_an_address_that_is_not_ours_is_refused(self, pair: Pair) -> None:
        connect(pair, allowed_there=(IPv4Network("100.64.0.0/16"),))
        pair.here.send(build_udp(HERE_INNER, 1000, IPv4Address("100.64.9.9"), 2000, b"\0\0\0\1"))
        pair.wait(lambda: counter(pair.there, "drop_in_filter_not_local") == 1)

    def test_a_packet_from_an_address_that_its_sender_does_not_own_is_refused(self, pair: Pair) -> None:
        connect(pair)
        pair.here.send(build_udp(IPv4Address("100.64.7.7"), 1000, THERE_INNER, 2000, b"\0\0\0\1"))
        pair.wait(lambda: counter(pair.there, "drop_in_wrong_source") == 1)
        assert payloads(pair.there) == []

    def test_the_longest_prefix_decides_who_gets_a_packet(self, pair: Pair) -> None:
        connect(pair)
        other = NodePrivate.from_entropy(bytes([9]) * 32).public()
        order(pair.here, [port.UpsertPeer(port.Peer(other, (IPv4Network("100.64.0.0/10"),)))])
        pair.here.send(hello(1))
        pair.wait(lambda: payloads(pair.there) == [1])

    def test_a_removed_peer_is_nobody_and_one_that_stays_keeps_its_session(self, pair: Pair) -> None:
        connect(pair)
        pair.here.send(hello(1))
        pair.wait(lambda: payloads(pair.there) == [1])
        same = port.Peer(pair.there.key, (host_prefix(THERE_INNER),))
        order(pair.here, [port.SetPeers((same,))])
        pair.here.send(hello(2))
        pair.wait(lambda: payloads(pair.there) == [1, 2])
        assert len(of(pair.here, port.HandshakeDone)) == 1
        order(pair.here, [port.SetPeers(())])
        pair.here.send(hello(3))
        pair.wait(lambda: counter(pair.here, "drop_out_no_peer") == 1)

    def test_orders_of_one_batch_apply_in_their_order(self, pair: Pair) -> None:
        connect(pair)
        nowhere = AddrPort(pair.there.address.address, 9)
        order(
            pair.here, [port.SetPath(pair.there.key, udp=nowhere), port.SetPath(pair.there.key, udp=pair.there.address)]
        )
        pair.here.send(hello(1))
        pair.wait(lambda: payloads(pair.there) == [1])

    def test_a_path_that_cannot_be_sent_to_is_told_and_a_better_one_carries_on(self, pair: Pair) -> None:
        connect(pair)
        unreachable = AddrPort.parse("203.0.113.77:41641")
        order(pair.here, [port.SetPath(pair.there.key, udp=unreachable)])
        pair.here.send(hello(1))
        pair.wait(lambda: bool(of(pair.here, port.PathFault)))
        fault = of(pair.here, port.PathFault)[0]
        assert (fault.key, fault.address) == (pair.there.key, unreachable)
        assert fault.errno > 0
        order(pair.here, [port.SetPath(pair.there.key, udp=pair.there.address)])
        pair.wait(lambda: 1 in payloads(pair.there))

    def test_statistics_tell_both_sides_of_the_same_bytes(self, pair: Pair) -> None:
        connect(pair)
        pair.here.send(hello(1))
        pair.wait(lambda: payloads(pair.there) == [1])
        (sent_before,), (got_before,) = pair.here.engine.stats().peers, pair.there.engine.stats().peers
        pair.here.send(hello(2))
        pair.wait(lambda: payloads(pair.there) == [1, 2])
        (sent,), (got,) = pair.here.engine.stats().peers, pair.there.engine.stats().peers
        assert sent.tx_bytes - sent_before.tx_bytes == len(hello(2))
        assert got.rx_bytes - got_before.rx_bytes == len(hello(2))
        assert (sent.key, got.key) == (pair.there.key, pair.here.key)
        assert sent.handshake_age_s is not None
        assert got.rx_age_s is not None

    def test_garbage_is_counted_and_harms_nothing(self, pair: Pair) -> None:
        connect(pair)
        order(pair.here, [port.SendUDP(pair.there.address, b"\x7fgarbage")])
        pair.wait(lambda: counter(pair.there, "drop_in_unknown") == 1)
        pair.here.send(hello(1))
        pair.wait(lambda: payloads(pair.there) == [1])

    def test_a_rebind_keeps_the_port_and_the_sessions(self, pair: Pair) -> None:
        connect(pair)
        pair.here.send(hello(1))
        pair.wait(lambda: payloads(pair.there) == [1])
        order(pair.here, [port.Rebind()])
        pair.wait(lambda: len(of(pair.here, port.Bound)) == 2)
        assert of(pair.here, port.Bound)[0] == of(pair.here, port.Bound)[1]
        pair.here.send(hello(2))
        pair.wait(lambda: payloads(pair.there) == [1, 2])
        assert len(of(pair.here, port.HandshakeDone)) == 1

    def test_after_close_orders_are_refused_and_closing_again_is_harmless(self, pair: Pair) -> None:
        pair.here.engine.close()
        pair.here.engine.close()
        with pytest.raises(StateError):
            pair.here.engine.apply([port.Rebind()])


def connect(pair: Pair, *, filters: bool = True, allowed_there: tuple[IPNetwork, ...] | None = None) -> None:
    """Make the two peers of each other, by UDP."""
    for one, other, inner in ((pair.here, pair.there, THERE_INNER), (pair.there, pair.here, HERE_INNER)):
        allowed = allowed_there if allowed_there is not None and one is pair.here else (host_prefix(inner),)
        order(one, [port.SetPeers((port.Peer(other.key, allowed),)), port.SetPath(other.key, udp=other.address)])
    if filters:
        allow(pair.here, HERE_INNER)
        allow(pair.there, THERE_INNER)


def order(side: Side, orders: list[port.Order]) -> None:
    """Apply, and wait until that is done: statistics come behind what was queued."""
    side.engine.apply(orders)
    side.engine.stats()


def allow(side: Side, inner: IPv4Address, *, shields_up: bool = False) -> None:
    rule = port.FilterRule(EVERYTHING, EVERYTHING, (port.PortRange(0, 65535),), (1, 6, 17))
    order(side, [port.SetFilter(local=(host_prefix(inner),), rules=(rule,), shields_up=shields_up)])


def hello(number: int, *, back: bool = False, source_port: int = 2000) -> bytes:
    """A numbered UDP packet from here to there, or back as its answer."""
    payload = number.to_bytes(4, "big")
    if back:
        return build_udp(THERE_INNER, source_port, HERE_INNER, 1000, payload)
    return build_udp(HERE_INNER, 1000, THERE_INNER, 2000, payload)


def payloads(side: Side) -> list[int]:
    """The numbers that came, in order."""
    return [int.from_bytes(parse_udp(packet)[3], "big") for packet in side.received()]


def of(side: Side, kind: type[EventT]) -> list[EventT]:
    return [event for event in side.events if isinstance(event, kind)]


def counter(side: Side, name: str) -> int:
    return side.engine.stats().counters.get(name, 0)
