"""A node of the simulated internet: the real machines and the fake engine, with a thin shell around them."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from random import Random
from typing import TYPE_CHECKING, assert_never

from buri.core.addresses import AddrPort, host_prefix
from buri.core.keys import DiscoPrivate, NodePrivate, NodePublic
from buri.engine import port
from buri.engine.fake import FakeEngine, RelayConnection, RelayFace, UnderlaySocket
from buri.machine import relays as relay_machine
from buri.machine.netcheck import Netcheck, NetReport, ProbeHTTPS
from buri.machine.paths import values
from buri.machine.paths.localendpoints import OwnEndpoints
from buri.machine.paths.manager import PathManager
from buri.machine.paths.reasons import OwnNetwork
from buri.machine.paths.values import LocalEndpoint, PathInfo, PeerPathInfo, PingDone
from buri.machine.relays import RelayManager
from buri.testing.innerpacket import build_udp, parse_udp
from buri.testing.simnet import SimHost
from buri.testing.timeline import Timer

if TYPE_CHECKING:
    from buri.testing.simworld import World

ECHO_PORT = 7
_ALL_IPV4 = IPv4Network("0.0.0.0/0")
_NETCHECK_EVERY_S = 300.0


class HostUnderlay:
    """The simulated host as the fake engine sees it."""

    def __init__(self, world: World, host: SimHost) -> None:
        self._world = world
        self._host = host

    @property
    def now(self) -> float:
        return self._world.timeline.now

    def call_later(self, delay_s: float, call: Callable[[], None]) -> object:
        return self._world.timeline.call_later(delay_s, call)

    def bind(self, port: int, receive: Callable[[AddrPort, bytes], None]) -> UnderlaySocket:
        return self._host.bind(port, receive)

    def has_family(self, version: int) -> bool:
        return any(address.version == version for address in self._host.addresses())

    def open_relay(self, order: port.ConnectRelay, key: NodePublic, face: RelayFace) -> RelayConnection:
        return self._world.relays[order.region].connect(self._host, key, face, order.region)


class SimNode:
    """One node. `received` holds (time, sender, payload) of every inner datagram that came."""

    def __init__(self, world: World, name: str, host: SimHost, address: IPv4Address, rng: Random) -> None:
        self.name = name
        self.world = world
        self.host = host
        self.address = address
        self.private = NodePrivate.from_entropy(rng.randbytes(32))
        self.disco_private = DiscoPrivate.from_entropy(rng.randbytes(32))
        self.key = self.private.public()
        self.received: list[tuple[float, IPv4Address, bytes]] = []
        self.paths_said: list[tuple[float, values.PathChosen]] = []
        self.pings_done: list[PingDone] = []
        self.endpoints: tuple[LocalEndpoint, ...] = ()
        self.paths = PathManager(rng)
        self.relays = RelayManager(rng)
        self.netcheck = Netcheck(rng)
        self.own = OwnEndpoints()
        self.make_known = True  # whether control tells peers that this is one of our nodes
        self._asleep = False
        self._timer: Timer | None = None
        self._pump_planned = False
        self._next_netcheck_at = world.timeline.now
        self.engine = FakeEngine(
            port.EngineConfig(private_key=self.private, tun_name=None),
            HostUnderlay(world, host),
            wake=self.pump_soon,
        )

    def start(self) -> None:
        """Come up: identity, relays, the first netcheck."""
        now = self.world.timeline.now
        self.paths.set_self(self.key, self.disco_private, now)
        self.own.set_interface_addresses(self.host.addresses())
        allow_all = port.FilterRule((_ALL_IPV4,), (_ALL_IPV4,), (port.PortRange(0, 65535),), (1, 6, 17))
        self.engine.apply([port.SetFilter(local=(host_prefix(self.address),), rules=(allow_all,))])
        self.relays.set_derp_map(self.world.derp_map(), now)
        self.pump_soon()

    # ---- what a test does with it ----

    def send(self, to: SimNode, payload: bytes) -> None:
        """Send one inner UDP datagram to the other's echo port."""
        self.engine.send_inner(build_udp(self.address, 5000, to.address, ECHO_PORT, payload))

    def path_to(self, other: SimNode) -> PathInfo:
        info = self.paths.path_info(other.key, self.world.timeline.now)
        if info is None:
            raise KeyError(other.name)
        return info

    def ping(self, other: SimNode, size_bytes: int = 0) -> int:
        request = self.paths.ping(other.key, size_bytes, self.world.timeline.now)
        self._pump()
        return request

    def link_changed(self) -> None:
        """The host's addresses changed and the node noticed."""
        now = self.world.timeline.now
        self.own.link_changed()
        self.own.set_interface_addresses(self.host.addresses())
        self.engine.apply([port.Rebind()])
        self.paths.link_changed(now)
        self.relays.link_changed(now)
        self.netcheck.cancel()
        self._next_netcheck_at = now
        self._pump()

    def sleep(self) -> None:
        """The machine is suspended: nothing is handled until `wake_up`."""
        self._asleep = True
        self.host.online = False

    def wake_up(self) -> None:
        self._asleep = False
        self.host.online = True
        self.pump_soon()

    def info(self) -> PeerPathInfo:
        """What the netmap tells of this node."""
        report = self.netcheck.last_report
        return PeerPathInfo(
            key=self.key,
            disco_key=self.disco_private.public(),
            endpoints=tuple(endpoint.address for endpoint in self.endpoints),
            home_region=self.relays.home,
            hard_nat=report.hard_nat if report is not None else None,
            cuts=self.make_known,
        )

    def set_peers(self, peers: list[SimNode], infos: list[PeerPathInfo]) -> None:
        """A netmap arrived."""
        specs = tuple(port.Peer(peer.key, (host_prefix(peer.address),)) for peer in peers)
        self.engine.apply([port.SetPeers(specs)])
        self.paths.set_peers(infos, self.world.timeline.now)
        self.pump_soon()

    # ---- the shell ----

    def pump_soon(self) -> None:
        """Run the shell once at this instant, after what is running now."""
        if not self._pump_planned:
            self._pump_planned = True
            self.world.timeline.call_later(0.0, self._planned_pump)

    def _planned_pump(self) -> None:
        self._pump_planned = False
        self._pump()

    def _pump(self) -> None:
        if self._asleep:
            return
        now = self.world.timeline.now
        for machine in (self.paths, self.relays, self.netcheck):
            at = machine.next_timeout()
            if at is not None and at <= now:
                machine.handle_timeout(now)
        if now >= self._next_netcheck_at:
            self._start_netcheck(now)
        while events := self.engine.poll_events():
            for event in events:
                self._handle(event, now)
            self._drain(now)
        self._drain(now)
        self._take_inner(now)
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        times = [machine.next_timeout() for machine in (self.paths, self.relays, self.netcheck)]
        times.append(self._next_netcheck_at)
        self._timer = self.world.timeline.call_at(min(at for at in times if at is not None), self._pump)

    def _start_netcheck(self, now: float, gone: int = 0) -> None:
        self._next_netcheck_at = now + _NETCHECK_EVERY_S
        ipv6 = any(address.version == 6 for address in self.host.addresses())
        home = self.relays.home
        self.netcheck.start(
            self.world.derp_map(), now, home=home, ipv6=ipv6, full=gone != 0, restart=gone != 0, gone=gone
        )

    def _handle(self, event: port.Event, now: float) -> None:
        match event:
            case port.Bound():
                self.own.set_ports(event.port_ipv4, event.port_ipv6, fixed=True)
            case port.DiscoIn():
                if event.source is not None:
                    self.paths.handle_disco_udp(event.data, event.source, now)
                elif event.relay_key is not None:
                    self.paths.handle_disco_relay(event.data, event.region, event.relay_key, now)
            case port.STUNIn():
                self.netcheck.handle_stun(event.source, event.data, now)
            case port.PeerActive():
                self.paths.peer_active(event.key, now)
            case port.PathFault():
                self.paths.handle_path_fault(event.key, event.address, event.errno, now)
            case port.RelayUp():
                self.relays.handle_relay_up(event.region, now)
                self.paths.handle_relay_up(event.region, now)
            case port.RelayDown():
                self.relays.handle_relay_down(event.region, event.reason, now)
                self.paths.handle_relay_down(event.region, now)
            case port.RelayPeerSeen():
                self.paths.handle_relay_peer_seen(event.region, event.key, now)
            case port.RelayPeerGone():
                self.paths.handle_relay_peer_gone(event.region, event.key, now)
            case port.RelayHealth():
                self.relays.handle_relay_health(event.region, event.problem)
            case port.HandshakeDone() | port.HandshakeFailed() | port.Fatal():
                pass
            case _:
                assert_never(event)

    def _drain(self, now: float) -> None:
        while (report := self.netcheck.poll_event()) is not None:
            self._handle_netcheck(report, now)
        while (path_event := self.paths.poll_event()) is not None:
            self._handle_path(path_event, now)
        while (relay_event := self.relays.poll_event()) is not None:
            match relay_event:
                case relay_machine.HomeChanged():
                    self.world.publish(self)
                case relay_machine.NetcheckWanted():
                    self._start_netcheck(now, gone=relay_event.gone)
                case relay_machine.ResolveHost():
                    self.relays.set_addresses(relay_event.host, (), now)
        self.engine.apply(self._orders())

    def _handle_netcheck(self, event: ProbeHTTPS | NetReport, now: float) -> None:
        if isinstance(event, ProbeHTTPS):
            self.world.time_https(self.host, event.region, self._https_answer)
            return
        self.paths.set_own_network(OwnNetwork(udp=event.udp, hard_nat=event.hard_nat))
        self.relays.handle_report(event, now)
        self.own.set_report(event, now)
        endpoints = self.own.current(now)
        self.paths.set_local_endpoints(endpoints, now)
        if endpoints != self.endpoints:
            self.endpoints = endpoints
            self.world.publish(self)

    def _https_answer(self, region: int, latency_s: float | None) -> None:
        self.netcheck.handle_https_latency(region, latency_s, self.world.timeline.now)
        self._pump()

    def _handle_path(self, event: values.PathEvent, now: float) -> None:
        match event:
            case values.PathChosen():
                self.paths_said.append((now, event))
                self.engine.apply([port.SetPath(event.key, event.udp, event.relay_region, event.gso)])
            case values.NeedEndpoints():
                self._start_netcheck(now)
            case values.RelayInUse():
                self.relays.use(event.region, now)
            case values.PingDone():
                self.pings_done.append(event)
            case _:
                assert_never(event)

    def _orders(self) -> list[port.Order]:
        orders: list[port.Order] = []
        while (sent := self.paths.poll_transmit() or self.netcheck.poll_transmit()) is not None:
            match sent:
                case values.SendUDP():
                    orders.append(port.SendUDP(sent.address, sent.data, sent.whole))
                case values.SendRelay():
                    orders.append(port.SendRelay(sent.region, sent.key, sent.data))
        while (intent := self.relays.poll_transmit()) is not None:
            match intent:
                case relay_machine.ConnectRelay():
                    orders.append(
                        port.ConnectRelay(
                            intent.region,
                            intent.addresses,
                            intent.port,
                            intent.server_name,
                            intent.certificate,
                            intent.insecure,
                            intent.plain,
                            intent.preferred,
                        )
                    )
                case relay_machine.PreferRelay():
                    orders.append(port.PreferRelay(intent.region, intent.preferred))
                case relay_machine.CloseRelay():
                    self.paths.handle_relay_down(intent.region, self.world.timeline.now)
                    orders.append(port.CloseRelay(intent.region))
        return orders

    def _take_inner(self, now: float) -> None:
        while (packet := self.engine.take_inner()) is not None:
            source, source_port, to_port, payload = parse_udp(packet)
            self.received.append((now, source, payload))
            if to_port == ECHO_PORT:
                self.engine.send_inner(build_udp(self.address, ECHO_PORT, source, source_port, payload))
