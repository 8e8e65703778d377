"""The source side of rules: which nodes, and the words that stand for them in packet filters and SSH rules."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from buri.policy.members import Mask, Placed
from buri.policy.selectors import DANGER_ALL, Kind, Selector
from buri.policy.spans import Span, joined, parse_span

if TYPE_CHECKING:
    from buri.policy.reach import Edge, Reach

TAILNET_LITERALS = ("100.64.0.0-100.115.91.255", "100.115.94.0-100.127.255.255", "fd7a:115c:a1e0::/48")
"""What "*" means as a source: the tailnet's ranges without ChromeOS's; approved subnet routes come on top."""


ANYBODY = "*"
"""What autogroup:danger-all means as a source: all addresses there are, the tailnet's or not."""


def is_everyone(selector: Selector) -> bool:
    return selector.kind is Kind.EVERYONE or selector.name == DANGER_ALL


class Words:
    """SrcIPs of rules, sorted, each once. `Reach.words` makes one of each, so that the same words are the same object.

    `listed` is shared by all rules with these sources: nobody may change it.
    """

    __slots__ = ("__weakref__", "listed")

    def __init__(self, listed: list[str]) -> None:
        self.listed = listed


class Source:
    """The src side of rules: one object for all rules with the same selectors, so its words are built once."""

    def __init__(self, selectors: tuple[Selector, ...], posture: tuple[str, ...]) -> None:
        self.selectors = selectors
        self.posture = posture
        self.everyone = any(is_everyone(selector) for selector in selectors)
        self.anybody = any(selector.name == DANGER_ALL for selector in selectors)
        self.edges: list[Edge] = []
        self.mask: Mask = 0
        self._words: Words | None = None
        self._principals: list[str] | None = None

    def refresh(self, reach: Reach) -> None:
        """Work the mask out; forget the words."""
        mask = 0
        for selector in self.selectors:
            mask |= reach.members.mask(selector)
        self.mask = mask & reach.posture_mask(self.posture)
        self._words = self._principals = None

    def follow(self, old: Placed | None, new: Placed | None, reach: Reach) -> None:
        """Take in that one node came to this source, changed within it (both sides), or went."""
        self._principals = None
        if old is not None:
            self.mask &= ~old.bit
        if new is not None:
            self.mask |= new.bit
        if self._words is not None:
            self._words = None if self.posture else self._amended(self._words, old, new, reach)

    def _amended(self, words: Words, old: Placed | None, new: Placed | None, reach: Reach) -> Words | None:
        """The words after a node's change; None when they must be built anew."""
        if self.anybody or all(selector.kind is Kind.ADDRESS for selector in self.selectors):
            return words  # they are the file's own
        before, after = (side.subnet_texts if side is not None else () for side in (old, new))
        if all(is_everyone(selector) for selector in self.selectors):
            return words if before == after else None
        if self.everyone or any(selector.kind is Kind.ADDRESS for selector in self.selectors):
            return None  # a node may be named by one selector no more and by another still
        gone = old.addresses if old is not None else ()
        come = new.addresses if new is not None else ()
        if gone == come:
            return words
        kept = list(words.listed)
        for text in gone:
            del kept[bisect_left(kept, text)]
        for text in come:
            insort(kept, text)
        return reach.words(kept)

    def words(self, reach: Reach) -> Words:
        """SrcIPs of a filter rule."""
        if self._words is None:
            self._words = reach.words(sorted(self._build(reach)))
        return self._words

    def _build(self, reach: Reach) -> Iterable[str]:
        members = reach.members
        if self.posture:
            return {text for placed in members.each(self.mask) for text in placed.addresses}
        if self.anybody:
            return (ANYBODY,)
        words: dict[str, Span] = {}
        for selector in self.selectors:
            if selector.kind is Kind.ADDRESS:
                words.update((literal, parse_span(literal)) for literal in selector.literals)
            elif not is_everyone(selector):
                for placed in members.each(members.mask(selector)):
                    words.update(zip(placed.addresses, placed.hosts, strict=True))
        if self.everyone:  # beside "*" the service keeps words that lie within a network
            return {*words, *TAILNET_LITERALS, *reach.subnet_texts()}
        networks = list(joined(one for one in words.values() if not one.is_host))
        return _gathered(words, networks) if networks else words

    def principals(self, reach: Reach, among: Mask | None = None) -> list[str]:
        """The sources' own addresses, sorted, of all or of some nodes; what is given may be shared: nobody may change it.

        A node is named once for each of its tags, as the service does.
        """
        if among is None and self._principals is not None:
            return self._principals
        found = sorted(
            text
            for placed in reach.members.each(self.mask if among is None else self.mask & among)
            for text in self.addresses_of(placed, reach) * max(len(placed.node.tags), 1)
        )
        if among is None:
            self._principals = found
        return found

    def addresses_of(self, placed: Placed, reach: Reach) -> list[str]:
        """A node's own addresses that this source names (a host alias of one family names one)."""
        if not self.mask & placed.bit:
            return []
        if self.posture or any(
            selector.kind is not Kind.ADDRESS and reach.members.means(selector, placed) for selector in self.selectors
        ):
            return list(placed.addresses)
        return placed.addresses_in(one for selector in self.selectors for one in selector.spans)

    def covers_route(self, route: Span) -> bool:
        """Whether packets from a subnet behind a router count as this source."""
        if self.posture:
            return False
        return self.everyone or any(one.overlaps(route) for selector in self.selectors for one in selector.spans)


def _gathered(words: dict[str, Span], networks: list[Span]) -> Iterator[str]:
    """Networks of one source as the service writes them: in the fewest ranges, without the hosts that lie in them."""
    yield from (network.text for network in networks)
    starts = [(one.version, one.first) for one in networks]
    for word, one in words.items():
        at = bisect_right(starts, (one.version, one.first)) - 1
        if at < 0 or not one.overlaps(networks[at]):
            yield word
