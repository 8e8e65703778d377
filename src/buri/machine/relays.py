"""Which relays to be connected to, and which of them is home (wire reference 1e, "Netcheck and home DERP").

- Home is always connected and told so (NotePreferred). Others are connected while a peer is sent to through them
  (`use`), and closed after 60 s without use.
- A relay that went down comes back after a back-off with jitter; a second node of the region is tried next.
- A home that went away makes us measure at once; after two failures it is left for the next quickest.
- Else home moves by `handle_report`, with hysteresis (`HomeChoice`): never while the control connection is down, and
  the home that still speaks is kept.

`ConnectRelay`, `PreferRelay` and `CloseRelay` here have the fields of the engine's orders; the shell copies them.
"""

from __future__ import annotations

from collections import deque

import msgspec

from buri.core.addresses import IPAddress
from buri.machine.backoff import Backoff
from buri.machine.contract import Randomness
from buri.machine.homechoice import HomeChoice
from buri.machine.netcheck import NetReport
from buri.machine.relayaddresses import Resolved, derp_port, node_addresses, regions_of, relay_nodes
from buri.wire.tailcfg.derpmap import DERPMap, DERPNode, DERPRegion

IDLE_CLOSE_S = 60.0
BACKOFF_FIRST_S = 0.5
BACKOFF_LONGEST_S = 15.0
MAX_AWAITED = 64
FAILURES_TO_LEAVE = 2  # a home that answers STUN and no connection is none


class ConnectRelay(msgspec.Struct, frozen=True, tag=True):
    """Open the connection to a region; fields as in the engine's order of the same name."""

    region: int
    addresses: tuple[IPAddress, ...]
    port: int
    server_name: str
    certificate: str = ""
    insecure: bool = False
    plain: bool = False
    preferred: bool = False


class PreferRelay(msgspec.Struct, frozen=True, tag=True):
    """Tell a connected relay whether it is our home."""

    region: int
    preferred: bool


class CloseRelay(msgspec.Struct, frozen=True, tag=True):
    """Close the connection to a region."""

    region: int


RelayIntent = ConnectRelay | PreferRelay | CloseRelay


class HomeChanged(msgspec.Struct, frozen=True, tag=True):
    """Our home region is another now (0: none): tell control (NetInfo.PreferredDERP)."""

    region: int


class ResolveHost(msgspec.Struct, frozen=True, tag=True):
    """A relay's name must be looked up: answer with `set_addresses`."""

    host: str


class NetcheckWanted(msgspec.Struct, frozen=True, tag=True):
    """The home relay `gone` went away: measure now, without waiting for it, so that another can be chosen."""

    gone: int


RelayEvent = HomeChanged | ResolveHost | NetcheckWanted


class RelayStatus(msgspec.Struct, frozen=True):
    """A region as `status` and health show it: `problem` is "" or one phrase."""

    region: int
    connected: bool
    home: bool
    problem: str


class _Relay:
    """Our side of one region: wanted or not, up or not, when next."""

    def __init__(self, rng: Randomness) -> None:
        self.used_at: float | None = None
        self.connecting = False
        self.up = False
        self.retry_at: float | None = None
        self.problem = ""
        self.health = ""
        self.node_index = 0
        self.preferred_said = False
        self.opened_as: ConnectRelay | None = None
        self.backoff = Backoff(rng, first_s=BACKOFF_FIRST_S, longest_s=BACKOFF_LONGEST_S)


class RelayManager:
    """Decides about relay connections; the engine holds them."""

    def __init__(self, rng: Randomness, *, plain: bool = False) -> None:
        """`plain` speaks HTTP without TLS to relays marked InsecureForTests (tests only)."""
        self._rng = rng
        self._plain = plain
        self._regions: dict[int, DERPRegion] = {}
        self._resolved: dict[str, tuple[IPAddress, ...]] = {}
        self._asked: set[str] = set()
        self._relays: dict[int, _Relay] = {}
        self._awaited: dict[int, float] = {}  # regions in use that no map has told of yet, and since when
        self._choice = HomeChoice(rng)
        self._home = 0
        self._transmits: deque[RelayIntent] = deque()
        self._events: deque[RelayEvent] = deque()

    @property
    def home(self) -> int:
        """Our home region, 0 while none is chosen."""
        return self._home

    # ---- verbs ----

    def set_derp_map(self, derp_map: DERPMap, now: float) -> None:
        """Take a new map: connections to regions that are gone or moved are closed (and opened anew)."""
        self._regions = {region.region_id: region for region in regions_of(derp_map) if relay_nodes(region)}
        self._asked.clear()
        awaited, self._awaited = self._awaited, {}
        for region_id, used_at in awaited.items():
            self.use(region_id, used_at)
        for region_id, relay in list(self._relays.items()):
            region = self._regions.get(region_id)
            if region is None:
                self._close(region_id, relay)
                del self._relays[region_id]
            elif relay.opened_as is not None and relay.opened_as not in self._ways(region):
                self._close(region_id, relay)
                relay.node_index = 0
                relay.backoff.reset()
                relay.retry_at = None
        self._choice.set_map(derp_map, now)
        self._set_home(self._choice.choose(self._home, now))
        self._settle(now)

    def set_addresses(self, host: str, addresses: tuple[IPAddress, ...], now: float) -> None:
        """The answer to ResolveHost; empty means that the look-up failed (it is asked again after a back-off)."""
        self._asked.discard(host)
        if addresses:
            self._resolved[host] = addresses
        else:
            self._resolved.pop(host, None)
            for region_id, region in self._regions.items():
                relay = self._relays.get(region_id)
                if relay is not None and any(node.host_name == host for node in relay_nodes(region)):
                    self._fail(relay, f"the name {host} has no address", now)
        self._settle(now)

    def set_control_connected(self, connected: bool) -> None:
        """While control is away, home stays: peers could not be told of another."""
        self._choice.control_connected = connected

    def use(self, region: int, now: float) -> None:
        """A peer is sent to through this region (the path manager's RelayInUse)."""
        relay = self._relay(region)
        if relay is not None:
            relay.used_at = now
            self._settle(now)
        elif region in self._awaited or len(self._awaited) < MAX_AWAITED:
            self._awaited[region] = now

    def link_changed(self, now: float) -> None:
        """Our network changed: open every wanted connection anew, at once."""
        for region_id, relay in self._relays.items():
            self._close(region_id, relay)
            relay.backoff.reset()
            relay.retry_at = None
        self._asked.clear()
        self._settle(now)

    # ---- input ----

    def handle_report(self, report: NetReport, now: float) -> None:
        """A netcheck's result may move home."""
        self._choice.add_report(report, now)
        self._set_home(self._choice.choose(self._home, now))
        self._settle(now)

    def handle_relay_up(self, region: int, now: float) -> None:
        relay = self._relays.get(region)
        if relay is None:
            self._transmits.append(CloseRelay(region))
            return
        relay.up, relay.connecting = True, False
        relay.problem, relay.retry_at = "", None
        relay.backoff.reset()
        if region == self._home:
            self._choice.home_spoke(now)
        self._choice.relay_works(region)
        self._settle(now)

    def handle_relay_down(self, region: int, reason: str, now: float) -> None:
        relay = self._relays.get(region)
        if relay is None or not (relay.up or relay.connecting):
            return
        self._fail(relay, reason, now)
        if region == self._home:
            self._choice.home_went()
            self._events.append(NetcheckWanted(region))
        if relay.backoff.failures >= FAILURES_TO_LEAVE:
            self._choice.relay_fails(region, now)
            self._set_home(self._choice.choose(self._home, now))
        self._settle(now)

    def handle_relay_heard(self, region: int, now: float) -> None:
        """Something came from this relay: a home that speaks is kept (120 s)."""
        if region == self._home:
            self._choice.home_spoke(now)

    def handle_relay_health(self, region: int, problem: str) -> None:
        """The relay's own word on its health ("" = healthy)."""
        relay = self._relays.get(region)
        if relay is not None:
            relay.health = problem

    # ---- output ----

    def poll_transmit(self) -> RelayIntent | None:
        return self._transmits.popleft() if self._transmits else None

    def poll_event(self) -> RelayEvent | None:
        return self._events.popleft() if self._events else None

    def next_timeout(self) -> float | None:
        times: list[float] = []
        for region_id, relay in self._relays.items():
            if relay.retry_at is not None and not relay.up and not relay.connecting:
                times.append(relay.retry_at)
            if region_id != self._home and relay.used_at is not None:
                times.append(relay.used_at + IDLE_CLOSE_S)
        return min(times, default=None)

    def handle_timeout(self, now: float) -> None:
        self._settle(now)

    def status(self) -> list[RelayStatus]:
        """Every region that is wanted now, by id."""
        return [
            RelayStatus(region_id, relay.up, region_id == self._home, relay.problem or relay.health)
            for region_id, relay in sorted(self._relays.items())
        ]

    # ---- helpers ----

    def _relay(self, region: int) -> _Relay | None:
        if region not in self._regions:
            return None
        return self._relays.setdefault(region, _Relay(self._rng))

    def _set_home(self, region: int) -> None:
        if region == self._home:
            return
        self._home = region
        self._events.append(HomeChanged(region))

    def _fail(self, relay: _Relay, reason: str, now: float) -> None:
        relay.up = relay.connecting = relay.preferred_said = False
        relay.problem = reason
        relay.node_index += 1
        relay.retry_at = now + relay.backoff.next_s()

    def _close(self, region_id: int, relay: _Relay) -> None:
        if relay.up or relay.connecting:
            self._transmits.append(CloseRelay(region_id))
        relay.up = relay.connecting = relay.preferred_said = False
        relay.opened_as = None

    def _settle(self, now: float) -> None:
        """Bring connections to what is wanted now."""
        if self._home:
            self._relay(self._home)
        for region_id, relay in list(self._relays.items()):
            is_home = region_id == self._home
            if not is_home and (relay.used_at is None or now >= relay.used_at + IDLE_CLOSE_S):
                self._close(region_id, relay)
                del self._relays[region_id]
            elif relay.up:
                if relay.preferred_said != is_home:
                    relay.preferred_said = is_home
                    self._transmits.append(PreferRelay(region_id, is_home))
            elif not relay.connecting and (relay.retry_at is None or now >= relay.retry_at):
                self._connect(region_id, relay, now)

    def _connect(self, region_id: int, relay: _Relay, now: float) -> None:
        region = self._regions[region_id]
        nodes = relay_nodes(region)
        node = nodes[relay.node_index % len(nodes)]
        way = self._way(region, node)
        if not way.addresses:
            relay.retry_at = None  # the answer to the look-up goes on from here
            if node.host_name not in self._asked:
                self._asked.add(node.host_name)
                self._events.append(ResolveHost(node.host_name))
            return
        relay.connecting = True
        relay.opened_as = way
        is_home = region_id == self._home
        relay.preferred_said = is_home
        self._transmits.append(msgspec.structs.replace(way, preferred=is_home))

    def _ways(self, region: DERPRegion) -> list[ConnectRelay]:
        return [self._way(region, node) for node in relay_nodes(region)]

    def _way(self, region: DERPRegion, node: DERPNode) -> ConnectRelay:
        resolved: Resolved = self._resolved
        return ConnectRelay(
            region=region.region_id,
            addresses=node_addresses(node, resolved),
            port=derp_port(node),
            server_name=node.host_name,
            certificate=node.cert_name,
            insecure=node.insecure_for_tests,
            plain=self._plain and node.insecure_for_tests,
        )
