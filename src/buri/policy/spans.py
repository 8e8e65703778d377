"""Addresses as numbers: a host, a network or a range is one `Span`, so that overlap is two comparisons.

A policy holds thousands of addresses: IPv4 is read here digit by digit, which is several times faster than `ipaddress`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, summarize_address_range
from typing import NamedTuple

from buri.core.errors import WireError

_BITS = {4: 32, 6: 128}
_OCTETS = {str(number): number for number in range(256)}


class Span(NamedTuple):
    """All addresses of one family from `first` to `last`, both included."""

    version: int
    first: int
    last: int

    def overlaps(self, other: Span) -> bool:
        return self.version == other.version and self.first <= other.last and other.first <= self.last

    def holds(self, other: Span) -> bool:
        """Whether another span lies within this one and is smaller."""
        inside = self.version == other.version and self.first <= other.first and other.last <= self.last
        return inside and self != other

    @property
    def is_host(self) -> bool:
        return self.first == self.last

    @property
    def is_family(self) -> bool:
        """Whether this is every address of its family: 0.0.0.0/0 or ::/0."""
        return self.last - self.first == (1 << _BITS[self.version]) - 1

    @property
    def text(self) -> str:
        """The span in one word: an address, a CIDR, or a range when it is neither."""
        if self.is_host:
            return address_text(self.version, self.first)
        size = self.last - self.first + 1
        cidr = size & (size - 1) == 0 and self.first % size == 0
        return literal_of("/" if cidr else "-", self)

    def cidrs(self) -> list[str]:
        """The span as the fewest CIDRs; a host as its bare address."""
        if self.is_host:
            return [address_text(self.version, self.first)]
        if self.version == 4:
            return [str(one) for one in summarize_address_range(IPv4Address(self.first), IPv4Address(self.last))]
        return [str(one) for one in summarize_address_range(IPv6Address(self.first), IPv6Address(self.last))]


def address_text(version: int, number: int) -> str:
    """An address as text."""
    if version == 6:
        return str(IPv6Address(number))
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def parse_address(text: str) -> Span:
    """Read one address, without a zone; raises WireError."""
    parts = text.split(".")
    if len(parts) == 4:
        octets = _OCTETS
        try:
            a, b, c, d = parts
            number = octets[a] << 24 | octets[b] << 16 | octets[c] << 8 | octets[d]
        except KeyError:
            pass  # not plain IPv4: the library may know better, or say why not
        else:
            return Span(4, number, number)
    try:
        address = ip_address(text)
    except ValueError as error:
        raise WireError(f"{text!r} is no address.") from error
    if "%" in text:
        raise WireError(f"{text!r} has a zone, which means nothing to other nodes.")
    return Span(address.version, int(address), int(address))


def parse_span(text: str) -> Span:
    """Read an address, a CIDR (host bits are masked) or a range "FIRST-LAST"; raises WireError."""
    if "/" in text:
        address, _, length = text.partition("/")
        version, first, _ = parse_address(address)
        bits = _BITS[version]
        if not (length.isascii() and length.isdigit() and len(length) <= 3 and int(length) <= bits):
            raise WireError(f"{text!r} is not an IP prefix.")
        size = 1 << (bits - int(length))
        first &= -size
        return Span(version, first, first + size - 1)
    if "-" in text:
        low, _, high = text.partition("-")
        one, other = parse_address(low.strip()), parse_address(high.strip())
        if one.version != other.version or one.first > other.first:
            raise WireError(f"{text!r} is no range of addresses.")
        return Span(one.version, one.first, other.first)
    return parse_address(text)


def literal_of(text: str, one: Span) -> str:
    """The word of a filter rule for the text that `one` was read from, in the canonical form."""
    start = address_text(one.version, one.first)
    if "/" in text:
        return f"{start}/{_BITS[one.version] - (one.last - one.first).bit_length()}"
    return f"{start}-{address_text(one.version, one.last)}" if "-" in text else start


def joined(spans: Iterable[Span]) -> Iterator[Span]:
    """The same addresses in the fewest spans, in order."""
    held: Span | None = None
    for one in sorted(spans):
        if held is None:
            held = one
        elif held.version == one.version and one.first <= held.last + 1:
            held = Span(held.version, held.first, max(held.last, one.last))
        else:
            yield held
            held = one
    if held is not None:
        yield held


def without(kept: Span, removed: Span) -> list[Span]:
    """What is left of a span when another is taken away."""
    if not kept.overlaps(removed):
        return [kept]
    pieces = (
        Span(kept.version, kept.first, removed.first - 1),
        Span(kept.version, removed.last + 1, kept.last),
    )
    return [piece for piece in pieces if piece.first <= piece.last]
