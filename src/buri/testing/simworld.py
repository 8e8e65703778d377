"""A whole simulated world: the internet, relays, homes behind NATs, nodes, and a control server that tells all of all.

    world = World(seed=1)
    world.add_relay(1)
    a = world.add_node("a", world.add_home(EASY))
    b = world.add_node("b", world.add_home(EASY))
    world.settle()
    talk = Conversation(a, b)
    assert world.timeline.run_until(lambda: a.path_to(b).address is not None, within_s=10)

Everything random comes from the seed, which `str(world)` shows.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise
from random import Random

from buri.core.keys import NodePrivate
from buri.testing.nat import Nat, NatModel
from buri.testing.simnet import Network, SimHost
from buri.testing.simnode import SimNode
from buri.testing.simrelay import SimRelay
from buri.testing.timeline import Timeline
from buri.wire.tailcfg.derpmap import DERPMap, DERPRegion

CONTROL_DELAY_S = 0.05
_HOME_PREFIX = IPv4Network("192.168.1.0/24")  # every home's, as in life: their addresses overlap
_PUBLIC = IPv4Network("198.18.0.0/15")
_TAILNET = IPv4Network("100.64.0.0/10")


class Home:
    """A LAN behind a NAT."""

    def __init__(self, network: Network, nat: Nat) -> None:
        self.network = network
        self.nat = nat
        self.hosts = 0

    def next_address(self) -> IPv4Address:
        self.hosts += 1
        return _HOME_PREFIX[9 + self.hosts]


class World:
    """Owns the clock and everything on it."""

    def __init__(self, seed: int, *, loss: float = 0.0) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.timeline = Timeline()
        self.internet = Network(self.timeline, self.rng, "internet", loss=loss)
        self.relays: dict[int, SimRelay] = {}
        self.nodes: list[SimNode] = []
        self.control_up = True
        self._public = 0
        self._numbers = 0
        self._map_planned = False

    def __str__(self) -> str:
        return f"world of seed {self.seed} at {self.timeline.now:.3f} s"

    def public_address(self) -> IPv4Address:
        """A fresh public address."""
        self._public += 1
        return _PUBLIC[self._public]

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def add_relay(self, region: int, distance_s: float = 0.010) -> SimRelay:
        key = NodePrivate.from_entropy(self.rng.randbytes(32)).public()
        relay = SimRelay(self.timeline, self.internet, region, self.public_address(), key, distance_s)
        self.relays[region] = relay
        return relay

    def add_home(self, model: NatModel, *, distance_s: float = 0.010, mtu: int = 1500) -> Home:
        name = f"home{self._public}"
        lan = Network(self.timeline, self.rng, name, prefixes=(_HOME_PREFIX,), mtu=mtu)
        nat = Nat(
            self.timeline,
            self.rng,
            model,
            inside=lan,
            outside=self.internet,
            address=self.public_address(),
            distance_s=distance_s,
        )
        return Home(lan, nat)

    def add_node(self, name: str, home: Home | None = None, *, distance_s: float = 0.001) -> SimNode:
        """A node in a home, or with a public address of its own; it starts at once."""
        host = SimHost(name)
        if home is not None:
            host.plug(home.network, home.next_address(), distance_s)
        else:
            host.plug(self.internet, self.public_address(), distance_s)
        address = _TAILNET[len(self.nodes) + 1]
        node = SimNode(self, name, host, address, Random(self.rng.random()))
        self.nodes.append(node)
        node.start()
        self.publish(node)
        return node

    def derp_map(self) -> DERPMap:
        regions: dict[int, DERPRegion | None] = {
            region: relay.derp_region() for region, relay in sorted(self.relays.items())
        }
        return DERPMap(regions=regions)

    def publish(self, node: SimNode) -> None:
        """A node told control something new: soon every node has a netmap with it."""
        if self.control_up and not self._map_planned:
            self._map_planned = True
            self.timeline.call_later(CONTROL_DELAY_S, self._send_maps)

    def settle(self, seconds: float = 5.0) -> None:
        """Let first netchecks and netmaps happen."""
        self.timeline.run(seconds)

    def time_https(self, host: SimHost, region: int, answer: Callable[[int, float | None], None]) -> None:
        """What a shell does on ProbeHTTPS: two round trips to the relay, or a failure after a second."""
        relay = self.relays.get(region)
        if relay is None or not relay.up or not host.online:
            self.timeline.call_later(1.0, lambda: answer(region, None))
            return
        latency_s = 4 * (relay.distance_s + 0.010)
        self.timeline.call_later(latency_s, lambda: answer(region, latency_s))

    def _send_maps(self) -> None:
        self._map_planned = False
        for node in self.nodes:
            peers = [peer for peer in self.nodes if peer is not node]
            node.set_peers(peers, [peer.info() for peer in peers])


class Conversation:
    """One node sends numbered datagrams to another, which echoes them."""

    def __init__(self, one: SimNode, other: SimNode, *, every_s: float = 0.2, size_bytes: int = 64) -> None:
        self.one = one
        self.other = other
        self.every_s = every_s
        self.size_bytes = size_bytes
        self.sent: list[float] = []
        self._running = True
        self._number = one.world.next_number()
        self._send()

    def stop(self) -> None:
        self._running = False

    def answered(self) -> dict[int, float]:
        """Round-trip seconds of every number that came back."""
        found: dict[int, float] = {}
        for at, source, payload in self.one.received:
            number = int.from_bytes(payload[:4], "big")
            if source == self.other.address and payload[4:8] == self._mark() and number < len(self.sent):
                found.setdefault(number, at - self.sent[number])
        return found

    def lost_between(self, start: float, end: float) -> list[float]:
        """When those were sent, in that span, that never came back."""
        answered = self.answered()
        return [at for number, at in enumerate(self.sent) if start <= at < end and number not in answered]

    def longest_silence_s(self, start: float, end: float) -> float:
        """The longest time without an answered datagram, by the time of sending."""
        answered = self.answered()
        good = [at for number, at in enumerate(self.sent) if start <= at < end and number in answered]
        marks = [start, *good, end]
        return max(later - earlier for earlier, later in pairwise(marks))

    def _mark(self) -> bytes:
        return self._number.to_bytes(4, "big")

    def _send(self) -> None:
        if not self._running:
            return
        timeline = self.one.world.timeline
        payload = len(self.sent).to_bytes(4, "big") + self._mark()
        self.sent.append(timeline.now)
        self.one.send(self.other, payload + bytes(max(0, self.size_bytes - len(payload))))
        timeline.call_later(self.every_s, self._send)
