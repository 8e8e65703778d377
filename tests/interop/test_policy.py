"""A policy on real wires: `tailscaled` and Buri nodes under `buri server`, what passes and what does not.

Both directions, IPv4 and IPv6, with groups, tags and autogroup:self; and edits that count at once without breaking what
stays allowed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from buri.testing.lab import PRIVATE_SERVER, Lab, wait_until
from buri.testing.nodecommands import NodeCommands
from buri.testing.ourpeers import Burid, BuriServer
from buri.testing.reach import Door, Watch, knock, open_doors
from buri.testing.realpeers import Tailscaled
from buri.testing.traffic import Talk

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.engine, pytest.mark.slow]

PORTS = (7000, 7001, 7002)
DEVS_TO_WEB, OPS_TO_WEB = "tag:web:7000", "tag:web:7001"
Node = Burid | Tailscaled


def policy(*devs: str, ops: tuple[str, ...] = (OPS_TO_WEB,)) -> str:
    """Alice's own nodes reach one another; the developers (she is one) and the operators (Bob) reach what is given."""
    rules = [
        {"action": "accept", "src": ["group:devs"], "dst": ["autogroup:self:7002", *devs]},
        {"action": "accept", "src": ["tag:web"], "dst": ["tag:web:7002"]},
    ]
    if ops:
        rules.append({"action": "accept", "src": ["group:ops"], "dst": list(ops)})
    grants = [{"src": ["group:devs"], "dst": ["tag:web"], "app": {"example.com/cap/board": [{"may": "write"}]}}]
    return json.dumps(
        {
            "grants": grants,
            "groups": {"group:devs": ["alice@"], "group:ops": ["bob@"]},
            "tagOwners": {"tag:web": ["alice@"]},
            "acls": rules,
            "tests": [{"src": "alice@", "deny": ["tag:web:22"]}],
        },
        indent=1,
    )


@dataclass
class Mesh:
    """Alice's Buri node and her real one; a web server of either kind; Bob's real node."""

    lab: Lab
    server: BuriServer
    nodes: dict[str, Node]
    addresses: dict[str, tuple[str, str]] = field(default_factory=dict)

    def set_policy(self, text: str) -> float:
        """Put it in force; when the server said that it is, by CLOCK_MONOTONIC."""
        path = self.server.host.directory / "policy.hujson"
        path.write_text(text)
        self.server.admin("policy", "set", str(path))
        return time.monotonic()

    def doors(self, *names: str) -> list[Door]:
        return [Door(address, port) for name in names for address in self.addresses[name] for port in PORTS]

    def open_from(self, name: str) -> dict[str, set[int]]:
        """What a node gets into, by node; the same by IPv4 and IPv6."""
        others = [other for other in self.nodes if other != name]
        opened = knock(self.nodes[name].host, self.doors(*others))
        found: dict[str, set[int]] = {}
        for other in others:
            by_family = [{door.port for door in opened if door.address == one} for one in self.addresses[other]]
            assert by_family[0] == by_family[1], f"{name} to {other}: by IPv4 {by_family[0]}, by IPv6 {by_family[1]}"
            if by_family[0]:
                found[other] = by_family[0]
        return found


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    with Lab(tmp_path / "lab") as lab:
        host = lab.public_host("server", number=1, private=PRIVATE_SERVER)
        server = BuriServer(host)
        homes = [lab.home(name, server=host) for name in ("tokyo", "osaka", "kobe")]
        nodes: dict[str, Node] = {
            "alice": Burid(lab.home_host(homes[0], "alice")),
            "alice-real": Tailscaled(lab.home_host(homes[1], "alice-real")),
            "web": Burid(lab.home_host(homes[1], "web")),
            "web-real": Tailscaled(lab.home_host(homes[2], "web-real")),
            "bob-real": Tailscaled(lab.home_host(homes[2], "bob-real")),
        }
        keys = {name: server.auth_key(user=name) for name in ("alice", "bob")}
        made = json.loads(server.admin("preauthkeys", "create", "--tags=tag:web", "--reusable", "--json"))
        keys["web"] = made["key"]
        mesh = Mesh(lab, server, nodes)
        for name, node in nodes.items():
            node.up(server.url, keys[name.partition("-")[0]])
            mesh.addresses[name] = (node.address(), node.address(6))
            open_doors(node.host, mesh.addresses[name], PORTS)
        yield mesh


def see(node: NodeCommands) -> set[str]:
    assert isinstance(node, Burid | Tailscaled)
    return {peer["HostName"] for peer in (node.status()["Peer"] or {}).values()}


EVERYTHING = {
    "alice": {"alice-real": {7002}, "web": {7000}, "web-real": {7000}},
    "alice-real": {"alice": {7002}, "web": {7000}, "web-real": {7000}},
    "web": {"web-real": {7002}},
    "web-real": {"web": {7002}},
    "bob-real": {"web": {7001}, "web-real": {7001}},
}


def test_what_the_policy_allows_passes_and_nothing_else(mesh: Mesh) -> None:
    wait_until("all to reach all", lambda: len(mesh.open_from("alice")) == len(mesh.nodes) - 1, timeout_s=40)
    mesh.set_policy(policy(DEVS_TO_WEB))
    wait_until("the web server to be closed to its friends", lambda: mesh.open_from("web") == EVERYTHING["web"])
    assert {name: mesh.open_from(name) for name in mesh.nodes} == EVERYTHING
    for name in ("bob-real", "alice", "web"):
        known = {"bob-real": {"web", "web-real"}, "alice": {"alice-real", "web", "web-real"}}
        assert see(mesh.nodes[name]) == known.get(name, {"alice", "alice-real", "web-real", "bob-real"})
    sentence = mesh.server.admin("policy", "explain", "bob-real", "web:7000", check=False)
    assert "Denied. The nearest is acls[2]" in sentence
    assert "opens other ports" in sentence
    assert "Allowed by acls[2]" in mesh.server.admin("policy", "explain", "bob-real", "web:7001")
    for server in ("web", "web-real"):
        for source, granted in (("alice", {"example.com/cap/board": [{"may": "write"}]}), ("bob-real", {})):
            found = json.loads(mesh.nodes[server].cli("whois", "--json", mesh.addresses[source][0]))
            assert (found["CapMap"] or {}) == granted
    for name in ("alice", "alice-real"):
        mesh.nodes[name].cli("set", "--shields-up=true")
    wait_until("shields to be up", lambda: mesh.open_from("alice") == {"web": {7000}, "web-real": {7000}})
    assert mesh.open_from("alice-real") == {"web": {7000}, "web-real": {7000}}, "out goes what always went"


def test_an_edit_counts_within_a_second_and_breaks_nothing_that_stays(
    mesh: Mesh, capsys: pytest.CaptureFixture[str]
) -> None:
    mesh.set_policy(policy(DEVS_TO_WEB))
    wait_until("the policy to hold", lambda: mesh.open_from("alice") == EVERYTHING["alice"], timeout_s=40)
    figures: list[str] = []
    pairs = [("alice", "web"), ("alice-real", "web-real"), ("alice", "web-real"), ("alice-real", "web")]
    doors = [Watch(mesh.nodes[src].host, Door(mesh.addresses[dst][0], 7001)) for src, dst in pairs]
    allowed = policy(DEVS_TO_WEB, "tag:web:7100")
    mesh.set_policy(allowed)
    with (
        Talk(mesh.nodes["alice"].host, mesh.nodes["web"].host, mesh.addresses["web"][0], 7100) as ours,
        Talk(mesh.nodes["alice-real"].host, mesh.nodes["web-real"].host, mesh.addresses["web-real"][0], 7100) as real,
        doors[0], doors[1], doors[2], doors[3],
    ):  # fmt: skip
        for door in doors:
            door.becomes("shut")
        for _ in range(2):
            before = time.monotonic()
            done = mesh.set_policy(policy(DEVS_TO_WEB, "tag:web:7100", "tag:web:7001", ops=()))
            waits = [door.becomes("open") - done for door in doors]
            figures.append(f"opened {_spread(waits)} after the server's word ({done - before:.2f} s of buri admin)")
            assert max(waits) < 1.0, figures
            done = mesh.set_policy(allowed)
            waits = [door.becomes("shut") - done for door in doors]
            figures.append(f"shut {_spread(waits)} after it")
            assert max(waits) < 1.0, figures
            for talk in (ours, real):
                talk.goes_on()
        assert mesh.open_from("bob-real") == EVERYTHING["bob-real"]
    with capsys.disabled():
        print(
            f"\n{'; '.join(figures)}; {ours.blocks} and {real.blocks} blocks of 16 KiB came back on the streams beside"
        )


def _spread(waits: list[float]) -> str:
    return f"{min(waits) * 1000:.0f} to {max(waits) * 1000:.0f} ms"


def test_a_node_that_changes_hands_changes_sides_at_once(mesh: Mesh) -> None:
    mesh.set_policy(policy(DEVS_TO_WEB, "tag:web:7100"))
    wait_until("the policy to hold", lambda: mesh.open_from("alice") == EVERYTHING["alice"], timeout_s=40)
    with Talk(mesh.nodes["alice"].host, mesh.nodes["web"].host, mesh.addresses["web"][0], 7100) as talk:
        mesh.server.admin("nodes", "tag", "bob-real", "tag:web")
        wait_until("Bob's node to serve", lambda: mesh.open_from("alice").get("bob-real") == {7000})
        assert mesh.open_from("bob-real") == {"web": {7002}, "web-real": {7002}}
        talk.goes_on()
