"""A node's packet filter: the edges onto it, written as Tailscale's FilterRules.

Rules of one source and protocol are one rule, at the place of the policy's first. Capability grants never merge.
`cap/drive` and `cap/relay` bring a companion in the other direction: the sharer must know whom it serves.

What a node opens depends on the node alone and is worked out once (`Opening`); whom it opens it to follows the tailnet.
Rules share their lists, between nodes too: what is given out may be read, not changed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from operator import itemgetter

import msgspec

from buri.policy.members import Mask, Placed
from buri.policy.model import Target
from buri.policy.ports import Ports
from buri.policy.reach import INTERNET_LITERALS, Edge, Position, Reach, RuleKey
from buri.policy.selectors import INTERNET, Kind, Selector
from buri.policy.sources import Source, Words
from buri.wire.tailcfg.filter import CapGrant, FilterRule, NetPortRange, PortRange
from buri.wire.tailcfg.node import CapMap


class Opening(msgspec.Struct, frozen=True, gc=False):
    """Something that an edge opens on a node: ports (`ranges`) or capabilities (`grants`).

    `source`: to whom; None stands for the owner's nodes that are a source of `edge`, and `everyone_owned` for all of the
    owner's nodes. `position` is its place among the rules of the policy.
    """

    position: Position
    edge: Edge
    source: Source | None
    protocols: tuple[int, ...] = ()
    ranges: list[NetPortRange] = []
    grants: list[CapGrant] = []
    everyone_owned: bool = False


def packet_filter(placed: Placed, reach: Reach) -> list[FilterRule]:
    """What a node lets in, in the order of the file.

    The service merges the rules of the whole policy before it leaves out what a node has no part in. So a rule stands
    where the policy has the first of its source and protocol, be that one for another node.
    """
    rules: list[tuple[Position, FilterRule]] = []
    merged: dict[RuleKey, FilterRule] = {}
    first_rules = reach.first_rules()
    for opening in openings(placed, reach):
        source = opening.source
        words = _own_words(opening, placed, reach) if source is None else source.words(reach)
        if words is None:
            continue
        if opening.grants:  # the service gives them even to nobody
            rules.append((opening.position, FilterRule(src_ips=words.listed, cap_grant=opening.grants)))
            continue
        if not words.listed:
            continue
        key = (words, opening.protocols)
        known = merged.get(key)
        if known is not None:
            known.dst_ports = [*(known.dst_ports or ()), *opening.ranges]
            continue
        protocols = list(opening.protocols) or None
        rule = merged[key] = FilterRule(src_ips=words.listed, dst_ports=opening.ranges, ip_proto=protocols)
        position, first = opening.position, first_rules.get(key)
        rules.append((first if first is not None and first < position else position, rule))
    rules.sort(key=itemgetter(0))
    return [rule for _, rule in rules]


def openings(placed: Placed, reach: Reach) -> list[Opening]:
    """What a node opens, to whomever."""
    ties = reach.ties(placed)
    if ties.openings is None:
        ties.openings = [one for edge in ties.filtering for one in _number(edge, placed, reach)]
    return ties.openings


def _number(edge: Edge, placed: Placed, reach: Reach) -> Iterator[Opening]:
    for number, opening in enumerate(_open(edge, placed, reach)):
        yield msgspec.structs.replace(opening, position=(edge.index, number))


def _open(edge: Edge, placed: Placed, reach: Reach) -> Iterator[Opening]:
    """What one edge opens on a node: ports, capabilities, and both again for a person's own nodes."""
    nowhere = (edge.index, 0)
    opened = [target for target in edge.targets if edge.opens(target, placed, reach)]
    for access in edge.rule.accesses if opened else ():
        ranges = [
            _range(word, ports)
            for target in opened
            for ports in target.ports or access.ports
            for word in _target_words(target, placed)
        ]
        yield Opening(nowhere, edge, edge.source, access.protocols, ranges)
    app: CapMap = dict(edge.app or {})
    asking = _asking(edge, placed, reach) if edge.companions else []
    if app and (held := [prefixes for prefixes in _held_prefixes(opened, placed) if prefixes]):
        yield Opening(nowhere, edge, edge.source, grants=[CapGrant(dsts=list(one), cap_map=app) for one in held])
    if edge.back is not None and asking:
        for name in edge.companions:
            yield Opening(nowhere, edge, edge.back, grants=[CapGrant(dsts=asking, cap_map={name: None})])
    if not edge.self_targets or placed.node.tags:
        return
    for access in edge.rule.accesses:
        own_ports = [ports for target in edge.self_targets for ports in target.ports or access.ports]
        ranges = [_range(text, ports) for ports in own_ports for text in placed.addresses]
        yield Opening(nowhere, edge, None, access.protocols, ranges)
    if app:
        yield Opening(nowhere, edge, None, grants=[CapGrant(dsts=list(placed.prefixes), cap_map=app)])
        for name in edge.companions if asking else ():
            grants = [CapGrant(dsts=asking, cap_map={name: None})]
            yield Opening(nowhere, edge, None, grants=grants, everyone_owned=True)


def _own_words(opening: Opening, placed: Placed, reach: Reach) -> Words | None:
    own: Mask = opening.edge.self_mask(placed, reach)
    if not own:
        return None
    if opening.everyone_owned:
        own = reach.members.of_user(placed.node.user_id)
    return reach.words(sorted(text for one in reach.members.each(own) for text in one.addresses))


def _target_words(target: Target, placed: Placed) -> tuple[str, ...]:
    selector = target.selector
    if selector.name == INTERNET:
        return INTERNET_LITERALS
    if selector.kind is Kind.ADDRESS:
        return selector.literals
    if selector.kind is Kind.EVERYONE:
        return ("*",)
    return placed.addresses


def _held_prefixes(opened: list[Target], placed: Placed) -> Iterator[Sequence[str]]:
    """What of each of some targets a node stands for: its own addresses, and the subnets it routes as the file has them."""
    for target in opened:
        selector = target.selector
        if selector.kind is Kind.ADDRESS:
            own = {_host_prefix(text) for text in placed.addresses_in(selector.spans)}
            yield sorted(own | _routed(selector, placed))
        elif selector.name != INTERNET:
            yield placed.prefixes


def _asking(edge: Edge, placed: Placed, reach: Reach) -> list[str]:
    """What of an edge's source a node stands for, in the same way."""
    found = {_host_prefix(text) for text in edge.source.addresses_of(placed, reach)}
    for selector in () if edge.source.posture else edge.source.selectors:
        found |= _routed(selector, placed)
    return sorted(found)


def _routed(selector: Selector, placed: Placed) -> set[str]:
    """The networks of a selector that a node routes (part of), as the file has them."""
    routed = (one for one in selector.spans if any(one.overlaps(subnet) for subnet in placed.subnets))
    return {_host_prefix(text) for one in routed for text in one.cidrs()}


def _host_prefix(text: str) -> str:
    """A CIDR as it is, an address as the CIDR of it alone."""
    return text if "/" in text else f"{text}/{128 if ':' in text else 32}"


def _range(word: str, ports: Ports) -> NetPortRange:
    return NetPortRange(ip=word, ports=_port_range(ports))


@functools.lru_cache(4096)
def _port_range(ports: Ports) -> PortRange:
    return PortRange(first=ports.first, last=ports.last)
