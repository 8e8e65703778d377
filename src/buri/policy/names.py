"""The names a policy defines, and what a word in a rule means by them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from buri.core.errors import WireError
from buri.policy.ports import Ports, parse_ports
from buri.policy.selectors import AUTOGROUPS, EVERYONE, Kind, Selector, address_selector
from buri.policy.spans import Span, joined, without

_SERVICE = re.compile(r"svc:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)


class UnknownNameError(Exception):
    """A word that means nothing here; the text is the service's."""


class Names:
    """Groups, hosts, ipsets and tags by name. `select` is the one reading of a word."""

    def __init__(self, groups: Iterable[str], tags: Iterable[str], hosts: dict[str, Selector]) -> None:
        self.groups = frozenset(groups)
        self.tags = frozenset(tags)
        self.hosts = hosts
        self._known: dict[str, Selector] = {}

    def select(self, word: str) -> Selector:
        """Raises UnknownNameError."""
        found = self._known.get(word)
        if found is None:
            found = self._known[word] = self._select(word.strip())
        return found

    def _select(self, word: str) -> Selector:
        if word == "*":
            return EVERYONE
        if word.startswith("tag:"):
            if word not in self.tags:
                raise UnknownNameError(f'tag not found: "{word}"')
            return Selector(Kind.TAG, word, word)
        if word.startswith("group:"):
            if word not in self.groups:
                raise UnknownNameError(f'group not found: "{word}"')
            return Selector(Kind.GROUP, word, word)
        if word.startswith("autogroup:"):
            if word not in AUTOGROUPS:
                raise UnknownNameError(f'unknown autogroup: "{word}"')
            return Selector(Kind.AUTOGROUP, word, "autogroup:member" if word == "autogroup:members" else word)
        if word.startswith("svc:"):
            if not _SERVICE.fullmatch(word):
                raise UnknownNameError(f'"{word}": invalid service name')
            return Selector(Kind.SERVICE, word, word)
        if word in self.hosts:
            return self.hosts[word]
        if word.startswith("ipset:"):
            raise UnknownNameError(f'ipset not found: "{word}"')
        if word.startswith("user:*@"):
            return Selector(Kind.DOMAIN, word, word.removeprefix("user:*@"))
        if "@" in word:
            return Selector(Kind.USER, word, word)
        try:
            return address_selector(word, word.removeprefix("[").removesuffix("]"))
        except WireError:
            raise UnknownNameError(f'"{word}": invalid address') from None

    def target(self, word: str) -> tuple[Selector, tuple[Ports, ...]]:
        """Read "HOST:PORTS"; raises UnknownNameError or ValueError (of the ports) with the service's words."""
        host, colon, ports = word.rpartition(":")
        if not colon:
            raise ValueError(f'"{word}": missing port')
        parsed = parse_ports(ports)
        return self.select(host), parsed


def ipset_selector(name: str, words: list[str], hosts: dict[str, Selector]) -> Selector:
    """An ipset from its entries, in order: "add X", "remove X" or X; raises WireError."""
    held: list[Span] = []
    for word in words:
        verb, _, rest = word.strip().partition(" ")
        if verb not in ("add", "remove"):
            verb, rest = "add", word
        rest = rest.strip().removeprefix("host:")
        named = hosts.get(rest)
        for one in (named or address_selector(rest, rest)).spans:
            if verb == "add":
                held.append(one)
            else:
                held = [left for kept in held for left in without(kept, one)]
    spans = tuple(joined(held))
    return Selector(Kind.ADDRESS, name, name, spans, tuple(word for one in spans for word in one.cidrs()))
