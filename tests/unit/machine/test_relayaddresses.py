from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from buri.core.addresses import AddrPort
from buri.machine.relayaddresses import derp_port, hosts_to_resolve, node_addresses, stun_address, usable
from buri.wire.tailcfg.derpmap import DERPMap, DERPNode, DERPRegion

FOUND = {"relay.example": (IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"))}


def test_literal_addresses_need_no_name() -> None:
    node = DERPNode(host_name="relay.example", ipv4="203.0.113.1", ipv6="2001:db8::2")

    assert node_addresses(node, {}) == (IPv4Address("203.0.113.1"), IPv6Address("2001:db8::2"))
    assert hosts_to_resolve(derp_map(node)) == []


def test_a_name_is_looked_up_when_there_is_no_literal_and_none_disables_a_family() -> None:
    node = DERPNode(host_name="relay.example", ipv6="none")
    bare = DERPNode(host_name="relay.example")

    assert node_addresses(node, FOUND) == (IPv4Address("192.0.2.1"),)
    assert node_addresses(bare, FOUND) == FOUND["relay.example"]
    assert node_addresses(bare, {}) == ()
    assert hosts_to_resolve(derp_map(bare, bare)) == ["relay.example"]


def test_a_host_name_that_is_an_address_is_one() -> None:
    node = DERPNode(host_name="203.0.113.7")

    assert node_addresses(node, {}) == (IPv4Address("203.0.113.7"),)
    assert hosts_to_resolve(derp_map(node)) == []


def test_stun_goes_to_its_port_its_test_address_or_nowhere() -> None:
    node = DERPNode(host_name="relay.example", ipv4="203.0.113.1")
    assert stun_address(node, {}, ipv6=False) == AddrPort.parse("203.0.113.1:3478")
    assert stun_address(node, {}, ipv6=True) is None
    node.stun_port = 4000
    node.stun_test_ip = "127.0.0.1"
    assert stun_address(node, {}, ipv6=False) == AddrPort.parse("127.0.0.1:4000")
    node.stun_port = -1
    assert stun_address(node, {}, ipv6=False) is None


def test_the_default_port_is_https() -> None:
    assert derp_port(DERPNode()) == 443
    assert derp_port(DERPNode(derp_port=8443)) == 8443


def derp_map(*nodes: DERPNode) -> DERPMap:
    return DERPMap(regions={1: DERPRegion(region_id=1, nodes=list(nodes)), 2: None})


def test_of_a_map_only_what_can_be_is_used() -> None:
    good = DERPNode(host_name="relay.example", derp_port=8443, stun_port=-1)
    for bad in (
        DERPNode(host_name="relay.example", derp_port=70_000),
        DERPNode(host_name="relay.example", stun_port=-2),
        DERPNode(host_name=""),
        DERPNode(host_name=".example"),
        DERPNode(host_name="a" * 64 + ".example"),
        DERPNode(host_name="relay.example\0"),
        DERPNode(host_name="a." * 130),
    ):
        regions = usable(derp_map(bad, good)).regions or {}
        assert [region.nodes for region in regions.values() if region is not None] == [[good]]
    sound = DERPMap(regions={1: DERPRegion(region_id=1, nodes=[good])})
    assert usable(sound) is sound


def test_a_region_under_another_s_number_or_past_all_numbers_is_left_out() -> None:
    node = DERPNode(host_name="203.0.113.7")
    regions: dict[int, DERPRegion | None] = {
        key: DERPRegion(region_id=number, nodes=[node])
        for key, number in ((1, 1), (2, 3), (0, 0), (-4, -4), (1 << 16, 1 << 16))
    }
    assert list(usable(DERPMap(regions=regions | {7: None})).regions or {}) == [1]
