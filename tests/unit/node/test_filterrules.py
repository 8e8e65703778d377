"""The wire's packet filter in the engine's terms."""

from __future__ import annotations

from ipaddress import ip_network

import msgspec
import pytest

from buri.core.errors import WireError
from buri.engine import port
from buri.node.filterrules import EVERYWHERE, compile_rules, parse_ip_set
from buri.wire.tailcfg.filter import ALLOW_ALL, FilterRule


def compiled(text: str) -> tuple[port.FilterRule, ...]:
    return compile_rules(msgspec.json.decode(text, type=list[FilterRule]))


def test_allow_all_is_one_rule() -> None:
    assert compile_rules([ALLOW_ALL]) == (
        port.FilterRule(EVERYWHERE, EVERYWHERE, (port.PortRange(0, 65535),), (6, 17, 1, 58)),
    )


@pytest.mark.parametrize(
    ("text", "prefixes"),
    [
        ("100.64.0.1", ["100.64.0.1/32"]),
        ("10.1.2.3/8", ["10.0.0.0/8"]),
        ("fd7a:115c:a1e0::1", ["fd7a:115c:a1e0::1/128"]),
        ("10.0.0.0-10.0.0.5", ["10.0.0.0/30", "10.0.0.4/31"]),
        ("*", ["0.0.0.0/0", "::/0"]),
        ("cap:can-see", []),
    ],
)
def test_each_form_of_a_source(text: str, prefixes: list[str]) -> None:
    assert parse_ip_set(text) == [ip_network(prefix) for prefix in prefixes]


@pytest.mark.parametrize("text", ["", "nonsense", "10.0.0.9-10.0.0.1", "10.0.0.1-fd7a::1", "10.0.0.0/33", "1-2-3"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(WireError):
        parse_ip_set(text)


def test_destinations_with_the_same_ports_share_a_rule() -> None:
    rules = compiled(
        '[{"SrcIPs": ["100.64.0.1"], "IPProto": [6], "DstPorts": ['
        '{"IP": "100.64.0.2", "Ports": {"First": 22, "Last": 22}},'
        '{"IP": "100.64.0.2", "Ports": {"First": 80, "Last": 81}},'
        '{"IP": "100.64.0.9", "Ports": {"First": 443, "Last": 443}}]}]'
    )
    assert [(str(rule.destinations[0]), rule.ports) for rule in rules] == [
        ("100.64.0.2/32", (port.PortRange(22, 22), port.PortRange(80, 81))),
        ("100.64.0.9/32", (port.PortRange(443, 443),)),
    ]
    assert all(rule.protocols == (6,) for rule in rules)


@pytest.mark.parametrize(
    "rule",
    [
        '{"SrcIPs": [], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}]}',
        '{"SrcIPs": ["cap:x"], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}]}',
        '{"SrcIPs": ["junk"], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}]}',
        '{"SrcIPs": ["*"], "DstPorts": [{"IP": "junk", "Ports": {"First": 0, "Last": 65535}}]}',
        '{"SrcIPs": ["*"], "DstPorts": [{"IP": "*", "Ports": {"First": 9, "Last": 1}}]}',
        '{"SrcIPs": ["*"], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 70000}}]}',
        '{"SrcIPs": ["*"], "IPProto": [999], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}]}',
        '{"SrcIPs": ["*"], "CapGrant": [{"Dsts": ["100.64.0.2/32"], "Caps": ["x"]}]}',
    ],
)
def test_what_cannot_be_understood_or_grants_no_packets_lets_nothing_in(rule: str) -> None:
    assert compiled(f"[{rule}]") == ()


def test_one_bad_source_does_not_spoil_the_good_one() -> None:
    rules = compiled('[{"SrcIPs": ["junk", "10.0.0.1"], "DstPorts": [{"IP": "*", "Ports": {"First": 1, "Last": 2}}]}]')
    assert rules[0].sources == (ip_network("10.0.0.1/32"),)
