"""Whether a rule lets one packet through: from an address, to an address, at a port.

Tests and explanations ask this of the edges of `reach.py`; it must agree with the filters compiled from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from buri.policy.members import Placed
from buri.policy.ports import Ports
from buri.policy.posture import AttributeValue
from buri.policy.reach import Edge, Reach, target_spans
from buri.policy.selectors import INTERNET, Kind, Selector
from buri.policy.sources import is_everyone
from buri.policy.spans import Span


class Endpoint(NamedTuple):
    """An address that sends or receives, and the node whose own it is (None for one behind a router, or outside).

    `attributes`: a device posture to suppose instead of the node's own.
    """

    span: Span
    placed: Placed | None
    attributes: Mapping[str, AttributeValue] | None = None


def endpoints(placed: Placed) -> Iterator[Endpoint]:
    """A node's own addresses."""
    return (Endpoint(host, placed) for host in placed.hosts)


def pairs(src: Placed, dst: Placed | Endpoint) -> list[tuple[Endpoint, Endpoint]]:
    """From where to where a packet can go between two: within one family of addresses."""
    dsts = [dst] if isinstance(dst, Endpoint) else list(endpoints(dst))
    return [(a, b) for a in endpoints(src) for b in dsts if a.span.version == b.span.version]


def holder(one: Span, reach: Reach) -> Placed | None:
    """The node whose own address this is."""
    return reach.members.holder(one)


def admits(
    edge: Edge, src: Endpoint, dst: Endpoint, port: Ports | None, protocols: tuple[int, ...], reach: Reach
) -> bool:
    """Whether an edge lets one address reach another at any of some ports (None: of all), with one of some protocols."""
    by_self, by_source = joined_by_self(edge, src, dst, reach), is_source(edge, src, reach)
    for access in edge.rule.accesses:
        if access.protocols and not set(access.protocols) & set(protocols):
            continue
        if by_self and any(is_open(target.ports or access.ports, port) for target in edge.self_targets):
            return True
        if by_source and any(
            is_open(target.ports or access.ports, port) and is_target(edge, index, dst, reach)
            for index, target in enumerate(edge.targets)
        ):
            return True
    return False


def is_open(ports: tuple[Ports, ...], wanted: Ports | None) -> bool:
    """Whether any of the wanted ports is among some ranges; None asks for any."""
    return bool(ports) if wanted is None else any(one.overlaps(wanted) for one in ports)


def joined_by_self(edge: Edge, src: Endpoint, dst: Endpoint, reach: Reach) -> bool:
    """Whether both are one person's, and the edge joins a person's own nodes."""
    if src.placed is None or dst.placed is None:
        return False
    if edge.source.posture and src.attributes is not None:
        own = reach.members.of_user(dst.placed.node.user_id) if edge.self_targets and not dst.placed.node.tags else 0
        return bool(own & src.placed.bit) and is_source(edge, src, reach)
    return bool(edge.self_mask(dst.placed, reach) & src.placed.bit)


def is_source(edge: Edge, src: Endpoint, reach: Reach) -> bool:
    """Whether an edge lets packets from an address through, as the words of its filter rule do."""
    source = edge.source
    if source.anybody and not source.posture:
        return True
    if source.posture:
        if src.placed is None:
            return False
        if src.attributes is not None:
            named = any(reach.members.means(selector, src.placed) for selector in source.selectors)
            return named and reach.satisfies(src.attributes, source.posture)
        return bool(source.mask & src.placed.bit)
    return any(_selects(selector, src, reach) for selector in source.selectors)


def _selects(selector: Selector, src: Endpoint, reach: Reach) -> bool:
    members = reach.members
    if selector.kind is Kind.ADDRESS:
        return any(one.overlaps(src.span) for one in selector.spans)
    if src.placed is not None:
        return bool(members.mask(selector) & src.placed.bit)
    return is_everyone(selector) and any(
        subnet.overlaps(src.span) for placed in members.each(members.routers) for subnet in placed.subnets
    )


def is_target(edge: Edge, index: int, dst: Endpoint, reach: Reach) -> bool:
    """Whether the edge's target at `index` opens an address: on the node that has it, or on a router before it."""
    selector = edge.targets[index].selector
    if edge.rule.via:
        return _is_behind(edge, index, selector, dst, reach)
    if selector.kind is Kind.EVERYONE:
        return True
    if selector.kind is Kind.ADDRESS or selector.name == INTERNET:
        return any(one.overlaps(dst.span) for one in target_spans(selector))
    return dst.placed is not None and bool(reach.members.mask(selector) & dst.placed.bit)


def _is_behind(edge: Edge, index: int, selector: Selector, dst: Endpoint, reach: Reach) -> bool:
    """A via grant opens what the routers it names carry; a node's own address is nobody's to carry but its own."""
    if not any(one.overlaps(dst.span) for one in target_spans(selector)):
        return False
    routers = edge.target_mask(edge.targets[index], reach)
    if dst.placed is not None:
        return bool(routers & dst.placed.bit)
    return any(
        selector.name == INTERNET or any(subnet.overlaps(dst.span) for subnet in placed.subnets)
        for placed in reach.members.each(routers)
    )
