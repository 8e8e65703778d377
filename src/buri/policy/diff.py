"""What a new policy changes: which pairs of nodes gain and lose which ports.

Only rules that are not in both policies are looked at, so that the cost grows with what was edited.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from buri.policy.flows import is_source, is_target, joined_by_self, pairs
from buri.policy.members import Mask, Placed
from buri.policy.ports import DEFAULT_PROTOCOLS, PROTOCOLS, Ports
from buri.policy.reach import Edge, Reach

Openings = dict[int, tuple[Ports, ...]]
"""Ports by protocol number, as disjoint ranges in order."""


class PairChange(msgspec.Struct, frozen=True):
    """What one node gains and loses towards another; ids of nodes."""

    src: int
    dst: int
    gained: Openings
    lost: Openings


def compare(old: Reach, new: Reach) -> list[PairChange]:
    """The pairs whose access differs, by source and destination. Both are compiled over the same nodes."""
    pairs: set[tuple[int, int]] = set()
    for reach, other in ((old, new), (new, old)):
        known = Counter(_content(edge, other) for edge in other.edges)
        for edge in reach.edges:
            content = _content(edge, reach)
            if known[content]:
                known[content] -= 1
            else:
                pairs.update(_pairs(edge, reach))
    changes: list[PairChange] = []
    for src, dst in sorted(pairs):
        before, after = _openings(src, dst, old), _openings(src, dst, new)
        gained, lost = _minus(after, before), _minus(before, after)
        if gained or lost:
            changes.append(PairChange(src, dst, gained, lost))
    return changes


def describe(openings: Openings) -> str:
    """Openings for a person: "tcp 22,80-443 udp 53"."""
    names = {number: name for name, number in reversed(PROTOCOLS.items())}
    return " ".join(
        f"{names.get(number, str(number))} {','.join(map(str, ports))}" for number, ports in sorted(openings.items())
    )


def _content(edge: Edge, reach: Reach) -> object:
    """What an edge does, whatever its place in the file."""
    rule = edge.rule
    targets = tuple((target, _nodes(edge.target_mask(target, reach), reach)) for target in edge.targets)
    source = (edge.source.selectors, edge.source.posture, _nodes(edge.source.mask, reach))
    return (source, targets, edge.self_targets, rule.accesses, rule.via)


def _nodes(mask: Mask, reach: Reach) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """Nodes with the addresses they use: a policy may take their IPv4."""
    return tuple((placed.node.id, placed.addresses) for placed in reach.members.each(mask))


def _pairs(edge: Edge, reach: Reach) -> Iterable[tuple[int, int]]:
    members = reach.members
    for src in members.each(edge.source.mask):
        own = members.of_user(src.node.user_id) if edge.self_targets and not src.node.tags else 0
        for dst in members.each((edge.dst_mask | own) & ~src.bit):
            yield src.node.id, dst.node.id


def _openings(src_id: int, dst_id: int, reach: Reach) -> Openings:
    src, dst = reach.members.get(src_id), reach.members.get(dst_id)
    if src is None or dst is None:
        return {}
    ranges: dict[int, list[Ports]] = {}
    for edge in reach.edges:
        targets = _targets(edge, src, dst, reach)
        for access in edge.rule.accesses if targets else ():
            for number in access.protocols or DEFAULT_PROTOCOLS:
                found = ranges.setdefault(number, [])
                for ports in targets:
                    found.extend(ports or access.ports)
    return {number: _joined(found) for number, found in ranges.items() if found}


def _targets(edge: Edge, src: Placed, dst: Placed, reach: Reach) -> list[tuple[Ports, ...]]:
    """The ports of an edge's targets that hold for a pair; an empty tuple stands for the grant's own."""
    found: list[tuple[Ports, ...]] = []
    ways = pairs(src, dst)
    if any(joined_by_self(edge, a, b, reach) for a, b in ways):
        found.extend(target.ports for target in edge.self_targets)
    for index, target in enumerate(edge.targets):
        if any(is_source(edge, a, reach) and is_target(edge, index, b, reach) for a, b in ways):
            found.append(target.ports)
    return found


def _joined(ranges: Iterable[Ports]) -> tuple[Ports, ...]:
    joined: list[Ports] = []
    for one in sorted(ranges):
        if joined and one.first <= joined[-1].last + 1:
            joined[-1] = Ports(joined[-1].first, max(joined[-1].last, one.last))
        else:
            joined.append(one)
    return tuple(joined)


def _minus(left: Openings, right: Openings) -> Openings:
    """What of `left` is not in `right`."""
    rest: Openings = {}
    for number, ranges in left.items():
        for taken in right.get(number, ()):
            ranges = tuple(
                piece
                for one in ranges
                for piece in (
                    Ports(one.first, min(one.last, taken.first - 1)),
                    Ports(max(one.first, taken.last + 1), one.last),
                )
                if piece.first <= piece.last
            )
        if ranges:
            rest[number] = ranges
    return rest
