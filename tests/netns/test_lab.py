"""The lab behaves like the internet it stands for."""

from __future__ import annotations

import pytest

from buri.testing.lab import PRIVATE_SERVER, Lab

pytestmark = [pytest.mark.root, pytest.mark.slow]


def test_two_homes_reach_the_server_but_not_each_other(lab: Lab) -> None:
    server = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    tokyo, osaka = lab.home("tokyo", server=server), lab.home("osaka", server=server, hard=True)
    alice, bob = lab.home_host(tokyo, "alice"), lab.home_host(osaka, "bob")
    for host in (alice, bob):
        host.run("ping", "-c1", "-W2", server.address)
        host.run("ping", "-c1", "-W2", PRIVATE_SERVER)
    assert alice.run("ping", "-c1", "-W1", bob.address, check=False).returncode != 0


def test_what_a_host_writes_to_etc_stays_in_the_lab(lab: Lab) -> None:
    host = lab.public_host("server", number=1)
    host.run("sh", "-c", "echo nameserver 192.0.2.1 > /etc/resolv.conf")
    with open("/etc/resolv.conf") as real:
        assert "192.0.2.1" not in real.read()
