"""A node's packet filter: the edges onto it, written as Tailscale's FilterRules.

Rules of one source and protocol are one rule, at the place of the first. Capability grants never merge. `cap/drive` and
`cap/relay` bring a companion in the other direction: the sharer must know whom it serves.
"""

from __future__ import annotations

from buri.policy.members import Placed
from buri.policy.model import Rule, Target
from buri.policy.ports import Ports
from buri.policy.reach import INTERNET_LITERALS, Edge, Reach
from buri.policy.selectors import INTERNET, Kind
from buri.wire.tailcfg.filter import CapGrant, FilterRule, NetPortRange, PortRange

COMPANIONS = {
    "tailscale.com/cap/drive": "tailscale.com/cap/drive-sharer",
    "tailscale.com/cap/relay": "tailscale.com/cap/relay-target",
}


def packet_filter(placed: Placed, reach: Reach) -> list[FilterRule]:
    """What a node lets in, in the order of the file."""
    builder = _Builder(placed, reach)
    for edge in reach.edges:
        builder.add(edge)
    return builder.rules


class _Builder:
    def __init__(self, placed: Placed, reach: Reach) -> None:
        self.placed = placed
        self.reach = reach
        self.rules: list[FilterRule] = []
        self._merged: dict[tuple[tuple[str, ...], tuple[int, ...]], list[NetPortRange]] = {}

    def add(self, edge: Edge) -> None:
        placed, reach = self.placed, self.reach
        opened = edge.dst_mask & placed.bit
        own = edge.self_mask(placed, reach)
        if opened:
            words = edge.source.words(reach)
            if words:
                for access in edge.rule.accesses:
                    self._open(words, access.protocols, self._destinations(edge, access.ports))
        if own:
            own_words = self._own_words(own)
            for access in edge.rule.accesses:
                ports = [p for target in edge.self_targets for p in target.ports or access.ports]
                self._open(own_words, access.protocols, [_range(a, p) for p in ports for a in placed.addresses])
        if edge.rule.app and not edge.rule.via and edge.rule.srcs:
            self._capabilities(edge, edge.rule.app, own)

    def _own_words(self, own: int) -> tuple[str, ...]:
        return tuple(sorted(text for placed in self.reach.members.each(own) for text in placed.addresses))

    def _open(self, words: tuple[str, ...], protocols: tuple[int, ...], ranges: list[NetPortRange]) -> None:
        if not ranges:
            return
        key = (words, protocols)
        found = self._merged.get(key)
        if found is not None:
            found.extend(ranges)
            return
        self._merged[key] = ranges
        self.rules.append(FilterRule(src_ips=list(words), dst_ports=ranges, ip_proto=list(protocols) or None))

    def _destinations(self, edge: Edge, ports: tuple[Ports, ...]) -> list[NetPortRange]:
        ranges: list[NetPortRange] = []
        for target, mask in zip(edge.targets, edge.target_masks, strict=True):
            if mask & self.placed.bit:
                words = self._target_words(edge.rule, target)
                ranges.extend(_range(word, one) for one in target.ports or ports for word in words)
        return ranges

    def _target_words(self, rule: Rule, target: Target) -> tuple[str, ...]:
        selector = target.selector
        if selector.name == INTERNET:
            return INTERNET_LITERALS
        if selector.kind is Kind.ADDRESS:
            return selector.literals
        if selector.kind is Kind.EVERYONE:
            return self.placed.subnet_texts if rule.via else ("*",)
        return self.placed.addresses

    def _capabilities(self, edge: Edge, app: dict[str, list[object]], own: int) -> None:
        placed, reach = self.placed, self.reach
        held = self._held_addresses(edge)
        if held:
            self._grant(edge.source.words(reach), held, dict(app))
        if own:
            self._grant(self._own_words(own), list(placed.addresses), dict(app))
        companions = [COMPANIONS[name] for name in sorted(app) if name in COMPANIONS]
        if not companions:
            return
        back = reach.source(tuple(t.selector for t in edge.targets if t.selector.name != INTERNET))
        asking = edge.source.addresses_of(placed, reach)
        mine = edge.self_targets and asking and not placed.node.tags
        for name in companions:
            if asking and edge.targets:
                self._grant(back.words(reach), asking, {name: None})
            if mine:
                self._grant(self._own_words(reach.members.of_user(placed.node.user_id)), asking, {name: None})

    def _held_addresses(self, edge: Edge) -> list[str]:
        """The node's own addresses among an edge's targets."""
        placed, held = self.placed, set[str]()
        for target, mask in zip(edge.targets, edge.target_masks, strict=True):
            selector = target.selector
            if not mask & placed.bit or selector.name == INTERNET:
                continue
            if selector.kind is Kind.ADDRESS:
                held.update(placed.addresses_in(self.reach.members.spans(selector)))
            else:
                held.update(placed.addresses)
        return sorted(held)

    def _grant(self, words: tuple[str, ...], addresses: list[str], cap_map: dict[str, list[object] | None]) -> None:
        dsts = [f"{text}/{128 if ':' in text else 32}" for text in addresses]
        self.rules.append(FilterRule(src_ips=list(words), cap_grant=[CapGrant(dsts=dsts, cap_map=cap_map)]))


def _range(word: str, ports: Ports) -> NetPortRange:
    return NetPortRange(ip=word, ports=PortRange(first=ports.first, last=ports.last))
