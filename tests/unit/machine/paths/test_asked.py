"""A person's pings: each waits for a way, goes out by every one that opens, and ends once."""

from __future__ import annotations

import pytest

from buri.core.addresses import AddrPort
from buri.core.errors import StateError
from buri.machine.paths.pings import MAX_IN_FLIGHT
from buri.machine.paths.values import (
    PingDone,
    RelayInUse,
    SendRelay,
)
from buri.testing.pathstage import NEAR, OURS, Stage, is_ping


def test_pings_of_a_person_end_once_each_by_answer_by_time_or_with_the_peer() -> None:
    stage = Stage(NEAR)
    answered = stage.paths.ping(stage.peer.key, 0, stage.now)
    stage.book.drain()
    by_relay = next(sent for sent in stage.book.sent if isinstance(sent, SendRelay))
    stage.book.advance(0.1)
    stage.paths.handle_disco_relay(stage.peer.pong_to(by_relay, OURS), 1, stage.peer.key, stage.now)
    stage.answer(NEAR)
    unanswered = stage.paths.ping(stage.peer.key, 0, stage.now)
    stage.book.advance(6)
    orphaned = stage.paths.ping(stage.peer.key, 0, stage.now)
    stage.paths.set_peers([], stage.now)
    stage.book.advance(10)

    ends = {done.request: done for done in stage.said(PingDone) if isinstance(done, PingDone)}
    assert len(stage.said(PingDone)) == 3
    assert ends[answered].region == 1
    assert ends[answered].latency_s == pytest.approx(0.1)
    assert ends[unanswered].error == "no answer within 5 s"
    assert ends[orphaned].error == "the peer is gone from the tailnet"
    with pytest.raises(StateError, match="not a peer"):
        stage.paths.ping(stage.peer.key, 0, stage.now)


def test_a_ping_waits_for_the_relay_and_goes_out_when_that_is_up() -> None:
    stage = Stage(relay_up=False)
    request = stage.paths.ping(stage.peer.key, 0, stage.now)
    stage.book.advance(0.3)
    assert (stage.relayed(), stage.said(PingDone)) == ([], [])
    assert stage.said(RelayInUse) == [RelayInUse(1)]
    stage.paths.handle_relay_up(1, stage.now)
    stage.book.drain()
    sent = [one for one in stage.book.sent if isinstance(one, SendRelay) and is_ping(stage.peer.open(one))]
    assert len(sent) == 1
    stage.book.advance(0.1)
    stage.paths.handle_disco_relay(stage.peer.pong_to(sent[0], OURS), 1, stage.peer.key, stage.now)
    (done,) = stage.said(PingDone)
    assert isinstance(done, PingDone)
    assert (done.request, done.region, done.error) == (request, 1, "")
    assert done.latency_s == pytest.approx(0.1)


def test_a_ping_waits_for_a_peer_that_has_told_neither_relay_nor_address() -> None:
    stage = Stage()
    stage.paths.set_peers([stage.peer.info(home_region=0)], stage.now)
    first = stage.paths.ping(stage.peer.key, 0, stage.now)
    stage.book.advance(4)
    second = stage.paths.ping(stage.peer.key, 0, stage.now)
    stage.book.advance(1)
    assert stage.said(PingDone) == [
        PingDone(first, stage.peer.key, error="the peer has told neither a relay nor an address", lost=True)
    ]
    stage.paths.set_peers([stage.peer.info(NEAR, home_region=0)], stage.now)
    stage.answer(NEAR)
    done = stage.said(PingDone)[-1]
    assert isinstance(done, PingDone)
    assert (done.request, done.endpoint) == (second, NEAR)


def test_a_ping_for_a_region_that_never_connects_says_so_at_its_end_and_not_before() -> None:
    stage = Stage(relay_up=False)
    request = stage.paths.ping(stage.peer.key, 0, stage.now, 2.0)
    stage.book.advance(1.9)
    assert stage.said(PingDone) == []
    stage.book.advance(0.2)
    assert stage.said(PingDone) == [
        PingDone(request, stage.peer.key, error="the peer's relay (region 1) is not connected", lost=True)
    ]


def test_a_ping_to_a_peer_that_comes_to_its_relay_later_is_sent_again() -> None:
    stage = Stage()
    stage.paths.ping(stage.peer.key, 0, stage.now)
    stage.paths.handle_relay_peer_gone(1, stage.peer.key, stage.now)
    stage.book.clear()
    stage.book.advance(0.6)
    assert [is_ping(message) for message in stage.relayed()].count(True) == 1
    stage.book.clear()
    stage.book.advance(2)
    assert [message for message in stage.relayed() if is_ping(message)] == []


def test_a_ping_of_a_given_size_is_that_size_on_the_wire() -> None:
    stage = Stage(NEAR)
    stage.paths.ping(stage.peer.key, 1200, stage.now)

    assert 1200 in [len(sent.data) for sent in stage.udp()]


def test_pings_in_flight_are_bounded() -> None:
    stage = Stage(*[AddrPort.parse(f"203.0.113.{n}:53") for n in range(1, 101)])
    for _ in range(100):
        stage.paths.ping(stage.peer.key, 0, stage.now)
    stage.book.drain()
    peer = stage.paths._peers[stage.peer.key]

    assert len(peer._pings) <= MAX_IN_FLIGHT
