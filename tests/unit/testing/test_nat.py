"""The simulated NATs do what their names say, or the simulator's tests prove nothing."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from random import Random

import pytest

from buri.core.addresses import AddrPort
from buri.testing.nat import Dependence, Nat, NatModel
from buri.testing.simnet import Network, SimHost
from buri.testing.timeline import Timeline

OUTSIDE = IPv4Address("198.51.100.1")


class Street:
    """One host behind a NAT, two outside."""

    def __init__(self, model: NatModel) -> None:
        self.timeline = Timeline()
        rng = Random(1)
        self.internet = Network(self.timeline, rng, "internet")
        self.lan = Network(self.timeline, rng, "lan", prefixes=(IPv4Network("192.168.1.0/24"),))
        self.nat = Nat(self.timeline, rng, model, inside=self.lan, outside=self.internet, address=OUTSIDE)
        self.heard: list[tuple[str, AddrPort, bytes]] = []
        self.inside = self.host("inside", self.lan, "192.168.1.2")
        self.one = self.host("one", self.internet, "203.0.113.1")
        self.two = self.host("two", self.internet, "203.0.113.2")

    def host(self, name: str, network: Network, address: str) -> SimHost:
        host = SimHost(name)
        host.plug(network, IPv4Address(address))
        for port in (1000, 2000):
            host.bind(port, lambda source, data: self.heard.append((name, source, data)))
        return host

    def send(self, host: SimHost, to: str, data: bytes = b"x", port: int = 1000) -> list[tuple[str, AddrPort, bytes]]:
        """Send and return what arrived anywhere."""
        self.heard.clear()
        host.sockets[port].send(AddrPort.parse(to), data)
        self.timeline.run(1)
        return list(self.heard)

    def mapped(self, to: str) -> AddrPort:
        ((_, source, _),) = self.send(self.inside, to)
        return source


@pytest.mark.parametrize(
    ("mapping", "other_port_is_same", "other_host_is_same"),
    [
        (Dependence.NONE, True, True),
        (Dependence.ADDRESS, True, False),
        (Dependence.ADDRESS_AND_PORT, False, False),
    ],
)
def test_mappings_depend_on_what_they_say(
    mapping: Dependence, other_port_is_same: bool, other_host_is_same: bool
) -> None:
    street = Street(NatModel(mapping=mapping))
    first = street.mapped("203.0.113.1:1000")

    assert first.address == OUTSIDE
    assert street.mapped("203.0.113.1:1000") == first
    assert (street.mapped("203.0.113.1:2000") == first) is other_port_is_same
    assert (street.mapped("203.0.113.2:1000") == first) is other_host_is_same


@pytest.mark.parametrize(
    ("filtering", "other_port_passes", "other_host_passes"),
    [
        (Dependence.NONE, True, True),
        (Dependence.ADDRESS, True, False),
        (Dependence.ADDRESS_AND_PORT, False, False),
    ],
)
def test_filters_depend_on_what_they_say(
    filtering: Dependence, other_port_passes: bool, other_host_passes: bool
) -> None:
    street = Street(NatModel(filtering=filtering))
    outside = str(street.mapped("203.0.113.1:1000"))

    assert len(street.send(street.one, outside)) == 1
    assert bool(street.send(street.one, outside, port=2000)) is other_port_passes
    assert bool(street.send(street.two, outside)) is other_host_passes


def test_a_mapping_expires_without_outbound_traffic_and_gets_another_port() -> None:
    street = Street(NatModel(timeout_s=30))
    outside = street.mapped("203.0.113.1:1000")
    street.timeline.run(20)
    assert street.send(street.one, str(outside))
    street.timeline.run(20)
    assert street.send(street.one, str(outside)) == []
    assert street.mapped("203.0.113.1:1000") != outside


def test_only_a_hairpin_nat_turns_its_own_address_around() -> None:
    for hairpin in (True, False):
        street = Street(NatModel(filtering=Dependence.NONE, hairpin=hairpin))
        outside = street.mapped("203.0.113.1:1000")
        assert bool(street.send(street.inside, str(outside), port=2000)) is hairpin


def test_long_datagrams_that_must_stay_whole_are_lost_and_others_pass() -> None:
    street = Street(NatModel())
    street.internet.mtu = 1300
    sent = [
        street.inside.sockets[1000].send(AddrPort.parse("203.0.113.1:1000"), bytes(1300), whole=whole)
        for whole in (True, False)
    ]
    street.timeline.run(1)

    assert sent == [0, 0]
    assert len(street.heard) == 1
    assert street.internet.dropped == {"too long": 1}
