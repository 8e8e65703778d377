"""Every delta a MapResponse can hold, and how narrowly the change is told."""

from __future__ import annotations

import msgspec
import pytest

from buri.core.errors import WireError
from buri.machine.mapdelta import Change, Netmap, apply, difference, normalise
from buri.wire.tailcfg.mapping import MapResponse
from buri.wire.tailcfg.node import Node

NOW_S = 1_800_000_000.0


def message(text: str) -> MapResponse:
    return msgspec.json.decode(text, type=MapResponse)


FIRST = """{
  "Node": {"ID": 1, "Name": "me.tailnet.test.", "Key": "nodekey:01", "Addresses": ["100.64.0.1/32"]},
  "DERPMap": {"Regions": {"1": {"RegionID": 1, "RegionCode": "tok"}, "2": {"RegionID": 2, "RegionCode": "osa"}}},
  "Peers": [
    {"ID": 2, "Name": "a.", "Key": "nodekey:02", "Addresses": ["100.64.0.2/32"], "DERP": "127.3.3.40:7"},
    {"ID": 3, "Name": "b.", "Key": "nodekey:03", "Addresses": ["100.64.0.3/32"], "HomeDERP": 2,
     "AllowedIPs": ["100.64.0.3/32", "10.0.0.0/8"], "Online": true}
  ],
  "Domain": "tailnet.test",
  "DNSConfig": {"Proxied": true},
  "PacketFilters": {"base": [{"SrcIPs": ["*"]}], "more": [{"SrcIPs": ["100.64.0.2"]}]},
  "UserProfiles": [{"ID": 9, "LoginName": "ame@example.com"}],
  "Health": ["a word"],
  "DisplayMessages": {"m1": {"Title": "one"}}
}"""


@pytest.fixture
def netmap() -> Netmap:
    return apply(None, message(FIRST), NOW_S)[0]


def delta(netmap: Netmap, text: str) -> tuple[Netmap, Change]:
    return apply(netmap, message(text), NOW_S)


def test_the_first_message_must_hold_this_node() -> None:
    with pytest.raises(WireError, match="does not hold this node"):
        apply(None, message('{"Domain": "x"}'), NOW_S)


def test_null_allowed_ips_mean_the_addresses_and_a_legacy_derp_becomes_a_home(netmap: Netmap) -> None:
    assert netmap.peers[2].allowed_ips == ["100.64.0.2/32"]
    assert netmap.peers[2].home_derp == 7
    assert netmap.peers[3].allowed_ips == ["100.64.0.3/32", "10.0.0.0/8"]
    assert netmap.self_node.allowed_ips == ["100.64.0.1/32"]


def test_a_keepalive_changes_nothing_and_shares_everything(netmap: Netmap) -> None:
    new, change = delta(netmap, '{"KeepAlive": true}')
    assert new is netmap
    assert not change


def test_null_members_change_nothing(netmap: Netmap) -> None:
    names = (
        "Node",
        "DERPMap",
        "Peers",
        "PeersChanged",
        "PeersRemoved",
        "PeersChangedPatch",
        "DNSConfig",
        "PacketFilter",
    )
    new, change = delta(netmap, "{" + ",".join(f'"{name}": null' for name in names) + ', "Health": null}')
    assert new is netmap
    assert not change


def test_a_non_empty_list_of_peers_replaces_all(netmap: Netmap) -> None:
    new, change = delta(netmap, '{"Peers": [{"ID": 4, "Key": "nodekey:04"}], "PeersRemoved": [4]}')
    assert list(new.peers) == [4]
    assert change.upserted == {4}
    assert {node.id for node in change.removed} == {2, 3}


def test_the_same_peers_again_are_no_change_and_keep_their_objects(netmap: Netmap) -> None:
    new, change = apply(netmap, message(FIRST), NOW_S)
    assert not change.peers
    assert all(new.peers[key] is netmap.peers[key] for key in netmap.peers)


def test_an_empty_list_of_peers_is_unchanged(netmap: Netmap) -> None:
    new, _ = delta(netmap, '{"Peers": []}')
    assert new.peers == netmap.peers


def test_removed_comes_before_changed(netmap: Netmap) -> None:
    new, change = delta(netmap, '{"PeersRemoved": [2], "PeersChanged": [{"ID": 2, "Key": "nodekey:22"}]}')
    assert new.peers[2].key == "nodekey:22"
    assert change.upserted == {2}
    assert [node.key for node in change.removed] == ["nodekey:02"]


def test_a_removed_peer_that_nobody_knows_is_nothing(netmap: Netmap) -> None:
    assert not delta(netmap, '{"PeersRemoved": [77]}')[1]


def test_seen_sets_the_time_and_unseen_clears_it(netmap: Netmap) -> None:
    seen, change = delta(netmap, '{"PeerSeenChange": {"2": true}}')
    assert seen.peers[2].last_seen == "2027-01-15T08:00:00Z"
    assert change.patched == {2}
    assert not change.upserted
    unseen, _ = delta(seen, '{"PeerSeenChange": {"2": false}}')
    assert unseen.peers[2].last_seen is None


def test_online_change(netmap: Netmap) -> None:
    new, change = delta(netmap, '{"OnlineChange": {"3": false}}')
    assert new.peers[3].online is False
    assert change.patched == {3}
    assert netmap.peers[3].online is True, "the old netmap is untouched"


@pytest.mark.parametrize(
    ("member", "field", "value"),
    [
        ('"DERPRegion": 5', "home_derp", 5),
        ('"Endpoints": ["1.2.3.4:5"]', "endpoints", ["1.2.3.4:5"]),
        ('"Endpoints": []', "endpoints", []),
        ('"Online": false', "online", False),
        ('"LastSeen": "2026-01-01T00:00:00Z"', "last_seen", "2026-01-01T00:00:00Z"),
    ],
)
def test_a_patch_of_reachability_is_told_as_a_patch(netmap: Netmap, member: str, field: str, value: object) -> None:
    new, change = delta(netmap, f'{{"PeersChangedPatch": [{{"NodeID": 3, {member}}}]}}')
    assert getattr(new.peers[3], field) == value
    assert change.patched == {3}
    assert not change.upserted


@pytest.mark.parametrize(
    ("member", "field", "value"),
    [
        ('"Key": "nodekey:33"', "key", "nodekey:33"),
        ('"DiscoKey": "discokey:33"', "disco_key", "discokey:33"),
        ('"Cap": 130', "cap", 130),
        ('"CapMap": {"x": null}', "cap_map", {"x": None}),
        ('"KeySignature": "AA=="', "key_signature", "AA=="),
        ('"KeyExpiry": "2030-01-01T00:00:00Z"', "key_expiry", "2030-01-01T00:00:00Z"),
    ],
)
def test_a_patch_of_anything_else_is_told_as_an_upsert(netmap: Netmap, member: str, field: str, value: object) -> None:
    new, change = delta(netmap, f'{{"PeersChangedPatch": [{{"NodeID": 3, {member}, "DERPRegion": 0}}]}}')
    assert getattr(new.peers[3], field) == value
    assert new.peers[3].home_derp == 2, "a zero member says nothing"
    assert change.upserted == {3}
    assert not change.patched


def test_a_patch_of_an_unknown_peer_is_nothing(netmap: Netmap) -> None:
    assert not delta(netmap, '{"PeersChangedPatch": [{"NodeID": 77, "DERPRegion": 1}]}')[1]


def test_a_patch_applies_after_a_change_in_the_same_message(netmap: Netmap) -> None:
    text = '{"PeersChanged": [{"ID": 5, "Key": "nodekey:05"}], "PeersChangedPatch": [{"NodeID": 5, "DERPRegion": 4}]}'
    new, change = delta(netmap, text)
    assert new.peers[5].home_derp == 4
    assert change.upserted == {5}
    assert not change.patched


def test_self_is_replaced(netmap: Netmap) -> None:
    new, change = delta(netmap, '{"Node": {"ID": 1, "Name": "you.", "Addresses": ["100.64.0.9/32"]}}')
    assert new.self_node.name == "you."
    assert change.self_node
    assert not change.peers


def test_filters_are_patched_by_name(netmap: Netmap) -> None:
    new, change = delta(netmap, '{"PacketFilters": {"more": null, "new": [{"SrcIPs": ["100.64.0.3"]}]}}')
    assert list(new.packet_filters) == ["base", "new"]
    assert change.filters


def test_a_star_of_null_clears_the_filters_first(netmap: Netmap) -> None:
    new, _ = delta(netmap, '{"PacketFilters": {"*": null, "only": []}}')
    assert new.packet_filters == {"only": []}
    assert new.filter_rules() == []


def test_the_older_packet_filter_is_the_one_named_base(netmap: Netmap) -> None:
    new, _ = delta(netmap, '{"PacketFilter": []}')
    assert new.packet_filters["base"] == []
    assert [rule.src_ips for rule in new.filter_rules()] == [["100.64.0.2"]]


def test_a_derp_map_without_regions_keeps_the_old_ones(netmap: Netmap) -> None:
    new, change = delta(netmap, '{"DERPMap": {"HomeParams": {"RegionScore": {"1": 0.5}}}}')
    assert list(new.derp_map.regions or {}) == [1, 2]
    assert new.derp_map.home_params is not None
    assert new.derp_map.home_params.region_score == {1: 0.5}
    assert change.derp_map
    kept, _ = delta(new, '{"DERPMap": {"Regions": {"3": {"RegionID": 3}, "4": null}}}')
    assert list(kept.derp_map.regions or {}) == [3]
    assert kept.derp_map.home_params == new.derp_map.home_params


def test_user_profiles_merge_by_id(netmap: Netmap) -> None:
    new, change = delta(netmap, '{"UserProfiles": [{"ID": 8, "LoginName": "yuki@example.com"}]}')
    assert {key: user.login_name for key, user in new.users.items()} == {9: "ame@example.com", 8: "yuki@example.com"}
    assert change.users


def test_health_is_cleared_by_an_empty_list_alone(netmap: Netmap) -> None:
    assert delta(netmap, '{"Domain": "tailnet.test"}')[0].health == ("a word",)
    new, change = delta(netmap, '{"Health": []}')
    assert new.health == ()
    assert change.health


def test_display_messages_are_patched_by_name(netmap: Netmap) -> None:
    more, change = delta(netmap, '{"DisplayMessages": {"m2": {"Title": "two"}}}')
    assert list(more.display_messages) == ["m1", "m2"]
    assert change.health
    assert list(delta(more, '{"DisplayMessages": {"m1": null}}')[0].display_messages) == ["m2"]
    assert delta(more, '{"DisplayMessages": {"*": null}}')[0].display_messages == {}


def test_the_other_members_are_replaced(netmap: Netmap) -> None:
    new, change = delta(
        netmap,
        '{"Domain": "other.test", "DNSConfig": {}, "SSHPolicy": {"rules": []}, "CollectServices": true,'
        ' "Debug": {"DisableLogTail": true}, "ClientVersion": {"RunningLatest": true}}',
    )
    assert (new.domain, new.dns.proxied, new.collect_services) == ("other.test", False, True)
    assert new.debug is not None
    assert new.debug.disable_log_tail
    assert new.client_version is not None
    assert change.dns
    assert change.other


def test_a_netmap_survives_the_disk(netmap: Netmap) -> None:
    assert msgspec.json.decode(msgspec.json.encode(netmap), type=Netmap) == netmap


def test_the_difference_of_two_netmaps_names_the_peers_that_differ(netmap: Netmap) -> None:
    new, _ = delta(netmap, '{"PeersRemoved": [2], "PeersChanged": [{"ID": 4, "Key": "nodekey:04"}]}')
    change = difference(netmap, new)
    assert change.upserted == {4}
    assert [node.id for node in change.removed] == [2]
    assert difference(None, new).upserted == {3, 4}


@pytest.mark.parametrize(
    "home", ["127.3.3.40:", "127.3.3.40:²", "127.3.3.40:" + "9" * 5000, "127.3.3.40:-1", "1.2.3.4:5"]
)
def test_a_legacy_home_that_is_no_number_is_none(home: str) -> None:
    assert normalise(Node(legacy_derp=home)).home_derp == 0
