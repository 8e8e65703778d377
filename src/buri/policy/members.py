"""Which nodes a selector stands for, kept current as nodes come, change and go.

A set of nodes is a `Mask`: an integer with one bit a node, at the node's slot. Unions and intersections of thousands of
nodes are then single operations. A slot is given anew once its node is gone. Which selectors mean a node is looked up in
an `Index`, so that a change of one node costs what the node is part of, and not the length of the policy.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import compress
from typing import NamedTuple, TypeVar

from buri.policy.index import Index
from buri.policy.selectors import DANGER_ALL, INTERNET, MEMBER, ROLES, TAGGED, Kind, Selector
from buri.policy.spans import Span, literal_of, parse_address, parse_span
from buri.policy.tailnet import Node, User

Mask = int
T = TypeVar("T")
_TRUTHS = bytes.maketrans(b"01", b"\0\1")
NOBODY = -1  # what a login that no user has stands for


class Placed(NamedTuple):
    """A node at its slot: what the compiler asks of it, worked out once.

    `addresses` are the ones it uses (one family when IPv4 is disabled), `hosts` and `prefixes` the same as numbers and as
    CIDRs; `subnets` its approved routes but exit routes.
    """

    node: Node
    slot: int
    addresses: tuple[str, ...]
    hosts: tuple[Span, ...]
    prefixes: tuple[str, ...]
    subnets: tuple[Span, ...]
    subnet_texts: tuple[str, ...]
    exits: tuple[str, ...]

    @property
    def bit(self) -> Mask:
        return 1 << self.slot

    def addresses_in(self, spans: Iterable[Span]) -> list[str]:
        """Its own addresses within some spans."""
        held = list(spans)
        return [
            text for text, host in zip(self.addresses, self.hosts, strict=True) if any(host.overlaps(s) for s in held)
        ]

    def touches(self, spans: tuple[Span, ...]) -> bool:
        """Whether an address or an approved subnet route of it overlaps any span."""
        return any(mine.overlaps(other) for other in spans for mine in (*self.hosts, *self.subnets))


def place(node: Node, slot: int, *, ipv4: bool = True) -> Placed:
    """Work out a node's facts. Bad addresses raise ValueError: they come from our own store."""
    addresses = tuple(text for text in (node.ipv4, node.ipv6) if text and (ipv4 or text is not node.ipv4))
    routes = [(literal_of("/", one), one) for one in map(parse_span, node.approved)]
    return Placed(
        node,
        slot,
        addresses,
        tuple(parse_address(text) for text in addresses),
        tuple(f"{text}/{128 if ':' in text else 32}" for text in addresses),
        tuple(one for _, one in routes if not one.is_family),
        tuple(text for text, one in routes if not one.is_family),
        tuple(text for text, one in routes if one.is_family),
    )


def slots_of(mask: Mask) -> Iterator[int]:
    """The slots in a mask, lowest first."""
    text = bin(mask)[:1:-1]
    slot = text.find("1")
    while slot >= 0:
        yield slot
        slot = text.find("1", slot + 1)


class Members:
    """The nodes of a tailnet and the selectors' masks over them. `slots`: where nodes shall stand that come by and by."""

    def __init__(
        self, users: Iterable[User], groups: dict[str, tuple[str, ...]], slots: Mapping[int, int] | None = None
    ) -> None:
        self._users = tuple(users)
        self._ids = {user.login: user.id for user in self._users}
        self._groups = groups
        self._kept = dict(slots or {})
        self._placed: list[Placed | None] = [None] * (max(self._kept.values(), default=-1) + 1)
        self._ids_by_slot = [0] * len(self._placed)
        self._free = sorted(set(range(len(self._placed))) - set(self._kept.values()))
        self._slots: dict[int, int] = {}
        self._by_user: dict[int | None, Mask] = {}
        self._by_tag: dict[str, Mask] = {}
        self._by_host: dict[Span, Mask] = {}
        self._hosts_in_order: list[tuple[Span, Mask]] | None = None
        self._masks: dict[Selector, Mask] = {}
        self._index = Index()
        self._user_sets: dict[Selector, frozenset[int | None]] = {}
        self.all: Mask = 0
        self.tagged: Mask = 0
        self.routers: Mask = 0
        self.exits: Mask = 0

    @property
    def users(self) -> tuple[User, ...]:
        return self._users

    def at(self, slot: int) -> Placed:
        placed = self._placed[slot]
        assert placed is not None
        return placed

    def get(self, node_id: int) -> Placed | None:
        slot = self._slots.get(node_id)
        return None if slot is None else self._placed[slot]

    def each(self, mask: Mask) -> Iterator[Placed]:
        """The nodes of a mask."""
        return self._picked(self._placed, mask)  # type: ignore[arg-type]  # where a bit is set, there is a node

    def ids(self, mask: Mask) -> Iterator[int]:
        """The ids of a mask's nodes."""
        return self._picked(self._ids_by_slot, mask)

    def _picked(self, row: list[T], mask: Mask) -> Iterator[T]:
        """What a row by slots holds for a mask: a sweep when it is for many, a search for each when it is for few."""
        if mask.bit_count() * 32 > len(row):
            return compress(row, bin(mask)[:1:-1].encode().translate(_TRUTHS))
        return map(row.__getitem__, slots_of(mask))

    def put(self, node: Node, *, ipv4: bool = True) -> Placed:
        """Add a node or replace the one of its id."""
        self.drop(node.id)
        kept = self._kept.pop(node.id, None)
        slot = kept if kept is not None else self._free.pop() if self._free else len(self._placed)
        if slot == len(self._placed):
            self._placed.append(None)
            self._ids_by_slot.append(0)
        placed = place(node, slot, ipv4=ipv4)
        self._placed[slot] = placed
        self._slots[node.id] = slot
        self._ids_by_slot[slot] = node.id
        self._mark(placed, held=True)
        return placed

    def drop(self, node_id: int) -> None:
        slot = self._slots.pop(node_id, None)
        if slot is not None:
            self._mark(self.at(slot), held=False)
            self._placed[slot] = None
            self._free.append(slot)

    def add_user(self, user: User) -> None:
        """Know one more person, who has no nodes yet."""
        self._users = (*self._users, user)
        self._ids[user.login] = user.id
        self._user_sets.clear()
        self._index = Index()
        for selector in self._masks:
            self._index.add(selector, self._people(selector))

    def slots(self) -> dict[int, int]:
        """Where each node stands, by its id."""
        return dict(self._slots)

    def user_id(self, login: str) -> int | None:
        return self._ids.get(login)

    def of_user(self, user_id: int | None) -> Mask:
        """The nodes a person owns; tagged ones are nobody's."""
        return 0 if user_id is None else self._by_user.get(user_id, 0)

    def holder(self, host: Span) -> Placed | None:
        """The node whose own address this is."""
        return next(self.each(self._by_host.get(host, 0)), None)

    def mask(self, selector: Selector) -> Mask:
        """The nodes a selector means. An address means its holder and the routers of approved subnets it overlaps."""
        mask = self._masks.get(selector)
        if mask is None:
            mask = self._masks[selector] = self._gather(selector)
            self._index.add(selector, self._people(selector))
        return mask

    def selectors_of(self, placed: Placed) -> set[Selector]:
        """Those of the selectors asked for so far that mean a node."""
        node = placed.node
        return self._index.meaning(node.user_id, node.tags, placed.hosts, placed.subnets, is_exit=bool(placed.exits))

    def means(self, selector: Selector, placed: Placed) -> bool:
        """Whether a selector means a node; `mask` is this for all nodes."""
        node, name = placed.node, selector.name
        match selector.kind:
            case Kind.EVERYONE:
                return True
            case Kind.TAG:
                return name in node.tags
            case Kind.ADDRESS:
                return placed.touches(selector.spans)
            case Kind.AUTOGROUP if name == INTERNET:
                return bool(placed.exits)
            case Kind.AUTOGROUP if name == DANGER_ALL:
                return True
            case Kind.AUTOGROUP if name == TAGGED:
                return bool(node.tags)
        return not node.tags and node.user_id in self._people(selector)

    def _people(self, selector: Selector) -> frozenset[int | None]:
        """The users a selector names; None is among them when it takes nodes without an owner too."""
        found = self._user_sets.get(selector)
        if found is None:
            found = self._user_sets[selector] = frozenset(self._find_people(selector))
        return found

    def _find_people(self, selector: Selector) -> Iterator[int | None]:
        name = selector.name
        if selector.kind is Kind.USER:
            yield self._ids.get(name, NOBODY)
        elif selector.kind is Kind.GROUP:
            yield from (self._ids.get(login, NOBODY) for login in self._groups.get(name, ()))
        elif selector.kind is Kind.DOMAIN:
            yield from (user.id for user in self._users if user.domain == name)
        elif name == MEMBER:
            yield None
            yield from (user.id for user in self._users)
        elif roles := ROLES.get(name):
            yield from (user.id for user in self._users if user.role in roles)

    def _gather(self, selector: Selector) -> Mask:
        match selector.kind:
            case Kind.EVERYONE:
                return self.all
            case Kind.TAG:
                return self._by_tag.get(selector.name, 0)
            case Kind.ADDRESS:
                return self._gather_addresses(selector)
            case Kind.AUTOGROUP if selector.name in (INTERNET, DANGER_ALL, TAGGED):
                return {INTERNET: self.exits, DANGER_ALL: self.all, TAGGED: self.tagged}[selector.name]
        mask = 0
        for user_id in self._people(selector):
            mask |= self._by_user.get(user_id, 0)
        return mask

    def _gather_addresses(self, selector: Selector) -> Mask:
        mask = 0
        for one in selector.spans:
            mask |= self._by_host.get(one, 0) if one.is_host else self._within(one)
        for placed in self.each(self.routers & ~mask):
            if placed.touches(selector.spans):
                mask |= placed.bit
        return mask

    def _within(self, network: Span) -> Mask:
        """The nodes that have an address in a network."""
        if self._hosts_in_order is None:
            self._hosts_in_order = sorted(self._by_host.items())
        hosts = self._hosts_in_order
        mask, index = 0, bisect_left(hosts, (Span(network.version, network.first, 0), 0))
        while index < len(hosts) and network.overlaps(hosts[index][0]):
            mask |= hosts[index][1]
            index += 1
        return mask

    def _mark(self, placed: Placed, *, held: bool) -> None:
        """Set or clear a node's bit everywhere it counts."""
        bit, node = placed.bit, placed.node

        def flip(mask: Mask) -> Mask:
            return mask | bit if held else mask & ~bit

        self.all = flip(self.all)
        self._hosts_in_order = None
        for host in placed.hosts:
            self._by_host[host] = flip(self._by_host.get(host, 0))
            if not self._by_host[host]:
                del self._by_host[host]
        if node.tags:
            self.tagged = flip(self.tagged)
            for tag in node.tags:
                self._by_tag[tag] = flip(self._by_tag.get(tag, 0))
        else:
            self._by_user[node.user_id] = flip(self._by_user.get(node.user_id, 0))
        if placed.subnets:
            self.routers = flip(self.routers)
        if placed.exits:
            self.exits = flip(self.exits)
        for selector in self.selectors_of(placed):
            self._masks[selector] = flip(self._masks[selector])
