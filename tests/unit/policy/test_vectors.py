"""Our own cases for every rule of the language: `tests/vectors/policy`, whose README tells their form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from buri.core.errors import ConfigError
from buri.policy.attributes import IS_ADMIN, IS_OWNER
from buri.policy.compiler import CompiledPolicy, check
from buri.policy.problems import PolicyError
from buri.policy.sources import TAILNET_LITERALS
from buri.policy.tailnet import Node, Tailnet, User
from buri.wire.hujson import Document
from buri.wire.tailcfg.filter import FilterRule, NetPortRange

FOLDER = Path(__file__).parents[2] / "vectors" / "policy"
WORLD = json.loads((FOLDER / "tailnet.json").read_text())
NUMBERS = {name: node["ip"] for name, node in WORLD["nodes"].items()}


def _cases() -> Iterator[Any]:
    for path in sorted(FOLDER.glob("*.hujson")):
        for case in Document.parse(path.read_bytes()).value:
            yield pytest.param(case, id=f"{path.stem}: {case['name']}")


def _tailnet(attributes: dict[str, Any]) -> Tailnet:
    users = tuple(
        User(number, user["login"], user.get("role", "member")) for number, user in enumerate(WORLD["users"], 1)
    )
    ids = {user.login: user.id for user in users}
    return Tailnet(
        users,
        tuple(
            Node(
                node["ip"],
                ids.get(node.get("user", "")),
                tuple(node.get("tags", ())),
                f"100.64.0.{node['ip']}",
                f"fd7a:115c:a1e0::{node['ip']}",
                tuple(node.get("approved", ())),
                float(node["ip"]),
                attributes=attributes.get(name, {}),
            )
            for name, node in WORLD["nodes"].items()
        ),
    )


def _names(words: list[str]) -> list[str]:
    """Addresses as the vectors write them."""
    left = set(words)
    named: set[str] = set()
    if left.issuperset(TAILNET_LITERALS):
        left -= set(TAILNET_LITERALS)
        named.add("STAR")
    for name, number in NUMBERS.items():
        four, six = f"100.64.0.{number}", f"fd7a:115c:a1e0::{number}"
        if {four, six} <= left:
            named.add(name)
        else:
            named |= {f"{name}{family}" for family, text in ((4, four), (6, six)) if text in left}
        left -= {four, six}
    return sorted(named | left, key=lambda word: (word != "STAR", word))


def _ports(one: NetPortRange) -> str:
    first, last = one.ports.first, one.ports.last
    return "*" if (first, last) == (0, 65535) else str(first) if first == last else f"{first}-{last}"


def _rule(rule: FilterRule) -> str:
    src = " ".join(_names(rule.src_ips or []))
    if rule.cap_grant:
        grant = rule.cap_grant[0]
        names = {
            f"{a}/{b}": f"{n}{f}"
            for n, i in NUMBERS.items()
            for a, b, f in ((f"100.64.0.{i}", 32, 4), (f"fd7a:115c:a1e0::{i}", 128, 6))
        }
        return (
            f"{src} => {' '.join(grant.cap_map or {})} @ {' '.join(sorted(names.get(d, d) for d in grant.dsts or []))}"
        )
    by_ports: dict[str, list[str]] = {}
    for one in rule.dst_ports or []:
        by_ports.setdefault(_ports(one), []).append(one.ip)
    dsts = sorted(f"{name}:{ports}" for ports, words in by_ports.items() for name in _names(words))
    return f"{src} -> {' '.join(dsts)}" + (f" proto {rule.ip_proto[0]}" if rule.ip_proto else "")


def _ssh(rule: dict[str, Any]) -> str:
    by_address = {f"100.64.0.{i}": f"{n}4" for n, i in NUMBERS.items()}
    by_address |= {f"fd7a:115c:a1e0::{i}": f"{n}6" for n, i in NUMBERS.items()}
    action = "check" if "holdAndDelegate" in rule["action"] else "accept"
    principals = " ".join(sorted(by_address[p["nodeIP"]] for p in rule["principals"]))
    text = f"{action} {principals} as " + " ".join(f"{a}={b}" for a, b in sorted(rule["sshUsers"].items()))
    for port in rule["action"].get("recorders", ()):
        text += f" recorded by {by_address[port.rpartition(':')[0]]}"
    return text + (" or not at all" if "onRecordingFailure" in rule["action"] else "")


def _sees(compiled: CompiledPolicy, number: int) -> list[str]:
    by_number = {number: name for name, number in NUMBERS.items()}
    seen: list[str] = []
    for peer in compiled.peers(number):
        routes = " ".join(sorted(set(peer.allowed_ips) - set(peer.addresses)))
        seen.append(by_number[peer.node_id] + (f"({routes})" if routes else ""))
    return sorted(seen)


@pytest.mark.parametrize("case", list(_cases()))
def test_a_policy_gives_what_its_vector_says(case: dict[str, Any]) -> None:
    tailnet = _tailnet(case.get("attributes", {}))
    text = case["policy"] if isinstance(case["policy"], str) else json.dumps(case["policy"], indent=1)
    if "refused" in case:
        with pytest.raises(ConfigError) as caught:
            check(text, tailnet)
        for words in case["refused"]:
            assert words in str(caught.value)
        if "places" in case:
            assert isinstance(caught.value, PolicyError)
            assert [f"{p.line}:{p.column}" for p in caught.value.problems] == case["places"]
        return
    compiled = check(text, tailnet)
    for name, rules in case.get("filters", {}).items():
        assert [_rule(rule) for rule in compiled.packet_filter(NUMBERS[name])] == rules, name
    for name, peers in case.get("sees", {}).items():
        assert _sees(compiled, NUMBERS[name]) == peers, name
    for name, rules in case.get("ssh", {}).items():
        assert [_ssh(rule) for rule in compiled.ssh_rules(NUMBERS[name])] == rules, name
    for name, capabilities in case.get("has", {}).items():
        assert sorted(set(compiled.own_view(NUMBERS[name]).cap_map) - {IS_OWNER, IS_ADMIN}) == capabilities, name
    for name, pools in case.get("pools", {}).items():
        record = next(node for node in tailnet.nodes if node.id == NUMBERS[name])
        assert list(compiled.ip_pools(record)) == pools, name
    for name, routes in case.get("approves", {}).items():
        record = next(node for node in tailnet.nodes if node.id == NUMBERS[name])
        assert {route: compiled.auto_approved(record, route) for route in routes} == routes, name
