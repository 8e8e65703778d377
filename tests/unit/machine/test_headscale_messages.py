"""What headscale says otherwise than our own server, as it came off its wire (tests/vectors/headscale), and our netmap.

It shows a newcomer first as offline, tells a move or a return as a whole node, repeats DNS, filters and profiles with
every join, patches nodes that it has just sent whole, sends messages of nothing but its clock, and takes
MachineAuthorized away from an expired node.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from buri.machine.controlevents import LoggedIn, LoginFailed, LoginURL, NewKeyWanted
from buri.machine.mapdelta import Change, Netmap, apply
from buri.testing.controlbench import NODE, Bench
from buri.wire.tailcfg import node as tailcfg
from buri.wire.tailcfg.mapping import MapResponse

VECTORS = Path(__file__).parents[2] / "vectors" / "headscale"
NOW_S = 1_800_000_000.0


def heard(name: str) -> list[MapResponse]:
    return msgspec.json.decode((VECTORS / f"{name}.json").read_bytes(), type=list[MapResponse])


class Node:
    """Applies captured messages, one capture after the other."""

    def __init__(self) -> None:
        self._netmap: Netmap | None = None

    def hear(self, *names: str) -> tuple[Netmap, list[Change]]:
        """The netmap after the last capture, and what each of its messages changed."""
        changes: list[Change] = []
        for name in names:
            changes = []
            for message in heard(name):
                self._netmap, change = apply(self._netmap, message, NOW_S)
                changes.append(change)
        assert self._netmap is not None
        return self._netmap, changes


def only(netmap: Netmap) -> tailcfg.Node:
    (peer,) = netmap.peers.values()
    return peer


@pytest.fixture
def node() -> Node:
    return Node()


def test_the_first_netmap_of_a_lone_node_has_no_peers_and_lets_everybody_in(node: Node) -> None:
    netmap, changes = node.hear("first")
    assert netmap.self_node.name == "load-1.head.test."
    assert netmap.self_node.key_expiry == "0001-01-01T00:00:00Z", "a key that never expires has no time at all"
    assert netmap.peers == {}
    assert netmap.dns.proxied
    assert [rule.src_ips for rule in netmap.filter_rules()] == [["*"]]
    assert [rule.ip_proto for rule in netmap.filter_rules()] == [None]
    assert not any(changes[1:]), "its own node once more, then its clock alone: nothing is new"


def test_a_newcomer_is_online_in_the_end_and_what_is_repeated_is_no_change(node: Node) -> None:
    netmap, changes = node.hear("first", "peer-joins")
    assert [(peer.name, peer.online) for peer in netmap.peers.values()] == [("load-2.head.test.", True)]
    assert [(change.dns, change.filters, change.users, change.derp_map) for change in changes] == [(False,) * 4] * 3
    assert not changes[-1], "the patch tells what the whole node before it had told"


def test_a_move_is_a_whole_node_and_only_its_endpoints_differ(node: Node) -> None:
    before, _ = node.hear("first", "peer-joins")
    after, changes = node.hear("peer-moves")
    assert only(after).endpoints == ["198.51.100.7:41641"]
    assert msgspec.structs.replace(only(after), endpoints=only(before).endpoints) == only(before)
    assert [change.peers for change in changes] == [True]


def test_a_peer_goes_and_comes_back(node: Node) -> None:
    netmap, _ = node.hear("first", "peer-joins", "peer-moves", "peer-leaves")
    assert only(netmap).online is False
    assert only(netmap).last_seen
    netmap, _ = node.hear("peer-returns")
    assert only(netmap).online is True


def test_new_names_of_a_peer_and_of_the_node_itself(node: Node) -> None:
    netmap, _ = node.hear("first", "peer-joins", "peer-renamed", "self-renamed")
    assert only(netmap).name == "bridget.head.test."
    assert netmap.self_node.name == "anna.head.test."


def test_an_expired_peer_an_expired_self_and_a_deleted_peer(node: Node) -> None:
    netmap, _ = node.hear("first", "peer-joins", "peer-expired")
    assert only(netmap).expired
    assert not only(netmap).machine_authorized
    netmap, _ = node.hear("self-expired")
    assert netmap.self_node.expired
    assert not netmap.self_node.machine_authorized, "expired, and not waiting for approval"
    before = netmap
    netmap, changes = node.hear("peer-deleted")
    assert netmap.peers == {}
    assert [peer.id for peer in changes[-1].removed] == [only(before).id]


def registration(name: str, *, auth_key: str = "hskey-auth-x") -> Bench:
    """A client that logs in and gets one of the captured answers."""
    answers = msgspec.json.decode((VECTORS / "registrations.json").read_bytes(), type=dict[str, dict[str, object]])
    bench = Bench()
    bench.client.login(NODE, bench.now, auth_key=auth_key)
    bench.open()
    bench.answer(bench.request("/machine/register"), answers[name])
    return bench


def test_a_key_that_is_taken_lets_the_node_in() -> None:
    assert registration("taken").take(LoggedIn).machine_authorized


@pytest.mark.parametrize(
    ("name", "words"),
    [("spent", "authkey already used"), ("unknown", "invalid pre auth key"), ("wrong", "invalid auth key")],
)
def test_a_key_that_is_refused_is_told_in_the_servers_words_and_not_tried_again(name: str, words: str) -> None:
    bench = registration(name)
    assert words in bench.take(LoginFailed).message
    bench.later(3600)
    assert not [request for request in bench.requests if request.path == "/machine/register"]


def test_without_a_key_there_is_a_page_to_open() -> None:
    assert "/register/hskey-authreq-" in registration("interactive", auth_key="").take(LoginURL).url


def test_a_key_it_expired_asks_for_a_new_one() -> None:
    registration("expired").take(NewKeyWanted)
