"""Records as the policy sees them: its users, its nodes, the routes these may carry, and a whole policy put to them.

A route counts when the node advertises it and the policy approves it (`autoApprovers`). Only a router's presence is told
to the policy: of anybody else's nothing depends on it, and so nothing is worked out when they come and go.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from buri.control.snapshot import NodeRecord, Snapshot, UserRecord
from buri.core.addresses import parse_prefix
from buri.core.errors import ConfigError, WireError
from buri.policy.compiler import CompiledPolicy, run_tests
from buri.policy.document import parse, read
from buri.policy.model import Policy
from buri.policy.posture import AttributeValue
from buri.policy.tailnet import Node, Tailnet, User
from buri.wire.hujson import Document
from buri.wire.tailcfg.derpmap import DERPMap
from buri.wire.tailcfg.node import Hostinfo

MAX_ROUTES = 256


def user_of(record: UserRecord) -> User:
    return User(id=record.id, login=record.login, role=record.role)


def users_of(snapshot: Snapshot) -> tuple[User, ...]:
    return tuple(user_of(record) for record in snapshot.users.values())


def advertised(hostinfo: Hostinfo) -> tuple[str, ...]:
    """The routes a host offers, as CIDRs; what is no prefix is passed over, for a peer wrote it."""
    found: dict[str, None] = {}
    for text in (hostinfo.routable_ips or ())[:MAX_ROUTES]:
        try:
            found[str(parse_prefix(text))] = None
        except WireError:
            continue
    return tuple(found)


def attributes(hostinfo: Hostinfo) -> dict[str, AttributeValue]:
    """What device postures can ask of a host."""
    version = hostinfo.ipn_version.partition("-")[0]
    found: dict[str, AttributeValue] = {"node:os": hostinfo.os.lower()}
    if hostinfo.os_version:
        found["node:osVersion"] = hostinfo.os_version
    if version:
        minor = version.split(".")[1:2]
        stable = not minor or not minor[0].isdecimal() or int(minor[0]) % 2 == 0
        found |= {"node:tsVersion": version, "node:tsReleaseTrack": "stable" if stable else "unstable"}
    return found


def node_of(record: NodeRecord, policy: Policy, approved: tuple[str, ...] = ()) -> Node:
    """A node with the routes it may carry."""
    return Node(
        id=record.id,
        user_id=record.user_id,
        tags=record.tags,
        ipv4=record.ipv4,
        ipv6=record.ipv6,
        approved=approved,
        created_s=record.created_s,
        online=record.online or not approved,
        attributes=attributes(record.hostinfo) if policy.postures else {},
    )


def put(compiled: CompiledPolicy, record: NodeRecord) -> int:
    """Tell a compiled policy of a node as it is now; the mask of the nodes whose views may have changed."""
    policy, routes = compiled.policy, advertised(record.hostinfo)
    node, touched = node_of(record, policy), 0
    known = compiled.members.get(record.id)
    if not routes or not (policy.auto_approvers.routes or policy.auto_approvers.exit_nodes):
        return compiled.put_node(node)
    if known is None or (known.node.user_id, known.node.tags) != (node.user_id, node.tags):
        touched = compiled.put_node(node)  # who it is must be known before its routes can be judged
    approved = tuple(route for route in routes if compiled.auto_approved(node, route))
    return touched | compiled.put_node(node_of(record, policy, approved))


def join(policy: Policy, snapshot: Snapshot, slots: Mapping[int, int] | None = None) -> CompiledPolicy:
    """A policy compiled over the nodes that may take part."""
    records = [record for record in snapshot.nodes.values() if record.authorized]
    nodes = tuple(node_of(record, policy) for record in records)
    compiled = CompiledPolicy(policy, Tailnet(users_of(snapshot), nodes), slots)
    for record in records:
        if record.hostinfo.routable_ips:
            put(compiled, record)
    return compiled


def compile_current(snapshot: Snapshot, slots: Mapping[int, int] | None = None) -> CompiledPolicy:
    """The policy in force over the nodes that may take part. Raises ConfigError: but it passed before it was stored."""
    return join(parse(snapshot.policy.text), snapshot, slots)


def derp_map(snapshot: Snapshot, policy: Policy) -> DERPMap:
    """The relays that nodes are told of: the server's, and what the policy's `derpMap` adds, replaces or (null) removes."""
    more = policy.derp_map
    if more is None:
        return snapshot.derp_map
    kept = {} if more.omit_default_regions else snapshot.derp_map.regions or {}
    regions = {number: region for number, region in {**kept, **(more.regions or {})}.items() if region is not None}
    params = more.home_params or snapshot.derp_map.home_params
    return msgspec.structs.replace(snapshot.derp_map, regions=dict(sorted(regions.items())), home_params=params)


def check(text: str, snapshot: Snapshot, *, tests: bool = True) -> CompiledPolicy:
    """What must pass before a policy is stored: its language, and its own tests against the tailnet as it is.

    Raises PolicyError with every fault, or SyntaxPlaceError.
    """
    document = Document.parse(text)
    policy = read(document, domains=domains(snapshot))
    if not derp_map(snapshot, policy).regions:
        raise ConfigError("The policy's derpMap leaves no relay, and without one no node can come up.")
    compiled = join(policy, snapshot)
    if tests:
        run_tests(document, compiled)
    return compiled


def domains(snapshot: Snapshot) -> frozenset[str]:
    """The mail domains of the tailnet, which `user:*@…` may name: all its users'. Who may log in is settled elsewhere."""
    return frozenset(record.login.partition("@")[2] for record in snapshot.users.values()) - {""}
