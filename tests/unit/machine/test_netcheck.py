"""Netcheck by hand: whom it asks and when, and what it concludes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from random import Random

import pytest

from buri.core.addresses import AddrPort
from buri.machine.netcheck import FULL_EVERY_S, REPORT_S, STUN_S, Netcheck, NetcheckEvent, NetReport, ProbeHTTPS
from buri.machine.paths.values import SendUDP
from buri.testing.playbook import Playbook
from buri.wire import stun
from buri.wire.tailcfg.derpmap import DERPMap, DERPNode, DERPRegion

OURS = AddrPort.parse("198.51.100.1:40000")
OURS_6 = AddrPort.parse("[2001:db8:5::1]:40000")


class Check:
    """A netcheck over `regions` relays, region n at 203.0.113.n."""

    def __init__(self, regions: int = 3, *, nodes: int = 1, ipv6: bool = False) -> None:
        self.map = DERPMap(regions={n: region(n, nodes) for n in range(1, regions + 1)})
        self.ipv6 = ipv6
        self.netcheck = Netcheck(Random(1))
        self.book: Playbook[SendUDP, NetcheckEvent] = Playbook(self.netcheck)

    def start(self, *, home: int = 0, full: bool = False, gone: int = 0) -> None:
        self.netcheck.start(self.map, self.book.now, home=home, ipv6=self.ipv6, full=full, gone=gone)
        self.book.drain()

    def asked(self) -> list[AddrPort]:
        self.book.drain()
        return [sent.address for sent in self.book.sent]

    def answer(self, address: AddrPort, mapped: AddrPort = OURS) -> bool:
        """Answer the last request to that address now."""
        self.book.drain()
        sent = [sent for sent in self.book.sent if sent.address == address][-1]
        txid = stun.parse_request(sent.data, strict=True)
        return self.netcheck.handle_stun(address, stun.build_response(txid, mapped), self.book.now)

    def reports(self) -> list[NetReport]:
        self.book.drain()
        return [event for event in self.book.said if isinstance(event, NetReport)]


def region(number: int, nodes: int = 1) -> DERPRegion:
    return DERPRegion(
        region_id=number,
        nodes=[
            DERPNode(
                name=f"{number}{letter}",
                region_id=number,
                host_name=f"relay{number}{letter}.example",
                ipv4=f"203.0.113.{number + 100 * index}",
                ipv6=f"2001:db8::{number}:{index}",
            )
            for index, letter in enumerate("abc"[:nodes])
        ],
    )


def relay(number: int, node: int = 0) -> AddrPort:
    return AddrPort(IPv4Address(f"203.0.113.{number + 100 * node}"), 3478)


def test_a_full_check_asks_every_region_up_to_three_times_100_ms_apart() -> None:
    check = Check(3)
    check.start()
    assert check.asked() == [relay(1), relay(2), relay(3)]
    check.book.advance(1)

    assert check.asked() == [relay(1), relay(2), relay(3)] * 3


def test_a_region_that_answered_is_asked_no_more_and_the_check_ends_with_the_last_answer() -> None:
    check = Check(2)
    check.start()
    check.book.advance(0.020)
    assert check.answer(relay(1))
    check.book.advance(0.030)
    assert check.answer(relay(2))
    (report,) = check.reports()

    assert report.region_latency_s == {1: pytest.approx(0.020), 2: pytest.approx(0.050)}
    assert (report.udp, report.ipv4, report.ipv6, report.hard_nat) == (True, True, False, False)
    assert report.global_ipv4 == OURS
    assert check.netcheck.next_timeout() is None


def test_two_ports_seen_by_two_servers_are_a_hard_nat() -> None:
    check = Check(2)
    check.start()
    check.answer(relay(1))
    check.answer(relay(2), AddrPort(OURS.address, 40001))
    (report,) = check.reports()

    assert report.hard_nat is True
    assert report.mapped_ipv4 == (OURS, AddrPort(OURS.address, 40001))


def test_one_server_alone_cannot_tell_a_hard_nat() -> None:
    check = Check(1)
    check.start()
    check.answer(relay(1))
    (report,) = check.reports()

    assert report.hard_nat is None


def test_two_nodes_of_one_region_are_two_destinations() -> None:
    check = Check(1, nodes=2)
    check.start()
    check.answer(relay(1))
    assert check.reports() == []
    check.book.advance(0.15)
    assert relay(1, 1) in check.asked()
    check.answer(relay(1, 1), AddrPort(OURS.address, 40001))

    assert [report.hard_nat for report in check.reports()] == [True]


def test_a_silent_region_delays_the_report_a_little_once_enough_answered() -> None:
    check = Check(5)
    check.start()
    check.book.advance(0.040)
    for number in (1, 2, 3):
        check.answer(relay(number))
    check.book.advance(1)

    (report,) = check.reports()
    assert sorted(report.region_latency_s) == [1, 2, 3]


def test_a_relay_that_just_failed_is_asked_and_not_waited_for() -> None:
    check = Check(2)
    check.start(home=1, gone=1)
    assert check.asked() == [relay(1), relay(2)]
    check.answer(relay(2))
    (report,) = check.reports()
    assert list(report.region_latency_s) == [2]

    check.start(home=1, gone=1)
    check.answer(relay(1))
    check.answer(relay(2))
    assert list(check.reports()[-1].region_latency_s) == [1, 2]


def test_a_silent_region_among_two_delays_the_report_by_three_seconds() -> None:
    check = Check(2)
    check.start()
    check.answer(relay(1))
    check.book.advance(STUN_S - 0.1)
    assert check.reports() == []
    check.book.advance(0.2)

    (report,) = check.reports()
    assert list(report.region_latency_s) == [1]


def test_without_any_answer_https_is_timed_and_udp_reported_blocked() -> None:
    check = Check(2)
    check.start()
    check.book.advance(STUN_S + 0.01)
    assert check.book.said == [ProbeHTTPS(1), ProbeHTTPS(2)]
    check.netcheck.handle_https_latency(1, 0.080, check.book.now)
    check.netcheck.handle_https_latency(2, None, check.book.now)
    (report,) = check.reports()

    assert (report.udp, report.region_latency_s) == (False, {1: 0.080})


def test_a_check_without_any_network_ends_in_five_seconds() -> None:
    check = Check(2)
    check.start()
    check.book.advance(REPORT_S + 0.01)

    assert [report.region_latency_s for report in check.reports()] == [{}]
    assert check.netcheck.next_timeout() is None


def test_a_map_without_stun_is_measured_by_https_at_once() -> None:
    check = Check(1)
    assert check.map.regions is not None
    first = check.map.regions[1]
    assert first is not None
    assert first.nodes is not None
    first.nodes[0].stun_port = -1
    check.start()

    assert check.book.said == [ProbeHTTPS(1)]


def test_a_quick_check_asks_home_four_times_and_the_next_quickest_twice() -> None:
    check = Check(6)
    check.start()
    for number, delay in ((4, 0.01), (2, 0.01), (6, 0.01), (1, 0.01), (3, 0.01), (5, 0.01)):
        check.book.advance(delay)
        check.answer(relay(number))
    check.book.advance(5)
    check.book.clear()
    check.start(home=1)
    check.book.advance(2)

    counts = {number: check.asked().count(relay(number)) for number in range(1, 7)}
    assert counts == {1: 4, 4: 2, 2: 2, 6: 1, 3: 0, 5: 0}


def test_every_five_minutes_a_check_is_full_again() -> None:
    check = Check(6)
    check.start()
    for number in range(1, 7):
        check.answer(relay(number))
    check.book.advance(FULL_EVERY_S + 1)
    check.book.clear()
    check.start(home=1)

    assert len(check.asked()) == 6
    check.book.advance(10)
    assert check.reports()[-1].complete


def test_both_families_are_asked_when_the_host_has_both() -> None:
    check = Check(1, ipv6=True)
    check.start()
    six = AddrPort(IPv6Address("2001:db8::1:0"), 3478)
    assert check.asked() == [relay(1), six]
    check.book.advance(0.03)
    check.answer(six, OURS_6)
    (report,) = check.reports()

    assert (report.ipv6, report.global_ipv6) == (True, OURS_6)


def test_answers_made_up_late_or_from_elsewhere_are_not_heard() -> None:
    check = Check(2)
    check.start()
    assert not check.netcheck.handle_stun(relay(1), b"nonsense", check.book.now)
    assert not check.netcheck.handle_stun(relay(1), stun.build_response(bytes(12), OURS), check.book.now)
    txid = stun.parse_request(check.book.sent[0].data)
    assert not check.netcheck.handle_stun(relay(2), stun.build_response(txid, OURS), check.book.now)
    check.book.advance(10)
    assert not check.netcheck.handle_stun(relay(2), stun.build_response(txid, OURS), check.book.now)

    assert [report.udp for report in check.reports()] == [False]


def test_a_second_start_does_not_disturb_a_running_check() -> None:
    check = Check(1)
    check.start()
    check.start()

    assert check.asked() == [relay(1)]


def test_the_report_becomes_the_net_info_that_control_wants() -> None:
    report = NetReport(
        udp=True,
        ipv4=True,
        hard_nat=True,
        region_latency_s={1: 0.02, 2: 0.03},
        region_latency_ipv4_s={1: 0.02, 2: 0.03},
    )
    info = report.net_info(home=1, os_has_ipv6=True)

    assert (info.mapping_varies_by_dest_ip, info.working_udp, info.working_ipv6) == (True, True, False)
    assert (info.preferred_derp, info.derp_latency) == (1, {"1-v4": 0.02, "2-v4": 0.03})
