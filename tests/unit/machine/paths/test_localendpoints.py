from __future__ import annotations

from ipaddress import ip_address

from buri.core.addresses import AddrPort
from buri.machine.netcheck import NetReport
from buri.machine.paths.localendpoints import TRACKED_S, OwnEndpoints
from buri.machine.paths.values import EndpointType

STUN = AddrPort.parse("198.51.100.1:40000")
STUN_2 = AddrPort.parse("198.51.100.1:40001")
STUN_6 = AddrPort.parse("[2001:db8:5::1]:41641")


def test_endpoints_come_in_upstreams_order() -> None:
    own = endpoints("192.168.1.5", "2001:db8:1::5")
    own.set_port_mapping(AddrPort.parse("198.51.100.1:7"))
    own.set_static([AddrPort.parse("198.51.100.9:9")])
    own.set_report(NetReport(global_ipv4=STUN, global_ipv6=STUN_6, mapped_ipv4=(STUN, STUN_2), hard_nat=True), 1.0)

    assert [(str(e.address), e.type) for e in own.current(2.0)] == [
        ("198.51.100.1:7", EndpointType.PORT_MAPPED),
        ("198.51.100.1:40000", EndpointType.STUN),
        ("[2001:db8:5::1]:41641", EndpointType.STUN),
        ("198.51.100.1:41641", EndpointType.STUN_LOCAL_PORT),
        ("198.51.100.1:40001", EndpointType.STUN),
        ("198.51.100.9:9", EndpointType.EXPLICIT),
        ("192.168.1.5:41641", EndpointType.LOCAL),
        ("[2001:db8:1::5]:41641", EndpointType.LOCAL),
    ]


def test_a_stun_address_is_offered_for_five_minutes_more() -> None:
    own = endpoints("192.168.1.5")
    own.set_report(NetReport(global_ipv4=STUN, mapped_ipv4=(STUN,)), 0.0)
    own.set_report(NetReport(global_ipv4=STUN_2, mapped_ipv4=(STUN_2,)), 30.0)

    assert [e.address for e in own.current(31.0)][:2] == [STUN_2, STUN]
    assert STUN not in [e.address for e in own.current(TRACKED_S + 1)]


def test_tailnet_and_link_local_addresses_are_never_offered() -> None:
    own = endpoints("100.64.0.5", "fd7a:115c:a1e0::5", "fe80::1", "169.254.3.3", "10.0.0.5")

    assert [str(e.address) for e in own.current(1.0)] == ["10.0.0.5:41641"]


def test_two_ipv6_addresses_of_a_subnet_are_enough() -> None:
    own = endpoints("2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1")

    assert [str(e.address.address) for e in own.current(1.0)] == ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]


def test_loopback_is_offered_only_when_there_is_nothing_else() -> None:
    assert [str(e.address) for e in endpoints("127.0.0.1", "::1").current(1.0)] == ["127.0.0.1:41641", "[::1]:41641"]
    assert [str(e.address) for e in endpoints("127.0.0.1", "10.0.0.5").current(1.0)] == ["10.0.0.5:41641"]


def test_another_network_voids_what_stun_and_the_gateway_said() -> None:
    own = endpoints("192.168.1.5")
    own.set_port_mapping(AddrPort.parse("198.51.100.1:7"))
    own.set_report(NetReport(global_ipv4=STUN, mapped_ipv4=(STUN,)), 0.0)
    own.link_changed()

    assert [str(e.address) for e in own.current(1.0)] == ["192.168.1.5:41641"]


def endpoints(*interfaces: str) -> OwnEndpoints:
    own = OwnEndpoints()
    own.set_ports(41641, 41641, fixed=True)
    own.set_interface_addresses([ip_address(text) for text in interfaces])
    return own
