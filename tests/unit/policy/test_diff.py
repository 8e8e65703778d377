"""A comparison of two policies shows which pairs gain and lose which ports."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given

from buri.policy.compiler import CompiledPolicy
from buri.policy.diff import compare, describe
from buri.policy.document import parse
from buri.policy.explain import explain
from buri.policy.ports import TCP
from buri.policy.tailnet import Node, Tailnet, User
from unit.policy.worlds import PATIENT, policies, tailnets

TAILNET = Tailnet(
    (User(1, "ann@x.example"), User(2, "bob@x.example")),
    (
        Node(1, 1, (), "100.64.0.1", "fd7a:115c:a1e0::1"),
        Node(2, 1, (), "100.64.0.2", "fd7a:115c:a1e0::2"),
        Node(3, 2, (), "100.64.0.3", "fd7a:115c:a1e0::3"),
        Node(4, None, ("tag:web",), "100.64.0.4", "fd7a:115c:a1e0::4"),
    ),
)


def _changes(before: list[Any], after: list[Any]) -> dict[tuple[int, int], tuple[str, str]]:
    old, new = (
        CompiledPolicy(parse(json.dumps({"tagOwners": {"tag:web": []}, "acls": acls})), TAILNET).reach
        for acls in (before, after)
    )
    return {(c.src, c.dst): (describe(c.gained), describe(c.lost)) for c in compare(old, new)}


def _acl(src: str, dst: str, proto: str = "tcp") -> dict[str, Any]:
    return {"action": "accept", "src": [src], "dst": [dst], "proto": proto}


def test_what_is_gained_and_lost_is_shown_by_port() -> None:
    before = [_acl("bob@x.example", "tag:web:80-90"), _acl("ann@x.example", "tag:web:22")]
    after = [
        _acl("ann@x.example", "tag:web:22"),
        _acl("bob@x.example", "tag:web:85-95"),
        _acl("*", "tag:web:53", "udp"),
    ]
    assert _changes(before, after) == {
        (1, 4): ("udp 53", ""),
        (2, 4): ("udp 53", ""),
        (3, 4): ("tcp 91-95 udp 53", "tcp 80-84"),
    }


def test_rules_written_otherwise_change_nothing() -> None:
    before = [_acl("ann@x.example", "tag:web:80-90"), _acl("ann@x.example", "autogroup:self:22")]
    after = [
        _acl("ann@x.example", "ann@x.example:22"),
        _acl("ann@x.example", "tag:web:80-84"),
        _acl("ann@x.example", "tag:web:85-90"),
    ]
    assert _changes(before, after) == {}
    assert _changes(before, before[::-1]) == {}


def test_a_lost_self_rule_is_seen() -> None:
    assert _changes([_acl("ann@x.example", "autogroup:self:*")], []) == {(1, 2): ("", "tcp *"), (2, 1): ("", "tcp *")}


@PATIENT
@given(policies(), policies(), tailnets())
def test_a_comparison_agrees_with_the_explanations(before: str, after: str, tailnet: Tailnet) -> None:
    old, new = (CompiledPolicy(parse(text), tailnet) for text in (before, after))
    changes = {(change.src, change.dst): change for change in compare(old.reach, new.reach)}
    for src in old.members.each(old.members.all):
        for dst in old.members.each(old.members.all):
            if src is dst:
                continue
            there_src, there_dst = new.members.get(src.node.id), new.members.get(dst.node.id)
            assert there_src is not None
            assert there_dst is not None
            for port in (22, 80, 9999):
                was = explain(src, dst, old.reach, port=port, protocols=(TCP,)).allowed
                now = explain(there_src, there_dst, new.reach, port=port, protocols=(TCP,)).allowed
                change = changes.get((src.node.id, dst.node.id))
                gained = change.gained.get(TCP, ()) if change else ()
                lost = change.lost.get(TCP, ()) if change else ()
                assert any(one.first <= port <= one.last for one in gained) == (now and not was)
                assert any(one.first <= port <= one.last for one in lost) == (was and not now)
