"""`burid` on our own `buri server` with its own relay: what a person sees when all goes well, and when it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from buri.testing.lab import PRIVATE_SERVER, Host, Lab, wait_until
from buri.testing.ourpeers import ENVIRONMENT, PROGRAMS, Burid, BuriServer
from buri.testing.realpeers import direct_line
from buri.testing.traffic import block_udp, send_checked, start_sink

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]


class World(NamedTuple):
    """A server with control and relay, and a home for each node."""

    host: Host
    server: BuriServer
    alice: Burid
    bob: Burid


@pytest.fixture
def world(lab: Lab) -> World:
    host = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    server = BuriServer(host)
    alice = Burid(lab.home_host(lab.home("tokyo", server=host), "alice"))
    bob = Burid(lab.home_host(lab.home("osaka", server=host), "bob"))
    return World(host, server, alice, bob)


def both_ways(one: Burid, other: Burid, size_bytes: int = 1 << 20) -> None:
    """TCP from each to the other, every byte checked."""
    for sender, receiver in ((one, other), (other, one)):
        address = receiver.address()
        sink = start_sink(receiver.host, address, 7000)
        try:
            send_checked(sender.host, address, 7000, size_bytes)
        finally:
            sink.stop()


def await_state(node: Burid, state: str) -> None:
    wait_until(f"{node.host.name} to be {state}", lambda: node.status()["BackendState"] == state)


def why_lost(node: Burid) -> str:
    return node.code("ping", "-c=1", "--timeout=1s", "bob")[1].splitlines()[0].partition("timed out: ")[2]


def relay_connected(node: Burid) -> bool:
    return not any("Relay" in word for word in node.status()["Health"] or [])


def test_by_our_relay_then_direct_and_on_without_the_server(lab: Lab, world: World) -> None:
    key = world.server.auth_key()
    homes = (lab.homes[0], lab.homes[1])
    block_udp(homes, on=True)
    for node in (world.alice, world.bob):
        node.up(world.server.url, key)
    assert "via DERP(" in "\n".join(world.alice.ping(world.bob.address(), until_direct=False, count=3))
    both_ways(world.alice, world.bob)
    block_udp(homes, on=False)
    assert direct_line(world.alice.ping(world.bob.address(), count=20))
    world.server.process.kill()
    both_ways(world.alice, world.bob)
    world.server.start()
    assert direct_line(world.bob.ping(world.alice.address(), count=20))


def test_the_first_ping_after_up_is_answered(world: World) -> None:
    key = world.server.auth_key()
    world.bob.up(world.server.url, key)
    world.alice.up(world.server.url, key)
    assert "pong from bob" in "\n".join(world.alice.ping(world.bob.address(), until_direct=False, count=1))
    for _ in range(3):
        world.alice.process.kill()
        world.alice.start()
        await_state(world.alice, "Running")
        assert "pong from bob" in "\n".join(world.alice.ping("bob", until_direct=False, count=1))


def test_a_ping_that_nobody_answers_says_why(world: World) -> None:
    key = world.server.auth_key()
    for node in (world.alice, world.bob):
        node.up(world.server.url, key)
    assert world.alice.ping("bob", until_direct=False, count=1)
    world.bob.process.kill()
    wait_until("the relay to miss bob", lambda: why_lost(world.alice) == "the peer is not connected to its relay")


def test_pings_through_the_tunnel_are_answered_by_hosts_and_daemons(world: World) -> None:
    key = world.server.auth_key()
    for node in (world.alice, world.bob):
        node.up(world.server.url, key)
    for address in (world.bob.address(), world.bob.address(6)):
        for flag, kind in (("--icmp", "ICMP"), ("--tsmp", "TSMP")):
            code, said = world.alice.code("ping", flag, address)
            assert (code, f"pong from bob ({address}) via {kind} in " in said) == (0, True), said
    world.bob.cli("down")
    code, said = world.alice.code("ping", "--icmp", "-c=1", "--timeout=500ms", "bob")
    assert (code, "timed out: no answer within 0.5 s" in said) == (1, True), said
    assert world.alice.code("ping", "--icmp", "--tsmp", "bob")[0] == 2


def test_a_restart_of_the_server_under_relayed_traffic_is_survived(lab: Lab, world: World) -> None:
    key = world.server.auth_key()
    block_udp((lab.homes[0], lab.homes[1]), on=True)
    for node in (world.alice, world.bob):
        node.up(world.server.url, key)
    both_ways(world.alice, world.bob)
    world.server.process.kill()
    world.server.start()
    wait_until("the relay to be back", lambda: relay_connected(world.alice) and relay_connected(world.bob))
    both_ways(world.alice, world.bob)


def test_two_nodes_of_one_home_use_their_lan_addresses(lab: Lab, world: World) -> None:
    key = world.server.auth_key()
    carol = Burid(lab.home_host(lab.homes[0], "carol"))
    for node in (world.alice, world.bob, carol):
        node.up(world.server.url, key)
    assert "via 192.168.1." in direct_line(world.alice.ping(carol.address(), count=20))
    outside = direct_line(world.bob.ping(world.alice.address(), count=20))
    other = direct_line(world.bob.ping(carol.address(), count=20))
    assert outside.split()[-3] != other.split()[-3], "each has a mapped port of its own"


def test_a_killed_node_comes_back_as_itself(world: World) -> None:
    key = world.server.auth_key()
    for node in (world.alice, world.bob):
        node.up(world.server.url, key)
    before = world.alice.address(), world.alice.status()["Self"]["PublicKey"]
    world.alice.process.kill()
    rules = world.alice.host.run("ip", "rule").stdout
    assert "5287:" in rules, "a kill leaves the rules, and the next start takes them over"
    world.alice.start()
    await_state(world.alice, "Running")
    assert (world.alice.address(), world.alice.status()["Self"]["PublicKey"]) == before
    both_ways(world.alice, world.bob)
    assert world.alice.process.stop() == 0
    assert "528" not in world.alice.host.run("ip", "rule").stdout


def test_down_stops_and_up_goes_on(world: World) -> None:
    key = world.server.auth_key()
    for node in (world.alice, world.bob):
        node.up(world.server.url, key)
    address = world.alice.address()
    world.alice.cli("down")
    await_state(world.alice, "Stopped")
    assert address not in world.alice.host.run("ip", "address").stdout
    world.alice.cli("up", "--timeout=20s")
    both_ways(world.alice, world.bob)


@pytest.mark.parametrize(
    ("flags", "spoil", "words"),
    [
        (("--reusable",), lambda key: key[:-4] + "0000", "auth key"),
        ((), None, "used"),
        (("--reusable", "--expiration=1s"), None, "expired"),
    ],
    ids=["wrong", "used", "expired"],
)
def test_an_auth_key_that_does_not_serve_is_refused_with_a_sentence(
    world: World, flags: tuple[str, ...], spoil: Callable[[str], str] | None, words: str
) -> None:
    key = world.server.auth_key(*(flags or ("--expiration=1h",)))
    if words == "used":
        world.bob.up(world.server.url, key)
    if spoil is not None:
        key = spoil(key)

    def refused() -> bool:
        code, said = world.alice.code("up", f"--login-server={world.server.url}", f"--auth-key={key}", "--timeout=20s")
        if code == 0:  # not expired yet
            world.alice.cli("logout")
            return False
        assert code == 1
        assert words in said.lower()
        assert len(said.strip().splitlines()) == 1
        return True

    wait_until("the key to be refused", refused)
    assert world.alice.status()["BackendState"] == "NeedsLogin"
    assert "100.64." not in world.alice.host.run("ip", "address").stdout


def test_another_address_of_the_host_is_noticed_and_traffic_goes_on(world: World) -> None:
    key = world.server.auth_key()
    for node in (world.alice, world.bob):
        node.up(world.server.url, key)
    assert direct_line(world.alice.ping(world.bob.address(), count=20))
    host = world.alice.host
    move = "ip addr flush dev eth0 && ip addr add 192.168.1.77/24 dev eth0 && ip route add default via 192.168.1.1"
    host.run("sh", "-c", move)
    world.alice.process.expect("The network changed: .*192.168.1.77")
    both_ways(world.alice, world.bob)
    assert direct_line(world.bob.ping(world.alice.address(), count=20))
    assert any("192.168.1.77:" in endpoint for endpoint in world.alice.status()["Self"]["Addrs"])


def test_an_administrator_approves_a_node_by_its_code(world: World) -> None:
    world.server.auth_key()  # makes the user
    words = [*PROGRAMS["buri"], f"--socket={world.alice.socket}", "up", f"--login-server={world.server.url}"]
    up = world.alice.host.start("up", *words, "--timeout=60s", env=ENVIRONMENT)
    code = up.expect(r"/register/(\S+)").group(1)
    assert world.alice.status()["BackendState"] == "NeedsLogin"
    world.server.admin("nodes", "approve", code, "--user=lab")
    up.popen.wait(20)
    assert up.popen.returncode == 0
    await_state(world.alice, "Running")


def test_reauthentication_changes_the_key_and_keeps_the_address(world: World) -> None:
    key = world.server.auth_key()
    for node in (world.alice, world.bob):
        node.up(world.server.url, key)
    address, old = world.alice.address(), world.alice.status()["Self"]["PublicKey"]
    world.alice.up(world.server.url, key, "--force-reauth")
    wait_until("the new key", lambda: world.alice.status()["Self"]["PublicKey"] != old)
    assert world.alice.address() == address
    both_ways(world.alice, world.bob)


def test_logout_and_a_new_login_make_a_new_node(world: World) -> None:
    key = world.server.auth_key()
    for node in (world.alice, world.bob):
        node.up(world.server.url, key)
    world.alice.cli("logout")
    await_state(world.alice, "NeedsLogin")
    assert "100.64." not in world.alice.host.run("ip", "address").stdout
    world.alice.up(world.server.url, key)
    both_ways(world.alice, world.bob)
