"""What an administrator of `buri server` does, as real `tailscaled`s see it."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from buri.testing.lab import PRIVATE_SERVER, Host, Lab, wait_until
from buri.testing.ourpeers import BuriServer
from buri.testing.realpeers import Tailscaled, start_derper

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]


def start(lab: Lab, *names: str) -> tuple[BuriServer, list[Tailscaled]]:
    """A server with derper, and public hosts with a daemon each, not yet logged in."""
    host = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    _, derp_map = start_derper(host)
    path = host.directory / "regions.json"
    path.write_text(json.dumps(derp_map))
    url = f"http://{PRIVATE_SERVER}:8080"
    server = BuriServer(host, "--listen=0.0.0.0:8080", f"--url={url}", "--no-relay", f"--derp-map={path}", url=url)
    return server, [Tailscaled(client(lab, host, name, number)) for number, name in enumerate(names, 2)]


def client(lab: Lab, server: Host, name: str, number: int) -> Host:
    host = lab.public_host(name, number=number)
    host.ip("route", "add", f"{PRIVATE_SERVER}/32", "via", server.address)
    return host


def peer_of(node: Tailscaled, name: str) -> dict[str, Any]:
    """What a node's status says of a peer by its DNS name; {} when it has none."""
    for shown in (node.status().get("Peer") or {}).values():
        if shown["DNSName"] == f"{name}.buri.internal.":
            found: dict[str, Any] = shown
            return found
    return {}


def test_expiry_rename_and_deletion_reach_real_nodes(lab: Lab) -> None:
    server, (alice, bob) = start(lab, "alice", "bob")
    key = server.auth_key()
    for node in (alice, bob):
        node.up(server.url, key)
    wait_until("alice to see bob online", lambda: peer_of(alice, "bob").get("Online") is True)
    addresses = bob.address(), bob.address(6)

    server.admin("nodes", "rename", "bob", "printer")
    wait_until("the new name", lambda: peer_of(alice, "printer") != {} and peer_of(alice, "bob") == {})
    assert bob.status()["Self"]["DNSName"] == "printer.buri.internal."

    server.admin("nodes", "expire", "printer")
    wait_until("bob to need a login", lambda: bob.status()["BackendState"] == "NeedsLogin")
    wait_until("alice to see that", lambda: peer_of(alice, "printer").get("Expired") is True)
    server.admin("nodes", "expire", "printer", "--never")
    wait_until("bob to run again without a login", lambda: bob.status()["BackendState"] == "Running")
    wait_until("alice to see that too", lambda: not peer_of(alice, "printer").get("Expired", False))
    assert (bob.address(), bob.address(6)) == addresses

    bob.process.stop()
    wait_until("alice to see bob offline", lambda: peer_of(alice, "printer").get("Online") is False, timeout_s=30)
    bob.start()
    wait_until("alice to see bob back", lambda: peer_of(alice, "printer").get("Online") is True, timeout_s=30)

    server.admin("nodes", "delete", "printer")
    wait_until("alice to forget bob", lambda: peer_of(alice, "printer") == {})
    assert [row["name"] for row in server.nodes()] == ["alice"]


def test_keys_of_every_kind_with_real_nodes(lab: Lab) -> None:
    server, (alice, bob) = start(lab, "alice", "bob")
    single = server.auth_key("--expiration=1h")
    alice.up(server.url, single)
    for wrong, words in ((single, "auth key already used"), ("buri-auth-x-y", "auth key not valid")):
        refused = bob.cli("up", f"--login-server={server.url}", f"--auth-key={wrong}", "--timeout=20s", check=False)
        assert words in refused

    tagged = json.loads(server.admin("preauthkeys", "create", "--tags=tag:ci", "--ephemeral", "--json"))["key"]
    bob.up(server.url, tagged)
    assert bob.status()["Self"]["Tags"] == ["tag:ci"]
    wait_until("alice to see the tag", lambda: peer_of(alice, "bob").get("Tags") == ["tag:ci"])
    bob.cli("logout")
    wait_until("the ephemeral node to be gone", lambda: [row["name"] for row in server.nodes()] == ["alice"])
    wait_until("alice to see that", lambda: peer_of(alice, "bob") == {})


def test_kill_9_of_the_server_loses_nobody_and_alice_keeps_her_address(lab: Lab) -> None:
    server, (alice, bob) = start(lab, "alice", "bob")
    key = server.auth_key()
    alice.up(server.url, key)
    address = alice.address()
    server.process.popen.send_signal(signal.SIGKILL)
    server.process.popen.wait()
    server.start()
    bob.up(server.url, key)
    wait_until("both online", lambda: [row["online"] for row in server.nodes()] == [True, True], timeout_s=40)
    assert peer_of(bob, "alice")["TailscaleIPs"][0] == address
    assert alice.cli("ping", "--c=1", "--until-direct=false", bob.address())

    alice.cli("up", "--force-reauth", f"--login-server={server.url}", f"--auth-key={key}", "--timeout=40s")
    assert alice.address() == address
    assert sorted(row["name"] for row in server.nodes()) == ["alice", "bob"]
