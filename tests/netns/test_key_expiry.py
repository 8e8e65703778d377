"""Keys never lock anyone out: what an administrator does on the server is seen on the node, with no hand on it."""

from __future__ import annotations

import pytest

from buri.testing.lab import PRIVATE_SERVER, Lab, wait_until
from buri.testing.ourpeers import Burid, BuriServer
from buri.testing.traffic import send_checked, start_sink

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]


@pytest.fixture
def server(lab: Lab) -> BuriServer:
    return BuriServer(lab.public_host("server", number=1, private=PRIVATE_SERVER))


def await_state(node: Burid, state: str) -> None:
    wait_until(f"{node.host.name} to be {state}", lambda: node.status()["BackendState"] == state)


def test_an_expired_node_is_back_without_a_login_once_its_key_is_extended(lab: Lab, server: BuriServer) -> None:
    alice = Burid(lab.home_host(lab.home("tokyo", server=server.host), "alice"))
    bob = Burid(lab.home_host(lab.home("osaka", server=server.host), "bob"))
    key = server.auth_key()
    for node in (alice, bob):
        node.up(server.url, key)
    address = alice.address()
    assert "# Key expiry: in 179 days (" in alice.cli("status")

    server.admin("nodes", "expire", "alice")
    await_state(alice, "NeedsLogin")
    alice.process.kill()
    alice.start()
    await_state(alice, "NeedsLogin")
    server.admin("nodes", "expiry", "extend", "alice", "5d")
    await_state(alice, "Running")
    assert alice.address() == address
    sink = start_sink(bob.host, bob.address(), 7000)
    try:
        send_checked(alice.host, bob.address(), 7000, 1 << 20)
    finally:
        sink.stop()
    assert "This machine's key ends within 7 days, in 4 days (" in alice.cli("status")

    server.admin("nodes", "expiry", "disable", "alice")
    wait_until("the word on alice", lambda: "# Key expiry: never" in alice.cli("status"))
    assert "key ends" not in alice.cli("status")
