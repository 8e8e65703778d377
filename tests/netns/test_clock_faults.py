"""Machine clocks that are years off: one sentence to the person, and the traffic goes on."""

from __future__ import annotations

import os
import time

import pytest

from buri.testing import shiftedclock
from buri.testing.lab import PRIVATE_SERVER, Lab, wait_until
from buri.testing.ourpeers import ENVIRONMENT, Burid, BuriServer
from buri.testing.realpeers import direct_line
from buri.testing.traffic import Talk

NO_SHIM = shiftedclock.why_not()
pytestmark = [
    pytest.mark.root,
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.skipif(NO_SHIM is not None, reason=str(NO_SHIM)),
]

URL = f"http://{PRIVATE_SERVER}:8080"


def restart(node: Burid, years: float) -> None:
    """Kill a node, as a power cut does, and start it with its clock `years` ahead (behind: negative)."""
    node.process.kill()
    ago_s = float(node.environment.get("SHIFT_S", "0"))
    for (
        file
    ) in node.state.iterdir():  # the kernel, which the shim leaves be, would have stamped them by the machine's clock
        os.utime(file, (time.time() + ago_s,) * 2)
    node.environment = {**ENVIRONMENT, **shiftedclock.shifted(node.host.directory, years)}
    node.start()


def reaches(source: Burid, address: str) -> bool:
    return source.host.run("ping", "-c1", "-W1", address, check=False).returncode == 0


def test_a_node_whose_clock_is_years_off_is_told_so_and_stays_in_the_tailnet(lab: Lab) -> None:
    server = BuriServer(lab.public_host("server", number=1, private=PRIVATE_SERVER))
    alice, bob = (Burid(lab.home_host(lab.home(f"{name}-home", server=server.host), name)) for name in ("alice", "bob"))
    key = server.auth_key()
    alice.up(URL, key)
    bob.up(URL, key)
    addresses = {node: node.address() for node in (alice, bob)}
    assert direct_line(alice.ping(addresses[bob]))
    # Behind first: bob remembers when alice's last handshake was, and takes none that is older. Then the other way, and back.
    for years in (-10, 14, 0):
        restart(alice, years)
        wait_until("Running", lambda: alice.status()["BackendState"] == "Running", timeout_s=30)
        wait_until(f"alice to reach bob {years} years off", lambda: reaches(alice, addresses[bob]), timeout_s=30)
        assert reaches(bob, addresses[alice])
        wait_until("the word on the clock", lambda y=years: told(alice) == bool(y))  # type: ignore[misc]
        assert alice.address() == addresses[alice]
    assert {node["name"] for node in server.nodes()} == {"alice", "bob"}


def told(node: Burid) -> bool:
    return any(text.startswith("This machine's clock says") for text in node.status()["Health"] or [])


def test_a_new_node_whose_clock_is_years_off_joins(lab: Lab) -> None:
    server = BuriServer(lab.public_host("server", number=1, private=PRIVATE_SERVER))
    bob = Burid(lab.home_host(lab.home("bob-home", server=server.host), "bob"))
    bob.up(URL, server.auth_key())
    for name, years in (("past", -30), ("future", 30)):
        node = Burid(lab.home_host(lab.home(f"{name}-home", server=server.host), name), start=False)
        node.environment |= shiftedclock.shifted(node.host.directory, years)
        node.start()
        node.up(URL, server.auth_key())
        assert direct_line(node.ping(bob.address()))
        assert told(node)


def test_a_server_whose_clock_is_years_off_says_so_and_all_is_well_once_it_is_set(lab: Lab) -> None:
    server = BuriServer(lab.public_host("server", number=1, private=PRIVATE_SERVER))
    alice, bob = (Burid(lab.home_host(lab.home(f"{name}-home", server=server.host), name)) for name in ("alice", "bob"))
    key = server.auth_key()
    alice.up(URL, key)
    bob.up(URL, key)
    addresses = {node["name"]: node["addresses"] for node in server.nodes()}
    assert direct_line(alice.ping(bob.address()))

    def start(years: float) -> None:
        server.process.kill()
        server.environment = {**ENVIRONMENT, **shiftedclock.shifted(server.host.directory, years)}
        server.start()

    with Talk(alice.host, bob.host, addresses["bob"][0], 7001) as talk:
        start(-10)  # a board without a battery, before its first NTP answer
        server.process.expect("clock says .* but its database knows of", start=0)
        wait_until("both back", lambda: all(node["online"] for node in server.nodes()), timeout_s=60)
        talk.goes_on()
        start(0)
        wait_until("both back", lambda: all(node["online"] for node in server.nodes()), timeout_s=60)
        talk.goes_on()
    start(14)  # every key is past its end by this clock: nobody can tell that it is wrong
    wait_until("the end of alice's key", lambda: alice.status()["BackendState"] == "NeedsLogin", timeout_s=60)
    start(0)  # and nobody has to log in again
    for node in (alice, bob):
        wait_until("Running again", lambda n=node: n.status()["BackendState"] == "Running", timeout_s=60)  # type: ignore[misc]
    assert direct_line(alice.ping(addresses["bob"][0]))
    assert {node["name"]: node["addresses"] for node in server.nodes()} == addresses
