"""Which routes of its peers a node may use, who carries each, and whether a route is approved by itself.

Of several routers with one subnet the first registered that is online is primary. A `via` grant elects among the
routers it names, for the sources it names. Exit routes have no primary: every exit node a node may use keeps them.
"""

from __future__ import annotations

from bisect import insort
from typing import NamedTuple

from buri.policy.members import Mask, Members, Placed
from buri.policy.model import AutoApprovers
from buri.policy.reach import Edge, Reach
from buri.policy.sources import Source
from buri.policy.spans import Span, parse_span
from buri.policy.tailnet import Node


class PeerRoutes(NamedTuple):
    """What a viewer may send to a peer besides its addresses: `primary` subnets and `exits`, as CIDRs."""

    primary: tuple[str, ...] = ()
    exits: tuple[str, ...] = ()


NO_ROUTES = PeerRoutes()


class RouteTable:
    """Who carries which approved subnet, kept current as routers come, change and go."""

    def __init__(self, members: Members) -> None:
        self.carriers: dict[str, list[Placed]] = {}
        self._spans: dict[str, Span] = {}
        self._by_src: dict[Source, set[str]] = {}
        self._by_dst: dict[Edge, set[str]] = {}
        for placed in members.each(members.routers):
            self.follow(None, placed)

    def follow(self, old: Placed | None, new: Placed | None) -> None:
        """Take in that a node came, changed or went."""
        if old is not None:
            for text in old.subnet_texts:
                self.carriers[text] = [one for one in self.carriers[text] if one is not old]
        if new is not None:
            for text, one in zip(new.subnet_texts, new.subnets, strict=True):
                if text not in self.carriers:
                    self._learn(text, one)
                insort(self.carriers[text], new, key=_seniority)
        for text in old.subnet_texts if old is not None else ():
            if not self.carriers[text]:
                self._forget(text)

    def _learn(self, text: str, one: Span) -> None:
        self.carriers[text] = []
        self._spans[text] = one
        for source, behind in self._by_src.items():
            if source.covers_route(one):
                behind.add(text)
        for edge, behind in self._by_dst.items():
            if edge.covers_route(one):
                behind.add(text)

    def _forget(self, text: str) -> None:
        del self.carriers[text], self._spans[text]
        for behind in (*self._by_src.values(), *self._by_dst.values()):
            behind.discard(text)

    def elect(self, subnet: str, among: Mask) -> Placed | None:
        """The primary router of a subnet among some nodes."""
        return next((placed for placed in self.carriers.get(subnet, ()) if placed.bit & among), None)

    def primaries(self, placed: Placed) -> tuple[str, ...]:
        """The subnets a node is the tailnet's primary router of."""
        return tuple(text for text in placed.subnet_texts if self.carriers[text][0] is placed)

    def _behind_src(self, source: Source) -> set[str]:
        found = self._by_src.get(source)
        if found is None:
            found = self._by_src[source] = {text for text, one in self._spans.items() if source.covers_route(one)}
        return found

    def _behind_dst(self, edge: Edge) -> set[str]:
        found = self._by_dst.get(edge)
        if found is None:
            found = self._by_dst[edge] = {text for text, one in self._spans.items() if edge.covers_route(one)}
        return found

    def usable(self, viewer: Placed, reach: Reach) -> dict[int, PeerRoutes]:
        """The routes a node may use, by the id of the peer that carries them."""
        ties = reach.ties(viewer)
        subnets = set(viewer.subnet_texts)  # a router of a subnet sees who else is its primary
        steered: dict[str, Mask] = {}
        exits: Mask = 0
        for edge in ties.out:
            covered = self._behind_dst(edge)
            subnets |= covered
            if edge.routers:
                for text in covered:
                    steered[text] = steered.get(text, 0) | edge.dst_mask
            if edge.opens_exits():
                exits |= edge.dst_mask & reach.members.exits
        for edge in ties.onto:
            subnets |= self._behind_src(edge.source)
        peers = reach.peers(viewer)
        primary: dict[int, list[str]] = {}
        for text in sorted(subnets):
            elected = self.elect(text, steered.get(text, 0)) or self.carriers[text][0]
            if elected.bit & peers:
                primary.setdefault(elected.node.id, []).append(text)
        usable = {node_id: PeerRoutes(tuple(texts)) for node_id, texts in primary.items()}
        for placed in reach.members.each(exits & peers):
            held = usable.get(placed.node.id, NO_ROUTES)
            usable[placed.node.id] = PeerRoutes(held.primary, placed.exits)
        return usable


def _seniority(placed: Placed) -> tuple[bool, float, int]:
    return not placed.node.online, placed.node.created_s, placed.node.id


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
