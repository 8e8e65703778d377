"""Networks as they are: after each fault traffic is back within seconds, and a TCP connection lives on.

The figures are printed (`pytest -s`); what is asserted is that things happen at all, within bounds no busy machine breaks.
"""

from __future__ import annotations

import time

import pytest

from buri.testing.badnetwork import cable, eat_fragments, lose, move, narrow, renumber, reorder
from buri.testing.lab import Lab, wait_until
from buri.testing.ourpeers import Burid, BuriRelay
from buri.testing.talkingpair import RATE, TalkingPair
from buri.testing.traffic import block_udp

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]


@pytest.fixture
def pair(lab: Lab) -> TalkingPair:
    return TalkingPair(lab, (Burid, Burid))


def test_a_network_that_loses_two_percent_stays_direct(pair: TalkingPair) -> None:
    for home in pair.homes:
        lose(home, 1)
    lossy = pair.stream.measure(10)
    print(f"\n2 % loss on the way: {lossy:.0f} Mbit/s")
    pair.stream.expect_flow()
    assert pair.is_direct()
    assert lossy > 1


def test_a_network_that_reorders_is_nearly_as_good_as_one_that_does_not(pair: TalkingPair) -> None:
    before = pair.stream.measure(4)
    for home in pair.homes:
        reorder(home, 5, RATE)
    after = pair.stream.measure(10)
    print(f"\n5 % of packets overtaken: {after:.0f} Mbit/s, in order {before:.0f} Mbit/s")
    assert pair.is_direct()
    assert after > before / 4


@pytest.mark.parametrize("icmp", [True, False], ids=["told by ICMP", "without a word"])
def test_a_path_that_drops_to_mtu_1300_carries_at_least_half_of_the_link(pair: TalkingPair, *, icmp: bool) -> None:
    narrow(pair.lab, pair.homes, 1300, icmp=icmp)
    since = time.time()
    print(pair.back(f"MTU 1300 {'with' if icmp else 'without'} ICMP", since))
    rate = pair.stream.measure(8)
    print(f"MTU 1300: {rate:.0f} Mbit/s")
    assert pair.is_direct()
    assert rate > 30
    narrow(pair.lab, pair.homes, 1500, icmp=True)
    pair.stream.expect_flow()


@pytest.mark.parametrize("icmp", [True, False], ids=["told by ICMP", "without a word"])
def test_an_ipv6_path_that_drops_to_mtu_1300_is_cut_by_the_sender_who_must_be_told(lab: Lab, *, icmp: bool) -> None:
    pair = TalkingPair(lab, (Burid, Burid), ipv6=True)
    block_udp(pair.homes, on=True)  # in IPv4
    wait_until("a direct path by IPv6", lambda: "direct [2001:db8:" in pair.one.cli("status"), timeout_s=40)
    narrow(lab, pair.homes, 1300, icmp=icmp)
    since = time.time()
    print(pair.back(f"IPv6, MTU 1300 {'with' if icmp else 'without'} ICMP", since))
    pair.stream.expect_rate(30)
    status = pair.one.cli("status")
    assert ("direct [2001:db8:" if icmp else 'relay "buri" (full-size packets do not pass') in status


def test_a_path_that_eats_fragments_too_is_left_for_the_relay_and_status_says_why(pair: TalkingPair) -> None:
    eat_fragments(pair.homes[0], on=True)
    since = time.time()
    print(pair.back("long packets eaten, fragments too", since))
    assert "full-size packets do not pass" in pair.one.cli("status")
    eat_fragments(pair.homes[0], on=False)
    since = time.time()
    pair.expect_direct()
    print(pair.back("long packets pass again", since))


def test_a_direct_path_that_is_lost_yields_to_the_relay_and_comes_back(pair: TalkingPair) -> None:
    block_udp(pair.homes, on=True)
    print(pair.back("direct path lost", time.time()))
    assert 'relay "buri"' in pair.one.cli("status")
    since = time.time()
    block_udp(pair.homes, on=False)
    pair.expect_direct()
    print(f"direct again after {time.time() - since:.1f} s")
    pair.stream.expect_flow()


def test_a_node_that_gets_another_address_in_its_network_is_found_there(pair: TalkingPair) -> None:
    renumber(pair.homes[0], pair.one.host, 77)
    print(pair.back("another address on the interface", time.time()))
    pair.expect_direct()


def test_a_node_that_moves_to_another_home_is_found_there(pair: TalkingPair) -> None:
    third = pair.lab.home("kyoto", server=pair.server.host, rate=RATE)
    move(pair.homes[0], third, pair.one.host)
    print(pair.back("moved to another home", time.time()))
    pair.expect_direct()
    assert pair.lab.homes[2].public in pair.other.cli("status")


def test_a_link_that_is_down_for_ten_seconds_carries_again_once_it_is_up(pair: TalkingPair) -> None:
    cable(pair.homes[0], pair.one.host, plugged=False)
    time.sleep(10)  # the fault itself, as the issue words it
    cable(pair.homes[0], pair.one.host, plugged=True)
    print(pair.back("link down for ten seconds", time.time()))
    pair.expect_direct()


def test_a_relay_that_is_killed_carries_again_once_it_is_back(pair: TalkingPair) -> None:
    block_udp(pair.homes, on=True)
    print(pair.back("direct path lost", time.time()))
    pair.server.process.kill()
    pair.server.start()
    print(pair.back("relay back after kill -9", time.time()))


def test_when_the_relay_dies_both_move_to_the_other_one(lab: Lab) -> None:
    relays = {name: BuriRelay(lab.public_host(name, number=number)) for number, name in ((8, "north"), (9, "south"))}
    pair = TalkingPair(lab, (Burid, Burid), hard=True, relays=tuple(relays.values()))
    home = pair.other.status()["Self"]["Relay"]  # by which it is sent to
    pair.stream.expect_flow()
    relays[home].process.kill()
    print(pair.back(f"relay {home} killed, another one there", time.time()))
    assert {node.status()["Self"]["Relay"] for node in (pair.one, pair.other)} == set(relays) - {home}


def test_when_the_relay_s_host_vanishes_without_a_word_both_move_to_the_other_one(lab: Lab) -> None:
    relays = {name: BuriRelay(lab.public_host(name, number=number)) for number, name in ((8, "north"), (9, "south"))}
    pair = TalkingPair(lab, (Burid, Burid), hard=True, relays=tuple(relays.values()))
    home = pair.other.status()["Self"]["Relay"]  # by which it is sent to
    pair.stream.expect_flow()
    lab.core.ip("link", "set", f"p-{home}", "down")
    print(pair.back(f"relay {home} vanished, another one there", time.time()))
