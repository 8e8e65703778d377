"""The path manager by hand: what it sends and says, second by second, against a peer that says what it is told."""

from __future__ import annotations

import errno
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buri.core.addresses import AddrPort
from buri.core.keys import DiscoPrivate, NodePrivate
from buri.machine.paths import limits
from buri.machine.paths.manager import PathManager
from buri.machine.paths.values import (
    NeedEndpoints,
    PathChosen,
    PathEvent,
    PeerPathInfo,
    PingDone,
    RelayInUse,
    SendRelay,
    Transmit,
)
from buri.testing.farpeer import FarPeer
from buri.testing.pathstage import FAR, LAN, NEAR, OURS, Stage
from buri.testing.playbook import Playbook
from buri.wire import disco


def test_a_new_peer_is_sent_to_by_its_relay_without_any_traffic_once_that_is_connected() -> None:
    stage = Stage(NEAR, relay_up=False)
    assert stage.path() == PathChosen(stage.peer.key, None, None, False, True, "relay first")
    stage.paths.handle_relay_up(1, stage.now)
    assert stage.path() == PathChosen(stage.peer.key, None, 1, False, True, "the relay is connected")
    stage.paths.handle_relay_down(1, stage.now)
    assert stage.path().relay_region is None
    assert stage.book.sent == []


def test_a_peer_that_comes_while_its_relay_is_connected_has_its_path_at_once() -> None:
    stage = Stage()
    newcomer = FarPeer(stage.rng, stage.disco.public())
    stage.paths.set_peers([stage.peer.info(), newcomer.info(NEAR)], stage.now)

    assert stage.path() == PathChosen(newcomer.key, None, 1, False, True, "relay first")


def test_activity_pings_every_address_and_calls_the_peer_by_relay() -> None:
    stage = Stage(NEAR, LAN)
    stage.active()

    assert [sent.address for sent in stage.udp()] == [NEAR, LAN]
    for sent in stage.udp():
        ping = stage.peer.open(sent)
        assert isinstance(ping, disco.Ping)
        assert ping.node_key == stage.node.public()
    assert stage.relayed() == [disco.CallMeMaybe((OURS,))]
    assert RelayInUse(1) in stage.book.said


def test_the_first_pong_makes_the_path_and_the_heartbeat_keeps_it() -> None:
    stage = Stage(NEAR)
    stage.active()
    stage.answer(NEAR, 0.02)
    path = stage.path()
    assert (path.udp, path.relay_region, path.trusted) == (NEAR, None, True)

    stage.play(20, NEAR)
    assert stage.path() == path
    info = stage.paths.path_info(stage.peer.key, stage.now)
    assert info is not None
    assert (info.address, info.why_relayed) == (NEAR, "")
    assert info.latency_s == pytest.approx(0.03, abs=0.011)


def test_trust_ends_six_and_a_half_seconds_after_the_last_pong_of_an_idle_session() -> None:
    stage = Stage(NEAR)
    stage.paths.handle_disco_udp(stage.peer.ping(), NEAR, stage.now)
    stage.answer(NEAR)
    answered_at = stage.now
    assert stage.path().trusted

    stage.book.advance(limits.TRUST_S - 0.1)
    assert stage.path().trusted
    stage.book.advance(0.2)
    path = stage.path()
    assert (path.udp, path.relay_region, path.trusted) == (NEAR, 1, False)
    assert stage.now - answered_at == pytest.approx(limits.TRUST_S + 0.1)


def test_an_unanswered_heartbeat_brings_the_relay_in_within_five_seconds_and_silence_then_clears_the_address() -> None:
    stage = Stage(NEAR)
    stage.active()
    stage.answer(NEAR, 0.02)
    stage.answer(NEAR, 0.02)
    silent_since = stage.now
    stage.advance(5)
    path = stage.path()
    assert (path.udp, path.relay_region, path.trusted) == (NEAR, 1, False)
    stage.advance(6)
    path = stage.path()
    assert (path.udp, path.relay_region) == (None, 1)
    assert stage.now - silent_since < 12

    stage.book.sent.clear()
    stage.advance(6)
    stage.answer(NEAR, 0.02)
    assert stage.path().udp == NEAR


def test_discovery_pings_an_address_every_five_seconds_at_most() -> None:
    stage = Stage(NEAR)
    stage.advance(60)

    pings = [sent for sent in stage.udp() if sent.address == NEAR]
    assert 10 <= len(pings) <= 13
    assert 10 <= len(stage.relayed()) <= 13


def test_a_session_of_45_idle_seconds_ends_and_leaves_no_timer() -> None:
    stage = Stage(NEAR)
    stage.active()
    stage.book.advance(limits.SESSION_ACTIVE_S + 5)
    stage.book.clear()
    stage.book.advance(600)

    assert stage.book.sent == []
    assert stage.paths.next_timeout() is None


def test_a_lan_address_wins_over_a_public_one_that_answered_first() -> None:
    stage = Stage(NEAR, LAN)
    stage.active()
    sent = stage.udp()
    stage.book.advance(0.010)
    for one in sent:
        stage.paths.handle_disco_udp(stage.peer.pong_to(one, OURS), one.address, stage.now)
        stage.book.drain()

    assert stage.path().udp == LAN


def test_a_call_me_maybe_is_held_until_stun_is_fresh_and_then_sent_at_once() -> None:
    stage = Stage(NEAR, fresh=False)
    stage.active()
    assert stage.said(NeedEndpoints) == [NeedEndpoints()]
    assert stage.relayed() == []

    stage.book.advance(0.3)
    stage.tell_endpoints()
    assert stage.relayed() == [disco.CallMeMaybe((OURS,))]


def test_a_stun_that_never_answers_holds_a_call_me_maybe_for_three_seconds_only() -> None:
    stage = Stage(NEAR)
    stage.book.advance(limits.ENDPOINTS_FRESH_S + 1)
    stage.active()
    assert stage.relayed() == []
    stage.book.advance(limits.ENDPOINTS_WAIT_S + 0.1)

    assert stage.relayed() == [disco.CallMeMaybe((OURS,))]


def test_a_call_me_maybe_waits_for_the_relay() -> None:
    stage = Stage(NEAR, relay_up=False)
    stage.active()
    assert stage.relayed() == []
    stage.book.advance(0.4)
    stage.paths.handle_relay_up(1, stage.now)

    assert stage.relayed() == [disco.CallMeMaybe((OURS,))]


def test_stun_is_asked_for_every_20_to_26_seconds_while_active() -> None:
    stage = Stage(NEAR)
    asked = [stage.now]
    for _ in range(160):
        stage.advance(0.5)
        if stage.said(NeedEndpoints):
            stage.book.said = [event for event in stage.book.said if event != NeedEndpoints()]
            asked.append(stage.now)
            stage.tell_endpoints()

    assert len(asked) == 4
    assert all(19 < later - earlier < 27 for earlier, later in pairwise(asked))


def test_a_peers_call_me_maybe_is_answered_by_pings_to_all_it_lists_whatever_was_pinged_before() -> None:
    stage = Stage(NEAR)
    stage.active()
    stage.book.clear()
    stage.paths.handle_disco_relay(stage.peer.seal(disco.CallMeMaybe((NEAR, FAR))), 1, stage.peer.key, stage.now)

    assert [sent.address for sent in stage.udp()] == [NEAR, FAR]


def test_a_call_me_maybe_is_answered_by_pings_also_when_a_path_is_trusted() -> None:
    stage = Stage(NEAR)
    stage.active()
    stage.play(1, NEAR)
    stage.book.clear()
    stage.paths.handle_disco_relay(stage.peer.seal(disco.CallMeMaybe((FAR,))), 1, stage.peer.key, stage.now)

    assert [sent.address for sent in stage.udp()] == [FAR]


def test_a_call_me_maybe_by_udp_is_not_heeded() -> None:
    stage = Stage(NEAR)
    stage.paths.handle_disco_udp(stage.peer.seal(disco.CallMeMaybe((FAR,))), NEAR, stage.now)

    assert stage.udp() == []
    assert stage.count("call_me_maybe_by_udp") == 1


def test_a_flood_of_call_me_maybes_makes_few_pings() -> None:
    stage = Stage(NEAR)
    victims = tuple(AddrPort.parse(f"203.0.113.{n}:53") for n in range(1, 101))
    for _ in range(100):
        stage.paths.handle_disco_relay(stage.peer.seal(disco.CallMeMaybe(victims)), 1, stage.peer.key, stage.now)

    assert len(stage.udp()) <= 4 * 100
    assert stage.count("call_me_maybe_over_limit") == 96


def test_a_ping_is_answered_where_it_came_from_and_its_source_is_pinged_back_once() -> None:
    stage = Stage()
    stage.paths.handle_disco_udp(stage.peer.ping(), FAR, stage.now)
    pong, back = stage.udp()

    message = stage.peer.open(pong)
    assert isinstance(message, disco.Pong)
    assert (pong.address, message.source) == (FAR, FAR)
    assert isinstance(stage.peer.open(back), disco.Ping)
    stage.book.clear()
    stage.paths.handle_disco_udp(stage.peer.ping(), FAR, stage.now)
    assert [type(stage.peer.open(sent)) for sent in stage.udp()] == [disco.Pong]


def test_a_ping_by_relay_is_answered_by_that_relay() -> None:
    stage = Stage(NEAR)
    stage.paths.handle_disco_relay(stage.peer.ping(), 7, stage.peer.key, stage.now)
    stage.book.drain()

    (sent,) = stage.book.sent
    assert isinstance(sent, SendRelay)
    assert (sent.region, sent.key) == (7, stage.peer.key)
    pong = stage.peer.open(sent)
    assert isinstance(pong, disco.Pong)
    assert pong.source == AddrPort.parse("127.3.3.40:7")


def test_a_flood_of_pings_is_answered_at_a_bounded_rate() -> None:
    stage = Stage()
    for _ in range(5000):
        stage.paths.handle_disco_udp(stage.peer.ping(), FAR, stage.now)

    assert len(stage.udp()) <= limits.PINGS_ANSWERED[1] + 1
    assert stage.count("ping_over_limit") == 5000 - limits.PINGS_ANSWERED[1]


def test_strangers_garbage_and_late_answers_change_nothing() -> None:
    stage = Stage(NEAR)
    stranger = FarPeer(stage.rng, stage.disco.public())
    other = FarPeer(stage.rng, stage.disco.public())
    good = stage.peer.ping()
    stage.book.clear()

    stage.paths.handle_disco_udp(b"", FAR, stage.now)
    stage.paths.handle_disco_udp(disco.MAGIC + bytes(10), FAR, stage.now)
    stage.paths.handle_disco_udp(stranger.ping(), FAR, stage.now)
    stage.paths.handle_disco_udp(good[:-1] + bytes([good[-1] ^ 1]), FAR, stage.now)
    stage.paths.handle_disco_udp(good[:70], FAR, stage.now)
    stage.paths.handle_disco_udp(stage.peer.seal(disco.Ping(bytes(12), other.key)), FAR, stage.now)
    stage.paths.handle_disco_udp(stage.peer.seal(disco.Pong(bytes(12), OURS)), FAR, stage.now)
    stage.paths.handle_disco_relay(good, 1, stranger.key, stage.now)
    stage.book.drain()

    assert stage.book.sent == []
    assert stage.book.said == []
    assert stage.paths.counters == {
        "disco_bad": 4,
        "disco_unknown_key": 1,
        "disco_sender_mismatch": 2,
        "pong_unexpected": 1,
    }


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1), st.binary(max_size=120)), max_size=30))
def test_a_peer_may_put_anything_at_all_into_its_boxes(said: list[tuple[int, int, bytes]]) -> None:
    stage = Stage(NEAR)
    stage.active()
    for kind, version, body in said:
        data = stage.peer.seal_bytes(bytes((kind, version)) + body)
        stage.paths.handle_disco_udp(data, FAR, stage.now)
        stage.paths.handle_disco_relay(data, 1, stage.peer.key, stage.now)
        stage.book.advance(0.1)

    assert stage.path().udp is None


def test_a_pong_replayed_from_elsewhere_moves_nothing() -> None:
    stage = Stage(NEAR)
    stage.active()
    (sent,) = stage.udp()
    pong = stage.peer.pong_to(sent, OURS)
    stage.paths.handle_disco_udp(pong, FAR, stage.now)
    stage.paths.handle_disco_udp(pong, FAR, stage.now)

    assert stage.path().udp == NEAR
    assert stage.count("pong_unexpected") == 1


def test_a_send_error_clears_the_address_at_once() -> None:
    stage = Stage(NEAR)
    stage.active()
    stage.answer(NEAR)
    stage.paths.handle_path_fault(stage.peer.key, NEAR, errno.EHOSTUNREACH, stage.now)

    assert (stage.path().udp, stage.path().relay_region) == (None, 1)


def test_a_call_of_a_peer_whose_path_we_trust_tests_that_path_at_once() -> None:
    stage = Stage(NEAR)
    stage.active()
    stage.play(2, NEAR)
    stage.book.clear()
    moved_at = stage.now
    stage.paths.handle_disco_relay(stage.peer.seal(disco.CallMeMaybe((FAR,))), 1, stage.peer.key, stage.now)
    stage.book.advance(0.01)
    assert [sent.address for sent in stage.udp()] == [FAR, NEAR]
    stage.play(limits.HEARTBEAT_DOUBT_S + 0.1, FAR)

    assert stage.path().udp == FAR
    assert stage.now - moved_at < 2


def test_a_changed_network_doubts_the_address_and_looks_again_at_once() -> None:
    stage = Stage(NEAR)
    stage.active()
    stage.answer(NEAR)
    stage.book.clear()
    stage.paths.link_changed(stage.now)

    assert (stage.path().udp, stage.path().relay_region, stage.path().trusted) == (NEAR, 1, False)
    assert NEAR in [sent.address for sent in stage.udp()]
    assert stage.said(NeedEndpoints)


def test_a_timer_ten_seconds_late_is_taken_for_sleep() -> None:
    stage = Stage(NEAR)
    stage.active()
    stage.answer(NEAR)
    stage.book.now += 3600
    stage.book.clear()
    stage.paths.handle_timeout(stage.now)

    assert stage.path().reason == "the network changed"
    assert not stage.path().trusted


def test_a_peer_with_a_new_disco_key_is_found_anew() -> None:
    stage = Stage(NEAR)
    stage.active()
    stage.answer(NEAR)
    again = FarPeer(stage.rng, stage.disco.public())
    stage.book.clear()
    info = PeerPathInfo(stage.peer.key, again.disco_key, (NEAR,), 1)
    stage.paths.set_peers([info], stage.now)
    stage.book.drain()

    assert (stage.path().udp, stage.path().relay_region) == (None, 1)
    assert isinstance(again.open(stage.udp()[0]), disco.Ping)
    stage.paths.handle_disco_udp(stage.peer.ping(), NEAR, stage.now)
    assert stage.count("disco_unknown_key") == 1


def test_a_peer_without_a_disco_key_stays_on_its_relay_and_says_so() -> None:
    stage = Stage()
    mute = PeerPathInfo(stage.peer.key, type(stage.peer.disco_key).zero(), (NEAR,), 1)
    stage.paths.set_peers([mute], stage.now)
    stage.active()
    stage.advance(10)
    request = stage.paths.ping(stage.peer.key, 0, stage.now)

    assert stage.udp() == []
    info = stage.paths.path_info(stage.peer.key, stage.now)
    assert info is not None
    assert info.why_relayed == "the peer cannot look for direct paths"
    assert stage.said(PingDone) == []  # a peer that has just come tells its disco key a little later
    stage.book.advance(5)
    assert stage.said(PingDone) == [
        PingDone(request, stage.peer.key, error="this peer does not answer disco pings", lost=True)
    ]


def test_a_peer_heard_through_another_relay_is_sent_to_there_until_that_says_gone() -> None:
    stage = Stage()
    stage.paths.handle_relay_peer_seen(5, stage.peer.key, stage.now)
    assert stage.path().relay_region == 1
    stage.paths.handle_relay_up(5, stage.now)
    assert stage.path().relay_region == 5
    stage.paths.handle_relay_peer_gone(5, stage.peer.key, stage.now)
    assert stage.path().relay_region == 1
    stage.paths.handle_relay_peer_seen(5, stage.peer.key, stage.now)
    stage.paths.handle_relay_down(5, stage.now)
    assert stage.path().relay_region == 1


def test_a_call_me_maybe_waits_for_a_peer_to_tell_its_relay() -> None:
    stage = Stage()
    stage.paths.set_peers([stage.peer.info(home_region=0)], stage.now)
    stage.active()
    stage.book.clear()
    stage.paths.set_peers([stage.peer.info(home_region=1)], stage.now)

    assert stage.relayed() == [disco.CallMeMaybe((OURS,))]


def test_a_thousand_idle_peers_cost_no_timer_and_one_event_each() -> None:
    rng = Random(2)
    ours = DiscoPrivate.from_entropy(rng.randbytes(32))
    paths = PathManager(rng)
    book: Playbook[Transmit, PathEvent] = Playbook(paths)
    paths.set_self(NodePrivate.from_entropy(rng.randbytes(32)).public(), ours, book.now)
    infos = [
        PeerPathInfo(
            NodePrivate.from_entropy(rng.randbytes(32)).public(),
            DiscoPrivate.from_entropy(rng.randbytes(32)).public(),
            (NEAR,),
            1,
        )
        for _ in range(1000)
    ]
    paths.set_peers(infos, book.now)
    book.drain()
    assert len(book.said) == 1000
    assert paths.next_timeout() is None
    book.clear()
    paths.set_peers(infos, book.now)
    book.drain()

    assert book.said == []


def test_nothing_is_sent_before_there_is_an_identity() -> None:
    rng = Random(3)
    paths = PathManager(rng)
    peer = FarPeer(rng, DiscoPrivate.from_entropy(rng.randbytes(32)).public())
    paths.set_peers([peer.info(NEAR)], 1.0)
    paths.peer_active(peer.key, 1.0)
    paths.handle_disco_udp(peer.ping(), NEAR, 1.0)

    assert paths.poll_transmit() is None
