"""Networks as they are: after each fault traffic is back within seconds, and a TCP connection lives on.

The figures are printed (`pytest -s`); what is asserted is that things happen at all, within bounds no busy machine breaks.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

import pytest

from buri.testing.badnetwork import cable, eat_fragments, lose, move, narrow, renumber, reorder, wire
from buri.testing.lab import PRIVATE_SERVER, Home, Lab, wait_until
from buri.testing.longtraffic import Pings, Stream
from buri.testing.ourpeers import Burid, BuriServer
from buri.testing.realpeers import direct_line
from buri.testing.traffic import block_udp

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

RATE = "60mbit"
BACK_S = 15.0  # far above what is seen, and below what would be no recovery at all


@dataclass
class Pair:
    """Two nodes at home, talking directly: a TCP connection and pings are under way."""

    lab: Lab
    server: BuriServer
    homes: tuple[Home, Home]
    alice: Burid
    bob: Burid
    stream: Stream
    pings: Pings

    def back(self, what: str, since: float) -> None:
        """Traffic must come back; the connection too."""
        back_s = self.pings.back_after_s(since)
        self.stream.expect_flow()
        tcp_s = time.time() - since
        print(f"\n{what}: pings back after {back_s:.1f} s, TCP within {tcp_s:.1f} s, ", end="")
        print(f"longest silence {self.pings.longest_silence_s(since):.1f} s, {self.stream.measure(3):.0f} Mbit/s then")
        assert back_s < BACK_S

    def is_direct(self) -> bool:
        return "direct " in self.alice.cli("status")

    def expect_direct(self, timeout_s: float = 40) -> None:
        wait_until("a direct path", self.is_direct, timeout_s=timeout_s)


@pytest.fixture
def pair(lab: Lab) -> Pair:
    host = lab.public_host("server", number=1, private=PRIVATE_SERVER)
    server = BuriServer(host)
    key = server.auth_key()
    homes = (lab.home("tokyo", server=host, rate=RATE), lab.home("osaka", server=host, rate=RATE))
    alice, bob = (Burid(lab.home_host(home, name)) for home, name in zip(homes, ("alice", "bob"), strict=True))
    for node in (alice, bob):
        wire(node.host)
        node.up(server.url, key)
    direct_line(alice.ping(bob.address(), count=20))
    return Pair(
        lab, server, homes, alice, bob, Stream(alice.host, bob.host, bob.address()), Pings(alice.host, bob.address())
    )


def test_a_network_that_loses_two_percent_stays_direct(pair: Pair) -> None:
    for home in pair.homes:
        lose(home, 1)
    lossy = pair.stream.measure(10)
    print(f"\n2 % loss on the way: {lossy:.0f} Mbit/s")
    pair.stream.expect_flow()
    assert pair.is_direct()
    assert lossy > 1


def test_a_network_that_reorders_is_nearly_as_good_as_one_that_does_not(pair: Pair) -> None:
    before = pair.stream.measure(4)
    for home in pair.homes:
        reorder(home, 5, RATE)
    after = pair.stream.measure(10)
    print(f"\n5 % of packets overtaken: {after:.0f} Mbit/s, in order {before:.0f} Mbit/s")
    assert pair.is_direct()
    assert after > before / 4


@pytest.mark.parametrize("icmp", [True, False], ids=["told by ICMP", "without a word"])
def test_a_path_that_drops_to_mtu_1300_carries_at_least_half_of_the_link(pair: Pair, *, icmp: bool) -> None:
    since = time.time()
    narrow(pair.lab, pair.homes, 1300, icmp=icmp)
    pair.back(f"MTU 1300 {'with' if icmp else 'without'} ICMP", since)
    rate = pair.stream.measure(8)
    print(f"MTU 1300: {rate:.0f} Mbit/s")
    assert pair.is_direct()
    assert rate > 30
    narrow(pair.lab, pair.homes, 1500, icmp=True)
    pair.stream.expect_flow()


def test_a_path_that_eats_fragments_too_is_left_for_the_relay_and_status_says_why(pair: Pair) -> None:
    since = time.time()
    eat_fragments(pair.homes[0], on=True)
    pair.back("long packets eaten, fragments too", since)
    assert "full-size packets do not pass" in pair.alice.cli("status")
    since = time.time()
    eat_fragments(pair.homes[0], on=False)
    pair.expect_direct()
    pair.back("long packets pass again", since)


def test_a_direct_path_that_is_lost_yields_to_the_relay_and_comes_back(pair: Pair) -> None:
    block_udp(pair.homes, on=True)
    pair.back("direct path lost", time.time())
    assert re.search(r"relay", pair.alice.cli("status"))
    since = time.time()
    block_udp(pair.homes, on=False)
    pair.expect_direct()
    print(f"direct again after {time.time() - since:.1f} s")
    pair.stream.expect_flow()


def test_a_node_that_gets_another_address_in_its_network_is_found_there(pair: Pair) -> None:
    renumber(pair.homes[0], pair.alice.host, 77)
    pair.back("another address on the interface", time.time())
    pair.expect_direct()


def test_a_node_that_moves_to_another_home_is_found_there(pair: Pair) -> None:
    third = pair.lab.home("kyoto", server=pair.server.host, rate=RATE)
    move(pair.homes[0], third, pair.alice.host)
    pair.back("moved to another home", time.time())
    pair.expect_direct()
    assert pair.lab.homes[2].public in pair.bob.cli("status")


def test_a_link_that_is_down_for_ten_seconds_carries_again_once_it_is_up(pair: Pair) -> None:
    cable(pair.homes[0], pair.alice.host, plugged=False)
    time.sleep(10)  # the fault itself, as the issue words it
    cable(pair.homes[0], pair.alice.host, plugged=True)
    pair.back("link down for ten seconds", time.time())
    pair.expect_direct()


def test_a_relay_that_is_killed_carries_again_once_it_is_back(pair: Pair) -> None:
    block_udp(pair.homes, on=True)
    pair.back("direct path lost", time.time())
    pair.server.process.kill()
    pair.server.start()
    pair.back("relay back after kill -9", time.time())
