"""Who reaches whom: the one place that decides it.

Each rule becomes an `Edge`: a source (who), targets (whom, and at which ports). Packet filters, visibility, routes,
tests and explanations all read these edges and nothing else.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator

from buri.policy.members import Mask, Members, Placed
from buri.policy.model import Access, Policy, Rule, Target
from buri.policy.ports import ALL_PORTS
from buri.policy.selectors import DANGER_ALL, EVERYONE, INTERNET, SELF, Kind, Selector
from buri.policy.spans import Span, parse_span

TAILNET_LITERALS = ("100.64.0.0-100.115.91.255", "100.115.94.0-100.127.255.255", "fd7a:115c:a1e0::/48")
"""What "*" means as a source: the tailnet's ranges without ChromeOS's; approved subnet routes come on top."""

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

ALLOW_ALL = Rule((), (EVERYONE,), (Target(EVERYONE, (ALL_PORTS,)),), (Access((), ()),))
"""The rule of a policy that has neither `acls` nor `grants`."""


def is_everyone(selector: Selector) -> bool:
    return selector.kind is Kind.EVERYONE or selector.name == DANGER_ALL


def target_spans(selector: Selector) -> tuple[Span, ...]:
    """The addresses a target names by number: those of a host or CIDR, or the internet's."""
    return INTERNET_SPANS if selector.name == INTERNET else selector.spans


class Words(tuple[str, ...]):
    """SrcIPs of a rule, sorted, each once; hashed once however often they are looked up."""

    _hash: int | None = None

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = super().__hash__()
        return self._hash


RuleKey = tuple[Words, tuple[int, ...]]
"""What filter rules merge by: source and protocols."""
Position = tuple[int, int]
"""Where a rule of a filter comes from: the edge's index, and which of its rules."""


class Source:
    """The src side of rules: one object for all rules with the same selectors, so its words are built once."""

    def __init__(self, selectors: tuple[Selector, ...], posture: tuple[str, ...]) -> None:
        self.selectors = selectors
        self.posture = posture
        self.everyone = any(is_everyone(selector) for selector in selectors)
        self.mask: Mask = 0
        self._words: Words | None = None

    def refresh(self, reach: Reach) -> None:
        """Work the mask out again; forget the words."""
        mask = 0
        for selector in self.selectors:
            mask |= reach.members.mask(selector)
        self.mask = mask & reach.posture_mask(self.posture)
        self._words = None

    def follow(self, old: Placed | None, new: Placed | None, reach: Reach) -> bool:
        """Take in one node's change; whether it was or is part of this source."""
        bit = (new or old).bit  # type: ignore[union-attr]  # a change has at least one side
        was = bool(self.mask & bit)
        now = new is not None and bool(
            reach.posture_mask(self.posture) & bit and any(reach.members.mask(one) & bit for one in self.selectors)
        )
        self.mask = self.mask | bit if now else self.mask & ~bit
        if self._words is not None and (was or now):
            if self.posture:
                self._words = None
            else:
                self._words = self._amended(self._words, old if was else None, new if now else None)
        return was or now

    def _amended(self, words: Words, old: Placed | None, new: Placed | None) -> Words | None:
        """The words after a node's change; None when they must be built anew."""
        if all(selector.kind is Kind.ADDRESS for selector in self.selectors):
            return words  # they are the file's own
        before, after = (side.subnet_texts if side is not None else () for side in (old, new))
        if all(is_everyone(selector) for selector in self.selectors):
            return words if before == after else None
        if self.everyone or any(selector.kind is Kind.ADDRESS for selector in self.selectors):
            return None  # a node may be named by one selector no more and by another still
        kept = list(words)
        for text in old.addresses if old is not None else ():
            kept.remove(text)
        for text in new.addresses if new is not None else ():
            insort(kept, text)
        return Words(kept)

    def words(self, reach: Reach) -> Words:
        """SrcIPs of a filter rule."""
        if self._words is None:
            self._words = Words(sorted(self._build(reach)))
        return self._words

    def _build(self, reach: Reach) -> set[str]:
        members = reach.members
        words: set[str] = set()
        if self.posture:
            for placed in members.each(self.mask):
                words.update(placed.addresses)
            return words
        if self.everyone:
            words.update(TAILNET_LITERALS)
            words.update(reach.subnet_texts())
        for selector in self.selectors:
            if selector.kind is Kind.ADDRESS:
                words.update(selector.literals)
            elif not is_everyone(selector):
                for placed in members.each(members.mask(selector)):
                    words.update(placed.addresses)
        return words if self.everyone else self._without_covered(words, members)

    def _without_covered(self, words: set[str], members: Members) -> set[str]:
        """Leave out what lies within a network of the same source; beside "*" the service keeps such words."""
        networks = [
            one
            for selector in self.selectors
            if selector.kind is Kind.ADDRESS
            for one in selector.spans
            if one.first != one.last
        ]
        if not networks:
            return words
        return {word for word in words if not any(network.holds(parse_span(word)) for network in networks)}

    def addresses_of(self, placed: Placed, reach: Reach) -> list[str]:
        """A node's own addresses that this source names (a host alias of one family names one)."""
        if not self.mask & placed.bit:
            return []
        if self.posture or any(
            selector.kind is not Kind.ADDRESS and reach.members.mask(selector) & placed.bit
            for selector in self.selectors
        ):
            return list(placed.addresses)
        return placed.addresses_in(s for selector in self.selectors for s in selector.spans)

    def covers_route(self, route: Span, reach: Reach) -> bool:
        """Whether packets from a subnet behind a router count as this source."""
        if self.posture:
            return False
        return self.everyone or any(one.overlaps(route) for selector in self.selectors for one in selector.spans)


class Edge:
    """A rule joined with the tailnet.

    `dst_mask`: nodes it opens something on; with `via`, the routers it names. `self_targets` join each person's nodes
    with one another only, so they are no part of `dst_mask`.
    """

    def __init__(self, rule: Rule, source: Source) -> None:
        self.rule = rule
        self.source = source
        self.targets = tuple(target for target in rule.targets if target.selector.name != SELF)
        self.self_targets = tuple(target for target in rule.targets if target.selector.name == SELF)
        self.dst_mask: Mask = 0
        self.target_masks: tuple[Mask, ...] = ()

    def opens_anything(self) -> bool:
        """Whether any node, were it there, would get a rule of this edge: a named address counts before it is held."""
        if self.rule.via:
            return False  # those rules exist on the routers alone
        return bool(self.dst_mask) or any(
            target.selector.kind is Kind.ADDRESS or target.selector.name == INTERNET for target in self.targets
        )

    def refresh(self, reach: Reach) -> None:
        members = reach.members
        if self.rule.via:
            self.target_masks = tuple(self._via_mask(target.selector, reach) for target in self.targets)
        else:
            self.target_masks = tuple(members.mask(target.selector) for target in self.targets)
        self.dst_mask = 0
        for mask in self.target_masks:
            self.dst_mask |= mask

    def follow(self, old: Placed | None, new: Placed | None, reach: Reach) -> bool:
        """Take in one node's change; whether this edge opened or opens something on it."""
        bit = (new or old).bit  # type: ignore[union-attr]  # a change has at least one side
        was = self.dst_mask & bit
        self.refresh(reach)
        return bool(was or self.dst_mask & bit)

    def _via_mask(self, selector: Selector, reach: Reach) -> Mask:
        """The routers of a via grant that carry (part of) a target now."""
        members = reach.members
        routers = 0
        for tag in self.rule.via:
            routers |= members.mask(Selector(Kind.TAG, tag, tag))
        if selector.name == INTERNET:
            return routers & members.exits
        spans = selector.spans
        return sum(
            placed.bit
            for placed in members.each(routers)
            if any(subnet.overlaps(one) for subnet in placed.subnets for one in spans)
        )

    def self_mask(self, placed: Placed, reach: Reach) -> Mask:
        """Those of a person's own nodes that a `self` target lets reach this node of theirs."""
        if not self.self_targets or placed.node.tags:
            return 0
        return self.source.mask & reach.members.of_user(placed.node.user_id)

    def covers_route(self, route: Span, reach: Reach) -> bool:
        """Whether a target includes (part of) a subnet."""
        return any(
            target.selector.kind is Kind.EVERYONE or any(one.overlaps(route) for one in target_spans(target.selector))
            for target in self.targets
        )

    def opens_exits(self) -> bool:
        """Whether a target includes the internet."""
        return any(t.selector.kind is Kind.EVERYONE or t.selector.name == INTERNET for t in self.targets)


class Reach:
    """All edges of a policy over the members of a tailnet."""

    def __init__(self, policy: Policy, members: Members) -> None:
        self.policy = policy
        self.members = members
        self._sources: dict[tuple[tuple[Selector, ...], tuple[str, ...]], Source] = {}
        self._posture_masks: dict[tuple[str, ...], Mask] = {}
        self._first: dict[RuleKey, Position] | None = None
        rules = (ALLOW_ALL,) if policy.rules is None else policy.rules
        self.edges = tuple(Edge(rule, self.source(rule.srcs, rule.posture or policy.default_posture)) for rule in rules)

    def source(self, selectors: tuple[Selector, ...], posture: tuple[str, ...] = ()) -> Source:
        """The shared source of these selectors."""
        key = (selectors, posture)
        found = self._sources.get(key)
        if found is None:
            found = self._sources[key] = Source(selectors, posture)
            found.refresh(self)
        return found

    def refresh(self) -> None:
        """Work everything out anew."""
        self._first = None
        self._posture_masks.clear()
        for source in self._sources.values():
            source.refresh(self)
        for edge in self.edges:
            edge.refresh(self)

    def follow(self, old: Placed | None, new: Placed | None) -> tuple[Mask, set[Source]]:
        """Take in that one node came, changed or went.

        Gives the nodes whose filters, peers or routes that may change, and the sources that held or hold the node.
        """
        self._first = None
        for names, mask in self._posture_masks.items():
            self._posture_masks[names] = self._with_posture(names, mask, old, new)
        touched = {source for source in self._sources.values() if source.follow(old, new, self)}
        reached: Mask = 0
        for edge in self.edges:
            before = edge.dst_mask
            onto = edge.follow(old, new, self)
            if edge.source in touched:
                reached |= before | edge.dst_mask
            if onto:
                reached |= edge.source.mask
            for side in (old, new):
                if edge.self_targets and side is not None and not side.node.tags:
                    reached |= self.members.of_user(side.node.user_id)
        return reached & self.members.all, touched

    def first(self, key: RuleKey) -> Position | None:
        """Where the whole policy has its first rule of this source and protocol, on whatever node."""
        if self._first is None:
            self._first = {}
            for index, edge in enumerate(self.edges):
                words = edge.source.words(self)
                if words and edge.opens_anything():
                    for number, access in enumerate(edge.rule.accesses):
                        self._first.setdefault((words, access.protocols), (index, number))
        return self._first.get(key)

    def subnet_texts(self) -> Iterable[str]:
        """Every approved subnet route of the tailnet."""
        return {text for placed in self.members.each(self.members.all) for text in placed.subnet_texts}

    def posture_mask(self, names: tuple[str, ...]) -> Mask:
        """The nodes that satisfy at least one of these postures; all when none is named."""
        if not names:
            return self.members.all
        mask = self._posture_masks.get(names)
        if mask is None:
            mask = sum(placed.bit for placed in self.members.each(self.members.all) if self._satisfies(placed, names))
            self._posture_masks[names] = mask
        return mask

    def _satisfies(self, placed: Placed, names: tuple[str, ...]) -> bool:
        postures = (self.policy.postures.get(name, ()) for name in names)
        return any(all(c.holds(placed.node.attributes) for c in conditions) for conditions in postures)

    def _with_posture(self, names: tuple[str, ...], mask: Mask, old: Placed | None, new: Placed | None) -> Mask:
        if old is not None:
            mask &= ~old.bit
        return mask | new.bit if new is not None and self._satisfies(new, names) else mask

    def edges_onto(self, placed: Placed) -> Iterator[Edge]:
        """The edges that open something on a node, in the order of the file."""
        for edge in self.edges:
            if edge.dst_mask & placed.bit or edge.self_mask(placed, self):
                yield edge

    def peers(self, placed: Placed) -> Mask:
        """The nodes a node sees: those it may reach and those that may reach it."""
        bit, seen = placed.bit, 0
        for edge in self.edges:
            source = edge.source.mask
            if source & bit:
                seen |= edge.dst_mask
                if edge.self_targets and not placed.node.tags:
                    seen |= self.members.of_user(placed.node.user_id)
            if edge.dst_mask & bit:
                seen |= source
            if edge.self_targets:
                seen |= edge.self_mask(placed, self)
        return seen & ~bit
