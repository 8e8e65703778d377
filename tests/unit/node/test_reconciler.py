"""From netmaps to tables, and only the difference each time."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
import pytest

from buri.core.addresses import AddrPort
from buri.core.keys import DiscoPublic, NodePublic
from buri.engine import port
from buri.machine.mapdelta import Netmap, apply
from buri.node.reconciler import Choices, Reconciler, Tables
from buri.node.router import RouterConfig
from buri.wire.tailcfg.base import format_time
from buri.wire.tailcfg.mapping import MapResponse

NOW_S = 1_800_000_000.0


def key(number: int) -> NodePublic:
    return NodePublic(bytes((number,)) * 32)


def peer(number: int, **more: Any) -> dict[str, Any]:
    return {
        "ID": number,
        "Key": str(key(number)),
        "DiscoKey": str(DiscoPublic(bytes((number,)) * 32)),
        "Addresses": [f"100.64.0.{number}/32"],
        "HomeDERP": 9,
        **more,
    }


def netmap(*peers: dict[str, Any], old: Netmap | None = None, **more: Any) -> Netmap:
    message = {"Node": {"ID": 1, "Addresses": ["100.64.0.1/32", "fd7a::1/128"]}, "Peers": list(peers), **more}
    return apply(old, msgspec.json.decode(msgspec.json.encode(message), type=MapResponse), NOW_S)[0]


def run(reconciler: Reconciler, now: Netmap | None, **choices: Any) -> Tables:
    return reconciler.reconcile(now, Choices(**choices), NOW_S)


def upserts(tables: Tables) -> dict[NodePublic, list[str]]:
    return {
        order.peer.key: [str(prefix) for prefix in order.peer.allowed_ips]
        for order in tables.orders
        if isinstance(order, port.UpsertPeer)
    }


def removed(tables: Tables) -> list[NodePublic]:
    return [order.key for order in tables.orders if isinstance(order, port.RemovePeer)]


def test_a_first_netmap_becomes_tables() -> None:
    first = netmap(
        peer(2, Endpoints=["192.0.2.2:41641", "junk"], Hostinfo={"NetInfo": {"MappingVariesByDestIP": True}}),
        PacketFilter=[{"SrcIPs": ["*"], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}]}],
    )
    tables = run(Reconciler(), first)
    assert upserts(tables) == {key(2): ["100.64.0.2/32"]}
    (told,) = [order for order in tables.orders if isinstance(order, port.SetFilter)]
    assert told.local == (ip_network("100.64.0.1/32"), ip_network("fd7a::1/128"))
    assert len(told.rules) == 1
    (path,) = tables.paths
    assert (path.key, path.home_region, path.hard_nat) == (key(2), 9, True)
    assert path.endpoints == (AddrPort(ip_address("192.0.2.2"), 41641),)
    assert tables.router == RouterConfig(
        addresses=(ip_address("100.64.0.1"), ip_address("fd7a::1")), routes=(ip_network("100.64.0.2/32"),)
    )


def test_the_same_netmap_again_is_no_order() -> None:
    reconciler = Reconciler()
    now = netmap(peer(2))
    run(reconciler, now)
    assert run(reconciler, now).orders == ()


def test_only_what_changed_is_ordered() -> None:
    reconciler = Reconciler()
    first = netmap(peer(2), peer(3))
    run(reconciler, first)
    tables = run(reconciler, netmap(peer(2), peer(4), old=first))
    assert upserts(tables) == {key(4): ["100.64.0.4/32"]}
    assert removed(tables) == [key(3)]


def test_a_peer_with_another_key_is_removed_and_added() -> None:
    reconciler = Reconciler()
    run(reconciler, netmap(peer(2)))
    tables = run(reconciler, netmap(peer(2, Key=str(key(7)))))
    assert removed(tables) == [key(2)]
    assert list(upserts(tables)) == [key(7)]
    orders = [type(order) for order in tables.orders]
    assert orders.index(port.RemovePeer) < orders.index(port.UpsertPeer), "the address must be free first"


def test_subnet_routes_need_the_users_wish_and_default_routes_are_never_taken() -> None:
    router = peer(2, AllowedIPs=["100.64.0.2/32", "10.0.0.0/8", "0.0.0.0/0", "::/0"])
    reconciler = Reconciler()
    now = netmap(router)
    assert upserts(run(reconciler, now)) == {key(2): ["100.64.0.2/32"]}
    tables = run(reconciler, now, accept_routes=True)
    assert upserts(tables) == {key(2): ["100.64.0.2/32", "10.0.0.0/8"]}
    assert ip_network("10.0.0.0/8") in tables.router.routes


@pytest.mark.parametrize(
    "more",
    [
        {"Expired": True},
        {"KeyExpiry": format_time(NOW_S - 1)},
        {"IsWireGuardOnly": True},
        {"Key": "nodekey:zz"},
        {"Key": ""},
    ],
)
def test_peers_that_cannot_be_talked_to_are_in_no_table(more: dict[str, Any]) -> None:
    tables = run(Reconciler(), netmap(peer(2, **more)))
    assert upserts(tables) == {}
    assert tables.paths == ()
    assert tables.router.routes == ()


def test_a_peer_expires_when_its_time_comes() -> None:
    reconciler = Reconciler()
    now = netmap(peer(2, KeyExpiry=format_time(NOW_S + 60)), peer(3))
    tables = run(reconciler, now)
    assert tables.next_expiry_s == NOW_S + 60
    later = reconciler.reconcile(now, Choices(), NOW_S + 61)
    assert removed(later) == [key(2)]
    assert later.next_expiry_s is None


def test_a_peer_that_is_too_old_for_disco_stays_on_its_relay() -> None:
    (path,) = run(Reconciler(), netmap(peer(2, DiscoKey=""))).paths
    assert not path.disco_key


def test_no_netmap_takes_everything_away() -> None:
    reconciler = Reconciler()
    run(reconciler, netmap(peer(2)))
    tables = run(reconciler, None)
    assert removed(tables) == [key(2)]
    assert port.SetFilter((), ()) in tables.orders
    assert tables.router == RouterConfig()
    assert tables.paths == ()


def test_shields_up_is_told_with_the_filter() -> None:
    reconciler = Reconciler()
    now = netmap()
    run(reconciler, now)
    (order,) = run(reconciler, now, shields_up=True).orders
    assert isinstance(order, port.SetFilter)
    assert order.shields_up


def test_a_new_engine_is_told_everything_again() -> None:
    reconciler = Reconciler()
    now = netmap(peer(2))
    run(reconciler, now)
    reconciler.forget()
    assert upserts(run(reconciler, now)) == {key(2): ["100.64.0.2/32"]}


def test_a_peer_with_another_disco_key_begins_anew_in_the_engine() -> None:
    reconciler = Reconciler()
    run(reconciler, netmap(peer(2), peer(3)))
    other = str(DiscoPublic(bytes((9,)) * 32))
    tables = run(reconciler, netmap(peer(2, DiscoKey=other), peer(3)))
    assert tables.orders == (
        port.RemovePeer(key(2)),
        port.UpsertPeer(port.Peer(key(2), (ip_network("100.64.0.2/32"),))),
    )
    assert run(reconciler, netmap(peer(2, DiscoKey=other), peer(3))).orders == ()
    assert run(reconciler, netmap(peer(2, DiscoKey=""), peer(3))).orders == ()  # none is no other


# ---- netmaps that make no sense ---------------------------------------------------------------------------------------


def test_an_address_or_route_that_two_peers_claim_stays_with_the_first() -> None:
    both = {"AllowedIPs": ["100.64.0.2/32", "10.1.0.0/16"]}
    tables = run(Reconciler(), netmap(peer(2, **both), peer(3, **both)), accept_routes=True)
    assert upserts(tables) == {key(2): ["100.64.0.2/32", "10.1.0.0/16"], key(3): []}
    assert tables.router.routes == (ip_network("100.64.0.2/32"), ip_network("10.1.0.0/16"))


def test_overlapping_routes_of_different_lengths_are_sound_and_stay() -> None:
    wide, narrow = {"AllowedIPs": ["10.0.0.0/8"]}, {"AllowedIPs": ["10.1.0.0/16"]}
    tables = run(Reconciler(), netmap(peer(2, **wide), peer(3, **narrow)), accept_routes=True)
    assert upserts(tables) == {key(2): ["10.0.0.0/8"], key(3): ["10.1.0.0/16"]}


def test_a_key_that_two_peers_claim_is_one_peer() -> None:
    tables = run(Reconciler(), netmap(peer(2), peer(3, Key=str(key(2)))))
    assert upserts(tables) == {key(2): ["100.64.0.2/32"]}
    assert len(tables.paths) == 1


def test_a_peer_that_claims_our_key_or_our_address_gets_neither() -> None:
    own: dict[str, Any] = {"Node": {"ID": 1, "Key": str(key(1)), "Addresses": ["100.64.0.1/32"]}}
    thief = peer(2, Addresses=["100.64.0.1/32", "100.64.0.2/32"])
    tables = run(Reconciler(), netmap(peer(1), thief, **own))
    assert upserts(tables) == {key(2): ["100.64.0.2/32"]}
    assert tables.router == RouterConfig((ip_address("100.64.0.1"),), (ip_network("100.64.0.2/32"),))


@pytest.mark.parametrize(
    "address", ["0.0.0.0/0", "127.0.0.1/32", "224.0.0.1/32", "::/128", "100.64.0.0/10", "fe80::1/128", "nonsense", ""]
)
def test_an_address_no_host_can_have_is_nobodys(address: str) -> None:
    own: dict[str, Any] = {"Node": {"ID": 1, "Addresses": [address, "100.64.0.1/32"]}}
    tables = run(Reconciler(), netmap(peer(2, Addresses=[address]), **own))
    assert tables.router == RouterConfig((ip_address("100.64.0.1"),), ())
    assert upserts(tables) == {key(2): []}


@pytest.mark.parametrize(
    "nonsense",
    [
        {"Key": "nodekey:12"},
        {"Key": ""},
        {"DiscoKey": "discokey:zz"},
        {"KeyExpiry": "the day after tomorrow"},
        {"KeyExpiry": "0001-01-01T00:00:01"},
        {"KeyExpiry": "2026-13-45T99:99:99Z"},
    ],
)
def test_a_peer_that_does_not_read_is_left_out_and_the_others_stay(nonsense: dict[str, Any]) -> None:
    assert list(upserts(run(Reconciler(), netmap(peer(2, **nonsense), peer(3))))) == [key(3)]


def test_a_home_relay_or_endpoint_that_cannot_be_is_none() -> None:
    for region in (-1, 1 << 16, 1 << 40):
        endpoints = ["nonsense", "203.0.113.1:99999", "[::1", "203.0.113.1:4000"]
        tables = run(Reconciler(), netmap(peer(2, HomeDERP=region, Endpoints=endpoints)))
        assert tables.paths[0].home_region == 0
        assert tables.paths[0].endpoints == (AddrPort(ip_address("203.0.113.1"), 4000),)
