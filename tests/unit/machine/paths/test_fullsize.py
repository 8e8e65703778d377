"""Whether a path carries full-size packets, and what is done where it does not."""

from __future__ import annotations

import errno

import msgspec

from buri.machine.paths import limits
from buri.machine.paths.fullsize import FULL_PAYLOAD_BYTES
from buri.testing.pathstage import NEAR, OURS, Stage
from buri.wire import disco


def test_a_message_too_long_costs_df_and_gso_and_not_the_path() -> None:
    stage = Stage(NEAR)
    stage.active()
    stage.answer(NEAR)
    stage.paths.handle_path_fault(stage.peer.key, NEAR, errno.EMSGSIZE, stage.now)

    assert (stage.path().udp, stage.path().trusted, stage.path().gso) == (NEAR, True, False)


def test_a_new_path_is_pinged_at_full_size_once_it_stands() -> None:
    stage = Stage(NEAR)
    stage.active()
    pings = stage.udp()
    stage.book.sent.clear()
    stage.paths.handle_disco_udp(stage.peer.pong_to(pings[0], OURS), NEAR, stage.now)
    assert [len(sent.data) for sent in stage.udp()] == [FULL_PAYLOAD_BYTES]
    stage.answer(NEAR, 0.02)
    stage.book.advance(2)

    assert FULL_PAYLOAD_BYTES not in [len(sent.data) for sent in stage.udp()]
    assert stage.path().gso


def test_heartbeats_of_a_whole_path_are_full_size_and_their_repeat_is_small() -> None:
    stage = Stage(NEAR)
    stage.active()
    stage.play(2, NEAR)
    stage.book.clear()
    stage.advance(4)

    heartbeat, repeat = [sent for sent in stage.udp() if sent.address == NEAR][:2]
    assert (len(heartbeat.data), heartbeat.whole) == (FULL_PAYLOAD_BYTES, True)
    assert (len(repeat.data), repeat.whole) == (disco.PING_BYTES, True)


def test_when_only_small_pings_return_full_size_ones_are_cut_and_once_a_minute_tried_whole() -> None:
    stage = Stage(NEAR)
    stage.active()
    stage.play(2, NEAR)
    narrow_since = stage.now
    stage.play(6, NEAR, carries=lambda sent: len(sent.data) < FULL_PAYLOAD_BYTES or not sent.whole)
    path = stage.path()
    assert (path.udp, path.trusted, path.gso) == (NEAR, True, False)
    assert stage.now - narrow_since < 6.5

    stage.play(limits.FULL_SIZE_RETRY_S, NEAR, carries=lambda sent: len(sent.data) < FULL_PAYLOAD_BYTES)
    assert (stage.path().udp, stage.path().gso) == (NEAR, False)
    stage.play(limits.FULL_SIZE_RETRY_S, NEAR)
    assert stage.path().gso


def test_a_peer_that_cannot_cut_gets_no_pong_on_a_narrow_path_while_there_is_a_relay() -> None:
    for cuts, relay_up, pongs in ((False, True, 0), (False, False, 1), (True, True, 1)):
        stage = Stage(NEAR)
        stage.paths.set_peers([msgspec.structs.replace(stage.peer.info(NEAR), cuts=cuts)], stage.now)
        stage.active()
        stage.answer(NEAR)
        stage.paths.handle_path_fault(stage.peer.key, NEAR, errno.EMSGSIZE, stage.now)
        if not relay_up:
            stage.paths.handle_relay_down(1, stage.now)
        stage.book.clear()
        stage.paths.handle_disco_udp(stage.peer.ping(), NEAR, stage.now)

        answers = [sent for sent in stage.udp() if isinstance(stage.peer.open(sent), disco.Pong)]
        assert len(answers) == pongs
