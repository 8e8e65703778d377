"""SSH rules, as Tailscale's service compiles them for one node.

Check rules come before accept rules. `sshUsers` maps a login name to the local one; "*": "=" is any but root, and
"root": "" says that root is refused. `localpart:*@DOMAIN` gives each source user an own rule, for their name only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from buri.policy.members import Mask, Members, Placed
from buri.policy.model import SshRule
from buri.policy.reach import Reach
from buri.policy.selectors import NONROOT, SELF, TAGGED
from buri.policy.sources import Source
from buri.policy.sshdocument import localpart_domain

CHECK_URL = "https://unused/machine/ssh/action/$SRC_NODE_ID/to/$DST_NODE_ID?local_user=$LOCAL_USER"
_ACCEPT = {
    "accept": True,
    "allowAgentForwarding": True,
    "allowLocalPortForwarding": True,
    "allowRemotePortForwarding": True,
}
_CHECK = {"holdAndDelegate": CHECK_URL}

SshWire = dict[str, Any]
"""A rule of tailcfg.SSHPolicy, in its JSON form."""


def ssh_rules(placed: Placed, reach: Reach) -> list[SshWire]:
    """The SSH rules of a node, in the order it applies them."""
    compiled = [(rule.check, wire) for rule in reach.policy.ssh for wire in _compile(rule, placed, reach)]
    return [wire for check, wire in compiled if check] + [wire for check, wire in compiled if not check]


def touched(reach: Reach, sources: set[Source]) -> Mask:
    """The nodes whose SSH rules may change when nodes came to or went from some sources."""
    mask: Mask = 0
    for rule in reach.policy.ssh:
        source = reach.source(rule.srcs, rule.posture)
        if source in sources:
            for dst in rule.dsts:
                mask |= reach.members.mask(dst)
            mask |= source.mask  # autogroup:self and localpart: a person's own nodes
    return mask


def _compile(rule: SshRule, placed: Placed, reach: Reach) -> Iterator[SshWire]:
    members = reach.members
    srcs = reach.source(rule.srcs, rule.posture).mask
    domains = {domain for user in rule.users if (domain := localpart_domain(user))}
    common = _common_users(rule)
    named = any(members.mask(dst) & placed.bit for dst in rule.dsts if dst.name != SELF)
    own = 0 if placed.node.tags else members.of_user(placed.node.user_id) & srcs
    if not domains:
        if named:
            yield from _wire(rule, _principals(rule, reach), common)
        elif own and any(dst.name == SELF for dst in rule.dsts):
            yield from _wire(rule, _addresses(own, members), common)
        return
    # With localpart the service opens a person's own nodes to that person too, whatever the destination.
    for user in sorted(members.users, key=lambda user: user.id):
        theirs = members.of_user(user.id) & srcs
        if theirs and (named or theirs & own):
            addresses = _addresses(theirs, members)
            yield from _wire(rule, addresses, common)
            if user.domain in domains:
                yield from _wire(rule, addresses, {user.localpart: user.localpart})
    if named:
        yield from _wire(rule, _addresses(srcs & members.tagged, members), common)


def _common_users(rule: SshRule) -> dict[str, str]:
    users = {"root": ""}
    for user in rule.users:
        if user == NONROOT:
            users["*"] = "="
        elif not localpart_domain(user):
            users[user] = user
    return users


def _principals(rule: SshRule, reach: Reach) -> list[str]:
    """Addresses of all sources. autogroup:tagged names a node once for each of its tags, as the service does."""
    members, source = reach.members, reach.source(rule.srcs, rule.posture)
    addresses = source.principals(reach)
    if any(selector.name == TAGGED for selector in rule.srcs):
        for placed in members.each(source.mask & members.tagged):
            addresses = [*addresses, *(placed.addresses * (len(placed.node.tags) - 1))]
    return addresses


def _addresses(mask: Mask, members: Members) -> list[str]:
    return [text for placed in members.each(mask) for text in placed.addresses]


def _wire(rule: SshRule, addresses: list[str], users: dict[str, str]) -> Iterator[SshWire]:
    if not addresses:
        return
    wire: SshWire = {
        "principals": [{"nodeIP": text} for text in sorted(addresses)],
        "sshUsers": users,
        "action": dict(_CHECK if rule.check else _ACCEPT),
    }
    if rule.accept_env:
        wire["acceptEnv"] = list(rule.accept_env)
    yield wire
