"""Which routes of its peers a node may use, who carries each, and whether a route is approved by itself.

Of several routers with one subnet the first registered that is online is primary. A `via` grant elects among the
routers it names, for the sources it names. Exit routes have no primary: every exit node a node may use keeps them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from buri.policy.members import Mask, Members, Placed
from buri.policy.model import AutoApprovers
from buri.policy.reach import Edge, Reach
from buri.policy.spans import Span, parse_span
from buri.policy.tailnet import Node


class PeerRoutes(NamedTuple):
    """What a viewer may send to a peer besides its addresses: `primary` subnets and `exits`, as CIDRs."""

    primary: tuple[str, ...] = ()
    exits: tuple[str, ...] = ()


NO_ROUTES = PeerRoutes()


class RouteTable:
    """Who carries which approved subnet. Built from the members; rebuilt when any router changes."""

    def __init__(self, members: Members) -> None:
        self.carriers: dict[str, list[Placed]] = {}
        for placed in members.each(members.all):
            for text in placed.subnet_texts:
                self.carriers.setdefault(text, []).append(placed)
        self._spans: dict[str, Span] = {}
        for text, carriers in self.carriers.items():
            carriers.sort(key=lambda placed: (not placed.node.online, placed.node.created_s, placed.node.id))
            self._spans[text] = parse_span(text)
        self._by_src: dict[Edge, frozenset[str]] = {}
        self._by_dst: dict[Edge, frozenset[str]] = {}

    def elect(self, subnet: str, among: Mask) -> Placed | None:
        """The primary router of a subnet among some nodes."""
        return next((placed for placed in self.carriers.get(subnet, ()) if placed.bit & among), None)

    def primaries(self, placed: Placed, members: Members) -> tuple[str, ...]:
        """The subnets a node is the tailnet's primary router of."""
        return tuple(text for text in placed.subnet_texts if self.elect(text, members.all) is placed)

    def _behind_src(self, edge: Edge, reach: Reach) -> frozenset[str]:
        found = self._by_src.get(edge)
        if found is None:
            found = frozenset(text for text, one in self._spans.items() if edge.source.covers_route(one, reach))
            self._by_src[edge] = found
        return found

    def _behind_dst(self, edge: Edge, reach: Reach) -> frozenset[str]:
        found = self._by_dst.get(edge)
        if found is None:
            found = frozenset(text for text, one in self._spans.items() if edge.covers_route(one, reach))
            self._by_dst[edge] = found
        return found

    def forget(self, edges: Iterable[Edge]) -> None:
        """Drop what was worked out for edges that changed."""
        for edge in edges:
            self._by_src.pop(edge, None)
            self._by_dst.pop(edge, None)

    def usable(self, viewer: Placed, reach: Reach) -> dict[int, PeerRoutes]:
        """The routes a node may use, by the id of the peer that carries them."""
        bit = viewer.bit
        subnets = set(viewer.subnet_texts)  # a router of a subnet sees who else is its primary
        steered: dict[str, Mask] = {}
        exits: Mask = 0
        for edge in reach.edges:
            if edge.source.mask & bit:
                covered = self._behind_dst(edge, reach)
                subnets |= covered
                if edge.rule.via:
                    for text in covered:
                        steered[text] = steered.get(text, 0) | edge.dst_mask
                if edge.opens_exits():
                    exits |= edge.dst_mask & reach.members.exits
            if edge.dst_mask & bit:
                subnets |= self._behind_src(edge, reach)
        peers = reach.peers(viewer)
        primary: dict[int, list[str]] = {}
        for text in sorted(subnets):
            elected = self.elect(text, steered.get(text, 0)) or self.elect(text, reach.members.all)
            if elected is not None and elected.bit & peers:
                primary.setdefault(elected.node.id, []).append(text)
        usable = {node_id: PeerRoutes(tuple(texts)) for node_id, texts in primary.items()}
        for placed in reach.members.each(exits & peers):
            held = usable.get(placed.node.id, NO_ROUTES)
            usable[placed.node.id] = PeerRoutes(held.primary, placed.exits)
        return usable


def auto_approved(node: Node, route: str, approvers: AutoApprovers, members: Members) -> bool:
    """Whether a route a node advertises is approved without anyone being asked.

    A prefix in `routes` approves what lies within it; exit routes need `exitNode`.
    """
    wanted = parse_span(route)
    placed = members.get(node.id)
    if placed is None:
        return False
    if wanted.is_family:
        return any(members.means(selector, placed) for selector in approvers.exit_nodes)
    for text, selectors in approvers.routes:
        within = parse_span(text)
        if (within == wanted or within.holds(wanted)) and any(
            members.means(selector, placed) for selector in selectors
        ):
            return True
    return False
