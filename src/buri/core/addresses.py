"""Addresses: the tailnet's own ranges, and an address with a port.

Ranges: tailscale `net/tsaddr`; wire reference 1f.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import NamedTuple, Self

from buri.core.errors import WireError

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

CGNAT = IPv4Network("100.64.0.0/10")
CHROME_OS = IPv4Network("100.115.92.0/23")  # taken by ChromeOS inside CGNAT
TAILNET_IPV6 = IPv6Network("fd7a:115c:a1e0::/48")
SERVICE_IPV4 = IPv4Address("100.100.100.100")
SERVICE_IPV6 = IPv6Address("fd7a:115c:a1e0::53")
IPV6_FROM_IPV4 = IPv6Network("fd7a:115c:a1e0:ab12:4843:cd96:6200::/104")
VIA_4_TO_6 = IPv6Network("fd7a:115c:a1e0:b1a::/64")


def is_tailnet_address(address: IPAddress) -> bool:
    """Whether an address lies in a range that only a tailnet uses."""
    if isinstance(address, IPv4Address):
        return address in CGNAT and address not in CHROME_OS
    return address in TAILNET_IPV6


def is_host_address(address: IPAddress) -> bool:
    """Whether an interface can have this address and others can send to it from afar."""
    return not (address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local)


class AddrPort(NamedTuple):
    """An IP address and a port; `str()` is Go's `netip.AddrPort` text ("1.2.3.4:5", "[::1]:5")."""

    address: IPAddress
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises WireError when the text is not ADDRESS:PORT."""
        host, _, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        try:
            number = int(port)
            if not 0 <= number <= 0xFFFF:
                raise ValueError
            return cls(parse_address(host.partition("%")[0]), number)
        except ValueError as error:
            raise WireError(f"{text!r} is not ADDRESS:PORT.") from error

    def __str__(self) -> str:
        if isinstance(self.address, IPv6Address):
            return f"[{self.address}]:{self.port}"
        return f"{self.address}:{self.port}"


def parse_address(text: str) -> IPAddress:
    """`ip_address`, without trying the family that the text is not of; raises ValueError."""
    return IPv6Address(text) if ":" in text else IPv4Address(text)


def parse_prefix(text: str) -> IPNetwork:
    """Read "10.0.0.0/8" or a bare address (host bits are masked); raises WireError."""
    try:
        return IPv6Network(text, strict=False) if ":" in text else IPv4Network(text, strict=False)
    except ValueError as error:
        raise WireError(f"{text!r} is not an IP prefix.") from error


def host_prefix(address: IPAddress) -> IPNetwork:
    """The /32 or /128 of one address."""
    return ip_network((address, address.max_prefixlen))
