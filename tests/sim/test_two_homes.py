"""Two nodes in two homes: relay first, direct as soon as the NATs allow, and words for why not."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address

import pytest

from buri.core.addresses import AddrPort
from buri.testing.nat import EASY, FULL_CONE, HARD, Dependence, NatModel
from buri.testing.simnode import SimNode
from buri.testing.simworld import Conversation, World

ADDRESS_FILTER = NatModel(filtering=Dependence.ADDRESS)


def test_easy_nats_go_by_relay_first_and_direct_within_seconds_without_losing_a_packet() -> None:
    world, a, b = two_homes(1, EASY, EASY)
    start = world.timeline.now

    talk = Conversation(a, b)
    assert world.timeline.run_until(lambda: bool(talk.answered()), within_s=1), world
    assert [(path.udp, path.relay_region) for at, path in a.paths_said if at <= start][-1] == (None, 1)
    assert world.timeline.run_until(lambda: direct(a, b) and direct(b, a), within_s=2), world
    forwarded = world.relays[1].forwarded
    world.timeline.run(60)
    talk.stop()
    world.timeline.run(1)

    assert talk.lost_between(start, world.timeline.now) == []
    assert world.relays[1].forwarded - forwarded < 10
    assert a.path_to(b).why_relayed == ""
    assert a.path_to(b).latency_s == pytest.approx(0.04, abs=0.02)


@pytest.mark.parametrize("easy", [FULL_CONE, ADDRESS_FILTER])
def test_a_hard_nat_reaches_an_easy_one_that_filters_by_address_at_most(easy: NatModel) -> None:
    world, a, b = two_homes(2, easy, HARD)
    Conversation(a, b)
    assert world.timeline.run_until(lambda: direct(a, b) and direct(b, a), within_s=10), world
    assert b.netcheck.last_report is not None
    assert b.netcheck.last_report.hard_nat is True
    assert a.netcheck.last_report is not None
    assert a.netcheck.last_report.hard_nat is False


def test_two_hard_nats_stay_on_the_relay_and_say_why() -> None:
    world, a, b = two_homes(3, HARD, HARD)
    start = world.timeline.now
    talk = Conversation(a, b)
    world.timeline.run(60)
    talk.stop()
    world.timeline.run(1)

    assert talk.lost_between(start, world.timeline.now) == []
    assert not direct(a, b)
    assert a.path_to(b).relay_region == 1
    assert a.path_to(b).why_relayed == "both sides are behind a NAT that changes ports by destination"
    assert {path.udp for _, path in a.paths_said} == {None}


def test_a_session_that_never_goes_direct_costs_few_datagrams() -> None:
    world, a, b = two_homes(4, HARD, HARD)
    talk = Conversation(a, b, every_s=1.0)
    world.timeline.run(10)
    before = a.host.sent
    world.timeline.run(60)
    talk.stop()

    assert (a.host.sent - before) / 60 < 4


def test_an_idle_pair_sends_nothing_after_its_session_ended() -> None:
    world, a, b = two_homes(5, EASY, EASY)
    talk = Conversation(a, b)
    world.timeline.run(10)
    talk.stop()
    world.timeline.run(60)
    before = a.host.sent + b.host.sent
    world.timeline.run(200)

    assert a.host.sent + b.host.sent == before
    assert a.path_to(b).why_relayed == "idle"


def test_two_nodes_on_one_lan_use_its_addresses_though_their_nat_has_no_hairpin() -> None:
    world = World(seed=6)
    world.add_relay(1)
    home = world.add_home(EASY)
    a, b = world.add_node("a", home), world.add_node("b", home)
    world.settle()
    Conversation(a, b)

    assert world.timeline.run_until(lambda: direct(a, b) and direct(b, a), within_s=2), world
    for one, other in ((a, b), (b, a)):
        address = one.path_to(other).address
        assert address is not None
        assert address.address in IPv4Network("192.168.1.0/24")


def test_a_lan_wins_over_a_hairpin_that_answers_too() -> None:
    world = World(seed=7)
    world.add_relay(1)
    home = world.add_home(NatModel(hairpin=True))
    a, b = world.add_node("a", home), world.add_node("b", home)
    world.settle()
    Conversation(a, b)
    world.timeline.run(70)

    address = a.path_to(b).address
    assert address is not None
    assert address.address in IPv4Network("192.168.1.0/24")


def test_a_node_with_a_public_address_is_reached_from_behind_a_hard_nat() -> None:
    world = World(seed=8)
    world.add_relay(1)
    a, b = world.add_node("a"), world.add_node("b", world.add_home(HARD))
    world.settle()
    Conversation(b, a)

    assert world.timeline.run_until(lambda: direct(a, b) and direct(b, a), within_s=2), world


def test_hard_nats_do_not_matter_to_two_hosts_with_ipv6() -> None:
    world = World(seed=13)
    world.add_relay(1)
    a, b = world.add_node("a", world.add_home(HARD)), world.add_node("b", world.add_home(HARD))
    for number, node in enumerate((a, b), start=1):
        node.host.plug(world.internet, IPv6Address(f"2001:db8::{number}"))
        node.link_changed()
    world.settle()
    Conversation(a, b)

    assert world.timeline.run_until(lambda: direct(a, b) and direct(b, a), within_s=5), world
    assert a.path_to(b).address == AddrPort(IPv6Address("2001:db8::2"), 41641)


def test_two_percent_loss_neither_flaps_nor_stops_a_path() -> None:
    world = World(seed=9, loss=0.02)
    world.add_relay(1)
    a, b = world.add_node("a", world.add_home(EASY)), world.add_node("b", world.add_home(EASY))
    world.settle()
    Conversation(a, b)
    assert world.timeline.run_until(lambda: direct(a, b) and direct(b, a), within_s=10), world
    settled = world.timeline.now
    world.timeline.run(300)

    changes = [path for at, path in a.paths_said if at > settled]
    assert len(changes) < 6, changes
    assert direct(a, b)


def test_a_person_sees_the_relay_answer_first_and_the_address_later() -> None:
    world, a, b = two_homes(10, EASY, EASY)
    first = a.ping(b)
    assert world.timeline.run_until(lambda: bool(a.pings_done), within_s=5), world
    assert world.timeline.run_until(lambda: direct(a, b), within_s=5), world
    second = a.ping(b, size_bytes=1200)
    assert world.timeline.run_until(lambda: len(a.pings_done) == 2, within_s=5), world

    by_relay, by_address = a.pings_done
    assert (by_relay.request, by_relay.region, by_relay.endpoint) == (first, 1, None)
    assert (by_address.request, by_address.region, by_address.endpoint) == (second, 0, a.path_to(b).address)
    assert 0 < by_address.latency_s < by_relay.latency_s


def test_a_ping_to_a_peer_that_is_off_says_so_after_its_time() -> None:
    world, a, b = two_homes(11, EASY, EASY)
    b.sleep()
    a.ping(b)
    world.timeline.run(6)

    assert [(done.error, done.endpoint) for done in a.pings_done] == [("no answer within 5 s", None)]


@pytest.mark.parametrize("seed", range(10))
def test_the_first_ping_of_a_node_that_has_just_come_is_answered(seed: int) -> None:
    world = World(seed)
    world.add_relay(1)
    world.add_relay(2, distance_s=0.030)
    b = world.add_node("b", world.add_home(EASY))
    world.settle()
    a = world.add_node("a", world.add_home(EASY))
    assert world.timeline.run_until(lambda: knows(a, b), within_s=1), world
    assert a.relays.status() == []
    a.ping(b)
    assert world.timeline.run_until(lambda: bool(a.pings_done), within_s=2), world
    assert [done.error for done in a.pings_done] == [""], world


def test_the_first_packet_of_a_node_that_has_just_come_is_carried_as_soon_as_a_relay_is_up() -> None:
    world = World(14)
    world.add_relay(1)
    b = world.add_node("b", world.add_home(HARD))
    world.settle()
    a = world.add_node("a", world.add_home(HARD))
    assert world.timeline.run_until(lambda: knows(a, b), within_s=1), world
    a.send(b, b"first")
    assert world.timeline.run_until(lambda: bool(b.received), within_s=1), world


@pytest.mark.parametrize("seed", range(10))
def test_two_nodes_that_come_at_the_same_time_answer_each_others_first_ping(seed: int) -> None:
    world = World(seed)
    world.add_relay(1)
    a, b = world.add_node("a", world.add_home(EASY)), world.add_node("b", world.add_home(EASY))
    assert world.timeline.run_until(lambda: knows(a, b) and knows(b, a), within_s=1), world
    a.ping(b)
    b.ping(a)
    assert world.timeline.run_until(lambda: bool(a.pings_done and b.pings_done), within_s=3), world
    assert [done.error for done in a.pings_done + b.pings_done] == ["", ""], world


def test_the_same_seed_gives_the_same_run() -> None:
    def run() -> list[tuple[float, str]]:
        world, a, b = two_homes(12, EASY, ADDRESS_FILTER)
        Conversation(a, b)
        world.timeline.run(30)
        return [(at, str(path.udp)) for at, path in a.paths_said + b.paths_said]

    assert run() == run()


def two_homes(seed: int, one: NatModel, other: NatModel) -> tuple[World, SimNode, SimNode]:
    world = World(seed)
    world.add_relay(1)
    world.add_relay(2, distance_s=0.030)
    a, b = world.add_node("a", world.add_home(one)), world.add_node("b", world.add_home(other))
    world.settle()
    return world, a, b


def knows(one: SimNode, other: SimNode) -> bool:
    return one.paths.path_info(other.key, one.world.timeline.now) is not None


def direct(one: SimNode, other: SimNode) -> bool:
    return one.path_to(other).address is not None
