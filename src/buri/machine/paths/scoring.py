"""Which of two answered addresses is the better path (upstream: `wgengine/magicsock/endpoint.go`, betterAddr).

Points: the percentage by which one is quicker, and a preference for addresses nearer by. The challenger must have more
points than the incumbent, and at least 2 when the incumbent has none, so that jitter of a percent moves nothing.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network

import msgspec

from buri.core.addresses import AddrPort, IPAddress

_LOOPBACK_POINTS = 50
_LINK_LOCAL_POINTS = 30
_PRIVATE_POINTS = 20
_IPV6_POINTS = 10
_LEAST_ADVANTAGE_POINTS = 2

_PRIVATE_IPV4 = tuple(IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
_PRIVATE_IPV6 = IPv6Network("fc00::/7")


class PathQuality(msgspec.Struct, frozen=True):
    """An address that answered, and how quickly."""

    address: AddrPort
    latency_s: float


def is_better(challenger: PathQuality, incumbent: PathQuality) -> bool:
    """Whether traffic should move from a trusted incumbent to the challenger."""
    if challenger.address == incumbent.address:
        return False
    challenger_points = _nearness_points(challenger.address.address) + _advantage_percent(challenger, incumbent)
    incumbent_points = _nearness_points(incumbent.address.address) + _advantage_percent(incumbent, challenger)
    if incumbent_points == 0:
        return challenger_points >= _LEAST_ADVANTAGE_POINTS
    return challenger_points > incumbent_points


def _advantage_percent(one: PathQuality, other: PathQuality) -> int:
    if one.latency_s >= other.latency_s:
        return 0
    return int(100 - 100 * one.latency_s / other.latency_s)


def _nearness_points(address: IPAddress) -> int:
    points = _IPV6_POINTS if isinstance(address, IPv6Address) else 0
    if address.is_loopback:
        points += _LOOPBACK_POINTS
    elif address.is_link_local:
        points += _LINK_LOCAL_POINTS
    elif is_private(address):
        points += _PRIVATE_POINTS
    return points


def is_private(address: IPAddress) -> bool:
    """Whether an address means something inside somebody's own network only (RFC 1918, unique local)."""
    # `ipaddress.is_private` counts documentation ranges in; Go's IsPrivate, which upstream uses, does not.
    if isinstance(address, IPv6Address):
        return address in _PRIVATE_IPV6
    return any(address in network for network in _PRIVATE_IPV4)
