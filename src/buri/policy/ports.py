"""Ports and protocols as a policy writes them: "22", "80-443", "22,80", "*"; "tcp:443"; "icmp".

Source: Tailscale's policy syntax reference. The words of the errors are the service's.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

MAX_PORT = 65535
PROTOCOLS = {
    "icmp": 1,
    "igmp": 2,
    "ipv4": 4,
    "ip-in-ip": 4,
    "tcp": 6,
    "egp": 8,
    "igp": 9,
    "udp": 17,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "ipv6-icmp": 58,
    "sctp": 132,
    "fc": 133,
}
ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
PORTED = frozenset((TCP, UDP, SCTP))  # what has ports to choose from
DEFAULT_PROTOCOLS = (TCP, UDP, ICMP, ICMPV6)  # what a rule without a protocol lets through


class Ports(NamedTuple):
    """An inclusive range of ports."""

    first: int
    last: int

    def overlaps(self, other: Ports) -> bool:
        return self.first <= other.last and other.first <= self.last

    def __str__(self) -> str:
        if self == ALL_PORTS:
            return "*"
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


ALL_PORTS = Ports(0, MAX_PORT)


def _port(text: str) -> int | None:
    if not text.isascii() or not text.isdigit() or len(text) > 5:
        return None
    number = int(text)
    return number if number <= MAX_PORT else None


@functools.lru_cache(4096)
def parse_ports(text: str) -> tuple[Ports, ...]:
    """Read "22,80-443" or "*"; raises ValueError with the service's words."""
    if text == "*":
        return (ALL_PORTS,)
    ranges: list[Ports] = []
    for part in text.split(","):
        low, dash, high = part.partition("-")
        first = _port(low)
        if first is None:
            raise ValueError(f'port range "{text}": invalid first integer')
        last = _port(high) if dash else first
        if last is None:
            raise ValueError(f'port range "{text}": invalid last integer')
        if last < first:
            raise ValueError(f'port range "{text}": first port is greater than last port')
        if not last:
            raise ValueError(f"port range \"{text}\": first port must be >0, or use '*' for wildcard")
        ranges.append(Ports(first, last))
    return tuple(ranges)


@functools.lru_cache(1024)
def parse_protocol(text: str) -> tuple[int, ...]:
    """Numbers of a protocol's name or number; () for "", which stands for TCP, UDP and ICMP. Raises ValueError."""
    word = text.strip().lower()
    if not word:
        return ()
    if word in PROTOCOLS:
        return (PROTOCOLS[word],)
    if word.isascii() and word.isdigit():
        if word.startswith("0"):
            raise ValueError(f'leading 0 not permitted in protocol number: "{text}"')
        if len(word) <= 3 and int(word) <= 255:
            return (int(word),)
    raise ValueError(
        f'proto name "{text}" not known; use protocol number 0-255 or protocol name (icmp, tcp, udp, etc.)'
    )


def parse_ip_access(text: str) -> tuple[tuple[int, ...], tuple[Ports, ...]]:
    """Read a grant's ip entry: "443", "tcp:443", "icmp:*", "*". Raises ValueError with the service's words."""
    protocol, colon, ports = text.strip().rpartition(":")
    if ":" in protocol:
        raise ValueError(f'expected only one colon in Internet protocol and port type, got: "{text}"')
    return (parse_protocol(protocol) if colon else ()), parse_ports(ports.strip())
