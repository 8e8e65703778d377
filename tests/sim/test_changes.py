"""What may happen to a path that stands: silence, another address, a NAT's amnesia, sleep, short packets only."""

from __future__ import annotations

from buri.machine.paths.limits import FULL_SIZE_RETRY_S, PING_TIMEOUT_S, TRUST_S
from buri.testing.nat import EASY, HARD, NatModel
from buri.testing.simnode import SimNode
from buri.testing.simworld import Conversation, Home, World


class Pair:
    """Two nodes in two homes that talk directly."""

    def __init__(self, seed: int, one: NatModel = EASY, other: NatModel = EASY) -> None:
        self.world = World(seed)
        self.world.add_relay(1)
        self.world.add_relay(2, distance_s=0.030)
        self.home_a: Home = self.world.add_home(one)
        self.home_b: Home = self.world.add_home(other)
        self.a = self.world.add_node("a", self.home_a)
        self.b = self.world.add_node("b", self.home_b)
        self.world.settle()
        self.talk = Conversation(self.a, self.b, every_s=0.1)

    @property
    def now(self) -> float:
        return self.world.timeline.now

    def wait_direct(self, within_s: float) -> None:
        both = self.world.timeline.run_until(lambda: direct(self.a, self.b) and direct(self.b, self.a), within_s)
        assert both, (self.world, self.a.path_to(self.b), self.b.path_to(self.a))


def test_a_silent_path_yields_to_the_relay_in_its_time_and_comes_back_when_it_heals() -> None:
    pair = Pair(1)
    pair.wait_direct(5)
    pair.world.timeline.run(20)
    start = pair.now
    pair.world.internet.swallow(pair.home_a.nat.address, pair.home_b.nat.address)
    pair.world.timeline.run(20)

    assert not direct(pair.a, pair.b)
    assert pair.a.path_to(pair.b).why_relayed == "the peer was called by its relay, and no ping came through either way"
    assert pair.talk.longest_silence_s(start, pair.now) < TRUST_S + 0.5
    assert pair.talk.lost_between(start + TRUST_S + 0.5, pair.now - 1) == []

    pair.world.internet.heal()
    pair.wait_direct(12)


def test_a_path_that_is_silent_one_way_only_is_left_as_well() -> None:
    pair = Pair(2)
    pair.wait_direct(5)
    start = pair.now
    pair.world.internet.swallow(pair.home_a.nat.address, pair.home_b.nat.address, both_ways=False)
    pair.world.timeline.run(TRUST_S + PING_TIMEOUT_S + 5)

    assert not direct(pair.a, pair.b)
    assert pair.talk.lost_between(start + TRUST_S + 0.5, pair.now - 1) == []


def test_a_route_through_another_relay_is_forgotten_when_we_hang_up_there() -> None:
    pair = Pair(15, HARD, HARD)
    pair.world.timeline.run(5)
    pair.a.relays.use(2, pair.now)
    pair.a.pump_soon()
    pair.world.timeline.run(0.5)
    pair.a.paths.handle_relay_peer_seen(2, pair.b.key, pair.now)
    assert pair.a.path_to(pair.b).relay_region == 2
    pair.talk.stop()
    pair.world.timeline.run(200)

    assert pair.a.path_to(pair.b).relay_region == 1
    start = pair.now
    talk = Conversation(pair.a, pair.b)
    pair.world.timeline.run(5)
    assert talk.lost_between(start, pair.now - 1) == []


def test_a_nat_that_forgets_its_mappings_costs_seconds() -> None:
    pair = Pair(3)
    pair.wait_direct(5)
    start = pair.now
    pair.home_a.nat.forget()
    pair.home_b.nat.forget()
    pair.world.timeline.run(40)

    assert pair.talk.longest_silence_s(start, pair.now - 1) < TRUST_S + 0.5
    pair.wait_direct(1)


def test_mappings_that_expired_while_idle_are_opened_anew() -> None:
    pair = Pair(4, NatModel(timeout_s=30), NatModel(timeout_s=30))
    pair.wait_direct(5)
    pair.talk.stop()
    pair.world.timeline.run(200)
    start = pair.now
    talk = Conversation(pair.a, pair.b, every_s=0.1)
    pair.wait_direct(10)
    pair.world.timeline.run(1)

    assert talk.lost_between(start, pair.now - 0.5) == []


def test_short_mappings_are_kept_open_by_the_heartbeat() -> None:
    pair = Pair(5, NatModel(timeout_s=15), NatModel(timeout_s=15))
    pair.wait_direct(5)
    start = pair.now
    pair.world.timeline.run(120)

    assert pair.talk.lost_between(start, pair.now - 1) == []
    assert direct(pair.a, pair.b)


def test_a_node_that_moves_to_another_home_is_found_there() -> None:
    pair = Pair(6)
    pair.wait_direct(5)
    start = pair.now
    elsewhere = pair.world.add_home(EASY)
    pair.b.host.unplug()
    pair.b.host.plug(elsewhere.network, elsewhere.next_address())
    pair.b.link_changed()
    pair.wait_direct(10)
    pair.world.timeline.run(5)

    address = pair.a.path_to(pair.b).address
    assert address is not None
    assert address.address == elsewhere.nat.address
    assert pair.talk.longest_silence_s(start, pair.now - 1) < TRUST_S + 1


def test_a_provider_that_changes_the_public_address_is_noticed_without_a_link_event() -> None:
    pair = Pair(7)
    pair.wait_direct(5)
    start = pair.now
    pair.home_b.nat.move(pair.world.public_address())
    pair.world.timeline.run(40)

    address = pair.a.path_to(pair.b).address
    assert address is not None
    assert address.address == pair.home_b.nat.address
    assert pair.talk.longest_silence_s(start, pair.now - 1) < TRUST_S + 0.5


def test_a_machine_that_slept_for_an_hour_talks_again_at_once() -> None:
    pair = Pair(8)
    pair.wait_direct(5)
    pair.talk.stop()
    pair.b.sleep()
    pair.world.timeline.run(3600)
    pair.b.wake_up()
    start = pair.now
    talk = Conversation(pair.b, pair.a, every_s=0.1)
    pair.wait_direct(15)

    assert talk.longest_silence_s(start, pair.now) < 6


def test_a_clock_that_jumps_under_both_ends_is_only_a_doubt() -> None:
    pair = Pair(9)
    pair.wait_direct(5)
    pair.world.timeline.jump(7200)
    start = pair.now
    pair.wait_direct(10)
    pair.world.timeline.run(1)

    assert pair.talk.longest_silence_s(start, pair.now - 0.5) < 3


def test_when_control_is_down_paths_go_on_and_a_lost_one_is_found_again() -> None:
    pair = Pair(10)
    pair.wait_direct(5)
    pair.world.control_up = False
    pair.home_a.nat.forget()
    start = pair.now
    pair.world.timeline.run(60)

    assert direct(pair.a, pair.b)
    assert pair.talk.longest_silence_s(start, pair.now - 1) < TRUST_S + 0.5


def test_a_path_that_eats_long_packets_loses_df_and_gso_within_seconds() -> None:
    pair = Pair(11)
    pair.talk.stop()
    pair.world.internet.mtu = 1300
    talk = Conversation(pair.a, pair.b, every_s=0.1, size_bytes=1240)
    start = pair.now
    pair.world.timeline.run(20)

    said = pair.a.paths_said[-1][1]
    assert direct(pair.a, pair.b)
    assert (said.trusted, said.gso) == (True, False)
    assert talk.longest_silence_s(start, pair.now - 1) < 5


def test_a_path_that_eats_fragments_too_is_left_for_the_relay() -> None:
    pair = Pair(12)
    pair.talk.stop()
    pair.world.internet.mtu = 1300
    pair.world.internet.drop_fragments = True
    talk = Conversation(pair.a, pair.b, every_s=0.1, size_bytes=1240)
    start = pair.now
    pair.world.timeline.run(20)

    assert not direct(pair.a, pair.b)
    assert pair.a.path_to(pair.b).why_relayed == "full-size packets do not pass by the direct address"
    assert talk.longest_silence_s(start, pair.now - 1) < 6
    left = pair.now
    pair.world.timeline.run(200)
    assert talk.longest_silence_s(left, pair.now - 1) < 0.5
    pair.world.internet.mtu = 1500
    pair.wait_direct(10)


def test_a_path_that_grows_narrow_while_used_loses_df_and_gso_in_five_seconds_and_gets_them_back() -> None:
    pair = Pair(16)
    pair.talk.stop()
    pair.wait_direct(5)
    talk = Conversation(pair.a, pair.b, every_s=0.1, size_bytes=1240)
    pair.world.timeline.run(7.3)
    assert whole(pair.a)
    start = pair.now
    pair.world.internet.mtu = 1300
    pair.world.timeline.run(20)
    assert direct(pair.a, pair.b)
    assert not whole(pair.a)
    assert talk.longest_silence_s(start, pair.now - 1) < 5

    pair.world.internet.mtu = 1500
    pair.world.timeline.run(FULL_SIZE_RETRY_S + 5)
    assert whole(pair.a)
    assert whole(pair.b)


def test_a_path_that_grows_narrow_and_eats_fragments_is_left_for_the_relay_while_used() -> None:
    pair = Pair(17)
    pair.talk.stop()
    pair.wait_direct(5)
    talk = Conversation(pair.a, pair.b, every_s=0.1, size_bytes=1240)
    pair.world.timeline.run(7.9)
    start = pair.now
    pair.world.internet.mtu = 1300
    pair.world.internet.drop_fragments = True
    pair.world.timeline.run(20)
    assert not direct(pair.a, pair.b)
    assert talk.longest_silence_s(start, pair.now - 1) < 7

    pair.world.internet.drop_fragments = False
    pair.wait_direct(10)
    assert not whole(pair.a)


def test_nodes_that_do_not_know_each_others_make_leave_a_path_that_eats_long_packets_and_come_back() -> None:
    pair = Pair(20)
    pair.a.make_known = pair.b.make_known = False
    pair.talk.stop()
    pair.world.internet.mtu = 1300
    pair.world.internet.drop_fragments = True
    talk = Conversation(pair.a, pair.b, every_s=0.1, size_bytes=1240)
    pair.world.timeline.run(20)
    assert not direct(pair.a, pair.b)
    start = pair.now
    pair.world.timeline.run(60)
    assert talk.longest_silence_s(start, pair.now - 1) < 0.5

    pair.world.internet.drop_fragments = False
    pair.wait_direct(15)
    pair.world.internet.mtu = 1500
    pair.world.timeline.run(FULL_SIZE_RETRY_S + 5)
    assert whole(pair.a)
    assert whole(pair.b)


def test_without_a_relay_a_path_that_carries_only_small_packets_is_better_than_none() -> None:
    pair = Pair(18)
    pair.wait_direct(5)
    for relay in pair.world.relays.values():
        relay.stop()
    pair.world.internet.mtu = 1300
    pair.world.internet.drop_fragments = True
    pair.world.timeline.run(20)
    start = pair.now
    pair.world.timeline.run(20)

    assert direct(pair.a, pair.b)
    assert pair.talk.longest_silence_s(start, pair.now - 1) < 0.5


def test_a_network_that_loses_and_reorders_keeps_the_path_whole() -> None:
    pair = Pair(19)
    pair.world.internet.loss = 0.02
    pair.world.internet.jitter_s = 0.03
    pair.wait_direct(5)
    start, said = pair.now, len(pair.a.paths_said)
    pair.world.timeline.run(300)

    assert direct(pair.a, pair.b)
    assert all(path.gso for _, path in pair.a.paths_said)
    assert len(pair.a.paths_said) - said < 10
    assert pair.talk.longest_silence_s(start, pair.now - 1) < 1
    assert len(pair.talk.lost_between(start, pair.now - 1)) < 0.08 * len(pair.talk.sent)


def test_a_path_of_ordinary_size_keeps_df_and_gso() -> None:
    pair = Pair(13)
    pair.wait_direct(5)
    pair.world.timeline.run(30)

    assert all(path.gso for _, path in pair.a.paths_said)


def test_blocked_udp_stays_on_the_relay_and_home_is_chosen_by_https() -> None:
    world = World(14)
    world.add_relay(1, distance_s=0.050)
    world.add_relay(2, distance_s=0.005)
    a = world.add_node("a", world.add_home(EASY))
    b = world.add_node("b", world.add_home(HARD))
    a.host.udp_blocked = True
    world.settle(8)
    start = world.timeline.now
    talk = Conversation(a, b)
    world.timeline.run(20)

    assert a.relays.home == 2
    assert a.netcheck.last_report is not None
    assert a.netcheck.last_report.udp is False
    assert talk.lost_between(start, world.timeline.now - 1) == []


def direct(one: SimNode, other: SimNode) -> bool:
    return one.path_to(other).address is not None


def whole(node: SimNode) -> bool:
    """Whether its only peer is sent full-size packets with DF."""
    return node.paths_said[-1][1].gso
