"""No text crashes the reader of policies, and each fault has a place within the text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buri.core.errors import ConfigError, SyntaxPlaceError
from buri.policy.document import parse
from buri.policy.ports import ALL_PORTS, Ports, parse_ip_access, parse_ports
from buri.policy.posture import parse_condition
from buri.policy.problems import PolicyError
from unit.policy.worlds import PATIENT

KEYS = st.sampled_from(
    [
        "acls",
        "grants",
        "groups",
        "hosts",
        "ipsets",
        "tagOwners",
        "autoApprovers",
        "routes",
        "exitNode",
        "nodeAttrs",
        "target",
        "attr",
        "app",
        "ip",
        "via",
        "ssh",
        "tests",
        "sshTests",
        "src",
        "dst",
        "users",
        "action",
        "proto",
        "postures",
        "srcPosture",
        "checkPeriod",
        "acceptEnv",
        "accept",
        "deny",
        "check",
        "derpMap",
        "disableIPv4",
        "group:a",
        "tag:a",
        "host",
        "posture:p",
        "ipset:i",
    ]
) | st.text(max_size=5)
WORDS = st.sampled_from(
    [
        "*",
        "accept",
        "check",
        "group:a",
        "tag:a",
        "tag:",
        "host",
        "a@b.c",
        "autogroup:self",
        "autogroup:member",
        "*:22",
        "tag:a:80-443",
        "10.0.0.0/8:*",
        "::",
        "[::1]:1",
        "1.2.3.4-1.2.3.9",
        "add 1.2.3.4",
        "1.2.3.4",
        "remove ::/0",
        "::/0",
        "localpart:*@b.c",
        "user:*@b.c",
        "12h",
        "-1s",
        "ipset:i",
        "posture:p",
        "0.0.0.0/0",
    ]
) | st.text(max_size=8)
VALUES: st.SearchStrategy[Any] = st.recursive(
    WORDS | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=30,
)


def _refusal(text: str) -> ConfigError | None:
    try:
        parse(text, domains=frozenset(["b.c"]))
    except ConfigError as error:
        return error
    return None


@settings(PATIENT, max_examples=300)
@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_document_is_read_or_refused_with_places(value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=1)
    error = _refusal(text)
    lines = text.split("\n")
    if isinstance(error, PolicyError):
        for problem in error.problems:
            assert 1 <= problem.line <= len(lines)
            assert 1 <= problem.column <= len(lines[problem.line - 1])


@PATIENT
@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    assert _refusal(text) is None or isinstance(_refusal(text), (PolicyError, SyntaxPlaceError))


@pytest.mark.parametrize(
    ("text", "ports"),
    [("*", (ALL_PORTS,)), ("22", (Ports(22, 22),)), ("80-443,22", (Ports(80, 443), Ports(22, 22)))],
)
def test_ports_are_read(text: str, ports: tuple[Ports, ...]) -> None:
    assert parse_ports(text) == ports


@pytest.mark.parametrize("text", ["", "ssh", "-1", "1-", "5-1", "65536", "1,", "²", "0x10"])
def test_ports_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="port range"):
        parse_ports(text)


def test_a_grants_ip_entry_has_protocol_and_ports() -> None:
    assert parse_ip_access("tcp:443") == ((6,), (Ports(443, 443),))
    assert parse_ip_access("icmp:*") == ((1,), (ALL_PORTS,))
    assert parse_ip_access("443") == ((), (Ports(443, 443),))


@pytest.mark.parametrize(
    ("condition", "attributes", "holds"),
    [
        ("node:tsVersion >= '1.40'", {"node:tsVersion": "1.9.1"}, False),
        ("node:tsVersion >= '1.40'", {"node:tsVersion": "1.52"}, True),
        ("node:os == 'linux'", {}, False),
        ("node:os != 'linux'", {}, True),
        ("custom:tier IN ['a', 'b']", {"custom:tier": "b"}, True),
        ("custom:tier NOT IN ['a', 'b']", {"custom:tier": "b"}, False),
        ("custom:x IS SET", {"custom:x": False}, True),
        ("custom:x NOT SET", {"custom:x": False}, False),
        ("custom:score > 90", {"custom:score": 91}, True),
        ("custom:ok == true", {"custom:ok": 1}, False),
    ],
)
def test_posture_conditions(condition: str, attributes: dict[str, Any], holds: bool) -> None:
    assert parse_condition(condition).holds(attributes) is holds
