"""The simulated internet: networks, hosts with addresses in them, and datagrams that take time or get lost.

A network delivers between its members; what is not for one of them goes to its gateway (a `Nat`), if it has one. Each
member has its own distance to the middle of the network, so that the way between two takes the sum of both.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from ipaddress import IPv4Address
from random import Random
from typing import Protocol

import msgspec

from buri.core.addresses import AddrPort, IPAddress, IPNetwork
from buri.testing.timeline import Timeline

IPV4_OVERHEAD_BYTES = 28
IPV6_OVERHEAD_BYTES = 48


class Datagram(msgspec.Struct, frozen=True):
    """One UDP datagram; `whole`: it must not be fragmented (DF)."""

    source: AddrPort
    destination: AddrPort
    data: bytes
    whole: bool = False

    def size_bytes(self) -> int:
        """On the wire, with IP and UDP headers."""
        ipv4 = isinstance(self.destination.address, IPv4Address)
        return len(self.data) + (IPV4_OVERHEAD_BYTES if ipv4 else IPV6_OVERHEAD_BYTES)


class Member(Protocol):
    """What can be attached to a network."""

    def receive(self, datagram: Datagram) -> None:
        """A datagram for one of its addresses arrived."""


class Gateway(Protocol):
    """The way out of a network."""

    def forward(self, datagram: Datagram) -> None:
        """Take a datagram that is for nobody inside."""


class Network:
    """A subnet, or the public internet (no prefixes of its own, no gateway)."""

    def __init__(
        self,
        timeline: Timeline,
        rng: Random,
        name: str,
        *,
        prefixes: tuple[IPNetwork, ...] = (),
        loss: float = 0.0,
        mtu: int = 1500,
        drop_fragments: bool = False,
    ) -> None:
        self.name = name
        self.prefixes = prefixes
        self.loss = loss
        self.mtu = mtu
        self.drop_fragments = drop_fragments
        self.jitter_s = 0.0  # each datagram takes up to that much longer, so that they overtake one another
        self.gateway: Gateway | None = None
        self.delivered = 0
        self.dropped: dict[str, int] = {}
        self._timeline = timeline
        self._rng = rng
        self._members: dict[IPAddress, tuple[Member, float]] = {}
        self._blackholes: set[tuple[IPAddress, IPAddress]] = set()  # asked for membership only

    def attach(self, address: IPAddress, member: Member, distance_s: float = 0.005) -> None:
        self._members[address] = (member, distance_s)

    def detach(self, address: IPAddress) -> None:
        self._members.pop(address, None)

    def has(self, address: IPAddress) -> bool:
        return address in self._members

    def distance_s(self, one: IPAddress, other: IPAddress) -> float:
        """The time between two members."""
        return self._members[one][1] + self._members[other][1]

    def swallow(self, one: IPAddress, other: IPAddress, *, both_ways: bool = True) -> None:
        """From now on datagrams between two addresses vanish without a word."""
        self._blackholes.add((one, other))
        if both_ways:
            self._blackholes.add((other, one))

    def heal(self) -> None:
        self._blackholes.clear()

    def swallows(self, one: IPAddress, other: IPAddress) -> bool:
        return (one, other) in self._blackholes

    def send(self, datagram: Datagram) -> None:
        """Take a datagram from a member (or from a gateway above)."""
        target = self._members.get(datagram.destination.address)
        if target is None:
            inside = any(datagram.destination.address in prefix for prefix in self.prefixes)
            if self.gateway is not None and not inside:
                self.gateway.forward(datagram)
            else:
                self._drop("nobody there")
            return
        if self.swallows(datagram.source.address, datagram.destination.address):
            self._drop("swallowed")
            return
        if datagram.size_bytes() > self.mtu and (datagram.whole or self.drop_fragments):
            self._drop("too long")
            return
        if self.loss and self._rng.random() < self.loss:
            self._drop("lost")
            return
        member, distance_s = target
        source = self._members.get(datagram.source.address)
        delay_s = distance_s + (source[1] if source is not None else 0.0)
        if self.jitter_s:
            delay_s += self._rng.random() * self.jitter_s
        self.delivered += 1
        self._timeline.call_later(delay_s, lambda: member.receive(datagram))

    def _drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


Receive = Callable[[AddrPort, bytes], None]


class SimSocket:
    """A bound UDP port of a host, on all its addresses."""

    def __init__(self, host: SimHost, port: int, receive: Receive) -> None:
        self.host = host
        self.port = port
        self.receive = receive

    def send(self, address: AddrPort, data: bytes, *, whole: bool = False) -> int:
        """Send; returns 0 or the errno of the failure."""
        return self.host.send(self.port, address, data, whole=whole)

    def close(self) -> None:
        self.host.sockets.pop(self.port, None)


class SimHost:
    """A host: interfaces (address, network) in order of preference, and bound UDP ports."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.online = True
        self.udp_blocked = False
        self.unreachable: list[IPAddress] = []  # the operating system refuses to send there
        self.interfaces: list[tuple[IPAddress, Network]] = []
        self.sockets: dict[int, SimSocket] = {}
        self.sent = 0

    def plug(self, network: Network, address: IPAddress, distance_s: float = 0.005) -> None:
        """Give the host an address in a network."""
        self.interfaces.append((address, network))
        network.attach(address, self, distance_s)

    def unplug(self) -> None:
        """Take all its addresses away."""
        for address, network in self.interfaces:
            network.detach(address)
        self.interfaces.clear()

    def addresses(self) -> list[IPAddress]:
        return [address for address, _ in self.interfaces]

    def bind(self, port: int, receive: Receive) -> SimSocket:
        """Bind this port, or the next free one above."""
        while port in self.sockets or port == 0:
            port += 1
        socket = SimSocket(self, port, receive)
        self.sockets[port] = socket
        return socket

    def send(self, port: int, address: AddrPort, data: bytes, *, whole: bool) -> int:
        if not self.online:
            return errno.ENETUNREACH
        way = self._way_to(address.address)
        if way is None:
            return errno.ENETUNREACH
        if address.address in self.unreachable:
            return errno.EHOSTUNREACH
        self.sent += 1
        source, network = way
        if not self.udp_blocked:
            network.send(Datagram(AddrPort(source, port), address, data, whole))
        return 0

    def receive(self, datagram: Datagram) -> None:
        socket = self.sockets.get(datagram.destination.port)
        if socket is not None and self.online and not self.udp_blocked:
            socket.receive(datagram.source, datagram.data)

    def _way_to(self, destination: IPAddress) -> tuple[IPAddress, Network] | None:
        same_family = [(a, n) for a, n in self.interfaces if a.version == destination.version]
        for address, network in same_family:
            if any(destination in prefix for prefix in network.prefixes):
                return address, network
        for address, network in same_family:
            if network.gateway is not None or not network.prefixes:
                return address, network
        return None
