"""Our own endpoints, in the order peers are told of them (upstream: `wgengine/magicsock`, determineEndpoints).

Port-mapped; STUN's; the STUN address with our fixed port behind a hard NAT; recently seen ones; static ones; the
interfaces' own. Never: tailnet ranges, link-local, 4via6; loopback only when nothing else was found. A STUN address
that was found once is offered for 5 min 10 s more: peers may still hold it, and mappings outlive a quiet minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from buri.core.addresses import AddrPort, IPAddress
from buri.machine.netcheck import NetReport
from buri.machine.paths.candidates import usable
from buri.machine.paths.values import EndpointType, LocalEndpoint

TRACKED_S = 310.0
MAX_TRACKED = 16
MAX_IPV6_PER_SUBNET = 2


class OwnEndpoints:
    """Collects what each source found; `current` is the list for `PathManager.set_local_endpoints` and for control."""

    def __init__(self) -> None:
        self._port_ipv4: int | None = None
        self._port_ipv6: int | None = None
        self._port_is_fixed = False
        self._interfaces: tuple[IPAddress, ...] = ()
        self._static: tuple[AddrPort, ...] = ()
        self._mapped: AddrPort | None = None
        self._report: NetReport | None = None
        self._seen: dict[AddrPort, float] = {}

    def set_ports(self, ipv4: int | None, ipv6: int | None, *, fixed: bool) -> None:
        """The bound UDP ports (the engine's Bound); `fixed`: the user chose the port, and may have forwarded it."""
        self._port_ipv4, self._port_ipv6, self._port_is_fixed = ipv4, ipv6, fixed

    def set_interface_addresses(self, addresses: Sequence[IPAddress]) -> None:
        """The addresses of all interfaces that are up, ours aside."""
        self._interfaces = tuple(addresses)

    def set_static(self, endpoints: Sequence[AddrPort]) -> None:
        """What the configuration promises."""
        self._static = tuple(endpoints)

    def set_port_mapping(self, mapped: AddrPort | None) -> None:
        """A mapping the gateway granted (NAT-PMP, PCP, UPnP)."""
        self._mapped = mapped

    def set_report(self, report: NetReport, now: float) -> None:
        """A netcheck's result."""
        self._report = report
        for address in (*report.mapped_ipv4, report.global_ipv6):
            if address is not None:
                self._seen.pop(address, None)
                self._seen[address] = now
        while len(self._seen) > MAX_TRACKED:
            del self._seen[next(iter(self._seen))]

    def link_changed(self) -> None:
        """Another network: what STUN and the gateway said of the old one is void."""
        self._report = self._mapped = None
        self._seen.clear()

    def current(self, now: float) -> tuple[LocalEndpoint, ...]:
        """All our endpoints, best first, each once."""
        found: dict[AddrPort, EndpointType] = {}

        def add(address: AddrPort | None, kind: EndpointType) -> None:
            if address is not None and usable(address):
                found.setdefault(address, kind)

        add(self._mapped, EndpointType.PORT_MAPPED)
        report = self._report
        if report is not None:
            add(report.global_ipv4, EndpointType.STUN)
            add(report.global_ipv6, EndpointType.STUN)
            if report.hard_nat and self._port_is_fixed and report.global_ipv4 is not None and self._port_ipv4:
                add(AddrPort(report.global_ipv4.address, self._port_ipv4), EndpointType.STUN_LOCAL_PORT)
        for address, seen_at in self._seen.items():
            if now - seen_at < TRACKED_S:
                add(address, EndpointType.STUN)
        for address in self._static:
            add(address, EndpointType.EXPLICIT)
        interfaces = self._offered_interfaces()
        for ip in interfaces:
            add(self._with_port(ip), EndpointType.LOCAL)
        if not found:
            for ip in self._interfaces:
                if ip.is_loopback:
                    add(self._with_port(ip), EndpointType.LOCAL)
        return tuple(LocalEndpoint(address, kind) for address, kind in found.items())

    def _with_port(self, ip: IPAddress) -> AddrPort | None:
        port = self._port_ipv4 if isinstance(ip, IPv4Address) else self._port_ipv6
        return AddrPort(ip, port) if port else None

    def _offered_interfaces(self) -> list[IPAddress]:
        offered: list[IPAddress] = []
        per_subnet: dict[IPv6Network, int] = {}
        for ip in self._interfaces:
            if ip.is_loopback or ip.is_link_local:
                continue
            if isinstance(ip, IPv6Address):
                subnet = IPv6Network((ip, 64), strict=False)
                per_subnet[subnet] = per_subnet.get(subnet, 0) + 1
                if per_subnet[subnet] > MAX_IPV6_PER_SUBNET:
                    continue
            offered.append(ip)
        return offered
