"""Which name is which address, and who else is asked."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from buri.core.addresses import AddrPort
from buri.machine.magicdns import Absent, Decision, Forward, Found, Names
from buri.wire.tailcfg.dns import DNSConfig, DNSRecord, Resolver
from buri.wire.tailcfg.node import Node

A, PTR, MX, AAAA = 1, 12, 15, 28
HOME4, HOME6 = ip_address("100.64.0.1"), ip_address("fd7a:115c:a1e0::1")
LAN, OFFICE, PUBLIC = (AddrPort.parse(text) for text in ("192.168.1.1:53", "10.0.0.53:53", "192.0.2.53:53"))
NODES = (
    Node(id=1, name="home.tail.example.", addresses=["100.64.0.1/32", "fd7a:115c:a1e0::1/128"]),
    Node(id=2, name="shared.other.example.", addresses=["100.64.0.2/32"]),
)
MAGIC = DNSConfig(proxied=True, domains=["tail.example"])
RICH = DNSConfig(
    proxied=True,
    domains=["tail.example", "corp.example"],
    resolvers=[Resolver(addr="192.0.2.53")],
    routes={
        "corp.example": [Resolver(addr="10.0.0.53"), Resolver(addr="https://dns.example/q")],
        "eu.corp.example.": [Resolver(addr="192.168.1.1:53")],
        "here.example": None,
    },
    extra_records=[
        DNSRecord(name="wiki.tail.example", value="100.64.0.1"),
        DNSRecord(name="six.corp.example.", type="AAAA", value="fd7a:115c:a1e0::1"),
        DNSRecord(name="bad.tail.example", type="TXT", value="text"),
    ],
)


@pytest.mark.parametrize(
    ("name", "kind", "decision"),
    [
        ("home.tail.example", A, Found((HOME4,), "tail.example")),
        ("home.tail.example", AAAA, Found((HOME6,), "tail.example")),
        ("home.tail.example", MX, Found((), "tail.example")),
        ("home", A, Found((HOME4,), "home")),
        ("shared", A, Forward((LAN,))),
        ("shared.other.example", A, Found((ip_address("100.64.0.2"),), "shared.other.example")),
        ("nobody.tail.example", A, Absent("tail.example")),
        ("tail.example", A, Found((), "tail.example")),
        ("example", A, Forward((LAN,))),
        ("1.0.64.100.in-addr.arpa", PTR, Found(("home.tail.example",), "arpa")),
        (HOME6.reverse_pointer, PTR, Found(("home.tail.example",), "arpa")),
        ("9.0.64.100.in-addr.arpa", PTR, Absent("arpa")),
        (ip_address("fd7a:115c:a1e0::9").reverse_pointer, PTR, Absent("arpa")),
        ("1.1.168.192.in-addr.arpa", PTR, Forward((LAN,))),
        ("x.64.100.in-addr.arpa", PTR, Forward((LAN,))),
        ("www.example.net", A, Forward((LAN,))),
    ],
)
def test_names_of_a_plain_tailnet(name: str, kind: int, decision: Decision) -> None:
    assert Names(MAGIC, NODES, host_upstreams=(LAN,)).decide(name, kind) == decision


@pytest.mark.parametrize(
    ("name", "decision"),
    [
        ("www.example.net", Forward((PUBLIC,))),
        ("git.corp.example", Forward((OFFICE,))),
        ("git.eu.corp.example", Forward((LAN,))),
        ("notcorp.example", Forward((PUBLIC,))),
        ("wiki.tail.example", Found((HOME4,), "tail.example")),
        ("bad.tail.example", Absent("tail.example")),
        ("nothing.here.example", Absent("here.example")),
    ],
)
def test_routes_and_records_of_the_server(name: str, decision: Decision) -> None:
    assert Names(RICH, NODES, host_upstreams=(LAN,)).decide(name, A) == decision


def test_our_own_addresses_are_never_asked() -> None:
    loop = AddrPort.parse("100.100.100.100:53")
    assert Names(MAGIC, (), host_upstreams=(loop, LAN)).defaults == (LAN,)
    looped = DNSConfig(routes={"a.example": [Resolver(addr="100.100.100.100"), Resolver(addr="10.0.0.53")]})
    assert Names(looped).decide("x.a.example", A) == Forward((OFFICE,))


def test_a_tailnet_without_dns_needs_no_resolver() -> None:
    assert not Names(DNSConfig(), NODES).needed
    assert Names(MAGIC, NODES).needed
    assert Names(RICH).match_domains == ("eu.corp.example", "corp.example", "here.example", "tail.example")


def test_what_is_no_domain_name_goes_into_no_file() -> None:
    evil = DNSConfig(domains=["a.example\nnameserver 6.6.6.6", "", "good.example", "a" * 64], routes={"x y": None})
    names = Names(evil)
    assert names.search == ("good.example",)
    assert names.match_domains == ()
