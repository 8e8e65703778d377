"""What Tailscale's own service compiled, case by case.

The captures are not part of this repository. `BURI_POLICY_CAPTURES` names a folder of `KIND.jsonl.xz` files, each line
one case; without it this module says so and is left out. Nothing here knows a case by name.
"""

from __future__ import annotations

import datetime
import json
import lzma
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from buri.policy.compiler import CompiledPolicy, check
from buri.policy.problems import PolicyError
from buri.policy.tailnet import Node, Role, Tailnet, User

FOLDER = os.environ.get("BURI_POLICY_CAPTURES", "")
FROM_TAILNET = {  # capabilities every node of the captured tailnet has, whatever the policy
    "https://tailscale.com/cap/file-sharing",
    "https://tailscale.com/cap/ssh",
    "https://tailscale.com/cap/tailnet-lock",
    "probe-udp-lifetime",
    "ssh-behavior-v1",
    "ssh-env-vars",
    "store-appc-routes",
    "tailnet-display-name",
    "default-auto-update",
}
ROLES: dict[str, Role] = {"odin": "owner", "thor": "admin", "freya": "admin"}
ONLY_ACCEPTANCE = {"policytest", "sshtest"}  # what the nodes received is no part of these

if not FOLDER:
    pytest.skip("BURI_POLICY_CAPTURES names no folder of captures", allow_module_level=True)


def _cases() -> Iterator[Any]:
    for path in sorted(Path(FOLDER).glob("*.jsonl.xz")):
        kind = path.name.removesuffix(".jsonl.xz")
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                case = json.loads(line)
                yield pytest.param(kind, case, id=f"{kind}-{case['name']}")


CASES = list(_cases())


def _created(text: str) -> float:
    head, _, fraction = text.removesuffix("Z").partition(".")
    moment = datetime.datetime.fromisoformat(f"{head}+00:00").timestamp()
    return moment + float(f"0.{fraction or 0}")


def _tailnet(case: dict[str, Any]) -> tuple[Tailnet, dict[str, int]]:
    users = tuple(
        User(number, user["email"] or f"{user['name']}@example.com", ROLES.get(user["name"], "member"))
        for number, user in enumerate(case["users"], 1)
    )
    ids = {user["name"]: number for number, user in enumerate(case["users"], 1)}
    nodes: list[Node] = []
    by_name: dict[str, int] = {}
    for number, (name, node) in enumerate(case["nodes"].items(), 1):
        by_name[name] = number
        captured = (case["captures"].get(name) or {}).get("self") or {}
        nodes.append(
            Node(
                number,
                ids.get(node.get("user") or ""),
                tuple(node["tags"] or ()),
                node["ipv4"],
                node["ipv6"],
                tuple(node["approved_routes"] or ()),
                _created(captured["Created"]) if captured.get("Created") else float("inf"),
            )
        )
    return Tailnet(users, tuple(nodes)), by_name


def _rules(rules: list[Any] | None) -> list[Any]:
    """Filter rules in a form that compares as the captures ask: lists of prefixes and ports sorted, null as empty."""
    plain: list[Any] = []
    for rule in rules or []:
        ports = [(d["IP"], d["Ports"]["First"], d["Ports"]["Last"]) for d in rule.get("DstPorts") or []]
        grants = [
            (sorted(g.get("Dsts") or []), {k: v or [] for k, v in (g.get("CapMap") or {}).items()})
            for g in rule.get("CapGrant") or []
        ]
        plain.append((sorted(rule.get("SrcIPs") or []), sorted(ports), rule.get("IPProto") or [], grants))
    return plain


def _ssh(rules: list[Any] | None) -> list[Any]:
    return [{**rule, "principals": sorted(p["nodeIP"] for p in rule["principals"])} for rule in rules or []]


def _caps(caps: dict[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (caps or {}).items() if name not in FROM_TAILNET}


def _captured(case: dict[str, Any], name: str) -> dict[str, Any]:
    """What the service gave a node, in a form that compares."""
    capture = case["captures"][name]
    own = capture["self"]
    return {
        "packet filter": _rules(capture.get("packet_filter_rules")),
        "ssh rules": _ssh(capture.get("ssh_rules")),
        "self": (sorted(own["AllowedIPs"]), sorted(own.get("PrimaryRoutes") or []), _caps(own["CapMap"])),
        "peers": {
            peer["Name"].partition(".")[0]: (
                sorted(peer["Addresses"]),
                sorted(peer["AllowedIPs"]),
                sorted(peer.get("PrimaryRoutes") or []),
                _caps(peer.get("CapMap")),
            )
            for peer in capture.get("peers") or []
        },
    }


def _compiled(compiled: CompiledPolicy, number: int, names: dict[int, str]) -> dict[str, Any]:
    """What the compiler gives a node, in the same form."""
    own = compiled.own_view(number)
    return {
        "packet filter": _rules([msgspec.to_builtins(rule) for rule in compiled.packet_filter(number)]),
        "ssh rules": _ssh(compiled.ssh_rules(number)),
        "self": (sorted(own.allowed_ips), sorted(own.primary_routes), dict(own.cap_map)),
        "peers": {
            names[peer.node_id]: (
                sorted(peer.addresses),
                sorted(peer.allowed_ips),
                sorted(peer.primary_routes),
                dict(peer.cap_map),
            )
            for peer in compiled.peers(number)
        },
    }


def _said(error: str, case: dict[str, Any]) -> str:
    """The error to look for. Where the capture put another word for a domain, that word is not in the policy."""
    first, space, rest = error.partition(" ")
    if (
        rest.startswith("is not associated with this Tailnet")
        and first.lower() not in json.dumps(case["policy"]).lower()
    ):
        return space + rest
    return error


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_the_compiler_gives_what_the_service_gave(kind: str, case: dict[str, Any]) -> None:
    tailnet, by_name = _tailnet(case)
    text = json.dumps(case["policy"], indent=1, ensure_ascii=False)
    if not case["accepted"]:
        with pytest.raises(PolicyError) as caught:
            check(text, tailnet)
        assert _said(case["error"], case) in str(caught.value)
        return
    compiled = check(text, tailnet)
    if kind in ONLY_ACCEPTANCE:
        return
    names = {number: name for name, number in by_name.items()}
    given = {name: _captured(case, name) for name in case["captures"]}
    stored = {name: _compiled(compiled, by_name[name], names) for name in given}
    # The service approves what the policy approves by itself. Nodes were captured one after the other, so that a few
    # captures are from before such an approval and the rest from after it: a node may have seen either.
    for name, node in case["nodes"].items():
        record = next(n for n in tailnet.nodes if n.id == by_name[name])
        verdicts = {route: compiled.auto_approved(record, route) for route in node["routable_ips"] or []}
        if kind == "routes":
            assert verdicts == {route: route in record.approved for route in verdicts}, f"approval of routes of {name}"
        by_itself = {route for route, approved in verdicts.items() if approved}
        compiled.put(msgspec.structs.replace(record, approved=tuple(sorted({*record.approved, *by_itself}))))
    for name, expected in given.items():
        approved = _compiled(compiled, by_name[name], names)
        for part in expected:
            if stored[name] != expected:
                assert approved[part] == expected[part], f"{part} of {name}"


def test_how_many_there_are_of_each_kind(capsys: pytest.CaptureFixture[str]) -> None:
    counts = Counter(case.values[0] for case in CASES)
    with capsys.disabled():
        print("\npolicy captures:", ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items())))
    assert counts
