"""The network monitor of Linux: rtnetlink wakes it, it reads the state anew, and says whether the change matters.

What matters to a tunnel: usable addresses of interfaces that are up, and default routes; the tunnel's own interface
never counts. A burst of changes is looked at once, after a short quiet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from buri.core.addresses import IPAddress, is_tailnet_address
from buri.netio.netlink import Netlink, NetworkEvents

QUIET_S = 0.25
_MAIN_TABLE = 254


class NetworkState(msgspec.Struct, frozen=True):
    """What the host's network is like: usable addresses, and (prefix, interface, gateway) of the default routes."""

    addresses: tuple[IPAddress, ...] = ()
    defaults: tuple[tuple[str, int, str], ...] = ()

    @property
    def has_ipv6(self) -> bool:
        """Whether an address other than loopback and link-local is IPv6."""
        return any(a.version == 6 and not a.is_link_local and not a.is_loopback for a in self.addresses)


def read_state(netlink: Netlink, *, without: str) -> NetworkState:
    """The state now; interface `without` is our own tunnel."""
    links = {link.index: link for link in netlink.links() if link.up and link.name != without}
    addresses = tuple(
        found.address
        for found in netlink.addresses()
        if found.index in links and found.usable and not is_tailnet_address(found.address)
    )
    defaults = tuple(
        (str(route.prefix), route.index, str(route.gateway or ""))
        for route in netlink.routes(_MAIN_TABLE)
        if route.prefix.prefixlen == 0 and route.index in links
    )
    return NetworkState(addresses, defaults)


class NetworkMonitor:
    """Calls `on_change(old, new)` in the running loop whenever the kernel's network changed.

    Both are equal when nothing that matters to us did: then only what we set ourselves may need mending.
    """

    def __init__(self, interface: str, on_change: Callable[[NetworkState, NetworkState], None]) -> None:
        self._interface = interface
        self._on_change = on_change
        self._netlink = Netlink()
        self._events = NetworkEvents()
        self._look: asyncio.TimerHandle | None = None
        self.state = read_state(self._netlink, without=interface)
        asyncio.get_running_loop().add_reader(self._events.fileno(), self._woken)

    def close(self) -> None:
        """Stop watching."""
        asyncio.get_running_loop().remove_reader(self._events.fileno())
        if self._look is not None:
            self._look.cancel()
        self._events.close()
        self._netlink.close()

    def _woken(self) -> None:
        self._events.drain()
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(QUIET_S, self._compare)

    def _compare(self) -> None:
        self._look = None
        old, self.state = self.state, read_state(self._netlink, without=self._interface)
        self._on_change(old, self.state)
