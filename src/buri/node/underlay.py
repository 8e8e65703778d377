"""The shell between the engine and the machines of the path: path manager, relays, netcheck, own endpoints.

It feeds the engine's events to the machines, turns what they say into one batch of orders, looks names up, and keeps
one timer. Which path, which relay, when to measure: all that is theirs.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Coroutine, Sequence
from ipaddress import ip_address
from typing import Any, Protocol

from buri.core.addresses import IPAddress
from buri.core.errors import BuriError, InternalError
from buri.core.keys import DiscoPrivate, NodePublic
from buri.engine import port
from buri.machine import relays
from buri.machine.netcheck import Netcheck, NetReport, ProbeHTTPS
from buri.machine.paths import values
from buri.machine.paths.localendpoints import OwnEndpoints
from buri.machine.paths.manager import PathManager
from buri.machine.paths.reasons import OwnNetwork
from buri.machine.relayaddresses import derp_port, hosts_to_resolve, node_addresses, relay_nodes, usable
from buri.machine.relays import RelayManager
from buri.netio.streams import request_latency_s
from buri.node.netmon.linux import NetworkState
from buri.node.router.linux import MARK
from buri.node.timer import MachineTimer
from buri.wire.tailcfg.derpmap import DERPMap


class UnderlayListener(Protocol):
    """Who hears of the underlay; all calls come from within the loop."""

    def underlay_changed(self) -> None:
        """A relay came or went, home moved, our endpoints or what we know of the network changed."""

    def peer_answered(self, key: NodePublic) -> None:
        """A WireGuard handshake with a peer was done."""

    def engine_failed(self, reason: str) -> None:
        """The engine stopped."""


class Underlay:
    """Owns the engine while it runs."""

    def __init__(
        self, engine: port.Engine, listener: UnderlayListener, state: NetworkState, *, fixed_port: bool
    ) -> None:
        rng = secrets.SystemRandom()
        self.engine = engine
        self.paths = PathManager(rng)
        self.relays = RelayManager(rng)
        self.netcheck = Netcheck(rng)
        self.endpoints: tuple[values.LocalEndpoint, ...] = ()
        self.report: NetReport | None = None
        self.port_ipv4: int | None = None
        self._listener = listener
        self._own = OwnEndpoints()
        self._own.set_interface_addresses(state.addresses)
        self._network = state
        self._fixed_port = fixed_port
        self._identity: NodePublic | None = None
        self._derp_map = DERPMap()
        self._resolved: dict[str, tuple[IPAddress, ...]] = {}
        self._orders: list[port.Order] = []
        self._pings: dict[int, asyncio.Future[values.PingDone]] = {}
        self._reports: list[asyncio.Future[NetReport]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer = MachineTimer(self._due)
        self._pumping = False
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(engine.fileno(), self._woken)

    # ---- verbs --------------------------------------------------------------------------------------------------

    def set_identity(self, key: NodePublic, disco: DiscoPrivate) -> None:
        """Who we are towards peers; relays know us by the key, so another one means other connections."""
        self.paths.set_self(key, disco, self._now())
        if self._identity is not None and self._identity != key:
            self.relays.link_changed(self._now())
        self._identity = key
        self.pump()

    def order(self, orders: Sequence[port.Order], paths: Sequence[values.PeerPathInfo]) -> None:
        """Hand tables down: the engine's orders first, then the peers whose paths are to be found."""
        self._orders += orders
        self.paths.set_peers(paths, self._now())
        self.pump()

    def set_derp_map(self, derp_map: DERPMap) -> None:
        """Take a new map of relays, or what of it can be, and measure them."""
        derp_map = usable(derp_map)
        if derp_map == self._derp_map:
            return
        self._derp_map = derp_map
        self.relays.set_derp_map(derp_map, self._now())
        self._spawn(self._resolve_all_and_check(derp_map))
        self.pump()

    def set_control_connected(self, connected: bool) -> None:
        """Home does not move while the control server cannot be told."""
        self.relays.set_control_connected(connected)

    def network_changed(self, state: NetworkState) -> None:
        """Another network: rebind, doubt every path, measure anew."""
        self._network = state
        now = self._now()
        self._own.link_changed()
        self._own.set_interface_addresses(state.addresses)
        self._orders.append(port.Rebind())
        self.paths.link_changed(now)
        self.relays.link_changed(now)
        self._check(restart=True, full=True)
        self._refresh_endpoints()
        self.pump()

    def reopen_relays(self) -> None:
        """Close every relay connection and open it anew."""
        self.relays.link_changed(self._now())
        self.pump()

    async def ping(self, key: NodePublic, size_bytes: int, patience_s: float) -> values.PingDone:
        """One disco ping; raises StateError for a node that is no peer."""
        future: asyncio.Future[values.PingDone] = self._loop.create_future()
        request = self.paths.ping(key, size_bytes, self._now(), patience_s)
        self._pings[request] = future
        self.pump()
        try:
            return await future
        finally:
            self._pings.pop(request, None)

    def path_info(self, key: NodePublic) -> values.PathInfo | None:
        """The way to a peer now; None for a node that is no peer."""
        return self.paths.path_info(key, self._now())

    async def measure(self) -> NetReport:
        """A full netcheck now; without a map of relays, an empty report."""
        if not self._derp_map.regions:
            return NetReport()
        future: asyncio.Future[NetReport] = self._loop.create_future()
        self._reports.append(future)
        self._check(restart=True, full=True)
        self.pump()
        return await future

    async def close(self) -> None:
        """Stop the engine and everything under way."""
        if self._closed:
            return
        self._closed = True
        self._timer.arm(None)
        self._loop.remove_reader(self.engine.fileno())
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for ping in self._pings.values():
            ping.cancel()
        for report in self._reports:
            report.cancel()
        self.engine.close()

    def pump(self) -> None:
        """Drain every machine into one batch of orders, and arm the timer."""
        if self._pumping or self._closed:
            return
        self._pumping = True
        try:
            while self._drain():
                pass
        finally:
            self._pumping = False
        if self._orders:
            orders, self._orders = self._orders, []
            try:
                self.engine.apply(orders)
            except BuriError as error:
                self._listener.engine_failed(error.message)
                return
        times = (m.next_timeout() for m in (self.paths, self.relays, self.netcheck))
        self._timer.arm(min((at for at in times if at is not None), default=None))

    # ---- machines -----------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return self._loop.time()

    def _due(self) -> None:
        now = self._now()
        for machine in (self.paths, self.relays, self.netcheck):
            at = machine.next_timeout()
            if at is not None and at <= now:
                machine.handle_timeout(now)
        self.pump()

    def _drain(self) -> bool:
        busy = False
        for source in (self.paths, self.netcheck):
            while (datagram := source.poll_transmit()) is not None:
                self._orders.append(_datagram(datagram))
        while (intent := self.relays.poll_transmit()) is not None:
            if isinstance(intent, relays.CloseRelay):  # the engine tells nobody of what was asked for
                self.paths.handle_relay_down(intent.region, self._now())
            self._orders.append(_intent(intent))
        while (path_event := self.paths.poll_event()) is not None:
            busy = True
            self._hear_path(path_event)
        while (relay_event := self.relays.poll_event()) is not None:
            busy = True
            if isinstance(relay_event, relays.ResolveHost):
                self._spawn(self._resolve(relay_event.host))
            elif isinstance(relay_event, relays.NetcheckWanted):
                self._check(restart=True, full=True, gone=relay_event.gone)
            else:
                self._listener.underlay_changed()
        while (check_event := self.netcheck.poll_event()) is not None:
            busy = True
            if isinstance(check_event, ProbeHTTPS):
                self._spawn(self._probe(check_event.region))
            else:
                self._hear_report(check_event)
        return busy

    def _hear_path(self, event: values.PathEvent) -> None:
        match event:
            case values.PathChosen(key=key, udp=udp, relay_region=region, gso=gso):
                self._orders.append(port.SetPath(key, udp, region, gso))
            case values.NeedEndpoints():
                if self._derp_map.regions:
                    self._check()
                else:
                    self.paths.set_local_endpoints(self._own.current(self._now()), self._now())
            case values.RelayInUse(region=region):
                self.relays.use(region, self._now())
            case values.PingDone(request=request):
                future = self._pings.pop(request, None)
                if future is not None and not future.done():
                    future.set_result(event)

    def _hear_report(self, report: NetReport) -> None:
        now = self._now()
        self.report = report
        self._own.set_report(report, now)
        self.relays.handle_report(report, now)
        self.paths.set_own_network(OwnNetwork(udp=report.udp, hard_nat=report.hard_nat))
        waiting, self._reports = self._reports, []
        for future in waiting:
            if not future.done():
                future.set_result(report)
        self._refresh_endpoints()

    def _refresh_endpoints(self) -> None:
        now = self._now()
        self.endpoints = self._own.current(now)
        self.paths.set_local_endpoints(self.endpoints, now)
        self._listener.underlay_changed()

    def _check(self, *, restart: bool = False, full: bool = False, gone: int = 0) -> None:
        self.netcheck.start(
            self._derp_map,
            self._now(),
            home=self.relays.home,
            resolved=self._resolved,
            ipv6=self._network.has_ipv6,
            full=full,
            restart=restart,
            gone=gone,
        )

    # ---- the engine's events ------------------------------------------------------------------------------------

    def _woken(self) -> None:
        for event in self.engine.poll_events():
            self._hear_engine(event)
        self.pump()

    def _hear_engine(self, event: port.Event) -> None:
        now = self._now()
        match event:
            case port.DiscoIn(data=data, source=source, region=region, relay_key=relay_key):
                if source is not None:
                    self.paths.handle_disco_udp(data, source, now)
                elif relay_key is not None:
                    self.relays.handle_relay_heard(region, now)
                    self.paths.handle_disco_relay(data, region, relay_key, now)
            case port.STUNIn(source=source, data=data):
                self.netcheck.handle_stun(source, data, now)
            case port.PeerActive(key=key):
                self.paths.peer_active(key, now)
            case port.HandshakeDone(key=key):
                self._listener.peer_answered(key)
            case port.PathFault(key=key, address=address, errno=number):
                self.paths.handle_path_fault(key, address, number, now)
            case port.RelayUp(region=region):
                self.relays.handle_relay_up(region, now)
                self.paths.handle_relay_up(region, now)
                self._listener.underlay_changed()
            case port.RelayDown(region=region, reason=reason):
                self.relays.handle_relay_down(region, reason, now)
                self.paths.handle_relay_down(region, now)
                self._listener.underlay_changed()
            case port.RelayPeerGone(region=region, key=key):
                self.paths.handle_relay_peer_gone(region, key, now)
            case port.RelayPeerSeen(region=region, key=key):
                self.paths.handle_relay_peer_seen(region, key, now)
            case port.RelayHealth(region=region, problem=problem):
                self.relays.handle_relay_health(region, problem)
                self._listener.underlay_changed()
            case port.Bound(port_ipv4=ipv4, port_ipv6=ipv6):
                self.port_ipv4 = ipv4
                self._own.set_ports(ipv4, ipv6, fixed=self._fixed_port)
                self._refresh_endpoints()
            case port.Fatal(reason=reason):
                self._listener.engine_failed(reason)
            case _:  # HandshakeFailed: the path machine finds out by its own pings
                pass

    # ---- names and HTTPS ----------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._listener.engine_failed(str(InternalError(f"a look-up failed in an unforeseen way: {error!r}.")))

    async def _resolve(self, host: str) -> None:
        addresses = await _look_up(host)
        if addresses:
            self._resolved[host] = addresses
        self.relays.set_addresses(host, addresses, self._now())
        self.pump()

    async def _resolve_all_and_check(self, derp_map: DERPMap) -> None:
        hosts = [host for host in hosts_to_resolve(derp_map) if host not in self._resolved]
        for host, addresses in zip(hosts, await asyncio.gather(*map(_look_up, hosts)), strict=True):
            if addresses:
                self._resolved[host] = addresses
                self.relays.set_addresses(host, addresses, self._now())
        if derp_map is self._derp_map:
            self._check(restart=True, full=True)
            self.pump()

    async def _probe(self, region_id: int) -> None:
        region = (self._derp_map.regions or {}).get(region_id)
        latency_s: float | None = None
        for node in relay_nodes(region) if region is not None else ():
            addresses = node_addresses(node, self._resolved)
            if addresses:
                latency_s = await request_latency_s(
                    str(addresses[0]), derp_port(node), node.host_name, "/derp/latency-check", mark=MARK
                )
                break
        self.netcheck.handle_https_latency(region_id, latency_s, self._now())
        self.pump()


async def _look_up(host: str) -> tuple[IPAddress, ...]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # UnicodeError: a text that is no name in any script
        return ()
    return tuple(dict.fromkeys(ip_address(address[0]) for _, _, _, _, address in found))


def _datagram(datagram: values.SendUDP | values.SendRelay) -> port.Order:
    if isinstance(datagram, values.SendUDP):
        return port.SendUDP(datagram.address, datagram.data, datagram.whole)
    return port.SendRelay(datagram.region, datagram.key, datagram.data)


def _intent(intent: relays.RelayIntent) -> port.Order:
    match intent:
        case relays.ConnectRelay():
            return port.ConnectRelay(
                region=intent.region,
                addresses=intent.addresses,
                port=intent.port,
                server_name=intent.server_name,
                certificate=intent.certificate,
                insecure=intent.insecure,
                plain=intent.plain,
                preferred=intent.preferred,
            )
        case relays.PreferRelay(region=region, preferred=preferred):
            return port.PreferRelay(region, preferred)
        case relays.CloseRelay(region=region):
            return port.CloseRelay(region)
