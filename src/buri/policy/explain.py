"""Why one node reaches another, or what comes nearest to letting it.

The rule that decides is named by its place in the file; when none does, the rule that lacks least, and what it lacks.
"""

from __future__ import annotations

import enum

import msgspec

from buri.policy.flows import Endpoint, admits, is_open, is_source, is_target, joined_by_self, pairs
from buri.policy.members import Placed
from buri.policy.model import Rule
from buri.policy.ports import DEFAULT_PROTOCOLS, Ports
from buri.policy.reach import Edge, Reach
from buri.wire.hujson import Document


class Lack(enum.Enum):
    """What the nearest rule lacks; the value is the sentence's end."""

    PORT = "opens other ports"
    PROTOCOL = "is for another protocol"
    CAPABILITY = "gives capabilities, and opens no port"
    POSTURE = "asks for a device posture that the source does not have"
    SOURCE = "opens the destination, but not to this source"
    TARGET = "is for this source, but not for this destination"


class Explanation(msgspec.Struct, frozen=True):
    """The verdict and the rules behind it. Without a verdict `nearest` lacks `lack`; it is None when nothing is near.

    `rules` are all rules that let the packet through, in the order of the compiled filters; an empty path stands for
    the policy without rules, which allows all.
    """

    allowed: bool
    rules: tuple[Rule, ...] = ()
    nearest: Rule | None = None
    lack: Lack | None = None

    def describe(self, document: Document) -> str:
        """One sentence for a person, with the line of the rule."""
        if self.rules:
            rule = self.rules[0]
            if not rule.path:
                return "Allowed: the policy has no rules, and so allows everything."
            return f"Allowed by {_name(rule)} at line {document.place(rule.path)[0]}."
        if self.nearest is None or self.lack is None:
            return "Denied: no rule is about this source or this destination."
        line = document.place(self.nearest.path)[0]
        return f"Denied. The nearest is {_name(self.nearest)} at line {line}: it {self.lack.value}."


def explain(
    src: Placed, dst: Placed | Endpoint, reach: Reach, *, port: int | None = None, protocols: tuple[int, ...] = ()
) -> Explanation:
    """Why `src` reaches `dst` at a port (None: at any), with any of some protocols (none: TCP, UDP, ICMP), or not.

    `dst` is a node, or an address behind a router.
    """
    wanted = protocols or DEFAULT_PROTOCOLS
    ports = None if port is None else Ports(port, port)
    ways = pairs(src, dst)
    rules = tuple(edge.rule for edge in reach.edges if any(admits(edge, a, b, ports, wanted, reach) for a, b in ways))
    if rules:
        return Explanation(True, rules)
    best: tuple[int, Rule, Lack] | None = None
    for edge in reach.edges:
        for a, b in ways:
            lack = _lack(edge, a, b, ports, wanted, reach)
            if lack is not None:
                score = list(Lack).index(lack)
                if best is None or score < best[0]:
                    best = (score, edge.rule, lack)
    return Explanation(False, nearest=best[1] if best else None, lack=best[2] if best else None)


def _lack(
    edge: Edge, src: Endpoint, dst: Endpoint, port: Ports | None, protocols: tuple[int, ...], reach: Reach
) -> Lack | None:
    """What an edge that does not admit a packet lacks; None when it has nothing to do with it."""
    by_self, by_source = joined_by_self(edge, src, dst, reach), is_source(edge, src, reach)
    targets = [target for index, target in enumerate(edge.targets) if is_target(edge, index, dst, reach)]
    if by_self:
        targets.extend(edge.self_targets)
    if not by_self and not by_source:
        if not targets:
            return None
        named = src.placed is not None and any(
            reach.members.mask(selector) & src.placed.bit for selector in edge.source.selectors
        )
        return Lack.POSTURE if named and edge.source.posture else Lack.SOURCE
    if not targets:
        return Lack.TARGET
    if not edge.rule.accesses:
        return Lack.CAPABILITY
    for access in edge.rule.accesses:
        if any(is_open(target.ports or access.ports, port) for target in targets):
            return Lack.PROTOCOL
    return Lack.PORT


def _name(rule: Rule) -> str:
    section, index = rule.path[0], rule.path[1]
    return f"{section}[{index}]"
