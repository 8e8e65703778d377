"""Relays that fail, and home that moves."""

from __future__ import annotations

from buri.testing.nat import EASY, HARD
from buri.testing.simworld import Conversation, World


def test_home_is_the_nearest_relay() -> None:
    world = World(1)
    world.add_relay(1, distance_s=0.080)
    world.add_relay(2, distance_s=0.005)
    world.add_relay(3, distance_s=0.040)
    a = world.add_node("a", world.add_home(EASY))
    world.settle()

    assert a.relays.home == 2
    assert [(s.region, s.connected, s.home) for s in a.relays.status()] == [(2, True, True)]


def test_a_peer_with_another_home_is_reached_there_and_the_connection_closes_when_idle() -> None:
    world = World(2)
    world.add_relay(1, distance_s=0.005)
    world.add_relay(2, distance_s=0.005)
    a, b = world.add_node("a", world.add_home(HARD)), world.add_node("b", world.add_home(HARD))
    world.settle()
    assert a.relays.home == b.relays.home
    away = 2 if b.relays.home == 1 else 1
    # b moves its home by a map in which its present one is gone
    regions = world.derp_map()
    assert regions.regions is not None
    del regions.regions[b.relays.home]
    b.relays.set_derp_map(regions, world.timeline.now)
    b.pump_soon()
    world.settle(2)
    assert b.relays.home == away

    start = world.timeline.now
    talk = Conversation(a, b)
    world.timeline.run(30)
    assert [s.region for s in a.relays.status() if s.connected] == [1, 2]
    assert talk.lost_between(start + 0.5, world.timeline.now - 1) == []
    talk.stop()
    world.timeline.run(100)
    assert [s.region for s in a.relays.status()] == [a.relays.home]


def test_a_lost_relay_is_replaced_and_traffic_goes_on_by_another() -> None:
    world = World(3)
    first = world.add_relay(1, distance_s=0.005)
    world.add_relay(2, distance_s=0.030)
    a, b = world.add_node("a", world.add_home(HARD)), world.add_node("b", world.add_home(HARD))
    world.settle()
    talk = Conversation(a, b)
    world.timeline.run(5)
    start = world.timeline.now
    first.stop()
    world.timeline.run(30)

    assert (a.relays.home, b.relays.home) == (2, 2)
    assert talk.longest_silence_s(start, world.timeline.now - 1) < 10
    assert talk.lost_between(start + 10, world.timeline.now - 1) == []


def test_a_direct_path_does_not_feel_the_loss_of_every_relay() -> None:
    world = World(4)
    world.add_relay(1)
    a, b = world.add_node("a", world.add_home(EASY)), world.add_node("b", world.add_home(EASY))
    world.settle()
    talk = Conversation(a, b)
    world.timeline.run(5)
    start = world.timeline.now
    world.relays[1].stop()
    world.timeline.run(60)

    assert talk.lost_between(start, world.timeline.now - 1) == []


def test_a_relay_that_comes_back_is_connected_to_again() -> None:
    world = World(5)
    relay = world.add_relay(1)
    a, b = world.add_node("a", world.add_home(HARD)), world.add_node("b", world.add_home(HARD))
    world.settle()
    talk = Conversation(a, b)
    world.timeline.run(5)
    relay.stop()
    world.timeline.run(30)
    relay.start()
    world.timeline.run(30)
    start = world.timeline.now
    world.timeline.run(10)

    assert talk.lost_between(start, world.timeline.now - 1) == []
