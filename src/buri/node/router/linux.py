"""The router of Linux: a routing table and rules of Buri's own, beside Tailscale's if that is there too.

Table 5282 holds every route into the tunnel. Policy rules, in both families (Tailscale's are 5210 to 5270):

    5281   packets with Buri's mark   -> table main
    5283   packets with Buri's mark   -> table default
    5285   packets with Buri's mark   -> unreachable
    5287   everything                 -> table 5282

The mark 0x42000000 under mask 0xff000000 is on every socket of the engine, so that the tunnel's own packets never enter
the tunnel, whatever it routes. Tailscale's mark lives in 0x00ff0000.

Nothing else of the system is changed. The interface goes with the process that held it, and its routes and addresses
with the interface; so all that a killed burid leaves is the rules. While the table holds routes, a living burid uses
them.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

from buri.core.addresses import IPNetwork
from buri.core.errors import SystemFault
from buri.netio.netlink import Destination, Netlink, Rule
from buri.node.router import RouterConfig

TABLE = 5282
MARK, MARK_MASK = 0x42000000, 0xFF000000
_MAIN, _DEFAULT = 254, 253
RULES = (
    Rule(5281, _MAIN, MARK, MARK_MASK),
    Rule(5283, _DEFAULT, MARK, MARK_MASK),
    Rule(5285, 0, MARK, MARK_MASK),
    Rule(5287, TABLE),
)
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


ROUTES_AT_ONCE = 256  # some milliseconds: IPv6 routes cost the kernel most


class _Left(NamedTuple):
    """What of a configuration's routes is still to change."""

    config: RouterConfig
    interface: int
    add: list[Destination]
    remove: list[Destination]


class LinuxRouter:
    """Keeps interface `name` as it should be; `name` need not exist before the first `apply`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._netlink = Netlink()
        self._ipv6 = True
        self._left: _Left | None = None

    def apply(self, config: RouterConfig) -> bool:
        """Change only what differs from `config`; False when routes are left for the next call."""
        left = self._left
        if left is None or left.config is not config:
            left = self._begin(config)
        self._left = None  # should the kernel refuse, the next call looks anew
        add, remove = left.add[:ROUTES_AT_ONCE], left.remove[:ROUTES_AT_ONCE]
        self._netlink.change_routes(left.interface, TABLE, add, remove)
        more = _Left(config, left.interface, left.add[ROUTES_AT_ONCE:], left.remove[ROUTES_AT_ONCE:])
        if more.add or more.remove:
            self._left = more
            return False
        if not config.addresses and not in_use(self._netlink):
            remove_rules(self._netlink)  # offline: nothing of ours decides about anybody's packets
        return True

    def _begin(self, config: RouterConfig) -> _Left:
        """Set everything but the routes, and find out which of those differ."""
        index = self._index()
        self._netlink.set_link(index, mtu=config.mtu, up=True)
        if config.addresses:
            for family in _FAMILIES:
                self._add_rules(family)
        own = {a for a in config.addresses if self._ipv6 or a.version == 4}
        addresses = own | {a for a in config.service_addresses if self._ipv6 or a.version == 4}
        present = {
            found.address
            for found in self._netlink.addresses()
            if found.index == index and not found.address.is_link_local
        }
        for address in addresses - present:
            self._netlink.add_address(index, address, as_source=address in own)
        for address in present - addresses:
            self._netlink.remove_address(index, address)
        # Its own addresses stand in the table as well: thus a burid that is alive is seen there before it has a peer.
        local = [(address.packed, address.max_prefixlen) for address in own]
        wanted = dict.fromkeys([*local, *map(destination, config.routes)])
        routes = [one for one in wanted if self._ipv6 or len(one[0]) == 4]
        actual = self._netlink.destinations(index, TABLE)
        return _Left(config, index, [one for one in routes if one not in actual], list(actual - wanted.keys()))

    def remove(self) -> None:
        """Take away our routes and addresses, and the rules unless another burid of this network uses them."""
        for link in self._netlink.links():
            if link.name == self._name:
                found_routes = self._netlink.destinations(link.index, TABLE)
                self._netlink.change_routes(link.index, TABLE, remove=found_routes)
                for found in self._netlink.addresses():
                    if found.index == link.index and not found.address.is_link_local:
                        self._netlink.remove_address(link.index, found.address)
        if not in_use(self._netlink):
            remove_rules(self._netlink)

    def close(self) -> None:
        """Let the netlink socket go; what is set stays."""
        self._netlink.close()

    def _index(self) -> int:
        for link in self._netlink.links():
            if link.name == self._name:
                return link.index
        raise SystemFault(f"The interface {self._name} is gone.", remedy="Restart burid.")

    def _add_rules(self, family: int) -> None:
        if family == socket.AF_INET6 and not self._ipv6:
            return
        try:
            present = set(self._netlink.rules(family))
        except SystemFault:
            if family == socket.AF_INET:
                raise
            self._ipv6 = False  # a kernel without IPv6
            return
        for rule in RULES:
            if rule not in present:
                self._netlink.add_rule(family, rule)


def destination(prefix: IPNetwork) -> Destination:
    """A prefix as netlink takes it."""
    return prefix.network_address.packed, prefix.prefixlen


def in_use(netlink: Netlink) -> bool:
    """Whether a burid that is alive routes by our table."""
    return bool(netlink.routes(TABLE))


def remove_rules(netlink: Netlink) -> int:
    """Remove every rule that is Buri's, whoever made it; returns how many there were."""
    removed = 0
    for family in _FAMILIES:
        try:
            present = netlink.rules(family)
        except SystemFault:
            continue  # a family this kernel does not have holds nothing of ours
        for rule in present:
            if rule in RULES:
                netlink.remove_rule(family, rule)
                removed += 1
    return removed
