"""What the packet filter grants a peer besides packets."""

from __future__ import annotations

from ipaddress import ip_address

import msgspec

from buri.node.peercaps import peer_capabilities
from buri.wire.tailcfg.filter import FilterRule
from buri.wire.tailcfg.node import CapMap

OURS = (ip_address("100.64.0.1"), ip_address("fd7a::1"))
RULES = msgspec.convert(
    [
        {"SrcIPs": ["100.64.0.2", "fd7a::2"], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}]},
        {
            "SrcIPs": ["100.64.0.2-100.64.0.4", "fd7a::2", "cap:x", "nonsense"],
            "CapGrant": [
                {"Dsts": ["100.64.0.1/32"], "CapMap": {"example.com/cap/files": [{"read": True}], "plain": None}},
                {"Dsts": ["fd7a::1/128"], "Caps": ["old-style"]},
            ],
        },
        {"SrcIPs": ["*"], "CapGrant": [{"Dsts": ["100.64.0.0/10"], "CapMap": {"example.com/cap/files": [{"all": 1}]}}]},
        {"SrcIPs": ["*"], "CapGrant": [{"Dsts": ["100.64.9.9/32"], "CapMap": {"another node's": [1]}}]},
    ],
    list[FilterRule],
)


def granted(source: str) -> CapMap:
    return peer_capabilities(RULES, ip_address(source), OURS)


def test_grants_to_an_address_of_ours_count_and_their_values_add_up() -> None:
    assert granted("100.64.0.3") == {"example.com/cap/files": [{"read": True}, {"all": 1}], "plain": []}


def test_whom_no_rule_names_gets_what_all_get() -> None:
    assert granted("100.64.0.9") == {"example.com/cap/files": [{"all": 1}]}


def test_an_ipv6_peer_is_judged_by_our_ipv6_address() -> None:
    assert granted("fd7a::2") == {"old-style": []}
    assert granted("fd7a::3") == {}


def test_one_familys_grant_is_not_the_others() -> None:
    assert peer_capabilities(RULES, ip_address("fd7a::2"), OURS[:1]) == {}
