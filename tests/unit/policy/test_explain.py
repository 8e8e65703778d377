"""An explanation names the rule that decides, by its line, or the nearest one and what it lacks."""

from __future__ import annotations

import pytest

from buri.policy.compiler import CompiledPolicy
from buri.policy.document import read
from buri.policy.explain import explain
from buri.policy.tailnet import Node, Tailnet, User
from buri.wire.hujson import Document

TEXT = """{
  "tagOwners": {"tag:web": [], "tag:db": []},
  "postures": {"posture:new": ["node:tsVersion >= '9'"]},
  "acls": [
    // the shop
    {"action": "accept", "src": ["ann@x.example"], "dst": ["tag:web:80"]},
    {"action": "accept", "src": ["*"], "dst": ["tag:web:53"], "proto": "udp"},
    {"action": "accept", "src": ["bob@x.example"], "dst": ["tag:db:22"], "srcPosture": ["posture:new"]},
  ],
}"""
DOCUMENT = Document.parse(TEXT)
ANN, BOB, WEB, DB = range(1, 5)
TAILNET = Tailnet(
    (User(1, "ann@x.example"), User(2, "bob@x.example")),
    (
        Node(ANN, 1, (), "100.64.0.1", ""),
        Node(BOB, 2, (), "100.64.0.2", "fd7a:115c:a1e0::2"),
        Node(WEB, None, ("tag:web",), "100.64.0.3", "fd7a:115c:a1e0::3"),
        Node(DB, None, ("tag:db",), "100.64.0.4", "fd7a:115c:a1e0::4"),
    ),
)


@pytest.mark.parametrize(
    ("src", "dst", "port", "protocols", "words"),
    [
        (ANN, WEB, 80, (), "Allowed by acls[0] at line 6."),
        (ANN, WEB, None, (), "Allowed by acls[0] at line 6."),
        (ANN, WEB, 443, (), "Denied. The nearest is acls[0] at line 6: it opens other ports."),
        (BOB, WEB, 53, (6,), "Denied. The nearest is acls[1] at line 7: it is for another protocol."),
        (BOB, WEB, 53, (), "Allowed by acls[1] at line 7."),
        (BOB, DB, 22, (), "line 8: it asks for a device posture that the source does not have."),
        (
            ANN,
            DB,
            22,
            (),
            "Denied. The nearest is acls[2] at line 8: it opens the destination, but not to this source.",
        ),
        (ANN, BOB, 22, (), "line 6: it is for this source, but not for this destination."),
    ],
)
def test_the_deciding_rule_is_named(
    src: int, dst: int, port: int | None, protocols: tuple[int, ...], words: str
) -> None:
    compiled = CompiledPolicy(read(DOCUMENT), TAILNET)
    a, b = compiled.members.get(src), compiled.members.get(dst)
    assert a is not None
    assert b is not None
    assert words in explain(a, b, compiled.reach, port=port, protocols=protocols).describe(DOCUMENT)


def test_a_policy_without_rules_says_so() -> None:
    document = Document.parse("{}")
    compiled = CompiledPolicy(read(document), TAILNET)
    a, b = compiled.members.get(ANN), compiled.members.get(DB)
    assert a is not None
    assert b is not None
    assert "has no rules" in explain(a, b, compiled.reach, port=1).describe(document)
