"""What the compiler gives never contradicts itself, on random policies and tailnets."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from buri.policy.compiler import CompiledPolicy, check
from buri.policy.document import parse
from buri.policy.explain import explain
from buri.policy.ports import TCP
from buri.policy.tailnet import Node, Tailnet
from buri.wire.tailcfg.filter import FilterRule
from unit.policy.worlds import PATIENT, USERS, nodes, policies, tailnets

PORTS = (22, 53, 80, 9999)


def _views(compiled: CompiledPolicy, node_id: int) -> Any:
    return (
        [msgspec.to_builtins(rule) for rule in compiled.packet_filter(node_id)],
        compiled.ssh_rules(node_id),
        compiled.peers(node_id),
        compiled.own_view(node_id),
    )


def _unordered(views: Any) -> Any:
    """Views with the filter's rules in one order: a filter accepts alike in any."""
    return None if views is None else (sorted(views[0], key=repr), *views[1:])


def _ids(compiled: CompiledPolicy) -> list[int]:
    return sorted(placed.node.id for placed in compiled.members.each(compiled.members.all))


def _holds(word: str, address: str) -> bool:
    """Whether an entry of a filter rule holds an address, read as the node's engine reads it."""
    if word == "*":
        return True
    one = ip_address(address)
    if "-" in word:
        first, last = map(ip_address, word.split("-"))
        return first.version == one.version and int(first) <= int(one) <= int(last)
    return one in ip_network(word)


def _lets_in(rules: list[FilterRule], src: str, dst: str, port: int) -> bool:
    return any(
        (not rule.ip_proto or TCP in rule.ip_proto)
        and any(_holds(word, src) for word in rule.src_ips or [])
        and any(_holds(r.ip, dst) and r.ports.first <= port <= r.ports.last for r in rule.dst_ports or [])
        for rule in rules
    )


@PATIENT
@given(policies(), tailnets())
def test_explanation_filter_and_visibility_agree(text: str, tailnet: Tailnet) -> None:
    compiled = CompiledPolicy(parse(text), tailnet)
    for src in compiled.members.each(compiled.members.all):
        for dst in compiled.members.each(compiled.members.all):
            if src is dst:
                continue
            rules = compiled.packet_filter(dst.node.id)
            for port in PORTS:
                let_in = any(
                    _lets_in(rules, a, b, port)
                    for a in src.addresses
                    for b in dst.addresses
                    if (":" in a) == (":" in b)
                )
                verdict = explain(src, dst, compiled.reach, port=port, protocols=(TCP,))
                assert verdict.allowed == let_in, (src.node, dst.node, port, verdict)
                if let_in:
                    assert dst.node.id in compiled.peer_ids(src.node.id)


@PATIENT
@given(policies(), tailnets())
def test_sight_is_mutual_and_routes_come_from_peers_alone(text: str, tailnet: Tailnet) -> None:
    compiled = CompiledPolicy(parse(text), tailnet)
    approved = {node.id: set(node.approved) for node in tailnet.nodes}
    for node_id in _ids(compiled):
        peers = compiled.peers(node_id)
        carried = [route for peer in peers for route in peer.primary_routes]
        assert len(carried) == len(set(carried)), "a subnet has one primary router"
        for peer in peers:
            assert node_id in compiled.peer_ids(peer.node_id)
            assert set(peer.allowed_ips) - set(peer.addresses) <= approved[peer.node_id]


@settings(PATIENT, max_examples=200)
@given(policies(), tailnets(), st.lists(nodes() | st.integers(1, 7), max_size=6))
def test_following_changes_equals_compiling_from_scratch(
    text: str, tailnet: Tailnet, changes: list[Node | int]
) -> None:
    policy = parse(text)
    followed = CompiledPolicy(policy, tailnet)
    current = {node.id: node for node in tailnet.nodes}
    for change in changes:
        before = {node_id: _views(followed, node_id) for node_id in current}
        if isinstance(change, int):
            if change not in current:
                continue
            del current[change]
            touched = followed.drop(change)
        else:
            current[change.id] = change
            touched = followed.put(change)
        scratch = CompiledPolicy(policy, Tailnet(USERS, tuple(current.values())))
        assert _ids(followed) == _ids(scratch) == sorted(current)
        for node_id in current:
            view = _views(followed, node_id)
            assert view == _views(scratch, node_id)
            told = node_id in touched
            assert told or _unordered(view) == _unordered(before.get(node_id)), "a view changed and nobody was told"


@PATIENT
@given(policies(), tailnets(), st.randoms())
def test_the_order_of_nodes_does_not_matter(text: str, tailnet: Tailnet, random: Any) -> None:
    shuffled = list(tailnet.nodes)
    random.shuffle(shuffled)
    one = CompiledPolicy(parse(text), tailnet)
    other = CompiledPolicy(parse(text), Tailnet(tailnet.users, tuple(shuffled)))
    order = list(_ids(one))
    random.shuffle(order)
    assert {i: _views(one, i) for i in order} == {i: _views(other, i) for i in _ids(other)}


@settings(PATIENT, max_examples=50)
@given(policies(), tailnets())
def test_a_generated_policy_passes_the_check(text: str, tailnet: Tailnet) -> None:
    compiled = check(text, tailnet)
    assert _ids(compiled) == sorted(node.id for node in tailnet.nodes)
