"""`burid` and a real `tailscaled` on `headscale`, a foreign control server, with `derper` between them.

Built by hand and found on PATH, it is the one control server people run today: what its netmaps do otherwise than ours
is in tests/vectors/headscale.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import pytest

from buri.testing.headscale import Headscale, why_no_headscale
from buri.testing.lab import PRIVATE_SERVER, Lab, wait_until
from buri.testing.ourpeers import Burid
from buri.testing.realpeers import Tailscaled, direct_line, start_derper
from buri.testing.traffic import block_udp, send_checked, start_sink

pytestmark = [
    pytest.mark.root,
    pytest.mark.interop,
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.skipif(why_no_headscale() is not None, reason=str(why_no_headscale())),
]

Node = Burid | Tailscaled


class World(NamedTuple):
    """A control server with a relay, our node in one home and the real one in another, both Running."""

    lab: Lab
    control: Headscale
    ours: Burid
    theirs: Tailscaled


@pytest.fixture
def world(lab: Lab) -> World:
    server = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    _, derp_map = start_derper(server)
    control = Headscale(server, PRIVATE_SERVER, derp_map)
    homes = [lab.home(name, server=server) for name in ("tokyo", "osaka")]
    ours, theirs = Burid(lab.home_host(homes[0], "alice")), Tailscaled(lab.home_host(homes[1], "bob"))
    key = control.auth_key()
    ours.up(control.url, key)
    theirs.up(control.url, key)
    return World(lab, control, ours, theirs)


def await_state(node: Node, state: str) -> None:
    wait_until(f"{node.host.name} to be {state}", lambda: node.status()["BackendState"] == state, timeout_s=40)


def peer_of(node: Node, hostname: str) -> dict[str, Any]:
    """What `status` tells of one peer; empty when it is not there."""
    peers = (node.status()["Peer"] or {}).values()
    return next((peer for peer in peers if peer["HostName"] == hostname), {})


def knows(node: Node, names: set[str]) -> bool:
    """Whether these are the names of the node itself and all its peers."""
    status = node.status()
    return {shown["DNSName"] for shown in (status["Self"], *(status["Peer"] or {}).values())} == names


def carry_both_ways(world: World, size_bytes: int = 2 << 20) -> None:
    """TCP from each to the other and by both families, every byte checked."""
    for sender, receiver in ((world.ours, world.theirs), (world.theirs, world.ours)):
        for family, port in ((4, 7000), (6, 7001)):
            address = receiver.address(family)
            sink = start_sink(receiver.host, address, port)
            try:
                send_checked(sender.host, address, port, size_bytes)
            finally:
                sink.stop()


def test_from_relay_to_direct_both_ways_with_every_byte(world: World) -> None:
    homes = (world.lab.homes[0], world.lab.homes[1])
    block_udp(homes, on=True)
    assert "via DERP(lab)" in "\n".join(world.ours.ping(world.theirs.address(), until_direct=False, count=2))
    assert "via DERP(lab)" in "\n".join(world.theirs.ping(world.ours.address(), until_direct=False, count=2))
    carry_both_ways(world)
    block_udp(homes, on=False)
    assert direct_line(world.ours.ping(world.theirs.address(), count=20))
    assert direct_line(world.theirs.ping(world.ours.address(), count=20))
    carry_both_ways(world)
    assert "direct " in world.ours.cli("status")


def test_headscale_goes_and_comes_back_and_nobody_notices(world: World) -> None:
    assert direct_line(world.ours.ping(world.theirs.address(), count=20))
    world.control.process.kill()
    carry_both_ways(world)
    wait_until("bob to be kept", lambda: '"bob' in (world.ours.state / "netmap.json").read_text())
    world.ours.process.kill()
    world.ours.start()
    await_state(world.ours, "Running")
    carry_both_ways(world)
    world.control.start()
    wait_until(
        "both to be back", lambda: all(node.get("online") for node in world.control.nodes().values()), timeout_s=60
    )
    assert world.ours.status()["Self"]["Online"]
    wait_until("alice to see bob online", lambda: peer_of(world.ours, "bob").get("Online") is True, timeout_s=40)
    wait_until("bob to see alice online", lambda: peer_of(world.theirs, "alice").get("Online") is True, timeout_s=40)
    carry_both_ways(world)


def test_one_that_goes_away_is_offline_for_the_other(world: World) -> None:
    world.theirs.process.stop()
    wait_until("bob to be offline", lambda: peer_of(world.ours, "bob").get("Online") is False, timeout_s=60)
    world.theirs.start()
    wait_until("bob to be online", lambda: peer_of(world.ours, "bob").get("Online") is True, timeout_s=60)
    world.ours.process.stop()
    wait_until("alice to be offline", lambda: peer_of(world.theirs, "alice").get("Online") is False, timeout_s=60)
    world.ours.start()
    wait_until("alice to be online", lambda: peer_of(world.theirs, "alice").get("Online") is True, timeout_s=60)
    carry_both_ways(world)


def test_a_rename_reaches_the_node_and_its_peers(world: World) -> None:
    nodes = world.control.nodes()
    world.control.say("nodes", "rename", f"--identifier={nodes['alice']['id']}", "anna")
    world.control.say("nodes", "rename", f"--identifier={nodes['bob']['id']}", "ben")
    for node in (world.ours, world.theirs):
        wait_until(f"{node.host.name} to know both names", partial(knows, node, {"anna.head.test.", "ben.head.test."}))
    assert world.ours.ping("ben", until_direct=False, count=1)
    assert world.theirs.ping("anna", until_direct=False, count=1)


def test_a_node_that_logs_out_is_gone_and_joins_again(world: World) -> None:
    address = world.ours.address()
    world.ours.cli("logout")
    await_state(world.ours, "NeedsLogin")
    assert address not in world.ours.host.run("ip", "address").stdout
    world.ours.up(world.control.url, world.control.auth_key())
    assert direct_line(world.ours.ping(world.theirs.address(), count=20))
    carry_both_ways(world)


def test_a_node_that_the_server_expires_stops_and_a_new_key_lets_it_in(world: World) -> None:
    address = world.ours.address()
    world.control.say("nodes", "expire", f"--identifier={world.control.nodes()['alice']['id']}")
    await_state(world.ours, "NeedsLogin")
    world.ours.up(world.control.url, world.control.auth_key(), "--force-reauth")
    await_state(world.ours, "Running")
    assert world.ours.address() == address, "the same machine keeps its address"
    carry_both_ways(world)


def test_a_node_that_the_server_deletes_says_so_when_it_asks_again_and_joins_with_a_key(world: World) -> None:
    world.control.say("nodes", "delete", f"--identifier={world.control.nodes()['alice']['id']}", "--force")
    world.ours.process.kill()  # headscale does not end a deleted node's stream: the next one it answers with 404
    world.ours.start()
    await_state(world.ours, "NeedsLogin")
    assert "/register/" in world.ours.status()["AuthURL"]
    wait_until("alice to be gone for bob", lambda: not peer_of(world.theirs, "alice"))
    world.ours.up(world.control.url, world.control.auth_key())
    wait_until("alice to see bob again", lambda: bool(peer_of(world.ours, "bob")))
    assert direct_line(world.ours.ping(world.theirs.address(), count=20))
    carry_both_ways(world)


def test_a_peer_that_the_server_expires_is_shown_so_and_gets_nothing(world: World) -> None:
    assert direct_line(world.ours.ping(world.theirs.address(), count=20))
    world.control.say("nodes", "expire", f"--identifier={world.control.nodes()['bob']['id']}")
    wait_until("bob to be expired", lambda: peer_of(world.ours, "bob").get("Expired") is True)


def test_a_peer_that_is_deleted_is_gone(world: World) -> None:
    world.control.say("nodes", "delete", f"--identifier={world.control.nodes()['bob']['id']}", "--force")
    wait_until("bob to be gone", lambda: not peer_of(world.ours, "bob"))


def test_a_spent_key_and_a_key_that_never_was_are_refused_in_one_sentence(lab: Lab) -> None:
    server = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    _, derp_map = start_derper(server)
    control = Headscale(server, PRIVATE_SERVER, derp_map)
    home = lab.home("tokyo", server=server)
    ours = Burid(lab.home_host(home, "alice"))
    once = control.auth_key("--expiration=1h")
    other = Burid(lab.home_host(home, "carol"))
    other.up(control.url, once)
    for key in (once, "hskey-auth-000000000000-" + "0" * 64):
        code, said = ours.code("up", f"--login-server={control.url}", f"--auth-key={key}", "--timeout=20s")
        assert code == 1
        assert len(said.strip().splitlines()) == 1, said
        assert "key" in said
    ours.up(control.url, control.auth_key())
