"""systemd-resolved, by D-Bus: our resolver becomes the tunnel interface's own, for the tailnet's names alone.

resolved forgets an interface's settings when the interface goes, so nothing has to be put back after a crash.
Source: org.freedesktop.resolve1(5), `SetLinkDNS`, `SetLinkDomains`, `SetLinkDefaultRoute`, `RevertLink`.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from buri.core.addresses import AddrPort
from buri.core.errors import NotPermittedError, SystemFault
from buri.dns.osconfig import OSDNS

if TYPE_CHECKING:
    from dbus_fast.aio import MessageBus

_SERVICE, _PATH, _INTERFACE = (
    "org.freedesktop.resolve1",
    "/org/freedesktop/resolve1",
    "org.freedesktop.resolve1.Manager",
)
_STUBS = ("127.0.0.53", "127.0.0.54")
CALL_TIMEOUT_S = 5.0


def leads_here(resolv_conf: Path = Path("/etc/resolv.conf")) -> bool:
    """Whether programs ask systemd-resolved: the file is its own, or names its stub."""
    try:
        if "systemd/resolve" in os.readlink(resolv_conf):
            return True
    except OSError:
        pass
    try:
        lines = resolv_conf.read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(line.split()[:1] == ["nameserver"] and line.split()[1:2] == [stub] for line in lines for stub in _STUBS)


class Resolved:
    """Sets the DNS of one interface."""

    name = "systemd-resolved"
    splits = True

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._bus: MessageBus | None = None

    async def upstreams(self) -> tuple[AddrPort, ...]:
        """Not needed: resolved itself asks the others."""
        return ()

    async def apply(self, wanted: OSDNS) -> None:
        """Make the interface's servers, domains and default route these."""
        link = self._link()
        servers = [
            [socket.AF_INET if address.version == 4 else socket.AF_INET6, address.packed]
            for address in wanted.nameservers
        ]
        domains = [[domain, False] for domain in wanted.search_domains]
        domains += [[domain, True] for domain in wanted.match_domains if domain not in wanted.search_domains]
        if wanted.everything:
            domains.append([".", True])
        await self._call("SetLinkDNS", "ia(iay)", [link, servers])
        await self._call("SetLinkDomains", "ia(sb)", [link, domains])
        await self._call("SetLinkDefaultRoute", "ib", [link, wanted.everything])
        await self._call("FlushCaches", "", [])

    async def revert(self) -> None:
        """Forget the interface's settings; one that is gone has none."""
        try:
            link = socket.if_nametoindex(self._interface)
        except OSError:
            link = 0
        if link and self._bus is not None:
            await self._call("RevertLink", "i", [link])
        if self._bus is not None:
            self._bus.disconnect()
            self._bus = None

    def _link(self) -> int:
        try:
            return socket.if_nametoindex(self._interface)
        except OSError as error:
            raise SystemFault(f"The interface {self._interface} is gone.", remedy="Restart burid.") from error

    async def _call(self, member: str, signature: str, body: list[Any]) -> None:
        from dbus_fast import DBusError, Message, MessageType

        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                bus = await self._connected()
                reply = await bus.call(
                    Message(
                        destination=_SERVICE,
                        path=_PATH,
                        interface=_INTERFACE,
                        member=member,
                        signature=signature,
                        body=body,
                    )
                )
        except (OSError, TimeoutError, EOFError, DBusError) as error:
            self._bus = None
            raise SystemFault(
                f"systemd-resolved could not be asked over D-Bus: {str(error) or 'no answer'}.",
                remedy="See `systemctl status systemd-resolved`.",
            ) from error
        if reply.message_type is MessageType.ERROR:
            name = reply.error_name or ""
            said = reply.body[0] if reply.body else name
            kind = NotPermittedError if name.endswith("AccessDenied") else SystemFault
            raise kind(f"systemd-resolved refused {member}: {said}.", remedy="Run burid as root.")

    async def _connected(self) -> MessageBus:
        from dbus_fast import BusType
        from dbus_fast.aio import MessageBus

        if self._bus is None or not self._bus.connected:
            self._bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
        return self._bus
