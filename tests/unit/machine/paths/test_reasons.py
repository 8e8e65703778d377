"""Why a row of `status` shows a relay: each cause has its words, and what is known best comes first."""

from __future__ import annotations

import msgspec
import pytest

from buri.core.addresses import AddrPort
from buri.machine.paths.reasons import OwnNetwork, Search, why_searching
from buri.testing.pathstage import FAR, LAN, NEAR, Stage

SEARCH = Search(
    relay_up=True,
    addresses=3,
    public_addresses=1,
    heard=False,
    peer_hard_nat=None,
    searching_s=30.0,
    called_s=2.0,
)
EASY, HARD, BLOCKED = OwnNetwork(True, False), OwnNetwork(True, True), OwnNetwork(False, None)


@pytest.mark.parametrize(
    ("facts", "own", "words"),
    [
        ({}, BLOCKED, "this network lets no UDP through"),
        ({"addresses": 0}, EASY, "the peer offers no address"),
        ({"searching_s": 1.0}, EASY, "looking for a direct path"),
        ({"peer_hard_nat": True}, HARD, "both sides are behind a NAT that changes ports by destination"),
        ({"heard": True}, EASY, "the peer's pings come through, ours to it do not"),
        ({}, HARD, "this NAT changes ports by destination, and no address of the peer answers"),
        ({"peer_hard_nat": True}, EASY, "the peer's NAT changes ports by destination"),
        ({"public_addresses": 0}, EASY, "the peer knows no public address of its own"),
        ({"relay_up": False}, OwnNetwork(), "the peer's relay is not connected, so it cannot be called"),
        ({}, EASY, "the peer was called by its relay, and no ping came through either way"),
        ({"called_s": None}, EASY, "no address of the peer has answered yet"),
    ],
)
def test_each_cause_has_its_words(facts: dict[str, object], own: OwnNetwork, words: str) -> None:
    assert why_searching(msgspec.structs.replace(SEARCH, **facts), own) == words


def why(stage: Stage) -> str:
    info = stage.paths.path_info(stage.peer.key, stage.now)
    assert info is not None
    return info.why_relayed


def test_the_machine_knows_what_the_words_say() -> None:
    stage = Stage(LAN)
    assert why(stage) == "idle"
    stage.active()
    assert why(stage) == "looking for a direct path"
    stage.advance(6)
    assert why(stage) == "the peer knows no public address of its own"
    stage.paths.set_peers([stage.peer.info(LAN, AddrPort.parse("203.0.113.9:41641"))], stage.now)
    stage.advance(6)
    assert why(stage) == "the peer was called by its relay, and no ping came through either way"
    stage.paths.handle_disco_udp(stage.peer.ping(), AddrPort.parse("203.0.113.9:1"), stage.now)
    assert why(stage) == "the peer's pings come through, ours to it do not"
    stage.paths.set_own_network(BLOCKED)
    assert why(stage) == "this network lets no UDP through"


def test_after_an_answer_and_its_loss_the_search_is_new() -> None:
    stage = Stage(NEAR, FAR)
    stage.active()
    stage.answer(NEAR)
    assert why(stage) == ""
    stage.advance(3)
    stage.paths.link_changed(stage.now)
    stage.advance(0.5)
    assert why(stage) == "the direct address stopped answering"
