"""What a peer may do here beyond packets: the capabilities that the packet filter grants it (`whois` shows them).

Source: tailscale `wgengine/filter` CapsWithValues and `ipn/ipnlocal` PeerCaps. A grant counts when the peer's address is
among the rule's sources and an address of ours of the same family among the grant's destinations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from buri.core.addresses import IPAddress, parse_prefix
from buri.core.errors import WireError
from buri.node.filterrules import parse_ip_set
from buri.wire.tailcfg.filter import FilterRule
from buri.wire.tailcfg.node import CapMap


def peer_capabilities(rules: Iterable[FilterRule], source: IPAddress, ours: Sequence[IPAddress]) -> CapMap:
    """Capabilities by name; values of several grants one after the other, in the order of the rules."""
    found: CapMap = {}
    mine = [address for address in ours if address.version == source.version]
    for rule in rules:
        if not rule.cap_grant or not _holds(rule.src_ips, source):
            continue
        for grant in rule.cap_grant:
            if not any(_holds(grant.dsts, address) for address in mine):
                continue
            for name in grant.caps or ():
                found.setdefault(name, [])
            for name, values in (grant.cap_map or {}).items():
                found[name] = [*(found.get(name) or []), *(values or [])]
    return found


def _holds(texts: Iterable[str] | None, address: IPAddress) -> bool:
    """Whether an address is in a list of the wire's; what cannot be read holds nobody."""
    for text in texts or ():
        try:
            ranges = [parse_prefix(text)] if "/" in text else parse_ip_set(text)
        except WireError:
            continue
        if any(address in one for one in ranges):
            return True
    return False
