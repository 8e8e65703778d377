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
from buri.policy.selectors import NONROOT, SELF
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

RECORDER_PORT = 80
"""Where a recorder listens (tsrecorder)."""
_NO_RECORDING = {
    "RejectSessionWithMessage": "This session must be recorded, and no recorder can be reached.",
    "TerminateSessionWithMessage": "This session must be recorded, and its recorder is gone.",
}

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
        if rule.recorders and reach.source(rule.recorders) in sources:
            mask |= source.mask
            for dst in rule.dsts:
                mask |= reach.members.mask(dst)
    return mask


def _compile(rule: SshRule, placed: Placed, reach: Reach) -> Iterator[SshWire]:
    members, source = reach.members, reach.source(rule.srcs, rule.posture)
    common = _common_users(rule)
    domains = {domain.lower() for user in rule.users if (domain := localpart_domain(user))}
    others = [dst for dst in rule.dsts if dst.name != SELF]
    named = any(members.means(dst, placed) for dst in others)
    owner = None if placed.node.tags else placed.node.user_id
    if len(others) < len(rule.dsts) and owner is not None:
        yield from _of_person(rule, owner, source, domains, members)
    if not domains:
        if named:
            yield from _wire(rule, source.principals(reach), common, members)
        return
    if named:
        for user in sorted(members.users, key=lambda user: user.id):
            yield from _of_person(rule, user.id, source, domains, members)
        yield from _wire(rule, source.principals(reach, members.tagged), common, members)
    elif others and source.mask & placed.bit:
        # With localpart the service opens a source's own nodes to that source too, whatever the destination.
        if placed.node.tags:
            yield from _wire(rule, list(placed.addresses), common, members)
        elif owner is not None:
            yield from _of_person(rule, owner, source, domains, members)


def _of_person(rule: SshRule, user_id: int, source: Source, domains: set[str], members: Members) -> Iterator[SshWire]:
    """Lets in one person's nodes, and with localpart under that person's own name too."""
    addresses = _addresses(source.mask & members.of_user(user_id), members)
    yield from _wire(rule, addresses, _common_users(rule), members)
    for user in members.users if domains else ():
        if user.id == user_id and user.domain.lower() in domains:
            yield from _wire(rule, addresses, {user.localpart: user.localpart}, members)


def _common_users(rule: SshRule) -> dict[str, str]:
    users = {"root": ""}
    for user in rule.users:
        if user == NONROOT:
            users["*"] = "="
        elif not localpart_domain(user):
            users[user] = user
    return users


def _addresses(mask: Mask, members: Members) -> list[str]:
    return [text for placed in members.each(mask) for text in placed.addresses]


def recording(rule: SshRule, members: Members) -> SshWire:
    """The part of an action that has its sessions recorded: the recorders in the order they are tried, and what else."""
    if not rule.recorders:
        return {}
    nodes = [placed for tag in rule.recorders for placed in members.each(members.mask(tag)) if placed.hosts]
    first = sorted({(placed.hosts[0], placed.addresses[0]) for placed in nodes})
    ports = [f"[{text}]:{RECORDER_PORT}" if ":" in text else f"{text}:{RECORDER_PORT}" for _, text in first]
    failure = {"onRecordingFailure": dict(_NO_RECORDING)} if rule.enforce_recorder else {}
    return {"recorders": ports} | failure


def _wire(rule: SshRule, addresses: list[str], users: dict[str, str], members: Members) -> Iterator[SshWire]:
    if not addresses:
        return
    wire: SshWire = {
        "principals": [{"nodeIP": text} for text in sorted(addresses)],
        "sshUsers": users,
        "action": dict(_CHECK) if rule.check else _ACCEPT | recording(rule, members),
    }
    if rule.accept_env:
        wire["acceptEnv"] = list(rule.accept_env)
    yield wire
