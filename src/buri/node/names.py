"""Names of the tailnet on this machine: the resolver behind 100.100.100.100, and the system led to it.

Facts come by `want`; what follows is done in one task, one change after the other, always towards the newest facts.
While another interface or route holds the service addresses (Tailscale's, whichever came first), ours bears neither,
and the resolver is 127.100.100.100 alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from buri.core.addresses import AddrPort, IPAddress
from buri.core.errors import BuriError, SystemFault
from buri.dns.osconfig import OSDNS, Manager
from buri.dns.osconfig.resolvconf import PlainFile
from buri.dns.osconfig.resolved import Resolved, leads_here
from buri.dns.server import DNSServer, Resolver
from buri.machine.magicdns import FALLBACK_IPV4, SERVICE_IPV4, SERVICE_IPV6, Names
from buri.machine.mapdelta import Netmap
from buri.netio.netlink import Netlink

PORT = 53
SERVICE_ADDRESSES: tuple[IPAddress, ...] = (SERVICE_IPV4, SERVICE_IPV6)
_TABLES = (254, 52)  # main, and Tailscale's
log = logging.getLogger("buri.dns")


class NameService:
    """`on_change` is called when `trouble` changed: a sentence on what keeps names from working, "" for nothing."""

    def __init__(self, interface: str, on_change: Callable[[], None], *, directory: Path = Path("/etc")) -> None:
        self._interface = interface
        self._on_change = on_change
        self._directory = directory
        self.resolver = Resolver()
        self._server = DNSServer(self.resolver)
        self._manager: Manager | None = None
        self.wanted: Netmap | None = None
        self._told = False
        self._service: tuple[IPAddress, ...] = SERVICE_ADDRESSES
        self._work: asyncio.Task[None] | None = None
        self._again = False
        self.trouble = ""
        self.os_config = OSDNS(())

    @property
    def service_addresses(self) -> tuple[IPAddress, ...]:
        """What our interface shall bear now."""
        return self._service

    def look(self) -> bool:
        """See whether the service addresses are free; whether that changed."""
        before = self._service
        try:
            with Netlink() as netlink:
                self._service = () if _held_elsewhere(netlink, self._interface) else SERVICE_ADDRESSES
        except SystemFault as error:
            log.debug("%s", error)
        return self._service != before

    def want(self, netmap: Netmap | None, *, again: bool = False) -> None:
        """Serve the names of `netmap` from now on; None: none, and the system as it was. Cheap when nothing is new."""
        if netmap is self.wanted and self._told and not again:
            return
        self.wanted, self._told = netmap, True
        self._again = True
        if self._work is None or self._work.done():
            self._work = asyncio.get_running_loop().create_task(self._follow(), name="names")

    async def close(self) -> None:
        """Give the system back as it was, and stop answering."""
        self.want(None, again=True)
        if self._work is not None:
            await self._work
        await self._server.close()

    async def _follow(self) -> None:
        while self._again:
            self._again = False
            trouble = ""
            try:
                await self._apply(self.wanted)
            except BuriError as error:
                trouble = f"Names of the tailnet do not work here: {error}"
            if trouble != self.trouble:
                self.trouble = trouble
                if trouble:
                    log.error("%s", trouble)
                self._on_change()

    async def _apply(self, netmap: Netmap | None) -> None:
        manager = await self._choose()
        names = None if netmap is None else _names(netmap, () if manager.splits else await manager.upstreams())
        if names is None or not names.needed:
            await manager.revert()
            await self._server.listen((), None)
            self.os_config = OSDNS(())
            return
        self.resolver.use(names)
        bound = await self._listen()
        wanted = OSDNS(
            nameservers=bound,
            search_domains=names.search,
            match_domains=names.match_domains,
            everything=names.overrides or not manager.splits,
        )
        if wanted != self.os_config or not manager.splits:  # a plain file may have been written over
            await manager.apply(wanted)
            self.os_config = wanted

    async def _listen(self) -> tuple[IPAddress, ...]:
        """Answer on the service addresses, else on the fallback; where. Raises SystemFault when nowhere."""
        for addresses in (self._service, self._service[:1]):  # the second: a host without IPv6
            if addresses:
                with contextlib.suppress(SystemFault):
                    await self._server.listen([AddrPort(address, PORT) for address in addresses], self._interface)
                    return addresses
        await self._server.listen([AddrPort(FALLBACK_IPV4, PORT)], None)
        return (FALLBACK_IPV4,)

    async def _choose(self) -> Manager:
        resolved = leads_here(self._directory / "resolv.conf")
        if self._manager is None or self._manager.splits != resolved:
            if self._manager is not None:
                await self._manager.revert()
            self._manager = Resolved(self._interface) if resolved else PlainFile(self._directory)
            self.os_config = OSDNS(())
        return self._manager


def _names(netmap: Netmap, upstreams: tuple[AddrPort, ...]) -> Names:
    return Names(netmap.dns, (netmap.self_node, *netmap.peers.values()), host_upstreams=upstreams)


def _held_elsewhere(netlink: Netlink, interface: str) -> bool:
    """Whether another interface bears a service address, or a route leads it there."""
    links = {link.name: link.index for link in netlink.links()}
    ours = links.get(interface)
    if any(found.address in SERVICE_ADDRESSES and found.index != ours for found in netlink.addresses()):
        return True
    return any(
        route.index != ours and route.prefix.prefixlen == route.prefix.max_prefixlen
        for table in _TABLES
        for route in netlink.routes(table)
        if route.prefix.network_address in SERVICE_ADDRESSES
    )
