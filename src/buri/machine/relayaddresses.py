"""Where a relay of the DERP map is: its addresses, ports and name (wire reference 1d, "DERPMap").

A node without literal addresses has to be looked up by `host_name`; machines cannot, so the shell hands in what it
found (`resolved`: host name to addresses, best first).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from msgspec.structs import replace

from buri.core.addresses import AddrPort, IPAddress
from buri.wire import stun
from buri.wire.tailcfg.derpmap import DERPMap, DERPNode, DERPRegion

Resolved = Mapping[str, Sequence[IPAddress]]

DEFAULT_DERP_PORT = 443
MAX_PORT = 0xFFFF
MAX_REGION = 0xFFFF  # upstream writes a region where others write a port
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?")


def usable(derp_map: DERPMap) -> DERPMap:
    """The map without what cannot be: regions under a number not their own, names and ports that no host has."""
    regions: dict[int, DERPRegion | None] = {}
    for number, region in (derp_map.regions or {}).items():
        if region is None or region.region_id != number or not 0 < number <= MAX_REGION:
            continue
        nodes = [node for node in region.nodes or () if _is_possible(node)]
        if len(nodes) != len(region.nodes or ()):
            region = replace(region, nodes=nodes)
        regions[number] = region
    return derp_map if regions == derp_map.regions else replace(derp_map, regions=regions)


def _is_possible(node: DERPNode) -> bool:
    named = _HOST_NAME.fullmatch(node.host_name) is not None or _literal(node.host_name) is not None
    return named and 0 <= node.derp_port <= MAX_PORT and -1 <= node.stun_port <= MAX_PORT


def regions_of(derp_map: DERPMap) -> list[DERPRegion]:
    """The regions with at least one node, by id."""
    regions = derp_map.regions or {}
    return [region for _, region in sorted(regions.items()) if region is not None and region.nodes]


def relay_nodes(region: DERPRegion) -> list[DERPNode]:
    """The nodes of a region that relay, in the map's order."""
    return [node for node in region.nodes or [] if not node.stun_only]


def hosts_to_resolve(derp_map: DERPMap) -> list[str]:
    """Host names that must be looked up before their nodes can be reached, each once."""
    hosts: dict[str, None] = {}
    for region in regions_of(derp_map):
        for node in region.nodes or []:
            if not node.ipv4 and not node.ipv6 and _literal(node.host_name) is None:
                hosts[node.host_name] = None
    return list(hosts)


def node_addresses(node: DERPNode, resolved: Resolved) -> tuple[IPAddress, ...]:
    """All addresses of a node, IPv4 first; empty when it must be looked up first. "none" disables a family."""
    found: list[IPAddress] = []
    named = [a for a in (_literal(node.host_name),) if a is not None] or list(resolved.get(node.host_name, ()))
    for text, family in ((node.ipv4, IPv4Address), (node.ipv6, IPv6Address)):
        if text == "none":
            continue
        literal = _literal(text)
        if isinstance(literal, family):
            found.append(literal)
        elif not text:
            found.extend(address for address in named if isinstance(address, family))
    return tuple(found)


def stun_address(node: DERPNode, resolved: Resolved, *, ipv6: bool) -> AddrPort | None:
    """Where to send STUN in that family; None when the node has none there."""
    if node.stun_port < 0:
        return None
    port = node.stun_port or stun.DEFAULT_PORT
    family = IPv6Address if ipv6 else IPv4Address
    test = _literal(node.stun_test_ip)
    addresses = (test,) if test is not None else node_addresses(node, resolved)
    for address in addresses:
        if isinstance(address, family):
            return AddrPort(address, port)
    return None


def derp_port(node: DERPNode) -> int:
    return node.derp_port or DEFAULT_DERP_PORT


def _literal(text: str) -> IPAddress | None:
    for family in (IPv4Address, IPv6Address):
        try:
            return family(text)
        except AddressValueError:
            continue
    return None
