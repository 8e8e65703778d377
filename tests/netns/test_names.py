"""MagicDNS on a machine with a plain /etc/resolv.conf: names are found by every program, and the person's file comes back."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from buri.testing.lab import PRIVATE_SERVER, Host, Lab, wait_until
from buri.testing.ourpeers import ENVIRONMENT, PROGRAMS, Burid, BuriServer

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

OWN_FILE = "# mine\nnameserver 10.77.0.1\noptions timeout:1 attempts:1\n"


class World(NamedTuple):
    server: BuriServer
    alice: Burid
    bob: Burid


@pytest.fixture
def world(lab: Lab) -> World:
    host = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    server = BuriServer(host)
    alice = Burid(lab.home_host(lab.home("tokyo", server=host), "alice"))
    bob = Burid(lab.home_host(lab.home("osaka", server=host), "bob"))
    return World(server, alice, bob)


def own_file(host: Host) -> str:
    return host.run("cat", "/etc/resolv.conf").stdout


def put_own_file(host: Host) -> None:
    host.run("sh", "-c", f"printf '{OWN_FILE}' > /etc/resolv.conf".replace("\n", "\\n"))


def found(host: Host, name: str, family: str = "ahostsv4") -> str:
    """The first address getent gives, "" for none."""
    done = host.run("getent", family, name, check=False)
    return done.stdout.split()[0] if done.returncode == 0 and done.stdout.split() else ""


def test_names_are_found_and_the_own_file_comes_back(world: World) -> None:
    put_own_file(world.alice.host)
    key = world.server.auth_key()
    for node in (world.bob, world.alice):
        node.up(world.server.url, key)
    address = world.bob.address()
    wait_until("bob's name", lambda: found(world.alice.host, "bob") == address)
    assert found(world.alice.host, "bob.buri.internal") == address
    assert found(world.alice.host, "BOB.buri.INTERNAL") == address
    assert found(world.alice.host, "bob", "ahostsv6").startswith("fd7a:115c:a1e0:")
    assert found(world.alice.host, "nobody.buri.internal") == ""
    assert world.alice.host.run("getent", "hosts", address).stdout.split()[1] == "bob.buri.internal"
    file = own_file(world.alice.host)
    assert file.startswith("# Written by burid")
    assert "nameserver 100.100.100.100\n" in file
    assert "search buri.internal\n" in file
    assert "options timeout:1 attempts:1\n" in file
    # Nothing is sent from the resolver's address, and nobody on the LAN is answered on it.
    assert (
        world.alice.host.run("ip", "route", "get", address).stdout.split("src ")[1].split()[0] == world.alice.address()
    )

    world.server.admin("nodes", "rename", "bob", "robert")
    wait_until("the new name", lambda: found(world.alice.host, "robert") == address)

    world.alice.process.kill()
    assert own_file(world.alice.host).startswith("# Written by burid")
    world.alice.start()
    wait_until("the name after a crash", lambda: found(world.alice.host, "robert") == address)
    world.alice.cli("down")
    wait_until("the own file", lambda: own_file(world.alice.host) == OWN_FILE)
    world.alice.cli("up")
    wait_until("the name again", lambda: found(world.alice.host, "robert") == address)

    world.alice.cli("set", "--accept-dns=false")
    wait_until("the own file", lambda: own_file(world.alice.host) == OWN_FILE)
    world.alice.cli("set", "--accept-dns")
    wait_until("the name once more", lambda: found(world.alice.host, "robert") == address)
    world.alice.process.kill()
    world.alice.host.run(*PROGRAMS["burid"], "--cleanup", env=ENVIRONMENT)
    assert own_file(world.alice.host) == OWN_FILE
    assert not Path("/etc/resolv.conf.before-buri").exists()


def test_while_another_interface_has_the_service_address_the_resolver_is_elsewhere(world: World) -> None:
    put_own_file(world.alice.host)
    world.alice.host.ip("link", "add", "other0", "type", "veth", "peer", "name", "other1")
    world.alice.host.ip("addr", "add", "100.100.100.100/32", "dev", "other0")
    key = world.server.auth_key()
    for node in (world.bob, world.alice):
        node.up(world.server.url, key)
    wait_until("bob's name", lambda: found(world.alice.host, "bob") == world.bob.address())
    assert "nameserver 127.100.100.100\n" in own_file(world.alice.host)
    assert "100.100.100.100" not in world.alice.host.run("ip", "addr", "show", "dev", "buri0").stdout
    world.alice.host.ip("link", "del", "other0")
    wait_until("the usual address", lambda: "nameserver 100.100.100.100\n" in own_file(world.alice.host))
    assert found(world.alice.host, "bob") == world.bob.address()
