"""Who reaches whom: the one place that decides it.

Each rule becomes an `Edge`: a source (who), targets (whom, and at which ports). Packet filters, visibility, routes,
tests and explanations all read these edges and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from buri.policy.members import Mask, Members, Placed
from buri.policy.model import Access, Policy, Rule, Target
from buri.policy.ports import ALL_PORTS
from buri.policy.posture import AttributeValue
from buri.policy.selectors import EVERYONE, INTERNET, SELF, Kind, Selector
from buri.policy.sources import Source, Words
from buri.policy.spans import Span, parse_span

if TYPE_CHECKING:
    from buri.policy.filters import Opening

INTERNET_LITERALS = (
    "0.0.0.0-9.255.255.255",
    "11.0.0.0-100.63.255.255",
    "100.128.0.0-169.253.255.255",
    "169.255.0.0-172.15.255.255",
    "172.32.0.0-192.167.255.255",
    "192.169.0.0-255.255.255.255",
    "2000::-3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
)
"""What autogroup:internet means as a destination: everything but private, link-local and the tailnet's own ranges."""
INTERNET_SPANS = tuple(parse_span(literal) for literal in INTERNET_LITERALS)

COMPANIONS = {
    "tailscale.com/cap/drive": "tailscale.com/cap/drive-sharer",
    "tailscale.com/cap/relay": "tailscale.com/cap/relay-target",
}
"""Capabilities that bring another in the other direction: a sharer must know whom it serves."""

ALLOW_ALL = Rule((), (EVERYONE,), (Target(EVERYONE, (ALL_PORTS,)),), (Access((), ()),))
"""The rule of a policy that has neither `acls` nor `grants`."""


def is_public(selector: Selector) -> bool:
    """Whether a target is part of the internet by its addresses: exit nodes let packets for it in."""
    return bool(selector.spans) and all(
        any(wide == one or wide.holds(one) for wide in INTERNET_SPANS) for one in selector.spans
    )


def target_spans(selector: Selector) -> tuple[Span, ...]:
    """The addresses a target names by number: those of a host or CIDR, or the internet's."""
    return INTERNET_SPANS if selector.name == INTERNET else selector.spans


RuleKey = tuple[Words, tuple[int, ...]]
"""What filter rules merge by: source and protocols."""
Position = tuple[int, int]
"""Where a rule of a filter comes from: the edge's index, and which of its rules."""


class Edge:
    """A rule joined with the tailnet; `index` is its place in the filters.

    `dst_mask`: nodes it opens something on; with `via`, the routers it names. `self_targets` join each person's nodes
    with one another only, so they are no part of `dst_mask`. `app`: the capabilities it gives; `companions`: those it
    brings in the other direction, from `back`.
    """

    def __init__(self, index: int, rule: Rule, source: Source) -> None:
        self.index = index
        self.rule = rule
        self.source = source
        self.targets = tuple(target for target in rule.targets if target.selector.name != SELF)
        self.self_targets = tuple(target for target in rule.targets if target.selector.name == SELF)
        self.routers = tuple(Selector(Kind.TAG, tag, tag) for tag in rule.via)
        self.app = rule.app if rule.srcs and not rule.via else None
        self.companions = tuple(COMPANIONS[name] for name in sorted(self.app or ()) if name in COMPANIONS)
        self.back: Source | None = None
        self.dst_mask: Mask = 0
        source.edges.append(self)

    def opens_anything(self) -> bool:
        """Whether any node, were it there, would get a rule of this edge: a named address counts before it is held."""
        if self.routers:
            return False  # those rules exist on the routers alone
        return bool(self.dst_mask) or any(
            target.selector.kind is Kind.ADDRESS or target.selector.name == INTERNET for target in self.targets
        )

    def refresh(self, reach: Reach) -> None:
        self.dst_mask = 0
        for target in self.targets:
            self.dst_mask |= self.target_mask(target, reach)

    def target_mask(self, target: Target, reach: Reach) -> Mask:
        """The nodes that a target of this edge opens; of a via grant, the routers that carry (part of) it now."""
        if not self.routers:
            mask = reach.members.mask(target.selector)
            return mask | reach.members.exits if is_public(target.selector) else mask
        routers = 0
        for tag in self.routers:
            routers |= reach.members.mask(tag)
        return sum(placed.bit for placed in reach.members.each(routers) if _carries(placed, target.selector))

    def opens(self, target: Target, placed: Placed, reach: Reach) -> bool:
        """Whether a target of this edge opens a node: `target_mask` for one node."""
        if not self.routers:
            means = reach.members.means(target.selector, placed)
            return means or (bool(placed.exits) and is_public(target.selector))
        return any(tag in placed.node.tags for tag in self.rule.via) and _carries(placed, target.selector)

    def self_mask(self, placed: Placed, reach: Reach) -> Mask:
        """Those of a person's own nodes that a `self` target lets reach this node of theirs."""
        if not self.self_targets or placed.node.tags:
            return 0
        return self.source.mask & reach.members.of_user(placed.node.user_id)

    def covers_route(self, route: Span) -> bool:
        """Whether a target includes (part of) a subnet."""
        return any(
            target.selector.kind is Kind.EVERYONE or any(one.overlaps(route) for one in target_spans(target.selector))
            for target in self.targets
        )

    def opens_exits(self) -> bool:
        """Whether a target includes the internet."""
        return any(
            target.selector.kind is Kind.EVERYONE
            or target.selector.name == INTERNET
            or any(one.is_family for one in target.selector.spans)
            for target in self.targets
        )


def _carries(placed: Placed, selector: Selector) -> bool:
    """Whether a router carries (part of) what a via grant is for."""
    if selector.name == INTERNET:
        return bool(placed.exits)
    return any(subnet.overlaps(one) for subnet in placed.subnets for one in selector.spans)


class Ties:
    """What of a policy a node is part of, in the order of the filters; it depends on the node alone.

    `own`: edges that may join it with its owner's other nodes; `filtering`: all edges that its filter may have rules of.
    `openings` is kept here by `filters.py`.
    """

    __slots__ = ("filtering", "onto", "openings", "out", "own", "sources")

    def __init__(
        self,
        sources: Iterable[Source] = (),
        out: Iterable[Edge] = (),
        onto: Iterable[Edge] = (),
        own: Iterable[Edge] = (),
    ) -> None:
        self.sources = tuple(sources)
        self.out = in_order(out)
        self.onto = in_order(onto)
        self.own = in_order(own)
        self.filtering = in_order((*self.onto, *self.own, *(edge for edge in self.out if edge.companions)))
        self.openings: list[Opening] | None = None


class Reach:
    """All edges of a policy over the members of a tailnet."""

    def __init__(self, policy: Policy, members: Members) -> None:
        self.policy = policy
        self.members = members
        self._sources: dict[tuple[tuple[Selector, ...], tuple[str, ...]], Source] = {}
        self._sources_of: dict[Selector, list[Source]] = {}
        self._edges_to: dict[Selector, list[Edge]] = {}
        self._edges_via: dict[str, list[Edge]] = {}
        self._posture_masks: dict[tuple[str, ...], Mask] = {}
        self._first: dict[RuleKey, Position] | None = None
        self._words: WeakValueDictionary[tuple[str, ...], Words] = WeakValueDictionary()
        self._ties: dict[int, tuple[Placed, Ties]] = {}
        rules = (ALLOW_ALL,) if policy.rules is None else policy.rules
        self.edges = tuple(
            Edge(index, rule, self.source(rule.srcs, rule.posture or policy.default_posture))
            for index, rule in enumerate(rules)
        )
        self._posture_own = tuple(edge for edge in self.edges if edge.self_targets and edge.source.posture)
        self._edges_out = tuple(
            edge for edge in self.edges if not edge.routers and any(is_public(one.selector) for one in edge.targets)
        )
        for edge in self.edges:
            edge.refresh(self)
            if edge.companions and edge.targets:
                edge.back = self.source(tuple(t.selector for t in edge.targets if t.selector.name != INTERNET))
            for tag in edge.rule.via:
                self._edges_via.setdefault(tag, []).append(edge)
            for target in () if edge.routers else edge.targets:
                self._edges_to.setdefault(target.selector, []).append(edge)

    def source(self, selectors: tuple[Selector, ...], posture: tuple[str, ...] = ()) -> Source:
        """The shared source of these selectors."""
        key = (selectors, posture)
        found = self._sources.get(key)
        if found is None:
            found = self._sources[key] = Source(selectors, posture)
            found.refresh(self)
            for selector in selectors:
                self._sources_of.setdefault(selector, []).append(found)
            self._ties.clear()
        return found

    def ties(self, placed: Placed) -> Ties:
        """What of the policy a node is part of; also one that is gone by now."""
        known = self._ties.get(placed.slot)
        if known is None or known[0] is not placed:
            known = self._ties[placed.slot] = (placed, self._tie(placed))
        return known[1]

    def _tie(self, placed: Placed) -> Ties:
        selectors = self.members.selectors_of(placed)
        sources = {
            source
            for selector in selectors
            for source in self._sources_of.get(selector, ())
            if not source.posture or self.satisfies(placed.node.attributes, source.posture)
        }
        out = {edge for source in sources for edge in source.edges}
        onto = {edge for selector in selectors for edge in self._edges_to.get(selector, ())}
        if placed.exits:
            onto.update(self._edges_out)
        for tag in placed.node.tags:
            steered = self._edges_via.get(tag, ())
            onto.update(edge for edge in steered if any(edge.opens(one, placed, self) for one in edge.targets))
        own = {edge for edge in out if edge.self_targets}.union(self._posture_own)
        return Ties(sources, out, onto, () if placed.node.tags else own)

    def follow(self, old: Placed | None, new: Placed | None) -> tuple[Mask, set[Source]]:
        """Take in that one node came, changed or went.

        Gives the nodes whose filters, peers or routes that may change, and the sources that held or hold the node.
        """
        self._first = None
        for names, mask in self._posture_masks.items():
            self._posture_masks[names] = self._with_posture(names, mask, old, new)
        before = _NO_TIES if old is None else self.ties(old)
        after = _NO_TIES if new is None else self.ties(new)
        if old is not None and new is None:
            del self._ties[old.slot]
        sources = {*before.sources, *after.sources}
        for source in sources:
            source.follow(old if source in before.sources else None, new if source in after.sources else None, self)
        reached: Mask = 0
        for edge in {*before.onto, *after.onto}:
            if old is not None:
                edge.dst_mask &= ~old.bit
            if new is not None and edge in after.onto:
                edge.dst_mask |= new.bit
            reached |= edge.source.mask
        for edge in {*before.out, *after.out}:
            reached |= edge.dst_mask
        for side, ties in ((old, before), (new, after)):
            if side is not None and ties.own:
                reached |= self.members.of_user(side.node.user_id)
        return reached & self.members.all, sources

    def words(self, listed: list[str]) -> Words:
        """The one `Words` of these sources."""
        key = tuple(listed)
        found = self._words.get(key)
        if found is None:
            found = self._words[key] = Words(listed)
        return found

    def first_rules(self) -> Mapping[RuleKey, Position]:
        """Where the whole policy has its first rule of each source and protocol, on whatever node."""
        if self._first is None:
            self._first = {}
            for edge in self.edges:
                words = edge.source.words(self)
                if words.listed and edge.opens_anything():
                    for number, access in enumerate(edge.rule.accesses):
                        self._first.setdefault((words, access.protocols), (edge.index, number))
        return self._first

    def subnet_texts(self) -> Iterable[str]:
        """Every approved subnet route of the tailnet."""
        return {text for placed in self.members.each(self.members.routers) for text in placed.subnet_texts}

    def posture_mask(self, names: tuple[str, ...]) -> Mask:
        """The nodes that satisfy at least one of these postures; all when none is named."""
        if not names:
            return self.members.all
        mask = self._posture_masks.get(names)
        if mask is None:
            mask = sum(
                placed.bit
                for placed in self.members.each(self.members.all)
                if self.satisfies(placed.node.attributes, names)
            )
            self._posture_masks[names] = mask
        return mask

    def satisfies(self, attributes: Mapping[str, AttributeValue], names: tuple[str, ...]) -> bool:
        """Whether a device with these attributes has at least one of some postures."""
        postures = (self.policy.postures.get(name, ()) for name in names)
        return any(all(condition.holds(attributes) for condition in conditions) for conditions in postures)

    def _with_posture(self, names: tuple[str, ...], mask: Mask, old: Placed | None, new: Placed | None) -> Mask:
        if old is not None:
            mask &= ~old.bit
        return mask | new.bit if new is not None and self.satisfies(new.node.attributes, names) else mask

    def peers(self, placed: Placed) -> Mask:
        """The nodes a node sees: those it may reach and those that may reach it."""
        ties = self.ties(placed)
        seen: Mask = 0
        for edge in ties.out:
            seen |= edge.dst_mask
        for edge in ties.onto:
            seen |= edge.source.mask
        for edge in ties.own:
            seen |= edge.self_mask(placed, self)
            if edge.source.mask & placed.bit:
                seen |= self.members.of_user(placed.node.user_id)
        return seen & ~placed.bit


def in_order(edges: Iterable[Edge]) -> tuple[Edge, ...]:
    """Edges as the filters have them, each once."""
    return tuple(sorted(set(edges), key=lambda edge: edge.index))


_NO_TIES = Ties()
