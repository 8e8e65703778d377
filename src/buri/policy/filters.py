"""A node's packet filter: the edges onto it, written as Tailscale's FilterRules.

Rules of one source and protocol are one rule, at the place of the policy's first. Capability grants never merge.
Rules share their lists of sources, between nodes too: what is given out may be read, not changed.
`cap/drive` and `cap/relay` bring a companion in the other direction: the sharer must know whom it serves.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from buri.policy.members import Mask, Placed
from buri.policy.model import Target
from buri.policy.ports import Ports
from buri.policy.reach import INTERNET_LITERALS, Edge, Position, Reach, RuleKey, in_order
from buri.policy.selectors import INTERNET, Kind
from buri.policy.sources import Words
from buri.wire.tailcfg.filter import CapGrant, FilterRule, NetPortRange, PortRange
from buri.wire.tailcfg.node import CapMap


def packet_filter(placed: Placed, reach: Reach) -> list[FilterRule]:
    """What a node lets in, in the order of the file."""
    builder = _Builder(placed, reach)
    ties = reach.ties(placed)
    back = (edge for edge in ties.out if edge.companions)
    for edge in in_order((*ties.onto, *ties.own, *back)):
        builder.add(edge)
    return builder.rules()


class _Builder:
    """Gathers a node's rules with their positions.

    The service merges the rules of the whole policy before it leaves out what a node has no part in. So a rule stands
    where the policy has the first of its source and protocol, be that one for another node.
    """

    def __init__(self, placed: Placed, reach: Reach) -> None:
        self.placed = placed
        self.reach = reach
        self._rules: list[tuple[Position, FilterRule]] = []
        self._merged: dict[RuleKey, list[NetPortRange]] = {}
        self._index = self._number = 0

    def rules(self) -> list[FilterRule]:
        """The rules in their order."""
        return [rule for _, rule in sorted(self._rules, key=lambda pair: pair[0])]

    def add(self, edge: Edge) -> None:
        """Add the rules of one edge: ports, capabilities, and both again for a person's own nodes."""
        placed, reach = self.placed, self.reach
        self._index, self._number = edge.index, -1
        opened = [target for target in edge.targets if edge.opens(target, placed, reach)]
        if opened:
            words = edge.source.words(reach)
            for access in edge.rule.accesses:
                self._open(words, access.protocols, self._destinations(opened, access.ports))
        if edge.app:
            self._capabilities(edge, opened, edge.app)
        if own := edge.self_mask(placed, reach):
            own_words = self._own_words(own)
            for access in edge.rule.accesses:
                ports = [p for target in edge.self_targets for p in target.ports or access.ports]
                self._open(own_words, access.protocols, [_range(a, p) for p in ports for a in placed.addresses])
            if edge.app:
                self._own_capabilities(edge, edge.app, own_words)

    def _append(self, rule: FilterRule, first: Position | None = None) -> None:
        self._number += 1
        here = (self._index, self._number)
        self._rules.append((here if first is None else min(first, here), rule))

    def _own_words(self, own: Mask) -> Words:
        return Words(sorted(text for placed in self.reach.members.each(own) for text in placed.addresses))

    def _open(self, words: Words, protocols: tuple[int, ...], ranges: list[NetPortRange]) -> None:
        if not ranges or not words:
            self._number += 1
            return
        key = (words, protocols)
        found = self._merged.get(key)
        if found is not None:
            found.extend(ranges)
            self._number += 1
            return
        self._merged[key] = ranges
        rule = FilterRule(src_ips=words.listed, dst_ports=ranges, ip_proto=list(protocols) or None)
        self._append(rule, self.reach.first(key))

    def _destinations(self, opened: list[Target], ports: tuple[Ports, ...]) -> list[NetPortRange]:
        ranges: list[NetPortRange] = []
        for target in opened:
            words = self._target_words(target)
            ranges.extend(_range(word, one) for one in target.ports or ports for word in words)
        return ranges

    def _target_words(self, target: Target) -> tuple[str, ...]:
        selector = target.selector
        if selector.name == INTERNET:
            return INTERNET_LITERALS
        if selector.kind is Kind.ADDRESS:
            return selector.literals
        if selector.kind is Kind.EVERYONE:
            return ("*",)
        return self.placed.addresses

    def _capabilities(self, edge: Edge, opened: list[Target], app: dict[str, list[Any]]) -> None:
        placed, reach = self.placed, self.reach
        held = [addresses for addresses in self._held_addresses(opened) if addresses]
        if held:
            self._grant(edge.source.words(reach), held, dict(app))
        if edge.back is not None and (asking := edge.source.addresses_of(placed, reach)):
            for name in edge.companions:
                self._grant(edge.back.words(reach), [asking], {name: None})

    def _own_capabilities(self, edge: Edge, app: dict[str, list[Any]], own_words: Words) -> None:
        placed, reach = self.placed, self.reach
        self._grant(own_words, [list(placed.addresses)], dict(app))
        asking = edge.source.addresses_of(placed, reach)
        own = self._own_words(reach.members.of_user(placed.node.user_id))
        for name in edge.companions:
            if asking:
                self._grant(own, [asking], {name: None})

    def _held_addresses(self, opened: list[Target]) -> Iterator[list[str]]:
        """The node's own addresses in each of some targets."""
        placed = self.placed
        for target in opened:
            selector = target.selector
            if selector.name == INTERNET:
                continue
            if selector.kind is Kind.ADDRESS:
                yield placed.addresses_in(selector.spans)
            else:
                yield list(placed.addresses)

    def _grant(self, words: Words, held: list[list[str]], cap_map: CapMap) -> None:
        grants = [
            CapGrant(dsts=[f"{text}/{128 if ':' in text else 32}" for text in addresses], cap_map=cap_map)
            for addresses in held
        ]
        self._append(FilterRule(src_ips=words.listed, cap_grant=grants))


def _range(word: str, ports: Ports) -> NetPortRange:
    return NetPortRange(ip=word, ports=_port_range(ports))


@functools.lru_cache(4096)
def _port_range(ports: Ports) -> PortRange:
    return PortRange(first=ports.first, last=ports.last)
