"""Two engines in two namespaces: packets of every size, both families, every byte, offloads on and off."""

from __future__ import annotations

import signal

import pytest

from buri.testing.enginelab import ALL_OFF, counters, two_sides
from buri.testing.lab import Lab
from buri.testing.traffic import send_checked, start_sink

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]


@pytest.mark.parametrize("offloads", [{}, ALL_OFF], ids=["offloads on", "offloads off"])
def test_pings_and_every_byte_of_tcp_pass_both_ways(lab: Lab, offloads: dict[str, bool]) -> None:
    one, two = two_sides(lab)
    first, second = one.start(one.config(two, offloads=offloads)), two.start(two.config(one, offloads=offloads))
    one.host.run("ping", "-c2", "-i0.2", "-W3", two.ipv4)
    one.host.run("ping", "-6", "-c2", "-i0.2", "-W3", two.ipv6)
    # The largest packet that fits the interface's MTU: 1280 bytes with its headers.
    one.host.run("ping", "-c2", "-i0.2", "-W3", "-Mdo", "-s1252", two.ipv4)
    two.host.run("ping", "-6", "-c2", "-i0.2", "-W3", "-Mdo", "-s1232", one.ipv6)
    for address in (two.ipv4, two.ipv6):
        start_sink(two.host, address, 7000 + len(address))
        send_checked(one.host, address, 7000 + len(address), 20_000_000)
    start_sink(one.host, one.ipv4, 7100)
    send_checked(two.host, one.ipv4, 7100, 20_000_000)
    first.expect("HandshakeDone")
    first.expect("PeerActive")
    for process in (first, second):
        seen = counters(process)
        assert not {name for name in seen if name.startswith("drop_") and name != "drop_in_filter_scope"} - {
            "drop_out_no_peer"
        }, seen
        assert seen["tun_rx_packets"] > 10_000
        if offloads:
            assert seen["tun_rx_packets"] == seen["tun_rx_reads"]
            assert seen["tun_tx_packets"] == seen["tun_tx_writes"]
            assert seen["udp_rx_datagrams"] == seen["udp_rx_messages"]
        else:
            assert seen["tun_rx_packets"] > 4 * seen["tun_rx_reads"]
            assert seen["tun_tx_packets"] > 4 * seen["tun_tx_writes"]
            assert seen["udp_rx_datagrams"] > 4 * seen["udp_rx_messages"]


def test_a_path_by_ipv6_carries_as_well(lab: Lab) -> None:
    one, two = two_sides(lab)
    one.start(one.config(two, way={"udp": "[2001:db8::2]:41641"}))
    two.start(two.config(one, way={"udp": "[2001:db8::1]:41641"}))
    start_sink(two.host, two.ipv4, 7000)
    send_checked(one.host, two.ipv4, 7000, 5_000_000)


def test_a_path_without_gso_crosses_a_smaller_link(lab: Lab) -> None:
    one, two = two_sides(lab)
    for side in (one, two):
        side.host.ip("link", "set", "eth0", "mtu", "1280")
    one.start(one.config(two, way={"gso": False}))
    two.start(two.config(one, way={"gso": False}))
    start_sink(two.host, two.ipv4, 7000)
    send_checked(one.host, two.ipv4, 7000, 5_000_000)


def test_a_link_too_small_for_whole_packets_is_told_as_a_path_fault(lab: Lab) -> None:
    one, two = two_sides(lab)
    one.host.ip("link", "set", "eth0", "mtu", "1280")
    first = one.start(one.config(two))
    two.start(two.config(one))
    one.host.run("ping", "-c1", "-W3", two.ipv4)
    one.host.run("ping", "-c1", "-W1", "-Mdo", "-s1252", two.ipv4, check=False)
    first.expect(r"PathFault\(.*errno=90\)")


def test_packets_for_a_peer_without_a_path_are_counted_and_wake_the_path_machine(lab: Lab) -> None:
    one, two = two_sides(lab)
    first = one.start(one.config(two, way={"udp": None}))
    one.host.run("ping", "-c2", "-i0.2", "-W1", two.ipv4, check=False)
    first.expect("PeerActive")
    assert counters(first)["drop_out_no_path"] >= 1  # the newest one waits for a way


def test_what_its_sender_does_not_own_is_dropped(lab: Lab) -> None:
    one, two = two_sides(lab)
    one.start(one.config(two))
    second = two.start(two.config(one))
    one.host.run("ping", "-c1", "-W3", two.ipv4)
    one.host.ip("addr", "add", "100.64.0.99/32", "dev", "io1")
    lost = one.host.run("ping", "-c2", "-i0.2", "-W1", "-I", "100.64.0.99", two.ipv4, check=False)
    assert lost.returncode != 0
    assert counters(second)["drop_in_wrong_source"] == 2


def test_sockets_are_rebound_under_traffic_and_sessions_go_on(lab: Lab) -> None:
    one, two = two_sides(lab)
    first = one.start(one.config(two))
    two.start(two.config(one))
    start_sink(two.host, two.ipv4, 7000)
    send_checked(one.host, two.ipv4, 7000, 5_000_000)
    begin = len(first.lines)
    first.popen.send_signal(signal.SIGUSR1)
    first.expect(r"Bound\(port_ipv4=41641, port_ipv6=41641\)", start=begin)
    send_checked(one.host, two.ipv4, 7000, 5_000_000)
    assert counters(first)["handshakes_done"] == 1


def test_a_deleted_interface_ends_the_engine_with_a_sentence(lab: Lab) -> None:
    one, two = two_sides(lab)
    process = one.start(one.config(two))
    one.host.ip("link", "del", "io1")
    process.expect(r"Fatal\(reason='The interface io1 is gone")
