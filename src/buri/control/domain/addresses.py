"""Which addresses a new node gets: the next of the tailnet's ranges, never one that was given before.

IPv4 from 100.64.0.0/10 without 100.100.100.0/24 (service addresses) and 100.115.92.0/23 (ChromeOS), IPv6 from
fd7a:115c:a1e0::/48 (tailscale `net/tsaddr`). Both come from one number that the store keeps and that only grows: O(1),
and a deleted node's addresses do not wander to a stranger whom old peers still trust. After four million nodes
the IPv4 numbers begin again, past those in use.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from buri.core.addresses import CGNAT, CHROME_OS, TAILNET_IPV6
from buri.core.errors import StateError

SERVICES = IPv4Network("100.100.100.0/24")
_RESERVED = (SERVICES, CHROME_OS)  # ascending
_BASE = int(CGNAT.network_address)
_IPV6_BASE = int(TAILNET_IPV6.network_address) + (1 << 16)  # past the service address and its neighbours

# Usable IPv4 numbers: the range less network and broadcast address and the reserved parts.
CAPACITY = CGNAT.num_addresses - 2 - sum(part.num_addresses for part in _RESERVED)


def ipv4_of(number: int) -> IPv4Address:
    """The address of the n-th usable number (n from 0, modulo CAPACITY)."""
    offset = _BASE + 1 + number % CAPACITY
    for part in _RESERVED:
        if offset >= int(part.network_address):
            offset += part.num_addresses
    return IPv4Address(offset)


def ipv6_of(number: int) -> IPv6Address:
    """Likewise; this range does not end."""
    return IPv6Address(_IPV6_BASE + number)


def allocate(number: int, taken: Callable[[str], bool]) -> tuple[str, str, int]:
    """The next IPv4, IPv6 and counter. Raises StateError when every address is in use.

    `taken` is asked only after the range went round once.
    """
    if number < CAPACITY:
        return str(ipv4_of(number)), str(ipv6_of(number)), number + 1
    for candidate in range(number, number + CAPACITY):
        ipv4 = str(ipv4_of(candidate))
        if not taken(ipv4):
            return ipv4, str(ipv6_of(candidate)), candidate + 1
    raise StateError("Every address of 100.64.0.0/10 is in use.", remedy="Delete nodes that are gone.")
