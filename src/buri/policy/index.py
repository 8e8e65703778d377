"""Which selectors mean a node, found by what the node is: its owner, its tags, its addresses and routes.

The turned-around side of `members.py`: a policy of thousands of selectors costs a node only those that it is part of,
and the networks among them.
"""

from __future__ import annotations

from collections.abc import Iterable

from buri.policy.selectors import DANGER_ALL, INTERNET, TAGGED, Kind, Selector
from buri.policy.spans import Span


class Index:
    """Selectors by what they look at. `meaning` agrees with `Members.means`."""

    def __init__(self) -> None:
        self._everyone: list[Selector] = []
        self._exits: list[Selector] = []
        self._tagged: list[Selector] = []
        self._by_tag: dict[str, list[Selector]] = {}
        self._by_user: dict[int | None, list[Selector]] = {}
        self._by_host: dict[Span, list[Selector]] = {}
        self._networks: list[tuple[Span, Selector]] = []

    def add(self, selector: Selector, people: Iterable[int | None]) -> None:
        """Take in a selector; `people` are the users it names, if it names users."""
        name = selector.name
        match selector.kind:
            case Kind.EVERYONE:
                self._everyone.append(selector)
            case Kind.TAG:
                self._by_tag.setdefault(name, []).append(selector)
            case Kind.ADDRESS:
                for one in selector.spans:
                    if one.is_host:
                        self._by_host.setdefault(one, []).append(selector)
                    else:
                        self._networks.append((one, selector))
            case Kind.AUTOGROUP if name in (DANGER_ALL, INTERNET, TAGGED):
                {DANGER_ALL: self._everyone, INTERNET: self._exits, TAGGED: self._tagged}[name].append(selector)
            case _:
                for user_id in people:
                    self._by_user.setdefault(user_id, []).append(selector)

    def meaning(
        self,
        user_id: int | None,
        tags: tuple[str, ...],
        hosts: tuple[Span, ...],
        subnets: tuple[Span, ...],
        *,
        is_exit: bool,
    ) -> set[Selector]:
        """The selectors that mean a node with these facts."""
        found = set(self._everyone)
        if is_exit:
            found.update(self._exits)
        if tags:
            found.update(self._tagged)
            for tag in tags:
                found.update(self._by_tag.get(tag, ()))
        else:
            found.update(self._by_user.get(user_id, ()))
        for host in hosts:
            found.update(self._by_host.get(host, ()))
            version, number, _ = host
            found.update(one for span, one in self._networks if span[1] <= number <= span[2] and span[0] == version)
        for subnet in subnets:
            found.update(one for span, one in self._networks if span.overlaps(subnet))
            for host, selectors in self._by_host.items():
                if subnet.overlaps(host):
                    found.update(selectors)
        return found
