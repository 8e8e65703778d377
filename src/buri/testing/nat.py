"""NAT models after RFC 4787: how ports are mapped, who may answer, whether a mapping can be used from inside.

"Easy" is endpoint-independent mapping (one outside port for an inside socket); "hard" maps anew for every destination.
"""

from __future__ import annotations

import enum
from random import Random

import msgspec

from buri.core.addresses import AddrPort, IPAddress
from buri.testing.simnet import Datagram, Network
from buri.testing.timeline import Timeline


class Dependence(enum.Enum):
    """On what of the far end a mapping or a filter depends."""

    NONE = "endpoint-independent"
    ADDRESS = "address-dependent"
    ADDRESS_AND_PORT = "address- and port-dependent"


HAIRPIN_S = 0.002  # the way to the router and through it; the network inside adds its own


class NatModel(msgspec.Struct, frozen=True):
    """A kind of NAT. `timeout_s` counts from the last datagram out (RFC 4787, REQ-6)."""

    mapping: Dependence = Dependence.NONE
    filtering: Dependence = Dependence.ADDRESS_AND_PORT
    hairpin: bool = False
    timeout_s: float = 120.0


EASY = NatModel()
FULL_CONE = NatModel(filtering=Dependence.NONE)
HARD = NatModel(mapping=Dependence.ADDRESS_AND_PORT)


class _Mapping:
    __slots__ = ("allowed", "inside", "port", "used_at")

    def __init__(self, inside: AddrPort, port: int) -> None:
        self.inside = inside
        self.port = port
        self.used_at = 0.0
        self.allowed: dict[AddrPort, float] = {}


class Nat:
    """A NAT between a network inside and one outside, on one public address."""

    def __init__(
        self,
        timeline: Timeline,
        rng: Random,
        model: NatModel,
        *,
        inside: Network,
        outside: Network,
        address: IPAddress,
        distance_s: float = 0.005,
    ) -> None:
        self.model = model
        self.address = address
        self._timeline = timeline
        self._rng = rng
        self._inside = inside
        self._outside = outside
        self._by_key: dict[tuple[AddrPort, object], _Mapping] = {}
        self._by_port: dict[int, _Mapping] = {}
        self.distance_s = distance_s
        inside.gateway = self
        outside.attach(address, self, distance_s)

    def forget(self) -> None:
        """Restart: every mapping is gone."""
        self._by_key.clear()
        self._by_port.clear()

    def move(self, address: IPAddress) -> None:
        """The provider gave another public address."""
        self._outside.detach(self.address)
        self.forget()
        self.address = address
        self._outside.attach(address, self, self.distance_s)

    def forward(self, datagram: Datagram) -> None:
        """From inside out."""
        mapping = self._mapping_for(datagram.source, datagram.destination)
        mapping.used_at = self._timeline.now
        mapping.allowed[datagram.destination] = self._timeline.now
        outside = Datagram(AddrPort(self.address, mapping.port), datagram.destination, datagram.data, datagram.whole)
        if datagram.destination.address == self.address:
            if self.model.hairpin:
                self._timeline.call_later(HAIRPIN_S, lambda: self.receive(outside))
            return
        self._outside.send(outside)

    def receive(self, datagram: Datagram) -> None:
        """From outside in."""
        mapping = self._by_port.get(datagram.destination.port)
        if mapping is None or not self._alive(mapping.used_at) or not self._admits(mapping, datagram.source):
            return
        self._inside.send(Datagram(datagram.source, mapping.inside, datagram.data, datagram.whole))

    def _alive(self, used_at: float) -> bool:
        return self._timeline.now - used_at < self.model.timeout_s

    def _mapping_for(self, inside: AddrPort, destination: AddrPort) -> _Mapping:
        key = (inside, _key(self.model.mapping, destination))
        mapping = self._by_key.get(key)
        if mapping is None or not self._alive(mapping.used_at):
            if mapping is not None:
                del self._by_port[mapping.port]
            mapping = _Mapping(inside, self._free_port())
            self._by_key[key] = mapping
            self._by_port[mapping.port] = mapping
        return mapping

    def _admits(self, mapping: _Mapping, source: AddrPort) -> bool:
        kind = self.model.filtering
        if kind is Dependence.NONE:
            return True
        return any(
            self._alive(at) and _key(kind, allowed) == _key(kind, source) for allowed, at in mapping.allowed.items()
        )

    def _free_port(self) -> int:
        while True:
            port = self._rng.randrange(1024, 65536)
            if port not in self._by_port:
                return port


def _key(kind: Dependence, address: AddrPort) -> object:
    match kind:
        case Dependence.NONE:
            return None
        case Dependence.ADDRESS:
            return address.address
        case Dependence.ADDRESS_AND_PORT:
            return address
